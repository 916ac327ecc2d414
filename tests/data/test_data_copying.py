"""Conversion, copies and backups."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from bson import Int64

from mongover.errors import NotInTransaction, OperationFailed
from mongover.operations.bulk import server_side
from tests.support.operations_support import Desk, in_transaction

if TYPE_CHECKING:
    from pymongo.database import Database

    Db = Database[dict[str, Any]]


@pytest.fixture(params=["one command", "ranges"])
def db(request: pytest.FixtureRequest, any_db: Db, monkeypatch: pytest.MonkeyPatch) -> Db:
    if request.param == "ranges":
        monkeypatch.setattr(server_side, "SMALL", 3)
        monkeypatch.setattr(server_side, "RANGE", 4)
    return any_db


def values(db: Db, name: str = "a") -> list[Any]:
    return [row.get("v", "gone") for row in db[name].find().sort("_id")]


STORED = ["1", "2.5", 3, 4.0, None, "x", [1, "2"], Int64(7)]


@pytest.mark.parametrize(
    ("on_error", "expected"),
    [
        ("keep", [1, "2.5", 3, 4, None, "x", [1, "2"], 7]),
        ("null", [1, None, 3, 4, None, None, [1, "2"], 7]),
        ("unset", [1, "gone", 3, 4, None, "gone", [1, "2"], 7]),
    ],
)
def test_values_are_converted_and_those_that_cannot_be_are_treated_as_told(
    db: Db, on_error: str, expected: list[Any]
) -> None:
    db["a"].insert_many([{"_id": n, "v": value} for n, value in enumerate(STORED)])
    db["a"].insert_one({"_id": 99})
    desk = Desk(db)
    assert desk.do("convert_field", "a", "v", "int", on_error=on_error) == "done"
    assert values(db) == [*expected, "gone"]
    assert type(db["a"].find_one({"_id": 7})["v"]) is int  # type: ignore[index] # it is there
    assert Desk(db).do("convert_field", "a", "v", "int", on_error=on_error) == "unchanged"


def test_a_conversion_that_would_lose_values_is_refused_before_it_begins(db: Db) -> None:
    db["a"].insert_many([{"_id": n, "v": value} for n, value in enumerate(STORED)])
    with pytest.raises(OperationFailed, match=r"2 values of .* cannot become int") as caught:
        Desk(db).op.convert_field("a", "v", "int")
    assert caught.value.notes == ("for example _id 1, 5",)
    assert values(db) == STORED


def test_dates_are_read_from_strings(db: Db) -> None:
    db["a"].insert_one({"_id": 1, "v": "2020-02-03T04:05:06Z"})
    Desk(db).op.convert_field("a", "v", "date")
    assert values(db) == [dt.datetime(2020, 2, 3, 4, 5, 6)]  # noqa: DTZ001 - the client is naive


def test_a_field_inside_an_array_is_converted_in_each_of_its_documents(db: Db) -> None:
    db["a"].insert_one({"_id": 1, "l": [{"v": "1"}, {"v": "x"}]})
    Desk(db).do("convert_field", "a", "l.v", "int", on_error="null")
    assert db["a"].find_one() == {"_id": 1, "l": [{"v": 1}, {"v": None}]}


@pytest.mark.parametrize("bad", [("a", "_id", "int"), ("a", "v", "integer"), ("a", "$v", "int")])
def test_a_conversion_that_makes_no_sense_is_refused(db: Db, bad: tuple[str, str, str]) -> None:
    with pytest.raises(OperationFailed):
        Desk(db).op.convert_field(*bad)


def test_a_copy_puts_changed_documents_elsewhere_and_again_changes_nothing(db: Db) -> None:
    db["a"].insert_many([{"_id": n, "v": n} for n in range(10)])
    db["b"].insert_one({"_id": 3, "mine": True})
    for _ in range(2):
        stages = [{"$set": {"v": {"$add": ["$v", 100]}}}]
        Desk(db).op.copy("a", "b", pipeline=stages, filter={"v": {"$lt": 8}})
    assert values(db, "b") == [100, 101, 102, 103, 104, 105, 106, 107]
    assert values(db) == list(range(10))
    assert "mine" not in db["b"].find_one({"_id": 3})  # type: ignore[operator] # it is there


@pytest.mark.parametrize(
    ("verb", "options", "expected"),
    [
        ("merge_into", {}, {"_id": 1, "mine": True, "v": 1}),
        ("copy", {"on_match": "keep"}, {"_id": 1, "mine": True, "v": 0}),
        ("copy", {}, {"_id": 1, "v": 1}),
    ],
)
def test_a_document_that_is_there_already_is_treated_as_told(
    db: Db, verb: str, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    db["a"].insert_one({"_id": 1, "v": 1})
    db["b"].insert_one({"_id": 1, "mine": True, "v": 0})
    Desk(db).do(verb, "a", "b", **options)
    assert db["b"].find_one() == expected


def test_a_copy_tells_of_documents_looked_at_and_claims_no_changes(
    any_db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_side, "SMALL", 20)
    monkeypatch.setattr(server_side, "RANGE", 10)
    any_db["a"].insert_many([{"_id": n, "v": n} for n in range(100)])
    kept: list[dict[str, Any]] = []
    for options in ({}, {"filter": {"v": {"$lt": 40}}}):
        desk = Desk(any_db)
        assert desk.do("copy", "a", "b", **options) == "done"
        assert desk.book.steps[-1] == (100, 100)
        kept += any_db["_m_checkpoints"].find({"kind": "span", "revision": desk.book.revision})
    assert any_db["b"].count_documents({}) == 100
    assert sum(row["walked"] for row in kept) == 200
    assert sum(row["matched"] for row in kept) == 100  # without a filter; else nobody says
    assert sum(row["changed"] for row in kept) == 0


def test_a_copy_in_one_command_tells_of_no_documents_at_all(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": n, "v": n} for n in range(10)])
    for options in ({}, {"filter": {"v": 3}}, {"whole": True}):
        desk = Desk(any_db)
        assert desk.do("copy", "a", "b", **options) == "done"
        assert desk.book.steps == []


def test_a_pipeline_that_needs_all_documents_runs_whole(db: Db) -> None:
    db["a"].insert_many([{"_id": n, "k": n % 2} for n in range(20)])
    stages = [{"$group": {"_id": "$k", "v": {"$sum": 1}}}]
    Desk(db).op.copy("a", "b", pipeline=stages, whole=True)
    assert values(db, "b") == [10, 10]


def test_a_copy_onto_itself_or_with_its_own_end_is_refused(db: Db) -> None:
    with pytest.raises(OperationFailed, match="into itself"):
        Desk(db).op.copy("a", "a")
    with pytest.raises(OperationFailed, match="leave"):
        Desk(db).op.copy("a", "b", pipeline=[{"$out": "c"}])


def test_a_copy_is_refused_in_a_transaction(replica_db: Db) -> None:
    with in_transaction(replica_db) as desk, pytest.raises(NotInTransaction, match="merge"):
        desk.op.copy("a", "b")


def undo(desk: Desk, verb: str, *args: Any, **options: Any) -> None:
    """The verb in the downgrade of the same revision."""
    after = Desk(desk.db)
    after.book.revision = desk.book.revision
    after.book.tickets = 50
    getattr(after.op, verb)(*args, **options)


def test_a_backup_gives_removed_fields_back_but_never_over_newer_values(db: Db) -> None:
    db["a"].insert_many([{"_id": n, "v": n, "w": n} for n in range(10)])
    db["a"].insert_one({"_id": 10, "w": 1})
    desk = Desk(db)
    desk.op.backup("a", fields=["v"])
    desk.op.remove_field("a", "v")
    desk.op.backup("a", fields=["v"])  # a second attempt finds the field gone, and keeps it
    db["a"].update_one({"_id": 3}, {"$set": {"v": "newer"}})
    db["a"].delete_one({"_id": 4})
    undo(desk, "restore_backup", "a", fields=["v"])
    assert values(db) == [0, 1, 2, "newer", 5, 6, 7, 8, 9, "gone"]
    undo(desk, "restore_backup", "a", fields="v", on_existing="overwrite")
    assert values(db) == [0, 1, 2, 3, 5, 6, 7, 8, 9, "gone"]


def test_a_backup_of_whole_documents_brings_deleted_ones_back(db: Db) -> None:
    db["a"].insert_many([{"_id": n, "v": n} for n in range(10)])
    desk = Desk(db)
    desk.op.backup("a", filter={"v": {"$gte": 5}})
    desk.op.delete("a", {"v": {"$gte": 5}})
    db["a"].insert_one({"_id": 7, "v": "newer"})
    undo(desk, "restore_backup", "a")
    assert values(db) == [0, 1, 2, 3, 4, 5, 6, "newer", 8, 9]


def test_restoring_without_a_backup_is_refused(db: Db) -> None:
    with pytest.raises(OperationFailed, match="there is no backup of a"):
        Desk(db).op.restore_backup("a", fields=["v"])
