"""One value, one document: `--json` and HTTP tell the same, but for what only one of them may."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient

import mongover
from mongover.cli.app import run
from tests.support.web_support import (
    SAMPLES,
    WRITE,
    client_of,
    config_for,
    make_app,
    write_revision,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi.testclient import TestClient

    from tests.support.servers import Server

Document = dict[str, Any]


class Both:
    """The same project asked from the command line and over HTTP."""

    def __init__(self, client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
        self.client = client
        self._capsys = capsys

    def lines(self, *words: str) -> list[Document]:
        """What a command writes to stdout, a document a line."""
        self._capsys.readouterr()
        run(words)
        return [json.loads(line) for line in self._capsys.readouterr().out.splitlines()]

    def command(self, *words: str) -> Document:
        """The one document of a command."""
        self._capsys.readouterr()
        run([*words, "--json"])
        found: Document = json.loads(self._capsys.readouterr().out)
        return found

    def get(self, path: str, **query: str) -> Document:
        found: Document = self.client.get(f"/migrations/{path}", params=query).json()
        return found

    def post(self, path: str, **body: str) -> Document:
        answer = self.client.post(f"/migrations/{path}", headers=WRITE, json=body or None)
        found: Document = answer.json()
        return found

    def told(self, run_id: str) -> Iterator[Document]:
        """The events of a run over HTTP."""
        text = self.client.get("/migrations/events", params={"run": run_id}).text
        for line in text.splitlines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


@pytest.fixture
def open_both(
    replica_set: Server,
    mongo_database: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Callable[[Path], Both]]:
    """Opens a project, by its folder of revisions."""
    config = config_for(replica_set, mongo_database(replica_set))
    with pytest.MonkeyPatch.context() as patch:
        clients = []

        def open_project(versions: Path) -> Both:
            for name, value in (
                ("URL", replica_set.url),
                ("DATABASE", config.database),
                ("VERSIONS", str(versions)),
            ):
                patch.setenv(f"MONGOVER_{name}", value)
            monkeypatch.chdir(versions.parent)
            project = config_for(replica_set, config.database, versions)
            context = client_of(make_app(project))
            clients.append(context)
            return Both(context.__enter__(), capsys)

        yield open_project
        for context in clients:
            context.__exit__(None, None, None)


@pytest.fixture
def both(open_both: Callable[[Path], Both]) -> Both:
    return open_both(SAMPLES)


def test_the_plan_is_the_same(both: Both) -> None:
    command, answer = both.command("plan"), both.get("plan")
    assert len(command["steps"]) == 5
    assert list(command.items()) == [(name, answer[name]) for name in command]
    assert answer.keys() - command.keys() == {"reaches", "running", "nothing"}


def test_a_plan_of_a_downgrade_is_the_same_with_what_it_would_destroy(
    both: Both, replica_set: Server
) -> None:
    both.command("upgrade")
    with MongoClient[Document](replica_set.url) as client:
        client[os.environ["MONGOVER_DATABASE"]]["users"].insert_one({"age": 7})
    command = both.command("plan", "--down", "base")
    answer = both.get("plan", direction="down", target="base")
    assert command["destroys"]
    assert command == {name: answer[name] for name in command}


def test_the_records_are_the_same(both: Both) -> None:
    both.command("upgrade")
    command = both.command("history")
    assert len(command["revisions"]) == 5
    assert json.dumps(command) == json.dumps(both.get("history"))


def test_a_revision_is_the_same_but_for_the_folder_of_its_file(both: Both) -> None:
    both.command("upgrade", "users")
    command, answer = both.command("show", "0001"), both.get("revisions/0001")
    assert Path(command["revision"]["path"]).name == answer["revision"]["path"]
    command["revision"]["path"] = answer["revision"]["path"]
    assert command["record"]["log"]
    assert json.dumps(command) == json.dumps(answer)


def test_the_lock_is_the_same(both: Both) -> None:
    assert both.command("lock") == both.get("lock") == {"lock": None}
    both.command("upgrade", "users")
    command = both.command("lock")
    assert command["lock"]["fence"] == 1
    assert json.dumps(command) == json.dumps(both.get("lock"))


def test_each_schema_stands_where_status_says(both: Both) -> None:
    both.command("upgrade", "users")
    command, answer = both.command("status"), both.get("status")
    for schema in command["schemas"]:
        there = answer[schema.pop("schema")]
        assert schema == {name: there[name] for name in schema}


def test_a_downgrade_ends_with_the_same_fields(both: Both) -> None:
    both.command("upgrade")
    command, answer = both.command("downgrade", "-1"), both.post("downgrade", target="-1")
    assert ["message", *command] == list(answer)
    assert (command["reverted"], answer["reverted"]) == (["0005"], ["0004"])
    result = both.get(f"runs/{answer['run']}")["result"]
    assert result == {name: answer[name] for name in command}


def test_the_events_of_a_run_are_the_same(both: Both) -> None:
    *events, _ = both.lines("upgrade", "users", "--json-lines")
    both.command("downgrade", "users@base")
    answer = both.client.post("/migrations/run/users", headers=WRITE)
    told = list(both.told(answer.headers["content-location"].rpartition("/")[2]))
    shared = [one for one in told if "event" in one]
    assert [one["event"] for one in events] == [one["event"] for one in shared]
    assert [["run", *(name for name in one if name != "run")] for one in events] == [
        list(one) for one in shared
    ]


def test_what_is_wrong_is_the_same_but_for_folders(
    open_both: Callable[[Path], Both], tmp_path: Path
) -> None:
    versions = tmp_path / "versions"
    write_revision(versions, "0001", up='op.create_collection("users")')
    both = open_both(versions)
    both.command("upgrade")
    (versions / "0001_step.py").unlink()
    (versions / "0002_odd.py").write_text("revision = 2\n")
    found = both.command("status")["problems"]
    assert len(found) >= 2
    assert found == [
        {name: one[name] for name in found[0]} for one in both.command("verify")["problems"]
    ]
    answer = both.get("revisions")["problems"]
    assert [list(one) for one in found] == [list(one) for one in answer]
    assert str(tmp_path) not in str(answer)
    for one in found:
        text = one["message"].replace(f"{versions}/", "").replace(f"{tmp_path}/", "")
        assert text in {each["message"] for each in answer}


def test_an_error_in_a_record_is_the_same_but_for_folders_and_addresses(
    open_both: Callable[[Path], Both], tmp_path: Path
) -> None:
    versions = tmp_path / "versions"
    code = f'op.log("x"); raise ValueError("{versions}/x and http://example.com/y")'
    write_revision(versions, "0001", up=code)
    both = open_both(versions)
    both.command("upgrade")
    command, answer = both.command("history"), both.get("history")
    ours, theirs = (one["revisions"][0].pop("error") for one in (command, answer))
    assert command == answer
    assert (ours["type"], ours.keys()) == (theirs["type"], theirs.keys())
    assert str(versions) in ours["message"]
    assert str(versions) not in theirs["message"]
    assert "http://" not in theirs["message"]


def test_only_report_writes_the_fields_of_what_both_show() -> None:
    package = Path(mongover.__file__).parent
    for word in ('"down_revision": ', '"heartbeatAt": '):
        found = {
            path.relative_to(package).parts[0]
            for path in package.rglob("*.py")
            if word in path.read_text(encoding="utf-8")
        }
        assert found - {"history", "revisions"} == {"report"}, word
