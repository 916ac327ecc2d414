"""The walk of one worker over its spans, batch by batch, each with its checkpoint.

Where the server has transactions, a batch and its checkpoint are one: whatever happens, and
whoever believes to hold the lease, no batch counts twice. Elsewhere the checkpoint follows the
batch, so that a crash between the two repeats that one batch.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from mongover.errors import OperationFailed
from mongover.operations.bulk.checkpoints import Checkpoints, Counts, Halted, Span, ends_at
from mongover.operations.bulk.pace import Throttle
from mongover.operations.bulk.ranges import exact

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.client_session import ClientSession
    from pymongo.database import Database
    from pymongo.errors import PyMongoError

    from mongover.operations.base import Document, Ticket
    from mongover.operations.bulk.pace import Pace
    from mongover.operations.bulk.ranges import Bound

IN_BATCHES: Final = frozenset(
    {
        *("update", "delete", "add_field", "remove_field", "rename_field", "convert_field"),
        *("copy", "merge_into", "backup", "restore_backup", "transform"),
    }
)
"""The methods of `op` whose work is done batch by batch where there is much of it."""

RANGE: Final = 10_000
_SLOW: Final = 1.0
_QUICK: Final = 0.25
_STRETCH: Final = 16
_SPARSE: Final = 4  # a range with less than a quarter of it found may grow
_ATTEMPTS: Final = 40
_COMMITS: Final = 8
_PAUSE: Final = 0.01
_LONGEST: Final = 1.0
CAPPED: Final = frozenset({20, 246, 263})
"""The codes of what capped collections refuse; 246 has a label that asks for another try."""
TOO_LARGE: Final = frozenset({257, 388})
"""The codes of what is too much for one transaction."""


@dataclass(frozen=True, slots=True)
class Done:
    """What one batch did: the `_id` that it reached, and its counts."""

    position: Bound
    counts: Counts


class Step(Protocol):
    """What is done to one range of documents."""

    def batch(self, session: ClientSession | None, span: Span, size: int) -> Done:
        """Work on about `size` documents above `span.low`, at most up to `span.high`.

        With a session, everything is part of its transaction and may be called again after an
        abort. Ranges that hold nothing lead to the span's end.
        """
        ...

    def settled(self) -> None:
        """The last batch is committed."""
        ...


class SmallerBatch(Exception):
    """A step asks for its batch to be given up and tried again, with at most so many documents."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


@dataclass(frozen=True, slots=True)
class Course:
    """How a worker goes: the database and place, its batches' size, its pace, its brake."""

    db: Database[Any]
    ticket: Ticket
    transactions: bool
    size: int
    pace: Pace | None
    halt: Callable[[], None]  # raises where the worker must stop; called between batches
    tell: Callable[[Span, Done], None]  # told of each batch that is done, and of its span


def next_size(size: int, seconds: float, counts: Counts, *, most: int) -> int:
    """How many documents the next batch holds, after one that took so long (pure).

    A slow batch halves it, a quick one doubles it; where few of the documents are found, ranges
    may grow beyond `most`.
    """
    if seconds > _SLOW:
        return max(1, size // 2)
    sparse = counts.matched * _SPARSE < counts.walked
    limit = most * _STRETCH if sparse else most
    return min(limit, size * 2) if seconds < _QUICK else min(limit, size)


def walk_spans(course: Course, step: Step) -> None:
    """Take spans until none is left, and work through each.

    Raises:
        Halted: the run is to stop; the batch before is whole.
        LockLost: another run took over; nothing more was written.
    """
    checkpoints = Checkpoints(course.db, course.ticket)
    throttle = Throttle(course.pace, course.db, course.halt)
    with course.db.client.start_session() as session:
        walk = _Walk(course, step, checkpoints, throttle, session)
        while True:
            course.halt()
            span = checkpoints.claim(session.session_id)
            if span is None:
                return
            walk.span(span)


class _Walk:
    def __init__(
        self,
        course: Course,
        step: Step,
        checkpoints: Checkpoints,
        throttle: Throttle,
        session: ClientSession,
    ) -> None:
        self._course = course
        self._step = step
        self._checkpoints = checkpoints
        self._throttle = throttle
        self._session = session
        self._size = course.size
        self._before: tuple[int, float] | None = None  # documents and seconds of the last batch

    def span(self, span: Span) -> None:
        """Work through one span."""
        while True:
            self._pause()
            started = time.monotonic()
            once = self._transact if self._course.transactions else self._plainly
            done = once(span)
            self._step.settled()
            seconds = time.monotonic() - started
            self._course.tell(span, done)
            self._before = done.counts.walked, seconds
            self._size = next_size(self._size, seconds, done.counts, most=self._course.size)
            if ends_at(done.position, span.high):
                return
            span = Span(span.key, done.position, span.high, span.batches + 1)

    def _pause(self) -> None:
        """Between two batches, also where the one before ended its span."""
        if self._before is not None:
            self._course.halt()
            self._throttle.after(*self._before)

    def _plainly(self, span: Span) -> Done:
        self._checkpoints.check(span)
        done = self._step.batch(None, span, self._size)
        self._checkpoints.advance(span, done.position, done.counts, session=None)
        return done

    def _transact(self, span: Span) -> Done:
        from pymongo.errors import PyMongoError

        for attempt in range(_ATTEMPTS):
            try:
                return self._attempt(span)
            except SmallerBatch as smaller:
                self._size = smaller.size
            except PyMongoError as error:
                if getattr(error, "code", None) in CAPPED and "capped" in str(error):
                    raise _capped() from error
                self._again(error, attempt)
            self._course.halt()
        raise _given_up()

    def _attempt(self, span: Span) -> Done:
        session = self._session
        start_transaction(session)
        try:
            done = self._step.batch(session, span, self._size)
            self._checkpoints.advance(span, done.position, done.counts, session=session)
        except BaseException:
            if session.in_transaction:
                session.abort_transaction()
            raise
        self._commit(span)
        return done

    def _commit(self, span: Span) -> None:
        from pymongo.errors import PyMongoError

        for attempt in range(_COMMITS):
            try:
                self._session.commit_transaction()
            except PyMongoError as error:
                if not error.has_error_label("UnknownTransactionCommitResult"):
                    raise
                if attempt == _COMMITS - 1:
                    if self._checkpoints.landed(span):
                        return
                    raise
                time.sleep(_PAUSE * 2**attempt)
            else:
                return

    def _again(self, error: PyMongoError, attempt: int) -> None:
        """Go on to another attempt, with fewer documents, or raise what cannot be mended."""
        large = getattr(error, "code", None) in TOO_LARGE
        if not large and not error.has_error_label("TransientTransactionError"):
            raise error
        if attempt == _ATTEMPTS - 1:
            raise _given_up() from error
        self._size = max(1, self._size // 2)
        pause = min(_LONGEST, _PAUSE * 2**attempt)
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - a pause


def _capped() -> OperationFailed:
    return OperationFailed(
        "it is a capped collection: MongoDB neither reads nor writes one in a transaction, which"
        " each batch is on a replica set",
        hint="write through op.db, or op.copy it into a plain collection and change that",
        after="no batch was written.",
    )


def _given_up() -> OperationFailed:
    return OperationFailed(
        f"a batch was given up after {_ATTEMPTS} tries: the application keeps writing the same "
        "documents, or one of them takes longer, or more of the server's cache, than it may",
        hint="run it at a quieter time; `mongover upgrade` goes on from the checkpoint",
        after="every batch before it is done and recorded.",
    )


def start_transaction(session: ClientSession) -> None:
    """Begin a transaction that sees one moment, and whose commit lasts."""
    from pymongo import ReadPreference, WriteConcern
    from pymongo.read_concern import ReadConcern

    session.start_transaction(
        read_concern=ReadConcern("snapshot"),
        write_concern=WriteConcern("majority", j=True),
        read_preference=ReadPreference.PRIMARY,
    )


def write(db: Database[Any], command: Document, session: ClientSession | None) -> Document:
    """Send a write command; with a session as part of its transaction, else with majority.

    Raises:
        WriteError: the first document that the server refused.
        WriteConcernError: it was done, but a majority did not confirm it.
    """
    reply = send(db, command, session)
    if reply.get("writeErrors"):
        raise write_error(reply["writeErrors"][0])
    return reply


def send(db: Database[Any], command: Document, session: ClientSession | None) -> Document:
    """As `write`, with the errors of single documents left in the reply."""
    from pymongo.errors import WriteConcernError

    if session is None:
        command = {**command, "writeConcern": {"w": "majority"}}
    # An error's reply may hold a value of a document, such as a date that Python cannot hold.
    reply: Document = dict(
        db.command(command, session=session, codec_options=exact(db.codec_options))
    )
    if "writeConcernError" in reply:
        error = reply["writeConcernError"]
        raise WriteConcernError(str(error.get("errmsg", "")), error.get("code"), error)
    return reply


def write_error(error: Document) -> Exception:
    """The driver's exception for one entry of `writeErrors`."""
    from pymongo.errors import (
        DuplicateKeyError,
        WriteError,
    )

    kind = DuplicateKeyError if error.get("code") == 11000 else WriteError  # noqa: PLR2004 - DuplicateKey
    return kind(str(error.get("errmsg", "")), error.get("code"), error)


__all__ = [
    "IN_BATCHES",
    "RANGE",
    "TOO_LARGE",
    "Course",
    "Done",
    "Halted",
    "SmallerBatch",
    "Step",
    "next_size",
    "send",
    "start_transaction",
    "walk_spans",
    "write",
    "write_error",
]
