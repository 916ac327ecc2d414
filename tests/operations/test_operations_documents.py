from __future__ import annotations

import datetime as dt
import json
import tracemalloc
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from bson import DBRef, Decimal128, Int64, ObjectId, Regex
from hypothesis import given
from hypothesis import strategies as st

from mongover.errors import OperationFailed
from tests.support.operations_support import Desk, in_transaction, rebuilt, recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

    Db = Database[dict[str, Any]]


def rows(db: Db, name: str = "a") -> list[dict[str, Any]]:
    return list(db[name].find().sort("_id"))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("keep", {"_id": 1, "k": "x", "old": 1}),
        ("update", {"_id": 1, "k": "x", "old": 1, "new": 2}),
        ("replace", {"_id": 1, "k": "x", "new": 2}),
    ],
)
def test_insert_by_key_treats_what_is_there_as_told(
    any_db: Db, policy: str, expected: dict[str, Any]
) -> None:
    any_db["a"].insert_one({"_id": 1, "k": "x", "old": 1})
    desk = Desk(any_db)
    seeds = [{"k": "x", "new": 2}, {"k": {"gt": ""}}, {"k": Regex("^x")}, {"k": None}]
    assert desk.do("insert", "a", seeds, key="k", on_existing=policy) == "done"
    assert rows(any_db)[0] == expected
    assert any_db["a"].count_documents({}) == 4
    # The server counts every replacement without an _id as a change.
    again = "done" if policy == "replace" else "unchanged"
    assert desk.do("insert", "a", seeds, key="k", on_existing=policy) == again
    assert any_db["a"].count_documents({}) == 4
    assert desk.book.reasons == []


def test_insert_by_id_and_by_a_path_is_repeatable(any_db: Db) -> None:
    desk = Desk(any_db)
    by_id: list[dict[str, Any]] = [{"_id": 1, "n": 1}, {"_id": 2}]
    for policy in ("keep", "update", "replace"):
        for verb_outcome in ("done", "unchanged"):
            found = desk.do("insert", policy, by_id, on_existing=policy)
            assert found == verb_outcome, policy
    nested = {"_id": 9, "at": {"city": "Rome", "n": 1}, "b": 2}
    assert desk.do("insert", "n", nested, key=("at.city", "b")) == "done"
    assert desk.do("insert", "n", [nested], key=["at.city", "b"]) == "unchanged"
    assert rows(any_db, "n") == [nested]
    assert desk.book.reasons == []


@pytest.mark.parametrize("collation", [None, {"locale": "en", "strength": 2}])
@pytest.mark.parametrize("held", [False, True], ids=["plain", "in a transaction"])
def test_insert_by_id_keeps_what_is_there_and_adds_the_rest(
    replica_db: Db, collation: Any, held: bool
) -> None:
    replica_db.create_collection("a", **({"collation": collation} if collation else {}))
    ids: list[Any] = [1, 2.0, Int64(3), "Ana", "ben", {"x": 1}, None, Decimal128("5")]
    replica_db["a"].insert_many({"_id": key, "old": True} for key in ids[::2])
    seeds = [{"_id": key, "old": False, "b": 1, "a": 2} for key in [*ids, 2, ids[1]]]
    if collation:
        seeds += [{"_id": "ANA", "old": False}, {"_id": "Ben", "old": False}]

    with in_transaction(replica_db) if held else nullcontext(Desk(replica_db)) as desk:
        assert desk.do("insert", "a", seeds) == "done"
        assert desk.do("insert", "a", seeds) == "unchanged"
    assert replica_db["a"].count_documents({"old": True}) == 4
    assert replica_db["a"].count_documents({"old": False, "a": 2, "b": 1}) == 4
    assert replica_db["a"].count_documents({}) == 8


def test_insert_fails_where_another_document_has_a_unique_value(any_db: Db) -> None:
    any_db["a"].create_index("k", unique=True)
    any_db["a"].insert_one({"_id": 1, "k": "x"})
    seeds = [{"_id": 1, "k": "x"}, {"_id": 2, "k": "x"}, {"_id": 3, "k": "y"}]
    with pytest.raises(OperationFailed) as caught:
        Desk(any_db).do("insert", "a", seeds)
    assert "11000" in str(caught.value.message)
    assert any_db["a"].find_one({"_id": 2}) is None


def test_insert_without_key_or_id_says_that_it_cannot_be_repeated(any_db: Db) -> None:
    desk = Desk(any_db)
    seeds = [{"n": 1}, {"n": 2}]
    desk.do("insert", "a", seeds)
    assert seeds == [{"n": 1}, {"n": 2}]
    assert set(desk.book.reasons) == {"insert 2 documents into a"}
    desk.book.reasons.clear()
    desk.do("insert", "a", ({"n": n} for n in range(3)))
    assert desk.book.reasons == ["insert documents into a"]
    assert any_db["a"].count_documents({}) == 5


def test_insert_reads_a_generator_in_batches_and_holds_one_at_a_time(standalone_db: Db) -> None:
    def seeds() -> Iterator[dict[str, Any]]:
        for number in range(8_000):
            yield {"_id": number, "text": f"{number:06}" * 1_000}

    desk = Desk(standalone_db)
    tracemalloc.start()
    try:
        assert desk.do("insert", "a", seeds()) == "done"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 25_000_000  # all of them are 48 MB
    assert desk.book.steps == [(n, None) for n in range(1_000, 9_000, 1_000)]
    assert desk.book.reasons == []
    assert standalone_db["a"].count_documents({}) == 8_000


def test_insert_stops_between_batches_when_the_run_must_stop(standalone_db: Db) -> None:
    desk = Desk(standalone_db)
    desk.book.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        desk.do("insert", "a", [{"_id": n} for n in range(2_500)])
    assert standalone_db["a"].count_documents({}) == 1_000


@pytest.mark.parametrize(
    ("documents", "options", "message"),
    [
        ([{"n": 1}, {"k": 1}], {"key": "n"}, "document 2 for a has no n"),
        ([{"n": 1}], {"key": ["n", "n.x"]}, "has no n.x"),
        ([{"_id": 1, "a.b": 1}], {}, "'a.b'"),
        ([{"_id": 1, "$a": 1}], {"on_existing": "update"}, "'$a'"),
        (["text"], {}, "not a str"),
    ],
)
def test_a_document_that_cannot_be_inserted_is_named_by_its_place(
    any_db: Db, documents: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OperationFailed) as caught:
        Desk(any_db).do("insert", "a", documents, **options)
    assert message in caught.value.message
    assert any_db["a"].count_documents({}) == 0


def test_update_changes_on_the_server_and_says_whether_anything_changed(any_db: Db) -> None:
    any_db["a"].insert_many({"_id": n, "n": n, "l": [1, 2]} for n in range(4))
    desk = Desk(any_db)
    assert desk.do("update", "a", {"n": {"$gt": 1}}, {"$set": {"big": True}}) == "done"
    assert desk.do("update", "a", {"n": {"$gt": 1}}, {"$set": {"big": True}}) == "unchanged"
    assert desk.do("update", "a", {}, [{"$set": {"m": {"$add": ["$n", 1]}}}]) == "done"
    filters = [{"e": 2}]
    change = {"$set": {"l.$[e]": 7}}
    assert desk.do("update", "a", {"_id": 1}, change, array_filters=filters) == "done"
    assert rows(any_db)[1] == {"_id": 1, "n": 1, "l": [1, 7], "m": 2}
    any_db["a"].insert_one({"_id": 9, "word": "Ä"})
    german = {"locale": "de", "strength": 1}
    assert desk.do("update", "a", {"word": "a"}, {"$set": {"x": 1}}, collation=german) == "done"
    assert desk.do("delete", "a", {"word": "a"}, collation=german) == "done"
    assert desk.do("delete", "a", {"word": "a"}) == "unchanged"
    assert desk.do("delete", "a", {}) == "done"
    assert rows(any_db) == []


@pytest.mark.parametrize(
    ("update", "repeatable"),
    [
        ({"$set": {"a": 1}}, True),
        ({"$set": {"a": 1}, "$unset": {"b": ""}, "$addToSet": {"c": 1}}, True),
        ({"$inc": {"a": 1}}, False),
        ({"$set": {"a": 1}, "$push": {"b": 1}}, False),
        ({"$mul": {"a": 2}}, False),
        ({"$pop": {"a": 1}}, False),
        ({"$bit": {"a": {"xor": 1}}}, False),
        ([{"$set": {"a": 1}}], False),
    ],
)
def test_only_an_update_that_may_be_done_twice_counts_as_repeatable(
    any_db: Db, update: Any, *, repeatable: bool
) -> None:
    assert recorded("update", "a", {}, update).repeatable is repeatable
    desk = Desk(any_db)
    desk.do("update", "a", {}, update)
    exactly_once = desk.target.transactions  # checkpoint and change stand in one transaction
    assert bool(desk.book.reasons) is not (repeatable or exactly_once)


def test_fields_come_and_go_and_keep_what_is_there(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": 1}, {"_id": 2, "f": None}, {"_id": 3, "f": 3, "x": 1}])
    desk = Desk(any_db)
    assert desk.do("add_field", "a", "f", {"y": 1}, filter={"_id": {"$lt": 9}}) == "done"
    assert desk.do("add_field", "a", "f", {"y": 1}) == "unchanged"
    assert [row["f"] for row in rows(any_db)] == [{"y": 1}, None, 3]
    assert desk.do("add_field", "a", "deep.er", 0) == "done"
    assert desk.do("remove_field", "a", "f", filter={"_id": 3}) == "done"
    assert desk.do("remove_field", "a", "f") == "done"
    assert desk.do("remove_field", "a", "f") == "unchanged"
    assert rows(any_db)[2] == {"_id": 3, "x": 1, "deep": {"er": 0}}


@pytest.mark.parametrize(
    ("policy", "second"), [("skip", {"_id": 2, "f": 2, "g": 9}), ("overwrite", {"_id": 2, "g": 2})]
)
def test_rename_field_never_overwrites_unless_told(
    any_db: Db, policy: str, second: dict[str, Any]
) -> None:
    before: list[dict[str, Any]] = [{"_id": 1, "f": 1}, {"_id": 2, "f": 2, "g": 9}, {"_id": 3}]
    any_db["a"].insert_many(before)
    desk = Desk(any_db)
    with pytest.raises(OperationFailed, match="1 document has both f and g") as caught:
        desk.do("rename_field", "a", "f", "g")
    assert caught.value.notes == ("for example _id 2",)
    assert rows(any_db) == before
    assert desk.do("rename_field", "a", "f", "g", on_existing=policy) == "done"
    assert rows(any_db) == [{"_id": 1, "g": 1}, second, {"_id": 3}]
    assert desk.do("rename_field", "a", "f", "g", on_existing=policy) == "unchanged"


def test_rename_field_can_be_repeated_after_it_stopped_half_way(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": 1, "g": 1}, {"_id": 2, "f": 2}])
    desk = Desk(any_db)
    assert desk.do("rename_field", "a", "f", "g") == "done"
    assert rows(any_db) == [{"_id": 1, "g": 1}, {"_id": 2, "g": 2}]
    assert desk.book.reasons == []


def test_documents_changed_in_a_transaction_roll_back_together(replica_db: Db) -> None:
    replica_db["a"].insert_one({"_id": 0, "f": 1})

    class Stop(Exception):
        pass

    def change() -> None:
        with in_transaction(replica_db) as desk:
            desk.do("insert", "a", [{"n": 1}, {"n": 2}])
            desk.do("update", "a", {}, {"$inc": {"n": 1}})
            desk.do("rename_field", "a", "f", "g")
            desk.do("add_field", "a", "h", 1)
            desk.do("delete", "a", {"n": 2})
            assert desk.book.reasons == []
            assert replica_db["a"].count_documents({}) == 2
            raise Stop

    with pytest.raises(Stop):
        change()
    assert rows(replica_db) == [{"_id": 0, "f": 1}]


@pytest.mark.parametrize(
    ("verb", "args", "options"),
    [
        ("insert", ("a", 7), {}),
        ("insert", ("a", "text"), {}),
        ("insert", ("a", []), {"key": ""}),
        ("insert", ("a", []), {"on_existing": "keeep"}),
        ("update", ("a", None, {"$set": {"a": 1}}), {}),
        ("update", ("a", {}, {}), {}),
        ("update", ("a", {}, []), {}),
        ("update", ("a", {}, {"a": 1}), {}),
        ("update", ("a", {}, {"$ste": {"a": 1}}), {}),
        ("update", ("a", {}, {"$set": {}}), {}),
        ("delete", ("a", []), {}),
        ("add_field", ("a", "$f", 1), {}),
        ("add_field", ("a", "", 1), {}),
        ("add_field", ("a", "x..y", 1), {}),
        ("remove_field", ("a", "_id"), {}),
        ("rename_field", ("a", "f", "f"), {}),
        ("rename_field", ("a", "f", "f.g"), {}),
        ("rename_field", ("a", "f.g", "f"), {}),
        ("rename_field", ("a", "f", "_id"), {}),
        ("rename_field", ("a", "f", "g"), {"on_existing": "clobber"}),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_the_server(
    verb: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(OperationFailed):
        recorded(verb, *args, **options)


_names = st.text().filter(lambda name: not name.startswith("$"))
_bson = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.datetimes(),
        st.binary(min_size=12, max_size=12).map(ObjectId),
        st.integers(0, 9).map(Int64),
        st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-9, max_value=9).map(
            Decimal128
        ),
        st.just(Regex("^a", "i")),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(_names, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=_bson, other=st.dictionaries(st.text(), _bson, max_size=3))
def test_rendered_document_verbs_build_equal_operations_and_json(
    value: Any, other: dict[str, Any]
) -> None:
    operations = [
        recorded("insert", "a", [other, {"_id": value}], key="_id", on_existing="replace"),
        recorded("insert", "a", (other,), key=("x", "y")),
        recorded("update", "a", other, {"$set": {"f": value}}, collation={"locale": "en"}),
        recorded("update", "a", other, [{"$set": {"f": value}}], array_filters=[other]),
        recorded("delete", "a", other),
        recorded("add_field", "a", "f", value, filter=other),
        recorded("remove_field", "a", "f", filter=other),
        recorded("rename_field", "a", "f", "g", on_existing="skip"),
    ]
    for operation in operations:
        assert rebuilt(operation) == operation
        assert json.loads(json.dumps(operation.to_json()))["operation"] == operation.verb
        assert operation.describe()


def test_document_verbs_describe_themselves_without_values() -> None:
    pairs = [
        (recorded("insert", "a", [{"_id": 1}]), "insert 1 document into a"),
        (recorded("insert", "a", iter([])), "insert documents into a"),
        (recorded("update", "users", {"x": 1}, {"$set": {"phone": 1}}), "update users.phone"),
        (recorded("update", "a", {}, {"$set": {"x": 1, "y": 1}}), "update 2 fields of a"),
        (recorded("update", "a", {}, [{"$set": {"x": 1}}]), "update a by a pipeline"),
        (recorded("delete", "a", {"x": "secret"}), "delete a by x"),
        (recorded("delete", "a", {}), "delete all a"),
        (recorded("add_field", "a", "f", "secret"), "add field a.f"),
        (recorded("remove_field", "a", "f"), "remove field a.f"),
        (recorded("rename_field", "a", "f", "g"), "rename field a.f to g"),
    ]
    for operation, text in pairs:
        assert operation.describe() == text
    rename = pairs[-1][0]
    assert rename.reverse() == recorded("rename_field", "a", "g", "f")
    over = recorded("rename_field", "a", "f", "g", on_existing="overwrite")
    assert over.reverse() is None
    generated = pairs[1][0]
    assert generated.render() == 'op.insert("a", documents)'
    assert generated.to_json()["documents"] is None
    assert all(operation.repeatable for operation, _ in [*pairs[:4], *pairs[5:]])


def test_bson_values_become_extended_json() -> None:
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    values = [DBRef("a", ObjectId("0" * 24)), at, object(), float("inf"), (1,), {2: 3}]
    shown = recorded("add_field", "a", "f", values).to_json()["value"]
    assert shown[0] == {"$ref": "a", "$id": {"$oid": "0" * 24}}
    assert shown[1] == {"$date": "2026-01-01T00:00:00Z"}
    assert shown[2:] == ["<object>", {"$numberDouble": "Infinity"}, [1], {"2": 3}]
    assert "inf" in recorded("add_field", "a", "f", float("inf")).render()
