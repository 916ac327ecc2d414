"""JSON Schema as pydantic and people write it, turned into the dialect that MongoDB accepts.

MongoDB knows draft 4 with `bsonType`, and refuses unknown keywords. Nothing that restricts is
ever dropped: a keyword that MongoDB cannot express is an error, annotations alone are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mongover.errors import OperationFailed
from mongover.operations.base import Document, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPES: Mapping[str, tuple[str, ...]] = {
    "integer": ("int", "long"),
    "number": ("number",),
    "boolean": ("bool",),
    "string": ("string",),
    "object": ("object",),
    "array": ("array",),
    "null": ("null",),
}
_FORMATS: Mapping[str, tuple[str, ...]] = {
    "date-time": ("date",),
    "date": ("date",),
    "uuid": ("binData", "string"),
    "binary": ("binData",),
}
_ANNOTATIONS = frozenset(
    {
        "$schema",
        "$id",
        "$comment",
        "$defs",
        "definitions",
        "id",
        "default",
        "format",
        "examples",
        "example",
        "deprecated",
        "readOnly",
        "writeOnly",
        "discriminator",
        "contentEncoding",
        "contentMediaType",
    }
)
_KEPT = frozenset(
    {
        "bsonType",
        "type",
        "title",
        "description",
        "required",
        "enum",
        "pattern",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "encrypt",
        "encryptMetadata",
    }
)
_SCHEMA_MAPS = frozenset({"properties", "patternProperties"})
_SCHEMA_LISTS = frozenset({"anyOf", "allOf", "oneOf"})
_SCHEMAS = frozenset({"not", "additionalProperties", "additionalItems", "items"})
_MORE = frozenset({"$ref", "const", "prefixItems", "dependencies"})
KEYWORDS = _ANNOTATIONS | _KEPT | _SCHEMA_MAPS | _SCHEMA_LISTS | _SCHEMAS | _MORE


def mongo_schema(schema: Mapping[str, Any]) -> Document:
    """The schema of whole documents in MongoDB's dialect.

    References are written out; where a model contains itself, the inner one is only required to
    be an object. A schema that forbids further fields allows `_id`, which every document has.

    Raises:
        OperationFailed: For a keyword that MongoDB cannot express or does not know.
    """
    definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    found = _convert(schema, definitions, ())
    if found.get("additionalProperties") is False and "_id" not in found.get("properties", {}):
        found["properties"] = {"_id": {}, **found.get("properties", {})}
    return found


def model_schema(model: Any) -> Document:
    """The schema of a pydantic model class, by the names its documents have (aliases)."""
    return mongo_schema(model.model_json_schema(by_alias=True))


def _convert(schema: Any, definitions: Mapping[str, Any], path: tuple[str, ...]) -> Document:
    if schema is True:
        return {}
    if schema is False:
        return {"not": {}}
    if not isinstance(schema, dict):
        raise OperationFailed(f"{type(schema).__name__} is no JSON Schema", hint="write a dict")
    if "$ref" in schema:
        return _resolved(schema, definitions, path)
    found: Document = {}
    for name, value in schema.items():
        # Beside prefixItems, `items` speaks of the elements after them.
        older = "additionalItems" if name == "items" and "prefixItems" in schema else name
        found.update(_keyword(older, value, definitions, path))
    found.update(_exclusive(schema))
    return _typed(schema, found)


def _keyword(
    name: str, value: Any, definitions: Mapping[str, Any], path: tuple[str, ...]
) -> Document:
    if name in _ANNOTATIONS or name == "type":
        return {}
    if name in _KEPT:
        return {name: value}
    if name in _SCHEMA_MAPS:
        return {name: {key: _convert(item, definitions, path) for key, item in value.items()}}
    if name in _SCHEMA_LISTS:
        return {name: [_convert(item, definitions, path) for item in value]}
    if name in _SCHEMAS:
        return {name: _sub(name, value, definitions, path)}
    return _translated(name, value, definitions, path)


def _sub(name: str, value: Any, definitions: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    if isinstance(value, bool) and name.startswith("additional"):
        return value
    if isinstance(value, list):
        return [_convert(item, definitions, path) for item in value]
    return _convert(value, definitions, path)


def _translated(
    name: str, value: Any, definitions: Mapping[str, Any], path: tuple[str, ...]
) -> Document:
    if name == "const":
        return {"enum": [value]}
    if name == "prefixItems":
        return {"items": [_convert(item, definitions, path) for item in value]}
    if name == "dependencies":
        return {
            name: {
                key: item if isinstance(item, list) else _convert(item, definitions, path)
                for key, item in value.items()
            }
        }
    raise OperationFailed(
        f"MongoDB's $jsonSchema has no keyword {name!r}",
        hint=nearest(name, KEYWORDS) or "write it another way, or as a query: {'$expr': ...}",
    )


def _resolved(schema: Document, definitions: Mapping[str, Any], path: tuple[str, ...]) -> Document:
    reference = str(schema["$ref"])
    name = reference.rsplit("/", 1)[-1].replace("~1", "/").replace("~0", "~")
    if not reference.startswith(("#/$defs/", "#/definitions/")) or name not in definitions:
        raise OperationFailed(
            f"the schema points at {reference!r}, which it does not hold",
            hint='references go to "#/$defs/NAME" in the same schema',
        )
    if name in path:
        return {"bsonType": "object"}
    found = _convert(definitions[name], definitions, (*path, name))
    beside = _convert({k: v for k, v in schema.items() if k != "$ref"}, definitions, path)
    notes = {k: v for k, v in beside.items() if k in {"title", "description"}}
    rules = {k: v for k, v in beside.items() if k not in notes}
    return {"allOf": [found, rules], **notes} if rules else {**found, **notes}


def _exclusive(schema: Document) -> Document:
    """Draft 6 writes `exclusiveMinimum: 0`; draft 4 `minimum: 0, exclusiveMinimum: true`."""
    found: Document = {}
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"
        value = schema.get(exclusive)
        if value is None or isinstance(value, bool):
            continue
        tighter = max if bound == "minimum" else min
        limit = tighter(value, schema.get(bound, value))
        # With both given the plain bound may be the tighter one, and then it stays inclusive.
        found = {**found, bound: limit, exclusive: limit == value}
    return found


def _typed(schema: Document, found: Document) -> Document:
    """`type` as `bsonType`, which tells dates, integers and decimals apart."""
    wanted = schema.get("type")
    if wanted is None:
        return found
    words = [wanted] if isinstance(wanted, str) else list(wanted)
    types: list[str] = []
    for word in words:
        if word not in _TYPES:
            raise OperationFailed(
                f"{word!r} is no type of JSON Schema", hint=nearest(str(word), _TYPES)
            )
        formatted = _FORMATS.get(str(schema.get("format"))) if word == "string" else None
        types += formatted or _TYPES[word]
    types = list(dict.fromkeys(types))
    rest = {k: v for k, v in found.items() if k != "bsonType"}
    return {"bsonType": types[0] if len(types) == 1 else types, **rest}
