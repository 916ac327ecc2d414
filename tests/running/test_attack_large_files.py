"""A revision file that no record can hold takes nothing from the revisions before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mongover.errors import DatabaseError, InvalidRevision
from mongover.running import bodies
from tests.support.projects import make_project_fixture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.projects import Project
    from tests.support.servers import Server

__all__ = ["make_project_fixture"]


@pytest.fixture
def project(make_project: Callable[..., Project], any_server: Server) -> Project:
    made = make_project(any_server)
    made.write("0001", 'op.insert("a", [{"_id": 1}])', "pass")
    enlarged(made.write("0002", 'op.insert("a", [{"_id": 2}])', "pass", after="0001"))
    return made


def enlarged(path: Path, size: int = 17_000_000) -> None:
    with path.open("a") as file:
        file.write("# " + "x" * size + "\n")


def states(project: Project) -> dict[str, Any]:
    return {record["_id"]: record["state"] for record in project.history.find()}


def test_it_is_refused_before_the_first_revision_runs(project: Project) -> None:
    with pytest.raises(InvalidRevision, match=r"0002_change\.py has 17\.0 MB") as caught:
        project.upgrade()
    assert "a file of its own" in caught.value.hint
    assert states(project) == {}
    assert project.db["a"].count_documents({}) == 0


def test_check_says_so_without_a_server(project: Project) -> None:
    (problem,) = project.migrator(url="mongodb://127.0.0.1:1/").check()
    assert "0002_change.py has 17.0 MB" in problem.message


def test_a_downgrade_is_refused_before_it_begins(project: Project) -> None:
    (project.versions / "0002_change.py").unlink()
    project.upgrade()
    enlarged(project.versions / "0001_change.py")
    with pytest.raises(InvalidRevision, match=r"0001_change\.py has 17\.0 MB"):
        project.migrator().downgrade("base")
    assert states(project) == {"0001": "applied"}


def test_a_beginning_that_cannot_be_written_loses_no_end(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "SOURCE_LIMIT", 50_000_000)
    with pytest.raises(DatabaseError, match="record of 0002 would be larger"):
        project.upgrade()
    assert states(project) == {"0001": "applied"}
    (project.versions / "0002_change.py").unlink()
    project.write("0002", 'op.insert("a", [{"_id": 2}])', "pass", after="0001")
    project.upgrade()
    assert states(project) == {"0001": "applied", "0002": "applied"}


@pytest.mark.parametrize("act", ["stamp", "repair"])
def test_a_record_that_cannot_take_the_text_is_an_error_that_names_the_revision(
    project: Project, act: str
) -> None:
    migrator = project.migrator()
    if act == "repair":
        (project.versions / "0002_change.py").unlink()
        project.write("0002", "pass", "pass", after="0001")
        project.upgrade()
        enlarged(project.versions / "0002_change.py")
    with pytest.raises(DatabaseError, match="record of 0002 would be larger"):
        migrator.stamp("head") if act == "stamp" else migrator.repair("0002", reason="it grew")
    assert states(project).get("0001") == "applied"
