"""A value of one BSON type as another, where nothing of it is lost: expressions for the server.

`$convert` alone cuts 1.9 to 1, keeps six digits of a double in a string and fifteen in a decimal,
and takes every string for true. Here each result is compared with what it came from, and is null
where the two are not the same. Strings are compared by patterns alone: a collation would take
"007" for "7".
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from mongover.operations.base import Document

TYPES: Final = ("double", "string", "objectId", "bool", "date", "int", "long", "decimal")

_NOTHING: Final[Document] = {"$literal": None}
_INTEGER: Final = r"\A(0|-?[1-9][0-9]*)\z"
# As JSON writes it, and no longer than what a decimal holds: 34 digits.
_NUMBER: Final = (
    r"\A(?=.{1,34}\z)-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?\z|\A(NaN|-?Infinity)\z"
)
_ISO: Final = (
    r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,3}0*)?)?(Z|[-+][0-9]{2}:?[0-9]{2})?)?\z"
)
# A year in two digits is read by `%Y` as one of the first century.
_EARLIEST: Final = datetime(1000, 1, 1, tzinfo=UTC)
_WRITABLE: Final = (-62_167_219_200_000, 253_402_300_799_999)  # the years 0 to 9999
_DIGITS: Final = (16, 17)  # $convert keeps fifteen; seventeen tell every double from every other
_PLACES: Final = (-20, 100)  # what $round takes


def converted(value: Any, to: str, *, form: str = "", timezone: str = "") -> Document:
    """The expression for `value` as the type `to`; null where it cannot be, or would lose.

    Args:
        value: An expression, such as `"$age"`.
        to: One of `TYPES`.
        form: How dates are written in strings, as in `$dateFromString`; ISO 8601 without one.
        timezone: The time zone of dates in strings that name none.
    """
    ways = _to_date(form, timezone) if to == "date" else _WAYS[to]()
    branches = [
        {"case": {"$eq": [{"$type": "$$v"}, kind]}, "then": way}
        for kinds, way in ways.items()
        for kind in kinds.split()
    ]
    return _let("v", value, {"$switch": {"branches": branches, "default": _NOTHING}})


# -- from each type, by the type that it becomes ----------------------------------------------


def _to_int() -> dict[str, Any]:
    return {
        "long double decimal": _same("int"),
        "bool": _as("$$v", "int"),
        "string": _written(_INTEGER, _as("$$v", "int")),
    }


def _to_long() -> dict[str, Any]:
    return {
        "int bool date": _as("$$v", "long"),
        "double decimal": _same("long"),
        "string": _written(_INTEGER, _as("$$v", "long")),
    }


def _to_double() -> dict[str, Any]:
    return {
        "int long": _same("double"),
        "bool": _as("$$v", "double"),
        "decimal": _nearest("$$v"),
        "string": _written(_NUMBER, _nearest(_as("$$v", "decimal"))),
        "date": _back("double", "date"),
    }


def _to_decimal() -> dict[str, Any]:
    return {
        "int long bool date": _as("$$v", "decimal"),
        "double": _decimal_of_double(),
        "string": _let("w", _as("$$v", "decimal"), _if(_is_exact("$$w"), "$$w")),
    }


def _to_string() -> dict[str, Any]:
    return {
        "int long bool decimal objectId": _as("$$v", "string"),
        "date": _string_of_date(),
        "double": _string_of_double(),
    }


def _to_bool() -> dict[str, Any]:
    number = _first((({"$eq": ["$$v", 1]}, True), ({"$eq": ["$$v", 0]}, False)))
    text = _first(((_matches(r"\Atrue\z"), True), (_matches(r"\Afalse\z"), False)))
    return {"int long double decimal": number, "string": text}


def _to_date(form: str, timezone: str) -> dict[str, Any]:
    reading: Document = {"dateString": "$$v", "onError": _NOTHING, "onNull": _NOTHING}
    reading |= {"timezone": {"$literal": timezone}} if timezone else {}
    if form:
        read = {"$dateFromString": {**reading, "format": {"$literal": form}}}
        text = _let("w", read, _if({"$gte": ["$$w", _EARLIEST]}, "$$w"))
    else:
        text = _written(_ISO, {"$dateFromString": reading})
    return {
        "long": _as("$$v", "date"),
        "double decimal": _back("date", "long"),
        "string": text,
    }


def _to_object_id() -> dict[str, Any]:
    return {"string": _as("$$v", "objectId")}


_WAYS: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "double": _to_double,
    "string": _to_string,
    "objectId": _to_object_id,
    "bool": _to_bool,
    "int": _to_int,
    "long": _to_long,
    "decimal": _to_decimal,
}


# -- doubles and decimals ---------------------------------------------------------------------


def _nearest(decimal: Any) -> Document:
    """`$$v` as a double, if that is the decimal itself or what its 15 to 17 digits say."""
    written = [_as("$$w", "decimal"), *(_rounded("$$w", digits) for digits in _DIGITS)]
    same = {"$or": [{"$eq": [one, "$$d"]} for one in ("$$w", *written)]}
    double = _if({"$eq": [{"$type": "$$w"}, "double"]}, _if(same, "$$w"))
    return _let("d", decimal, _let("w", _as("$$v", "double"), double))


def _decimal_of_double() -> Document:
    """`$$v`, a double, as the shortest decimal that is this double again."""
    short = [_rounded("$$v", digits) for digits in _DIGITS]
    found: Any = _NOTHING
    for one in reversed((_as("$$v", "decimal"), *short)):
        again = {"$eq": [_as("$$d", "double"), "$$v"]}
        found = _let("d", one, {"$cond": [again, "$$d", found]})
    exact = {"$cond": [{"$eq": ["$$w", "$$v"]}, _as("$$w", "decimal"), found]}
    return _let("w", _as("$$v", "long"), exact)


def _string_of_double() -> Document:
    """`$$v`, a double, as the shortest string that is this double again."""
    digits = _let("d", _decimal_of_double(), _trimmed(_as("$$d", "string")))
    short = {"$cond": [{"$eq": [_as("$$s", "double"), "$$v"]}, "$$s", digits]}
    found = _let("s", _as("$$v", "string"), short)
    whole = {"$cond": [{"$eq": ["$$w", "$$v"]}, _as("$$w", "string"), found]}
    return _let("w", _as("$$v", "long"), whole)


def _rounded(double: str, digits: int) -> Document:
    """A double as a decimal of so many digits; it is null for zero and what is no number."""
    from bson import Decimal128

    # $add alone keeps all digits of a double; every other way rounds to fifteen.
    all_digits = {"$add": [double, Decimal128("0")]}
    power = {"$floor": {"$log10": {"$abs": "$$a"}}}
    low, high = _PLACES
    place = {"$max": [low, {"$min": [high, {"$subtract": [digits - 1, power]}]}]}
    finite = {"$and": [{"$ne": ["$$a", 0]}, {"$lt": [{"$abs": "$$a"}, float("inf")]}]}
    rounded = {"$round": ["$$a", {"$toInt": place}]}
    is_number = {"$gte": ["$$a", float("-inf")]}  # below it are NaN and null
    return _let("a", all_digits, _if({"$and": [is_number, finite]}, rounded))


def _is_exact(decimal: str) -> Document:
    """Whether a decimal has all digits of the string `$$v`: few, or all as the server writes it."""
    text = _as(decimal, "string")
    length = {"$strLenBytes": "$$v"}
    begins = {"$eq": [{"$indexOfBytes": ["$$t", "$$v"]}, 0]}
    same = {"$and": [begins, {"$eq": [{"$strLenBytes": "$$t"}, length]}]}
    known = {"$and": [{"$ne": ["$$t", None]}, same]}
    return {"$or": [_matches(_NUMBER), _let("t", text, known)]}


def _trimmed(text: Any) -> Document:
    """A number in a string without zeros at the end of its fraction."""
    plain = {"$regexMatch": {"input": "$$s", "regex": r"\A[^E]*\.[^E]*\z"}}
    bare = {"$rtrim": {"input": {"$rtrim": {"input": "$$s", "chars": "0"}}, "chars": "."}}
    return _let("s", text, {"$cond": [plain, bare, "$$s"]})


def _string_of_date() -> Document:
    """`$$v`, a date of a year that has four digits."""
    from bson.datetime_ms import DatetimeMS

    # Of any other, $convert raises 18537, whatever its `onError` says.
    first, last = map(DatetimeMS, _WRITABLE)
    inside = {"$and": [{"$gte": ["$$v", first]}, {"$lte": ["$$v", last]}]}
    return _if(inside, _as("$$v", "string"))


# -- small parts ------------------------------------------------------------------------------


def _as(value: Any, to: str) -> Document:
    parts = {"input": value, "to": to, "onError": _NOTHING, "onNull": _NOTHING}
    return {"$convert": parts}


def _let(name: str, value: Any, inside: Any) -> Document:
    return {"$let": {"vars": {name: value}, "in": inside}}


def _if(condition: Any, value: Any) -> Document:
    return {"$cond": [condition, value, _NOTHING]}


def _first(cases: tuple[tuple[Any, Any], ...]) -> Document:
    branches = [{"case": case, "then": {"$literal": value}} for case, value in cases]
    return {"$switch": {"branches": branches, "default": _NOTHING}}


def _matches(pattern: str) -> Document:
    return {"$regexMatch": {"input": "$$v", "regex": pattern}}


def _written(pattern: str, value: Any) -> Document:
    return _if(_matches(pattern), value)


def _same(to: str) -> Document:
    """`$$v`, a number, as another type of number, if that is the same number."""
    return _let("w", _as("$$v", to), _if({"$eq": ["$$w", "$$v"]}, "$$w"))


def _back(to: str, through: str) -> Document:
    """`$$v` as another type, if that leads back to it."""
    return _let("w", _as("$$v", to), _if({"$eq": [_as("$$w", through), "$$v"]}, "$$w"))
