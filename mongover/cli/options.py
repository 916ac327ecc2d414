"""The options that every command takes, before or after its name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Settings:
    """What the shared options say; None where nothing was said."""

    config: str | None = None
    url: str | None = None
    database: str | None = None
    connect_timeout: float | None = None
    json: bool = False
    verbose: bool = False
    quiet: bool = False
    no_color: bool = False
    debug: bool = False

    @property
    def overrides(self) -> dict[str, Any]:
        """The flags that override a key of the configuration."""
        names = ("url", "database", "connect_timeout")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class ConfigOption(click.Option):
    """An option whose variable is read with the configuration, which can say where it came from.

    The variable is shown in the help; click does not read it.
    """

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Nothing: the configuration reads the variable."""
        del ctx
        return None


def shared_options() -> list[click.Option]:
    """New instances of the shared options."""
    seconds = Seconds(min=0, min_open=True)
    return [
        _setting("-c", "--config", "MONGOVER_CONFIG", "FILE", "The configuration file."),
        _setting("--url", "MONGOVER_URL", "URL", "The server, or embedded:FOLDER."),
        _setting("--database", "MONGOVER_DATABASE", "NAME", "The database."),
        _setting(
            "--connect-timeout",
            "MONGOVER_CONNECT_TIMEOUT",
            "SECONDS",
            "Give up on the server after so long.",
            type=seconds,
        ),
        _flag("--json", "MONGOVER_JSON", "One JSON document on stdout, text on stderr."),
        _flag("-v", "--verbose", "MONGOVER_VERBOSE", "Say more; errors with their traceback."),
        _flag("-q", "--quiet", "MONGOVER_QUIET", "Only what was asked for, and errors."),
        _flag("--no-color", "NO_COLOR", "No colours."),
        _flag("--debug", "MONGOVER_DEBUG", "The traceback of an error."),
    ]


def _setting(*words: str, type: Any = str) -> click.Option:  # noqa: A002 - click's own word
    *names, variable, metavar, text = words
    return ConfigOption(
        names, metavar=metavar, envvar=variable, show_envvar=True, help=text, type=type
    )


class Seconds(click.FloatRange):
    """A number of seconds, named so in the error about one that is none."""

    name = "number of seconds"


class Flag(click.Option):
    """A flag whose variable counts as set whenever it is neither empty nor a plain no."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """`1` or `0` for whatever the variable holds, so that no value of it is an error."""
        value = super().resolve_envvar_value(ctx)
        if value is None:
            return None
        return "0" if value.strip().lower() in {"", "0", "no", "off", "false"} else "1"


def _flag(*words: str) -> click.Option:
    *names, variable, text = words
    return Flag(names, is_flag=True, envvar=variable, show_envvar=True, help=text)


NAMES: Final = tuple(field.name for field in fields(Settings))


def take_settings(params: dict[str, Any], before: Settings) -> Settings:
    """The settings of a command's parameters, which are taken out; what stands before counts on."""
    given = {name: params.pop(name) for name in NAMES if name in params}
    said = {name: value for name, value in given.items() if value not in (None, False)}
    return Settings(**{name: said.get(name, getattr(before, name)) for name in NAMES})


def guess_settings(args: list[str], environ: Mapping[str, str]) -> Settings:
    """What an error needs to know of a command line that could not be parsed."""
    words = args[: args.index("--")] if "--" in args else args
    return Settings(
        json="--json" in words or environ.get("MONGOVER_JSON", "").lower() not in _NO,
        no_color="--no-color" in words,
        debug="--debug" in words,
    )


_NO: Final = frozenset({"", "0", "no", "off", "false"})
