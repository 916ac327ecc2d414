"""What concerns the process as a whole: how it ends, and how seldom it looks for garbage.

Signals during a run are heard in `cli/signals`; the wish to stop itself is in `running/stop`.
"""

from __future__ import annotations

import gc
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Final


_THRESHOLDS: Final = (50_000, 20, 50)


def collect_seldom() -> None:
    """Look for cycles only now and then, for the rest of this process.

    Modules, and documents on their way through a transform, are many objects and hardly any cycles:
    by default the search for them costs a tenth of a command's time. Only for a process that ends
    with its command or its work; a library leaves it to the application.
    """
    gc.set_threshold(*_THRESHOLDS)


_SIGNALS: Final = ("SIGINT", "SIGTERM")


@contextmanager
def held_back() -> Iterator[None]:
    """Hold Ctrl-C back from this thread, and for good from the processes that it starts.

    A new process can ignore the signal only once its first imports are done; until then it would
    die of it. One that came meanwhile is heard when the block has ended.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """Let Ctrl-C reach this thread again, in a process that was started with it held back."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def told_of_shutdown(tell: Callable[[], None], *, later: bool) -> Iterator[None]:
    """Call `tell` on SIGINT and SIGTERM for as long as the block lasts.

    With `later` the process's own handling of the signal follows when the block has ended; else it
    follows at once. A web server's handler only notes the wish to end, so it may come at once; the
    default handling cuts the process off, so for a program without a server it must come later.

    Outside the main thread, where Python gives no way to hear of signals, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    caught: list[int] = []

    def hear(signum: int, frame: Any) -> None:
        own = before[signum]
        if later or not callable(own):
            caught.append(signum)
        try:
            tell()
        finally:
            if not later and callable(own):
                own(signum, frame)

    for number in _heeded():
        before[number] = signal.getsignal(number)
        signal.signal(number, hear)
    try:
        yield
    finally:
        _restore(before, hear)
        for number in dict.fromkeys(caught):
            signal.raise_signal(number)


def _heeded() -> list[int]:
    """The signals that this process neither ignores nor handles outside Python."""
    numbers = [getattr(signal, name) for name in _SIGNALS]
    return [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]


def _restore(before: dict[int, Any], ours: Any) -> None:
    """Put the handlers back, but never over one that was installed meanwhile."""
    for number, handler in before.items():
        if signal.getsignal(number) is ours:
            signal.signal(number, handler)
