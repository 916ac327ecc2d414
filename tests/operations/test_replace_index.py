"""One index in the place of another: no other is touched, and one of the two always stands."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.errors import DuplicateKeyError

from mongover.errors import DuplicateValues, MongoverError, OperationConflict, OperationFailed
from mongover.operations.index import Index
from mongover.operations.index_builds import same_index
from tests.support.depth import examples
from tests.support.operations_support import Desk
from tests.support.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

    Db = Database[dict[str, Any]]

PARTIAL = {"role": {"$eq": "owner"}}


def stored(db: Db, collection: str = "a") -> dict[str, dict[str, Any]]:
    return {i["name"]: dict(i) for i in db[collection].list_indexes() if i["name"] != "_id_"}


def file_of(db: Db, index: str) -> str:
    """The file that holds an index; another one after it was built again."""
    return str(db.command("collStats", "a")["indexDetails"][index]["uri"])


def shown(db: Db) -> set[str]:
    return set(stored(db))


def test_an_index_on_the_same_keys_with_another_collation_stays(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_index", "users", "email", unique=True)
    desk.do("create_index", "users", "email", name="ci", collation={"locale": "en", "strength": 2})
    before = stored(any_db, "users")
    assert desk.do("replace_index", "users", "email", unique=True) == "unchanged"
    assert stored(any_db, "users") == before
    assert desk.do("replace_index", "users", "email", sparse=True) == "done"
    after = stored(any_db, "users")
    assert after["ci"] == before["ci"]
    assert after["email_1"].get("sparse") is True


def test_of_two_partial_indexes_on_one_key_only_the_one_that_is_meant_is_replaced(
    any_db: Db,
) -> None:
    desk = Desk(any_db)
    for role in ("owner", "guest"):
        some = {"role": role}
        desk.do(
            "create_index", "a", "g", name=f"one_{role}", unique=True, partialFilterExpression=some
        )
    before = stored(any_db)
    options: dict[str, Any] = {"name": "one_owner", "partialFilterExpression": {"role": "owner"}}
    assert desk.do("replace_index", "a", "g", **options) == "done"
    assert stored(any_db)["one_guest"] == before["one_guest"]
    assert "unique" not in stored(any_db)["one_owner"]
    options["name"] = "owner"  # no such name, but one of this identity
    assert desk.do("replace_index", "a", "g", **options) == "done"
    assert shown(any_db) == {"owner", "one_guest"}


def test_several_of_one_identity_are_listed_and_none_is_replaced(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_index", "a", "e")
    desk.do("create_index", "a", "e", name="e_u", unique=True)
    before = stored(any_db)
    with pytest.raises(OperationFailed, match=r"several .* e_1, e_u") as caught:
        desk.do("replace_index", "a", "e", name="new", hidden=True)
    assert "old=" in caught.value.hint
    assert caught.value.notes[1].startswith("e_u: {e: 1}")
    with pytest.raises(OperationFailed, match="several indexes have these keys: e_1, e_u"):
        desk.do("replace_index", "a", "f", old=["e"])
    assert stored(any_db) == before
    for verb in ("hide_index", "unhide_index", "drop_index"):
        with pytest.raises(OperationFailed, match="e_1, e_u"):
            desk.do(verb, "a", ["e"])
    assert stored(any_db) == before


def test_what_is_built_beside_others_or_without_an_old_one_is_said(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_index", "a", "e")
    desk.do("replace_index", "a", "e", name="ci", collation={"locale": "en"})
    assert desk.book.messages == [
        "replace index a.e: it was built beside e_1; old='e_1' would have replaced it"
    ]
    desk.do("replace_index", "a", "f", old="typo")
    assert "no index to replace" in desk.book.messages[-1]
    assert shown(any_db) == {"e_1", "ci", "f_1"}


@pytest.mark.parametrize(
    ("document", "keys", "options"),
    [
        ({"e": [1], "f": [1]}, ("e", "f"), {"name": "e_1"}),  # 171, parallel arrays
        ({"e": [1]}, {"e": "hashed"}, {"name": "e_1"}),  # 16766
        ({"e": "nowhere"}, {"e": "2dsphere"}, {"name": "e_1"}),  # 16755
        ({"e": 1}, "e", {"partial_filter_expression": {"x": {"$ne": 1}}}),  # 67
        ({"e": 1}, "e", {"collation": {"locale": "zz"}}),  # 2
        ({"e": 1}, {"e": "text"}, {"name": "e_1", "default_language": "klingon"}),  # 67
        ({"e": 1}, "f", {"old": "e_1", "storage_engine": {"x": 1}}),  # 2
    ],
)
def test_a_definition_that_the_server_refuses_leaves_the_old_index(
    any_db: Db, document: dict[str, Any], keys: Any, options: dict[str, Any]
) -> None:
    desk = Desk(any_db)
    any_db["a"].insert_one({"_id": 1, **document})
    desk.do("create_index", "a", "e", unique=True)
    before = stored(any_db)
    with pytest.raises(MongoverError) as caught:
        desk.do("replace_index", "a", keys, **options)
    assert caught.value.after == "the old index was kept."
    assert stored(any_db) == before


def test_a_text_index_that_the_documents_refuse_brings_the_old_one_back(any_db: Db) -> None:
    desk = Desk(any_db)
    any_db["a"].insert_one({"_id": 1, "w": "wort", "lang": "klingon"})
    desk.do("create_index", "a", {"w": "text"}, weights={"w": 3})
    before = stored(any_db)
    with pytest.raises(OperationFailed) as caught:
        desk.do("replace_index", "a", {"w": "text"}, language_override="lang")
    assert caught.value.after == "the old index w_text was dropped and built again."
    assert stored(any_db) == before


@contextmanager
def builds_that_fail(db: Db, *, first: int) -> Iterator[None]:
    """The server refuses some `createIndexes`, after so many that it takes."""
    data = {"failCommands": ["createIndexes"], "errorCode": 171}
    point = {"configureFailPoint": "failCommand", "data": data}
    db.client.admin.command({**point, "mode": {"skip": first}})
    try:
        yield
    finally:
        db.client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def test_a_refusal_after_which_no_index_is_left_says_so(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_index", "a", {"w": "text"})
    with builds_that_fail(any_db, first=1), pytest.raises(OperationFailed) as caught:
        desk.do("replace_index", "a", {"w": "text"}, weights={"w": 2})
    assert caught.value.after == ("the old index w_text could not be built again: neither is left.")
    assert shown(any_db) == set()


def test_a_stand_in_stays_where_neither_index_can_be_built_and_the_next_run_ends_it(
    any_db: Db,
) -> None:
    desk = Desk(any_db)
    desk.do("create_index", "a", "e", unique=True)
    work = {"unique": True, "sparse": True}
    with builds_that_fail(any_db, first=1), pytest.raises(OperationFailed) as caught:
        desk.do("replace_index", "a", "e", **work)
    assert '"mongover stand-in for e_1" stands in for it' in caught.value.after
    (guard,) = stored(any_db).values()
    assert guard["unique"] is True
    assert desk.do("replace_index", "a", "e", **work) == "done"
    assert shown(any_db) == {"e_1"}


def test_another_text_index_is_replaced_when_it_is_named_and_the_hint_says_so(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_index", "a", {"w": "text"})
    for verb in ("create_index", "replace_index"):
        for options in ({}, {"sparse": True}):
            with pytest.raises(OperationConflict) as caught:
                desk.do(verb, "a", {"v": "text"}, **options)
            assert 'op.replace_index with old="w_text"' in caught.value.hint
    assert desk.do("replace_index", "a", {"v": "text"}, old="w_text") == "done"
    assert shown(any_db) == {"v_text"}


def test_what_the_server_can_change_in_place_is_not_built_again(any_db: Db) -> None:
    desk = Desk(any_db)
    any_db["a"].insert_many([{"_id": 1, "t": 1}, {"_id": 2, "t": 2}])
    desk.do("create_index", "a", "t")
    before = file_of(any_db, "t_1")
    for options in (
        {"unique": True},
        {"unique": True, "expire_after_seconds": 10**9},
        {"unique": True, "expire_after_seconds": 10**8, "hidden": True},
        {"unique": True, "expire_after_seconds": 10**7},
    ):
        assert desk.do("replace_index", "a", "t", **options) == "done", options
        assert file_of(any_db, "t_1") == before
        assert same_index(Index.of("t", options), stored(any_db)["t_1"])
    with pytest.raises(DuplicateKeyError):
        any_db["a"].insert_one({"t": 1})


def test_an_index_that_waits_to_become_unique_is_finished_or_freed(any_db: Db) -> None:
    desk = Desk(any_db)
    for options in ({"unique": True}, {}):
        any_db["a"].drop()
        desk.do("create_index", "a", "e")
        waiting = {"name": "e_1", "prepareUnique": True}
        any_db.command({"collMod": "a", "index": waiting})
        assert desk.do("replace_index", "a", "e", **options) == "done"
        assert same_index(Index.of("e", options), stored(any_db)["e_1"])


def test_duplicates_are_named_and_the_old_index_goes_on_to_take_them(any_db: Db) -> None:
    desk = Desk(any_db)
    any_db["a"].insert_many([{"_id": 1, "e": 1}, {"_id": 2, "e": 1}])
    desk.do("create_index", "a", "e")
    before = stored(any_db)
    for options in ({}, {"sparse": True}, {"name": "other"}):
        with pytest.raises(DuplicateValues) as caught:
            desk.do("replace_index", "a", "e", unique=True, **options)
        assert caught.value.after == "the old index was kept."
        assert "stand-in" not in caught.value.message
        assert stored(any_db) == before
    any_db["a"].insert_one({"e": 1})


def test_a_collation_that_the_collection_gives_is_no_difference(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_collection", "a", collation={"locale": "fr_CA", "strength": 2})
    desk.do("create_index", "a", "e")
    assert desk.do("replace_index", "a", "e") == "unchanged"
    assert desk.do("replace_index", "a", "e", unique=True) == "done"
    assert desk.do("replace_index", "a", "e", unique=True) == "unchanged"
    simple = {"unique": True, "collation": {"locale": "simple"}}
    assert desk.do("replace_index", "a", "e", **simple) == "done"
    assert desk.do("replace_index", "a", "e", **simple) == "unchanged"
    assert "collation" not in stored(any_db)["e_1"]


def test_indexes_of_a_time_series_are_replaced_as_others_are(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_collection", "ts", timeseries={"timeField": "at", "metaField": "m"})
    desk.do("create_index", "ts", "m.a")
    desk.do("create_index", "ts", "m.b")
    assert desk.do("replace_index", "ts", ("m.a", "at"), name="m.a_1") == "done"
    assert desk.do("replace_index", "ts", ("m.a", "at"), name="m.a_1") == "unchanged"
    assert set(stored(any_db, "ts")) == {"m.a_1", "m.b_1"}


# Each is one way through: what stands, what is asked for.
WAYS: list[tuple[Any, dict[str, Any], Any, dict[str, Any]]] = [
    ("e", {}, "e", {"unique": True}),
    ("e", {}, "e", {"unique": True, "expire_after_seconds": 10**9, "hidden": True}),
    ("e", {"unique": True}, "e", {}),
    ("e", {"unique": True}, "e", {"unique": True, "name": "renamed"}),
    ("e", {"expire_after_seconds": 10**9}, "e", {}),
    ("e", {"unique": True}, ("e", "f"), {"unique": True, "name": "e_1"}),
    ("e", {"unique": True}, ("e", "f"), {"unique": True, "old": "e_1"}),
    ("e", {"unique": True}, "e", {"unique": True, "old": "e_1", "name": "new", "sparse": True}),
    ("f", {"unique": True}, "f", {"unique": True, "old": ["f"], "name": "new", "sparse": True}),
    ({"e": "hashed"}, {}, {"e": "2dsphere"}, {"name": "e_hashed"}),
    ({"w": "text"}, {}, {"w": "text"}, {"weights": {"w": 2}}),
    ("$**", {}, "$**", {"wildcard_projection": {"e": 0}}),
]


def test_an_attempt_that_ends_between_any_two_steps_is_finished_by_the_next(any_db: Db) -> None:
    for number, (keys, options, new_keys, new_options) in enumerate(WAYS):
        wanted = Index.of(new_keys, {k: v for k, v in new_options.items() if k != "old"})
        stops = 0
        for stop_at in range(2, 20):
            name = f"a{number}_{stop_at}"
            desk = Desk(any_db)
            desk.do("create_index", name, keys, **options)
            desk.do("create_index", name, "e", name="sibling", collation={"locale": "en"})
            sibling = stored(any_db, name)["sibling"]
            killed = Desk(any_db)
            killed.book.stop_at = stop_at
            try:
                killed.do("replace_index", name, new_keys, **new_options)
            except KeyboardInterrupt:
                stops += 1
                if "w" not in str(keys):
                    assert len(stored(any_db, name)) > 1, "a moment without an index"
                if options.get("unique") and wanted.options.get("unique"):
                    guards = [i for i in stored(any_db, name).values() if i.get("unique")]
                    assert guards, "a moment without a guard"
            desk.do("replace_index", name, new_keys, **new_options)
            now = stored(any_db, name)
            assert now.pop("sibling") == sibling
            assert set(now) == {wanted.name}, (keys, new_keys, stop_at)
            assert same_index(wanted, now[wanted.name])
            assert desk.do("replace_index", name, new_keys, **new_options) == "unchanged"
            any_db[name].drop()
            if killed.book.checks < stop_at:
                break
        assert stops >= 1, (keys, new_keys)


def test_the_old_index_stands_while_a_killed_attempt_still_builds_the_new_one(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": 1, "e": 1}, {"_id": 2, "e": 1}])
    any_db["a"].create_index("e")
    admin, fail = any_db.client.admin, "hangAfterStartingIndexBuild"
    admin.command({"configureFailPoint": fail, "mode": "alwaysOn"})
    command = {"createIndexes": "a", "indexes": [{"key": {"e": 1}, "name": "new", "sparse": True}]}
    again = Desk(any_db)
    try:
        killed = threading.Thread(target=lambda: any_db.command(command))
        killed.start()
        wait_until(lambda: "new" in stored(any_db), "the beginning of the build")
        work = {"old": "e_1", "name": "new", "sparse": True}
        thread = threading.Thread(target=lambda: again.do("replace_index", "a", "e", **work))
        thread.start()
        thread.join(0.5)
        assert "e_1" in stored(any_db)
    finally:
        admin.command({"configureFailPoint": fail, "mode": "off"})
    thread.join(60)
    killed.join(60)
    assert again.book.outcomes == ["done"]
    assert shown(any_db) == {"new"}


def test_a_stand_in_of_an_edited_revision_is_no_obstacle(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_index", "a", "e")
    any_db["a"].create_index([("zzz", 2)], name="mongover stand-in for e_1")
    assert desk.do("replace_index", "a", "e", sparse=True) == "done"
    assert shown(any_db) == {"e_1"}
    any_db["a"].create_index([("zzz", 2)], name="mongover stand-in for e_1")
    assert desk.do("replace_index", "a", "e", sparse=True) == "done"
    assert shown(any_db) == {"e_1"}


_kinds = st.sampled_from([1, 1, -1, "hashed", "2dsphere", "text"])
_keys = st.lists(st.tuples(st.sampled_from(["e", "f"]), _kinds), min_size=1, max_size=2)
_filters = st.sampled_from([{"r": 1}, {"r": {"$gt": 1}}, {"r": {"$ne": 1}}])
_collations = st.sampled_from([{"locale": "en"}, {"locale": "en", "strength": 2}])
_option = st.fixed_dictionaries(
    {"name": st.sampled_from(["one", "two", "three"])},
    optional={
        **dict.fromkeys(("unique", "sparse", "hidden"), st.sampled_from([True])),
        "expire_after_seconds": st.sampled_from([10**9, 2 * 10**9]),
        "partial_filter_expression": _filters,
        "collation": _collations,
    },
)
_values = st.sampled_from([None, 1, 2, "x", "X", [1], [1, 2], [3, 4]])
_rows = st.fixed_dictionaries(
    {}, optional={"e": _values, "f": _values, "r": st.sampled_from([1, 2])}
)
_old = st.sampled_from([None, None, "one", "two", ["e"]])


def _index(keys: Any, options: dict[str, Any]) -> Index | None:
    try:
        return Index.of(keys, options)
    except OperationFailed:
        return None


_indexes = st.builds(_index, _keys, _option).filter(bool)


@settings(
    max_examples=examples(1.5),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(_rows, max_size=4),
    before=st.lists(_indexes, min_size=1, max_size=3),
    wanted=_indexes,
    old=_old,
)
def test_the_new_index_stands_or_the_old_one_does_and_no_other_is_touched(
    standalone_db: Db, rows: list[dict[str, Any]], before: list[Index], wanted: Index, old: Any
) -> None:
    db = standalone_db
    db["a"].drop()
    db.create_collection("a")
    if rows:
        db["a"].insert_many(rows)
    desk = Desk(db)
    for index in before:
        try:
            desk.op.create_index("a", list(index.keys), **index.options)
        except MongoverError:
            continue
    had = stored(db)
    options = {**wanted.options, **({} if old is None else {"old": old})}
    try:
        outcome = desk.do("replace_index", "a", list(wanted.keys), **options)
    except MongoverError:
        outcome = "refused"
    has = stored(db)
    if outcome == "refused":
        assert has == had
        return
    gone = set(had) - set(has)
    assert same_index(wanted, has[wanted.name])
    assert {name: spec for name, spec in has.items() if name != wanted.name} == {
        name: spec for name, spec in had.items() if name not in {wanted.name, *gone}
    }
    assert len(gone) <= 1
    if gone and old is not None:
        assert old == ["e"] or gone == {old}
    if outcome == "unchanged":
        assert has == had
    assert desk.do("replace_index", "a", list(wanted.keys), **options) == "unchanged"
