"""The five schemas in `versions/`: exactly their indexes, links and downgrades."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mongover.migrator import Migrator
from mongover.revisions.folder import read_revisions
from tests.support.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.database import Database

    from tests.support.servers import Server

TIMES = ("createdAt", "updatedAt")
SINGLE = {
    "users": ("email", "role", "isActive", *TIMES),
    "assistants": ("name", "isActive", "voiceType", "language", *TIMES),
    "clients": ("email", "isActive", *TIMES),
    "schedules": ("scheduledDate", "status", "assistantId", "clientId", *TIMES),
    "calls": ("startTime", "endTime", "status", "assistantId", "clientId", "scheduleId", *TIMES),
}
COMPOUND = {
    "schedules": [(name, "scheduledDate") for name in ("assistantId", "clientId", "status")],
    "calls": [(name, "startTime") for name in ("assistantId", "clientId", "status", "scheduleId")],
}
UNIQUE = {"users": {"email_1"}, "clients": {"email_1"}}
NEEDS = {"schedules": {"0001", "0002", "0003"}, "calls": {"0001", "0002", "0003", "0004"}}


def indexes_of(database: Database[dict[str, Any]], name: str) -> dict[str, Any]:
    """The indexes of a collection by name, without `_id_`."""
    return {k: v for k, v in database[name].index_information().items() if k != "_id_"}


def test_each_schema_has_exactly_its_indexes_and_no_documents(
    any_server: Server, open_database: Callable[..., Database[dict[str, Any]]]
) -> None:
    database = open_database(any_server)
    with Migrator.from_config(
        url=any_server.url, database=database.name, environ={}, cwd=ROOT
    ) as migrator:
        assert migrator.upgrade().revisions == ("0001", "0002", "0003", "0004", "0005")
        for name, fields in SINGLE.items():
            found = indexes_of(database, name)
            keys = sorted(tuple(key for key, _ in each["key"]) for each in found.values())
            assert keys == sorted([*((field,) for field in fields), *COMPOUND.get(name, [])])
            assert {key for key, each in found.items() if each.get("unique")} == UNIQUE.get(
                name, set()
            )
            assert database[name].count_documents({}) == 0
        counts = [len(indexes_of(database, name)) for name in SINGLE]
        assert counts == [5, 6, 4, 9, 12]


def test_each_downgrade_takes_back_what_its_upgrade_made(
    replica_set: Server, open_database: Callable[..., Database[dict[str, Any]]]
) -> None:
    database = open_database(replica_set)
    with Migrator.from_config(
        url=replica_set.url, database=database.name, environ={}, cwd=ROOT
    ) as migrator:
        migrator.upgrade()
        for left in (4, 3, 2, 1, 0):
            migrator.downgrade("-1")
            names = {name for name in database.list_collection_names() if name in SINGLE}
            assert names == set(list(SINGLE)[:left])


@pytest.mark.parametrize("schema", SINGLE)
def test_each_schema_depends_on_what_it_refers_to(schema: str) -> None:
    revisions = read_revisions(ROOT / "versions").revisions.values()
    (revision,) = (each for each in revisions if each.schema == schema)
    assert set(revision.depends_on) == NEEDS.get(schema, set())
    assert revision.down_revision == ()
