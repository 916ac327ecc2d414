from __future__ import annotations

import ast
import os
from typing import TYPE_CHECKING, Any, Never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mongover.errors import (
    ConfigError,
    CycleError,
    DuplicateRevision,
    InvalidRevision,
    MultipleHeads,
    UnknownTarget,
    UsageError,
)
from mongover.revisions.folder import read_revisions
from mongover.revisions.header import parse_revision
from mongover.revisions.rebase import rebase, rebase_text, relink_text
from mongover.revisions.write import write_revision

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SOURCE = '''"""add phone

Revision ID: 0006
Revises: 0001
Schema: users
"""
revision = "0006"
down_revision = "0001"  # was 0001
schema = "users"


def upgrade(op):
    op.log("0006 after 0001")
'''


# ---- texts -----------------------------------------------------------------------------------


def test_only_the_header_and_its_notes_change() -> None:
    expected = (
        SOURCE.replace("Revision ID: 0006", "Revision ID: 0009")
        .replace("Revises: 0001", "Revises: 0008")
        .replace('revision = "0006"', 'revision = "0009"')
        .replace('down_revision = "0001"', 'down_revision = "0008"')
    )
    assert rebase_text(SOURCE, new_id="0009", new_down_revision="0008") == expected


def test_there_and_back_again_is_the_same_text() -> None:
    moved = rebase_text(SOURCE, new_id="0009", new_down_revision=None)
    assert "\nRevises:\n" in moved
    assert "down_revision = None  # was 0001" in moved
    assert rebase_text(moved, new_id="0006", new_down_revision="0001") == SOURCE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("revision = '1'\ndown_revision = '0'\n", "revision = '9'\ndown_revision = '8'\n"),
        (
            "revision: str = '1'\ndown_revision = None\n",
            "revision: str = '9'\ndown_revision = '8'\n",
        ),
        ("revision = ('1')\n", "revision = ('9'\ndown_revision = '8')\n"),
        ('revision="1";down_revision=("0",\n"2")\n', 'revision="9";down_revision="8"\n'),
        ('"""Revises: 0"""\nrevision="1"', '"""Revises: 0"""\nrevision="9"\ndown_revision = "8"'),
        ("'ä'\nrevision = \"1\"  # é\r\nx", '\'ä\'\nrevision = "9"\ndown_revision = "8"  # é\r\nx'),
        (
            'r"""x\n\n  Revises: 0"""\nrevision="1";down_revision="0"',
            'r"""x\n\n  Revises: 8"""\nrevision="9";down_revision="8"',
        ),
    ],
)
def test_quotes_notes_and_layout_are_kept(text: str, expected: str) -> None:
    assert rebase_text(text, new_id="9", new_down_revision="8") == expected


@given(
    noise=st.text(st.characters(codec="utf-8", exclude_characters="\0\f"), max_size=30),
    bom=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_everything_else_stays_byte_for_byte(*, noise: str, bom: bool, end: str) -> None:
    comment = "# " + "".join(noise.splitlines())
    source = ("\ufeff" if bom else "") + end.join(
        [
            f'"""{noise.encode("unicode_escape").decode().replace(chr(34), "")}',
            "Revision ID: 0006",
            '"""',
            comment,
            f"x = {noise!r}",
            f"revision = '0006' {comment}",
            'down_revision = ("0001", "0002")',
            f"def upgrade(op): pass {comment}",
        ]
    )
    moved = rebase_text(source, new_id="0009", new_down_revision="0008")
    changes = [
        ("Revision ID: 0006", "Revision ID: 0009"),
        ("revision = '0006'", "revision = '0009'"),
        ('("0001", "0002")', '"0008"'),
    ]
    for old, new in changes:
        before, _, after = source.partition(old)
        source = before + new + after
    assert moved == source


def test_links_to_an_old_id_follow_it_in_header_and_notes() -> None:
    text = '''"""m

Revises: 0006, 0007
"""
revision = "0008"
down_revision = ("0006", '0007')  # 0006
depends_on = ["0006", "00061"]
other = "0006"
'''
    assert relink_text(text, old="0006", new="0009") == (
        text.replace("Revises: 0006", "Revises: 0009")
        .replace('("0006"', '("0009"')
        .replace('["0006"', '["0009"')
    )
    assert relink_text(text, old="0001", new="0009") == text
    only = relink_text(text, old="0006", new="0009", links=["depends_on"])
    assert only == text.replace('["0006"', '["0009"')


def test_a_header_over_a_body_that_is_no_python_can_still_be_edited() -> None:
    text = 'revision = "1"\ndown_revision = "0"\ndef upgrade(op):\n    = = =\n'
    assert rebase_text(text, new_id="9", new_down_revision="8") == (
        'revision = "9"\ndown_revision = "8"\ndef upgrade(op):\n    = = =\n'
    )


def test_an_odd_escape_in_a_text_is_no_warning() -> None:
    text = 'revision = "1"\ndown_revision = "0"\nx = "\\d"\n'
    assert '"9"' in rebase_text(text, new_id="9", new_down_revision="8")


def test_a_text_that_is_no_revision_is_refused() -> None:
    with pytest.raises(InvalidRevision, match="cannot be parsed"):
        rebase_text("revision = = 1", new_id="9", new_down_revision=None)
    with pytest.raises(InvalidRevision, match="no line"):
        rebase_text("def f(): pass", new_id="9", new_down_revision=None)
    with pytest.raises(InvalidRevision, match="cannot be parsed"):
        relink_text("(\n", old="1", new="2")


# ---- files -------------------------------------------------------------------------------------


def make(
    folder: Path,
    id_: str,
    down: str | Sequence[str] | None = None,
    *,
    schema: str = "users",
    depends_on: Sequence[str] = (),
    name: str | None = None,
) -> Path:
    """Write a revision; several may carry one number."""
    beside = folder / f"tmp{len(list(folder.iterdir()))}"
    beside.mkdir()
    path = write_revision(
        beside,
        id=id_,
        message=name or f"m{id_}",
        schema=schema,
        down_revision=down,
        depends_on=depends_on,
    )
    target = folder / path.name
    path.rename(target)
    beside.rmdir()
    return target


def links(folder: Path) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Every file as `name: parents / dependencies`, readable ones only."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        each = parse_revision(path, path.read_bytes())
        found[path.name] = (each.down_revision, each.depends_on)
    return found


def test_a_second_head_is_put_on_top_of_the_first(tmp_path: Path) -> None:
    # 0001 ── 0002      0001 ── 0002 ── 0003
    #     └── 0003  →
    make(tmp_path, "0001")
    make(tmp_path, "0002", "0001")
    path = make(tmp_path, "0003", "0001")
    assert rebase(read_revisions(tmp_path), "0003") == [path]
    assert links(tmp_path) == {
        "0001_m0001.py": ((), ()),
        "0002_m0002.py": (("0001",), ()),
        "0003_m0003.py": (("0002",), ()),
    }


def test_a_lower_number_gets_the_next_free_one_and_its_file_a_new_name(tmp_path: Path) -> None:
    make(tmp_path, "0001")
    old = make(tmp_path, "0002", "0001", name="add phone")
    make(tmp_path, "0003", "0001")
    make(tmp_path, "0007", schema="calls", depends_on=("0002",))
    written = rebase(read_revisions(tmp_path), "0002")
    assert [path.name for path in written] == ["0008_add_phone.py", "0007_m0007.py"]
    assert not old.exists()
    assert links(tmp_path) == {
        "0001_m0001.py": ((), ()),
        "0003_m0003.py": (("0001",), ()),
        "0007_m0007.py": ((), ("0008",)),
        "0008_add_phone.py": (("0003",), ()),
    }


def test_children_come_along(tmp_path: Path) -> None:
    # 0001 ── 0002 ── 0003      0001 ── 0004 ── 0005(0002) ── 0003
    #     └── 0004          →
    make(tmp_path, "0001")
    make(tmp_path, "0002", "0001")
    make(tmp_path, "0003", "0002")
    make(tmp_path, "0004", "0001")
    rebase(read_revisions(tmp_path), "0002")
    assert links(tmp_path)["0003_m0003.py"] == (("0005",), ())
    assert links(tmp_path)["0005_m0002.py"] == (("0004",), ())
    assert len(links(tmp_path)) == 4


def test_two_files_with_one_number_are_told_apart_by_name(tmp_path: Path) -> None:
    make(tmp_path, "0001")
    make(tmp_path, "0002", "0001", name="ana")
    make(tmp_path, "0002", "0001", name="luis")
    make(tmp_path, "0003", "0002", name="on top of either")
    with pytest.raises(DuplicateRevision, match=r"0002_ana\.py, 0002_luis\.py"):
        rebase(read_revisions(tmp_path), "0002")
    written = rebase(read_revisions(tmp_path), "0002_luis.py")
    assert [path.name for path in written] == ["0004_luis.py"]
    assert links(tmp_path) == {
        "0001_m0001.py": ((), ()),
        "0002_ana.py": (("0001",), ()),
        "0003_on_top_of_either.py": (("0002",), ()),
        "0004_luis.py": (("0003",), ()),
    }
    assert read_revisions(tmp_path).broken == {}


def test_two_files_with_one_number_in_two_schemas_keep_their_own_children(tmp_path: Path) -> None:
    make(tmp_path, "0001", name="users")
    mine = make(tmp_path, "0001", schema="calls", name="calls")
    make(tmp_path, "0002", "0001", name="users child")
    make(tmp_path, "0003", "0001", schema="calls", name="calls child")
    make(tmp_path, "0004", schema="x", depends_on=("0001",), name="either")
    rebase(read_revisions(tmp_path), str(mine))
    assert links(tmp_path) == {
        "0001_users.py": ((), ()),
        "0002_users_child.py": (("0001",), ()),
        "0003_calls_child.py": (("0005",), ()),
        "0004_either.py": ((), ("0001",)),
        "0005_calls.py": ((), ()),
    }


def test_a_parent_can_be_chosen(tmp_path: Path) -> None:
    for id_ in ("0002", "0003", "0004"):
        make(tmp_path, id_, "0001")
    make(tmp_path, "0001")
    files = read_revisions(tmp_path)
    with pytest.raises(MultipleHeads, match="0002, 0003"):
        rebase(files, "0004")
    rebase(files, "0004", onto="0002")
    assert links(tmp_path)["0004_m0004.py"] == (("0002",), ())


def test_a_rebase_that_makes_no_sense_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path, "0001")
    make(tmp_path, "0002", "0001")
    make(tmp_path, "0003", "0002")
    make(tmp_path, "0004", schema="calls", depends_on=("0003",))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    files = read_revisions(tmp_path)
    with pytest.raises(CycleError):
        rebase(files, "0001", onto="0003")
    with pytest.raises(CycleError):
        rebase(files, "0003", onto="0004")
    with pytest.raises(UnknownTarget, match="no revision of users"):
        rebase(files, "0002", onto="0009")
    with pytest.raises(UnknownTarget, match="no readable revision file is 0009"):
        rebase(files, "0009")
    with pytest.raises(UsageError, match="already"):
        rebase(files, "0004")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_broken_neighbour_does_not_stop_a_rebase(tmp_path: Path) -> None:
    make(tmp_path, "0001")
    make(tmp_path, "0002", "0001")
    make(tmp_path, "0003", "0001")
    (tmp_path / "0005_broken.py").write_text("revision = = 1")
    rebase(read_revisions(tmp_path), "0002")
    assert (tmp_path / "0006_m0002.py").exists()


def test_modes_and_links_of_the_file_system_are_kept(tmp_path: Path) -> None:
    versions = tmp_path / "versions"
    versions.mkdir()
    make(versions, "0001")
    make(versions, "0002", "0001")
    make(versions, "0003", "0001")
    child = make(versions, "0004", "0002")
    real = tmp_path / "real.py"
    child.rename(real)
    real.chmod(0o640)
    child.symlink_to(real)
    rebase(read_revisions(versions), "0002")
    assert child.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert parse_revision(child, real.read_bytes()).down_revision == ("0005",)
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []


@pytest.mark.parametrize("stop", range(6))
def test_a_crash_at_any_point_loses_no_text_and_breaks_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    make(tmp_path, "0001")
    make(tmp_path, "0002", "0001")
    make(tmp_path, "0003", "0001")
    make(tmp_path, "0004", "0002")
    make(tmp_path, "0005", schema="calls", depends_on=("0002",))
    files = read_revisions(tmp_path)
    steps = iter(range(100))
    crash = KeyboardInterrupt if stop % 2 else OSError

    def dying(real: Any) -> Any:
        def act(*args: Any, **kwargs: Any) -> Any:
            if next(steps) == stop:
                raise crash(5, "gone")
            return real(*args, **kwargs)

        return act

    monkeypatch.setattr("mongover.revisions.write.os.fsync", dying(os.fsync))
    monkeypatch.setattr("pathlib.Path.replace", dying(type(tmp_path).replace))
    monkeypatch.setattr("pathlib.Path.unlink", dying(type(tmp_path).unlink))
    with pytest.raises((ConfigError, KeyboardInterrupt)):
        rebase(files, "0002")
    monkeypatch.undo()
    found = [parse_revision(path, path.read_bytes()) for path in sorted(tmp_path.glob("*.py"))]
    ids = {each.id for each in found}
    assert {"m0001", "m0002", "m0003", "m0004", "m0005"} == {each.message for each in found}
    for each in found:
        assert ids.issuperset((*each.down_revision, *each.depends_on))
        ast.parse(each.source)


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path, "0001")
    files = read_revisions(tmp_path)

    def refuse(_: Any) -> Never:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(ConfigError, match=path.name):
        rebase(files, "0001")
