"""Tokens, scopes, and the brake on those who guess."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mongover.errors import ConfigError
from mongover.web.auth import (
    READ_VARIABLE,
    WRITE_VARIABLE,
    Scope,
    Throttle,
    Tokens,
    Verdict,
    bearer_of,
    judge,
)

WRITE, READ = "w" * 24, "r" * 24
BOTH = Tokens.of(write=WRITE, read=READ)


def test_a_token_of_23_signs_is_refused_with_a_command_that_makes_a_good_one() -> None:
    with pytest.raises(ConfigError, match="has 23 signs; at least 24") as caught:
        Tokens.of(write="x" * 23)
    assert "token_urlsafe" in caught.value.hint
    assert "x" * 23 not in caught.value.message


@pytest.mark.parametrize("token", ["ä" * 24, "two words are no token at all", "x" * 24 + "\n"])
def test_a_token_that_a_header_cannot_carry_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="header cannot carry"):
        Tokens.of(read=token)


def test_one_token_for_both_is_refused_because_readers_could_write() -> None:
    with pytest.raises(ConfigError, match="who reads could write"):
        Tokens.of(write=WRITE, read=WRITE)


def test_the_environment_gives_the_tokens_and_an_empty_variable_counts_as_none() -> None:
    tokens = Tokens.from_environ({WRITE_VARIABLE: WRITE, READ_VARIABLE: ""})
    assert (tokens.write is None, tokens.read is None) == (False, True)


def test_tokens_show_nothing_of_themselves() -> None:
    assert repr(BOTH) == "Tokens()"


@given(st.binary(max_size=80))
def test_no_bytes_at_all_make_the_comparison_fail(token: bytes) -> None:
    expected = {WRITE.encode(): Scope.WRITE, READ.encode(): Scope.READ}.get(token)
    assert BOTH.scope_of(token) is expected


def test_without_tokens_no_token_is_known_not_even_the_one_that_hashes_to_zeros() -> None:
    assert Tokens().scope_of(b"") is None
    assert Tokens().scope_of(b"\0" * 32) is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"authorization", b"Bearer abc")], b"abc"),
        ([(b"Authorization", b"bEARER   abc  ")], b"abc"),
        ([(b"authorization", "Bearer é".encode())], "é".encode()),
        ([(b"authorization", b"Basic abc")], None),
        ([(b"authorization", b"Bearer")], None),
        ([(b"authorization", b"Bearer ")], None),
        ([(b"authorization", b"Bearer " + b"x" * 1_025)], None),
        ([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")], None),
        ([(b"cookie", b"authorization=Bearer abc")], None),
        ([], None),
    ],
)
def test_a_token_is_read_from_one_authorization_header_only(headers: Any, expected: Any) -> None:
    assert bearer_of(headers) == expected


@pytest.mark.parametrize(
    ("tokens", "needed", "given_token", "verdict"),
    [
        (Tokens(), Scope.OPEN, None, Verdict.ALLOWED),
        (Tokens(), Scope.READ, None, Verdict.ALLOWED),
        (Tokens(), Scope.READ, b"whatever", Verdict.ALLOWED),
        (Tokens(), Scope.WRITE, None, Verdict.WRITES_OFF),
        (Tokens(), Scope.WRITE, b"whatever", Verdict.WRITES_OFF),
        (Tokens.of(read=READ), Scope.WRITE, READ.encode(), Verdict.WRITES_OFF),
        (BOTH, Scope.OPEN, None, Verdict.ALLOWED),
        (BOTH, Scope.READ, None, Verdict.MISSING),
        (BOTH, Scope.READ, b"wrong", Verdict.WRONG),
        (BOTH, Scope.READ, READ.encode(), Verdict.ALLOWED),
        (BOTH, Scope.READ, WRITE.encode(), Verdict.ALLOWED),
        (BOTH, Scope.WRITE, None, Verdict.MISSING),
        (BOTH, Scope.WRITE, b"wrong", Verdict.WRONG),
        (BOTH, Scope.WRITE, READ.encode(), Verdict.TOO_LITTLE),
        (BOTH, Scope.WRITE, WRITE.encode(), Verdict.ALLOWED),
    ],
)
def test_every_combination_of_tokens_and_needs(
    tokens: Tokens, needed: Scope, given_token: bytes | None, verdict: Verdict
) -> None:
    assert judge(tokens, needed, given_token) is verdict


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_sixth_wrong_token_in_a_minute_has_to_wait_until_the_first_is_a_minute_old() -> None:
    clock = Clock()
    throttle = Throttle(clock=clock)
    assert [throttle.failed("a") for _ in range(5)] == [0] * 5
    clock.now = 12.5
    assert throttle.failed("a") == 48
    assert throttle.failed("b") == 0
    clock.now = 60.0
    assert throttle.failed("a") == 0


def test_many_addresses_do_not_fill_the_memory() -> None:
    throttle = Throttle(size=3)
    for number in range(100):
        throttle.failed(str(number))
    assert list(throttle._failures) == ["97", "98", "99"]
