"""The wish to stop a run, from a signal handler or from another thread."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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

    @property
    def requested(self) -> bool:
        """Whether the run should end."""
        return self.requests > 0

    def request(self) -> None:
        """Ask the run to end. In the thread that runs a revision's code this may raise StopNow."""
        self.requests += 1
        if self._safe is None:
            return
        if self._thread == threading.get_ident():
            self.check()
        if self.requests == 1 and not self._safe() and self._deferred is not None:
            self._deferred()

    def check(self) -> None:
        """End the revision's code if that was asked for and may be done now.

        Raises:
            StopNow: it was, and it may.
        """
        if not self.requested or self._safe is None:
            return
        if self._safe() or self.requests > 1:
            raise StopNow

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
