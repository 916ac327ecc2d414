"""What an upgrade or a downgrade would do, decided before anything is done. Pure.

Files and records go in, a `Plan` comes out, or the one error that stands in its way. Everything
that a plan needs is checked here and nothing that it does not need; what is wrong elsewhere is a
notice at most. `find_problems` looks at everything and raises nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from mongover.errors import (
    Ahead,
    BadRecord,
    Blocked,
    CycleError,
    DuplicateRevision,
    Edited,
    Irreversible,
    MissingFile,
    MongoverError,
    MultipleHeads,
    OutOfOrder,
    UnknownTarget,
    UsageError,
    Where,
)
from mongover.graph import (
    NO_NUMBER,
    SHOWN,
    Graph,
    Node,
    Targets,
    name_of,
    number_of,
    parse_target,
)
from mongover.records import RUNNING, STOPPED, Direction, Outcome, Record, State, Subject
from mongover.revision import compare, difference, duplicate_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from mongover.graph import Linked, Selection
    from mongover.revision import Revision, RevisionFiles

_NOTHING_RUN: Final = "nothing was run."


@dataclass(frozen=True, slots=True)
class Step:
    """One revision to be run in one direction; `continues` an attempt that did not end well."""

    revision: Revision
    direction: Direction
    continues: bool = False


class Destroyed(Protocol):
    """Something that a downgrade would destroy."""

    @property
    def refused(self) -> str:
        """Why a run would refuse to destroy it, or nothing."""
        ...

    def sentence(self) -> str:
        """What would be destroyed by which revision."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The value as `--json` and the HTTP API show it."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps towards a target, in the order in which they must run.

    Attributes:
        reaches: Lines beside the target's own that a downgrade goes into.
        notices: Sentences that people should read before it runs.
        running: Revisions in its way that another process runs now; whoever wants them done waits
            for the lock and plans again. No step needs one of them.
        nothing: Why there are no steps, in a sentence; empty when there are some.
        destroys: What a downgrade would destroy, as far as its text tells.
        unforeseen: What that text does not tell, a line each.
    """

    direction: Direction
    target: str
    steps: tuple[Step, ...]
    reaches: tuple[str | None, ...] = ()
    notices: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    nothing: str = ""
    destroys: tuple[Destroyed, ...] = ()
    unforeseen: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The plan as the CLI's `--json` and the HTTP API show it."""
        return {
            "direction": str(self.direction),
            "target": self.target,
            "steps": [
                {
                    "revision": step.revision.id,
                    "schema": step.revision.schema,
                    "direction": str(step.direction),
                    "message": step.revision.message,
                    "transaction": step.revision.transaction,
                }
                for step in self.steps
            ],
            "notices": list(self.notices),
            "destroys": [each.to_json() for each in self.destroys],
            "unforeseen": list(self.unforeseen),
        }


def rest_of(plan: Plan, index: int) -> str:
    """The target that asks for the steps from this one on, and for none beyond the plan's last.

    A walk from where the history stands grew shorter with every step that ran.
    """
    target = parse_target(plan.target)
    if not target.steps or target.name not in ("", "current"):
        return plan.target
    line = target.line
    if target.name:  # the walk was along the line that is worked on last
        line = plan.steps[-1].revision.schema or ""
    left = [each.revision.schema or "" for each in plan.steps[index:]]
    count = len(left) if line is None else left.count(line)
    before = "" if line is None else f"{line}@"
    return f"{before}{'+' if plan.direction is Direction.UP else '-'}{count}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong, or worth knowing when there is no `error`.

    `kind` is one of: unreadable, duplicate, unknown-parent, cycle, multiple-heads, unrunnable,
    edited, missing, ahead, blocked, out-of-order, bad-record; without an error: reformatted,
    failed, interrupted, degraded.
    """

    revision: str | None
    kind: str
    message: str
    hint: str
    error: MongoverError | None = None

    @property
    def waits(self) -> bool:
        """Whether somebody must do something about it; a file that was reformatted may stay so."""
        return self.kind != "reformatted"

    def to_json(self) -> dict[str, str | None]:
        """The problem as the CLI's `--json` and the HTTP API show it."""
        return {
            "revision": self.revision,
            "kind": self.kind,
            "message": self.message,
            "hint": self.hint,
        }


class LineState(StrEnum):
    """How a line stands; the first that holds, in this order."""

    RUNNING = "running"  # a process runs a revision of it
    BLOCKED = "blocked"  # a person must say what an attempt left, or finish a downgrade
    FAILED = "failed"  # an attempt did not end well, and can simply be run again
    DEGRADED = "degraded"  # applied, but with warnings that wait to be mended
    PENDING = "pending"
    UP_TO_DATE = "up to date"


@dataclass(frozen=True, slots=True)
class StatusRow:
    """One line: its applied heads, its heads, what is pending in order of a run.

    `irreversible` are the applied revisions of the line that have no downgrade.
    """

    schema: str | None
    current: tuple[str, ...]
    head: tuple[str, ...]
    pending: tuple[str, ...]
    state: LineState
    irreversible: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Case:
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
        if record.revision not in files.revisions and (whole or _left_something(record))
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
    return _half(record, Direction.DOWN), record.sequence, number_of(record.revision)


def subject_of(revision: Revision) -> Subject:
    """What the history keeps of a revision's file."""
    return Subject(
        revision=revision.id,
        schema=revision.schema,
        message=revision.message,
        down_revision=revision.down_revision,
        depends_on=revision.depends_on,
        checksum=revision.checksum,
        source=revision.source,
        file=revision.path.name,
    )


def plan_upgrade(
    files: RevisionFiles,
    records: Mapping[str, Record],
    target: str = "head",
    *,
    out_of_order: str = "error",
    sources: Callable[[str], str],
) -> Plan:
    """The steps that apply what the target needs and lacks, each after all that it needs.

    `out_of_order` may `allow` a pending revision under applied ones or `warn` of it; all else
    refuses it. `sources` gives the recorded text of a revision whose checksum differs.

    Raises:
        TargetError: the target names nothing.
        FilesError: files that the plan needs do not hold together.
        HistoryError: files and history disagree on something that the plan needs.
    """
    case = _look(files, records, sources)
    selection = Targets(case.graph, case.applied).upgrade(target)
    if selection.whole:
        _refuse_unreadable(case.files)
    scope = case.graph.ancestors(selection.ids)
    case.graph.check(scope)
    order = case.graph.order(scope, rank=lambda each: each not in case.done)
    notices = [line for each in order for line in _examine_upgrade(case, each)]
    for schema in selection.lines:
        case.graph.check_heads(schema, applied=case.done)
    running = _running(case, order)
    waiting = case.graph.descendants(running)
    pending = [each for each in order if each not in case.done and each not in waiting]
    notices += _out_of_order_notices(case, pending, out_of_order)
    steps = tuple(_step(case, each, Direction.UP) for each in pending)
    return Plan(
        Direction.UP,
        target,
        steps,
        notices=(*notices, *_unreadable_notices(case)),
        running=running,
        nothing="" if steps else _nothing_up(case, selection, running),
    )


def plan_downgrade(
    files: RevisionFiles,
    records: Mapping[str, Record],
    target: str,
    *,
    sources: Callable[[str], str],
) -> Plan:
    """The steps that revert what is above the target, each before all that it needs.

    `sources` gives the recorded text of a revision whose checksum differs.

    Raises:
        TargetError: the target names nothing.
        UsageError: the target is not applied, and nothing above it is.
        FilesError: files that the plan needs do not hold together.
        HistoryError: files and history disagree on something that the plan needs, or the order of
            application cannot be told.
        Irreversible: a revision on the way has no downgrade.
    """
    case = _look(files, records, sources)
    for error in _shared_places(case).values():
        raise error
    selection = Targets(case.graph, case.applied).downgrade(target)
    if not selection.ids:
        _refuse_upward(case, target, selection)
    order = _downward(case, selection)
    notices = [line for each in order for line in _examine_downgrade(case, each)]
    running = _running(case, order)
    held = case.graph.ancestors(running)
    reverted = [each for each in order if each in case.done and each not in held]
    steps = tuple(_step(case, each, Direction.DOWN) for each in reverted)
    schemas = dict.fromkeys(case.graph.nodes[each].schema for each in reverted)
    notices += _further_notices(case, reverted, selection)
    return Plan(
        Direction.DOWN,
        target,
        steps,
        reaches=tuple(schema for schema in schemas if schema not in selection.lines),
        notices=(*notices, *_unreadable_notices(case)),
        running=running,
        nothing="" if steps else _nothing_down(case, target, selection, running),
    )


def find_problems(
    files: RevisionFiles, records: Mapping[str, Record], *, sources: Callable[[str], str]
) -> list[Problem]:
    """Everything wrong with files and history, blocking or not; raises nothing of its own."""
    case = _look(files, records, sources)
    unreadable = set(case.files.broken.values())
    wrong = case.graph.problems()
    problems = [
        _problem(name, "duplicate" if isinstance(error, DuplicateRevision) else "unreadable", error)
        for name, error in case.files.broken.items()
    ]
    problems += [
        _problem(name, "cycle" if isinstance(error, CycleError) else "unknown-parent", error)
        for name, error in wrong.items()
        if error not in unreadable
    ]
    problems += _head_problems(case, wrong)
    problems += [
        _problem(name, "bad-record", error) for name, error in _shared_places(case).items()
    ]
    for name in sorted(records, key=number_of):
        problems.extend(_record_problems(case, records[name]))
    pending = [each for each in case.graph.nodes if _state(case, each) not in RUNNING]
    pending = [each for each in pending if each not in case.done]
    problems += [_problem(name, "out-of-order", error) for name, error in _late(case, pending)]
    return problems


def status_rows(files: RevisionFiles, records: Mapping[str, Record]) -> list[StatusRow]:
    """One row per line, in the order of their first revisions."""
    graph = known_graph(files, records)
    done = {name for name, record in records.items() if record.counts_as_applied}
    order = graph.listing([each for each in graph.nodes if each not in done])
    pending: dict[str | None, list[str]] = {schema: [] for schema in graph.schemas}
    for each in order:
        pending[graph.nodes[each].schema].append(each)
    return [
        _row(files, records, graph, schema=schema, pending=waiting)
        for schema, waiting in pending.items()
    ]


# ── what files and records say of each other ─────────────────────────────────────────────────────


def _look(
    files: RevisionFiles, records: Mapping[str, Record], sources: Callable[[str], str]
) -> _Case:
    files = told_apart(files, records)
    applied = applied_in_order(records)
    graph = known_graph(files, records)
    numbers = [number_of(each)[0] for each in (*files.revisions, *files.broken)]
    newest = max((each for each in numbers if each < NO_NUMBER), default=-1)
    return _Case(files, records, sources, graph, applied, frozenset(applied), newest)


def told_apart(files: RevisionFiles, records: Mapping[str, Record]) -> RevisionFiles:
    """The files, with the history's word on which of those with one number keeps it."""
    if not any(isinstance(error, DuplicateRevision) for error in files.broken.values()):
        return files
    kept = {record.file for record in records.values() if _left_something(record)}
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


def _left_something(record: Record) -> bool:
    if record.counts_as_applied or record.state in RUNNING:
        return True
    return _half(record, record.direction)


def _half(record: Record, direction: Direction) -> bool:
    """Whether an attempt in this direction stopped and may have left something."""
    stopped = record.state in STOPPED and record.direction is direction
    return stopped and record.outcome is not Outcome.NOTHING


def _running(case: _Case, ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(each for each in ids if _state(case, each) in RUNNING)


def _state(case: _Case, identifier: str) -> State:
    record = case.records.get(identifier)
    return State.PENDING if record is None else record.state


def _step(case: _Case, identifier: str, direction: Direction) -> Step:
    record = case.records.get(identifier)
    continues = record is not None and record.state in STOPPED and record.direction is direction
    return Step(case.files.revisions[identifier], direction, continues)


def _examine_upgrade(case: _Case, identifier: str) -> Iterator[str]:
    """What to say of a revision that an upgrade needs; raises what forbids the upgrade."""
    record = case.records.get(identifier)
    if record is not None and record.state in RUNNING:
        yield _running_sentence(record)
        return
    _check_file(case, identifier, record)
    if record is None:
        return
    if record.blocked or _half(record, Direction.DOWN):
        raise _blocked(case, record)
    if record.state in STOPPED and record.direction is Direction.UP:
        yield _continues_sentence(record)
    yield from _check_text(case, record)


def _examine_downgrade(case: _Case, identifier: str) -> Iterator[str]:
    """What to say of a revision that a downgrade meets; raises what forbids the downgrade."""
    record = case.records.get(identifier)
    if record is None or record.state in (State.REVERTED, State.PENDING):
        return
    if record.state in RUNNING:
        yield _running_sentence(record)
        return
    if record.blocked or _half(record, Direction.UP):
        raise _blocked(case, record)
    if not record.counts_as_applied:
        return
    _check_file(case, identifier, record)
    revision = case.files.revisions[identifier]
    if not revision.has_downgrade:
        raise _irreversible(revision)
    if record.state in STOPPED:
        yield _continues_sentence(record)
    yield from _check_text(case, record)


def _check_file(case: _Case, identifier: str, record: Record | None) -> None:
    if identifier in case.files.broken:
        raise case.files.broken[identifier]
    if identifier not in case.files.revisions and record is not None:
        raise _gone(case, record)


def _check_text(case: _Case, record: Record) -> Iterator[str]:
    verdict = _verdict(case, record)
    if verdict == "edited":
        raise _edited(case, record)
    if verdict == "reformatted":
        yield f"{record.revision} was reformatted after it was applied; its code says the same"


def _verdict(case: _Case, record: Record) -> Literal["same", "reformatted", "edited"]:
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


def _downward(case: _Case, selection: Selection) -> list[str]:
    """What is reverted and what stands on it, as far as the history knows it, from above."""

    def latest_first(identifier: str) -> int:
        return -case.records[identifier].sequence if identifier in case.done else _AT_ONCE

    scope = case.graph.descendants(selection.ids)
    known = [each for each in scope if _state(case, each) not in (State.PENDING, State.REVERTED)]
    case.graph.check(known)
    scope &= case.graph.ancestors(known)
    return case.graph.order(scope, rank=latest_first, reverse=True)


def _refuse_upward(case: _Case, target: str, selection: Selection) -> None:
    """Refuse a downgrade to what is neither applied nor below anything that is."""
    far = [each for each in selection.stays if each not in case.done]
    far = [each for each in far if _state(case, each) not in RUNNING]
    if not far:
        return
    name = target.strip()
    what = f"{far[0]} is not applied" if name == far[0] else f"{name} ({far[0]}) is not applied"
    schema = case.graph.nodes[far[0]].schema
    raise UsageError(
        f"a downgrade goes down, and {what}: {_standing(case, schema)}",
        hint=f"mongover upgrade {name}, or a target that is applied",
        after=_NOTHING_RUN,
    )


def _standing(case: _Case, schema: str | None) -> str:
    line = [each for each in case.applied if case.graph.nodes[each].schema == schema]
    current = [each for each in line if case.done.isdisjoint(case.graph.in_line(each, up=True))]
    if not current:
        return f"no revision of {name_of(schema)} is"
    return f"{name_of(schema)} stands at {', '.join(current[:SHOWN])}"


_AT_ONCE: Final = -(2**63)  # before every sequence: what is not applied holds nothing up


def _refuse_unreadable(files: RevisionFiles) -> None:
    if files.broken:
        raise next(iter(files.broken.values()))


def _late(case: _Case, pending: Sequence[str]) -> Iterator[tuple[str, OutOfOrder]]:
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


def _out_of_order(case: _Case, identifier: str, above: str) -> OutOfOrder:
    revision = case.files.revisions.get(identifier)
    return OutOfOrder(
        f"{identifier} is pending, but {above}, which stands on it, is applied",
        hint="allow it with `out_of_order = warn`, put it on top of its line with"
        f" `mongover rebase {identifier}`, or note it as applied with `mongover stamp`",
        where=None if revision is None else Where(revision.path),
        after=_NOTHING_RUN,
    )


def _out_of_order_notices(case: _Case, pending: Sequence[str], policy: str) -> list[str]:
    if policy == "allow":
        return []
    late = [error for _, error in _late(case, pending)]
    if late and policy != "warn":
        raise late[0]
    return [f"out of order: {error.message}" for error in late]


def _unreadable_notices(case: _Case) -> list[str]:
    errors = dict.fromkeys(case.files.broken.values())
    return [f"not needed here, but to be mended: {error.message}" for error in errors]


def _further_notices(case: _Case, reverted: Sequence[str], selection: Selection) -> list[str]:
    named = set(selection.ids)
    further = [
        f"{each} ({name_of(case.graph.nodes[each].schema)})"
        for each in reverted
        if each not in named
    ]
    shown = further[:SHOWN] + ([f"{len(further) - SHOWN} more"] if len(further) > SHOWN else [])
    if not further:
        return []
    verb = "it stands" if len(further) == 1 else "they stand"
    return [f"also reverts {', '.join(shown)}: {verb} on what is reverted"]


# ── findings ─────────────────────────────────────────────────────────────────────────────────────


def _gone(case: _Case, record: Record) -> MissingFile | Ahead:
    name, folder = record.revision, case.files.folder
    if 0 <= case.newest < number_of(name)[0] < NO_NUMBER:
        return Ahead(
            f"the database holds {name} ({record.message}), which is newer than every file in"
            f" {folder}",
            hint="run the release that brought it, or write its file back with"
            f" `mongover restore {name}`",
            after=_NOTHING_RUN,
        )
    what = "is applied" if record.counts_as_applied else "was begun"
    return MissingFile(
        f"{name} ({record.message}) {what}, but {folder} has no file of it",
        hint=f"mongover restore {name}",
        notes=() if case.newest >= 0 else [f"there are no revision files in {folder} at all"],
        after=_NOTHING_RUN,
    )


def _shared_places(case: _Case) -> dict[str, BadRecord]:
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
            after=_NOTHING_RUN,
        )
    return found


def _blocked(case: _Case, record: Record) -> Blocked:
    what = "upgrade" if record.direction is Direction.UP else "downgrade"
    resolve = f'mongover resolve {record.revision} --retry | --applied | --reverted --reason "…"'
    ledger = record.ledger
    return Blocked(
        f"{record.revision} stopped half-way: its {what} {_ending(record)}, and {_unknown(record)}",
        hint=resolve
        if record.blocked
        else f"finish it with `{_again(case, record)}`, or {resolve}",
        notes=[*_error_notes(record), *(() if ledger is None else ledger.said)],
        after=_NOTHING_RUN,
    )


def _unknown(record: Record) -> str:
    """What is not known of a revision that stopped half-way."""
    ledger = record.ledger
    if not record.blocked:
        return "it is not finished"
    if ledger is None:
        return "the release of mongover that ran it did not note what was done"
    if ledger.blocked and ledger.begun is not None:
        return f"how far `{ledger.begun.operation}` came is not known"
    return "what it left is not known"


def _again(case: _Case, record: Record) -> str:
    """The command that goes on with an attempt and, where a target can say so, does no more."""
    if record.direction is Direction.UP:
        return "mongover upgrade"
    line = [each for each in case.applied if case.graph.nodes[each].schema == record.schema]
    if case.applied[-1] == record.revision:
        return "mongover downgrade -1"
    if line[-1] == record.revision:
        return f"mongover downgrade {record.schema or ''}@-1"
    below = record.down_revision[0] if record.down_revision else f"{record.schema or ''}@base"
    return f"mongover downgrade {below}"


def _ending(record: Record) -> str:
    verb = "failed" if record.state is State.FAILED else "was interrupted"
    began = "" if record.started_at is None else f" (begun {record.started_at:%Y-%m-%d %H:%M:%S})"
    who = _who(record)
    return f"{verb}{began}{f' by {who}' if who else ''}"


def _who(record: Record) -> str:
    parts = (record.by.get("user"), record.by.get("host"))
    return "@".join(str(part) for part in parts if part)


def _error_notes(record: Record) -> list[str]:
    error = record.error or {}
    said = dict.fromkeys(str(error[key]) for key in ("type", "message") if error.get(key))
    return [": ".join(said)] if said else []


def _edited(case: _Case, record: Record) -> Edited:
    revision = case.files.revisions[record.revision]
    who = _who(record)
    when = "" if record.applied_at is None else f" {record.applied_at:%Y-%m-%d %H:%M:%S}"
    differs = difference(case.sources(record.revision), revision.source)
    return Edited(
        f"{revision.id} was edited after it was applied",
        hint="put the file back, or write a new revision, or accept it:"
        f' mongover repair {revision.id} --reason "…"',
        notes=[
            f"applied{when}{f' by {who}' if who else ''}, {_short(record.checksum)}",
            f"on disk {_short(revision.checksum)}, {differs} (`mongover diff {revision.id}`)",
        ],
        where=Where(revision.path),
        after=_NOTHING_RUN,
    )


def _short(digest: str) -> str:
    return f"sha256 {digest.removeprefix('sha256:')[:8]}…"


def _irreversible(revision: Revision) -> Irreversible:
    return Irreversible(
        f"{revision.id} ({revision.message}) cannot be reverted: {revision.path.name} has no"
        " downgrade()",
        hint="write a downgrade(op) in it and accept the file:"
        f' mongover repair {revision.id} --reason "…"; or go to a target above it',
        where=Where(revision.path),
        after=_NOTHING_RUN,
    )


def _running_sentence(record: Record) -> str:
    what = "applied" if record.state is State.APPLYING else "reverted"
    who = _who(record)
    return f"{record.revision} is being {what}{f' by {who}' if who else ' by another process'}"


def _continues_sentence(record: Record) -> str:
    what = "upgrade" if record.direction is Direction.UP else "downgrade"
    return f"continues {record.revision}, whose {what} {_ending(record)}"


def _problem(name: str, kind: str, error: MongoverError) -> Problem:
    return Problem(name, kind, error.message, error.hint, error)


def _head_problems(case: _Case, wrong: Mapping[str, MongoverError]) -> Iterator[Problem]:
    if case.files.broken:
        return  # a file that cannot be read may be the one that joins two heads
    for schema, line in case.graph.lines.items():
        try:
            case.graph.check_heads(schema, applied=case.done)
        except CycleError:
            continue  # it is a problem of its own
        except MultipleHeads as error:
            if wrong.keys().isdisjoint(line):
                yield _problem(case.graph.heads(schema)[-1], "multiple-heads", error)


def _record_problems(case: _Case, record: Record) -> Iterator[Problem]:
    name = record.revision
    if record.state in RUNNING:
        return
    if record.blocked or _half(record, Direction.DOWN):
        yield _problem(name, "blocked", _blocked(case, record))
    elif record.state in STOPPED:
        yield _unfinished(case, record)
    if record.state is State.APPLIED and record.warnings:
        yield _degraded(record)
    if name in case.files.broken or not _left_something(record):
        return
    if name not in case.files.revisions:
        gone = _gone(case, record)
        yield _problem(name, "ahead" if isinstance(gone, Ahead) else "missing", gone)
        return
    yield from _text_problems(case, record)


def _text_problems(case: _Case, record: Record) -> Iterator[Problem]:
    name, verdict = record.revision, _verdict(case, record)
    if verdict == "edited":
        yield _problem(name, verdict, _edited(case, record))
    elif verdict == "reformatted":
        message = f"{name} was reformatted after it was applied; its code says the same"
        hint = f'nothing need be done; mongover repair {name} --reason "…" notes the new text'
        yield Problem(name, verdict, message, hint)


def _unfinished(case: _Case, record: Record) -> Problem:
    """An attempt that can be run again without anybody's word."""
    name, command = record.revision, "upgrade"
    resolve, hint = f"mongover resolve {name}", f"`{_again(case, record)}` goes on with it"
    if record.direction is Direction.DOWN:
        command = "downgrade"
        hint += f', or it stays applied: {resolve} --applied --reason "…"'
    elif name not in case.graph.nodes:
        hint = f'its file is gone; forget it: {resolve} --reverted --reason "…", or write the file'
        hint += f" back: mongover restore {name}"
    message = f"the {command} of {name} {_ending(record)}"
    return Problem(name, str(record.state), message, hint)


def _degraded(record: Record) -> Problem:
    """An applied revision of which `strict = false` let something fail."""
    first, *others = record.warnings
    more = f" (and {len(others)} more)" if others else ""
    return Problem(
        record.revision,
        "degraded",
        f"{record.revision} was applied with {'warnings' if others else 'a warning'}:"
        f" {first}{more}",
        f'mend it in the database, then: mongover repair {record.revision} --reason "…"',
    )


# ── status, and the sentences for empty plans ────────────────────────────────────────────────────


def _row(
    files: RevisionFiles,
    records: Mapping[str, Record],
    graph: Graph,
    *,
    schema: str | None,
    pending: Sequence[str],
) -> StatusRow:
    held = [records[each] for each in graph.lines[schema] if each in records]
    done = {record.revision for record in held if record.counts_as_applied}
    current = done.difference(*(graph.nodes[each].down_revision for each in done))
    return StatusRow(
        schema,
        current=tuple(each.revision for each in held if each.revision in current),
        head=graph.heads(schema),
        pending=tuple(pending),
        state=_line_state(held, pending),
        irreversible=tuple(each for each in graph.lines[schema] if _stuck(files, each, done)),
    )


def _stuck(files: RevisionFiles, identifier: str, done: Collection[str]) -> bool:
    revision = files.revisions.get(identifier)
    return identifier in done and revision is not None and not revision.has_downgrade


def _line_state(held: Sequence[Record], pending: Sequence[str]) -> LineState:
    if any(record.state in RUNNING for record in held):
        return LineState.RUNNING
    stopped = [record for record in held if record.state in STOPPED]
    if any(record.blocked or _half(record, Direction.DOWN) for record in stopped):
        return LineState.BLOCKED
    if stopped:
        return LineState.FAILED
    if any(record.warnings and record.counts_as_applied for record in held):
        return LineState.DEGRADED
    return LineState.PENDING if pending else LineState.UP_TO_DATE


def _nothing_up(case: _Case, selection: Selection, running: Sequence[str]) -> str:
    if running:
        return f"nothing to do now: {_running_sentence(case.records[running[0]])}"
    if not case.graph.nodes:
        return f"nothing to do: there are no revision files in {case.files.folder}"
    if len(selection.lines) > 1:
        return f"nothing to do: all {len(selection.lines)} lines are at their heads"
    if selection.lines:
        head = ", ".join(case.graph.heads(selection.lines[0]))
        return f"nothing to do: {name_of(selection.lines[0])} is at {head}, its head"
    verb = "are" if len(selection.ids) > 1 else "is"
    names = ", ".join(selection.ids) or "all that is current"
    return f"nothing to do: {names} {verb} applied already"


def _nothing_down(case: _Case, target: str, selection: Selection, running: Sequence[str]) -> str:
    if running:
        return f"nothing to do now: {_running_sentence(case.records[running[0]])}"
    if not case.applied:
        return "nothing to do: no revision is applied"
    if target.strip().endswith("base"):
        lines = ", ".join(name_of(schema) for schema in selection.lines)
        return f"nothing to do: no revision of {lines} is applied"
    above = f"nothing to do: no revision above {target.strip()} is applied"
    lines = ", ".join(name_of(schema) for schema in selection.lines)
    return above if selection.whole or not lines else f"{above} in {lines}"
