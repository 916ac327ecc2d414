"""What each revision of a plan may take away, from the records alone. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mongover.history.effects import Ours, Thing
from mongover.history.record import STOPPED, Direction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mongover.history.record import LogEntry, Record
    from mongover.planning.plan import Plan, Step


def owners(
    plan: Plan, known: Mapping[str, Record], whole: Callable[[str], Record | None]
) -> dict[str, Ours]:
    """What every revision of the plan has made when its step begins, by its id.

    `whole` reads a record with its log; it is asked only for one that a release wrote which kept no
    effects.
    """
    found = {}
    applied = {each: record for each, record in known.items() if record.counts_as_applied}
    for step in plan.steps:
        name = step.revision.id
        record = applied.pop(name, None) if step.direction is Direction.DOWN else known.get(name)
        found[name] = _of(step, record, applied.values(), whole)
    return found


def _of(
    step: Step,
    record: Record | None,
    others: Iterable[Record],
    whole: Callable[[str], Record | None],
) -> Ours:
    if step.direction is Direction.UP:
        return _of_upgrade(record)
    if record is None:
        return Ours(trusted=True)
    ours = _folded(record, sorted(others, key=lambda each: each.sequence))
    ours.adopted = record.adopted
    if record.effects is None:
        ours.adopted = was_adopted(record, whole(record.revision))
        ours.trusted = not ours.adopted
    return ours


def _of_upgrade(record: Record | None) -> Ours:
    """What an attempt that goes on with another finds made by that one."""
    if record is None or record.state not in STOPPED or record.direction is not Direction.UP:
        return Ours()
    return _folded(record, ())


def _folded(record: Record, others: Sequence[Record]) -> Ours:
    """The record's own effects in their place among those of the others."""
    ours = Ours(kept=record.effects is not None)
    for each in others:
        if each.sequence < record.sequence:
            _by_another(ours, each)
    for effect in record.effects or ():
        ours.add(effect)
    for each in others:
        if each.sequence >= record.sequence:
            _by_another(ours, each)
    return ours


def _by_another(ours: Ours, record: Record) -> None:
    for effect in record.effects or ():
        ours.add_anothers(effect)
    if record.effects is None:  # of a stamped one the collections are none
        ours.vague |= set(record.collections)
        ours.everywhere |= {Thing(name) for name in record.collections}


def was_adopted(record: Record, whole: Record | None) -> bool:
    """Whether a record without effects was stamped: its log says so, or that no time was taken.

    A release that kept no effects did not mark what it stamped; its log tells how the revision came
    to be applied. Without a log, a revision that ran has a duration.
    """
    for entry in reversed(() if whole is None else whole.log):
        if _made_applied(entry):
            return entry.action == "stamp"
    return record.duration_ms is None and not record.collections


def _made_applied(entry: LogEntry) -> bool:
    return entry.outcome == "applied" and entry.action in {"apply", "stamp"}
