"""The text of a revision: normalised, its checksum, and whether two texts say the same."""

from __future__ import annotations

import ast
import hashlib
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, Literal


_BOM: Final = b"\xef\xbb\xbf"
UNPARSABLE: Final = (SyntaxError, ValueError, RecursionError, MemoryError)


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
    except UNPARSABLE:
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
    except UNPARSABLE:
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
    tree = _bare(parse_quietly(text))
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
    from difflib import SequenceMatcher

    codes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return sum(max(b - a, d - c) for kind, a, b, c, d in codes if kind != "equal")


def parse_quietly(text: str) -> ast.Module:
    """The syntax tree of a text, without Python's warnings about it."""
    if "\\" not in text:
        return ast.parse(text)
    with warnings.catch_warnings():
        # An odd escape in a user's string is no concern of a command that only reads.
        warnings.simplefilter("ignore")
        return ast.parse(text)


def _is_text(statements: Sequence[ast.stmt]) -> bool:
    match statements:
        case [ast.Expr(value=ast.Constant(value=str()))]:
            return True
    return False


_SCOPES: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _meaning(text: str) -> str:
    """What the code says, without docstrings and prefixes that have no effect."""
    return ast.dump(_bare(parse_quietly(text)))


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
