"""Runs over HTTP: in the background, one at a time, watched, stopped, cut off."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import uuid
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette

from mongover.database.server import Server as MongoServer
from mongover.errors import Interrupted
from mongover.history.lease import Lease
from mongover.history.mongo import MongoHistory
from mongover.history.record import Direction
from mongover.migrator import Migrator
from mongover.operations.base import Advance, Place
from mongover.report.status import Running
from mongover.running import events
from mongover.web import models
from mongover.web.health import Health, health_document
from mongover.web.runs import KEPT, Order, Progress, Run, advance
from mongover.web.service import Options, Service
from tests.support.servers import Node, failpoint, wait_until
from tests.support.web_support import (
    READ_TOKEN,
    WRITE,
    client_of,
    config_for,
    gate_of,
    make_app,
    seconds_of,
    write_revision,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastapi.testclient import TestClient

    from mongover.config.config import Config
    from tests.support.servers import Server
    from tests.support.web_support import Gate


class Project:
    """A folder of revisions whose second one waits at a gate."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder = folder
        self.config = config
        self.name = uuid.uuid4().hex
        write_revision(folder, "0001")
        write_revision(folder, "0002", parent="0001", up=f"gate_of({self.name!r}).wait()")
        write_revision(folder, "0003", parent="0002")

    @property
    def gate(self) -> Gate:
        return gate_of(self.name)


@pytest.fixture
def project(
    tmp_path: Path, replica_set: Server, mongo_database: Callable[..., str]
) -> Iterator[Project]:
    folder = tmp_path / "versions"
    config = config_for(replica_set, mongo_database(replica_set), folder, lease=5.0)
    project = Project(folder, config)
    yield project
    project.gate.opened.set()


@pytest.fixture
def client(project: Project) -> Iterator[TestClient]:
    with client_of(make_app(project.config)) as client:
        yield client
        project.gate.opened.set()


def begin(client: TestClient, project: Project) -> str:
    """Start a run in the background and return its address once it waits at the gate."""
    accepted = client.post("/migrations/run", params={"wait": "false"}, headers=WRITE)
    assert accepted.status_code == 202, accepted.text
    models.MigrationRun.model_validate(accepted.json())
    assert project.gate.reached.wait(30)
    return str(accepted.headers["location"])


def end_of(client: TestClient, address: str) -> dict[str, Any]:
    """The run at the address once it is over."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(address).json()
        models.MigrationRun.model_validate(found)
        return found if found["endedAt"] else None

    found: dict[str, Any] = wait_until(look, "the end of the run")
    return found


def test_a_run_in_the_background_is_found_at_its_location_until_it_is_done(
    client: TestClient, project: Project
) -> None:
    address = begin(client, project)
    during = client.get(address).json()
    models.MigrationRun.model_validate(during)
    assert (during["state"], during["revisions"]) == ("running", ["0001"])
    assert during["progress"]["revision"] == "0002"
    assert (during["progress"]["position"], during["progress"]["total"]) == (2, 3)
    health = client.get("/migrations/health")
    assert health.status_code == 503
    models.MigrationHealth.model_validate(health.json())
    assert health.json()["status"] == "running"
    assert health.json()["running"]["revision"] == "0002"
    project.gate.opened.set()
    after = end_of(client, address)
    assert (after["state"], after["revisions"]) == ("succeeded", ["0001", "0002", "0003"])
    assert after["result"]["applied"] == ["0001", "0002", "0003"]
    assert after["result"]["run"] == after["id"]
    history = client.get("/migrations/history").json()["revisions"]
    assert {record["run"] for record in history} == {after["id"]}


def test_a_second_run_is_409_and_says_who_runs(client: TestClient, project: Project) -> None:
    begin(client, project)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("run", {}),
        ("run/users", {}),
        ("downgrade", {"json": {"target": "base"}}),
    ]
    for path, options in asked:
        refused = client.post(f"/migrations/{path}", headers=WRITE, **options)
        assert refused.status_code == 409
        assert refused.headers["retry-after"]
        found = refused.json()
        assert found["type"] == "urn:mongover:problem:lock-held"
        assert "upgrade head is going on in this process" in found["detail"]
        assert "wait_for_lock" in found["hint"]


def test_a_second_run_can_wait_for_the_first_and_then_has_nothing_to_do(
    client: TestClient, project: Project
) -> None:
    begin(client, project)
    answers: list[Any] = []

    def ask() -> None:
        query = {"wait_for_lock": "30"}
        answers.append(client.post("/migrations/run", params=query, headers=WRITE))

    thread = threading.Thread(target=ask)
    thread.start()
    project.gate.opened.set()
    thread.join()
    assert answers[0].status_code == 200
    assert answers[0].json()["applied"] == []


def test_a_second_run_that_waited_long_enough_is_409(client: TestClient, project: Project) -> None:
    begin(client, project)
    took, refused = seconds_of(
        lambda: client.post("/migrations/run", params={"wait_for_lock": "0.3"}, headers=WRITE)
    )
    assert refused.status_code == 409
    assert 0.3 <= took < 60


@contextmanager
def held_elsewhere(config: Config) -> Iterator[None]:
    """The lease in the hand of another holder."""
    with Migrator(config) as migrator, migrator._database() as store:
        assert isinstance(store.server, MongoServer)
        lease = Lease(
            store.server.records(config.lock_collection),
            holder={"host": "web-9", "pid": 412, "user": "ci", "command": "upgrade"},
            length=30,
            wait=0,
        )
        with store.server.client.start_session() as session:
            assert lease.acquire(session, lambda *_: True)
            yield
            lease.release()


def test_a_lock_of_another_process_is_409_with_its_holder_and_retry_after(
    client: TestClient, project: Project
) -> None:
    project.gate.opened.set()
    with held_elsewhere(project.config):
        took, refused = seconds_of(lambda: client.post("/migrations/run", headers=WRITE))
        assert refused.status_code == 409
        assert refused.headers["retry-after"] == "5"
        assert "ci@web-9 pid 412" in refused.json()["detail"]
        assert took < 25
        assert client.get("/migrations/lock").json()["lock"]["held"] is True
    assert client.post("/migrations/run", headers=WRITE).status_code == 200


def test_a_run_waits_for_the_lock_of_another_process_when_asked_to(
    client: TestClient, project: Project
) -> None:
    project.gate.opened.set()
    answers: list[Any] = []
    with held_elsewhere(project.config):
        query = {"wait_for_lock": "60"}
        thread = threading.Thread(
            target=lambda: answers.append(
                client.post("/migrations/run", params=query, headers=WRITE)
            )
        )
        thread.start()
        wait_until(lambda: client.get("/migrations/lock").json()["lock"]["held"], "the lock")
    thread.join()
    assert answers[0].json()["applied"] == ["0001", "0002", "0003"]


def test_a_run_of_another_process_is_known_from_the_history(
    client: TestClient, project: Project
) -> None:
    with Migrator(project.config) as other:
        thread = threading.Thread(target=other.upgrade, kwargs={"run": "another-run"})
        thread.start()
        assert project.gate.reached.wait(30)
        during = client.get("/migrations/runs/another-run").json()
        models.MigrationRun.model_validate(during)
        assert (during["state"], during["progress"]["revision"]) == ("running", "0002")
        health = client.get("/migrations/health").json()
        assert health["status"] == "running"
        assert health["running"]["revision"] == "0002"
        project.gate.opened.set()
        thread.join()
    after = client.get("/migrations/runs/another-run").json()
    assert (after["state"], after["revisions"]) == ("ended", ["0001", "0002", "0003"])


def test_a_failed_run_of_another_process_is_known_as_failed(
    client: TestClient, project: Project
) -> None:
    write_revision(project.folder, "0002", parent="0001", up="raise ValueError('no')")
    with Migrator(project.config) as other, pytest.raises(Exception, match="ValueError"):
        other.upgrade(run="another-run")
    found = client.get("/migrations/runs/another-run").json()
    assert (found["state"], found["revisions"]) == ("failed", ["0001"])


# ------------------------------------------------------------------------------------ events


def parse(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The events of a stream: name, data, id."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "event" in fields:
            yield fields["event"], json.loads(fields["data"]), fields["id"]
        fields = {}


def test_several_listeners_follow_one_run_from_its_beginning_to_its_end(
    client: TestClient, project: Project
) -> None:
    address = begin(client, project)
    run = address.rpartition("/")[2]
    heard: list[list[str]] = [[], [], []]

    def listen(into: list[str]) -> None:
        with client.stream("GET", "/migrations/events", params={"run": run}) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            into.extend(name for name, _, _ in parse(stream.iter_lines()))

    threads = [threading.Thread(target=listen, args=(into,)) for into in heard]
    for thread in threads:
        thread.start()
    project.gate.opened.set()
    for thread in threads:
        thread.join()
    assert heard[0] == heard[1] == heard[2]
    assert heard[0][0] == "State"
    assert heard[0][-1] == "RunEnded"
    assert heard[0].count("StepFinished") == 3


def test_a_stream_goes_on_after_the_last_event_that_was_seen(
    client: TestClient, project: Project
) -> None:
    project.gate.opened.set()
    accepted = client.post("/migrations/run", params={"wait": "false"}, headers=WRITE)
    run = accepted.json()["id"]
    end_of(client, accepted.headers["location"])
    with client.stream("GET", "/migrations/events", params={"run": run}) as stream:
        every = list(parse(stream.iter_lines()))
    middle = every[len(every) // 2]
    with client.stream(
        "GET", "/migrations/events", params={"run": run}, headers={"Last-Event-ID": middle[2]}
    ) as stream:
        rest = list(parse(stream.iter_lines()))
    assert [one[0] for one in rest[1:]] == [one[0] for one in every[len(every) // 2 + 1 :]]
    last = {"Last-Event-ID": every[-1][2]}
    with client.stream("GET", "/migrations/events", params={"run": run}, headers=last) as stream:
        assert [one[0] for one in parse(stream.iter_lines())] == ["State"]


def test_the_events_of_an_unknown_run_are_404(client: TestClient) -> None:
    assert client.get("/migrations/events", params={"run": "nobody"}).status_code == 404


def test_the_events_tell_of_a_failure_without_paths(client: TestClient, project: Project) -> None:
    write_revision(
        project.folder, "0002", parent="0001", up="raise ValueError('see /srv/secret/x.py')"
    )
    accepted = client.post("/migrations/run", params={"wait": "false"}, headers=WRITE)
    run = accepted.json()["id"]
    with client.stream("GET", "/migrations/events", params={"run": run}) as stream:
        found = {name: data for name, data, _ in parse(stream.iter_lines())}
    assert found["StepFailed"]["message"] == "see x.py"
    assert found["RunEnded"]["state"] == "failed"
    assert found["RunEnded"]["problem"]["status"] == 500
    history = client.get("/migrations/history").json()["revisions"]
    errors = {record["revision"]: record["error"] for record in history}
    assert errors["0002"]["message"] == "see x.py"


# --------------------------------------------------------- who goes away, who comes, what ends


def service_of(project: Project, **options: Any) -> Service:
    return Service(Migrator(project.config), Options(**options), None)


def test_no_more_streams_are_opened_than_allowed(project: Project) -> None:
    app = make_app(project.config)
    with client_of(app) as client:
        route = next(one for one in app.router.routes if hasattr(one, "original_router"))
        endpoint = next(
            one.endpoint for one in route.original_router.routes if one.path.endswith("/events")
        )
        service = endpoint.__self__._service
        object.__setattr__(service.options, "followers", 0)
        refused = client.get("/migrations/events")
        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:mongover:problem:too-many-listeners"


def test_whoever_waits_for_a_run_may_go_away_and_the_run_goes_on(project: Project) -> None:
    service = service_of(project)

    async def main() -> None:
        run = service.runs.start(Order(Direction.UP, "head", "a test"))
        waiting = asyncio.create_task(run.ended())
        await asyncio.to_thread(project.gate.reached.wait)
        waiting.cancel()
        project.gate.opened.set()
        await run.ended()
        await run.ended()  # of one that is over, at once
        assert run.state == "succeeded"
        await service.close(owned=True)

    asyncio.run(main())


def test_the_end_of_the_server_stops_a_run_at_the_next_safe_point_and_begins_no_other(
    project: Project,
) -> None:
    service = service_of(project)

    async def main() -> None:
        run = service.runs.start(Order(Direction.UP, "head", "a test"))
        waiter = service.runs.start(Order(Direction.UP, "head", "a test", lock_wait=60.0))
        await asyncio.to_thread(project.gate.reached.wait)
        service.stop()
        with pytest.raises(Interrupted):
            service.runs.start(Order(Direction.UP, "head", "a test"))
        project.gate.opened.set()
        await service.close(owned=True)
        assert (run.state, waiter.state) == ("stopped", "stopped")
        assert run.problem is not None
        assert (run.problem.status, run.problem.kind) == (503, "stopped")

    asyncio.run(main())
    with Migrator(project.config) as migrator:
        states = {record.revision: str(record.state) for record in migrator.history()}
        assert states["0001"] == "applied"
        assert "0003" not in states
        lock = migrator.lock()
        assert lock is not None
        assert not lock.held


def test_a_thread_that_cannot_be_started_leaves_the_way_free(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_of(project)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            service.runs.start(Order(Direction.UP, "head", "a test"))
    assert service.runs.active is None


def test_only_the_newest_runs_are_remembered(project: Project) -> None:
    project.gate.opened.set()
    service = service_of(project)
    first = service.runs.start(Order(Direction.UP, "head", "a test"))
    first.over.wait()
    for _ in range(KEPT):
        service.runs.start(Order(Direction.UP, "head", "a test")).over.wait()
    assert service.runs.get(first.id) is None
    service.runs.join()
    service.migrator.close()


def test_a_code_that_leaves_the_interpreter_is_a_failure_and_not_the_end(
    client: TestClient, project: Project
) -> None:
    write_revision(project.folder, "0002", parent="0001", up="raise SystemExit(0)")
    failed = client.post("/migrations/run", headers=WRITE)
    assert failed.status_code == 500
    assert failed.json()["code"] == "MGV020"


# -------------------------------------------------------------- the event loop, the load, faults


def test_the_event_loop_ticks_on_during_a_long_run_and_200_status_calls(project: Project) -> None:
    """A task that wakes every 10 ms must never be held up by pymongo."""
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    app = make_app(project.config)

    async def ask(client: Any) -> tuple[int, float]:
        began = time.monotonic()
        response = await client.get("/migrations/status")
        return response.status_code, time.monotonic() - began

    async def main() -> list[tuple[int, float]]:
        import httpx2

        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://a") as client,
        ):
            ticking = asyncio.create_task(tick())
            run = asyncio.create_task(client.post("/migrations/run", headers=WRITE))
            await asyncio.to_thread(project.gate.reached.wait)
            ticks.clear()
            answers = await asyncio.gather(*(ask(client) for _ in range(200)))
            project.gate.opened.set()
            assert (await run).status_code == 200
            ticking.cancel()
            return list(answers)

    answers = asyncio.run(main())
    assert {status for status, _ in answers} == {200}
    slowest = max(seconds for _, seconds in answers)
    pause = max(after - before for before, after in pairwise(ticks))
    logging.getLogger("tests").info("slowest of 200: %.3f s, longest pause %.3f s", slowest, pause)
    assert slowest < 60
    assert pause < 15  # a call of pymongo on the loop would hold it until the gate is opened


def test_a_database_that_goes_away_during_a_run_is_503_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The history tries for half a minute to reach its server again; a test need not.
    monkeypatch.setattr("mongover.history.store.MongoHistory", partial(MongoHistory, patience=1.0))
    node = Node().start()
    try:
        url = f"mongodb://{node.address}/?directConnection=true&heartbeatFrequencyMS=500"
        folder = tmp_path / "versions"
        config = config_for(
            type("Away", (), {"url": url})(), "shop", folder, connect_timeout=1.0, lease=2.0
        )
        project = Project(folder, config)
        with client_of(make_app(config)) as client:
            answers: list[Any] = []
            thread = threading.Thread(
                target=lambda: answers.append(client.post("/migrations/run", headers=WRITE))
            )
            thread.start()
            assert project.gate.reached.wait(30)
            node.kill()
            project.gate.opened.set()
            thread.join()
            assert answers[0].status_code in {409, 503}, answers[0].text
            assert node.address not in answers[0].text
            assert client.get("/migrations/health").json()["status"] == "unreachable"
            node.start(keep_port=True)
            again = client.post("/migrations/run", params={"wait_for_lock": "30"}, headers=WRITE)
            assert again.status_code == 200, again.text
            assert again.json()["applied"] == ["0002", "0003"]
    finally:
        node.remove()


def test_the_health_costs_one_read_when_nothing_is_pending(
    client: TestClient, project: Project, replica_set: Server
) -> None:
    project.gate.opened.set()
    client.post("/migrations/run", headers=WRITE)
    assert client.get("/migrations/health").status_code == 200
    with replica_set.client() as mongo:
        before = mongo.admin.command("serverStatus")["opcounters"]
        # Whatever reads more than one collection, or writes, would meet one of these.
        data = {"failCommands": ["aggregate", "listCollections", "listIndexes", "count"],
                "errorCode": 8, "appName": "mongover"}  # fmt: skip
        with failpoint(mongo, "failCommand", data=data):
            assert client.get("/migrations/health").status_code == 200
        after = mongo.admin.command("serverStatus")["opcounters"]
    assert after["insert"] + after["update"] == before["insert"] + before["update"]


def test_reads_may_need_a_token_even_for_events(project: Project) -> None:
    with client_of(make_app(project.config, read_token=READ_TOKEN)) as client:
        assert client.get("/migrations/events").status_code == 401


# ------------------------------------------------------------------------------------- progress


def test_the_progress_of_a_run_follows_its_events() -> None:
    progress = Progress()
    for event in (
        events.LockTaken(1, None),
        events.RunStarted("r", Direction.UP, "head", 2),
        events.StepStarted(
            "0001", "u", "m", Direction.UP, 1, 2, transaction=False, continues=False
        ),
        events.OperationStarted("0001", "update users"),
        events.Progress(
            "0001", "update users", Advance(50, 100, place=Place(8, 3, "665f")), 1.0, 50.0, 1.0
        ),
    ):
        progress = advance(progress, event)
    assert progress.to_json() == {
        "revision": "0001",
        "direction": "up",
        "position": 1,
        "total": 2,
        "operation": "update users",
        "done": 50,
        "documents": 100,
        "ranges": 8,
        "rangesDone": 3,
        "reached": "665f",
    }
    progress = advance(progress, events.StepFinished("0001", Direction.UP, 1, 2, 0.1))
    assert progress.finished == ("0001",)
    progress = advance(progress, events.OperationStarted("0001", "update calls"))
    assert progress.to_json()["ranges"] is progress.to_json()["reached"] is None


def test_a_probe_is_told_the_ranges_of_a_run_but_no_id_of_a_document() -> None:
    run = Run(Order(Direction.UP, "head", "ana"), state="running")
    place = Place(8, 3, "'ana@example.com'")
    told = events.Progress("0001", "update users", Advance(50, 100, place=place))
    run.progress = Progress(revision="0001", told=told)
    foreign = Running("0001", None, Direction.UP, None, told)
    for health, known in (("ok", run), (Health("running", 1, None, (foreign,)), None)):
        found = health if isinstance(health, Health) else Health(health, 0)
        _, document = health_document(found, known, None)
        assert models.MigrationHealth.model_validate(document).running is not None
        assert (document["running"]["ranges"], document["running"]["rangesDone"]) == (8, 3)
        assert "ana" not in str(document)


def test_a_starlette_application_has_no_state_of_a_start_and_that_is_no_error(
    project: Project,
) -> None:
    app = Starlette()
    app.mount("/", make_app(project.config))
    with client_of(app) as client:  # type: ignore[arg-type]  # any application will do
        assert client.get("/migrations/health").json()["startup"] is None
