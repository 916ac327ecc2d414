"""The open database, by what the URL says: its server, its history, and a lease on it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from mongover.database.command_watch import CommandWatch
from mongover.database.embedded import open_embedded, parse_embedded
from mongover.database.server import Server, ServerInfo, connect
from mongover.errors import ConfigError
from mongover.history.author import holder
from mongover.history.lease import Lease, end_lease, read_lease
from mongover.history.memory import MemoryHistory, SoloLease
from mongover.history.mongo import MongoHistory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import ExitStack
    from pathlib import Path

    from mongover.config.config import Config
    from mongover.history.changes import History
    from mongover.history.lease import LeaseState

_MOCK = "mongomock://"


class Store:
    """History and lease in the database itself."""

    def __init__(self, server: Server, config: Config, *, url: str) -> None:
        self.server: Server | MockServer = server
        self.url = url  # where workers of a run connect to; empty where they cannot
        self.history: History = MongoHistory(server.records(config.collection))
        self._locks = server.records(config.lock_collection)
        self._config = config

    def new_lease(self, command: str, *, wait: float | None = None) -> Lease | SoloLease:
        """A lease that is still to be acquired; others who wait for it will read the command.

        `wait` counts instead of the configured `lock_wait`.
        """
        patience = self._config.lock_wait if wait is None else wait
        return Lease(self._locks, holder=holder(command), length=self._config.lease, wait=patience)

    @property
    def rejects(self) -> Any:
        """The collection of the documents that transforms kept aside."""
        return self._beside("rejects")

    def _beside(self, name: str) -> Any:
        full = f"{self._config.collection}_{name}"
        records = getattr(self.server, "records", None)  # what only pretends has no concerns
        return self.server.database[full] if records is None else records(full)

    def read_lease(self) -> LeaseState | None:
        """The lease as it stands; None if there never was one."""
        return read_lease(self._locks)

    def end_lease(self, owner: str | None) -> LeaseState:
        """End a lease by hand."""
        return end_lease(self._locks, owner=owner)


class MockStore(Store):
    """History in memory, beside a database that only pretends; nobody else can lock it."""

    def __init__(self, server: MockServer, config: Config) -> None:
        self.server = server
        self.url = ""
        self.history = MemoryHistory()
        self._config = config

    def new_lease(self, command: str, *, wait: float | None = None) -> Lease | SoloLease:
        """A lease that nobody else can hold."""
        del command, wait
        return SoloLease()

    def read_lease(self) -> LeaseState | None:
        """Nothing: there is no lease."""
        return None

    def end_lease(self, owner: str | None) -> LeaseState:
        """Refused: there is none."""
        del owner
        raise ConfigError(f"{_MOCK} has no lock", hint="a lock needs a real server")


class MockServer:
    """`mongomock://`, for unit tests without a server; its data ends with it.

    It has neither transactions nor sessions nor commands: revisions that work on plain documents
    through `op.db` run on it, operations that send commands do not.
    """

    timeout = 0.0
    address = "mongomock"

    def __init__(self, database: str) -> None:
        self.name = database
        self.client = _mock_client()
        self.watch = CommandWatch()

    @property
    def database(self) -> Any:
        """The database that the revisions work on."""
        return self.client[self.name]

    def session(self) -> AbstractContextManager[Any]:
        """No session."""
        return nullcontext()

    def info(self) -> ServerInfo:
        """What it pretends to be."""
        version = self.client.server_info()["version"]
        return ServerInfo(self.address, version, "in memory", transactions=False, writable=True)

    def kinds(self, names: Iterable[str]) -> Mapping[str, str]:
        """Which of the named collections exist."""
        known = set(self.database.list_collection_names())
        return dict.fromkeys((name for name in names if name in known), "collection")


def _mock_client() -> Any:
    try:
        import mongomock
    except ImportError as error:
        raise ConfigError(
            f"{_MOCK} needs the package mongomock, which is not installed",
            hint="pip install mongomock",
        ) from error
    return mongomock.MongoClient()


def open_store(config: Config, *, environ: Mapping[str, str], stack: ExitStack) -> Store:
    """The store of the configured URL; what must be closed at the end is put on the stack.

    Raises:
        ConfigError: the driver refuses the URL.
        EmbeddedError: the embedded server cannot run.
    """
    url = config.url.reveal()
    if url.lower().startswith(_MOCK):
        return MockStore(MockServer(config.database), config)
    folder, alias = parse_embedded(url), ""
    if folder is not None:
        opened = open_embedded(config.root / folder, environ=environ)
        url, alias = stack.enter_context(opened).url, f"embedded:{_near(folder, config.root)}"
    patience = max(config.connect_timeout, config.wait)
    server = connect(url, config.database, timeout=patience, alias=alias)
    stack.callback(server.close)
    return Store(server, config, url=url)


def _near(folder: Path, root: Path) -> Path:
    """The folder as the project sees it."""
    return folder.relative_to(root) if folder.is_relative_to(root) else folder
