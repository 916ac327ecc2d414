"""One signal to a whole group of processes, as a terminal and a supervisor send it, is one stop."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.data.test_data_resume import COUNT_UP, children_of, counts, fill, project, walked
from tests.support.servers import start_cli, wait_until

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from pymongo.database import Database

    from tests.support.servers import Server

    Db = Database[dict[str, Any]]

SLOW = "workers=3, batch_size=50, pause=0.05"


def error_of(db: Db) -> dict[str, Any]:
    record = db["_migrations"].find_one({"_id": "0001"}) or {}
    return {"state": record.get("state"), **(record.get("error") or {})}


def finishes(folder: Path) -> None:
    with start_cli("upgrade", cwd=folder) as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


def stopped(process: subprocess.Popen[str], signum: int) -> str:
    os.killpg(process.pid, signum)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signum, said
    assert "Traceback" not in said
    assert "BrokenProcessPool" not in said
    return said


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_while_workers_start_is_a_stop(
    tmp_path: Path, replica_set: Server, replica_db: Db, signum: int
) -> None:
    fill(replica_db, 2000)
    folder = project(tmp_path, replica_set, replica_db, COUNT_UP.format(options=SLOW))
    for _ in range(3):
        with start_cli("upgrade", cwd=folder) as process:
            wait_until(lambda: children(process), "the first worker")
            time.sleep(random.uniform(0.0, 0.5))
            stopped(process, signum)
        assert error_of(replica_db)["state"] == "interrupted"
        assert error_of(replica_db)["type"] == "Interrupted"
    finishes(folder)
    assert counts(replica_db) == {1: 2000}


def children(process: subprocess.Popen[str]) -> list[int]:
    try:
        return children_of(process.pid)
    except Exception:  # noqa: BLE001 - pgrep ends with 1 where there are none
        return []


def test_a_signal_that_kills_working_workers_is_a_stop_and_every_document_is_done_once(
    tmp_path: Path, replica_set: Server, replica_db: Db
) -> None:
    fill(replica_db, 2000)
    folder = project(tmp_path, replica_set, replica_db, COUNT_UP.format(options=SLOW))
    with start_cli("upgrade", cwd=folder) as process:
        wait_until(lambda: walked(replica_db) > 300, "some progress")
        stopped(process, signal.SIGTERM)
    assert error_of(replica_db)["state"] == "interrupted"
    finishes(folder)
    assert counts(replica_db) == {1: 2000}


def test_on_a_standalone_what_cannot_be_done_twice_is_blocked_when_its_workers_were_killed(
    tmp_path: Path, standalone: Server, standalone_db: Db
) -> None:
    fill(standalone_db, 4000)
    options = f"{SLOW}, idempotent=False"
    folder = project(tmp_path, standalone, standalone_db, COUNT_UP.format(options=options))
    with start_cli("upgrade", cwd=folder) as process:
        wait_until(lambda: walked(standalone_db) > 300, "some progress")
        stopped(process, signal.SIGTERM)
    with start_cli("upgrade", cwd=folder) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 4, said
    assert "MGV042" in said


def test_a_worker_that_dies_without_a_stop_is_a_failure_that_says_where_to_look(
    tmp_path: Path, replica_set: Server, replica_db: Db
) -> None:
    fill(replica_db, 2000)
    folder = project(tmp_path, replica_set, replica_db, COUNT_UP.format(options=SLOW))
    with start_cli("upgrade", cwd=folder) as process:
        wait_until(lambda: walked(replica_db) > 300, "some progress")
        os.kill(children_of(process.pid)[-1], signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert "a worker ended before its work was done" in said
    assert "killed process (memory?)" in said
    assert error_of(replica_db)["state"] == "failed"
