"""Which types of BSON a value of a Python class has once it is stored."""

from __future__ import annotations

import collections
import datetime as dt
import ipaddress
import pathlib
import re
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import bson
from bson.datetime_ms import DatetimeMS
from bson.errors import InvalidDocument
from bson.raw_bson import RawBSONDocument
from pydantic import AnyUrl, SecretBytes, SecretStr

if TYPE_CHECKING:
    from mongover.operations.base import Document

Types = tuple[str, ...]

_IPS = (
    ipaddress.IPv4Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Address,
    ipaddress.IPv6Network,
)
INTEGERS: Types = ("int", "long")
NUMBERS: Types = ("double", *INTEGERS)

# Where BSON has no type for a class, or the driver needs to be told, the application decides: both
# the natural type of BSON and what pydantic writes as JSON are accepted. Subclasses stand first.
PLAIN: Mapping[type, Types] = {
    bson.ObjectId: ("objectId",),
    bson.Decimal128: ("decimal",),
    bson.Int64: INTEGERS,
    bson.Binary: ("binData",),
    bson.Regex: ("regex",),
    bson.Timestamp: ("timestamp",),
    bson.DBRef: ("object",),
    bson.Code: ("javascript", "javascriptWithScope"),
    bson.MinKey: ("minKey",),
    bson.MaxKey: ("maxKey",),
    DatetimeMS: ("date",),
    RawBSONDocument: ("object",),
    re.Pattern: ("regex",),
    bool: ("bool",),
    int: INTEGERS,
    float: NUMBERS,
    str: ("string",),
    bytes: ("binData",),
    dt.datetime: ("date",),
    dt.date: ("date", "string"),
    dt.timedelta: (*NUMBERS, "string"),
    Decimal: ("decimal", *INTEGERS, "double", "string"),
    uuid.UUID: ("binData", "string"),
    pathlib.PurePath: ("string",),
    SecretStr: ("string",),
    SecretBytes: ("binData", "string"),
    AnyUrl: ("string",),
    **dict.fromkeys(_IPS, ("string",)),
    Mapping: ("object",),
    list: ("array",),
    tuple: ("array",),
    set: ("array",),
    frozenset: ("array",),
    collections.deque: ("array",),
}

# Beanie and Bunnet encode these by themselves, in one way.
BEANIE: Mapping[type, Types] = {
    **PLAIN,
    dt.date: ("date",),
    dt.timedelta: NUMBERS,
    Decimal: ("decimal",),
    uuid.UUID: ("binData",),
    SecretBytes: ("binData",),
}


def types_of(cls: Any, table: Mapping[type, Types]) -> Types | None:
    """The types that its values have in the database; None where they cannot be known."""
    if not isinstance(cls, type):
        return None
    return next((types for base, types in table.items() if issubclass(cls, base)), None)


def bson_type(types: Types) -> Document:
    """A schema that asks for one of the types."""
    return {"bsonType": types[0] if len(types) == 1 else list(types)}


def stored(value: Any) -> Any:
    """The value as it comes back from the database.

    Raises:
        ValueError: When BSON has no type for it, or several that the application chooses from.
    """
    if isinstance(value, uuid.UUID | dict):
        raise ValueError("how it is stored is for the application to say")  # noqa: TRY004 - it may be any value
    try:
        hash(value)
        return bson.decode(bson.encode({"v": value}))["v"]
    except (InvalidDocument, OverflowError, TypeError) as error:
        raise ValueError(str(error)) from error
