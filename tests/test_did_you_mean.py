"""A misspelt word is answered by one rule, wherever it stands."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import mongover
from mongover.errors import did_you_mean


def test_the_nearest_word_stands_in_the_form_of_its_place() -> None:
    words = ["users", "calls"]
    assert did_you_mean("usrs", words) == "did you mean users?"
    assert did_you_mean("usrs", words, "`{}`") == "did you mean `users`?"
    assert did_you_mean("usrs", iter(words), "op.{}") == "did you mean op.users?"
    assert did_you_mean("zzz", words) == did_you_mean("users", []) == ""


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=8))
def test_only_one_of_the_words_is_ever_offered(word: str, words: list[str]) -> None:
    said = did_you_mean(word, words, "<{}>")
    assert not said or said in {f"did you mean <{each}>?" for each in words}
    assert word not in words or not word or said == f"did you mean <{word}>?"


def test_no_other_place_looks_for_near_words() -> None:
    package = Path(mongover.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "get_close_matches" in path.read_text(encoding="utf-8")
    }
    assert found == {"errors.py"}
