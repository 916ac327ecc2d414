"""A migrator that answers what a test tells it to, and a way to run the command line over it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from click.testing import CliRunner

from mongover.cli.app import cli
from mongover.config.config import Config
from mongover.config.urls import SecretUrl
from mongover.database.server import ServerInfo
from mongover.history.lease import LeaseState
from mongover.history.record import Direction, LogEntry, Record, State
from mongover.report.status import CollectionStatus, SchemaStatus, Status
from mongover.revisions.revision import Revision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from subprocess import CompletedProcess

    from click.testing import Result

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
BY = {"user": "ana", "host": "web-3", "pid": 412}


@dataclass
class FakeMigrator:
    """Answers are values, exceptions to raise, or functions to call, by the method's name."""

    answers: Mapping[str, Any] = field(default_factory=dict)
    config: Config = field(
        default_factory=lambda: Config(
            url=SecretUrl("mongodb://u:hush-hush@db.example:27017/"), database="shop"
        )
    )
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    opened: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    closed: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.closed += 1

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in self.answers:
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            answer = self.answers[name]
            if isinstance(answer, BaseException):
                raise answer
            return answer(*args, **kwargs) if callable(answer) else answer

        return call

    def open(self, settings: Any, environ: Mapping[str, str], **overrides: Any) -> FakeMigrator:
        del environ
        self.opened.append((settings, overrides))
        return self


def fake(**answers: Any) -> FakeMigrator:
    return FakeMigrator(answers)


def invoke(
    migrator: FakeMigrator,
    *args: str,
    env: Mapping[str, str] | None = None,
    charset: str = "utf-8",
    stdin: str | None = None,
) -> Result:
    """Run the command line in this process, without the variables of the outer one."""
    clean = {"NO_COLOR": None, "FORCE_COLOR": None, "MONGOVER_JSON": None, "TERM": "xterm"}
    runner = CliRunner(charset=charset, env={**clean, **(env or {})})
    return runner.invoke(cli, list(args), obj=migrator.open, input=stdin)


def document(result: Result | CompletedProcess[str]) -> Any:
    """The one JSON document on stdout."""
    return json.loads(result.stdout)


def record(revision: str = "0001", **changes: Any) -> Record:
    values: dict[str, Any] = {
        "state": State.APPLIED,
        "schema": "users",
        "message": "create users",
        "sequence": 1,
        "attempt": 1,
        "checksum": "sha256:" + "a" * 64,
        "started_at": NOON,
        "applied_at": NOON,
        "duration_ms": 4200.0,
        "by": BY,
        "collections": ("users",),
    }
    return Record(revision, **{**values, **changes})


def revision(id: str = "0001", **changes: Any) -> Revision:  # noqa: A002 - the field's own name
    values: dict[str, Any] = {
        "path": Path.cwd() / "versions" / f"{id}_create_users.py",
        "schema": "users",
        "message": "create users",
        "down_revision": (),
        "depends_on": (),
        "transaction": False,
        "repeatable": None,
        "has_downgrade": True,
        "checksum": "sha256:" + "a" * 64,
        "source": "",
        "create_date": None,
    }
    return Revision(id=id, **{**values, **changes})


def lease(*, seconds_left: float = 30.0, owner: str | None = "token-1") -> LeaseState:
    return LeaseState(
        owner=owner,
        holder={**BY, "command": "upgrade"},
        acquired_at=NOON - timedelta(seconds=108),
        heartbeat_at=NOON - timedelta(seconds=3),
        expires_at=NOON + timedelta(seconds=seconds_left),
        now=NOON,
        fence=12,
    )


def status(**changes: Any) -> Status:
    users = CollectionStatus("users", exists=True, documents=1_284_310, indexes=5)
    calls = CollectionStatus("calls", exists=False, documents=0, indexes=0)
    phone = revision("0006", message="add phone")
    create = revision("0005", message="create calls", schema="calls")
    values: dict[str, Any] = {
        "database": "shop",
        "server": ServerInfo(
            "rs0/127.0.0.1:27600", "6.0.5", "replica set", transactions=True, writable=True
        ),
        "schemas": (
            SchemaStatus("users", ("0001",), ("0006",), (phone,), "pending", (users,)),
            SchemaStatus("calls", (), ("0005",), (create,), "pending", (calls,)),
        ),
        "applied": 4,
        "pending": (create, phone),
        "problems": (),
        "lock": None,
        "last": record("0004", message="create schedules"),
    }
    return Status(**{**values, **changes})


def entry(action: str = "apply", outcome: str = "applied", **changes: Any) -> LogEntry:
    return LogEntry(action, outcome, by=BY, at=NOON, **changes)


UP, DOWN = Direction.UP, Direction.DOWN
