"""The embedded mongod: found, started, shared, stopped; and every way in which it cannot be."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient

from mongover.database import embedded
from mongover.database.embedded import (
    EmbeddedServer,
    find_mongod,
    is_alive,
    open_embedded,
    parse_embedded,
)
from mongover.errors import ConfigError, EmbeddedError
from tests.support.servers import ROOT, cli_environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

# A user in a process of its own: prints what it got, then leaves when stdin closes.
USER = """
import os, sys
from pathlib import Path
from mongover.embedded import open_embedded
with open_embedded(Path(sys.argv[1]), environ=os.environ) as server:
    from pymongo import MongoClient
    with MongoClient(server.url, serverSelectionTimeoutMS=5000) as client:
        client.test.users.insert_one({"pid": os.getpid()})
    print(server.pid, int(server.started), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is not there yet; no server outlives the test."""
    place = tmp_path / "db"
    yield place
    if place.is_dir():
        with embedded._opened(place) as home:
            embedded._stop(home)


def opened(folder: Path, **options: Any) -> contextlib.AbstractContextManager[EmbeddedServer]:
    return open_embedded(folder, environ=os.environ, **options)


@contextlib.contextmanager
def user(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)],
        env=cli_environment(),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def said(process: subprocess.Popen[str]) -> tuple[int, bool]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr and process.stderr.read()
    pid, started = line.split()
    return int(pid), started == "1"


def lives(folder: Path) -> bool:
    return is_alive(EmbeddedServer("", 0, started=False, folder=folder))


def fake_mongod(tmp_path: Path, script: str) -> dict[str, str]:
    """An environment whose mongod is a shell script."""
    program = tmp_path / "fake-mongod"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"MONGOVER_MONGOD": str(program), "PATH": os.environ["PATH"]}


def refusal(folder: Path, environ: dict[str, str] | None = None, **options: Any) -> EmbeddedError:
    with pytest.raises(EmbeddedError) as caught:  # noqa: SIM117  # a context that never opens
        with open_embedded(folder, environ=environ or os.environ, **options):
            pytest.fail("it opened")
    return caught.value


# The URL


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("embedded:.mongover/db", Path(".mongover/db")),
        ("embedded:/var/db", Path("/var/db")),
        ("EMBEDDED: a b:c ", Path("a b:c")),
        ("embedded:~/db", Path.home() / "db"),
        ("mongodb://localhost", None),
        ("mongomock://x", None),
        ("embedded", None),
        ("", None),
    ],
)
def test_an_embedded_url_is_a_path_and_others_are_none(url: str, path: Path | None) -> None:
    assert parse_embedded(url) == path


@pytest.mark.parametrize("url", ["embedded:", "embedded:  ", "embedded://db", "embedded:a\0b"])
def test_an_embedded_url_without_a_folder_shows_how_to_write_one(url: str) -> None:
    with pytest.raises(ConfigError, match="names no folder") as caught:
        parse_embedded(url)
    assert "embedded:.mongover/db" in caught.value.hint


# The program


def test_the_named_mongod_comes_before_the_one_on_path(tmp_path: Path) -> None:
    named = fake_mongod(tmp_path, "exit 0")
    (tmp_path / "bin").mkdir()
    on_path = tmp_path / "bin" / "mongod"
    shutil.copy(named["MONGOVER_MONGOD"], on_path)
    both = {**named, "PATH": str(on_path.parent)}
    assert find_mongod(both) == Path(named["MONGOVER_MONGOD"])
    assert find_mongod({"PATH": str(on_path.parent)}) == on_path


def test_the_extra_is_found_without_being_imported(tmp_path: Path) -> None:
    found = find_mongod({"PATH": str(tmp_path)})
    assert found.parts[-4:] == ("fiftyone", "db", "bin", "mongod")
    assert "fiftyone" not in sys.modules


def test_no_mongod_at_all_names_the_command_that_installs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(EmbeddedError, match="no mongod") as caught:
        find_mongod({"PATH": str(tmp_path)})
    assert 'pip install "mongover[embedded]"' in caught.value.hint
    assert caught.value.exit_code == 5
    (tmp_path / "fiftyone").mkdir()  # another part of that namespace, without the server
    with pytest.raises(EmbeddedError, match="no mongod"):
        find_mongod({"PATH": str(tmp_path)})


def test_a_named_mongod_that_is_no_program_is_not_passed_over(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(EmbeddedError, match=r"MONGOVER_MONGOD names .* no program"):
            find_mongod({"MONGOVER_MONGOD": str(path), "PATH": os.environ["PATH"]})


@pytest.mark.parametrize(
    ("library", "hint"),
    [
        ("libcurl.so.4", "sudo apt-get install -y libcurl4"),
        ("libcrypto.so.3", "sudo apt-get install -y libssl3"),
        ("libodd.so.9", "apt-file search libodd.so.9"),
    ],
)
def test_a_missing_library_is_named_with_its_package(
    folder: Path, tmp_path: Path, library: str, hint: str
) -> None:
    said = f"mongod: error while loading shared libraries: {library}: cannot open shared object"
    error = refusal(folder, fake_mongod(tmp_path, f"echo '{said}' >&2; exit 127"))
    assert f"lacks {library}" in error.message
    assert hint in error.hint
    assert any(said in note for note in error.notes)


def test_a_system_that_is_too_old_is_named(folder: Path, tmp_path: Path) -> None:
    said = "mongod: /lib/libc.so.6: version \\`GLIBC_2.34' not found (required by mongod)"
    error = refusal(folder, fake_mongod(tmp_path, f'echo "{said}" >&2; exit 1'))
    assert "GLIBC_2.34" in error.message


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 62", ["exit code 62", "another version of MongoDB"]),
        ("exit 3", ["exit code 3"]),
        ("kill -ILL $$", ["exit code -4", "AVX"]),
    ],
)
def test_an_exit_code_is_shown_with_its_meaning(
    folder: Path, tmp_path: Path, script: str, words: list[str]
) -> None:
    error = refusal(folder, fake_mongod(tmp_path, script))
    assert [word for word in words if word not in error.message] == []
    assert str(folder / "mongod.log") in error.hint


def test_the_notes_hold_the_errors_of_the_log_and_not_its_noise(
    folder: Path, tmp_path: Path
) -> None:
    lines = [
        '{"s":"E","msg":"DBException","attr":{"error":"Bad: thing"}}',
        '{"s":"F","msg":"fatal"}',
        '{"s":"E" broken',
        '{"s":"E","msg":"odd","attr":[1]}',
        '{"s":"I","msg":"Now exiting"}',
    ]
    script = "\n".join(f"echo '{line}'" for line in lines) + "\nexit 1"
    error = refusal(folder, fake_mongod(tmp_path, script))
    assert error.notes[1:] == (
        "log: DBException: Bad: thing",
        "log: fatal",
        'log: {"s":"E" broken',
        "log: odd",
    )


def test_a_program_for_another_system_is_explained(folder: Path, tmp_path: Path) -> None:
    environ = fake_mongod(tmp_path, "")
    program = Path(environ["MONGOVER_MONGOD"])
    program.write_text("#!/no/such/loader\n")
    assert "Linux with glibc" in refusal(folder, environ).message
    program.write_bytes(b"\x00\x01\x02")
    assert "does not run: Exec format error" in refusal(folder, environ).message
    assert not lives(folder)


def test_a_server_that_never_gets_ready_is_ended(folder: Path, tmp_path: Path) -> None:
    environ = fake_mongod(tmp_path, "exec sleep 60")
    error = refusal(folder, environ, start_timeout=0.3)
    assert "was not ready in 0.3 s" in error.message
    assert not lives(folder)


def test_a_server_deaf_to_sigterm_is_killed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_STOP_TIMEOUT", 0.2)
    environ = fake_mongod(tmp_path, "trap '' TERM; while :; do sleep 0.05; done")
    refusal(folder, environ, start_timeout=0.3)
    wait_until(lambda: not lives(folder), "the end of the script")


# The folder


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "db"):
        assert "cannot hold a database" in refusal(path).message


def test_a_folder_that_cannot_be_made_or_written_is_refused() -> None:
    error = refusal(Path("/proc/mongover"))
    assert "/proc/mongover cannot hold a database: No such file" in error.message
    assert "that you may write" in error.hint
    assert "null" in refusal(Path("/tmp/a\0b")).message  # noqa: S108  # never made


def test_a_folder_of_other_things_stays_untouched(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert "holds other files" in refusal(tmp_path).message
    assert os.listdir(tmp_path) == ["README.md"]  # noqa: PTH208  # names are the point


def test_a_file_system_without_locks_is_explained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert "needs file locks" in refusal(folder).message


@pytest.mark.parametrize("name", ["A:b", "50%", "e f@g,h+i", "ü", "\udcff", "l" * 200])
def test_any_name_of_a_folder_gives_a_url_that_works(tmp_path: Path, name: str) -> None:
    with opened(tmp_path / name) as server, MongoClient[Any](server.url) as client:
        assert client.admin.command("hello")["isWritablePrimary"]
        assert server.folder == tmp_path / name
    assert not is_alive(server)


# One user


def test_data_stays_over_two_opens_and_the_server_ends_with_each(folder: Path) -> None:
    with opened(folder) as first, MongoClient[Any](first.url) as client:
        assert first.started
        assert is_alive(first)
        client.shop.things.insert_one({"_id": 1})
        with client.start_session() as session, session.start_transaction():
            client.shop.things.insert_one({"_id": 2}, session=session)
    assert not is_alive(first)
    assert not (folder / "mongod.sock").exists()
    with opened(folder) as second, MongoClient[Any](second.url) as client:
        assert second.started
        assert client.shop.things.count_documents({}) == 2
    assert (folder / "mongod.log.1").exists()


def _open_files(pid: int) -> Iterator[str]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed in the meantime
            yield os.readlink(link)  # noqa: PTH115  # a name, not a path


def test_only_the_owner_can_reach_the_data_and_no_port_is_open(folder: Path) -> None:
    with opened(folder) as server:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for name in ("mongod.sock", "mongod.log", "mongover.lock"):
            assert stat.S_IMODE((folder / name).stat().st_mode) & 0o077 == 0
        assert os.getsid(server.pid) == server.pid
        inodes = set(_open_files(server.pid))
        tables = [
            Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")
        ]
        ports = [
            line for table in tables for line in table if f"socket:[{line.split()[9]}]" in inodes
        ]
        assert ports == []


def test_a_folder_that_was_moved_opens_in_its_new_place(folder: Path) -> None:
    with opened(folder) as server, MongoClient[Any](server.url) as client:
        client.shop.things.insert_one({"_id": 1})
    moved = folder.with_name("moved")
    folder.rename(moved)
    with opened(moved) as server, MongoClient[Any](server.url) as client:
        assert client.shop.things.count_documents({}) == 1


def test_the_server_of_a_deleted_folder_ends_with_its_user(folder: Path) -> None:
    with opened(folder) as server:
        removed = folder.rename(folder.with_name("removed"))
        for path in removed.glob("mongo*"):  # without the data's own files mongod might abort
            path.unlink()
        assert not is_alive(server)  # none can be found there
        with opened(folder) as other:
            assert other.started
            assert other.pid != server.pid
    with pytest.raises(ProcessLookupError):
        wait_until(lambda: os.kill(server.pid, 0), "the end of the server")


def test_a_server_that_died_is_noticed_and_replaced(folder: Path) -> None:
    with opened(folder) as first:
        os.kill(first.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(first), "the end of the server")
        assert (folder / "mongod.sock").exists()
        assert (folder / "mongod.lock").read_text().strip() == str(first.pid)
        with opened(folder) as second:
            assert second.started
            assert second.pid != first.pid
        assert is_alive(second)  # the first user still has its share
    assert not is_alive(second)


def test_stale_lock_socket_and_state_files_are_no_obstacle(folder: Path) -> None:
    with opened(folder):
        pass
    (folder / "mongod.lock").write_text(f"{os.getpid()}\n")
    for name in ("mongover.lock", "mongover.users", "mongover.server"):
        (folder / name).write_text("leftover")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(os.path.relpath(folder / "mongod.sock"))
    with opened(folder) as server:
        assert server.started


def test_an_error_in_the_body_passes_and_the_server_ends(folder: Path) -> None:
    with pytest.raises(KeyError), opened(folder) as server:
        raise KeyError("mine")
    assert not is_alive(server)


# Many users


def test_eight_processes_that_open_one_folder_share_one_server(folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        users = [stack.enter_context(user(folder)) for _ in range(8)]
        answers = [said(process) for process in users]
        assert len({pid for pid, _ in answers}) == 1
        assert [started for _, started in answers].count(True) == 1
        for process in users:
            assert lives(folder)
            _, errors = process.communicate(timeout=60)
            assert (process.returncode, errors) == (0, "")
    assert not lives(folder)


def test_users_that_come_and_go_at_random_never_fail(folder: Path) -> None:
    def come_and_go(seed: int) -> None:
        pause = random.Random(seed)
        for number in range(4):
            with opened(folder) as server, MongoClient[Any](server.url) as client:
                client.shop.things.insert_one({"_id": f"{seed}-{number}"})
                threading.Event().wait(pause.random() / 10)
            threading.Event().wait(pause.random() / 5)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(come_and_go, range(6)))
    assert not lives(folder)
    with opened(folder) as server, MongoClient[Any](server.url) as client:
        assert client.shop.things.count_documents({}) == 24


def test_a_killed_user_takes_nothing_from_the_others(folder: Path) -> None:
    with user(folder) as first, user(folder) as second:
        pid, first_started = said(first)
        assert said(second)[0] == pid
        killed, other = (first, second) if first_started else (second, first)
        killed.kill()
        killed.wait()
        assert lives(folder)
        _, errors = other.communicate(timeout=60)
        assert (other.returncode, errors) == (0, "")
    assert not lives(folder)


def test_the_server_of_a_killed_user_is_adopted_and_stopped(folder: Path) -> None:
    with user(folder) as process:
        pid, _ = said(process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert lives(folder)
    with opened(folder) as server, MongoClient[Any](server.url) as client:
        assert (server.pid, server.started) == (pid, False)
        assert client.test.users.count_documents({}) == 1
    assert not is_alive(server)


def test_a_server_left_half_started_by_a_killed_user_is_finished(folder: Path) -> None:
    with embedded._opened(folder) as home:
        command = embedded._command_line(os.environ, 0.25)
        process = embedded._spawn(home, command, os.environ)  # and the user dies here
    with opened(folder) as server:
        assert (server.pid, server.started) == (process.pid, False)
        with MongoClient[Any](server.url) as client:
            assert client.admin.command("hello")["isWritablePrimary"]
    process.wait()


def test_a_half_started_server_that_dies_is_replaced(folder: Path, tmp_path: Path) -> None:
    environ = fake_mongod(tmp_path, "sleep 0.5; exit 1")
    with embedded._opened(folder) as home:
        process = embedded._spawn(home, [environ["MONGOVER_MONGOD"]], environ)
    assert lives(folder)
    with opened(folder) as server:
        assert server.started
    process.wait()


def test_ctrl_c_reaches_the_user_and_not_the_server(folder: Path) -> None:
    with user(folder) as process:
        said(process)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert not lives(folder)
    assert '"msg":"Now exiting"' in (folder / "mongod.log").read_text()


def test_ctrl_c_while_the_server_starts_leaves_none_behind(folder: Path) -> None:
    with user(folder) as process:
        wait_until(lambda: lives(folder), "the start")
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert not lives(folder)


def test_a_dying_server_is_waited_for_and_not_used(folder: Path) -> None:
    with user(folder) as process:
        pid, _ = said(process)
        os.kill(pid, signal.SIGTERM)  # by someone who does not wait
        with embedded._opened(folder) as home:
            wait_until(lambda: not embedded._make_writable(home), "the beginning of the end")
        assert lives(folder)
        with opened(folder) as server:
            assert server.started
            assert server.pid != pid
            process.kill()
            process.wait()


# What cannot be shared


def _pid_in(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def test_the_mongod_of_another_program_is_named_by_its_pid(folder: Path) -> None:
    folder.mkdir()
    program = str(find_mongod(os.environ))
    command = [program, "--dbpath", str(folder), "--bind_ip", str(folder / "own.sock")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as other:
        try:
            lock = folder / "mongod.lock"
            wait_until(lambda: _pid_in(lock), "the start of the other mongod")
            error = refusal(folder)
        finally:
            other.terminate()
    assert f"another mongod (pid {other.pid}) uses the folder" in error.message
    assert "stop that mongod" in error.hint


def test_a_server_that_does_not_answer_is_named_with_the_way_to_end_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_STOP_TIMEOUT", 0.2)
    monkeypatch.setattr(embedded, "_ANSWER_TIMEOUT", 0.2)
    with user(folder) as process:
        pid, _ = said(process)
        os.kill(pid, signal.SIGSTOP)
        error = refusal(folder, start_timeout=0.2)
        assert "does not answer" in error.message
        assert f"kill -9 {pid}" in error.hint
        process.kill()
    assert "does not end" in refusal(folder, start_timeout=0.2).message
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not lives(folder), "the end of the server")


@pytest.mark.parametrize("name", ["guard", "users"])
def test_a_process_that_hangs_with_a_lock_is_an_error_in_time(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_STOP_TIMEOUT", 0.1)
    with embedded._opened(folder) as home:
        fcntl.flock(getattr(home, name), fcntl.LOCK_EX)
        error = refusal(folder, start_timeout=0.1)
    assert "fuser" in error.hint


def test_a_server_of_another_container_is_used_and_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_peer", lambda _: 0)
        with opened(folder) as server:
            assert server.pid == 0
        assert is_alive(server)
    with opened(folder) as server:
        assert not server.started
    assert not is_alive(server)


def test_a_socket_that_refuses_this_user_is_an_error(folder: Path) -> None:
    with opened(folder), embedded._opened(folder) as home:
        (folder / "mongod.sock").rename(folder / "aside")
        (folder / "mongod.sock").symlink_to("mongod.sock")
        with pytest.raises(EmbeddedError, match="cannot be used: Too many levels"):
            embedded._make_writable(home)
        (folder / "aside").replace(folder / "mongod.sock")


@pytest.mark.parametrize("reply", [b"", b"\x40", b"\x40\0\0\0" + b"\0" * 20, None])
def test_a_server_that_breaks_off_its_answer_counts_as_not_ready(
    folder: Path, reply: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_ANSWER_TIMEOUT", 0.2)
    with embedded._opened(folder) as home, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(home.socket())
        listener.listen()
        answering = threading.Thread(target=answer_once, args=(listener, reply))
        answering.start()
        assert not embedded._make_writable(home)
        answering.join()


def answer_once(listener: socket.socket, reply: bytes | None) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1000)
        if reply is None:
            connection.recv(1000)  # never answers; ends when the other side gives up
        else:
            connection.sendall(reply)


def test_a_log_that_is_gone_is_no_second_error(folder: Path, tmp_path: Path) -> None:
    error = refusal(folder, fake_mongod(tmp_path, f"rm {folder}/mongod.log; exit 5"))
    assert "exit code 5" in error.message
    said = "echo DBPathInUse; exit 100"
    assert "another mongod uses the folder" in refusal(folder, fake_mongod(tmp_path, said)).message


def test_the_module_costs_no_pymongo() -> None:
    code = "import sys, mongover.embedded; sys.exit('pymongo' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=cli_environment(), check=True)
