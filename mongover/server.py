"""The connection: a client with our concerns whatever the URL says, and what the server can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient, ReadPreference
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from mongover.errors import ConfigError
from mongover.faults import translate
from mongover.watch import CommandWatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymongo.collection import Collection
    from pymongo.database import Database

    Document = dict[str, Any]

MILLISECONDS = 1_000


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What answers: address without credentials, version, topology, and what it can do."""

    address: str
    version: str
    topology: str  # standalone | replica set | sharded
    transactions: bool
    writable: bool

    def to_json(self) -> dict[str, Any]:
        """The value as `--json` shows it."""
        return {
            "address": self.address,
            "version": self.version,
            "topology": self.topology,
            "transactions": self.transactions,
        }


class Server:
    """One client on one database, with majority concerns forced over those of the URL."""

    def __init__(self, client: Any, database: str, *, watch: CommandWatch, timeout: float) -> None:
        self.client: MongoClient[Document] = client
        self.name = database
        self.watch = watch
        self.timeout = timeout

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

    @property
    def address(self) -> str:
        """The seeds of the URL, for messages; never credentials."""
        seeds = sorted(self.client.topology_description.server_descriptions())
        return ",".join(host if port is None else f"{host}:{port}" for host, port in seeds)

    def info(self) -> ServerInfo:
        """What answers, in two round trips."""
        hello = self.client.admin.command("hello")
        version = self.client.admin.command("buildInfo")["version"]
        return describe_server(hello, version=version, fallback=self.address)

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
    return ServerInfo(address, version, topology, topology != "standalone", writable)


def connect(url: str, database: str, *, timeout: float) -> Server:
    """A server that will be reached on first use; `timeout` bounds the search for it, in seconds.

    Raises:
        ConfigError: the URL has an option or value that the driver does not know.
    """
    watch = CommandWatch()
    try:
        parse_uri(url, validate=True, warn=False)
        client: MongoClient[Document] = MongoClient(
            url,
            appname="mongover",
            serverSelectionTimeoutMS=int(timeout * MILLISECONDS),
            connectTimeoutMS=int(timeout * MILLISECONDS),
            retryWrites=True,
            w="majority",
            journal=True,
            readPreference="primary",
            readConcernLevel="majority",
            event_listeners=[watch],
            tz_aware=True,
        )
    except (PyMongoError, ValueError, TypeError) as error:
        raise _bad_url(error, timeout) from error
    return Server(client, database, watch=watch, timeout=timeout)


def _bad_url(error: Exception, timeout: float) -> Exception:
    if isinstance(error, PyMongoError):
        return translate(error, address="the server", timeout=timeout)
    return ConfigError(f"`url` is not a MongoDB URL: {error}", hint="see docs/configuration.md")
