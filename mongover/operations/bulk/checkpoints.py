"""Checkpoints of long operations: how far each span of a collection is done, in its own document.

They stand in a collection beside the history. Each operation of an attempt has a head document, and
one document per span. A span's document carries the fence of the run that owns it: a batch counts
only if it moves the span on under the same fence, in the same transaction where there are any.
Whoever takes a revision over raises the fence of all its documents first.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from mongover.errors import LockLost, OperationFailed
from mongover.operations.arguments import one_line
from mongover.operations.base import Place
from mongover.operations.bulk.ranges import Bound, exact
from mongover.operations.duplicates import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pymongo.client_session import ClientSession
    from pymongo.collection import Collection
    from pymongo.database import Database

    from mongover.operations.base import Document, Operation, Ticket

COUNTS: Final = ("walked", "matched", "changed", "deleted", "rejected", "again")
_REACHED: Final = 40


@dataclass(frozen=True, slots=True)
class Counts:
    """What batches did, in documents."""

    walked: int = 0  # looked at
    matched: int = 0  # found by the filter, where the server says so
    changed: int = 0  # the same
    deleted: int = 0
    rejected: int = 0  # kept aside with an error
    again: int = 0  # read again, because they changed meanwhile

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in COUNTS))

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Counts:
        """The counts that a document holds."""
        return cls(*(int(document.get(name, 0)) for name in COUNTS))

    def to_document(self) -> dict[str, int]:
        """All of them by name."""
        return {name: getattr(self, name) for name in COUNTS}


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a collection, `low < _id <= high`, and how far it is done."""

    key: str
    low: Bound
    high: Bound
    batches: int = 0


def ends_at(position: Bound, high: Bound) -> bool:
    """Whether a position is the bound itself, by its type too: 1 and true are two `_id`s."""
    from bson import encode

    if position is high or position != high:
        return position is high
    return encode({"at": position}) == encode({"at": high})


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the spans of an operation are.

    `key` is that of the highest span that was begun, `position` what it reached.
    """

    counts: Counts = field(default_factory=Counts)
    spans: int = 0
    finished: int = 0
    key: str = ""
    position: Bound = field(default_factory=list)

    @classmethod
    def of(cls, spans: Sequence[Mapping[str, Any]]) -> Standing:
        """From the spans' documents."""
        begun = [row for row in spans if row["position"]]
        top = max(begun, key=lambda row: str(row["_id"]), default=None)
        return cls(
            sum(map(Counts.of, spans), Counts()),
            len(spans),
            sum(bool(row["finished"]) for row in spans),
            "" if top is None else top["_id"],
            [] if top is None else top["position"],
        )

    def moved(self, span: Span, position: Bound, counts: Counts) -> Standing:
        """The same after one more batch, of a span that is done up to `position` now."""
        finished = self.finished + ends_at(position, span.high)
        counts = self.counts + counts
        if span.key < self.key:
            return Standing(counts, self.spans, finished, self.key, self.position)
        return Standing(counts, self.spans, finished, span.key, position)

    @property
    def place(self) -> Place:
        """For people."""
        return Place(self.spans, self.finished, reached(self.position))


def reached(position: Bound) -> str:
    """A position for people: one line of at most 40 signs; empty for no bound."""
    if not position:
        return ""
    value = position[0]
    text = one_line(shown(value[: 2 * _REACHED] if isinstance(value, str) else value))
    return text if len(text) <= _REACHED else f"{text[: _REACHED - 1]}…"


@dataclass(frozen=True, slots=True)
class Work:
    """One operation's head document, and its spans as they were found."""

    finished: bool
    resumed: bool
    total: int
    standing: Standing = field(default_factory=Standing)
    high: Bound = field(default_factory=list)


class Halted(Exception):
    """A worker was told to stop; not an error."""


def collection_of(db: Database[Any], ticket: Ticket) -> Collection[Document]:
    """The collection of the checkpoints, with concerns that make each write last."""
    from pymongo import ReadPreference, WriteConcern

    return db.get_collection(
        ticket.checkpoints,
        codec_options=exact(db.codec_options),
        write_concern=WriteConcern("majority", j=True),
        read_preference=ReadPreference.PRIMARY,
    )


def fingerprint(operation: Operation) -> str:
    """What identifies an operation on a later attempt; code of functions is left out."""
    text = json.dumps(operation.identity(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def discard(db: Database[Any], ticket: Ticket) -> None:
    """Forget every checkpoint of the revision."""
    collection_of(db, ticket).delete_many({"revision": ticket.revision})


def take_over(db: Database[Any], ticket: Ticket) -> None:
    """Make every checkpoint of the revision ours, so that an earlier holder's batch cannot land."""
    collection = collection_of(db, ticket)
    older = {"revision": ticket.revision, "fence": {"$lt": ticket.fence}}
    found = collection.find({**older, "session": {"$ne": None}}, {"session": 1})
    _end_sessions(db, [row["session"] for row in found])
    mine = {"fence": ticket.fence, "owner": ticket.owner}
    free = {"claimed": None, "session": None, "stop": False}
    collection.update_many(older, {"$set": mine | free})


def _end_sessions(db: Database[Any], sessions: list[Any]) -> None:
    """End the sessions of dead workers: an open transaction would block us for a minute."""
    from pymongo.errors import OperationFailure

    if not sessions:
        return
    # Not allowed: the server ends it by itself in time, and the fence keeps its work out.
    with suppress(OperationFailure):
        db.client.admin.command({"killSessions": sessions})


class Checkpoints:
    """The checkpoints of one operation."""

    def __init__(self, db: Database[Any], ticket: Ticket) -> None:
        self._collection = collection_of(db, ticket)
        self._ticket = ticket

    @property
    def _mine(self) -> Document:
        return {"operation": self._ticket.key, "fence": self._ticket.fence}

    def find(self, operation: Operation) -> Work | None:
        """What an earlier attempt left of this operation; None when it has to begin.

        Raises:
            OperationFailed: it left another operation half done that cannot be begun anew.
        """
        head = self._collection.find_one({"_id": self._ticket.key})
        if head is None:
            self._collection.delete_many({"operation": self._ticket.key})
            return None
        if head["fingerprint"] == fingerprint(operation):
            return Work(
                head["finished"],
                resumed=True,
                total=head["total"],
                standing=self.standing(),
                high=head["high"],
            )
        if not head["repeatable"] and (head["finished"] or self.standing().counts.walked):
            raise _edited(operation, head)
        self._collection.delete_many({"operation": self._ticket.key})
        self._collection.delete_one({"_id": self._ticket.key})
        return None

    def begin(self, operation: Operation, highs: Sequence[Bound], total: int) -> Work:
        """Write the spans that end at these bounds, then the head that makes them count."""
        bounds = zip([[], *highs], highs, strict=False)
        spans = [self._span(number, low, high) for number, (low, high) in enumerate(bounds)]
        if spans:
            self._collection.insert_many(spans)
        high = highs[-1] if highs else []
        ticket = self._ticket
        self._collection.insert_one(
            {
                "_id": ticket.key,
                "revision": ticket.revision,
                "kind": "operation",
                "verb": operation.verb,
                "describe": operation.describe(),
                "fingerprint": fingerprint(operation),
                "repeatable": operation.repeatable,
                "fence": ticket.fence,
                "owner": ticket.owner,
                "spans": len(spans),
                "total": total,
                "high": high,
                "finished": False,
            }
        )
        standing = Standing(spans=len(spans))
        return Work(finished=False, resumed=False, total=total, standing=standing, high=high)

    def _span(self, number: int, low: Bound, high: Bound) -> Document:
        return {
            "_id": f"{self._ticket.key}/{number:04d}",
            "operation": self._ticket.key,
            "revision": self._ticket.revision,
            "kind": "span",
            "fence": self._ticket.fence,
            "owner": self._ticket.owner,
            "low": low,
            "high": high,
            "position": [],
            "batches": 0,
            "claimed": None,
            "session": None,
            "stop": False,
            "finished": False,
            **Counts().to_document(),
        }

    def claim(self, session: Any = None) -> Span | None:
        """A span that nobody works on and that is not finished, now ours; None when all are.

        The id of the session that will work on it is noted, so that others can end it.
        """
        found = self._collection.find_one_and_update(
            {**self._mine, "finished": False, "claimed": None, "stop": False},
            {"$set": {"claimed": uuid4().hex, "session": session}},
            sort=[("_id", 1)],
        )
        if found is None:
            return None
        low = found["position"] or found["low"]
        return Span(found["_id"], low, found["high"], found["batches"])

    def advance(
        self,
        span: Span,
        position: Bound,
        counts: Counts,
        *,
        session: ClientSession | None,
    ) -> Span:
        """Write that the span is done up to `position`; in the batch's own transaction if any.

        Raises:
            Halted: the run is to stop.
            LockLost: another run took the revision over.
        """
        finished = ends_at(position, span.high)
        change = {
            "$set": {"position": position, "finished": finished},
            "$inc": {"batches": 1, **counts.to_document()},
        }
        ours = {"_id": span.key, "fence": self._ticket.fence, "batches": span.batches}
        collection = self._collection
        if session is not None:
            # A batch that is told to stop is given up here; elsewhere it is done already.
            ours["stop"] = False
            # A transaction has one write concern, its own.
            collection = collection.with_options(write_concern=_unset())
        result = collection.update_one(ours, change, session=session)
        if result.matched_count != 1:
            raise self._refused(span)
        return Span(span.key, position, span.high, span.batches + 1)

    def check(self, span: Span) -> None:
        """Raise as `advance` would: for servers without transactions, before a batch."""
        found = self._collection.find_one({"_id": span.key}, {"fence": 1, "stop": 1})
        if found is None or found["fence"] != self._ticket.fence or found["stop"]:
            raise self._refused(span)

    def landed(self, span: Span) -> bool:
        """Whether a batch after this one's beginning was committed, whatever its errors said."""
        found = self._collection.find_one({"_id": span.key}, {"batches": 1})
        return found is not None and int(found["batches"]) > span.batches

    def _refused(self, span: Span) -> Exception:
        import contextvars

        # Outside the transaction, which is about to be given up and saw an older moment.
        read = contextvars.Context().run
        found = read(self._collection.find_one, {"_id": span.key})
        if found is not None and found["fence"] == self._ticket.fence and found["stop"]:
            return Halted()
        return LockLost(
            f"this process lost the lock while {self._ticket.revision} ran: its checkpoints belong "
            "to another run",
            hint="look at `mongover lock` and `mongover status`; the next upgrade goes on",
            after="nothing more was written.",
        )

    def release(self, span: Span) -> None:
        """Give a span back that is not finished."""
        self._collection.update_one(
            {"_id": span.key, "fence": self._ticket.fence}, {"$set": {"claimed": None}}
        )

    def halt(self) -> None:
        """Tell every worker, wherever it runs, to stop after its batch."""
        self._collection.update_many(self._mine, {"$set": {"stop": True}})

    def ready(self) -> None:
        """Let workers begin: nobody holds a span, and none is told to stop."""
        change = {"$set": {"stop": False, "claimed": None}}
        self._collection.update_many({**self._mine, "finished": False}, change)

    def unfinished(self) -> int:
        """How many spans are not done."""
        return self._collection.count_documents({**self._mine, "finished": False})

    def standing(self) -> Standing:
        """How far all spans are, in one query."""
        fields = dict.fromkeys((*COUNTS, "position", "finished"), 1)
        return Standing.of(list(self._collection.find({"operation": self._ticket.key}, fields)))

    def finish(self, *, session: ClientSession | None = None) -> None:
        """Write that the operation is done.

        Raises:
            LockLost: another run took the revision over.
        """
        ours = {"_id": self._ticket.key, "fence": self._ticket.fence}
        collection = self._collection
        if session is not None:
            collection = collection.with_options(write_concern=_unset())
        done = collection.update_one(ours, {"$set": {"finished": True}}, session=session)
        if done.matched_count != 1:
            raise self._refused(Span(self._ticket.key, [], []))


def _unset() -> Any:
    from pymongo import WriteConcern

    return WriteConcern()


def _edited(operation: Operation, head: Mapping[str, Any]) -> OperationFailed:
    state = "done" if head["finished"] else "half done"
    return OperationFailed(
        f"{operation.describe()} was edited: an earlier attempt left `{head['describe']}` {state}"
        " in its place, which must not be done twice",
        hint="put the operation back as it was; or undo by hand what it did and begin anew: "
        f"mongover resolve {head['revision']} --reverted --reason …",
        after="nothing more was changed.",
    )
