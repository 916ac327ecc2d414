"""The runner's side of long operations: their tickets, their progress, and their end."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mongover import records
from mongover.errors import LockLost, RecordConflict
from mongover.operations.base import Ticket
from mongover.operations.checkpoints import discard, take_over
from mongover.records import STOPPED, Direction
from mongover.script import load_script
from mongover.server import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mongover.operations import Operation
    from mongover.operations.base import Advance
    from mongover.records import Attempt, History, Record
    from mongover.revision import Revision

_NOTE_EVERY: Final = 1.5


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where long operations keep what they need, and how workers get at the database."""

    checkpoints: str
    rejects: str
    url: str = field(repr=False)
    database: str = ""
    timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class RevisionDoor:
    """What a worker process is given: the address, and the revision with its code."""

    url: str = field(repr=False)
    name: str
    timeout: float
    revision: Revision
    paths: tuple[Path, ...] = ()

    @contextmanager
    def database(self) -> Iterator[Any]:
        """The database, over a client of its own."""
        server = connect(self.url, self.name, timeout=self.timeout)
        try:
            yield server.database
        finally:
            server.close()

    def function(self, name: str) -> Any:
        """A function or class at the top level of the revision's module."""
        return getattr(load_script(self.revision, paths=self.paths).module, name)


class LongWork:
    """The long operations of one attempt at one revision."""

    def __init__(
        self,
        attempt: Attempt,
        revision: Revision,
        *,
        database: Any,
        history: History,
        workplace: Workplace | None,
        goes_on: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._attempt = attempt
        self._revision = revision
        self._database = database
        self._history = history
        self._workplace = workplace
        self._goes_on = goes_on
        self._clock = clock
        self._tickets = 0
        self._noted = float("-inf")
        self._began: tuple[str, float, int] = ("", 0.0, 0)
        self._ticketed = 0.0
        self.module = ""  # of the revision's code, once it is loaded
        self.paths: tuple[Path, ...] = ()  # from where its imports may come

    def ticket(self) -> Ticket | None:
        """The next one; the first call of an attempt takes the checkpoints over or clears them."""
        place, attempt = self._workplace, self._attempt
        if place is None or attempt.transaction:
            return None
        door = RevisionDoor(place.url, place.database, place.timeout, self._revision, self.paths)
        ticket = Ticket(
            checkpoints=place.checkpoints,
            rejects=place.rejects,
            revision=attempt.revision,
            direction=attempt.direction.value,
            ordinal=self._tickets,
            owner=attempt.owner,
            fence=attempt.fence,
            module=self.module,
            door=door,
        )
        if self._tickets == 0:
            self._take(ticket)
        self._tickets += 1
        self._ticketed = self._clock()
        return ticket

    def _take(self, ticket: Ticket) -> None:
        """Go on with what an earlier attempt left, or forget it, with what it kept aside."""
        if self._goes_on:
            take_over(self._database, ticket)
            return
        discard(self._database, ticket)
        stale = {"revision": ticket.revision}
        if self._attempt.direction is Direction.DOWN:  # it may yet be taken for applied again
            stale["direction"] = ticket.direction
        self._database[ticket.rejects].delete_many(stale)

    def note(self, operation: Operation, advance: Advance) -> Rate:
        """Keep how far it is on the record, at most every second or so; the rate so far.

        Raises:
            LockLost: the record belongs to another run.
        """
        now, label = self._clock(), operation.describe()
        done, total, place = advance.done, advance.total, advance.place
        if self._began[0] != label or done < self._began[2]:
            self._began = (label, self._ticketed or now, advance.before)
        _, began, base = self._began
        rate = rate_of(done - base, now - began, None if total is None else total - done)
        if not self._attempt.transaction and self._tickets and now - self._noted >= _NOTE_EVERY:
            self._noted = now
            summary = {"operation": label, "done": done, "total": total}
            where = {} if place is None else asdict(place)
            self._write({**summary, "rate": rate.rate, "left": rate.left, **where})
        return rate

    def _write(self, summary: dict[str, Any]) -> None:
        try:
            self._history.write([records.note_progress(self._attempt, summary)])
        except RecordConflict as conflict:
            raise LockLost(
                f"this process lost the lock while {self._attempt.revision} ran: "
                f"{conflict.message}",
                hint="look at `mongover lock` and `mongover status`",
                after="nothing more was written.",
            ) from conflict

    def forget(self) -> None:
        """The revision's end is in the history: its checkpoints have served."""
        if self._tickets and self._workplace is not None:
            self._tickets = 0
            place = self._workplace
            self._database[place.checkpoints].delete_many({"revision": self._attempt.revision})


@dataclass(frozen=True, slots=True)
class Rate:
    """Documents a second, and the seconds that are left; None while nobody can tell."""

    rate: float | None
    left: float | None


def rate_of(done: int, seconds: float, rest: int | None) -> Rate:
    """The rate of so many documents in so many seconds, and the time for the rest (pure)."""
    if done <= 0 or seconds <= 0:
        return Rate(None, None)
    rate = done / seconds
    return Rate(round(rate, 1), None if rest is None else round(max(rest, 0) / rate, 1))


def goes_on(record: Record | None, attempt: Attempt) -> bool:
    """Whether an attempt continues one that stopped, so that its checkpoints still hold."""
    if record is None or record.direction is not attempt.direction:
        return False
    return record.state in STOPPED


@dataclass(slots=True)
class OnceOnly:
    """What one attempt did that must not be done twice, and whether checkpoints hold all of it.

    An operation that works in batches is held: its checkpoints say how far it came, exactly so
    between two batches. Loose is what nobody could go on with: a use of `op.db`, an operation
    without checkpoints, one that broke off in the middle.
    """

    loose: bool = False
    _operation: str = ""  # that began and did not end
    _marked: bool = False  # it must not be done twice
    _ticketed: bool = False
    _batches: bool = False

    def begin(self, operation: str) -> None:
        """An operation begins; one that did not end has raised, and the code caught it."""
        self._settle(held=False)
        self._operation = operation

    def act(self, reason: str) -> None:
        """What follows must not be done twice: the operation of that name, or something else."""
        if reason and reason == self._operation:
            self._marked = True
        else:
            self.loose = True

    def ticketed(self, operation: str) -> None:
        """An operation has a place for checkpoints; another's, run from inside, is not its own."""
        self._ticketed = operation == self._operation

    def in_batches(self) -> None:
        """The operation works in batches from now on."""
        self._batches = self._ticketed

    def end(self, outcome: str) -> None:
        """The operation is done; its last checkpoint says so."""
        self._settle(held=self._batches or outcome == "unchanged")

    def _settle(self, *, held: bool) -> None:
        self.loose = self.loose or (self._marked and not held)
        self._operation, self._marked, self._ticketed, self._batches = "", False, False, False

    @property
    def held(self) -> bool:
        """Whether an end between two batches leaves nothing that a next attempt would repeat."""
        return not self.loose and (self._batches or not self._marked)
