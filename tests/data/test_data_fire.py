"""`op.transform` under fire: odd values and keys, refusals, and an application that writes on.

Each test makes its documents from a seed and knows by itself what has to become of every one.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import bson
import pytest
from bson import Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import Binary
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from pymongo.errors import DuplicateKeyError

from mongover.operations.bulk.change import DELETE
from mongover.operations.bulk.ranges import exact
from tests.support.depth import first_of
from tests.support.operations_support import Desk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

    Db = Database[dict[str, Any]]
    Doc = dict[str, Any]

OPTIONS = exact(None)  # type: ignore[arg-type] # its argument is not looked at
PROJECTIONS: tuple[list[str] | None, ...] = (None, ["value", "count"])
COLLATIONS: tuple[dict[str, Any] | None, ...] = (
    None,
    {"locale": "en", "strength": 1},
    {"locale": "en", "numericOrdering": True},
    {"locale": "fr", "strength": 2, "backwards": True},
)
NAMES = ("", "$add", "$$ROOT", "$literal", "a.b", "0", "name", "ü", "x" * 300)
NUMBERS = (0, 1, -1, Int64(1), 2**40, 0.0, -0.0, 1.0, float("nan"), float("inf"), True, None)
STRINGS = ("", "$name", "$$ROOT", "$_id", "a.b", "ü\u2028", "y" * 2_000)
OTHERS = (
    *(Decimal128(text) for text in ("1.0", "1.00", "NaN", "-0")),
    *(Binary(b"0123456789abcdef", kind) for kind in (0, 2, 3, 4, 5, 128)),
    *(DatetimeMS(at) for at in (0, -1, 1_583_020_800_123, 253_402_300_800_000, -(2**63))),
    *(Timestamp(0, 0), Timestamp(3, 4), MinKey(), MaxKey(), ObjectId("0" * 24)),
    *(Regex("a.*", "i"), Code("f()"), Code("f()", {"x": 1}), DBRef("c", 1), DBRef("c", 1, "d")),
)


def value(rng: random.Random, depth: int = 3) -> Any:
    """Something of any type, often looking like an expression."""
    kind = rng.randrange(6 if depth else 3)
    if kind < 3:
        return rng.choice((NUMBERS, STRINGS, OTHERS)[kind])
    if kind == 3:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(NAMES): value(rng, depth - 1) for _ in range(rng.randrange(4))}


def keys(rng: random.Random, count: int) -> Iterator[Any]:
    """Strings that a collation may take for the same, and some of other types."""
    for _ in range(count):
        kind = rng.randrange(10)
        text = "".join(rng.choice("aAbBéE1290 -_.$") for _ in range(rng.randrange(7)))
        if kind < 6:
            yield text
        elif kind < 8:
            yield {rng.choice("st"): text, "n": rng.choice((rng.randrange(9), None, [text]))}
        else:
            yield rng.choice((rng.randrange(200), rng.random(), value(rng, 0)))


def filled(db: Db, rng: random.Random, collation: dict[str, Any] | None, count: int) -> int:
    """Make the collection; how many documents it took."""
    db.command({"create": "a", **({"collation": collation} if collation else {})})
    # What the server says of a key that is there already may hold a date beyond those of Python.
    rows = db.get_collection("a", codec_options=OPTIONS)
    taken = 0
    for key in keys(rng, count):
        if isinstance(key, Regex):  # the server takes none for an `_id`
            continue
        try:
            rows.insert_one({"_id": key, "value": value(rng), "count": 0, "rest": value(rng)})
        except DuplicateKeyError:
            continue
        taken += 1
    return taken


def stored(db: Db) -> list[Doc]:
    return list(db.get_collection("a", codec_options=OPTIONS).find())


def in_bson(anything: Any) -> bytes:
    return bson.encode({"": anything})


def spans(db: Db) -> Counter[str]:
    """The counts of all spans together."""
    total: Counter[str] = Counter()
    names = dict.fromkeys(("walked", "changed", "deleted", "rejected"), 1)
    for row in db["_m_checkpoints"].find({"kind": "span"}, {"_id": 0, **names}):
        total.update(row)
    return total


@pytest.mark.parametrize("collation", COLLATIONS)
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_every_document_gets_its_own_new_value_whatever_its_key_and_values(
    any_db: Db, projection: list[str] | None, collation: dict[str, Any] | None
) -> None:
    rng = random.Random(repr((projection, collation)))
    count = filled(any_db, rng, collation, 700)
    before = {in_bson(row["_id"]): row for row in stored(any_db)}
    news = {key: value(rng) for key in before}
    shapes = {key: rng.randrange(4) for key in before}

    def change(doc: Doc) -> Any:
        key = in_bson(doc["_id"])
        given = {"value": news[key], "count": doc["count"] + 1}
        doc["value"] = "not looked at any more"
        match shapes[key]:
            case 0:
                return {**doc, **given, "me": doc["_id"]}
            case 1:
                return {"$set": given, "$unset": {"absent": ""}}
            case 2:
                return {"_id": doc["_id"], "count": given["count"]}
            case _:
                return [{"$set": {"value": {"$literal": news[key]}, "count": {"$literal": 1}}}]

    Desk(any_db).op.transform("a", change, projection=projection, batch_size=300)
    assert len(before) == count
    for row in stored(any_db):
        key = in_bson(row["_id"])
        old = before.pop(key)
        assert row["count"] == 1
        if shapes[key] == 2:
            assert "value" not in row
            assert ("rest" in row) is (projection is not None)
            continue
        assert in_bson(row["value"]) == in_bson(news[key])
        assert in_bson(row["rest"]) == in_bson(old["rest"])
        assert shapes[key] or in_bson(row["me"]) == key
    assert not before
    assert spans(any_db)["walked"] == spans(any_db)["changed"] == count


@pytest.mark.parametrize("policy", ["skip", "collect"])
@pytest.mark.parametrize("seed", first_of(range(2)))
def test_what_is_refused_is_kept_aside_and_all_else_is_done_once(
    any_db: Db, seed: int, policy: str
) -> None:
    rng = random.Random(seed)
    count = 1_300
    any_db["a"].insert_many([{"_id": n, "u": n, "n": 0} for n in range(count)])
    any_db["a"].create_index("u", unique=True)
    any_db.command({"collMod": "a", "validator": {"n": {"$type": "int"}}})
    bad = {n: rng.randrange(3) for n in rng.sample(range(1, count), 12)}
    kept = [n for n in range(count) if n not in bad]
    gone = set(rng.sample(kept[1:], 40))
    kinds = ["DuplicateKey", "DocumentValidationFailure", "ZeroDivisionError"]

    def change(doc: Doc) -> Any:  # noqa: PLR0911 - one return for each kind of result
        key = doc["_id"]
        if key in gone:
            return DELETE
        if bad.get(key) == 2:
            return 1 // 0
        wrong = {"u": 0} if bad.get(key) == 0 else {"n": "text"} if key in bad else {}
        match key % 5:
            case 0 if not wrong:
                return {"$inc": {"n": 1}}
            case 1:
                return {**doc, "n": 1, "a.b": key, **wrong}
            case 2:
                return {**doc, "n": 1, "more": key, **wrong}
            case 3:
                return [{"$set": {"n": 1, **wrong}}]
            case _:
                return {**doc, "n": 1, **wrong}

    Desk(any_db).op.transform("a", change, on_error=policy)
    found = {row["document"]: row["error"]["type"] for row in any_db["_m_rejects"].find()}
    assert found == {key: kinds[kind] for key, kind in bad.items()}
    rows = {row["_id"]: row["n"] for row in any_db["a"].find()}
    assert rows == {n: int(n not in bad) for n in range(count) if n not in gone}
    changed = count - len(bad) - len(gone)
    wanted = {"walked": count, "changed": changed, "deleted": len(gone), "rejected": len(bad)}
    assert spans(any_db) == wanted


class Application:
    """Writes at random while the transform runs, and remembers what it wrote."""

    def __init__(self, db: Db, count: int, seed: int) -> None:
        self.added: Counter[int] = Counter()
        self.deleted: set[int] = set()
        self._db = db
        self._count = count
        self._rng = random.Random(seed)
        self._over = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """From before the first document is read until the last is written."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            self._write(self._rng.randrange(self._count))
            time.sleep(0.0005)

    def _write(self, key: int) -> None:
        rows = self._db["a"]
        kind = self._rng.random()
        if kind < 0.9:
            change = {"$inc": {"c": 1}}
            self.added[key] += rows.update_one({"_id": key}, change).modified_count
        elif kind < 0.95:
            if rows.delete_one({"_id": key}).deleted_count:
                self.deleted.add(key)
        else:
            near = {"_id": {"$gte": key, "$lt": key + 90}}
            rows.update_many(near, {"$set": {"v": self._rng.random()}})


@pytest.mark.parametrize("projection", [None, ["done", "c"]])
@pytest.mark.parametrize("shapes", [(0,), (0, 1), (2, 3)])
def test_no_write_of_the_application_is_lost_and_each_document_is_transformed_once(
    any_db: Db, shapes: tuple[int, ...], projection: list[str] | None
) -> None:
    count = 1_500
    any_db["a"].insert_many([{"_id": n, "done": 0, "c": 0, "v": n} for n in range(count)])

    def change(doc: Doc) -> Any:
        done = doc["done"] + 1
        time.sleep(0.0001)
        match shapes[doc["_id"] % len(shapes)]:
            case 0:
                return {**doc, "done": done}
            case 1:
                return {**doc, "done": done, "me": doc["_id"]}
            case 2:
                return {"$inc": {"done": 1}}
            case _:
                return [{"$set": {"done": {"$add": ["$done", 1]}}}]

    application = Application(any_db, count, seed=len(shapes))
    with application.running():
        Desk(any_db).op.transform("a", change, projection=projection, batch_size=600)
    rows = {row["_id"]: row for row in any_db["a"].find()}
    assert rows.keys() == set(range(count)) - application.deleted
    assert {row["done"] for row in rows.values()} == {1}
    assert {key: row["c"] for key, row in rows.items()} == {
        key: application.added[key] for key in rows
    }
    assert all(row.get("me", key) == key for key, row in rows.items())
    assert application.added.total() > 20
