"""Clients that do not send, do not read, or come in crowds never silence `mongover serve`."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from mongover.web.app import listen
from mongover.web.connections import Limits, protocol
from tests.support.servers import wait_until
from tests.support.web_support import TOKEN, Served, await_address, run_process, write_revision

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from tests.support.servers import Server

FEW_DESCRIPTORS = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
sys.argv = ["mongover", "serve", "--port", "0"]
runpy.run_module("mongover", run_name="__main__")
"""
HALF_A_HEAD = b"GET /migrations/health HTTP/1.1\r\nHost: local"
NO_BODY = (
    b"POST /migrations/downgrade HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer " + TOKEN.encode() + b"\r\nContent-Length: 100\r\n\r\n{"
)
GARBAGE = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"


@pytest.fixture
def served(
    tmp_path: Path, replica_set: Server, mongo_database: Callable[..., str]
) -> Iterator[Served]:
    """`mongover serve` with 256 descriptors."""
    write_revision(tmp_path / "versions", "0001")
    (tmp_path / "alembic-style.ini").write_text(
        f"[mongover]\nurl = {replica_set.url}\ndatabase = {mongo_database(replica_set)}\n"
    )
    environ = {"MONGOVER_API_TOKEN": TOKEN}
    with run_process(
        ["-c", FEW_DESCRIPTORS], tmp_path / "log", cwd=tmp_path, env=environ
    ) as process:
        yield await_address(process)


def address_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


@contextlib.contextmanager
def crowd(address: tuple[str, int], count: int, said: bytes) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(stack.enter_context(socket.create_connection(address, timeout=20)))
            with contextlib.suppress(OSError):  # closed meanwhile
                made[-1].sendall(said)
        yield made


@pytest.mark.parametrize(
    "said", [HALF_A_HEAD, b"", NO_BODY, GARBAGE], ids=["half a head", "nothing", "no body", "bad"]
)
def test_a_crowd_of_half_open_requests_leaves_the_health_to_answer_and_the_log_short(
    served: Served, said: bytes
) -> None:
    with crowd(address_of(served.url), 400, said):
        for _ in range(3):
            began = time.monotonic()
            assert served.get("/migrations/health").status_code == 503  # one is pending
            assert time.monotonic() - began < 10
    log = served.text()
    assert "Traceback" not in log
    assert len(log.splitlines()) < 12, log
    assert served.process.poll() is None


def test_streams_of_events_stay_open_in_the_crowd(served: Served) -> None:
    address = address_of(served.url)
    follow = b"GET /migrations/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with crowd(address, 1, follow) as (stream,):
        read_until(stream, b"event: State")
        with crowd(address, 300, HALF_A_HEAD):
            assert served.get("/migrations/health").status_code == 503
        stream.settimeout(20)
        assert b": alive" in stream.recv(1_000)


def read_until(connection: socket.socket, text: bytes) -> None:
    found = b""
    while text not in found:
        some = connection.recv(65_536)
        assert some, found
        found += some


# ---- the limits by themselves --------------------------------------------------------------------

QUICK = Limits(connections=6, burst=4, head=0.6, body=0.9, stall=0.8)


async def small_app(scope: Scope, receive: Receive, send: Send) -> None:
    """`/` answers at once, `/slow` after a while, `/body` once it has the body, `/much` much."""
    path = scope["path"]
    if path == "/body":
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return
    response: Response = PlainTextResponse("done")
    if path == "/stream":
        response = StreamingResponse(ticks(15, b"tick\n"))
    if path == "/much":
        response = StreamingResponse(ticks(400, b"x" * 100_000, pause=0.0))
    if path == "/large":
        response = Response(b"x" * 30_000_000)
    await response(scope, receive, send)


async def ticks(count: int, text: bytes, pause: float = 0.2) -> AsyncIterator[bytes]:
    import asyncio

    for _ in range(count):
        await asyncio.sleep(pause)
        yield text


@pytest.fixture
def small() -> Iterator[tuple[str, int]]:
    """A server of the small application under short limits."""
    connections = protocol(QUICK)
    with listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(
            small_app, http=connections, ws="none", lifespan="off", log_config=None, backlog=4
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_until(lambda: server.started, "the start")
        yield listener.getsockname()
        server.should_exit = True
        thread.join(20)
    assert not connections.door.connections
    assert not connections.door.waiting


def seconds_until_closed(connection: socket.socket) -> float:
    began = time.monotonic()
    connection.settimeout(20)
    with contextlib.suppress(ConnectionError):
        while connection.recv(1_000_000):
            pass
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("said", "least"),
    [
        (b"", 0.5),
        (b"GET / HT", 0.5),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", 0.5),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT", 0.5),  # after an answer
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", 0.5),  # nobody reads it
        (b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", 0.8),
        (b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", 0.8),
        (
            b"POST /body HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
            0.8,
        ),
    ],
)
def test_a_request_that_never_gets_whole_ends_with_its_time(
    small: tuple[str, int], said: bytes, least: float
) -> None:
    with crowd(small, 1, said) as (one,):
        assert least <= seconds_until_closed(one) < 4


def test_a_byte_now_and_then_prolongs_nothing(small: tuple[str, int]) -> None:
    with crowd(small, 1, b"GET / HTTP/1.1\r\n") as (one,):
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 4:
                one.sendall(b"X: y\r\n")
                time.sleep(0.05)
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("path", [b"/much", b"/large"])
def test_who_does_not_read_is_let_go_and_who_reads_slowly_is_not(
    small: tuple[str, int], path: bytes
) -> None:
    ask = b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with crowd(small, 2, ask) as (deaf, slow):
        got = 0
        while some := slow.recv(200_000):
            got += len(some)
            time.sleep(0.01 if got < 25_000_000 else 0)
        assert got > 30_000_000
        deaf.settimeout(10)
        got = 0
        with contextlib.suppress(ConnectionError):
            while some := deaf.recv(1_000_000):
                got += len(some)
        assert got < 30_000_000


def test_a_stream_outlives_every_limit_while_its_client_reads(small: tuple[str, int]) -> None:
    ask = b"GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with crowd(small, 1, ask) as (one,):
        began, got = time.monotonic(), b""
        while some := one.recv(1_000):
            got += some
    assert got.count(b"tick") == 15
    assert time.monotonic() - began > 2.5


def test_a_newcomer_takes_the_place_of_who_has_waited_longest(small: tuple[str, int]) -> None:
    with crowd(small, 6, b"GET / HT") as waiting, crowd(small, 1, b"GET / HTTP/1.1\r\n") as (new,):
        new.sendall(b"Host: a\r\n\r\n")
        read_until(new, b"done")
        assert seconds_until_closed(waiting[0]) < 0.3


def test_where_all_work_a_newcomer_is_told_to_come_again(small: tuple[str, int]) -> None:
    ask = b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"
    with crowd(small, 6, ask) as streams:
        for each in streams:
            assert each.recv(1_000)
        with crowd(small, 1, b"") as (new,):
            assert new.recv(1_000).startswith(b"HTTP/1.1 503 ")
        assert streams[0].recv(1_000)


def test_requests_on_one_connection_go_on_and_on(small: tuple[str, int]) -> None:
    ask = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
    with crowd(small, 1, b"") as (one,):
        for _ in range(6):
            one.sendall(ask)
            read_until(one, b"done")
            time.sleep(0.3)


def test_a_body_that_never_comes_is_408_in_whatever_application_the_router_is(
    replica_set: Server, mongo_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from mongover.web.service import Options
    from tests.support.web_support import config_for, make_app

    def hasty(*args: Any, **options: Any) -> Options:
        return Options(*args, **{**options, "body_seconds": 0.2})

    monkeypatch.setattr("mongover.web.api.Options", hasty)
    app = make_app(config_for(replica_set, mongo_database(replica_set)))
    sent: list[Any] = []

    async def ask() -> None:
        async def receive() -> Any:
            await asyncio.sleep(30)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [
            (b"host", b"localhost"),
            (b"content-type", b"application/json"),
            (b"content-length", b"9"),
            (b"authorization", f"Bearer {TOKEN}".encode()),
        ]
        scope = {
            "type": "http", "method": "POST", "path": "/migrations/downgrade", "headers": headers,
            "query_string": b"", "root_path": "", "scheme": "http", "server": ("localhost", 80),
            "client": ("127.0.0.1", 1), "http_version": "1.1", "raw_path": b"", "state": {},
        }  # fmt: skip
        await app(scope, receive, send)

    asyncio.run(ask())
    assert sent[0]["status"] == 408
    assert b"too-slow" in sent[1]["body"]
