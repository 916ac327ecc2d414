"""Files against history on a real server: what blocks; diff, repair, restore, verify, rebase."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mongover.cli.app import run as run_command
from mongover.errors import (
    Ahead,
    Blocked,
    DuplicateRevision,
    Edited,
    InvalidRevision,
    MissingFile,
    OutOfOrder,
    RevisionFailed,
    UnknownTarget,
    UsageError,
)
from mongover.history.changes import Resolution
from mongover.history.record import Direction
from mongover.revisions.text import difference
from tests.support.depth import examples
from tests.support.projects import (  # noqa: F401 - fixtures
    make_project_fixture,
    standalone_project_fixture,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.projects import Project

TEXT = '''\
"""create users"""

from datetime import timedelta

revision = "0001"
down_revision = None
schema = "users"

NAME = "users"


def upgrade(op):
    """Make it."""
    op.db["marks"].insert_one({"name": NAME, "text": """one
two"""})


def downgrade(op):
    op.db["marks"].delete_many({"name": "users"})
'''
HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "CRLF": lambda raw: raw.replace(b"\n", b"\r\n"),
    "old line ends": lambda raw: raw.replace(b"\n", b"\r"),
    "byte order mark": lambda raw: b"\xef\xbb\xbf" + raw,
    "mark and CRLF": lambda raw: b"\xef\xbb\xbf" + raw.replace(b"\n", b"\r\n"),
    "comment": lambda raw: raw.replace(b"    op.db", b"    # why\n    op.db", 1),
    "blank lines": lambda raw: raw.replace(b"\n\n\n", b"\n\n\n\n\n"),
    "quotes": lambda raw: raw.replace(b'"users"', b"'users'"),
    "docstring": lambda raw: raw.replace(b"Make it.", b"Make the users."),
    "layout": lambda raw: raw.replace(b'delete_many({"', b'delete_many(\n        {"'),
    "trailing space": lambda raw: raw.replace(b"None\n", b"None   \n"),
}
HARMFUL: dict[str, Callable[[bytes], bytes]] = {
    "literal": lambda raw: raw.replace(b'NAME = "users"', b'NAME = "user"'),
    "line of a text": lambda raw: raw.replace(b"one\ntwo", b"one\n two"),
    "call": lambda raw: raw.replace(b"delete_many", b"delete_one"),
    "link": lambda raw: raw.replace(b'schema = "users"', b'schema = "people"'),
    "broken body": lambda raw: raw.replace(b"op.db", b"op..db", 1),
    "new downgrade line": lambda raw: raw + b"    op.log('x')\n",
}


def put(project: Project, raw: bytes = TEXT.encode(), name: str = "0001_users.py") -> Path:
    path = project.versions / name
    path.write_bytes(raw)
    return path


def dump(project: Project) -> dict[str, Any]:
    """Every document of the database and every file."""
    names = sorted(project.db.list_collection_names())
    found: dict[str, Any] = {name: list(project.db[name].find().sort("_id", 1)) for name in names}
    files = sorted(project.versions.iterdir())
    return found | {path.name: path.read_bytes() for path in files}


def kinds(project: Project) -> list[str]:
    return [problem.kind for problem in project.migrator().verify()]


# ── what blocks and what does not ────────────────────────────────────────────────────────────────


def test_what_says_the_same_never_blocks_and_is_shown_as_such(standalone_project: Project) -> None:
    project, migrator = standalone_project, standalone_project.migrator()
    path = put(project)
    migrator.upgrade()
    for name, change in HARMLESS.items():
        raw = change(TEXT.encode())
        assert raw != TEXT.encode(), name
        path.write_bytes(raw)
        assert migrator.upgrade().revisions == (), name
        assert migrator.plan(Direction.DOWN, "-1").steps, name
        lines_only = name in ("CRLF", "old line ends", "byte order mark", "mark and CRLF")
        assert [one.kind for one in migrator.verify()] == ([] if lines_only else ["reformatted"])
    assert migrator.downgrade("-1").revisions == ("0001",)


def test_what_says_something_else_blocks_both_ways_and_changes_nothing(
    standalone_project: Project,
) -> None:
    project, migrator = standalone_project, standalone_project.migrator()
    path = put(project)
    migrator.upgrade()
    for name, change in HARMFUL.items():
        raw = change(TEXT.encode())
        assert raw != TEXT.encode(), name
        path.write_bytes(raw)
        before = dump(project)
        acts: list[Callable[[], object]] = [migrator.upgrade, lambda: migrator.downgrade("-1")]
        for act in acts:
            with pytest.raises(Edited, match="0001 was edited") as caught:
                act()
            assert "mongover diff 0001" in caught.value.notes[1]
            assert "mongover repair 0001" in caught.value.hint
        assert dump(project) == before, name


@settings(max_examples=examples(0.25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    comments=st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.booleans(),
)
def test_any_comments_and_line_ends_leave_the_meaning_and_come_back_byte_for_byte(
    standalone_project: Project, *, comments: list[str], ending: str, mark: bool
) -> None:
    project, migrator = standalone_project, standalone_project.migrator()
    project.history.delete_many({})
    text = TEXT + "".join(f"# {comment}\n" for comment in comments)
    raw = (("\ufeff" if mark else "") + text.replace("\n", ending)).encode()
    path = put(project, raw)
    migrator.upgrade()
    path.unlink()
    assert migrator.restore("0001") == path
    assert path.read_bytes() == raw
    path.write_text(TEXT)
    assert migrator.upgrade().revisions == ()
    migrator.close()


# ── diff and what an edited file's error says ────────────────────────────────────────────────────


def test_the_error_of_an_edited_file_says_where_it_differs(standalone_project: Project) -> None:
    project, migrator = standalone_project, standalone_project.migrator()
    path = put(project)
    migrator.upgrade()
    path.write_text(TEXT.replace('"text": """one\ntwo"""', '"text": "one",\n"more": 1'))
    with pytest.raises(Edited) as caught:
        migrator.upgrade()
    assert "upgrade() differs in 2 lines (`mongover diff 0001`)" in caught.value.notes[1]
    assert "applied " in caught.value.notes[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("delete_many", "delete_one"), "downgrade() differs in 1 line"),
        (('NAME = "users"', 'NAME = "user"'), "the rest of the file differs in 1 line"),
        (
            ("def upgrade(op):", "def upgrade(op, x=1):\n    x += 1"),
            "upgrade() differs in 2 lines",
        ),
        (("def downgrade(op):", "def undo(op):"), "downgrade() is gone and the rest"),
        (("op.db", "op..db"), "cannot be parsed"),
    ],
)
def test_a_difference_is_counted_in_lines_of_each_function(
    change: tuple[str, str], said: str
) -> None:
    assert said in difference(TEXT, TEXT.replace(*change))


def test_a_diff_shows_what_changed_and_is_empty_for_line_ends(standalone_project: Project) -> None:
    project, migrator = standalone_project, standalone_project.migrator()
    path = put(project)
    migrator.upgrade()
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert migrator.diff("0001") == ""
    path.write_text(TEXT.replace("delete_many", "delete_one"))
    lines = migrator.diff("1").splitlines()
    assert [line for line in lines if line[0] in "+-"][2:] == [
        '-    op.db["marks"].delete_many({"name": "users"})',
        '+    op.db["marks"].delete_one({"name": "users"})',
    ]
    path.write_bytes(b"\xff")
    with pytest.raises(InvalidRevision, match="not UTF-8"):
        migrator.diff("0001")
    path.unlink()
    with pytest.raises(MissingFile) as caught:
        migrator.diff("0001")
    assert "mongover restore 0001" in caught.value.hint


# ── repair ───────────────────────────────────────────────────────────────────────────────────────


def test_a_repair_accepts_the_file_and_is_logged(standalone_project: Project) -> None:
    project, migrator = standalone_project, standalone_project.migrator()
    path = put(project)
    migrator.upgrade()
    path.write_text(HARMFUL["literal"](TEXT.encode()).decode())
    repaired = migrator.repair("0001", reason="a typing mistake")
    assert (repaired.source, repaired.state) == (path.read_text(), "applied")
    assert [(one.action, one.outcome, one.reason) for one in repaired.log][-1] == (
        "repair",
        "accepted",
        "a typing mistake",
    )
    assert kinds(project) == []
    assert migrator.upgrade().revisions == ()
    with pytest.raises(UsageError, match="needs no repair"):
        migrator.repair("0001", reason="again")


def test_a_repair_says_that_warnings_were_mended_and_keeps_them_in_the_log(
    standalone_project: Project,
) -> None:
    project, migrator = standalone_project, standalone_project.migrator()
    put(project)
    migrator.upgrade()
    project.history.update_one({"_id": "0001"}, {"$set": {"warnings": ["no index a", "no b"]}})
    (problem,) = migrator.verify()
    assert (problem.kind, problem.error) == ("degraded", None)
    assert problem.message == "0001 was applied with warnings: no index a (and 1 more)"
    assert "mongover repair 0001" in problem.hint
    repaired = migrator.repair("0001", reason="built by hand")
    assert (repaired.warnings, kinds(project)) == ((), [])
    assert repaired.log[-1].error == {"type": "Warnings", "message": "no index a; no b"}


# ── restore ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS.keys())
def test_a_restored_file_is_the_applied_one_byte_for_byte(
    change: Callable[[bytes], bytes], standalone_project: Project
) -> None:
    project, migrator = standalone_project, standalone_project.migrator()
    raw = change(TEXT.encode())
    path = put(project, raw, "0001 a näme.py")
    migrator.upgrade()
    path.unlink()
    assert kinds(project) == ["missing"]
    assert migrator.restore("0001") == path
    assert path.read_bytes() == raw
    assert kinds(project) == []
    assert migrator.downgrade("-1").revisions == ("0001",)


def test_a_restore_never_writes_over_a_file_of_its_number(standalone_project: Project) -> None:
    project, migrator = standalone_project, standalone_project.migrator()
    path = put(project)
    migrator.upgrade()
    path.unlink()
    for raw in (b"", b"\xff\xfe", TEXT.encode()):
        other = put(project, raw, "0001_other.py")
        with pytest.raises(UsageError, match=r"0001_other\.py is there") as caught:
            migrator.restore("0001")
        assert "mongover restore 0001" in caught.value.hint
        assert other.read_bytes() == raw
    assert not path.exists()


def test_only_what_was_applied_from_here_can_be_restored(standalone_project: Project) -> None:
    project, migrator = standalone_project, standalone_project.migrator()
    put(project)
    with pytest.raises(UsageError, match="holds no text of 0001"):
        migrator.restore("0001")
    with pytest.raises(UnknownTarget):
        migrator.restore("0007")
    assert project.db.list_collection_names() == []


# ── revisions that only the history knows ────────────────────────────────────────────────────────


def test_a_reverted_revision_without_a_file_is_still_found(standalone_project: Project) -> None:
    project, migrator = standalone_project, standalone_project.migrator()
    first = put(project)
    second = project.write("0002", after="0001", schema="users")
    migrator.upgrade()
    migrator.downgrade("-1")
    second.unlink()
    for name in ("0002", "2", "002"):
        shown = migrator.show(name)
        assert (shown.revision, shown.record and shown.record.state) == (None, "reverted")
    assert [one.revision for one in migrator.history("0002")] == ["0002"]
    assert [one.revision for one in migrator.history("0001:0002")] == ["0001", "0002"]
    assert [one.revision for one in migrator.history("users")] == ["0001", "0002"]
    assert kinds(project) == []
    assert migrator.upgrade().revisions == ()
    with pytest.raises(MissingFile, match="0002 has no file"):
        migrator.stamp("0002", reason="why not")
    assert migrator.restore("2") == second
    assert migrator.upgrade().revisions == ("0002",)
    first.unlink()
    with pytest.raises(MissingFile, match="0001"):
        migrator.downgrade("base")


def test_a_newer_database_stops_an_older_release_which_reverts_nothing(
    standalone_project: Project,
) -> None:
    project, migrator = standalone_project, standalone_project.migrator()
    put(project)
    newer = project.write("0002", after="0001", schema="users")
    migrator.upgrade()
    newer.unlink()
    before = dump(project)
    acts: list[Callable[[], object]] = [migrator.upgrade, lambda: migrator.downgrade("-1")]
    for act in acts:
        with pytest.raises(Ahead, match="newer than every file") as caught:
            act()
        assert "mongover restore 0002" in caught.value.hint
    assert dump(project) == before


def test_a_file_inserted_below_applied_ones_follows_the_policy(standalone_project: Project) -> None:
    project = standalone_project
    put(project)
    top = project.write("0003", after="0001", schema="users")
    project.migrator().upgrade()
    project.write("0002", after="0001", schema="users")
    top.write_text(top.read_text().replace("down_revision = '0001'", "down_revision = '0002'"))
    project.migrator().repair("0003", reason="0002 was inserted")
    before = dump(project)
    with pytest.raises(OutOfOrder, match="0002 is pending, but 0003") as caught:
        project.migrator().upgrade()
    assert "mongover rebase 0002" in caught.value.hint
    assert dump(project) == before
    assert kinds(project) == ["out-of-order"]
    warned = project.migrator(out_of_order="warn")
    assert warned.plan(Direction.UP, "head").notices[0].startswith("out of order: 0002")
    assert project.migrator(out_of_order="allow").upgrade().revisions == ("0002",)


# ── rebase by the name of a file ─────────────────────────────────────────────────────────────────


def test_the_command_that_a_twin_number_names_gives_one_of_them_the_next(
    standalone_project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project, migrator = standalone_project, standalone_project.migrator()
    put(project)
    project.write("0002", after="0001", schema="users").rename(project.versions / "0002_a.py")
    migrator.upgrade()
    project.write("0002", after="0001", schema="users").rename(project.versions / "0002_b.py")
    with pytest.raises(DuplicateRevision, match=r"0002_a\.py and 0002_b\.py") as caught:
        migrator.upgrade()
    command = caught.value.hint.partition("mongover ")[2]
    assert command == "rebase 0002_b.py"
    monkeypatch.chdir(project.folder)
    for name in ("URL", "DATABASE", "VERSIONS"):
        monkeypatch.setenv(f"MONGOVER_{name}", str(getattr(migrator.config, name.lower())))
    monkeypatch.setenv("MONGOVER_URL", project.server.url)
    assert run_command(command.split()) == 0, capsys.readouterr().err
    assert migrator.upgrade().revisions == ("0003",)
    with pytest.raises(UsageError, match="keeps its id"):
        migrator.rebase("0002_a.py")


# ── retry ────────────────────────────────────────────────────────────────────────────────────────

FAILS = """
    op.db["marks"].insert_one({})
    raise OSError("not now")
"""


def failed(project: Project, id_: str, schema: str) -> Path:
    path = project.write(id_, FAILS, schema=schema)
    with pytest.raises(RevisionFailed):
        project.migrator().upgrade(schema)
    return path


def test_a_retry_that_is_refused_resolves_nothing(standalone_project: Project) -> None:
    project = standalone_project
    edited = put(project)
    project.migrator().upgrade()
    path = failed(project, "0002", "calls")
    edited.write_text(TEXT.replace('"user', '"uzer'))
    before = dump(project)
    with pytest.raises(Edited):
        project.migrator().upgrade(retry=True)
    edited.write_text(TEXT)
    path.write_text("import nothing_of_this_name\n" + path.read_text())
    with pytest.raises(InvalidRevision, match="nothing_of_this_name"):
        project.migrator().upgrade(retry=True)
    after = dump(project)
    assert after["_migrations"] == before["_migrations"]
    assert after["marks"] == before["marks"]


def test_a_retry_resolves_only_what_it_runs(standalone_project: Project) -> None:
    project = standalone_project
    put(project)
    path = failed(project, "0002", "calls")
    failed(project, "0003", "posts")
    migrator = project.migrator()
    assert migrator.upgrade("users", retry=True).revisions == ("0001",)
    with pytest.raises(Blocked, match="several revisions are blocked: 0002, 0003"):
        migrator.upgrade(retry=True)
    assert [project.record(each)["repeatable"] for each in ("0002", "0003")] == [False, False]
    path.write_text(path.read_text().replace("raise", "return  #"))
    assert migrator.upgrade("calls", retry=True).revisions == ("0002",)
    assert project.record("0003")["repeatable"] is False
    entry = project.record("0002")["log"][-2]
    assert (entry["action"], entry["outcome"]) == ("resolve", "retry")
    assert entry["reason"] == "upgrade --retry"


def test_a_failed_downgrade_never_leads_to_the_one_below_being_reverted(
    standalone_project: Project,
) -> None:
    project, migrator = standalone_project, standalone_project.migrator()
    put(project)
    path = project.write("0002", down=FAILS, after="0001", schema="users")
    migrator.upgrade()
    with pytest.raises(RevisionFailed):
        migrator.downgrade("-1")
    before = dump(project)
    for target in ("-1", "-2", "base", "users@-1", "0001"):
        with pytest.raises(Blocked, match="0002 stopped half-way: its downgrade failed"):
            migrator.downgrade(target)
    with pytest.raises(Blocked):
        migrator.upgrade(retry=True)
    assert dump(project) == before
    assert [one.revision for one in migrator.current()] == ["0002"]
    migrator.resolve("0002", Resolution.RETRY, reason="looked at it")
    path.write_text(path.read_text().replace("raise", "return  #"))
    assert migrator.downgrade("-1").revisions == ("0002",)
    assert [one.revision for one in migrator.current()] == ["0001"]
