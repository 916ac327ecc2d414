"""Nothing that names a collection or a field is left behind without a word."""

from __future__ import annotations

import datetime as dt
import random
from typing import TYPE_CHECKING, Any

import pytest

from mongover.errors import DuplicateValues, OperationFailed
from mongover.operations.naming import pipeline_names, query_names
from mongover.operations.views import View, readers
from tests.support.operations_support import Desk, in_transaction, rebuilt, recorded

if TYPE_CHECKING:
    from pymongo.database import Database

    Db = Database[dict[str, Any]]

JOINS: dict[str, list[dict[str, Any]]] = {
    "looked": [{"$lookup": {"from": "users", "localField": "u", "foreignField": "_id", "as": "u"}}],
    "inner": [
        {"$lookup": {"from": "x", "pipeline": [{"$unionWith": {"coll": "users"}}], "as": "u"}}
    ],
    "union": [{"$unionWith": "users"}],
    "graph": [
        {
            "$graphLookup": {
                "from": "users",
                "startWith": "$u",
                "connectFromField": "boss",
                "connectToField": "_id",
                "as": "bosses",
            }
        }
    ],
    "facet": [
        {"$facet": {"a": [{"$lookup": {"from": "users", "pipeline": [], "as": "u"}}]}},
    ],
}


def some_views(db: Db) -> None:
    """`plain` on users, `second` on plain, one view on orders for each way to join."""
    db["users"].insert_many([{"_id": 1, "on": True}, {"_id": 2}])
    db["orders"].insert_one({"_id": 1, "u": 1})
    db.command("create", "plain", viewOn="users", pipeline=[{"$match": {"on": True}}])
    db.command("create", "second", viewOn="plain", pipeline=[])
    for name, pipeline in JOINS.items():
        db.command("create", name, viewOn="orders", pipeline=pipeline)
    db.command("create", "other", viewOn="orders", pipeline=[{"$match": {"users": "users"}}])


def seen(db: Db) -> dict[str, list[Any]]:
    return {name: list(db[name].find()) for name in ("plain", "second", "other", *JOINS)}


def definitions(db: Db) -> dict[str, Any]:
    return {v["name"]: v["options"] for v in db.list_collections(filter={"type": "view"})}


def test_a_renamed_collection_names_every_view_that_reads_from_it(any_db: Db) -> None:
    some_views(any_db)
    desk = Desk(any_db)
    assert desk.do("rename_collection", "users", "people") == "done"
    (warning,) = desk.book.warnings
    named = warning.partition("the views ")[2].partition(" read from")[0].split(", ")
    assert set(named) == {"plain", "second", *JOINS}
    assert "repoint_views=True" in warning


def test_repointed_views_see_what_they_saw_and_the_way_back_restores_them(any_db: Db) -> None:
    some_views(any_db)
    before, defined = seen(any_db), definitions(any_db)
    desk = Desk(any_db)
    rename = recorded("rename_collection", "users", "people", repoint_views=True)
    assert rebuilt(rename) == rename
    desk.op.run(rename)
    assert seen(any_db) == before
    assert definitions(any_db)["other"] == defined["other"]
    back = rename.reverse()
    assert back is not None
    desk.op.run(back)
    assert seen(any_db) == before
    assert definitions(any_db) == defined
    assert desk.book.warnings == []


def test_a_rename_that_was_killed_before_its_views_is_finished_by_the_next(any_db: Db) -> None:
    some_views(any_db)
    before = seen(any_db)
    for stop_at in range(2, 20):
        killed = Desk(any_db)
        killed.book.stop_at = stop_at
        try:
            killed.do("rename_collection", "users", "people", repoint_views=True)
            break
        except KeyboardInterrupt:
            desk = Desk(any_db)
            desk.do("rename_collection", "users", "people", repoint_views=True)
            assert seen(any_db) == before
            assert desk.do("rename_collection", "users", "people", repoint_views=True) == (
                "unchanged"
            )
            desk.do("rename_collection", "people", "users", repoint_views=True)
    assert stop_at > len(JOINS)


def test_a_dropped_source_names_its_views_or_hands_them_on(any_db: Db) -> None:
    some_views(any_db)
    before = seen(any_db)
    desk = Desk(any_db)
    desk.do("copy", "users", "people")
    assert desk.do("drop_collection", "users", repoint_views="people") == "done"
    assert seen(any_db) == before
    assert desk.book.warnings == []
    assert desk.do("drop_collection", "plain") == "done"
    assert "the view second reads from it" in desk.book.warnings[0]
    assert desk.do("drop_collection", "people", repoint_views=False) == "done"
    assert len(desk.book.warnings) == 1
    for wrong in (True, "users"):
        with pytest.raises(OperationFailed, match="something else"):
            recorded("drop_collection", "users", repoint_views=wrong)


def test_a_rename_whose_views_are_meant_to_stay_is_no_warning(any_db: Db) -> None:
    some_views(any_db)
    desk = Desk(any_db)
    desk.do("rename_collection", "users", "users_old", repoint_views=False)
    assert desk.book.warnings == []
    assert definitions(any_db)["plain"]["viewOn"] == "users"


def test_a_collection_that_never_was_there_is_skipped_only_when_that_is_said(any_db: Db) -> None:
    desk = Desk(any_db)
    with pytest.raises(OperationFailed, match="neither is there") as caught:
        desk.do("rename_collection", "a", "b")
    assert 'missing="skip"' in caught.value.hint
    assert desk.do("rename_collection", "a", "b", missing="skip") == "unchanged"
    assert desk.book.messages == ["rename collection a to b: neither is there, skipped"]
    any_db["a"].insert_one({})
    assert desk.do("rename_collection", "a", "b", missing="skip") == "done"
    with pytest.raises(OperationFailed, match="missing cannot be 'skp'"):
        recorded("rename_collection", "a", "b", missing="skp")


def test_readers_are_found_through_any_chain_of_views() -> None:
    rng = random.Random(7)
    for _ in range(200):
        names = [f"v{n}" for n in range(8)]
        below = {name: rng.choice(["users", "orders", *names[:n]]) for n, name in enumerate(names)}
        views = [View(name, source, []) for name, source in below.items()]
        rng.shuffle(views)

        def root(name: str, below: dict[str, str] = below) -> str:
            return root(below[name]) if name in below else name

        found = [view.name for view in readers(views, "users")]
        assert sorted(found) == [name for name in names if root(name) == "users"]
        assert all(found.index(below[n]) < found.index(n) for n in found if below[n] in found)


FIELD_USERS: list[tuple[str, dict[str, Any]]] = [
    ("the validator", {"validator": {"$jsonSchema": {"properties": {"phone": {}}}}}),
    ("the validator", {"validator": {"phone": {"$ne": 1}}}),
    ("the validator", {"validator": {"$expr": {"$ne": ["$phone", 1]}}}),
]


@pytest.mark.parametrize(
    ("verb", "rest"), [("remove_field", ()), ("rename_field", ("mobile",))], ids=str
)
def test_what_names_a_field_that_goes_is_kept_as_a_warning(
    any_db: Db, verb: str, rest: tuple[str, ...]
) -> None:
    desk = Desk(any_db)
    for number, (what, options) in enumerate(FIELD_USERS):
        name = f"v{number}"
        any_db.create_collection(name, **options)
        any_db[name].insert_one({"phone": "1", "mobil": 1})
        desk.do(verb, name, "phone", *rest)
        assert f"{what}:" in desk.book.warnings[-1]
    any_db["a"].insert_one({"phone": "1", "at": 1})
    any_db["a"].create_index("x", name="some", partialFilterExpression={"phone": {"$gt": ""}})
    any_db["a"].create_index("phone", expireAfterSeconds=9999)
    any_db.command("create", "numbers", viewOn="a", pipeline=[{"$project": {"phone": 1}}])
    any_db.command("create", "calls", viewOn="numbers", pipeline=[{"$sort": {"phone.x": 1}}])
    any_db.command("create", "others", viewOn="a", pipeline=[{"$set": {"phone": "$at"}}])
    desk.do(verb, "a", "phone", *rest)
    assert desk.book.warnings[-1] == (
        f"{any_db.name}.a.phone goes from documents and is still named by"
        " the partial filter of index some, the TTL index phone_1, the view numbers,"
        " the view calls: what names it go on with it; change that first"
    )
    count = len(desk.book.warnings)
    desk.do(verb, "a", "phone", *rest)
    assert len(desk.book.warnings) == count, "nothing went, so nothing is left behind"


def test_the_metadata_of_a_time_series_is_named(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_collection", "ts", timeseries={"timeField": "at", "metaField": "m"})
    any_db["ts"].insert_one({"at": dt.datetime.now(tz=dt.UTC), "m": {"a": 1}})
    desk.do("remove_field", "ts", "m")
    assert "the time series (metaField)" in desk.book.warnings[0]


def test_query_and_pipeline_names_tell_paths_from_their_neighbours() -> None:
    schema = {"properties": {"a": {"items": {"required": ["b"]}}}}
    assert query_names({"$jsonSchema": schema}, "a.b")
    assert query_names({"$and": [{"$or": [{"a.b.c": 1}]}]}, "a.b")
    assert not query_names({"a.bc": 1, "b": "a.b"}, "a.b")
    assert not query_names({"$jsonSchema": schema}, "a.c")
    for stage in (
        {"$set": {"x": "$$ROOT.a.b"}},
        {"$lookup": {"from": "u", "localField": "a.b", "foreignField": "_id", "as": "x"}},
        {"$unset": ["a.b.c"]},
        {"$unwind": "$a.b"},
        {"$facet": {"x": [{"$match": {"a.b": 1}}]}},
        {"$unionWith": {"coll": "u", "pipeline": [{"$sort": {"a.b": -1}}]}},
    ):
        assert pipeline_names([stage], "a.b"), stage
    others: list[dict[str, Any]] = [
        {"$set": {"a.b": 1}},
        {"$match": {"a": "a.b"}},
        {"$project": {"a.bc": 1}},
    ]
    for stage in others:
        assert not pipeline_names([stage], "a.b"), stage


@pytest.mark.parametrize("options", [{}, {"partialFilterExpression": {"k": 1}}, {"sparse": True}])
def test_a_field_under_a_unique_index_goes_from_all_documents_or_from_none(
    any_db: Db, options: dict[str, Any]
) -> None:
    documents = [{"_id": n, "e": f"{n}@x", "k": 1} for n in range(50)]
    any_db["a"].insert_many(documents)
    any_db["a"].create_index("e", unique=True, **options)
    desk = Desk(any_db)
    for verb, rest in (("remove_field", ()), ("rename_field", ("mail",))):
        if options.get("sparse"):
            assert desk.do(verb, "a", "e", *rest) == "done"
            any_db["a"].drop()
            any_db["a"].insert_many(documents)
            continue
        with pytest.raises(DuplicateValues, match="counts a missing field as null") as caught:
            desk.do(verb, "a", "e", *rest)
        assert 'op.drop_index("a", "e_1")' in caught.value.hint
        assert list(any_db["a"].find()) == documents
    if not options:
        assert desk.do("remove_field", "a", "e", filter={"_id": 7}) == "done"
        with pytest.raises(DuplicateValues):
            desk.do("remove_field", "a", "e", filter={"_id": 8})


def test_a_unique_index_that_other_fields_keep_apart_is_no_obstacle(any_db: Db) -> None:
    any_db["a"].insert_many({"e": {"x": n}, "f": n} for n in range(5))
    any_db["a"].create_index([("e.x", 1), ("f", 1)], unique=True)
    assert Desk(any_db).do("remove_field", "a", "e") == "done"


def test_the_look_at_names_is_taken_in_a_transaction_too(replica_db: Db) -> None:
    replica_db["a"].insert_many([{"_id": 1, "e": 1}, {"_id": 2, "e": 2}])
    replica_db.command("create", "v", viewOn="a", pipeline=[{"$match": {"e": 1}}])
    with in_transaction(replica_db) as desk:
        desk.do("remove_field", "a", "e")
        assert "the view v" in desk.book.warnings[0]
    replica_db["a"].update_many({}, [{"$set": {"e": "$_id"}}])
    replica_db["a"].create_index("e", unique=True)
    with in_transaction(replica_db) as desk, pytest.raises(DuplicateValues):
        desk.do("rename_field", "a", "e", "f")
