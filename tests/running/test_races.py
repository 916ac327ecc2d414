"""Many processes, dead holders, paused holders, wrong clocks, lost heartbeats: one history."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pymongo.errors import OperationFailure

from mongover.testing.crash import run
from tests.support.crashing import (
    Gate,
    ended,
    failing,
    heard,
    lock_of,
    open_,
    project_on,
    records_of,
    started,
    write_revision,
)
from tests.support.depth import deep
from tests.support.servers import failpoint, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pymongo.database import Database

    from mongover.testing.crash import Project
    from tests.support.servers import Server

    NewName = Callable[[Server], str]
    Make = Callable[..., Project]
    Store = Database[dict[str, Any]]

PER_ROUND = 3
LEASE = 2.0
COUNT = 'op.db["a"].update_one({{"_id": "{0}"}}, {{"$inc": {{"n": 1}}}}, upsert=True)'


@pytest.fixture
def make(tmp_path: Path, mongo_database: NewName) -> Make:
    """Call it with a server (and a lease) for a project in the test's folder."""

    def make(server: Server, lease: float = LEASE) -> Project:
        return project_on(server, tmp_path, mongo_database(server), lease=lease)

    return make


@pytest.fixture
def db(request: pytest.FixtureRequest) -> Iterator[Callable[[Project], Store]]:
    with ExitStack() as stack:
        yield lambda project: stack.enter_context(open_(project))[project.database]


def write_counters(folder: Path, first: int, last: int) -> None:
    """Revisions that each count once."""
    for number in range(first, last + 1):
        parent = f"{number - 1:04d}" if number > 1 else None
        write_revision(folder, number, COUNT.format(f"{number:04d}"), parent=parent)


def counts(store: Store) -> dict[str, int]:
    return {each["_id"]: each["n"] for each in store["a"].find()}


# ---- many at once -------------------------------------------------------------------------------


@pytest.mark.parametrize(("processes", "rounds"), [(6, 1), deep(12, 3)])
def test_many_processes_that_upgrade_again_and_again_apply_each_revision_once(
    any_server: Server, make: Make, tmp_path: Path, db: Any, processes: int, rounds: int
) -> None:
    project = make(any_server, 60.0)
    applied = []
    for round_ in range(rounds):
        write_counters(tmp_path, round_ * PER_ROUND + 1, (round_ + 1) * PER_ROUND)
        with ExitStack() as stack:
            all_ = [
                stack.enter_context(started(project, "upgrade", "head", "--json"))
                for _ in range(processes)
            ]
            for process in all_:
                out, err = process.communicate(timeout=120)
                assert process.returncode == 0, err
                applied += json.loads(out)["applied"]
    expected = [f"{number:04d}" for number in range(1, rounds * PER_ROUND + 1)]
    assert sorted(applied) == expected
    assert counts(db(project)) == dict.fromkeys(expected, 1)
    records = records_of(project)
    assert [len(each["log"]) for each in records.values()] == [1] * len(expected)
    assert sorted(each["sequence"] for each in records.values()) == list(
        range(1, len(expected) + 1)
    )
    assert lock_of(project)["owner"] is None


@pytest.mark.deep
def test_upgrades_and_downgrades_that_race_leave_effects_and_records_in_agreement(
    replica_set: Server, make: Make, tmp_path: Path, db: Any
) -> None:
    for number in (1, 2, 3):
        id_ = f"{number:04d}"
        up = COUNT.format(id_)
        parent = f"{number - 1:04d}" if number > 1 else None
        down = up.replace('"n": 1', '"n": -1')
        write_revision(tmp_path, number, up, down, parent=parent, header="transaction = True")
    project = make(replica_set, 60.0)
    commands = [("upgrade",), ("downgrade", "base"), ("upgrade", "+1"), ("downgrade", "-1")] * 3
    with ExitStack() as stack:
        for process in [stack.enter_context(started(project, *each)) for each in commands]:
            code, text = ended(process)
            assert code in {0, 2}, text  # 2: a walk that went beyond the end
            assert "Traceback" not in text
    found = counts(db(project))
    for id_, record in records_of(project).items():
        assert record["state"] in {"applied", "reverted"}
        assert found[id_] == (1 if record["state"] == "applied" else 0)


# ---- dead holders -------------------------------------------------------------------------------


def kill_at(gate: Gate, process: subprocess.Popen[str]) -> None:
    gate.reached(process)
    process.kill()
    process.wait()


def test_a_killed_holder_is_followed_when_its_lease_ends_and_not_before(
    any_server: Server, make: Make, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    write_revision(tmp_path, 1, f'op.create_collection("a")\n{gate.code}')
    project = make(any_server)
    with started(project, "upgrade") as process:
        kill_at(gate, process)
    expires = lock_of(project)["expires_at"]
    gate.open()
    after = run(project, ["upgrade"])
    assert after.exit_code == 0, after.text
    taken = lock_of(project)["acquired_at"]
    assert expires <= taken <= expires + timedelta(seconds=30)
    assert records_of(project)["0001"]["attempt"] == 2


def test_a_holder_killed_inside_its_transaction_blocks_nobody_beyond_its_lease(
    replica_set: Server, make: Make, tmp_path: Path, db: Any
) -> None:
    gate = Gate(tmp_path)
    act = COUNT.format("x")
    write_revision(tmp_path, 1, f"{act}\n{gate.code}", header="transaction = True")
    project = make(replica_set)
    db(project)["a"].insert_one({"_id": "x", "n": 0})
    with started(project, "upgrade") as process:
        kill_at(gate, process)
    gate.open()
    after = run(project, ["upgrade"])
    assert after.exit_code == 0, after.text
    assert after.seconds < LEASE + 45, "the server's reaper of transactions was waited for"
    assert counts(db(project)) == {"x": 1}


@pytest.mark.deep
def test_an_orphan_of_two_crashes_ago_is_ended_too(
    replica_set: Server, make: Make, tmp_path: Path, db: Any
) -> None:
    """The second holder dies after it took the lock and before it ended the first one's session."""
    gate = Gate(tmp_path)
    act = COUNT.format("x")
    write_revision(tmp_path, 1, f"{act}\n{gate.code}", header="transaction = True")
    project = make(replica_set, 1.0)
    store = db(project)
    store["a"].insert_one({"_id": "x", "n": 0})
    with started(project, "upgrade") as process:
        kill_at(gate, process)
    with (
        failing(store.client, ["killSessions"], "alwaysOn", blockConnection=True, blockTimeMS=9000),
        started(project, "upgrade") as process,
    ):
        wait_until(lambda: lock_of(project)["fence"] == 2, "the takeover")
        process.kill()
    assert len(lock_of(project)["dead"]) == 1
    gate.open()
    after = run(project, ["upgrade"])
    assert after.exit_code == 0, after.text
    assert after.seconds < 50, "the first orphan was waited for"
    assert counts(store) == {"x": 1}
    assert lock_of(project)["dead"] == []


# ---- paused holders -----------------------------------------------------------------------------


def test_a_paused_holder_of_a_transaction_cannot_commit_when_it_wakes(
    replica_set: Server, make: Make, tmp_path: Path, db: Any
) -> None:
    gate = Gate(tmp_path)
    write_revision(tmp_path, 1, f"{gate.code}\n{COUNT.format('x')}", header="transaction = True")
    project = make(replica_set)
    with started(project, "upgrade") as zombie:
        gate.reached(zombie)
        os.kill(zombie.pid, signal.SIGSTOP)
        gate.open()
        after = run(project, ["upgrade"])
        assert after.exit_code == 0, after.text
        truth = records_of(project)
        os.kill(zombie.pid, signal.SIGCONT)
        code, text = ended(zombie)
    assert code == 3, text
    assert "lost the lock" in text
    assert "Traceback" not in text
    assert records_of(project) == truth
    assert counts(db(project)) == {"x": 1}


@pytest.mark.deep
def test_a_zombie_whose_own_checks_fail_it_is_kept_out_by_the_server(
    replica_set: Server, make: Make, tmp_path: Path, db: Any
) -> None:
    """Its clock stands still, so only the fence and its dead session can stop it."""
    gate = Gate(tmp_path)
    write_revision(tmp_path, 1, f"{COUNT.format('x')}\n{gate.code}", header="transaction = True")
    project = make(replica_set)
    frozen = (
        "import mongover.history.lease\n"
        "mongover.history.lease.Lease.lost = property(lambda self: None)\n"
        "mongover.history.lease.Lease._keep = lambda self: None\n"
    )
    with started(project, "upgrade", patch=frozen) as zombie:
        gate.reached(zombie)
        os.kill(zombie.pid, signal.SIGSTOP)
        gate.open()
        after = run(project, ["upgrade"])
        assert after.exit_code == 0, after.text
        truth = records_of(project)
        os.kill(zombie.pid, signal.SIGCONT)
        code, text = ended(zombie)
    assert code == 3, text
    assert "lost the lock" in text
    assert records_of(project) == truth
    assert counts(db(project)) == {"x": 1}


@pytest.mark.parametrize("frozen", ["", deep("property(lambda self: None)")])
def test_a_paused_holder_without_a_transaction_cannot_change_the_history_when_it_wakes(
    any_server: Server, make: Make, tmp_path: Path, frozen: str
) -> None:
    gate = Gate(tmp_path)
    write_revision(tmp_path, 1, f"{COUNT.format('x')}\n{gate.code}")
    write_revision(tmp_path, 2, COUNT.format("y"), parent="0001")
    project = make(any_server)
    patch = (
        frozen and f"import mongover.history.lease\nmongover.history.lease.Lease.lost = {frozen}\n"
    )
    with started(project, "upgrade", patch=patch) as zombie:
        gate.reached(zombie)
        os.kill(zombie.pid, signal.SIGSTOP)
        after = run(project, ["upgrade"])
        assert after.exit_code == 4, after.text
        assert "mongover resolve 0001" in after.text
        truth = records_of(project)
        assert truth["0001"]["state"] == "interrupted"
        gate.open()
        os.kill(zombie.pid, signal.SIGCONT)
        code, text = ended(zombie)
    assert code == 3, text
    assert "lost the lock" in text
    assert "Traceback" not in text
    assert records_of(project) == truth
    done = run(project, ["resolve", "0001", "--applied", "--reason", "x is 1"])
    assert done.exit_code == 0, done.text
    assert run(project, ["upgrade"]).exit_code == 0


def test_a_zombie_does_none_of_the_work_of_the_next_revision(
    any_server: Server, make: Make, tmp_path: Path, db: Any
) -> None:
    gate = Gate(tmp_path)
    write_revision(tmp_path, 1, f'op.create_collection("c")\n{gate.code}')
    write_revision(tmp_path, 2, COUNT.format("y"), parent="0001")
    project = make(any_server)
    lease = "mongover.history.lease"
    patch = f"import {lease}\n{lease}.Lease.lost = property(lambda self: None)\n"
    with started(project, "upgrade", patch=patch) as zombie:
        gate.reached(zombie)
        os.kill(zombie.pid, signal.SIGSTOP)
        gate.open()
        after = run(project, ["upgrade"])
        assert after.exit_code == 0, after.text
        os.kill(zombie.pid, signal.SIGCONT)
        code, text = ended(zombie)
    assert code == 3, text
    assert counts(db(project)) == {"y": 1}


# ---- clocks -------------------------------------------------------------------------------------

SKEW = """
import datetime, time
_time, _ns = time.time, time.time_ns
time.time = lambda: _time() + {0}
time.time_ns = lambda: _ns() + {0} * 10**9
"""


@pytest.mark.parametrize("hours", [1, deep(-1), deep(24 * 365 * 50)])
def test_the_clocks_of_the_machines_decide_nothing(
    any_server: Server, make: Make, tmp_path: Path, hours: int, db: Any
) -> None:
    gate = Gate(tmp_path)
    write_revision(tmp_path, 1, f"{COUNT.format('x')}\n{gate.code}")
    project = make(any_server, 60.0)
    skew = SKEW.format(hours * 3600)
    with started(project, "upgrade") as holder:
        gate.reached(holder)
        with started(project, "upgrade", "--lock-wait", "0.5", patch=skew) as other:
            code, text = ended(other)
        assert code == 3, text
        assert "still held" in text
        gate.open()
        assert ended(holder)[0] == 0
    write_revision(tmp_path, 2, COUNT.format("y"), parent="0001")
    with started(project, "upgrade", patch=skew) as other:
        code, text = ended(other)
    assert code == 0, text
    assert counts(db(project)) == {"x": 1, "y": 1}
    records = records_of(project)
    gap = records["0002"]["applied_at"] - records["0001"]["applied_at"]
    assert timedelta(0) <= gap < timedelta(minutes=2)
    lock = lock_of(project)
    assert abs(lock["now"] - lock["released_at"]) < timedelta(minutes=2)


# ---- heartbeats ---------------------------------------------------------------------------------


def test_a_holder_whose_heartbeats_do_not_arrive_stops_before_its_next_write(
    any_server: Server, make: Make, tmp_path: Path, db: Any
) -> None:
    gate = Gate(tmp_path)
    write_revision(tmp_path, 1, f"{gate.code}\n{COUNT.format('x')}")
    project = make(any_server, 1.0)
    store = db(project)
    locks = f"{project.database}._migrations_lock"
    with started(project, "upgrade") as process:
        gate.reached(process)
        with failing(
            store.client, ["update"], "alwaysOn", closeConnection=True, namespace=locks
        ) as point:
            wait_until(lambda: _expired(project), "the end of the lease")
            gate.open()
            code, text = ended(process)
    assert point.hits >= 1
    assert code == 3, text
    assert "heartbeat did not reach the server" in text
    assert counts(store) == {}
    after = run(project, ["upgrade"])
    assert after.exit_code == 0, after.text
    assert counts(store) == {"x": 1}


def _expired(project: Project) -> bool:
    lock = lock_of(project)
    return bool(lock["expires_at"] <= lock["now"])


def test_a_holder_survives_one_heartbeat_that_fails(
    any_server: Server, make: Make, tmp_path: Path, db: Any
) -> None:
    gate = Gate(tmp_path)
    write_revision(tmp_path, 1, f"{gate.code}\n{COUNT.format('x')}")
    project = make(any_server, LEASE)
    store = db(project)
    locks = f"{project.database}._migrations_lock"
    with started(project, "upgrade") as process:
        gate.reached(process)
        with failing(
            store.client, ["update"], {"times": 1}, closeConnection=True, namespace=locks
        ) as point:
            before = lock_of(project)["heartbeat_at"]
            wait_until(lambda: lock_of(project)["heartbeat_at"] > before, "the next heartbeat")
        gate.open()
        code, text = ended(process)
    assert point.hits == 1
    assert code == 0, text


@pytest.mark.parametrize("act", ["delete", deep("drop"), deep("foreign")])
def test_a_run_whose_lock_document_is_taken_away_ends_with_a_clear_error(
    any_server: Server, make: Make, tmp_path: Path, db: Any, act: str
) -> None:
    gate = Gate(tmp_path)
    asking = gate.code.replace(
        "    time.sleep", "    op.db  # asks whether the lock is ours\n    time.sleep"
    )
    write_revision(tmp_path, 1, f"{asking}\n{COUNT.format('x')}", header="repeatable = True")
    project = make(any_server, 1.0)
    store = db(project)
    with started(project, "upgrade") as process:
        gate.reached(process)
        _harm(store, act)
        code, text = ended(process)
    gate.open()
    assert code == 3, text
    assert "lost the lock" in text
    assert "Traceback" not in text
    assert counts(store) == {}
    after = run(project, ["upgrade"])
    assert after.exit_code == 0, after.text
    assert counts(store) == {"x": 1}


def _harm(store: Store, act: str) -> None:
    locks = store["_migrations_lock"]
    if act == "delete":
        locks.delete_many({})
    elif act == "drop":
        locks.drop()
    else:
        locks.update_one({"_id": "lock"}, {"$set": {"owner": "another", "fence": 99}})


def test_a_holder_in_a_long_index_build_keeps_its_lease_and_others_wait(
    replica_set: Server, make: Make, tmp_path: Path, db: Any
) -> None:
    write_revision(tmp_path, 1, 'op.create_index("a", "n")')
    project = make(replica_set, 1.0)
    store = db(project)
    store["a"].insert_one({"n": 1})
    with ExitStack() as stack:
        with failpoint(store.client, "hangAfterStartingIndexBuild"):
            holder = stack.enter_context(started(project, "upgrade"))
            wait_until(lambda: _lives_beyond(project, 3.0), "three leases of heartbeats")
            impatient = run(project, ["upgrade", "--lock-wait", "0.5"])
            assert impatient.exit_code == 3, impatient.text
            assert "working, not stuck" in impatient.text
            waiter = stack.enter_context(started(project, "upgrade", "--lock-wait", "60"))
            heard(waiter, "lock")
        assert ended(holder)[0] == 0
        code, text = ended(waiter)
    assert code == 0, text
    assert records_of(project)["0001"]["attempt"] == 1
    assert "n_1" in store["a"].index_information()


def _lives_beyond(project: Project, seconds: float) -> bool:
    lock = lock_of(project)
    if not lock.get("acquired_at"):
        return False
    lasted: timedelta = lock["heartbeat_at"] - lock["acquired_at"]
    return lasted.total_seconds() > seconds and not _expired(project)


def test_an_index_build_whose_holder_was_killed_is_waited_for_and_found_done(
    replica_set: Server, make: Make, tmp_path: Path, db: Any
) -> None:
    write_revision(tmp_path, 1, 'op.create_index("a", "n")')
    project = make(replica_set, 1.0)
    store = db(project)
    store["a"].insert_one({"n": 1})
    with ExitStack() as stack:
        with failpoint(store.client, "hangAfterStartingIndexBuild"):
            with started(project, "upgrade") as process:
                wait_until(lambda: _builds(store), "the index build")
                process.kill()
            follower = stack.enter_context(started(project, "upgrade"))
            wait_until(lambda: lock_of(project)["fence"] == 2, "the takeover")
        code, text = ended(follower)
    assert code == 0, text
    assert list(store["a"].index_information()) == ["_id_", "n_1"]
    assert records_of(project)["0001"]["attempt"] == 2


def _builds(store: Store) -> bool:
    with suppress(OperationFailure):  # no collection yet
        listed = store.command({"listIndexes": "a", "includeBuildUUIDs": True})
        return any("buildUUID" in each for each in listed["cursor"]["firstBatch"])
    return False


# ---- what a restored dump brings ----------------------------------------------------------------


def test_a_held_lock_in_a_restored_dump_is_taken_over(
    any_server: Server, make: Make, tmp_path: Path, db: Any
) -> None:
    gate = Gate(tmp_path)
    write_revision(tmp_path, 1, f'op.create_collection("c")\n{gate.code}')
    project = make(any_server, 60.0)
    store = db(project)
    with started(project, "upgrade") as process:
        gate.reached(process)
        dump = {name: list(store[name].find()) for name in ("_migrations", "_migrations_lock")}
        process.kill()
    for document in dump["_migrations_lock"]:
        for name, value in document.items():
            if name.endswith("_at"):
                document[name] = value - timedelta(days=90)
    for name, documents in dump.items():
        store[name].delete_many({})
        store[name].insert_many(documents)
    gate.open()
    shown = run(project, ["lock"])
    assert "expired" in shown.text, shown.text
    after = run(project, ["upgrade"])
    assert after.exit_code == 0, after.text
    assert after.seconds < 50
    assert records_of(project)["0001"]["state"] == "applied"
