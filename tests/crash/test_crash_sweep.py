"""Killed at a sample of its writes; `test_crash_full.py` takes every one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mongover.testing.crash import (
    NotKilled,
    Recovery,
    When,
    crash_points,
    run,
    run_and_disconnect,
    run_and_kill,
    sweep,
)
from tests.support.crashing import (
    check_crash,
    check_end,
    check_recovery,
    effects,
    open_,
    project_on,
    records_of,
    settle,
    write_project,
    write_revision,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from mongover.testing.crash import Project
    from mongover.testing.wire import Command
    from tests.support.servers import Server

    NewName = Callable[[Server], str]


def every(step: int, first: int) -> Callable[[Sequence[Command]], Iterable[int]]:
    """Each `step`-th write from `first` on; the last one always."""
    return lambda points: {*range(first, len(points), step), len(points)}


def upgraded(project: Project) -> None:
    done = run(project, ["upgrade"])
    assert done.exit_code == 0, done.text


@pytest.fixture
def project(any_server: Server, tmp_path: Path, mongo_database: NewName) -> Project:
    write_project(tmp_path, transactions=any_server.has_transactions)
    return project_on(any_server, tmp_path, mongo_database(any_server))


def test_an_upgrade_killed_at_a_write_is_put_right_by_the_next(project: Project) -> None:
    report = sweep(
        project,
        ["upgrade"],
        inspect=check_crash,
        check=check_recovery(applied=True),
        choose=every(8, 3),
    )
    assert not report.findings, report.text()
    assert report.kills >= 8


@pytest.mark.deep
def test_a_downgrade_killed_at_a_write_is_put_right_by_the_next(
    replica_set: Server, tmp_path: Path, mongo_database: NewName
) -> None:
    write_project(tmp_path, transactions=True)
    project = project_on(replica_set, tmp_path, mongo_database(replica_set))
    report = sweep(
        project,
        ["downgrade", "base"],
        prepare=upgraded,
        inspect=check_crash,
        check=check_recovery(applied=False),
        choose=every(13, 7),
    )
    assert not report.findings, report.text()
    assert report.kills >= 4


def test_a_lost_reply_is_looked_up_before_anything_is_called_failed(
    any_server: Server, project: Project
) -> None:
    # 3 takes the lock, 5 begins the first record, 8 ends it and begins the second: all landed.
    # Where the driver sends a write again by itself, the second reply is lost too.
    times = 2 if any_server.has_transactions else 1
    for at in (3, 5, 8):
        with open_(project) as client:
            client.drop_database(project.database)
        broken = run_and_disconnect(project, ["upgrade"], at=at, times=times)
        assert len(broken.hits) == times
        assert broken.run.exit_code == 0, broken.run.text
        check_end(project, applied=True)


def test_a_lost_reply_to_what_cannot_be_repeated_asks_a_person(
    standalone: Server, tmp_path: Path, mongo_database: NewName
) -> None:
    write_revision(tmp_path, 1, 'op.db["a"].update_many({}, {"$inc": {"n": 1}})')
    project = project_on(standalone, tmp_path, mongo_database(standalone))
    with open_(project) as client:
        client[project.database]["a"].insert_one({"n": 0})
    points = crash_points(project, ["upgrade"])
    at = next(i for i, each in enumerate(points, 1) if each.namespace.endswith(".a"))
    again = run(project, ["downgrade", "base"])
    assert again.exit_code == 0, again.text
    # The lock's documents are there already: the same write comes two writes earlier.
    broken = run_and_disconnect(project, ["upgrade"], at=at - 2)
    assert [each.namespace for each in broken.hits] == [f"{project.database}.a"]
    assert broken.run.exit_code == 1
    assert not broken.run.broke, broken.run.text
    assert records_of(project)["0001"]["outcome"] == "unknown"
    refused = run(project, ["upgrade"])
    assert refused.exit_code == 4
    assert "mongover resolve 0001" in refused.text
    assert run(project, ["resolve", "0001", "--applied", "--reason", "n is 2"]).exit_code == 0
    assert run(project, ["upgrade"]).exit_code == 0


def test_a_stamp_killed_at_a_write_loses_no_record(
    standalone: Server, tmp_path: Path, mongo_database: NewName
) -> None:
    write_project(tmp_path, transactions=standalone.has_transactions)
    project = project_on(standalone, tmp_path, mongo_database(standalone))

    def check(recovery: Recovery) -> None:
        states = {id_: each["state"] for id_, each in records_of(recovery.project).items()}
        assert states == dict.fromkeys(states, "applied")
        assert len(states) == 7

    command = ["stamp", "head", "--reason", "it was there"]
    report = sweep(project, command, check=check, choose=every(2, 3))
    assert not report.findings, report.text()
    assert report.kills >= 4


def test_a_resolve_killed_at_a_write_says_either_what_was_or_what_is(
    standalone: Server, tmp_path: Path, mongo_database: NewName
) -> None:
    write_revision(tmp_path, 1, 'op.db["a"].insert_one({})\nraise ValueError("half")')
    project = project_on(standalone, tmp_path, mongo_database(standalone))

    def fail(project: Project) -> None:
        assert run(project, ["upgrade"]).exit_code == 1

    def check(recovery: Recovery) -> None:
        record = records_of(recovery.project)["0001"]
        actions = [entry["action"] for entry in record["log"]]
        assert (record["state"] == "applied") == ("resolve" in actions)
        assert actions.count("resolve") <= 1

    report = sweep(
        project,
        ["resolve", "0001", "--applied", "--reason", "it is whole"],
        following=["upgrade"],
        prepare=fail,
        check=check,
        choose=every(9, 3),
    )
    assert not report.findings, report.text()
    assert {recovery.following.exit_code for recovery in report.recoveries} == {0, 4}


@pytest.mark.deep
def test_a_second_crash_during_the_recovery_is_survived(
    replica_set: Server, tmp_path: Path, mongo_database: NewName
) -> None:
    write_project(tmp_path, transactions=True)
    project = project_on(replica_set, tmp_path, mongo_database(replica_set))
    run_and_kill(project, ["upgrade"], at=14, when=When.AFTER)
    for at in range(1, 6):
        crash = run_and_kill(project, ["upgrade"], at=at, when=When.AFTER)
        check_crash(project, crash)
    # The first crash left an open transaction, and who took over died before it could end it.
    last = run(project, ["upgrade"])
    assert last.seconds < 50, "the transaction of the dead was waited for"
    settle(project, ["upgrade"], last)
    check_end(project, applied=True)


def test_the_sweep_finds_a_revision_that_lies_about_being_repeatable(
    standalone: Server, tmp_path: Path, mongo_database: NewName
) -> None:
    lie = 'op.db["counters"].update_one({"_id": "0001"}, {"$inc": {"n": 1}}, upsert=True)'
    write_revision(tmp_path, 1, lie, header="repeatable = True")
    project = project_on(standalone, tmp_path, mongo_database(standalone))

    def check(recovery: Recovery) -> None:
        with open_(recovery.project) as client:
            found = client[recovery.project.database]["counters"].find_one({"_id": "0001"})
        assert found is not None
        assert found["n"] == 1, f"counted {found['n']} times"

    def counting(points: Sequence[Command]) -> list[int]:
        return [i for i, each in enumerate(points, 1) if each.namespace.endswith(".counters")]

    report = sweep(project, ["upgrade"], check=check, choose=counting)
    assert report.kills == 2
    assert [each.crash for each in report.findings] == [str(report.recoveries[1].crash)]
    assert "counted 2 times" in report.text()


def test_a_command_that_ends_before_its_kill_is_no_proof(
    standalone: Server, tmp_path: Path, mongo_database: NewName
) -> None:
    write_revision(tmp_path, 1, 'op.create_collection("a")')
    project = project_on(standalone, tmp_path, mongo_database(standalone))
    with pytest.raises(NotKilled, match="before it could be killed at number 99"):
        run_and_kill(project, ["upgrade"], at=99)


@pytest.mark.deep
def test_the_points_of_a_command_are_the_same_each_time(
    replica_set: Server, tmp_path: Path, mongo_database: NewName
) -> None:
    write_project(tmp_path, transactions=True)
    project = project_on(replica_set, tmp_path, mongo_database(replica_set), lease=1.0)
    seen = []
    for _ in range(2):
        seen.append([(each.name, each.namespace) for each in crash_points(project, ["upgrade"])])
        with open_(project) as client:
            assert set(effects(client[project.database]).values()) == {"done"}
            client.drop_database(project.database)
    assert seen[0] == seen[1]
