"""A replacement of indexes and a rename under views, killed before and after their commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient

from mongover.testing.crash import run, sweep
from tests.support.crashing import project_on, write_revision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from mongover.testing.crash import CrashRun, Project, Recovery
    from mongover.testing.wire import Command
    from tests.support.servers import Server

BEFORE = """
op.create_index("users", "email", unique=True)
op.create_index("users", "email", name="ci", collation={"locale": "en"})
op.create_view("active", "users", [{"$match": {"on": True}}])
op.insert("users", [{"_id": n, "email": f"{n}@x", "on": n > 2} for n in range(5)])
"""
WORK = """
op.replace_index("users", "email", unique=True, sparse=True)
op.replace_index("users", ("email", "on"), old="email_1", unique=True, sparse=True)
"""
RENAME = 'op.rename_collection("users", "people", repoint_views=True)'
DDL = {"createIndexes", "dropIndexes", "collMod", "renameCollection"}


def some_ddl(points: Sequence[Command]) -> Iterable[int]:
    """A third of the commands; `test_replace_index.py` stops between all of them."""
    return [number for number, point in enumerate(points, 1) if point.name in DDL][1::3]


def first_revision(project: Project) -> None:
    done = run(project, ["upgrade", "0001"])
    assert done.exit_code == 0, done.text


def guarded(project: Project, crash: CrashRun) -> None:
    """Whenever it dies, a unique index stands and the other index is there."""
    with MongoClient[dict[str, Any]](project.url) as client:
        db = client[project.database]
        names = set(db.list_collection_names())
        indexes = list(db["people" if "people" in names else "users"].list_indexes())
    assert any(index.get("unique") for index in indexes), crash
    assert "ci" in {index["name"] for index in indexes}, crash


def ended(recovery: Recovery) -> None:
    assert recovery.following.exit_code == 0, recovery.following.text
    project = recovery.project
    with MongoClient[dict[str, Any]](project.url) as client:
        db = client[project.database]
        names = {index["name"] for index in db["people"].list_indexes()}
        assert names == {"_id_", "ci", "email_1_on_1"}
        assert db["active"].count_documents({}) == 2


@pytest.mark.deep
def test_an_upgrade_killed_at_one_of_its_commands_ends_right_with_the_next(
    replica_set: Server, tmp_path: Path, mongo_database: Callable[[Server], str]
) -> None:
    write_revision(tmp_path, 1, BEFORE)
    write_revision(tmp_path, 2, WORK, parent="0001")
    write_revision(tmp_path, 3, RENAME, parent="0002")
    project = project_on(replica_set, tmp_path, mongo_database(replica_set))
    report = sweep(
        project,
        ["upgrade"],
        prepare=first_revision,
        inspect=guarded,
        check=ended,
        choose=some_ddl,
    )
    assert not report.findings, report.text()
    assert report.kills >= 6
