"""Where the database is, in the words of the configuration and without its secrets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from mongover.cli.output import relative

if TYPE_CHECKING:
    from mongover.config import Config

_EMBEDDED: Final = "embedded:"


def embedded_place(config: Config) -> str | None:
    """`embedded:.mongover/db`, or None for a server that others run."""
    url = config.safe_url
    if not url.startswith(_EMBEDDED):
        return None
    return _EMBEDDED + relative(Path(url.removeprefix(_EMBEDDED)))


def place_of(config: Config) -> str:
    """The embedded folder, or the hosts of the URL."""
    embedded = embedded_place(config)
    if embedded is not None:
        return embedded
    rest = config.safe_url.partition("://")[2]
    return rest.partition("/")[0].rpartition("@")[2]
