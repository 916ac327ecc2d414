"""Bad data in the history: named, never written over, and no reason to lose what is good."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from mongover.errors import (
    BadRecord,
    ForeignDocument,
    MongoverError,
    NewerFormat,
    RecordConflict,
)
from mongover.history.changes import Resolution
from mongover.history.record import Direction
from mongover.running.events import StepStarted
from tests.support.projects import (  # noqa: F401 - fixtures
    make_project_fixture,
    standalone_project_fixture,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mongover.migrator import Migrator
    from mongover.running.events import Event
    from tests.support.projects import Project

# Every way to read or change the history.
ACTS: dict[str, Callable[[Migrator], Any]] = {
    "status": lambda migrator: migrator.status(),
    "current": lambda migrator: migrator.current(),
    "history": lambda migrator: migrator.history(),
    "log": lambda migrator: migrator.log(),
    "show": lambda migrator: migrator.show("0002"),
    "verify": lambda migrator: migrator.verify(),
    "diff": lambda migrator: migrator.diff("0002"),
    "plan": lambda migrator: migrator.plan(Direction.UP, "head"),
    "upgrade": lambda migrator: migrator.upgrade(),
    "upgrade --retry": lambda migrator: migrator.upgrade(retry=True),
    "downgrade": lambda migrator: migrator.downgrade("base"),
    "stamp": lambda migrator: migrator.stamp("base", reason="x"),
    "resolve": lambda migrator: migrator.resolve("0002", Resolution.APPLIED, reason="x"),
    "repair": lambda migrator: migrator.repair("0002", reason="x"),
    "restore": lambda migrator: migrator.restore("0002"),
    "rebase": lambda migrator: migrator.rebase("0003"),
}
NOW = datetime(2026, 11, 22, tzinfo=UTC)

FOREIGN: dict[str, dict[str, Any]] = {
    "another tool's": {"_id": "0007", "tool": "other", "v": 1, "state": "applied"},
    "one without a tool": {"_id": "0007", "state": "applied"},
    "one with a key of another kind": {"_id": 7, "name": "20200101_init", "applied": NOW},
    "an empty one": {"_id": None},
    "a tool that is no text": {"_id": "0007", "tool": ["mongover"], "v": 1, "state": "applied"},
}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "state unknown": ({"state": "done"}, "state is 'done'"),
    "state missing": ({"state": None}, "state is None"),
    "state pending": ({"state": "pending"}, "state is 'pending'"),
    "direction": ({"direction": "sideways"}, "direction is 'sideways'"),
    "outcome": ({"outcome": "fine"}, "outcome is 'fine'"),
    "sequence a text": ({"sequence": "4"}, "sequence is a str"),
    "sequence a flag": ({"sequence": True}, "sequence is a bool"),
    "sequence a fraction": ({"sequence": 1.5}, "sequence is a float"),
    "fence": ({"fence": None}, "fence is a NoneType"),
    "attempt": ({"attempt": {}}, "attempt is a dict"),
    "checksum": ({"checksum": 5}, "checksum is a int"),
    "links a text": ({"down_revision": "0001"}, "down_revision is a str"),
    "links of numbers": ({"depends_on": [1]}, "depends_on holds a int"),
    "time a text": ({"applied_at": "2026-11-22"}, "applied_at is a str"),
    "author": ({"by": "ana"}, "by is a str"),
    "repeatable": ({"repeatable": 1}, "repeatable is a int"),
    "warnings": ({"warnings": [None]}, "warnings holds a NoneType"),
    "error": ({"error": "boom"}, "error is a str"),
    "format": ({"v": "1"}, "v is '1'"),
    "format a flag": ({"v": True}, "v is True"),
}
DETAILS: dict[str, tuple[dict[str, Any], str]] = {
    "source": ({"source": b"x"}, "source is a bytes"),
    "log": ({"log": {}}, "log is a dict"),
    "log entry": ({"log": ["applied"]}, "log holds str"),
    "log entry's field": ({"log": [{"action": 1, "outcome": "x"}]}, "action is a int"),
}


@pytest.fixture
def project(standalone_project: Project) -> Project:
    """0001 and 0002 applied, 0003 pending."""
    standalone_project.write("0001", schema="users")
    standalone_project.write("0002", after="0001", schema="users")
    standalone_project.migrator().upgrade()
    standalone_project.write("0003", after="0002", schema="users")
    return standalone_project


def dump(project: Project) -> dict[str, Any]:
    names = sorted(project.db.list_collection_names())
    found: dict[str, Any] = {name: list(project.db[name].find()) for name in names}
    return found | {path.name: path.read_bytes() for path in sorted(project.versions.iterdir())}


def refused(project: Project) -> dict[str, MongoverError]:
    """What each act says; none of them may change anything."""
    before, said = dump(project), {}
    migrator = project.migrator()
    for name, act in ACTS.items():
        with pytest.raises(MongoverError) as caught:
            act(migrator)
        said[name] = caught.value
    migrator.close()
    assert dump(project) == before
    return said


@pytest.mark.parametrize("document", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_document_of_another_tool_stops_every_command_and_stays(
    document: dict[str, Any], project: Project
) -> None:
    project.history.insert_one(document)
    for name, error in refused(project).items():
        assert isinstance(error, ForeignDocument), name
        assert repr(document["_id"]) in error.message
        assert "collection" in error.hint
        assert error.exit_code == 4


@pytest.mark.parametrize("version", [2, 10**12])
def test_a_record_of_a_newer_release_stops_every_command_and_stays(
    version: int, project: Project
) -> None:
    # What the newer format means by its fields nobody here can know.
    newer = {"_id": "0002", "tool": "mongover", "v": version, "state": {"name": "blessed"}}
    project.history.replace_one({"_id": "0002"}, newer)
    for name, error in refused(project).items():
        assert isinstance(error, NewerFormat), name
        assert f"'0002' has format {version}" in error.message
        assert "upgrade mongover" in error.hint


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_field_that_makes_no_sense_is_named_by_every_command(
    change: dict[str, Any], said: str, project: Project
) -> None:
    project.history.update_one({"_id": "0002"}, {"$set": change})
    for name, error in refused(project).items():
        assert isinstance(error, BadRecord), name
        assert "'0002'" in error.message
        assert said in error.message
        assert error.hint


@pytest.mark.parametrize(("change", "said"), DETAILS.values(), ids=DETAILS.keys())
def test_a_bad_text_or_log_stops_those_who_read_it(
    change: dict[str, Any], said: str, project: Project
) -> None:
    project.history.update_one({"_id": "0002"}, {"$set": change})
    before = dump(project)
    for name in ("show", "log", "diff", "restore"):
        with pytest.raises(BadRecord) as caught:
            ACTS[name](project.migrator())
        assert "0002" in caught.value.message
        assert said in caught.value.message
    assert dump(project) == before
    assert project.migrator().plan(Direction.UP, "head").steps  # who needs neither goes on


def test_fields_that_nobody_knows_are_kept_by_every_change(project: Project) -> None:
    extra = {"team": {"name": "ops", "since": NOW}, "x-ticket": ["A-1"]}
    project.history.update_many({}, {"$set": extra})
    project.history.update_many({}, {"$set": {"log.0.note": "kept"}})
    migrator = project.migrator()
    migrator.upgrade()
    migrator.downgrade("0001")
    migrator.upgrade()
    migrator.stamp("base", reason="x")
    migrator.stamp("head", reason="x")
    (project.versions / "0002_change.py").write_text(
        (project.versions / "0002_change.py").read_text().replace("pass", "return 1")
    )
    migrator.repair("0002", reason="x")
    for name in ("0001", "0002"):
        record = project.record(name)
        assert {key: record[key] for key in extra} == extra
        assert record["log"][0]["note"] == "kept"


def test_a_foreign_document_that_comes_during_a_run_is_not_written_over(project: Project) -> None:
    project.write("0004", after="0003", schema="users")
    foreign = {"_id": "0004", "name": "not ours"}

    def listen(event: Event) -> None:
        if isinstance(event, StepStarted) and event.revision == "0003":
            project.history.insert_one(foreign)

    with pytest.raises(RecordConflict) as caught:
        project.migrator().upgrade(listener=listen)
    assert caught.value.revision == "0004"
    assert project.record("0004") == foreign
    assert project.record("0003")["state"] == "applied"
    assert project.locks.find_one({"_id": "lock"})["owner"] is None


def test_two_revisions_with_one_place_in_the_order_are_named(project: Project) -> None:
    project.history.update_many({}, {"$set": {"sequence": 4}})
    migrator = project.migrator()
    (problem,) = migrator.status().problems
    assert (problem.revision, problem.kind) == ("0002", "bad-record")
    assert problem.message.startswith("0001 and 0002 both have the sequence number 4")
    assert "set its `sequence` to 5" in problem.hint
    before = dump(project)
    for target in ("-1", "base", "0001"):
        with pytest.raises(BadRecord, match="0001 and 0002 both have"):
            migrator.downgrade(target)
    assert dump(project) == before
    assert migrator.upgrade().revisions == ("0003",)
    assert [project.record(each)["sequence"] for each in ("0001", "0002", "0003")] == [4, 4, 5]
    project.history.update_one({"_id": "0002"}, {"$set": {"sequence": 6}})  # as the hint says
    assert migrator.verify() == ()
    assert migrator.downgrade("-1").revisions == ("0003", "0002")


def test_what_was_reverted_may_keep_the_number_of_another(project: Project) -> None:
    migrator = project.migrator()
    migrator.downgrade("-1")
    project.history.update_one({"_id": "0002"}, {"$set": {"sequence": 1}})
    assert migrator.verify() == ()
    assert migrator.downgrade("-1").revisions == ("0001",)


def test_numbers_of_other_kinds_that_mean_the_same_are_read(project: Project) -> None:
    """A person who mends a record in the shell writes doubles without meaning to."""
    project.history.update_one({"_id": "0002"}, {"$set": {"duration_ms": 4}})
    assert project.migrator().history()[-1].duration_ms == 4


def test_a_record_that_was_deleted_by_hand_is_a_revision_that_never_ran(project: Project) -> None:
    project.history.delete_one({"_id": "0002"})
    assert project.migrator().upgrade().revisions == ("0002", "0003")


def test_a_history_that_is_a_view_is_named_and_not_touched(project: Project) -> None:
    """Somebody moved the records and left a view in their place."""
    project.history.rename("old_migrations")
    project.db.create_collection("_migrations", viewOn="old_migrations", pipeline=[])
    assert [one.revision for one in project.migrator().history()] == ["0001", "0002"]
    with pytest.raises(MongoverError) as caught:
        project.migrator().upgrade()
    assert caught.value.code != "MGV000"
    assert project.db["old_migrations"].count_documents({}) == 2
