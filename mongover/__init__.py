"""Versioned migration history for MongoDB.

The public names are loaded when they are first used, so that `import mongover` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mongover.config import Config
    from mongover.errors import MongoverError
    from mongover.migrator import Migrator
    from mongover.operations import Operation, Operations

__version__ = "0.1.0"
__all__ = ["Config", "Migrator", "MongoverError", "Operation", "Operations", "__version__"]

_HOMES = {
    "Config": "mongover.config",
    "Migrator": "mongover.migrator",
    "MongoverError": "mongover.errors",
    "Operation": "mongover.operations",
    "Operations": "mongover.operations",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mongover' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next use finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
