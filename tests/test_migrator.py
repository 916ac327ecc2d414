"""The facade: what each method does to files, history and lock, and what it leaves alone."""

from __future__ import annotations

import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pymongo
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo.monitoring import CommandListener

from mongover.cli.screen.output import HERE
from mongover.config.config import Config
from mongover.errors import (
    AuthenticationFailed,
    BadRecord,
    ConfigError,
    DatabaseError,
    DuplicateRevision,
    Edited,
    ForeignDocument,
    LockHeld,
    MissingFile,
    MongoverError,
    MultipleHeads,
    NewerFormat,
    NotAllowed,
    RevisionFailed,
    UnknownTarget,
    Unreachable,
    UsageError,
)
from mongover.history.changes import Resolution
from mongover.history.lease import read_lease
from mongover.history.ledger import Ledger
from mongover.history.record import Direction
from mongover.migrator import Migrator
from mongover.report.documents import schema_document, status_document
from tests.support.projects import (  # noqa: F401 - fixtures
    make_project_fixture,
    project_fixture,
    standalone_project_fixture,
)
from tests.support.servers import failpoint, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pymongo.monitoring import (
        CommandFailedEvent,
        CommandStartedEvent,
        CommandSucceededEvent,
    )

    from tests.support.projects import Project
    from tests.support.servers import Server, ThreeNodes

READS = {"find", "aggregate", "listCollections", "listIndexes", "count", "hello", "buildInfo"}
READS |= {"killSessions"}  # of a session that nobody has: the doctor asks whether it can
READS |= {"connectionStatus", "endSessions", "getMore", "ping"}


class Commands(CommandListener):
    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Sees every command of clients made from now on."""
    from mongover.database import server as module

    listener = Commands()
    real = pymongo.MongoClient

    def client(*args: Any, **options: Any) -> Any:
        options["event_listeners"] = [*options.get("event_listeners", []), listener]
        return real(*args, **options)

    monkeypatch.setattr(module, "MongoClient", client)
    return listener


@pytest.fixture
def shop(project: Project) -> Project:
    """Two lines: users 0001, 0003 and calls 0002, which needs users."""
    project.write(
        "0001",
        'op.create_collection("users")',
        'op.drop_collection("users")',
        schema="users",
        message="create users",
    )
    project.write(
        "0002",
        'op.create_collection("calls")',
        'op.drop_collection("calls")',
        schema="calls",
        message="create calls",
        extra='depends_on = ("0001",)',
    )
    project.write(
        "0003",
        'op.create_index("users", "email")',
        'op.drop_index("users", "email_1")',
        schema="users",
        after="0001",
        message="index users",
    )
    return project


# ---- reading


def reading(migrator: Migrator) -> list[Callable[[], object]]:
    return [
        migrator.status,
        migrator.current,
        migrator.heads,
        migrator.history,
        migrator.log,
        lambda: migrator.show("0001"),
        lambda: migrator.plan(Direction.UP, "head"),
        lambda: migrator.plan(Direction.DOWN, "base"),
        migrator.check,
        migrator.verify,
        migrator.lock,
        migrator.doctor,
    ]


def test_reading_an_empty_database_creates_nothing_and_takes_no_lock(
    shop: Project, commands: Commands
) -> None:
    for read in reading(shop.migrator()):
        read()
    assert set(commands.names) <= READS
    assert shop.db.list_collection_names() == []


def test_reading_a_full_one_writes_nothing_and_takes_no_lock(
    shop: Project, commands: Commands
) -> None:
    shop.upgrade()
    before = [list(shop.history.find()), list(shop.locks.find())]
    commands.names.clear()
    for read in reading(shop.migrator()):
        read()
    assert set(commands.names) <= READS
    assert [list(shop.history.find()), list(shop.locks.find())] == before


def test_heads_and_check_ask_no_server(shop: Project) -> None:
    migrator = shop.migrator(url=f"mongodb://127.0.0.1:{free_port()}", connect_timeout=0.1)
    assert [one.id for one in migrator.heads()] == ["0002", "0003"]
    assert migrator.check() == ()


def test_status_before_and_after(shop: Project) -> None:
    before = shop.migrator().status()
    assert [(one.schema, one.current, one.state) for one in before.schemas] == [
        ("users", (), "pending"),
        ("calls", (), "pending"),
    ]
    assert [one.exists for line in before.schemas for one in line.collections] == [False, False]
    assert (before.applied, before.last, before.lock) == (0, None, None)
    shop.upgrade("0002")
    shop.db["users"].insert_one({})
    after = shop.migrator().status()
    document = status_document(after, HERE)
    assert document["pending"] == ["0003"]
    users, calls = document["schemas"]
    assert (users["current"], users["head"], users["state"]) == ("0001", "0003", "pending")
    assert users["collections"] == [{"name": "users", "exists": True, "documents": 1, "indexes": 0}]
    assert (calls["current"], calls["state"]) == ("0002", "up to date")
    assert document["lock"]["held"] is False
    assert (document["problems"], after.applied) == ([], 2)
    assert after.last is not None
    assert after.last.revision == "0002"
    assert document["server"]["topology"] == "replica set"


def test_status_of_one_schema_and_of_one_that_is_not_there(shop: Project) -> None:
    assert [one.schema for one in shop.migrator().status(schema="calls").schemas] == ["calls"]
    with pytest.raises(UnknownTarget, match="no schema 'nope'") as caught:
        shop.migrator().status(schema="nope")
    assert "users, calls" in caught.value.hint


def test_status_counts_views_without_looking_into_them(shop: Project) -> None:
    shop.write(
        "0004",
        'op.create_view("seen", "users", [])',
        schema="views",
        extra='depends_on = ("0001",)',
    )
    shop.upgrade()
    line = next(one for one in shop.migrator().status().schemas if one.schema == "views")
    assert [(one.exists, one.documents, one.indexes) for one in line.collections] == [(True, 0, 0)]


def test_history_is_in_order_of_application_and_can_be_cut(shop: Project) -> None:
    migrator = shop.migrator()
    for target in ("0001", "0003", "0002"):
        migrator.upgrade(target)
    assert [one.revision for one in migrator.history()] == ["0001", "0003", "0002"]
    assert [one.revision for one in migrator.history("0002:")] == ["0003", "0002"]
    assert migrator.history()[0].source is None
    assert migrator.history(details=True)[0].source is not None


def test_the_log_holds_everything_newest_first(shop: Project) -> None:
    migrator = shop.migrator()
    migrator.upgrade("0001")
    migrator.downgrade("base")
    migrator.stamp("0001", reason="by hand")
    found = [(one.revision, one.entry.action, one.entry.outcome) for one in migrator.log()]
    assert found == [
        ("0001", "stamp", "applied"),
        ("0001", "revert", "reverted"),
        ("0001", "apply", "applied"),
    ]


def test_show_joins_file_record_and_problems(shop: Project) -> None:
    migrator = shop.migrator()
    assert migrator.show("0001").record is None
    migrator.upgrade()
    shop.write("0001", "pass", schema="users")
    shown = migrator.show("users@0001")
    assert shown.revision is not None
    assert shown.record is not None
    assert shown.record.log
    assert [one.kind for one in shown.problems] == ["edited"]
    with pytest.raises(UnknownTarget):
        migrator.show("0099")


def test_a_plan_runs_no_code(shop: Project) -> None:
    path = shop.write("0004", schema="users", after="0003")
    path.write_text("raise SystemExit\n" + path.read_text())
    plan = shop.migrator().plan(Direction.UP, "head")
    assert [step.revision.id for step in plan.steps] == ["0001", "0002", "0003", "0004"]


# ---- running


def test_results_say_what_was_done(shop: Project) -> None:
    migrator = shop.migrator()
    up = migrator.upgrade("calls")
    assert up.to_json().keys() == {
        "direction", "target", "run", "applied", "durationMs", "warnings",
    }  # fmt: skip
    assert (up.revisions, up.heads) == (("0001", "0002"), {"users": ("0001",), "calls": ("0002",)})
    assert re.match(r"2 revisions applied in \d", up.message)
    nothing = migrator.upgrade("calls")
    assert (nothing.run, nothing.revisions) == (None, ())
    assert nothing.message == "nothing to do: calls is at 0002, its head"
    down = migrator.downgrade("-1")
    assert down.to_json()["reverted"] == ["0002"]
    assert re.match(r"1 revision reverted in \d", down.message)
    assert down.run != up.run


def test_nothing_to_do_takes_no_lock(shop: Project, commands: Commands) -> None:
    migrator = shop.migrator()
    migrator.upgrade()
    commands.names.clear()
    assert migrator.upgrade().run is None
    assert commands.names == ["find"]


def test_a_run_has_the_id_that_it_was_given(shop: Project) -> None:
    assert shop.migrator().upgrade(run="mine").run == "mine"
    assert shop.record()["run"] == "mine"


def test_threads_race_and_each_revision_runs_once(shop: Project) -> None:
    shop.write("0001", 'op.db["runs"].insert_one({})', schema="users")
    migrator = shop.migrator(lock_wait=60)
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(migrator.upgrade())) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(one.revisions) for one in results) == [0, 0, 0, 0, 0, 3]
    assert shop.db["runs"].count_documents({}) == 1


def test_a_held_lock_is_waited_for_and_then_refused(shop: Project) -> None:
    shop.write(
        "0001", "import time\nwhile not op.db['go'].find_one(): time.sleep(0.01)", schema="users"
    )
    first = threading.Thread(target=shop.migrator().upgrade)
    first.start()
    wait_until(lambda: shop.history.count_documents({"state": "applying"}), "the run")
    heard: list[Any] = []
    with pytest.raises(LockHeld) as caught:
        shop.migrator().upgrade(lock_wait=0.2, listener=heard.append)
    assert caught.value.exit_code == 3
    assert [one.running for one in heard][-1] == "0001"
    running = shop.migrator().status()
    assert (running.schemas[0].state, running.problems) == ("running", ())
    shop.db["go"].insert_one({})
    assert shop.migrator(lock_wait=60).upgrade().revisions == ()
    first.join()


@pytest.mark.parametrize("write", ["stamp", "resolve", "repair"])
def test_changes_of_the_history_wait_for_the_lock_too(shop: Project, write: str) -> None:
    shop.upgrade()
    migrator = shop.migrator(lock_wait=0)
    shop.locks.update_one(
        {"_id": "lock"},
        [{"$set": {"owner": "x", "expires_at": {"$add": ["$$NOW", 60_000]}}}],
    )
    if write == "resolve":
        shop.history.update_one({"_id": "0001"}, {"$set": {"state": "failed"}})
    shop.write("0001", "1 + 1", schema="users")
    calls: dict[str, Callable[[], object]] = {
        "stamp": lambda: migrator.stamp("users@base", reason="x"),
        "resolve": lambda: migrator.resolve("0001", Resolution.RETRY, reason="x"),
        "repair": lambda: migrator.repair("0001", reason="x"),
    }
    with pytest.raises(LockHeld):
        calls[write]()


def test_an_edited_file_is_refused_and_repaired(shop: Project) -> None:
    shop.upgrade()
    migrator = shop.migrator()
    with pytest.raises(UsageError, match="needs no repair"):
        migrator.repair("0001", reason="x")
    assert migrator.diff("0001") == ""
    shop.write("0001", 'op.create_collection("users"); pass', schema="users")
    shop.write("0004", schema="users", after="0003")
    with pytest.raises(Edited):
        migrator.upgrade()
    assert [one.kind for one in migrator.verify()] == ["edited"]
    diff = migrator.diff("0001")
    assert '-    op.create_collection("users")\n' in diff
    assert '+    op.create_collection("users"); pass\n' in diff
    repaired = migrator.repair("0001", reason="on purpose")
    assert (repaired.log[-1].action, repaired.log[-1].reason) == ("repair", "on purpose")
    assert migrator.verify() == ()
    assert migrator.upgrade().revisions == ("0004",)


def test_diff_needs_a_record_and_a_file(shop: Project) -> None:
    migrator = shop.migrator()
    with pytest.raises(UsageError, match="never applied"):
        migrator.diff("0001")
    shop.upgrade()
    (shop.versions / "0003_change.py").unlink()
    with pytest.raises(MissingFile, match="0003 has no file"):
        migrator.diff("0003")
    with pytest.raises(MissingFile):
        migrator.repair("0003", reason="x")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_missing_file_is_restored_byte_for_byte(shop: Project, ending: str, mark: bytes) -> None:
    path = shop.versions / "0002_change.py"
    text = path.read_text().replace("create calls", "créate\tcalls ✓").rstrip() + "  # no end"
    data = mark + text.replace("\n", ending).encode()
    path.write_bytes(data)
    shop.upgrade()
    path.unlink()
    migrator = shop.migrator()
    assert [one.kind for one in migrator.verify()] == ["missing"]
    assert migrator.restore("0002") == path
    assert path.read_bytes() == data
    assert migrator.verify() == ()
    assert migrator.diff("0002") == ""
    assert migrator.upgrade().run is None
    assert migrator.downgrade("calls@base").revisions == ("0002",)


def test_line_endings_and_mark_may_change_after_it_was_applied(shop: Project) -> None:
    shop.upgrade()
    path = shop.versions / "0003_change.py"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    migrator = shop.migrator()
    assert migrator.verify() == ()
    assert migrator.diff("0003") == ""


def test_restore_never_writes_over_a_file_and_needs_a_recorded_text(shop: Project) -> None:
    migrator = shop.migrator()
    with pytest.raises(UsageError, match="no text of 0001"):
        migrator.restore("0001")
    shop.upgrade()
    with pytest.raises(UsageError, match="nothing is written over a file"):
        migrator.restore("0001")


def test_a_record_cannot_make_restore_write_outside_the_folder(shop: Project) -> None:
    shop.upgrade()
    (shop.versions / "0003_change.py").unlink()
    shop.history.update_one({"_id": "0003"}, {"$set": {"file": "0003/../../../evil.py"}})
    assert shop.migrator().restore("0003").parent == shop.versions


# ---- stamp, resolve


def test_stamp_notes_without_running_and_back(shop: Project) -> None:
    migrator = shop.migrator()
    assert migrator.stamp("head", reason="adopted") == ("0001", "0002", "0003")
    assert shop.db.list_collection_names(filter={"name": "users"}) == []
    assert migrator.upgrade().run is None
    assert migrator.stamp("head", reason="again") == ()
    assert migrator.stamp("users@base", reason="no") != ()
    assert shop.record()["state"] == "reverted"
    assert shop.record()["log"][-1]["reason"] == "no"


def test_stamp_of_an_unknown_target_changes_nothing(shop: Project) -> None:
    with pytest.raises(UnknownTarget):
        shop.migrator().stamp("0099", reason="x")
    assert shop.history.count_documents({}) == 0
    lock = read_lease(shop.locks)
    assert lock is None or lock.owner is None


def test_only_what_stopped_can_be_resolved(shop: Project) -> None:
    migrator = shop.migrator()
    with pytest.raises(UsageError, match="0001 has no record"):
        migrator.resolve("0001", Resolution.APPLIED, reason="x")
    shop.upgrade()
    with pytest.raises(UsageError, match="0001 is applied; only a failed or interrupted"):
        migrator.resolve("0001", Resolution.APPLIED, reason="x")


# ---- files


def test_new_revisions_stand_on_their_line(shop: Project) -> None:
    migrator = shop.migrator()
    path = migrator.create_revision("add phone", schema="users", depends_on=("calls",))
    assert path.name == "0004_add_phone.py"
    revision = next(one for one in migrator.heads() if one.id == "0004")
    assert (revision.down_revision, revision.depends_on) == (("0003",), ("0002",))
    first = migrator.create_revision("new line", schema="notes")
    assert "down_revision = None" in first.read_text()


@pytest.mark.parametrize(
    "odd", ["", " ", "x", "-1", "1.5", "../0005", "0x5", "٣", "1" * 5_000, "0005\n", "5 "]
)
def test_an_odd_id_is_refused_in_words(shop: Project, odd: str) -> None:
    before = sorted(shop.versions.iterdir())
    with pytest.raises(MongoverError) as caught:
        shop.migrator().create_revision("x", schema="users", id=odd)
    assert caught.value.exit_code == 2
    assert sorted(shop.versions.iterdir()) == before


@pytest.mark.parametrize("taken", ["0003", "3", "00003"])
def test_an_id_that_is_taken_is_refused_however_it_is_written(shop: Project, taken: str) -> None:
    with pytest.raises(DuplicateRevision):
        shop.migrator().create_revision("x", schema="users", id=taken)


def test_two_heads_are_merged_or_rebased(shop: Project) -> None:
    shop.write("0004", schema="users", after="0001")
    migrator = shop.migrator()
    with pytest.raises(MultipleHeads):
        migrator.upgrade()
    with pytest.raises(MultipleHeads):
        migrator.create_revision("x", schema="users")
    assert [one.kind for one in migrator.check()] == ["multiple-heads"]
    path = migrator.merge("users", "both")
    assert migrator.upgrade().revisions == ("0001", "0002", "0003", "0004", "0005")
    with pytest.raises(UsageError, match="calls has no two heads"):
        migrator.merge("calls", "x")
    with pytest.raises(UsageError, match="the unnamed line has no two heads"):
        migrator.merge(None, "x")
    assert path.exists()


def test_rebase_moves_what_never_ran_and_refuses_what_did(shop: Project) -> None:
    migrator = shop.migrator()
    migrator.upgrade()
    shop.write("0004", schema="users", after="0001")
    assert [one.name for one in migrator.rebase("0004")] != []
    assert migrator.check() == ()
    with pytest.raises(UsageError, match="0003 stands in the history"):
        migrator.rebase("0003")
    assert migrator.upgrade().revisions != ()


# ---- what dead holders left


def leave_running(project: Project, *, transaction: bool = False) -> None:
    project.history.insert_one(
        {
            "_id": "0001", "tool": "mongover", "v": 1, "schema": "users", "state": "applying",
            "direction": "up", "owner": "gone", "fence": 1, "transaction": transaction,
            "repeatable": True, "checksum": "", "attempt": 1, "sequence": 0,
            "ledger": Ledger().to_document(),
        }
    )  # fmt: skip


@pytest.mark.parametrize("transaction", [False, True])
def test_what_a_dead_holder_left_running_is_shown_as_interrupted(
    shop: Project, transaction: bool
) -> None:
    leave_running(shop, transaction=transaction)
    migrator = shop.migrator()
    status = migrator.status()
    assert [(one.revision, one.kind) for one in status.problems] == [("0001", "interrupted")]
    assert status.schemas[0].state == "failed"
    assert [step.continues for step in migrator.plan(Direction.UP, "users@0001").steps] == [True]
    assert shop.record()["state"] == "applying"  # reading changed nothing
    assert migrator.upgrade().revisions == ("0001", "0002", "0003")
    assert shop.record()["log"][0]["outcome"] == "interrupted"


def test_a_running_record_without_an_owner_does_not_stop_everything_for_ever(
    shop: Project,
) -> None:
    leave_running(shop)
    shop.history.update_one({"_id": "0001"}, {"$unset": {"owner": "", "fence": ""}})
    assert shop.migrator().upgrade().revisions == ("0001", "0002", "0003")


# ---- lock and unlock


def test_unlock_frees_what_a_dead_process_holds(shop: Project) -> None:
    migrator = shop.migrator(lock_wait=0)
    assert migrator.lock() is None
    shop.upgrade()
    lock = migrator.lock()
    assert lock is not None
    assert not lock.held
    shop.locks.update_one(
        {"_id": "lock"},
        [{"$set": {"owner": "x", "expires_at": {"$add": ["$$NOW", 60_000]}}}],
    )
    with pytest.raises(LockHeld):
        migrator.unlock()
    assert migrator.unlock(owner="x").owner == "x"
    assert migrator.downgrade("-1").revisions == ("0003",)


# ---- histories that are not ours or not sound


def test_a_foreign_document_stops_every_command_and_is_left_alone(shop: Project) -> None:
    shop.history.insert_one({"_id": 1, "theirs": True})
    for command in (shop.migrator().status, shop.migrator().upgrade):
        with pytest.raises(ForeignDocument):
            command()
    assert list(shop.history.find()) == [{"_id": 1, "theirs": True}]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"v": 2}, NewerFormat),
        ({"state": "half"}, BadRecord),
        ({"sequence": "first"}, BadRecord),
        ({"down_revision": 7}, BadRecord),
        ({"log": ["x"]}, None),
    ],
)
def test_a_record_that_makes_no_sense_is_named_and_left_alone(
    shop: Project, change: dict[str, Any], error: type[MongoverError] | None
) -> None:
    shop.upgrade("0001")
    shop.history.update_one({"_id": "0001"}, {"$set": change})
    before = list(shop.history.find())
    if error is None:
        shop.migrator().status()
        with pytest.raises(BadRecord):
            shop.migrator().log()
        return
    with pytest.raises(error, match="0001"):
        shop.migrator().upgrade()
    assert list(shop.history.find()) == before


def test_unknown_fields_of_a_record_are_kept(shop: Project) -> None:
    shop.upgrade("0001")
    shop.history.update_one({"_id": "0001"}, {"$set": {"note": {"mine": 1}}})
    shop.migrator().downgrade("base")
    assert shop.record()["note"] == {"mine": 1}


# ---- servers that cannot be used


def test_an_unreachable_server_is_one_line_within_the_timeout(shop: Project) -> None:
    url = f"mongodb://ana:Secr3tWord@127.0.0.1:{free_port()}"
    migrator = shop.migrator(url=url, connect_timeout=0.5)
    began = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        migrator.upgrade()
    assert time.monotonic() - began < 20
    assert re.fullmatch(
        r"no MongoDB answers at 127\.0\.0\.1:\d+ within 0\.5 s: connection refused",
        caught.value.message,
    )
    assert caught.value.exit_code == 5
    assert "Secr3tWord" not in f"{caught.value}{caught.value.notes}{caught.value.hint}"
    assert [one.ok for one in migrator.doctor()] == [False]


def test_a_server_that_accepts_and_never_answers_is_given_up(shop: Project) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"mongodb://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match="no answer"):
            shop.migrator(url=url, connect_timeout=0.5).status()


def test_waiting_for_a_server_is_named_with_its_seconds(shop: Project) -> None:
    url = f"mongodb://127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match=r"within 0\.8 s"):
        shop.migrator(url=url, connect_timeout=0.1, wait=0.8).status()


PASSWORDS = ["simple-Secret", "p@ss:w/rd", "100%", "ä ö#?&=", "%41%2F", "a'\"b\\c", "$HOME"]


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_wrong_password_is_told_without_it(
    make_project: Callable[..., Project], auth_server: Server, password: str
) -> None:
    project = make_project(auth_server)
    migrator = project.migrator(url=auth_server.as_user("nobody", password))
    for command in (migrator.status, migrator.upgrade):
        project.write("0001")
        with pytest.raises(AuthenticationFailed) as caught:
            command()
        error = caught.value
        assert error.exit_code == 5
        said = f"{error}{error.message}{error.notes}{error.hint}{migrator.config!r}{error!r}"
        assert password not in said
    (finding, *_) = migrator.doctor()
    assert (finding.name, finding.ok) == ("reach", False)


def user(server: Server, name: str, *roles: dict[str, str]) -> str:
    with server.client() as admin:
        admin.admin.command({"createUser": name, "pwd": "secret", "roles": list(roles)})
    return server.as_user(name, "secret")


def test_a_user_without_rights_is_told_which_and_nothing_is_done(
    make_project: Callable[..., Project], auth_server: Server
) -> None:
    project = make_project(auth_server)
    project.write("0001", 'op.create_collection("c")')
    url = user(auth_server, f"r_{project.database}", {"role": "read", "db": project.database})
    migrator = project.migrator(url=url)
    assert migrator.status().pending[0].id == "0001"
    with pytest.raises(NotAllowed, match="not authorized") as caught:
        migrator.upgrade()
    assert "readWrite" in caught.value.hint
    assert project.db.list_collection_names() == []
    found = {one.name: one for one in migrator.doctor()}
    assert not found["privileges"].ok
    assert "createIndex" in found["privileges"].detail


def test_a_user_without_any_rights_cannot_even_read(
    make_project: Callable[..., Project], auth_server: Server
) -> None:
    project = make_project(auth_server)
    url = user(auth_server, f"n_{project.database}", {"role": "read", "db": "elsewhere"})
    migrator = project.migrator(url=url)
    with pytest.raises(NotAllowed):
        migrator.status()
    found = {one.name: one for one in migrator.doctor()}
    assert not found["lease"].ok


def test_read_write_is_enough_to_upgrade(
    make_project: Callable[..., Project], auth_server: Server
) -> None:
    project = make_project(auth_server)
    project.write("0001", 'op.create_collection("c"); op.create_index("c", "a")')
    roles = [{"role": role, "db": project.database} for role in ("readWrite", "dbAdmin")]
    migrator = project.migrator(url=user(auth_server, f"w_{project.database}", *roles))
    assert migrator.upgrade().revisions == ("0001",)
    assert all(one.ok for one in migrator.doctor())


def test_a_secondary_is_read_and_never_written(
    make_project: Callable[..., Project], three_nodes: ThreeNodes
) -> None:
    project = make_project(three_nodes)
    project.write("0001")
    project.write("0002", after="0001")
    project.upgrade("0001")
    address = three_nodes.secondaries()[0].address
    migrator = project.migrator(url=f"mongodb://{address}/?directConnection=true")
    began = time.monotonic()
    with pytest.raises(DatabaseError, match="is a secondary") as caught:
        migrator.upgrade()
    assert time.monotonic() - began < 25  # the driver's own patience is 30
    assert "replica set" in caught.value.hint
    with pytest.raises(DatabaseError, match="is a secondary"):
        migrator.stamp("0002", reason="x")
    assert not {one.name: one for one in migrator.doctor()}["topology"].ok
    assert project.history.count_documents({}) == 1


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://h/?tls=maybe",
        "mongodb://h/?nope=1",
        "mongodb://u:Secr3tWord@h/?authMechanism=NOPE",
        "mongodb://u:Secr3tWord@h/?authMechanism=GSSAPI&authMechanismProperties=x:Secr3tWord",
        "mongodb+srv://u:Secr3tWord@no.such.host.invalid/",
    ],
)
def test_options_that_the_driver_refuses_are_errors_of_configuration(
    shop: Project, url: str
) -> None:
    with pytest.raises(ConfigError, match="the driver refuses `url`") as caught:
        shop.migrator(url=url, connect_timeout=0.5).status()
    assert "Secr3tWord" not in f"{caught.value}{caught.value.hint}{caught.value.__cause__}"
    assert caught.value.exit_code == 2


def test_an_error_of_the_server_is_told_with_its_code(shop: Project) -> None:
    broken = {"failCommands": ["find"], "errorCode": 96, "appName": "mongover"}
    with (
        failpoint(shop.client, "failCommand", {"times": 2}, broken),
        pytest.raises(DatabaseError, match="answered with an error: 96 OperationFailed"),
    ):
        shop.migrator().status()


@settings(max_examples=40)
@given(password=st.text(min_size=6, max_size=30), spot=st.sampled_from(["raw", "option"]))
def test_no_password_however_odd_is_shown_by_any_error(password: str, spot: str) -> None:
    marked = f"Zq{password}qZ"
    url = f"mongodb://ana:{marked}@127.0.0.1:1/"
    if spot == "option":
        url = f"mongodb://127.0.0.1:1/?tls=true&tlsCertificateKeyFilePassword={marked}"
    try:
        with Migrator(Config(url=url, database="x", connect_timeout=0.05)) as migrator:  # type: ignore[arg-type]  # a text is taken, too
            migrator.current()
    except MongoverError as error:
        said = f"{error}{error.message}{error.hint}{error.notes}{error!r}"
        assert marked not in said


# ---- the migrator itself


def test_it_can_be_closed_and_used_again(shop: Project) -> None:
    with shop.migrator() as migrator:
        migrator.upgrade("0001")
    assert [one.revision for one in migrator.current()] == ["0001"]
    migrator.close()
    migrator.close()


def test_a_missing_configuration_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.ini"):
        Migrator.from_config(tmp_path / "none.ini", environ={})


def test_a_failed_run_leaves_a_usable_migrator(shop: Project) -> None:
    shop.write("0003", "raise ValueError", schema="users", after="0001")
    migrator = shop.migrator()
    with pytest.raises(RevisionFailed):
        migrator.upgrade()
    shop.write("0003", schema="users", after="0001")
    assert migrator.upgrade().revisions == ("0003",)


# ---- embedded and mongomock


@pytest.fixture
def mock(tmp_path: Path) -> Iterator[Migrator]:
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "0001_a.py").write_text(
        """revision = "0001"\n\n\ndef upgrade(op):\n    op.db["c"].insert_one({"_id": 1})\n"""
        """\n\ndef downgrade(op):\n    op.db["c"].delete_many({})\n"""
    )
    with Migrator.from_config(
        url="mongomock://", database="shop", versions=str(versions), environ={}, cwd=tmp_path
    ) as migrator:
        yield migrator


def test_mongomock_runs_the_whole_job_in_memory(mock: Migrator) -> None:
    assert [one.id for one in mock.status().pending] == ["0001"]
    assert mock.upgrade().revisions == ("0001",)
    assert mock.upgrade().run is None
    status = mock.status()
    assert (status.server.topology, status.server.transactions) == ("in memory", False)
    assert (status.pending, status.lock, mock.lock()) == ((), None, None)
    assert [one.entry.outcome for one in mock.log()] == ["applied"]
    assert all(one.ok for one in mock.doctor())
    assert mock.downgrade("base").revisions == ("0001",)
    with pytest.raises(ConfigError, match="no lock"):
        mock.unlock()


def test_mongomock_surveys_the_collections_of_a_schema(mock: Migrator) -> None:
    path = mock.config.versions / "0001_a.py"
    path.write_text(path.read_text().replace('"0001"\n', '"0001"\nschema = "c"\n', 1))
    mock.upgrade()
    (line,) = mock.status().schemas
    assert schema_document(line)["collections"] == [
        {"name": "c", "exists": True, "documents": 1, "indexes": 0}
    ]


def test_mongomock_that_is_not_installed_is_told(
    mock: Migrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mongomock", None)
    with pytest.raises(ConfigError, match="not installed"):
        mock.upgrade()
