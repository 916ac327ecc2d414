"""The errors that a person should read for what ended a revision's code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymongo.errors import PyMongoError

from mongover.database.faults import message_of
from mongover.errors import (
    Blocked,
    Interrupted,
    LockLost,
    MongoverError,
    RecordConflict,
    RevisionFailed,
)
from mongover.history.record import Direction
from mongover.planning.plan import rest_of
from mongover.running.script import where_in
from mongover.running.stop import is_interruption

if TYPE_CHECKING:
    from collections.abc import Callable

    from mongover.planning.plan import Plan, Step
    from mongover.running.step_run import StepRun


def lost_record(run: StepRun, conflict: RecordConflict) -> MongoverError:
    """The error for a record that another run, or the revision itself, has changed."""
    if conflict.gone:
        return RecordConflict(
            f"the record of {run.revision.id} was deleted while it ran",
            hint="its own code may have done it (does it drop the database?); what it did stands: "
            f'note it with mongover stamp {run.revision.id} --reason "…"',
            after="nothing after it was run.",
        )
    return LockLost(
        f"this process lost the lock while {run.revision.id} ran: {conflict.message}",
        hint=f"see what the new holder made of it: mongover show {run.revision.id}",
        after="its record was left to the new holder.",
    )


def explain_failure(run: StepRun, error: BaseException) -> MongoverError:
    """The error that a person should read for what ended a revision's code."""
    step, journal, redact = run.step, run.journal, run.voice.redact
    revision, way_on = run.revision, _way_on(run.plan, run.index)
    where = where_in(revision.path, error.__traceback__)
    recorded = f"{revision.id} is recorded as failed; nothing after it was run."
    if isinstance(error, MongoverError):
        after = f"{error.after} {recorded}".lstrip()
        blocked = (f"{revision.id} is blocked: {_way_out(step)}",)
        return error.but(
            where=error.where or where,
            # A lost lease: its record is the new holder's.
            after=error.after if isinstance(error, LockLost) else after,
            notes=error.notes + blocked * (journal.blocks and not isinstance(error, Blocked)),
        )
    if is_interruption(error):
        return Interrupted(
            f"{revision.id} was interrupted",
            hint=_way_out(step) if journal.blocks else way_on,
            after="its record says so, and the lock was released.",
        )
    return RevisionFailed(
        f"{revision.id}: {_verb(step)}() {redact(_said(error))}",
        where=where,
        notes=_driver_notes(error, redact),
        after=recorded,
        hint=_way_out(step) if journal.blocks else f"mend it, then {way_on}",
    )


def _said(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"called sys.exit({_printable(error.code)})"
    text = message_of(error)
    return f"raised {type(error).__name__}{f': {text}' if text else ''}"


def _printable(code: object) -> str:
    return repr(code) if isinstance(code, (int, str, type(None))) else type(code).__name__


def _driver_notes(error: BaseException, redact: Callable[[str], str]) -> tuple[str, ...]:
    """The driver's own words, which may hold values of documents."""
    if not isinstance(error, PyMongoError) or str(error) == message_of(error):
        return ()
    return (f"driver: {redact(' '.join(str(error).split()))}",)


def _verb(step: Step) -> str:
    return "upgrade" if step.direction is Direction.UP else "downgrade"


def _way_on(plan: Plan, index: int) -> str:
    """What goes on with a revision that stopped."""
    target = rest_of(plan, index)
    words = "" if target == "head" and plan.direction is Direction.UP else f" {target}"
    return f"`mongover {_verb(plan.steps[index])}{words}` goes on from there"


def _way_out(step: Step) -> str:
    """What to do about a revision that stopped where nobody knows what it left."""
    resolve = f'mongover resolve {step.revision.id} --retry | --applied | --reverted --reason "…"'
    shorter = " (or `mongover upgrade --retry`)" if step.direction is Direction.UP else ""
    return f"look at what it left, then {resolve}{shorter}"


def stopped_between(run: StepRun) -> Interrupted:
    """The error for a run that was asked to stop between two revisions."""
    plan, index = run.plan, run.index
    done, following = plan.steps[index].revision.id, plan.steps[index + 1].revision.id
    return Interrupted(
        f"stopped after {done}, as asked; {following} was not started",
        hint=_way_on(plan, index + 1),
        after=f"{index + 1} of {len(plan.steps)} revisions ran, and the lock was released.",
    )
