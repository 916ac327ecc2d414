"""Every write of every command, before and after.

    MONGOVER_FULL_CRASH=1 python -m pytest tests/crash/test_crash_full.py -s

It takes about ten minutes on two cores, so it runs only when asked for. `-s` shows the reports.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mongover.testing.crash import (
    Project,
    Recovery,
    When,
    crash_points,
    run,
    run_and_disconnect,
    sweep,
)
from tests.support.crashing import (
    IDS,
    check_crash,
    check_end,
    check_lease,
    check_recovery,
    check_truth,
    open_,
    project_on,
    records_of,
    settle,
    write_project,
    write_revision,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.servers import Server

    NewName = Callable[[Server], str]

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("MONGOVER_FULL_CRASH"), reason="set MONGOVER_FULL_CRASH=1 to run it"
    ),
    pytest.mark.timeout(1_800),
]


@pytest.fixture
def project(any_server: Server, tmp_path: Path, mongo_database: NewName) -> Project:
    write_project(tmp_path, transactions=any_server.has_transactions)
    return project_on(any_server, tmp_path, mongo_database(any_server))


def tell(text: str) -> None:
    """What a person wants to read of a long test."""
    print(text)  # noqa: T201 - shown with -s


def upgraded(project: Project) -> None:
    done = run(project, ["upgrade"])
    assert done.exit_code == 0, done.text


def blocked(project: Project) -> None:
    """0001 of the project stopped half-way."""
    assert run(project, ["upgrade"]).exit_code == 1


@pytest.mark.parametrize("target", ["head", "calls"])
def test_upgrade(project: Project, target: str) -> None:
    report = sweep(
        project,
        ["upgrade", target],
        following=["upgrade"],
        inspect=check_crash,
        check=check_recovery(applied=True),
    )
    tell(report.text())
    assert not report.findings, report.text()
    assert report.kills >= 10


def test_downgrade(project: Project) -> None:
    report = sweep(
        project,
        ["downgrade", "base"],
        prepare=upgraded,
        inspect=check_crash,
        check=check_recovery(applied=False),
    )
    tell(report.text())
    assert not report.findings, report.text()
    assert report.kills >= 40


def test_an_upgrade_that_follows_a_killed_downgrade(project: Project) -> None:
    """The other direction: refused where the downgrade left something, else applied again."""

    def check(recovery: Recovery) -> None:
        check_truth(recovery.project)
        check_lease(recovery.project)
        settle(recovery.project, ["upgrade"], recovery.following)
        check_end(recovery.project, applied=True)

    report = sweep(
        project, ["downgrade", "base"], following=["upgrade"], prepare=upgraded, check=check
    )
    tell(report.text())
    assert not report.findings, report.text()


def test_stamp(project: Project) -> None:
    def check(recovery: Recovery) -> None:
        states = {id_: each["state"] for id_, each in records_of(recovery.project).items()}
        assert states == dict.fromkeys(IDS, "applied")

    report = sweep(project, ["stamp", "head", "--reason", "it was there"], check=check)
    tell(report.text())
    assert not report.findings, report.text()


def test_unstamp(project: Project) -> None:
    def stamped(project: Project) -> None:
        assert run(project, ["stamp", "head", "--reason", "it was there"]).exit_code == 0

    def check(recovery: Recovery) -> None:
        states = {id_: each["state"] for id_, each in records_of(recovery.project).items()}
        assert states == dict.fromkeys(IDS, "reverted")

    command = ["stamp", "base", "--reason", "it was never there"]
    report = sweep(project, command, prepare=stamped, check=check)
    tell(report.text())
    assert not report.findings, report.text()


@pytest.mark.parametrize("word", ["--retry", "--applied", "--reverted"])
def test_resolve(any_server: Server, tmp_path: Path, mongo_database: NewName, word: str) -> None:
    write_revision(tmp_path, 1, 'op.db["a"].insert_one({})\nraise ValueError("half")')
    project = project_on(any_server, tmp_path, mongo_database(any_server))

    def check(recovery: Recovery) -> None:
        record = records_of(recovery.project)["0001"]
        resolved = [each["action"] for each in record["log"]].count("resolve")
        assert resolved <= 1
        # 0: it is applied; 4: the resolution did not land; 1: it ran again, and raised again.
        wanted = {"--applied": {0, 4}, "--retry": {1, 4}, "--reverted": {1, 4}}[word]
        assert recovery.following.exit_code in wanted
        assert (recovery.following.exit_code == 4) == (resolved == 0)

    report = sweep(
        project,
        ["resolve", "0001", word, "--reason", "looked at it"],
        following=["upgrade"],
        prepare=blocked,
        check=check,
    )
    tell(report.text())
    strange = [each for each in report.findings if "named no way out" not in each.problem]
    assert not strange, report.text()


def test_repair(project: Project) -> None:
    def edited(project: Project) -> None:
        upgraded(project)
        with open_(project) as client:
            client[project.database]["_migrations"].update_one(
                {"_id": "0001"}, {"$set": {"checksum": "sha256:00", "source": "before = 1\n"}}
            )

    report = sweep(
        project,
        ["repair", "0001", "--reason", "a comment"],
        following=["upgrade"],
        prepare=edited,
    )
    tell(report.text())
    assert not report.findings, report.text()
    assert {each.following.exit_code for each in report.recoveries} == {0, 4}


@pytest.mark.parametrize("when", list(When))
@pytest.mark.parametrize("command", [("upgrade",), ("downgrade", "base")])
def test_a_connection_that_breaks_at_any_write(
    any_server: Server, project: Project, command: tuple[str, ...], when: When
) -> None:
    """No kill: executed and the reply lost, or never executed; the driver sends some again."""
    up = command[0] == "upgrade"
    times = 2 if any_server.has_transactions else 1

    def prepare() -> None:
        with open_(project) as client:
            client.drop_database(project.database)
        if not up:
            upgraded(project)

    prepare()
    count = len(crash_points(project, command))
    failed = 0
    for at in range(1, count + 1):
        prepare()
        broken = run_and_disconnect(project, command, at=at, when=when, times=times)
        assert broken.hits
        assert not broken.run.broke, broken.run.text
        check_truth(project)
        last = broken.run
        if last.exit_code in {1, 5}:
            failed += 1
            last = run(project, command)
        settle(project, command, last)
        check_end(project, applied=up)
    tell(f"{count} breaks {when} of {command}: {failed} ended with an error, none lost anything")
