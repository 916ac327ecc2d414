"""`mongover serve` as a real process, and what it refuses."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from mongover.cli.commands import serve as command
from mongover.errors import UsageError
from mongover.migrator import Migrator
from mongover.web import create_app, serve
from mongover.web.app import LOOPBACK_NAMES, allowed_hosts, is_loopback, listen, refuse_open_server
from mongover.web.auth import Tokens
from tests.support.servers import run_cli, wait_until
from tests.support.web_support import (
    TOKEN,
    WRITE,
    await_address,
    client_of,
    config_for,
    run_process,
    write_revision,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mongover.config.config import Config
    from tests.support.servers import Server
    from tests.support.web_support import Served


ANYWHERE = "0.0.0.0"  # noqa: S104 - the tests see that it is refused


@pytest.fixture
def config(replica_set: Server, mongo_database: Callable[..., str]) -> Config:
    return config_for(replica_set, mongo_database(replica_set))


@pytest.fixture
def served(
    tmp_path: Path, replica_set: Server, mongo_database: Callable[..., str]
) -> Iterator[Served]:
    """A server over two revisions, the second of which takes a second."""
    folder = tmp_path / "versions"
    write_revision(folder, "0001")
    write_revision(folder, "0002", parent="0001", up="import time; time.sleep(1)")
    write_revision(folder, "0003", parent="0002")
    (tmp_path / "alembic-style.ini").write_text(
        f"[mongover]\nurl = {replica_set.url}\ndatabase = {mongo_database(replica_set)}\n"
    )
    words = ["-m", "mongover", "serve", "--port", "0"]
    with run_process(
        words, tmp_path / "log", cwd=tmp_path, env={"MONGOVER_API_TOKEN": TOKEN}
    ) as process:
        yield await_address(process)


def test_the_server_answers_writes_and_ends_cleanly_on_a_signal(served: Served) -> None:
    assert served.get("/migrations/health").status_code == 503
    done = served.post("/migrations/run", headers=WRITE)
    assert done.json()["applied"] == ["0001", "0002", "0003"]
    assert served.get("/migrations/health").status_code == 200
    missing = served.get("/nowhere")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.headers["x-content-type-options"] == "nosniff"
    assert "server" not in missing.headers
    rebound = served.get("/migrations/status", headers={"Host": "evil.example"})
    assert rebound.status_code == 400
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 0
    assert TOKEN not in served.text()


def test_a_signal_ends_a_run_safely_although_a_client_waits_and_a_stream_is_open(
    served: Served,
) -> None:
    answers: list[Any] = []

    def ask() -> None:
        answers.append(served.post("/migrations/run", headers=WRITE))

    def follow() -> None:
        answers.append(served.get("/migrations/events"))

    threads = [threading.Thread(target=act) for act in (ask, follow)]
    for thread in threads:
        thread.start()

    def running() -> bool:
        found = served.get("/migrations/health").json()["running"]
        return found is not None and found["revision"] == "0002"

    wait_until(running, "the second revision")
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(30) == 0
    for thread in threads:
        thread.join()
    stream = next(one for one in answers if "event: State" in one.text)
    refused = next(one for one in answers if one is not stream)
    assert refused.status_code == 503
    assert refused.json()["type"] == "urn:mongover:problem:stopped"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_without_a_token_loopback_is_allowed(host: str) -> None:
    assert is_loopback(host)
    refuse_open_server(host, Tokens())
    assert allowed_hosts(host, ["Proxy.Example"]) == LOOPBACK_NAMES | {host, "proxy.example"}


@pytest.mark.parametrize(
    "host", [ANYWHERE, "::", "10.0.0.5", "db.example", "", "127.1", "localhost.evil.example"]
)
def test_without_a_token_nothing_beyond_loopback_is_listened_on(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UsageError, match="loopback only") as caught:
        refuse_open_server(host, Tokens())
    assert "MONGOVER_API_TOKEN" in caught.value.hint
    with caplog.at_level(logging.WARNING):
        refuse_open_server(host, Tokens.of(write="w" * 24))
    assert "may read" in caplog.text
    assert allowed_hosts(host, []) is None
    assert allowed_hosts(host, ["App.Example"]) == frozenset({"app.example"})


def test_the_command_refuses_a_public_address_with_exit_code_2(
    tmp_path: Path, config: Config
) -> None:
    words = ("serve", "--host", ANYWHERE, "--url", config.url.reveal(), "--database", "shop")
    done = run_cli(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "loopback only" in done.stderr


def test_the_command_refuses_a_short_token_without_printing_it(
    tmp_path: Path, config: Config
) -> None:
    words = ("serve", "--url", config.url.reveal(), "--database", "shop")
    done = run_cli(*words, cwd=tmp_path, env={"MONGOVER_API_TOKEN": "short-token"})
    assert done.returncode == 2
    assert "at least 24" in done.stderr
    assert "short-token" not in done.stderr


def test_a_port_that_is_taken_is_an_error_that_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"cannot listen on 127\.0\.0\.1 port {port}"):
            listen("127.0.0.1", port)
    with pytest.raises(UsageError, match=r"cannot listen on no\.such\.host"):
        listen("no.such.host.invalid", 0)


def test_the_server_can_be_stopped_from_a_thread_that_is_not_the_main_one(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may run it in a thread; signals are then not its business."""
    import uvicorn

    servers: list[uvicorn.Server] = []
    run = uvicorn.Server.run

    def remember(self: uvicorn.Server, sockets: Any = None) -> None:
        servers.append(self)
        run(self, sockets=sockets)

    monkeypatch.setattr(uvicorn.Server, "run", remember)
    monkeypatch.setattr("mongover.web.app.LOGGING", None)
    codes: list[int] = []
    with Migrator(config) as migrator:
        thread = threading.Thread(target=lambda: codes.append(serve(migrator, port=0, environ={})))
        thread.start()
        wait_until(lambda: servers and servers[0].started, "the start")
        servers[0].should_exit = True
        thread.join()
    assert codes == [0]


def test_the_application_alone_has_its_document_and_no_pages_from_elsewhere(config: Config) -> None:
    with Migrator(config) as migrator:
        app = create_app(migrator, hosts=["localhost"], environ={"MONGOVER_API_TOKEN": TOKEN})
        with client_of(app, base_url="http://localhost") as client:
            assert "/migrations/run" in client.get("/migrations/openapi.json").json()["paths"]
            for page in ("/docs", "/redoc", "/"):
                assert client.get(page).status_code == 404
            assert client.post("/migrations/run", headers=WRITE).status_code == 200


def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "mongover.web.app", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UsageError, match="needs uvicorn") as caught:
        command._server()
    assert "mongover[web]" in caught.value.hint


def test_a_missing_module_of_our_own_is_no_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mongover.web.app", None)
    with pytest.raises(ModuleNotFoundError):
        command._server()


def test_the_names_of_the_package_are_loaded_when_used() -> None:
    import mongover.web as package

    assert dir(package) == ["Tokens", "create_app", "migrations_router", "serve"]
    for name in dir(package):
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
