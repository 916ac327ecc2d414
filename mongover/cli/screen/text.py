"""How values read on a screen: durations, numbers, times, tables, harmless text (all pure)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOTHING: Final = "-"
UNNAMED: Final = "(unnamed)"

# Control characters, line and paragraph separators, and what turns the direction of writing:
# in a text of a user they could rewrite the screen, so they are shown and never sent.
_HARMFUL: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
_SECONDS_FROM: Final = 0.5
_MINUTE: Final = 60
_HOUR: Final = 3600
_HUNDRED_DAYS: Final = 8_640_000


def clean(text: str) -> str:
    r"""The text on one line, every control character written as an escape (`\n`, `\x1b`)."""
    return _HARMFUL.sub(lambda found: repr(found.group())[1:-1], text)


def duration(seconds: float) -> str:
    """A length of time as people say it: `12 ms`, `4.2 s`, `1 m 48 s`, `2 h 03 m`."""
    seconds = max(seconds, 0.0)
    if seconds < _SECONDS_FROM:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.0005 else "<1 ms"  # noqa: PLR2004 - rounds to 0
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < _HUNDRED_DAYS:
        return f"{whole // _HOUR} h {whole % _HOUR // 60:02d} m"
    return f"{whole // 86_400} days"


def milliseconds(value: float | None) -> str:
    """The duration that a record keeps, or an empty string."""
    return "" if value is None else duration(value / 1000)


def number(value: int | None) -> str:
    """A count with thousands separators; `-` for one that is not known."""
    return NOTHING if value is None else f"{value:,}"


def count(value: int, noun: str) -> str:
    """`1 revision`, `2 revisions`."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def moment(value: datetime | None) -> str:
    """A time in UTC to the second, or `-`; a time without a zone is taken to be in UTC."""
    if value is None:
        return NOTHING
    aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return aware.strftime("%Y-%m-%d %H:%M:%S")


def person(by: Mapping[str, Any]) -> str:
    """`ana@web-3` of a record's `by`, with what it holds of the two."""
    parts = [str(by[name]) for name in ("user", "host") if by.get(name)]
    return "@".join(parts) or NOTHING


def shorten(text: str, width: int, *, ellipsis: str = "…") -> str:
    """The text, cut to the width with an ellipsis where it is longer."""
    if len(text) <= width:
        return text
    return text[: max(width - len(ellipsis), 0)] + ellipsis[:width]


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Rows as aligned lines, two spaces between columns; the columns in `right` end flush."""
    tidy = [[clean(cell) for cell in row] for row in rows]
    columns = max((len(row) for row in tidy), default=0)
    widths = [max((len(row[i]) for row in tidy if i < len(row)), default=0) for i in range(columns)]
    return ["  ".join(_cells(row, widths, right)).rstrip() for row in tidy]


def _cells(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> list[str]:
    return [
        cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)
    ]


def schema_name(schema: str | None) -> str:
    """The schema's name, or the word for the line that has none."""
    return UNNAMED if schema is None else schema
