"""What may be given as a validator, and what the server gets for it: for every verb the same."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any

from mongover.errors import OperationFailed
from mongover.operations.arguments import nearest
from mongover.operations.jsonschema import KEYWORDS, expanded, translated

if typing.TYPE_CHECKING:
    from mongover.operations.base import Document

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Validator:
    """A validator as the server takes it, and what was asked for that it cannot hold."""

    query: Document
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, schema: Any) -> Validator:
        """From a JSON Schema or a model."""
        if not is_model(schema):
            found, left_out = translated(schema)
            return cls({"$jsonSchema": found}, left_out)
        # Pydantic is heavy, and only what has a model needs it.
        from mongover.operations.odms import json_schema_of

        found, left_out = translated(json_schema_of(schema))
        return cls({"$jsonSchema": found}, left_out)


def as_validator(schema: Any, *, queries: bool = False) -> Validator:
    """A validator from a JSON Schema, a model, or a query that begins with `$`.

    A model is a class of pydantic, Beanie, Bunnet or ODMantic, a dataclass, a TypedDict, or a
    union of them.

    Args:
        schema: Any of them.
        queries: Whether a query may begin with the name of a field, as MongoDB's `create` has it.

    Raises:
        OperationFailed: When it is none of them, or MongoDB cannot express it.
    """
    if is_model(schema):
        return Validator.of(schema)
    if not isinstance(schema, dict) or not schema:
        raise OperationFailed(
            f"a {type(schema).__name__} is no validator" if schema else "the validator is empty",
            hint="give a JSON Schema, a pydantic model class or a query; op.drop_validator removes",
        )
    if "$jsonSchema" in schema:
        found = Validator.of(schema["$jsonSchema"])
        return Validator({**schema, **found.query}, found.left_out)
    if _is_query(schema) or (queries and not _is_schema(schema)):
        return Validator(dict(schema))
    for name in schema:
        if name not in KEYWORDS:
            raise OperationFailed(
                f"{name!r} is no keyword of JSON Schema",
                hint=nearest(name, KEYWORDS) or 'a query is written {"$and": [{"field": ...}]}',
            )
    return Validator.of(schema)


def left_out_message(namespace: str, left_out: tuple[str, ...]) -> str:
    """The warning about what a validator does not hold."""
    more = f"; and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
    return (
        f"the validator of {namespace} leaves to the application what MongoDB cannot check:"
        f" {'; '.join(left_out[:_SHOWN])}{more}"
    )


def same_validator(left: Any, right: Any) -> bool:
    """Whether two validators ask for the same, in whichever dialect of JSON Schema."""
    return bool(left == right or _normal(left) == _normal(right))


def _normal(validator: Any) -> Any:
    if not isinstance(validator, dict) or "$jsonSchema" not in validator:
        return validator
    try:
        return {**validator, "$jsonSchema": expanded(validator["$jsonSchema"])[0]}
    except OperationFailed:
        return validator


def is_model(schema: Any) -> bool:
    """Whether it is a class, or a union of classes, whose instances are documents."""
    if isinstance(schema, type) and not typing.get_origin(schema):
        return (
            hasattr(schema, "model_json_schema")
            or dataclasses.is_dataclass(schema)
            or (issubclass(schema, dict) and hasattr(schema, "__total__"))
        )
    origin = typing.get_origin(schema)
    parts = typing.get_args(schema)
    if origin is typing.Annotated:
        return is_model(parts[0])
    if origin is typing.Union or isinstance(schema, types.UnionType):
        return all(map(is_model, parts))
    return isinstance(origin, type) and is_model(origin)


def _is_query(schema: Document) -> bool:
    referring = "$ref" in schema or "$defs" in schema
    return not referring and all(name.startswith("$") for name in schema)


def _is_schema(schema: Document) -> bool:
    """Whether it can only be meant as a JSON Schema: a field may be called `title` too."""
    if not schema.keys() <= KEYWORDS:
        return False
    kinds = {"object"} & {str(schema.get("type")), str(schema.get("bsonType"))}
    required = schema.get("required")
    return bool(
        kinds
        or "$ref" in schema
        or (isinstance(required, list) and all(isinstance(name, str) for name in required))
        or _holds_schemas(schema.get("properties"))
    )


def _holds_schemas(properties: Any) -> bool:
    return isinstance(properties, dict) and all(
        isinstance(rule, dict) and rule.keys() <= KEYWORDS for rule in properties.values()
    )
