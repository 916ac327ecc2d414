"""Moving a revision on top of its line: its file, its header and the links to it.

What would be written is planned without touching a file; all that an edit does not mean to change
stays byte for byte.
"""

from __future__ import annotations

import ast
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mongover.errors import (
    CycleError,
    DuplicateRevision,
    InvalidRevision,
    MultipleHeads,
    UnknownTarget,
    UsageError,
)
from mongover.revisions.header import parse_revision
from mongover.revisions.write import (
    cannot_write,
    create_file,
    next_id,
    number_of,
    numbered_files,
    quoted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from mongover.revisions.revision import Revision, RevisionFiles

_BOM: Final = "\ufeff"
_LINKS: Final = ("down_revision", "depends_on")

# --------------------------------------------------------------------------------------- edits


@dataclass(frozen=True, slots=True)
class _Edit:
    """A replacement in the bytes of a text."""

    start: int
    end: int
    text: str


_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


def rebase_text(source: str, *, new_id: str, new_down_revision: str | None) -> str:
    """The text of a revision file with another id and parent; all else stays byte for byte.

    The literals of `revision` and `down_revision` change in place, with the quotes they had, and
    so do the lines `Revision ID:` and `Revises:` of the docstring, where they stand.

    Raises:
        InvalidRevision: the text cannot be parsed, or has no `revision`.
    """
    body = source.removeprefix(_BOM)
    tree = _parse(body)
    raw = body.encode()
    starts = _line_starts(raw)
    values = dict(_header(tree))
    if "revision" not in values:
        raise InvalidRevision("the text has no line `revision = …`", hint="add it")
    quote = _quote(raw, _span(values["revision"], starts))
    edits = [_Edit(*_span(values["revision"], starts), quoted(new_id, quote))]
    known = values.get("down_revision")
    quote = quote if known is None else _quote(raw, _span(known, starts), default=quote)
    parent = "None" if new_down_revision is None else quoted(new_down_revision, quote)
    if known is not None:
        edits.append(_Edit(*_span(known, starts), parent))
    else:
        end = edits[0].end
        newline = _LINE_END.search(raw)
        ending = newline[0].decode() if newline else "\n"
        edits.append(_Edit(end, end, f"{ending}down_revision = {parent}"))
    edits += _note_edits(tree, raw, starts, "Revision ID", lambda _: new_id)
    edits += _note_edits(tree, raw, starts, "Revises", lambda _: new_down_revision or "")
    return source[: len(source) - len(body)] + _edited(raw, edits)


def relink_text(source: str, *, old: str, new: str, links: Sequence[str] = _LINKS) -> str:
    """The text of a revision file with its links to `old` pointing at `new`; all else stays.

    Raises:
        InvalidRevision: the text cannot be parsed.
    """
    body = source.removeprefix(_BOM)
    tree = _parse(body)
    raw = body.encode()
    starts = _line_starts(raw)
    edits = [
        _Edit(*span, quoted(new, _quote(raw, span)))
        for name, value in _header(tree)
        if name in links
        for node in ast.walk(value)
        if isinstance(node, ast.Constant) and node.value == old
        for span in [_span(node, starts)]
    ]
    if edits and "down_revision" in links:
        whole = re.compile(rf"(?<!\w){re.escape(old)}(?!\w)")
        edits += _note_edits(tree, raw, starts, "Revises", lambda ids: whole.sub(new, ids))
    return source[: len(source) - len(body)] + _edited(raw, edits)


def _parse(text: str) -> ast.Module:
    """The tree of a text, or of what stands before its first function when that is all there is."""
    first = re.search(r"^(?:@|(?:def|class|async)[ \t])", text, re.MULTILINE)
    texts = [text] if first is None else [text, text[: first.start()]]
    problem: Exception | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an odd escape in a user's string is no concern here
        for each in texts:
            try:
                return ast.parse(each)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                problem = problem or error
    raise InvalidRevision(
        f"the text cannot be parsed: {getattr(problem, 'msg', None) or problem}",
        hint="correct its syntax first",
    ) from problem


def _header(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """The names that a module assigns in plain lines, with their values."""
    for node in tree.body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and value is not None:
                yield target.id, value


def _line_starts(raw: bytes) -> list[int]:
    return [0, *(found.end() for found in _LINE_END.finditer(raw))]


def _span(node: ast.expr, starts: Sequence[int]) -> tuple[int, int]:
    """Where a node stands in the bytes of its text."""
    end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
    return starts[node.lineno - 1] + node.col_offset, starts[end_line - 1] + end_column


def _quote(raw: bytes, span: tuple[int, int], *, default: str = '"') -> str:
    found = re.search(rb"[\"']", raw[span[0] : span[1]])
    return found[0].decode() if found else default


def _note_edits(
    tree: ast.Module,
    raw: bytes,
    starts: Sequence[int],
    key: str,
    change: Callable[[str], str],
) -> list[_Edit]:
    """The edit of the docstring's first line `key: …`, if it has one."""
    match tree.body[:1]:
        case [ast.Expr(value=ast.Constant(value=str()) as node)]:
            start, end = _span(node, starts)
        case _:
            return []
    opening = re.match(rb"[A-Za-z]*(\"\"\"|'''|\"|')", raw[start:end])
    closing = len(opening[1]) if opening else 0
    pattern = re.compile(rb"(?<=[\r\n])[ \t]*" + key.encode() + rb":([^\r\n]*)")
    found = pattern.search(raw, start, end - closing)
    if found is None:
        return []
    value = change(found[1].decode().strip())
    return [_Edit(*found.span(1), f" {value}" if value else "")]


def _edited(raw: bytes, edits: Iterable[_Edit]) -> str:
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        raw = raw[: edit.start] + edit.text.encode() + raw[edit.end :]
    return raw.decode()


# -------------------------------------------------------------------------------------- rebase


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file with its new text, and its new place where that changes."""

    old: Path
    new: Path
    text: str


@dataclass(frozen=True, slots=True)
class Rebase:
    """What a rebase would write: the moved file, and the files whose links follow it."""

    moved: FileChange
    relinked: tuple[FileChange, ...]


@dataclass(frozen=True, slots=True)
class RevisionText:
    """A revision with the exact text of its file, byte order mark and line ends included."""

    revision: Revision
    text: str


def rebase(files: RevisionFiles, revision: str, *, onto: str | None = None) -> list[Path]:
    """Put a revision on top of its line, with the next free number; the files that were written.

    Its own children come along. When several files carry its number, name the file: links that
    may mean either of them stay with the file that keeps the number.

    First the new file is written, then the links are moved to it, then the old file is removed.
    Until the last step both ids exist, so that a crash loses nothing and breaks no link; what is
    left to do then is to remove the old file.

    Args:
        files: The files of the folder; they are read again.
        revision: The id, or the name of the file.
        onto: The id of the new parent; None for the one head of its line.

    Raises:
        UnknownTarget: there is no such file.
        DuplicateRevision: several files carry this number, or the new file exists.
        MultipleHeads: the line has several other heads, and `onto` does not choose.
        CycleError: `onto` descends from the revision.
        UsageError: it stands there already.
    """
    texts = _read_texts(files.folder)
    moved = _chosen(texts, revision)
    # A file whose header cannot be read holds its number all the same.
    paths = [path for path in numbered_files(files.folder) if path != moved.revision.path]
    new_id = next_id(number_of(path) for path in paths)
    return apply_rebase(plan_rebase(texts, moved, new_id=new_id, onto=onto))


def plan_rebase(
    texts: Sequence[RevisionText], moved: RevisionText, *, new_id: str, onto: str | None
) -> Rebase:
    """What `rebase` would write, given the next free number; raises what it raises."""
    family = _descendants(texts, moved)
    others = [each.revision for each in texts if each is not moved]
    parent = _only_head(others, moved.revision, family) if onto is None else onto
    _check_parent(others, moved.revision, family, parent)
    old = moved.revision
    if new_id == old.id and old.down_revision == ((parent,) if parent else ()):
        raise UsageError(
            f"{old.id} stands on top of its line already", hint="nothing is to be done"
        )
    name = f"{new_id}{old.path.name[len(old.id) :]}"
    text = rebase_text(moved.text, new_id=new_id, new_down_revision=parent)
    return Rebase(
        FileChange(old.path, old.path.with_name(name), text),
        tuple(_relinked(texts, moved, new_id)),
    )


def apply_rebase(plan: Rebase) -> list[Path]:
    """Write what was planned, in the order that loses nothing; the files that were written."""
    moved = plan.moved
    if moved.new == moved.old:
        _replace(moved.old, moved.text)
    else:
        create_file(moved.new, moved.text)
    for change in plan.relinked:
        _replace(change.new, change.text)
    if moved.new != moved.old:
        try:
            moved.old.unlink()
        except OSError as error:
            raise cannot_write(moved.old, error) from error
    return [moved.new, *(change.new for change in plan.relinked)]


def _read_texts(folder: Path) -> list[RevisionText]:
    found = []
    for path in numbered_files(folder):
        try:
            data = path.read_bytes()
            found.append(RevisionText(parse_revision(path, data), data.decode()))
        except OSError as error:
            raise cannot_write(path, error) from error
        except InvalidRevision:
            continue  # `check` reports it; a file without a readable header has no known links
    return found


def _chosen(texts: Sequence[RevisionText], name: str) -> RevisionText:
    found = [each for each in texts if name in {each.revision.id, each.revision.path.name}] or [
        each for each in texts if each.revision.path.name == Path(name).name
    ]
    if not found:
        raise UnknownTarget(f"no readable revision file is {name}", hint="see `mongover check`")
    if len(found) > 1:
        names = [each.revision.path.name for each in found]
        raise DuplicateRevision(
            f"{len(found)} files carry the number {name}: {', '.join(names)}",
            hint=f"name the file that should move: mongover rebase {names[-1]}",
        )
    return found[0]


def _points_at(revision: Revision, moved: RevisionText, texts: Sequence[RevisionText]) -> list[str]:
    """The links of a revision that mean the moved one, and no other file with its number."""
    target = moved.revision
    twins = [t.revision for t in texts if t is not moved and t.revision.id == target.id]
    own_line = revision.schema == target.schema and all(t.schema != target.schema for t in twins)
    found = []
    if target.id in revision.down_revision and (own_line or not twins):
        found.append("down_revision")
    if target.id in revision.depends_on and not twins:
        found.append("depends_on")
    return found


def _descendants(texts: Sequence[RevisionText], moved: RevisionText) -> set[str]:
    """The ids of all that follows the moved revision, by parents or dependencies."""
    rest = [each for each in texts if each is not moved]
    found = {each.revision.id for each in rest if _points_at(each.revision, moved, texts)}
    while True:
        more = {
            each.revision.id
            for each in rest
            if found.intersection((*each.revision.down_revision, *each.revision.depends_on))
        }
        if more <= found:
            return found
        found |= more


def _only_head(others: Sequence[Revision], moved: Revision, family: set[str]) -> str | None:
    line = [each for each in others if each.schema == moved.schema and each.id not in family]
    parents = {parent for each in line for parent in each.down_revision}
    heads = [each.id for each in line if each.id not in parents]
    if len(heads) > 1:
        raise MultipleHeads(
            f"{moved.schema or 'the unnamed line'} has several other heads: {', '.join(heads)}",
            hint="join them first with `mongover merge`",
        )
    return heads[0] if heads else None


def _check_parent(
    others: Sequence[Revision], moved: Revision, family: set[str], parent: str | None
) -> None:
    if parent is None:
        return
    if parent in family:
        raise CycleError(
            f"{moved.id} cannot stand on {parent}, which follows it",
            hint="name a revision that does not come after it",
        )
    if parent not in {each.id for each in others if each.schema == moved.schema}:
        raise UnknownTarget(
            f"{parent} is no revision of {moved.schema or 'the unnamed line'}",
            hint="`mongover heads` lists them",
        )


def _relinked(
    texts: Sequence[RevisionText], moved: RevisionText, new_id: str
) -> Iterator[FileChange]:
    old_id = moved.revision.id
    if new_id == old_id:
        return
    for each in texts:
        links = [] if each is moved else _points_at(each.revision, moved, texts)
        if links:
            path = each.revision.path
            text = relink_text(each.text, old=old_id, new=new_id, links=links)
            yield FileChange(path, path, text)


def _replace(path: Path, text: str) -> None:
    """Give an existing file another text in one step; a crash leaves the old or the new one."""
    path = path.resolve()  # a link stays a link
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(path.stat().st_mode & 0o7777)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise cannot_write(path, error) from error
