"""The time under the lease: wait for it, clean up after a dead holder, give it back."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo.errors import PyMongoError

from mongover.database.faults import server_message
from mongover.errors import Interrupted
from mongover.history import changes
from mongover.history.record import RUNNING
from mongover.running import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mongover.history.changes import History
    from mongover.history.lease import Lease, LeaseState
    from mongover.history.memory import SoloLease
    from mongover.history.record import Record
    from mongover.running.events import Listener
    from mongover.running.stop import Stop


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that is ours, the session it names, and the history as it was read under it."""

    lease: Lease | SoloLease
    session: Any  # a ClientSession, or None where the server has no sessions
    known: Mapping[str, Record]


@contextmanager
def hold(
    lease: Lease | SoloLease,
    new_session: AbstractContextManager[Any],
    *,
    history: History,
    listener: Listener,
    stop: Stop,
    needed: Callable[[Mapping[str, Record]], bool],
) -> Iterator[Held | None]:
    """Hold the lease for the body; None if, while waiting, `needed` said that nothing is left.

    Records that a dead holder left running are marked interrupted before the history is read.

    Raises:
        LockHeld: a live holder kept it for longer than the wait.
        Interrupted: a stop was asked for while waiting.
    """

    def on_wait(state: LeaseState, left: float) -> bool:
        if stop.requested:
            raise Interrupted("stopped while waiting for the lock", after="nothing was run.")
        known = history.read()
        listener(_waiting(state, left, known))
        return needed(known)

    with new_session as session:
        if not lease.acquire(session, on_wait):
            yield None
            return
        try:
            listener(events.LockTaken(lease.fence, lease.previous))
            yield Held(lease, session, _swept(history, listener))
        finally:
            _release(lease, listener)


def _waiting(state: LeaseState, left: float, known: Mapping[str, Record]) -> events.LockWaiting:
    running = [record.revision for record in known.values() if record.state in RUNNING]
    return events.LockWaiting(
        holder=state.who(),
        command=str(state.holder.get("command", "?")),
        held_seconds=state.held_seconds,
        heartbeat_seconds=state.heartbeat_seconds,
        seconds_left=left,
        running=running[0] if running else None,
    )


def _swept(history: History, listener: Listener) -> Mapping[str, Record]:
    """The history, after what dead holders left running became interrupted."""
    known = history.read()
    dead = [record for record in known.values() if record.state in RUNNING]
    if not dead:
        return known
    history.write([changes.sweep(record) for record in dead])
    for record in dead:
        by = f"{record.by.get('user', '?')}@{record.by.get('host', '?')}"
        text = f"{record.revision} was interrupted: {by} pid {record.by.get('pid', '?')} is gone"
        listener(events.Notice(text, record.revision, "warning"))
    return history.read()


def _release(lease: Lease | SoloLease, listener: Listener) -> None:
    try:
        lease.release()
    except PyMongoError as error:
        # What the body raised matters more; the lease ends by itself.
        text = f"the lock could not be given back ({server_message(error)}); it expires by itself"
        listener(events.Notice(text, level="warning"))
