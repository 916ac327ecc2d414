"""Verbs for documents: insert, update, delete, and fields that come, go and change their names.

All of them work on the server; only `insert` sends documents, in batches.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from mongover.errors import OperationFailed
from mongover.operations.arguments import (
    Source,
    check_choice,
    check_name,
    check_path,
    nearest,
    one_line,
    plain,
)
from mongover.operations.base import Advance, Document, Operation, Outcome, Target
from mongover.operations.bulk.ranges import BY_ID, both
from mongover.operations.bulk.server_side import Change, deleting, perform, updating
from mongover.operations.duplicates import shown
from mongover.operations.naming import before_it_goes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pymongo import InsertOne, ReplaceOne, UpdateOne

    from mongover.operations.bulk.pace import Pace

    Write = InsertOne[Document] | ReplaceOne[Document] | UpdateOne

BATCH = 1_000
ON_EXISTING = ("keep", "replace", "update")
ON_TARGET = ("refuse", "skip", "overwrite")
_NOT_REPEATABLE = frozenset({"$inc", "$mul", "$push", "$pop", "$bit"})
_OPERATORS = _NOT_REPEATABLE | {
    "$set",
    "$unset",
    "$setOnInsert",
    "$rename",
    "$min",
    "$max",
    "$currentDate",
    "$addToSet",
    "$pull",
    "$pullAll",
}
_TAKING = frozenset({"$unset", "$rename", "$pull", "$pullAll"})
_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Insert(Operation):
    """Documents that shall be there, such as seeds.

    A document is found by `key` (fields), else by its `_id`; what is there already is kept,
    replaced, or updated with the given fields, as `on_existing` says. Documents without either
    are inserted as they are, and then the revision cannot be repeated.
    `documents` may be a generator; at most `BATCH` of them are held at once.
    """

    collection: str
    documents: Iterable[Mapping[str, Any]]
    key: tuple[str, ...] = ()
    on_existing: str = "keep"

    verb: ClassVar[str] = "insert"

    @classmethod
    def of(
        cls,
        collection: str,
        documents: Any,
        *,
        key: str | Iterable[str] | None,
        on_existing: str,
    ) -> Insert:
        """From the arguments of `op.insert`, checked; a single document is a list of one."""
        check_name(collection)
        check_choice("on_existing", on_existing, ON_EXISTING)
        fields = () if key is None else (key,) if isinstance(key, str) else tuple(key)
        for name in fields:
            check_path(name, what="a key")
        if isinstance(documents, dict):
            documents = [documents]
        if isinstance(documents, (str, bytes)) or not hasattr(documents, "__iter__"):
            raise OperationFailed(
                f"insert into {collection} takes documents, not a {type(documents).__name__}",
                hint='op.insert("roles", [{"_id": "admin"}])',
            )
        return cls(collection, documents, fields, on_existing)

    @property
    def total(self) -> int | None:
        """How many documents there are, where that is known before."""
        return len(self.documents) if isinstance(self.documents, (list, tuple)) else None

    @property
    def repeatable(self) -> bool:
        """With a key always; without one where every document has its `_id`.

        Documents of a generator are not known before; `apply` tells the journal as they come.
        """
        if self.key or self.total is None:
            return True
        return all("_id" in document for document in self.documents)

    @property
    def destructive(self) -> bool:
        """Unless what is there is kept."""
        return self.on_existing != "keep"

    def describe(self) -> str:
        """`insert 3 documents into roles`."""
        if self.total is None:
            return one_line(f"insert documents into {self.collection}")
        noun = "document" if self.total == 1 else "documents"
        return one_line(f"insert {self.total:,} {noun} into {self.collection}")

    def arguments(self) -> tuple[list[Any], Mapping[str, Any]]:
        """The documents of a generator are rendered as the name `documents`."""
        documents = Source("documents") if self.total is None else self.documents
        keyword: dict[str, Any] = {}
        if self.key:
            keyword["key"] = self.key[0] if len(self.key) == 1 else self.key
        if self.on_existing != "keep":
            keyword["on_existing"] = self.on_existing
        return [self.collection, documents], keyword

    def to_json(self) -> dict[str, Any]:
        """The operation as a JSON document; documents of a generator are null."""
        return {
            "operation": self.verb,
            "collection": self.collection,
            "documents": None if self.total is None else plain(self.documents),
            "key": list(self.key),
            "on_existing": self.on_existing,
        }

    def identity(self) -> dict[str, Any]:
        """The documents by a digest: they may be many."""
        if not isinstance(self.documents, (list, tuple)):
            return self.to_json()
        bare = replace(self, documents=[]).to_json()
        return {**bare, "documents": _digest(self.documents)}

    def apply(self, target: Target) -> Outcome:
        """Send the documents in batches."""
        done = changed = 0
        for batch in _batches(self.documents):
            target.journal.check()
            if self._can_collide(target, batch):
                for number, document in enumerate(batch, done + 1):
                    self._check_fields(document, number)
                changed += _insert_missing(target.db[self.collection], batch)
            else:
                changed += self._write_each(target, batch, done)
            done += len(batch)
            target.journal.progress(self, Advance(done, self.total))
        return "done" if changed else "unchanged"

    def _can_collide(self, target: Target, batch: list[Document]) -> bool:
        """Whether what is there already can be left to the index of `_id`.

        That is ten times as fast as to look for each; but in a transaction a collision ends it.
        """
        if target.transaction or self.key or self.on_existing != "keep":
            return False
        return all("_id" in document for document in batch)

    def _write_each(self, target: Target, batch: list[Document], done: int) -> int:
        writes = [self._write(doc, number) for number, doc in enumerate(batch, done + 1)]
        self._say_unrepeatable(target, batch)
        result = target.db[self.collection].bulk_write(writes, ordered=True)
        return int(result.inserted_count + result.upserted_count + result.modified_count)

    def _say_unrepeatable(self, target: Target, batch: list[Document]) -> None:
        if target.transaction or self.key or all("_id" in document for document in batch):
            return
        target.journal.unrepeatable(self.describe())

    def _write(self, document: Document, number: int) -> Write:
        from pymongo import (
            InsertOne,
            ReplaceOne,
            UpdateOne,
        )

        if not self.key and "_id" not in document:
            return InsertOne(document)
        found = self._filter(document, number)
        if self.on_existing == "replace":
            return ReplaceOne(found, document, upsert=True)
        self._check_fields(document, number)
        if self.on_existing == "keep":
            return UpdateOne(found, {"$setOnInsert": document}, upsert=True)
        fields = {name: value for name, value in document.items() if name != "_id"}
        change: Document = {"$set": fields} if fields else {}
        if "_id" in document or not change:
            change["$setOnInsert"] = {"_id": document["_id"]}
        return UpdateOne(found, change, upsert=True)

    def _filter(self, document: Document, number: int) -> Document:
        names = self.key or ("_id",)
        missing = [name for name in names if not _has(document, name)]
        if missing:
            raise OperationFailed(
                f"document {number} for {self.collection} has no {', '.join(missing)},"
                " which is its key",
                hint="give it that field, or choose another key",
            )
        # $eq keeps a value that is a document or a pattern from being taken for an operator.
        return {name: {"$eq": _value(document, name)} for name in names}

    def _check_fields(self, document: Document, number: int) -> None:
        odd = next((name for name in document if "." in name or name.startswith("$")), None)
        if odd is not None:
            raise OperationFailed(
                f"document {number} for {self.collection} has the field {odd!r},"
                " which an update would take apart",
                hint='on_existing="replace" stores such a field as it is',
            )


def _digest(documents: Sequence[Mapping[str, Any]]) -> Any:
    """One digest of all documents; in plain JSON where BSON cannot hold them."""
    from bson import encode

    digest = hashlib.sha256()
    try:
        for document in documents:
            digest.update(encode(document))
    except Exception:  # noqa: BLE001 - whatever is wrong with them, sending them will say it
        return plain(documents)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Update(Operation):
    """A change of all documents that a filter finds: update operators, or a pipeline."""

    collection: str
    filter: Document
    update: Document | list[Document]
    array_filters: list[Document] | None = None
    collation: dict[str, Any] | None = None
    pace: Pace | None = None

    verb: ClassVar[str] = "update"

    @property
    def repeatable(self) -> bool:
        """With operators whose second use changes nothing; never with a pipeline."""
        return isinstance(self.update, dict) and not _NOT_REPEATABLE & self.update.keys()

    @property
    def destructive(self) -> bool:
        """Where its operators take fields or elements away."""
        return isinstance(self.update, dict) and bool(_TAKING & self.update.keys())

    def describe(self) -> str:
        """`update users.phone`, or `update users` where fields cannot be named."""
        if isinstance(self.update, list):
            return one_line(f"update {self.collection} by a pipeline")
        names = [name for change in self.update.values() for name in change]
        return one_line(
            f"update {self.collection}.{names[0]}" if len(names) == 1 else self._many(names)
        )

    def _many(self, names: list[str]) -> str:
        return f"update {len(names)} fields of {self.collection}"

    def exactly_once(self, target: Target) -> bool:
        """Where there are transactions; with a collation in one command, which cannot tell."""
        return target.transaction or (target.transactions and self.collation is None)

    def apply(self, target: Target) -> Outcome:
        """One command for few documents, ranges of `_id` for many."""
        change = Change(
            self.collection,
            self.filter,
            updating(
                self.collection,
                self.update,
                arrayFilters=self.array_filters,
                collation=self.collation,
            ),
            single=self.collation is not None,
        )
        return perform(self, target, change, self.pace)


@dataclass(frozen=True, slots=True)
class Delete(Operation):
    """All documents that a filter finds go.

    The downgrade of a stamped revision refuses that, unless `even_if_not_ours` is said.
    """

    collection: str
    filter: Document
    collation: dict[str, Any] | None = None
    pace: Pace | None = None
    even_if_not_ours: bool = False

    verb: ClassVar[str] = "delete"

    @property
    def repeatable(self) -> bool:
        """What is gone stays gone."""
        return True

    @property
    def destructive(self) -> bool:
        """Documents are gone."""
        return True

    def describe(self) -> str:
        """`delete users by isActive`; the values of the filter are not shown."""
        names = ", ".join(self.filter)
        return one_line(
            f"delete {self.collection} by {names}" if names else f"delete all {self.collection}"
        )

    def apply(self, target: Target) -> Outcome:
        """One command for few documents, ranges of `_id` for many."""
        change = Change(
            self.collection,
            self.filter,
            deleting(self.collection, collation=self.collation),
            settles=True,
            single=self.collation is not None,
        )
        return perform(self, target, change, self.pace)


@dataclass(frozen=True, slots=True)
class AddField(Operation):
    """A field with one value for all documents that lack it; what is there stays."""

    collection: str
    field: str
    value: Any
    filter: Document | None = None
    pace: Pace | None = None

    verb: ClassVar[str] = "add_field"

    @property
    def repeatable(self) -> bool:
        """A second time finds no document that lacks it."""
        return True

    def describe(self) -> str:
        """`add field users.phone`."""
        return one_line(f"add field {self.collection}.{self.field}")

    def apply(self, target: Target) -> Outcome:
        """Over the documents without the field; in ranges of `_id` where they are many."""
        lacking = both(self.filter, {self.field: {"$exists": False}})
        command = updating(self.collection, {"$set": {self.field: self.value}})
        change = Change(self.collection, lacking, command, settles=True)
        return perform(self, target, change, self.pace)


@dataclass(frozen=True, slots=True)
class RemoveField(Operation):
    """A field goes from all documents that have it.

    A downgrade refuses that for one that its upgrade found, unless `even_if_not_ours` is said.
    """

    collection: str
    field: str
    filter: Document | None = None
    pace: Pace | None = None
    even_if_not_ours: bool = False

    verb: ClassVar[str] = "remove_field"

    @property
    def repeatable(self) -> bool:
        """What is gone stays gone."""
        return True

    @property
    def destructive(self) -> bool:
        """The values are gone."""
        return True

    def describe(self) -> str:
        """`remove field users.phone`."""
        return one_line(f"remove field {self.collection}.{self.field}")

    def apply(self, target: Target) -> Outcome:
        """Over the documents with the field; in ranges of `_id` where they are many."""
        having = both(self.filter, {self.field: {"$exists": True}})
        before_it_goes(target, self.collection, self.field, having)
        command = updating(self.collection, {"$unset": {self.field: ""}})
        change = Change(self.collection, having, command, settles=True)
        return perform(self, target, change, self.pace)


@dataclass(frozen=True, slots=True)
class RenameField(Operation):
    """A field gets another name.

    Where a document has both, `on_existing` decides before anything is changed: `refuse` raises,
    `skip` leaves those documents as they are, `overwrite` lets the old field's value win.
    """

    collection: str
    field: str
    to: str
    on_existing: str = "refuse"
    pace: Pace | None = None

    verb: ClassVar[str] = "rename_field"

    @classmethod
    def of(
        cls, collection: str, field: str, to: str, *, on_existing: str, pace: Pace | None = None
    ) -> RenameField:
        """From the arguments of `op.rename_field`, checked."""
        check_name(collection)
        check_path(field)
        check_path(to)
        check_choice("on_existing", on_existing, ON_TARGET)
        if f"{field}.".startswith(f"{to}.") or f"{to}.".startswith(f"{field}."):
            raise OperationFailed(
                f"{field!r} cannot be renamed to {to!r}", hint="neither may lie in the other"
            )
        if "_id" in {field, to}:
            raise OperationFailed("_id cannot be renamed, nor can a field become it")
        return cls(collection, field, to, on_existing, pace)

    @property
    def repeatable(self) -> bool:
        """A second time finds no document with the old name."""
        return True

    @property
    def destructive(self) -> bool:
        """The old name is gone, and may be taken again."""
        return True

    def describe(self) -> str:
        """`rename field users.phone to mobile`."""
        return one_line(f"rename field {self.collection}.{self.field} to {self.to}")

    def reverse(self) -> Operation | None:
        """The way back, except where values were overwritten."""
        if self.on_existing == "overwrite":
            return None
        return RenameField(self.collection, self.to, self.field, self.on_existing, self.pace)

    def apply(self, target: Target) -> Outcome:
        """Over those with the old name; a target that appears meanwhile is never lost."""
        found: Document = {self.field: {"$exists": True}}
        if self.on_existing != "overwrite":
            if self.on_existing == "refuse":
                self._check_both(target)
            found[self.to] = {"$exists": False}
        before_it_goes(target, self.collection, self.field, found)
        command = updating(self.collection, {"$rename": {self.field: self.to}})
        change = Change(self.collection, found, command, settles=True)
        return perform(self, target, change, self.pace)

    def _check_both(self, target: Target) -> None:
        both = {self.field: {"$exists": True}, self.to: {"$exists": True}}
        collection = target.db[self.collection]
        ids = [row["_id"] for row in collection.find(both, {"_id": 1}).limit(_SAMPLES)]
        if not ids:
            return
        count = collection.count_documents(both)
        noun = "document has" if count == 1 else "documents have"
        raise OperationFailed(
            f"{count:,} {noun} both {self.field} and {self.to} in"
            f" {target.namespace(self.collection)}",
            notes=(f"for example _id {', '.join(shown(value) for value in ids)}",),
            hint='say on_existing="skip" or on_existing="overwrite"',
            after="no field was renamed.",
        )


# -- checks and small parts -------------------------------------------------------------------


def check_filter(value: Any, *, verb: str) -> Document:
    """A filter that was meant: a dict."""
    if isinstance(value, dict):
        return value
    raise OperationFailed(
        f"{verb} takes a filter, not a {type(value).__name__}", hint="{} means every document"
    )


def check_update(update: Any) -> Document | list[Document]:
    """Update operators or a pipeline.

    Raises:
        OperationFailed: For a document without operators, an unknown operator, an empty change.
    """
    if isinstance(update, (list, tuple)) and update:
        return list(update)
    if not isinstance(update, dict) or not update:
        raise OperationFailed(
            "update takes operators or a pipeline", hint='{"$set": {"active": True}}'
        )
    for name, change in update.items():
        if name not in _OPERATORS:
            raise OperationFailed(
                f"update has no operator {name!r}",
                hint=nearest(name, _OPERATORS) or 'write {"$set": {...}} to set fields',
            )
        if not isinstance(change, dict) or not change:
            raise OperationFailed(f"{name} of an update needs fields")
    return update


def _insert_missing(collection: Any, batch: list[Document]) -> int:
    """Insert the documents whose `_id` is not there yet; tells how many."""
    from pymongo.errors import BulkWriteError

    try:
        return len(collection.insert_many(batch, ordered=False).inserted_ids)
    except BulkWriteError as error:
        found = error.details
        others = [each for each in found["writeErrors"] if not _is_there(each)]
        if others or found["writeConcernErrors"]:
            raise BulkWriteError({**found, "writeErrors": others}) from error
        return int(found["nInserted"])


def _is_there(error: Mapping[str, Any]) -> bool:
    return error["code"] == 11000 and error.get("keyPattern") == BY_ID  # noqa: PLR2004 - DuplicateKey


def _batches(documents: Iterable[Mapping[str, Any]]) -> Iterator[list[Document]]:
    rest = iter(documents)
    while batch := [_document(item) for item in islice(rest, BATCH)]:
        yield batch


def _document(item: Any) -> Document:
    # A copy: pymongo adds an _id to what it inserts, and the operation is a value.
    if hasattr(item, "items"):
        return dict(item)
    raise OperationFailed(f"insert takes documents, not a {type(item).__name__}", hint="give dicts")


def _has(document: Mapping[str, Any], path: str) -> bool:
    value: Any = document
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _value(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for part in path.split("."):
        value = value[part]
    return value
