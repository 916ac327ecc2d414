"""Imports point down: read from the sources, so that type-only and in-function imports count."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest

import mongover

PACKAGE = Path(mongover.__file__).parent

# Free to all.
FREE = {"errors", "version", "process"}
# One row per package: what it may import beside itself. Imports for types and in functions count.
ROOMS = {
    "config": set[str](),
    "operations": {"config"},
    "database": {"config"},
    "revisions": {"config"},
    "history": {"config", "database"},
    "planning": {"history", "revisions"},
    "running": {"config", "operations", "database", "revisions", "history", "planning"},
    "preflight": {"running", "planning", "operations", "history", "database"},
    # The values of every room below become documents here.
    "report": {
        *("preflight", "running", "planning", "operations", "history", "database", "revisions"),
    },
}
ROOMS["migrator"] = set(ROOMS)
ROOMS |= {name: set(ROOMS) for name in ("startup", "cli", "web", "testing")}
# The facade of the package loads names from above, lazily and for types: that is what it is for.
FACADE = "mongover"
ENTRANCES = {FACADE, "__main__"}
TOP = {"__init__", "__main__", "version", "errors", "process", "migrator", "startup"}


def modules() -> dict[str, Path]:
    """Every module by its dotted name below `mongover`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join(parts) or FACADE] = path
    return found


def imports_of(path: Path) -> set[str]:
    """The modules of mongover that a file imports anywhere, dotted, below `mongover`."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} line {node.lineno}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name.removeprefix("mongover.") for name in found if name.startswith("mongover.")}
    return {_module(name, known) for name in ours}


def _module(name: str, known: dict[str, Path]) -> str:
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or FACADE


def top(name: str) -> str:
    return name.partition(".")[0]


MODULES = [name for name in modules() if name != FACADE]


def test_at_the_top_stand_the_rooms_and_seven_files() -> None:
    files = {path.stem for path in PACKAGE.glob("*.py")}
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert files == TOP
    assert rooms | files - {"__init__"} == ROOMS.keys() | FREE | {"__main__"}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_the_rooms_that_its_own_may_use(name: str) -> None:
    here = top(name)
    if here in ENTRANCES | FREE:
        return
    used = {top(imported) for imported in imports_of(modules()[name])} - {here} - FREE
    assert used <= ROOMS[here], f"{name} imports {sorted(used - ROOMS[here])}"


@pytest.mark.parametrize("name", sorted(FREE))
def test_what_is_free_to_all_imports_nothing_of_ours(name: str) -> None:
    assert not imports_of(modules()[name])


@pytest.mark.parametrize("package", sorted({top(name) for name in MODULES if "." in name}))
def test_modules_of_a_room_import_each_other_without_circles(package: str) -> None:
    paths = {name: path for name, path in modules().items() if top(name) == package}
    links = {name: imports_of(path) & paths.keys() - {name} for name, path in paths.items()}
    while links:
        free = {name for name, needed in links.items() if not needed & links.keys()}
        assert free, f"these import each other in a circle: {sorted(links)}"
        links = {name: needed for name, needed in links.items() if name not in free}


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_lives_there(name: str) -> None:
    assert ast.get_docstring(ast.parse(modules()[name].read_text(encoding="utf-8")))


def test_the_documented_modules_can_be_imported_by_their_names() -> None:
    from mongover.embedded import open_embedded  # type: ignore[import-not-found]

    from mongover.config import load_config

    assert load_config.__module__ == "mongover.config.load"
    assert open_embedded.__module__ == "mongover.database.embedded"


def test_the_exported_names_are_these_and_can_be_loaded() -> None:
    assert sorted(mongover.__all__) == [
        "Config",
        "Migrator",
        "MongoverError",
        "Operation",
        "Operations",
        "__version__",
    ]
    for name in mongover.__all__:
        assert getattr(mongover, name) is not None
    assert dir(mongover) == sorted(mongover.__all__)


def test_the_names_of_the_web_package_can_be_loaded() -> None:
    web = importlib.import_module("mongover.web")
    for name in web.__all__:
        assert getattr(web, name) is not None


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'op'"):
        mongover.op  # noqa: B018 - the access is what is tested


def test_every_exception_has_a_code_and_the_tree_is_drawn_with_it() -> None:
    errors = importlib.import_module("mongover.errors")
    tree = errors.__doc__ or ""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    ours: list[Any] = [kind for kind in kinds if issubclass(kind, errors.MongoverError)]
    assert [kind.__name__ for kind in ours if kind.__name__ not in tree] == []
    leaves = [kind for kind in ours if not kind.__subclasses__()]
    assert [kind.__name__ for kind in leaves if kind.code not in tree] == []
    assert all(kind.__doc__ for kind in ours)
