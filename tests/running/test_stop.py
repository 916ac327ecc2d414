"""The wish to stop: when it ends a revision's code, and when it waits."""

from __future__ import annotations

import pytest

from mongover.running import stop as stopping
from mongover.running.stop import Stop, StopNow


def nothing() -> None:
    """Nobody listens."""


def test_many_requests_do_not_cut_short_what_is_being_unwound() -> None:
    stop = Stop()
    with stop.user_code(safe=lambda: True, deferred=nothing):
        with pytest.raises(StopNow):
            stop.request()
        for _ in range(100):  # while the driver gives the connection back
            stop.request()


def test_a_second_request_does_not_break_off_the_telling_of_the_first() -> None:
    stop, told = Stop(), []

    def tell() -> None:
        stop.request()  # as a second signal's handler does, which comes in between
        told.append("finishing")

    with stop.user_code(safe=lambda: False, deferred=tell), pytest.raises(StopNow):
        stop.request()
    assert told == ["finishing"]


def test_code_that_hides_a_stop_is_stopped_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_BREATH", 0.0)
    stop = Stop()
    with stop.user_code(safe=lambda: True, deferred=nothing):
        for _ in range(2):  # as code does that catches everything
            with pytest.raises(StopNow):
                stop.request()


def test_outside_of_a_revisions_code_a_request_interrupts_nothing() -> None:
    stop = Stop()
    stop.request()
    stop.check()
    with pytest.raises(StopNow), stop.user_code(safe=lambda: True, deferred=nothing):
        raise AssertionError("the code must not begin")


def test_at_an_edge_a_first_request_ends_what_it_only_deferred_before() -> None:
    stop, told = Stop(), []
    tell = lambda: told.append("after this batch")  # noqa: E731 - one word for one list
    with stop.user_code(safe=lambda: True, deferred=nothing), stop.at_edges(deferred=tell):
        stop.edge()
        stop.request()
        assert told == ["after this batch"]
        with pytest.raises(StopNow):
            stop.edge()
