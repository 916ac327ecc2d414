"""What a server can do, as one value: known by its version, asked where that changes nothing."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from pymongo.errors import ConfigurationError

import mongover
from mongover.database import faults
from mongover.database.capabilities import _SINCE, Capabilities, Feature, probe
from mongover.database.server import connect
from mongover.errors import DatabaseError, OperationFailed
from mongover.operations.base import Need
from mongover.report.status import _documents_in
from tests.support.operations_support import Desk, capabilities_of
from tests.support.projects import make_project_fixture, project_fixture  # noqa: F401 - fixtures
from tests.support.servers import ROOT

if TYPE_CHECKING:
    from pymongo.database import Database

    from tests.support.projects import Project
    from tests.support.servers import Server

    Db = Database[dict[str, Any]]

PACKAGE = Path(mongover.__file__).parent


def test_every_feature_that_is_named_has_a_version() -> None:
    assert set(_SINCE) == set(get_args(Feature))
    assert set(get_args(Need)) <= set(get_args(Feature))


@pytest.mark.parametrize(
    ("version", "feature", "there"),
    [
        ("4.4.2", "time series", False),
        ("5.0.4", "time series", True),
        ("5.0.4", "clustered collections", False),
        ("5.3.0", "clustered collections", True),
        ("6.0.5", "prepareUnique", True),
        ("10.0.1-rc0", "constraint, errorAndLog", True),
        ("8.2.0", "constraint, errorAndLog", False),
        ("9.0.0", "search indexes", False),
        ("", "time series", False),
    ],
)
def test_a_version_tells_what_a_server_has(version: str, feature: Feature, there: bool) -> None:
    assert Capabilities(version, "replica set").has(feature) is there


def test_what_is_lacking_is_named_with_the_version_that_has_it() -> None:
    old = Capabilities("4.4.2", "standalone")
    assert old.lacks("clustered collections") == (
        "MongoDB 4.4.2 has no clustered collections: they come with 5.3"
    )
    assert "a replica set has them" in old.lacks("transactions")
    assert Capabilities("6.0.5", "replica set").lacks("clustered collections") == ""


def test_the_table_of_the_page_is_what_the_value_says() -> None:
    page = (ROOT / "docs" / "servers.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    versions = next(row for row in rows if row[-1:] == ["from"])[1:-1]
    found = {row[0]: row[1:-1] for row in rows if row[:1] and row[0] in _SINCE}
    assert set(_SINCE) - set(found) == {"transactions", "killSessions"}
    for name, cells in found.items():
        known = [Capabilities(version, "replica set") for version in versions]
        assert [cell == "yes" for cell in cells] == [one.has(name) for one in known]  # type: ignore[arg-type]


def test_what_was_asked_counts_before_the_version() -> None:
    other = Capabilities("7.0.0", "replica set", {"killSessions": False})
    assert not other.has("killSessions")
    assert "another server" in other.lacks("killSessions")
    assert Capabilities("4.4.2", "standalone", {"time series": True}).has("time series")


def test_the_probe_agrees_with_the_version_and_leaves_nothing_behind(any_db: Db) -> None:
    known = capabilities_of(any_db)
    asked = probe(known, any_db)
    assert {name: known.has(name) for name in asked.probed} == asked.probed
    assert asked.probed.keys() >= {"$setField, $getField", "$$ROOT in $expr", "killSessions"}
    assert any_db.list_collection_names() == []


def test_only_capabilities_compares_version_numbers() -> None:
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            about = ast.unparse(node) if isinstance(node, ast.Compare) else ""
            if ".version" in about or "buildInfo" in about:
                found.append(f"{path.relative_to(PACKAGE)}: {about}")
    assert found == []


LACKING = [
    ("create_collection", ("a",), {"clustered_index": True}, "clustered collections", "5.3"),
    ("create_collection", ("a",), {"timeseries": {"timeField": "t"}}, "time-series", "5.0"),
    (
        "create_collection",
        ("a",),
        {"change_stream_pre_and_post_images": True},
        "change-stream pre- and post-images",
        "6.0",
    ),
    (
        "create_collection",
        ("a",),
        {"change_stream_pre_and_post_images": False},
        "change-stream pre- and post-images",
        "6.0",
    ),
    ("modify_collection", ("b",), {"capped_size": 4096}, "capped collection's size", "6.0"),
    ("set_validator", ("b", {"required": ["x"]}), {"level": "constraint"}, "errorAndLog", "9.0"),
    ("create_collection", ("a",), {"validation_level": "constraint"}, "errorAndLog", "9.0"),
]


@pytest.mark.parametrize("case", LACKING)
def test_what_the_server_lacks_is_refused_by_name_before_anything_is_sent(
    replica_db: Db, case: tuple[str, tuple[Any, ...], dict[str, Any], str, str]
) -> None:
    verb, args, options, what, since = case
    replica_db.create_collection("b", capped=True, size=8192)
    desk = Desk(replica_db, server=Capabilities("4.4.2", "replica set"))
    with pytest.raises(OperationFailed) as caught:
        desk.do(verb, *args, **options)
    assert "MongoDB 4.4.2 has no" in caught.value.message
    assert what in caught.value.message
    assert f"with {since}" in caught.value.message
    assert caught.value.after == "it was not sent: nothing was changed."
    assert desk.book.stakes == []  # it never began
    assert replica_db.list_collection_names() == ["b"]


def test_a_creation_that_the_server_lacks_is_a_warning_where_failed_creations_are(
    replica_db: Db,
) -> None:
    desk = Desk(replica_db, server=Capabilities("4.4.2", "replica set"), strict=False)
    assert desk.do("create_collection", "a", clustered_index=True) == "warning"
    assert "clustered collections" in desk.book.warnings[0]
    assert replica_db.list_collection_names() == []


def test_a_run_asks_the_server_what_it_is_once(project: Project) -> None:
    project.write("0001", up='op.create_collection("a")')
    with project.migrator() as migrator, migrator._turn() as turn:
        asked = []
        real = turn.store.server.info
        turn.store.server.info = lambda: asked.append(1) or real()  # type: ignore[method-assign,func-returns-value]
        assert turn.store.server.known() == turn.store.server.known()
        assert len(asked) == 1


def test_the_doctor_lists_what_the_server_can_do(project: Project) -> None:
    found = {one.name: one for one in project.migrator().doctor()}
    assert found["killSessions"].detail == "yes, asked"
    assert found["constraint, errorAndLog"].detail == "no: they come with 9.0"
    assert all(one.ok for one in found.values())


def test_retryable_writes_stay_off_where_the_url_says_so() -> None:
    for option, expected in (("", True), ("?retryWrites=false", False)):
        server = connect(f"mongodb://127.0.0.1:1/{option}", "x", timeout=0.1)
        server.close()
        assert server.client.options.retry_writes is expected


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (
            "this version of PyMongo requires at least 9 (MongoDB 4.4).",
            "upgrade the server to MongoDB 4.4 or newer",
        ),
        (
            "this version of PyMongo only supports up to 29.",
            "pip install --upgrade pymongo",
        ),
    ],
)
def test_a_server_that_the_driver_cannot_speak_to_is_told_to_be_upgraded_not_the_url(
    said: str, hint: str
) -> None:
    ours = faults.translate(ConfigurationError(said), address="h:1", timeout=1)
    assert isinstance(ours, DatabaseError)
    assert ours.hint == hint


def test_a_counter_that_a_kill_left_below_zero_is_never_shown(standalone_db: Db) -> None:
    class Broken:
        """A collection of MongoDB 4.4 after a kill."""

        def estimated_document_count(self) -> int:
            return -1

        def count_documents(self, query: dict[str, Any]) -> int:
            return int(standalone_db.a.count_documents(query))

    standalone_db.a.insert_many([{}, {}])
    assert _documents_in(standalone_db.a) == 2
    assert _documents_in(Broken()) == 2


def test_a_real_server_is_what_the_value_says(any_server: Server, any_db: Db) -> None:
    assert capabilities_of(any_db).transactions is any_server.has_transactions
