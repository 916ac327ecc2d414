"""The time under the lease, with a lease and a history that need no server."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from pymongo.errors import AutoReconnect

from mongover.errors import Interrupted
from mongover.history import changes
from mongover.history.lease import LeaseState
from mongover.history.memory import MemoryHistory, SoloLease
from mongover.history.record import Direction, State
from mongover.report.seen import without_dead
from mongover.running.events import LockTaken, LockWaiting, Notice
from mongover.running.hold import hold
from mongover.running.stop import Stop
from tests.support.histories import attempt, subject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mongover.history.record import Record

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def lock(owner: str | None, *, held: bool = True) -> LeaseState:
    expires = NOW.replace(year=2027 if held else 2025)
    return LeaseState(owner, {"user": "ana"}, NOW, NOW, expires, NOW, 7)


class Waiting(SoloLease):
    """A lease that another holds for a while; `ask` is what its waiting hears."""

    def acquire(self, session: Any, on_wait: Callable[..., bool]) -> bool:
        del session
        return on_wait(lock("other"), 3.0)


class Lost(SoloLease):
    """A lease that cannot be given back."""

    def release(self) -> None:
        raise AutoReconnect("127.0.0.1:1: [Errno 111] Connection refused")


def begun(direction: Direction = Direction.UP, **values: Any) -> MemoryHistory:
    history = MemoryHistory()
    history.write([changes.begin(attempt(**values), None, subject())])
    if direction is Direction.DOWN:
        history.write([changes.finish(attempt(**values), sequence=1, duration_ms=1.0)])
        known = history.read()["0001"]
        history.write([changes.begin(attempt(direction=direction, **values), known, subject())])
    return history


def held(history: MemoryHistory, lease: SoloLease, **options: Any) -> tuple[Any, list[Any]]:
    heard: list[Any] = []

    def needed(known: Mapping[str, Record]) -> bool:
        return options.get("needed", True) and known is not None

    stop = options.get("stop", Stop())
    with hold(
        lease, nullcontext(), history=history, listener=heard.append, stop=stop, needed=needed
    ) as found:
        return found, heard


def test_a_free_lease_is_taken_told_and_the_history_read() -> None:
    found, heard = held(MemoryHistory(), SoloLease())
    assert found is not None
    assert found.known == {}
    assert heard == [LockTaken(1, None)]


@pytest.mark.parametrize(
    ("direction", "transaction", "outcome"),
    [
        (Direction.UP, False, "unknown"),
        (Direction.UP, True, "nothing"),
        (Direction.DOWN, False, "unknown"),
    ],
)
def test_what_a_dead_holder_left_is_swept_before_anything_is_planned(
    direction: Direction, transaction: bool, outcome: str
) -> None:
    history = begun(direction, transaction=transaction)
    found, heard = held(history, SoloLease())
    record = found.known["0001"]
    assert (record.state, record.outcome, record.direction) == (
        State.INTERRUPTED,
        outcome,
        direction,
    )
    (notice,) = [one for one in heard if isinstance(one, Notice)]
    assert "0001 was interrupted: ana@web-3 pid 412 is gone" in notice.message
    assert history.documents["0001"]["log"][-1]["error"]["type"] == "HolderLost"


def test_waiting_tells_who_holds_it_and_what_runs() -> None:
    found, heard = held(begun(), Waiting(), needed=False)
    assert found is None
    (told,) = heard
    assert isinstance(told, LockWaiting)
    assert (told.running, told.seconds_left, told.command) == ("0001", 3.0, "?")
    assert held(MemoryHistory(), Waiting(), needed=False)[1][0].running is None


def test_a_stop_while_waiting_ends_it() -> None:
    stop = Stop()
    stop.request()
    with pytest.raises(Interrupted, match="waiting for the lock"):
        held(begun(), Waiting(), stop=stop)


def test_a_lock_that_cannot_be_given_back_is_a_warning_not_the_end() -> None:
    found, heard = held(MemoryHistory(), Lost())
    assert found is not None
    assert heard[-1].level == "warning"
    assert "could not be given back (connection refused)" in heard[-1].message


# ---- what the dead left, as reading shows it


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, State.INTERRUPTED),
        (lock(None), State.INTERRUPTED),
        (lock("owner-1", held=False), State.INTERRUPTED),
        (lock("other"), State.INTERRUPTED),
        (lock("owner-1"), State.APPLYING),
    ],
)
def test_what_runs_without_its_holder_is_shown_as_interrupted(
    state: LeaseState | None, expected: State
) -> None:
    known = begun().read()
    assert without_dead(known, state, known)["0001"].state is expected


def test_what_began_or_went_on_in_between_is_alive() -> None:
    known = begun().read()
    assert without_dead({}, None, known)["0001"].state is State.APPLYING
    other = begun(owner="owner-2").read()
    assert without_dead(known, None, other)["0001"].state is State.APPLYING
