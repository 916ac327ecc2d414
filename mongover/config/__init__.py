"""What is configured, and the names of mongover's own collections.

The public names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mongover.config.config import Config, settings
    from mongover.config.kinds import Setting
    from mongover.config.load import find_file, load_config
    from mongover.config.urls import SecretUrl, redact, redact_url

__all__ = [
    "Config",
    "SecretUrl",
    "Setting",
    "find_file",
    "load_config",
    "redact",
    "redact_url",
    "settings",
]

_HOMES = {
    "Config": "config",
    "SecretUrl": "urls",
    "Setting": "kinds",
    "find_file": "load",
    "load_config": "load",
    "redact": "urls",
    "redact_url": "urls",
    "settings": "config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mongover.config' has no attribute {name!r}")
    value = getattr(import_module(f"mongover.config.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
