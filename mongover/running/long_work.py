"""The runner's side of long operations: their tickets, their progress, and their end."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mongover.database.server import connect
from mongover.errors import LockLost, RecordConflict
from mongover.history import changes
from mongover.history.record import Direction
from mongover.operations.base import Ticket
from mongover.operations.bulk.checkpoints import discard, take_over
from mongover.running.events import Progress
from mongover.running.script import load_script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mongover.config.names import OwnCollections
    from mongover.history.changes import Attempt, History
    from mongover.operations import Operation
    from mongover.operations.base import Advance
    from mongover.revisions.revision import Revision

_NOTE_EVERY: Final = 1.5


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where long operations keep what they need, and how workers get at the database."""

    own: OwnCollections
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
        self._last = (-1, -1)
        self._noted = float("-inf")
        self._began: tuple[str, float, int] = ("", 0.0, 0)
        self._ticketed = 0.0
        self.module = ""  # of the revision's code, once it is loaded
        self.paths: tuple[Path, ...] = ()  # from where its imports may come

    def ticket(self, place: int) -> Ticket | None:
        """That of the operation at this place of the revision; each call is one more part of it.

        The first call of an attempt takes the checkpoints over or clears them.
        """
        home, attempt = self._workplace, self._attempt
        if home is None or attempt.transaction:
            return None
        before, part = self._last
        self._last = (place, part + 1 if place == before else 0)
        door = RevisionDoor(home.url, home.database, home.timeout, self._revision, self.paths)
        ticket = Ticket(
            own=home.own,
            revision=attempt.revision,
            direction=attempt.direction.value,
            ordinal=place,
            owner=attempt.owner,
            fence=attempt.fence,
            module=self.module,
            door=door,
            part=self._last[1],
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
        self._database[ticket.own.rejects].delete_many(stale)

    def note(self, operation: Operation, advance: Advance, seconds: float) -> Progress:
        """How far it is, with the rate so far; kept on the record at most every second or so.

        Raises:
            LockLost: the record belongs to another run.
        """
        now, label = self._clock(), operation.describe()
        done, total = advance.done, advance.total
        if self._began[0] != label or done < self._began[2]:
            self._began = (label, self._ticketed or now, advance.before)
        _, began, base = self._began
        rate = rate_of(done - base, now - began, None if total is None else total - done)
        progress = Progress(self._attempt.revision, label, advance, seconds, rate.rate, rate.left)
        if not self._attempt.transaction and self._tickets and now - self._noted >= _NOTE_EVERY:
            self._noted = now
            self._write(progress.summary())
        return progress

    def _write(self, summary: dict[str, Any]) -> None:
        try:
            self._history.write([changes.note_progress(self._attempt, summary)])
        except RecordConflict as conflict:
            raise LockLost(
                f"this process lost the lock while {self._attempt.revision} ran: "
                f"{conflict.message}",
                hint="look at `mongover lock` and `mongover status`",
                after="nothing more was written.",
            ) from conflict

    def forget(self) -> None:
        """The revision's end is in the history: its checkpoints have served."""
        if (self._tickets or self._goes_on) and self._workplace is not None:
            self._tickets = 0
            place = self._workplace
            self._database[place.own.checkpoints].delete_many({"revision": self._attempt.revision})


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
