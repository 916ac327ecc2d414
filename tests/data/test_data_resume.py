"""Long operations of real processes: killed, stopped, paused, watched, and gone on with."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import chdir, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

import pytest

from mongover.cli.app import run as run_command
from mongover.errors import OperationFailed
from mongover.migrator import Migrator
from mongover.operations.bulk import server_side
from mongover.operations.bulk.checkpoints import Halted
from mongover.running import events
from mongover.running.stop import StopNow
from tests.support.crashing import heard
from tests.support.depth import deep
from tests.support.servers import start_cli, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from pymongo.database import Database

    from tests.support.servers import Server

    Db = Database[dict[str, Any]]

DOCUMENTS = int(os.environ.get("MONGOVER_TEST_DOCUMENTS", "20000"))  # 200,000 in the full variant
KILLS = int(os.environ.get("MONGOVER_TEST_KILLS", "5"))
AT_A_DESK = (4_000, 2)
HEADER = '"""count"""\n\nrevision = "0001"\ndown_revision = None\nschema = "a"\n\n\n'
COUNT_UP = """
def count_up(document):
    document["n"] += 1  # a second call for a written document would show
    return document


def upgrade(op):
    op.transform("a", count_up, {options})
"""


def project(folder: Path, server: Server, db: Db, body: str, *, lease: float = 1.0) -> Path:
    """A folder with one revision and the configuration for it."""
    versions = folder / "versions"
    versions.mkdir(exist_ok=True)
    (versions / "0001_count.py").write_text(HEADER + body)
    lines = ["[mongover]", f"url = {server.url}", f"database = {db.name}", f"lease = {lease}"]
    (folder / "alembic-style.ini").write_text("\n".join(lines) + "\n")
    return folder


def fill(db: Db, count: int) -> None:
    db["a"].insert_many([{"_id": key, "n": 0, "text": "x" * 50} for key in range(count)])


def counts(db: Db) -> dict[int, int]:
    found = db["a"].aggregate([{"$group": {"_id": "$n", "count": {"$sum": 1}}}])
    return {row["_id"]: row["count"] for row in found}


def state(db: Db) -> str | None:
    record = db["_migrations"].find_one({"_id": "0001"})
    return None if record is None else str(record["state"])


def walked(db: Db) -> int:
    spans = db["_migrations_checkpoints"].find({"kind": "span"})
    return sum(span["walked"] for span in spans)


def kill_group(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("group", ["whole group", deep("parent alone")])
@pytest.mark.parametrize(("documents", "attempts"), [AT_A_DESK, deep(DOCUMENTS, KILLS)])
def test_killed_at_random_points_every_document_is_transformed_exactly_once(
    tmp_path: Path, replica_set: Server, replica_db: Db, group: str, documents: int, attempts: int
) -> None:
    fill(replica_db, documents)
    options = f"workers=2, batch_size={max(50, documents // 200)}, pause=0.02"
    folder = project(tmp_path, replica_set, replica_db, COUNT_UP.format(options=options))
    rng, kills = random.Random(os.urandom(8)), 0
    for attempt in range(attempts + 2):
        with start_cli("upgrade", cwd=folder) as process:
            if attempt < attempts:
                goal = walked(replica_db) + rng.randrange(documents // attempts)
                wait_until(
                    lambda: process.poll() is not None or walked(replica_db) > goal,  # noqa: B023 - called here
                    "some progress",
                )
            if attempt < attempts and process.poll() is None:
                kills += 1
                if group == "whole group":
                    kill_group(process)
                else:
                    process.kill()  # its workers live on for a moment, as orphans
            _, said = process.communicate(timeout=120)
        if state(replica_db) == "applied":
            break
        assert attempt < attempts, said
    assert kills >= 1
    assert counts(replica_db) == {1: documents}
    assert replica_db["_migrations_checkpoints"].count_documents({}) == 0


def test_a_standalone_repeats_at_most_one_batch_per_worker_after_a_kill(
    tmp_path: Path, standalone: Server, standalone_db: Db
) -> None:
    fill(standalone_db, 4000)
    options = "workers=2, batch_size=100, pause=0.05"
    folder = project(tmp_path, standalone, standalone_db, COUNT_UP.format(options=options))
    with start_cli("upgrade", cwd=folder) as process:
        wait_until(lambda: walked(standalone_db) > 500, "some progress")
        kill_group(process)
    _, said = upgraded(folder)
    assert state(standalone_db) == "applied", said
    found = counts(standalone_db)
    assert found.keys() <= {1, 2}
    assert found.get(2, 0) <= 2 * 100
    assert sum(found.values()) == 4000


def test_a_standalone_blocks_after_a_kill_what_may_not_be_repeated(
    tmp_path: Path, standalone: Server, standalone_db: Db
) -> None:
    fill(standalone_db, 4000)
    options = "batch_size=100, pause=0.05, idempotent=False"
    folder = project(tmp_path, standalone, standalone_db, COUNT_UP.format(options=options))
    with start_cli("upgrade", cwd=folder) as process:
        wait_until(lambda: walked(standalone_db) > 500, "some progress")
        kill_group(process)
    code, said = upgraded(folder)
    assert code == 4, said
    _, said = upgraded(folder, "--retry")
    assert state(standalone_db) == "applied", said
    assert sum(counts(standalone_db).values()) == 4000


@pytest.mark.parametrize("workers", [1, deep(2)])
def test_ctrl_c_stops_between_two_batches_and_the_next_run_goes_on(
    tmp_path: Path, any_server: Server, any_db: Db, workers: int
) -> None:
    fill(any_db, 4000)
    options = f"workers={workers}, batch_size=100, pause=0.05"
    folder = project(tmp_path, any_server, any_db, COUNT_UP.format(options=options))
    with start_cli("upgrade", cwd=folder) as process:
        wait_until(lambda: walked(any_db) > 300, "some progress")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    done = walked(any_db)
    assert counts(any_db) == {0: 4000 - done, 1: done}
    assert state(any_db) == "interrupted"
    code, said = upgraded(folder)
    assert code == 0, said
    assert counts(any_db) == {1: 4000}


def upgraded(folder: Path, *args: str) -> tuple[int, str]:
    """Run the upgrade to its end; its exit code and what it said."""
    said = io.StringIO()
    with chdir(folder), redirect_stderr(said), redirect_stdout(io.StringIO()):
        code = run_command(["upgrade", *args])
    return code, said.getvalue()


def stopped(folder: Path, db: Db, *, after: int = 300) -> str:
    """Run the upgrade and press Ctrl-C once after so many documents; what it said."""
    with start_cli("upgrade", cwd=folder) as process:
        wait_until(lambda: walked(db) > after, "some progress")
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    return said


ONCE = "batch_size=100, pause=0.05, idempotent=False"
IN_RANGES = """
from mongover.operations.bulk import server_side

server_side.SMALL = server_side.RANGE = 100  # ranges, as for many documents


def upgrade(op):
    op.update("a", {}, {"$inc": {"n": 1}}, pause=0.1)
"""


@pytest.mark.parametrize(
    "body",
    [
        COUNT_UP.format(options=ONCE),
        COUNT_UP.format(options=f"workers=2, {ONCE}"),
        IN_RANGES,
    ],
    ids=["transform", "transform by two workers", "update in ranges"],
)
def test_a_standalone_goes_on_after_one_ctrl_c_and_does_everything_exactly_once(
    tmp_path: Path, standalone: Server, standalone_db: Db, body: str
) -> None:
    fill(standalone_db, 4000)
    folder = project(tmp_path, standalone, standalone_db, body)
    said = stopped(folder, standalone_db)
    assert "`mongover upgrade` goes on from there" in said
    assert "resolve" not in said
    record = standalone_db["_migrations"].find_one({"_id": "0001"}) or {}
    assert (record["state"], record["repeatable"]) == ("interrupted", True)
    assert 0 < walked(standalone_db) < 4000
    code, said = upgraded(folder)
    assert code == 0, said
    assert counts(standalone_db) == {1: 4000}


@pytest.mark.deep
def test_a_standalone_may_be_stopped_again_and_again(
    tmp_path: Path, standalone: Server, standalone_db: Db
) -> None:
    fill(standalone_db, 4000)
    folder = project(tmp_path, standalone, standalone_db, COUNT_UP.format(options=ONCE))
    for after in (300, 1000, 1700):
        stopped(folder, standalone_db, after=after)
    assert upgraded(folder)[0] == 0
    assert counts(standalone_db) == {1: 4000}


@pytest.mark.deep
def test_what_was_done_in_ranges_before_the_stopped_operation_is_not_repeated(
    tmp_path: Path, standalone: Server, standalone_db: Db
) -> None:
    fill(standalone_db, 30_000)
    body = COUNT_UP.format(options="batch_size=1000, pause=0.1, idempotent=False")
    before = '    op.update("a", {}, {"$inc": {"n": 10}})\n'
    body = body.replace("    op.transform", f"{before}    op.transform")
    folder = project(tmp_path, standalone, standalone_db, body)
    stopped(folder, standalone_db, after=32_000)
    assert upgraded(folder)[0] == 0
    assert counts(standalone_db) == {11: 30_000}


def check_blocked(tmp_path: Path, server: Server, db: Db, act: str) -> None:
    """After that act, one Ctrl-C in the transform leaves what a person must resolve."""
    fill(db, 4000)
    body = COUNT_UP.format(options=ONCE).replace("    op.", f"    {act}\n    op.")
    folder = project(tmp_path, server, db, body)
    assert "mongover resolve 0001" in stopped(folder, db)
    assert upgraded(folder)[0] == 4


def test_one_ctrl_c_still_blocks_what_nothing_recorded(
    tmp_path: Path, standalone: Server, standalone_db: Db
) -> None:
    check_blocked(tmp_path, standalone, standalone_db, 'op.db["b"].insert_one({})')


@pytest.mark.parametrize(
    "act", ['op.insert("b", [{"n": 1}])', 'op.update("b", {}, {"$inc": {"n": 1}})']
)
def test_what_was_finished_before_a_ctrl_c_is_not_done_again(
    tmp_path: Path, standalone: Server, standalone_db: Db, act: str
) -> None:
    standalone_db["b"].insert_one({"n": 0})
    fill(standalone_db, 4000)
    body = COUNT_UP.format(options=ONCE).replace("    op.", f"    {act}\n    op.")
    folder = project(tmp_path, standalone, standalone_db, body)
    assert "`mongover upgrade` goes on" in stopped(folder, standalone_db)
    assert upgraded(folder)[0] == 0
    assert sum(each["n"] for each in standalone_db["b"].find()) == 1
    assert counts(standalone_db) == {1: 4000}


@pytest.mark.deep
def test_op_db_blocks_after_one_ctrl_c_on_a_replica_set_too(
    tmp_path: Path, replica_set: Server, replica_db: Db
) -> None:
    check_blocked(tmp_path, replica_set, replica_db, "op.db")


def test_a_second_ctrl_c_in_the_middle_of_a_batch_blocks_on_a_standalone(
    tmp_path: Path, standalone: Server, standalone_db: Db
) -> None:
    fill(standalone_db, 1000)
    wait = 'if document["_id"] == 350:\n        open("there", "w").close()\n        time.sleep(60)'
    body = COUNT_UP.format(options=ONCE).replace('document["n"]', f'{wait}\n    document["n"]', 1)
    folder = project(tmp_path, standalone, standalone_db, f"import time\n{body}")
    with start_cli("upgrade", cwd=folder) as process:
        wait_until((tmp_path / "there").exists, "the middle of a batch")
        process.send_signal(signal.SIGINT)
        assert "leaves it half done" in heard(process, "stopping after this batch")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "mongover resolve 0001" in said
    assert upgraded(folder)[0] == 4


@pytest.mark.deep
def test_a_kill_after_a_stop_that_could_be_gone_on_with_blocks_again(
    tmp_path: Path, standalone: Server, standalone_db: Db
) -> None:
    fill(standalone_db, 4000)
    folder = project(tmp_path, standalone, standalone_db, COUNT_UP.format(options=ONCE))
    stopped(folder, standalone_db)
    begun = walked(standalone_db)
    with start_cli("upgrade", cwd=folder) as process:
        wait_until(lambda: walked(standalone_db) > begun + 200, "more of it")
        kill_group(process)
    assert upgraded(folder)[0] == 4


@pytest.mark.deep
def test_code_that_goes_on_after_the_stop_blocks(
    tmp_path: Path, standalone: Server, standalone_db: Db
) -> None:
    fill(standalone_db, 4000)
    body = COUNT_UP.format(options=ONCE).replace("    op.", "    try:\n        op.")
    body += '    finally:\n        op.create_index("a", "n")\n'
    folder = project(tmp_path, standalone, standalone_db, body)
    stopped(folder, standalone_db)
    assert upgraded(folder)[0] == 4


def test_at_a_stop_a_worker_that_failed_is_what_ended_the_work() -> None:
    fine, told, bad, dropped = (Future[None]() for _ in range(4))
    fine.set_result(None)
    told.set_exception(Halted())
    dropped.cancel()
    dropped.set_running_or_notify_cancel()
    server_side.let_end([fine, told, dropped], StopNow())
    bad.set_exception(ValueError("half a batch"))
    with pytest.raises(ValueError, match="half a batch"):
        server_side.let_end([fine, told, bad], StopNow())
    server_side.let_end([bad], OSError("the first error is the one that is told"))


def test_a_paused_process_writes_nothing_after_another_took_over(
    tmp_path: Path, replica_set: Server, replica_db: Db
) -> None:
    fill(replica_db, 3000)
    folder = project(
        tmp_path, replica_set, replica_db, COUNT_UP.format(options="batch_size=100, pause=0.02")
    )
    with start_cli("upgrade", cwd=folder) as zombie:
        wait_until(lambda: walked(replica_db) > 300, "some progress")
        os.kill(zombie.pid, signal.SIGSTOP)
        with start_cli("upgrade", cwd=folder) as heir:
            _, said = heir.communicate(timeout=120)
        assert heir.returncode == 0, said
        os.kill(zombie.pid, signal.SIGCONT)
        zombie.communicate(timeout=60)
    assert zombie.returncode == 3
    assert counts(replica_db) == {1: 3000}
    assert state(replica_db) == "applied"


@pytest.mark.parametrize(("workers", "ranges"), [(1, 1), deep(2, 8)])
def test_progress_and_range_are_seen_from_another_process(
    tmp_path: Path, replica_set: Server, replica_db: Db, workers: int, ranges: int
) -> None:
    fill(replica_db, 20_000)
    options = f"batch_size=50, pause=0.05, workers={workers}"
    folder = project(tmp_path, replica_set, replica_db, COUNT_UP.format(options=options))

    def noted() -> dict[str, Any] | None:
        record = replica_db["_migrations"].find_one({"_id": "0001"}) or {}
        note: dict[str, Any] | None = record.get("checkpoint")
        return note if note and note["rate"] else None

    with start_cli("upgrade", cwd=folder) as process:
        first = wait_until(noted, "a note of the progress")
        wait_until(lambda: (noted() or first)["done"] > first["done"], "more of it")
        with Migrator.from_config(folder / "alembic-style.ini") as migrator:
            record = next(one for one in migrator.history() if one.revision == "0001")
        assert record.checkpoint["operation"] == "transform a by count_up"
        assert 0 < record.checkpoint["done"] < record.checkpoint["total"] == 20_000
        assert record.checkpoint["left"] > 0
        assert 0 <= record.checkpoint["ranges_done"] < record.checkpoint["ranges"] <= ranges
        assert (record.checkpoint["ranges"] > 1) == (workers > 1)
        reached = int(record.checkpoint["reached"])
        assert replica_db["a"].find_one({"_id": reached}) is not None
        kill_group(process)


def run_here(folder: Path, **options: Any) -> list[events.Event]:
    """Upgrade in this process; what it told."""
    told: list[events.Event] = []
    with Migrator.from_config(folder / "alembic-style.ini") as migrator:
        migrator.upgrade(listener=told.append, **options)
    return told


def test_a_mended_function_goes_on_where_the_broken_one_stopped(
    tmp_path: Path, replica_set: Server, replica_db: Db
) -> None:
    fill(replica_db, 1000)
    replica_db["a"].update_one({"_id": 700}, {"$set": {"n": None}})
    folder = project(tmp_path, replica_set, replica_db, COUNT_UP.format(options="batch_size=100"))
    with pytest.raises(OperationFailed, match="count_up failed on a document") as caught:
        run_here(folder)
    assert "0001_count.py:" in caught.value.message
    assert counts(replica_db)[1] == 700
    mended = COUNT_UP.replace('document["n"] += 1', 'document["n"] = (document["n"] or 0) + 1')
    project(tmp_path, replica_set, replica_db, mended.format(options="batch_size=100"))
    told = run_here(folder)
    assert counts(replica_db) == {1: 1000}
    progress = [event for event in told if isinstance(event, events.Progress)]
    assert progress[0].done > 700


def test_operations_before_a_failure_are_not_repeated_and_none_is_left_out(
    tmp_path: Path, replica_set: Server, replica_db: Db
) -> None:
    fill(replica_db, 300)
    body = """
def upgrade(op):
    op.update("a", {}, {"$inc": {"n": 1}})
    op.update("a", {}, {"$inc": {"n": 10}})
    FAIL
    op.update("a", {}, {"$inc": {"n": 100}})
"""
    folder = project(tmp_path, replica_set, replica_db, body.replace("FAIL", "1 / 0"))
    with pytest.raises(Exception, match="ZeroDivisionError"):
        run_here(folder)
    assert counts(replica_db) == {11: 300}
    project(tmp_path, replica_set, replica_db, body.replace("FAIL", "pass"))
    run_here(folder)
    assert counts(replica_db) == {111: 300}


def test_after_a_revert_everything_is_done_anew(
    tmp_path: Path, replica_set: Server, replica_db: Db
) -> None:
    fill(replica_db, 300)
    body = """
def upgrade(op):
    op.update("a", {}, {"$inc": {"n": 1}})


def downgrade(op):
    op.update("a", {}, {"$inc": {"n": -1}})
"""
    folder = project(tmp_path, replica_set, replica_db, body)
    for _ in range(2):
        run_here(folder)
        assert counts(replica_db) == {1: 300}
        with Migrator.from_config(folder / "alembic-style.ini") as migrator:
            migrator.downgrade("base")
        assert counts(replica_db) == {0: 300}


def test_an_executor_of_the_callers_own_carries_the_workers(
    tmp_path: Path, any_server: Server, any_db: Db
) -> None:
    fill(any_db, 2000)
    body = """
from concurrent.futures import Future, ThreadPoolExecutor


def count_up(document):
    document["n"] += 1
    return document


def upgrade(op):
    with ThreadPoolExecutor(3) as pool:
        op.transform("a", count_up, workers=3, executor=pool, batch_size=100)
"""
    run_here(project(tmp_path, any_server, any_db, body))
    assert counts(any_db) == {1: 2000}


@pytest.mark.deep
def test_a_dask_cluster_carries_the_workers(
    tmp_path: Path, replica_set: Server, replica_db: Db
) -> None:
    fill(replica_db, 2000)
    body = """
from distributed import Client, LocalCluster


def count_up(document):
    document["n"] += 1
    return document


def upgrade(op):
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            op.transform("a", count_up, workers=2, executor=client.get_executor())
"""
    folder = project(tmp_path, replica_set, replica_db, body)
    code, said = upgraded(folder)
    assert code == 0, said
    assert counts(replica_db) == {1: 2000}


def test_a_worker_that_is_killed_ends_the_run_and_the_next_one_goes_on(
    tmp_path: Path, replica_set: Server, replica_db: Db
) -> None:
    fill(replica_db, 4000)
    options = "workers=2, batch_size=50, pause=0.05"
    folder = project(tmp_path, replica_set, replica_db, COUNT_UP.format(options=options))
    with start_cli("upgrade", cwd=folder) as process:
        wait_until(lambda: walked(replica_db) > 300, "some progress")
        os.kill(children_of(process.pid)[-1], signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    code, said = upgraded(folder)
    assert code == 0, said
    assert counts(replica_db) == {1: 4000}


def children_of(pid: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-f", "-P", str(pid), "spawn_main"], capture_output=True, text=True, check=True
    )
    return [int(line) for line in found.stdout.split()]


def test_two_starters_at_once_transform_every_document_once(
    tmp_path: Path, replica_set: Server, replica_db: Db
) -> None:
    fill(replica_db, 1000)
    folder = project(
        tmp_path, replica_set, replica_db, COUNT_UP.format(options="batch_size=50, pause=0.01")
    )
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: run_here(folder), range(2)))
    assert counts(replica_db) == {1: 1000}


def test_progress_carries_rate_and_time_left(
    tmp_path: Path, any_server: Server, any_db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_side, "SMALL", 100)
    monkeypatch.setattr(server_side, "RANGE", 100)
    fill(any_db, 1000)
    body = '\ndef upgrade(op):\n    op.update("a", {}, {"$inc": {"n": 1}}, pause=0.3)\n'
    told = run_here(project(tmp_path, any_server, any_db, body))
    progress = [event for event in told if isinstance(event, events.Progress)]
    assert progress[-1].done == 1000
    assert progress[-1].left == 0
    assert all(event.rate is None or event.rate > 0 for event in progress)
    assert any(event.left for event in progress)
