"""Two files with one number: which of them keeps it, and what every command says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mongover.errors import DuplicateRevision, MultipleHeads, UsageError
from mongover.planning.graph import Graph
from mongover.planning.plan import plan_upgrade
from mongover.planning.problems import find_problems
from mongover.revisions.folder import read_revisions
from tests.support.graphs import no_source, record, rev
from tests.support.projects import (
    HEADER,
    Project,
    make_project_fixture,
    project_fixture,
)
from tests.support.servers import run_cli

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["make_project_fixture", "project_fixture"]


def add(folder: Path, name: str, after: str | None, created: str = "") -> Path:
    message = f"a change\n\nCreate Date: {created}" if created else "a change"
    text = HEADER.format(message=message, id=name[:4], down=after, schema=None, extra="")
    path = folder / f"{name}.py"
    path.write_text(text + "def upgrade(op): pass\n")
    return path


@pytest.mark.parametrize(
    ("first", "second", "moved"),
    [
        ("2026-01-02 00:00:00+00:00", "2026-01-01 00:00:00+00:00", "0002_a.py"),
        ("2026-01-01 00:00:00+00:00", "2026-01-02 00:00:00+00:00", "0002_b.py"),
        ("", "", "0002_b.py"),
        ("2026-01-01 00:00:00+00:00", "", "0002_a.py"),
    ],
)
def test_without_the_history_the_newer_one_is_named_and_the_doubt_is_said(
    tmp_path: Path, first: str, second: str, moved: str
) -> None:
    add(tmp_path, "0001_x", None)
    add(tmp_path, "0002_a", "0001", first)
    add(tmp_path, "0002_b", "0001", second)
    error = read_revisions(tmp_path).broken["0002"]
    assert error.hint.endswith(f"mongover rebase {moved}")
    assert "the one that is applied nowhere" in error.hint
    assert error.where is not None
    assert error.where.path.name == moved


@pytest.mark.parametrize(("kept", "moved"), [("a", "b"), ("b", "a")])
def test_with_the_history_the_one_that_is_applied_keeps_its_number(
    project: Project, kept: str, moved: str
) -> None:
    add(project.versions, "0001_x", None)
    add(project.versions, f"0002_{kept}", "0001")
    migrator = project.migrator()
    migrator.upgrade()
    add(project.versions, f"0002_{moved}", "0001")
    says = f"0002_{kept}.py is in the history and keeps it"
    (problem,) = migrator.status().problems
    assert says in problem.hint
    assert problem.hint.endswith(f"mongover rebase 0002_{moved}.py")
    with pytest.raises(DuplicateRevision) as caught:
        migrator.upgrade()
    assert caught.value.hint == problem.hint
    with pytest.raises(UsageError, match="so it keeps its id") as refused:
        migrator.rebase(f"0002_{kept}.py")
    assert refused.value.hint == problem.hint
    assert [path.name for path in migrator.rebase(f"0002_{moved}.py")] == [f"0003_{moved}.py"]
    assert migrator.status().problems == ()
    assert migrator.upgrade().revisions == ("0003",)


def test_a_merge_of_what_cannot_be_read_says_so(project: Project) -> None:
    for name in ("0002_a", "0002_b"):
        add(project.versions, name, "0001")
    add(project.versions, "0001_x", None)
    with pytest.raises(DuplicateRevision, match="2 files carry the number 0002"):
        project.migrator().merge(None, "join")


def test_records_of_other_files_leave_the_doubt(tmp_path: Path) -> None:
    for name in ("0002_a", "0002_b"):
        add(tmp_path, name, None)
    files = read_revisions(tmp_path)
    known = {"0002": record(rev("0002"), sequence=1)}
    (problem, *_) = find_problems(files, known, sources=no_source)
    assert "the one that is applied nowhere" in problem.hint
    with pytest.raises(DuplicateRevision):
        plan_upgrade(files, known, sources=no_source)


def annotated(folder: Path) -> list[str]:
    done: Any = run_cli("check", "--format", "github", cwd=folder)
    assert done.returncode == 4
    return [line for line in done.stdout.splitlines() if line.startswith("::")]


def test_annotations_stand_at_a_file(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    add(tmp_path / "versions", "0001_x", None)
    add(tmp_path / "versions", "0002_a", "0001")
    double = add(tmp_path / "versions", "0002_b", "0001")
    (line,) = annotated(tmp_path)
    assert line.startswith("::error title=MGV011,file=versions/0002_b.py::")
    double.unlink()
    add(tmp_path / "versions", "0003_b", "0001")
    (line,) = annotated(tmp_path)
    assert line.startswith("::error title=MGV030,file=versions/0003_b.py::")
    add(tmp_path / "versions", "0003_b", "0009")
    (line,) = annotated(tmp_path)
    assert line.startswith("::error title=MGV012,file=versions/0003_b.py::")


def test_two_heads_stand_at_the_one_that_can_move() -> None:
    graph = Graph([rev("0001"), rev("0002"), rev("0003")])
    for applied, place in (((), "0003"), (("0003",), "0002"), (("0001", "0002", "0003"), "0003")):
        with pytest.raises(MultipleHeads, match="3 heads") as caught:
            graph.check_heads(None, applied=applied)
        assert caught.value.where is not None
        assert caught.value.where.path.name == f"{place}_x.py"
