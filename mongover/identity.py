"""Who runs: the user, host, process and code that a record and a lease name."""

from __future__ import annotations

import getpass
import os
import socket
from typing import TYPE_CHECKING, Any

from mongover import __version__

if TYPE_CHECKING:
    from pathlib import Path


def holder(command: str) -> dict[str, Any]:
    """The holder of a lease, as others will read it while they wait."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "user": _user(), "command": command}


def author(folder: Path) -> dict[str, Any]:
    """The `by` of a record; `git` is the commit of the checkout that holds `folder`, or None."""
    import pymongo  # noqa: PLC0415 - only runs that already talk to a server come here

    return {
        "user": _user(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "mongover": __version__,
        "pymongo": pymongo.version,
        "git": git_commit(folder),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def git_commit(folder: Path) -> str | None:
    """The commit that is checked out around `folder`, read without running git; None if unknown."""
    for parent in (folder, *folder.parents):
        git = parent / ".git"
        if git.is_dir():
            return _head(git)
    return None


def _head(git: Path) -> str | None:
    try:
        head = (git / "HEAD").read_text(encoding="ascii").strip()
        if not head.startswith("ref: "):
            return head
        loose = git / head.removeprefix("ref: ")
        if loose.is_file():
            return loose.read_text(encoding="ascii").strip()
        return _packed(git, head.removeprefix("ref: "))
    except (OSError, UnicodeDecodeError):  # a damaged checkout is no reason not to migrate
        return None


def _packed(git: Path, name: str) -> str | None:
    packed = git / "packed-refs"
    if not packed.is_file():
        return None
    for line in packed.read_text(encoding="utf-8").splitlines():
        commit, _, ref = line.partition(" ")
        if ref == name:
            return commit
    return None
