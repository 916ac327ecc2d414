"""The primary steps down or dies while revisions run: each effect and record once, or a way on.

By default a small variant runs; `MONGOVER_FULL_CRASH=1` runs 200 revisions with more faults.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from mongover.testing.crash import run
from tests.support.crashing import Gate, ended, lock_of, open_, project_on, started, write_revision
from tests.support.servers import failpoint, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pymongo.database import Database

    from mongover.testing.crash import Project
    from tests.support.servers import ThreeNodes

    NewName = Callable[[ThreeNodes], str]
    Store = Database[dict[str, Any]]

FULL = bool(os.environ.get("MONGOVER_FULL_CRASH"))
REVISIONS = 200 if FULL else 40
FAULTS = {"step down": 5 if FULL else 2, "kill": 4 if FULL else 1}
BY_DB = """
op.db["effects"].update_one({{"_id": "{0}"}}, {{"$inc": {{"n": 1}}}}, upsert=True)
"""
BY_OPERATION = """
op.insert("effects", [{{"_id": "{0}", "n": 1}}])
op.create_index("effects", "field_{0}")
op.drop_index("effects", "field_{0}")
"""

pytestmark = [pytest.mark.deep, pytest.mark.timeout(1_200 if FULL else 300)]


def write_revisions(folder: Path, count: int) -> None:
    """In turn: a transaction, an act by `op.db`, and operations alone."""
    for number in range(1, count + 1):
        body = BY_OPERATION if number % 3 == 0 else BY_DB
        header = "transaction = True" if number % 3 == 1 else ""
        parent = f"{number - 1:04d}" if number > 1 else None
        write_revision(folder, number, body.format(f"{number:04d}"), parent=parent, header=header)


@pytest.fixture
def project(three_nodes: ThreeNodes, tmp_path: Path, mongo_database: NewName) -> Project:
    write_revisions(tmp_path, REVISIONS)
    return project_on(
        three_nodes,
        tmp_path,
        mongo_database(three_nodes),
        lease=30.0,
        MONGOVER_CONNECT_TIMEOUT="30",
    )


def applied(store: Store) -> int:
    return int(store["_migrations"].count_documents({"state": "applied"}))


def safely(store: Store, collection: str) -> Any:
    """The collection as a majority of the nodes has it."""
    return store.get_collection(
        collection,
        read_concern=ReadConcern("majority"),
        write_concern=WriteConcern("majority"),
    )


class Chaos:
    """Faults at random points of a run, as far as it gets."""

    def __init__(self, nodes: ThreeNodes, store: Store, seed: int) -> None:
        self.nodes = nodes
        self.store = store
        self.random = random.Random(seed)
        self.faults = 0

    def strike(self, process: subprocess.Popen[str], kind: str, at: int) -> None:
        """Wait until so many revisions are applied, then harm the primary; count it."""
        wait_until(lambda: process.poll() is not None or self.applied() >= at, "the point", 120)
        if process.poll() is not None:
            return
        if kind == "kill":
            dead = self.nodes.kill_primary()
            self.nodes.primary()
            dead.start(keep_port=True)
        else:
            self.nodes.step_down()
        self.faults += 1

    def applied(self) -> int:
        try:
            return applied(self.store)
        except PyMongoError:  # an election is on
            return 0

    def points(self, count: int) -> list[int]:
        """Where to strike: random, in order, never at the very end."""
        return sorted(self.random.sample(range(2, REVISIONS * 3 // 4), count))


def go_on(project: Project, store: Store, code: int, text: str) -> list[str]:
    """Run again until all is applied; what is asked for is looked at and resolved. The errors."""
    errors: list[str] = []
    while code != 0:
        assert code in {1, 3, 4, 5}, text
        assert "Traceback" not in text, text
        assert "this is a bug" not in text, text
        errors.append(text)
        assert len(errors) < 20, text
        if code == 4:
            resolve(project, store, text)
        last = run(project, ["upgrade"])
        code, text = last.exit_code, last.text
    return errors


def resolve(project: Project, store: Store, text: str) -> None:
    stopped = safely(store, "_migrations").find_one({"state": {"$in": ["failed", "interrupted"]}})
    assert stopped is not None
    id_ = stopped["_id"]
    assert f"mongover resolve {id_}" in text
    effect = safely(store, "effects").find_one({"_id": id_})
    word = "--reverted" if effect is None else "--applied"
    done = run(project, ["resolve", id_, word, "--reason", "looked at it"])
    assert done.exit_code == 0, done.text


def check_all(project: Project, store: Store) -> None:
    """Every effect once, every record applied, every place in the order taken once."""
    ids = [f"{number:04d}" for number in range(1, REVISIONS + 1)]
    effects = {each["_id"]: each["n"] for each in safely(store, "effects").find()}
    assert effects == dict.fromkeys(ids, 1)
    records = {each["_id"]: each for each in safely(store, "_migrations").find()}
    assert {id_: each["state"] for id_, each in records.items()} == dict.fromkeys(ids, "applied")
    for id_, record in records.items():
        assert sum(entry["outcome"] == "applied" for entry in record["log"]) == 1, id_
    assert len({each["sequence"] for each in records.values()}) == REVISIONS
    assert lock_of(project)["owner"] is None


@pytest.fixture
def store(project: Project) -> Iterator[Store]:
    with open_(project) as client:
        yield client[project.database]


@pytest.mark.parametrize("kind", FAULTS)
def test_every_revision_takes_effect_once_though_primaries_come_and_go(
    three_nodes: ThreeNodes, project: Project, store: Store, kind: str
) -> None:
    chaos = Chaos(three_nodes, store, seed=REVISIONS)
    with started(project, "upgrade") as process:
        for at in chaos.points(FAULTS[kind]):
            chaos.strike(process, kind, at)
        code, text = ended(process, timeout=600)
    assert chaos.faults >= 1, "no fault happened"
    three_nodes.heal()
    errors = go_on(project, store, code, text)
    check_all(project, store)
    assert len(errors) <= chaos.faults * 2


def test_a_downgrade_survives_a_change_of_primary(
    three_nodes: ThreeNodes, tmp_path: Path, mongo_database: NewName
) -> None:
    gate = Gate(tmp_path)
    act = 'op.db["a"].insert_one({"_id": 1})'
    back = f'op.db["a"].delete_one({{"_id": 1}})\n{gate.code}'
    write_revision(tmp_path, 1, act, back, header="transaction = True")
    project = project_on(three_nodes, tmp_path, mongo_database(three_nodes), lease=30.0)
    assert run(project, ["upgrade"]).exit_code == 0
    with started(project, "downgrade", "base") as process:
        gate.reached(process)
        three_nodes.step_down()
        gate.open()
        code, text = ended(process)
    assert code == 0, text
    with open_(project) as client:
        store = client[project.database]
        assert safely(store, "a").count_documents({}) == 0
        assert safely(store, "_migrations").find_one({"_id": "0001"})["state"] == "reverted"


def test_an_index_build_survives_a_step_down_or_is_continued(
    three_nodes: ThreeNodes, tmp_path: Path, mongo_database: NewName
) -> None:
    write_revision(tmp_path, 1, 'op.create_index("a", "n")')
    project = project_on(three_nodes, tmp_path, mongo_database(three_nodes), lease=30.0)
    with open_(project) as client:
        store = client[project.database]
        safely(store, "a").insert_one({"n": 1})
        with started(project, "upgrade") as process:
            with (
                primary_client(three_nodes.primary()) as direct,
                failpoint(direct, "hangAfterStartingIndexBuild"),
            ):
                wait_until(lambda: building(store) or process.poll() is not None, "the build")
                three_nodes.step_down()
            code, text = ended(process)
        if code != 0:
            assert code in {1, 5}, text
            after = run(project, ["upgrade"])
            assert after.exit_code == 0, after.text
        assert "n_1" in store["a"].index_information()
        assert safely(store, "_migrations").find_one({"_id": "0001"})["state"] == "applied"


def primary_client(node: Any) -> Any:
    from pymongo import MongoClient

    return MongoClient(node.address, directConnection=True)


def building(store: Store) -> bool:
    listed = store.command({"listIndexes": "a", "includeBuildUUIDs": True})
    return any("buildUUID" in each for each in listed["cursor"]["firstBatch"])


def test_an_index_build_does_not_wait_for_a_member_that_is_down(
    three_nodes: ThreeNodes, tmp_path: Path, mongo_database: NewName
) -> None:
    write_revision(tmp_path, 1, 'op.create_index("a", "n")')
    project = project_on(three_nodes, tmp_path, mongo_database(three_nodes), lease=30.0)
    with open_(project) as client:
        safely(client[project.database], "a").insert_one({"n": 1})
        three_nodes.secondaries()[0].kill()
        done = run(project, ["upgrade"])
        assert done.exit_code == 0, done.text
        assert done.seconds < 50, "the dead member was waited for"
        assert "n_1" in client[project.database]["a"].index_information()
