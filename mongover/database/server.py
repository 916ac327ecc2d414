"""The connection: a client with our concerns whatever the URL says, and what the server can do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient, ReadPreference
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from mongover.config.urls import redact
from mongover.database.capabilities import Capabilities
from mongover.database.command_watch import CommandWatch
from mongover.database.faults import message_of
from mongover.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from pymongo.collection import Collection
    from pymongo.database import Database

    Document = dict[str, Any]

MILLISECONDS = 1_000
_CONNECTIONS = 20


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What answers: address without credentials, version, topology, and what it can do."""

    address: str
    version: str
    topology: str  # standalone | replica set | sharded
    transactions: bool
    writable: bool

    @property
    def capabilities(self) -> Capabilities:
        """What its version and topology tell that it can do."""
        return Capabilities(self.version, self.topology)


class Server:
    """One client on one database, with majority concerns forced over those of the URL."""

    def __init__(
        self,
        client: Any,
        database: str,
        *,
        watch: CommandWatch,
        timeout: float,
        address: str,
        alias: str = "",
    ) -> None:
        self.client: MongoClient[Document] = client
        self.name = database
        self.watch = watch
        self.timeout = timeout
        self.address = alias or address  # for messages: the hosts of the URL, never credentials
        self._info: ServerInfo | None = None
        self._alias = alias  # what people call it, where its own address says nothing to them

    @property
    def database(self) -> Database[Document]:
        """The database for operations: majority writes to the primary, local reads."""
        return self.client.get_database(
            self.name,
            write_concern=WriteConcern("majority"),
            read_concern=ReadConcern("local"),
            read_preference=ReadPreference.PRIMARY,
        )

    def records(self, collection: str) -> Collection[Document]:
        """A collection of ours: majority and journal for writes, majority for reads."""
        return self.client.get_database(self.name).get_collection(
            collection,
            write_concern=WriteConcern("majority", j=True),
            read_concern=ReadConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )

    def session(self) -> AbstractContextManager[Any]:
        """A session for one run."""
        return self.client.start_session()

    def kinds(self, names: Iterable[str]) -> Mapping[str, str]:
        """Which of the named collections exist, and what each is, in one query."""
        listed = self.database.list_collections(filter={"name": {"$in": list(names)}})
        return {entry["name"]: entry.get("type", "collection") for entry in listed}

    def info(self) -> ServerInfo:
        """What answers, in two round trips."""
        hello = self.client.admin.command("hello")
        version = self.client.admin.command("buildInfo")["version"]
        info = describe_server(hello, version=version, fallback=self.address)
        self._info = replace(info, address=self._alias) if self._alias else info
        return self._info

    def known(self) -> ServerInfo:
        """What answered when it was last asked; only whether it can be written to may be old."""
        return self._info or self.info()

    def close(self) -> None:
        """End the client's connections."""
        self.client.close()


def describe_server(hello: Mapping[str, Any], *, version: str, fallback: str) -> ServerInfo:
    """What a `hello` reply says of the server (pure)."""
    me = hello.get("me", fallback)
    if "setName" in hello:
        address, topology = f"{hello['setName']}/{me}", "replica set"
    elif hello.get("msg") == "isdbgrid":
        address, topology = fallback, "sharded"
    else:
        address, topology = me, "standalone"
    writable = bool(hello.get("isWritablePrimary", False))
    transactions = Capabilities(version, topology).transactions
    return ServerInfo(address, version, topology, transactions, writable)


def connect(url: str, database: str, *, timeout: float, alias: str = "") -> Server:
    """A server that will be reached on first use; `timeout` bounds the search for it, in seconds.

    Messages name it by its `alias`, or by the hosts of the URL.

    Raises:
        ConfigError: the URL has an option or value that the driver does not know.
    """
    watch = CommandWatch()
    try:
        parsed = parse_uri(url, validate=True, warn=False, connect_timeout=timeout)
        client: MongoClient[Document] = MongoClient(
            url,
            appname="mongover",
            serverSelectionTimeoutMS=int(timeout * MILLISECONDS),
            connectTimeoutMS=int(timeout * MILLISECONDS),
            # What an application's URL asks for must not cut a long build short, nor make the
            # heartbeat wait for a connection.
            timeoutMS=None,
            socketTimeoutMS=None,
            waitQueueTimeoutMS=None,
            wTimeoutMS=0,
            minPoolSize=0,
            maxPoolSize=_CONNECTIONS,
            retryWrites=bool(parsed["options"].get("retryWrites", True)),  # some servers have none
            retryReads=True,
            w="majority",
            journal=True,
            readPreference="primary",
            readPreferenceTags="",
            maxStalenessSeconds=-1,
            readConcernLevel="majority",
            event_listeners=[watch],
            tz_aware=True,
        )
    except (PyMongoError, ValueError, TypeError) as error:
        # The driver's error may quote the URL: it is not kept as the cause.
        raise _bad_url(error, url) from None
    address = _hosts(parsed)
    return Server(client, database, watch=watch, timeout=timeout, address=address, alias=alias)


def _hosts(parsed: Mapping[str, Any]) -> str:
    if parsed["fqdn"]:
        return str(parsed["fqdn"])
    seeds = sorted(parsed["nodelist"])
    return ",".join(host if port is None else f"{host}:{port}" for host, port in seeds)


def _bad_url(error: Exception, url: str) -> ConfigError:
    said = redact(message_of(error), url)
    return ConfigError(
        f"the driver refuses `url`: {said}", hint="correct `url`; docs/configuration.md shows forms"
    )
