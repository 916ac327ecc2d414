from __future__ import annotations

import datetime as dt
import enum
import json
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from bson import Binary, Decimal128
from pydantic import BaseModel, ConfigDict, Field
from pymongo.errors import WriteError

from mongover.errors import InvalidDocuments, OperationFailed
from mongover.operations.jsonschema import translated
from tests.support.operations_support import Desk, rebuilt, recorded

if TYPE_CHECKING:
    from pymongo.database import Database

    Db = Database[dict[str, Any]]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["email"],
    "properties": {"email": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
}


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    city: str = "Berlin"
    near: list[Address] = []


class User(BaseModel):
    model_config = ConfigDict(extra="forbid")

    email: Annotated[str, Field(min_length=3, examples=["a@b"], description="where to write")]
    age: Annotated[int, Field(gt=0, le=150)] | None = None
    score: float = 0.5
    balance: Decimal = Field(default=Decimal(0))
    colour: Colour = Colour.RED
    kind: Literal["person"] = "person"
    born: dt.datetime | None = None
    key: uuid.UUID | None = None
    active: bool = True
    address: Address = Field(default_factory=Address, description="home")
    pair: tuple[int, str] = (1, "a")
    extra: dict[str, int] = {}
    created_at: dt.date | None = Field(default=None, alias="createdAt")


def options(db: Db, name: str = "a") -> dict[str, Any]:
    found: dict[str, Any] = dict(next(iter(db.list_collections(filter={"name": name}))))["options"]
    return found


def test_a_validator_is_set_once_and_dropped_once(any_db: Db) -> None:
    desk = Desk(any_db)
    assert desk.do("drop_validator", "nowhere") == "unchanged"
    desk.do("create_collection", "a")
    assert desk.do("drop_validator", "a") == "unchanged"
    assert desk.do("set_validator", "a", SCHEMA) == "done"
    assert desk.do("set_validator", "a", SCHEMA) == "unchanged"
    assert desk.do("set_validator", "a", SCHEMA, action="warn") == "done"
    assert options(any_db)["validationAction"] == "warn"
    assert desk.do("set_validator", "a", {"$and": [{"x": 1}]}, level="off") == "done"
    assert options(any_db)["validator"] == {"$and": [{"x": 1}]}
    assert desk.do("drop_validator", "a") == "done"
    assert desk.do("drop_validator", "a") == "unchanged"
    any_db["a"].insert_one({"anything": 1})


def test_a_validator_on_a_missing_collection_is_an_error_that_says_so(any_db: Db) -> None:
    with pytest.raises(OperationFailed, match="does not exist") as caught:
        Desk(any_db).do("set_validator", "a", SCHEMA)
    assert caught.value.hint == 'create it first: op.create_collection("a")'


def fill(db: Db) -> None:
    db["a"].insert_many({"_id": i, "email": f"secret{i}", "age": i} for i in range(5))
    db["a"].insert_many({"_id": i, "age": 1} for i in range(10, 14))
    db["a"].insert_many([{"_id": 20, "email": "x", "age": -1}, {"_id": 21, "email": 3, "age": "x"}])


def test_documents_that_violate_it_are_reported_by_field_and_nothing_is_set(any_db: Db) -> None:
    fill(any_db)
    with pytest.raises(InvalidDocuments) as caught:
        Desk(any_db).do("set_validator", "a", SCHEMA)
    error = caught.value
    assert "6 documents violate" in error.message
    assert error.notes == (
        "missing email: 4 (e.g. _id 10, 11, 12)",
        "bad email: 1 (e.g. _id 21)",
        "bad age: 2 (e.g. _id 20, 21)",
    )
    assert "secret" not in " ".join([error.message, *error.notes])
    assert "validator" not in options(any_db)


def test_fields_that_are_not_allowed_and_other_rules_are_reported_too(any_db: Db) -> None:
    any_db["a"].insert_many([{"_id": 1, "odd": 1}, {"_id": 2, "_ok": 1, "x": 2}])
    closed = {"additionalProperties": False, "properties": {"x": {"type": "string"}}}
    closed["patternProperties"] = {"^_": {}}
    with pytest.raises(InvalidDocuments) as caught:
        Desk(any_db).do("set_validator", "a", closed)
    assert caught.value.notes == ("bad x: 1 (e.g. _id 2)", "unknown fields: 1 (e.g. _id 1)")
    with pytest.raises(InvalidDocuments) as caught:
        Desk(any_db).do("set_validator", "a", {"$expr": {"$eq": ["$_id", 2]}})
    assert caught.value.notes == ("other rules: 1 (e.g. _id 1)",)


@pytest.mark.parametrize(
    ("policy", "level", "action"),
    [("moderate", "moderate", "error"), ("warn", "strict", "warn")],
)
def test_the_policy_decides_what_becomes_of_documents_that_violate_it(
    any_db: Db, policy: str, level: str, action: str
) -> None:
    fill(any_db)
    desk = Desk(any_db)
    assert desk.do("set_validator", "a", SCHEMA, on_invalid=policy) == "done"
    assert (options(any_db)["validationLevel"], options(any_db)["validationAction"]) == (
        level,
        action,
    )
    assert "6 documents violate" in desk.book.warnings[0]
    assert desk.do("set_validator", "a", SCHEMA, on_invalid=policy) == "unchanged"
    any_db["a"].update_many({}, {"$set": {"seen": True}})
    any_db["a"].delete_many({"_id": {"$gt": 5}})
    assert desk.do("set_validator", "a", SCHEMA, on_invalid=policy) == "done"
    assert options(any_db)["validationLevel"] == "strict"


def test_a_pydantic_model_becomes_a_validator_that_the_server_keeps(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.do("create_collection", "a")
    assert desk.do("set_validator", "a", User) == "done"
    assert desk.do("set_validator", "a", User) == "unchanged"
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    good: dict[str, Any] = {
        "email": "a@b",
        "age": None,
        "score": 1.5,
        "balance": Decimal128("1.5"),
        "colour": "blue",
        "kind": "person",
        "born": now,
        "key": Binary.from_uuid(uuid.uuid4()),
        "active": False,
        "address": {"city": "Rome", "near": [{"city": "Ostia"}]},
        "pair": [1, "x"],
        "extra": {"n": 1},
        "createdAt": now,
    }
    any_db["a"].insert_one(dict(good))
    any_db["a"].insert_one({"email": "abc"})
    wrong: dict[str, Any] = {
        "email": "a",
        "age": 0,
        "score": "1",
        "colour": "green",
        "kind": "robot",
        "born": "2026-01-01",
        "active": 1,
        "address": {"near": [7]},
        "pair": ["1", "x"],
        "extra": {"n": "1"},
        "unknown": 1,
        "created_at": now,
    }
    for name, value in wrong.items():
        with pytest.raises(WriteError, match="validation"):
            any_db["a"].insert_one({**good, name: value})


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({"type": ["string", "null"]}, {"bsonType": ["string", "null"]}),
        ({"const": 3}, {"enum": [3]}),
        ({"exclusiveMinimum": 3}, {"minimum": 3, "exclusiveMinimum": True}),
        ({"exclusiveMaximum": 3, "maximum": 2}, {"maximum": 2, "exclusiveMaximum": False}),
        ({"minimum": 3, "exclusiveMinimum": True}, {"minimum": 3, "exclusiveMinimum": True}),
        ({"items": [True, False]}, {"items": [{}, {"not": {}}]}),
        ({"prefixItems": [{"type": "string"}], "items": False},
         {"items": [{"bsonType": "string"}], "additionalItems": False}),
        ({"items": True, "default": 3, "$schema": "x"}, {"items": {}}),
        ({"dependencies": {"a": ["b"], "c": {"type": "null"}}},
         {"dependencies": {"a": ["b"], "c": {"bsonType": "null"}}}),
        ({"bsonType": "date", "not": {"type": "boolean"}},
         {"bsonType": "date", "not": {"bsonType": "bool"}}),
        ({"properties": {"x": {"$ref": "#/definitions/a~1b", "minLength": 2, "title": "t"}},
          "definitions": {"a/b": {"type": "string"}}},
         {"properties": {"x": {"allOf": [{"bsonType": "string"}, {"minLength": 2}],
                               "title": "t"}}}),
        ({"additionalProperties": False, "properties": {"_id": {"type": "integer"}}},
         {"additionalProperties": False, "properties": {"_id": {"bsonType": ["int", "long"]}}}),
    ],
)  # fmt: skip
def test_a_json_schema_becomes_the_servers_dialect(
    any_db: Db, schema: dict[str, Any], wanted: dict[str, Any]
) -> None:
    assert translated(schema) == (wanted, ())
    assert translated(wanted) == (wanted, ())
    any_db.create_collection("a", validator={"$jsonSchema": wanted})


@pytest.mark.parametrize(
    ("schema", "message", "hint"),
    [
        ({"requird": ["a"]}, "'requird'", "required"),
        ({"properties": {"a": {"contains": {}}}}, "'contains'", ""),
        ({"properties": {"a": {"type": "strng"}}}, "'strng'", "string"),
        ({"properties": {"a": 3}}, "int is no JSON Schema", ""),
        ({"properties": {"a": {"$ref": "#/$defs/x"}}}, "#/$defs/x", ""),
        ({"$jsonSchema": {"if": {}}}, "'if'", ""),
        ({}, "empty", ""),
        ("text", "a str", ""),
        ({"age": {"$gt": 1}}, "'age'", "$and"),
    ],
)
def test_a_schema_that_the_server_cannot_express_is_refused_never_weakened(
    schema: Any, message: str, hint: str
) -> None:
    with pytest.raises(OperationFailed) as caught:
        recorded("set_validator", "a", schema)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["level", "action", "on_invalid"])
def test_an_unknown_level_action_or_policy_is_refused(name: str) -> None:
    with pytest.raises(OperationFailed, match=name) as caught:
        recorded("set_validator", "a", SCHEMA, **{name: "warm"})
    assert caught.value.hint


def test_validators_render_describe_and_repeat() -> None:
    for operation in (
        recorded("set_validator", "a", User, level="moderate"),
        recorded("set_validator", "a", {"$and": [{"at": dt.datetime(2026, 1, 1)}]}),  # noqa: DTZ001 - BSON dates are naive
        recorded("set_validator", "a", {"$ref": "#/$defs/x", "$defs": {"x": {"type": "object"}}}),
        recorded("drop_validator", "a"),
    ):
        assert rebuilt(operation) == operation
        assert json.loads(json.dumps(operation.to_json()))["collection"] == "a"
        assert operation.describe().endswith("validator on a")
        assert operation.repeatable
        assert operation.reverse() is None
