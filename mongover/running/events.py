"""What a run tells while it goes on: one frozen value per thing that happened.

A listener is any callable that takes an event. Events carry plain values only, so that a terminal,
a log, an HTTP stream and a test read the same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mongover.history.record import Direction


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
    """A long operation has worked through `done` of `total` documents (total None: unknown)."""

    revision: str
    operation: str
    done: int
    total: int | None
    seconds: float  # since the revision began
    rate: float | None = None  # documents a second, by this attempt
    left: float | None = None  # seconds, at that rate
    ranges: int | None = None  # of `_id`, into which the collection was cut
    ranges_done: int | None = None
    reached: str | None = None  # the highest `_id` that a batch reached, shortened


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
