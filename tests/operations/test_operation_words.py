"""What a refusal says: which thing is meant, and what to write instead."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo import IndexModel

from mongover.errors import OperationFailed
from mongover.operations.bulk.server_side import SMALL
from mongover.operations.index import Index, key_pairs
from tests.support.operations_support import Desk, rebuilt, recorded

if TYPE_CHECKING:
    from pymongo.database import Database

    Db = Database[dict[str, Any]]


@pytest.mark.parametrize(
    ("keys", "meant"),
    [
        ("-createdAt", '[("createdAt", -1)]'),
        ("+createdAt", '[("createdAt", 1)]'),
        ("#a", '[("a", "hashed")]'),
        ("*place", '[("place", "2dsphere")]'),
        (("a", "-b"), '[("b", -1)]'),
        (["-a"], '[("a", -1)]'),
    ],
)
def test_a_sign_before_a_field_is_asked_about_not_indexed(keys: Any, meant: str) -> None:
    for verb in ("create_index", "replace_index"):
        with pytest.raises(OperationFailed, match="would be a key on a field of that name") as why:
            recorded(verb, "a", keys)
        assert meant in why.value.hint
    with pytest.raises(OperationFailed):
        recorded("create_indexes", "a", ["x", keys])


@given(
    path=st.from_regex(r"[-+#*(a]?[-+#*a-z]{1,4}", fullmatch=True),
    direction=st.sampled_from([1, -1]),
)
def test_a_field_that_begins_with_a_sign_is_indexed_when_its_direction_is_said(
    path: str, direction: int
) -> None:
    assert key_pairs([(path, direction)]) == ((path, direction),)
    operation = recorded("create_index", "a", [(path, direction), ("b", 1)])
    assert rebuilt(operation) == operation
    single = recorded("create_index", "a", [(path, direction)])
    assert rebuilt(single) == single


def test_wildcard_keys_need_no_direction() -> None:
    assert key_pairs("$**") == (("$**", 1),)
    assert key_pairs("a.$**") == (("a.$**", 1),)


def test_background_is_to_be_left_out() -> None:
    for background in (True, False):
        with pytest.raises(OperationFailed, match="no option 'background'") as caught:
            recorded("create_index", "a", "e", background=background)
        assert caught.value.hint.startswith("leave it out")
    with pytest.raises(OperationFailed, match="background"):
        recorded("create_indexes", "a", [IndexModel("e", background=True)])


@pytest.mark.parametrize("model", [IndexModel("e"), Index.of("e", {"unique": True})])
def test_a_definition_in_the_place_of_keys_points_to_create_indexes(model: Any) -> None:
    for verb in ("create_index", "replace_index"):
        with pytest.raises(OperationFailed) as caught:
            recorded(verb, "a", model)
        assert "op.create_indexes takes a list of them" in caught.value.hint


@pytest.mark.parametrize(
    "filter_",
    [
        {"x": {"$ne": 1}},
        {"x": {"$exists": False}},
        {"x": {"$regex": "a"}},
        {"$nor": [{"x": 1}]},
        {"$expr": {"$gt": ["$x", 1]}},
        {"x": {"$foo": 1}},
    ],
)
def test_a_partial_filter_that_the_server_refuses_says_what_it_may_hold(
    any_db: Db, filter_: dict[str, Any]
) -> None:
    with pytest.raises(OperationFailed) as caught:
        Desk(any_db).do("create_index", "a", "e", partial_filter_expression=filter_)
    assert '{"$exists": True}, $gt' in caught.value.hint


def test_a_validator_that_is_replaced_is_shown(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_collection", "a")
    desk.do("set_validator", "a", {"required": ["x"]})
    desk.do("set_validator", "a", {"required": ["x"]}, level="moderate")
    assert desk.book.messages == []
    desk.do("set_validator", "a", {"required": ["y"]})
    (message,) = desk.book.messages
    assert message.startswith("validator on a: it takes the place of the one that was there:")
    assert message.endswith('{"$jsonSchema": {"required": ["x"]}}')


def test_a_capped_collection_is_refused_at_once_and_not_taken_for_a_conflict(
    replica_db: Db,
) -> None:
    replica_db.create_collection("log", capped=True, size=10_000_000)
    replica_db["log"].insert_many({"_id": n, "a": n} for n in range(SMALL + 1))
    desk, started = Desk(replica_db), time.monotonic()
    for verb, args in (
        ("update", ("log", {}, {"$set": {"b": 1}})),
        ("transform", ("log", lambda document: {**document, "b": 1})),
    ):
        with pytest.raises(OperationFailed, match="capped collection") as caught:
            desk.do(verb, *args)
        assert "op.copy it" in caught.value.hint
    assert time.monotonic() - started < 45
    assert replica_db["log"].count_documents({"b": 1}) == 0
