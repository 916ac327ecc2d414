from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pymongo.collation import Collation

from mongover.errors import NotInTransaction, OperationConflict, OperationFailed
from mongover.operations.collections import same_collection
from tests.support.operations_support import Desk, in_transaction, rebuilt, recorded

if TYPE_CHECKING:
    from pymongo.database import Database

    Db = Database[dict[str, Any]]

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "users.archive": {},
    "valid": {"validator": {"a": {"$type": "int"}}, "validation_level": "moderate"},
    "defaults": {"validation_level": "strict", "validationAction": "error"},
    "capped": {"capped": True, "size": 1000, "max": 5},
    "series": {
        "timeseries": {"timeField": "t", "metaField": "m"},
        "expire_after_seconds": 60,
    },
    "hours": {"timeseries": {"timeField": "t", "granularity": "hours"}},
    "clustered": {"clustered_index": True},
    "clustered_named": {
        "clusteredIndex": {"key": {"_id": 1}, "unique": True, "name": "mine"},
        "expireAfterSeconds": 9.0,
    },
    "french": {"collation": Collation("fr_CA")},
    "binary": {"collation": {"locale": "simple"}},
    "english": {"collation": {"locale": "en", "strength": 2}},
    "unwatched": {"change_stream_pre_and_post_images": False},
}


def options(db: Db, name: str) -> dict[str, Any]:
    found: dict[str, Any] = dict(next(iter(db.list_collections(filter={"name": name}))))["options"]
    return found


def test_every_kind_of_collection_is_created_once_and_found_the_second_time(any_db: Db) -> None:
    desk = Desk(any_db)
    for name, wanted in KINDS.items():
        assert desk.do("create_collection", name, **wanted) == "done", name
    for name, wanted in KINDS.items():
        assert desk.do("create_collection", name, **wanted) == "unchanged", name
    assert options(any_db, "series")["timeseries"]["metaField"] == "m"
    assert options(any_db, "capped")["max"] == 5
    assert desk.book.collections == [*KINDS, *KINDS]


def test_change_stream_images_are_a_definition_of_a_replica_set(replica_db: Db) -> None:
    desk = Desk(replica_db)
    wanted = {"change_stream_pre_and_post_images": True}
    assert desk.do("create_collection", "a", **wanted) == "done"
    assert desk.do("create_collection", "a", **wanted) == "unchanged"
    assert desk.do("create_collection", "a") == "unchanged"
    assert desk.do("modify_collection", "a", change_stream_pre_and_post_images=False) == "done"
    assert desk.do("modify_collection", "a", changeStreamPreAndPostImages=False) == ("unchanged")


@pytest.mark.parametrize("first", list(KINDS))
def test_another_definition_is_a_conflict_that_shows_both(any_db: Db, first: str) -> None:
    desk = Desk(any_db)
    desk.do("create_collection", "a", **KINDS[first])
    other = {"capped": True, "size": 4096}
    with pytest.raises(OperationConflict) as caught:
        desk.do("create_collection", "a", **other)
    wanted, exists = caught.value.notes
    assert wanted == 'wanted: collection {"capped": True, "size": 4096}'
    assert exists.startswith("exists: ")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"timeseries": {"timeField": "t"}}, {}),
        ({"timeseries": {"timeField": "t"}}, {"timeseries": {"timeField": "u"}}),
        (
            {"timeseries": {"timeField": "t"}},
            {"timeseries": {"timeField": "t", "granularity": "hours"}},
        ),
        ({"collation": {"locale": "en"}}, {}),
        ({"collation": {"locale": "en"}}, {"collation": {"locale": "en", "strength": 1}}),
        ({}, {"validator": {"a": 1}}),
        ({"validator": {"a": 2}}, {"validator": {"a": 1}}),
        ({"clustered_index": True}, {}),
    ],
)
def test_options_that_a_plain_creation_would_hide_are_conflicts(
    any_db: Db, first: dict[str, Any], second: dict[str, Any]
) -> None:
    desk = Desk(any_db)
    desk.do("create_collection", "a", **first)
    with pytest.raises(OperationConflict):
        desk.do("create_collection", "a", **second)


def test_a_revision_that_creates_and_then_sets_a_validator_can_be_repeated(any_db: Db) -> None:
    desk = Desk(any_db)
    for _ in range(2):
        desk.do("create_collection", "a")
        desk.do("set_validator", "a", {"required": ["x"]})
        desk.do("create_index", "a", "x")
    assert desk.book.outcomes == ["done", "done", "done", "unchanged", "unchanged", "unchanged"]


def test_what_later_servers_add_to_a_time_series_is_no_difference() -> None:
    stored = {"timeField": "t", "bucketMaxSpanSeconds": 60, "bucketRoundingSeconds": 60}
    wanted = {"timeseries": dict(stored)}
    assert same_collection(wanted, {"options": {"timeseries": stored}})
    other = {"timeseries": {**stored, "bucketMaxSpanSeconds": 90}}
    assert not same_collection(other, {"options": {"timeseries": stored}})


def test_drop_and_rename_are_done_once_and_are_no_error_the_second_time(any_db: Db) -> None:
    desk = Desk(any_db)
    any_db["a"].insert_one({"x": 1})
    assert desk.do("rename_collection", "a", "b") == "done"
    assert desk.do("rename_collection", "a", "b") == "unchanged"
    assert any_db["b"].count_documents({}) == 1
    any_db.create_collection("a")
    with pytest.raises(OperationConflict, match="both exist"):
        desk.do("rename_collection", "a", "b")
    assert desk.do("drop_collection", "b") == "done"
    assert desk.do("drop_collection", "b") == "unchanged"
    with pytest.raises(OperationFailed, match="neither is there"):
        desk.do("rename_collection", "nowhere", "else")


def test_a_view_is_created_once_compared_and_modified(any_db: Db) -> None:
    desk = Desk(any_db)
    pipeline: list[dict[str, Any]] = [{"$match": {"active": True}}]
    assert desk.do("create_view", "v", "users", pipeline) == "done"
    assert desk.do("create_view", "v", "users", pipeline) == "unchanged"
    with pytest.raises(OperationConflict, match="another definition") as caught:
        desk.do("create_view", "v", "users", [])
    assert caught.value.notes[1].startswith("exists: view {")
    assert desk.do("modify_collection", "v", view_on="users", pipeline=[]) == "done"
    assert desk.do("create_view", "v", "users", []) == "unchanged"
    assert desk.do("create_view", "w", "users", [], collation={"locale": "en"}) == "done"
    assert desk.do("create_view", "w", "users", [], collation={"locale": "en"}) == "unchanged"
    assert desk.do("drop_collection", "v") == "done"


def test_modify_collection_changes_what_differs_and_nothing_else(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_collection", "cap", capped=True, size=4096)
    desk.do("create_collection", "ts", **KINDS["series"])
    for name, change in (
        ("cap", {"capped_size": 8000}),
        ("cap", {"cappedMax": 7}),
        ("ts", {"expire_after_seconds": "off"}),
        ("ts", {"expire_after_seconds": 5}),
        ("ts", {"timeseries": {"granularity": "minutes"}}),
    ):
        assert desk.do("modify_collection", name, **change) == "done", change
        assert desk.do("modify_collection", name, **change) == "unchanged", change
    with pytest.raises(OperationFailed, match="does not exist"):
        desk.do("modify_collection", "nowhere", capped_size=1)


def test_in_a_transaction_plain_collections_are_created_and_the_rest_is_refused(
    replica_db: Db,
) -> None:
    replica_db.create_collection("old")
    replica_db.create_collection("v", viewOn="old", pipeline=[])
    replica_db.create_collection("ts", timeseries={"timeField": "t"})
    with in_transaction(replica_db) as desk:
        assert desk.do("create_collection", "old") == "unchanged"
        with pytest.raises(OperationConflict):
            desk.do("create_collection", "old", capped=True, size=1)
        assert desk.do("create_collection", "new", validator={"a": 1}) == "done"
        assert desk.target.created == {"new"}
        assert desk.do("create_view", "v", "old", []) == "unchanged"
        assert desk.do("create_collection", "ts", timeseries={"timeField": "t"}) == "unchanged"
        refused: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("drop_collection", ("missing",), {}),
            ("rename_collection", ("old", "older"), {}),
            ("modify_collection", ("old",), {"capped_size": 9}),
            ("create_view", ("w", "old", []), {}),
            ("create_collection", ("ts2",), {"timeseries": {"timeField": "t"}}),
            ("set_validator", ("old", {"required": ["a"]}), {}),
            ("drop_validator", ("old",), {}),
        ]
        for verb, args, kwargs in refused:
            with pytest.raises(NotInTransaction) as caught:
                desk.do(verb, *args, **kwargs)
            assert "transaction = False" in caught.value.hint
        desk.do("insert", "new", {"_id": 1, "a": 1})
    assert replica_db["new"].count_documents({}) == 1
    assert "ts2" not in replica_db.list_collection_names()


@pytest.mark.parametrize("name", ["", None, 7, "a$b", ".a", "a.", "a..b", "a\0b", "system.users"])
def test_a_name_that_no_collection_can_have_is_refused_by_every_verb(name: Any) -> None:
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("create_collection", (name,)),
        ("drop_collection", (name,)),
        ("rename_collection", ("a", name)),
        ("create_view", ("v", name, [])),
        ("create_index", (name, "a")),
        ("create_indexes", (name, ["a"])),
        ("drop_index", (name, "a")),
        ("insert", (name, [])),
        ("update", (name, {}, {"$set": {"a": 1}})),
        ("delete", (name, {})),
        ("add_field", (name, "a", 1)),
        ("set_validator", (name, {"required": ["a"]})),
    ]
    for verb, args in calls:
        with pytest.raises(OperationFailed):
            recorded(verb, *args)


@pytest.mark.parametrize(
    ("verb", "wanted"),
    [
        ("create_collection", {"cappd": True}),
        ("create_collection", {"capped": True}),
        ("create_collection", {"size": 9}),
        ("create_collection", {"capped": True, "size": 9, "timeseries": {"timeField": "t"}}),
        ("create_collection", {"timeseries": {"metaField": "t"}}),
        ("create_collection", {"expire_after_seconds": 9}),
        ("create_collection", {"collation": "en"}),
        ("create_collection", {"validation_level": "strict", "validationLevel": "off"}),
        ("modify_collection", {}),
        ("modify_collection", {"validator": {}}),
        ("modify_collection", {"capped": True}),
    ],
)
def test_options_that_make_no_sense_are_refused_before_the_server(
    verb: str, wanted: dict[str, Any]
) -> None:
    with pytest.raises(OperationFailed):
        recorded(verb, "a", **wanted)


def test_a_rename_to_the_same_name_is_refused() -> None:
    with pytest.raises(OperationFailed, match="its name already"):
        recorded("rename_collection", "a", "a")


def test_collections_render_describe_and_reverse() -> None:
    operations = [recorded("create_collection", name, **wanted) for name, wanted in KINDS.items()]
    operations += [
        recorded("drop_collection", "a"),
        recorded("rename_collection", "a", "b"),
        recorded("modify_collection", "a", capped_size=9, capped_max=3),
        recorded("create_view", "v", "a", [{"$match": {"x": 1}}], collation={"locale": "en"}),
        recorded("create_view", "v", "a", []),
    ]
    for operation in operations:
        assert rebuilt(operation) == operation
        assert json.loads(json.dumps(operation.to_json()))["operation"] == operation.verb
        assert operation.describe()
        assert operation.repeatable
    text = 'op.create_collection("capped", capped=True, size=1000, max=5)'
    assert operations[4].render() == text
    assert operations[4].describe() == "collection capped capped"
    assert operations[0].reverse() == recorded("drop_collection", "plain")
    assert operations[-4].reverse() == recorded("rename_collection", "b", "a")
    assert operations[-1].reverse() == recorded("drop_collection", "v")
    assert operations[-3].reverse() is None
