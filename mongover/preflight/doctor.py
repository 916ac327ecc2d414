"""A look at everything that a run needs: each finding is fine, or says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pymongo.errors import PyMongoError

from mongover.database.capabilities import OLDEST, probe
from mongover.database.faults import server_message, translate
from mongover.database.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mongover.database.server import ServerInfo
    from mongover.history.store import Store

_NEEDED: Final = frozenset(
    {
        "find", "insert", "update", "remove", "createCollection", "dropCollection", "createIndex",
        "dropIndex", "listIndexes", "listCollections", "collMod", "renameCollectionSameDB",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


def examine(store: Store) -> Iterator[Finding]:
    """Reach, version, topology, what the server can do, privileges and lease, as far as seen."""
    server = store.server
    try:
        info = server.info()
    except PyMongoError as error:
        fault = translate(error, address=server.address, timeout=server.timeout)
        yield Finding("reach", ok=False, detail=fault.message, hint=fault.hint)
        return
    yield Finding("reach", ok=True, detail=info.address)
    yield _version(info)
    yield _writable(info)
    yield _transactions(info)
    if isinstance(server, Server):
        yield from _features(server, info)
        yield _privileges(server)
        yield _lease(store)


def _version(info: ServerInfo) -> Finding:
    if info.capabilities.supported:
        return Finding("version", ok=True, detail=f"MongoDB {info.version}")
    oldest = ".".join(map(str, OLDEST))
    return Finding(
        "version",
        ok=False,
        detail=f"MongoDB {info.version} is older than {oldest}",
        hint="upgrade the server: leases need expressions and pipelines in updates",
    )


def _writable(info: ServerInfo) -> Finding:
    if info.writable:
        return Finding("topology", ok=True, detail=f"{info.topology}, writable")
    return Finding(
        "topology",
        ok=False,
        detail=f"{info.address} is a secondary: it cannot be written to",
        hint="name the replica set in `url`: …/?replicaSet=NAME",
    )


def _transactions(info: ServerInfo) -> Finding:
    if info.transactions:
        return Finding("transactions", ok=True, detail="yes")
    return Finding(
        "transactions",
        ok=True,
        detail="no: a standalone has none, so `transaction = True` is refused",
        hint="a replica set of one node has them: start mongod with --replSet rs0",
    )


def _features(server: Server, info: ServerInfo) -> Iterator[Finding]:
    """What the server can do: nothing here is wrong by itself, a revision may need it or not."""
    try:
        capabilities = probe(info.capabilities, server.database)
    except PyMongoError as error:
        yield Finding("features", ok=False, detail=server_message(error))
        return
    for name, _, detail in capabilities.table():
        if name != "transactions":  # it has a finding of its own, with the way to have them
            yield Finding(name, ok=True, detail=detail)


def _privileges(server: Server) -> Finding:
    command = {"connectionStatus": 1, "showPrivileges": True}
    try:
        reply = server.client.get_database(server.name).command(command)
    except PyMongoError as error:
        return Finding("privileges", ok=False, detail=server_message(error))
    status = reply["authInfo"]
    if not status["authenticatedUsers"]:
        return Finding("privileges", ok=True, detail="the server asks for no user")
    missing = sorted(_NEEDED - _granted(status["authenticatedUserPrivileges"], server.name))
    if not missing:
        return Finding("privileges", ok=True, detail=f"all that is needed on {server.name}")
    return Finding(
        "privileges",
        ok=False,
        detail=f"on {server.name} the user may not: {', '.join(missing)}",
        hint="grant readWrite and dbAdmin there, or the role of docs/privileges.md",
    )


def _granted(privileges: list[dict[str, Any]], database: str) -> set[str]:
    actions: set[str] = set()
    for privilege in privileges:
        resource = privilege["resource"]
        if resource.get("anyResource") or (
            resource.get("collection") == "" and resource.get("db") in {database, ""}
        ):
            actions.update(privilege["actions"])
    return _NEEDED if "anyAction" in actions else actions  # type: ignore[return-value]


def _lease(store: Store) -> Finding:
    try:
        state = store.read_lease()
    except PyMongoError as error:
        return Finding("lease", ok=False, detail=server_message(error))
    if state is None or state.owner is None:
        return Finding("lease", ok=True, detail="free")
    if state.expired:
        detail = f"left by {state.who()}, expired; the next run takes it over by itself"
        return Finding("lease", ok=True, detail=detail)
    detail = f"held by {state.who()} for {state.held_seconds:.0f} s, alive"
    return Finding("lease", ok=True, detail=detail, hint="`mongover lock` shows what it does")
