"""What a run tells while it goes on: one frozen value per thing that happened.

A listener is any callable that takes an event. Events carry plain values only, so that a terminal,
a log, an HTTP stream and a test read the same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from mongover.history.record import Direction
    from mongover.operations.base import Advance


@dataclass(frozen=True, slots=True)
class LockWaiting:
    """The lease is held by another process; told once a second or so while waiting."""

    holder: str  # "ci@runner-7 pid 412"
    command: str
    held_seconds: float
    heartbeat_seconds: float  # since the holder's last heartbeat
    seconds_left: float  # until the wait is given up
    running: str | None  # the revision that the holder is running, where known


@dataclass(frozen=True, slots=True)
class LockTaken:
    """The lease is ours; `previous` names a dead holder that it was taken over from."""

    fence: int
    previous: str | None


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A plan with at least one step is about to run."""

    run: str
    direction: Direction
    target: str
    total: int
    address: str = ""  # of the server, without credentials


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A revision's record says that it runs; its code starts now."""

    revision: str
    schema: str | None
    message: str
    direction: Direction
    position: int  # from 1
    total: int
    transaction: bool
    continues: bool


@dataclass(frozen=True, slots=True)
class OperationStarted:
    """An operation is about to be sent to the server."""

    revision: str
    operation: str


@dataclass(frozen=True, slots=True)
class OperationFinished:
    """An operation ended: `done`, `unchanged` (there was nothing to do) or `warning`."""

    revision: str
    operation: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long operation is: the one value that records, screens and JSON are made of."""

    revision: str
    operation: str
    advance: Advance
    seconds: float = 0.0  # since the revision began; 0 where only its record is known
    rate: float | None = None  # documents a second, by this attempt
    left: float | None = None  # seconds, at that rate

    @property
    def done(self) -> int:
        """Documents that are done."""
        return self.advance.done

    @property
    def total(self) -> int | None:
        """How many there are, where that is known."""
        return self.advance.total

    @property
    def ranges(self) -> int | None:
        """Into how many ranges of `_id` the collection was cut, if it was."""
        return None if self.advance.place is None else self.advance.place.ranges

    @property
    def ranges_done(self) -> int | None:
        """How many of them are done."""
        return None if self.advance.place is None else self.advance.place.ranges_done

    @property
    def reached(self) -> str | None:
        """The highest `_id` that a batch reached, shortened; None before the first."""
        return (self.advance.place and self.advance.place.reached) or None

    def summary(self) -> dict[str, Any]:
        """What the record keeps of it, for other processes."""
        place = {} if self.advance.place is None else asdict(self.advance.place)
        shown = {name: getattr(self, name) for name in ("operation", "done", "total")}
        return {**shown, "rate": self.rate, "left": self.left, **place}


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence for people: a warning, a continued revision, an `op.log`."""

    message: str
    revision: str | None = None
    level: str = "info"  # info | warning


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A revision is applied or reverted, and the record says so."""

    revision: str
    direction: Direction
    position: int
    total: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StepFailed:
    """A revision failed or was interrupted; the error itself is raised by the run."""

    revision: str
    direction: Direction
    position: int
    total: int
    seconds: float
    state: str  # failed | interrupted
    message: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """Every step of the plan ran."""

    run: str
    direction: Direction
    revisions: tuple[str, ...]
    seconds: float


Event = (
    LockWaiting
    | LockTaken
    | RunStarted
    | StepStarted
    | OperationStarted
    | OperationFinished
    | Progress
    | Notice
    | StepFinished
    | StepFailed
    | RunFinished
)
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of those who do not listen."""
