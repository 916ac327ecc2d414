"""One transaction: tried again while that helps, ended at once when it cannot."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from pymongo.errors import AutoReconnect, DuplicateKeyError, OperationFailure

from mongover.database.command_watch import CommandWatch
from mongover.database.transaction import run_transaction
from mongover.errors import (
    LockLost,
    MongoverError,
    RevisionFailed,
    SwallowedError,
    TransactionFailed,
)
from mongover.history.mongo import MongoHistory
from mongover.history.record import State
from tests.support.projects import make_project_fixture, project_fixture  # noqa: F401 - fixtures
from tests.support.servers import Server, failpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.database import Database

    from tests.support.projects import Project

APP = "mongover-transaction-test"


class Loop:
    """Runs work in transactions of one session, with the watch on its client."""

    def __init__(self, db: Database[dict[str, Any]], watch: CommandWatch) -> None:
        self.db = db
        self.watch = watch
        self.calls = 0
        self.before: Callable[[], None] = lambda: None

    def run(self, work: Callable[[], Any], **options: Any) -> Any:
        def counted() -> Any:
            self.calls += 1
            return work()

        with self.db.client.start_session() as session:
            return run_transaction(
                session, counted, watch=self.watch, before=self.before, **options
            )


@pytest.fixture
def loop(replica_set: Server, open_database: Callable[..., Any]) -> Loop:
    watch = CommandWatch()
    db = open_database(replica_set, appname=APP, event_listeners=[watch])
    db.create_collection("c")
    return Loop(db, watch)


@pytest.fixture
def admin(replica_set: Server) -> Iterator[Any]:
    with replica_set.client() as client:
        yield client


def in_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def fail(times: int | None = None, **data: Any) -> tuple[str, Any, dict[str, Any]]:
    mode = "alwaysOn" if times is None else {"times": times}
    return "failCommand", mode, {"appName": APP, **data}


def test_work_is_committed_and_its_result_returned(loop: Loop) -> None:
    assert loop.run(lambda: loop.db["c"].insert_one({"_id": 1}).inserted_id) == 1
    assert loop.db["c"].count_documents({}) == 1


def test_an_error_of_the_code_rolls_back_and_comes_through_as_it_is(loop: Loop) -> None:
    def work() -> None:
        loop.db["c"].insert_one({"_id": 1})
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        loop.run(work)
    assert caught.value.__cause__ is None
    assert (loop.calls, loop.db["c"].count_documents({})) == (1, 0)


def test_an_error_of_the_server_that_is_let_through_is_not_tried_again(loop: Loop) -> None:
    loop.db["c"].insert_one({"_id": 1})
    with pytest.raises(DuplicateKeyError) as caught:
        loop.run(lambda: loop.db["c"].insert_one({"_id": 1}))
    assert caught.value.__cause__ is not caught.value
    assert loop.calls == 1


def test_a_swallowed_duplicate_key_ends_at_once_and_is_named(loop: Loop) -> None:
    loop.db["c"].insert_one({"_id": 1})

    def work() -> None:
        with suppress(DuplicateKeyError):
            loop.db["c"].insert_one({"_id": 1})
        loop.db["c"].insert_one({"_id": 2})

    began = time.monotonic()
    with pytest.raises(SwallowedError, match=r"insert: 11000.*already ended the transaction"):
        loop.run(work)
    assert time.monotonic() - began < 30  # a conflict would be tried again for longer
    assert (loop.calls, loop.db["c"].count_documents({})) == (1, 1)


def test_a_swallowed_error_is_noticed_even_when_nothing_follows_it(loop: Loop) -> None:
    loop.db["c"].insert_one({"_id": 1})

    def work() -> None:
        with suppress(OperationFailure):
            loop.db["c"].update_one({"_id": 1}, {"$nonsense": {"a": 1}})

    with pytest.raises(SwallowedError, match="update: 9"):
        loop.run(work)


def test_a_refused_command_that_leaves_the_transaction_alive_does_no_harm(loop: Loop) -> None:
    def work() -> None:
        loop.db["c"].insert_one({"_id": 1})
        with pytest.raises(OperationFailure, match="multi-document transaction"):
            loop.db.list_collection_names()
        loop.db["c"].insert_one({"_id": 2})

    loop.run(work)
    assert (loop.calls, loop.db["c"].count_documents({})) == (1, 2)


def test_a_refused_first_command_ends_the_transaction_and_is_named(loop: Loop) -> None:
    def work() -> None:
        with suppress(OperationFailure):
            loop.db.list_collection_names()
        loop.db["c"].insert_one({"_id": 1})

    with pytest.raises(SwallowedError, match="listCollections: 263"):
        loop.run(work)
    assert loop.calls == 1


def test_a_harmless_refusal_is_not_blamed_for_a_conflict_that_follows(
    loop: Loop, admin: Any
) -> None:
    def work() -> None:
        loop.db["c"].insert_one({"_id": loop.calls})
        with suppress(OperationFailure):
            loop.db.list_collection_names()
        loop.db["c"].update_one({}, {"$set": {"n": 1}})

    conflict = fail(
        2, failCommands=["update"], errorCode=112, errorLabels=["TransientTransactionError"]
    )
    with failpoint(admin, *conflict):
        loop.run(work)
    assert loop.calls == 3


@pytest.mark.parametrize("command", ["insert", "commitTransaction"])
def test_transient_conflicts_are_tried_again(loop: Loop, admin: Any, command: str) -> None:
    label = ["TransientTransactionError"]
    with failpoint(admin, *fail(2, failCommands=[command], errorCode=112, errorLabels=label)):
        loop.run(lambda: loop.db["c"].insert_one({"n": 1}))
    assert (loop.calls, loop.db["c"].count_documents({})) == (3, 1)


def test_a_true_write_conflict_is_tried_again(loop: Loop) -> None:
    loop.db["c"].insert_one({"_id": 1, "n": 0})

    def work() -> None:
        loop.db["c"].find_one({"_id": 2})  # the snapshot is taken
        if loop.calls == 1:
            in_thread(lambda: loop.db["c"].update_one({}, {"$inc": {"n": 1}}))
        loop.db["c"].update_one({"_id": 1}, {"$inc": {"n": 10}})

    loop.run(work)
    assert (loop.calls, loop.db["c"].find_one()) == (2, {"_id": 1, "n": 11})


def test_a_transient_error_that_the_code_wraps_is_tried_again(loop: Loop, admin: Any) -> None:
    def work() -> None:
        try:
            loop.db["c"].insert_one({"n": 1})
        except OperationFailure as error:
            raise RuntimeError("could not insert") from error

    label = ["TransientTransactionError"]
    with failpoint(admin, *fail(1, failCommands=["insert"], errorCode=112, errorLabels=label)):
        loop.run(work)
    assert loop.calls == 2


def test_a_storm_of_conflicts_is_given_up_after_the_attempts_with_the_command(
    loop: Loop, admin: Any
) -> None:
    label = ["TransientTransactionError"]
    storm = fail(failCommands=["insert"], errorCode=112, errorLabels=label)
    with (
        failpoint(admin, *storm),
        pytest.raises(TransactionFailed, match=r"given up after 3 tries.*insert: 112"),
    ):
        loop.run(lambda: loop.db["c"].insert_one({"n": 1}), attempts=3)
    assert (loop.calls, loop.db["c"].count_documents({})) == (3, 0)


def test_a_repeated_251_on_commit_is_given_up_after_the_attempts(loop: Loop, admin: Any) -> None:
    label = ["TransientTransactionError"]
    gone = fail(failCommands=["commitTransaction"], errorCode=251, errorLabels=label)
    with failpoint(admin, *gone), pytest.raises(TransactionFailed, match="after 3 tries"):
        loop.run(lambda: loop.db["c"].insert_one({"n": 1}), attempts=3)
    assert (loop.calls, loop.db["c"].count_documents({})) == (3, 0)


@pytest.mark.parametrize("times", [1, 3, 5])
def test_a_commit_whose_connection_breaks_lands_once_and_the_work_runs_once(
    loop: Loop, admin: Any, times: int
) -> None:
    with failpoint(admin, *fail(times, failCommands=["commitTransaction"], closeConnection=True)):
        loop.run(lambda: loop.db["c"].insert_one({"n": 1}))
    assert (loop.calls, loop.db["c"].count_documents({})) == (1, 1)


def test_a_commit_that_is_never_confirmed_is_said_so_and_leaves_no_open_transaction(
    loop: Loop, admin: Any
) -> None:
    loop.db["c"].insert_one({"_id": 1, "n": 0})
    broken = fail(20, failCommands=["commitTransaction"], closeConnection=True)
    with (
        failpoint(admin, *broken),
        pytest.raises(TransactionFailed, match="did not confirm the transaction's commit"),
    ):
        loop.run(lambda: loop.db["c"].update_one({"_id": 1}, {"$inc": {"n": 1}}))
    began = time.monotonic()
    loop.db["c"].update_one({"_id": 1}, {"$inc": {"n": 10}})  # would wait for an open transaction
    assert time.monotonic() - began < 45  # the server reaps a transaction after 60
    assert loop.db["c"].find_one() == {"_id": 1, "n": 10}


@pytest.mark.parametrize(
    "error",
    [
        {"writeConcernError": {"code": 64, "errmsg": "x", "errInfo": {"wtimeout": True}}},
        {"errorCode": 91, "errorLabels": ["UnknownTransactionCommitResult"]},
    ],
)
def test_a_commit_that_is_not_sure_of_itself_is_asked_again(
    loop: Loop, admin: Any, error: dict[str, Any]
) -> None:
    with failpoint(admin, *fail(1, failCommands=["commitTransaction"], **error)):
        loop.run(lambda: loop.db["c"].insert_one({"n": 1}))
    assert (loop.calls, loop.db["c"].count_documents({})) == (1, 1)


def test_a_lost_lease_ends_the_loop_before_the_next_attempt(loop: Loop, admin: Any) -> None:
    def before() -> None:
        if loop.calls == 1:
            raise LockLost("gone")

    loop.before = before
    label = ["TransientTransactionError"]
    storm = fail(failCommands=["insert"], errorCode=112, errorLabels=label)
    with failpoint(admin, *storm), pytest.raises(LockLost):
        loop.run(lambda: loop.db["c"].insert_one({"n": 1}))
    assert loop.calls == 1


def test_a_transaction_that_outlives_the_limit_is_tried_once_and_explained(
    loop: Loop, admin: Any
) -> None:
    limit = "transactionLifetimeLimitSeconds"
    admin.admin.command({"setParameter": 1, limit: 2})

    def work() -> None:
        began = time.monotonic()
        while time.monotonic() - began < 30:
            loop.db["c"].insert_one({"n": 1})
            time.sleep(0.02)

    try:
        with pytest.raises(TransactionFailed, match="longer than the server lets") as caught:
            loop.run(work)
    finally:
        admin.admin.command({"setParameter": 1, limit: 60})
    assert "transaction = False" in caught.value.hint
    assert (loop.calls, loop.db["c"].count_documents({})) == (1, 0)


def test_the_limit_is_taken_for_the_default_where_it_may_not_be_asked(
    loop: Loop, admin: Any
) -> None:
    def work() -> None:
        raise OperationFailure("x", 251, {"errorLabels": ["TransientTransactionError"]})

    with (
        failpoint(admin, *fail(failCommands=["getParameter"], errorCode=13)),
        pytest.raises(TransactionFailed, match="after 2 tries"),
    ):
        loop.run(work, attempts=2)
    assert loop.calls == 2


def test_a_transaction_that_is_too_large_is_explained_and_not_tried_again(
    loop: Loop, admin: Any
) -> None:
    large = fail(1, failCommands=["insert"], errorCode=388)
    with failpoint(admin, *large), pytest.raises(TransactionFailed, match="too large") as caught:
        loop.run(lambda: loop.db["c"].insert_one({"n": 1}))
    assert "split the revision" in caught.value.hint
    assert loop.calls == 1


def test_a_forgotten_session_joins_the_transaction(loop: Loop) -> None:
    def work() -> None:
        loop.db["c"].insert_one({"_id": 1})
        assert loop.db["c"].count_documents({}) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(work)
    assert loop.db["c"].count_documents({}) == 0


def test_a_loop_needs_at_least_one_attempt(loop: Loop) -> None:
    with pytest.raises(AssertionError, match="at least one attempt"):
        loop.run(lambda: None, attempts=0)


# ---- the watch


def test_the_watch_sees_only_the_transaction_of_its_thread(loop: Loop) -> None:
    watch, db = loop.watch, loop.db
    db["c"].insert_one({"_id": 1})

    def duplicate(**options: Any) -> None:
        with pytest.raises(DuplicateKeyError):
            db["c"].insert_one({"_id": 1}, **options)

    watch.start()
    duplicate()  # no transaction
    assert watch.first is None
    with db.client.start_session() as session:
        session.start_transaction()
        in_thread(lambda: duplicate(session=session))
        assert watch.first is None
        session.abort_transaction()
        session.start_transaction()
        watch.start()
        duplicate(session=session)
        assert str(watch.first).startswith("insert: 11000")
        session.abort_transaction()
    watch.stop()


# ---- revisions that are transactions


def transactional(project: Project, up: str, **options: Any) -> None:
    project.write("0001", up, extra="transaction = True", **options)


def test_change_and_record_land_together(project: Project) -> None:
    transactional(project, 'op.db["c"].insert_one({"_id": 1})')
    assert project.upgrade().revisions == ("0001",)
    record = project.record()
    assert (record["state"], record["transaction"], record["repeatable"]) == (
        State.APPLIED,
        True,
        True,
    )
    assert project.db["c"].count_documents({}) == 1


def test_ddl_and_documents_in_one_transaction_roll_back_together(project: Project) -> None:
    transactional(
        project,
        """
        op.create_collection("made")
        op.create_index("made", "email", unique=True)
        op.insert("made", {"_id": 1, "email": "a"})
        raise ValueError("no")
        """,
    )
    with pytest.raises(RevisionFailed):
        project.upgrade()
    assert "made" not in project.db.list_collection_names()
    assert (project.record()["state"], project.record()["outcome"]) == ("failed", "nothing")


def test_code_that_hides_an_error_is_told_which_one(project: Project) -> None:
    project.db["c"].insert_one({"_id": 1})
    transactional(
        project,
        """
        try:
            op.db["c"].insert_one({"_id": 1})
        except Exception:
            pass
        """,
    )
    with pytest.raises(SwallowedError) as caught:
        project.upgrade()
    assert caught.value.after.startswith("nothing was changed. 0001 is recorded as failed")
    assert project.record()["error"]["type"] == "SwallowedError"
    assert project.record()["outcome"] == "nothing"


def test_a_hostile_url_cannot_spoil_a_transaction(project: Project, replica_set: Server) -> None:
    hostile = (
        "&w=0&readPreference=secondary&retryWrites=false&readConcernLevel=local&journal=false"
        "&maxStalenessSeconds=120&readPreferenceTags=dc:ny&maxPoolSize=1&minPoolSize=1"
        "&timeoutMS=50&socketTimeoutMS=50&waitQueueTimeoutMS=1&wtimeoutMS=1&retryReads=false"
    )
    transactional(
        project,
        """
        op.create_collection("made")
        op.create_index("made", "email")
        op.db["made"].insert_one({"_id": 1})
        """,
    )
    project.write("0002", 'op.db["made"].insert_one({"_id": 2})', after="0001")
    with project.migrator(url=replica_set.url + hostile) as migrator:
        assert migrator.upgrade().revisions == ("0001", "0002")
    assert project.db["made"].count_documents({}) == 2


def unsure_commits() -> tuple[str, Any, dict[str, Any]]:
    error = {"code": 64, "codeName": "WriteConcernFailed", "errmsg": "x"}
    data = {
        "failCommands": ["commitTransaction"],
        "writeConcernError": error | {"errInfo": {"wtimeout": True}},
        "appName": "mongover",
    }
    return "failCommand", "alwaysOn", data


def test_a_commit_that_lands_without_being_confirmed_is_applied_all_the_same(
    project: Project, admin: Any
) -> None:
    transactional(project, 'op.db["c"].insert_one({"_id": 1})')
    with failpoint(admin, *unsure_commits()):
        began = time.monotonic()
        assert project.upgrade().revisions == ("0001",)
        assert time.monotonic() - began > 0.4  # the commit was repeated until it was given up
    assert project.record()["state"] == "applied"
    assert project.db["c"].count_documents({}) == 1


def test_a_commit_that_nobody_can_look_up_is_said_to_be_unconfirmed(
    project: Project, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    transactional(project, 'op.db["c"].insert_one({"_id": 1})')

    def fail(self: MongoHistory, revision: str) -> None:
        raise AutoReconnect("gone")

    monkeypatch.setattr(MongoHistory, "read_one", fail)
    with failpoint(admin, *unsure_commits()), pytest.raises(MongoverError):
        project.upgrade()
    monkeypatch.undo()
    assert project.record()["state"] == "applied"  # whatever was said, the record is true
    assert project.upgrade().run is None


def test_a_commit_that_never_arrives_leaves_a_revision_that_goes_on_by_itself(
    project: Project, admin: Any
) -> None:
    transactional(project, 'op.db["c"].insert_one({"_id": 1})')
    broken = {"failCommands": ["commitTransaction"], "closeConnection": True}
    with (
        failpoint(admin, "failCommand", "alwaysOn", broken | {"appName": "mongover"}),
        pytest.raises(TransactionFailed, match="did not confirm"),
    ):
        project.upgrade()
    assert (project.record()["state"], project.record()["outcome"]) == ("failed", "nothing")
    assert project.db["c"].count_documents({}) == 0
    assert project.upgrade().revisions == ("0001",)


def test_another_client_in_the_code_is_refused_by_the_driver_and_nothing_stays(
    project: Project,
) -> None:
    transactional(
        project,
        f"""
        from pymongo import MongoClient
        op.db["c"].insert_one({{"_id": 1}})
        with MongoClient({project.server.url!r}) as other:
            other[op.db.name]["c"].insert_one({{"_id": 2}})
        """,
    )
    with pytest.raises(RevisionFailed, match="InvalidOperation"):
        project.upgrade()
    assert project.db["c"].count_documents({}) == 0


def test_what_a_thread_of_the_code_writes_is_not_part_of_the_transaction(project: Project) -> None:
    transactional(
        project,
        """
        import threading
        db = op.db
        thread = threading.Thread(target=lambda: db["c"].insert_one({"_id": "thread"}))
        thread.start()
        thread.join()
        db["c"].insert_one({"_id": "code"})
        raise ValueError("no")
        """,
    )
    project.db.create_collection("c")
    with pytest.raises(RevisionFailed):
        project.upgrade()
    assert [one["_id"] for one in project.db["c"].find()] == ["thread"]
