"""Running revisions on real servers: what the record says before, during and after their code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pymongo
import pytest
from pymongo.monitoring import CommandListener

from mongover.errors import (
    Blocked,
    InvalidRevision,
    Irreversible,
    LockLost,
    MongoverError,
    RecordConflict,
    RevisionFailed,
    TransactionsUnsupported,
)
from mongover.errors import Interrupted as InterruptedRun
from mongover.history.changes import Resolution
from mongover.history.record import Direction
from mongover.running.events import (
    LockTaken,
    Notice,
    OperationFinished,
    Progress,
    StepFailed,
    StepFinished,
    StepStarted,
)
from mongover.running.stop import Stop, StopNow
from tests.support.projects import (  # noqa: F401 - fixtures
    make_project_fixture,
    project_fixture,
    standalone_project_fixture,
)
from tests.support.servers import ROOT, failpoint, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.monitoring import (
        CommandFailedEvent,
        CommandStartedEvent,
        CommandSucceededEvent,
    )

    from tests.support.projects import Project
    from tests.support.servers import Server

APPLIED, REVERTED, FAILED, INTERRUPTED = "applied", "reverted", "failed", "interrupted"


def outcome_of(record: dict[str, Any]) -> tuple[Any, ...]:
    return (record["state"], record["outcome"], record["repeatable"])


def kinds(project: Project, kind: type) -> list[Any]:
    return [event for event in project.events if isinstance(event, kind)]


# ---- the record


def test_the_record_says_applying_before_any_code_runs(project: Project) -> None:
    project.write(
        "0001",
        """
        found = op.db["_migrations"].find_one({"_id": "0001"})
        op.db["seen"].insert_one({"state": found["state"], "log": found["log"]})
        """,
        """
        found = op.db["_migrations"].find_one({"_id": "0001"})
        op.db["seen"].insert_one({"state": found["state"], "log": found["log"]})
        """,
    )
    project.upgrade()
    project.migrator().downgrade("base")
    assert [one["state"] for one in project.db["seen"].find()] == ["applying", "reverting"]


def test_an_applied_record_says_everything(project: Project) -> None:
    path = project.write("0001", 'op.create_collection("c")', schema="users", message="make c")
    result = project.upgrade()
    record = project.record()
    assert record["tool"] == "mongover"
    assert (record["state"], record["direction"], record["outcome"]) == (APPLIED, "up", None)
    assert (record["schema"], record["message"]) == ("users", "make c")
    assert (record["sequence"], record["attempt"], record["run"]) == (1, 1, result.run)
    assert (record["source"], record["file"]) == (path.read_text(), path.name)
    assert (record["collections"], record["warnings"], record["error"]) == (["c"], [], None)
    assert record["started_at"] <= record["applied_at"]
    assert record["duration_ms"] > 0
    assert record["by"].keys() == {"user", "host", "pid", "mongover", "pymongo", "git"}
    (entry,) = record["log"]
    assert (entry["action"], entry["outcome"], entry["run"]) == ("apply", APPLIED, result.run)


def test_a_reverted_record_keeps_its_history_and_can_be_applied_again(project: Project) -> None:
    project.write("0001")
    project.upgrade()
    project.migrator().downgrade("base")
    record = project.record()
    assert (record["state"], record["direction"]) == (REVERTED, "down")
    assert record["reverted_at"] is not None
    project.upgrade()
    record = project.record()
    assert (record["state"], record["attempt"], record["sequence"]) == (APPLIED, 3, 2)
    assert [entry["outcome"] for entry in record["log"]] == [APPLIED, REVERTED, APPLIED]


def test_events_tell_the_run_in_order(project: Project) -> None:
    project.write("0001", 'op.log("hello"); op.create_collection("c")')
    project.write("0002", after="0001")
    project.upgrade()
    started, finished = kinds(project, StepStarted), kinds(project, StepFinished)
    assert [(one.revision, one.position, one.total) for one in started] == [
        ("0001", 1, 2),
        ("0002", 2, 2),
    ]
    assert [one.revision for one in finished] == ["0001", "0002"]
    assert [one.message for one in kinds(project, Notice)] == ["hello"]
    assert [one.outcome for one in kinds(project, OperationFinished)] == ["done"]


# ---- failures


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ValueError('bad value')", "raised ValueError: bad value"),
        ("raise ValueError", "raised ValueError"),
        ("import sys; sys.exit(0)", "called sys.exit(0)"),
        ("import sys; sys.exit()", "called sys.exit(None)"),
        ("import sys; sys.exit('enough')", "called sys.exit('enough')"),
        ("import sys; sys.exit({1, 2})", "called sys.exit(set)"),
        ("raise GeneratorExit", "raised GeneratorExit"),
        ("class Odd(BaseException): pass\nraise Odd('x')", "raised Odd: x"),
        ("raise FileNotFoundError('caf\\udce9')", "raised FileNotFoundError: caf\\udce9"),
        (
            "class Mute(Exception):\n    def __str__(self): raise OSError\nraise Mute",
            "raised Mute: (its text cannot be had: OSError)",
        ),
        ("e = ValueError('x'); e.code = object(); e.details = {1: 2}; raise e", "ValueError: x"),
        ("raise ValueError('x' * 5_000)", "raised ValueError: xxx"),
        ("raise RecursionError", "raised RecursionError"),
        ("1 / 0", "raised ZeroDivisionError: division by zero"),
        ("getattr(op, 'nonsense')()", "raised AttributeError"),
        ("op.create_collection('')", ""),
    ],
)
def test_whatever_code_raises_is_recorded_with_its_place(
    project: Project, code: str, said: str
) -> None:
    project.write("0001", code)
    project.write("0002", "op.create_collection('never')", after="0001")
    with pytest.raises(MongoverError) as caught:
        project.upgrade()
    error = caught.value
    assert said in error.message
    assert len(error.message) < 1_100
    assert error.exit_code == 1
    assert error.where is not None
    assert error.where.path.name == "0001_change.py"
    assert error.where.line is not None
    assert error.after == "0001 is recorded as failed; nothing after it was run."
    assert "goes on from there" in error.hint or not isinstance(error, RevisionFailed)
    record = project.record()
    assert outcome_of(record) == (FAILED, "nothing", True)
    assert record["error"]["message"]
    assert record["log"][-1]["error"] == record["error"]
    assert project.history.count_documents({"_id": "0002"}) == 0
    assert project.locks.find_one({"_id": "lock"})["owner"] is None
    (failed,) = kinds(project, StepFailed)
    assert (failed.revision, failed.state) == ("0001", FAILED)


def test_an_error_of_an_operation_keeps_its_cause(project: Project) -> None:
    project.db["c"].insert_many([{"a": 1}, {"a": 1}])
    project.write("0001", 'op.create_index("c", "a", unique=True)')
    with pytest.raises(MongoverError) as caught:
        project.upgrade()
    assert caught.value.code == "MGV021"
    assert caught.value.__cause__ is not caught.value
    assert project.record()["error"]["type"] == "DuplicateValues"


def test_values_of_documents_stay_out_of_record_and_message(project: Project) -> None:
    project.db["c"].insert_one({"_id": "secret@x.io"})
    project.write("0001", 'op.db["c"].insert_one({"_id": "secret@x.io"})')
    with pytest.raises(RevisionFailed) as caught:
        project.upgrade()
    assert "secret" not in str(project.record()["error"]) + caught.value.message
    assert "secret" in str(caught.value.notes)


def test_a_password_never_reaches_record_message_or_event(
    auth_server: Server, make_project: Callable[..., Project]
) -> None:
    project = make_project(auth_server)
    password = "s3cr%t/p@ss:w?rd"
    with auth_server.client() as admin:
        admin.admin.command(
            {"createUser": "odd", "pwd": password, "roles": ["readWriteAnyDatabase"]}
        )
    url = auth_server.as_user("odd", password)
    project.write("0001", f"op.log({url!r})\nraise ValueError({url!r} + ' and ' + {password!r})")
    with pytest.raises(RevisionFailed) as caught:
        project.migrator(url=url).upgrade(listener=project.events.append)
    record = project.record()
    record.pop("source")  # the file's own words
    said = f"{caught.value.message}{caught.value.notes}{record}{kinds(project, StepFailed)}"
    assert password not in said
    assert "s3cr%25t" not in said


def test_code_that_prints_or_changes_the_folder_does_no_harm(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    project.write("0001", "import os; print('hello'); os.chdir('/')")
    project.write("0002", "raise ValueError('x')", after="0001")
    with pytest.raises(RevisionFailed) as caught:
        project.upgrade()
    assert caught.value.where is not None
    assert caught.value.where.text == "raise ValueError('x')"
    assert capsys.readouterr().out == "hello\n"


def test_every_script_is_loaded_before_the_first_one_runs(project: Project) -> None:
    project.write("0001", "op.create_collection('made')")
    path = project.write("0002", after="0001")
    path.write_text(path.read_text().replace("def upgrade", "import nothing_such\n\ndef upgrade"))
    with pytest.raises(InvalidRevision, match="nothing_such"):
        project.upgrade()
    assert project.db.list_collection_names(filter={"name": "made"}) == []
    assert project.history.count_documents({}) == 0


def test_the_process_that_ends_itself_in_a_revision_leaves_it_to_the_next_run(
    project: Project,
) -> None:
    project.write("0001", "op.create_collection('c')\nimport os; os._exit(7)")
    code = (
        "import sys; from mongover import Migrator\n"
        "Migrator.from_config(url=sys.argv[1], database=sys.argv[2], versions=sys.argv[3],"
        " lease=2, environ={}).upgrade()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, project.server.url, project.database, str(project.versions)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
        timeout=60,
    )
    assert ended.returncode == 7
    assert project.record()["state"] == "applying"
    project.write("0001", "op.create_collection('c')")
    result = project.migrator(lock_wait=30).upgrade(listener=project.events.append)
    assert result.revisions == ("0001",)
    (taken,) = kinds(project, LockTaken)
    assert taken.previous is not None
    assert any("was interrupted" in one.message for one in kinds(project, Notice))
    assert [one["outcome"] for one in project.record()["log"]] == [INTERRUPTED, APPLIED]


# ---- what may be repeated


@pytest.mark.parametrize(
    ("code", "extra", "expected"),
    [
        ("op.create_collection('c')", "", ("unknown", True)),
        ("op.create_index('c', 'a')", "", ("unknown", True)),
        ("op.db['c'].insert_one({})", "", ("unknown", False)),
        ("op.db", "", ("unknown", False)),
        ("op.db['c'].insert_one({})", "repeatable = True", ("unknown", True)),
        ("op.db['c'].insert_one({})", "transaction = True", ("nothing", True)),
        ("pass", "", ("nothing", True)),
        ("op.log('x')", "", ("nothing", True)),
    ],
)
def test_a_failure_says_what_it_may_have_left(
    project: Project, code: str, extra: str, expected: tuple[str, bool]
) -> None:
    project.write("0001", f"{code}\nraise ValueError('x')", extra=extra)
    with pytest.raises(RevisionFailed):
        project.upgrade()
    assert outcome_of(project.record()) == (FAILED, *expected)


def test_the_mark_stands_in_the_record_before_the_database_is_handed_out(project: Project) -> None:
    project.write(
        "0001",
        """
        db = op.db
        found = db["_migrations"].find_one({"_id": "0001"})
        db["seen"].insert_one({"repeatable": found["repeatable"]})
        """,
    )
    project.upgrade()
    assert project.db["seen"].find_one()["repeatable"] is False


def test_a_failed_revision_that_may_be_repeated_goes_on_by_itself(project: Project) -> None:
    project.write("0001", "op.create_collection('c')\nraise ValueError('x')")
    with pytest.raises(RevisionFailed):
        project.upgrade()
    project.write("0001", "op.create_collection('c')")
    assert project.upgrade().revisions == ("0001",)
    assert kinds(project, StepStarted)[-1].continues
    record = project.record()
    assert (record["state"], record["attempt"], record["error"]) == (APPLIED, 2, None)


def blocked(project: Project) -> None:
    project.write("0001", "op.db['c'].insert_one({})\nraise ValueError('x')")
    project.write("0002", after="0001")
    with pytest.raises(RevisionFailed) as caught:
        project.upgrade()
    assert "mongover resolve 0001 --retry | --applied | --reverted" in caught.value.hint


def test_a_blocked_revision_stops_everything_after_it(project: Project) -> None:
    blocked(project)
    project.write("0001", "op.db['c'].insert_one({})")
    with pytest.raises(Blocked, match="0001 stopped half-way") as caught:
        project.upgrade()
    assert "mongover resolve 0001" in caught.value.hint
    assert project.db["c"].count_documents({}) == 1
    status = project.migrator().status()
    assert [problem.kind for problem in status.problems] == ["blocked"]


def test_retry_runs_the_one_blocked_revision_again(project: Project) -> None:
    blocked(project)
    project.write("0001", "op.db['c'].insert_one({})")
    assert project.upgrade(retry=True).revisions == ("0001", "0002")
    assert [one["action"] for one in project.record()["log"]] == ["apply", "resolve", "apply"]
    assert project.upgrade(retry=True).revisions == ()


def test_retry_refuses_to_choose_between_several_blocked_revisions(project: Project) -> None:
    for number, schema in (("0001", "users"), ("0002", "calls")):
        project.write(number, "op.db['c'].insert_one({})\nraise ValueError", schema=schema)
        with pytest.raises(RevisionFailed):
            project.upgrade(schema)
    with pytest.raises(Blocked, match="several revisions are blocked: 0001, 0002"):
        project.upgrade(retry=True)


@pytest.mark.parametrize(
    ("resolution", "state", "runs"),
    [
        (Resolution.RETRY, FAILED, ("0001", "0002")),
        (Resolution.APPLIED, APPLIED, ("0002",)),
        (Resolution.REVERTED, REVERTED, ("0001", "0002")),
    ],
)
def test_a_blocked_upgrade_is_resolved_in_three_ways(
    project: Project, resolution: Resolution, state: str, runs: tuple[str, ...]
) -> None:
    blocked(project)
    project.write("0001", "op.db['c'].insert_one({})")
    resolved = project.migrator().resolve("0001", resolution, reason="looked")
    assert resolved.state == state
    assert resolved.log[-1].reason == "looked"
    # What was noted as applied is bound to the text that failed; mend that as a person would.
    if resolution is Resolution.APPLIED:
        project.migrator().repair("0001", reason="mended")
    assert project.upgrade().revisions == runs


@pytest.mark.parametrize(
    ("resolution", "state", "counts", "then"),
    [
        (Resolution.RETRY, FAILED, True, ("0002",)),
        (Resolution.APPLIED, APPLIED, True, ("0002",)),
        (Resolution.REVERTED, REVERTED, False, ("0001",)),
    ],
)
def test_a_failed_downgrade_counts_as_applied_until_it_is_resolved(
    project: Project, resolution: Resolution, state: str, counts: bool, then: tuple[str, ...]
) -> None:
    project.write("0001")
    path = project.write(
        "0002", "pass", "if op.db['c'].insert_one({}): raise ValueError('x')", after="0001"
    )
    project.upgrade()
    migrator = project.migrator()
    with pytest.raises(RevisionFailed):
        migrator.downgrade("-1")
    record = project.record("0002")
    assert (*outcome_of(record), record["direction"]) == (FAILED, "unknown", False, "down")
    assert [one.revision for one in migrator.current()] == ["0002"]
    commands: list[Callable[[], object]] = [lambda: migrator.downgrade("-1"), migrator.upgrade]
    for command in commands:
        with pytest.raises(Blocked):
            command()
    assert project.record()["state"] == APPLIED
    resolved = migrator.resolve("0002", resolution, reason="looked")
    assert (resolved.state, resolved.counts_as_applied) == (state, counts)
    assert path.exists()
    text = path.read_text()
    path.write_text(text.replace("raise ValueError('x')", "pass"))
    if resolution is Resolution.APPLIED:
        migrator.repair("0002", reason="mended")
    assert migrator.downgrade("-1").revisions == then


def test_a_downgrade_without_a_function_is_refused_before_anything(project: Project) -> None:
    path = project.write("0001", 'op.create_collection("c")')
    path.write_text(path.read_text().partition("def downgrade")[0])
    project.upgrade()
    with pytest.raises(Irreversible):
        project.migrator().downgrade("base")
    assert project.record()["state"] == APPLIED


def test_a_transactional_revision_on_a_standalone_is_refused_before_anything(
    standalone_project: Project,
) -> None:
    project = standalone_project
    project.write("0001", "op.create_collection('c')")
    project.write("0002", after="0001", extra="transaction = True")
    with pytest.raises(TransactionsUnsupported, match="0002 declares") as caught:
        project.upgrade()
    assert "--replSet" in caught.value.hint
    assert project.db.list_collection_names(filter={"name": "c"}) == []


def test_a_failed_creation_is_forgiven_when_not_strict_and_shows_as_degraded(
    project: Project,
) -> None:
    project.db["c"].insert_many([{"a": 1}, {"a": 1}])
    project.write(
        "0001",
        """
        op.create_index("c", "a", unique=True)
        op.create_index("c", "b")
        """,
        schema="users",
    )
    migrator = project.migrator(strict=False)
    result = migrator.upgrade()
    assert len(result.warnings) == 1
    assert result.to_json()["warnings"] == list(result.warnings)
    (line,) = migrator.status().schemas
    assert (line.state, line.current) == ("degraded", ("0001",))
    assert project.record()["warnings"] == list(result.warnings)
    assert "b_1" in project.db["c"].index_information()


# ---- revisions that harm the history


@pytest.mark.parametrize(
    "code",
    ["op.db.client.drop_database(op.db.name)", "op.db['_migrations'].drop()"],
)
def test_code_that_drops_the_history_is_told_so(project: Project, code: str) -> None:
    project.write("0001", code)
    with pytest.raises(RecordConflict, match="the record of 0001 was deleted") as caught:
        project.upgrade()
    assert "mongover stamp 0001" in caught.value.hint
    assert caught.value.exit_code == 4
    project.migrator().stamp("0001", reason="as told")
    assert project.upgrade().run is None


def test_operations_may_not_touch_the_history(project: Project) -> None:
    project.write("0001", "op.drop_collection('_migrations')")
    with pytest.raises(MongoverError, match="holds the history"):
        project.upgrade()
    assert project.record()["state"] == FAILED


def test_code_that_deletes_the_lock_ends_the_run_at_the_next_heartbeat(project: Project) -> None:
    project.write(
        "0001",
        """
        import time
        op.db["_migrations_lock"].delete_one({"_id": "lock"})
        until = time.monotonic() + 20
        while time.monotonic() < until:
            op.db["c"].insert_one({})
            time.sleep(0.05)
        """,
    )
    with pytest.raises(LockLost, match="took it over, or it was ended") as caught:
        project.migrator(lease=1).upgrade()
    assert caught.value.exit_code == 3
    assert project.record()["state"] == "applying"  # left to whoever comes next
    project.write("0001")
    with pytest.raises(Blocked):
        project.upgrade()


def test_a_zombie_leaves_the_record_to_the_new_holder(project: Project) -> None:
    project.write(
        "0001",
        """
        db = op.db
        db["_migrations_lock"].update_one({"_id": "lock"}, {"$set": {"owner": "new", "fence": 99}})
        db["_migrations"].update_one(
            {"_id": "0001"}, {"$set": {"state": "interrupted", "outcome": "unknown"}})
        """,
    )
    with pytest.raises(LockLost, match="0001") as caught:
        project.upgrade()
    assert "mongover show 0001" in caught.value.hint
    assert project.record()["state"] == INTERRUPTED


def test_a_zombie_that_fails_does_not_write_its_failure(project: Project) -> None:
    project.write(
        "0001",
        """
        op.db["_migrations"].update_one({"_id": "0001"}, {"$set": {"owner": "new"}})
        raise ValueError("late")
        """,
    )
    with pytest.raises(LockLost):
        project.upgrade()
    assert project.record()["state"] == "applying"


def test_a_zombie_begins_no_further_revision(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("0001", "op.create_collection('one')")
    project.write("0002", "op.db['two'].insert_one({})", after="0001")
    from mongover.history.lease import Lease

    def freeze(event: object) -> None:
        if isinstance(event, StepFinished):  # as after a SIGSTOP for longer than the lease
            monkeypatch.setattr(Lease, "lost", "its heartbeat did not reach the server in time")

    with pytest.raises(LockLost):
        project.migrator().upgrade(listener=freeze)
    assert project.record()["state"] == APPLIED
    assert "two" not in project.db.list_collection_names()


def test_a_zombie_cannot_commit_a_transaction(project: Project) -> None:
    project.write(
        "0001",
        f"""
        op.db["c"].insert_one({{}})
        import threading
        from pymongo import MongoClient
        def take_over():
            with MongoClient({project.server.url!r}) as client:
                client[{project.database!r}]["_migrations_lock"].update_one(
                    {{"_id": "fence"}}, {{"$set": {{"owner": "new", "fence": 99}}}})
        thread = threading.Thread(target=take_over)
        thread.start()
        thread.join()
        """,
        extra="transaction = True",
    )
    with pytest.raises(LockLost):
        project.upgrade()
    assert project.db["c"].count_documents({}) == 0
    assert project.record()["state"] == "applying"


# ---- network faults at the history's writes


def fault(project: Project, times: int, **data: Any) -> tuple[str, Any, dict[str, Any]]:
    namespace = f"{project.database}._migrations"
    return "failCommand", {"times": times}, {"appName": "mongover", "namespace": namespace} | data


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("transaction", [False, True])
def test_lost_connections_at_the_history_change_nothing(
    project: Project, times: int, transaction: bool
) -> None:
    extra = f"transaction = {transaction}"
    project.write("0001", "op.db['c'].insert_one({})", extra=extra)
    project.write("0002", "op.db['c'].insert_one({})", after="0001", extra=extra)
    broken = fault(project, times, failCommands=["update"], closeConnection=True)
    with failpoint(project.client, *broken):
        assert project.upgrade().revisions == ("0001", "0002")
    assert project.db["c"].count_documents({}) == 2
    assert [one["attempt"] for one in project.history.find()] == [1, 1]


@pytest.mark.parametrize("code", [64, 91])
def test_a_write_concern_error_at_the_history_is_looked_up(project: Project, code: int) -> None:
    project.write("0001", "op.db['c'].insert_one({})")
    unsure = {"code": code, "codeName": "x", "errmsg": "x"}
    broken = fault(project, 1, failCommands=["update"], writeConcernError=unsure)
    with failpoint(project.client, *broken):
        assert project.upgrade().revisions == ("0001",)
    assert project.db["c"].count_documents({}) == 1


def test_a_failure_that_cannot_be_recorded_is_said_and_found_by_the_next_run(
    project: Project,
) -> None:
    project.write("0001", "op.create_collection('c')\nraise ValueError('x')")
    refused = fault(project, 1, failCommands=["update"], errorCode=13)
    refused[2]["failCommands"] = ["update"]
    name, _, data = refused
    with (
        failpoint(project.client, name, {"skip": 2}, data),
        pytest.raises(RevisionFailed) as caught,
    ):
        project.upgrade()
    assert "could not be recorded" in caught.value.notes[0]
    assert caught.value.after == "nothing after it was run."
    status = project.migrator().status()
    assert [problem.kind for problem in status.problems] == ["interrupted"]
    assert project.migrator().plan(Direction.UP, "head").steps[0].continues
    project.write("0001", "op.create_collection('c')")
    assert project.upgrade().revisions == ("0001",)


def test_an_end_that_cannot_be_recorded_says_that_the_code_ran(project: Project) -> None:
    project.write("0001", "op.create_collection('c')")
    name, _, data = fault(project, 1, failCommands=["update"], errorCode=13)
    with (
        failpoint(project.client, name, {"skip": 2}, data),
        pytest.raises(MongoverError) as caught,
    ):
        project.upgrade()
    assert caught.value.exit_code == 5
    assert any("0001 ran to its end" in note for note in caught.value.notes)
    assert project.upgrade().revisions == ("0001",)


# ---- stopping


def test_a_first_request_lets_code_that_cannot_be_repeated_finish(project: Project) -> None:
    project.write("0001", "op.db['c'].insert_one({}); op.log('now'); op.db['c'].insert_one({})")
    project.write("0002", after="0001")
    stop = Stop()

    def listener(event: object) -> None:
        project.events.append(event)  # type: ignore[arg-type]  # every listener gets an Event
        if isinstance(event, Notice) and event.message == "now":
            stop.request()

    with pytest.raises(InterruptedRun, match="stopped after 0001, as asked; 0002 was not started"):
        project.migrator().upgrade(listener=listener, stop=stop)
    assert project.db["c"].count_documents({}) == 2
    assert project.record()["state"] == APPLIED
    assert any("press Ctrl-C again" in one.message for one in kinds(project, Notice))


def test_a_second_request_ends_it_where_it_stands_and_blocks_it(project: Project) -> None:
    project.write("0001", "op.db['c'].insert_one({}); op.log('now'); op.db['c'].insert_one({})")
    stop = Stop()

    def listener(event: object) -> None:
        if isinstance(event, Notice) and event.message == "now":
            stop.request()
            stop.request()

    with pytest.raises(InterruptedRun, match="0001 was interrupted") as caught:
        project.migrator().upgrade(listener=listener, stop=stop)
    assert "mongover resolve 0001" in caught.value.hint
    assert project.db["c"].count_documents({}) == 1
    assert outcome_of(project.record()) == (INTERRUPTED, "unknown", False)


@pytest.mark.parametrize("extra", ["", "transaction = True"])
def test_a_request_ends_code_at_once_when_that_is_safe(project: Project, extra: str) -> None:
    project.write("0001", "op.create_collection('c'); op.log('now'); op.log('later')", extra=extra)
    stop = Stop()

    def listener(event: object) -> None:
        project.events.append(event)  # type: ignore[arg-type]  # every listener gets an Event
        if isinstance(event, Notice) and event.message == "now":
            stop.request()

    with pytest.raises(InterruptedRun) as caught:
        project.migrator().upgrade(listener=listener, stop=stop)
    assert "goes on from there" in caught.value.hint
    assert "later" not in [one.message for one in kinds(project, Notice)]
    assert project.record()["state"] == INTERRUPTED
    assert project.upgrade().revisions == ("0001",)


def test_a_request_from_another_thread_ends_code_at_its_next_operation(project: Project) -> None:
    project.write(
        "0001",
        """
        import time
        for number in range(2_000):
            op.create_collection("c")
            time.sleep(0.005)
        """,
    )
    stop = Stop()
    seen = threading.Event()

    def ask() -> None:
        assert seen.wait(30)
        stop.request()

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(InterruptedRun):
        project.migrator().upgrade(listener=lambda _event: seen.set(), stop=stop)
    thread.join()
    assert project.record()["state"] == INTERRUPTED


def test_a_request_from_a_signal_handler_ends_code_that_waits(project: Project) -> None:
    project.write("0001", "import time; time.sleep(60)")
    stop = Stop()
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: stop.request())

    def listener(event: object) -> None:
        if isinstance(event, StepStarted):
            signal.setitimer(signal.ITIMER_REAL, 0.3)

    other = signal.signal(signal.SIGALRM, lambda _number, _frame: stop.request())
    began = time.monotonic()
    try:
        with pytest.raises(InterruptedRun):
            project.migrator().upgrade(listener=listener, stop=stop)
    finally:
        signal.signal(signal.SIGUSR1, before)
        signal.signal(signal.SIGALRM, other)
    assert time.monotonic() - began < 50
    assert outcome_of(project.record()) == (INTERRUPTED, "nothing", True)


def test_keyboard_interrupt_in_code_is_an_interruption(project: Project) -> None:
    project.write("0001", "raise KeyboardInterrupt")
    with pytest.raises(InterruptedRun):
        project.upgrade()
    assert project.record()["state"] == INTERRUPTED


def test_a_stop_before_the_run_starts_nothing(project: Project) -> None:
    project.write("0001", "op.create_collection('c')")
    stop = Stop()
    stop.request()
    with pytest.raises(InterruptedRun):
        project.upgrade(stop=stop)
    assert project.record()["state"] == INTERRUPTED
    assert project.record()["outcome"] == "nothing"


def test_nothing_interrupts_outside_a_revision() -> None:
    stop = Stop()
    stop.check()
    stop.request()
    stop.request()
    stop.check()
    with (
        pytest.raises(StopNow),
        stop.user_code(safe=lambda: False, deferred=lambda: None),
    ):
        raise AssertionError("the block never begins")


# ---- what a run costs


class Counting(CommandListener):
    def __init__(self) -> None:
        self.commands: list[tuple[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name not in {"hello", "endSessions", "killCursors"}:
            self.commands.append((event.command_name, event.command.get("$db")))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    """Sees every command of clients made from now on."""
    from mongover.database import server as module

    listener = Counting()
    real = pymongo.MongoClient

    def client(*args: Any, **options: Any) -> Any:
        options["event_listeners"] = [*options.get("event_listeners", []), listener]
        return real(*args, **options)

    monkeypatch.setattr(module, "MongoClient", client)
    return listener


def test_five_hundred_empty_revisions_cost_one_write_each(
    project: Project, counting: Counting
) -> None:
    for number in range(1, 501):
        project.write(f"{number:04}", after=f"{number - 1:04}" if number > 1 else None)
    result = project.upgrade()
    assert len(result.revisions) == 500
    names = [name for name, _ in counting.commands]
    assert names.count("update") <= 501 + 5  # and the lock's own
    assert len(names) <= 501 + 20
    assert project.history.count_documents({"state": APPLIED}) == 500


def test_a_run_with_nothing_to_do_is_one_read(project: Project, counting: Counting) -> None:
    project.write("0001")
    project.upgrade()
    migrator = project.migrator()
    migrator.current()
    counting.commands.clear()
    assert migrator.upgrade().run is None
    assert [name for name, _ in counting.commands] == ["find"]


def test_progress_and_notices_carry_the_revision(project: Project) -> None:
    project.db["c"].insert_many([{"n": number} for number in range(10)])
    project.write("0001", "op.update('c', {}, {'$set': {'a': 1}})")
    project.upgrade()
    assert {one.revision for one in kinds(project, Progress)} <= {"0001"}
    assert project.db["c"].count_documents({"a": 1}) == 10


def test_two_holders_never_run_one_revision_both(project: Project) -> None:
    project.write("0001", "import time; op.db['c'].insert_one({}); time.sleep(0.5)")
    results: list[Any] = []

    def run() -> None:
        results.append(project.migrator(lock_wait=30).upgrade())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(one.revisions) for one in results) == [0, 0, 0, 1]
    assert project.db["c"].count_documents({}) == 1
    assert wait_until(lambda: project.record()["state"] == APPLIED, "the record")
