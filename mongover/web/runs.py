"""Runs asked for over HTTP: each in a thread of its own, one at a time, known by their ids.

A run belongs to the process, not to the request that began it: whoever waits for it may go away.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from contextvars import Context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from mongover.errors import Interrupted, LockHeld
from mongover.history.record import Direction
from mongover.report.documents import ranges_document
from mongover.running import events
from mongover.running.log import RunLog, failure_text
from mongover.running.stop import Stop
from mongover.web.documents import event_document, result_document
from mongover.web.feed import Wakers
from mongover.web.problems import SERVER_ERROR, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mongover.migrator import Migrator, RunResult
    from mongover.running.events import Event
    from mongover.web.feed import Feed
    from mongover.web.problems import Problem, Redaction

logger = logging.getLogger("mongover.web")

KEPT: Final = 100


class Busy(LockHeld):
    """A run of this very process is going on; `run` is its id."""

    run: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for, by whom, and how many seconds to wait for another run to end.

    `allow_data_loss` names what a downgrade may destroy although no revision made it.
    """

    direction: Direction
    target: str
    by: str
    schema: str | None = None
    lock_wait: float = 0.0
    allow_data_loss: tuple[str, ...] = ()

    def __str__(self) -> str:
        verb = "upgrade" if self.direction is Direction.UP else "downgrade"
        return f"{verb} {self.target}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: the revision at work, and how much of its present operation is done."""

    revision: str | None = None
    direction: str | None = None
    position: int | None = None
    total: int | None = None
    operation: str | None = None
    told: events.Progress | None = None  # of that operation, once it has told how far it is
    finished: tuple[str, ...] = ()

    def to_json(self, *, reached: bool = True) -> dict[str, Any]:
        """The value as the API shows it; the `_id` that was reached on request only."""
        ranges = ranges_document(self.told)
        return {
            "revision": self.revision,
            "direction": self.direction,
            "position": self.position,
            "total": self.total,
            "operation": self.operation,
            "done": self.told and self.told.done,
            "documents": self.told and self.told.total,
            **(ranges if reached else ranges | {"reached": None}),
        }


def advance(progress: Progress, event: Event) -> Progress:
    """The progress after an event (pure)."""
    match event:
        case events.RunStarted():
            return replace(progress, total=event.total)
        case events.StepStarted():
            return Progress(
                revision=event.revision,
                direction=str(event.direction),
                position=event.position,
                total=event.total,
                finished=progress.finished,
            )
        case events.OperationStarted():
            return replace(progress, operation=event.operation, told=None)
        case events.Progress():
            return replace(progress, told=event)
        case events.StepFinished():
            return replace(progress, finished=(*progress.finished, event.revision))
    return progress


@dataclass(slots=True)
class Run:
    """One run and what is known of it; written by its thread, read by everyone."""

    order: Order
    id: str = field(default_factory=lambda: uuid4().hex)
    state: str = "waiting"  # waiting | running | succeeded | failed | stopped
    progress: Progress = Progress()
    began: float = field(default_factory=time.monotonic)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    result: RunResult | None = None
    problem: Problem | None = None
    stop: Stop = field(default_factory=Stop)
    over: threading.Event = field(default_factory=threading.Event)
    wakers: Wakers = field(default_factory=Wakers)

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self.began

    def to_json(self, redaction: Redaction) -> dict[str, Any]:
        """The run as the API shows it."""
        result = self.result
        done = self.progress.finished if result is None else result.revisions
        return {
            "id": self.id,
            "state": self.state,
            "direction": str(self.order.direction),
            "target": self.order.target,
            "schema": self.order.schema,
            "startedAt": self.started_at.isoformat(),
            "endedAt": None if self.ended_at is None else self.ended_at.isoformat(),
            "revisions": list(done),
            "progress": self.progress.to_json(),
            "result": None if result is None else result_document(result, redaction),
            "problem": None if self.problem is None else self.problem.to_json(),
        }

    async def ended(self) -> None:
        """Return when the run is over, without holding the event loop."""
        with self.wakers.listening() as event:
            if not self.over.is_set():
                await event.wait()


class Runs:
    """The runs of this process: at most one at work, the newest ones remembered."""

    def __init__(self, migrator: Migrator, feed: Feed, redaction: Redaction) -> None:
        self._migrator = migrator
        self._redaction = redaction
        self._feed = feed
        self._known: OrderedDict[str, Run] = OrderedDict()
        self._turn = threading.Condition()
        self._active: Run | None = None
        self._stopping = False

    @property
    def active(self) -> Run | None:
        """The run at work, if any."""
        return self._active

    def get(self, identifier: str) -> Run | None:
        """A run of this process by its id, while it is remembered."""
        return self._known.get(identifier)

    def start(self, order: Order) -> Run:
        """Begin a run in a thread of its own.

        Raises:
            Busy: another run is at work, and the order is not to wait for it.
            Interrupted: the server is ending.
        """
        run = Run(order)
        with self._turn:
            self._refuse_stopping()
            if self._active is not None and order.lock_wait <= 0:
                raise _busy(self._active)
            self._known[run.id] = run
            self._forget()
            if self._active is None:
                self._active = run
        # Not a daemon: an interpreter that ends normally lets a revision finish. Its context is
        # empty, so that nothing of a request leaks into it.
        thread = threading.Thread(
            target=Context().run, args=(self._work, run), name=f"mongover-run-{run.id[:8]}"
        )
        try:
            thread.start()
        except BaseException:
            self._end(run)
            raise
        return run

    def stop(self) -> None:
        """Ask the run at work to end at the next safe point, and begin no other."""
        with self._turn:
            self._stopping = True
            active = self._active
            self._turn.notify_all()
        if active is not None:
            logger.info("asking %s to stop at the next safe point", active.order)
            active.stop.request()

    def restart(self) -> None:
        """Allow runs again, after a stop."""
        with self._turn:
            self._stopping = False

    def join(self) -> None:
        """Return when no run is at work."""
        with self._turn:
            runs = tuple(self._known.values())
        for run in runs:
            run.over.wait()

    def _refuse_stopping(self) -> None:
        if self._stopping:
            raise Interrupted("the server is ending, so no run begins", after="nothing was run.")

    def _forget(self) -> None:
        over = [identifier for identifier, run in self._known.items() if run.over.is_set()]
        for identifier in over[: max(0, len(self._known) - KEPT)]:
            del self._known[identifier]

    def _work(self, run: Run) -> None:
        self._feed.publish("RunAccepted", {"order": str(run.order)}, run=run.id)
        try:
            self._await_turn(run)
            run.result = self._act(run)
        except BaseException as error:  # noqa: BLE001 - the thread's boundary: told, never lost
            self._fail(run, error)
        else:
            run.state = "succeeded"
        finally:
            self._end(run)

    def _await_turn(self, run: Run) -> None:
        with self._turn:
            while self._active is not run:
                self._refuse_stopping()
                if self._active is None:
                    self._active = run
                    return
                left = run.order.lock_wait - run.seconds
                if left <= 0:
                    raise _busy(self._active)
                self._turn.wait(left)

    def _act(self, run: Run) -> RunResult:
        log = RunLog(f"run {run.id[:8]}")
        logger.info("%s begins, asked for by %s", run.order, run.order.by)

        def hear(event: Event) -> None:
            if isinstance(event, events.RunStarted):
                run.state = "running"
            run.progress = advance(run.progress, event)
            log(event)
            document = event_document(event, self._redaction)
            self._feed.publish(type(event).__name__, document, run=run.id)

        act: Callable[..., RunResult] = self._migrator.upgrade
        if run.order.direction is Direction.DOWN:
            allowed = run.order.allow_data_loss
            act = partial(self._migrator.downgrade, allow_data_loss=allowed)
        wait = max(0.0, run.order.lock_wait - run.seconds)
        return act(run.order.target, lock_wait=wait, run=run.id, listener=hear, stop=run.stop)

    def _fail(self, run: Run, error: BaseException) -> None:
        known = error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
        run.problem = problem_of(known, self._redaction, revision=run.progress.revision)
        run.state = "stopped" if isinstance(error, Interrupted) else "failed"
        text = failure_text(error, self._redaction.hide)
        quiet = run.state == "stopped" or run.problem.status < SERVER_ERROR
        level = logging.WARNING if quiet else logging.ERROR
        number = run.problem.more.get("errorId", "-")
        logger.log(level, "%s did not succeed (errorId %s)\n%s", run.order, number, text)

    def _end(self, run: Run) -> None:
        run.ended_at = datetime.now(UTC)
        with self._turn:
            if self._active is run:
                self._active = None
                self._turn.notify_all()
        run.over.set()
        problem = None if run.problem is None else run.problem.to_json()
        self._feed.publish("RunEnded", {"state": run.state, "problem": problem}, run=run.id)
        run.wakers.wake()


def _busy(active: Run) -> Busy:
    busy = Busy(
        f"{active.order} is going on in this process since {active.seconds:.0f} s, asked for by "
        f"{active.order.by}",
        hint="wait for it with ?wait_for_lock=SECONDS, or follow it by its id",
        after="nothing was run.",
    )
    busy.run = active.id
    return busy
