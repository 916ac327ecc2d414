"""Documents with fields whose names begin with `$`, as the server stores them since 5.0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from mongover.errors import OperationFailed
from tests.support.operations_support import Desk, in_transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.database import Database

    Db = Database[dict[str, Any]]
    Doc = dict[str, Any]


def rows(db: Db) -> list[Doc]:
    return list(db["a"].find().sort("_id", 1))


START: Doc = {"_id": 1, "$x": 1, "$set": 5, "n": 1}
CHANGES: list[tuple[Callable[[Doc], Any], Doc]] = [
    (lambda doc: {**doc, "n": 2}, START | {"n": 2}),
    (lambda doc: {**doc, "$x": 2}, START | {"$x": 2}),
    (lambda doc: {**doc, "$set": [1], "n": 3}, START | {"$set": [1], "n": 3}),
    (lambda doc: {name: doc[name] for name in ("$x", "_id")}, {"_id": 1, "$x": 1}),
    (lambda doc: {"$x": doc["$x"] + 1}, {"_id": 1, "$x": 2}),
    (lambda doc: {"_id": doc["_id"], "plain": doc["$x"]}, {"_id": 1, "plain": 1}),
    (lambda _: {"$set": {"n": 7}}, START | {"n": 7}),
    (lambda _: {"$inc": {"n": 7}}, START | {"n": 8}),
    (lambda _: {"$set": {"n": 7}, "$unset": {"m": ""}}, START | {"n": 7}),
    (lambda _: None, START),
]


@pytest.mark.parametrize(("change", "after"), CHANGES)
def test_a_field_that_the_document_has_is_a_field_and_an_operator_stays_one(
    any_db: Db, change: Callable[[Doc], Any], after: Doc
) -> None:
    any_db["a"].insert_many([START, START | {"_id": 2}])
    Desk(any_db).op.transform("a", change)
    assert rows(any_db) == [after, after | {"_id": 2}]


@pytest.mark.parametrize(("change", "after"), CHANGES)
def test_so_it_is_in_the_transaction_of_the_revision(
    replica_db: Db, change: Callable[[Doc], Any], after: Doc
) -> None:
    replica_db["a"].insert_one(START)
    with in_transaction(replica_db) as desk:
        desk.op.transform("a", change)
    assert rows(replica_db) == [after]


@pytest.mark.parametrize("result", [{"$set": {"a": 1}, "b": 2}, {"_id": 1, "$new": 2}])
def test_a_new_field_of_such_a_name_is_refused_by_that_name(any_db: Db, result: Doc) -> None:
    any_db["a"].insert_one({"_id": 1, "$x": 1})
    with pytest.raises(OperationFailed, match=r"\(\$(set|new) is no field that the document had\)"):
        Desk(any_db).op.transform("a", lambda _: result)
    assert rows(any_db) == [{"_id": 1, "$x": 1}]


class Named(BaseModel):
    model_config = ConfigDict(extra="allow")
    n: int


def test_a_model_keeps_such_fields_as_it_keeps_others(any_db: Db) -> None:
    any_db["a"].insert_one({"_id": 1, "$x": 1, "n": 1})
    Desk(any_db).op.transform("a", lambda one: Named(n=one.n + 1), model_from=Named, model_to=Named)
    assert rows(any_db) == [{"_id": 1, "$x": 1, "n": 2}]


_NAMES = st.sampled_from(["$x", "$set", "$", "$$a", "a.b", "a", "n", "$y.z"])
_DOCUMENTS = st.dictionaries(_NAMES, st.integers(0, 3), max_size=4)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(_DOCUMENTS, _DOCUMENTS), min_size=1, max_size=4))
def test_a_transform_writes_the_document_that_its_function_returns(
    replica_db: Db, pairs: list[tuple[Doc, Doc]]
) -> None:
    """Of names that the document had, or that begin with no `$`; with its `_id`."""
    wanted = {
        place: {name: value for name, value in after.items() if name in before or name[0] != "$"}
        for place, (before, after) in enumerate(pairs)
    }
    replica_db["a"].delete_many({})
    replica_db["a"].insert_many(
        [{"_id": place, **before} for place, (before, _) in enumerate(pairs)]
    )
    Desk(replica_db).op.transform("a", lambda doc: {"_id": doc["_id"], **wanted[doc["_id"]]})
    assert {doc.pop("_id"): doc for doc in rows(replica_db)} == wanted
