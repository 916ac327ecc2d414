"""A run told to `logging`: the listener behind `mongover.run`, and an error in full.

Only records are made here; what becomes of them is the application's to configure.
"""

from __future__ import annotations

import logging
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

from mongover.database.faults import describe
from mongover.errors import MongoverError
from mongover.running import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger("mongover.run")

_SECONDS_BETWEEN: Final = 10.0  # of two INFO lines about one wait or one long operation


class RunLog:
    """Writes each event of a run: INFO for progress, DEBUG for every operation, ERROR for failures.

    What is told once a second (a wait, a long operation) is INFO every ten seconds, else DEBUG.
    """

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._told = -_SECONDS_BETWEEN

    def __call__(self, event: events.Event) -> None:
        """Write one event."""
        found = _LINES.get(type(event))
        if found is None:
            return
        level, text = found
        if isinstance(event, (events.LockWaiting, events.Progress)):
            level = self._seldom()
        elif isinstance(event, events.Notice) and event.level == "warning":
            level = logging.WARNING
        if logger.isEnabledFor(level):
            line = " ".join(text(event).split())  # a text of several lines would forge others
            logger.log(level, "%s: %s", self._name, line, extra={"event": type(event).__name__})

    def _seldom(self) -> int:
        now = self._clock()
        if now - self._told < _SECONDS_BETWEEN:
            return logging.DEBUG
        self._told = now
        return logging.INFO


def _lock_waiting(event: events.LockWaiting) -> str:
    running = f", which runs {event.running}" if event.running else ""
    return (
        f"waiting for the lock of {event.holder} ({event.command}){running}; "
        f"giving up in {event.seconds_left:.0f} s"
    )


def _lock_taken(event: events.LockTaken) -> str:
    over = f", taken over from {event.previous}" if event.previous else ""
    return f"got the lock, fence {event.fence}{over}"


def _run_started(event: events.RunStarted) -> str:
    return f"run {event.run}: {event.direction} to {event.target}, {event.total} revisions"


def _step_started(event: events.StepStarted) -> str:
    return f"{event.position}/{event.total} {event.direction} {event.revision} {event.message}"


def _operation_finished(event: events.OperationFinished) -> str:
    return f"{event.revision}: {event.operation}: {event.outcome} in {event.seconds:.3f} s"


def _progress(event: events.Progress) -> str:
    total = "" if event.total is None else f" of {event.total}"
    return f"{event.revision}: {event.operation}: {event.done}{total} after {event.seconds:.1f} s"


def _notice(event: events.Notice) -> str:
    return f"{event.revision}: {event.message}" if event.revision else event.message


def _step_finished(event: events.StepFinished) -> str:
    word = "applied" if event.direction == "up" else "reverted"
    return f"{event.position}/{event.total} {event.revision} {word} in {event.seconds:.3f} s"


def _step_failed(event: events.StepFailed) -> str:
    return f"{event.revision} {event.state} after {event.seconds:.3f} s: {event.message}"


def _run_finished(event: events.RunFinished) -> str:
    return f"run {event.run}: {len(event.revisions)} revisions done in {event.seconds:.3f} s"


_LINES: Final[dict[type, tuple[int, Callable[[Any], str]]]] = {
    events.LockWaiting: (logging.INFO, _lock_waiting),
    events.LockTaken: (logging.DEBUG, _lock_taken),
    events.RunStarted: (logging.INFO, _run_started),
    events.StepStarted: (logging.INFO, _step_started),
    events.OperationFinished: (logging.DEBUG, _operation_finished),
    events.Progress: (logging.INFO, _progress),
    events.Notice: (logging.INFO, _notice),
    events.StepFinished: (logging.INFO, _step_finished),
    events.StepFailed: (logging.ERROR, _step_failed),
    events.RunFinished: (logging.INFO, _run_finished),
}


def failure_text(error: BaseException, redact: Callable[[str], str]) -> str:
    """An error with its hint, its place and the trace of every error behind it, without secrets.

    What the driver says of a document's values is left out, as it is in a record.
    """
    return "\n".join(_failure_lines(error, redact))


def _failure_lines(error: BaseException, redact: Callable[[str], str]) -> Iterator[str]:
    yield f"{type(error).__name__}: {describe(error, redact)['message']}"
    if isinstance(error, MongoverError):
        yield from (f"  {name}: {redact(text)}" for name, text in _parts(error) if text)
    yield from _trace(error, redact)


def _parts(error: MongoverError) -> list[tuple[str, str]]:
    place = ""
    if error.where is not None:
        line = "" if error.where.line is None else f":{error.where.line}"
        place = f"{error.where.path}{line}"
    return [("code", error.code), ("where", place), ("after", error.after), ("next", error.hint)]


def _trace(error: BaseException, redact: Callable[[str], str]) -> Iterator[str]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        message = describe(current, redact)["message"]
        yield f"  trace of {type(current).__name__}: {message}"
        yield from (redact(line.rstrip()) for line in traceback.format_tb(current.__traceback__))
        hidden = current.__context__ if not current.__suppress_context__ else None
        current = current.__cause__ or hidden
