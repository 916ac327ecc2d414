"""Fixtures that every test file may ask for: real servers, and databases of one test each."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.depth import DESK, deep, load_profile, mark_by_fixtures
from tests.support.servers import (
    Server,
    ThreeNodes,
    run_auth_server,
    run_replica_set,
    run_standalone,
    run_three_nodes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.database import Database


def pytest_configure(config: pytest.Config) -> None:
    """In CI the examples are the same at every run, so that a change is judged by itself."""
    whole = config.getoption("markexpr") != DESK
    load_profile(whole=whole, derandomize="CI" in os.environ)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_by_fixtures(items)


@pytest.fixture(scope="session")
def standalone() -> Iterator[Server]:
    """A mongod without transactions."""
    with run_standalone() as server:
        yield server


@pytest.fixture(scope="session")
def replica_set() -> Iterator[Server]:
    """A replica set of one."""
    with run_replica_set() as server:
        yield server


@pytest.fixture(params=[deep("standalone"), "replica_set"])
def any_server(request: pytest.FixtureRequest) -> Server:
    """The test runs on both; at a desk on the replica set."""
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="session")
def auth_server() -> Iterator[Server]:
    """A replica set of one with access control; `.url` is the administrator's."""
    with run_auth_server() as server:
        yield server


@pytest.fixture(scope="session")
def _three_nodes() -> Iterator[ThreeNodes]:
    with run_three_nodes() as server:
        yield server


@pytest.fixture
def three_nodes(_three_nodes: ThreeNodes) -> Iterator[ThreeNodes]:
    """A replica set of three, started at its first use and healed after each test."""
    yield _three_nodes
    _three_nodes.heal()


@pytest.fixture
def mongo_database() -> Iterator[Callable[[Server | ThreeNodes], str]]:
    """Call it with a server for the name of a new database, dropped after the test."""
    made: list[tuple[Server | ThreeNodes, str]] = []

    def make(server: Server | ThreeNodes) -> str:
        name = f"t_{uuid.uuid4().hex[:16]}"
        made.append((server, name))
        return name

    yield make
    for server, name in made:
        with server.client() as client:
            client.drop_database(name)


@pytest.fixture
def open_database(
    mongo_database: Callable[[Server | ThreeNodes], str],
) -> Iterator[Callable[..., Database[dict[str, Any]]]]:
    """Call it with a server (and options of MongoClient) for a new database; all is cleaned up."""
    clients = []

    def open_(server: Server | ThreeNodes, **options: Any) -> Database[dict[str, Any]]:
        client = server.client(**options)
        clients.append(client)
        return client[mongo_database(server)]

    yield open_
    for client in clients:
        client.close()


@pytest.fixture
def replica_db(
    replica_set: Server, open_database: Callable[..., Database[dict[str, Any]]]
) -> Database[dict[str, Any]]:
    """An empty database on the replica set."""
    return open_database(replica_set)


@pytest.fixture
def standalone_db(
    standalone: Server, open_database: Callable[..., Database[dict[str, Any]]]
) -> Database[dict[str, Any]]:
    """An empty database on the standalone."""
    return open_database(standalone)


@pytest.fixture
def any_db(
    any_server: Server, open_database: Callable[..., Database[dict[str, Any]]]
) -> Database[dict[str, Any]]:
    """An empty database; the test runs on both servers, at a desk on the replica set."""
    return open_database(any_server)
