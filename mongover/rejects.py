"""Documents that a transform kept aside: listed, and tried again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import OperationFailed
from mongover.operations.base import plain
from mongover.operations.batches import SmallerBatch, start_transaction
from mongover.operations.checkpoints import Span
from mongover.operations.transform import Transform
from mongover.operations.transforming import Transforming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from mongover.operations import Operation

_ATTEMPTS: Final = 5


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
    """How many rejected documents were transformed now, and how many failed again."""

    done: int
    left: int


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


def retry_rejects(
    db: Any,
    collection: Any,
    revision: str,
    operations: Iterable[Operation],
    *,
    transactions: bool,
    check: Callable[[], None],
) -> Retried:
    """Run a revision's transforms on the documents that they once rejected.

    Each document and its removal from the rejects are one transaction where there are any. Those
    that are gone leave the rejects too.

    Raises:
        OperationFailed: the revision has no such transform any more.
    """
    known = {(o.collection, o.name): o for o in operations if isinstance(o, Transform)}
    done = left = 0
    with db.client.start_session() as session:
        for row in list(collection.find({"revision": revision})):
            check()
            operation = known.get((row["collection"], row["function"]))
            if operation is None:
                raise OperationFailed(
                    f"{revision} has no transform of {row['collection']} by {row['function']} "
                    "any more",
                    hint="put the function back under its old name",
                )
            once = _Once(db, collection, operation, row)
            good = once.in_transaction(session) if transactions else once.plainly()
            done, left = done + good, left + (not good)
    return Retried(done, left)


class _Once:
    """One rejected document, tried again."""

    def __init__(self, db: Any, rejects: Any, operation: Transform, row: Any) -> None:
        key = row["document"]
        spec = replace(operation.spec(), filter={"_id": {"$eq": key}}, on_error="stop")
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
        from pymongo.errors import PyMongoError  # noqa: PLC0415 - heavy, needed only to run

        for attempt in range(_ATTEMPTS):
            try:
                return self._attempt(session)
            except PyMongoError as error:
                again = error.has_error_label("TransientTransactionError")
                if not again or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, session: Any) -> bool:
        from pymongo import WriteConcern  # noqa: PLC0415 - heavy, needed only to run

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
