"""The statements of a transform that change a document only where it is as it was read."""

from __future__ import annotations

import datetime as dt
import random
from typing import TYPE_CHECKING, Any

import bson
import pytest
from bson import Decimal128, Int64, ObjectId
from bson.binary import Binary

from mongover.errors import OperationFailed
from mongover.operations.bulk.checkpoints import Span
from mongover.operations.bulk.ranges import exact
from mongover.operations.bulk.reader import GROUP, Reader
from mongover.operations.bulk.statements import (
    Item,
    New,
    NewDocument,
    NewField,
    NewFields,
    alone,
    bare,
    made,
    parts,
    together,
)
from tests.support.depth import first_of
from tests.support.operations_support import Desk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

    Db = Database[dict[str, Any]]
    Doc = dict[str, Any]

OPTIONS = exact(None)  # type: ignore[arg-type] # its argument is not looked at


def keys() -> Iterator[Any]:
    """Values of every type that an `_id` may have, some of them awkward."""
    yield from (None, True, False, 1, 2.5, Int64(3), Decimal128("4.5"), float("-inf"))
    yield from ("", "$name", "$$ROOT", "a.b", "ü", Binary(b"\x00"), b"\x01\x02")
    yield from ({"a": 1}, {"a": "$b"}, {"nested": {"x": [1, "$y"]}})
    yield from (dt.datetime(2020, 1, 1), dt.datetime(1960, 1, 1))  # noqa: DTZ001 - as stored
    yield from (ObjectId() for _ in range(5))
    yield from (f"k{number}" for number in range(20))
    yield from range(10, 40)


def stored(db: Db) -> list[bytes]:
    """The documents as they are, in the server's order of `_id`."""
    return [found.raw for found in Reader(db["a"], None, (), OPTIONS).on_and_on(Span("", [], []))]


def decoded(raw: bytes) -> Doc:
    return bson.decode(raw, OPTIONS)


def by_key(db: Db) -> dict[bytes, Doc]:
    found = map(decoded, stored(db))
    return {bson.encode({"": document["_id"]}): document for document in found}


def item_for(raw: bytes, kind: int) -> Item:
    """One of the ways in which a document can change."""
    key = decoded(raw)["_id"]
    if kind == 0:
        return Item(key, raw, NewField(encoded("$new"), "value"))
    if kind == 1:
        return Item(key, raw, NewFields(encoded({"value": {"$x": 1}, "more": [1, "$more"]})))
    if kind == 2:
        return Item(key, raw, NewFields(encoded({"value": 2}), ("other", "third")))
    if kind == 3:
        return Item(key, raw, NewField(encoded(None), "other"))
    return Item(key, raw, NewDocument(encoded({"_id": key, "a.b": 1, "$c": 2})))


def encoded(value: Any) -> bytes:
    return bson.encode({"": value})


def after(item: Item, before: Doc) -> Doc:
    assert isinstance(item.fate, New)
    return made(item.fate, before, OPTIONS)


@pytest.mark.parametrize("fields", [(), ("value", "other", "third", "absent")])
@pytest.mark.parametrize("seed", first_of(range(5)))
def test_one_statement_for_many_documents_does_to_each_what_its_own_would(
    standalone_db: Db, seed: int, fields: tuple[str, ...]
) -> None:
    rng = random.Random(seed)
    db = standalone_db
    db["a"].insert_many([{"_id": key, "value": 0, "other": "$x", "third": 3} for key in keys()])
    db["a"].insert_many([{"_id": number, "other": None} for number in range(100, 400)])
    everything = stored(db)
    items = [item_for(raw, rng.randrange(5)) for raw in everything if rng.random() < 0.8]
    meanwhile = rng.sample(everything, 60)
    for number, raw in enumerate(meanwhile):
        change = {"$unset": {"other": ""}} if number % 2 else {"$set": {"third": 4}}
        db["a"].update_one({"_id": decoded(raw)["_id"]}, change)
    wanted = by_key(db)
    untouched = {bson.encode({"": decoded(raw)["_id"]}) for raw in meanwhile}
    changed = 0
    for item in items:
        key = bson.encode({"": item.key})
        if key not in untouched:
            new = after(item, wanted[key])
            changed += new != wanted[key]
            wanted[key] = new
    reply = db.command({"update": "a", "updates": together(items, fields)})
    assert reply["nModified"] == changed
    assert by_key(db) == wanted
    again = db.command({"update": "a", "updates": [alone(item, fields) for item in items]})
    assert again["nModified"] == 0  # none of them is as it was read any more


@pytest.mark.parametrize("seed", first_of(range(3)))
def test_in_a_snapshot_one_statement_does_what_a_statement_for_each_does(
    standalone_db: Db, seed: int
) -> None:
    rng = random.Random(seed)
    rows = [{"_id": key, "value": 0, "other": "$x", "third": 3} for key in keys()]
    rows += [{"_id": number, "other": None} for number in range(100, 400)]
    standalone_db["a"].insert_many(rows)
    items = [item_for(raw, rng.randrange(5)) for raw in stored(standalone_db) if rng.random() < 0.8]
    wanted = by_key(standalone_db)
    for item in items:
        key = bson.encode({"": item.key})
        wanted[key] = after(item, wanted[key])
    reply = standalone_db.command({"update": "a", "updates": together(items, None)})
    assert "writeErrors" not in reply
    assert by_key(standalone_db) == wanted
    standalone_db["a"].delete_many({})
    standalone_db["a"].insert_many(rows)
    reply = standalone_db.command({"update": "a", "updates": [bare(item) for item in items]})
    assert "writeErrors" not in reply
    assert by_key(standalone_db) == wanted


def test_what_is_too_large_for_one_command_goes_in_several() -> None:
    raw = bson.encode({"_id": 1, "x": "y" * 5_000_000})
    items = [Item(n, raw, NewField(encoded(1), "z")) for n in range(5)]
    assert [len(part) for part in parts([*items, Item(9, raw)])] == [2, 2, 1]


def test_documents_as_deeply_nested_as_the_server_allows_are_transformed(any_db: Db) -> None:
    deep: Any = 1
    for _ in range(179):
        deep = {"d": deep}
    any_db["a"].insert_many([{"_id": n, "deep": deep if n == 4 else 0} for n in range(600)])
    assert Desk(any_db).do("transform", "a", lambda doc: {**doc, "done": True}) == "done"
    assert any_db["a"].count_documents({"done": True}) == 600
    assert any_db["a"].find_one({"_id": 4}) == {"_id": 4, "deep": deep, "done": True}


def test_what_a_function_goes_on_changing_is_written_as_it_was_returned(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": n} for n in range(700)])
    shared: dict[str, Any] = {"n": -1, "seen": []}

    def change(doc: Doc) -> Doc:
        shared["n"] = doc["_id"]
        shared["seen"] = [doc["_id"]]
        return {**doc, "shared": shared} if doc["_id"] % 2 else {"$set": {"shared": shared}}

    Desk(any_db).op.transform("a", change)
    for row in any_db["a"].find():
        assert row["shared"] == {"n": row["_id"], "seen": [row["_id"]]}


def test_an_error_computed_ahead_leaves_the_batch_before_it_done(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": n} for n in range(100)])

    def change(doc: Doc) -> Doc:
        if doc["_id"] == 12:
            raise ValueError("twelve")
        return {**doc, "done": True}

    desk = Desk(any_db)
    with pytest.raises(OperationFailed, match="failed on a document"):
        desk.op.transform("a", change, batch_size=10)
    assert any_db["a"].count_documents({"done": True}) == 10
    spans = list(any_db["_m_checkpoints"].find({"kind": "span"}))
    assert [(row["position"], row["walked"]) for row in spans] == [([9], 10)]


def test_a_document_that_fails_when_it_is_read_again_is_kept_aside(standalone_db: Db) -> None:
    standalone_db["a"].insert_many([{"_id": n, "n": 0} for n in range(30)])

    def change(doc: Doc) -> Doc:
        if doc["_id"] == 7 and doc["n"] == 0:
            standalone_db["a"].update_one({"_id": 7}, {"$set": {"n": "seven"}})
        return {**doc, "n": int(doc["n"]) + 1}

    Desk(standalone_db).op.transform("a", change, on_error="collect")
    assert [row["document"] for row in standalone_db["_m_rejects"].find()] == [7]
    assert standalone_db["a"].count_documents({"n": 1}) == 29
    assert [row["rejected"] for row in standalone_db["_m_checkpoints"].find({"kind": "span"})] == [
        1
    ]


def test_a_cursor_that_the_server_gave_up_is_opened_again_where_it_was(standalone_db: Db) -> None:
    count = GROUP * 3
    standalone_db["a"].insert_many([{"_id": n} for n in range(count)])
    reader = Reader(standalone_db["a"], None, (), OPTIONS)
    found = []
    for row in reader.on_and_on(Span("", [], [count])):
        found.append(row.given["_id"])
        if len(found) in {1, GROUP, GROUP + 7, 2 * GROUP}:
            gone = [
                each["cursor"]["cursorId"]
                for each in standalone_db.client.admin.aggregate(
                    [
                        {"$currentOp": {"idleCursors": True}},
                        {"$match": {"type": "idleCursor", "ns": f"{standalone_db.name}.a"}},
                    ]
                )
            ]
            standalone_db.command({"killCursors": "a", "cursors": gone or [Int64(1)]})
    assert found == list(range(count))
