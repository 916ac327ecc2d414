"""Takes note of what a revision makes, and keeps its downgrade from destroying what it did not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mongover.errors import NotOurs
from mongover.history.effects import (
    CREATED,
    FOUND,
    OTHER,
    REMOVED,
    RENAMED,
    Ours,
    Thing,
    effect,
    why_not,
)
from mongover.operations.backup import RestoreBackup
from mongover.operations.base import fresh_context
from mongover.operations.collections import (
    CreateCollection,
    CreateView,
    DropCollection,
    RenameCollection,
)
from mongover.operations.copying import Copy
from mongover.operations.documents import AddField, Delete, Insert
from mongover.operations.index import reference_text
from mongover.operations.indexes import CreateIndex, CreateIndexes, DropIndex, ReplaceIndex
from mongover.running.destroying import DESTROYING, indexes_of, loss_of

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterator

    from mongover.history.effects import Effect
    from mongover.operations.base import Operation
    from mongover.running.destroying import Destroying, Loss

_OURS: Final = __package__
_LOOK_MS: Final = 1_000
_VERBS: Final = {
    "collection": 'op.drop_collection("{0}", even_if_not_ours=True)',
    "view": 'op.drop_collection("{0}", even_if_not_ours=True)',
    "index": 'op.drop_index("{0}", "{1}", even_if_not_ours=True)',
    "field": 'op.remove_field("{0}", "{1}", even_if_not_ours=True)',
    "documents": 'op.delete("{0}", …, even_if_not_ours=True)',
}


class Ownership:
    """One attempt at a revision: told of every operation before and after it.

    Args:
        db: The database.
        revision: The id.
        ours: What is the revision's own when the attempt begins.
        undoes: The target of the downgrade, or None for an upgrade, which may take away anything.
        allowed: Collections (or `collection.name`) that may be destroyed without being ours.
        own: The collections of mongover itself.
    """

    def __init__(
        self,
        db: Any,
        revision: str,
        ours: Ours,
        *,
        undoes: str | None = None,
        allowed: Collection[str] = (),
        own: Container[str] = (),
    ) -> None:
        self._db = db
        self._revision = revision
        self._first = ours
        self._undoes = undoes
        self._allowed = allowed
        self._own = own
        self.reset()

    def reset(self) -> None:
        """Forget the attempt so far: its transaction was undone."""
        self.ours = self._first.copy()
        self._absent: set[str] = set()
        self._indexes: dict[str, set[str]] = {}
        self._before: frozenset[str] | None = None

    @property
    def effects(self) -> tuple[Effect, ...] | None:
        """What all attempts did so far; None where the record keeps none."""
        return tuple(self.ours.effects) if self.ours.kept else None

    def begin(self, operation: Operation) -> None:
        """An operation is about to run.

        Raises:
            NotOurs: it would destroy what the history did not make; nothing was sent.
        """
        if self._undoes is not None and isinstance(operation, DESTROYING):
            self._check(operation, self._undoes)
        if not type(operation).__module__.startswith(_OURS):
            self.escape()
        made = _may_make(operation)
        if made and not self.ours.has_made(Thing(made)) and not self._exists(made):
            self._absent.add(made)
        if isinstance(operation, CreateIndexes) and made not in self._absent:
            self._indexes[made] = self._index_names(made)

    def escape(self) -> None:
        """What follows is not told of: note which collections there are before it."""
        if self._before is None:
            self._before = frozenset(fresh_context(self._db.list_collection_names))
        self.ours.add({"did": OTHER})

    def finished(self, operation: Operation, outcome: str) -> None:
        """An operation ended as `done`, `unchanged` or `warning`."""
        for each in self._effects(operation, outcome):
            self.ours.add(each)
            if self._before is not None and "to" in each:
                self._before |= {each["to"]}  # not new, though its name is

    def settle(self) -> None:
        """Note the collections that came to be while nobody was told of it."""
        if self._before is None:
            return
        there = fresh_context(self._db.list_collection_names)
        for name in sorted(set(there) - self._before):
            if name not in self._own and not name.startswith("system."):
                self.ours.add(effect(CREATED, Thing(name)))
        self._before |= set(there)

    # -- what may go -----------------------------------------------------------------------------

    def _check(self, operation: Destroying, target: str) -> None:
        if operation.even_if_not_ours or operation.collection in self._allowed:
            return
        self.settle()
        loss, why = look(self._db, operation, self.ours)
        if loss is not None and why and not may_go(loss.thing, self._allowed):
            raise refusal(self._revision, loss, why, target, after="it was left as it is.")

    # -- what was made ---------------------------------------------------------------------------

    def _effects(self, operation: Operation, outcome: str) -> Iterator[Effect]:
        did = {"done": CREATED, "unchanged": FOUND}.get(outcome)
        if did is None:
            return
        made = _may_make(operation)
        if did == CREATED and made in self._absent:
            self._absent.discard(made)
            yield effect(CREATED, Thing(made))
        if isinstance(operation, AddField):
            yield from self._field(operation, did)
        elif isinstance(operation, CreateIndexes):
            yield from self._several(operation, did)
        elif isinstance(operation, DropIndex):
            yield from self._index(operation, did)
        else:
            yield from _plain_effects(operation, did)

    def _field(self, operation: AddField, did: str) -> Iterator[Effect]:
        thing = Thing(operation.collection, "field", operation.field)
        if did == CREATED or self._has_field(operation):
            yield effect(did, thing)

    def _several(self, operation: CreateIndexes, did: str) -> Iterator[Effect]:
        before = self._indexes.pop(operation.collection, set())
        for index in operation.indexes:
            found = did == FOUND or index.name in before
            thing = Thing(operation.collection, "index", index.name)
            yield effect(FOUND if found else CREATED, thing)

    def _index(self, operation: DropIndex, did: str) -> Iterator[Effect]:
        text = reference_text(operation.index)
        for name in dict.fromkeys((text, f"{text}_1")):  # a text may be the only field, too
            thing = Thing(operation.collection, "index", name)
            if did == CREATED and self.ours.knows(thing):
                yield effect(REMOVED, thing)

    # -- looks at the database -------------------------------------------------------------------

    def _exists(self, name: str) -> bool:
        names = fresh_context(lambda: self._db.list_collection_names(filter={"name": name}))
        return name in names

    def _index_names(self, collection: str) -> set[str]:
        specs = fresh_context(lambda: indexes_of(self._db, collection))
        return {str(spec["name"]) for spec in specs}

    def _has_field(self, operation: AddField) -> bool:
        """Whether it left all as it was because the field is there, not for lack of documents."""
        from pymongo.errors import (
            ExecutionTimeout,
            PyMongoError,
        )

        having = {operation.field: {"$exists": True}}
        collection = self._db[operation.collection]
        try:
            found = fresh_context(
                lambda: collection.find_one(having, {"_id": 1}, max_time_ms=_LOOK_MS)
            )
        except ExecutionTimeout:
            return False
        except PyMongoError:  # the operation is done, so this must not fail it
            return True
        return found is not None


def look(db: Any, operation: Destroying, ours: Ours) -> tuple[Loss | None, str]:
    """What an operation would destroy now, and why that is not the revision's, if it is not.

    Documents may be deleted by any revision whose upgrade ran: it is their rows, not a collection.
    """
    if isinstance(operation, Delete) and not ours.adopted:
        return fresh_context(lambda: loss_of(db, operation)), ""
    loss = fresh_context(lambda: loss_of(db, operation))
    return loss, "" if loss is None else why_not(ours, loss.thing)


def may_go(thing: Thing, allowed: Collection[str]) -> bool:
    """Whether somebody said that a thing, or all in its collection, may be destroyed."""
    return thing.collection in allowed or thing.label in allowed


def refusal(revision: str, loss: Loss, why: str, target: str, *, after: str) -> NotOurs:
    """The error for what a downgrade would destroy without having made it."""
    reasons = {
        "adopted": f"{revision} was stamped, and its upgrade never ran here",
        "found": f"its upgrade found {'them' if loss.what == 'documents' else 'it'} there",
        "foreign": "no applied revision made it",
    }
    verb = _VERBS[loss.what].format(loss.thing.collection, loss.thing.name)
    return NotOurs(
        f"the downgrade of {revision} would destroy {loss.sentence()}: {reasons[why]}",
        hint=f"if it shall go: mongover downgrade {target} --allow-data-loss"
        f" {loss.thing.collection}, or {verb} in the file; if it shall stay:"
        f' mongover stamp {target} --reason "…" notes the downgrade without running it',
        after=after,
    )


def _may_make(operation: Operation) -> str:
    """The collection that an operation makes by the way where it is not there."""
    if isinstance(operation, Copy):
        return operation.to
    if isinstance(operation, (Insert, RestoreBackup, CreateIndex, CreateIndexes, ReplaceIndex)):
        return operation.collection
    return ""


def _plain_effects(operation: Operation, did: str) -> Iterator[Effect]:
    match operation:
        case CreateCollection() | CreateView():
            yield effect(did, Thing(operation.collection))
        case CreateIndex() | ReplaceIndex():
            yield effect(did, Thing(operation.collection, "index", operation.index.name))
        case RenameCollection() if did == CREATED:
            yield effect(RENAMED, Thing(operation.collection), to=operation.to)
        case DropCollection() if did == CREATED:
            yield effect(REMOVED, Thing(operation.collection))
        case _:
            return


def effects_foreseen(operation: Operation) -> tuple[Effect, ...]:
    """What an operation will have done when it is not in vain; for a look ahead."""
    return tuple(_plain_effects(operation, CREATED))
