"""The kinds of values that a setting can have, and the names of files and variables.

Where values come from is in `load`; which settings there are, in `config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mongover.config.urls import redact
from mongover.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, Final

    from mongover.errors import Where


INI_NAME: Final = "alembic-style.ini"
TOML_NAME: Final = "pyproject.toml"
SECTION: Final = "mongover"
PREFIX: Final = "MONGOVER_"
OTHER_VARIABLES: Final = frozenset(
    PREFIX + name
    for name in (
        *("CONFIG", "MONGOD", "API_TOKEN", "API_READ_TOKEN"),
        *("JSON", "VERBOSE", "QUIET", "DEBUG"),
    )
)


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is not empty."""

    allowed: str

    def takes(self, value: object) -> bool:
        """Whether a value is one."""
        return isinstance(value, str) and value != ""


@dataclass(frozen=True, slots=True)
class Seconds:
    """A number of seconds within bounds."""

    low: float
    high: float

    @property
    def allowed(self) -> str:
        """What the key may be, for an error."""
        return f"a number of seconds from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number within bounds."""

    low: int
    high: int

    @property
    def allowed(self) -> str:
        """What the key may be, for an error."""
        return f"a whole number from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        """What the key may be, for an error."""
        return f"one of {', '.join(self.words)}"

    def takes(self, value: object) -> bool:
        """Whether a value is one."""
        return value in self.words


@dataclass(frozen=True, slots=True)
class Switch:
    """True or false."""

    allowed: str = "true or false (yes, no, on, off, 1, 0)"


Kind = Text | Seconds | Count | Choice | Switch


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the configuration: its default, what it may be, and what it means."""

    name: str
    default: Any
    kind: Kind
    doc: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.upper()


@dataclass(frozen=True, slots=True)
class Given:
    """A value as someone gave it, who that was, and from where relative folders count."""

    value: object
    label: str
    base: Path
    where: Where | None = None
    expanded: bool = False  # it came out of the environment: it is not shown
    unset: ConfigError | None = None  # the variable that it needs and that there is not


def wrong_value(name: str, given: Given, problem: str, hint: str = "") -> ConfigError:
    """The error for a setting with a value that it cannot have; a URL is never shown."""
    shown = "" if name == "url" or given.expanded else f", not {shown_value(given.value)}"
    return ConfigError(
        f"{given.label}: {name} {problem}{shown}",
        hint=hint or f"correct `{name}`",
        where=given.where,
    )


def shown_value(value: object) -> str:
    """A value as an error may show it: without secrets, and short."""
    text = redact(repr(value) if isinstance(value, str) else str(value))
    return text if len(text) <= 60 else f"{text[:57]}…"  # noqa: PLR2004 - part of one screen line
