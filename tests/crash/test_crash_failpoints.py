"""Every command of history, lease and commit meets every fault that can be injected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mongover.errors import Blocked, MongoverError
from mongover.history.changes import Resolution
from mongover.migrator import Migrator
from tests.support.crashing import (
    check_end,
    check_lease,
    check_truth,
    effects,
    failing,
    finish_by_hand,
    open_,
    project_on,
    write_project,
)
from tests.support.depth import first_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mongover.testing.crash import Project
    from tests.support.servers import Server

    NewName = Callable[[Server], str]

NETWORK = {"closeConnection": True}


def code(number: int, *labels: str) -> dict[str, Any]:
    """An error instead of the command's work; without labels the server adds its own."""
    return {"errorCode": number} | ({"errorLabels": list(labels)} if labels else {})


def concern(number: int) -> dict[str, Any]:
    """The work is done, but not known to be safe."""
    error = {"code": number, "codeName": "Injected", "errmsg": "injected"}
    return {"writeConcernError": error | ({"errInfo": {"wtimeout": True}} if number == 64 else {})}


# The commands: what is told to fail, and in which collection.
COMMANDS = {
    "read of the history": ("find", "_migrations"),
    "write of the history": ("update", "_migrations"),
    "taking of the lock": ("findAndModify", "_migrations_lock"),
    "fence, heartbeat, release": ("update", "_migrations_lock"),
}
FAULTS = {
    "network once": (NETWORK, 1),
    "network twice": (NETWORK, 2),
    "network five times": (NETWORK, 5),
    "not primary once": (code(10107), 1),
    "not primary twice": (code(10107), 2),
    "shutting down twice": (code(91), 2),
    "stepped down twice": (code(189), 2),
    "write concern timed out": (concern(64), 1),
    "write concern failed twice": (concern(100), 2),
    "shutting down after the write": (concern(91), 1),
}
UNKNOWN = "UnknownTransactionCommitResult"
TRANSIENT = "TransientTransactionError"
COMMITS = {
    "network once": (NETWORK, 1),
    "network three times": (NETWORK, 3),
    "network twelve times": (NETWORK, 12),
    "not primary": (code(10107), 2),
    "unknown, twice": (code(91, UNKNOWN), 2),
    "unknown, for good": (code(91, UNKNOWN), 10),
    "transient": (code(251, TRANSIENT), 1),
    "transient, again and again": (code(251, TRANSIENT), 10),
    "out of time": (code(50), 1),
    "write concern timed out": (concern(64), 1),
    "write concern timed out, again": (concern(64), 4),
    "refused": (code(13), 1),
}
# Within the transaction: its own writes, the fence and the flip of the record.
INSIDE = {
    "conflict once": (code(112, TRANSIENT), 1),
    "conflict for ever": (code(112, TRANSIENT), 100),
    "network once": (NETWORK, 1),
    "not primary": (code(10107), 1),
    "refused": (code(13), 1),
}


def migrator(project: Project) -> Migrator:
    return Migrator.from_config(
        cwd=project.folder,
        environ={},
        url=project.url,
        database=project.database,
        lease=project.lease,
    )


def upgrade(project: Project) -> MongoverError | None:
    """Upgrade in this process; the error, which is one of ours and says what to do."""
    with migrator(project) as own:
        try:
            own.upgrade()
        except MongoverError as error:
            return error
    return None


def settle_here(project: Project, error: MongoverError | None) -> None:
    """Upgrade until it is done; what is blocked is looked at and resolved by what was found."""
    for _ in range(5):
        if error is None:
            return
        assert error.hint, f"it names no way out: {error!r}"
        if isinstance(error, Blocked):
            resolve_here(project)
        error = upgrade(project)
    raise AssertionError(f"it does not end: {error!r}")


def resolve_here(project: Project) -> None:
    with migrator(project) as own, open_(project) as client:
        blocked = [each.revision for each in own.status().problems if each.kind == "blocked"]
        for id_ in blocked:
            assert id_ is not None
            if effects(client[project.database])[id_] == "half":
                finish_by_hand(client[project.database], id_, up=True)
            done = effects(client[project.database])[id_] == "done"
            own.resolve(
                id_, Resolution.APPLIED if done else Resolution.REVERTED, reason="looked at it"
            )


# A standalone has no elections, so the faults of those are for the replica set alone.
ALONE = ("network once", "network five times", "write concern timed out")
CASES = [
    (server, command, fault)
    for server, faults in (("standalone", ALONE), ("replica_set", tuple(FAULTS)))
    for command, (name, _) in COMMANDS.items()
    for fault in faults
    if name != "find" or "writeConcernError" not in FAULTS[fault][0]  # a read has no write concern
]


@pytest.mark.parametrize("case", first_of(CASES, every=6), ids=", ".join)
def test_a_fault_of_history_or_lock_loses_nothing(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    mongo_database: NewName,
    case: tuple[str, str, str],
) -> None:
    server, command, fault = case
    found: Server = request.getfixturevalue(server)
    write_project(tmp_path, transactions=found.has_transactions)
    project = project_on(found, tmp_path, mongo_database(found), lease=20.0)
    name, collection = COMMANDS[command]
    data, times = FAULTS[fault]
    namespace = f"{project.database}.{collection}"
    with (
        open_(project) as client,
        failing(client, [name], {"times": times}, namespace=namespace, **data) as point,
    ):
        error = upgrade(project)
    assert point.hits >= 1, "the fault did not happen"
    check_truth(project)
    check_lease(project)
    settle_here(project, error)
    check_end(project, applied=True)


@pytest.mark.parametrize("fault", first_of(COMMITS, every=3))
def test_a_commit_whose_fate_is_unknown_is_looked_up(
    replica_set: Server, tmp_path: Path, mongo_database: NewName, fault: str
) -> None:
    data, times = COMMITS[fault]
    write_project(tmp_path, transactions=True)
    project = project_on(replica_set, tmp_path, mongo_database(replica_set), lease=20.0)
    with (
        open_(project) as client,
        failing(client, ["commitTransaction"], {"times": times}, **data) as point,
    ):
        error = upgrade(project)
    assert point.hits >= 1
    check_truth(project)
    check_lease(project)
    assert not isinstance(error, Blocked)
    settle_here(project, error)
    check_end(project, applied=True)


@pytest.mark.parametrize("fault", first_of(INSIDE, every=3))
@pytest.mark.parametrize("collection", ["counters", "ledger", "_migrations_lock", "_migrations"])
def test_a_fault_inside_a_transaction_leaves_nothing_of_it(
    replica_set: Server, tmp_path: Path, mongo_database: NewName, collection: str, fault: str
) -> None:
    data, times = INSIDE[fault]
    write_project(tmp_path, transactions=True)
    project = project_on(replica_set, tmp_path, mongo_database(replica_set), lease=20.0)
    command = "insert" if collection == "ledger" else "update"
    namespace = f"{project.database}.{collection}"
    with (
        open_(project) as client,
        failing(client, [command], {"times": times}, namespace=namespace, **data) as point,
    ):
        error = upgrade(project)
    assert point.hits >= 1
    check_truth(project)
    settle_here(project, error)
    check_end(project, applied=True)
