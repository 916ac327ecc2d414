"""Real mongods for the tests: one each per worker, small, on loopback, gone with pytest.

They are started from the main thread: the kernel kills a server with the thread that made it.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from mongover.database.embedded import find_mongod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
SET_NAME = "mongover_tests"
START_TIMEOUT = 60.0
PORTS = (20000, 32000)  # below those of outgoing connections
_EXIT_PORT_TAKEN = 48

# exec keeps the pid; SIGKILL reaches the server when pytest dies, however it dies.
_DIE_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
)


def wait_until(condition: Callable[[], Any], what: str, timeout: float = START_TIMEOUT) -> Any:
    """The first true value of the condition; an AssertionError names what never came."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in {timeout} s"
        time.sleep(0.01)
    return value


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    while True:
        port = random.randint(*PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


@dataclass(slots=True)
class Node:
    """One mongod in a temporary folder of its own."""

    options: Sequence[str] = ()
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="mongover-test-")))
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    mongod: Path | None = None  # the program, where it is not that of all other tests

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the node does not run"
        return self.process.pid

    def start(self, *, keep_port: bool = False) -> Self:
        """Start, or start again with the old data; ready when it accepts connections."""
        for _ in range(10):
            self.process = self._spawn()
            wait_until(lambda: self._ended() or self._listens(), "the start of mongod")
            code = self.process.poll()
            if code is None:
                return self
            if code != _EXIT_PORT_TAKEN or keep_port:
                break
            self.port = free_port()
        log = (self.folder / "log").read_text()
        raise AssertionError(f"mongod cannot start on {self.address}:\n{log[-3000:]}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        data = self.folder / "db"
        data.mkdir(exist_ok=True)
        command = [
            *(sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT),
            *(str(self.mongod or find_mongod(os.environ)), "--dbpath", str(data)),
            *("--bind_ip", "127.0.0.1", "--port", str(self.port), "--nounixsocket", "--quiet"),
            *("--wiredTigerCacheSizeGB", "0.25"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            *("--setParameter", "enableTestCommands=1"),
            *self.options,
        ]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """SIGKILL, and wait; the data stays, so `start(keep_port=True)` brings it back."""
        if self.process is not None:
            self.resume()
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT; nothing happens to a node that was not paused."""
        if not self._ended():
            os.kill(self.pid, signal.SIGCONT)

    def remove(self) -> None:
        """Kill the server and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def admin(self, command: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """Run one command on `admin` of this very node."""
        with MongoClient[dict[str, Any]](
            self.address,
            directConnection=True,
            **{"serverSelectionTimeoutMS": 20_000, **options},
        ) as client:
            return client.admin.command(dict(command))

    def is_primary(self) -> bool:
        if self.process is None:
            return False
        quick = dict.fromkeys(("serverSelectionTimeoutMS", "socketTimeoutMS"), 1500)
        try:
            return self.admin({"hello": 1}, **quick)["isWritablePrimary"] is True
        except PyMongoError:
            return False


@dataclass(frozen=True, slots=True)
class Server:
    """A deployment under test.

    Attributes:
        url: Without a database; with the administrator's credentials where there are any.
        kind: `standalone` or `replica_set`.
        node: The one mongod behind it.
    """

    url: str
    kind: str
    node: Node

    @property
    def has_transactions(self) -> bool:
        return self.kind == "replica_set"

    def url_for(self, database: str) -> str:
        """The URL with a database in its path."""
        return re.sub(r"/(\?|$)", rf"/{database}\1", self.url, count=1)

    def as_user(self, name: str, password: str, auth_source: str = "admin") -> str:
        """The URL with other credentials."""
        bare = self.without_credentials()
        user = f"{quote(name, safe='')}:{quote(password, safe='')}"
        return bare.replace("//", f"//{user}@", 1) + f"&authSource={auth_source}"

    def without_credentials(self) -> str:
        return re.sub(r"//[^/@]*@", "//", self.url).partition("&authSource=")[0]

    def client(self, **options: Any) -> MongoClient[dict[str, Any]]:
        """A client that fails within ten seconds; the caller closes it."""
        return MongoClient(self.url, **{"serverSelectionTimeoutMS": 10_000, **options})


@contextlib.contextmanager
def run_standalone(mongod: Path | None = None) -> Iterator[Server]:
    node = Node(mongod=mongod)
    try:
        node.start()
        url = f"mongodb://{node.address}/?directConnection=true&heartbeatFrequencyMS=500"
        yield Server(url, "standalone", node)
    finally:
        node.remove()


@contextlib.contextmanager
def run_replica_set(mongod: Path | None = None) -> Iterator[Server]:
    node = Node(("--replSet", SET_NAME, "--oplogSize", "64"), mongod=mongod)
    try:
        node.start()
        initiate([node])
        yield Server(_set_url([node]), "replica_set", node)
    finally:
        node.remove()


@contextlib.contextmanager
def run_auth_server() -> Iterator[Server]:
    """A replica set of one with access control and an administrator."""
    user, password = "root", "p@ss:w/rd"
    node = Node()
    key = node.folder / "key"
    key.write_text("mongoverTestsKeyFile" * 4)
    key.chmod(0o400)
    node.options = ("--replSet", SET_NAME, "--oplogSize", "64", "--auth", "--keyFile", str(key))
    try:
        node.start()
        initiate([node])
        node.admin({"createUser": user, "pwd": password, "roles": ["root"]})
        bare = Server(_set_url([node]), "replica_set", node)
        yield Server(bare.as_user(user, password), "replica_set", node)
    finally:
        node.remove()


def initiate(nodes: Sequence[Node]) -> None:
    """Make the nodes one replica set and wait for its writable primary."""
    members = [{"_id": number, "host": node.address} for number, node in enumerate(nodes)]
    settings = {"electionTimeoutMillis": 2500, "heartbeatIntervalMillis": 500}
    config = {"_id": SET_NAME, "members": members, "settings": settings}
    nodes[0].admin({"replSetInitiate": config})
    wait_until(lambda: any(node.is_primary() for node in nodes), "an election")


def _set_url(nodes: Sequence[Node]) -> str:
    hosts = ",".join(node.address for node in nodes)
    return f"mongodb://{hosts}/?replicaSet={SET_NAME}&heartbeatFrequencyMS=500"


@dataclass(frozen=True, slots=True)
class ThreeNodes:
    """A replica set of three; a test that harms it calls `heal` or leaves it to the fixture."""

    url: str
    nodes: tuple[Node, ...]

    def client(self, **options: Any) -> MongoClient[dict[str, Any]]:
        """A client that fails within thirty seconds; the caller closes it."""
        return MongoClient(self.url, **{"serverSelectionTimeoutMS": 30_000, **options})

    def primary(self) -> Node:
        """The writable primary, once there is one."""
        found: Node = wait_until(self._find_primary, "an election")
        return found

    def _find_primary(self) -> Node | None:
        return next((node for node in self.nodes if node.is_primary()), None)

    def secondaries(self) -> list[Node]:
        primary = self.primary()
        return [node for node in self.nodes if node is not primary]

    def step_down(self) -> Node:
        """Make the primary give up its place; the new primary."""
        old = self.primary()
        with contextlib.suppress(AutoReconnect):
            old.admin({"replSetStepDown": 10, "secondaryCatchUpPeriodSecs": 5, "force": True})
        wait_until(lambda: self._find_primary() not in (None, old), "another primary")
        with contextlib.suppress(OperationFailure, AutoReconnect):
            old.admin({"replSetFreeze": 0})
        return self.primary()

    def kill_primary(self) -> Node:
        """SIGKILL the primary; the dead node, for `start(keep_port=True)`."""
        old = self.primary()
        old.kill()
        return old

    def heal(self) -> None:
        """Bring every node back: resumed, restarted, in the set, no failpoint left on."""
        for node in self.nodes:
            if node.process is None:
                node.start(keep_port=True)
            node.resume()
        self.primary()
        wait_until(self._is_whole, "the healing of the set")

    def _is_whole(self) -> bool:
        status = self.primary().admin({"replSetGetStatus": 1})
        states = sorted(member["stateStr"] for member in status["members"])
        return states == ["PRIMARY", "SECONDARY", "SECONDARY"]


@contextlib.contextmanager
def run_three_nodes() -> Iterator[ThreeNodes]:
    nodes = tuple(Node(("--replSet", SET_NAME, "--oplogSize", "64")) for _ in range(3))
    try:
        for node in nodes:
            node.start()
        initiate(nodes)
        server = ThreeNodes(_set_url(nodes), nodes)
        server.heal()
        yield server
    finally:
        for node in nodes:
            node.remove()


@contextlib.contextmanager
def failpoint(
    client: MongoClient[Any],
    name: str,
    mode: str | Mapping[str, Any] = "alwaysOn",
    data: Mapping[str, Any] | None = None,
) -> Iterator[None]:
    """Switch a failpoint of the server on, and off at the end.

    `data` may hold `appName`, so that only the tested client meets the failure.
    """
    command: dict[str, Any] = {"configureFailPoint": name, "mode": mode}
    if data is not None:
        command["data"] = dict(data)
    client.admin.command(command)
    try:
        yield
    finally:
        client.admin.command({"configureFailPoint": name, "mode": "off"})


def cli_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without mongover's own variables, then `env`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MONGOVER_")}
    if "MONGOVER_MONGOD" in os.environ:
        kept["MONGOVER_MONGOD"] = os.environ["MONGOVER_MONGOD"]
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), **(env or {})}


def run_cli(
    *args: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the real command and return what it said; its exit code is the test's to judge."""
    return subprocess.run(
        [sys.executable, "-m", "mongover", *args],
        cwd=cwd,
        env=cli_environment(env),
        input=stdin if stdin is not None else "",
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )


@contextlib.contextmanager
def start_cli(
    *args: str, cwd: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """The real command, running, in a process group of its own (for signals)."""
    with subprocess.Popen(
        [sys.executable, "-m", "mongover", *args],
        cwd=cwd,
        env=cli_environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
