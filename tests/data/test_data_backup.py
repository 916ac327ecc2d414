"""What `op.backup` kept is put back by `op.restore_backup`, to the byte."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from bson import (
    Binary,
    Code,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
    encode,
)
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mongover.errors import OperationFailed
from mongover.migrator import Migrator
from mongover.operations.bulk import server_side
from tests.support.operations_support import Desk

if TYPE_CHECKING:
    from pathlib import Path

    from pymongo.database import Database

    from tests.support.servers import Server

    Db = Database[dict[str, Any]]

DAY = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
RAW: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
EXAMPLES = settings(
    max_examples=25,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # each example holds many documents
)


@pytest.fixture(params=["one command", "ranges"])
def db(request: pytest.FixtureRequest, any_db: Db, monkeypatch: pytest.MonkeyPatch) -> Db:
    if request.param == "ranges":
        monkeypatch.setattr(server_side, "SMALL", 3)
        monkeypatch.setattr(server_side, "RANGE", 4)
    return any_db


def raw(db: Db, name: str = "a") -> dict[bytes, bytes]:
    """The bytes of all documents, in any order."""
    rows: Any = db.get_collection(name, codec_options=RAW).find()
    return {bytes(row.raw): bytes(row.raw) for row in rows}


def later(desk: Desk) -> Desk:
    """The downgrade of the same revision."""
    after = Desk(desk.db)
    after.book.revision = desk.book.revision
    after.book.tickets = 50
    return after


def restored(desk: Desk, *args: Any, **options: Any) -> list[str]:
    """What a restore in the downgrade says."""
    after = later(desk)
    after.op.restore_backup(*args, **options)
    return after.book.messages


NAMES = st.sampled_from(
    ["v", "w", "", ".", "a.", ".b", "v1.2", "$x", "$id", "a$b", "ñ", " ", "_id "]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from([
        Int64(1), Decimal128("1.10"), Decimal128("NaN"), Binary(b"\0", 5), Regex("a", "i"),
        Timestamp(5, 1), MinKey(), MaxKey(), Code("x", {"a": 1}), ObjectId(b"123456789012"),
        DAY, DBRef("a", 1), -0.0, {"$toDate": "$_id"}, "$v", "$$ROOT",
    ]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
IDS = [
    None, 1, 2.5, Int64(3), "x", "", True, MinKey(), MaxKey(), {"a.b": 1, "": 2}, b"1",
    ObjectId(b"123456789012"), Decimal128("7"), DAY, Timestamp(1, 1), float("nan"),
]  # fmt: skip
DOCUMENTS = st.lists(
    st.dictionaries(NAMES, VALUES, max_size=5), min_size=len(IDS), max_size=len(IDS)
).map(lambda rows: [{"_id": key, **row} for key, row in zip(IDS, rows, strict=True)])


def fill(db: Db, documents: list[dict[str, Any]]) -> dict[bytes, bytes]:
    for name in db.list_collection_names():
        db[name].delete_many({})
    db["a"].insert_many(documents)
    return raw(db)


@pytest.mark.parametrize("many", [False, True])
@EXAMPLES
@given(documents=DOCUMENTS, gone=st.sets(NAMES | st.just("deleted"), min_size=1, max_size=4))
def test_documents_of_any_names_and_types_come_back_to_the_byte(
    standalone_db: Db,
    monkeypatch: pytest.MonkeyPatch,
    documents: Any,
    gone: set[str],
    *,
    many: bool,
) -> None:
    if many:
        monkeypatch.setattr(server_side, "SMALL", 3)
    before = fill(standalone_db, documents)
    desk = Desk(standalone_db)
    desk.op.backup("a")
    # Any verb takes fields away, or whole documents: by hand here, for names that no path has.
    for number, document in enumerate(documents):
        rest = {name: value for name, value in document.items() if name not in gone}
        deleted = "deleted" in gone and number % 2
        standalone_db["a"].delete_one({"_id": {"$eq": document["_id"]}})
        if not deleted:
            standalone_db["a"].insert_one(rest)
    restored(desk, "a")
    assert raw(standalone_db) == before
    restored(desk, "a", on_existing="overwrite")
    assert raw(standalone_db) == before
    standalone_db["a"].delete_many({})
    restored(desk, "a")
    assert raw(standalone_db) == before


@EXAMPLES
@given(documents=DOCUMENTS)
def test_fields_come_back_with_their_bytes(replica_db: Db, documents: list[dict[str, Any]]) -> None:
    fill(replica_db, documents)
    before = parts(replica_db)
    desk = Desk(replica_db)
    desk.op.backup("a", fields=["v", "ñ", "a$b"])
    for name in ("v", "ñ", "a$b"):
        desk.op.remove_field("a", name)
    restored(desk, "a", fields=["v", "ñ", "a$b"])
    assert parts(replica_db) == before


def parts(db: Db) -> list[set[bytes]]:
    """The bytes of each field of each document, whatever the order of the fields."""
    rows = db.get_collection("a", codec_options=RAW).find().sort("_id")
    return [{encode({name: value}) for name, value in row.items()} for row in rows]


def test_a_removed_field_comes_back_from_a_backup_of_whole_documents(db: Db) -> None:
    db["a"].insert_many([{"_id": n, "v": n, "w": n} for n in range(10)])
    desk = Desk(db)
    desk.op.backup("a")
    desk.op.remove_field("a", "v")
    desk.op.add_field("a", "new", 1)
    db["a"].update_one({"_id": 3}, {"$set": {"v": "newer"}})
    db["a"].update_one({"_id": 4}, {"$set": {"w": "newer"}})
    db["a"].delete_many({"_id": {"$in": [5, 6]}})
    db["a"].insert_many([{"_id": 6, "x": 1}, {"_id": 77}])
    said = restored(desk, "a")
    expected: dict[int, dict[str, Any]] = {
        n: {"_id": n, "v": n, "w": n, "new": 1} for n in range(10)
    }
    expected[3]["v"] = expected[4]["w"] = "newer"
    del expected[5]["new"]
    expected |= {6: {"_id": 6, "v": 6, "w": 6, "x": 1}, 77: {"_id": 77}}
    assert {row["_id"]: row for row in db["a"].find()} == expected
    assert said == [
        "the backup of a, in documents: 8 filled, 2 left with newer values, 1 inserted again"
    ]
    assert restored(desk, "a", on_existing="overwrite") == [
        "the backup of a, in documents: 0 filled, 2 overwritten, 0 inserted again"
    ]
    assert db["a"].find_one({"_id": 3}) == {"_id": 3, "v": 3, "w": 3}


def test_a_document_that_is_gone_is_not_made_of_a_few_fields(db: Db) -> None:
    db["a"].insert_many([{"_id": n, "v": n, "w": n} for n in range(5)])
    desk = Desk(db)
    desk.op.backup("a", fields="v")
    desk.op.remove_field("a", "v")
    db["a"].delete_one({"_id": 2})
    for options in ({"fields": "v"}, {}):
        said = restored(desk, "a", **options)
        assert "1 gone, of which only fields are kept or asked for" in said[0]
        assert list(db["a"].find({}, {"_id": 1, "v": 1}).sort("_id")) == [
            {"_id": n, "v": n} for n in (0, 1, 3, 4)
        ]


def test_a_second_backup_adds_what_the_first_did_not_keep(db: Db) -> None:
    db["a"].insert_many([{"_id": n, "v": n, "w": n} for n in range(9)])
    db["a"].insert_one({"_id": 9, "w": 9})
    before = list(db["a"].find().sort("_id"))
    desk = Desk(db)
    desk.op.backup("a", fields="v")
    desk.op.update("a", {}, {"$set": {"v": "changed"}})
    desk.op.backup("a", fields=["v", "w"])  # 9 had no v: what it has now is no older one
    desk.op.remove_field("a", "v")
    desk.op.remove_field("a", "w")
    restored(desk, "a", fields=["v", "w"])
    assert list(db["a"].find().sort("_id")) == before


def test_a_field_that_no_backup_holds_is_refused(db: Db) -> None:
    db["a"].insert_many([{"_id": n, "v": n} for n in range(5)])
    desk = Desk(db)
    desk.op.backup("a", fields="v")
    with pytest.raises(OperationFailed, match="has no field w"):
        later(desk).op.restore_backup("a", fields=["v", "w"])


def test_a_backup_of_nothing_is_restored_as_nothing(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.op.backup("a", fields="v")
    desk.op.backup("b")
    assert restored(desk, "a", fields="v") == [
        "the backup of a, in documents: 0 filled, 0 left with newer values"
    ]
    restored(desk, "b")
    assert "a" not in any_db.list_collection_names()


@pytest.mark.parametrize("fields", [None, ["v"]])
def test_ids_are_told_apart_as_the_collection_does(db: Db, fields: list[str] | None) -> None:
    db.create_collection("a", collation={"locale": "en", "strength": 1})
    db["a"].insert_many([{"_id": name, "v": name.upper()} for name in "abcdefgh"])
    desk = Desk(db)
    desk.op.backup("a", fields=fields, filter={"v": {"$ne": "h"}})
    desk.op.remove_field("a", "v", filter={"v": {"$ne": "h"}})
    db["a"].delete_one({"_id": "c"})
    db["a"].insert_one({"_id": "C"})
    restored(desk, "a", fields=fields)
    found = {row["_id"]: row["v"] for row in db["a"].find()}
    assert found == {name: name.upper() for name in "abCdefgh"}


REVISION = '''"""drop v"""

revision = "0001"
down_revision = None


def upgrade(op):
    op.backup("a", fields=["v"])
    op.remove_field("a", "v")


def downgrade(op):
    op.restore_backup("a", fields=["v"])
'''


def test_an_upgrade_after_a_downgrade_keeps_the_values_of_its_own_time(
    tmp_path: Path, any_server: Server, any_db: Db
) -> None:
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "0001_drop.py").write_text(REVISION)
    config = f"[mongover]\nurl = {any_server.url}\ndatabase = {any_db.name}\n"
    (tmp_path / "alembic-style.ini").write_text(config)
    any_db["a"].insert_many([{"_id": n, "v": "old"} for n in range(3)])
    with Migrator.from_config(tmp_path / "alembic-style.ini") as migrator:
        for value in ("old", "new", "newest"):
            any_db["a"].update_many({}, {"$set": {"v": value}})
            any_db["a"].update_one({"_id": 2}, {"$unset": {"v": 1}})
            migrator.upgrade()
            assert any_db["a"].count_documents({"v": {"$exists": True}}) == 0
            migrator.downgrade("-1")
            found = [row.get("v") for row in any_db["a"].find().sort("_id")]
            assert found == [value, value, None]
        # What an earlier application kept is not lost.
        aside = [one for one in migrator.backups() if "@" in one.name]
        assert [(one.revision, one.documents) for one in aside] == [("0001", 3)] * 2
        assert migrator.drop_backup(aside[0].name) == aside[0]
