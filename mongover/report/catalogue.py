"""Every revision that a file or a record knows, with its links, its state and its text's. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mongover.history.record import State
from mongover.planning.case import known_graph
from mongover.planning.problems import find_problems

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mongover.history.record import Record
    from mongover.planning.graph import Linked
    from mongover.planning.problems import Problem
    from mongover.revisions.revision import RevisionFiles

_KINDS: Final = {
    "ahead": "missing",
    "edited": "edited",
    "missing": "missing",
    "reformatted": "reformatted",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One revision.

    Attributes:
        state: That of its record; `pending` without one.
        applied: Whether its effect is taken to be in the database.
        file: How its file compares with what was applied: same, reformatted, edited, missing or
            unreadable; None while nothing of it is applied.
        reversible: Whether its file has a downgrade; None without a readable file.
    """

    revision: str
    schema: str | None
    message: str
    down_revision: tuple[str, ...]
    depends_on: tuple[str, ...]
    state: State
    applied: bool
    file: str | None
    reversible: bool | None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All revisions, each after those that it needs, and everything that is wrong."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]


def catalogue(
    files: RevisionFiles, records: Mapping[str, Record], *, sources: Callable[[str], str]
) -> Catalogue:
    """The catalogue; `sources` gives the recorded text of a revision whose checksum differs.

    A file that cannot be read and has no record has no entry: it stands among the problems.
    """
    problems = find_problems(files, records, sources=sources)
    graph = known_graph(files, records, whole=True)
    kinds = _file_kinds(problems)
    entries = tuple(
        _entry(files, graph.nodes[each], records.get(each), kinds.get(each))
        for each in graph.listing(graph.nodes)
    )
    return Catalogue(entries, tuple(problems))


def _file_kinds(problems: Sequence[Problem]) -> dict[str | None, str]:
    return {each.revision: _KINDS[each.kind] for each in problems if each.kind in _KINDS}


def _entry(files: RevisionFiles, node: Linked, record: Record | None, kind: str | None) -> Entry:
    revision = files.revisions.get(node.id)
    applied = record is not None and record.counts_as_applied
    if node.id in files.broken:
        kind = "unreadable"
    return Entry(
        node.id,
        node.schema,
        node.message,
        tuple(node.down_revision),
        tuple(node.depends_on),
        State.PENDING if record is None else record.state,
        applied,
        kind or ("same" if applied else None),
        None if revision is None else revision.has_downgrade,
    )
