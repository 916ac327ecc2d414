"""The reversible verbs of mongover: `Operations` (the `op` of a revision) and its parts.

Names are loaded when they are first used, so that importing this package stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mongover.operations.base import Journal, Operation, Outcome, Target
    from mongover.operations.facade import Operations
    from mongover.operations.index import Index

__all__ = ["Index", "Journal", "Operation", "Operations", "Outcome", "Target"]

_HOMES = {
    "Index": "index",
    "Journal": "base",
    "Operation": "base",
    "Operations": "facade",
    "Outcome": "base",
    "Target": "base",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
