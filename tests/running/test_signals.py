"""Ctrl-C and SIGTERM, once and twice, while a revision runs: exit code, record, lock, message."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mongover.testing.crash import run
from tests.support.crashing import (
    Gate,
    ended,
    heard,
    lock_of,
    open_,
    project_on,
    records_of,
    started,
    write_revision,
)
from tests.support.servers import failpoint, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from mongover.testing.crash import Project
    from tests.support.servers import Server

    NewName = Callable[[Server], str]
    Make = Callable[..., tuple[Project, Gate]]

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
INSERT = 'op.db["a"].insert_one({"n": 1})'


@pytest.fixture
def make(tmp_path: Path, mongo_database: NewName) -> Make:
    """A project of two revisions; the first stands at a gate after its act."""

    def make(server: Server, act: str, header: str = "") -> tuple[Project, Gate]:
        gate = Gate(tmp_path)
        write_revision(tmp_path, 1, f"{act}\n{gate.code}", header=header)
        write_revision(tmp_path, 2, 'op.create_collection("second")', parent="0001")
        return project_on(server, tmp_path, mongo_database(server), lease=20.0), gate

    return make


def count(project: Project, collection: str = "a") -> int:
    with open_(project) as client:
        return client[project.database][collection].count_documents({})


def resumes(project: Project, gate: Gate) -> None:
    """The next upgrade, whose way is free, applies both; each effect is there once."""
    gate.open()
    done = run(project, ["upgrade"])
    assert done.exit_code == 0, done.text
    assert {each["state"] for each in records_of(project).values()} == {"applied"}


@pytest.mark.parametrize(("signum", "code"), CODES)
def test_a_signal_ends_a_transaction_at_once_and_nothing_of_it_stays(
    replica_set: Server, make: Make, signum: int, code: int
) -> None:
    project, gate = make(replica_set, INSERT, "transaction = True")
    with started(project, "upgrade") as process:
        gate.reached(process)
        before = time.monotonic()
        process.send_signal(signum)
        exit_code, text = ended(process)
    assert exit_code == code, text
    assert time.monotonic() - before < 60  # the gate is never opened
    assert "0001 was interrupted" in text
    assert "Traceback" not in text
    record = records_of(project)["0001"]
    assert (record["state"], record["outcome"]) == ("interrupted", "nothing")
    assert lock_of(project)["owner"] is None
    assert count(project) == 0
    resumes(project, gate)
    assert count(project) == 1


@pytest.mark.parametrize(("signum", "code"), CODES)
def test_a_signal_ends_what_can_be_repeated_at_once(
    any_server: Server, make: Make, signum: int, code: int
) -> None:
    project, gate = make(any_server, 'op.insert("a", [{"_id": 1}, {"_id": 2}])')
    with started(project, "upgrade") as process:
        gate.reached(process)
        process.send_signal(signum)
        exit_code, text = ended(process)
    assert exit_code == code, text
    assert "0001 was interrupted" in text
    record = records_of(project)["0001"]
    assert (record["state"], record["repeatable"]) == ("interrupted", True)
    assert "0002" not in records_of(project)
    assert lock_of(project)["owner"] is None
    resumes(project, gate)
    assert count(project) == 2


@pytest.mark.parametrize(("signum", "code"), CODES)
def test_a_first_signal_lets_what_cannot_be_repeated_finish_and_starts_nothing_after_it(
    any_server: Server, make: Make, signum: int, code: int
) -> None:
    project, gate = make(any_server, INSERT)
    with started(project, "upgrade") as process:
        gate.reached(process)
        process.send_signal(signum)
        said = heard(process, "finishing 0001")
        gate.open()
        exit_code, text = ended(process)
    assert exit_code == code, text
    assert "again to stop now" in said
    assert "0002 was not started" in text
    records = records_of(project)
    assert {id_: each["state"] for id_, each in records.items()} == {"0001": "applied"}
    assert lock_of(project)["owner"] is None
    resumes(project, gate)
    assert count(project) == 1


@pytest.mark.parametrize(("signum", "code"), CODES)
def test_a_second_signal_ends_it_at_once_and_the_record_says_so(
    any_server: Server, make: Make, signum: int, code: int
) -> None:
    project, gate = make(any_server, INSERT)
    with started(project, "upgrade") as process:
        gate.reached(process)
        process.send_signal(signum)
        heard(process, "finishing 0001")
        process.send_signal(signum)
        exit_code, text = ended(process)
    assert exit_code == code, text
    record = records_of(project)["0001"]
    assert (record["state"], record["outcome"]) == ("interrupted", "unknown")
    assert record["log"][-1]["outcome"] == "interrupted"
    assert lock_of(project)["owner"] is None
    refused = run(project, ["upgrade"])
    assert refused.exit_code == 4
    assert "mongover resolve 0001" in refused.text
    resolved = run(project, ["resolve", "0001", "--applied", "--reason", "the document is there"])
    assert resolved.exit_code == 0, resolved.text
    resumes(project, gate)
    assert count(project) == 1


def test_the_two_signals_may_be_different_ones(standalone: Server, make: Make) -> None:
    project, gate = make(standalone, INSERT)
    with started(project, "upgrade") as process:
        gate.reached(process)
        process.send_signal(signal.SIGTERM)
        heard(process, "finishing 0001")
        process.send_signal(signal.SIGINT)
        exit_code, text = ended(process)
    assert exit_code == 143, text
    assert records_of(project)["0001"]["state"] == "interrupted"


def test_a_supervisor_that_loses_patience_is_survived(any_server: Server, make: Make) -> None:
    project, gate = make(any_server, INSERT)
    project = replace(project, lease=1.0)
    with started(project, "upgrade") as process:
        gate.reached(process)
        process.send_signal(signal.SIGTERM)
        heard(process, "finishing 0001")
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
    assert records_of(project)["0001"]["state"] == "applying"
    gate.open()
    after = run(project, ["upgrade"])
    assert after.exit_code == 4, after.text
    assert "is gone" in after.text
    assert "mongover resolve 0001" in after.text
    assert lock_of(project)["owner"] is None
    assert run(project, ["upgrade", "--retry"]).exit_code == 0
    assert count(project) == 2  # a person said that it may run again


def test_a_transaction_that_is_deaf_to_signals_is_survived_when_it_is_killed(
    replica_set: Server, make: Make
) -> None:
    deaf = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])"
    project, gate = make(replica_set, f"{INSERT}\n{deaf}", "transaction = True")
    project = replace(project, lease=1.0)
    with started(project, "upgrade") as process:
        gate.reached(process)
        process.send_signal(signal.SIGTERM)
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
    assert records_of(project)["0001"]["state"] == "applying"
    gate.open()
    after = run(project, ["upgrade"])
    assert after.exit_code == 0, after.text
    assert after.seconds < 50, "the transaction of the dead was waited for"
    assert "is gone" in after.text
    assert count(project) == 1


def test_a_signal_while_it_waits_for_the_lock_ends_it_and_changes_nothing(
    replica_set: Server, make: Make
) -> None:
    project, gate = make(replica_set, INSERT)
    with started(project, "upgrade") as holder:
        gate.reached(holder)
        with started(project, "upgrade", "--lock-wait", "60") as waiter:
            heard(waiter, "lock")
            waiter.send_signal(signal.SIGINT)
            exit_code, text = ended(waiter)
        assert exit_code == 130, text
        assert "Traceback" not in text
        assert lock_of(project)["holder"]["pid"] == holder.pid
        gate.open()
        assert ended(holder)[0] == 0
    assert count(project) == 1


def test_a_signal_during_a_blocked_index_build_ends_the_command_within_seconds(
    replica_set: Server, tmp_path: Path, mongo_database: NewName
) -> None:
    write_revision(tmp_path, 1, 'op.create_index("a", "n")')
    project = project_on(replica_set, tmp_path, mongo_database(replica_set), lease=20.0)
    with open_(project) as client:
        client[project.database]["a"].insert_one({"n": 1})
        with (
            failpoint(client, "hangAfterStartingIndexBuild"),
            started(project, "upgrade") as process,
        ):
            wait_until(lambda: _building(client, project), "the index build")
            before = time.monotonic()
            process.send_signal(signal.SIGINT)
            exit_code, text = ended(process)
            seconds = time.monotonic() - before
    assert exit_code == 130, text
    assert seconds < 20  # the build hangs for good
    assert records_of(project)["0001"]["state"] == "interrupted"
    assert lock_of(project)["owner"] is None
    again = run(project, ["upgrade"])
    assert again.exit_code == 0, again.text


def _building(client: Any, project: Project) -> bool:
    listed = client[project.database].command({"listIndexes": "a", "includeBuildUUIDs": True})
    return any("buildUUID" in each for each in listed["cursor"]["firstBatch"])


def test_the_downgrade_that_a_signal_ended_is_finished_by_the_next(
    replica_set: Server, tmp_path: Path, mongo_database: NewName
) -> None:
    gate = Gate(tmp_path)
    write_revision(
        tmp_path,
        1,
        INSERT,
        f'op.db["a"].delete_one({{"n": 1}})\n{gate.code}',
        header="transaction = True",
    )
    project = project_on(replica_set, tmp_path, mongo_database(replica_set), lease=20.0)
    assert run(project, ["upgrade"]).exit_code == 0
    with started(project, "downgrade", "base") as process:
        gate.reached(process)
        process.send_signal(signal.SIGTERM)
        exit_code, text = ended(process)
    assert exit_code == 143, text
    record = records_of(project)["0001"]
    assert (record["state"], record["direction"]) == ("interrupted", "down")
    assert count(project) == 1
    gate.open()
    done = run(project, ["downgrade", "base"])
    assert done.exit_code == 0, done.text
    assert count(project) == 0


def test_a_flood_of_signals_leaves_a_record_and_a_free_lock(any_server: Server, make: Make) -> None:
    project, gate = make(any_server, INSERT)
    # Coverage takes a lock of its own in the middle of any code, which a handler would wait for.
    found = project.environ or {}
    unmeasured = {name: value for name, value in found.items() if not name.startswith("COV")}
    with started(replace(project, environ=unmeasured), "upgrade") as process:
        gate.reached(process)
        _flood(process)
        exit_code, text = ended(process)
    assert exit_code in {130, 143}, text
    assert "Traceback" not in text
    assert records_of(project)["0001"]["state"] == "interrupted"
    assert lock_of(project)["owner"] is None


def _flood(process: subprocess.Popen[str]) -> None:
    for number in range(200):
        if process.poll() is None:
            process.send_signal((signal.SIGINT, signal.SIGTERM)[number % 2])
