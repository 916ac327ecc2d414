"""Who runs: user, host, process, and the commit that is checked out."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from bson import encode

from mongover.history import author

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *args: str) -> str:
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    names = {
        f"GIT_{who}_{what}": "x@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    done = subprocess.run(
        ["git", *args],
        cwd=folder,
        env={"PATH": os.environ["PATH"]} | settings | names,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "versions").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    return folder


def test_the_commit_around_the_revisions(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert author.git_commit(checkout / "versions") == commit
    assert author.author(checkout / "versions")["git"] == commit


def test_a_detached_head_and_packed_references(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    git(checkout, "pack-refs", "--all")
    assert author.git_commit(checkout) == commit
    git(checkout, "checkout", "-q", "--detach")
    assert author.git_commit(checkout) == commit


def test_a_worktree_has_the_commit_of_its_own_branch(checkout: Path) -> None:
    tree = checkout / "inner" / "tree"
    git(checkout, "worktree", "add", "-q", "-b", "other", str(tree))
    git(tree, "commit", "-q", "--allow-empty", "-m", "two")
    assert author.git_commit(tree) == git(tree, "rev-parse", "HEAD")
    assert author.git_commit(tree) != author.git_commit(checkout)


def test_a_branch_without_a_commit_is_unknown(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert author.git_commit(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("HEAD", b"\xff\xfe"),
        ("HEAD", b""),
        ("HEAD", None),
        ("HEAD", b"ref: refs/heads/none"),
    ],
)
def test_a_damaged_checkout_is_unknown(checkout: Path, name: str, content: bytes | None) -> None:
    path = checkout / ".git" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert author.git_commit(checkout) is None


def test_packed_references_without_the_branch_are_unknown(checkout: Path) -> None:
    git(checkout, "pack-refs", "--all")
    (checkout / ".git" / "HEAD").write_text("ref: refs/heads/none\n")
    assert author.git_commit(checkout) is None


def test_a_folder_outside_every_checkout_is_unknown(tmp_path: Path) -> None:
    assert author.git_commit(tmp_path / "none") is None


def test_holder_and_author_name_this_process(tmp_path: Path) -> None:
    assert author.holder("upgrade") == {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "user": getpass.getuser(),
        "command": "upgrade",
    }
    assert author.author(tmp_path)["pid"] == os.getpid()


@pytest.mark.parametrize("error", [KeyError("uid"), OSError("no"), ImportError("pwd")])
def test_a_user_without_a_name_is_its_number(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", fail)
    assert author.holder("x")["user"] == str(os.getuid())
    monkeypatch.delattr(os, "getuid")
    assert author.holder("x")["user"] == "unknown"


def test_names_that_are_no_text_can_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "caf\udce9")
    monkeypatch.setattr(socket, "gethostname", lambda: "h\udcff")
    stored: dict[str, Any] = author.holder("x")
    assert encode(stored)
    assert stored["user"].startswith("caf")
