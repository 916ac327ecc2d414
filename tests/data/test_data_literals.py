"""Plain values that look like expressions are refused before they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from bson import DBRef, ObjectId
from hypothesis import given
from hypothesis import strategies as st

from mongover.errors import OperationFailed
from mongover.operations.literals import expression_in
from tests.support.operations_support import Desk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

    Db = Database[dict[str, Any]]

COMPUTED = {"$toDate": "$_id"}
IN_DOCUMENTS = [COMPUTED, {"at": COMPUTED}, [1, {"at": (COMPUTED,)}], {"$ref": "#/defs/x"}]


@pytest.mark.parametrize("value", IN_DOCUMENTS)
@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("add_field", lambda value: ("a", "f", value)),
        ("insert", lambda value: ("a", [{"_id": n} for n in range(2000)] + [{"f": value}])),
        ("insert", lambda value: ("a", {"_id": 7, "f": value})),
        ("update", lambda value: ("a", {}, {"$set": {"g": 1, "f": value}})),
        ("update", lambda value: ("a", {}, {"$unset": {"g": 1}, "$setOnInsert": {"f": value}})),
        ("update", lambda value: ("a", {}, {"$push": {"f": value}})),
        ("update", lambda value: ("a", {}, {"$push": {"f": {"$each": [value], "$slice": 3}}})),
        ("update", lambda value: ("a", {}, {"$addToSet": {"f": {"$each": [0, value]}}})),
        ("update", lambda value: ("a", {}, {"$max": {"f": value}})),
    ],
)
def test_an_expression_among_plain_values_is_refused_before_anything_is_changed(
    standalone_db: Db, verb: str, arguments: Any, value: Any
) -> None:
    standalone_db["a"].insert_one({"_id": ObjectId(), "g": 0})
    before = list(standalone_db["a"].find())
    with pytest.raises(OperationFailed, match=r"the value of f holds \$\w+, which would") as caught:
        getattr(Desk(standalone_db).op, verb)(*arguments(value))
    assert '[{"$set": {"f": {"$' in caught.value.hint
    assert "$literal" in caught.value.hint
    assert caught.value.after == "nothing was changed."
    assert list(standalone_db["a"].find()) == before


def test_what_the_message_names_computes_or_stores_the_value(any_db: Db) -> None:
    first = ObjectId()
    any_db["a"].insert_one({"_id": first})
    desk = Desk(any_db)
    with pytest.raises(OperationFailed) as caught:
        desk.op.add_field("a", "at", COMPUTED)
    assert caught.value.hint.startswith(
        'op.update("a", {"at": {"$exists": False}}, [{"$set": {"at": {"$toDate": ...}}}]) computes'
    )
    desk.op.update("a", {"at": {"$exists": False}}, [{"$set": {"at": COMPUTED}}])
    desk.op.update("a", {}, [{"$set": {"as_is": {"$literal": COMPUTED}}}])
    found = any_db["a"].find_one()
    assert found is not None
    assert found["at"] == first.generation_time.replace(tzinfo=None)
    assert found["as_is"] == COMPUTED


def test_a_generator_is_refused_at_the_batch_that_holds_an_expression(any_db: Db) -> None:
    def documents() -> Iterator[dict[str, Any]]:
        yield from ({"_id": n} for n in range(1500))
        yield {"_id": 1500, "f": COMPUTED}

    with pytest.raises(OperationFailed, match="document 1501 for a: the value of f") as caught:
        Desk(any_db).op.insert("a", documents())
    assert caught.value.after == "the 1,000 documents before its batch are inserted."
    assert any_db["a"].count_documents({}) == 1000


def test_operators_that_are_meant_and_references_stay_legal(any_db: Db) -> None:
    any_db["a"].insert_one({"_id": 1, "l": [3]})
    desk = Desk(any_db)
    desk.op.update("a", {}, {"$push": {"l": {"$each": [2, 1], "$sort": 1, "$slice": 2}}})
    desk.op.update("a", {}, {"$addToSet": {"l": {"$each": [9]}}, "$currentDate": {"t": True}})
    desk.op.update("a", {}, {"$currentDate": {"t": {"$type": "timestamp"}}})
    desk.op.update("a", {}, {"$pull": {"l": {"$gte": 9}}, "$set": {"owner": DBRef("users", 7)}})
    desk.op.add_field("a", "other", {"$ref": "users", "$id": 8, "$db": "b", "note": "x"})
    desk.op.insert("a", {"_id": 2, "owner": DBRef("users", 7, "b"), "price": "$5", "a$b": 1})
    found = list(any_db["a"].find({}, {"t": 0}).sort("_id"))
    assert found == [
        {"_id": 1, "l": [1, 2], "owner": DBRef("users", 7),
         "other": DBRef("users", 8, "b", note="x")},
        {"_id": 2, "owner": DBRef("users", 7, "b"), "price": "$5", "a$b": 1},
    ]  # fmt: skip


def test_an_expression_in_a_reference_is_still_one(any_db: Db) -> None:
    with pytest.raises(OperationFailed, match=r"holds \$toDate"):
        Desk(any_db).op.insert("a", {"f": {"$ref": "users", "$id": COMPUTED}})


def test_what_a_function_returns_is_computed_already_and_stored_as_it_is(any_db: Db) -> None:
    any_db["a"].insert_one({"_id": 1, "rule": {"$or": []}})
    Desk(any_db).op.transform("a", lambda found: {"$set": {"copy": found["rule"]}})
    Desk(any_db).op.transform("a", lambda found: {**found, "again": found["rule"]})
    rule: dict[str, Any] = {"$or": []}
    assert any_db["a"].find_one() == {"_id": 1, "rule": rule, "copy": rule, "again": rule}


PLAIN = st.recursive(
    st.integers() | st.text(max_size=3) | st.just("$a"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3).filter(lambda key: key[:1] != "$"), inner, max_size=3)
    ),
)


@given(value=PLAIN, path=st.lists(st.sampled_from(["list", "dict"]), max_size=5))
def test_an_expression_is_found_however_deep_it_lies_and_nothing_else_is_one(
    value: Any, path: list[str]
) -> None:
    assert expression_in(value) == ""
    found: Any = {"$x": value}
    for kind in path:
        found = [value, found] if kind == "list" else {"k": value, "l": found}
    assert expression_in(found) == "$x"
