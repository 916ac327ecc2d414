"""Revision files: their names, headers, texts and checksums. No code of theirs is ever executed.

A header is read with `ast`, and only the part of the file that stands before the first function,
class or decorator: a body that cannot be parsed or imported does not hide its revision.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from mongover.errors import (
    ConfigError,
    DuplicateRevision,
    InvalidRevision,
    MongoverError,
    Where,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

RESERVED_SCHEMAS: Final = frozenset({"head", "heads", "base", "current"})

_BOM: Final = b"\xef\xbb\xbf"
_NUMBER: Final = re.compile(r"[0-9]+")
_BODY: Final = re.compile(r"^(?:@|(?:def|class|async)[ \t])", re.MULTILINE)
_DOWNGRADE: Final = re.compile(
    r"^(?:(?:async[ \t]+)?def[ \t]+downgrade\b|downgrade[ \t]*[:=])", re.MULTILINE
)
_LATE: Final = re.compile(
    r"^(?:revision|down_revision|schema|depends_on|transaction|repeatable)[ \t]*[:=]", re.MULTILINE
)
_STRAY: Final = re.compile(rb"^revision[ \t]*(?::[^=\r\n]*)?=[ \t]*['\"]", re.MULTILINE)
_CREATED: Final = re.compile(r"^[ \t]*Create Date:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_SCHEMA_SIGNS: Final = re.compile(r"[\s@:+,]")
_BARE_NUMBER: Final = re.compile(r"[-0-9]+")
_UNPARSABLE: Final = (SyntaxError, ValueError, RecursionError, MemoryError)


@dataclass(frozen=True, slots=True)
class Revision:
    """What a revision file says of itself.

    `source` is the whole text as it stands in the file, so that it can be written back byte for
    byte; `code` is what Python and the checksum make of it.
    """

    id: str
    path: Path
    schema: str | None
    message: str
    down_revision: tuple[str, ...]
    depends_on: tuple[str, ...]
    transaction: bool
    repeatable: bool | None
    has_downgrade: bool
    checksum: str
    source: str
    create_date: str | None

    @property
    def code(self) -> str:
        """The text without byte order mark, its lines ended by a newline sign."""
        return normalise_text(self.source)


@dataclass(frozen=True, slots=True)
class RevisionFiles:
    """The revision files of a folder, by id in the order of their numbers.

    Attributes:
        folder: Where they were read.
        revisions: The readable ones.
        broken: What is wrong with the others, by the id in the file's name; a file without a
            number that holds a revision all the same stands under its name.
    """

    folder: Path
    revisions: Mapping[str, Revision]
    broken: Mapping[str, MongoverError]


def normalise(data: bytes) -> str:
    r"""The text of a file without byte order mark, its lines ended by `\n`.

    Raises:
        UnicodeDecodeError: the bytes are not UTF-8.
    """
    return normalise_text(data.decode("utf-8"))


def normalise_text(text: str) -> str:
    r"""The text without byte order mark, its lines ended by `\n`."""
    text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def checksum(text: str) -> str:
    """The checksum of a normalised text: `sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def compare(old: str, new: str) -> Literal["same", "reformatted", "edited"]:
    """How two texts differ: `reformatted` when they mean the same to the interpreter.

    Comments, layout, quotes and docstrings do not count; neither do byte order mark and line
    endings, so that such texts are the same. A text that cannot be parsed is `edited`.
    """
    old, new = normalise_text(old), normalise_text(new)
    if old == new:
        return "same"
    try:
        alike = _meaning(old) == _meaning(new)
    except _UNPARSABLE:
        return "edited"
    return "reformatted" if alike else "edited"


def difference(old: str, new: str) -> str:
    """Where two texts of a revision say different things: `upgrade() differs in 2 lines`.

    Lines are counted as a diff counts them; a line that was replaced counts once.
    """
    if not old:
        return "and the history holds no text to compare it with"
    try:
        before, after = (_parts(normalise_text(text)) for text in (old, new))
    except _UNPARSABLE:
        return "and one of the two texts cannot be parsed"
    found = []
    for name, label in _PARTS.items():
        (said, was), (says, now) = before[name], after[name]
        if said != says:
            count = _changed_lines(was, now)
            lines = f"{count} line{'' if count == 1 else 's'}"
            found.append(f"{label} differs in {lines}" if was and now else f"{label} {_one(was)}")
    return " and ".join(found) or "though the two texts say the same"


_PARTS: Final = {"upgrade": "upgrade()", "downgrade": "downgrade()", "": "the rest of the file"}
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


def _one(was: Sequence[str]) -> str:
    return "is gone" if was else "is new"


def _parts(text: str) -> dict[str, tuple[list[str], list[str]]]:
    """What upgrade, downgrade and the rest of a text mean, and their lines."""
    lines = text.split("\n")
    parts: dict[str, tuple[list[str], list[str]]] = {name: ([], []) for name in _PARTS}
    rest = list(lines)
    tree = _bare(_parse(text))
    for node in tree.body:
        if not isinstance(node, _FUNCTIONS) or node.name not in parts:
            parts[""][0].append(ast.dump(node))
            continue
        first = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
        parts[node.name][0].append(ast.dump(node))
        parts[node.name][1].extend(lines[first : node.end_lineno])
        rest[first : node.end_lineno] = [""] * ((node.end_lineno or first) - first)
    parts[""][1].extend(line for line in rest if line)
    return parts


def _changed_lines(old: Sequence[str], new: Sequence[str]) -> int:
    from difflib import SequenceMatcher  # noqa: PLC0415  # only an edited file needs it

    codes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return sum(max(b - a, d - c) for kind, a, b, c, d in codes if kind != "equal")


def parse_revision(path: Path, data: bytes) -> Revision:
    """The revision that a file holds; the code in it is not executed.

    Raises:
        InvalidRevision: the header cannot be read or contradicts the file's name; says where.
    """
    source = _decode(path, data)
    text = normalise_text(source)
    tree = _header_tree(path, text)
    header = _read_header(path, text, tree)
    identifier = _check_id(path, header)
    docstring = _docstring(tree)
    created = _CREATED.search(docstring)
    return Revision(
        id=identifier,
        path=path,
        schema=header.get("schema"),
        message=next(iter(docstring.strip().splitlines()), "").strip() or _slug(path),
        down_revision=header.get("down_revision", ()),
        depends_on=header.get("depends_on", ()),
        transaction=header.get("transaction", False),
        repeatable=header.get("repeatable"),
        has_downgrade=_DOWNGRADE.search(text) is not None,
        checksum=checksum(text),
        source=source,
        create_date=None if created is None else created[1],
    )


def read_revisions(folder: Path) -> RevisionFiles:
    """All revision files of a folder, in one look at it.

    Every `.py` file whose name begins with a digit is a revision file. Others are left alone,
    unless one holds a `revision = "…"` line: that one is reported as broken, not skipped.

    Raises:
        ConfigError: the folder is missing or cannot be read.
    """
    numbered, strays = _list_folder(folder)
    revisions: dict[str, Revision] = {}
    broken: dict[str, MongoverError] = {}
    for entries in numbered:
        paths = [folder / entry.name for entry in entries]
        if len(paths) > 1:
            error = duplicate_of(paths, _newest(entries, paths))
            broken.update({_file_id(path): error for path in paths})
            continue
        try:
            revision = parse_revision(paths[0], _read(entries[0], paths[0]))
        except InvalidRevision as error:
            broken[_file_id(paths[0])] = error
        else:
            revisions[revision.id] = revision
    for entry in strays:
        if _holds_revision(entry, folder / entry.name):
            broken[entry.name] = _unnumbered(folder / entry.name)
    return RevisionFiles(folder, revisions, broken)


def _list_folder(folder: Path) -> tuple[list[list[os.DirEntry[str]]], list[os.DirEntry[str]]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name[-3:].lower() == ".py"]
    except OSError as error:
        raise _no_folder(folder, error) from error
    by_number: dict[int, list[os.DirEntry[str]]] = {}
    strays = []
    for entry in sorted(found, key=lambda entry: entry.name):
        number = _NUMBER.match(entry.name)
        if number is not None:
            by_number.setdefault(int(number[0]), []).append(entry)
        elif entry.name[0] not in "._":
            strays.append(entry)
    return [by_number[number] for number in sorted(by_number)], strays


def _no_folder(folder: Path, error: OSError) -> ConfigError:
    reason = {
        FileNotFoundError: "does not exist",
        NotADirectoryError: "is not a folder",
    }.get(type(error), f"cannot be read: {error.strerror}")
    return ConfigError(
        f"the folder of the revision files, {folder}, {reason}",
        hint="correct `versions` in the configuration, or make a project with `mongover init`",
    )


def _file_id(path: Path) -> str:
    found = _NUMBER.match(path.name)
    return path.name if found is None else found[0]


def _slug(path: Path) -> str:
    return _NUMBER.sub("", path.stem, count=1).lstrip("_- ").replace("_", " ")


def _read(entry: os.DirEntry[str], path: Path) -> bytes:
    if path.suffix != ".py":
        raise InvalidRevision(
            f"{path.name} does not end with .py in small letters",
            hint=f"rename it to {path.stem}.py",
            where=Where(path),
        )
    try:
        if entry.is_file():  # to open a pipe would wait for ever
            return path.read_bytes()
        reason = "it is a folder, a link to nothing or the like"
    except OSError as error:
        reason = error.strerror or str(error)
    raise InvalidRevision(
        f"{path.name} cannot be read: {reason}",
        hint="make it a readable file, or move it out of the folder",
        where=Where(path),
    )


def _holds_revision(entry: os.DirEntry[str], path: Path) -> bool:
    # A stray file is no business of ours: one that cannot be read is a stray all the same.
    try:
        return _STRAY.search(_read(entry, path)) is not None
    except InvalidRevision:
        return False


def _unnumbered(path: Path) -> InvalidRevision:
    return InvalidRevision(
        f"{path.name} holds a revision, but its name does not begin with a number",
        hint=f"rename it to <id>_{path.name}, or move it out of the folder",
        where=Where(path),
    )


def duplicate_of(
    paths: Sequence[Path], moved: Path, *, applied: str | None = None
) -> DuplicateRevision:
    """The error of files with one number; `moved` is the one that shall get another.

    Only the history knows which of them is `applied` and keeps its number; without it the newer
    one is named, and the reader told to look.
    """
    names = " and ".join(path.name for path in paths)
    which = (
        f"{applied} is in the history and keeps it; give the other the next free number"
        if applied
        else "give one of them the next free number, the one that is applied nowhere"
        " (`mongover status` tells)"
    )
    error = DuplicateRevision(
        f"{len(paths)} files carry the number {_file_id(paths[0])}: {names}",
        hint=f"{which}: mongover rebase {moved.name}",
        notes=[str(path) for path in paths],
        where=Where(moved),
    )
    error.paths = tuple(paths)
    return error


def _newest(entries: Sequence[os.DirEntry[str]], paths: Sequence[Path]) -> Path:
    """The file that says that it was created last; the last by name where that is not told."""

    def created(number: int) -> tuple[str, int]:
        try:
            text = _read(entries[number], paths[number]).decode("utf-8", "replace")
        except InvalidRevision:
            text = ""
        found = _CREATED.search(text)
        return ("" if found is None else found[1], number)

    return paths[max(range(len(paths)), key=created)]


def _decode(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidRevision(
            f"{path.name} is not UTF-8: byte 0x{error.object[error.start]:02x} in line {line}",
            hint="save the file as UTF-8",
            where=Where(path, line),
        ) from error


def _parse(text: str) -> ast.Module:
    if "\\" not in text:
        return ast.parse(text)
    with warnings.catch_warnings():
        # An odd escape in a user's string is no concern of a command that only reads.
        warnings.simplefilter("ignore")
        return ast.parse(text)


def _header_tree(path: Path, text: str) -> ast.Module:
    body = _BODY.search(text)
    if body is not None and _LATE.search(text, body.start()) is None:
        try:
            return _parse(text[: body.start()])
        except _UNPARSABLE:
            pass  # the cut may have gone through a string: the whole decides
    try:
        return _parse(text)
    except _UNPARSABLE as error:
        line = getattr(error, "lineno", None)
        raise InvalidRevision(
            f"{path.name} cannot be parsed: {getattr(error, 'msg', None) or error}",
            hint="correct the syntax of the file",
            where=Where(path, line, _line(text, line)),
        ) from error


def _line(text: str, number: int | None) -> str:
    lines = text.split("\n", number)[:number] if number else []
    return lines[-1].strip() if len(lines) == number else ""


def _is_text(statements: Sequence[ast.stmt]) -> bool:
    match statements:
        case [ast.Expr(value=ast.Constant(value=str()))]:
            return True
    return False


def _docstring(tree: ast.Module) -> str:
    match tree.body[:1]:
        case [ast.Expr(value=ast.Constant(value=str(text)))]:
            # Half a surrogate pair, written as an escape, can be neither printed nor stored.
            return text.encode(errors="replace").decode()
    return ""


def _literal(node: ast.expr) -> Any:
    """The constant or tuple of constants that a node stands for; Ellipsis for all else."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_literal(element) for element in node.elts)
    return ...


def _one_id(value: Any) -> str | None:
    is_id = isinstance(value, str) and _NUMBER.fullmatch(value) is not None
    return value if is_id else None


def _ids(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return ()
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, tuple) or len(set(values)) != len(values):
        return None
    return values if all(_one_id(each) for each in values) else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _schema(value: Any) -> str | None:
    if not isinstance(value, str) or not value or value in RESERVED_SCHEMAS:
        return None
    wrong = _SCHEMA_SIGNS.search(value) or _BARE_NUMBER.fullmatch(value)
    return None if wrong or not value.isprintable() else value


_SCHEMA_RULE: Final = (
    "None, or a name without spaces and without @ : + and commas that is neither a number"
    " nor one of head, heads, base, current"
)
# Field by field: how its literal is read (None where it is wrong) and what it may be.
_FIELDS: Final[Mapping[str, tuple[Callable[[Any], Any], str]]] = {
    "revision": (_one_id, 'a string of digits such as "0001"'),
    "down_revision": (_ids, 'None, an id such as "0001", or a tuple of different ids'),
    "schema": (_schema, _SCHEMA_RULE),
    "depends_on": (_ids, 'None, an id such as "0001", or a tuple of different ids'),
    "transaction": (_flag, "True or False"),
    "repeatable": (_flag, "None, True or False"),
}
_NULLABLE: Final = frozenset({"schema", "repeatable"})


def _read_header(path: Path, text: str, tree: ast.Module) -> dict[str, Any]:
    header: dict[str, Any] = {}
    for name, node in _assignments(path, text, tree):
        read, allowed = _FIELDS[name]
        if name in header:
            raise _wrong(path, text, node, f"assigns {name} twice")
        literal = _literal(node)
        value = read(literal)
        if value is None and not (literal is None and name in _NULLABLE):
            raise _wrong(path, text, node, f"{name} must be {allowed}")
        header[name] = value
    return header


def _assignments(path: Path, text: str, tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets = [node.target]
        else:
            continue
        simple = not isinstance(node, ast.AugAssign)
        for target in targets:
            if simple and isinstance(target, ast.Name):
                if target.id in _FIELDS and node.value is not None:
                    yield target.id, node.value
            elif _names_field(target):
                raise _wrong(path, text, target, "its header wants plain lines, `name = value`")


def _names_field(target: ast.AST) -> bool:
    stored = (node for node in ast.walk(target) if isinstance(node, ast.Name))
    return any(node.id in _FIELDS and isinstance(node.ctx, ast.Store) for node in stored)


def _wrong(path: Path, text: str, node: ast.expr, problem: str) -> InvalidRevision:
    line = node.lineno
    return InvalidRevision(
        f"{path.name}, line {line}: {problem}",
        hint="correct the line",
        where=Where(path, line, _line(text, line)),
    )


def _check_id(path: Path, header: Mapping[str, Any]) -> str:
    wanted = _file_id(path)
    found = header.get("revision")
    if found is None:
        raise InvalidRevision(
            f"{path.name} has no line `revision = …`",
            hint=f'add `revision = "{wanted}"` to its header, or move it out of the folder',
            where=Where(path),
        )
    if found != wanted:
        raise InvalidRevision(
            f'{path.name} says revision = "{found}", but its name says {wanted}',
            hint="make the two agree: rename the file or correct the line",
            where=Where(path),
        )
    return wanted


_SCOPES: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _meaning(text: str) -> str:
    """What the code says, without docstrings and prefixes that have no effect."""
    return ast.dump(_bare(_parse(text)))


def _bare(tree: ast.Module) -> ast.Module:
    """The tree without docstrings and prefixes that have no effect, changed in place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.kind = None
        elif isinstance(node, _SCOPES):
            if _is_text(node.body[:1]):
                del node.body[0]
            if not node.body:
                node.body.append(ast.Pass())
    return tree
