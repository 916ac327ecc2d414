"""What the pages say is true: their commands and programs are run, their tables compared."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from dataclasses import MISSING
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
import pytest
from pymongo import MongoClient

from mongover import errors
from mongover.cli.app import COMMANDS, cli
from mongover.config.config import settings
from mongover.config.load import load_config
from mongover.errors import OperationFailed
from mongover.operations import Operations
from mongover.operations.bulk.pace import replication_lag
from mongover.preflight.doctor import _NEEDED
from tests.support.operations_support import Desk
from tests.support.pages import (
    ROOT,
    Block,
    PageFolder,
    alike,
    blocks_of,
    commands_of,
    needs_op,
    run_page,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pymongo.database import Database

    from mongover.config.kinds import Setting
    from tests.support.servers import Server

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
EVERY_PAGE = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
RUNNABLE = frozenset({"console", "python"})
PLAIN = frozenset(
    {"text", "sh", "ini", "toml", "js", "json", "yaml", "console", "python", "check", "copy"}
)


def _blocks(path: Path) -> list[Block]:
    return list(blocks_of(path.read_text()))


def _section(text: str, title: str) -> str:
    """What stands below a heading, up to the next one of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert found, f"there is no section {title!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


# -------------------------------------------------------------------------------------- all pages


@EVERY_PAGE
def test_commands_and_programs_do_what_the_page_shows(path: Path, tmp_path: Path) -> None:
    with PageFolder(tmp_path / "page" / "shop") as page:
        findings = [str(finding) for finding in run_page(page, _blocks(path))]
    assert not findings, "\n\n".join(findings)


@pytest.mark.parametrize(
    "path",
    [path for path in PAGES if any(map(needs_op, _blocks(path)))],
    ids=lambda path: path.name,
)
def test_examples_of_operations_work_one_after_the_other(
    path: Path, replica_db: Database[dict[str, Any]]
) -> None:
    op = Desk(replica_db).op
    for block in _blocks(path):
        names = {"op": op, "db": replica_db, "__name__": "example"}
        if block.language == "check":
            assert eval(block.text, names), f"line {block.line}: {block.text}"  # noqa: S307 - our own page
        elif block.language == "python" and block.note != "skip" and needs_op(block):
            place = f"{path.name}, line {block.line}"
            code = compile(block.text, place, "exec", dont_inherit=True)
            exec(code, names)  # noqa: S102 - our own page


@EVERY_PAGE
def test_every_block_is_of_a_known_kind_and_skips_give_a_reason(path: Path) -> None:
    for block in _blocks(path):
        assert block.language in PLAIN, f"line {block.line}: {block.language!r}"
        assert block.note != "skip" or len(block.value) > 10, f"line {block.line}: why?"
        if block.language == "json" and block.note != "skip":
            json.loads(block.text)


@EVERY_PAGE
def test_links_lead_to_files_and_headings_that_exist(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in _anchors(linked), f"{path.name} links to {target}"


def _anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", text))
    assert "](CONTRIBUTING.md)" in text
    assert {path.name for path in DOCS.glob("*.md")} <= linked


# ----------------------------------------------------------------------------------- the reader


def test_a_console_block_is_read_as_commands_with_output_and_exit_code() -> None:
    block = Block("console", "$ a  # exit 4\none\n\n$ b \\\n> c\n", 10)
    first, second = commands_of(block)
    assert (first.text, first.output, first.code, first.line) == ("a", ("one",), 4, 11)
    assert (second.text, second.output, second.code) == ("b \\\nc", None, 0)


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        (["took 3 ms"], ["took   1.4 s"], True),
        (["a", "…", "d"], ["a", "b", "c", "d"], True),
        (["a", "…"], ["a"], True),
        (["a"], ["a", "b"], False),
        (["a", "b"], ["a"], False),
        (["0001 applied"], ["0002 applied"], False),
        (["4 documents"], ["5 documents"], False),
        (["at 2026-01-01 10:00:00"], ["at 2027-03-04 11:12:13"], True),
    ],
)
def test_output_is_compared_without_what_differs_from_run_to_run(
    expected: list[str], actual: list[str], same: bool
) -> None:
    assert alike(expected, actual) is same


def test_a_page_that_lies_is_found(tmp_path: Path) -> None:
    text = "```console\n$ echo one\ntwo\n$ true  # exit 3\n```\n"
    with PageFolder(tmp_path / "page" / "shop") as page:
        findings = list(run_page(page, list(blocks_of(text))))
    assert [(one.actual, one.code) for one in findings] == [(["one"], 0), ([], 0)]


# --------------------------------------------------------------------- tables against the code


def key_table() -> Iterator[str]:
    """The table of keys, as configuration.md must hold it."""
    yield "| key | variable | default | value | meaning |"
    yield "|---|---|---|---|---|"
    for one in settings():
        kind = one.kind.allowed
        yield f"| `{one.name}` | `{one.variable}` | {_default(one)} | {kind} | {one.doc} |"


def _default(setting: Setting) -> str:
    value = setting.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`" if str(value) else "–"  # noqa: RUF001 - a dash in a table


def test_the_table_of_keys_is_that_of_the_code() -> None:
    assert "\n".join(key_table()) in (DOCS / "configuration.md").read_text()


def test_every_variable_of_the_code_is_documented() -> None:
    text = (DOCS / "configuration.md").read_text()
    found: set[str] = set()
    for path in (ROOT / "mongover").rglob("*.py"):
        found.update(re.findall(r'"(MONGOVER_[A-Z_]+)"', path.read_text()))
    assert sorted(name for name in found if f"`{name}`" not in text) == []


def test_the_sample_configuration_is_read_and_shows_every_key_with_its_default() -> None:
    text = (ROOT / "alembic-style.ini").read_text()
    config = load_config(ROOT / "alembic-style.ini", overrides={}, environ={}, cwd=ROOT)
    assert config.database == "shop"
    given = {"url", "database", "versions"}
    for one in settings():
        line = (
            f"{one.name} =" if one.name in given else f"# {one.name} = {_default(one).strip('`')}"
        )
        assert re.search(rf"^{re.escape(line)}", text, re.MULTILINE), line


def _exceptions() -> list[type[errors.MongoverError]]:
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
    found = [one for one in classes if issubclass(one, errors.MongoverError)]
    abstract = {errors.FilesError, errors.LockError, errors.RevisionError, errors.HistoryError}
    return [one for one in found if one not in abstract]


@pytest.mark.parametrize("kind", _exceptions(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_section_with_its_exit_code_its_cause_and_a_way_out(
    kind: type[errors.MongoverError],
) -> None:
    section = _section((DOCS / "errors.md").read_text(), f"{kind.code} {kind.__name__}")
    assert f"Exit code {kind.exit_code}." in section
    assert len(section) > 80


def test_the_page_of_errors_describes_no_error_that_is_gone() -> None:
    text = (DOCS / "errors.md").read_text()
    described = set(re.findall(r"^## (MGV\d{3} \w+)$", text, re.MULTILINE))
    assert described == {f"{kind.code} {kind.__name__}" for kind in _exceptions()}


def test_every_verb_of_op_has_an_example() -> None:
    text = (DOCS / "operations.md").read_text()
    code = "".join(block.text for block in _blocks(DOCS / "operations.md"))
    for name in vars(Operations):
        if not name.startswith("_") and name.islower():
            assert re.search(rf"^### .*\b{name}\b", text, re.MULTILINE), name
            assert f"op.{name}" in code, name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_with_all_its_options(name: str) -> None:
    section = _section((DOCS / "cli.md").read_text(), name)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    shared = {option for one in cli.params for option in one.opts}
    for param in command.params:
        named = [(param.metavar or str(param.name).upper()).strip("[]")]
        for option in set(param.opts if isinstance(param, click.Option) else named) - shared:
            assert option in section, f"{name} {option}"


def test_the_page_of_commands_describes_no_command_that_is_gone() -> None:
    text = (DOCS / "cli.md").read_text()
    assert set(re.findall(r"^### (\w+)$", text, re.MULTILINE)) == set(COMMANDS)


def test_the_fields_of_a_record_are_those_of_the_page(replica_project: Project) -> None:
    replica_project.run("upgrade")
    text = (DOCS / "history.md").read_text()
    for collection, title in (("_migrations", "A record"), ("_migrations_lock", "The lock")):
        for document in replica_project.database[collection].find():
            section = _section(text, title)
            listed = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
            assert set(document) <= listed, f"{title}: {set(document) - listed} is not told"
    record = replica_project.database["_migrations"].find_one("0001")
    assert record is not None
    listed = set(re.findall(r"^\| `(\w+)` \|", _section(text, "A record"), re.MULTILINE))
    assert listed <= set(record), f"{listed - set(record)} is told and not stored"


# ------------------------------------------------------------------------------ least privileges


class Project:
    """The sample project against one database of a test server."""

    def __init__(self, url: str, database: Database[dict[str, Any]], tools: PageFolder) -> None:
        self.url, self.database, self.tools = url, database, tools

    def run(self, *words: str) -> str:
        done = subprocess.run(
            ["mongover", *words],
            cwd=ROOT,
            env=self.tools.environ()
            | {"MONGOVER_URL": self.url, "MONGOVER_DATABASE": self.database.name},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def replica_project(
    replica_set: Server, replica_db: Database[dict[str, Any]], tmp_path: Path
) -> Iterator[Project]:
    with PageFolder(tmp_path / "page" / "shop") as tools:
        yield Project(replica_set.url, replica_db, tools)


def _role_command(role: str) -> dict[str, Any]:
    """The command of privileges.md that creates a role."""
    page = _blocks(DOCS / "privileges.md")
    script = next(block.text for block in page if f'"createRole": "{role}"' in block.text)
    command: dict[str, Any] = json.loads(script[script.index("{") : script.rindex("}") + 1])
    return command


def _role_for(database: str) -> dict[str, Any]:
    """The command for the role of a run, for another database."""
    command = _role_command("mongover")
    for privilege in command["privileges"]:
        privilege["resource"]["db"] = database
    return command


def test_the_role_of_the_page_is_enough_for_the_sample_project_and_holds_what_doctor_asks_for(
    auth_server: Server,
    open_database: Callable[..., Database[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    database = open_database(auth_server)
    command = _role_for(database.name)
    assert set(command["privileges"][0]["actions"]) >= _NEEDED
    role, user, password = command["createRole"], "mongover", "p@ss/w:rd"
    database.command(command)
    database.command({"createUser": user, "pwd": password, "roles": [role]})
    url = auth_server.as_user(quote(user), password, database.name)
    with PageFolder(tmp_path / "page" / "shop") as tools:
        project = Project(url, database, tools)
        assert "all that is needed" in project.run("doctor")
        project.run("upgrade")
        project.run("downgrade", "-2")
        assert json.loads(project.run("status", "--json"))["pending"] == ["0004", "0005"]
        assert "p@ss" not in project.run("doctor", "--json")
    database.command({"dropUser": user})
    database.command({"dropRole": role})


def test_max_lag_needs_the_second_role_of_the_page_and_no_more(
    auth_server: Server, open_database: Callable[..., Database[dict[str, Any]]]
) -> None:
    database = open_database(auth_server)
    first, second = _role_for(database.name), _role_command("mongoverLag")
    second["createRole"] = f"lag_{database.name}"
    roles = [first["createRole"]]
    database.command(first)
    database.client["admin"].command(second)
    database.command({"createUser": "mongover", "pwd": "p", "roles": roles})
    with MongoClient[dict[str, Any]](auth_server.as_user("mongover", "p", database.name)) as client:
        with pytest.raises(OperationFailed, match="max_lag cannot be kept") as caught:
            replication_lag(client[database.name])
        assert "clusterMonitor" in caught.value.hint
        granted = {"role": second["createRole"], "db": "admin"}
        database.command({"grantRolesToUser": "mongover", "roles": [granted]})
        assert replication_lag(client[database.name]) == 0
    database.command({"dropUser": "mongover"})
    database.command({"dropRole": roles[0]})
    database.client["admin"].command({"dropRole": second["createRole"]})


def test_no_default_is_hidden_from_the_table() -> None:
    assert all(one.default is not MISSING for one in settings())
