"""`mongover try`, `rejects` and `backups`, on a real project."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mongover.cli.app import run
from mongover.config.config import Config
from mongover.errors import OperationFailed, UsageError
from mongover.migrator import Migrator

if TYPE_CHECKING:
    from pathlib import Path

    from pymongo.database import Database

    from tests.support.servers import Server

    Db = Database[dict[str, Any]]

REVISION = '''"""split names"""

revision = "0001"
down_revision = None


def split(document):
    first, last = document["name"].split(" ")
    return {"_id": document["_id"], "first": first, "last": last}


def upgrade(op):
    op.backup("a", fields=["name"])
    op.create_index("a", "last")
    op.transform("a", split, on_error="collect")
    op.update("a", {}, [{"$set": {"full": {"$concat": ["$first", "!"]}}}])


def downgrade(op):
    op.remove_field("a", "full")
    op.restore_backup("a", fields=["name"])
'''


@pytest.fixture
def folder(tmp_path: Path, any_server: Server, any_db: Db) -> Path:
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "0001_split.py").write_text(REVISION)
    config = f"[mongover]\nurl = {any_server.url}\ndatabase = {any_db.name}\n"
    (tmp_path / "alembic-style.ini").write_text(config)
    any_db["a"].insert_many([{"_id": n, "name": f"Ana P{n}"} for n in range(5)])
    any_db["a"].insert_one({"_id": 9, "name": "Cher"})
    return tmp_path


def cli(folder: Path, *args: str) -> int:
    return run(["-c", str(folder / "alembic-style.ini"), *args])


def test_try_shows_before_and_after_and_writes_nothing(
    folder: Path, any_db: Db, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(folder, "try", "1", "--sample", "100") == 1  # one document fails
    said = capsys.readouterr().out
    assert "transform a by split: 6 of 6 documents would change" in said
    assert 'first: - → "Ana"' in said
    assert 'name: "Ana P3" → -' in said
    assert "ValueError (0001_split.py:8)" in said
    assert "index a.last" in said
    assert sorted(any_db.list_collection_names()) == ["a"]
    assert any_db["a"].count_documents({"first": {"$exists": True}}) == 0


def test_try_speaks_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli(folder, "try", "0001", "--sample", "2", "--json")
    document = json.loads(capsys.readouterr().out)
    tried = document["operations"][2]
    assert tried["looked"] == 2
    assert {"document", "changes", "deleted", "error"} == tried["differences"][0].keys()


def test_try_refuses_what_it_cannot_hold_back(folder: Path, any_db: Db) -> None:
    file = folder / "versions" / "0001_split.py"
    file.write_text(REVISION.replace('op.create_index("a", "last")', 'op.db["b"].insert_one({})'))
    with (
        Migrator.from_config(folder / "alembic-style.ini") as migrator,
        pytest.raises(OperationFailed, match=r"op\.db cannot be tried"),
    ):
        migrator.try_revision("1")
    assert "b" not in any_db.list_collection_names()


def test_rejects_are_listed_and_leave_when_the_function_is_mended(
    folder: Path, any_db: Db, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(folder, "upgrade") == 0
    capsys.readouterr()
    assert cli(folder, "rejects") == 0
    said = capsys.readouterr()
    assert "0001  a  9  ValueError (0001_split.py:8)" in said.out
    assert "mongover rejects 0001 --retry" in said.err
    assert cli(folder, "rejects", "1", "--retry") == 1
    assert "0 documents transformed, 1 left" in capsys.readouterr().out
    file = folder / "versions" / "0001_split.py"
    file.write_text(REVISION.replace('.split(" ")', '.partition(" ")[::2]'))
    assert cli(folder, "rejects", "1", "--retry") == 0
    found = any_db["a"].find_one({"_id": 9})
    assert found is not None
    assert (found["first"], found["last"], "name" in found) == ("Cher", "", False)
    assert cli(folder, "rejects", "--json") == 0
    assert json.loads(capsys.readouterr().out.partition("left\n")[2]) == {"rejects": []}


def test_a_retry_of_documents_that_are_gone_clears_them(folder: Path, any_db: Db) -> None:
    with Migrator.from_config(folder / "alembic-style.ini") as migrator:
        migrator.upgrade()
        assert [one.document for one in migrator.rejects("0001")] == [9]
        any_db["a"].delete_one({"_id": 9})
        result = migrator.retry_rejects("0001")
        assert (result.done, result.left) == (1, 0)
        assert migrator.rejects() == ()


def test_a_retry_needs_the_function_under_its_name(folder: Path) -> None:
    with Migrator.from_config(folder / "alembic-style.ini") as migrator:
        migrator.upgrade()
        file = folder / "versions" / "0001_split.py"
        file.write_text(REVISION.replace("split(", "cut(").replace('a", split', 'a", cut'))
        with pytest.raises(OperationFailed, match="no transform of a by split"):
            migrator.retry_rejects("0001")


def test_backups_are_listed_used_by_the_downgrade_and_dropped(
    folder: Path, any_db: Db, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(folder, "upgrade") == 0
    capsys.readouterr()
    assert cli(folder, "backups") == 0
    assert "_migrations_backup_0001_a  0001  a  6" in capsys.readouterr().out
    assert cli(folder, "downgrade", "-1") == 0
    names = [row["name"] for row in any_db["a"].find().sort("_id")]
    assert names == [*(f"Ana P{n}" for n in range(5)), "Cher"]
    with Migrator.from_config(folder / "alembic-style.ini") as migrator:
        with pytest.raises(UsageError, match="no backup 'a'"):
            migrator.drop_backup("a")
        assert migrator.drop_backup("_migrations_backup_0001_a").documents == 6
        assert migrator.backups() == ()
    assert "a" in any_db.list_collection_names()


@pytest.mark.parametrize(
    "act",
    [
        'drop_collection("BACKUP")',
        'rename_collection("BACKUP", "b")',
        'rename_collection("a", "BACKUP_2")',
        'delete("BACKUP", {})',
        'update("BACKUP", {}, {"$unset": {"kept": 1}})',
        'insert("BACKUP", [{"_id": 1}])',
        'remove_field("BACKUP", "kept")',
        'transform("BACKUP", lambda document: op.DELETE)',
        'copy("a", "BACKUP")',
        'backup("BACKUP")',
        'create_index("BACKUP", "kept")',
    ],
)
def test_no_operation_but_backup_and_restore_may_name_a_backup(
    folder: Path, any_db: Db, act: str
) -> None:
    backup = "_migrations_backup_0001_a"
    second = f"""revision = "0002"
down_revision = "0001"


def upgrade(op):
    op.{act.replace("BACKUP", backup)}
"""
    with Migrator.from_config(folder / "alembic-style.ini") as migrator:
        migrator.upgrade()
        (folder / "versions" / "0002_harm.py").write_text(second)
        with pytest.raises(OperationFailed, match="a backup beside it") as caught:
            migrator.upgrade()
        assert "mongover backups" in caught.value.hint
        assert [(one.name, one.documents) for one in migrator.backups()] == [(backup, 6)]


def test_only_what_begins_like_a_backup_of_this_history_is_protected() -> None:
    own = Config(collection="_m").own
    for name in (
        "_m",
        "_m_lock",
        "_m_checkpoints",
        "_m_rejects",
        "_m_backup_0001_users",
        "_m_backup_",
    ):
        assert name in own
    for name in ("_m_backup", "x_m_backup_1", "_migrations_backup_0001_users", "_m2", "backup", ""):
        assert name not in own


def test_the_commands_say_so_when_there_is_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(folder, "rejects") == 0
    assert cli(folder, "backups") == 0
    said = capsys.readouterr().err
    assert "no document was kept aside" in said
    assert "there is no backup" in said
