"""The doctor: each finding is fine or says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mongover.database.server import ServerInfo
from mongover.preflight import doctor
from mongover.report.documents import findings_document
from tests.support.projects import (  # noqa: F401 - fixtures
    make_project_fixture,
    project_fixture,
    standalone_project_fixture,
)
from tests.support.servers import failpoint

if TYPE_CHECKING:
    from tests.support.projects import Project

NAMES = ["reach", "version", "topology", "transactions", "privileges", "lease"]


def examine(project: Project) -> dict[str, Any]:
    return {one.name: one for one in project.migrator().doctor()}


def test_a_healthy_replica_set_has_nothing_to_complain_of(project: Project) -> None:
    found = examine(project)
    assert [name for name in NAMES if name in found] == NAMES
    assert all(found[name].ok for name in NAMES)
    assert found["transactions"].detail == "yes"
    assert found["lease"].detail == "free"
    assert findings_document([found["reach"]])["findings"] == [
        {"name": "reach", "ok": True, "detail": found["reach"].detail, "hint": ""}
    ]


def test_a_standalone_is_fine_but_has_no_transactions(standalone_project: Project) -> None:
    finding = examine(standalone_project)["transactions"]
    assert finding.ok
    assert "standalone" in finding.detail
    assert "--replSet" in finding.hint


@pytest.mark.parametrize(("shift", "words"), [(60_000, "alive"), (-1, "expired")])
def test_a_lock_is_told_with_its_holder(project: Project, shift: int, words: str) -> None:
    project.locks.insert_one({"_id": "lock", "owner": "x", "holder": {"user": "ana"}})
    project.locks.update_one({}, [{"$set": {"expires_at": {"$add": ["$$NOW", shift]}}}])
    finding = examine(project)["lease"]
    assert finding.ok
    assert words in finding.detail
    assert "ana@" in finding.detail


@pytest.mark.parametrize(
    ("version", "ok"), [("4.2.9", False), ("4.4.0", True), ("8.0.1-rc2", True), ("10.0.0", True)]
)
def test_an_old_server_is_told_to_be_upgraded(version: str, ok: bool) -> None:
    info = ServerInfo("a", version, "standalone", transactions=False, writable=True)
    finding = doctor._version(info)
    assert finding.ok is ok
    assert bool(finding.hint) is not ok


def test_a_secondary_is_told_how_to_be_reached_rightly() -> None:
    info = ServerInfo("rs0/a", "6.0", "replica set", transactions=True, writable=False)
    assert "replicaSet" in doctor._writable(info).hint


@pytest.mark.parametrize(
    ("privileges", "enough"),
    [
        ([{"resource": {"anyResource": True}, "actions": ["anyAction"]}], True),
        ([{"resource": {"db": "", "collection": ""}, "actions": sorted(doctor._NEEDED)}], True),
        ([{"resource": {"db": "shop", "collection": ""}, "actions": ["find"]}], False),
        ([{"resource": {"db": "shop", "collection": "c"}, "actions": ["anyAction"]}], False),
        ([{"resource": {"db": "other", "collection": ""}, "actions": ["anyAction"]}], False),
        ([{"resource": {"cluster": True}, "actions": ["anyAction"]}], False),
    ],
)
def test_only_what_is_granted_on_the_whole_database_counts(
    privileges: list[dict[str, Any]], enough: bool
) -> None:
    assert (doctor._granted(privileges, "shop") >= doctor._NEEDED) is enough


def test_a_server_that_refuses_to_say_is_a_finding_not_a_crash(project: Project) -> None:
    refused = {
        "failCommands": ["connectionStatus", "aggregate"],
        "errorCode": 13,
        "appName": "mongover",
    }
    with failpoint(project.client, "failCommand", "alwaysOn", refused):
        found = examine(project)
    assert not found["privileges"].ok
    assert not found["lease"].ok
