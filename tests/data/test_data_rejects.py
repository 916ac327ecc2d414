"""`upgrade --retry-rejects`: documents that were kept aside, tried again with an upgrade."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from mongover.cli.app import run
from mongover.errors import Edited, Interrupted, MissingFile, RevisionFailed
from mongover.migrator import Migrator
from mongover.running.stop import Stop

if TYPE_CHECKING:
    from pathlib import Path

    from pymongo.database import Database

    from mongover.running import events
    from tests.support.servers import Server

    Db = Database[dict[str, Any]]

# The function stands in a module of its own, so that it can be mended without another checksum.
WORDS = """
def number(document):
    return {**document, "n": int(document["n"]) + 1}
"""
MENDED = WORDS.replace('int(document["n"])', 'int(document["n"] or 0)')
REVISION = """
revision = "{id}"
down_revision = {down}
schema = "{schema}"

from words import number


def upgrade(op):
    op.transform("{schema}", number, on_error="collect"{options})


def downgrade(op):
    pass
"""


class Project:
    """Revisions that number documents, each its schema's; one document of each cannot be."""

    def __init__(self, folder: Path, server: Server, db: Db) -> None:
        self.folder, self.db = folder, db
        (folder / "versions").mkdir()
        lines = ["[mongover]", f"url = {server.url}", f"database = {db.name}"]
        (folder / "alembic-style.ini").write_text("\n".join(lines) + "\n")
        self.words(WORDS)

    def words(self, text: str) -> None:
        (self.folder / "words.py").write_text(text)

    def revision(self, number: str, schema: str, *, options: str = "", down: str = "None") -> Path:
        text = REVISION.format(id=number, schema=schema, down=down, options=options)
        file = self.folder / "versions" / f"{number}_{schema}.py"
        file.write_text(text)
        return file

    def fill(self, *schemas: str) -> None:
        for schema in schemas:
            self.db[schema].insert_many([{"_id": 1, "n": 1}, {"_id": 2, "n": None}])

    def migrator(self) -> Migrator:
        return Migrator.from_config(self.folder / "alembic-style.ini")

    def upgrade(self, target: str = "head", **options: Any) -> Any:
        with self.migrator() as migrator:
            return migrator.upgrade(target, **options)

    def cli(self, *args: str) -> int:
        return run(["-c", str(self.folder / "alembic-style.ini"), *args])

    def numbers(self, schema: str) -> list[Any]:
        return [row["n"] for row in self.db[schema].find().sort("_id")]

    def rejected(self) -> list[str]:
        return sorted(row["revision"] for row in self.db["_migrations_rejects"].find())


@pytest.fixture
def project(
    tmp_path: Path, any_server: Server, any_db: Db, monkeypatch: pytest.MonkeyPatch
) -> Project:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    made = Project(tmp_path, any_server, any_db)
    made.fill("a", "b")
    made.revision("0001", "a")
    made.revision("0002", "b")
    return made


@pytest.fixture(autouse=True)
def _fresh_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run imports the module of the functions as it is then, as a new process does."""
    import sys

    before = Migrator.upgrade

    def upgrade(self: Migrator, *args: Any, **options: Any) -> Any:
        sys.modules.pop("words", None)
        return before(self, *args, **options)

    monkeypatch.setattr(Migrator, "upgrade", upgrade)


def test_rejects_of_every_applied_revision_are_tried_again_when_nothing_is_pending(
    project: Project,
) -> None:
    project.upgrade()
    assert project.rejected() == ["0001", "0002"]
    project.words(MENDED)
    result = project.upgrade(retry_rejects=True)
    assert [(one.revision, one.done, one.left) for one in result.rejects] == [
        ("0001", 1, 0),
        ("0002", 1, 0),
    ]
    assert (result.run, result.revisions, result.warnings) == (None, (), ())
    assert project.numbers("a") == project.numbers("b") == [2, 1]
    assert project.rejected() == []


def test_they_are_tried_before_what_is_pending_runs(project: Project) -> None:
    project.upgrade()
    project.words(MENDED)
    body = 'revision = "0003"\ndown_revision = "0001"\nschema = "a"\n\n\ndef upgrade(op):\n'
    body += '    op.update("a", {}, {"$mul": {"n": 10}})\n'
    (project.folder / "versions" / "0003_a.py").write_text(body)
    told: list[events.Event] = []
    result = project.upgrade(retry_rejects=True, listener=told.append)
    assert result.revisions == ("0003",)
    assert project.numbers("a") == [20, 10]
    kinds = [type(event).__name__ for event in told]
    assert kinds.index("RunStarted") < kinds.index("Notice") < kinds.index("StepStarted")


def test_what_fails_again_is_a_warning_and_no_error(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.cli("upgrade") == 0
    capsys.readouterr()
    assert project.cli("upgrade", "--retry-rejects") == 0
    said = capsys.readouterr()
    assert "0 rejected documents transformed, 2 left" in said.out
    assert "nothing to do" in said.out
    assert "0001: 1 rejected document could not be transformed" in said.err
    assert "`mongover rejects 0001` says why" in said.err
    assert project.numbers("a") == [2, None]
    assert project.cli("upgrade", "--retry-rejects", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rejects"][0] == {"revision": "0001", "done": 0, "left": 1, "problem": None}
    assert len(document["warnings"]) == 2


def test_a_target_retries_only_what_it_needs(project: Project) -> None:
    project.upgrade()
    project.words(MENDED)
    result = project.upgrade("b", retry_rejects=True)
    assert [one.revision for one in result.rejects] == ["0002"]
    assert project.rejected() == ["0001"]
    result = project.upgrade("0001", retry_rejects=True)
    assert [one.revision for one in result.rejects] == ["0001"]


def test_without_rejects_no_lock_is_taken_and_nothing_is_created(project: Project) -> None:
    project.words(MENDED)
    project.upgrade()
    told: list[events.Event] = []
    result = project.upgrade(retry_rejects=True, listener=told.append)
    assert result.rejects == ()
    assert told == []
    assert "_migrations_rejects" not in project.db.list_collection_names()


def test_without_the_option_the_result_says_nothing_of_rejects(project: Project) -> None:
    project.upgrade()
    result = project.upgrade()
    assert result.rejects is None
    assert "rejects" not in result.to_json()
    assert project.rejected() == ["0001", "0002"]


def test_a_function_that_is_gone_is_named_and_the_other_revisions_go_on(project: Project) -> None:
    project.upgrade()
    project.words(MENDED + "\n\ndef count(document):\n    return None\n")
    file = project.folder / "versions" / "0001_a.py"
    file.write_text(file.read_text().replace("number", "count"))
    with project.migrator() as migrator:
        migrator.repair("0001", reason="another function")
    result = project.upgrade(retry_rejects=True)
    assert [(one.revision, one.done, one.left) for one in result.rejects] == [
        ("0001", 0, 1),
        ("0002", 1, 0),
    ]
    assert "no transform of a by number any more" in result.warnings[0]
    assert "mongover rejects 0001 --retry" in result.warnings[0]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("op.db", "op.db cannot be tried"),
        ("1 / 0", r"upgrade() raised ZeroDivisionError"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
    ],
)
def test_code_that_cannot_be_asked_for_its_transforms_is_named_and_others_go_on(
    project: Project, code: str, why: str
) -> None:
    project.upgrade()
    project.words(MENDED)
    file = project.folder / "versions" / "0001_a.py"
    file.write_text(file.read_text().replace("    op.", f"    {code}\n    op."))
    with project.migrator() as migrator:
        migrator.repair("0001", reason="to see")
    result = project.upgrade(retry_rejects=True)
    assert [(one.done, one.left) for one in result.rejects] == [(0, 1), (1, 0)]
    assert why in result.warnings[0]
    assert project.rejected() == ["0001"]
    if code == "1 / 0":
        with project.migrator() as migrator, pytest.raises(RevisionFailed) as caught:
            migrator.retry_rejects("0001")
        assert caught.value.where is not None


def test_a_file_that_is_gone_or_edited_stops_the_upgrade_before_anything_is_tried(
    project: Project,
) -> None:
    project.upgrade()
    file = project.folder / "versions" / "0001_a.py"
    file.write_text(file.read_text().replace("op.transform", "op.log('x')\n    op.transform"))
    project.words(MENDED)
    with pytest.raises(Edited, match="0001"):
        project.upgrade(retry_rejects=True)
    file.unlink()
    with pytest.raises(MissingFile, match="0001"):
        project.upgrade(retry_rejects=True)
    assert project.rejected() == ["0001", "0002"]
    result = project.upgrade("b", retry_rejects=True)  # which needs nothing of it
    assert [(one.revision, one.left) for one in result.rejects] == [("0002", 0)]


def test_a_revision_that_was_reverted_is_not_tried(project: Project) -> None:
    project.upgrade()
    with project.migrator() as migrator:
        migrator.downgrade("b@base")
    project.words(MENDED)
    result = project.upgrade("a", retry_rejects=True)
    assert [one.revision for one in result.rejects] == ["0001"]
    assert project.rejected() == ["0002"]


def test_a_revision_that_is_applied_anew_forgets_what_it_once_kept_aside(project: Project) -> None:
    project.upgrade()
    with project.migrator() as migrator:
        migrator.downgrade("b@base")
    project.words(MENDED)
    project.upgrade()
    assert project.numbers("b") == [3, 1]
    assert project.rejected() == ["0001"]  # another retry of 0002 would count its document twice
    assert [one.revision for one in project.upgrade(retry_rejects=True).rejects] == ["0001"]


def test_a_document_that_the_filter_no_longer_finds_is_not_transformed_again(
    project: Project,
) -> None:
    project.revision("0003", "c", options=', filter={"done": {"$exists": False}}')
    project.fill("c")
    project.upgrade()
    project.db["c"].update_one({"_id": 2}, {"$set": {"n": 7, "done": True}})  # mended by hand
    result = project.upgrade("c", retry_rejects=True)
    assert [(one.done, one.left) for one in result.rejects] == [(1, 0)]
    assert project.numbers("c") == [2, 7]


def test_more_rejects_than_a_page_are_each_tried_once(project: Project) -> None:
    project.db["a"].insert_many([{"_id": n, "n": None} for n in range(3, 2503)])
    project.upgrade()
    assert len(project.rejected()) == 2502
    project.words(MENDED.replace("+ 1", '+ 1 if document["_id"] % 2 else int("odd ones alone")'))
    result = project.upgrade("a", retry_rejects=True)
    assert [(one.done, one.left) for one in result.rejects] == [(1250, 1251)]
    assert project.db["a"].count_documents({"n": 1}) == 1250


def test_a_wish_to_stop_is_met_between_two_documents_and_the_lock_is_given_back(
    project: Project,
) -> None:
    project.upgrade()
    project.words(MENDED)
    stop = Stop()
    stop.request()
    with project.migrator() as migrator, pytest.raises(Interrupted, match="between two rejected"):
        migrator.retry_rejects("0001", stop=stop)
    assert project.rejected() == ["0001", "0002"]
    assert [one.left for one in project.upgrade(retry_rejects=True).rejects] == [0, 0]


def test_two_upgrades_at_once_try_every_document_once(project: Project) -> None:
    project.upgrade()
    project.words(MENDED)
    with project.migrator() as first, project.migrator() as second:
        results: list[Any] = []
        threads = [
            threading.Thread(target=lambda m=each: results.append(m.upgrade(retry_rejects=True)))
            for each in (first, second)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(one.done for result in results for one in result.rejects) == 2
    assert project.numbers("a") == project.numbers("b") == [2, 1]


def test_a_plan_cannot_show_what_a_retry_would_do(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.cli("upgrade", "--plan", "--retry-rejects") == 2
    assert "mongover rejects" in capsys.readouterr().err
    assert project.db.list_collection_names(filter={"name": "_migrations"}) == []
