"""What a run says while it goes on, in a pipe and on a terminal."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import pytest

from mongover.cli.screen.moment import Moment, progress_text
from mongover.cli.screen.progress import LineListener, Now, RunScreen, waiting_text
from mongover.cli.signals import Stage
from mongover.operations.base import Advance, Place
from mongover.running import events
from tests.cli.test_cli_output import Terminal, make_output
from tests.support.cli_fakes import DOWN, UP
from tests.support.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

WAITING = events.LockWaiting(
    holder="ci@runner-7 pid 412",
    command="upgrade",
    held_seconds=108.0,
    heartbeat_seconds=3.0,
    seconds_left=27.0,
    running="0006",
)


def step(**changes: Any) -> events.StepStarted:
    values: dict[str, Any] = {
        "revision": "0005",
        "schema": "calls",
        "message": "create calls",
        "direction": UP,
        "position": 1,
        "total": 2,
        "transaction": False,
        "continues": False,
    }
    return events.StepStarted(**{**values, **changes})


class Pipe(Terminal):
    def isatty(self) -> bool:
        return False


def make_screen(
    monkeypatch: pytest.MonkeyPatch, *, terminal: bool = False, every: float = 60.0, **settings: Any
) -> tuple[RunScreen, Terminal]:
    output, _, _ = make_output(monkeypatch, no_color=True, **settings)
    stream = Terminal() if terminal else Pipe()
    monkeypatch.setattr(sys, "stderr", stream)
    output = type(output)(output.settings, {})
    return RunScreen(output, database="shop", every=every), stream


def stage_of(listener: RunScreen | LineListener) -> Stage:
    """Read anew: the events in between change it."""
    return listener.stage


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RunScreen, Terminal]]:
    screen, stream = make_screen(monkeypatch)
    yield screen, stream
    screen.close()


def test_a_run_reads_as_a_header_and_a_line_for_each_operation(
    run: tuple[RunScreen, Terminal],
) -> None:
    screen, stream = run
    screen(events.RunStarted("run", UP, "head", 2, "db.example"))
    screen(step())
    screen(events.OperationStarted("0005", "collection calls"))
    screen(events.OperationFinished("0005", "collection calls", "done", 0.006))
    screen(events.OperationStarted("0005", "12 indexes on calls"))
    screen(events.OperationFinished("0005", "12 indexes on calls", "unchanged", 0.041))
    screen(events.OperationFinished("0005", "index x", "warning", 0.041))
    screen(events.StepFinished("0005", UP, 1, 2, 0.05))
    lines = stream.text.splitlines()
    assert lines[0] == "shop on db.example: 2 revisions to apply"
    assert lines[1] == "[1/2] 0005 create calls (calls)"
    assert re.fullmatch(r"      ✓ collection calls +6 ms", lines[2])
    assert re.fullmatch(r"      – 12 indexes on calls +unchanged", lines[3])  # noqa: RUF001 - the sign
    assert re.fullmatch(r"      ⚠ index x +41 ms", lines[4])
    assert len({len(line) for line in lines[2:5]}) == 1
    assert len(lines) == 5


def test_a_step_without_operations_has_its_own_line_with_its_time(
    run: tuple[RunScreen, Terminal],
) -> None:
    screen, stream = run
    screen(step(direction=DOWN, schema=None, transaction=True, continues=True))
    screen(events.StepFinished("0005", DOWN, 1, 2, 0.05))
    first, second = stream.text.splitlines()
    assert first == "[1/2] 0005 create calls (revert, in one transaction, continued)"
    assert re.fullmatch(r"      ✓ 0005 reverted +50 ms", second)


def test_a_revert_says_so_in_its_header_and_a_bare_step_has_no_brackets(
    run: tuple[RunScreen, Terminal],
) -> None:
    screen, stream = run
    screen(events.RunStarted("run", DOWN, "-1", 1, "db.example"))
    screen(step(schema=None))
    assert stream.text.splitlines() == [
        "shop on db.example: 1 revision to revert",
        "[1/2] 0005 create calls",
    ]


@pytest.mark.parametrize(
    ("started", "label"), [(True, "index users.email unique"), (False, "0007 failed")]
)
def test_a_failure_names_the_operation_that_was_running(
    run: tuple[RunScreen, Terminal],
    started: bool,
    label: str,
) -> None:
    screen, stream = run
    screen(step())
    if started:
        screen(events.OperationStarted("0007", "index users.email unique"))
    screen(events.StepFailed("0007", UP, 1, 1, 1.3, "failed", "E11000"))
    assert re.fullmatch(rf"      ✗ {label} +1\.3 s", stream.text.splitlines()[-1])


def test_what_a_revision_logs_is_shown_line_by_line_and_never_as_markup(
    run: tuple[RunScreen, Terminal],
) -> None:
    screen, stream = run
    screen(events.Notice("[bold]one[/bold]\n\x1b[2Jtwo", "0005"))
    screen(events.Notice("careful", level="warning"))
    assert stream.text.splitlines() == [
        "      [bold]one[/bold]",
        r"      \x1b[2Jtwo",
        "⚠ careful",
    ]


def test_quiet_hides_all_but_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, stream = make_screen(monkeypatch, quiet=True)
    screen(events.RunStarted("run", UP, "head", 2, "db.example"))
    screen(events.Notice("nothing much"))
    screen(events.Notice("careful", level="warning"))
    screen.close()
    assert stream.text == "warning: careful\n"
    assert screen.stage is Stage.RUNNING


def test_verbose_tells_the_end_of_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, stream = make_screen(monkeypatch, verbose=True)
    screen(step())
    screen(events.OperationStarted("0005", "x"))
    screen(events.OperationFinished("0005", "x", "done", 0.1))
    screen(events.StepFinished("0005", UP, 1, 2, 0.1))
    screen.close()
    assert "0005 applied" in stream.text


def test_the_wait_for_the_lock_says_who_holds_it_and_what_it_does() -> None:
    assert waiting_text(WAITING, "shop") == (
        "waiting for the lock on shop, held by ci@runner-7 pid 412 for 1 m 48 s (upgrade); "
        "running 0006, alive 3.0 s ago … giving up in 27.0 s"
    )


def test_in_a_pipe_the_wait_is_told_at_once_and_then_every_ten_seconds(
    run: tuple[RunScreen, Terminal],
) -> None:
    screen, stream = run
    assert screen.stage is Stage.SILENT
    for seconds in range(100, 121):
        event = events.LockWaiting("a@b pid 1", "upgrade", float(seconds), 1.0, 9.0, None)
        screen(event)
    assert stream.text.count("\n") == 3
    assert stage_of(screen) is Stage.WAITING
    screen(events.LockTaken(3, None))
    assert stream.text.splitlines()[-1] == "got the lock"


def test_a_takeover_names_the_dead_holder(run: tuple[RunScreen, Terminal]) -> None:
    screen, stream = run
    screen(events.LockTaken(3, None))
    assert stream.text == ""
    screen(events.LockTaken(3, "ci@runner-7 pid 412"))
    assert "took over the lock of ci@runner-7 pid 412" in stream.text


def test_on_a_terminal_the_wait_is_one_line_that_replaces_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    screen, stream = make_screen(monkeypatch, terminal=True)
    screen(WAITING)
    screen(WAITING)
    screen(events.LockTaken(3, None))
    screen.close()
    parts = stream.text.split("\r\x1b[K")
    assert [len(part) for part in parts[:2]] == [59, 59]
    assert parts[0].endswith("...")
    assert parts[2] == "got the lock\n"


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "words"),
    [
        (None, None, 12.0, "running for 12.0 s"),
        (512_400, 840_112, 12.0, "60 %, 512,400/840,112, 42,700/s, 7.7 s left"),
        (5, 5, 0.0, "100 %, 5/5, 0/s"),
        (900, 800, 1.0, "100 %, 900/800, 900/s, <1 ms left"),
        (1200, None, 2.0, "1,200 documents, 600/s"),
    ],
)
def test_progress_is_told_in_words(
    done: int | None, total: int | None, elapsed: float, words: str
) -> None:
    moment = Moment("update", 100.0)
    if done is not None:
        moment.advance(events.Progress("1", "update", Advance(done, total)))
    assert progress_text(moment, 100.0 + elapsed) == words


def test_progress_tells_the_range_and_the_rate_of_this_attempt_alone() -> None:
    moment = Moment("update", 100.0)
    moment.advance(
        events.Progress("1", "u", Advance(900, 1000, place=Place(8, 3, "665f")), 9.0, 50.0, 2.0)
    )
    assert progress_text(moment, 101.0) == (
        "90 %, 900/1,000, 50/s, 2.0 s left, 3/8 ranges, at _id 665f"
    )
    moment.advance(
        events.Progress("1", "u", Advance(900, None, place=Place(1, 0, "'ana'")), 9.0, 50.0, None)
    )
    assert progress_text(moment, 101.0) == "900 documents, 50/s, at _id 'ana'"
    moment.advance(
        events.Progress("1", "u", Advance(0, 1000, place=Place(8, 0, "")), 9.0, None, None)
    )
    assert progress_text(moment, 101.0) == "0 %, 0/1,000, 0/s, 0/8 ranges"


def test_on_a_narrow_terminal_figures_and_range_are_not_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    screen, stream = make_screen(monkeypatch, terminal=True, every=0.05)
    screen(step())
    name = "transform customers by split_the_address_into_parts"
    screen(events.OperationStarted("0005", name))
    told = events.Progress(
        "0005",
        name,
        Advance(512_400, 840_112, place=Place(8, 3, "\x1b[2J665")),
        12.0,
        41_200.0,
        8.0,
    )
    screen(told)
    wait_until(
        lambda: "60 %, 512,400/840,112, 41,200/s, 8.0 s left, 3/8 ranges" in stream.text,
        "figures and range",
    )
    screen.close()
    assert "\x1b[2J" not in stream.text


def test_in_a_pipe_a_long_operation_has_a_plain_line_every_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen, stream = make_screen(monkeypatch, every=0.05)
    screen(step())
    screen(events.OperationStarted("0005", "update users"))
    wait_until(lambda: stream.text.count("running for") >= 2, "two lines of a silent operation")
    screen(
        events.Progress(
            "0005", "update users", Advance(50, 100, place=Place(8, 3, "665f")), 1.0, 50.0, 1.0
        )
    )
    wait_until(
        lambda: "50 %, 50/100, 50/s, 1.0 s left, 3/8 ranges, at _id 665f\n" in stream.text,
        "a line with its progress",
    )
    screen(events.OperationFinished("0005", "update users", "done", 1.0))
    screen.close()
    assert "\x1b" not in stream.text
    assert "\r" not in stream.text
    assert "      ↻ update users: " in stream.text


def test_on_a_terminal_a_long_operation_has_a_moving_line_that_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    screen, stream = make_screen(monkeypatch, terminal=True, every=0.05)
    screen(step())
    screen(events.OperationStarted("0005", "update [red]users[/red]"))
    assert stream.text.endswith("      ↻ update [red]users[/red]")
    wait_until(lambda: "running for" in stream.text, "the moving line")
    screen(events.Progress("0005", "update [red]users[/red]", Advance(50, 100), 1.0))
    wait_until(lambda: "50 %, 50/100" in stream.text, "its progress")
    screen(events.OperationFinished("0005", "update [red]users[/red]", "done", 1.0))
    screen.close()
    assert "[red]users[/red]" in stream.text
    assert stream.text.count("\x1b[?25l") == stream.text.count("\x1b[?25h") == 1
    assert re.search(r"✓ update \[red\]users\[/red\] +1\.0 s\n$", stream.text)


def test_the_moving_line_comes_back_after_what_a_revision_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    screen, stream = make_screen(monkeypatch, terminal=True, every=0.05)
    screen(step())
    wait_until(lambda: "running for" in stream.text, "the moving line")
    screen(events.Notice("in the middle", "0005"))
    said = stream.text
    wait_until(lambda: "running for" in stream.text[len(said) :], "its return")
    screen(events.StepFinished("0005", UP, 1, 2, 1.0))
    screen.close()
    assert "      in the middle\n" in said
    assert stream.text.endswith("1.0 s\n")


def test_progress_that_comes_before_its_operation_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, stream = make_screen(monkeypatch, every=0.05)
    screen(events.Progress("0005", "rebuild", Advance(1, None), 0.1))
    screen(events.OperationStarted("0005", "rebuild"))
    screen(events.Progress("0005", "rebuild", Advance(7, None), 0.1))
    wait_until(lambda: "7 documents" in stream.text, "its line")
    screen.close()


def test_the_thread_of_the_progress_ends_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    screen, _ = make_screen(monkeypatch, every=0.05)
    screen(step())
    assert threading.active_count() == before + 1
    screen.close()
    assert threading.active_count() == before


def test_the_thread_of_the_progress_has_an_empty_context(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(Now, "_loop", lambda _: seen.append(list(copy_context())))
    screen, _ = make_screen(monkeypatch)
    session: ContextVar[str] = ContextVar("session")
    session.set("bound")
    screen(step())
    screen.close()
    assert seen == [[]]


def test_a_thousand_short_steps_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, _ = make_screen(monkeypatch)
    start = time.process_time()
    for index in range(1000):
        screen(step(position=index + 1, total=1000))
        screen(events.StepFinished("0005", UP, index + 1, 1000, 0.001))
    screen.close()
    assert (time.process_time() - start) / 1000 < 0.001


def test_events_as_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    output, out, _ = make_output(monkeypatch)
    listener = LineListener(output)
    listener(WAITING)
    assert stage_of(listener) is Stage.WAITING
    listener(events.RunStarted("run", UP, "head", 1, "db.example"))
    listener(step())
    listener.close()
    assert stage_of(listener) is Stage.RUNNING
    lines = [json.loads(line) for line in out.text.splitlines()]
    assert [line["event"] for line in lines] == ["LockWaiting", "RunStarted", "StepStarted"]
    assert lines[2]["revision"] == "0005"
    assert lines[2]["direction"] == "up"
