"""What every supported server must do: the same tests on each version and topology of the matrix.

They prove the table of docs/servers.md. `MONGOVER_TEST_SERVERS` names the versions.
"""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, get_args

import bson
import pytest
from pymongo.errors import OperationFailure

from mongover.database.capabilities import Feature, probe
from mongover.errors import InvalidDocuments, OperationFailed
from mongover.operations.bulk.change import DELETE
from tests.support.operations_support import Desk, capabilities_of
from tests.support.server_versions import matrix, mongod_of
from tests.support.servers import (
    Server,
    run_cli,
    run_replica_set,
    run_standalone,
    start_cli,
    wait_until,
)

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pymongo.database import Database

    Db = Database[dict[str, Any]]
    Doc = dict[str, Any]

STARTS = {"standalone": run_standalone, "replica_set": run_replica_set}
SERVERS = [f"{version} {kind}" for version in matrix() for kind in STARTS]


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One server of the matrix."""
    version, kind = request.param.split()
    with STARTS[kind](mongod_of(version)) as started:
        yield started


@pytest.fixture
def db(server: Server, open_database: Callable[..., Db]) -> Db:
    """An empty database there."""
    return open_database(server)


# -- what it can do ---------------------------------------------------------------------------


def tried(db: Db, feature: Feature) -> bool | None:
    """Whether the server really does it; None where no test can tell."""
    ttl = {"name": "at_1", "expireAfterSeconds": 5}
    acts: dict[str, Callable[[], Any]] = {
        "transactions": lambda: in_transaction(db),
        "time series": lambda: db.create_collection("t", timeseries={"timeField": "at"}),
        "$-fields": lambda: db.a.insert_one({"$x": 1}),
        "$setField, $getField": lambda: list(db.a.aggregate([{"$set": {"b": {"$getField": "a"}}}])),
        "clustered collections": lambda: db.create_collection(
            "c", clusteredIndex={"key": {"_id": 1}, "unique": True}
        ),
        "TTL on a plain index": lambda: db.command("collMod", "i", index=ttl),
        "pre-images": lambda: db.create_collection(
            "p", changeStreamPreAndPostImages={"enabled": True}
        ),
        "change of a capped size": lambda: db.command("collMod", "capped", cappedSize=16384),
        "prepareUnique": lambda: db.command(
            "collMod", "i", index={"name": "b_1", "prepareUnique": True}
        ),
        "$$ROOT in $expr": lambda: list(db.a.find({"$expr": {"$eq": ["$$ROOT", {"a": 1}]}})),
        "constraint, errorAndLog": lambda: db.create_collection("v", validationLevel="constraint"),
        "search indexes": lambda: list(db.a.aggregate([{"$listSearchIndexes": {}}])),
    }
    if feature not in acts:
        return None
    try:
        acts[feature]()
    except OperationFailure:
        return False
    return True


def in_transaction(db: Db) -> None:
    with db.client.start_session() as session, session.start_transaction():
        db.a.insert_one({"in": "transaction"}, session=session)


def test_each_feature_is_there_exactly_where_the_value_says_so(db: Db) -> None:
    db.a.insert_one({"a": 1})
    db.create_collection("capped", capped=True, size=8192)
    for field in ("at", "b"):
        db.i.create_index(field)
    known = capabilities_of(db)
    assert known.supported
    found = {name: tried(db, name) for name in get_args(Feature)}
    real = {name: there for name, there in found.items() if there is not None}
    assert {name: known.has(name) for name in real} == real
    asked = probe(known, db)
    assert {name: asked.has(name) for name in real} == real


def test_what_is_lacking_is_refused_by_name_and_what_is_there_is_done(db: Db) -> None:
    desk, known = Desk(db), capabilities_of(db)
    wanted: list[tuple[Feature, dict[str, Any]]] = [
        ("time series", {"timeseries": {"timeField": "at"}}),
        ("clustered collections", {"clustered_index": True}),
        ("pre-images", {"change_stream_pre_and_post_images": True}),
    ]
    for number, (feature, options) in enumerate(wanted):
        if known.has(feature):
            assert desk.do("create_collection", f"c{number}", **options) == "done"
            assert desk.do("create_collection", f"c{number}", **options) == "unchanged"
            continue
        with pytest.raises(OperationFailed, match=r"MongoDB [\d.]+ has no .*: they come with \d"):
            desk.do("create_collection", f"c{number}", **options)
        assert f"c{number}" not in db.list_collection_names()


# -- collections and indexes ------------------------------------------------------------------

INDEXES: list[dict[str, Any]] = [
    {"keys": "a", "unique": True},
    {"keys": [("a", 1), ("b", -1)], "sparse": True},
    {"keys": "c", "expire_after_seconds": 3600},
    {"keys": "d", "hidden": True},
    {"keys": {"e": "text"}, "weights": {"e": 3}},
    {"keys": "f", "collation": {"locale": "de", "strength": 2}},
    {"keys": "g", "partial_filter_expression": {"g": {"$gt": 1}}},
    {"keys": {"$**": 1}, "name": "w", "wildcard_projection": {"x": 1}},
    {"keys": {"$**": 1}, "name": "w2", "wildcard_projection": {"y.z": 0, "u": 0}},
]


@pytest.mark.parametrize("number", range(len(INDEXES)))
def test_an_index_is_created_once_and_recognised_after(db: Db, number: int) -> None:
    options = dict(INDEXES[number])
    keys = options.pop("keys")
    desk = Desk(db)
    db.a.insert_one({"a": 1})
    assert desk.do("create_index", "a", keys, **options) == "done"
    assert desk.do("create_index", "a", keys, **options) == "unchanged"
    assert desk.do("replace_index", "a", keys, **options) == "unchanged"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"unique": True}),
        ({}, {"expire_after_seconds": 60}),
        ({"expire_after_seconds": 60}, {"expire_after_seconds": 90}),
        ({"unique": True}, {}),
    ],
)
def test_an_index_is_replaced_in_the_way_that_the_server_has(
    db: Db, before: dict[str, Any], after: dict[str, Any]
) -> None:
    desk = Desk(db)
    db.a.insert_many([{"x": number} for number in range(10)])
    desk.do("create_index", "a", "x", **before)
    assert desk.do("replace_index", "a", "x", **after) == "done"
    assert desk.do("replace_index", "a", "x", **after) == "unchanged"
    (spec,) = (found for found in db.a.list_indexes() if found["name"] != "_id_")
    assert bool(spec.get("unique")) is bool(after.get("unique"))
    assert spec.get("expireAfterSeconds") == after.get("expire_after_seconds")


def test_a_validator_is_set_over_documents_that_pass_and_refused_over_others(db: Db) -> None:
    desk = Desk(db)
    db.a.insert_many([{"name": "x"}, {"name": 1}])
    schema = {"required": ["name"], "properties": {"name": {"bsonType": "string"}}}
    with pytest.raises(InvalidDocuments, match="violates"):
        desk.do("set_validator", "a", schema)
    db.a.delete_one({"name": 1})
    assert desk.do("set_validator", "a", schema) == "done"
    assert desk.do("set_validator", "a", schema) == "unchanged"


# -- data -------------------------------------------------------------------------------------

ON_NOTHING: list[tuple[str, tuple[Any, ...]]] = [
    ("update", ("none", {}, {"$set": {"x": 1}})),
    ("delete", ("none", {"x": 1})),
    ("add_field", ("none", "x", 1)),
    ("remove_field", ("none", "x")),
    ("rename_field", ("none", "x", "y")),
    ("convert_field", ("none", "x", "int")),
    ("transform", ("none", lambda document: {**document, "x": 1})),
]


@pytest.mark.parametrize(("verb", "args"), ON_NOTHING, ids=[verb for verb, _ in ON_NOTHING])
def test_a_data_verb_on_a_missing_collection_changes_nothing(
    db: Db, verb: str, args: tuple[Any, ...]
) -> None:
    assert Desk(db).do(verb, *args) == "unchanged"


def value(chance: random.Random, depth: int = 0) -> Any:
    kinds = [
        1,
        2.5,
        "text",
        "$x",
        None,
        True,
        b"\x00\x01",
        bson.ObjectId("5" * 24),
        bson.Decimal128("1.5"),
    ]
    if depth < 2 and chance.random() < 0.3:
        names = ("a", "b", "c.d") if depth else ("a", "b")
        nested = {name: value(chance, depth + 1) for name in names}
        return chance.choice([nested, [nested, 1], []])
    return chance.choice(kinds)


def document(chance: random.Random, key: Any, *, odd: bool) -> Doc:
    names = ["a", "b", "c", "ü", *(["d.e", ""] if odd else [])]
    chance.shuffle(names)
    made = {name: value(chance) for name in names if chance.random() < 0.7}
    return {"_id": key, **made}


def change(seed: int, document: Doc) -> Any:
    """What a function makes of a document, the same at every call, and what it means."""
    chance = random.Random(f"{seed} {document['_id']}")
    names = [name for name in document if name != "_id"]
    new = dict(document)
    for name in names:
        if chance.random() < 0.4:
            del new[name]
    if chance.random() < 0.6:
        new["new"] = value(chance)
    if chance.random() < 0.4 and "a" in new:
        new["a"] = value(chance)
    return new


@pytest.mark.parametrize("seed", range(4))
def test_a_transform_makes_of_random_documents_what_the_function_makes(db: Db, seed: int) -> None:
    chance = random.Random(seed)
    odd = capabilities_of(db).has("$-fields")
    documents = [document(chance, key, odd=odd) for key in range(300)]
    db.a.insert_many(documents)
    stored = list(db.a.find())
    Desk(db).op.transform("a", lambda found: change(seed, found), batch_size=90)
    for before, now in zip(stored, db.a.find(), strict=True):
        assert now == change(seed, before)


HOW: dict[str, tuple[Callable[[Doc], Any], Callable[[Doc], Doc | None]]] = {
    "operators": (
        lambda _: {"$inc": {"n": 1}, "$unset": {"b": ""}},
        lambda found: {"_id": found["_id"], "n": found["n"] + 1},
    ),
    "pipeline": (
        lambda _: [{"$set": {"b": {"$add": ["$n", 1]}}}],
        lambda found: {**found, "b": found["n"] + 1},
    ),
    "delete": (
        lambda found: DELETE if found["n"] % 2 else None,
        lambda found: None if found["n"] % 2 else found,
    ),
    "drop a field": (
        lambda found: {"_id": found["_id"], "n": found["n"]},
        lambda found: {"_id": found["_id"], "n": found["n"]},
    ),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_every_result_of_a_function_is_written(db: Db, how: str, *, large: bool) -> None:
    function, expected = HOW[how]
    text = "x" * 1_200_000 if large else "x"
    documents = [{"_id": key, "n": key, "b": text} for key in range(4 if large else 60)]
    db.a.insert_many(documents)
    assert Desk(db).do("transform", "a", function) == "done"
    wanted = [made for found in documents if (made := expected(found)) is not None]
    assert list(db.a.find().sort("_id", 1)) == wanted


def test_late_documents_are_caught_up_with(db: Db) -> None:
    db.a.insert_many([{"_id": key, "v": 1} for key in range(20)])

    def upgrade(found: Doc) -> Any:
        if found["_id"] == 19:
            db.client[db.name].a.insert_one({"_id": 20, "v": 1})
        return {"$set": {"v": 2}}

    with suppress(OperationFailed):
        Desk(db).op.transform("a", upgrade, filter={"v": 1}, batch_size=5)
    assert db.a.count_documents({"v": 1}) == 0


def test_what_is_wrong_with_a_statement_stops_whatever_the_policy_for_documents_is(db: Db) -> None:
    db.a.insert_many([{"_id": key} for key in range(5)])
    for policy in ("stop", "skip", "collect"):
        with pytest.raises(OperationFailed, match=r"cannot read what .*does not know \$nope"):
            Desk(db).op.transform(
                "a", lambda _: [{"$set": {"x": {"$nope": 1}}}], on_error=policy, batch_size=2
            )
    assert db["_m_rejects"].count_documents({}) == 0


def test_a_transform_that_rejects_all_says_so(db: Db) -> None:
    db.a.insert_many([{"_id": key} for key in range(5)])
    desk = Desk(db)
    desk.op.transform("a", lambda _: 1 / 0, on_error="collect")
    assert "5 documents, all that there are, of a could not be transformed" in desk.book.warnings[0]


def test_fields_are_added_renamed_converted_and_removed(db: Db) -> None:
    desk = Desk(db)
    db.a.insert_many([{"_id": n, "p": str(n), "deep": {"x": n}} for n in range(50)])
    assert desk.do("add_field", "a", "q", 1) == "done"
    assert desk.do("rename_field", "a", "q", "r") == "done"
    assert desk.do("convert_field", "a", "p", "int") == "done"
    assert desk.do("remove_field", "a", "deep.x") == "done"
    for n, found in enumerate(db.a.find().sort("_id", 1)):
        assert found == {"_id": n, "p": n, "deep": {}, "r": 1}
    assert desk.do("copy", "a", "b") == "done"
    assert db.b.count_documents({}) == 50


# -- history, lease and a crash ---------------------------------------------------------------

REVISION = '''"""{id}"""

revision = "{id}"
down_revision = {down}
schema = "a"
{extra}

{body}
'''
FIRST = """
def upgrade(op):
    op.create_collection("a")
    op.create_index("a", "n")
    op.insert("a", [{"_id": key, "n": 0} for key in range(500)])


def downgrade(op):
    op.drop_collection("a")
"""
SECOND = """
import time


def count_up(document):
    time.sleep(0.002)
    if MISSES and document["_id"] % 100 == 0:
        raise ValueError
    document["n"] += 1
    return document


def upgrade(op):
    op.transform("a", count_up, batch_size=50, on_error="collect")
"""


def project(folder: Path, server: Server, database: str, *, misses: bool = False) -> Path:
    versions = folder / "versions"
    versions.mkdir(exist_ok=True)
    second = SECOND.replace("MISSES", str(misses))
    for key, down, body in (("0001", None, FIRST), ("0002", "0001", second)):
        text = REVISION.format(id=key, down=repr(down), extra="", body=body)
        (versions / f"{key}_x.py").write_text(text)
    lines = ["[mongover]", f"url = {server.url}", f"database = {database}", "lease = 1.5"]
    (folder / "alembic-style.ini").write_text("\n".join(lines) + "\n")
    return folder


def states(db: Db) -> dict[str, str]:
    return {found["_id"]: found["state"] for found in db["_migrations"].find()}


def ran(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_a_history_goes_up_and_down_and_up_again(db: Db, server: Server, tmp_path: Path) -> None:
    folder = project(tmp_path, server, db.name)
    ran(run_cli("upgrade", cwd=folder))
    assert states(db) == {"0001": "applied", "0002": "applied"}
    assert db.a.count_documents({"n": 1}) == 500
    said = ran(run_cli("status", cwd=folder))
    assert f"MongoDB {capabilities_of(db).version}" in said
    (folder / "versions" / "0002_x.py").write_text(
        (folder / "versions" / "0002_x.py").read_text() + "\n\ndef downgrade(op):\n    pass\n"
    )
    ran(run_cli("repair", "0002", "--reason", "a downgrade", cwd=folder))
    ran(run_cli("downgrade", "base", cwd=folder))
    assert states(db) == {"0001": "reverted", "0002": "reverted"}
    assert "a" not in db.list_collection_names()
    ran(run_cli("upgrade", cwd=folder))
    ran(run_cli("doctor", cwd=folder))


def test_rejects_are_kept_and_succeed_when_tried_again(
    db: Db, server: Server, tmp_path: Path
) -> None:
    folder = project(tmp_path, server, db.name, misses=True)
    ran(run_cli("upgrade", cwd=folder))
    assert db["_migrations_rejects"].count_documents({}) == 5
    project(tmp_path, server, db.name)
    ran(run_cli("rejects", "0002", "--retry", cwd=folder))
    assert db["_migrations_rejects"].count_documents({}) == 0
    assert db.a.count_documents({"n": 1}) == 500


def test_a_transform_goes_on_after_a_kill_and_loses_nothing(
    db: Db, server: Server, tmp_path: Path
) -> None:
    folder = project(tmp_path, server, db.name)

    def walked() -> int:
        spans = db["_migrations_checkpoints"].find({"kind": "span"})
        return sum(span["walked"] for span in spans)

    with start_cli("upgrade", cwd=folder) as process:
        wait_until(lambda: walked() >= 100, "a part of the work")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert db.a.count_documents({"n": 0}) > 0
    ran(run_cli("upgrade", "--lock-wait", "20", cwd=folder))
    assert states(db) == {"0001": "applied", "0002": "applied"}
    once, twice = db.a.count_documents({"n": 1}), db.a.count_documents({"n": 2})
    assert once + twice == 500
    # Without transactions the batch between its end and its checkpoint is repeated.
    assert twice <= (0 if server.has_transactions else 50)
