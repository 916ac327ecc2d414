"""Applications over real databases, for the tests of the HTTP API and of start-up."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mongover.config.config import Config
from mongover.config.urls import SecretUrl
from mongover.web import migrations_router
from tests.support.servers import ROOT, cli_environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mongover.migrator import Migrator
    from tests.support.servers import Server, ThreeNodes

TOKEN = "write-" + "w" * 24
READ_TOKEN = "reading-" + "r" * 24
WRITE = {"Authorization": f"Bearer {TOKEN}"}
READ = {"Authorization": f"Bearer {READ_TOKEN}"}
SAMPLES = ROOT / "versions"

REVISION = '''"""{message}

Revision ID: {id}
"""
from tests.support.web_support import gate_of

revision = "{id}"
down_revision = {parent!r}
schema = {schema!r}
transaction = {transaction}


def upgrade(op):
    {up}


def downgrade(op):
    {down}
'''


@dataclass
class Gate:
    """A place where a revision of a test waits until the test lets it go on."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        self.reached.set()
        assert self.opened.wait(60), "the test never opened the gate"


_GATES: dict[str, Gate] = {}


def gate_of(name: str) -> Gate:
    """The gate of this name; the test and its revision name the same one."""
    return _GATES.setdefault(name, Gate())


def write_revision(
    folder: Path,
    id: str,  # noqa: A002 - the word of the file
    *,
    schema: str | None = "users",
    parent: str | None = None,
    up: str = "pass",
    down: str = "pass",
    transaction: bool = False,
) -> Path:
    """A revision file with these lines of code."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{id}_step.py"
    path.write_text(
        REVISION.format(
            id=id,
            message=f"step {id}",
            schema=schema,
            parent=parent,
            up=up,
            down=down,
            transaction=transaction,
        )
    )
    return path


def config_for(
    server: Server | ThreeNodes, database: str, versions: Path = SAMPLES, **keys: Any
) -> Config:
    """The configuration of a project on a test server."""
    return Config(
        url=SecretUrl(server.url),
        database=database,
        versions=versions,
        root=versions.parent,
        **keys,
    )


def make_app(config: Config | Migrator | Path, **options: Any) -> FastAPI:
    """An application that includes the router, with a token for writing unless told otherwise."""
    app = FastAPI()
    app.include_router(migrations_router(config, **{"token": TOKEN, "environ": {}, **options}))
    return app


@contextlib.contextmanager
def client_of(app: FastAPI, **options: Any) -> Iterator[TestClient]:
    """A client of a started application; errors of the application are answers, as in real life."""
    with TestClient(app, raise_server_exceptions=False, **options) as client:
        yield client


@dataclass
class Served:
    """A server process under test."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def text(self) -> str:
        return self.log.read_text()

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return httpx2.get(self.url + path, timeout=30, **options)

    def post(self, path: str, **options: Any) -> httpx2.Response:
        return httpx2.post(self.url + path, timeout=60, **options)


_LISTENS = re.compile(r"running on (http://\S+)")


@contextlib.contextmanager
def run_process(
    command: Sequence[str], log: Path, *, cwd: Path, env: Mapping[str, str]
) -> Iterator[Served]:
    """A server process; the address is read from what it logs."""
    with (
        log.open("w") as out,
        subprocess.Popen(
            [sys.executable, *command],
            cwd=cwd,
            env=cli_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield Served(process, "", log)
        finally:
            if process.poll() is None:
                process.kill()


def await_address(served: Served) -> Served:
    """Wait until the process listens, and note where."""

    def look() -> str | None:
        found = _LISTENS.search(served.text())
        assert served.process.poll() is None, served.text()
        return found[1] if found else None

    served.url = wait_until(look, "the start of the server").rstrip("/")
    return served


def seconds_of(act: Any) -> tuple[float, Any]:
    """How long a call takes, and what it returns."""
    began = time.monotonic()
    value = act()
    return time.monotonic() - began, value
