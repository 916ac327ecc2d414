"""The lock: taken by one, kept by its heartbeat, taken over by the server's clock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from bson.int64 import Int64
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from mongover.errors import LockHeld, LockLost, UsageError
from mongover.history import lease as lease_module
from mongover.history.lease import Lease, LeaseState, end_lease, read_lease
from mongover.report.documents import lock_document
from tests.support.servers import ROOT, failpoint, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.collection import Collection
    from pymongo.database import Database

    from tests.support.servers import Server, ThreeNodes

    Locks = Collection[dict[str, Any]]

HOLDER = {"host": "web-3", "pid": 412, "user": "ana", "command": "upgrade"}
APP = "mongover-lease-test"


def locks_of(db: Database[dict[str, Any]]) -> Locks:
    return db.get_collection(
        "_migrations_lock",
        write_concern=WriteConcern("majority", j=True),
        read_concern=ReadConcern("majority"),
    )


@pytest.fixture
def locks(any_server: Server, open_database: Callable[..., Any]) -> Locks:
    return locks_of(open_database(any_server, tz_aware=True, appname=APP))


@pytest.fixture
def replica_locks(replica_set: Server, open_database: Callable[..., Any]) -> Locks:
    return locks_of(open_database(replica_set, tz_aware=True, appname=APP))


class Taker:
    """Makes leases on a collection and gives them back at the end."""

    def __init__(self, locks: Locks) -> None:
        self.locks = locks
        self.made: list[Lease] = []
        self.sessions: list[Any] = []

    def make(self, *, length: float = 20, wait: float = 0, **options: Any) -> Lease:
        lease = Lease(self.locks, holder=HOLDER, length=length, wait=wait, **options)
        self.made.append(lease)
        return lease

    def session(self) -> Any:
        session = self.locks.database.client.start_session()
        self.sessions.append(session)
        return session

    def take(self, **options: Any) -> Lease:
        lease = self.make(**options)
        assert lease.acquire(self.session(), lambda _state, _left: True)
        return lease

    def abandon(self, lease: Lease) -> None:
        """As after a SIGKILL: the heartbeat ends and nothing is given back."""
        lease._over.set()
        if lease._beat is not None:
            lease._beat.join()

    def close(self) -> None:
        for lease in self.made:
            lease.release()
        for session in self.sessions:
            session.end_session()


@pytest.fixture
def taker(locks: Locks) -> Iterator[Taker]:
    made = Taker(locks)
    yield made
    made.close()


@pytest.fixture
def replica_taker(replica_locks: Locks) -> Iterator[Taker]:
    made = Taker(replica_locks)
    yield made
    made.close()


def state_of(locks: Locks) -> LeaseState:
    state = read_lease(locks)
    assert state is not None
    return state


def test_reading_a_lock_that_never_was_says_so_and_creates_nothing(locks: Locks) -> None:
    assert read_lease(locks) is None
    assert locks.database.list_collection_names() == []


def test_a_taken_lock_names_its_holder_and_a_released_one_nobody(
    locks: Locks, taker: Taker
) -> None:
    lease = taker.take()
    state = state_of(locks)
    assert (state.held, state.owner, state.fence) == (True, lease.owner, 1)
    assert state.who() == "ana@web-3 pid 412"
    assert state.held_seconds < 60
    assert state.heartbeat_seconds < 60
    lease.release()
    state = state_of(locks)
    assert (state.held, state.owner, state.expired) == (False, None, True)
    shown = lock_document(state)["lock"]
    assert (shown["held"], shown["fence"], shown["holder"]["command"]) == (False, 1, "upgrade")


def test_each_acquisition_has_a_higher_fence(taker: Taker) -> None:
    fences = []
    for _ in range(3):
        lease = taker.take()
        fences.append(lease.fence)
        lease.release()
    assert fences == [1, 2, 3]


def test_releasing_twice_or_without_having_it_touches_nobody_else(
    locks: Locks, taker: Taker
) -> None:
    first = taker.take()
    first.release()
    second = taker.take()
    first.release()
    taker.make().release()
    assert state_of(locks).owner == second.owner
    second.check()


def test_own_token_takes_the_lock_again_after_a_lost_reply(locks: Locks, taker: Taker) -> None:
    lease = taker.make()
    session = taker.session()
    lease._bootstrap()
    assert lease._try(session)
    assert lease._try(session)  # the reply of the first was lost
    assert (lease.fence, state_of(locks).fence, lease.previous) == (2, 2, None)


def test_a_repeat_after_a_lost_reply_still_knows_the_dead_holder(
    locks: Locks, taker: Taker
) -> None:
    dead = taker.take()
    taker.abandon(dead)
    expire(locks)
    lease = taker.make()
    session = taker.session()
    assert lease._try(session)
    assert lease._try(session)
    assert lease.previous == "ana@web-3 pid 412"
    assert len(lease._dead_sessions) == 1


def expire(locks: Locks) -> None:
    locks.update_one({"_id": "lock"}, [{"$set": {"expires_at": {"$subtract": ["$$NOW", 1]}}}])


def test_a_held_lock_is_refused_with_its_holder_and_the_age_of_the_heartbeat(
    taker: Taker,
) -> None:
    taker.take()
    asked: list[tuple[LeaseState, float]] = []

    def ask(state: LeaseState, left: float) -> bool:
        asked.append((state, left))
        return True

    waiting = taker.make(wait=0.3)
    with pytest.raises(LockHeld) as caught:
        waiting.acquire(taker.session(), ask)
    assert "still held by ana@web-3 pid 412 (upgrade)" in caught.value.message
    assert "working, not stuck" in caught.value.message
    assert caught.value.after == "nothing was run."
    assert caught.value.exit_code == 3
    assert len(asked) >= 2
    assert all(0 <= left <= 0.3 for _, left in asked)


def test_who_waits_gets_the_lock_when_it_is_released(taker: Taker) -> None:
    held = taker.take()
    waiting = taker.make(wait=30)

    def release_once(state: LeaseState, left: float) -> bool:
        assert state.held
        assert left > 0
        held.release()
        return True

    assert waiting.acquire(taker.session(), release_once)
    assert waiting.fence == 2
    assert waiting.previous is None


def test_waiting_ends_at_once_when_it_is_no_longer_needed(taker: Taker, locks: Locks) -> None:
    held = taker.take()
    assert not taker.make(wait=60).acquire(taker.session(), lambda _state, _left: False)
    assert state_of(locks).owner == held.owner


def test_a_dead_holder_is_followed_when_its_lease_ends_and_not_before(taker: Taker) -> None:
    dead = taker.take(length=1.5)
    taker.abandon(dead)
    began = time.monotonic()
    lease = taker.take(wait=30)
    assert 0.5 < time.monotonic() - began < 30
    assert lease.previous == "ana@web-3 pid 412"
    assert lease.fence == 2


def test_the_heartbeat_keeps_a_short_lease_alive(locks: Locks, taker: Taker) -> None:
    lease = taker.take(length=1)
    before = state_of(locks)
    wait_until(
        lambda: (state_of(locks).expires_at - before.expires_at).total_seconds() > 1.2,
        "several heartbeats",
    )
    lease.check()
    assert state_of(locks).fence == before.fence


def test_the_heartbeat_never_touches_the_fence(locks: Locks, taker: Taker) -> None:
    taker.take(length=1)
    before = locks.find_one({"_id": "fence"})
    first = state_of(locks).heartbeat_at
    wait_until(lambda: state_of(locks).heartbeat_at != first, "a heartbeat")
    assert locks.find_one({"_id": "fence"}) == before


@pytest.mark.parametrize("hours", [1, -1])
def test_the_clock_of_the_client_does_not_count(
    monkeypatch: pytest.MonkeyPatch, taker: Taker, hours: int
) -> None:
    shift = hours * 3600
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + shift)
    held = taker.take(length=20)
    other = taker.make(wait=0, clock=lambda: lease_module.steady_seconds() + shift)
    with pytest.raises(LockHeld):
        other.acquire(taker.session(), lambda _state, _left: True)
    held.check()


def test_one_failed_heartbeat_loses_nothing(any_server: Server, taker: Taker, locks: Locks) -> None:
    lease = taker.take(length=4)
    with (
        any_server.client() as admin,
        failpoint(admin, "failCommand", {"times": 2}, failing(locks)),
    ):
        before = state_of(locks).heartbeat_at
        wait_until(lambda: state_of(locks).heartbeat_at != before, "a heartbeat after the failure")
    lease.check()


def failing(locks: Locks) -> dict[str, Any]:
    return {
        "failCommands": ["update"],
        "closeConnection": True,
        "appName": APP,
        "namespace": locks.full_name,
    }


def test_heartbeats_that_fail_for_longer_than_the_lease_lose_it_by_the_local_clock(
    any_server: Server, taker: Taker, locks: Locks
) -> None:
    lease = taker.take(length=1.5)
    with any_server.client() as admin, failpoint(admin, "failCommand", "alwaysOn", failing(locks)):
        wait_until(lambda: lease.lost, "the loss of the lease", 15)
        with pytest.raises(LockLost, match="heartbeat did not reach the server in time") as caught:
            lease.check()
    assert caught.value.exit_code == 3
    assert caught.value.after == "nothing more was written."


def test_the_local_deadline_is_never_later_than_that_of_the_server(
    taker: Taker, locks: Locks
) -> None:
    now = [1000.0]

    def clock() -> float:
        now[0] += 0.5  # every look at the clock costs time
        return now[0]

    lease = taker.make(length=20, clock=clock)
    lease._bootstrap()
    assert lease._try(taker.session())
    assert lease._deadline <= 1000.5 + 20
    losses = [lease.lost]
    now[0] += 20
    losses.append(lease.lost)
    assert losses == [None, "its heartbeat did not reach the server in time"]
    assert state_of(locks).held  # earlier than the server would say it


def test_a_deleted_lock_document_ends_its_holder_and_the_fence_stays_monotonic(
    locks: Locks, taker: Taker
) -> None:
    lease = taker.take(length=1)
    taker.locks.update_one({"_id": "fence"}, {"$set": {"fence": Int64(12)}})
    locks.delete_one({"_id": "lock"})
    wait_until(lambda: lease.lost, "the loss of the lease")
    assert "took it over" in str(lease.lost)
    following = taker.take()
    assert following.fence == 13
    published = locks.find_one({"_id": "fence"})
    assert published is not None
    assert (published["fence"], published["owner"]) == (13, following.owner)


def test_a_dropped_lock_collection_ends_its_holder_and_the_next_one_starts_anew(
    locks: Locks, taker: Taker
) -> None:
    lease = taker.take(length=1)
    locks.drop()
    wait_until(lambda: lease.lost, "the loss of the lease")
    lease.release()
    assert taker.take().fence == 1


@pytest.mark.parametrize(
    "change",
    [
        {"$unset": {"expires_at": ""}},
        {"$set": {"expires_at": "tomorrow"}},
        {"$set": {"expires_at": 7, "holder": "me", "acquired_at": 3, "heartbeat_at": "now"}},
        {"$set": {"owner": None, "expires_at": datetime(2999, 1, 1, tzinfo=UTC)}},
        {"$set": {"owner": 5, "expires_at": datetime(2999, 1, 1, tzinfo=UTC)}},
        {"$unset": {"fence": "", "holder": "", "owner": "", "heartbeat_at": ""}},
    ],
)
def test_a_lock_document_that_hands_made_nonsense_of_can_be_read_and_taken(
    locks: Locks, taker: Taker, change: dict[str, Any]
) -> None:
    taker.take().release()
    locks.update_one({"_id": "lock"}, change)
    assert not state_of(locks).held
    assert lock_document(state_of(locks))["lock"]["held"] is False
    taker.take().check()


def test_a_fence_that_is_no_number_can_be_read(locks: Locks, taker: Taker) -> None:
    taker.take().release()
    locks.update_one({"_id": "lock"}, {"$set": {"fence": "many"}})
    assert state_of(locks).fence == 0


def test_a_lock_restored_from_a_backup_has_expired_by_the_clock_of_the_server(
    locks: Locks, taker: Taker
) -> None:
    taker.abandon(taker.take())
    locks.update_one(
        {"_id": "lock"},
        {
            "$set": {
                "acquired_at": datetime.now(UTC) - timedelta(days=90),
                "heartbeat_at": datetime.now(UTC) - timedelta(days=90),
                "expires_at": datetime.now(UTC) - timedelta(days=89),
            }
        },
    )
    state = state_of(locks)
    assert (state.held, state.expired) == (False, True)
    assert state.heartbeat_seconds > 80 * 86_400
    assert taker.take().fence == 2


# ---- unlock


def test_nobody_holds_it_says_unlock(locks: Locks, taker: Taker) -> None:
    with pytest.raises(UsageError, match="nobody holds the lock"):
        end_lease(locks, owner=None)
    taker.take().release()
    with pytest.raises(UsageError, match="nobody holds the lock"):
        end_lease(locks, owner="x")


@pytest.mark.parametrize("owner", [None, "somebody else"])
def test_a_live_lock_is_only_ended_by_who_names_its_owner(
    locks: Locks, taker: Taker, owner: str | None
) -> None:
    lease = taker.take()
    with pytest.raises(LockHeld) as caught:
        end_lease(locks, owner=owner)
    assert f"mongover unlock --owner {lease.owner}" in caught.value.hint
    assert caught.value.after == "the lock was not touched."
    lease.check()


def test_a_live_lock_ended_by_hand_ends_its_holder_and_frees_the_way(
    locks: Locks, taker: Taker
) -> None:
    lease = taker.take(length=1)
    assert end_lease(locks, owner=lease.owner).owner == lease.owner
    wait_until(lambda: lease.lost, "the loss of the lease")
    following = taker.take()
    assert following.fence == 3
    assert following.previous == "ana@web-3 pid 412"
    lease.release()
    assert state_of(locks).owner == following.owner


def test_an_expired_lock_is_ended_without_naming_its_owner(locks: Locks, taker: Taker) -> None:
    taker.abandon(taker.take())
    expire(locks)
    assert end_lease(locks, owner=None).expired


def test_a_lock_that_changes_hands_while_it_is_ended_is_not_touched(
    locks: Locks, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = taker.take()
    seen = state_of(locks)
    old.release()
    new = taker.take()
    monkeypatch.setattr(lease_module, "read_lease", lambda _collection: seen)
    with pytest.raises(LockHeld, match="changed hands"):
        end_lease(locks, owner=old.owner)
    monkeypatch.undo()
    assert state_of(locks).owner == new.owner


# ---- the fence in transactions


def test_a_transaction_that_writes_the_fence_cannot_commit_after_a_takeover(
    replica_locks: Locks, replica_taker: Taker
) -> None:
    db = replica_locks.database
    db.create_collection("work")
    zombie = replica_taker.take(length=1)
    replica_taker.abandon(zombie)
    client = db.client
    with client.start_session() as session:
        session.start_transaction()
        db["work"].insert_one({"_id": 1}, session=session)
        zombie.guard(session)
        expire(replica_locks)
        winner = replica_taker.make(wait=10)
        thread = threading.Thread(
            target=winner.acquire, args=(replica_taker.session(), lambda _state, _left: True)
        )
        thread.start()
        wait_until(lambda: state_of(replica_locks).owner == winner.owner, "the takeover")
        session.commit_transaction()  # it came before the new fence was published: both may win
        thread.join(30)
    with client.start_session() as session:
        session.start_transaction()
        with pytest.raises(LockLost, match="newer holder"):
            zombie.guard(session)
        session.abort_transaction()
    winner.check()


def test_an_open_transaction_of_a_dead_holder_ends_with_the_takeover(
    replica_locks: Locks, replica_taker: Taker
) -> None:
    db = replica_locks.database
    db["work"].insert_one({"_id": 1, "n": 0})
    session = replica_taker.session()
    dead = replica_taker.make(length=1)
    assert dead.acquire(session, lambda _state, _left: True)
    replica_taker.abandon(dead)
    session.start_transaction()
    db["work"].update_one({"_id": 1}, {"$inc": {"n": 1}}, session=session)
    began = time.monotonic()
    replica_taker.take(wait=30)
    db["work"].update_one({"_id": 1}, {"$inc": {"n": 10}})  # would wait for the orphan
    assert time.monotonic() - began < 45
    with pytest.raises(OperationFailure) as caught:
        session.commit_transaction()
    assert caught.value.code == 251
    assert db["work"].find_one() == {"_id": 1, "n": 10}


def test_the_session_of_another_user_cannot_be_ended_and_the_fence_still_holds(
    auth_server: Server, mongo_database: Callable[..., str]
) -> None:
    name = mongo_database(auth_server)
    with auth_server.client() as admin:
        for user in ("runner_a", "runner_b"):
            if not admin.admin.command({"usersInfo": user})["users"]:
                roles = ["readWriteAnyDatabase"]
                admin.admin.command({"createUser": user, "pwd": "secret", "roles": roles})
    from pymongo import MongoClient

    with (
        MongoClient[dict[str, Any]](
            auth_server.as_user("runner_a", "secret"), tz_aware=True
        ) as one,
        MongoClient[dict[str, Any]](
            auth_server.as_user("runner_b", "secret"), tz_aware=True
        ) as two,
    ):
        first, second = Taker(locks_of(one[name])), Taker(locks_of(two[name]))
        dead = first.take(length=1)
        first.abandon(dead)
        with one.start_session() as session:
            lease = second.take(wait=30)
            session.start_transaction()
            with pytest.raises(LockLost):
                dead.guard(session)
            session.abort_transaction()
        lease.check()
        second.close()
        first.close()


def test_a_refused_end_of_the_dead_session_is_said_and_stops_nobody(
    replica_set: Server, replica_locks: Locks, replica_taker: Taker
) -> None:
    replica_taker.abandon(replica_taker.take())
    expire(replica_locks)
    refused = {"failCommands": ["killSessions"], "errorCode": 13, "appName": APP}
    with replica_set.client() as admin, failpoint(admin, "failCommand", {"times": 1}, refused):
        lease = replica_taker.take()
    assert "could not be ended: 13" in str(lease.previous)
    lease.check()


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("command", ["findAndModify", "update"])
def test_lost_connections_while_it_is_taken_are_tried_again(
    any_server: Server, taker: Taker, locks: Locks, command: str, times: int
) -> None:
    taker.take().release()
    data = failing(locks) | {"failCommands": [command]}
    with any_server.client() as admin, failpoint(admin, "failCommand", {"times": times}, data):
        lease = taker.take()
    lease.check()
    assert state_of(locks).owner == lease.owner


def test_an_error_after_the_acquisition_gives_the_lock_back(
    any_server: Server, taker: Taker, locks: Locks
) -> None:
    taker.take().release()
    refused = {"failCommands": ["update"], "errorCode": 13, "appName": APP}
    refused["namespace"] = locks.full_name
    with (
        any_server.client() as admin,
        failpoint(admin, "failCommand", {"times": 1}, refused),
        pytest.raises(OperationFailure),
    ):
        taker.take()
    assert state_of(locks).owner is None


def test_an_unreachable_server_is_given_up_after_the_patience(
    locks: Locks, taker: Taker, any_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "_PATIENCE", 0.2)
    calls = []

    def fail() -> None:
        calls.append(1)
        from pymongo.errors import AutoReconnect

        raise AutoReconnect("gone")

    with pytest.raises(PyMongoError):
        lease_module._surely(fail, patience=0.2)
    assert len(calls) >= 2


def test_a_machine_without_a_boot_clock_uses_the_monotonic_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert abs(lease_module.steady_seconds() - time.monotonic()) < 5


# ---- several processes

WORKER = """
import os, sys, time
from pymongo import MongoClient
from pymongo.write_concern import WriteConcern
from mongover.history.lease import Lease

url, name, times, kind = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
client = MongoClient(url, tz_aware=True)
safe = WriteConcern("majority", j=True)
locks = client[name].get_collection("_migrations_lock", write_concern=safe)
oracle = client[name]["oracle"]
me = os.getpid()

class Broken:
    fence = 0
    def acquire(self, session, on_wait):
        while True:  # looks first and writes then: the mistake that the oracle must see
            bad = client[name]["bad"]
            found = bad.find_one({"_id": "lock"})
            if found is None or found["owner"] is None:
                bad.update_one({"_id": "lock"}, {"$set": {"owner": me}}, upsert=True)
                return True
            time.sleep(0.001)
    def release(self):
        client[name]["bad"].update_one({"_id": "lock"}, {"$set": {"owner": None}})

for _ in range(times):
    lease = Broken() if kind == "broken" else Lease(
        locks, holder={"host": "h", "pid": me}, length=30, wait=120)
    with client.start_session() as session:
        assert lease.acquire(session, lambda state, left: True)
        found = oracle.find_one_and_update(
            {"_id": "counter"}, {"$inc": {"inside": 1, "total": 1}}, upsert=True,
            return_document=True)
        alone = found["inside"] == 1
        time.sleep(0.002)
        found = oracle.find_one_and_update(
            {"_id": "counter"}, {"$inc": {"inside": -1}}, return_document=True)
        alone = alone and found["inside"] == 0
        client[name]["seen"].insert_one({"fence": lease.fence, "alone": alone})
        lease.release()
"""


def run_workers(server: Server, name: str, *, count: int, times: int, kind: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(WORKER), server.url, name, str(times), kind]
    workers = [subprocess.Popen(command, env=environment) for _ in range(count)]
    assert [worker.wait(120) for worker in workers] == [0] * count


def test_many_processes_take_turns_and_every_fence_is_used_once(
    any_server: Server, open_database: Callable[..., Any]
) -> None:
    db = open_database(any_server)
    run_workers(any_server, db.name, count=5, times=20, kind="lease")
    seen = list(db["seen"].find())
    assert len(seen) == 100
    assert [one for one in seen if not one["alone"]] == []
    assert sorted(one["fence"] for one in seen) == list(range(1, 101))


def test_the_oracle_of_that_test_sees_a_lock_that_does_not_exclude(
    replica_set: Server, open_database: Callable[..., Any]
) -> None:
    db = open_database(replica_set)
    run_workers(replica_set, db.name, count=4, times=50, kind="broken")
    assert db["seen"].count_documents({"alone": False}) > 0


def test_the_lock_of_a_killed_process_is_taken_over_when_its_lease_ends(
    any_server: Server, open_database: Callable[..., Any], taker: Taker, locks: Locks
) -> None:
    code = """
    import sys, time
    from pymongo import MongoClient
    from mongover.history.lease import Lease
    client = MongoClient(sys.argv[1], tz_aware=True)
    lease = Lease(client[sys.argv[2]]["_migrations_lock"], holder={"pid": 1}, length=2, wait=0)
    lease.acquire(client.start_session(), lambda state, left: True)
    time.sleep(600)
    """
    name = locks.database.name
    command = [sys.executable, "-c", textwrap.dedent(code), any_server.url, name]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        wait_until(lambda: (read_lease(locks) or None) and state_of(locks).held, "the lock")
        first = state_of(locks).heartbeat_at
        wait_until(lambda: state_of(locks).heartbeat_at != first, "a heartbeat")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        began = time.monotonic()
        lease = taker.take(wait=30)
        assert time.monotonic() - began < 30
    assert lease.fence == 2


def test_the_lock_survives_step_downs_of_the_primary(
    three_nodes: ThreeNodes, open_database: Callable[..., Any]
) -> None:
    db = open_database(three_nodes, tz_aware=True)
    taker = Taker(locks_of(db))
    lease = taker.take(length=60)
    old = three_nodes.primary()
    assert three_nodes.step_down() is not old
    lease.check()
    other = Taker(locks_of(db))
    with pytest.raises(LockHeld):
        other.take(wait=0)
    taker.close()
    other.take(wait=10).release()
