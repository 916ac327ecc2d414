"""Documents, keys and moments that are seldom, and must not harm a transform or the server."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from mongover.config.names import OwnCollections
from mongover.errors import OperationFailed
from mongover.operations.base import Ticket
from mongover.operations.bulk import kept_aside
from mongover.operations.bulk.batches import SmallerBatch
from mongover.operations.bulk.change import DELETE
from mongover.operations.bulk.checkpoints import Span
from mongover.operations.bulk.compute import Spec
from mongover.operations.bulk.worker import Transforming
from mongover.operations.bulk.writer import InSnapshot
from tests.support.operations_support import Desk
from tests.support.servers import run_replica_set, run_standalone

if TYPE_CHECKING:
    from pymongo.database import Database

    Db = Database[dict[str, Any]]
    Doc = dict[str, Any]


def from_elements(*elements: bytes) -> RawBSONDocument:
    body = b"".join(elements)
    return RawBSONDocument((len(body) + 5).to_bytes(4, "little") + body + b"\0")


ID: bytes = b"\x10_id\0\1\0\0\0"
TWICE = from_elements(
    ID, b"\x10s\0\1\0\0\0", b"\x10s\0\2\0\0\0", b"\x02t\0\x15\0\0\0" + b"x" * 20 + b"\0"
)
NOT_UTF8 = from_elements(ID, b"\x02s\0\3\0\0\0\xff\xfe\0")


@pytest.mark.parametrize("first", ["operators", "delete"])
def test_with_a_projection_no_document_gets_the_value_of_another(
    standalone_db: Db, first: str
) -> None:
    rows = standalone_db["a"]
    rows.insert_many([{"_id": n, "v": 0, "n": 1} for n in range(200)])

    def change(doc: Doc) -> Any:
        if doc["v"]:
            return {**doc, "n": f"for {doc['_id']}"}
        if doc["_id"] == 199:  # the application writes them all before they are sent
            rows.update_many({}, {"$set": {"v": 1}})
        if doc["_id"] == 0:
            return DELETE if first == "delete" else {"$inc": {"n": 100}}
        return {**doc, "n": -1}

    Desk(standalone_db).op.transform("a", change, projection=["v", "n"])
    assert [row for row in rows.find() if row["n"] != f"for {row['_id']}"] == []


def test_unset_of_a_field_that_was_not_read_is_done(any_db: Db) -> None:
    any_db["a"].insert_one({"_id": 1, "n": 1, "big": 1})
    Desk(any_db).op.transform(
        "a", lambda _: {"$set": {"n": 2}, "$unset": {"big": ""}}, projection=["n"]
    )
    assert any_db["a"].find_one() == {"_id": 1, "n": 2}


@pytest.mark.parametrize(("size", "count"), [(50_000, 200), (3_000, 4_000)])
def test_long_ids_on_a_replica_set(replica_db: Db, size: int, count: int) -> None:
    replica_db["a"].insert_many([{"_id": f"{n:06}" + "x" * size} for n in range(count)])
    Desk(replica_db).op.transform("a", lambda doc: {**doc, "n": 1})
    assert replica_db["a"].count_documents({"n": 1}) == count


@pytest.mark.parametrize("start", [run_standalone, run_replica_set])
def test_a_field_that_is_there_twice_does_not_bring_the_server_down(start: Any) -> None:
    """On a server of its own: MongoDB 6.0 ends at a pipeline's update of such a document."""
    with start() as server, server.client(serverSelectionTimeoutMS=3_000) as client:
        client.t.command({"insert": "a", "documents": [TWICE, {"_id": 2, "s": 1}]})
        desk = Desk(client.t)
        desk.op.transform("a", lambda doc: {**doc, "s": 7, "n": 1})
        assert client.t.a.count_documents({"s": 7, "n": 1}) == 2
        desk.op.transform("a", lambda doc: {**doc, "a.b": 1}, on_error="collect")
        desk.op.transform("a", lambda _: [{"$set": {"m": 1}}], on_error="collect")
        assert [row["document"] for row in client.t["_m_rejects"].find()] == [1, 1]
        assert client.t.a.find_one({"_id": 2}) == {"_id": 2, "s": 7, "n": 1, "a.b": 1, "m": 1}


def test_a_replaced_document_is_transformed_once(standalone_db: Db) -> None:
    rows = standalone_db["a"]
    rows.insert_many([{"_id": n, "n": 0, "c": 0} for n in range(600)])
    desk = Desk(standalone_db)
    real, seen = type(standalone_db).command, [0]

    def change(doc: Doc) -> Doc:
        if doc["_id"] == 499 and not seen[0]:
            seen[0] = 1
            rows.update_one({"_id": 0}, {"$inc": {"c": 1}})  # so that all are looked at again
        return {**doc, "n": doc["n"] + 1, "a.b": 1}

    def command(self: Any, document: Any, *args: Any, **kwargs: Any) -> Any:
        reply = real(self, document, *args, **kwargs)
        if isinstance(document, dict) and document.get("update") == "a" and seen[0] == 1:
            seen[0] = 2
            rows.update_many(
                {"_id": {"$gte": 1, "$lt": 500}}, {"$inc": {"c": 1}}
            )  # another field, later
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(standalone_db), "command", command)
        desk.op.transform("a", change)
    assert Counter(row["n"] for row in rows.find()) == {1: 600}


@pytest.mark.parametrize("whole", [False, True])
def test_a_change_of_case_is_a_change_under_a_collation_too(standalone_db: Db, whole: bool) -> None:
    standalone_db.create_collection("a", collation={"locale": "en", "strength": 2})
    rows = standalone_db["a"]
    rows.insert_many([{"_id": n, "name": "bob"} for n in range(100)])

    def change(doc: Doc) -> Doc:
        if doc["_id"] == 99 and doc["name"] == "bob":
            rows.update_many({}, {"$set": {"name": "Bob"}})
        return {**doc, ("a.b" if whole else "slug"): doc["name"]}

    Desk(standalone_db).op.transform("a", change)
    assert {(row["name"], row["a.b" if whole else "slug"]) for row in rows.find()} == {
        ("Bob", "Bob")
    }


def test_what_is_too_much_for_a_transaction_together_is_tried_with_fewer_documents() -> None:
    with pytest.raises(SmallerBatch) as caught:
        InSnapshot.check_size({"code": 388}, 9)
    assert caught.value.size == 4
    InSnapshot.check_size({"code": 388}, 1)  # a document that is too much alone is refused
    InSnapshot.check_size({"code": 11000}, 9)


def test_pipelines_count_for_the_size_of_a_command(replica_db: Db) -> None:
    replica_db["a"].insert_many([{"_id": n} for n in range(3_000)])
    Desk(replica_db).op.transform("a", lambda _: [{"$set": {"n": "x" * 10_000}}])
    assert replica_db["a"].count_documents({"n": {"$exists": True}}) == 3_000


def test_a_duplicate_far_date_is_kept_aside_like_any_other(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": n, "u": n} for n in range(5)])
    any_db["a"].create_index("u", unique=True)
    Desk(any_db).op.transform(
        "a",
        lambda doc: {**doc, "u": DatetimeMS(253_402_300_800_000)} if doc["_id"] in (1, 3) else None,
        on_error="collect",
    )
    assert [row["document"] for row in any_db["_m_rejects"].find()] == [3]


@pytest.mark.parametrize("projection", [["x"], None])
def test_a_document_near_the_limit_is_written(standalone_db: Db, projection: Any) -> None:
    parts = 1 if projection else 1_000
    row = {"x" if projection else f"f{n}": "y" * (9_000_000 // parts) for n in range(parts)}
    standalone_db["a"].insert_one({"_id": 1, **row})
    Desk(standalone_db).op.transform(
        "a",
        lambda doc: {k: v if k == "_id" else v + "z" for k, v in doc.items()},
        projection=projection,
    )


def test_long_ids_on_a_standalone(standalone_db: Db) -> None:
    standalone_db["a"].insert_many([{"_id": f"{n:06}" + "x" * 50_000} for n in range(200)])
    Desk(standalone_db).op.transform("a", lambda doc: {**doc, "n": 1})


def test_one_document_that_cannot_be_decoded_does_not_hold_up_a_collecting_run(any_db: Db) -> None:
    any_db.command({"insert": "a", "documents": [{"_id": 0}, NOT_UTF8, {"_id": 2}]})
    Desk(any_db).op.transform("a", lambda doc: {**doc, "n": 1}, on_error="collect")
    assert [row["document"] for row in any_db["_m_rejects"].find()] == [1]
    assert any_db["a"].count_documents({"n": 1}) == 2


def test_one_document_that_cannot_be_decoded_is_named(any_db: Db) -> None:
    any_db.command({"insert": "a", "documents": [{"_id": 0}, NOT_UTF8]})
    with pytest.raises(OperationFailed) as caught:
        Desk(any_db).op.transform("a", lambda doc: {**doc, "n": 1})
    assert "InvalidBSON" in caught.value.message
    assert "_id 1" in caught.value.notes


def test_a_single_connection_is_enough(standalone_db: Db) -> None:
    standalone_db["a"].insert_many([{"_id": n} for n in range(3_000)])
    address = standalone_db.client.address
    assert address is not None
    with MongoClient[dict[str, Any]](*address, maxPoolSize=1, waitQueueTimeoutMS=5_000) as client:
        Desk(client[standalone_db.name]).op.transform("a", lambda doc: {**doc, "n": 1})
    assert standalone_db["a"].count_documents({"n": 1}) == 3_000


def test_what_an_attempt_kept_aside_counts_only_when_the_batch_is_committed(
    replica_db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_aside, "_COLLECTED_KEPT", 1)
    replica_db["a"].insert_one({"_id": 1})
    bad = [True, False, True]

    def change(doc: Doc) -> None:
        if bad.pop(0):
            raise ValueError(doc)

    ticket = Ticket(OwnCollections("_m"), "0001", "up", 1, "me", 1)
    step = Transforming(replica_db, Spec("a", None, (), "f", "collect", 10), change, ticket)
    span = Span("", [], [1])
    with replica_db.client.start_session() as session:
        for lasts in (False, True, True):
            session.start_transaction()
            step.batch(session, span, 10)
            if lasts:
                session.commit_transaction()
                step.settled()
            else:
                session.abort_transaction()
    assert bad == []
    assert replica_db["_m_rejects"].count_documents({}) == 1
