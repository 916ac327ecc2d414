"""Every cell of the table of conversions, on the server, beside what Python says of it."""

from __future__ import annotations

import datetime as dt
import math
import re
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from bson import Binary, Decimal128, Int64, ObjectId, Regex, Timestamp, encode
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mongover.errors import OperationFailed
from tests.support.operations_support import Desk, rebuilt, recorded

if TYPE_CHECKING:
    from pymongo.database import Database

    Db = Database[dict[str, Any]]

MUST, MAY, NEVER = "must", "may", "never"
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
DECIMAL = Context(prec=34, Emin=-6143, Emax=6144)
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")
FIRST, LAST = -62167219200000, 253402300799999  # the milliseconds of the years 0 and 9999


# -- what Python says: whether a value must, may or never can become another type ---------------


def decimal_of(value: Any) -> Decimal:
    """A number exactly."""
    return value.to_decimal() if isinstance(value, Decimal128) else Decimal(value)


def in_bounds(value: Any, to: str) -> str:
    bits = 31 if to == "int" else 63
    exact = decimal_of(value)
    whole = exact.is_finite() and exact == exact.to_integral_value()
    return MUST if whole and -(2**bits) <= exact < 2**bits else NEVER


def as_double(exact: Decimal) -> str:
    """Whether a decimal is a double, or the 15 to 17 digits of one."""
    if not exact.is_finite():
        return MUST
    found = float(exact)
    if math.isinf(found):
        return NEVER
    if Decimal(found) == exact:
        return MUST if not exact or abs(found) > 1e-300 else MAY
    digits = [Decimal(f"{found:.{places}e}") for places in (14, 15, 16)]
    if exact not in digits:
        return NEVER
    power = abs(exact).adjusted()
    ordinary = -84 <= power <= 35 or (exact == digits[0] and power > -300)
    return MUST if ordinary else MAY


def of_double(value: float) -> str:
    """Whether a double's digits can be written."""
    if not math.isfinite(value) or not value:
        return MUST
    power = Decimal(value).adjusted()
    short = float(f"{value:.14e}") == value and power > -300
    return MUST if short or -84 <= power <= 35 else MAY


def text_as_decimal(text: str) -> str:
    if text in {"NaN", "Infinity", "-Infinity"} or (NUMBER.fullmatch(text) and len(text) <= 34):
        return MUST
    try:
        return MUST if str(Decimal128(text)) == text else NEVER
    except ArithmeticError:
        return NEVER


def text_as_double(text: str) -> str:
    if text in {"NaN", "Infinity", "-Infinity"}:
        return MUST
    if not NUMBER.fullmatch(text) or len(text) > 34:
        return NEVER
    return as_double(Decimal(text))


def text_as_date(text: str) -> str:
    shape = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,3}0*)?)?(Z|[-+](\d\d):?(\d\d))?)?"
    found = re.fullmatch(shape, text, re.ASCII)
    if found is None:
        return NEVER
    try:
        dt.datetime.fromisoformat(text)
    except ValueError:
        return MAY if found[5] or text.startswith("0000") else NEVER
    return MUST if not found[5] or int(found[5]) < 12 else MAY


def verdict(value: Any, to: str) -> str:  # noqa: C901, PLR0911, PLR0912 - the table itself
    kind = kind_of(value)
    match kind, to:
        case "bool", "int" | "long" | "double" | "decimal" | "string":
            return MUST
        case "int" | "long" | "double" | "decimal", "int" | "long":
            return in_bounds(value, to)
        case "int" | "long", "double":
            return MUST if Decimal(float(value)) == value else NEVER
        case "decimal", "double":
            return as_double(decimal_of(value))
        case "int" | "long", "decimal" | "string":
            return MUST
        case ("decimal", "string") | ("date", "long" | "decimal") | ("objectId", "string"):
            return MUST
        case "double", "decimal" | "string":
            return of_double(value)
        case "int" | "long" | "double" | "decimal", "bool":
            return MUST if decimal_of(value) in (0, 1) else NEVER
        case "long", "date":
            return MUST
        case "double" | "decimal", "date":
            return in_bounds(value, "long")
        case "date", "double":
            return MUST if float(int(value)) == int(value) and int(value) < 2**63 - 600 else NEVER
        case "date", "string":
            return MUST if FIRST <= int(value) <= LAST else NEVER
        case "string", "int" | "long":
            whole = re.fullmatch(r"0|-?[1-9][0-9]*", value, re.ASCII)
            return in_bounds(Decimal(value), to) if whole else NEVER
        case "string", "double":
            return text_as_double(value)
        case "string", "decimal":
            return text_as_decimal(value)
        case "string", "bool":
            return MUST if value in {"true", "false"} else NEVER
        case "string", "date":
            return text_as_date(value)
        case "string", "objectId":
            return MUST if re.fullmatch(r"[0-9a-fA-F]{24}", value, re.ASCII) else NEVER
    return NEVER


def kind_of(value: Any) -> str:
    kinds = {bool: "bool", int: "int", Int64: "long", float: "double", Decimal128: "decimal"}
    kinds |= {str: "string", DatetimeMS: "date", ObjectId: "objectId"}
    return kinds.get(type(value), "other")


# -- whether a result is still the value ------------------------------------------------------


def is_same(value: Any, result: Any) -> bool:  # noqa: PLR0911 - one for each way back
    """Read back from its new type, the result is the value."""
    kind, to = kind_of(value), kind_of(result)
    if to == "string":
        return bool(read(result, kind) == value or result == str(value) == "NaN")
    if kind == "string":
        return is_said(value, result)
    if "objectId" in {kind, to}:
        return False
    if kind == "double" and to == "decimal":
        return repr(float(result.to_decimal())) in {repr(value), repr(value).lstrip("-")}
    before, after = plain_number(value), plain_number(result)
    if before.is_nan():
        return after.is_nan()
    if kind == "decimal" and to == "double" and before.is_finite():
        digits = [Decimal(f"{result:.{places}e}") for places in (14, 15, 16)]
        return before in {after, *digits}
    return before == after


def plain_number(value: Any) -> Decimal:
    return Decimal(int(value)) if isinstance(value, DatetimeMS | bool) else decimal_of(value)


def read(text: str, kind: str) -> Any:  # noqa: PLR0911 - one for each type
    match kind:
        case "bool":
            return {"true": True, "false": False}[text]
        case "int" | "long":
            return int(text)
        case "double":
            return float(text)
        case "decimal":
            return Decimal128(text)
        case "date":
            # Python has no year 0; the calendar is the same again after 400 years.
            years = dt.timedelta(146_097 if text.startswith("0000") else 0)
            at = dt.datetime.fromisoformat(text.replace("0000", "0400", bool(years))) - EPOCH
            return DatetimeMS((at - years) // dt.timedelta(milliseconds=1))
        case "objectId":
            return ObjectId(text)
    return None


def is_said(text: str, result: Any) -> bool:
    """Whether a string says what became of it."""
    match kind_of(result):
        case "bool":
            return text == str(result).lower()
        case "objectId":
            return text.lower() == str(result)
        case "date":
            whole = text if len(text) > 10 else f"{text}T00:00"
            return bool(read(whole if has_zone(whole) else f"{whole}Z", "date") == result)
        case "double" if math.isfinite(result):
            said = Decimal(text)
            return said in {
                Decimal(result),
                *(Decimal(f"{result:.{places}e}") for places in (14, 15, 16)),
            }
    said = Decimal(text)
    return math.isnan(plain_number(result)) if said.is_nan() else said == plain_number(result)


def has_zone(text: str) -> bool:
    return bool(re.search(r"(Z|[-+]\d\d:?\d\d)\Z", text[10:]))


# -- values of every type, many of them at the edges --------------------------------------------

INTS = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, -1, 2, 2**31 - 1, -(2**31)])
LONGS = st.builds(
    Int64,
    st.integers(-(2**63), 2**63 - 1)
    | st.integers(2**53 - 3, 2**53 + 3)
    | st.sampled_from([0, 1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63), 1704164645006]),
)
DOUBLES = (
    st.floats()
    | st.floats(-1e6, 1e6)
    | st.integers(-(2**62), 2**62).map(float)
    | st.decimals(-1000, 1000, places=2).map(float)
    | st.sampled_from([0.0, -0.0, 1.0, 1.9, 2.0**53, 2.0**31, 2.0**63, 0.1 + 0.2, 1e300, 5e-324])
)
DECIMALS = (
    st.decimals(-(10**6), 10**6, places=3)
    | st.decimals(allow_nan=False, allow_infinity=False).map(DECIMAL.plus)
    | DOUBLES.map(lambda value: Decimal(repr(value)))
    | LONGS.map(Decimal)
    | st.sampled_from([Decimal("NaN"), Decimal("-Infinity"), Decimal("1E400"), Decimal("-0")])
).map(lambda value: Decimal128(DECIMAL.create_decimal(value)))
DATES = st.builds(
    DatetimeMS,
    st.integers(FIRST, LAST) | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, FIRST, LAST]),
)
IDS = st.binary(min_size=12, max_size=12).map(ObjectId)
ISO = st.builds(
    lambda seconds, micros, form: form(EPOCH.replace(microsecond=micros) + seconds),
    st.integers(-62_135_510_400, 253_402_214_400).map(lambda many: dt.timedelta(seconds=many)),
    st.integers(0, 999_999),
    st.sampled_from([
        lambda at: at.isoformat(timespec="milliseconds")[:23],
        lambda at: at.isoformat(timespec="milliseconds")[:23] + "Z",
        lambda at: at.isoformat(" ", "seconds"),
        lambda at: at.isoformat(timespec="minutes")[:16] + "+02:00",
        lambda at: at.isoformat(timespec="microseconds")[:26] + "Z",
        lambda at: at.isoformat()[:19] + "-0330",
        lambda at: at.date().isoformat(),
        lambda at: at.isoformat()[:7] + "-31",
        lambda at: at.strftime("%d/%m/%Y"),
    ]),
)  # fmt: skip
STRINGS = (
    st.text(max_size=6)
    | st.from_regex(r"\A[-+]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][-+]?[0-9]{1,4})?\Z")
    | INTS.map(str) | LONGS.map(str) | DOUBLES.map(repr) | DECIMALS.map(str) | ISO
    | IDS.map(str) | IDS.map(lambda found: str(found).upper())
    | st.sampled_from([
        "true", "false", "no", "0", "1", "TRUE", "", "-0", "+1", "007", " 1", "1\n", "true\n",
        "NaN", "nan", "Infinity", "inf", "9007199254740993", "1.10", "02/01/2024", "2024",
        "2024-02-30", "9" * 35, "0." + "1" * 40, "1E+2", "1e2", "1e-6177",
    ])
)  # fmt: skip
OTHERS = st.sampled_from([
    {"a": 1}, Binary(b"1"), Regex("1"), Timestamp(5, 0), Timestamp(5, 1), {},
])  # fmt: skip
EACH = (INTS, LONGS, DOUBLES, DECIMALS, st.booleans(), DATES, IDS, STRINGS, STRINGS, OTHERS)
VALUES = st.tuples(*(st.lists(kind, min_size=3, max_size=8) for kind in EACH)).map(
    lambda lists: [value for found in lists for value in found]
)


TYPES = ("double", "string", "objectId", "bool", "date", "int", "long", "decimal")
MILLISECONDS: CodecOptions[Any] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_MS  # beyond Python's years too
)


def stored(db: Db) -> list[Any]:
    found = db.get_collection("a", codec_options=MILLISECONDS).find().sort("_id")
    return [row.get("v", "gone") for row in found]


def store(db: Db, values: list[Any]) -> None:
    db["a"].delete_many({})
    db["a"].insert_many([{"_id": n, "v": value} for n, value in enumerate(values)])


@pytest.mark.parametrize("to", TYPES)
@settings(
    max_examples=20,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # each example holds many values anyway
)
@given(values=VALUES)
def test_a_value_becomes_another_type_exactly_where_nothing_of_it_is_lost(
    standalone_db: Db, to: str, values: list[Any]
) -> None:
    store(standalone_db, values)
    Desk(standalone_db).op.convert_field("a", "v", to, on_error="null")
    lost = 0
    for before, after in zip(values, stored(standalone_db), strict=True):
        if kind_of(before) == to:
            assert repr(after) == repr(before)
        elif after is None:
            lost += 1
            assert verdict(before, to) != MUST, before
        else:
            assert kind_of(after) == to
            assert verdict(before, to) != NEVER, (before, after)
            assert is_same(before, after), (before, after)
    if lost:
        store(standalone_db, values)
        with pytest.raises(OperationFailed, match=f"^{lost} values? of .* cannot become {to} "):
            Desk(standalone_db).op.convert_field("a", "v", to)
        assert encode({"v": stored(standalone_db)}) == encode({"v": values})


REFUSED = [
    ("false", "int"), ("no", "bool"), ("0", "bool"), (1.9, "int"), (2, "bool"), ("x", "bool"),
    (Int64(2**53 + 1), "double"), ("9007199254740993", "double"), (ObjectId(), "date"),
    ("02/01/2024", "date"), ("007", "int"), ("+1", "int"), ("2024-01-02T03:04:05.123456", "date"),
    (Decimal128("1.5"), "long"), (Int64(2**31), "int"), (float("nan"), "int"), (1.5, "date"),
    (Decimal128("0.1000000000000000000001"), "double"), (5, "date"), (EPOCH, "bool"),
]  # fmt: skip


def test_a_value_that_would_change_is_refused_and_stays(any_db: Db) -> None:
    for value, to in REFUSED:
        store(any_db, [value])
        before = stored(any_db)
        with pytest.raises(OperationFailed, match=rf"1 value of .* cannot become {to} without"):
            Desk(any_db).op.convert_field("a", "v", to)
        desk = Desk(any_db)
        assert desk.do("convert_field", "a", "v", to, on_error="keep") == "unchanged"
        assert encode({"v": stored(any_db)}) == encode({"v": before})
        assert re.search(r"^1 value .* without loss: left as before$", desk.book.messages[0])


CONVERTED = [
    ("false", "bool", False), ("true", "bool", True), (0.0, "bool", False), (1.0, "bool", True),
    (2.0, "int", 2), (1234567890123.0, "string", "1234567890123"), (0.25, "string", "0.25"),
    (0.1 + 0.2, "string", "0.30000000000000004"), (1.2345678, "string", "1.2345678"),
    (1e300, "string", "1e+300"), (2.0**53, "decimal", Decimal128("9007199254740992")),
    (0.1 + 0.2, "decimal", Decimal128("0.30000000000000004")), (Int64(7), "int", 7),
    ("52.37021612345678", "double", 52.37021612345678), (-0.0, "int", 0), ("7", "int", 7),
    (True, "string", "true"), ("1.10", "decimal", Decimal128("1.10")),
]  # fmt: skip


def test_a_value_that_keeps_all_it_says_is_converted(any_db: Db) -> None:
    for value, to, expected in CONVERTED:
        store(any_db, [value])
        Desk(any_db).op.convert_field("a", "v", to)
        assert encode({"v": stored(any_db)}) == encode({"v": [expected]}), value


def test_dates_are_read_in_the_form_and_the_time_zone_that_are_given(any_db: Db) -> None:
    store(any_db, ["02/01/2024", "2/7/2024"])
    Desk(any_db).op.convert_field("a", "v", "date", format="%d/%m/%Y", timezone="Europe/Rome")
    rome = ZoneInfo("Europe/Rome")
    ats = [dt.datetime(2024, 1, 2, tzinfo=rome), dt.datetime(2024, 7, 2, tzinfo=rome)]
    assert stored(any_db) == [DatetimeMS(at) for at in ats]


@pytest.mark.parametrize("odd", ["31/02/2024", "02/01/24", "02/01/2024 ", "2024-01-02", "", "2/1"])
def test_a_date_in_another_form_is_refused(any_db: Db, odd: str) -> None:
    store(any_db, ["02/01/2024", odd])
    with pytest.raises(OperationFailed, match="1 value of") as caught:
        Desk(any_db).op.convert_field("a", "v", "date", format="%d/%m/%Y")
    assert "format=" not in caught.value.hint
    assert stored(any_db) == ["02/01/2024", odd]


@pytest.mark.parametrize(
    "options",
    [
        {"to": "date", "format": "%q"},
        {"to": "date", "timezone": "Europe/Roma"},
        {"to": "date", "format": 1},
        {"to": "int", "format": "%Y"},
    ],
)
def test_a_form_that_makes_no_sense_is_refused_before_anything_is_changed(
    any_db: Db, options: dict[str, Any]
) -> None:
    store(any_db, ["2024-01-02"])
    with pytest.raises(OperationFailed):
        Desk(any_db).op.convert_field("a", "v", on_error="unset", **options)
    assert stored(any_db) == ["2024-01-02"]


def test_the_form_is_part_of_what_an_operation_is_known_by() -> None:
    one = recorded("convert_field", "a", "v", "date", format="%d/%m/%Y", timezone="+02:00")
    assert one.render() == (
        'op.convert_field("a", "v", "date", format="%d/%m/%Y", timezone="+02:00")'
    )
    assert rebuilt(one) == one
    assert one.identity()["format"] == one.to_json()["format"] == "%d/%m/%Y"
    assert one.identity() != recorded("convert_field", "a", "v", "date").identity()


def test_a_collation_makes_no_two_strings_the_same(any_db: Db) -> None:
    any_db.create_collection(
        "a", collation={"locale": "en", "strength": 1, "numericOrdering": True}
    )
    values = ["TRUE", "007", "7", "1E+2", "1.0e1"]
    for to, expected in {
        "bool": [None] * 5,
        "int": [None, None, 7, None, None],
        "double": [None, None, 7.0, 100.0, 10.0],
    }.items():
        store(any_db, values)
        Desk(any_db).op.convert_field("a", "v", to, on_error="null")
        assert stored(any_db) == expected
