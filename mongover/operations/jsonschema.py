"""JSON Schema as pydantic and people write it, turned into the dialect that MongoDB accepts.

MongoDB knows draft 4 with `bsonType`, and refuses unknown keywords. Nothing that restricts is
dropped without a word: a keyword that MongoDB cannot express is an error, and what a model or a
`format` asks for beyond it is named. Annotations alone are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any

from mongover.errors import OperationFailed
from mongover.operations.arguments import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mongover.operations.base import Document

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
LEFT_OUT = "x-mongover-left-out"
"""Where the schema of a model says what of the model it does not hold, in words."""

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

_DEPTHS = (12, 6, 4, 3, 2, 1)
_MOST_EXPANSIONS = 500


def mongo_schema(schema: Mapping[str, Any]) -> Document:
    """The schema of whole documents in MongoDB's dialect.

    References are written out; where a model contains itself, the inner one is only required to
    be an object. A schema that forbids further fields allows `_id`, which every document has.

    Raises:
        OperationFailed: For a keyword that MongoDB cannot express or does not know.
    """
    return translated(schema)[0]


def translated(schema: Any) -> tuple[Document, tuple[str, ...]]:
    """The same, and in words what was asked for that MongoDB cannot express."""
    found, left_out = expanded(schema)
    return _with_id(found), left_out


def _with_id(schema: Document) -> Document:
    """`_id` is allowed wherever the fields of whole documents are spoken of."""
    found = dict(schema)
    for name in _SCHEMA_LISTS & found.keys():
        found[name] = [_with_id(item) for item in found[name]]
    if found.get("additionalProperties") is False and "_id" not in found.get("properties", {}):
        found["properties"] = {"_id": {}, **found.get("properties", {})}
    return found


def expanded(schema: Any) -> tuple[Document, tuple[str, ...]]:
    """The schema in MongoDB's dialect; as deep as its references allow without end."""
    if not isinstance(schema, dict):
        raise OperationFailed(f"{type(schema).__name__} is no JSON Schema", hint="write a dict")
    definitions = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    for deepest in _DEPTHS:
        dialect = _Dialect(definitions, deepest)
        found = dialect.convert(schema, _At())
        if dialect.expansions <= _MOST_EXPANSIONS:
            break
    return found, tuple(dict.fromkeys(dialect.left_out))


@dataclass(frozen=True, slots=True)
class _At:
    """Where in a schema: the fields that lead there, and the references written out around it."""

    path: tuple[str, ...] = ()
    within: tuple[str, ...] = ()

    def of(self, name: str) -> _At:
        return replace(self, path=(*self.path, name))

    def text(self) -> str:
        return ".".join(self.path) or "the document"


@dataclass(slots=True)
class _Dialect:
    """One translation: what it refers to, and what it had to leave out."""

    definitions: Mapping[str, Any]
    deepest: int
    left_out: list[str] = field(default_factory=list)
    expansions: int = 0

    def convert(self, schema: Any, at: _At) -> Document:
        if schema is True:
            return {}
        if schema is False:
            return {"not": {}}
        if not isinstance(schema, dict):
            raise OperationFailed(f"{type(schema).__name__} is no JSON Schema", hint="write a dict")
        if "$ref" in schema:
            return self._resolved(schema, at)
        found: Document = {}
        for name, value in schema.items():
            # Beside prefixItems, `items` speaks of the elements after them.
            older = "additionalItems" if name == "items" and "prefixItems" in schema else name
            found.update(self._keyword(older, value, at))
        found.update(_exclusive(schema))
        if "format" in schema and not _is_typed_by_format(schema):
            self.left_out.append(f"format {schema['format']} of {at.text()}")
        return _typed(schema, found)

    def _keyword(self, name: str, value: Any, at: _At) -> Document:
        if name.startswith(LEFT_OUT):
            self.left_out += [f"{word} of {at.text()}" for word in value]
        if name.startswith(LEFT_OUT) or name in _ANNOTATIONS or name == "type":
            return {}
        if name in _KEPT:
            return {name: _number(value)}
        if name in _SCHEMA_MAPS:
            return {name: {key: self.convert(item, at.of(key)) for key, item in value.items()}}
        if name in _SCHEMA_LISTS:
            return {name: [self.convert(item, at) for item in value]}
        return self._translated(name, value, at)

    def _sub(self, name: str, value: Any, at: _At) -> Any:
        if isinstance(value, bool) and name.startswith("additional"):
            return value
        if isinstance(value, list):
            return [self.convert(item, at.of(str(place))) for place, item in enumerate(value)]
        return self.convert(value, at if name == "not" else at.of("*"))

    def _translated(self, name: str, value: Any, at: _At) -> Document:
        if name in _SCHEMAS:
            return {name: self._sub(name, value, at)}
        if name == "const":
            return {"enum": [value]}
        if name == "prefixItems":
            return {"items": self._sub(name, value, at)}
        if name == "dependencies":
            return {
                name: {
                    key: item if isinstance(item, list) else self.convert(item, at)
                    for key, item in value.items()
                }
            }
        raise OperationFailed(
            f"MongoDB's $jsonSchema has no keyword {name!r}",
            hint=nearest(name, KEYWORDS) or "write it another way, or as a query: {'$expr': ...}",
        )

    def _resolved(self, schema: Document, at: _At) -> Document:
        reference = str(schema["$ref"])
        name = reference.rsplit("/", 1)[-1].replace("~1", "/").replace("~0", "~")
        if not reference.startswith(("#/$defs/", "#/definitions/")) or name not in self.definitions:
            raise OperationFailed(
                f"the schema points at {reference!r}, which it does not hold",
                hint='references go to "#/$defs/NAME" in the same schema',
            )
        if name in at.within or self._too_much(at):
            return self._cut(name, at)
        self.expansions += 1
        within = replace(at, within=(*at.within, name))
        found = self.convert(self.definitions[name], within)
        beside = self.convert({k: v for k, v in schema.items() if k != "$ref"}, at)
        notes = {k: v for k, v in beside.items() if k in {"title", "description"}}
        rules = {k: v for k, v in beside.items() if k not in notes}
        return {"allOf": [found, rules], **notes} if rules else {**found, **notes}

    def _too_much(self, at: _At) -> bool:
        return len(at.within) >= self.deepest or self.expansions > _MOST_EXPANSIONS

    def _cut(self, name: str, at: _At) -> Document:
        """MongoDB knows no references: what contains itself is open from there on."""
        self.left_out.append(f"what is within {name} where it repeats, at {at.text()}")
        definition = self.definitions[name]
        types_ = {definition.get("type"), definition.get("bsonType")}
        return {"bsonType": "object"} if "object" in types_ else {}


def _number(value: Any) -> Any:
    """A number as BSON can hold it: beyond 64 bits a decimal, of 34 digits."""
    if isinstance(value, Decimal) or (isinstance(value, int) and abs(value) >= 1 << 63):
        from bson import Decimal128

        return Decimal128(Context(prec=34).create_decimal(value))
    return value


def _is_typed_by_format(schema: Document) -> bool:
    wanted = schema.get("type")
    return "string" in ([wanted] if isinstance(wanted, str) else wanted or []) and (
        str(schema["format"]) in _FORMATS
    )


def _exclusive(schema: Document) -> Document:
    """Draft 6 writes `exclusiveMinimum: 0`; draft 4 `minimum: 0, exclusiveMinimum: true`."""
    found: Document = {}
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"
        value = schema.get(exclusive)
        if value is None or isinstance(value, bool):
            continue
        limit = value
        if bound in schema:
            limit = (max if bound == "minimum" else min)(value, schema[bound])
        # With both given the plain bound may be the tighter one, and then it stays inclusive.
        found = {**found, bound: _number(limit), exclusive: limit == value}
    return found


def _typed(schema: Document, found: Document) -> Document:
    """`type` as `bsonType`, which tells dates, integers and decimals apart.

    A `bsonType` that is there already says more, and stands.
    """
    wanted = schema.get("type")
    if wanted is None or "bsonType" in found:
        return found
    words = [wanted] if isinstance(wanted, str) else list(wanted)
    types_: list[str] = []
    for word in words:
        if word not in _TYPES:
            raise OperationFailed(
                f"{word!r} is no type of JSON Schema", hint=nearest(str(word), _TYPES)
            )
        formatted = _FORMATS.get(str(schema.get("format"))) if word == "string" else None
        types_ += formatted or _TYPES[word]
    types_ = list(dict.fromkeys(types_))
    return {"bsonType": types_[0] if len(types_) == 1 else types_, **found}
