"""What every command is made of: shared options, targets, and the `App` that it receives."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mongover.cli.options import NAMES, Settings, shared_options, take_settings
from mongover.cli.screen.output import Output
from mongover.errors import MongoverError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mongover.migrator import Migrator

Opener = Callable[..., Any]  # (settings, environ, **overrides) -> Migrator
_RELATIVE: Final = re.compile(r"-\d+")


@dataclass(frozen=True, slots=True)
class Root:
    """What the group hands to its command: the options before the name, and who opens a project."""

    settings: Settings
    opener: Opener | None = None


@dataclass(frozen=True, slots=True)
class App:
    """What a command works with."""

    settings: Settings
    output: Output
    environ: Mapping[str, str]
    opener: Opener

    def migrator(self, **overrides: Any) -> Migrator:
        """The project's migrator, to be used in a `with`; None overrides nothing."""
        given = {name: value for name, value in overrides.items() if value is not None}
        migrator: Migrator = self.opener(self.settings, self.environ, **given)
        self.output.hide_secrets_of(migrator.config.url.reveal())
        for warning in migrator.config.warnings:
            self.output.warning(warning)
        return migrator


def open_migrator(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    needs_database: bool = True,
    **overrides: Any,
) -> Migrator:
    """The migrator that the configuration and the flags describe.

    With `needs_database=False` no database need be named: for commands that look at files alone.
    """
    from mongover.config.load import load_config
    from mongover.migrator import Migrator

    config = load_config(
        None if settings.config is None else Path(settings.config),
        overrides={**settings.overrides, **overrides},
        environ=environ,
        cwd=Path.cwd(),
        needs_database=needs_database,
    )
    return Migrator(config, environ=environ)


def bug_of(error: Exception) -> MongoverError:
    """The error that is shown for an exception that mongover did not foresee."""
    bug = MongoverError(
        f"this is a bug in mongover: {type(error).__name__}: {error}",
        hint="run it again with --debug and report what it prints",
    )
    bug.__cause__ = error
    return bug


class Command(click.Command):
    """A command that takes the shared options and receives an `App` as its first argument."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it; what goes wrong always names this command."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Call the function with the app and the command's own parameters."""
        root = ctx.obj
        settings = take_settings(ctx.params, root.settings)
        app = App(settings, Output(settings, os.environ), os.environ, root.opener or open_migrator)
        try:
            return ctx.invoke(self.callback, app, **ctx.params)  # type: ignore[arg-type] # every command has a function
        except MongoverError as error:
            return app.output.report(error)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:  # noqa: BLE001 - here the configured secrets are known and hidden
            return app.output.report(bug_of(error))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options, then those of every command."""
        write_options(self, ctx, formatter)


class TargetCommand(Command):
    """A command whose target may be `-1`, which click would take for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse with the relative target moved behind `--`."""
        valued = {word for param in self.params for word in param.opts if _takes_value(param)}
        return super().parse_args(ctx, relative_last(args, valued))


def _takes_value(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and not param.is_flag


def relative_last(args: Sequence[str], valued: set[str]) -> list[str]:
    """The arguments with each `-1` behind a `--`; one that is an option's value stays."""
    end = args.index("--") if "--" in args else len(args)
    words, rest = list(args[:end]), list(args[end + 1 :])
    moved = [
        i
        for i, word in enumerate(words)
        if _RELATIVE.fullmatch(word) and (i == 0 or words[i - 1] not in valued)
    ]
    if not moved and end == len(args):
        return words
    kept = [word for i, word in enumerate(words) if i not in moved]
    return [*kept, "--", *(words[i] for i in moved), *rest]


def write_options(
    command: click.Command, ctx: click.Context, formatter: click.HelpFormatter
) -> None:
    """The options of a help page, the shared ones in a section of their own."""
    own: list[tuple[str, str]] = []
    shared: list[tuple[str, str]] = []
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
        if record is not None:
            (shared if param.name in NAMES else own).append(record)
    if own:
        with formatter.section("Options"):
            formatter.write_dl(own)
    with formatter.section("Options of every command"):
        formatter.write_dl(shared)
