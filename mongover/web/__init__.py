"""mongover over HTTP: `app.include_router(migrations_router())`, or `mongover serve` alone.

The names are loaded when they are first used: without the `web` extra only they are missing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mongover.web.api import migrations_router
    from mongover.web.app import create_app, serve
    from mongover.web.auth import Tokens

__all__ = ["Tokens", "create_app", "migrations_router", "serve"]

_HOMES = {
    "Tokens": "mongover.web.auth",
    "create_app": "mongover.web.app",
    "migrations_router": "mongover.web.api",
    "serve": "mongover.web.app",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mongover.web' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
