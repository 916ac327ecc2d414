"""How values read on a screen."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mongover.cli.screen import text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1.0, "<1 ms"),
        (0.0, "<1 ms"),
        (0.0124, "12 ms"),
        (0.4999, "500 ms"),
        (0.9, "0.9 s"),
        (4.2, "4.2 s"),
        (21.84, "21.8 s"),
        (59.94, "59.9 s"),
        (59.96, "1 m 00 s"),
        (108.0, "1 m 48 s"),
        (3599.7, "1 h 00 m"),
        (7380.0, "2 h 03 m"),
        (9_000_000.0, "104 days"),
    ],
)
def test_a_duration_reads_as_people_say_it(seconds: float, words: str) -> None:
    assert text.duration(seconds) == words


def test_the_duration_of_a_record_may_be_unknown() -> None:
    assert text.milliseconds(None) == ""
    assert text.milliseconds(41.7) == "42 ms"


def test_numbers_have_thousands_separators_and_an_unknown_one_is_a_dash() -> None:
    assert text.number(1284310) == "1,284,310"
    assert text.number(None) == "-"
    assert text.count(1, "revision") == "1 revision"
    assert text.count(1200, "revision") == "1,200 revisions"


def test_a_time_is_shown_in_utc_wherever_it_was_taken() -> None:
    there = timezone(timedelta(hours=2))
    assert text.moment(datetime(2026, 11, 20, 8, 31, 55, tzinfo=there)) == "2026-11-20 06:31:55"
    assert text.moment(datetime(2026, 11, 20, 6, 31, 55)) == "2026-11-20 06:31:55"  # noqa: DTZ001 - a naive time is the case
    assert text.moment(datetime(2026, 11, 20, 6, 31, 55, tzinfo=UTC)) == "2026-11-20 06:31:55"
    assert text.moment(None) == "-"


def test_a_person_is_named_by_what_is_known() -> None:
    assert text.person({"user": "ana", "host": "web-3"}) == "ana@web-3"
    assert text.person({"host": "web-3"}) == "web-3"
    assert text.person({}) == "-"


def test_a_text_is_cut_with_an_ellipsis_only_when_it_is_too_long() -> None:
    assert text.shorten("abcdef", 6) == "abcdef"
    assert text.shorten("abcdefg", 6) == "abcde…"
    assert text.shorten("abc", 0) == ""


def test_control_characters_are_shown_and_never_sent() -> None:
    assert text.clean("a\nb\x1b[2Jc\x9b\u202ed\te") == r"a\nb\x1b[2Jc\x9b\u202ed\te"


@given(st.text())
def test_a_cleaned_text_holds_no_control_character_and_stays_as_it_is_when_cleaned_again(
    value: str,
) -> None:
    cleaned = text.clean(value)
    assert not any(unicodedata.category(sign) == "Cc" for sign in cleaned)
    assert text.clean(cleaned) == cleaned


def test_columns_are_aligned_and_numbers_end_flush() -> None:
    rows = [["name", "n"], ["users", "1,284,310"], ["x", "5", "more"]]
    assert text.table(rows, right=[1]) == [
        "name           n",
        "users  1,284,310",
        "x              5  more",
    ]
    assert text.table([]) == []


def test_a_table_is_aligned_by_what_is_shown_of_a_cell_with_a_newline() -> None:
    assert text.table([["a\nb", "x"], ["abcd", "y"]]) == ["a\\nb  x", "abcd  y"]


def test_the_unnamed_line_has_a_word() -> None:
    assert text.schema_name(None) == "(unnamed)"
    assert text.schema_name("users") == "users"
