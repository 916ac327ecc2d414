"""The real command against a real server: the main job, its failures, signals, secrets."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.servers import ROOT, cli_environment, free_port, run_cli, start_cli, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pymongo.database import Database

    from tests.support.servers import Server

    Run = Callable[..., subprocess.CompletedProcess[str]]

TEMPLATE = '''"""{message}

Revision ID: {id}
Revises: {down}
Schema: {schema}
"""
import time
from mongover import Operations

revision = "{id}"
down_revision = {down!r}
schema = "{schema}"
depends_on = {depends!r}


def upgrade(op: Operations) -> None:
{up}


def downgrade(op: Operations) -> None:
{back}
'''


class Project:
    """A project in a folder of its own, on a database of its own."""

    def __init__(self, folder: Path, url: str, database: str) -> None:
        self.folder = folder
        (folder / "alembic-style.ini").write_text(
            f"[mongover]\nurl = {url}\ndatabase = {database}\n"
        )
        (folder / "versions").mkdir()

    def add(self, id: str, up: str, **fields: Any) -> None:  # noqa: A002 - the header's own word
        values = {"message": f"step {id}", "down": None, "schema": "users", "depends": ()}
        back = fields.pop("back", "op.log('back')")
        text = TEMPLATE.format(
            id=id, up=_indented(up), back=_indented(back), **{**values, **fields}
        )
        (self.folder / "versions" / f"{id}_step.py").write_text(text)

    def run(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return run_cli(*args, cwd=self.folder, **options)

    def json(self, *args: str) -> Any:
        return json.loads(self.run(*args, "--json").stdout)


def _indented(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.splitlines())


@pytest.fixture
def project(replica_set: Server, replica_db: Database[Any], tmp_path: Path) -> Project:
    return Project(tmp_path, replica_set.url, replica_db.name)


@pytest.fixture
def filled(project: Project) -> Project:
    """Two lines; calls depends on users."""
    up = "op.create_collection('users')\nop.create_index('users', 'email', unique=True)"
    project.add("0001", up, message="create users", back="op.drop_collection('users')")
    project.add(
        "0002",
        "op.create_collection('calls')",
        message="create [calls]",
        schema="calls",
        depends=("0001",),
        back="op.drop_collection('calls')",
    )
    return project


def test_the_main_job_from_an_empty_database_and_back(filled: Project) -> None:
    assert "2 pending" in filled.run("status").stdout
    assert filled.run("status", "--check").returncode == 6

    done = filled.run("upgrade")
    assert done.returncode == 0
    assert done.stdout.startswith("✓ 2 revisions applied in ")
    assert "users 0001" in done.stdout
    assert "calls 0002" in done.stdout
    assert "[1/2] 0001 create users (users)" in done.stderr
    assert "[2/2] 0002 create [calls] (calls)" in done.stderr
    assert "✓ collection users" in done.stderr
    assert done.stderr.endswith("undo: mongover downgrade -2\n")

    assert filled.run("status", "--check").returncode == 0
    assert filled.json("history")["revisions"][1]["revision"] == "0002"
    assert "nothing to do" in filled.run("upgrade").stdout

    back = filled.json("downgrade", "-1")
    assert back["reverted"] == ["0002"]
    assert [one["revision"] for one in filled.json("current")["revisions"]] == ["0001"]


def test_a_plan_is_what_runs_and_leaves_the_database_alone(
    filled: Project, replica_db: Database[Any]
) -> None:
    steps = [step["revision"] for step in filled.json("plan", "calls")["steps"]]
    assert replica_db.list_collection_names() == []
    assert filled.json("upgrade", "calls")["applied"] == steps == ["0001", "0002"]


def test_a_failed_revision_is_exit_1_with_its_place_and_the_next_command_works(
    project: Project,
) -> None:
    project.add(
        "0001", "op.create_collection('users')\nraise ValueError('no [/bold] such\\nthing')"
    )
    failed = project.run("upgrade")
    assert failed.returncode == 1
    (file,) = (project.folder / "versions").iterdir()
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "raise" in text)
    assert f"--> versions/0001_step.py:{line}   raise ValueError" in failed.stderr
    assert "ValueError" in failed.stderr
    assert "[/bold]" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "Traceback" in project.run("upgrade", "--debug").stderr
    assert project.run("status").returncode == 0
    project.add("0001", "op.create_collection('users')")
    assert project.run("upgrade", "-q").stdout == ""
    assert project.run("status", "--check").returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_plain_terminal_gets_plain_signs_and_the_run_ends_well(
    filled: Project, encoding: str
) -> None:
    done = filled.run("upgrade", env={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert done.returncode == 0
    assert done.stdout.startswith("[x] 2 revisions applied")
    assert "[x] collection users" in done.stderr


def test_an_edited_file_is_shown_diffed_and_repaired(filled: Project) -> None:
    filled.run("upgrade")
    filled.add("0001", "op.create_collection('people')", message="create users")
    assert filled.run("verify").returncode == 4
    status = filled.run("status")
    assert "0001" in status.stdout
    assert "1 problem" in status.stdout
    assert "+    op.create_collection('people')" in filled.run("diff", "1").stdout
    assert filled.run("downgrade", "base").returncode == 4
    assert filled.run("repair", "1", "--reason", "renamed").returncode == 0
    assert filled.run("verify").returncode == 0
    assert '"renamed"' in filled.run("history", "--log").stdout


def test_a_lost_file_is_restored_byte_for_byte(filled: Project) -> None:
    filled.run("upgrade")
    (lost,) = (filled.folder / "versions").glob("0002_*.py")
    before = lost.read_bytes()
    lost.unlink()
    assert filled.run("verify").returncode == 4
    path = filled.json("restore", "2")["path"]
    assert (filled.folder / path).read_bytes() == before
    assert filled.run("verify").returncode == 0


def test_stamp_records_without_running_and_takes_back(
    filled: Project, replica_db: Database[Any]
) -> None:
    assert filled.json("stamp", "head")["stamped"] == ["0001", "0002"]
    assert "users" not in replica_db.list_collection_names()
    assert filled.run("status", "--check").returncode == 0
    assert filled.run("stamp", "base", "--reason", "by mistake").returncode == 0
    assert filled.run("status", "--check").returncode == 6


def test_every_command_that_reads_has_one_json_document(filled: Project) -> None:
    filled.run("upgrade")
    for args in (
        *(["status"], ["current"], ["heads"], ["history"], ["history", "--log"], ["show", "1"]),
        *(["plan"], ["plan", "-1"], ["check"], ["verify"], ["diff", "1"], ["lock"], ["doctor"]),
    ):
        done = filled.run(*args, "--json")
        assert done.returncode == 0, done.stderr
        assert isinstance(json.loads(done.stdout), dict)


def test_a_server_that_is_away_is_exit_5_in_time_and_in_one_block(tmp_path: Path) -> None:
    Project(tmp_path, f"mongodb://ana:s3cr3t-word@127.0.0.1:{free_port()}/", "shop")
    done = run_cli("status", "--json", "--connect-timeout", "0.3", cwd=tmp_path, timeout=60)
    assert done.returncode == 5
    assert json.loads(done.stdout)["error"]["exit"] == 5
    assert "s3cr3t-word" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_password_is_exit_5_and_never_printed(auth_server: Server, tmp_path: Path) -> None:
    Project(tmp_path, auth_server.as_user("ana", "wr0ng-pass/w@rd"), "shop")
    for args in (["status"], ["upgrade"], ["doctor"], ["status", "--debug"], ["-v", "lock"]):
        done = run_cli(*args, cwd=tmp_path)
        said = done.stdout + done.stderr
        assert done.returncode == 5, said
        assert "wr0ng-pass" not in said


def test_reading_commands_create_nothing(filled: Project, replica_db: Database[Any]) -> None:
    for args in (["status"], ["plan"], ["history"], ["current"], ["verify"], ["lock"], ["doctor"]):
        assert filled.run(*args).returncode == 0
    assert replica_db.list_collection_names() == []


SLOW = """\
op.create_collection('users')
op.log('in the middle')
for number in range(600):
    op.db.users.insert_one({'n': number})
    time.sleep(0.05)
"""
SAFE = """\
op.create_collection('users')
for number in range(600):
    op.log(f'in the middle {number}')
    time.sleep(0.05)
"""


def _await_line(process: subprocess.Popen[str], words: str) -> str:
    """What the process said on stderr up to the line with the words."""
    assert process.stderr is not None
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, f"{words!r} was never said:\n{said}"
        said += line
    return said


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_safe_revision_ends_at_once_and_the_run_can_go_on(
    project: Project, replica_db: Database[Any], signum: int, code: int
) -> None:
    project.add("0001", SAFE)
    with start_cli("upgrade", cwd=project.folder) as process:
        _await_line(process, "in the middle 3")
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "0001 was interrupted" in err
    assert "Traceback" not in out + err
    assert project.json("lock")["lock"]["held"] is False
    record = replica_db["_migrations"].find_one({"_id": "0001"})
    assert record is not None
    assert record["state"] == "interrupted"
    project.add("0001", "op.create_collection('users')")
    assert project.run("upgrade").returncode == 0


def test_the_first_signal_lets_an_unsafe_revision_finish_and_the_second_ends_it(
    project: Project, replica_db: Database[Any]
) -> None:
    project.add("0001", SLOW)
    with start_cli("upgrade", cwd=project.folder) as process:
        _await_line(process, "in the middle")
        wait_until(replica_db["users"].find_one, "the first document")
        process.send_signal(signal.SIGINT)
        said = _await_line(process, "again")
        assert "0001" in said
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert project.json("lock")["lock"]["held"] is False
    blocked = project.run("upgrade")
    assert blocked.returncode == 4
    assert "mongover resolve 0001" in blocked.stderr


def test_a_reader_that_goes_away_does_not_stop_a_run(filled: Project) -> None:
    with start_cli("upgrade", cwd=filled.folder) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        assert process.wait(timeout=30) == 0
    assert filled.run("status", "--check").returncode == 0


def test_who_waits_for_the_lock_says_for_whom_and_gives_up_with_exit_3(project: Project) -> None:
    project.add("0001", SAFE)
    with start_cli("upgrade", cwd=project.folder) as holder:
        _await_line(holder, "in the middle")
        late = project.run("upgrade", "--lock-wait", "1")
        assert late.returncode == 3
        assert "waiting for the lock" in late.stderr
        assert f"pid {holder.pid}" in late.stderr
        assert "error[MGV050]" in late.stderr
        assert "locked by" in project.run("lock").stdout
        assert "locked by" in project.run("status").stdout

        with start_cli("upgrade", "--lock-wait", "60", cwd=project.folder) as waiting:
            _await_line(waiting, "waiting for the lock")
            waiting.send_signal(signal.SIGINT)
            _, err = waiting.communicate(timeout=60)
        assert waiting.returncode == 130
        assert "nothing was run." in err
        holder.send_signal(signal.SIGTERM)
        holder.communicate(timeout=60)


def test_ctrl_c_while_the_server_is_looked_for_ends_at_once(tmp_path: Path) -> None:
    project = Project(tmp_path, f"mongodb://127.0.0.1:{free_port()}/", "shop")
    project.add("0001", "op.log('x')")
    code = (
        "import os, signal, threading, time\n"
        "def interrupt():\n"
        "    while not any('pymongo' in one.name for one in threading.enumerate()):\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "from mongover.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "upgrade", "--connect-timeout", "50"],
        cwd=tmp_path,
        env=cli_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 130
    assert "nothing was run." in done.stderr


def test_the_embedded_server_runs_in_the_foreground_and_others_attach(tmp_path: Path) -> None:
    assert run_cli("init", cwd=tmp_path).returncode == 0
    written = run_cli("revision", "-m", "create users", "--schema", "users", cwd=tmp_path)
    assert written.stdout == "wrote versions/0001_create_users.py\n"
    with start_cli("mongod", "--json", cwd=tmp_path) as server:
        _await_line(server, "Ctrl-C stops it")
        done = run_cli("upgrade", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "embedded:.mongover/db: 1 revision to apply" in done.stderr
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=30)
    assert server.returncode == 0
    assert json.loads(out)["url"].startswith("mongodb://")
    assert "stopped; the data stays" in err
    # Without a running one, each command starts its own and stops it.
    assert run_cli("status", "--check", cwd=tmp_path).returncode == 0


def test_a_terminal_shows_colours_and_a_moving_line(project: Project) -> None:
    project.add("0001", "op.create_collection('users')\ntime.sleep(3)", message="[red]x[/red]")
    said = _in_terminal(project.folder, "upgrade")
    assert "\x1b[1m0001\x1b[0m [red]x[/red] (users)" in said
    assert "running for" in said
    assert "\x1b[32m✓\x1b[0m 1 revision applied" in said
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h")


def test_no_color_leaves_a_terminal_without_colours(project: Project) -> None:
    project.add("0001", "op.create_collection('users')")
    for env, args in (({"NO_COLOR": "1"}, ()), ({}, ("--no-color",))):
        said = _in_terminal(project.folder, "upgrade", *args, env=env)
        assert "\x1b[3" not in said
        assert "\x1b[1m" not in said


def _in_terminal(folder: Path, *args: str, env: dict[str, str] | None = None) -> str:
    """What the command writes on a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    environ = cli_environment({"TERM": "xterm", "COLUMNS": "100", **(env or {})})
    environ = {name: value for name, value in environ.items() if name != "NO_COLOR" or env}
    with subprocess.Popen(
        [sys.executable, "-m", "mongover", *args],
        cwd=folder,
        env={**environ, "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        chunks = []
        while select.select([ours], [], [], 30)[0]:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # the other side was closed
                break
            if not chunk:
                break
            chunks.append(chunk)
        os.close(ours)
    assert process.returncode == 0
    return b"".join(chunks).decode()
