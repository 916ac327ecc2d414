"""A transaction of documents: attempted once, its commit asked for until the server says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pymongo.errors import PyMongoError

from mongover.operations.bulk.transact import transact
from mongover.running.rejects import Retried, retry_rejects
from tests.support.operations_support import Desk
from tests.support.servers import Server, failpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.database import Database

    Db = Database[dict[str, Any]]

APP = "mongover-transact-test"
BROKEN = {"closeConnection": True}
UNSURE = {"writeConcernError": {"code": 64, "errmsg": "a majority did not confirm it"}}


@pytest.fixture
def db(replica_set: Server, open_database: Callable[..., Db]) -> Db:
    db = open_database(replica_set, appname=APP)
    db.create_collection("a")
    return db


@pytest.fixture
def admin(replica_set: Server) -> Iterator[Any]:
    with replica_set.client() as client:
        yield client


def commits(admin: Any, mode: Any, how: dict[str, Any]) -> Any:
    data = {"appName": APP, "failCommands": ["commitTransaction"], **how}
    return failpoint(admin, "failCommand", mode, data)


def insert(db: Db, asked: list[bool] | None = None, *, landed: bool = False) -> str:
    """One document in a transaction; `asked` tells whether it had to be looked for."""

    def looked() -> bool:
        if asked is not None:
            asked.append(landed)
        return landed

    with db.client.start_session() as session:

        def work() -> str:
            db["a"].insert_one({"n": 1}, session=session)
            return "done"

        return transact(session, work, landed=looked)


@pytest.mark.parametrize("times", [1, 3, 7])
@pytest.mark.parametrize("how", [BROKEN, UNSURE])
def test_a_commit_of_unknown_result_is_asked_for_again_and_the_work_is_done_once(
    db: Db, admin: Any, how: dict[str, Any], times: int
) -> None:
    asked: list[bool] = []
    with commits(admin, {"times": times}, how):
        assert insert(db, asked) == "done"
    assert db["a"].count_documents({}) == 1
    assert asked == []


def test_a_commit_that_is_never_confirmed_counts_by_what_a_look_finds(db: Db, admin: Any) -> None:
    asked: list[bool] = []
    with commits(admin, "alwaysOn", UNSURE):
        assert insert(db, asked, landed=True) == "done"
        with pytest.raises(PyMongoError):
            insert(db, asked, landed=False)
    assert asked == [True, False]


def test_nothing_of_work_that_raises_stays_whatever_it_raises(db: Db) -> None:
    for error in (ValueError, KeyboardInterrupt):
        with db.client.start_session() as session:

            def work(raised: type[BaseException] = error, session: Any = session) -> None:
                db["a"].insert_one({"n": 1}, session=session)
                raise raised

            with pytest.raises(error):
                transact(session, work, landed=lambda: True)
            assert not session.in_transaction
    assert db["a"].count_documents({}) == 0


def test_a_reject_that_is_gone_with_its_document_changed_is_done_though_never_confirmed(
    db: Db, admin: Any
) -> None:
    def number(doc: dict[str, Any]) -> dict[str, Any]:
        return {**doc, "n": 1}

    desk = Desk(db)
    assert desk.do("transform", "a", number) == "unchanged"
    operation = desk.book.started[0]
    name = str(getattr(operation, "name", ""))
    db["a"].insert_one({"_id": 1})
    row = {"revision": "0001", "direction": "up", "collection": "a", "function": name}
    db["rejects"].insert_one({"_id": 7, "document": 1, **row})
    with commits(admin, "alwaysOn", UNSURE):
        result = retry_rejects(
            db, db["rejects"], "0001", [operation], transactions=True, check=lambda: None
        )
    assert result == Retried(1, 0)
    assert db["a"].find_one() == {"_id": 1, "n": 1}
    assert db["rejects"].count_documents({}) == 0
