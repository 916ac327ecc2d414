"""Plans: the steps of an upgrade or a downgrade, or the reason why there are none. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mongover.errors import UsageError
from mongover.history.changes import Subject
from mongover.history.record import RUNNING, STOPPED, Direction, State
from mongover.planning.case import (
    AT_ONCE,
    NOTHING_RUN,
    half_done,
    late_below,
    look_at,
    running_ids,
    shared_places,
    state_of,
    text_verdict,
)
from mongover.planning.graph import SHOWN, name_of
from mongover.planning.sentences import (
    blocked_error,
    continues_sentence,
    edited_error,
    gone_error,
    irreversible_error,
    nothing_down,
    nothing_up,
    running_sentence,
)
from mongover.planning.targets import Targets, parse_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from mongover.history.record import Record
    from mongover.planning.case import Case
    from mongover.planning.targets import Selection
    from mongover.revisions.revision import Revision, RevisionFiles


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
    case = look_at(files, records, sources)
    selection = Targets(case.graph, case.applied).upgrade(target)
    if selection.whole:
        _refuse_unreadable(case.files)
    scope = case.graph.ancestors(selection.ids)
    case.graph.check(scope)
    order = case.graph.order(scope, rank=lambda each: each not in case.done)
    notices = [line for each in order for line in _examine_upgrade(case, each)]
    for schema in selection.lines:
        case.graph.check_heads(schema, applied=case.done)
    running = running_ids(case, order)
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
        nothing="" if steps else nothing_up(case, selection, running),
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
    case = look_at(files, records, sources)
    for error in shared_places(case).values():
        raise error
    selection = Targets(case.graph, case.applied).downgrade(target)
    if not selection.ids:
        _refuse_upward(case, target, selection)
    order = _downward(case, selection)
    notices = [line for each in order for line in _examine_downgrade(case, each)]
    running = running_ids(case, order)
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
        nothing="" if steps else nothing_down(case, target, selection, running),
    )


def _step(case: Case, identifier: str, direction: Direction) -> Step:
    record = case.records.get(identifier)
    continues = record is not None and record.state in STOPPED and record.direction is direction
    return Step(case.files.revisions[identifier], direction, continues)


def _examine_upgrade(case: Case, identifier: str) -> Iterator[str]:
    """What to say of a revision that an upgrade needs; raises what forbids the upgrade."""
    record = case.records.get(identifier)
    if record is not None and record.state in RUNNING:
        yield running_sentence(record)
        return
    _check_file(case, identifier, record)
    if record is None:
        return
    if record.blocked or half_done(record, Direction.DOWN):
        raise blocked_error(case, record)
    if record.state in STOPPED and record.direction is Direction.UP:
        yield continues_sentence(record)
    yield from _check_text(case, record)


def _examine_downgrade(case: Case, identifier: str) -> Iterator[str]:
    """What to say of a revision that a downgrade meets; raises what forbids the downgrade."""
    record = case.records.get(identifier)
    if record is None or record.state in (State.REVERTED, State.PENDING):
        return
    if record.state in RUNNING:
        yield running_sentence(record)
        return
    if record.blocked or half_done(record, Direction.UP):
        raise blocked_error(case, record)
    if not record.counts_as_applied:
        return
    _check_file(case, identifier, record)
    revision = case.files.revisions[identifier]
    if not revision.has_downgrade:
        raise irreversible_error(revision)
    if record.state in STOPPED:
        yield continues_sentence(record)
    yield from _check_text(case, record)


def _check_file(case: Case, identifier: str, record: Record | None) -> None:
    if identifier in case.files.broken:
        raise case.files.broken[identifier]
    if identifier not in case.files.revisions and record is not None:
        raise gone_error(case, record)


def _check_text(case: Case, record: Record) -> Iterator[str]:
    verdict = text_verdict(case, record)
    if verdict == "edited":
        raise edited_error(case, record)
    if verdict == "reformatted":
        yield f"{record.revision} was reformatted after it was applied; its code says the same"


def _downward(case: Case, selection: Selection) -> list[str]:
    """What is reverted and what stands on it, as far as the history knows it, from above."""

    def latest_first(identifier: str) -> int:
        return -case.records[identifier].sequence if identifier in case.done else AT_ONCE

    scope = case.graph.descendants(selection.ids)
    known = [each for each in scope if state_of(case, each) not in (State.PENDING, State.REVERTED)]
    case.graph.check(known)
    scope &= case.graph.ancestors(known)
    return case.graph.order(scope, rank=latest_first, reverse=True)


def _refuse_upward(case: Case, target: str, selection: Selection) -> None:
    """Refuse a downgrade to what is neither applied nor below anything that is."""
    far = [each for each in selection.stays if each not in case.done]
    far = [each for each in far if state_of(case, each) not in RUNNING]
    if not far:
        return
    name = target.strip()
    what = f"{far[0]} is not applied" if name == far[0] else f"{name} ({far[0]}) is not applied"
    schema = case.graph.nodes[far[0]].schema
    raise UsageError(
        f"a downgrade goes down, and {what}: {_standing(case, schema)}",
        hint=f"mongover upgrade {name}, or a target that is applied",
        after=NOTHING_RUN,
    )


def _standing(case: Case, schema: str | None) -> str:
    line = [each for each in case.applied if case.graph.nodes[each].schema == schema]
    current = [each for each in line if case.done.isdisjoint(case.graph.in_line(each, up=True))]
    if not current:
        return f"no revision of {name_of(schema)} is"
    return f"{name_of(schema)} stands at {', '.join(current[:SHOWN])}"


def _refuse_unreadable(files: RevisionFiles) -> None:
    if files.broken:
        raise next(iter(files.broken.values()))


def _out_of_order_notices(case: Case, pending: Sequence[str], policy: str) -> list[str]:
    if policy == "allow":
        return []
    late = [error for _, error in late_below(case, pending)]
    if late and policy != "warn":
        raise late[0]
    return [f"out of order: {error.message}" for error in late]


def _unreadable_notices(case: Case) -> list[str]:
    errors = dict.fromkeys(case.files.broken.values())
    return [f"not needed here, but to be mended: {error.message}" for error in errors]


def _further_notices(case: Case, reverted: Sequence[str], selection: Selection) -> list[str]:
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
