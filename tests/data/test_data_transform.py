"""`op.transform`: what a function returns, what is written, and what happens meanwhile."""

from __future__ import annotations

import copy
import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from bson import Int64, ObjectId
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from mongover.errors import NotInTransaction, OperationFailed
from mongover.operations import Operations
from mongover.operations.bulk import kept_aside
from mongover.operations.bulk.change import DELETE, NeedsReplacement, difference, same, shows
from tests.support.operations_support import Desk, in_transaction

if TYPE_CHECKING:
    from pymongo.database import Database

    Db = Database[dict[str, Any]]
    Doc = dict[str, Any]


def rows(db: Db, name: str = "a") -> list[dict[str, Any]]:
    return list(db[name].find().sort("_id"))


# -- what a function may return ---------------------------------------------------------------


def test_what_the_function_changed_is_written_whatever_way_it_says_so(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": n, "n": n, "x": {"y": [1, 2, 3], "z": 1}} for n in range(7)])

    def change(doc: Doc) -> Any:  # noqa: PLR0911 - one return for each kind of result
        match doc["_id"]:
            case 0:
                return None
            case 1:
                doc["x"]["y"][1] = "two"  # in place, deep inside
                return doc
            case 2:
                return {**doc, "n": "new", "more": True}
            case 3:
                return {"$set": {"n": 33}, "$unset": {"x": ""}}
            case 4:
                return {"$inc": {"n": 10}, "$push": {"x.y": 4}}
            case 5:
                return [{"$set": {"n": {"$add": ["$n", 100]}}}]
            case _:
                return Operations.DELETE

    assert Desk(any_db).do("transform", "a", change) == "done"
    assert rows(any_db) == [
        {"_id": 0, "n": 0, "x": {"y": [1, 2, 3], "z": 1}},
        {"_id": 1, "n": 1, "x": {"y": [1, "two", 3], "z": 1}},
        {"_id": 2, "n": "new", "x": {"y": [1, 2, 3], "z": 1}, "more": True},
        {"_id": 3, "n": 33},
        {"_id": 4, "n": 14, "x": {"y": [1, 2, 3, 4], "z": 1}},
        {"_id": 5, "n": 105, "x": {"y": [1, 2, 3], "z": 1}},
    ]


def test_a_function_that_changes_nothing_writes_nothing(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": n, "f": 1.0, "l": Int64(1)} for n in range(5)])
    assert Desk(any_db).do("transform", "a", lambda doc: doc) == "unchanged"
    assert Desk(any_db).do("transform", "a", copy.deepcopy) == "unchanged"


@pytest.mark.parametrize(
    "result", [{}, {"$set": {"a": 1}, "b": 2}, 7, "text", [], [1], {1: 2}, object()]
)
def test_a_result_that_says_nothing_clear_stops_with_the_document(any_db: Db, result: Any) -> None:
    any_db["a"].insert_one({"_id": "it", "n": 1})
    with pytest.raises(OperationFailed) as caught:
        Desk(any_db).op.transform("a", lambda _: result)
    assert any("'it'" in note or '"it"' in note for note in caught.value.notes)
    assert rows(any_db) == [{"_id": "it", "n": 1}]


def test_another_id_is_refused(any_db: Db) -> None:
    any_db["a"].insert_one({"_id": 1})
    with pytest.raises(OperationFailed, match="another _id"):
        Desk(any_db).op.transform("a", lambda doc: {**doc, "_id": 2})


def test_fields_with_odd_names_are_replaced_with_the_whole_document(any_db: Db) -> None:
    any_db["a"].insert_one({"_id": 1, "a.b": 1, "n": 1})
    Desk(any_db).op.transform("a", lambda doc: {**doc, "a.b": 2})
    assert rows(any_db) == [{"_id": 1, "a.b": 2, "n": 1}]


def test_a_projection_keeps_the_fields_that_were_not_read(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": n, "n": n, "big": "x" * 100} for n in range(3)])
    seen: list[Doc] = []

    def change(doc: Doc) -> Doc:
        seen.append(dict(doc))
        return {"_id": doc["_id"], "m": doc["n"]}

    Desk(any_db).op.transform("a", change, projection=["n"])
    assert seen == [{"_id": n, "n": n} for n in range(3)]
    assert rows(any_db) == [{"_id": n, "big": "x" * 100, "m": n} for n in range(3)]


@pytest.mark.parametrize("bad", ["a.b", "$x", ""])
def test_a_projection_of_nested_fields_is_refused(any_db: Db, bad: str) -> None:
    with pytest.raises(OperationFailed, match="projection"):
        Desk(any_db).op.transform("a", lambda doc: doc, projection=[bad])


def test_a_filter_chooses_the_documents(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": n, "v": n % 2} for n in range(10)])
    Desk(any_db).op.transform("a", lambda doc: {**doc, "v": 1}, filter={"v": 0}, batch_size=2)
    assert any_db["a"].count_documents({"v": 1}) == 10


def test_in_a_transaction_it_lands_with_the_rest_or_not_at_all(replica_db: Db) -> None:
    replica_db["a"].insert_many([{"_id": n, "n": n} for n in range(10)])
    with pytest.raises(ZeroDivisionError), in_transaction(replica_db) as desk:  # noqa: PT012 - the abort is what is tested
        desk.op.transform("a", lambda doc: {**doc, "n": -1}, batch_size=3)
        raise ZeroDivisionError
    assert replica_db["a"].count_documents({"n": -1}) == 0
    with in_transaction(replica_db) as desk:
        desk.op.transform("a", lambda doc: {**doc, "n": -1}, batch_size=3)
    assert replica_db["a"].count_documents({"n": -1}) == 10
    with in_transaction(replica_db) as desk, pytest.raises(NotInTransaction, match="workers"):
        desk.op.transform("a", lambda doc: doc, workers=2)


def test_a_nested_function_cannot_be_given_to_workers(any_db: Db) -> None:
    any_db["a"].insert_one({"_id": 1})
    with pytest.raises(OperationFailed, match="other processes") as caught:
        Desk(any_db).op.transform("a", lambda doc: doc, workers=2)
    assert "top level" in caught.value.hint


# -- documents that change meanwhile ----------------------------------------------------------


def test_a_document_that_changed_since_it_was_read_is_read_again(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": n, "n": 0, "other": 0} for n in range(20)])
    calls: list[Any] = []

    def change(doc: Doc) -> Doc:
        calls.append(doc["_id"])
        if doc["_id"] == 7 and doc["other"] == 0:
            any_db["a"].update_one({"_id": 7}, {"$set": {"other": 1, "n": 5}})
        return {**doc, "n": doc["n"] + 1}

    Desk(any_db).op.transform("a", change)
    assert any_db["a"].find_one({"_id": 7}) == {"_id": 7, "n": 6, "other": 1}
    assert any_db["a"].count_documents({"n": 1}) == 19
    assert calls.count(7) >= 2


@pytest.mark.parametrize("result", ["document", "operators", "delete", "projected"])
def test_no_write_of_the_application_is_lost_to_the_function(any_db: Db, result: str) -> None:
    any_db["a"].insert_many([{"_id": n, "n": 0, "app": 0} for n in range(30)])

    def change(doc: Doc) -> Any:
        if doc["app"] == 0 and doc["_id"] % 3 == 0:
            any_db["a"].update_one({"_id": doc["_id"]}, {"$set": {"app": 1}})
        new = {"n": doc["n"] + 1, "saw": doc["app"]}
        if result == "operators":
            return {"$inc": {"n": 1}, "$set": {"saw": doc["app"]}}
        if result == "delete":
            return DELETE if doc["app"] == 0 else {**doc, **new}
        return {**doc, **new}

    fields = ["n", "app"] if result == "projected" else None
    Desk(any_db).op.transform("a", change, projection=fields, batch_size=10)
    found = rows(any_db)
    assert all(doc["saw"] == doc["app"] and doc["n"] == 1 for doc in found)
    assert len(found) == (10 if result == "delete" else 30)


def test_a_document_deleted_meanwhile_stays_deleted(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": n, "n": 0} for n in range(10)])

    def change(doc: Doc) -> Doc:
        if doc["_id"] == 3:
            any_db["a"].delete_one({"_id": 3})
        return {**doc, "n": 1}

    Desk(any_db).op.transform("a", change)
    assert [row["_id"] for row in rows(any_db)] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert any_db["a"].count_documents({"n": 1}) == 9


# -- errors in the data -----------------------------------------------------------------------


def spoil(db: Db) -> Any:
    """A collection with a unique index and a validator, and a function that runs into both."""
    db.create_collection("a", validator={"n": {"$lt": 100}})
    db["a"].create_index("k", unique=True)
    db["a"].insert_many([{"_id": n, "n": n, "k": n} for n in range(40)])

    def change(doc: Doc) -> Any:
        match doc["_id"]:
            case 5:
                return {**doc, "big": "x" * (17 * 1024 * 1024)}
            case 6:
                return {**doc, "k": 39}
            case 7:
                return {**doc, "n": 1000}
            case 8:
                return {**doc, "n": int("no number")}
            case 9:
                return {**doc, "n": object()}
            case _:
                return {**doc, "done": True}

    return change


def test_documents_that_cannot_be_transformed_are_collected_and_the_rest_is_done(
    any_db: Db,
) -> None:
    desk = Desk(any_db)
    assert desk.do("transform", "a", spoil(any_db), on_error="collect", batch_size=16) == "done"
    assert any_db["a"].count_documents({"done": True}) == 35
    kept = {row["document"]: row for row in any_db["_m_rejects"].find()}
    kinds = {key: row["error"]["type"] for key, row in kept.items()}
    assert kinds == {
        5: kinds[5],
        6: "DuplicateKey",
        7: "DocumentValidationFailure",
        8: "ValueError",
        9: "InvalidDocument",
    }
    assert kinds[5] in {"BSONObjectTooLarge", "DocumentTooLarge"}
    assert "no number" not in str(kept[8]["error"])
    assert "test_data_transform.py:" in kept[8]["error"]["message"]
    assert "5 documents of a could not be transformed" in desk.book.warnings[0]


@pytest.mark.parametrize("bad", [5, 6, 7, 8, 9])
def test_the_first_error_stops_by_default_and_names_the_document(any_db: Db, bad: int) -> None:
    change = spoil(any_db)
    with pytest.raises(OperationFailed) as caught:
        Desk(any_db).op.transform(
            "a", lambda doc: change(doc) if doc["_id"] == bad else None, batch_size=16
        )
    assert f"_id {bad}" in caught.value.notes
    assert any_db["a"].find_one({"_id": bad}) == {"_id": bad, "n": bad, "k": bad}


def test_more_failures_than_can_be_kept_stop_a_collecting_transform(
    any_db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_aside, "_COLLECTED_KEPT", 5)
    monkeypatch.setattr(kept_aside, "_SKIPPED_KEPT", 5)
    any_db["a"].insert_many([{"_id": n} for n in range(20)])
    with pytest.raises(OperationFailed, match="more than 5 documents"):
        Desk(any_db).op.transform("a", lambda _: 1 / 0, on_error="collect", batch_size=4)
    desk = Desk(any_db)
    desk.op.transform("a", lambda _: 1 / 0, on_error="skip", batch_size=4)
    mine = any_db["_m_rejects"].count_documents({"revision": desk.book.revision})
    assert mine == 5
    assert "20 documents" in desk.book.warnings[0]


# -- pydantic models --------------------------------------------------------------------------


class OldAddress(BaseModel):
    street: str


class Old(BaseModel):
    full: str
    address: OldAddress | None = None


class NewAddress(BaseModel):
    road: str


class New(BaseModel):
    key: Any = Field(alias="_id")
    first: str
    last: str
    address: NewAddress | None = None


def split(old: Old) -> New:
    first, _, last = old.full.partition(" ")
    address = NewAddress(road=old.address.street) if old.address else None
    return New(_id=1, first=first, last=last, address=address)


def test_models_change_what_they_name_and_keep_the_rest_inside_nested_ones_too(any_db: Db) -> None:
    stored = {"_id": 1, "full": "Ana Paz", "x": 1, "address": {"street": "A", "zip": "9"}}
    any_db["a"].insert_one(stored)
    Desk(any_db).op.transform("a", split, model_from=Old, model_to=New)
    assert rows(any_db) == [
        {"_id": 1, "x": 1, "address": {"zip": "9", "road": "A"}, "first": "Ana", "last": "Paz"}
    ]


def test_models_drop_the_rest_when_told_so(any_db: Db) -> None:
    any_db["a"].insert_one({"_id": 1, "full": "Ana Paz", "x": 1})
    Desk(any_db).op.transform("a", split, model_from=Old, model_to=New, unnamed="drop")
    assert rows(any_db) == [{"_id": 1, "first": "Ana", "last": "Paz", "address": None}]


def test_a_document_that_the_old_model_refuses_is_an_error_of_that_document(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": 1, "full": "Ana Paz"}, {"_id": 2, "full": 5}])
    Desk(any_db).op.transform("a", split, model_from=Old, model_to=New, on_error="collect")
    found = any_db["_m_rejects"].find_one()
    assert found is not None
    assert (found["document"], found["error"]["type"]) == (2, "ValidationError")


# -- the difference, as a pure function -------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([1.0, 0.0, -0.0, float("nan"), "", "a", "b", Int64(1), ObjectId("0" * 24)]),
)
names = st.sampled_from(["a", "b", "c", "0", "d"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
documents = st.dictionaries(names, values, max_size=5)


def applied(before: Doc, set_: Doc, unset: Doc) -> Doc:
    """What the server makes of `$set` and `$unset`, in a few lines of our own."""
    result = copy.deepcopy(before)
    for path, value in {**set_, **dict.fromkeys(unset, "")}.items():
        *parents, last = path.split(".")
        place: Any = result
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if path in unset:
            del place[last]
        elif isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    return result


@given(documents, documents)
def test_the_difference_makes_one_document_of_the_other(before: Doc, after: Doc) -> None:
    change = difference(before, after)
    made = applied(before, change.set, change.unset)
    assert set(made) == set(after)
    assert all(same(made[name], after[name]) for name in after)
    assert shows(made, change)
    assert bool(change) == (
        set(before) != set(after) or not all(same(before[name], after[name]) for name in after)
    )


@given(documents)
def test_a_document_does_not_differ_from_itself(document: Doc) -> None:
    assert not difference(document, copy.deepcopy(document))


def test_a_difference_names_as_little_as_it_can() -> None:
    before = {"a": {"b": {"c": 1, "d": 2}}, "l": [{"x": 1}, {"x": 2}, 3, 4], "gone": 1}
    after = {"a": {"b": {"c": 1, "d": 3}}, "l": [{"x": 1}, {"x": 9}, 3, 4]}
    change = difference(before, after)
    assert change.set == {"a.b.d": 3, "l.1.x": 9}
    assert change.unset == {"gone": ""}


def test_types_tell_values_apart() -> None:
    values = [1, 1.0, True, Int64(1), "1"]
    assert all(
        same(one, other) is (i == j)
        for i, one in enumerate(values)
        for j, other in enumerate(values)
    )
    assert same(float("nan"), float("nan"))
    assert not same(0.0, -0.0)
    assert not same({"a": 1, "b": 2}, {"b": 2, "a": 1})


def test_a_name_that_no_path_can_say_asks_for_a_replacement() -> None:
    with pytest.raises(NeedsReplacement):
        difference({}, {"a.b": 1})
    with pytest.raises(NeedsReplacement):
        difference({"$x": 1}, {})
    assert difference({"a.b": 1}, {"a.b": 1, "c": 2}).set == {"c": 2}


def test_dates_that_python_cannot_hold_survive_a_transform(any_db: Db) -> None:

    far = DatetimeMS(253402300800000 + 1)
    any_db["a"].insert_one(
        {"_id": far, "when": far, "near": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}
    )
    Desk(any_db).op.transform("a", lambda doc: {**doc, "done": True})
    assert any_db["a"].count_documents({"_id": far, "when": far, "done": True}) == 1
