"""A private mongod for first steps and tests: `url = embedded:FOLDER`.

The server is a replica set of one on a unix socket inside its folder, so that the folder's
permissions are the server's. Three lock files in the folder, all under `flock`, carry the whole
state, and the kernel drops each of them with the process that holds it:

    mongover.lock     held, exclusively, by whoever starts, adopts or stops the server
    mongover.users    held, shared, by each user for as long as it uses the server
    mongover.server   held by the mongod itself, from its fork to its exit

A user that can turn its share of `mongover.users` into an exclusive lock is the last one and
stops the server. A killed user leaves a server behind that the next user adopts and, being the
last, stops. No pid is ever read from a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mongover.errors import ConfigError, EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_INSTALL = 'pip install "mongover[embedded]"'
_SET_NAME = "mongover"
_SOCKET = "mongod.sock"
_MEMBER = f"./{_SOCKET}"  # relative to the server's working folder: it survives a move
_LOG = "mongod.log"
_GUARD, _USERS, _SERVER = "mongover.lock", "mongover.users", "mongover.server"
_LONGEST_SOCKET_PATH = 107  # sun_path, without its closing zero
_ANSWER_TIMEOUT = 2.0
_STOP_TIMEOUT = 30.0
_POLL = 0.005
_PACKAGES = {
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "liblzma.so.5": "liblzma5",
}
_EXIT_CODES = {
    2: "it does not know an option",
    14: "it met an error it cannot go on from",
    48: "its socket is taken",
    62: "another version of MongoDB wrote the folder",
    100: "it cannot use the folder",
    -signal.SIGILL: "this processor lacks instructions (AVX) that MongoDB 5 and later need",
    -signal.SIGKILL: "it was killed, perhaps for want of memory",
}


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running embedded server.

    Attributes:
        url: The address for `MongoClient`; without a database and without timeouts.
        pid: The mongod's process, or 0 where it lives in another container.
        started: True when this user started it, False when it ran already.
        folder: The absolute path of its data.
    """

    url: str
    pid: int
    started: bool
    folder: Path


def parse_embedded(url: str) -> Path | None:
    """The folder that `embedded:FOLDER` names, as written; None for any other URL.

    Raises:
        ConfigError: No folder stands after the colon, or two slashes do.
    """
    scheme, colon, path = url.partition(":")
    if not colon or scheme.strip().lower() != "embedded":
        return None
    if not path.strip() or path.startswith("//") or "\0" in path:
        raise ConfigError(
            f"the URL {url!r} names no folder",
            hint="write it as `embedded:.mongover/db` or `embedded:/var/lib/app/db`",
        )
    return Path(path.strip()).expanduser()


def find_mongod(environ: Mapping[str, str]) -> Path:
    """The mongod to run: `MONGOVER_MONGOD`, then `PATH`, then the `embedded` extra.

    Raises:
        EmbeddedError: There is none, or `MONGOVER_MONGOD` names none.
    """
    named = environ.get("MONGOVER_MONGOD")
    if named:
        return _named_mongod(Path(named))
    found = shutil.which("mongod", path=environ.get("PATH", os.defpath))
    if found:
        return Path(found)
    spec = importlib.util.find_spec("fiftyone")  # a top-level name: found without an import
    places = spec.submodule_search_locations if spec else None
    for place in places or ():
        binary = Path(place, "db", "bin", "mongod")
        if binary.is_file():
            return binary
    raise EmbeddedError(
        "there is no mongod for an embedded database",
        hint=f"{_INSTALL}, or set MONGOVER_MONGOD to the path of a mongod",
    )


def _named_mongod(binary: Path) -> Path:
    if binary.is_file() and os.access(binary, os.X_OK):
        return binary.absolute()
    raise EmbeddedError(
        f"MONGOVER_MONGOD names {binary}, which is no program",
        hint=f"correct it, or unset it and run: {_INSTALL}",
    )


@contextlib.contextmanager
def open_embedded(
    folder: Path,
    *,
    environ: Mapping[str, str],
    cache_gb: float = 0.25,
    start_timeout: float = 60.0,
) -> Iterator[EmbeddedServer]:
    """A writable server on the folder, shared with every other user of it.

    Attaches to a server that runs there, else starts one. The last user to leave stops it and
    waits for its end; the data stays. Threads and processes may open one folder at once.

    Args:
        folder: Made when it is missing; a folder that holds something else is refused.
        environ: Where `MONGOVER_MONGOD` and `PATH` are read, and what the server inherits.
        cache_gb: The server's cache, where this call starts it.
        start_timeout: Seconds until a server that is not writable is an error.

    Raises:
        EmbeddedError: The folder, the program or the server cannot be used.
    """
    with _opened(folder.absolute()) as home, home.shared(start_timeout):
        with home.guarded(start_timeout):
            server = _attach(home, start_timeout)
            if server is None:
                command = _command_line(environ, cache_gb)
                server = _start(home, command, environ=environ, timeout=start_timeout)
        try:
            yield server
        finally:
            _end_if_removed(home, server.pid)


def is_alive(server: EmbeddedServer) -> bool:
    """Whether a server still runs on the folder; never waits."""
    if not (server.folder / _SERVER).exists():
        return False
    with _opened(server.folder) as home:
        return home.has_server()


@dataclass(frozen=True, slots=True)
class _Home:
    """The folder of a server, with a descriptor of its own on each lock file."""

    folder: Path
    place: int
    guard: int
    users: int
    server: int

    @contextlib.contextmanager
    def guarded(self, timeout: float) -> Iterator[None]:
        """Alone in starting, adopting or stopping the server."""
        if not _wait(lambda: _try_flock(self.guard, fcntl.LOCK_EX), timeout + _STOP_TIMEOUT):
            raise EmbeddedError(
                f"another process does not get done with starting or stopping the server in "
                f"{self.folder}",
                hint=f"find it with `fuser {self.folder / _GUARD}`, end it, and try again",
            )
        try:
            yield
        finally:
            fcntl.flock(self.guard, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def shared(self, timeout: float) -> Iterator[None]:
        """With a share in the server; the last to give its share back stops the server."""
        if not _wait(lambda: _try_flock(self.users, fcntl.LOCK_SH), timeout + _STOP_TIMEOUT):
            raise _silent(self, "does not end")
        try:
            yield
        finally:
            with self.guarded(timeout):
                if _try_flock(self.users, fcntl.LOCK_EX):
                    _stop(self)

    def has_server(self) -> bool:
        """Whether a mongod that mongover started lives: starting, running or ending."""
        if not _try_flock(self.server, fcntl.LOCK_SH):
            return True
        fcntl.flock(self.server, fcntl.LOCK_UN)
        return False

    def socket(self) -> str:
        """A path to the server's socket that is short enough and good in this process."""
        return f"/proc/self/fd/{self.place}/{_SOCKET}"


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[_Home]:
    with contextlib.ExitStack() as stack:

        def open_(name: str, flags: int) -> int:
            descriptor = os.open(folder / name, flags | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)
            return descriptor

        try:
            _make_folder(folder)
            place = open_(".", os.O_RDONLY | os.O_DIRECTORY)
            locks = [open_(name, os.O_RDWR | os.O_CREAT) for name in (_GUARD, _USERS, _SERVER)]
        except (OSError, ValueError) as error:
            raise EmbeddedError(
                f"the folder {folder} cannot hold a database: {_reason(error)}",
                hint="name a folder that you may write, on a local disk, in `url`",
            ) from error
        yield _Home(folder, place, *locks)


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = {entry.name for entry in folder.iterdir()}
    if names and not names & {_GUARD, "WiredTiger", "mongod.lock"}:
        raise EmbeddedError(
            f"the folder {folder} holds other files than a database's",
            hint="name an empty folder, or one that does not exist yet, in `url`",
        )


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _try_flock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise EmbeddedError(
            f"the embedded database needs file locks, and there are none here: {_reason(error)}",
            hint="name a folder on a local disk in `url`",
        ) from error
    return True


def _wait(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether the condition came true in time; it is asked at least once."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _attach(home: _Home, timeout: float) -> EmbeddedServer | None:
    """The server that lives on the folder, once it is writable; None when none does.

    A server that a killed user left half-started is brought to its end, and one that is ending
    is waited for.
    """

    def settled() -> bool:
        return not home.has_server() or _make_writable(home)

    if not _wait(settled, timeout):
        raise _silent(home, "does not answer")
    return _describe(home, started=False) if home.has_server() else None


def _start(
    home: _Home, command: list[str], *, environ: Mapping[str, str], timeout: float
) -> EmbeddedServer:
    process = _spawn(home, command, environ)
    try:
        # The caller's next import, done while the server starts on another processor.
        importlib.import_module("pymongo")
        _await_start(home, process, command=command, timeout=timeout)
    except BaseException:
        _discard(process)
        raise
    # Whoever stops the server, the dead process is collected here.
    threading.Thread(target=process.wait, name="mongover-embedded", daemon=True).start()
    return _describe(home, started=True)


def _await_start(
    home: _Home, process: subprocess.Popen[bytes], *, command: list[str], timeout: float
) -> None:
    def settled() -> bool:
        return process.poll() is not None or _make_writable(home)

    if not _wait(settled, timeout):
        raise _failed(home, command, f"was not ready in {timeout:g} s")
    if process.returncode is not None:
        raise _ended(home, command, process.returncode)


def _command_line(environ: Mapping[str, str], cache_gb: float) -> list[str]:
    journal = "log=(enabled=true,prealloc=false,file_max=2MB,path=journal,compressor=snappy)"
    return [
        str(find_mongod(environ)),
        *("--dbpath", ".", "--bind_ip", _MEMBER, "--replSet", _SET_NAME, "--quiet"),
        *("--oplogSize", "16", "--wiredTigerCacheSizeGB", str(cache_gb)),
        *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        *("--wiredTigerEngineConfigString", f"{journal},session_max=300"),
    ]


def _spawn(home: _Home, command: list[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A mongod that holds `mongover.server`, out of the terminal's reach."""
    log = home.folder / _LOG
    with contextlib.suppress(FileNotFoundError):
        log.replace(log.with_suffix(".log.1"))
    with contextlib.ExitStack() as stack:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, output)
        held = os.open(home.folder / _SERVER, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, held)
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            return subprocess.Popen(  # noqa: S603  # the program is the user's own choice
                command,
                cwd=home.folder,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(held,),
            )
        except OSError as error:
            raise _unrunnable(command[0], error) from error


def _discard(process: subprocess.Popen[bytes]) -> None:
    """End a server of which no user knows yet."""
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _stop(home: _Home) -> None:
    """End the server and wait for it; nothing happens where none lives."""
    # A start that Ctrl-C cut short leaves a server that does not listen yet.
    _wait(lambda: not home.has_server() or _peer(home) is not None, _STOP_TIMEOUT)
    pid = _peer(home)
    if pid == 0:  # it lives in another container: only that can end it
        return
    if pid:
        os.kill(pid, signal.SIGTERM)
    if not _wait(lambda: not home.has_server(), _STOP_TIMEOUT):
        raise _silent(home, "does not end")


def _end_if_removed(home: _Home, pid: int) -> None:
    """End the server whose folder was deleted under it: no later user could find it."""
    if os.fstat(home.guard).st_nlink == 0 and pid and home.has_server():
        os.kill(pid, signal.SIGTERM)


def _describe(home: _Home, *, started: bool) -> EmbeddedServer:
    pid = _peer(home) or 0
    path = home.folder / _SOCKET
    plain = re.fullmatch(r"[\w/. +@-]+", str(path)) is not None
    if pid and not (plain and len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH):
        path = Path(f"/proc/{pid}/cwd", _SOCKET)
    return EmbeddedServer(
        url=f"mongodb://{quote(str(path), safe='')}/?directConnection=true",
        pid=pid,
        started=started,
        folder=home.folder,
    )


def _connect(home: _Home) -> socket.socket | None:
    """A connection to the server; None when nothing listens."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_ANSWER_TIMEOUT)
        connection.connect(home.socket())
    except (FileNotFoundError, ConnectionError, BlockingIOError, TimeoutError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise EmbeddedError(
            f"the server's socket {home.folder / _SOCKET} cannot be used: {_reason(error)}",
            hint="run as the user who started it",
        ) from error
    return connection


def _peer(home: _Home) -> int | None:
    """The server's pid as this container counts (0: not at all); None when nothing listens."""
    connection = _connect(home)
    if connection is None:
        return None
    with connection:
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", found)[0])


def _make_writable(home: _Home) -> bool:
    """Whether the server is a writable primary; a new one is told to become one."""
    hello = _command(home, {"hello": 1})
    if hello.get("isreplicaset") and "setName" not in hello:
        member = {"_id": 0, "host": _MEMBER}
        _command(home, {"replSetInitiate": {"_id": _SET_NAME, "members": [member]}})
    return hello.get("isWritablePrimary") is True


def _command(home: _Home, command: dict[str, Any]) -> dict[str, Any]:
    """The answer to one command on `admin`; empty when there is none.

    Written out in the wire protocol, because a `MongoClient` costs more than the whole attach.
    """
    import bson

    body = bson.encode({**command, "$db": "admin"})
    connection = _connect(home)
    if connection is None:
        return {}
    with connection, connection.makefile("rb") as answer:
        try:
            connection.sendall(struct.pack("<4iIB", 21 + len(body), 1, 0, 2013, 0, 0) + body)
            head = answer.read(21)
            length = max(struct.unpack_from("<i", head.ljust(4, b"\0"))[0] - 21, 0)
            document = answer.read(length)
        except (ConnectionError, TimeoutError):
            return {}
    return bson.decode(document) if 0 < length == len(document) else {}


def _silent(home: _Home, what: str) -> EmbeddedError:
    pid = _peer(home)
    return EmbeddedError(
        f"the embedded server in {home.folder} {what}",
        hint=f"end it with `kill -9 {pid}` (its journal keeps the data), and try again"
        if pid
        else f"find its process with `fuser {home.folder / _SERVER}`, and end it",
        notes=_log_tail(home),
    )


def _failed(home: _Home, command: list[str], what: str, hint: str = "") -> EmbeddedError:
    return EmbeddedError(
        f"the embedded server in {home.folder} {what}",
        hint=hint or f"the whole log is in {home.folder / _LOG}",
        notes=(f"program: {command[0]}", *_log_tail(home)),
    )


def _ended(home: _Home, command: list[str], code: int) -> EmbeddedError:
    log = _read_log(home)
    library = re.search(r"error while loading shared libraries: ([^\s:]+)", log)
    if library:
        return _failed(home, command, f"lacks {library[1]}", _install_hint(library[1]))
    version = re.search(r"version [`']([^`']+)' not found", log)
    if version:
        what = f"needs a newer system: {version[1]} is missing"
        return _failed(home, command, what, "set MONGOVER_MONGOD to a mongod made for this system")
    if "DBPathInUse" in log:
        return _failed(
            home,
            command,
            f"cannot start: another mongod{_owner(home)} uses the folder",
            "stop that mongod, or set `url` to its address",
        )
    meaning = _EXIT_CODES.get(code)
    ending = f" ({meaning})" if meaning else ""
    return _failed(home, command, f"ended at once with exit code {code}{ending}")


def _install_hint(library: str) -> str:
    package = _PACKAGES.get(library)
    if package:
        return f"sudo apt-get install -y {package}"
    return f"install the package that holds it: apt-file search {library}"


def _owner(home: _Home) -> str:
    try:
        pid = (home.folder / "mongod.lock").read_text("ascii", "replace").strip()
    except OSError:
        return ""
    return f" (pid {pid})" if pid.isdigit() else ""


def _unrunnable(program: str, error: OSError) -> EmbeddedError:
    reason = _reason(error)
    if isinstance(error, FileNotFoundError):  # the file is there: its loader is not
        reason = "it was made for another system (it needs Linux with glibc)"
    return EmbeddedError(
        f"the program {program} does not run: {reason}",
        hint="set MONGOVER_MONGOD to a mongod made for this system",
    )


def _read_log(home: _Home) -> str:
    try:
        text = (home.folder / _LOG).read_bytes()
    except OSError:
        return ""
    return text[-100_000:].decode("utf-8", "replace")


def _log_tail(home: _Home) -> tuple[str, ...]:
    """What the log says of the failure: its errors, else its last lines, at most five."""
    lines = [line for line in _read_log(home).splitlines() if line.strip()]
    errors = [line for line in lines if '"s":"E"' in line or '"s":"F"' in line]
    return tuple(_log_line(line) for line in (errors or lines)[-5:])


def _log_line(line: str) -> str:
    try:
        entry = json.loads(line)
        message, details = entry["msg"], entry.get("attr", {})
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"log: {line[:300]}"
    reason = details.get("error", "") if isinstance(details, dict) else ""
    return f"log: {message}: {reason}"[:300] if reason else f"log: {message}"[:300]
