"""What a run writes to `logging`, and how an error is told in full."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pymongo.errors import DuplicateKeyError

from mongover.errors import RevisionFailed, Where
from mongover.history.record import Direction
from mongover.operations.base import Advance
from mongover.running import events
from mongover.running.log import RunLog, failure_text

if TYPE_CHECKING:
    from mongover.running.events import Event

WAITING = events.LockWaiting("ci@web-9 pid 4", "upgrade", 3.0, 1.0, 20.0, "0004")
PROGRESS = events.Progress("0001", "update users", Advance(50, 100), 1.5)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("event", "level", "text"),
    [
        (WAITING, "INFO", "waiting for the lock of ci@web-9 pid 4 (upgrade), which runs 0004"),
        (events.LockTaken(3, None), "DEBUG", "got the lock, fence 3"),
        (events.LockTaken(3, "a@b pid 1"), "DEBUG", "taken over from a@b pid 1"),
        (events.RunStarted("r1", Direction.UP, "head", 2), "INFO", "run r1: up to head, 2"),
        (
            events.StepStarted(
                "0001", "u", "make\nusers", Direction.UP, 1, 2, transaction=False, continues=False
            ),
            "INFO",
            "1/2 up 0001 make users",
        ),
        (
            events.OperationFinished("0001", "create_index users", "done", 0.25),
            "DEBUG",
            "0001: create_index users: done in 0.250 s",
        ),
        (PROGRESS, "INFO", "0001: update users: 50 of 100 after 1.5 s"),
        (events.Progress("0001", "x", Advance(5, None), 1.0), "INFO", "x: 5 after 1.0 s"),
        (events.Notice("look here", "0001"), "INFO", "0001: look here"),
        (events.Notice("look here", level="warning"), "WARNING", "look here"),
        (events.StepFinished("0001", Direction.UP, 1, 2, 0.5), "INFO", "1/2 0001 applied in 0.500"),
        (events.StepFinished("0001", Direction.DOWN, 1, 2, 0.5), "INFO", "0001 reverted in"),
        (
            events.StepFailed("0001", Direction.UP, 1, 2, 0.5, "failed", "no luck"),
            "ERROR",
            "0001 failed after 0.500 s: no luck",
        ),
        (events.RunFinished("r1", Direction.UP, ("0001",), 0.5), "INFO", "run r1: 1 revisions"),
    ],
)
def test_every_event_has_its_level_and_its_line(
    event: Event, level: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "mongover"):
        RunLog("a run")(event)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("mongover.run", level)
    assert record.getMessage().startswith("a run: ")
    assert text in record.getMessage()
    assert "\n" not in record.getMessage()


def test_the_start_of_an_operation_is_told_by_its_end(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "mongover"):
        RunLog("a run")(events.OperationStarted("0001", "x"))
    assert caplog.records == []


def test_what_happens_every_second_is_info_every_ten_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    log = RunLog("a run", clock=clock)
    with caplog.at_level(logging.DEBUG, "mongover"):
        for second in range(25):
            clock.now = float(second)
            log(PROGRESS)
    levels = [record.levelname for record in caplog.records]
    assert [index for index, level in enumerate(levels) if level == "INFO"] == [0, 10, 20]
    assert set(levels) == {"INFO", "DEBUG"}


def test_an_application_that_hears_no_debug_pays_for_no_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "mongover"):
        RunLog("a run")(PROGRESS)
    assert caplog.records == []


def fail(error: Exception) -> None:
    raise error


def raised() -> RevisionFailed:
    """A failure as the runner raises it: ours, over the driver's, over a plain one."""
    value = "ana" + "@x"  # the lines of a trace show the code, so it must not hold the value
    details = {"code": 11000, "keyPattern": {"email": 1}, "errmsg": f"E11000 {value}"}
    where = Where(Path("versions/0001_a.py"), 7, "…")
    ours = RevisionFailed(
        "0001 failed with hush-hush", hint="mend it", where=where, after="nothing else ran."
    )
    try:
        try:
            fail(KeyError("first"))
        except KeyError:
            fail(DuplicateKeyError(f"E11000 dup key: {value}", 11000, details))
    except DuplicateKeyError as error:
        ours.__cause__ = error
    return ours


def test_an_error_is_told_with_hint_place_and_every_trace_but_no_secret_and_no_value() -> None:
    text = failure_text(raised(), lambda text: text.replace("hush-hush", "***"))
    for part in (
        "RevisionFailed: 0001 failed with ***",
        "code: MGV020",
        "where: versions/0001_a.py:7",
        "after: nothing else ran.",
        "next: mend it",
        "trace of DuplicateKeyError: duplicate key on email",
        "trace of KeyError",
        "in fail",
    ):
        assert part in text
    assert "ana@x" not in text
    assert "hush-hush" not in text


def test_an_error_without_a_place_or_behind_itself_is_told_too() -> None:
    error = RevisionFailed("no", where=Where(Path("a.py")))
    error.__cause__ = error
    text = failure_text(error, str)
    assert "where: a.py\n" in text
    assert text.count("trace of RevisionFailed") == 1
    assert failure_text(ValueError("plain"), str).startswith("ValueError: plain")
