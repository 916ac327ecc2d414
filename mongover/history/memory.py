"""History and lease in memory: for unit tests and for databases that only pretend (mongomock)."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mongover.history.changes import apply_change
from mongover.history.record import parse_record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mongover.history.changes import Change
    from mongover.history.record import Record


def _now() -> datetime:
    return datetime.now(UTC)


class MemoryHistory:
    """Records in a dictionary that keep to the same contract as those in the database."""

    def __init__(self, *, now: Callable[[], datetime] = _now) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self._now = now
        self._mutex = threading.Lock()

    def read(self, *, details: bool = False) -> dict[str, Record]:
        """All records by id."""
        hidden = set() if details else {"source", "log"}
        return {
            key: parse_record({k: v for k, v in document.items() if k not in hidden})
            for key, document in self.documents.items()
        }

    def read_one(self, revision: str) -> Record | None:
        """One record with its source and log, or None."""
        document = self.documents.get(revision)
        return None if document is None else parse_record(document)

    def write(self, changes: Sequence[Change], *, session: Any = None) -> None:
        """Make the changes in order; the first that does not fit ends it."""
        del session  # there are no transactions in a dictionary
        with self._mutex:
            for change in changes:
                before = self.documents.get(change.revision)
                self.documents[change.revision] = apply_change(before, change, now=self._now())


class SoloLease:
    """The lease of a database that only this process can see: it is always ours."""

    owner = "memory"
    fence = 1
    lost: str | None = None  # never
    previous: str | None = None

    def acquire(self, session: Any, on_wait: Callable[..., bool]) -> bool:
        """Take it: nobody else can hold it."""
        del session, on_wait
        return True

    def check(self) -> None:
        """Nothing can take it away."""

    def guard(self, session: Any) -> None:
        """There is no fence to write."""

    def release(self) -> None:
        """There is nobody to give it back to."""
