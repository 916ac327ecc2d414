"""The history as it is shown: what a dead holder left running is interrupted. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mongover.history import changes
from mongover.history.record import RUNNING, someone_runs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mongover.history.lease import LeaseState
    from mongover.history.record import Record
    from mongover.history.store import Store


@dataclass(frozen=True, slots=True)
class Seen:
    """The history and the lease, of one look."""

    known: Mapping[str, Record]
    lock: LeaseState | None


def see(store: Store) -> Seen:
    """Look at both."""
    return _with_lock(store, store.history.read())


def seen_history(store: Store) -> Mapping[str, Record]:
    """The history alone: asks for the lease only where a record says that someone runs it."""
    known = store.history.read()
    return _with_lock(store, known).known if someone_runs(known) else known


def _with_lock(store: Store, known: Mapping[str, Record]) -> Seen:
    lock = store.read_lease()
    if not someone_runs(known):
        return Seen(known, lock)
    return Seen(without_dead(known, lock, store.history.read()), lock)


def without_dead(
    before: Mapping[str, Record], lock: LeaseState | None, after: Mapping[str, Record]
) -> dict[str, Record]:
    """The history `after`, with what a dead holder left running shown as interrupted.

    `before` was read ahead of the lease and `after` behind it: what runs in both while its owner
    did not hold the lease in between has nobody any more who could end it.
    """
    holder = lock.owner if lock is not None and lock.held else None

    def is_dead(record: Record) -> bool:
        seen = before.get(record.revision)
        return (
            record.state in RUNNING
            and seen is not None
            and (seen.state, seen.owner, seen.fence) == (record.state, record.owner, record.fence)
            and record.owner != holder
        )

    return {
        name: changes.swept(record) if is_dead(record) else record for name, record in after.items()
    }
