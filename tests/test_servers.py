"""The test servers themselves: what the other tests rely on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from pymongo.errors import AutoReconnect, OperationFailure

from tests.support.servers import ROOT, Server, ThreeNodes, failpoint, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.database import Database


def test_only_the_replica_set_has_transactions(any_server: Server, any_db: Database[Any]) -> None:
    def write() -> None:
        with any_db.client.start_session() as session, session.start_transaction():
            any_db.things.insert_one({}, session=session)

    if any_server.has_transactions:
        write()
        assert any_db.things.count_documents({}) == 1
    else:
        with pytest.raises(OperationFailure, match="replica set member"):
            write()


def test_a_failpoint_ends_with_its_block(replica_db: Database[Any]) -> None:
    data = {"failCommands": ["insert"], "errorCode": 20}
    failing = failpoint(replica_db.client, "failCommand", "alwaysOn", data)
    with failing, pytest.raises(OperationFailure):
        replica_db.things.insert_one({})
    replica_db.things.insert_one({})


def test_each_database_is_new(standalone: Server, mongo_database: Callable[[Server], str]) -> None:
    assert mongo_database(standalone) != mongo_database(standalone)
    assert standalone.url_for("x").split("?")[0].endswith("/x")


def test_the_auth_server_refuses_strangers(auth_server: Server) -> None:
    with auth_server.client() as client:
        client.admin.command("createUser", "reader", pwd="a/b", roles=["readAnyDatabase"])
        assert client.admin.command("usersInfo", "reader")["users"]
    reader = Server(auth_server.as_user("reader", "a/b"), "replica_set", auth_server.node)
    stranger = Server(auth_server.without_credentials(), "replica_set", auth_server.node)
    for server in (reader, stranger):
        with server.client() as client, pytest.raises(OperationFailure) as caught:
            client.x.things.insert_one({})
        assert caught.value.code == 13


def test_three_nodes_survive_a_step_down_a_kill_and_a_pause(
    three_nodes: ThreeNodes, open_database: Callable[..., Database[Any]]
) -> None:
    database = open_database(three_nodes, w="majority")
    first = three_nodes.primary()
    database.things.insert_one({"_id": 1})
    second = three_nodes.step_down()
    assert second is not first
    assert three_nodes.kill_primary() is second
    database.things.insert_one({"_id": 2})
    three_nodes.heal()
    paused = three_nodes.secondaries()[0]
    paused.pause()
    with pytest.raises(AutoReconnect):
        paused.admin({"ping": 1}, socketTimeoutMS=300, serverSelectionTimeoutMS=300)
    three_nodes.heal()
    assert database.things.count_documents({}) == 2


def test_a_server_dies_with_a_killed_pytest() -> None:
    code = (
        "import time; from tests.support.servers import run_standalone\n"
        "with run_standalone() as server:\n"
        "    print(server.node.pid, server.node.folder, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid, folder = process.stdout.readline().split()
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not _lives(int(pid)), "the end of the server")
    subprocess.run(["rm", "-rf", folder], check=True)


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123  # gone at any moment
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return os.path.exists(f"/proc/{pid}")  # noqa: PTH110  # the same
