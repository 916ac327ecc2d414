"""Signals during a run: the first asks it to stop at a safe point, the second ends it at once."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mongover.running.stop import Stop

_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP")
_ECHO: Final = 1.0


class Stage(Enum):
    """How far a run has come, as far as its events say."""

    SILENT = "silent"
    WAITING = "waiting"
    RUNNING = "running"


class Terminated(Interrupted):
    """SIGTERM ended the run."""

    exit_code = 128 + signal.SIGTERM

    @property
    def kind(self) -> str:
        """The same word for every signal."""
        return "Interrupted"


class HungUp(Terminated):
    """The terminal went away."""

    exit_code = 129


_ENDS: Final = {signal.SIGTERM: Terminated, getattr(signal, "SIGHUP", None): HungUp}


@contextmanager
def stopping(stop: Stop, stage: Callable[[], Stage]) -> Iterator[None]:
    """Ask `stop` to end the run on each signal, for as long as the block lasts.

    While nothing was heard of the run (the server is still looked for) a signal ends the block at
    once; while the lock is waited for, the wait itself sees the request, and a second signal ends
    it at once. An `Interrupted` that leaves the block has the exit code of the signal behind it.
    Signals that the process was started to ignore (`nohup`) stay ignored; outside the main thread
    nothing is installed.
    """
    caught: list[int] = []

    def request(signum: int, frame: Any) -> None:
        del frame
        caught.append(signum)
        stop.request()
        if stage() is Stage.SILENT or (stage() is Stage.WAITING and len(caught) > 1):
            raise KeyboardInterrupt

    before = _install(request)
    try:
        yield
    except Interrupted as error:
        raise _as(caught, error) from error
    except KeyboardInterrupt as error:
        early = Interrupted("stopped before the run began", after="nothing was run.")
        raise _as(caught, early) from error
    finally:
        for signum, handler in before.items():
            if caught and isinstance(handler, Ending):
                handler.heeded()
            signal.signal(signum, handler)


def _as(caught: list[int], error: Interrupted) -> Interrupted:
    kind = _ENDS.get(signal.Signals(caught[0]), Interrupted) if caught else Interrupted
    return kind(
        error.message, hint=error.hint, notes=error.notes, where=error.where, after=error.after
    )


def _install(handler: Any) -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heeded}


class Ending:
    """Outside a run: the first signal leaves by unwinding, so that an embedded server is stopped.

    Those that come right after it, or after one that ended a run, are the same impatient hand: they
    must not cut short the report and the cleaning up.
    """

    def __init__(self) -> None:
        self._deaf_until = 0.0

    def heeded(self, seconds: float = _ECHO) -> None:
        """A signal was obeyed just now: those of the next moments are its echo."""
        self._deaf_until = time.monotonic() + seconds

    def __call__(self, signum: int, frame: Any) -> None:
        """The handler."""
        del frame
        if time.monotonic() < self._deaf_until:
            return
        self.heeded()
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signum)


def install_end() -> Ending:
    """Let every signal unwind the process instead of cutting it off."""
    ending = Ending()
    _install(ending)
    return ending
