"""Imports point down: read from the sources, so that type-only and in-function imports count."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import mongover

PACKAGE = Path(mongover.__file__).parent

# Every module stands on a floor; one of a package stands on its package's, and inside a package
# siblings may import each other as long as that makes no circle.
FLOORS = {
    "mongover": 0,
    "errors": 0,
    "ours": 0,
    "urls": 0,
    "collector": 0,
    "config": 1,
    "ledger": 0.5,
    "records": 1,
    "revision": 1,
    "operations": 1,
    "embedded": 1,
    "faults": 1,
    "watch": 1,
    "stop": 1,
    "identity": 1,
    "events": 1.5,  # it names the directions of the records
    "graph": 2,
    "history": 2,
    "lease": 2,
    "memory": 2,
    "authoring": 2,
    "script": 2,
    "server": 2,
    "transaction": 2,
    "rebase": 3,
    "plan": 3,
    "foresight": 3,
    "bodies": 3,
    "holding": 3,
    "store": 3,
    "checkpointing": 3,
    "trial": 3,
    "rejects": 3,
    "backups": 3,
    "catalogue": 4,
    "lookahead": 4,
    "survey": 4,
    "doctor": 4,
    "runner": 4,
    "ownership": 4,
    "losses": 4,
    "mending": 4,
    "turn": 4.5,  # it runs the runner under a lease
    "migrator": 5,
    "cli": 6,
    "web": 6,
    "startup": 6,
    "testing": 6,
    "shutdown": 5,
    "runlog": 5,
    "__main__": 7,
}
# The facade of the package loads names from above, lazily and for types: that is what it is for.
FACADE = "mongover"


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


def test_every_module_has_a_floor() -> None:
    assert {top(name) for name in MODULES} <= FLOORS.keys()


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_lower_floors(name: str) -> None:
    here = FLOORS[top(name)]
    for imported in imports_of(modules()[name]):
        if top(imported) == top(name):
            continue
        there = FLOORS[top(imported)]
        assert there < here, f"{name} (floor {here}) imports {imported} (floor {there})"


@pytest.mark.parametrize("package", ["operations", "cli", "web", "testing"])
def test_modules_of_a_package_import_each_other_without_circles(package: str) -> None:
    paths = {name: path for name, path in modules().items() if top(name) == package}
    links = {name: imports_of(path) & paths.keys() - {name} for name, path in paths.items()}
    while links:
        free = {name for name, needed in links.items() if not needed & links.keys()}
        assert free, f"these import each other in a circle: {sorted(links)}"
        links = {name: needed for name, needed in links.items() if name not in free}


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


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'op'"):
        mongover.op  # noqa: B018 - the access is what is tested


def test_every_exception_has_a_code_and_the_tree_is_drawn_with_it() -> None:
    errors = importlib.import_module("mongover.errors")
    tree = errors.__doc__ or ""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    ours = [kind for kind in kinds if issubclass(kind, errors.MongoverError)]
    assert [kind.__name__ for kind in ours if kind.__name__ not in tree] == []
    leaves = [kind for kind in ours if not kind.__subclasses__()]
    assert [kind.__name__ for kind in leaves if kind.code not in tree] == []
    assert all(kind.__doc__ for kind in ours)
