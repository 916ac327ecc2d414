"""The proxy of the crash harness: what it counts, what it breaks, what is then in the server."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import InsertOne, MongoClient
from pymongo.errors import AutoReconnect

from mongover.errors import UsageError
from mongover.testing.crash import proxied_url
from mongover.testing.proxy import Fault, Proxy, When
from mongover.testing.wire import Message, WireError, read_command, read_message
from tests.support.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.servers import Server


@pytest.fixture
def behind(mongo_database: Callable[[Server], str]) -> Iterator[Callable[..., Any]]:
    """Call it with a server and a fault for a proxy and a database that is reached through it."""
    opened: list[Any] = []

    def make(server: Server, fault: Fault | None = None, **options: Any) -> Any:
        proxy = Proxy(("127.0.0.1", server.node.port), fault=fault).__enter__()
        client: MongoClient[dict[str, Any]] = MongoClient(
            f"127.0.0.1:{proxy.port}", directConnection=True, **options
        )
        opened.extend([proxy, client])
        return proxy, client[mongo_database(server)]

    yield make
    for each in reversed(opened):
        each.__exit__(None, None, None)


def test_it_counts_the_writes_and_neither_reads_nor_greetings(
    standalone: Server, behind: Any
) -> None:
    proxy, db = behind(standalone)
    db.a.insert_one({"n": 1})
    db.a.find_one({"n": 1})
    db.a.update_one({"n": 1}, {"$set": {"n": 2}})
    db.a.create_index("n")
    list(db.a.aggregate([{"$match": {}}, {"$out": "b"}]))
    list(db.a.aggregate([{"$match": {}}]))
    db.b.find_one_and_update({}, {"$set": {"n": 3}})
    names = ["insert", "update", "createIndexes", "aggregate", "findAndModify"]
    assert [each.name for each in proxy.seen] == names
    assert [each.namespace.partition(".")[2] for each in proxy.seen] == ["a", "a", "a", "a", "b"]
    assert not proxy.errors


def test_a_heartbeat_of_the_lease_is_not_counted(standalone: Server, behind: Any) -> None:
    proxy, db = behind(standalone)
    beat = [{"$set": {"heartbeat_at": "$$NOW", "expires_at": "$$NOW"}}]
    db["_migrations_lock"].update_one({"_id": "lock", "owner": "x"}, beat)
    db["_migrations_lock"].update_one({"_id": "lock"}, [{"$set": {"owner": None}}])
    assert len(proxy.seen) == 1


def test_a_fault_before_the_server_leaves_nothing_there(standalone: Server, behind: Any) -> None:
    proxy, db = behind(standalone, Fault(2, When.BEFORE))
    db.a.insert_one({"n": 1})
    with pytest.raises(AutoReconnect):
        db.a.insert_one({"n": 2})
    assert [each["n"] for each in db.a.find()] == [1]
    assert len(proxy.hits) == 1


def test_a_fault_after_the_server_leaves_the_effect_there(standalone: Server, behind: Any) -> None:
    proxy, db = behind(standalone, Fault(2, When.AFTER))
    db.a.insert_one({"n": 1})
    with pytest.raises(AutoReconnect):
        db.a.update_many({}, {"$inc": {"n": 10}})
    assert [each["n"] for each in db.a.find()] == [11]
    assert [each.name for each in proxy.hits] == ["update"]


@pytest.mark.parametrize(("times", "fails"), [(1, False), (2, True)])
def test_a_lost_reply_is_sent_again_by_the_driver_once(
    replica_set: Server, behind: Any, times: int, fails: bool
) -> None:
    proxy, db = behind(replica_set, Fault(1, When.AFTER, times=times))
    if fails:
        with pytest.raises(AutoReconnect):
            db.a.insert_one({"n": 1})
    else:
        db.a.insert_one({"n": 1})
    assert db.a.count_documents({}) == 1
    assert len(proxy.hits) == times


@pytest.mark.deep
def test_large_batches_pass_unharmed(standalone: Server, behind: Any) -> None:
    proxy, db = behind(standalone)
    text = "x" * 1_000_000
    db.a.bulk_write([InsertOne({"_id": i, "text": text}) for i in range(60)])
    assert db.a.count_documents({"text": text}) == 60
    assert len(proxy.seen) >= 2
    assert not proxy.errors


def test_documents_that_python_cannot_hold_pass_unharmed(standalone: Server, behind: Any) -> None:
    proxy, db = behind(standalone)
    far = b"\x10\x00\x00\x00\x09d\x00" + struct.pack("<q", 2**61) + b"\x00"
    from bson.raw_bson import RawBSONDocument

    db.a.insert_one(RawBSONDocument(far))
    assert len(proxy.seen) == 1
    assert not proxy.errors


def test_an_unacknowledged_write_meets_the_fault_too(standalone: Server, behind: Any) -> None:
    acted: list[bool] = []
    proxy, db = behind(standalone, Fault(1, When.AFTER, lambda: acted.append(True)), w=0)
    db.a.insert_one({"n": 1})
    wait_until(lambda: acted, "the fault")
    assert not proxy.hits[0].answered


def test_a_server_that_is_away_looks_like_a_server_that_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        Proxy(("127.0.0.1", port)) as proxy,
        MongoClient[Any]("127.0.0.1", proxy.port, serverSelectionTimeoutMS=300) as client,
        pytest.raises(AutoReconnect),
    ):
        client.admin.command("ping")


def test_a_compressed_message_is_refused_by_name() -> None:
    with pytest.raises(WireError, match="compressed"):
        read_command(Message(b"\0" * 16, 1, 0, 2012))


def test_what_is_no_message_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(WireError, match="no message of MongoDB"):
            read_message(ours)


def test_a_message_that_was_cut_off_is_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(struct.pack("<iiii", 100, 1, 0, 2013) + b"half")
        theirs.close()
        assert read_message(ours) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mongodb://a:1,b:2/?replicaSet=r", "mongodb://127.0.0.1:7/?directConnection=true"),
        (
            "mongodb://u:p%40w@a/shop?authSource=admin&compressors=zlib&w=1",
            "mongodb://u:p%40w@127.0.0.1:7/shop?authSource=admin&w=1&directConnection=true",
        ),
        ("mongodb://a", "mongodb://127.0.0.1:7/?directConnection=true"),
        ("mongodb://%2Frun%2Fm.sock/?tls=false", "mongodb://127.0.0.1:7/?directConnection=true"),
    ],
)
def test_the_url_leads_to_the_proxy_and_keeps_the_credentials(url: str, expected: str) -> None:
    assert proxied_url(url, 7) == expected


@pytest.mark.parametrize("url", ["mongodb+srv://a/", "embedded:.db", "mongodb://a/?tls=true"])
def test_a_url_that_no_proxy_can_serve_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        proxied_url(url, 7)
