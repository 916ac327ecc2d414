"""upgrade, downgrade and plan over a migrator that is told its answers; signals in this process."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from mongover.cli.commands.run import result_sentence
from mongover.cli.signals import Stage, install_end, stopping
from mongover.errors import Interrupted, LockHeld
from mongover.migrator import RunResult
from mongover.planning.plan import Plan, Step
from mongover.running import events
from mongover.running.stop import Stop
from tests.support.cli_fakes import DOWN, UP, document, fake, invoke, revision

if TYPE_CHECKING:
    from collections.abc import Iterator

DONE = RunResult(
    UP,
    "head",
    "run-1",
    ("0005", "0006"),
    21.8,
    heads={"users": ("0006",), "calls": ("0005",), None: ()},
)
REVERTED = RunResult(DOWN, "-1", "run-2", ("0006",), 0.012, heads={"users": ()})
NOTHING = RunResult(UP, "head", None, (), 0.0, message="nothing to do: users is at its head")


def playing(result: RunResult) -> Any:
    """An upgrade that tells a few events and ends with the result."""

    def upgrade(target: str, *, listener: events.Listener, stop: Stop, **_: Any) -> RunResult:
        assert not stop.requested
        listener(events.RunStarted("run-1", result.direction, target, 2, "db.example"))
        return result

    return upgrade


def test_upgrade_ends_with_what_was_done_and_how_to_undo_it() -> None:
    migrator = fake(upgrade=playing(DONE))
    result = invoke(migrator, "upgrade")
    assert result.exit_code == 0
    assert result.stdout == (
        "✓ 2 revisions applied in 21.8 s. users 0006, calls 0005, (unnamed) base.\n"
    )
    assert "shop on db.example: 2 revisions to apply" in result.stderr
    assert result.stderr.endswith("undo: mongover downgrade -2\n")
    assert migrator.calls[0][1] == ("head",)
    assert migrator.closed == 1


def test_upgrade_json_is_one_document_and_the_talk_goes_to_stderr() -> None:
    result = invoke(fake(upgrade=playing(DONE)), "upgrade", "--json")
    assert document(result) == {
        "direction": "up",
        "target": "head",
        "run": "run-1",
        "applied": ["0005", "0006"],
        "durationMs": 21800.0,
        "warnings": [],
    }
    assert "2 revisions applied" in result.stderr


def test_upgrade_json_lines_end_with_the_result() -> None:
    result = invoke(fake(upgrade=playing(DONE)), "upgrade", "--json-lines")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["RunStarted", "result"]
    assert lines[-1]["applied"] == ["0005", "0006"]
    assert result.stderr == ""


def test_an_error_among_json_lines_is_a_line_too() -> None:
    result = invoke(fake(upgrade=LockHeld("held")), "upgrade", "--json-lines")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["error"]["code"] == "MGV050"


def test_nothing_to_do_is_a_sentence_and_a_success() -> None:
    result = invoke(fake(upgrade=playing(NOTHING)), "upgrade")
    assert result.exit_code == 0
    assert result.stdout == "nothing to do: users is at its head\n"
    assert document(invoke(fake(upgrade=playing(NOTHING)), "upgrade", "--json"))["applied"] == []


def test_quiet_upgrade_says_nothing_but_warnings() -> None:
    warned = RunResult(UP, "head", "run", ("0005",), 1.0, warnings=("index x was left out",))
    result = invoke(fake(upgrade=playing(warned)), "upgrade", "-q")
    assert result.stdout == ""
    assert result.stderr == "warning: index x was left out\n"


def test_the_options_of_a_run_reach_configuration_and_migrator() -> None:
    migrator = fake(upgrade=playing(NOTHING))
    args = ["--retry", "--lock-wait", "5", "--lease", "9", "--wait", "30", "--connect-timeout", "2"]
    assert invoke(migrator, "upgrade", "users", *args).exit_code == 0
    settings, overrides = migrator.opened[0]
    assert overrides == {"lock_wait": 5.0, "lease": 9.0, "wait": 30.0}
    assert settings.overrides == {"connect_timeout": 2.0}
    _, target, options = migrator.calls[0]
    assert target == ("users",)
    assert options["retry"] is True


@pytest.mark.parametrize("target", ["-1", "users@-1", "base", "0004", "0004-1"])
def test_downgrade_takes_every_target_as_typed(target: str) -> None:
    migrator = fake(downgrade=playing(REVERTED))
    result = invoke(migrator, "downgrade", target)
    assert result.exit_code == 0
    assert result.stdout == "✓ 1 revision reverted in 12 ms. users base.\n"
    assert "undo" not in result.stderr
    assert migrator.calls[0][1] == (target,)


def test_a_bare_downgrade_is_refused_with_what_to_type() -> None:
    migrator = fake()
    result = invoke(migrator, "downgrade")
    assert result.exit_code == 2
    assert "mongover downgrade -1 " in result.stderr
    assert "nothing was run." in result.stderr
    assert migrator.opened == []


PLANNED = Plan(
    UP,
    "head",
    (Step(revision("0005", message="create [calls]"), UP), Step(revision(transaction=True), UP)),
    notices=("goes into another line",),
)


@pytest.mark.parametrize("args", [["plan"], ["upgrade", "--plan"]])
def test_a_plan_lists_the_steps_and_runs_nothing(args: list[str]) -> None:
    migrator = fake(plan=PLANNED)
    result = invoke(migrator, *args)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "  apply  0005  users  create [calls]",
        "  apply  0001  users  create users    in one transaction",
    ]
    assert "warning: goes into another line" in result.stderr
    assert result.stderr.endswith("next: mongover upgrade\n")
    assert migrator.calls == [("plan", (UP, "head"), {})]


@pytest.mark.parametrize(
    ("args", "target"),
    [
        (["plan", "--down", "0004"], "0004"),
        (["plan", "-1"], "-1"),
        (["plan", "users@base"], "users@base"),
        (["downgrade", "--plan", "-2"], "-2"),
    ],
)
def test_a_plan_of_a_downgrade(args: list[str], target: str) -> None:
    migrator = fake(plan=Plan(DOWN, target, (Step(revision(), DOWN),)))
    result = invoke(migrator, *args)
    assert [call[:2] for call in migrator.calls] == [("plan", (DOWN, target))]
    assert "  revert  0001" in result.stdout
    assert f"next: mongover downgrade {target}" in result.stderr


def test_a_plan_in_json_and_one_without_steps() -> None:
    told = document(invoke(fake(plan=PLANNED), "plan", "--json"))
    assert told["steps"][1] == {
        "revision": "0001",
        "schema": "users",
        "direction": "up",
        "message": "create users",
        "transaction": True,
    }
    empty = fake(plan=Plan(UP, "users", (), nothing="users is at its head"))
    assert invoke(empty, "plan", "users").stdout == "users is at its head\n"
    assert document(invoke(empty, "plan", "users", "--json"))["steps"] == []


def test_a_plan_down_needs_a_target() -> None:
    result = invoke(fake(), "plan", "--down")
    assert result.exit_code == 2
    assert "mongover plan --down -1" in result.stderr


def test_a_result_without_heads_is_still_a_sentence() -> None:
    assert result_sentence(RunResult(UP, "x", "r", ("1",), 1.0)) == "1 revision applied in 1.0 s."


def stopped_by(signum: int, stage: Stage, *, error: bool = True) -> tuple[Stop, BaseException]:
    """Send the signal to this process inside `stopping`; what left the block."""
    stop = Stop()
    with pytest.raises(BaseException) as caught, stopping(stop, lambda: stage):  # noqa: PT012 - the signal arrives inside
        os.kill(os.getpid(), signum)
        if stage is Stage.WAITING and not error:
            os.kill(os.getpid(), signum)
        raise Interrupted("0007 was interrupted", hint="go on", notes=["n"], after="a")
    return stop, caught.value


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_each_signal_has_its_exit_code_and_the_words_of_the_run(signum: int, code: int) -> None:
    stop, error = stopped_by(signum, Stage.RUNNING)
    assert stop.requests == 1
    assert isinstance(error, Interrupted)
    assert error.exit_code == error.to_dict()["exit"] == code
    assert (error.kind, error.message, error.hint) == (
        "Interrupted",
        "0007 was interrupted",
        "go on",
    )


def test_before_anything_was_heard_a_signal_ends_at_once() -> None:
    _, error = stopped_by(signal.SIGTERM, Stage.SILENT)
    assert isinstance(error, Interrupted)
    assert error.exit_code == 143
    assert error.after == "nothing was run."


def test_while_waiting_for_the_lock_the_second_signal_ends_at_once() -> None:
    stop, error = stopped_by(signal.SIGINT, Stage.WAITING, error=False)
    assert stop.requests == 2
    assert isinstance(error, Interrupted)
    assert error.message == "stopped before the run began"


def test_handlers_are_put_back_and_ignored_signals_stay_ignored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping(Stop(), lambda: Stage.RUNNING):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not before
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_no_handler_is_installed() -> None:
    seen = []
    before = signal.getsignal(signal.SIGINT)

    def work() -> None:
        with stopping(Stop(), lambda: Stage.RUNNING):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_an_interruption_without_a_signal_keeps_its_exit_code() -> None:
    with pytest.raises(Interrupted) as caught, stopping(Stop(), lambda: Stage.RUNNING):
        raise Interrupted("stopped")
    assert caught.value.exit_code == 130


@pytest.fixture
def signals() -> Iterator[None]:
    """The handlers of signals are put back afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_outside_a_run_a_signal_unwinds_the_process_once(
    number: int, error: type[BaseException]
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    install_end()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    with pytest.raises(error) as end:
        os.kill(os.getpid(), number)
    assert number == signal.SIGINT or end.value.args == (143,)
    for _ in range(20):  # the report of the first one is being written
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("signals")
def test_a_signal_after_one_that_ended_a_run_does_not_cut_short_its_report() -> None:
    install_end()

    def stopped() -> None:
        with stopping(Stop(), lambda: Stage.RUNNING):
            os.kill(os.getpid(), signal.SIGINT)
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        stopped()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_in_the_wait_for_the_server_is_130_and_says_that_nothing_ran() -> None:
    result = invoke(fake(upgrade=KeyboardInterrupt()), "upgrade", "--json")
    assert result.exit_code == 130
    assert document(result)["error"]["exit"] == 130
    assert "nothing was run." in result.stderr
