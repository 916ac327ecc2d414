"""A project of one test: revision files in a temporary folder and a migrator on a real server."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from mongover.migrator import Migrator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pymongo import MongoClient

    from mongover.running.events import Event
    from tests.support.servers import Server, ThreeNodes

HEADER = '''"""{message}"""

revision = {id!r}
down_revision = {down!r}
schema = {schema!r}
{extra}

'''


@dataclass
class Project:
    """Files and a database; `client` is the test's own, `migrator` that under test."""

    folder: Path
    server: Server | ThreeNodes
    database: str
    client: MongoClient[dict[str, Any]]
    opened: list[Migrator] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def db(self) -> Any:
        return self.client[self.database]

    @property
    def history(self) -> Any:
        return self.db["_migrations"]

    @property
    def locks(self) -> Any:
        return self.db["_migrations_lock"]

    @property
    def versions(self) -> Path:
        return self.folder / "versions"

    def write(
        self,
        id: str,  # noqa: A002 - as users say it
        up: str = "pass",
        down: str = "pass",
        *,
        after: str | tuple[str, ...] | None = None,
        schema: str | None = None,
        message: str = "a change",
        extra: str = "",
    ) -> Path:
        """Write a revision; the bodies are dedented."""
        text = HEADER.format(message=message, id=id, down=after, schema=schema, extra=extra)
        for name, body in (("upgrade", up), ("downgrade", down)):
            inner = textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
            text += f"def {name}(op):\n{inner}\n\n\n"
        path = self.versions / f"{id}_change.py"
        path.write_text(text, encoding="utf-8")
        return path

    def migrator(self, **options: Any) -> Migrator:
        """One more migrator; closed after the test."""
        settings: dict[str, Any] = {
            "url": self.server.url,
            "database": self.database,
            "versions": str(self.versions),
            "lease": 20,
            "lock_wait": 5,
        }
        made = Migrator.from_config(environ={}, cwd=self.folder, **settings | options)
        self.opened.append(made)
        return made

    def record(self, id: str = "0001") -> dict[str, Any]:  # noqa: A002 - as users say it
        found = self.history.find_one({"_id": id})
        assert found is not None, f"{id} has no record"
        return dict(found)

    def upgrade(self, target: str = "head", **options: Any) -> Any:
        """Upgrade with a migrator of its own; its events are kept."""
        return self.migrator().upgrade(target, listener=self.events.append, **options)


@pytest.fixture(name="make_project")
def make_project_fixture(
    tmp_path: Path, mongo_database: Callable[..., str]
) -> Iterator[Callable[..., Project]]:
    """Call it with a server for an empty project on a new database of it."""
    projects: list[Project] = []

    def make(server: Server | ThreeNodes) -> Project:
        folder = tmp_path / f"project{len(projects)}"
        (folder / "versions").mkdir(parents=True)
        made = Project(folder, server, mongo_database(server), server.client(tz_aware=True))
        projects.append(made)
        return made

    yield make
    for project in projects:
        for migrator in project.opened:
            migrator.close()
        project.client.close()


@pytest.fixture(name="project")
def project_fixture(make_project: Callable[..., Project], replica_set: Server) -> Project:
    """An empty project on the replica set."""
    return make_project(replica_set)


@pytest.fixture(name="standalone_project")
def standalone_project_fixture(make_project: Callable[..., Project], standalone: Server) -> Project:
    """An empty project on the standalone."""
    return make_project(standalone)
