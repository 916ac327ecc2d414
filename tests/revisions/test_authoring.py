from __future__ import annotations

import ast
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mongover.config.config import database_problem, settings
from mongover.config.load import load_config
from mongover.errors import ConfigError, DuplicateRevision, UsageError
from mongover.revisions.folder import read_revisions
from mongover.revisions.header import parse_revision
from mongover.revisions.project import database_name, init_project
from mongover.revisions.write import next_id, restore_file, slug, write_revision
from mongover.running.script import load_script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mongover.config.config import Config
    from mongover.revisions.revision import Revision

MESSAGES = st.text(max_size=60)
WHEN = datetime(2026, 11, 22, 9, tzinfo=UTC)


def write(folder: Path, message: str = "create users", **options: Any) -> Path:
    return write_revision(folder, **{"id": "0001", "message": message, **options})


def parsed(path: Path) -> Revision:
    return parse_revision(path, path.read_bytes())


# ---- new files -------------------------------------------------------------------------------


def test_a_new_file_is_the_revision_that_was_asked_for(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        id="0007",
        schema="users",
        down_revision="0006",
        depends_on=("0002",),
        create_date=WHEN,
        transaction=True,
    )
    assert path == tmp_path / "0007_create_users.py"
    revision = parsed(path)
    assert (revision.id, revision.schema, revision.message) == ("0007", "users", "create users")
    assert (revision.down_revision, revision.depends_on) == (("0006",), ("0002",))
    assert (revision.transaction, revision.has_downgrade) == (True, True)
    assert revision.create_date == "2026-11-22 09:00:00+00:00"


def test_a_new_file_reads_like_this(tmp_path: Path) -> None:
    path = write(tmp_path, schema="users", create_date=WHEN)
    assert (
        path.read_bytes().decode()
        == '''"""create users

Revision ID: 0001
Revises:
Schema: users
Create Date: 2026-11-22 09:00:00+00:00
"""

from mongover import Operations

revision = "0001"
down_revision = None
schema = "users"
depends_on = ()


def upgrade(op: Operations) -> None:
    pass  # op.create_index("users", "email", unique=True)


def downgrade(op: Operations) -> None:
    pass  # op.drop_index("users", "email_1")
'''
    )


def test_a_merge_has_both_parents_and_nothing_to_do(tmp_path: Path) -> None:
    path = write(tmp_path, id="0008", down_revision=("0006", "0007"))
    assert parsed(path).down_revision == ("0006", "0007")
    assert path.read_text().count("    pass\n") == 2
    assert "Revises: 0006, 0007\n" in path.read_text()


def test_the_date_of_a_new_file_is_now(tmp_path: Path) -> None:
    found = datetime.fromisoformat(parsed(write(tmp_path)).create_date or "none")
    assert abs((datetime.now(UTC) - found).total_seconds()) < 60


@given(message=MESSAGES)
@example(message='say "hi"')
@example(message='"""')
@example(message='""""x""""')
@example(message="back\\slash \\")
@example(message="two\nlines\r\n\tand a tab")
@example(message="a\\N{DASH} \\x00 \\u12")
@example(message="nul \0 bell \a")
@example(message="umlaut ä, 顧客, \U0001f600\u200d")
@example(message="$message ${id} $$")
@example(message="Revision ID: 9")
@example(message="lone \udc80 surrogate")
@example(message="{x} %s [bold]")
def test_any_message_comes_back_as_it_was_but_for_its_white_space(
    tmp_path_factory: pytest.TempPathFactory, message: str
) -> None:
    folder = tmp_path_factory.mktemp("versions")
    expected = " ".join(message.encode("utf-8", "replace").decode().split())
    if not expected:
        with pytest.raises(UsageError):
            write(folder, message)
        return
    path = write(folder, message)
    assert parsed(path).message == expected
    assert ast.get_docstring(ast.parse(path.read_bytes()))
    assert b"\r" not in path.read_bytes()
    load_script(parsed(path))


@given(schema=st.text(min_size=1, max_size=12))
@example(schema='a"b')
@example(schema="a\\")
def test_a_schema_comes_back_as_it_was_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, schema: str
) -> None:
    folder = tmp_path_factory.mktemp("versions")
    try:
        path = write(folder, schema=schema)
    except (UsageError, UnicodeEncodeError):
        assert list(folder.iterdir()) == []
    else:
        assert parsed(path).schema == schema


@given(MESSAGES)
def test_a_slug_is_short_safe_and_never_empty(message: str) -> None:
    found = slug(message)
    assert 1 <= len(found) <= 40
    assert re.fullmatch(r"\w+", found)
    assert not found.startswith("_")
    assert not found.endswith("_")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Create Users!", "create_users"),
        ("Ärger mit Café", "arger_mit_cafe"),
        ("../../etc/passwd", "etc_passwd"),
        ("!!!", "revision"),
        ("顧客 を 作る", "顧客_を_作る"),
        ("x" * 39 + " y", "x" * 39),
    ],
)
def test_a_slug_keeps_letters_and_digits(message: str, expected: str) -> None:
    assert slug(message) == expected


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ((), "0001"),
        (("0001", "0003"), "0004"),
        (("0009", "10"), "0011"),
        (("9999",), "10000"),
        (("0002", "helpers.py", "x"), "0003"),
    ],
)
def test_the_next_id_follows_the_highest_number(ids: Sequence[str], expected: str) -> None:
    assert next_id(ids) == expected


def test_a_number_that_a_file_has_already_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    first = write(tmp_path)
    before = first.read_bytes()
    for id_ in ("0001", "1", "00001"):
        with pytest.raises(DuplicateRevision, match=first.name):
            write(tmp_path, "other", id=id_)
    assert list(tmp_path.iterdir()) == [first]
    assert first.read_bytes() == before


def test_a_file_that_appears_meanwhile_is_never_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0001_create_users.py").write_text("mine")
    monkeypatch.setattr("mongover.revisions.write.numbered_files", lambda _: [])
    with pytest.raises(DuplicateRevision, match="left alone"):
        write(tmp_path)
    assert (tmp_path / "0001_create_users.py").read_text() == "mine"


def test_a_write_that_fails_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Any) -> Never:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mongover.revisions.write.os.fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("id_", ["", "../1", "1a", "\u0661"])
def test_an_id_that_is_no_number_is_refused(tmp_path: Path, id_: str) -> None:
    with pytest.raises(UsageError, match="no revision id"):
        write(tmp_path, id=id_)
    with pytest.raises(UsageError, match="no revision id"):
        restore_file(tmp_path, id=id_, message="x", source="")


def test_a_wrong_schema_says_what_a_schema_may_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without spaces"):
        write(tmp_path, schema="a b")


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none cannot be written: No such file"):
        write(tmp_path / "none")


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "versions"
    folder.write_text("a file, where a folder should be")
    with pytest.raises(ConfigError, match=r"cannot be (written|read)|no folder"):
        write(folder, "x")


# ---- restored files ----------------------------------------------------------------------------


def test_a_restored_file_is_the_recorded_text_byte_for_byte(tmp_path: Path) -> None:
    source = write(tmp_path, "ä").read_text()
    path = restore_file(tmp_path / "new", id="0001", message="ä", source=source)
    assert path == tmp_path / "new" / "0001_a.py"
    assert path.read_bytes().decode() == source


def test_a_restored_file_takes_its_old_name_only_when_that_is_safe(tmp_path: Path) -> None:
    def restored(name: str, folder: str) -> str:
        return restore_file(tmp_path / folder, id="0001", message="x", source="", name=name).name

    assert restored("0001-Old Name.py", "a") == "0001-Old Name.py"
    assert restored("0002_other.py", "b") == "0001_x.py"
    assert restored("0001/../../x.py", "c") == "0001_x.py"
    assert restored("0001_x.sh", "d") == "0001_x.py"


def test_a_restored_file_never_replaces_another(tmp_path: Path) -> None:
    (tmp_path / "0001_other.py").write_text("mine")
    with pytest.raises(DuplicateRevision):
        restore_file(tmp_path, id="0001", message="x", source="theirs")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        restore_file(tmp_path / "file" / "versions", id="1", message="x", source="")
    with pytest.raises(ConfigError, match="cannot be written"):
        init_project(tmp_path / "file" / "project")


# ---- a new project -------------------------------------------------------------------------------


def loaded(folder: Path, **environ: str) -> Config:
    return load_config(None, overrides={}, environ=environ, cwd=folder)


def test_a_new_project_can_be_used_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "My Shop!"
    project = init_project(folder)
    assert {path.name for path in project.created} == {
        "versions",
        ".gitignore",
        "alembic-style.ini",
    }
    config = loaded(folder)
    assert config.url.reveal() == f"embedded:{folder}/.mongover/db"
    assert config.database == "My_Shop"
    assert config.versions == folder / "versions"
    assert read_revisions(config.versions).revisions == {}
    assert (folder / ".gitignore").read_text() == ".mongover/\n"


@given(st.text())
def test_every_folder_gives_a_database_name_that_the_server_takes(folder: str) -> None:
    name = database_name(folder)
    assert database_problem(name) is None
    assert name.lower() not in {"admin", "local", "config", ""}


def test_every_key_stands_in_the_new_configuration_with_its_true_default(tmp_path: Path) -> None:
    init_project(tmp_path, database="shop")
    path = tmp_path / "alembic-style.ini"
    text = path.read_text()
    path.write_text(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    config = loaded(tmp_path)
    for setting in settings():
        assert f"# {setting.doc}\n" in text
        if setting.name not in {"url", "database", "versions"}:
            assert getattr(config, setting.name) == setting.default


def test_a_second_init_changes_nothing(tmp_path: Path) -> None:
    init_project(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    project = init_project(tmp_path, url="mongodb://other", database="other")
    assert project.kept == (tmp_path / "alembic-style.ini",)
    assert project.created == project.changed == ()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_init_that_stopped_halfway_is_finished_by_the_next(tmp_path: Path) -> None:
    init_project(tmp_path)
    (tmp_path / "alembic-style.ini").unlink()
    project = init_project(tmp_path)
    assert project.created == (tmp_path / "alembic-style.ini",)
    assert set(project.kept) == {tmp_path / "versions", tmp_path / ".gitignore"}


def test_a_pyproject_with_our_section_is_configuration_enough(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.mongover]\n")
    assert init_project(tmp_path).kept == (tmp_path / "pyproject.toml",)
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]


def test_an_existing_gitignore_gains_one_line_and_loses_none(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.pyc")
    assert init_project(tmp_path).changed == (tmp_path / ".gitignore",)
    assert (tmp_path / ".gitignore").read_text() == "*.pyc\n.mongover/\n"


def test_a_project_on_a_server_ignores_nothing(tmp_path: Path) -> None:
    init_project(tmp_path, url="mongodb://h:27017", database="shop")
    assert not (tmp_path / ".gitignore").exists()
    assert loaded(tmp_path).url.reveal() == "mongodb://h:27017"


@pytest.mark.parametrize(
    ("folder", "database"), [("admin", "admin_app"), ("...", "app"), ("ä", "app")]
)
def test_a_folder_name_that_is_no_database_is_made_one(
    tmp_path: Path, folder: str, database: str
) -> None:
    init_project(tmp_path / "x" / folder.replace("...", "_._"))
    assert loaded(tmp_path / "x" / folder.replace("...", "_._")).database == database


def test_a_password_is_never_written_into_the_configuration(tmp_path: Path) -> None:
    for url in ("mongodb://ana:s3cret@h", "mongodb://h/?tlsCertificateKeyFilePassword=s3cret"):
        with pytest.raises(UsageError, match="holds a password") as caught:
            init_project(tmp_path, url=url)
        assert "s3cret" not in f"{caught.value}{caught.value.hint}"
    assert list(tmp_path.iterdir()) == []
    init_project(tmp_path, url="mongodb://ana:${PW}@h", database="shop")
    assert loaded(tmp_path, PW="x").url.reveal() == "mongodb://ana:x@h"


def test_a_dollar_sign_in_a_url_survives_the_configuration(tmp_path: Path) -> None:
    init_project(tmp_path, url="mongodb://h/?appName=a$$b$c", database="shop")
    assert loaded(tmp_path).url.reveal() == "mongodb://h/?appName=a$$b$c"


def test_wrong_arguments_make_no_project(tmp_path: Path) -> None:
    for wrong in ({"url": "mysql://h"}, {"database": "a b"}, {"database": ""}):
        with pytest.raises(UsageError):
            init_project(tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_given_in_relation_to_here_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert init_project(Path("shop")).created[-1] == tmp_path / "shop" / "alembic-style.ini"
    assert loaded(tmp_path / "shop").database == "shop"
