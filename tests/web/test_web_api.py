"""The answers of the API on a real database: exact shapes, refusals, bad input."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter

from mongover import errors
from mongover.migrator import Migrator
from mongover.web import models
from mongover.web.health import Health, look
from tests.support.web_support import (
    READ,
    READ_TOKEN,
    WRITE,
    client_of,
    config_for,
    make_app,
    write_revision,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastapi.testclient import TestClient

    from mongover.config.config import Config
    from tests.support.servers import Server

Broken = tuple[Any, Any, Any]  # a client, its folder of revisions, its configuration
FIVE = ["users", "assistants", "clients", "schedules", "calls"]
IDS = ["0001", "0002", "0003", "0004", "0005"]


@pytest.fixture
def config(replica_set: Server, mongo_database: Callable[..., str]) -> Config:
    return config_for(replica_set, mongo_database(replica_set))


@pytest.fixture
def client(config: Config) -> Iterator[TestClient]:
    with client_of(make_app(config)) as client:
        yield client


@pytest.fixture
def broken(
    tmp_path: Path, replica_set: Server, mongo_database: Callable[..., str]
) -> Iterator[Broken]:
    """A project of its own: the client, its folder of revisions, its configuration."""
    folder = tmp_path / "versions"
    folder.mkdir()
    config = config_for(replica_set, mongo_database(replica_set), folder)
    with client_of(make_app(config)) as client:
        yield client, folder, config


def problem(response: Any, status: int, kind: str) -> dict[str, Any]:
    """The problem document of a refusal, held against its model."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    models.MigrationProblem.model_validate(document)
    assert document["type"] == f"urn:mongover:problem:{kind}"
    assert document["status"] == status
    return document


# ------------------------------------------------------------------------------ the exact shapes


def test_a_fresh_database_has_five_schemas_that_do_not_exist(client: TestClient) -> None:
    found = client.get("/migrations/status").json()
    assert list(found) == FIVE
    for name, entry in found.items():
        assert entry["collectionName"] == name
        assert (entry["exists"], entry["documentCount"], entry["indexes"]) == (False, 0, 0)
    assert found["users"] == {
        "collectionName": "users",
        "documentCount": 0,
        "indexes": 0,
        "exists": False,
        "current": None,
        "head": "0001",
        "pending": ["0001"],
        "state": "pending",
        "collections": [{"name": "users", "exists": False, "documents": 0, "indexes": 0}],
    }


def test_a_run_applies_everything_and_a_second_one_has_nothing_to_do(client: TestClient) -> None:
    first = client.post("/migrations/run", headers=WRITE)
    assert first.status_code == 200
    duration = first.json().pop("durationMs")
    assert first.json() == {
        "message": "All migrations completed successfully",
        "applied": IDS,
        "durationMs": duration,
    }
    assert duration > 0
    second = client.post("/migrations/run", headers=WRITE).json()
    assert second["message"] == "All migrations completed successfully"
    assert second["applied"] == []
    found = client.get("/migrations/status").json()
    assert [entry["indexes"] for entry in found.values()] == [5, 6, 4, 9, 12]
    assert all(entry["exists"] and entry["state"] == "up to date" for entry in found.values())


def test_documents_are_counted_by_the_servers_estimate(
    client: TestClient, config: Config, replica_set: Server
) -> None:
    client.post("/migrations/run/users", headers=WRITE)
    with replica_set.client() as mongo:
        documents = [{"email": f"{number}@x"} for number in range(7)]
        mongo[config.database].users.insert_many(documents)
    assert client.get("/migrations/status").json()["users"]["documentCount"] == 7


def test_a_run_of_one_schema_applies_it_and_what_it_needs_and_nothing_else(
    client: TestClient,
) -> None:
    found = client.post("/migrations/run/schedules", headers=WRITE).json()
    assert found.pop("durationMs") > 0
    assert found == {
        "message": "All migrations of schedules completed successfully",
        "schema": "schedules",
        "applied": ["0001", "0002", "0003", "0004"],
    }
    states = client.get("/migrations/status").json()
    assert states["calls"]["exists"] is False
    assert states["calls"]["pending"] == ["0005"]


@pytest.mark.parametrize(
    "name",
    [
        "nobody",
        "Users",
        "head",
        "base",
        "0001",
        "+1",
        "-1",
        "users@0001",
        "..%2f..%2fetc%2fpasswd%00",
        "%2e%2e",
        "users%00",
        "users%0a",
        "__init__",
        "a" * 200,
        "%F0%9F%98%80",
    ],
)
def test_an_unknown_schema_is_404_with_the_known_ones_and_runs_nothing(
    client: TestClient, name: str
) -> None:
    response = client.post(f"/migrations/run/{name}", headers=WRITE)
    assert response.status_code == 404, response.text
    if "%2f" not in name:  # a decoded slash makes it another address altogether
        assert problem(response, 404, "unknown-schema")["known"] == sorted(FIVE)
    assert client.get("/migrations/history").json() == {"revisions": []}


def test_a_downgrade_answers_as_the_command_line_does(client: TestClient) -> None:
    client.post("/migrations/run", headers=WRITE)
    found = client.post("/migrations/downgrade", headers=WRITE, json={"target": "-1"}).json()
    models.MigrationsReverted.model_validate(found)
    assert (found["direction"], found["target"], found["reverted"]) == ("down", "-1", ["0005"])
    assert found["warnings"] == []
    assert client.get("/migrations/status").json()["calls"]["exists"] is False


def test_the_plan_names_every_step_and_runs_nothing(client: TestClient) -> None:
    found = client.get("/migrations/plan").json()
    models.MigrationPlan.model_validate(found)
    assert [step["revision"] for step in found["steps"]] == IDS
    assert client.get("/migrations/history").json() == {"revisions": []}


def test_a_plan_downwards_needs_a_target(client: TestClient) -> None:
    client.post("/migrations/run", headers=WRITE)
    refused = client.get("/migrations/plan", params={"direction": "down"})
    assert "needs a target" in problem(refused, 422, "bad-request")["detail"]
    found = client.get(
        "/migrations/plan", params={"direction": "down", "target": "clients@base"}
    ).json()
    assert [step["revision"] for step in found["steps"]] == ["0005", "0004", "0003"]
    assert found["reaches"] == ["calls", "schedules"]


def test_the_history_holds_the_records_that_are_asked_for(client: TestClient) -> None:
    client.post("/migrations/run", headers=WRITE)
    found = client.get("/migrations/history").json()
    models.MigrationHistory.model_validate(found)
    assert [one["revision"] for one in found["revisions"]] == IDS
    short = client.get("/migrations/history", params={"limit": 2}).json()
    assert [one["revision"] for one in short["revisions"]] == ["0004", "0005"]
    span = client.get("/migrations/history", params={"span": "0002:0003"}).json()
    assert [one["revision"] for one in span["revisions"]] == ["0002", "0003"]


def test_a_revision_shows_its_file_its_record_and_its_log(client: TestClient) -> None:
    client.post("/migrations/run/users", headers=WRITE)
    found = client.get("/migrations/revisions/0001").json()
    models.MigrationRevision.model_validate(found)
    assert found["revision"]["path"] == "0001_create_users.py"
    assert [line["outcome"] for line in found["record"]["log"]] == ["applied"]
    pending = client.get("/migrations/revisions/0005").json()
    assert pending["record"] is None


@pytest.mark.parametrize("id", ["9999", "..%2fx", "%00", "x" * 200, "0001%0a9", "0001:0002"])
def test_an_unknown_revision_is_404(client: TestClient, id: str) -> None:  # noqa: A002 - the address's word
    assert client.get(f"/migrations/revisions/{id}").status_code == 404


def test_the_lock_is_null_before_any_run_and_free_after_it(client: TestClient) -> None:
    assert client.get("/migrations/lock").json() == {"lock": None}
    client.post("/migrations/run", headers=WRITE)
    found = client.get("/migrations/lock").json()
    models.MigrationLockAnswer.model_validate(found)
    assert found["lock"]["held"] is False


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    for response in (
        client.get("/migrations/status"),
        client.post("/migrations/run"),
        client.get("/migrations/run"),
    ):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_health_is_503_while_something_is_pending_and_200_afterwards(client: TestClient) -> None:
    before = client.get("/migrations/health")
    models.MigrationHealth.model_validate(before.json())
    assert before.status_code == 503
    assert before.headers["retry-after"]
    assert (before.json()["status"], before.json()["pending"]) == ("pending", 5)
    client.post("/migrations/run", headers=WRITE)
    after = client.get("/migrations/health")
    assert after.status_code == 200
    assert after.json() == {
        "status": "ok",
        "ready": True,
        "pending": 0,
        "code": None,
        "running": None,
        "startup": None,
    }


def test_the_models_forbid_fields_that_are_not_documented(client: TestClient) -> None:
    client.post("/migrations/run", headers=WRITE)
    adapter = TypeAdapter(dict[str, models.MigrationSchema])
    adapter.validate_python(client.get("/migrations/status").json())


# ----------------------------------------------------------------------- where it is mounted


def test_the_router_works_under_any_prefix_and_its_locations_follow(config: Config) -> None:
    app, outer = FastAPI(), FastAPI()
    outer.mount("/inner", make_app(config, prefix="/db/migrations"))
    app.mount("/outer", outer)
    with client_of(app) as client:
        accepted = client.post(
            "/outer/inner/db/migrations/run/users", params={"wait": "false"}, headers=WRITE
        )
        location = accepted.headers["location"]
        assert location.startswith("/outer/inner/db/migrations/runs/")
        assert client.get(location).status_code == 200


def test_a_root_path_of_a_proxy_stands_in_the_location(config: Config) -> None:
    with client_of(make_app(config), root_path="/api") as client:
        done = client.post("/migrations/run", headers=WRITE)
        assert done.headers["content-location"].startswith("/api/migrations/runs/")


def test_the_addresses_can_be_left_out_of_the_applications_document(config: Config) -> None:
    with client_of(make_app(config, include_in_schema=False)) as client:
        assert client.get("/openapi.json").json()["paths"] == {}
        assert client.get("/migrations/status").status_code == 200


def test_a_migrator_of_the_application_is_used_and_not_closed(config: Config) -> None:
    with Migrator(config) as migrator:
        with client_of(make_app(migrator)) as client:
            client.post("/migrations/run", headers=WRITE)
        assert migrator.status().applied == 5


def test_the_same_application_can_be_started_again(config: Config) -> None:
    app = make_app(config)
    for expected in (5, 0):
        with client_of(app) as client:
            done = client.post("/migrations/run", headers=WRITE)
            assert len(done.json()["applied"]) == expected


def test_a_configuration_file_is_enough(
    tmp_path: Path, replica_set: Server, mongo_database: Callable[..., str]
) -> None:
    write_revision(tmp_path / "versions", "0001")
    ini = tmp_path / "alembic-style.ini"
    ini.write_text(
        f"[mongover]\nurl = {replica_set.url}\ndatabase = {mongo_database(replica_set)}\n"
    )
    with client_of(make_app(ini)) as client:
        assert client.post("/migrations/run", headers=WRITE).json()["applied"] == ["0001"]


# -------------------------------------------------------------------------------- who may what


def test_without_a_configured_token_writes_are_off_and_say_how_to_enable_them(
    config: Config,
) -> None:
    with client_of(make_app(config, token=None)) as client:
        for headers in ({}, WRITE):
            found = problem(client.post("/migrations/run", headers=headers), 403, "writes-off")
            assert "MONGOVER_API_TOKEN" in found["hint"]
        assert client.get("/migrations/status").status_code == 200


def test_a_missing_and_a_wrong_token_are_401_and_a_reading_one_is_403(config: Config) -> None:
    with client_of(make_app(config, read_token=READ_TOKEN)) as client:
        missing = client.post("/migrations/run")
        problem(missing, 401, "token-missing")
        assert missing.headers["www-authenticate"].startswith("Bearer")
        wrong = client.post("/migrations/run", headers={"Authorization": "Bearer nope"})
        problem(wrong, 401, "token-wrong")
        problem(client.post("/migrations/run", headers=READ), 403, "token-for-reading")
        problem(client.get("/migrations/status"), 401, "token-missing")
        assert client.get("/migrations/status", headers=READ).status_code == 200
        assert client.get("/migrations/status", headers=WRITE).status_code == 200
        assert client.get("/migrations/health").status_code == 503  # probes have no token


@pytest.mark.parametrize(
    "value",
    ["Bearer é".encode(), b"Bearer \xff\xfe\x00", "Bearer 😀".encode(), b"Bearer " + b"x" * 5000],
)
def test_a_token_of_any_bytes_is_401_and_never_an_error_of_the_server(
    client: TestClient, value: bytes
) -> None:
    response = client.post("/migrations/run", headers=[(b"authorization", value)])
    assert response.status_code == 401


def test_a_token_in_query_cookie_or_basic_does_not_count(client: TestClient) -> None:
    token = WRITE["Authorization"].removeprefix("Bearer ")
    ways: list[dict[str, Any]] = [
        {"params": {"token": token, "access_token": token}},
        {"headers": {"Cookie": f"token={token}; Authorization={token}"}},
        {"headers": {"Authorization": f"Basic {token}"}},
        {"headers": {"X-Api-Key": token}},
    ]
    for options in ways:
        assert client.post("/migrations/run", **options).status_code == 401
    assert client.get("/migrations/history").json() == {"revisions": []}


def test_guessing_is_braked_and_the_right_token_passes_all_the_same(client: TestClient) -> None:
    bad = {"Authorization": "Bearer guess"}
    statuses = [client.post("/migrations/run", headers=bad).status_code for _ in range(7)]
    assert statuses == [401] * 5 + [429] * 2
    braked = client.post("/migrations/run", headers=bad)
    problem(braked, 429, "too-many-tokens")
    assert 0 < int(braked.headers["retry-after"]) <= 60
    assert client.post("/migrations/run", headers=WRITE).status_code == 200


def test_a_page_of_another_origin_cannot_write_even_with_a_token(config: Config) -> None:
    app = make_app(config, origins=["https://admin.example"])
    with client_of(app, base_url="http://db.example") as client:
        for origin in ("https://evil.example", "null", "http://db.example.evil.example"):
            refused = client.post("/migrations/run", headers={**WRITE, "Origin": origin})
            problem(refused, 403, "foreign-origin")
        for origin in ("http://db.example", "https://admin.example"):
            allowed = client.post("/migrations/run", headers={**WRITE, "Origin": origin})
            assert allowed.status_code == 200


def test_another_name_in_the_host_header_is_refused_where_names_are_given(config: Config) -> None:
    with client_of(make_app(config, hosts=["localhost"]), base_url="http://localhost:81") as client:
        assert client.get("/migrations/status").status_code == 200
        rebound = client.get("/migrations/status", headers={"Host": "evil.example"})
        problem(rebound, 400, "wrong-host")
        for path in ("/migrations/health", "/migrations/lock"):
            response = client.get(path, headers={"Host": "evil.example"})
            assert response.status_code == 400


# ----------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"null",
        b"[]",
        b'"-1"',
        b"{}",
        b'{"target": null}',
        b'{"target": 1}',
        b'{"target": ""}',
        b'{"target": ["-1"]}',
        b'{"target": "-1", "force": true}',
        b'{"target": "' + b"x" * 201 + b'"}',
        b'{"target": "nobody"}',
        b'{"target": "+1"}',
        b'{"target": "-99"}',
        b'{"target": "\\u0000"}',
        b'{"target": "\\ud800"}',
        b"\xff\xfe",
        b"[" * 5_000,
    ],
)
def test_a_bad_body_is_422_and_reverts_nothing(client: TestClient, body: bytes) -> None:
    client.post("/migrations/run/users", headers=WRITE)
    headers = {**WRITE, "Content-Type": "application/json"}
    response = client.post("/migrations/downgrade", content=body, headers=headers)
    assert response.status_code == 422, response.text
    models.MigrationProblem.model_validate(response.json())
    assert client.get("/migrations/status").json()["users"]["current"] == "0001"


def test_what_was_sent_does_not_come_back_in_the_problem(client: TestClient) -> None:
    response = client.post(
        "/migrations/downgrade", headers=WRITE, json={"target": {"secret": "geheim99"}}
    )
    assert "geheim99" not in response.text


@pytest.mark.parametrize(
    "kind", ["text/plain", "", "application/x-www-form-urlencoded", "text/json"]
)
def test_a_body_that_is_not_called_json_is_415(client: TestClient, kind: str) -> None:
    headers = {**WRITE, "Content-Type": kind}
    content = json.dumps({"target": "-1"})
    for path in ("/migrations/downgrade", "/migrations/run"):
        response = client.post(path, content=content, headers=headers)
        problem(response, 415, "wrong-content-type")


def test_a_huge_body_is_413_whether_it_says_so_or_not(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"target": "'
        for _ in range(64):
            yield b"x" * 1024

    headers = {**WRITE, "Content-Type": "application/json"}
    for content in (b"x" * 17_000, chunks()):
        response = client.post("/migrations/downgrade", content=content, headers=headers)
        problem(response, 413, "too-large")


def test_a_wrong_method_is_405_and_says_which_is_right(client: TestClient) -> None:
    for method, path, allowed in (
        ("GET", "run", "POST"),
        ("GET", "run/users", "POST"),
        ("PUT", "run", "POST"),
        ("GET", "downgrade", "POST"),
        ("POST", "status", "GET"),
        ("DELETE", "lock", "GET"),
        ("OPTIONS", "run", "POST"),
    ):
        response = client.request(method, f"/migrations/{path}", headers=WRITE)
        problem(response, 405, "wrong-method")
        assert response.headers["allow"] == allowed
    assert client.get("/migrations/history").json() == {"revisions": []}


@pytest.mark.parametrize(
    "query",
    [
        "wait=perhaps",
        "wait_for_lock=-1",
        "wait_for_lock=nan",
        "wait_for_lock=inf",
        "wait_for_lock=soon",
        "wait_for_lock=1e9",
        "wiat=false",
    ],
)
def test_a_wrong_or_misspelt_parameter_is_422_and_runs_nothing(
    client: TestClient, query: str
) -> None:
    problem(client.post(f"/migrations/run?{query}", headers=WRITE), 422, "bad-request")
    assert client.get("/migrations/history").json() == {"revisions": []}


# ------------------------------------------------------------------------------ what goes wrong


def test_a_failing_revision_is_a_500_of_a_documented_kind_that_tells_no_details(
    broken: Broken, caplog: pytest.LogCaptureFixture
) -> None:
    client, folder, config = broken
    write_revision(folder, "0001")
    secret = uuid.uuid4().hex
    write_revision(folder, "0002", parent="0001", up=f"raise ValueError('{secret} is bad')")
    response = client.post("/migrations/run", headers=WRITE)
    found = problem(response, 500, "revision-failed")
    assert (found["revision"], found["code"]) == ("0002", "MGV020")
    assert "0002 ended with ValueError" in found["detail"]
    for hidden in (secret, str(folder), "Traceback", config.url.reveal()):
        assert hidden not in response.text
    log = "\n".join(record.getMessage() for record in caplog.records if record.levelname == "ERROR")
    assert found["errorId"] in log
    assert secret in log
    assert "0002_step.py" in log
    health = client.get("/migrations/health")
    assert health.status_code == 503
    assert (health.json()["status"], health.json()["pending"]) == ("failed", 1)


def test_files_that_do_not_hold_together_are_409(broken: Broken) -> None:
    client, folder, _ = broken
    write_revision(folder, "0001")
    write_revision(folder, "0002", parent="0001")
    write_revision(folder, "0003", parent="0001")
    found = problem(client.post("/migrations/run", headers=WRITE), 409, "files-invalid")
    assert found["code"] == "MGV030"
    assert str(folder) not in str(found)
    health = client.get("/migrations/health").json()
    assert (health["status"], health["code"], health["pending"]) == ("blocked", "MGV030", 3)


def test_an_edited_file_is_409_but_does_not_make_a_migrated_application_unready(
    broken: Broken,
) -> None:
    client, folder, _ = broken
    path = write_revision(folder, "0001")
    client.post("/migrations/run", headers=WRITE)
    path.write_text(path.read_text() + "\nEDITED = True\n")
    write_revision(folder, "0002", schema="other")
    found = problem(client.post("/migrations/run", headers=WRITE), 409, "history-disagrees")
    assert found["code"] == "MGV040"
    (folder / "0002_step.py").unlink()
    health = client.get("/migrations/health")
    assert health.status_code == 200
    assert (health.json()["status"], health.json()["code"]) == ("problems", "MGV040")


def test_a_database_of_a_newer_release_is_refused_by_a_run_and_ready_for_requests(
    broken: Broken,
) -> None:
    client, folder, _ = broken
    write_revision(folder, "0001")
    newer = write_revision(folder, "0002", parent="0001")
    client.post("/migrations/run", headers=WRITE)
    newer.unlink()
    found = problem(client.post("/migrations/run", headers=WRITE), 409, "history-disagrees")
    assert found["code"] == "MGV046"
    assert str(folder) not in str(found)
    assert client.get("/migrations/health").status_code == 200


def test_warnings_of_a_lenient_project_are_not_called_a_success(
    tmp_path: Path, replica_set: Server, mongo_database: Callable[..., str]
) -> None:
    folder = tmp_path / "versions"
    write_revision(folder, "0001", up='op.create_index("users", "email", unique=True)')
    config = config_for(replica_set, mongo_database(replica_set), folder, strict=False)
    with replica_set.client() as mongo:
        mongo[config.database].users.insert_many([{"email": "a"}, {"email": "a"}])
    with client_of(make_app(config)) as client:
        found = client.post("/migrations/run", headers=WRITE).json()
        assert found["message"] == "All migrations completed with 1 warning"
        assert client.get("/migrations/status").json()["users"]["state"] == "degraded"


def test_the_line_without_a_schema_stands_under_the_empty_name(broken: Broken) -> None:
    client, folder, _ = broken
    write_revision(folder, "0001", schema=None)
    found = client.get("/migrations/status").json()
    TypeAdapter(dict[str, models.MigrationSchema]).validate_python(found)
    assert found[""]["collectionName"] is None
    assert client.post("/migrations/run", headers=WRITE).json()["applied"] == ["0001"]


def test_a_database_that_is_away_is_503_everywhere(tmp_path: Path) -> None:
    folder = tmp_path / "versions"
    write_revision(folder, "0001")
    url = "mongodb://ana:geheim99@127.0.0.1:1/?authSource=admin"
    app = make_app(folder_config(url, folder), read_token=None)
    with client_of(app) as client:
        for response in (
            client.get("/migrations/status"),
            client.get("/migrations/plan"),
            client.post("/migrations/run", headers=WRITE),
        ):
            found = problem(response, 503, "database-away")
            assert "127.0.0.1" not in response.text
            assert "geheim99" not in response.text
            assert found["code"] == "MGV061"
        health = client.get("/migrations/health")
        models.MigrationHealth.model_validate(health.json())
        assert health.status_code == 503
        assert health.json()["status"] == "unreachable"


def folder_config(url: str, folder: Path) -> Any:
    from mongover.config.config import Config
    from mongover.config.urls import SecretUrl

    return Config(
        url=SecretUrl(url),
        database="shop",
        versions=folder,
        root=folder.parent,
        connect_timeout=0.2,
    )


def test_health_tells_the_worst_that_it_meets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an upgrade refuses is asked about again, and that question may fail as well."""
    config = folder_config("mongodb://127.0.0.1:1/", tmp_path)

    def raiser(error: Exception) -> Any:
        def call(*args: Any) -> Any:
            raise error

        return call

    with Migrator(config) as migrator:
        monkeypatch.setattr(migrator, "plan", raiser(errors.Edited("0001 was edited")))
        monkeypatch.setattr(migrator, "status", raiser(errors.Unreachable("gone")))
        assert look(migrator) == Health("unreachable", None, "MGV061")
        monkeypatch.setattr(migrator, "status", raiser(errors.ForeignDocument("another's")))
        assert look(migrator) == Health("blocked", None, "MGV043")
