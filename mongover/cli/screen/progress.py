"""What a run says while it goes on: a line per step and operation, and what is happening now."""

from __future__ import annotations

import threading
import time
from contextvars import Context
from dataclasses import asdict
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, Final

from mongover.cli.screen.moment import Moment, progress_text
from mongover.cli.screen.output import Paint
from mongover.cli.screen.text import count, duration, schema_name, shorten
from mongover.cli.signals import Stage
from mongover.running import events

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress as RichProgress

    from mongover.cli.screen.output import Output, Piece, Screen

_INDENT: Final = " " * 6
_OPERATION_WIDTH: Final = 72
_TIME_WIDTH: Final = 9
_PIPE_SECONDS: Final = 10.0  # between two lines about one operation, outside a terminal
_TERMINAL_SECONDS: Final = 0.4  # before an operation is worth a moving line
_NOTES = {"unchanged": "unchanged", "skipped": "done before"}
_MARKS: Final = {
    "done": Paint("✓", "green"),
    "unchanged": Paint("–", "dim"),  # noqa: RUF001 - a dash is the sign
    "warning": Paint("⚠", "yellow"),
}


class Now:
    """Shows the running operation until it ends: a moving line, or a plain one every ten seconds.

    A thread of its own keeps time, since an index build says nothing for minutes. rich is imported
    when an operation has lasted long enough for a moving line.
    """

    def __init__(self, screen: Screen, *, every: float | None = None) -> None:
        self._screen = screen
        self._every = every or (_TERMINAL_SECONDS if screen.terminal else _PIPE_SECONDS)
        self._lock = threading.RLock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._moment: Moment | None = None
        self._live: RichProgress | None = None
        self._shown = False

    def begin(self, label: str, *, at_once: bool = True) -> None:
        """Something starts; on a terminal it is shown at once, or when it lasts."""
        with self._lock:
            self.clear()
            self._moment = Moment(label, time.monotonic())
            if self._screen.terminal and at_once:
                self._replace(f"{_INDENT}↻ {label}")
        if self._thread is None:
            # Its context is empty, so that it can never join the transaction of the run.
            loop = Context().run
            self._thread = threading.Thread(target=loop, args=(self._loop,), daemon=True)
            self._thread.start()

    def advance(self, event: events.Progress) -> None:
        """The running operation has come so far."""
        with self._lock:
            if self._moment is None:
                self._moment = Moment(event.operation, time.monotonic())
            self._moment.advance(event)
            self._moment.place = tuple(map(self._screen.compose, self._moment.place))
            if self._live is not None:
                self._update(self._live, self._moment)

    def waiting(self, text: str) -> None:
        """A line that replaces itself on a terminal."""
        with self._lock:
            self._replace(text)

    def erase(self) -> None:
        """Make room for another line; what moves comes back after it."""
        with self._lock:
            self._erase()

    def clear(self) -> None:
        """Nothing runs any more: take the moving line away."""
        with self._lock:
            self._moment = None
            self._erase()

    def close(self) -> None:
        """End the thread; nothing moves afterwards."""
        self._end.set()
        self.clear()
        if self._thread is not None:
            self._thread.join()

    def _replace(self, text: str) -> None:
        self._erase()
        width = max(get_terminal_size().columns - 1, 20)
        self._shown = True
        self._screen.write(shorten(self._screen.compose(text), width, ellipsis="..."))

    def _erase(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        if self._shown:
            self._shown = False
            self._screen.write("\r\x1b[K")

    def _loop(self) -> None:
        while not self._end.wait(self._every / 2):
            with self._lock:
                if self._moment is not None:
                    self._beat(self._moment, time.monotonic())

    def _beat(self, moment: Moment, now: float) -> None:
        if now - moment.told < self._every or self._end.is_set():
            return
        if self._screen.terminal:
            self._move(moment)
            return
        moment.told = now
        self._screen.line(f"{_INDENT}↻ {moment.label}: {progress_text(moment, now)}")

    def _move(self, moment: Moment) -> None:
        from mongover.cli.screen.live import start_live

        if self._live is None:
            self._erase()
            self._live = start_live(self._screen)
            self._update(self._live, moment)

    def _update(self, live: RichProgress, moment: Moment) -> None:
        label = self._screen.compose(moment.label)
        if not live.tasks:
            live.add_task(label, total=moment.total, completed=moment.done or 0, moment=moment)
            return
        live.update(live.tasks[0].id, total=moment.total, completed=moment.done or 0)


class RunScreen:
    """The listener of a run in a terminal or a pipe; to be closed when the run has ended."""

    def __init__(self, output: Output, *, database: str, every: float | None = None) -> None:
        self._output = output
        self._database = database
        self._now = Now(output.err, every=every)
        self._quiet = output.settings.quiet
        self._waited = -_PIPE_SECONDS
        self._operations = 0
        self._current = ""
        self.stage = Stage.SILENT
        self._shows: dict[type, Callable[[Any], None]] = {
            events.RunStarted: self._run_started,
            events.StepStarted: self._step_started,
            events.OperationStarted: self._operation_started,
            events.OperationFinished: self._operation_finished,
            events.Progress: self._progress,
            events.Notice: self._notice,
            events.StepFinished: self._step_finished,
            events.StepFailed: self._step_failed,
            events.LockTaken: self._lock_taken,
            events.LockWaiting: self._lock_waiting,
        }

    def __call__(self, event: events.Event) -> None:
        """Show one event."""
        self.stage = next_stage(self.stage, event)
        if not self._quiet:
            self._shows.get(type(event), events.ignore)(event)
        elif isinstance(event, events.Notice) and event.level == "warning":
            self._output.warning(event.message)

    def close(self) -> None:
        """Take away what moves."""
        self._now.close()

    def _line(self, *pieces: Piece) -> None:
        self._now.erase()
        self._output.talk(*pieces)

    def _timed(self, mark: Piece, text: str, seconds: float, note: str = "") -> None:
        label = f" {text}".ljust(_OPERATION_WIDTH)
        time_text = (note or duration(seconds)).rjust(_TIME_WIDTH)
        self._line(_INDENT, mark, label, " ", time_text)

    def _run_started(self, event: events.RunStarted) -> None:
        word = "apply" if event.direction == "up" else "revert"
        place = f"{self._database} on {event.address}"
        self._line(Paint(f"{place}: {count(event.total, 'revision')} to {word}", "bold"))

    def _step_started(self, event: events.StepStarted) -> None:
        self._operations, self._current = 0, ""
        notes = [schema_name(event.schema)] if event.schema else []
        notes += ["revert"] if event.direction == "down" else []
        notes += ["in one transaction"] if event.transaction else []
        notes += ["continued"] if event.continues else []
        tail = f" ({', '.join(notes)})" if notes else ""
        position = f"[{event.position}/{event.total}] "
        self._line(position, Paint(event.revision, "bold"), f" {event.message}", tail)
        self._now.begin(event.revision, at_once=False)

    def _operation_started(self, event: events.OperationStarted) -> None:
        self._operations += 1
        self._current = event.operation
        self._now.begin(event.operation)

    def _operation_finished(self, event: events.OperationFinished) -> None:
        self._current = ""
        note = _NOTES.get(event.outcome, "")
        self._timed(_MARKS.get(event.outcome, "·"), event.operation, event.seconds, note)
        self._now.begin(event.revision, at_once=False)

    def _progress(self, event: events.Progress) -> None:
        self._now.advance(event)

    def _notice(self, event: events.Notice) -> None:
        mark: Piece = Paint("⚠ ", "yellow") if event.level == "warning" else ""
        indent = _INDENT if event.revision else ""
        for line in event.message.splitlines():
            self._line(indent, mark, line.expandtabs())

    def _step_finished(self, event: events.StepFinished) -> None:
        self._now.clear()
        if self._operations == 0 or self._output.settings.verbose:
            word = "applied" if event.direction == "up" else "reverted"
            self._timed(_MARKS["done"], f"{event.revision} {word}", event.seconds)

    def _step_failed(self, event: events.StepFailed) -> None:
        self._now.clear()
        label = self._current or f"{event.revision} {event.state}"
        self._timed(Paint("✗", "red"), label, event.seconds)

    def _lock_taken(self, event: events.LockTaken) -> None:
        if event.previous:
            self._line(f"took over the lock of {event.previous}, which no longer answers")
        elif self._waited >= 0:
            self._line("got the lock")

    def _lock_waiting(self, event: events.LockWaiting) -> None:
        if self._output.err.terminal:
            self._waited = 0.0
            self._now.waiting(waiting_text(event, self._database))
        elif event.held_seconds - self._waited >= _PIPE_SECONDS or self._waited < 0:
            self._waited = event.held_seconds
            self._line(waiting_text(event, self._database))


def waiting_text(event: events.LockWaiting, database: str) -> str:
    """Who holds the lock, what it does and how long this process still waits."""
    doing = f"; running {event.running}" if event.running else ""
    return (
        f"waiting for the lock on {database}, held by {event.holder} for "
        f"{duration(event.held_seconds)} ({event.command}){doing}, alive "
        f"{duration(event.heartbeat_seconds)} ago … giving up in {duration(event.seconds_left)}"
    )


def next_stage(stage: Stage, event: events.Event) -> Stage:
    """How far the run has come with this event."""
    if stage is Stage.RUNNING or isinstance(event, (events.LockTaken, events.RunStarted)):
        return Stage.RUNNING
    return Stage.WAITING


class LineListener:
    """The listener that writes each event as one JSON document on a line of stdout."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.stage = Stage.SILENT

    def __call__(self, event: events.Event) -> None:
        """Write one event."""
        self.stage = next_stage(self.stage, event)
        self._output.document(event_document(event), indent=None)

    def close(self) -> None:
        """Nothing is open."""


def event_document(event: events.Event) -> dict[str, Any]:
    """`{"event": "StepStarted", …}` with the event's own fields."""
    return {"event": type(event).__name__, **asdict(event)}
