"""The connection: our concerns whatever the URL says, and what answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pymongo import ReadPreference

from mongover.database.server import ServerInfo, connect, describe_server
from mongover.errors import ConfigError
from tests.support.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.servers import Server, ThreeNodes


@pytest.mark.parametrize(
    ("hello", "expected"),
    [
        (
            {"setName": "rs0", "me": "a:1", "isWritablePrimary": True},
            ServerInfo("rs0/a:1", "6.0.5", "replica set", transactions=True, writable=True),
        ),
        (
            {"setName": "rs0", "me": "a:2", "isWritablePrimary": False},
            ServerInfo("rs0/a:2", "6.0.5", "replica set", transactions=True, writable=False),
        ),
        (
            {"msg": "isdbgrid", "isWritablePrimary": True},
            ServerInfo("url:1", "6.0.5", "sharded", transactions=True, writable=True),
        ),
        (
            {"isWritablePrimary": True},
            ServerInfo("url:1", "6.0.5", "standalone", transactions=False, writable=True),
        ),
        (
            {},
            ServerInfo("url:1", "6.0.5", "standalone", transactions=False, writable=False),
        ),
    ],
)
def test_what_a_hello_says(hello: dict[str, object], expected: ServerInfo) -> None:
    assert describe_server(hello, version="6.0.5", fallback="url:1") == expected


def test_a_real_server_says_what_it_is(any_server: Server) -> None:
    server = connect(any_server.url, "x", timeout=10)
    info = server.info()
    server.close()
    assert info.transactions is any_server.has_transactions
    assert info.capabilities.supported
    assert info.writable
    assert any_server.node.address in info.address
    assert info.topology == any_server.kind.replace("_", " ")


def test_a_replica_set_answers_by_its_primary(three_nodes: ThreeNodes) -> None:
    server = connect(three_nodes.url, "x", timeout=20)
    info = server.info()
    server.close()
    assert info.address.endswith(three_nodes.primary().address)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mongodb://ana:Secret@b:2,a:1/shop?replicaSet=rs0", "a:1,b:2"),
        ("mongodb://h", "h:27017"),
        ("mongodb://[::1]:7/", "::1:7"),
        ("mongodb://%2Ftmp%2Fm.sock/", "/tmp/m.sock"),  # noqa: S108 - a name, no file
    ],
)
def test_the_address_is_known_before_anything_answers_and_holds_no_secret(
    url: str, address: str
) -> None:
    server = connect(url, "x", timeout=0.1)
    assert server.address == address
    server.close()


def test_the_options_of_an_application_do_not_reach_a_migration() -> None:
    url = (
        f"mongodb://127.0.0.1:{free_port()}/?w=0&journal=false&readPreference=nearest"
        "&readPreferenceTags=dc:ny&maxStalenessSeconds=120&readConcernLevel=local"
        "&retryWrites=false&retryReads=false&timeoutMS=5&socketTimeoutMS=5&maxPoolSize=1"
        "&minPoolSize=1&waitQueueTimeoutMS=1&wtimeoutMS=1&serverSelectionTimeoutMS=1"
    )
    server = connect(url, "shop", timeout=3)
    server.close()
    options = server.client.options
    assert options.timeout is None
    assert options.pool_options.socket_timeout is None
    assert options.pool_options.wait_queue_timeout is None
    assert options.pool_options.max_pool_size > 1
    assert options.retry_reads is True
    assert options.retry_writes is False  # some servers have none: that is for the URL to say
    assert options.server_selection_timeout == 3
    for holder in (server.records("_migrations"), server.database):
        assert holder.write_concern.document["w"] == "majority"
        assert not holder.write_concern.document.get("wtimeout")
        assert holder.read_preference == ReadPreference.PRIMARY
    assert server.records("_migrations").write_concern.document["j"] is True
    assert server.records("_migrations").read_concern.level == "majority"
    assert server.database.read_concern.level == "local"


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://h/?tls=maybe",
        "mongodb://h/?unheardOf=1",
        "mongodb://h:notaport/",
        "mongodb://u:p@ss@h/",
        "nonsense",
    ],
)
def test_a_url_that_the_driver_refuses_is_an_error_of_configuration(url: str) -> None:
    with pytest.raises(ConfigError, match="the driver refuses `url`") as caught:
        connect(url, "x", timeout=1)
    assert caught.value.__cause__ is None


def test_kinds_name_collections_and_views(
    any_server: Server, mongo_database: Callable[..., str]
) -> None:
    name = mongo_database(any_server)
    server = connect(any_server.url, name, timeout=10)
    server.database.create_collection("c")
    server.database.create_collection("v", viewOn="c", pipeline=[])
    assert server.kinds(["c", "v", "none"]) == {"c": "collection", "v": "view"}
    server.close()
