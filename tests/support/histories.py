"""Values for tests of the history: subjects, attempts and records made by hand."""

from __future__ import annotations

from typing import Any

from mongover.history.changes import Attempt, Subject
from mongover.history.record import Direction

BY = {"user": "ana", "host": "web-3", "pid": 412}


def subject(revision: str = "0001", **values: Any) -> Subject:
    """What the history keeps of a revision's file."""
    fields: dict[str, Any] = {
        "schema": "users",
        "message": "create users",
        "down_revision": (),
        "depends_on": (),
        "checksum": "sha256:aa",
        "source": "text of the file",
        "file": "0001_create_users.py",
    }
    return Subject(revision=revision, **fields | values)


def attempt(revision: str = "0001", direction: Direction = Direction.UP, **values: Any) -> Attempt:
    """A try at a revision by the holder with fence 7."""
    fields: dict[str, Any] = {
        "run": "run-1",
        "owner": "owner-1",
        "fence": 7,
        "by": BY,
        "checksum": "sha256:aa",
    }
    return Attempt(revision=revision, direction=direction, **fields | values)
