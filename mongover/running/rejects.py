"""Documents that a transform kept aside: listed, and tried again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import OperationFailed
from mongover.history.record import Direction
from mongover.operations.arguments import plain
from mongover.operations.bulk.batches import SmallerBatch, start_transaction
from mongover.operations.bulk.checkpoints import Span
from mongover.operations.bulk.ranges import both
from mongover.operations.bulk.worker import Transforming
from mongover.operations.transform import Transform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from mongover.operations import Operation

_ATTEMPTS: Final = 5
_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Rejected:
    """One document that could not be transformed, and why; no values of it but its `_id`."""

    revision: str
    collection: str
    function: str
    document: Any
    kind: str
    code: int | None
    message: str
    at: datetime | None

    def to_json(self) -> dict[str, Any]:
        """The value as `--json` shows it."""
        return {
            "revision": self.revision,
            "collection": self.collection,
            "function": self.function,
            "document": plain(self.document),
            "error": {"type": self.kind, "code": self.code, "message": self.message},
            "at": None if self.at is None else self.at.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Retried:
    """How many rejected documents were transformed now, and how many are left.

    `gone` are the transforms, by collection and function, that the revision has no more.
    """

    done: int
    left: int
    gone: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RetriedRevision:
    """What an upgrade made of the rejected documents of one revision."""

    revision: str
    done: int
    left: int
    problem: str = ""  # why some were not tried, and what to do about it

    def to_json(self) -> dict[str, Any]:
        """The value as `--json` shows it."""
        return {
            "revision": self.revision,
            "done": self.done,
            "left": self.left,
            "problem": self.problem or None,
        }

    def sentence(self) -> str:
        """What happened, for people."""
        return f"{self.revision}: {_documents(self.done)} transformed, {self.left:,} left"

    def warning(self) -> str:
        """What is left to do; empty where nothing is."""
        left = f"{self.revision}: {_documents(self.left)} could not be transformed"
        if self.problem:
            return f"{left}: {self.problem}; then mongover rejects {self.revision} --retry"
        return f"{left}: `mongover rejects {self.revision}` says why" if self.left else ""


def _documents(number: int) -> str:
    return f"{number:,} rejected document{'' if number == 1 else 's'}"


def read_rejects(
    collection: Any, revision: str | None = None, *, limit: int = 0
) -> tuple[Rejected, ...]:
    """What is kept aside, oldest first; of all revisions, or of one. 0 is no limit."""
    query = {} if revision is None else {"revision": revision}
    return tuple(_parse(row) for row in collection.find(query).sort([("at", 1)]).limit(limit))


def _parse(row: Mapping[str, Any]) -> Rejected:
    error = row.get("error") or {}
    return Rejected(
        revision=str(row.get("revision", "")),
        collection=str(row.get("collection", "")),
        function=str(row.get("function", "")),
        document=row.get("document"),
        kind=str(error.get("type", "")),
        code=error.get("code"),
        message=str(error.get("message", "")),
        at=row.get("at"),
    )


def rejecting_revisions(collection: Any) -> frozenset[str]:
    """The revisions whose upgrade kept documents aside."""
    return frozenset(collection.distinct("revision", {"direction": Direction.UP.value}))


def count_rejects(collection: Any, revision: str) -> int:
    """How many documents the upgrade of a revision kept aside."""
    return int(collection.count_documents(_of(revision)))


def retry_rejects(
    db: Any,
    collection: Any,
    revision: str,
    operations: Iterable[Operation],
    *,
    transactions: bool,
    check: Callable[[], None],
) -> Retried:
    """Run a revision's transforms on the documents that its upgrade once rejected.

    Each document and its removal from the rejects are one transaction where there are any. Those
    that are gone, or that the filter of the transform no longer finds, leave the rejects too.
    `check` is called before each document and may raise.
    """
    known = {(o.collection, o.name): o for o in operations if isinstance(o, Transform)}
    done = left = 0
    gone: dict[tuple[str, str], None] = {}
    with db.client.start_session() as session:
        for row in _rows(collection, revision):
            check()
            name = row["collection"], row["function"]
            good = False
            if name in known:
                once = _Once(db, collection, known[name], row)
                good = once.in_transaction(session) if transactions else once.plainly()
            else:
                gone[name] = None
            done, left = done + good, left + (not good)
    return Retried(done, left, tuple(gone))


def function_gone(revision: str, gone: Sequence[tuple[str, str]]) -> OperationFailed:
    """The error for transforms that a revision rejected documents in, and has no more."""
    names = ", ".join(f"{collection} by {function}" for collection, function in gone)
    return OperationFailed(
        f"{revision} has no transform of {names} any more",
        hint="put the function back under its old name",
    )


def _of(revision: str) -> dict[str, Any]:
    return {"revision": revision, "direction": Direction.UP.value}


def _rows(collection: Any, revision: str) -> Iterator[Mapping[str, Any]]:
    """The rejects in pages, so that neither memory nor a cursor's patience bounds them."""
    fields = {"document": 1, "collection": 1, "function": 1}
    query = _of(revision)
    while page := list(collection.find(query, fields).sort("_id", 1).limit(_PAGE)):
        yield from page
        query = {**_of(revision), "_id": {"$gt": page[-1]["_id"]}}


class _Once:
    """One rejected document, tried again."""

    def __init__(self, db: Any, rejects: Any, operation: Transform, row: Any) -> None:
        key = row["document"]
        query = both({"_id": {"$eq": key}}, operation.filter)
        spec = replace(operation.spec(), filter=query, on_error="stop")
        self._step = Transforming(db, spec, operation.function, None)
        self._span = Span("", [], [key])
        self._rejects = rejects
        self._row = row

    def plainly(self) -> bool:
        """Without a transaction; True when it is done."""
        try:
            self._step.batch(None, self._span, 1)
        except OperationFailed:
            return False
        self._rejects.delete_one({"_id": self._row["_id"]})
        return True

    def in_transaction(self, session: Any) -> bool:
        """In one transaction with the end of the rejection; True when it is done."""
        from pymongo.errors import PyMongoError

        for attempt in range(_ATTEMPTS):
            try:
                return self._attempt(session)
            except PyMongoError as error:
                again = error.has_error_label("TransientTransactionError")
                if not again or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, session: Any) -> bool:
        from pymongo import WriteConcern

        start_transaction(session)
        try:
            self._step.batch(session, self._span, 1)
            bare = self._rejects.with_options(write_concern=WriteConcern())
            bare.delete_one({"_id": self._row["_id"]}, session=session)
        except (OperationFailed, SmallerBatch):
            session.abort_transaction()
            return False
        except BaseException:
            if session.in_transaction:
                session.abort_transaction()
            raise
        session.commit_transaction()
        return True
