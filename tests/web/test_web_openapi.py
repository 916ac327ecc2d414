"""The OpenAPI document against the running server, by schemathesis, and by what it promises."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.web_support import (
    READ_TOKEN,
    TOKEN,
    WRITE,
    await_address,
    client_of,
    config_for,
    make_app,
    run_process,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.servers import Server

SECONDS = 25
# What a target or a schema names is known to the database alone, so that the document cannot say
# which texts are valid; and of many wrong tokens all but the first few are 429, not 401.
NOT_CHECKED = "positive_data_acceptance,ignored_auth"


@pytest.fixture
def document(replica_set: Server, mongo_database: Callable[..., str]) -> dict[str, Any]:
    config = config_for(replica_set, mongo_database(replica_set))
    with client_of(make_app(config, read_token=READ_TOKEN)) as client:
        found: dict[str, Any] = client.get("/openapi.json").json()
        return found


def test_every_operation_documents_its_problems_and_its_security(document: dict[str, Any]) -> None:
    paths = document["paths"]
    assert {path.removeprefix("/migrations") for path in paths} >= {
        *("/status", "/plan", "/history", "/revisions/{id}", "/lock", "/health"),
        *("/run", "/run/{schema}", "/downgrade", "/runs/{id}", "/events"),
    }
    for path, item in paths.items():
        for method, operation in item.items():
            answers = operation["responses"]
            assert operation["description"]
            for status, answer in answers.items():
                if int(status) >= 400 and not path.endswith("/health"):
                    assert list(answer["content"]) == ["application/problem+json"]
            if method == "post":
                assert operation["security"] == [{"migrationsToken": []}]
                assert {"202", "401", "403", "409", "422", "429", "500", "503"} <= answers.keys()
            elif path.rpartition("/")[2] in {"health", "access"}:
                assert "security" not in operation
            else:
                assert {"migrationsReadToken": []} in operation["security"]
    assert "MigrationProblem" in document["components"]["schemas"]


def test_without_a_token_for_reading_no_reading_operation_claims_to_need_one(
    replica_set: Server, mongo_database: Callable[..., str]
) -> None:
    config = config_for(replica_set, mongo_database(replica_set))
    with client_of(make_app(config)) as client:
        paths = client.get("/openapi.json").json()["paths"]
    assert "security" not in paths["/migrations/status"]["get"]


def test_only_posts_change_anything(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        assert list(item) == (
            ["post"] if "run" in path.split("/") or "downgrade" in path else ["get"]
        )


@pytest.mark.deep
@pytest.mark.timeout(170)
def test_schemathesis_finds_no_5xx_and_no_undocumented_answer(
    tmp_path: Path, replica_set: Server, mongo_database: Callable[..., str]
) -> None:
    """The stream of events never ends, so it is left to the tests of the runs."""
    config = config_for(replica_set, mongo_database(replica_set))
    (tmp_path / "alembic-style.ini").write_text(
        f"[mongover]\nurl = {replica_set.url}\ndatabase = {config.database}\n"
        f"versions = {config.versions}\n"
    )
    words = ["-m", "mongover", "serve", "--port", "0"]
    env = {"MONGOVER_API_TOKEN": TOKEN, "MONGOVER_API_READ_TOKEN": READ_TOKEN}
    with run_process(words, tmp_path / "log", cwd=tmp_path, env=env) as process:
        served = await_address(process)
        served.post("/migrations/run", headers=WRITE)
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            f"{served.url}/migrations/openapi.json",
            *("--header", f"Authorization: {WRITE['Authorization']}"),
            *("--exclude-path", "/migrations/events"),
            *("--exclude-checks", NOT_CHECKED, "--max-examples", "25", "--max-time", str(SECONDS)),
            *("--phases", "examples,coverage,fuzzing", "--seed", "7", "--no-color"),
        ]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False
        )
        log = served.text()
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Traceback" not in log
