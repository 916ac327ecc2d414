"""The case of a decision: the files, the records and the graph that they make together. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mongover.errors import BadRecord, DuplicateRevision, OutOfOrder, UnknownTarget, Where
from mongover.history.record import RUNNING, STOPPED, Direction, Remains, State
from mongover.planning.graph import NO_NUMBER, Graph, Node, number_of
from mongover.planning.targets import Targets
from mongover.revisions.folder import duplicate_of
from mongover.revisions.text import compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Final, Literal

    from mongover.errors import MongoverError
    from mongover.history.record import Record
    from mongover.planning.graph import Linked
    from mongover.revisions.revision import Revision, RevisionFiles


NOTHING_RUN: Final = "nothing was run."


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that a decision looks at."""

    files: RevisionFiles
    records: Mapping[str, Record]
    sources: Callable[[str], str]
    graph: Graph
    applied: tuple[str, ...]
    done: frozenset[str]
    newest: int  # the highest number of a file; -1 without files


def known_graph(
    files: RevisionFiles, records: Mapping[str, Record], *, whole: bool = False
) -> Graph:
    """The graph of the files and of what the history knows beyond them.

    A record stands in for a file that is gone or unreadable, when its revision was applied or may
    have left something; with `whole`, always. What is applied keeps the links that it was applied
    with, whatever an edited file says now.
    """
    nodes: list[Linked] = [
        _as_applied(revision, records.get(revision.id)) for revision in files.revisions.values()
    ]
    nodes.extend(
        _node(record)
        for record in records.values()
        if record.revision not in files.revisions and (whole or left_something(record))
    )
    return Graph(nodes, broken=files.broken)


def find_revision(files: RevisionFiles, records: Mapping[str, Record], target: str) -> str:
    """The one revision that a target names; one without a file is found by its id or number.

    Raises:
        TargetError: it names none, or several.
        InvalidRevision: it names one that has no record, and its file cannot be read.
    """
    if target in records:
        return target
    try:
        return Targets(known_graph(files, records), applied_in_order(records)).one(target)
    except UnknownTarget:
        number = number_of(target)[0]
        named = [each for each in records if number_of(each)[0] == number != NO_NUMBER]
        if len(named) != 1:
            raise
        return named[0]


def applied_in_order(records: Mapping[str, Record]) -> tuple[str, ...]:
    """The applied revisions in the order of their application: what `Targets` asks for.

    One whose downgrade may be half done comes last, so that `-1` ends that before anything else.
    """
    applied = [record for record in records.values() if record.counts_as_applied]
    applied.sort(key=_place)
    return tuple(record.revision for record in applied)


def _place(record: Record) -> tuple[bool, int, tuple[int, str]]:
    return half_done(record, Direction.DOWN), record.sequence, number_of(record.revision)


def look_at(
    files: RevisionFiles, records: Mapping[str, Record], sources: Callable[[str], str]
) -> Case:
    """The case that files and records make; `sources` gives the recorded text of a revision."""
    files = told_apart(files, records)
    applied = applied_in_order(records)
    graph = known_graph(files, records)
    numbers = [number_of(each)[0] for each in (*files.revisions, *files.broken)]
    newest = max((each for each in numbers if each < NO_NUMBER), default=-1)
    return Case(files, records, sources, graph, applied, frozenset(applied), newest)


def told_apart(files: RevisionFiles, records: Mapping[str, Record]) -> RevisionFiles:
    """The files, with the history's word on which of those with one number keeps it."""
    if not any(isinstance(error, DuplicateRevision) for error in files.broken.values()):
        return files
    kept = {record.file for record in records.values() if left_something(record)}
    made: dict[MongoverError, MongoverError] = {}
    for error in files.broken.values():
        paths = error.paths if isinstance(error, DuplicateRevision) else ()
        first = next((path for path in paths if path.name in kept), None)
        others = [path for path in paths if path.name not in kept]
        if first is not None and others:
            made[error] = duplicate_of(paths, others[-1], applied=first.name)
    broken = {name: made.get(error, error) for name, error in files.broken.items()}
    return replace(files, broken=broken)


def _as_applied(revision: Revision, record: Record | None) -> Linked:
    if record is None or not record.counts_as_applied or record.checksum == revision.checksum:
        return revision
    now = (revision.schema, revision.down_revision, revision.depends_on)
    if now == (record.schema, record.down_revision, record.depends_on):
        return revision
    return Node(
        revision.id,
        record.schema,
        revision.message,
        record.down_revision,
        record.depends_on,
        revision.path,
    )


def _node(record: Record) -> Node:
    return Node(
        record.revision, record.schema, record.message, record.down_revision, record.depends_on
    )


def left_something(record: Record) -> bool:
    """Whether the database may hold something of the revision."""
    if record.counts_as_applied or record.state in RUNNING:
        return True
    return half_done(record, record.direction)


def half_done(record: Record, direction: Direction) -> bool:
    """Whether an attempt in this direction stopped and may have left something."""
    stopped = record.state in STOPPED and record.direction is direction
    return stopped and record.outcome is not Remains.NOTHING


def running_ids(case: Case, ids: Iterable[str]) -> tuple[str, ...]:
    """Those of the revisions that are being run."""
    return tuple(each for each in ids if state_of(case, each) in RUNNING)


def state_of(case: Case, identifier: str) -> State:
    """The state of a revision; pending where it has no record."""
    record = case.records.get(identifier)
    return State.PENDING if record is None else record.state


def text_verdict(case: Case, record: Record) -> Literal["same", "reformatted", "edited"]:
    """How the file of an applied revision differs from what was applied."""
    revision = case.files.revisions.get(record.revision)
    # What has failed may be edited: only what is applied is bound to its text.
    if revision is None or record.state is not State.APPLIED:
        return "same"
    if revision.checksum == record.checksum:
        return "same"
    verdict = compare(case.sources(record.revision), revision.source)
    # Equal texts under different checksums: the record's own checksum is not that of its source.
    return "edited" if verdict == "same" else verdict


AT_ONCE: Final = -(2**63)  # before every sequence: what is not applied holds nothing up


def late_below(case: Case, pending: Sequence[str]) -> Iterator[tuple[str, OutOfOrder]]:
    """The pending revisions that have an applied one above them."""
    below = case.graph.ancestors(case.applied)
    late = [each for each in pending if each in below]
    if not late:
        return
    above: dict[str, str] = {}  # of each revision, the lowest applied one that is seen above it
    for each in reversed(case.graph.listing(below)):
        higher = [child for child in case.graph.children(each) if child in below]
        found = [child if child in case.done else above.get(child, child) for child in higher]
        if found:
            above[each] = min(found, key=number_of)
    for each in late:
        yield each, _out_of_order(case, each, above[each])


def _out_of_order(case: Case, identifier: str, above: str) -> OutOfOrder:
    revision = case.files.revisions.get(identifier)
    return OutOfOrder(
        f"{identifier} is pending, but {above}, which stands on it, is applied",
        hint="allow it with `out_of_order = warn`, put it on top of its line with"
        f" `mongover rebase {identifier}`, or note it as applied with `mongover stamp`",
        where=None if revision is None else Where(revision.path),
        after=NOTHING_RUN,
    )


def shared_places(case: Case) -> dict[str, BadRecord]:
    """What is wrong with applied revisions whose place in the order of application is another's."""
    first: dict[int, str] = {}
    found = {}
    free = max((record.sequence for record in case.records.values()), default=0)
    for name in case.applied:
        place = case.records[name].sequence
        other = first.setdefault(place, name)
        if other == name or not place:  # without any place: as old as the history, by number
            continue
        free += 1
        found[name] = BadRecord(
            f"{other} and {name} both have the sequence number {place}, so the order in which they"
            " were applied is not known",
            hint=f"correct the record by hand: if {name} was applied last, set its `sequence` to"
            f" {free}",
            after=NOTHING_RUN,
        )
    return found
