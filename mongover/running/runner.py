"""Running a plan: load every script, then step by step begin, run, and finish or fail.

The record says `applying` or `reverting` before any of a revision's code runs. The end of one
revision and the beginning of the next share one journaled write. With `transaction = True` the flip
to `applied` is part of the revision's own transaction.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from mongover.database.faults import describe, message_of
from mongover.errors import Interrupted, LockLost, RecordConflict, TransactionsUnsupported
from mongover.history import changes
from mongover.history.changes import Attempt
from mongover.history.effects import Ours
from mongover.history.record import Direction, State
from mongover.operations import Operations, Target
from mongover.planning.plan import subject_of
from mongover.running import events
from mongover.running.bodies import refuse_large, refuse_misuse
from mongover.running.failure import explain_failure, lost_record, stopped_between, way_on
from mongover.running.journal import StepJournal
from mongover.running.long_work import LongWork
from mongover.running.ownership import Ownership
from mongover.running.passage import Passage
from mongover.running.script import load_script
from mongover.running.stop import is_interruption

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from mongover.errors import MongoverError
    from mongover.history.changes import Change
    from mongover.history.ledger import Ledger
    from mongover.history.record import Record
    from mongover.planning.plan import Plan, Step
    from mongover.running.journal import Surroundings
    from mongover.running.script import Script


def load_scripts(plan: Plan, *, project: Path) -> list[Script]:
    """Every script of the plan, imported before the first one runs; `project` is importable.

    Raises:
        InvalidRevision: one is too large for its record, cannot be imported, lacks what the plan
            needs of it, or asks of `op` what it has not.
    """
    for step in plan.steps:
        refuse_large(step.revision)
    scripts = [load_script(step.revision, paths=(project,)) for step in plan.steps]
    for step in plan.steps:
        refuse_misuse(step.revision, "upgrade" if step.direction is Direction.UP else "downgrade")
    return scripts


def refuse_transactions(plan: Plan, *, available: bool) -> None:
    """Refuse a plan that needs transactions on a server that has none.

    Raises:
        TransactionsUnsupported: names the first revision that asks for one.
    """
    if available:
        return
    for step in plan.steps:
        if step.revision.transaction:
            raise TransactionsUnsupported(
                f"{step.revision.id} declares `transaction = True`, but the server is a "
                "standalone, which has no transactions",
                hint="run the server as a replica set (one node is enough: start it with "
                "`--replSet rs0`), or remove the declaration",
                after="nothing was run.",
            )


def run_plan(
    plan: Plan, scripts: Sequence[Script], known: Mapping[str, Record], around: Surroundings
) -> tuple[str, ...]:
    """Run every step and return the warnings; the history tells the truth wherever it ends.

    Raises:
        MongoverError: a step failed, was interrupted or lost its lease; its record says so.
    """
    sequence = max((record.sequence for record in known.values()), default=0)
    warnings: list[str] = []
    journal = None
    for index, (step, script) in enumerate(zip(plan.steps, scripts, strict=True)):
        if journal is None:
            journal = _begin(step, known, around)
        _tell_start(plan, index, around)
        flip = _execute(plan, index, script, journal, sequence + index + 1, around)
        warnings += journal.warnings
        following = plan.steps[index + 1 : index + 2]
        journal = _go_on(plan, index, flip, journal, following, known, around)
    return tuple(warnings)


def _attempt(step: Step, around: Surroundings) -> Attempt:
    return Attempt(
        revision=step.revision.id,
        direction=step.direction,
        run=around.run,
        owner=around.lease.owner,
        fence=around.lease.fence,
        by=around.by,
        checksum=step.revision.checksum,
        transaction=step.revision.transaction,
        repeatable=step.revision.repeatable is not False,
    )


def _journal(step: Step, known: Mapping[str, Record], around: Surroundings) -> StepJournal:
    attempt, record = _attempt(step, around), known.get(step.revision.id)
    long_work = LongWork(
        attempt,
        step.revision,
        database=around.database,
        history=around.history,
        workplace=around.workplace,
        goes_on=changes.continues(record, attempt.direction),
    )
    journal = StepJournal(
        attempt,
        around,
        declared=step.revision.repeatable,
        started=time.monotonic(),
        long_work=long_work,
        passage=_passage(step, changes.ledger_before(record, attempt.direction)),
        ownership=_ownership(step, around),
    )
    journal.repeatable = attempt.repeatable
    return journal


def _passage(step: Step, found: Ledger) -> Passage:
    return Passage(step.revision.id, found, lenient=step.revision.repeatable is True)


def _ownership(step: Step, around: Surroundings) -> Ownership:
    return Ownership(
        around.database,
        step.revision.id,
        around.ours.get(step.revision.id) or Ours(),
        undoes=around.target if step.direction is Direction.DOWN else None,
        allowed=around.allowed,
        own=around.protected,
    )


def _begin_change(step: Step, journal: StepJournal, known: Mapping[str, Record]) -> Change:
    subject = subject_of(step.revision)
    return changes.begin(journal.attempt, known.get(step.revision.id), subject)


def _begin(step: Step, known: Mapping[str, Record], around: Surroundings) -> StepJournal:
    around.lease.check()
    journal = _journal(step, known, around)
    around.history.write([_begin_change(step, journal, known)])
    # Who was stopped for longer than the lease just now begins no work.
    around.lease.check()
    return journal


def _go_on(  # noqa: PLR0917 - one private step of run_plan
    plan: Plan,
    index: int,
    flip: Change | None,
    journal: StepJournal,
    following: Sequence[Step],
    known: Mapping[str, Record],
    around: Surroundings,
) -> StepJournal | None:
    """Write the end of one step and, in the same write, the beginning of the next."""
    changes = [] if flip is None else [flip]
    stopping = around.stop.requested
    upcoming = None
    if following and not stopping and around.lease.lost is None:
        upcoming = _journal(following[0], known, around)
        changes.append(_begin_change(following[0], upcoming, known))
    _write_end(changes, plan.steps[index], around)
    journal.long_work.forget()
    _tell_end(plan, index, journal, around)
    if following and stopping:
        raise stopped_between(plan, index)
    if following:
        around.lease.check()
    return upcoming


def _write_end(changes: Sequence[Change], step: Step, around: Surroundings) -> None:
    try:
        if changes:
            around.history.write(changes)
    except RecordConflict as error:
        if error.revision != step.revision.id:
            raise
        raise lost_record(step, error) from error
    except PyMongoError as error:
        error.add_note(
            f"{step.revision.id} ran to its end, but its record could not be written: the next "
            "run finds it interrupted, and `mongover status` says how to go on"
        )
        raise


def _execute(  # noqa: PLR0917 - one private step of run_plan
    plan: Plan,
    index: int,
    script: Script,
    journal: StepJournal,
    sequence: int,
    around: Surroundings,
) -> Change | None:
    """Run one revision's code; return the flip that is still to be written, if any."""
    step = plan.steps[index]
    journal.started = time.monotonic()
    try:
        if step.revision.transaction:
            _run_in_transaction(step, script, journal, sequence, around)
            return None
        _run_code(step, script, journal, around)
        _settle(journal)
        return _flip(journal, sequence)
    except BaseException as error:
        if _landed(step, error, around):
            return None
        explained = explain_failure(step, journal, error, around, way_on=way_on(plan, index))
        _record_stop(step, journal, error, explained, around)
        _tell_failure(plan, index, journal, error, around)
        if explained is error:
            raise
        raise explained from error


def _settle(journal: StepJournal) -> None:
    """Note what came to be by op.db; what cannot be read is nobody's, and the step goes on."""
    with suppress(PyMongoError):
        journal.ownership.settle()


def _flip(journal: StepJournal, sequence: int) -> Change:
    return changes.finish(
        journal.attempt,
        sequence=sequence,
        duration_ms=journal.milliseconds,
        collections=tuple(journal.collections),
        warnings=tuple(journal.warnings),
        ledger=journal.passage.ledger,
        effects=journal.ownership.effects,
    )


def _run_in_transaction(
    step: Step, script: Script, journal: StepJournal, sequence: int, around: Surroundings
) -> None:
    def work() -> None:
        journal.collections.clear()
        journal.warnings.clear()
        journal.passage = _passage(step, journal.passage.found)
        journal.ownership.reset()
        _run_code(step, script, journal, around)
        around.lease.guard(around.session)
        around.history.write([_flip(journal, sequence)], session=around.session)

    around.transact(work)


def _run_code(step: Step, script: Script, journal: StepJournal, around: Surroundings) -> None:
    op = Operations(_target(journal, around))
    journal.long_work.module = script.module.__name__
    journal.long_work.paths = script.paths
    with around.stop.user_code(
        safe=lambda: journal.can_stop, deferred=lambda: _tell_deferred(step, around)
    ):
        script.run(step.direction, op)
    journal.passage.close()
    around.lease.check()


def _target(journal: StepJournal, around: Surroundings) -> Target:
    database = around.database
    if journal.attempt.transaction:  # its concern is the transaction's: one of its own is refused
        database = database.with_options(write_concern=WriteConcern())
    return Target(
        db=database,
        journal=journal,
        transaction=journal.attempt.transaction,
        transactions=around.transactions,
        strict=around.strict,
        max_time_ms=around.max_time_ms,
        protected=around.protected,
        watch=journal.ownership,
        server=around.server,
    )


def _landed(step: Step, error: BaseException, around: Surroundings) -> bool:
    """Whether a transaction was committed whatever its errors said: the flip was part of it."""
    if not step.revision.transaction or isinstance(error, LockLost):
        return False
    try:
        found = around.history.read_one(step.revision.id)
    except PyMongoError:  # the write of the failure meets the same server, and tells of it
        return False
    return found is not None and found.run == around.run and _is_done(found, step.direction)


def _record_stop(
    step: Step,
    journal: StepJournal,
    error: BaseException,
    explained: MongoverError,
    around: Surroundings,
) -> None:
    """Write how a step ended badly; what cannot be written is said in the error itself."""
    if isinstance(error, LockLost):
        return
    try:
        around.history.write([_stop(journal, error, around)])
    except RecordConflict as conflict:
        raise lost_record(step, conflict) from error
    except PyMongoError as unreachable:
        explained.after = "nothing after it was run."
        explained.notes += (
            f"the failure could not be recorded: {around.redact(message_of(unreachable))}",
            f"{step.revision.id} stays as it is until the next run finds its holder gone",
        )


def _stop(journal: StepJournal, error: BaseException, around: Surroundings) -> Change:
    _settle(journal)
    return changes.stop(
        journal.attempt,
        State.INTERRUPTED if is_interruption(error) else State.FAILED,
        outcome=journal.outcome,
        error=_described(error, around),
        duration_ms=journal.milliseconds,
        ledger=journal.passage.ledger,
        effects=None if journal.attempt.transaction else journal.ownership.effects,
    )


def _is_done(record: Record, direction: Direction) -> bool:
    done = State.APPLIED if direction is Direction.UP else State.REVERTED
    return record.state is done


def _described(error: BaseException, around: Surroundings) -> dict[str, Any]:
    """The error for record and listener; a stop that was asked for is named by what it means."""
    if is_interruption(error):
        return describe(Interrupted("the run was asked to stop"), around.redact)
    return describe(error, around.redact)


def _tell_start(plan: Plan, index: int, around: Surroundings) -> None:
    step = plan.steps[index]
    around.listener(
        events.StepStarted(
            revision=step.revision.id,
            schema=step.revision.schema,
            message=step.revision.message,
            direction=step.direction,
            position=index + 1,
            total=len(plan.steps),
            transaction=step.revision.transaction,
            continues=step.continues,
        )
    )


def _tell_end(plan: Plan, index: int, journal: StepJournal, around: Surroundings) -> None:
    step = plan.steps[index]
    seconds = journal.milliseconds / 1_000
    around.listener(
        events.StepFinished(step.revision.id, step.direction, index + 1, len(plan.steps), seconds)
    )


def _tell_failure(
    plan: Plan, index: int, journal: StepJournal, error: BaseException, around: Surroundings
) -> None:
    step = plan.steps[index]
    around.listener(
        events.StepFailed(
            revision=step.revision.id,
            direction=step.direction,
            position=index + 1,
            total=len(plan.steps),
            seconds=journal.milliseconds / 1_000,
            state="interrupted" if is_interruption(error) else "failed",
            message=_described(error, around)["message"],
        )
    )


def _tell_deferred(step: Step, around: Surroundings) -> None:
    text = f"finishing {step.revision.id}; press Ctrl-C again to stop now (leaves it half done)"
    around.listener(events.Notice(text, step.revision.id, "warning"))
