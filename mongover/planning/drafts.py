"""New revision files: which number and which parents each gets, and what may get another number.

How a file is written stands in `revisions/write`, how it is given another number in
`revisions/rebase`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from mongover.errors import UsageError
from mongover.planning.case import told_apart
from mongover.planning.graph import Graph
from mongover.planning.targets import Targets
from mongover.revisions.write import next_id, write_revision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mongover.history.record import Record
    from mongover.revisions.revision import RevisionFiles

_DIGITS: Final = 4  # of an id, at least


def draft(
    files: RevisionFiles,
    message: str,
    *,
    schema: str | None,
    depends_on: Sequence[str],
    identifier: str | None,
) -> Path:
    """Write a new revision file on top of its line; `identifier` counts instead of the next one.

    Raises:
        MultipleHeads: the line has two heads; nothing says which one to follow.
    """
    graph = Graph(files.revisions.values())
    needed = tuple(Targets(graph, ()).one(target) for target in depends_on)
    return write_revision(
        files.folder,
        id=_next_id(files) if identifier is None else _padded(identifier),
        message=message,
        schema=schema,
        down_revision=_parents(graph, schema),
        depends_on=needed,
    )


def draft_merge(files: RevisionFiles, schema: str | None, message: str) -> Path:
    """Write a revision that has all heads of a line as parents.

    Raises:
        UsageError: the line has no two heads.
        CycleError: it runs in a circle.
        FilesError: it has no two heads, but a file cannot be read that may be one.
    """
    graph = Graph(files.revisions.values())
    graph.check_circles(schema)
    heads = graph.heads(schema)
    if len(heads) < 2:  # noqa: PLR2004 - a merge is of two at least
        for error in files.broken.values():
            raise error
        name = schema or "the unnamed line"
        raise UsageError(
            f"{name} has no two heads to merge",
            hint="`mongover heads` shows the heads of every schema",
        )
    return write_revision(
        files.folder,
        id=_next_id(files),
        message=message,
        schema=schema,
        down_revision=tuple(heads),
        depends_on=(),
    )


def unapplied(files: RevisionFiles, known: Mapping[str, Record], target: str) -> str:
    """What a target names, an id or a file, where the history has no record of it.

    Raises:
        UsageError: it was applied, and its id stands in the history.
    """
    if target.endswith(".py"):  # the name of a file: its number may be another's, too
        record = next((one for one in known.values() if one.file == Path(target).name), None)
    else:
        target = Targets(Graph(files.revisions.values(), broken=files.broken), ()).one(target)
        record = known.get(target)
    if record is not None:
        raise UsageError(
            f"{record.revision} stands in the history ({record.state}), so it keeps its id",
            hint=_instead(files, known, record.revision),
        )
    return target


def _instead(files: RevisionFiles, known: Mapping[str, Record], revision: str) -> str:
    """What to do when a revision must keep its number."""
    twice = told_apart(files, known).broken.get(revision)
    if twice is not None:
        return twice.hint
    return "`mongover merge` joins two heads of a line"


def _next_id(files: RevisionFiles) -> str:
    return next_id((*files.revisions, *files.broken))


def _padded(revision: str) -> str:
    return revision.zfill(_DIGITS) if revision else revision


def _parents(graph: Graph, schema: str | None) -> tuple[str, ...]:
    if schema not in graph.lines:
        return ()
    graph.check_heads(schema)
    return tuple(graph.heads(schema))
