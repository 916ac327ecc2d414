"""The header of a revision file, read with `ast` and never executed."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from mongover.errors import InvalidRevision, Where
from mongover.revisions.revision import Revision
from mongover.revisions.text import UNPARSABLE, checksum, normalise_text, parse_quietly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import Any, Final


RESERVED_SCHEMAS: Final = frozenset({"head", "heads", "base", "current"})
NUMBER: Final = re.compile(r"[0-9]+")
_BODY: Final = re.compile(r"^(?:@|(?:def|class|async)[ \t])", re.MULTILINE)
_DOWNGRADE: Final = re.compile(
    r"^(?:(?:async[ \t]+)?def[ \t]+downgrade\b|downgrade[ \t]*[:=])", re.MULTILINE
)
_LATE: Final = re.compile(
    r"^(?:revision|down_revision|schema|depends_on|transaction|repeatable)[ \t]*[:=]", re.MULTILINE
)
CREATED: Final = re.compile(r"^[ \t]*Create Date:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_SCHEMA_SIGNS: Final = re.compile(r"[\s@:+,]")
_BARE_NUMBER: Final = re.compile(r"[-0-9]+")


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
    created = CREATED.search(docstring)
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


def file_id(path: Path) -> str:
    """The number in a file's name, or the whole name."""
    found = NUMBER.match(path.name)
    return path.name if found is None else found[0]


def _slug(path: Path) -> str:
    return NUMBER.sub("", path.stem, count=1).lstrip("_- ").replace("_", " ")


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


def _header_tree(path: Path, text: str) -> ast.Module:
    body = _BODY.search(text)
    if body is not None and _LATE.search(text, body.start()) is None:
        try:
            return parse_quietly(text[: body.start()])
        except UNPARSABLE:
            pass  # the cut may have gone through a string: the whole decides
    try:
        return parse_quietly(text)
    except UNPARSABLE as error:
        line = getattr(error, "lineno", None)
        raise InvalidRevision(
            f"{path.name} cannot be parsed: {getattr(error, 'msg', None) or error}",
            hint="correct the syntax of the file",
            where=Where(path, line, _line(text, line)),
        ) from error


def _line(text: str, number: int | None) -> str:
    lines = text.split("\n", number)[:number] if number else []
    return lines[-1].strip() if len(lines) == number else ""


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
    is_id = isinstance(value, str) and NUMBER.fullmatch(value) is not None
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
    wanted = file_id(path)
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
