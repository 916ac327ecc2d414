"""The JSON schema of what a model writes, by a generator of pydantic's that knows BSON.

The schema tells of documents, not of what the model reads: names are those that are stored, a type
is what its values are in the database, and what cannot be known accepts anything, because a
validator that refuses what the application writes is worse than none. What a model asks for and
MongoDB cannot check is said under `LEFT_OUT`.
"""

from __future__ import annotations

import datetime as dt
import enum
import inspect
import re
import uuid
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import TYPE_CHECKING, Any, ClassVar, get_origin, get_type_hints

import bson
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from mongover.operations.bsontypes import (
    INTEGERS,
    NUMBERS,
    PLAIN,
    Types,
    bson_type,
    stored,
    types_of,
)
from mongover.operations.jsonschema import LEFT_OUT
from mongover.operations.patterns import carried

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mongover.operations.base import Document

# The generator hands every kind of core schema to every method; they are plain dicts.
Core = Any

_KNOWN = "mongover_known"
_PYTHON: Mapping[str, type] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "bytes": bytes,
    "date": dt.date,
    "time": dt.time,
    "datetime": dt.datetime,
    "timedelta": dt.timedelta,
    "decimal": Decimal,
    "uuid": uuid.UUID,
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
}
_OWN_CLASSES = (
    bson.ObjectId,
    bson.Decimal128,
    bson.Int64,
    bson.Binary,
    bson.Regex,
    bson.Timestamp,
    bson.DBRef,
    bson.Code,
    dt.datetime,
)
_COMPARABLE = frozenset({"string", "int", "long", "bool", "objectId", "integer", "boolean"})
_DIGITS = 34
_LOWER = {"ge": "minimum", "gt": "exclusiveMinimum"}
_UPPER = {"le": "maximum", "lt": "exclusiveMaximum"}
_RULES = frozenset(
    {
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "pattern",
    }
)
_BSON_OF = {"string": "string", "object": "object", "array": "array", "boolean": "bool"}


class WrittenSchema(GenerateJsonSchema):
    """What plain pydantic writes: `model_dump(by_alias=True)`, given to the driver.

    Subclasses tell of other writers: how they name fields and which types they make.
    """

    table: ClassVar[Mapping[type, Types]] = PLAIN

    def __init__(self) -> None:
        super().__init__(by_alias=True)
        self.ignored_warning_kinds = {
            "skipped-choice",
            "non-serializable-default",
            "skipped-discriminator",
        }
        self.models: list[Any] = []

    # -- what a writer may decide otherwise ---------------------------------------------------

    def written(self, fields: dict[str, Core]) -> dict[str, Core]:
        """The fields of a model by name, as they are stored."""
        return fields

    def is_encoded(self, cls: type) -> bool:
        """Whether the application encodes values of the class in a way of its own."""
        del cls
        return False

    # -- the frame ----------------------------------------------------------------------------

    @property
    def mode(self) -> Any:
        """Documents are what is written, whatever a model says about its JSON schema."""
        return "serialization"

    def generate_inner(self, schema: Core) -> Document:
        """Any schema: what is known is said at once, what changes JSON Schemas alone is not asked.

        `json_schema_extra` and `WithJsonSchema` speak of JSON; only a `bsonType` in them counts.
        """
        metadata = schema.get("metadata") or {}
        kept = {k: v for k, v in metadata.items() if not _is_about_json(k)}
        updates = _updates(metadata.get("pydantic_js_updates") or {})
        bare = {**schema, "metadata": {**kept, "pydantic_js_updates": updates}}
        known = _given(metadata)
        if known is None and not schema["type"].endswith("-field"):
            known = self._known(schema, metadata)
        if known is None:
            return super().generate_inner(bare)
        return super().generate_inner(_replaced(bare, known))

    def _known(self, schema: Core, metadata: Mapping[str, Any]) -> Document | None:
        cls = schema.get("cls") or _PYTHON.get(schema["type"])
        if isinstance(cls, type) and self.is_encoded(cls):
            return {}
        for function in metadata.get("pydantic_js_functions", ()):
            owner = getattr(function, "__self__", None)
            if isinstance(owner, type) and issubclass(owner, _OWN_CLASSES):
                return self.of_class(owner)
        return None

    def of_class(self, cls: Any) -> Document:
        """The schema of the values of a class; of a class that is not known, any value's."""
        types = types_of(cls, self.table)
        return bson_type(types) if types else {}

    def any_schema(self, schema: Core) -> Document:
        """Anything, or what was found out about it before."""
        return dict((schema.get("metadata") or {}).get(_KNOWN, {}))

    def handle_invalid_for_json_schema(self, schema: Core, error_info: str) -> Document:
        """What JSON Schema cannot tell of accepts anything."""
        del schema, error_info
        return {}

    def ser_schema(self, schema: Core) -> Document | None:
        """What a serializer makes of a value in a dump for Python; None for the value itself."""
        kind = schema["type"]
        always = "json-unless-none" if kind in {"to-string", "format"} else "always"
        when = schema.get("when_used", always)
        function = schema.get("function")
        if when.startswith("json") or _is_of_pydantic(function):
            return None
        if kind not in {"function-plain", "function-wrap", "to-string", "format", "any"}:
            return None
        if function is None:
            found: Document = {} if kind == "any" else bson_type(("string",))
        elif "return_schema" in schema:
            found = self.generate_inner(schema["return_schema"])
        else:
            found = {LEFT_OUT: ["the type (it has a serializer without a return type)"]}
        return (
            self.get_flattened_anyof([found, {"type": "null"}]) if when == "unless-none" else found
        )

    def default_schema(self, schema: Core) -> Document:
        """Defaults are the application's."""
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Core) -> bool:
        """A title made of the field's name tells nothing."""
        del schema
        return False

    # -- numbers, text and time ---------------------------------------------------------------

    def int_schema(self, schema: Core) -> Document:
        """Of 32 or 64 bits, as the driver chooses."""
        return {**super().int_schema(schema), **bson_type(INTEGERS)}

    def float_schema(self, schema: Core) -> Document:
        """A double, or an integer that stands for one.

        What is a multiple of a fraction pydantic judges by a tolerance, and the server exactly.
        """
        found = super().float_schema(schema)
        left_out = [name for name in ("multipleOf",) if found.pop(name, None) is not None]
        return {**found, **bson_type(NUMBERS), **_left_out(left_out)}

    def decimal_schema(self, schema: Core) -> Document:
        """A decimal; where the application may have made a double of it, that one is rounded."""
        types = types_of(Decimal, self.table) or ()
        exact = tuple(name for name in types if name != "double")
        rules = _bounds(schema)
        words = [name for name in ("max_digits", "decimal_places", "multiple_of") if name in schema]
        found = {**bson_type(exact), **rules, **_left_out(words)}
        if exact == types:
            return found
        # A rounded bound can be reached by what was below it.
        rough = {name.replace("exclusiveM", "m"): float(limit) for name, limit in rules.items()}
        return {"anyOf": [found, {"bsonType": "double", **rough}]}

    def str_schema(self, schema: Core) -> Document:
        """Text; its pattern where the server reads it in the same way."""
        found = super().str_schema(schema)
        pattern = schema.get("pattern")
        if pattern is None:
            return found
        flags = pattern.flags & ~re.UNICODE if isinstance(pattern, re.Pattern) else 0
        theirs = None if flags else carried(found.pop("pattern"))
        if theirs is None:
            found.pop("pattern", None)
            return {**found, **_left_out(["the pattern (MongoDB reads it otherwise)"])}
        return {**found, "pattern": theirs}

    def bytes_schema(self, schema: Core) -> Document:
        """Binary; the server counts no bytes."""
        words = [name for name in ("min_length", "max_length") if name in schema]
        return {**self.of_class(bytes), **_left_out(words)}

    def _time(self, cls: type, schema: Core) -> Document:
        limits = (_LOWER.keys() | _UPPER.keys() | {"now_op", "multiple_of"}) & schema.keys()
        return {**self.of_class(cls), **_left_out(["the bounds"] if limits else [])}

    def date_schema(self, schema: Core) -> Document:
        """A day, for which BSON has no type."""
        return self._time(dt.date, schema)

    def datetime_schema(self, schema: Core) -> Document:
        """A moment."""
        return self._time(dt.datetime, schema)

    def time_schema(self, schema: Core) -> Document:
        """A time of day, which nobody but the application can encode."""
        return self._time(dt.time, schema)

    def timedelta_schema(self, schema: Core) -> Document:
        """A length of time, for which BSON has no type."""
        return self._time(dt.timedelta, schema)

    def uuid_schema(self, schema: Core) -> Document:
        """Binary; or text, where the application says so."""
        del schema
        return self.of_class(uuid.UUID)

    def url_schema(self, schema: Core) -> Document:
        """Text: the server has no formats."""
        words = ["max_length"] if "max_length" in schema else []
        return {"bsonType": "string", "format": "uri", **_left_out(words)}

    multi_host_url_schema = url_schema

    def complex_schema(self, schema: Core) -> Document:
        """Nobody but the application can encode it."""
        del schema
        return {}

    fraction_schema = complex_schema

    # -- one of several -----------------------------------------------------------------------

    def literal_schema(self, schema: Core) -> Document:
        """The values as the database holds them."""
        values = [value.value if isinstance(value, enum.Enum) else value
                  for value in schema["expected"]]  # fmt: skip
        if any(self.is_encoded(type(value)) for value in schema["expected"]):
            return {}
        return _one_of(values)

    def enum_schema(self, schema: Core) -> Document:
        """The members' values; a flag may be any sum of them."""
        if issubclass(schema["cls"], enum.Flag):
            return bson_type(INTEGERS)
        return _one_of([member.value for member in schema["members"]])

    def union_schema(self, schema: Core) -> Document:
        """Any of the choices; one that only converts to another says nothing more."""
        choices = [
            choice[0] if isinstance(choice, tuple) else choice for choice in schema["choices"]
        ]
        if any(self._instance(choice) for choice in choices):
            choices = [choice for choice in choices if not _only_converts(choice)]
        changed: Core = {**schema, "choices": choices}
        return super().union_schema(changed)

    def get_flattened_anyof(self, schemas: list[Document]) -> Document:
        """Each choice once; with one that accepts anything there is no choice."""
        flat = [choice for item in schemas for choice in _choices(item)]
        once = [choice for place, choice in enumerate(flat) if choice not in flat[:place]]
        if {} in once:
            return {}
        return once[0] if len(once) == 1 else {"anyOf": once}

    def tagged_union_schema(self, schema: Core) -> Document:
        """Any of the choices: the tag is a field of theirs, if it is one at all."""
        return self.get_flattened_anyof(
            [self.generate_inner(choice) for choice in schema["choices"].values()]
        )

    # -- classes and functions ----------------------------------------------------------------

    def _instance(self, schema: Core) -> Document:
        """The schema of the class that values are instances of, if it is known."""
        while schema["type"] in {"json-or-python", "lax-or-strict"}:
            schema = schema.get("python_schema") or schema.get("strict_schema")
        return self.of_class(schema["cls"]) if schema["type"] == "is-instance" else {}

    def is_instance_schema(self, schema: Core) -> Document:
        """The values of a class."""
        return self.of_class(schema["cls"])

    def json_or_python_schema(self, schema: Core) -> Document:
        """The driver is given what Python holds."""
        return self.generate_inner(schema["python_schema"])

    def lax_or_strict_schema(self, schema: Core) -> Document:
        """What is strictly an instance of a class is one in the end, however it was read."""
        found = self._instance(schema["strict_schema"])
        if found and found.get("bsonType") not in {"array", "object"}:
            return self.generate_inner(schema["strict_schema"])
        return self.generate_inner(schema["lax_schema"])

    def chain_schema(self, schema: Core) -> Document:
        """What the last step makes."""
        return self.generate_inner(schema["steps"][-1])

    def function_plain_schema(self, schema: Core) -> Document:
        """What the function returns, if it says so."""
        return self._result(schema["function"]["function"]) or {}

    def function_after_schema(self, schema: Core) -> Document:
        """What stood before, or what the function makes of it."""
        inner = self.generate_inner(schema["schema"])
        result = self._result(schema["function"]["function"])
        return inner if result is None else _either(inner, result)

    function_wrap_schema = function_after_schema

    def function_before_schema(self, schema: Core) -> Document:
        """What it is in the end."""
        return self.generate_inner(schema["schema"])

    def _result(self, function: Any) -> Document | None:
        """The schema of what a function returns; None where nothing speaks of a change."""
        if isinstance(function, type):
            return self.of_class(function)
        owner = getattr(function, "__self__", None)
        returned = _return_type(function)
        found = self.of_class(returned) if returned is not None else {}
        if found:
            return found
        # A type of its own, unlike a model's validator, may make whatever it wants.
        return {} if isinstance(owner, type) and not _has_fields(owner) else None

    # -- collections of values ----------------------------------------------------------------

    def set_schema(self, schema: Core) -> Document:
        """An array; unique where what Python tells apart the server tells apart too."""
        found = super().set_schema(schema)
        items = found["items"]
        types = items.get("bsonType", items.get("type", ""))
        if {types} <= _COMPARABLE if isinstance(types, str) else _COMPARABLE.issuperset(types):
            return found
        found.pop("uniqueItems", None)
        return {**found, **_left_out(["uniqueItems"])}

    frozenset_schema = set_schema

    def dict_schema(self, schema: Core) -> Document:
        """A document whose values are all of a kind; the server has no rules for keys."""
        keys = schema.get("keys_schema") or {"type": "any"}
        ruled = keys["type"] == "str" and {"pattern", "min_length", "max_length"} & keys.keys()
        found: Document = {
            "bsonType": "object",
            **_left_out(["the rules of its keys"] * bool(ruled)),
        }
        values = self.generate_inner(schema["values_schema"]) if "values_schema" in schema else {}
        if values:
            found["additionalProperties"] = values
        if keys["type"] == "str":
            self.update_with_validations(found, schema, self.ValidationsMapping.object)
        return found

    frozendict_schema = dict_schema
    ordered_dict_schema = dict_schema
    counter_schema = dict_schema

    # -- models -------------------------------------------------------------------------------

    def model_schema(self, schema: Core) -> Document:
        """A document with fields."""
        self.models.append(schema["cls"])
        try:
            return super().model_schema(schema)
        finally:
            self.models.pop()

    def model_fields_schema(self, schema: Core) -> Document:
        """The fields of a model, computed ones too: they need not be there."""
        changed = self._with_written_fields(schema)
        return _with_driver_id(super().model_fields_schema(changed))

    def _with_written_fields(self, schema: Core) -> Core:
        fields = self.written({**schema["fields"], **_computed(schema)})
        return {**schema, "fields": fields, "computed_fields": []}

    def typed_dict_schema(self, schema: Core) -> Document:
        """The keys of a TypedDict."""
        self.models.append(None)
        try:
            found = super().typed_dict_schema(self._with_written_fields(schema))
        finally:
            self.models.pop()
        return _with_driver_id(found)

    def dataclass_args_schema(self, schema: Core) -> Document:
        """The fields of a dataclass."""
        computed = [{**item, "name": name} for name, item in _computed(schema).items()]
        changed: Core = {**schema, "fields": [*schema["fields"], *computed], "computed_fields": []}
        return _with_driver_id(super().dataclass_args_schema(changed))

    def field_is_required(self, field: Core, total: bool) -> bool:  # noqa: FBT001 - the generator's signature
        """Whether every document has it."""
        if field["type"] == "typed-dict-field":
            return bool(field.get("required", total))
        conditional = field.get("serialization_exclude_if") is not None
        return field["schema"]["type"] != "default" and not conditional

    def _update_class_schema(self, json_schema: Document, cls: type[Any], config: Any) -> None:
        json_schema["title"] = config.get("title") or cls.__name__
        words = cls.__doc__ or ""
        if cls is not BaseModel and words and not words.startswith(f"{cls.__name__}("):
            json_schema["description"] = inspect.cleandoc(words)
        if config.get("extra") == "forbid":
            json_schema["additionalProperties"] = False


# -- decisions without the generator ----------------------------------------------------------


def _is_about_json(name: str) -> bool:
    return name.startswith("pydantic_js_") and "positional" not in name


def _updates(updates: Mapping[str, Any]) -> Document:
    """Of what a field adds to its schema, the words: its rules are of what JSON holds."""
    words = {name: updates[name] for name in ("title", "description") if name in updates}
    rules = sorted(_RULES & updates.keys())
    return {**words, **({f"{LEFT_OUT}-too": rules} if rules else {})}


def _given(metadata: Mapping[str, Any]) -> Document | None:
    """The schema that says which type of BSON a value has, where the model says it itself."""
    owners = (
        getattr(function, "__self__", None)
        for function in metadata.get("pydantic_js_annotation_functions", ())
    )
    given = [metadata.get("pydantic_js_extra"), *(getattr(o, "json_schema", None) for o in owners)]
    for schema in given:
        if isinstance(schema, dict) and "bsonType" in schema:
            return {"bsonType": schema["bsonType"]}
    return None


def _replaced(schema: Core, known: Document) -> Core:
    """Another schema in the place of one, or of a field's: it says what is known."""
    kept = {name: schema[name] for name in ("ref", "serialization") if name in schema}
    metadata = {**schema["metadata"], _KNOWN: known}
    if not schema["type"].endswith("-field"):
        return {"type": "any", **kept, "metadata": metadata}
    inner = {"type": "any", "metadata": {_KNOWN: known}}
    name = "return_schema" if schema["type"] == "computed-field" else "schema"
    return {**schema, name: inner}


def _is_of_pydantic(function: Any) -> bool:
    return (getattr(function, "__module__", None) or "").partition(".")[0] == "pydantic"


def _left_out(words: Iterable[str]) -> Document:
    found = list(words)
    return {LEFT_OUT: found} if found else {}


def _bounds(schema: Core) -> Document:
    """The bounds of a decimal; of one that was written as a double, the wider reading."""
    sides: tuple[tuple[dict[str, str], Any, str], ...] = (
        (_LOWER, min, ROUND_FLOOR),
        (_UPPER, max, ROUND_CEILING),
    )
    return {
        keyword: Context(_DIGITS, outward).create_decimal(
            wider(Decimal(str(bound)), Decimal(bound))
        )
        for names, wider, outward in sides
        for name, keyword in names.items()
        if (bound := schema.get(name)) is not None
    }


def _one_of(values: Iterable[Any]) -> Document:
    """One of the values as the database holds them; anything, where it cannot hold them all."""
    found: list[Any] = []
    for value in values:
        try:
            held = stored(value)
        except ValueError:
            return {}
        # To Python True is 1; to the server they are two.
        if not any(held == other and _kind(held) == _kind(other) for other in found):
            found.append(held)
    return {"enum": found}


def _kind(value: Any) -> bool:
    return isinstance(value, bool)


def _only_converts(choice: Core) -> bool:
    """Whether a choice is a function that makes of something what another choice is already."""
    if choice["type"] == "chain":
        choice = choice["steps"][-1]
    if choice["type"] != "function-plain":
        return False
    function = choice["function"]["function"]
    owner = getattr(function, "__self__", None)
    return not isinstance(owner, type) and _return_type(function) is None


def _return_type(function: Any) -> Any:
    """The class that a function says to return; None where it says nothing of use."""
    try:
        hint = get_type_hints(function).get("return")
    except (NameError, TypeError, AttributeError, SyntaxError, ValueError):
        return None
    return None if hint is Any else get_origin(hint) or hint


def _has_fields(cls: type) -> bool:
    return hasattr(cls, "__pydantic_fields__") or hasattr(cls, "model_fields")


def _either(inner: Document, result: Document) -> Document:
    """What a function was given or what it returns: its hint may tell less than the truth."""
    types = result.get("bsonType")
    before = inner.get("bsonType", _BSON_OF.get(inner.get("type", "")))
    return inner if types == before or not inner else {"anyOf": [inner, result]} if types else {}


def _computed(schema: Core) -> dict[str, Core]:
    """The computed fields of a model as fields that need not be there."""
    return {
        field["property_name"]: {
            "type": "dataclass-field" if "dataclass_name" in schema else "model-field",
            "schema": core_schema.with_default_schema(field["return_schema"]),
            "serialization_alias": field.get("alias", field["property_name"]),
            "metadata": field.get("metadata") or {},
        }
        for field in schema.get("computed_fields", ())
    }


def _choices(schema: Document) -> list[Document]:
    return schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]


def _with_driver_id(found: Document) -> Document:
    """An `_id` that the model reads as text is an ObjectId where the driver made it."""
    own = found.get("properties", {}).get("_id")
    if own and _is_text(own):
        found["properties"]["_id"] = {"anyOf": [{"bsonType": "objectId"}, own]}
    return found


def _is_text(schema: Document) -> bool:
    return "string" in {schema.get("type"), schema.get("bsonType")} or any(
        _is_text(item) for item in schema.get("anyOf", ())
    )
