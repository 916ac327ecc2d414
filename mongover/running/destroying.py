"""What an operation would take away that nothing brings back, as it stands in the database.

Reads only, and never in the session of a transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mongover.history.effects import Thing
from mongover.operations.bulk.ranges import both
from mongover.operations.collections import DropCollection
from mongover.operations.documents import Delete, RemoveField
from mongover.operations.index import reference_text
from mongover.operations.index_builds import find_index
from mongover.operations.indexes import DropIndex

if TYPE_CHECKING:
    from mongover.operations.base import Document, Operation

Destroying = DropCollection | DropIndex | RemoveField | Delete
DESTROYING: Final = (DropCollection, DropIndex, RemoveField, Delete)

_PATIENCE_MS: Final = 2_000  # for a count, which only says how much
_OUT_OF_TIME: Final = 50
_NO_NAMESPACE: Final = 26


@dataclass(frozen=True, slots=True)
class Loss:
    """What would go: a collection, a view, an index, a field, or documents of a collection.

    `documents` is about how many are concerned; None where that is not a number or not known.
    """

    what: str
    thing: Thing
    documents: int | None = None

    def sentence(self) -> str:
        """`the collection users with 500 documents`."""
        if self.what == "documents":
            return f"{_counted(self.documents)} of {self.thing.collection}"
        named = f"the {self.what} {self.thing.label}"
        if self.what in {"view", "index"}:
            return named
        word = "with" if self.what == "collection" else "of"
        return f"{named} {word} {_counted(self.documents)}"


def _counted(documents: int | None) -> str:
    if documents is None:
        return "many documents"
    return f"{documents:,} document{'' if documents == 1 else 's'}"


def loss_of(db: Any, operation: Operation) -> Loss | None:
    """What an operation would destroy now; None where it would find nothing."""
    match operation:
        case DropCollection():
            return _dropped(db, operation.collection)
        case DropIndex():
            return _dropped_index(db, operation)
        case RemoveField():
            found = both(operation.filter, {operation.field: {"$exists": True}})
            count = _count(db, operation.collection, found, {})
            thing = Thing(operation.collection, "field", operation.field)
            return Loss("field", thing, count) if count != 0 else None
        case Delete():
            more = {"collation": operation.collation} if operation.collation else {}
            count = _count(db, operation.collection, operation.filter, more)
            return Loss("documents", Thing(operation.collection), count) if count != 0 else None
    return None


def _dropped(db: Any, name: str) -> Loss | None:
    if name not in db.list_collection_names(filter={"name": name}):
        return None
    if name in db.list_collection_names(filter={"name": name, "type": "view"}):
        return Loss("view", Thing(name))
    count = _count(db, name, {}, {})
    return Loss("collection", Thing(name), count) if count != 0 else None


def _dropped_index(db: Any, operation: DropIndex) -> Loss | None:
    found = find_index(indexes_of(db, operation.collection), operation.index)
    if found is None:
        return None
    return Loss("index", Thing(operation.collection, "index", str(found["name"])))


def indexes_of(db: Any, collection: str) -> list[Document]:
    """The indexes of a collection; of one that is not there, none."""
    from pymongo.errors import OperationFailure

    try:
        return [dict(spec) for spec in db[collection].list_indexes()]
    except OperationFailure as error:
        if error.code != _NO_NAMESPACE:
            raise
        return []


def _count(db: Any, name: str, query: Document, more: Document) -> int | None:
    """About how many documents a query finds: 0 only where there is none, None where many."""
    from pymongo.errors import OperationFailure

    collection = db[name]
    if collection.find_one(query, {"_id": 1}, **more) is None:
        return 0
    try:
        if not query:
            return max(1, int(collection.estimated_document_count(maxTimeMS=_PATIENCE_MS)))
        return max(1, int(collection.count_documents(query, maxTimeMS=_PATIENCE_MS, **more)))
    except OperationFailure as error:
        if error.code != _OUT_OF_TIME:
            raise
        return None


def named_thing(operation: Destroying) -> Thing:
    """What an operation takes away, as its arguments name it."""
    if isinstance(operation, DropIndex):
        return Thing(operation.collection, "index", reference_text(operation.index))
    if isinstance(operation, RemoveField):
        return Thing(operation.collection, "field", operation.field)
    return Thing(operation.collection)
