"""Versioned migration history for MongoDB.

The public names are loaded when they are first used, so that `import mongover` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mongover.version import __version__

if TYPE_CHECKING:
    from mongover.config import Config
    from mongover.errors import MongoverError
    from mongover.migrator import Migrator
    from mongover.operations import Operation, Operations

__all__ = ["Config", "Migrator", "MongoverError", "Operation", "Operations", "__version__"]

_HOMES = {
    "Config": "mongover.config",
    "Migrator": "mongover.migrator",
    "MongoverError": "mongover.errors",
    "Operation": "mongover.operations",
    "Operations": "mongover.operations",
}


class _Alias(ModuleType):
    """A documented module under the name that it had before it moved; loaded at its first use."""

    def __init__(self, name: str, home: str) -> None:
        super().__init__(name)
        self.__dict__["_home"] = home

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for these
            raise AttributeError(name)
        return getattr(import_module(self.__dict__["_home"]), name)


sys.modules["mongover.embedded"] = _Alias("mongover.embedded", "mongover.database.embedded")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mongover' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next use finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
