from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bson import json_util
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pymongo import IndexModel
from pymongo.collation import Collation
from pymongo.errors import DuplicateKeyError

from mongover.errors import (
    DuplicateValues,
    NotInTransaction,
    OperationConflict,
    OperationFailed,
)
from mongover.operations.duplicates import find_duplicates
from mongover.operations.index import Index, key_pairs
from mongover.operations.index_builds import _create_indexes, same_index
from tests.support.depth import examples
from tests.support.operations_support import Desk, in_transaction, rebuilt, recorded

if TYPE_CHECKING:
    from pymongo.database import Database

    Db = Database[dict[str, Any]]

CUSTOMERS = Path(__file__).resolve().parents[3] / "shared" / "data" / "customers.json"

KINDS: list[tuple[Any, dict[str, Any]]] = [
    ("email", {"unique": True}),
    (("a", "b"), {}),
    ([("a", 1.0), ("b", -1)], {}),
    (("c", -1), {"sparse": True}),
    ({"title": "text", "body": "text"}, {"weights": {"title": 5}, "default_language": "french"}),
    ([("place", "2dsphere")], {}),
    ([("flat", "2d")], {"bits": 20}),
    ([("h", "hashed")], {}),
    ("$**", {"wildcard_projection": {"x": 1}}),
    ("attributes.$**", {}),
    ("n", {"collation": {"locale": "en", "strength": 2}}),
    ("n", {"collation": Collation("fr_CA"), "name": "n_fr"}),
    ("t", {"expire_after_seconds": 60}),
    ("z", {"hidden": True}),
    ("p", {"partial_filter_expression": {"q": {"$gt": 1}}, "unique": True}),
    ("s.e", {"expireAfterSeconds": 0, "name": "odd name"}),
]


def spec(db: Db, name: str, collection: str = "a") -> dict[str, Any]:
    return next(dict(i) for i in db[collection].list_indexes() if i["name"] == name)


def names(db: Db, collection: str = "a") -> set[str]:
    return {i["name"] for i in db[collection].list_indexes()} - {"_id_"}


def test_every_kind_of_index_is_created_once_and_found_the_second_time(any_db: Db) -> None:
    desk = Desk(any_db)
    for keys, options in KINDS:
        assert desk.do("create_index", "a", keys, **options) == "done", (keys, options)
    for keys, options in KINDS:
        assert desk.do("create_index", "a", keys, **options) == "unchanged", (keys, options)
    assert len(names(any_db)) == len(KINDS)
    stored = {i["name"]: i for i in any_db["a"].list_indexes()}
    for keys, options in KINDS:
        index = Index.of(keys, options)
        if "fr_CA" not in str(options):  # the locale adds backwards by itself
            assert same_index(index, stored[index.name]), index


def test_all_kinds_are_built_by_one_command_and_reported_as_one_line(any_db: Db) -> None:
    desk = Desk(any_db)
    indexes = [desk.op.index(keys, **options) for keys, options in KINDS]
    assert desk.do("create_indexes", "a", indexes) == "done"
    assert desk.do("create_indexes", "a", indexes) == "unchanged"
    assert desk.book.started[0].describe() == f"{len(KINDS)} indexes on a"
    assert desk.do("create_indexes", "a", ["one", ("one", "two"), IndexModel("three")]) == "done"
    assert {"one_1", "one_1_two_1", "three_1"} <= names(any_db)


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        (("e", {"unique": True}), ("e", {}), "unique=True"),
        (("e", {}), ("e", {"unique": True}), "unique=True"),
        (("t", {"expire_after_seconds": 60}), ("t", {"expire_after_seconds": 61}), "=61"),
        (("n", {"collation": {"locale": "en"}}), ("n", {"collation": {"locale": "de"}}), '"de"'),
        (({"t": "text"}, {}), ({"t": "text"}, {"weights": {"t": 2}}), 'weights={"t": 2}'),
        (({"t": "text"}, {}), ({"u": "text"}, {}), "{u: text}"),
        (("z", {}), ("z", {"hidden": True}), "hidden=True"),
        ((("a", -1), {"name": "x"}), ("a", {"name": "x"}), "{a: -1}"),
    ],
)
def test_an_index_with_another_definition_is_a_conflict_that_shows_both(
    any_db: Db, first: Any, second: Any, shown: str
) -> None:
    desk = Desk(any_db)
    desk.do("create_index", "a", first[0], **first[1])
    before = list(any_db["a"].list_indexes())
    with pytest.raises(OperationConflict) as caught:
        desk.do("create_index", "a", second[0], **second[1])
    wanted, exists = caught.value.notes
    assert wanted.startswith("wanted: {")
    assert exists.startswith("exists: {")
    assert shown in wanted + exists
    assert list(any_db["a"].list_indexes()) == before


def test_the_same_index_under_another_name_is_a_conflict_that_names_it(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_index", "a", "e", name="mine")
    with pytest.raises(OperationConflict, match="under another name: mine"):
        desk.do("create_index", "a", "e")


def load_customers(db: Db) -> list[dict[str, Any]]:
    lines = CUSTOMERS.read_text(encoding="utf-8").splitlines()
    documents = [json_util.loads(line) for line in lines]
    db["customers"].insert_many(documents)
    return documents


@pytest.mark.skipif(not CUSTOMERS.exists(), reason="these customers are not in the repository")
def test_a_unique_index_over_real_customers_names_the_email_that_stands_twice(any_db: Db) -> None:
    documents = load_customers(any_db)
    emails = [d["email"] for d in documents]
    twice = next(e for e in emails if emails.count(e) > 1)
    ids = sorted(d["_id"] for d in documents if d["email"] == twice)
    with pytest.raises(DuplicateValues) as caught:
        Desk(any_db).do("create_index", "customers", "email", unique=True)
    error = caught.value
    assert error.code == "MGV021"
    assert "a value occurs more than once" in error.message
    assert twice not in error.message
    assert error.notes[0] == "server: 11000 DuplicateKey, key {email: 1}"
    assert error.notes[1].split() == ["email", "times", "_id"]
    assert error.notes[2].split() == [f'"{twice}"', "2", f"{ids[0]},", str(ids[1])]
    assert isinstance(error.__cause__, DuplicateKeyError)
    assert names(any_db, "customers") == set()


def test_many_duplicates_are_counted_and_only_a_few_are_shown(any_db: Db) -> None:
    any_db["a"].insert_many({"_id": i, "e": f"u{i % 10}\n" * 30} for i in range(40))
    with pytest.raises(DuplicateValues, match="10 values occur") as caught:
        Desk(any_db).do("create_indexes", "a", ["x", Index.of("e", {"unique": True})])
    assert caught.value.notes[-1] == "… 5 more"
    assert max(map(len, caught.value.notes)) < 100
    assert names(any_db) == set()


def test_duplicates_by_null_by_case_and_by_array_are_found(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": 1}, {"_id": 2, "e": None}, {"_id": 3, "e": "Ä"}])
    any_db["a"].insert_many(
        [{"_id": 4, "e": ["x", "y"]}, {"_id": 5, "e": "y"}, {"_id": 6, "e": []}]
    )
    any_db["a"].insert_many([{"_id": 7, "e": []}, {"_id": 8, "e": "ä"}])
    collation = {"locale": "de", "strength": 2}
    with pytest.raises(DuplicateValues, match="4 values") as caught:
        Desk(any_db).do("create_index", "a", "e", unique=True, collation=collation)
    rows = {line.split()[0]: line.split()[2:] for line in caught.value.notes[2:]}
    assert rows["null"] == ["1,", "2"]
    assert rows['"y"'] == ["4,", "5"]
    assert rows["[]"] == ["6,", "7"]
    assert ["3,", "8"] in rows.values()


_scalars = st.sampled_from([None, 1, 1.0, 2, "x", "X"])
_leaves = st.one_of(_scalars, st.lists(_scalars, max_size=2))
_inner = st.fixed_dictionaries({}, optional={"b": _leaves, "c": _scalars})
_values = st.one_of(_leaves, _inner, st.lists(st.one_of(_inner, _scalars), max_size=2))
_documents = st.fixed_dictionaries({}, optional={"a": _values, "d": _scalars})
_indexes = st.sampled_from(
    [
        ("a", {}),
        ("a.b", {}),
        (("a.b", "a.c"), {}),
        (("a.b", "d"), {}),
        ("d", {"sparse": True}),
        (("a.c", "d"), {"sparse": True}),
        ("a.b", {"partial_filter_expression": {"d": {"$exists": True}}}),
        ("d", {"collation": {"locale": "en", "strength": 2}}),
    ]
)


@settings(
    max_examples=examples(0.6),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(documents=st.lists(_documents, min_size=2, max_size=4), index=_indexes)
def test_duplicates_are_listed_exactly_where_the_server_meets_them(
    standalone_db: Db, documents: list[dict[str, Any]], index: Any
) -> None:
    collection = standalone_db["a"]
    collection.drop()
    collection.insert_many([{"_id": i, **d} for i, d in enumerate(documents)])
    wanted = Index.of(index[0], {**index[1], "unique": True})
    found = find_duplicates(collection, wanted.paths, options=wanted.options)
    try:
        Desk(standalone_db).do("create_index", "a", index[0], **index[1], unique=True)
    except DuplicateValues:
        assert found.total > 0
    except OperationFailed as error:
        if "171" not in error.message:  # arrays side by side
            raise
    else:
        assert found.total == 0


def test_drop_index_takes_a_name_or_keys_and_a_second_time_is_no_error(any_db: Db) -> None:
    desk = Desk(any_db)
    assert desk.do("drop_index", "nowhere", "e") == "unchanged"
    for index in ("e_1", "e", ["e"], [("e", 1)], desk.op.index("e")):
        desk.do("create_index", "a", "e")
        assert desk.do("drop_index", "a", index) == "done", index
        assert desk.do("drop_index", "a", index) == "unchanged", index
    desk.do("create_index", "a", {"t": "text", "u": "text"})
    assert desk.do("drop_index", "a", {"u": "text", "t": "text"}) == "done"
    assert names(any_db) == set()


def test_keys_that_fit_several_indexes_drop_none_of_them(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_index", "a", "e")
    desk.do("create_index", "a", "e", name="e_en", collation={"locale": "en"})
    with pytest.raises(OperationFailed, match="e_1, e_en"):
        desk.do("drop_index", "a", "e")
    assert names(any_db) == {"e_1", "e_en"}


def test_hide_and_unhide_change_what_the_planner_sees_once(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_index", "a", "e")
    assert desk.do("hide_index", "a", "e") == "done"
    assert spec(any_db, "e_1")["hidden"] is True
    assert desk.do("hide_index", "a", "e_1") == "unchanged"
    assert desk.do("create_index", "a", "e") == "unchanged"
    assert desk.do("unhide_index", "a", "e") == "done"
    assert desk.do("unhide_index", "a", "e") == "unchanged"
    with pytest.raises(OperationFailed, match="has no index nope"):
        desk.do("hide_index", "a", "nope")


def test_replace_index_ends_with_the_new_one_alone_wherever_it_begins(any_db: Db) -> None:
    desk = Desk(any_db)
    steps: list[tuple[Any, dict[str, Any]]] = [
        ("e", {}),
        ("e", {"unique": True}),
        ("e", {"unique": True, "name": "unique_email"}),
        ("e", {"unique": True, "name": "same_keys"}),
        (("e", "f"), {"old": "same_keys"}),
        ("f", {"old": ("e", "f")}),
        ("t", {"old": "f", "expire_after_seconds": 5}),
        ("t", {"expire_after_seconds": 7}),
        ("t", {"expire_after_seconds": 7, "hidden": True}),
        ("t", {}),
        ({"w": "text"}, {"old": "t"}),
        ({"w": "text", "v": "text"}, {"name": "w_text"}),
    ]
    for keys, options in steps:
        assert desk.do("replace_index", "a", keys, **options) == "done", (keys, options)
        wanted = Index.of(keys, {k: v for k, v in options.items() if k != "old"})
        assert names(any_db) == {wanted.name}
        assert same_index(wanted, spec(any_db, wanted.name))
        assert desk.do("replace_index", "a", keys, **options) == "unchanged", (keys, options)


def test_replace_index_keeps_the_old_one_where_the_new_one_cannot_be_built(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_index", "a", "e")
    any_db["a"].insert_many([{"_id": 1, "e": 1}, {"_id": 2, "e": 1}])
    with pytest.raises(DuplicateValues, match="a value occurs") as caught:
        desk.do("replace_index", "a", "e", unique=True)
    assert caught.value.after == "the old index was kept."
    with pytest.raises(DuplicateValues):
        desk.do("replace_index", "a", "e", unique=True, name="other")
    assert names(any_db) == {"e_1"}


def test_replace_index_beside_an_unrelated_conflict_is_an_error(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_index", "a", "e", name="taken")
    with pytest.raises(OperationConflict):
        desk.do("replace_index", "a", "e", old="elsewhere")
    assert names(any_db) == {"taken"}


def test_in_a_transaction_indexes_go_only_on_what_was_created_there(replica_db: Db) -> None:
    replica_db.create_collection("old").create_index("there")
    with in_transaction(replica_db) as desk:
        assert desk.do("create_index", "old", "there") == "unchanged"
        with pytest.raises(NotInTransaction, match="existed before") as caught:
            desk.do("create_index", "old", "e")
        assert "transaction = False" in caught.value.hint
        assert desk.do("create_collection", "new") == "done"
        assert desk.do("create_index", "new", "e", unique=True) == "done"
        assert desk.do("create_indexes", "newer", ["e", ("a", "b")]) == "done"
        assert desk.do("create_index", "newer", "f") == "done"
        desk.do("insert", "new", {"_id": 1})
        with pytest.raises(NotInTransaction, match="before they are inserted"):
            desk.do("create_index", "new", "f")
        desk.do("insert", "implicit", {"_id": 1})
        with pytest.raises(NotInTransaction, match="holds documents"):
            desk.do("create_indexes", "implicit", ["f"])
        for verb, args in (
            ("drop_index", ("old", "there")),
            ("hide_index", ("old", "there")),
            ("unhide_index", ("old", "there")),
            ("replace_index", ("old", "there")),
        ):
            with pytest.raises(NotInTransaction):
                desk.do(verb, *args)
    assert names(replica_db, "new") == {"e_1"}
    assert names(replica_db, "newer") == {"e_1", "a_1_b_1", "f_1"}
    assert replica_db["new"].count_documents({}) == 1


def test_a_build_waits_its_turn_and_never_holds_up_the_writers_for_long(replica_db: Db) -> None:
    replica_db["a"].insert_one({"e": 1})
    desk = Desk(replica_db, max_time_ms=50, attempts=2)
    with replica_db.client.start_session() as session, session.start_transaction():
        replica_db["a"].insert_one({"e": 2}, session=session)
        with pytest.raises(OperationFailed, match="got no lock in 2 attempts of 50 ms"):
            desk.do("create_index", "a", "e")
        with pytest.raises(OperationFailed, match="got no lock"):
            desk.do("drop_collection", "a")
    assert names(replica_db) == set()
    assert desk.do("create_index", "a", "e") == "done"


def test_a_build_goes_on_when_a_transaction_in_its_way_ends(replica_db: Db) -> None:
    replica_db["a"].insert_one({"e": 1})
    desk = Desk(replica_db, max_time_ms=50, attempts=12)
    outcome: list[str] = []
    with replica_db.client.start_session() as session, session.start_transaction():
        replica_db["a"].insert_one({"e": 2}, session=session)
        thread = threading.Thread(target=lambda: outcome.append(desk.do("create_index", "a", "e")))
        thread.start()
        thread.join(0.3)
        assert not outcome
    thread.join(60)
    assert outcome == ["done"]


def test_a_build_that_lasts_longer_than_the_limit_is_not_cut(any_db: Db) -> None:
    any_db["a"].insert_many({"e": i, "s": "x" * 50} for i in range(20_000))
    desk = Desk(any_db, max_time_ms=1)
    index = Index.of(("s", "e"), {})
    reply = _create_indexes(desk.target, "a", (index,), what="index")
    assert reply["numIndexesAfter"] == 2


@pytest.mark.parametrize(
    ("keys", "options", "message"),
    [
        ("", {}, "cannot be a key"),
        ([], {}, "cannot be the keys"),
        (7, {}, "cannot be the keys"),
        ([7], {}, "cannot be the keys"),
        ([("a", True)], {}, "cannot be the keys"),
        ([("a", 0)], {}, "cannot be the keys"),
        ([("a", 1.5)], {}, "cannot be 1.5"),
        ([("a", "tekst")], {}, "cannot be 'tekst'"),
        (("a", "a"), {}, "stands twice"),
        ("a..b", {}, "cannot be a key"),
        ("$a", {}, "cannot be a key"),
        ("$x.a", {}, "cannot be a key"),
        ("a", {"uniqe": True}, "no option 'uniqe'"),
        ("a", {"name": ""}, "cannot name an index"),
        ("a", {"name": "*"}, "cannot name an index"),
        ("a", {"expire_after_seconds": 1, "expireAfterSeconds": 2}, "given twice"),
        ("a", {"expire_after_seconds": -1}, "number of seconds"),
        ("a", {"expire_after_seconds": "1"}, "number of seconds"),
        (("a", "b"), {"expire_after_seconds": 1}, "several fields"),
        ("_id", {"expire_after_seconds": 1}, "by _id"),
        ({"a": "hashed"}, {"expire_after_seconds": 1}, "no plain index"),
        ({"a": "hashed"}, {"unique": True}, "hashed and unique"),
        ({"a": "hashed", "b": "hashed"}, {}, "more than one hashed"),
        ("$**", {"unique": True}, "wildcard and unique"),
        ("$**", {"expire_after_seconds": 1}, "wildcard and expire"),
        ("a", {"wildcard_projection": {"a": 1}}, "wildcard projection"),
        ("a", {"sparse": True, "partial_filter_expression": {"a": 1}}, "sparse and partial"),
        ("a", {"weights": {"a": 1}}, "weights"),
        ("_id", {"hidden": True}, "cannot be hidden"),
        ("a", {"collation": {"strength": 2}}, "needs a locale"),
    ],
)
def test_keys_and_options_that_make_no_sense_are_refused_before_the_server(
    keys: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OperationFailed) as caught:
        recorded("create_index", "a", keys, **options)
    assert message in caught.value.message
    assert caught.value.hint or "twice" in message or "cannot" in message


def test_an_unknown_option_or_kind_suggests_the_nearest() -> None:
    with pytest.raises(OperationFailed) as caught:
        recorded("create_index", "a", "e", uniqe=True)
    assert caught.value.hint == 'did you mean "unique"?'
    with pytest.raises(OperationFailed) as caught:
        recorded("create_index", "a", [("e", "2dspere")])
    assert caught.value.hint == 'did you mean "2dsphere"?'


@pytest.mark.parametrize("indexes", ["email", {"a": 1}, [], ["a", "a"]])
def test_a_list_of_indexes_that_is_none_is_refused(indexes: Any) -> None:
    with pytest.raises(OperationFailed):
        recorded("create_indexes", "a", indexes)


@pytest.mark.parametrize("index", ["", "*", "_id_", "_id"])
def test_the_index_on_id_cannot_be_dropped(index: str) -> None:
    with pytest.raises(OperationFailed):
        recorded("drop_index", "a", [index] if index == "_id" else index)


def test_keys_mean_the_same_in_every_accepted_form() -> None:
    assert key_pairs("a") == key_pairs(["a"]) == key_pairs(("a", 1)) == key_pairs({"a": 1.0})
    assert key_pairs(("a", "b")) == key_pairs([("a", 1), "b"])
    assert Index.of([("a", 1), ("b", -1)], {}).name == "a_1_b_-1"


_paths = st.from_regex(r"[a-zA-Z_äß'\" \\][a-zA-Z0-9_'\" \\]{0,6}(\.[a-z]{1,3})?", fullmatch=True)
_kinds = st.sampled_from([1, -1, "text", "2dsphere", "2d"])
_options = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(min_size=1).filter(lambda name: name != "*"),
        "unique": st.booleans(),
        "hidden": st.booleans(),
        "storage_engine": st.dictionaries(
            st.text(), st.one_of(st.text(), st.integers(), st.floats(allow_nan=False), st.none())
        ),
        "partial_filter_expression": st.dictionaries(
            _paths, st.one_of(st.datetimes(), st.binary(), st.text(), st.none())
        ),
        "2dsphereIndexVersion": st.just(3),
    },
)


@given(keys=st.dictionaries(_paths, _kinds, min_size=1, max_size=3), options=_options)
@example(keys={"a.\n": 1}, options={})
def test_rendered_indexes_build_equal_operations_and_json(
    keys: dict[str, Any], options: dict[str, Any]
) -> None:
    created = recorded("create_index", "a", keys, **options)
    many = recorded("create_indexes", "a", [Index.of(keys, options), "zzzzzzzzzzzz"])
    replaced = recorded("replace_index", "a", keys, old=keys, **options)
    reverse = created.reverse()
    assert reverse is not None
    dropped = recorded("drop_index", "a", keys)
    for operation in (created, many, replaced, reverse, dropped):
        assert rebuilt(operation) == operation
        assert json.loads(json.dumps(operation.to_json()))["operation"] == operation.verb
        assert operation.describe().isprintable()


def test_indexes_render_as_a_person_would_write_them() -> None:
    unique = recorded("create_index", "users", "email", unique=True)
    assert unique.render() == 'op.create_index("users", "email", unique=True)'
    assert unique.describe() == "index users.email unique"
    many = recorded("create_indexes", "calls", ["a", ("a", "b"), Index.of("c", {"sparse": 1})])
    assert many.render() == (
        'op.create_indexes("calls", ["a", ("a", "b"), op.index("c", sparse=1)])'
    )
    assert recorded("create_indexes", "calls", [("a", -1)]).describe() == "index calls.a"
    assert unique.reverse() == recorded("drop_index", "users", "email_1")
    assert many.reverse() is None
    one = recorded("create_indexes", "calls", ["a"])
    assert one.reverse() == recorded("drop_index", "calls", "a_1")
    hide = recorded("hide_index", "users", "email_1")
    assert hide.render() == 'op.hide_index("users", "email_1")'
    assert rebuilt(hide) == hide
    reverse = hide.reverse()
    assert reverse is not None
    assert rebuilt(reverse) == reverse
    assert reverse.reverse() == hide
    assert reverse.describe() == "unhide index users.email_1"
    ttl = recorded("create_index", "a", "t", expire_after_seconds=9, hidden=True)
    assert ttl.describe() == "index a.t hidden TTL"
