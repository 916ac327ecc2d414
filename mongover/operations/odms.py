"""Who writes the documents of a model: pydantic alone, Beanie (and Bunnet), or ODMantic.

None of them is imported: a model is known by the classes that it is made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, get_args

from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticOmit, core_schema

from mongover.errors import OperationFailed
from mongover.operations.bsontypes import BEANIE, Types
from mongover.operations.jsonschema import LEFT_OUT
from mongover.operations.models import WrittenSchema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mongover.operations.base import Document

_NEVER_NULL = frozenset(
    {
        "str",
        "int",
        "float",
        "bool",
        "bytes",
        "date",
        "time",
        "datetime",
        "timedelta",
        "decimal",
        "uuid",
        "list",
        "tuple",
        "set",
        "frozenset",
        "dict",
        "model",
        "enum",
        "url",
        "multi-host-url",
        "typed-dict",
    }
)
_CHECKS = frozenset({"function-before", "function-after", "default"})


def json_schema_of(model: Any) -> Document:
    """The JSON schema of the documents that a model writes.

    Raises:
        OperationFailed: When the model is not complete, or does not describe documents.
    """
    name = getattr(model, "__name__", str(model))
    generator = _writer(model)
    try:
        found: Document = generator.generate(TypeAdapter(model).core_schema, mode="serialization")
    except (PydanticUserError, PydanticSchemaGenerationError) as error:
        reason = str(error).splitlines()[0]
        raise OperationFailed(
            f"the model {name} has no schema: {reason}",
            hint="define or import what it refers to before it is given to a validator",
        ) from error
    types = found.get("bsonType", found.get("type"))
    if types is not None and types != "object":
        raise OperationFailed(
            f"{name} describes no documents, but {types}",
            hint="give the model of whole documents",
        )
    return found


def _writer(model: Any) -> WrittenSchema:
    parts = _classes(model)
    if any(hasattr(part, "__odm_fields__") for part in parts):
        return OdmanticSchema()
    beanie = [part for part in parts if _is_beanie(part)]
    return BeanieSchema(beanie) if beanie else WrittenSchema()


def _classes(model: Any) -> list[Any]:
    if isinstance(model, type) and not get_args(model):
        return [model]
    return [found for part in get_args(model) for found in _classes(part)]


def _is_beanie(cls: Any) -> bool:
    """Whether it is a Document, or a union or view of them."""
    modules = {base.__module__.partition(".")[0] for base in getattr(cls, "__mro__", ())}
    return bool(modules & {"beanie", "bunnet"})


class BeanieSchema(WrittenSchema):
    """What Beanie and Bunnet write: they ask no serializer, and leave computed fields out."""

    table: ClassVar[Mapping[type, Types]] = BEANIE

    def __init__(self, documents: list[Any]) -> None:
        super().__init__()
        self.keeps_nulls = all(_setting(cls, "keep_nulls", default=True) for cls in documents)
        self.encoders = tuple(
            key
            for cls in documents
            for key in _setting(cls, "bson_encoders", default={})
            if isinstance(key, type)
        )

    def ser_schema(self, schema: Any) -> None:
        """Serializers of pydantic are not asked."""
        del schema

    def is_encoded(self, cls: type) -> bool:
        """By `bson_encoders`, of the documents given or of one that is embedded."""
        own = _setting(self.models[-1], "bson_encoders", default={}) if self.models else {}
        return issubclass(cls, (*self.encoders, *(key for key in own if isinstance(key, type))))

    def written(self, fields: dict[str, Any]) -> dict[str, Any]:
        """By their aliases, of whichever kind; nothing else knows of a second one."""
        known = getattr(self.models[-1], "model_fields", {})
        return {
            name: self._field(name, field, known.get(name))
            for name, field in fields.items()
            if name in known or not known
        }

    def _field(self, name: str, field: dict[str, Any], info: Any) -> dict[str, Any]:
        named = {**field, "serialization_alias": getattr(info, "alias", None) or name}
        if name == "revision_id" and _is_beanie(self.models[-1]):
            named["serialization_exclude"] = False
        if info is None or self.keeps_nulls or not _may_be_null(field["schema"]):
            return named
        return {**named, "schema": core_schema.with_default_schema(field["schema"])}

    def function_plain_schema(self, schema: Any) -> Document:
        """A link is stored as a DBRef; the way back is not stored."""
        function = schema["function"]["function"]
        module = (getattr(function, "__module__", "") or "").partition(".")[0]
        if module in {"beanie", "bunnet"}:
            owner = function.__qualname__.partition(".")[0]
            if owner == "BackLink":
                raise PydanticOmit
            if owner == "Link":
                return {"bsonType": "object"}
        return super().function_plain_schema(schema)

    def _update_class_schema(self, json_schema: Document, cls: type[Any], config: Any) -> None:
        super()._update_class_schema(json_schema, cls, config)
        if json_schema.get("additionalProperties") is not False or not _is_beanie(cls):
            return
        if any(_setting(base, "is_root", default=False) for base in cls.__mro__):
            del json_schema["additionalProperties"]
            json_schema[LEFT_OUT] = ["extra = forbid (subclasses have further fields)"]
            return
        class_id = _setting(cls, "class_id", default="_class_id")
        json_schema.setdefault("properties", {})[class_id] = {"bsonType": "string"}


def _setting(cls: Any, name: str, *, default: Any) -> Any:
    return getattr(getattr(cls, "Settings", None), name, default)


def _may_be_null(schema: Any) -> bool:
    while schema["type"] in _CHECKS:
        schema = schema["schema"]
    return schema["type"] not in _NEVER_NULL


class OdmanticSchema(WrittenSchema):
    """What ODMantic writes: fields by key names, a reference as the `_id` of what it refers to."""

    def written(self, fields: dict[str, Any]) -> dict[str, Any]:
        """By key names; what is no model of ODMantic's by the names of the fields."""
        known = getattr(self.models[-1], "__odm_fields__", None)
        if known is None:
            return {name: {**field, "serialization_alias": name} for name, field in fields.items()}
        return {
            name: _odmantic_field(field, known[name])
            for name, field in fields.items()
            if name in known
        }


def _odmantic_field(field: dict[str, Any], known: Any) -> dict[str, Any]:
    named = {**field, "serialization_alias": known.key_name}
    if type(known).__name__ == "ODMReference":
        key = known.model.model_fields[known.model.__primary_field__]
        named["schema"] = TypeAdapter(key.rebuild_annotation()).core_schema
    return named
