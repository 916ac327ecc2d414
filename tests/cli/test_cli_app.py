"""The group: help, lazy commands, shared options, usage errors, the boundary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from mongover import __version__
from mongover.__main__ import flush, main
from mongover.cli.app import COMMANDS, LazyGroup, cli, run
from mongover.cli.command import Command, open_migrator, relative_last
from mongover.cli.options import Settings
from mongover.cli.signals import Ending
from mongover.errors import ConfigError, Edited, Unreachable
from tests.support.cli_fakes import document, fake, invoke, record, status
from tests.support.servers import ROOT, run_cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_says_what_each_command_says_of_itself(name: str) -> None:
    _, text = COMMANDS[name]
    command = cli.get_command(click.Context(cli), name)
    assert isinstance(command, Command)
    assert command.name == name
    assert (
        command.get_short_help_str(100) == text.rstrip(".")
        or command.get_short_help_str(100) == text
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_page_with_the_shared_options(name: str) -> None:
    result = invoke(fake(), name, "--help")
    assert result.exit_code == 0
    assert "Options of every command" in result.stdout
    for words in ("--json", "MONGOVER_URL", "MONGOVER_DATABASE", "NO_COLOR"):
        assert words in result.stdout


def test_the_help_of_the_group_lists_every_command_once() -> None:
    result = invoke(fake(), "--help")
    listed = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("  ")]
    for name in COMMANDS:
        assert listed.count(name) == 1
    assert invoke(fake(), "-h").stdout == result.stdout


def test_without_a_command_the_help_is_shown() -> None:
    result = invoke(fake())
    assert result.exit_code == 2
    assert "Run them:" in result.stderr


def test_the_version_is_that_of_the_package() -> None:
    assert invoke(fake(), "--version").stdout == f"mongover {__version__}\n"


def test_help_imports_neither_the_driver_nor_pydantic_nor_rich_nor_a_command() -> None:
    modules = _modules_after("--help")
    heavy = {
        "pymongo",
        "bson",
        "pydantic",
        "pydantic_core",
        "rich",
        "asyncio",
        "mongover.config.config",
    }
    commands = {f"mongover.cli.commands.{module}" for module, _ in COMMANDS.values()}
    assert "mongover.cli.app" in modules
    assert not modules & (heavy | commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_does_not_import_the_driver(name: str) -> None:
    assert not _modules_after(name, "--help") & {"pymongo", "pydantic_core", "rich"}


def _modules_after(*args: str) -> set[str]:
    code = (
        "import sys; from mongover.cli.app import run; run(sys.argv[1:]); "
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(done.stderr.split())


def test_a_misspelt_command_is_answered_with_the_nearest() -> None:
    result = invoke(fake(), "statsu")
    assert result.exit_code == 2
    assert "error[MGV002]: No such command 'statsu'. Did you mean 'status'?" in result.stderr
    assert "next: mongover --help" in result.stderr


def test_a_misspelt_option_is_answered_with_the_nearest_and_the_help_of_its_command() -> None:
    result = invoke(fake(), "upgrade", "--retyr")
    assert result.exit_code == 2
    assert "'--retry'" in result.stderr
    assert "next: mongover upgrade --help" in result.stderr


def test_a_usage_error_has_a_json_document_too() -> None:
    result = invoke(fake(), "status", "--json", "--nope")
    assert result.exit_code == 2
    assert document(result)["error"]["code"] == "MGV002"
    assert document(result)["error"]["exit"] == 2
    assert "--nope" in result.stderr


@pytest.mark.parametrize("args", [["--json", "status"], ["status", "--json"]])
def test_a_shared_option_may_stand_before_or_after_the_command(args: list[str]) -> None:
    result = invoke(fake(status=status()), *args)
    assert document(result)["database"] == "shop"


def test_an_option_after_the_command_wins_over_one_before_it() -> None:
    migrator = fake(heads=())
    invoke(migrator, "-c", "a.ini", "--database", "one", "heads", "--database", "two", "-q")
    settings, _ = migrator.opened[0]
    assert (settings.config, settings.database, settings.quiet) == ("a.ini", "two", True)
    assert settings.overrides == {"database": "two"}


@pytest.mark.parametrize(
    ("value", "is_json"),
    [("1", True), ("yes", True), ("whatever", True), ("0", False), ("", False)],
)
def test_a_flag_can_be_set_by_its_variable(value: str, is_json: bool) -> None:
    result = invoke(fake(heads=()), "heads", env={"MONGOVER_JSON": value})
    assert result.stdout.startswith("{") is is_json


def test_the_url_of_the_environment_is_left_to_the_configuration() -> None:
    migrator = fake(heads=())
    invoke(migrator, "heads", env={"MONGOVER_URL": "mongodb://elsewhere/"})
    assert migrator.opened[0][0].url is None


def test_an_error_of_the_migrator_is_said_once_and_becomes_its_exit_code() -> None:
    migrator = fake(status=Unreachable("no server answers at db.example", hint="start it"))
    result = invoke(migrator, "status", "--json")
    assert result.exit_code == 5
    assert document(result)["error"] == {
        "code": "MGV061",
        "kind": "Unreachable",
        "message": "no server answers at db.example",
        "hint": "start it",
        "exit": 5,
    }
    assert result.stderr.count("no server answers") == 1
    assert migrator.closed == 1


def test_an_error_that_quotes_the_url_does_not_tell_its_password() -> None:
    error = Edited("bad mongodb://u:hush-hush@db.example/ and hush-hush alone")
    result = invoke(fake(status=error), "status", "--json", "--debug")
    assert result.exit_code == 4
    assert "hush-hush" not in result.output


def test_a_bug_is_one_line_and_its_traceback_comes_on_request() -> None:
    migrator = fake(status=RuntimeError("unforeseen"))
    result = invoke(migrator, "status")
    assert result.exit_code == 1
    assert "this is a bug in mongover: RuntimeError: unforeseen" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in invoke(migrator, "status", "--debug").stderr
    assert "Traceback" in invoke(migrator, "-v", "status").stderr


def test_ctrl_c_is_130_without_a_traceback() -> None:
    result = invoke(fake(status=KeyboardInterrupt()), "status", "--json")
    assert result.exit_code == 130
    assert '"code": "MGV070"' in result.stdout
    assert "Traceback" not in result.stderr


def test_warnings_of_the_configuration_are_shown() -> None:
    migrator = fake(heads=())
    object.__setattr__(migrator.config, "warnings", ("MONGOVER_ULR is unknown",))
    assert "warning: MONGOVER_ULR is unknown" in invoke(migrator, "heads").stderr


@pytest.mark.parametrize(
    ("args", "parsed"),
    [
        (["-1"], ["--", "-1"]),
        (["-12", "--plan"], ["--plan", "--", "-12"]),
        (["users@-1"], ["users@-1"]),
        (["--lock-wait", "-1", "0004"], ["--lock-wait", "-1", "0004"]),
        (["--", "-1"], ["--", "-1"]),
        (["-q", "--", "-x"], ["-q", "--", "-x"]),
        (["-x"], ["-x"]),
        ([], []),
    ],
)
def test_a_relative_target_is_not_taken_for_an_option(args: list[str], parsed: list[str]) -> None:
    assert relative_last(args, {"--lock-wait"}) == parsed


def test_a_bash_completion_offers_the_commands() -> None:
    done = run_cli(
        cwd=ROOT, env={"_MONGOVER_COMPLETE": "bash_complete", "COMP_WORDS": "mongover sta",
                       "COMP_CWORD": "1"}
    )  # fmt: skip
    assert {line.partition(",")[2] for line in done.stdout.split()} == {"status", "stamp"}


def completions(words: str, folder: Path) -> set[str]:
    env = {"_MONGOVER_COMPLETE": "bash_complete", "COMP_WORDS": words}
    done = run_cli(cwd=folder, env={**env, "COMP_CWORD": str(len(words.split(" ")) - 1)})
    assert done.stderr == ""
    return {line.partition(",")[2] for line in done.stdout.split()}


def test_a_completion_offers_revisions_schemas_and_words(tmp_path: Path) -> None:
    for args in (["init"], ["revision", "-m", "create users", "--schema", "users"]):
        assert run_cli(*args, cwd=tmp_path).returncode == 0
    assert completions("mongover upgrade ", tmp_path) == {"head", "base", "users", "0001"}
    assert completions("mongover show 00", tmp_path) == {"0001"}
    (tmp_path / "elsewhere.ini").write_text("[mongover]\nversions = nowhere\n")
    assert completions("mongover -c elsewhere.ini show 00", tmp_path) == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(shell: str) -> None:
    result = invoke(fake(), "completion", shell)
    assert result.exit_code == 0
    assert "_MONGOVER_COMPLETE" in result.stdout
    assert document(invoke(fake(), "completion", shell, "--json"))["shell"] == shell


def test_the_module_can_be_run_and_ends_with_the_exit_code(tmp_path: Path) -> None:
    assert run_cli("--version", cwd=tmp_path).stdout == f"mongover {__version__}\n"
    assert run_cli("statsu", cwd=tmp_path).returncode == 2


def test_a_configuration_file_that_is_missing_is_named(tmp_path: Path) -> None:
    done = run_cli("-c", "nope.ini", "heads", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert "nope.ini" in json.loads(done.stdout)["error"]["message"]


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    command = f"{sys.executable} -m mongover --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_a_full_disk_is_not_a_success() -> None:
    command = f"{sys.executable} -m mongover --version > /dev/full"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1


class _Unwritable:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def flush(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("errors", "code", "ends"),
    [
        ([], 0, 0),
        ([BrokenPipeError()], 0, 0),
        ([OSError(28, "full")], 0, 1),
        ([OSError(28, "full")], 4, 4),
        ([ValueError("closed")], 0, 1),
    ],
)
def test_the_exit_code_tells_of_data_that_could_not_be_written(
    errors: Iterable[Exception], code: int, ends: int
) -> None:
    assert flush([None, *map(_Unwritable, errors)], code) == ends  # type: ignore[list-item]


def test_the_group_can_be_called_like_any_click_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli(["current", "--json"], obj=fake(current=(record(),)).open)
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["revisions"][0]["revision"] == "0001"


def test_run_returns_the_exit_code_and_leaves_the_process_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["status", "--check"], opener=fake(status=status()).open) == 6
    assert "2 pending" in capsys.readouterr().out


def test_resilient_parsing_of_an_unknown_command_raises_nothing() -> None:
    context = click.Context(cli, resilient_parsing=True)
    assert cli.resolve_command(context, ["nope"])[1] is None
    assert cli.get_command(context, "nope") is None


def test_the_migrator_is_opened_from_file_flags_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.ini").write_text("[mongover]\nurl = mongodb://a/shop\nlease = 7\n")
    settings = Settings(config="other.ini", database="flag")
    opened = open_migrator(settings, {"MONGOVER_LOCK_WAIT": "3"}, lease=9.0)
    config = opened.config
    assert (config.database, config.lease, config.lock_wait) == ("flag", 9.0, 3.0)


def test_without_any_configuration_the_hint_is_init(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        open_migrator(Settings(), {})
    assert "mongover init" in caught.value.hint
    assert open_migrator(Settings(), {}, needs_database=False).config.database == ""


@pytest.mark.parametrize("error", [Unreachable("away"), RuntimeError("unforeseen")])
def test_an_error_on_the_way_to_a_command_is_said_like_any_other(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(*_: object) -> None:
        raise error

    monkeypatch.setattr(LazyGroup, "parse", parse)
    result = invoke(fake(), "status", "--json")
    assert result.exit_code == document(result)["error"]["exit"]
    assert str(error) in result.stderr


def test_main_flushes_and_leaves_with_the_exit_code_without_waiting_for_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    monkeypatch.setattr("mongover.cli.signals.install_end", Ending)
    monkeypatch.setattr("mongover.process.collect_seldom", lambda: None)
    for outcome in (4, SystemExit(143), SystemExit(None), SystemExit("words")):
        monkeypatch.setattr("mongover.cli.app.run", _returning(outcome))
        main()
    assert ends == [4, 143, 0, 1]


def _returning(outcome: int | SystemExit) -> Callable[[list[str]], int]:
    def run_it(args: list[str]) -> int:
        del args
        if isinstance(outcome, SystemExit):
            raise outcome
        return outcome

    return run_it
