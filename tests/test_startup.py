"""Migrations at the start of a program, a FastAPI application and eight servers at once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from mongover.database.command_watch import CommandWatch
from mongover.errors import (
    Ahead,
    Interrupted,
    PendingRevisions,
    RevisionFailed,
    Unreachable,
    UsageError,
)
from mongover.migrator import Migrator
from mongover.startup import Startup, ensure_head, lifespan
from mongover.web import migrations_router, models
from tests.support.servers import cli_environment, wait_until
from tests.support.web_support import (
    await_address,
    client_of,
    config_for,
    gate_of,
    run_process,
    seconds_of,
    write_revision,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from mongover.config.config import Config
    from tests.support.servers import Server


@pytest.fixture
def config(replica_set: Server, mongo_database: Callable[..., str]) -> Config:
    return config_for(replica_set, mongo_database(replica_set))


@pytest.fixture
def make(
    tmp_path: Path, replica_set: Server, mongo_database: Callable[..., str]
) -> Callable[..., Config]:
    """Call it for a project with an empty folder of revisions."""
    folder = tmp_path / "versions"
    folder.mkdir()

    def config(**keys: Any) -> Config:
        return config_for(replica_set, mongo_database(replica_set), folder, **keys)

    return config


def applied(config: Config) -> list[str]:
    with Migrator(config) as migrator:
        return [record.revision for record in migrator.history() if record.counts_as_applied]


def health_of(app: FastAPI, config: Config) -> Any:
    app.include_router(migrations_router(config, environ={}))


# ------------------------------------------------------------------------------- the policies


def test_upgrade_brings_an_empty_database_to_head_and_then_has_nothing_to_do(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mongover"):
        first = ensure_head(config)
    assert (first.state, first.ready, first.error) == ("done", True, None)
    assert first.result is not None
    assert len(first.result.revisions) == 5
    assert {record.name for record in caplog.records} == {"mongover.run", "mongover.startup"}
    second = ensure_head(config)
    assert second.result is not None
    assert second.result.revisions == ()
    assert second.to_json() == {"policy": "upgrade", "state": "done", "code": None}


def test_a_configuration_file_and_its_keys_will_do(
    tmp_path: Path, make: Callable[..., Config]
) -> None:
    config = make()
    write_revision(config.versions, "0001")
    (tmp_path / "alembic-style.ini").write_text(f"[mongover]\nurl = {config.url.reveal()}\n")
    found = ensure_head(tmp_path / "alembic-style.ini", database=config.database, environ={})
    assert found.state == "done"
    assert applied(config) == ["0001"]


def test_check_raises_or_logs_what_is_pending_and_writes_nothing(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    found = ensure_head(config, policy="check")
    assert found.state == "pending"
    assert "lacks 5 revisions: 0001, 0002, 0003, 0004, 0005" in caplog.text
    with pytest.raises(PendingRevisions, match="lacks 5 revisions"):
        ensure_head(config, policy="check", on_error="raise")
    with Migrator(config) as migrator, migrator._database() as store:
        assert store.server.database.list_collection_names() == []
    ensure_head(config)
    assert ensure_head(config, policy="check").state == "done"


def test_many_pending_revisions_are_not_all_listed(make: Callable[..., Config]) -> None:
    config = make()
    for number in range(1, 9):
        parent = f"{number - 1:04}" if number > 1 else None
        write_revision(config.versions, f"{number:04}", parent=parent)
    with pytest.raises(PendingRevisions, match="0001, 0002, 0003, 0004, 0005 and 3 more"):
        ensure_head(config, policy="check", on_error="raise")


def test_off_does_not_even_look_at_the_configuration(tmp_path: Path) -> None:
    found = ensure_head(tmp_path / "missing.ini", policy="off", on_error="raise")
    assert (found.state, found.ready) == ("off", True)


def test_wait_returns_when_another_process_has_migrated(config: Config) -> None:
    found = ensure_head(config, policy="wait", blocking=False, timeout=60)
    assert not found.wait(0.3)
    with Migrator(config) as other:
        other.upgrade()
    assert found.wait(30)
    assert found.state == "done"


def test_wait_gives_up_after_its_time(config: Config) -> None:
    took, found = seconds_of(lambda: ensure_head(config, policy="wait", timeout=0.4))
    assert found.state == "pending"
    assert 0.4 <= took < 60


def test_wait_takes_its_time_from_the_configured_wait_for_the_lock(
    make: Callable[..., Config],
) -> None:
    config = make(lock_wait=0.2)
    write_revision(config.versions, "0001")
    took, found = seconds_of(lambda: ensure_head(config, policy="wait"))
    assert found.state == "pending"
    assert 0.2 <= took < 60


def test_wait_outlasts_a_server_that_is_not_there_and_then_says_so(
    make: Callable[..., Config],
) -> None:
    config = make(connect_timeout=0.1)
    away = config_for(
        type("Away", (), {"url": "mongodb://127.0.0.1:1/"})(),
        config.database,
        config.versions,
        connect_timeout=0.1,
    )
    with pytest.raises(Unreachable):
        ensure_head(away, policy="wait", timeout=0.5, on_error="raise")


def test_a_wait_can_be_stopped(config: Config) -> None:
    found = ensure_head(config, policy="wait", blocking=False, timeout=60)
    found.stop()
    assert found.wait(30)
    assert isinstance(found.error, Interrupted)


@pytest.mark.parametrize(("name", "value"), [("policy", "update"), ("on_error", "ignore")])
def test_a_word_that_there_is_not_is_refused_at_once(config: Config, name: str, value: str) -> None:
    wrong: Any = {name: value}
    with pytest.raises(UsageError, match=f"{name} is '{value}'"):
        ensure_head(config, **wrong)
    with pytest.raises(UsageError):
        lifespan(config, **wrong)


# ------------------------------------------------------------------------------ what goes wrong


def test_a_failing_revision_is_logged_in_full_and_the_program_goes_on(
    make: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    config = make()
    write_revision(config.versions, "0001")
    write_revision(config.versions, "0002", parent="0001", up="raise ValueError('no such luck')")
    found = ensure_head(config)
    assert found.state == "failed"
    assert isinstance(found.error, RevisionFailed)
    assert found.to_json()["code"] == "MGV020"
    for part in ("no such luck", "0002_step.py", "MGV020", "trace of ValueError"):
        assert part in caplog.text
    with pytest.raises(RevisionFailed):
        ensure_head(config, on_error="raise")


def test_no_password_is_logged_when_the_server_is_away(
    make: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    config = make()
    write_revision(config.versions, "0001")
    away = config_for(
        type("Away", (), {"url": "mongodb://ana:geheim99@127.0.0.1:1/?authSource=admin"})(),
        config.database,
        config.versions,
        connect_timeout=0.1,
    )
    with caplog.at_level(logging.DEBUG, "mongover"):
        assert ensure_head(away).state == "failed"
    assert "MGV061" in caplog.text
    assert "geheim99" not in caplog.text


def test_a_wrong_configuration_is_logged_and_the_program_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert ensure_head(tmp_path / "missing.ini", environ={}).state == "failed"
    assert "missing.ini" in caplog.text


def test_an_odd_variable_is_a_warning(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "alembic-style.ini").write_text("[mongover]\n")
    environ = {"MONGOVER_URL": config.url.reveal(), "MONGOVER_DATABSE": "x"}
    write_revision(tmp_path / "versions", "0001")
    found = ensure_head(tmp_path / "alembic-style.ini", environ=environ, database=config.database)
    assert found.state == "done"
    assert "MONGOVER_DATABSE" in caplog.text


def test_a_bug_is_kept_and_logged_like_any_failure(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Migrator:
        raise KeyError("unforeseen")

    found = Startup("upgrade", fail)
    found.run()
    assert found.state == "failed"
    assert found.to_json()["code"] == "MGV000"
    assert "unforeseen" in caplog.text


def test_what_is_no_exception_ends_the_start_as_failed_and_passes_on() -> None:
    def leave() -> Migrator:
        raise SystemExit(3)

    found = Startup("upgrade", leave)
    with pytest.raises(SystemExit):
        found.run()
    assert (found.state, found.ready) == ("failed", True)


def test_a_database_of_a_newer_release_is_a_warning_and_the_program_starts(
    make: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    config = make()
    write_revision(config.versions, "0001")
    newer = write_revision(config.versions, "0002", parent="0001")
    ensure_head(config)
    newer.unlink()
    caplog.clear()
    for policy in ("upgrade", "check", "wait"):
        found = ensure_head(config, policy=policy, on_error="raise")
        assert found.state == "ahead"
        assert isinstance(found.error, Ahead)
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert "newer than every file" in caplog.text


def test_warnings_of_a_lenient_project_are_logged(
    make: Callable[..., Config], replica_set: Server, caplog: pytest.LogCaptureFixture
) -> None:
    config = make(strict=False)
    write_revision(config.versions, "0001", up='op.create_index("users", "email", unique=True)')
    with replica_set.client() as mongo:
        mongo[config.database].users.insert_many([{"email": "a"}, {"email": "a"}])
    assert ensure_head(config).state == "done"
    assert [record.name for record in caplog.records if record.levelname == "WARNING"]


def test_the_applications_logging_is_left_as_it_is(config: Config) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    ensure_head(config)
    assert (root.level, list(root.handlers)) == before
    for name in ("mongover", "mongover.startup", "mongover.run", "mongover.web"):
        logger = logging.getLogger(name)
        assert (logger.handlers, logger.level, logger.propagate) == ([], logging.NOTSET, True)


# ----------------------------------------------------------------------------------- the costs


def test_with_nothing_pending_a_start_is_one_read_and_no_write(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_head(config)
    commands: list[str] = []

    class Counting(CommandWatch):
        def started(self, event: Any) -> None:
            commands.append(event.command_name)

    monkeypatch.setattr("mongover.database.server.CommandWatch", Counting)
    assert ensure_head(config).state == "done"
    wait_until(lambda: not closing(), "the end of the connection")
    assert [name for name in commands if name != "endSessions"] == ["find"]


def closing() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mongover-close"]


def test_importing_the_module_does_not_load_the_driver() -> None:
    code = "import sys, mongover.startup; print('pymongo' in sys.modules, 'fastapi' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=cli_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]


# -------------------------------------------------------------------------- FastAPI, Starlette


def test_a_fastapi_application_migrates_before_it_serves_and_never_holds_its_loop(
    make: Callable[..., Config],
) -> None:
    config = make()
    name = uuid.uuid4().hex
    write_revision(config.versions, "0001", up=f"gate_of({name!r}).wait()")
    ticks: list[float] = []

    async def main() -> None:
        async def tick() -> None:
            while True:
                ticks.append(time.monotonic())
                if len(ticks) > 20:
                    gate_of(name).opened.set()
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        app = FastAPI(lifespan=lifespan(config))
        async with app.router.lifespan_context(app):
            assert app.state.mongover_startup.state == "done"
        ticking.cancel()

    asyncio.run(main())
    assert applied(config) == ["0001"]
    assert len(ticks) > 20


def test_the_applications_own_lifespan_follows_and_its_state_is_kept(config: Config) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def own(app: Starlette) -> AsyncIterator[dict[str, int]]:
        told.append(app.state.mongover_startup.state)
        yield {"answer": 42}
        told.append("ended")

    app = Starlette(lifespan=lifespan(config, inner=own))
    with client_of(app) as client:  # type: ignore[arg-type]  # any application will do
        assert client.app_state["answer"] == 42
    assert told == ["done", "ended"]


def test_a_failed_start_lets_the_application_start_and_health_says_so(
    make: Callable[..., Config],
) -> None:
    config = make()
    write_revision(config.versions, "0001", up="raise ValueError('no')")
    app = FastAPI(lifespan=lifespan(config))
    health_of(app, config)
    with client_of(app) as client:
        found = client.get("/migrations/health")
        models.MigrationHealth.model_validate(found.json())
        assert found.status_code == 503
        assert found.json()["startup"] == {
            "policy": "upgrade",
            "state": "failed",
            "code": "MGV020",
        }
        write_revision(config.versions, "0001")
        with Migrator(config) as other:
            other.upgrade()
        assert client.get("/migrations/health").status_code == 200


def test_a_failed_start_ends_the_application_when_that_is_asked_for(
    make: Callable[..., Config],
) -> None:
    config = make()
    write_revision(config.versions, "0001", up="raise ValueError('no')")
    app = FastAPI(lifespan=lifespan(config, on_error="raise"))
    with pytest.raises(RevisionFailed), client_of(app):
        pass


def test_in_the_background_the_application_starts_at_once_and_is_not_ready_until_done(
    make: Callable[..., Config],
) -> None:
    config, name = make(), uuid.uuid4().hex
    write_revision(config.versions, "0001", up=f"gate_of({name!r}).wait()")
    app = FastAPI(lifespan=lifespan(config, blocking=False))
    health_of(app, config)
    with client_of(app) as client:
        assert gate_of(name).reached.wait(30)
        found = client.get("/migrations/health")
        assert found.status_code == 503
        assert found.json()["startup"]["state"] == "starting"
        gate_of(name).opened.set()
        assert app.state.mongover_startup.wait(30)
        assert client.get("/migrations/health").status_code == 200


def test_the_end_of_the_application_stops_a_start_in_the_background(
    make: Callable[..., Config],
) -> None:
    config, name = make(), uuid.uuid4().hex
    write_revision(config.versions, "0001", up=f"gate_of({name!r}).wait()")
    write_revision(config.versions, "0002", parent="0001")
    app = FastAPI(lifespan=lifespan(config, blocking=False))
    with client_of(app):
        assert gate_of(name).reached.wait(30)
        threading.Timer(0.1, gate_of(name).opened.set).start()
    assert isinstance(app.state.mongover_startup.error, Interrupted)
    assert "0002" not in applied(config)


def test_a_start_made_by_hand_is_shown_by_the_health_when_it_is_given(config: Config) -> None:
    startup = ensure_head(config)
    app = FastAPI()
    app.include_router(migrations_router(config, startup=startup, environ={}))
    with client_of(app) as client:
        assert client.get("/migrations/health").json()["startup"]["state"] == "done"


# ------------------------------------------------------------------------------ real processes

SERVER = """
from fastapi import FastAPI
from mongover.startup import lifespan
from mongover.web import migrations_router

app = FastAPI(lifespan=lifespan("alembic-style.ini"))
app.include_router(migrations_router("alembic-style.ini"))
"""


def write_project(folder: Path, config: Config) -> None:
    (folder / "alembic-style.ini").write_text(
        f"[mongover]\nurl = {config.url.reveal()}\ndatabase = {config.database}\n"
    )


def test_eight_servers_that_start_together_apply_each_revision_once(
    tmp_path: Path, make: Callable[..., Config]
) -> None:
    config = make()
    for number in range(1, 6):
        parent = f"{number - 1:04}" if number > 1 else None
        up = (
            f'import time; time.sleep(0.2); op.db["marks"].update_one('
            f'{{"_id": {number}}}, {{"$inc": {{"times": 1}}}}, upsert=True)'
        )
        write_revision(config.versions, f"{number:04}", parent=parent, up=up)
    write_project(tmp_path, config)
    (tmp_path / "shop.py").write_text(SERVER)
    words = ["-m", "uvicorn", "shop:app", "--port", "0", "--app-dir", str(tmp_path)]
    began = time.monotonic()
    with ExitStack() as stack:
        servers = [
            stack.enter_context(run_process(words, tmp_path / f"log{number}", cwd=tmp_path, env={}))
            for number in range(8)
        ]
        for served in servers:
            await_address(served)
        took = time.monotonic() - began
        assert all(served.get("/migrations/health").status_code == 200 for served in servers)
        for served in servers:
            served.process.send_signal(signal.SIGTERM)
        for served in servers:
            served.process.wait(30)
    with Migrator(config) as migrator:
        records = migrator.history()
        assert [record.attempt for record in records] == [1] * 5
        assert len({record.run for record in records}) == 1
        with migrator._database() as store:
            marks = [mark["times"] for mark in store.server.database["marks"].find()]
    assert marks == [1] * 5
    # Eight interpreters on two cores need most of this; the migrations themselves one second.
    assert took < 60


PROGRAM = """
import logging, sys
from mongover.startup import ensure_head

logging.basicConfig(level=logging.INFO, stream=sys.stdout)
ensure_head("alembic-style.ini")
print("the program goes on", flush=True)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -15), (signal.SIGINT, -2)])
def test_a_signal_during_a_start_lets_the_revision_end_and_then_ends_the_program(
    tmp_path: Path, make: Callable[..., Config], number: int, code: int
) -> None:
    """Without this the lock would stay held and an open transaction would block the application."""
    config = make()
    mark = tmp_path / "reached"
    write_revision(
        config.versions,
        "0001",
        up=f"op.db['x'].insert_one({{}}); open({str(mark)!r}, 'w').close(); "
        "__import__('time').sleep(1)",
    )
    write_revision(config.versions, "0002", parent="0001")
    write_project(tmp_path, config)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=cli_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        wait_until(mark.exists, "the first revision")
        os.kill(process.pid, number)
        assert process.wait(60) == code
        assert process.stdout is not None
        assert "the program goes on" not in process.stdout.read()
    with Migrator(config) as migrator:
        states = {record.revision: str(record.state) for record in migrator.history()}
        state = migrator.lock()
    assert states == {"0001": "applied"}
    assert state is not None
    assert not state.held
