"""Who runs: the user, host, process and code that a record and a lease name."""

from __future__ import annotations

import getpass
import os
import socket
from typing import TYPE_CHECKING, Any

from mongover.version import __version__

if TYPE_CHECKING:
    from pathlib import Path


def holder(command: str) -> dict[str, Any]:
    """The holder of a lease, as others will read it while they wait."""
    return {"host": _host(), "pid": os.getpid(), "user": _user(), "command": command}


def author(folder: Path) -> dict[str, Any]:
    """The `by` of a record; `git` is the commit of the checkout that holds `folder`, or None."""
    import pymongo

    return {
        "user": _user(),
        "host": _host(),
        "pid": os.getpid(),
        "mongover": __version__,
        "pymongo": pymongo.version,
        "git": git_commit(folder),
    }


def _host() -> str:
    return _storable(socket.gethostname())


def _user() -> str:
    try:
        return _storable(getpass.getuser())
    except (KeyError, OSError, ImportError):  # a container's user without a name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def _storable(text: str) -> str:
    # Bytes that are no text reach Python as surrogates, which no document can hold.
    return text.encode("utf-8", "backslashreplace").decode()


def git_commit(folder: Path) -> str | None:
    """The commit that is checked out around `folder`, read without running git; None if unknown."""
    for parent in (folder, *folder.parents):
        git = parent / ".git"
        if git.exists():
            return _commit(git)
    return None


def _commit(git: Path) -> str | None:
    try:
        if git.is_file():  # a worktree or submodule: the file says where its folder is
            named = git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
            git = git.parent / named
        return _head(git)
    except (OSError, UnicodeDecodeError):  # a damaged checkout is no reason not to migrate
        return None


def _head(git: Path) -> str | None:
    head = (git / "HEAD").read_text(encoding="ascii").strip()
    if not head.startswith("ref: "):
        return head or None
    name = head.removeprefix("ref: ")
    shared = git / "commondir"  # the branches of a worktree stand in the main checkout
    if shared.is_file():
        git /= shared.read_text(encoding="utf-8").strip()
    loose = git / name
    return loose.read_text(encoding="ascii").strip() if loose.is_file() else _packed(git, name)


def _packed(git: Path, name: str) -> str | None:
    packed = git / "packed-refs"
    if not packed.is_file():
        return None
    for line in packed.read_text(encoding="utf-8").splitlines():
        commit, _, ref = line.partition(" ")
        if ref == name:
            return commit
    return None
