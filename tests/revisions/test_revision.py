from __future__ import annotations

import ast
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mongover.errors import ConfigError, DuplicateRevision, InvalidRevision
from mongover.revisions.folder import read_revisions
from mongover.revisions.header import RESERVED_SCHEMAS, parse_revision
from mongover.revisions.text import checksum, compare, normalise_text

if TYPE_CHECKING:
    from mongover.revisions.revision import Revision

BODY = "\n\ndef upgrade(op):\n    op.log('up')\n\n\ndef downgrade(op):\n    op.log('down')\n"


def parse(header: str, name: str = "0001_users.py", body: str = BODY) -> Revision:
    return parse_revision(Path("versions") / name, (header + body).encode())


def put(folder: Path, name: str, header: str | None = None) -> Path:
    path = folder / name
    number = "".join(each for each in name.split("_", maxsplit=1)[0] if each.isdigit())
    path.write_text((header or f'revision = "{number}"\n') + BODY)
    return path


def test_a_full_header_is_read() -> None:
    revision = parse(
        '"""create calls\n\nRevision ID: 0005\nCreate Date: 2026-11-22 09:00:00+00:00\n"""\n'
        "from mongover import Operations\n"
        'revision: str = "0005"\n'
        'down_revision = ("0003", "0004")\n'
        'schema = "calls"\n'
        'depends_on = "0001"\n'
        "transaction = True\n"
        "repeatable = False\n",
        "0005_create_calls.py",
    )
    assert (revision.id, revision.schema, revision.message) == ("0005", "calls", "create calls")
    assert revision.down_revision == ("0003", "0004")
    assert revision.depends_on == ("0001",)
    assert revision.transaction is True
    assert revision.repeatable is False
    assert revision.has_downgrade
    assert revision.create_date == "2026-11-22 09:00:00+00:00"
    assert revision.checksum == checksum(revision.source)


def test_a_bare_header_has_defaults() -> None:
    revision = parse('revision = "0001"\n', "0001_add_phone-number.py", "")
    assert revision.message == "add phone-number"
    assert revision.schema is None
    assert revision.down_revision == revision.depends_on == ()
    assert revision.transaction is False
    assert revision.repeatable is None
    assert not revision.has_downgrade
    assert revision.create_date is None


def test_a_message_can_always_be_printed_and_stored() -> None:
    revision = parse('"""half \\ud800 a pair\\r[2K\n"""\nrevision = "0001"\n')
    assert revision.message == "half ? a pair"


def test_a_file_of_five_megabytes_is_read_like_any_other() -> None:
    revision = parse('revision = "0001"\n', body=BODY + "# filler\n" * 600_000)
    assert revision.has_downgrade
    assert len(revision.source) > 5_000_000


@pytest.mark.parametrize("value", ["None", "()", "[]"])
def test_no_parent_can_be_written_in_three_ways(value: str) -> None:
    assert parse(f'revision = "0001"\ndown_revision = {value}\n').down_revision == ()


@pytest.mark.parametrize(
    ("header", "line", "says"),
    [
        ("down_revision = 3", 2, "down_revision must be None, an id"),
        ("down_revision = ('0003', 4)", 2, "down_revision must be"),
        ("down_revision = ('0003', '0003')", 2, "different ids"),
        ("down_revision = ('0003', ['0004'])", 2, "down_revision must be"),
        ("down_revision = ''", 2, "down_revision must be"),
        ("down_revision = 'abc'", 2, "down_revision must be"),
        ("depends_on = '\\ud800'", 2, "depends_on must be"),
        ("down_revision = {'0003'}", 2, "down_revision must be"),
        ("down_revision = previous()", 2, "down_revision must be"),
        ("down_revision: str = f'{1}'", 2, "down_revision must be"),
        ("depends_on = -1", 2, "depends_on must be"),
        ("schema = ''", 2, "schema must be None, or a name"),
        ("schema = 'a b'", 2, "schema must be"),
        ("schema = 'a@b'", 2, "schema must be"),
        ("schema = 'a:b'", 2, "schema must be"),
        ("schema = 'a+b'", 2, "schema must be"),
        ("schema = 'a,b'", 2, "schema must be"),
        ("schema = 'a\\x00b'", 2, "schema must be"),
        ("schema = 'heads'", 2, "schema must be"),
        ("schema = '0004'", 2, "schema must be"),
        ("schema = '-1'", 2, "schema must be"),
        ("schema = 4", 2, "schema must be"),
        ("transaction = 1", 2, "transaction must be True or False"),
        ("transaction = None", 2, "transaction must be"),
        ("repeatable = 'yes'", 2, "repeatable must be None, True or False"),
        ("schema = 'a'\nschema = 'b'", 3, "assigns schema twice"),
        ("schema, transaction = 'a', True", 2, "plain lines"),
        ("depends_on = ()\ndepends_on += ('0001',)", 3, "plain lines"),
        ("revision = None", 2, "twice|string of digits"),
    ],
)
def test_a_wrong_header_line_is_named(header: str, line: int, says: str) -> None:
    with pytest.raises(InvalidRevision, match=says) as caught:
        parse(f'revision = "0001"\n{header}\n')
    where = caught.value.where
    assert where is not None
    assert (where.path, where.line) == (Path("versions/0001_users.py"), line)
    assert where.text == header.splitlines()[line - 2]
    assert f"0001_users.py, line {line}: " in caught.value.message


@pytest.mark.parametrize("value", ["4", "None", "''", "'abc'", "'٤'", "()", "'1.0'"])
def test_an_id_is_a_string_of_digits(value: str) -> None:
    with pytest.raises(InvalidRevision, match="revision must be a string of digits"):
        parse(f"revision = {value}\n")


@pytest.mark.parametrize(("name", "found"), [("0002_x.py", "0001"), ("1_x.py", "0001")])
def test_the_id_must_be_that_of_the_file_name(name: str, found: str) -> None:
    with pytest.raises(InvalidRevision, match=f'says revision = "{found}", but its name says'):
        parse(f'revision = "{found}"\n', name)


def test_a_file_without_an_id_is_refused() -> None:
    with pytest.raises(InvalidRevision, match="has no line `revision = …`"):
        parse('"""notes"""\nif True:\n    revision = "0001"\nrevision: str\n')


def test_other_assignments_are_no_business_of_the_header() -> None:
    header = 'revision = "0001"\nX = call()\na.b = 1\nx, y = 1, 2\nX += 1\nd["k"] = revision\n'
    assert parse(header).id == "0001"


def test_a_body_that_cannot_be_parsed_does_not_hide_the_header() -> None:
    assert parse('revision = "0001"\n', body="def upgrade(op:\n    ???").id == "0001"


@pytest.mark.parametrize("start", ["def f(): pass", "class A: pass", "@decorated\ndef f(): pass"])
def test_a_header_line_below_the_first_body_counts_all_the_same(start: str) -> None:
    assert parse(f'{start}\n\nrevision = "0001"\nschema = "users"\n').schema == "users"
    assert parse(f'revision = "0001"\n{start}\nschema = "users"\n').schema == "users"


def test_a_docstring_that_looks_like_code_is_a_docstring() -> None:
    revision = parse('"""why\n\ndef upgrade is odd\n@here\n"""\nrevision = "0001"\n', body="")
    assert revision.message == "why"


def test_an_unparsable_header_names_its_line() -> None:
    with pytest.raises(InvalidRevision, match="cannot be parsed") as caught:
        parse('"""x"""\nrevision = "0001\n')
    assert caught.value.where is not None
    assert (caught.value.where.line, caught.value.where.text) == (2, 'revision = "0001')


@pytest.mark.parametrize(
    "data",
    [
        b"revision = '0001'\n\x00",
        b"x = " + b"-" * 200_000 + b"1\n",
        b"x = " + b"(" * 500,
        b"x = a" + b".b" * 100_000,
        b"x = 1" + b" + 1" * 100_000,
    ],
)
def test_what_no_parser_can_read_is_refused_calmly(data: bytes) -> None:
    with pytest.raises(InvalidRevision, match="cannot be parsed"):
        parse_revision(Path("0001_x.py"), data)


def test_bytes_that_are_not_utf8_name_their_line() -> None:
    with pytest.raises(InvalidRevision, match="not UTF-8: byte 0xe9 in line 2") as caught:
        parse_revision(Path("0001_x.py"), b'revision = "0001"\n# caf\xe9\n')
    assert caught.value.where is not None
    assert caught.value.where.line == 2


def test_an_odd_escape_warns_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse('"""a \\d b"""\nrevision = "0001"\n').message == "a \\d b"
        assert compare('x = "\\d"\n', "x = '\\d'\n") == "reformatted"


@pytest.mark.parametrize(
    ("body", "there"),
    [
        ("def downgrade(op): ...", True),
        ("async def downgrade(op): ...", True),
        ("downgrade = nothing", True),
        ("def downgrade_all(op): ...", False),
        ("class A:\n    def downgrade(op): ...", False),
        ("# def downgrade(op): ...", False),
    ],
)
def test_a_missing_downgrade_is_seen_without_running_anything(body: str, there: bool) -> None:
    assert parse('revision = "0001"\n', body=f"\n{body}\n").has_downgrade is there


def test_bom_and_line_endings_do_not_change_the_checksum() -> None:
    plain = b'revision = "0001"\nx = 1\n'
    for other in (
        b"\xef\xbb\xbf" + plain,
        plain.replace(b"\n", b"\r\n"),
        plain.replace(b"\n", b"\r"),
    ):
        assert normalise_text(other.decode()) == normalise_text(plain.decode())
        revision = parse_revision(Path("0001_x.py"), other)
        assert revision.checksum == checksum(plain.decode())


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ("x = 1\n", "x = 1\n", "same"),
        ("x = 1\n", "x  =  1  # why\n\n", "reformatted"),
        ("x = 'a'\n", 'x = "a"\n', "reformatted"),
        ("x = u'a'\n", "x = 'a'\n", "reformatted"),
        ("f(1, 2)\n", "f(\n    1,\n    2,\n)\n", "reformatted"),
        ('"""a"""\nx = 1\n', '"""b"""\nx = 1\n', "reformatted"),
        ("def f():\n    'doc'\n", "def f():\n    pass\n", "reformatted"),
        ("class A:\n    'a'\n    x = 1\n", "class A:\n    x = 1\n", "reformatted"),
        ("async def f():\n    'a'\n    x\n", "async def f():\n    x\n", "reformatted"),
        ("x = 1\n", "x = 2\n", "edited"),
        ("x = 1\n", "x = True\n", "edited"),
        ("x = 1\n", "x = 1.0\n", "edited"),
        ("x = 'a'\n", "x = 'b'\n", "edited"),
        ("x = 1\n", "x = (\n", "edited"),
        ("x = (\n", "x = 1\n", "edited"),
        ("x = 1\n", "x = 1\n\x00", "edited"),
        ("x = 1\n", "x = " + "-" * 3000 + "1\n", "edited"),
    ],
)
def test_only_a_change_of_meaning_is_an_edit(old: str, new: str, verdict: str) -> None:
    assert compare(old, new) == verdict


IDS = st.integers(1, 99_999).map(lambda number: f"{number:04d}")
SCHEMAS = st.text(min_size=1).filter(
    lambda text: (
        text.isprintable()
        and not any(each.isspace() or each in "@:+," for each in text)
        and text not in RESERVED_SCHEMAS
        and not set(text) <= set("-0123456789")
    )
)


@given(
    identifier=IDS,
    down=st.lists(IDS, unique=True, max_size=3),
    needs=st.lists(IDS, unique=True, max_size=3),
    schema=st.none() | SCHEMAS,
    transaction=st.booleans(),
    repeatable=st.none() | st.booleans(),
    message=st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1),
)
def test_what_a_header_says_is_what_is_read(
    *,
    identifier: str,
    down: list[str],
    needs: list[str],
    schema: str | None,
    transaction: bool,
    repeatable: bool | None,
    message: str,
) -> None:
    text = (
        f"{message!r}\nrevision = {identifier!r}\ndown_revision = {tuple(down)!r}\n"
        f"schema = {schema!r}\ndepends_on = {needs!r}\n"
        f"transaction = {transaction}\nrepeatable = {repeatable}\n" + BODY
    )
    revision = parse_revision(Path(f"{identifier}_x.py"), text.encode())
    assert revision.id == identifier
    assert revision.down_revision == tuple(down)
    assert revision.depends_on == tuple(needs)
    assert revision.schema == schema
    assert revision.transaction is transaction
    assert revision.repeatable is repeatable
    assert revision.message == (message.strip().splitlines() or ["x"])[0].strip() or not (
        message.isprintable()
    )


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_stumble(data: bytes) -> None:
    with suppress(InvalidRevision):
        parse_revision(Path("0001_x.py"), b'revision = "0001"\n' + data)


def test_the_header_is_read_alone_and_not_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    real = ast.parse

    def counting(text: str) -> ast.Module:
        parsed.append(len(text))
        return real(text)

    monkeypatch.setattr(ast, "parse", counting)
    parse('revision = "0001"\n', body=BODY + "# filler\n" * 500_000)
    assert sum(parsed) < 100


# ── the folder ───────────────────────────────────────────────────────────────────────────────────


def test_every_numbered_file_is_read_whatever_its_slug(tmp_path: Path) -> None:
    names = ["0001_Add-Phone2.py", "0002_größe.py", "0003.py", "0004-x y.py", "10000_big.py"]
    for name in names:
        path = tmp_path / name
        number = name[: 5 if name.startswith("1") else 4]
        path.write_text(f'revision = "{number}"\n')
    files = read_revisions(tmp_path)
    assert list(files.revisions) == ["0001", "0002", "0003", "0004", "10000"]
    assert files.broken == {}
    assert [each.path.name for each in files.revisions.values()] == names


def test_strays_are_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "0001_x.py")
    for name in (
        "__init__.py",
        "_0002_x.py",
        ".#0001_x.py",
        "0001_x.py~",
        "0001_x.py.bak",
        "0001_x.txt",
        "#0001_x.py#",
    ):
        (tmp_path / name).write_text('revision = "0001"\n')
    (tmp_path / "helpers.py").write_text("def revision(): ...\n")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe")
    (tmp_path / "package.py").mkdir()
    (tmp_path / "lost.py").symlink_to("nowhere")
    (tmp_path / "__pycache__").mkdir()
    files = read_revisions(tmp_path)
    assert (list(files.revisions), files.broken) == (["0001"], {})


def test_a_revision_without_a_number_is_reported_not_skipped(tmp_path: Path) -> None:
    put(tmp_path, "add_users.py", 'revision: str = "0001"\n')
    files = read_revisions(tmp_path)
    assert files.revisions == {}
    assert "does not begin with a number" in files.broken["add_users.py"].message


def test_one_broken_file_leaves_the_others_readable(tmp_path: Path) -> None:
    put(tmp_path, "0001_x.py")
    put(tmp_path, "0002_x.py", "revision = (\n")
    put(tmp_path, "0003_x.py")
    files = read_revisions(tmp_path)
    assert list(files.revisions) == ["0001", "0003"]
    assert list(files.broken) == ["0002"]


@pytest.mark.parametrize(
    "names", [("0001_a.py", "0001_b.py"), ("0001_a.py", "1_b.py"), ("0001_a.py", "0001_a copy.py")]
)
def test_two_files_with_one_number_are_both_named(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        put(tmp_path, name)
    files = read_revisions(tmp_path)
    assert files.revisions == {}
    error = files.broken["0001"]
    assert isinstance(error, DuplicateRevision)
    assert all(name in error.message for name in names)


def test_what_is_no_readable_file_is_broken(tmp_path: Path) -> None:
    (tmp_path / "0001_folder.py").mkdir()
    (tmp_path / "0002_lost.py").symlink_to("nowhere")
    (tmp_path / "0003_loop.py").symlink_to("0003_loop.py")
    os.mkfifo(tmp_path / "0004_pipe.py")
    put(tmp_path, "0005_shout.PY")
    files = read_revisions(tmp_path)
    assert list(files.broken) == ["0001", "0002", "0003", "0004", "0005"]
    assert all(isinstance(each, InvalidRevision) for each in files.broken.values())
    assert "small letters" in files.broken["0005"].message


def test_a_file_that_cannot_be_opened_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "0001_x.py")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    files = read_revisions(tmp_path)
    assert files.broken["0001"].message == "0001_x.py cannot be read: Permission denied"


def test_a_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "0001_x.py").symlink_to(put(tmp_path, "0001_real.py"))
    assert list(read_revisions(versions).revisions) == ["0001"]


def test_a_missing_folder_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_revisions(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is not a folder"):
        read_revisions(tmp_path / "file")


def test_an_unreadable_folder_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        read_revisions(tmp_path)


def test_reading_executes_nothing(tmp_path: Path) -> None:
    put(tmp_path, "0001_x.py", 'revision = "0001"\nimport sys\nsys.exit(7)\nraise SystemExit\n')
    before = set(sys.modules)
    assert list(read_revisions(tmp_path).revisions) == ["0001"]
    assert not any("0001" in name for name in set(sys.modules) - before)
