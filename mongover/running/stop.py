"""The wish to stop a run, from a signal handler or from another thread."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final


def is_interruption(error: BaseException) -> bool:
    """Whether an error is the wish to stop."""
    return isinstance(error, (StopNow, KeyboardInterrupt))


_BREATH: Final = 1.0


class StopNow(BaseException):
    """Ends a revision's code where it stands; no `except Exception` in it can hide this."""


class Stop:
    """Asked once, a run ends at the next point where nothing is left half-done; asked again, now.

    While a revision's code runs whose interruption is known to be safe (it is transactional, or
    everything that it did can be repeated), the first request ends it at once.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._thread: int | None = None
        self._safe: Callable[[], bool] | None = None
        self._deferred: Callable[[], None] | None = None
        self._telling = False
        self._thrown = -_BREATH

    @property
    def requested(self) -> bool:
        """Whether the run should end."""
        return self.requests > 0

    def request(self) -> None:
        """Ask the run to end. In the thread that runs a revision's code this may raise StopNow.

        Then not again for a moment: what is being unwound (the driver gives a connection back, a
        lock is released) must not be cut short by the next signal of an impatient hand. Nor does a
        second signal break off the telling of the first, into which its handler comes.
        """
        self.requests += 1
        if self._safe is None or self._telling:
            return
        if self.requests == 1 and not self._safe() and self._deferred is not None:
            self._tell(self._deferred)
        if self._thread == threading.get_ident() and self._may_end():
            self._throw()

    def check(self) -> None:
        """End the revision's code if that was asked for and may be done now.

        Raises:
            StopNow: it was, and it may.
        """
        if self.requested and self._may_end():
            raise StopNow

    def _tell(self, deferred: Callable[[], None]) -> None:
        self._telling = True
        try:
            deferred()
        finally:
            self._telling = False

    def _throw(self) -> None:
        now = time.monotonic()
        if now - self._thrown >= _BREATH:
            self._thrown = now
            raise StopNow

    def _may_end(self) -> bool:
        return self._safe is not None and (self._safe() or self.requests > 1)

    @contextmanager
    def user_code(
        self, *, safe: Callable[[], bool], deferred: Callable[[], None]
    ) -> Iterator[None]:
        """Run a revision's code: only in here does a request interrupt anything.

        `deferred` is called when a first request must wait for the code's end.
        """
        self._thread = threading.get_ident()
        self._deferred = deferred
        self._safe = safe
        self._thrown = -_BREATH
        try:
            self.check()
            yield
        finally:
            self._safe = None

    def edge(self) -> None:
        """End the revision's code here, between two batches, if that was asked for.

        Raises:
            StopNow: it was.
        """
        if self.requested:
            raise StopNow

    @contextmanager
    def at_edges(self, *, deferred: Callable[[], None]) -> Iterator[None]:
        """Work in batches: a first request waits for the next `edge`, a second one does not."""
        before = self._safe, self._deferred
        if self._safe is not None:
            self._safe, self._deferred = _never, deferred
        try:
            yield
        finally:
            self._safe, self._deferred = before


def _never() -> bool:
    return False
