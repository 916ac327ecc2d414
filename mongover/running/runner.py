"""Running a plan: load every script, then step by step begin, run, and finish or fail.

The record says `applying` or `reverting` before any of a revision's code runs. The end of one
revision and the beginning of the next share one journaled write. With `transaction = True` the flip
to `applied` is part of the revision's own transaction.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pymongo.errors import PyMongoError

from mongover.database.faults import describe, message_of
from mongover.errors import (
    Interrupted,
    LockLost,
    MongoverError,
    RecordConflict,
    TransactionsUnsupported,
)
from mongover.history import changes
from mongover.history.record import Direction, State
from mongover.operations import Operations
from mongover.running import events
from mongover.running.bodies import refuse_large, refuse_misuse
from mongover.running.failure import explain_failure, lost_record, stopped_between
from mongover.running.script import load_script
from mongover.running.stop import is_interruption

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from mongover.history.changes import Change
    from mongover.planning.plan import Plan
    from mongover.running.script import Script
    from mongover.running.step_run import PlanRun, StepRun


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


def run_plan(whole: PlanRun) -> tuple[str, ...]:
    """Run every step and return the warnings; the history tells the truth wherever it ends.

    Raises:
        MongoverError: a step failed, was interrupted or lost its lease; its record says so.
    """
    warnings: list[str] = []
    run: StepRun | None = _begun(whole.first())
    while run is not None:
        _tell_start(run)
        flip = _execute(run)
        warnings += run.journal.warnings
        run = _go_on(run, flip)
    return tuple(warnings)


def _begun(run: StepRun) -> StepRun:
    lease = run.means.lease
    lease.check()
    run.means.history.write([run.beginning()])
    # Who was stopped for longer than the lease just now begins no work.
    lease.check()
    return run


def _go_on(run: StepRun, flip: Change | None) -> StepRun | None:
    """Write the end of one step and, in the same write, the beginning of the next."""
    changes = [] if flip is None else [flip]
    stopping, upcoming = run.voice.stop.requested, run.following()
    together = upcoming is not None and not stopping and run.means.lease.lost is None
    if upcoming is not None and together:
        changes.append(upcoming.beginning())
    _write_end(run, changes)
    run.journal.long_work.forget()
    _tell_end(run)
    if upcoming is None:
        return None
    if stopping:
        raise stopped_between(run)
    run.means.lease.check()
    return upcoming if together else _begun(upcoming)


def _write_end(run: StepRun, changes: Sequence[Change]) -> None:
    try:
        if changes:
            run.means.history.write(changes)
    except RecordConflict as error:
        if error.revision != run.revision.id:
            raise
        raise lost_record(run, error) from error
    except PyMongoError as error:
        error.add_note(
            f"{run.revision.id} ran to its end, but its record could not be written: the next "
            "run finds it interrupted, and `mongover status` says how to go on"
        )
        raise


def _execute(run: StepRun) -> Change | None:
    """Run one revision's code; return the flip that is still to be written, if any."""
    run.journal.start()
    try:
        if run.revision.transaction:
            _run_in_transaction(run)
            return None
        _run_code(run)
        _settle(run)
        return run.flip()
    except BaseException as error:
        if _landed(run, error):
            return None
        explained = _record_stop(run, error, explain_failure(run, error))
        _tell_failure(run, error)
        if not isinstance(error, MongoverError):
            raise explained from error
    # Within the `except` the copy's own context would be lost to the error that it is a copy of.
    try:
        raise explained
    finally:
        del explained  # its trace holds this frame


def _settle(run: StepRun) -> None:
    """Note what came to be by op.db; what cannot be read is nobody's, and the step goes on."""
    with suppress(PyMongoError):
        run.journal.ownership.settle()


def _run_in_transaction(run: StepRun) -> None:
    means = run.means

    def work() -> None:
        run.start_over()
        _run_code(run)
        means.lease.guard(means.session)
        means.history.write([run.flip()], session=means.session)

    run.around.transact(work)


def _run_code(run: StepRun) -> None:
    op = Operations(run.target())
    run.journal.long_work.module = run.script.module.__name__
    run.journal.long_work.paths = run.script.paths
    with run.voice.stop.user_code(
        safe=lambda: run.journal.can_stop, deferred=lambda: _tell_deferred(run)
    ):
        run.script.run(run.step.direction, op)
    run.journal.passage.close()
    run.means.lease.check()


def _landed(run: StepRun, error: BaseException) -> bool:
    """Whether a transaction was committed whatever its errors said: the flip was part of it."""
    if not run.revision.transaction or isinstance(error, LockLost):
        return False
    try:
        found = run.means.history.read_one(run.revision.id)
    except PyMongoError:  # the write of the failure meets the same server, and tells of it
        return False
    done = State.APPLIED if run.step.direction is Direction.UP else State.REVERTED
    return found is not None and found.run == run.around.run and found.state is done


def _record_stop(run: StepRun, error: BaseException, explained: MongoverError) -> MongoverError:
    """Write how a step ended badly; what cannot be written is said in the error itself."""
    if isinstance(error, LockLost):
        return explained
    try:
        run.means.history.write([_stop(run, error)])
    except RecordConflict as conflict:
        raise lost_record(run, conflict) from error
    except PyMongoError as unreachable:
        unwritten = (
            f"the failure could not be recorded: {run.voice.redact(message_of(unreachable))}",
            f"{run.revision.id} stays as it is until the next run finds its holder gone",
        )
        notes = (*explained.notes, *unwritten)
        return explained.but(after="nothing after it was run.", notes=notes)
    return explained


def _stop(run: StepRun, error: BaseException) -> Change:
    _settle(run)
    journal = run.journal
    return changes.stop(
        journal.attempt,
        State.INTERRUPTED if is_interruption(error) else State.FAILED,
        outcome=journal.outcome,
        error=_described(run, error),
        duration_ms=journal.milliseconds,
        ledger=journal.remaining,
        effects=None if journal.attempt.transaction else journal.ownership.effects,
    )


def _described(run: StepRun, error: BaseException) -> dict[str, Any]:
    """The error for record and listener; a stop that was asked for is named by what it means."""
    if is_interruption(error):
        return describe(Interrupted("the run was asked to stop"), run.voice.redact)
    return describe(error, run.voice.redact)


def _tell_start(run: StepRun) -> None:
    run.voice.listener(
        events.StepStarted(
            revision=run.revision.id,
            schema=run.revision.schema,
            message=run.revision.message,
            direction=run.step.direction,
            position=run.index + 1,
            total=len(run.plan.steps),
            transaction=run.revision.transaction,
            continues=run.step.continues,
        )
    )


def _tell_end(run: StepRun) -> None:
    run.voice.listener(
        events.StepFinished(
            run.revision.id,
            run.step.direction,
            position=run.index + 1,
            total=len(run.plan.steps),
            seconds=run.journal.milliseconds / 1_000,
        )
    )


def _tell_failure(run: StepRun, error: BaseException) -> None:
    run.voice.listener(
        events.StepFailed(
            revision=run.revision.id,
            direction=run.step.direction,
            position=run.index + 1,
            total=len(run.plan.steps),
            seconds=run.journal.milliseconds / 1_000,
            state="interrupted" if is_interruption(error) else "failed",
            message=_described(run, error)["message"],
        )
    )


def _tell_deferred(run: StepRun) -> None:
    text = f"finishing {run.revision.id}; press Ctrl-C again to stop now (leaves it half done)"
    run.voice.listener(events.Notice(text, run.revision.id, "warning"))
