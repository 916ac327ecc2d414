"""The page of the architecture tells how the code is: its packages, imports and calls."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mongover
from mongover.cli.app import run
from tests.support.projects import make_project_fixture, project_fixture  # noqa: F401 - fixtures
from tests.support.servers import ROOT
from tests.test_layers import FREE, ROOMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.projects import Project

PACKAGE = Path(mongover.__file__).parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
Call = tuple[str, str]  # the file below `mongover/`, and the function with its class


def import_table() -> Iterator[str]:
    """The table of allowed imports, as the page must hold it."""
    yield "| package | may import |"
    yield "|---|---|"
    groups: dict[frozenset[str], list[str]] = {}
    for name, allowed in ROOMS.items():
        groups.setdefault(frozenset(allowed), []).append(name)
    seen: set[str] = set()
    for rooms, names in groups.items():
        allowed = set(rooms)
        shown = ", ".join(f"`{one}`" for one in sorted(allowed)) or "nothing"
        text = "everything above" if len(allowed) > 1 and allowed == seen else shown
        yield f"| {', '.join(f'`{name}`' for name in names)} | {text} |"
        seen |= set(names)


def test_the_table_of_imports_is_that_of_the_layer_test() -> None:
    assert "\n".join(import_table()) in PAGE


def test_the_tree_shows_every_package_and_every_file_at_the_top() -> None:
    tree = PAGE.split("```text\n")[1].split("```")[0]
    shown = set(re.findall(r"[├└]── (?:\S+, )*(\w+)/? ", tree)) | FREE
    packages = {path.parent.name for path in PACKAGE.rglob("__init__.py")} - {"mongover"}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert shown == packages | files
    assert all(name in tree for name in FREE)


def test_every_decision_is_linked() -> None:
    linked = set(re.findall(r"\]\(decisions/([^)]+)\)", PAGE))
    assert linked == {path.name for path in (ROOT / "docs" / "decisions").glob("*.md")}


def way(title: str) -> list[tuple[str, Call]]:
    """The calls of a table: the room, and the call."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| `([\w/.]+)` → `([\w.]+)` \|", section, re.MULTILINE)
    return [(room, (file, function)) for room, file, function in rows]


def calls_of(command: str) -> list[Call]:
    """Every call of a function of mongover that a command makes in its own thread, in order."""
    calls: list[Call] = []

    def note(frame: Any, event: str, _: object) -> None:
        code = frame.f_code  # bodies of modules and classes are no calls
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED:
            path = Path(code.co_filename)
            if path.is_relative_to(PACKAGE):
                calls.append((path.relative_to(PACKAGE).as_posix(), code.co_qualname))

    sys.setprofile(note)
    try:
        code = run([command])
    finally:
        sys.setprofile(None)
    assert code == 0
    return calls


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with one pending revision, which the environment names."""
    project.write("0001", 'op.create_collection("users")')
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("MONGOVER_URL", project.server.url)
    monkeypatch.setenv("MONGOVER_DATABASE", project.database)
    monkeypatch.setenv("MONGOVER_VERSIONS", str(project.versions))
    return project


@pytest.mark.parametrize("command", ["upgrade", "status"])
@pytest.mark.usefixtures("here")
def test_a_command_goes_the_way_of_the_page_and_through_no_other_room(command: str) -> None:
    told = way(f"The way of one {command}")
    calls = calls_of(command)
    place = 0
    for room, call in told:
        assert call in calls, f"{call} is never called"
        assert call in calls[place:], f"{call} comes before {told[: told.index((room, call))][-1]}"
        place = calls.index(call, place) + 1
        assert room == call[0].partition("/")[0].removesuffix(".py")
    crossed = {file.partition("/")[0].removesuffix(".py") for file, _ in calls}
    assert crossed - FREE == {room for room, _ in told}
