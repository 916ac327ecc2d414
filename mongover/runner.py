"""Running a plan: load every script, then step by step begin, run, and finish or fail.

The record says `applying` or `reverting` before any of a revision's code runs. The end of one
revision and the beginning of the next share one journaled write. With `transaction = True` the flip
to `applied` is part of the revision's own transaction.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from mongover import events, records
from mongover.bodies import refuse_misuse
from mongover.checkpointing import LongWork
from mongover.errors import (
    Blocked,
    Interrupted,
    LockLost,
    MongoverError,
    RecordConflict,
    RevisionFailed,
    TransactionsUnsupported,
)
from mongover.faults import chain, describe, is_unreadable, is_unsure, message_of
from mongover.ledger import Begun, End, Entry, Passage, Risk
from mongover.operations import Operations, Target
from mongover.operations.base import Former
from mongover.operations.checkpoints import fingerprint
from mongover.operations.ownership import Ownership
from mongover.ours import Ours
from mongover.plan import rest_of, subject_of
from mongover.records import Attempt, Direction, Outcome, State
from mongover.script import load_script, where_in
from mongover.stop import StopNow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mongover.checkpointing import Workplace
    from mongover.events import Listener
    from mongover.ledger import Ledger
    from mongover.operations import Operation
    from mongover.operations.base import Advance, Place, Stake, Ticket
    from mongover.plan import Plan, Step
    from mongover.records import Change, History, Record
    from mongover.script import Script
    from mongover.stop import Stop
    from mongover.watch import CommandWatch


class Holding(Protocol):
    """What a run needs of a lease that it holds."""

    owner: str
    fence: int

    @property
    def lost(self) -> str | None:
        """Why it can no longer be trusted, or None."""
        ...

    def check(self) -> None:
        """Raise LockLost once it is lost."""
        ...

    def guard(self, session: Any) -> None:
        """Make the session's transaction depend on the lease."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every step of one run shares."""

    run: str
    database: Any  # a pymongo Database
    history: History
    lease: Holding
    listener: Listener
    stop: Stop
    by: Mapping[str, Any]
    redact: Callable[[str], str]
    transact: Callable[[Callable[[], None]], None]  # runs its argument in one transaction
    session: Any  # the run's ClientSession
    transactions: bool  # whether the server has them
    strict: bool
    max_time_ms: int
    protected: Container[str]  # the collections that are mongover's own
    watch: CommandWatch  # of the driver's commands
    workplace: Workplace | None = None  # where long operations keep their checkpoints
    target: str = ""  # of the plan
    ours: Mapping[str, Ours] = field(default_factory=dict)  # by revision: what it has made
    allowed: Collection[str] = ()  # what a downgrade may destroy although no revision made it

    @property
    def written(self) -> bool:
        """Whether anything but mongover's own was written to since the watch forgot."""
        return any(name not in self.protected for name in self.watch.written.copy())


@dataclass(slots=True)
class StepJournal:
    """What one step did so far: the notebook that its operations write into."""

    attempt: Attempt
    around: Surroundings
    declared: bool | None  # what the revision says of itself: that it can be repeated, or cannot
    started: float
    long_work: LongWork
    passage: Passage
    ownership: Ownership
    collections: dict[str, None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    edge_stop: StopNow | None = None  # what ended the code between two batches
    touched_server: bool = False
    repeatable: bool = True
    _atomic: bool = False  # an error of the operation that began means that nothing was changed
    _text: str = ""  # that operation
    _identity: str = ""
    _ticketed: bool = False
    _batches: bool = False

    def check(self) -> None:
        """Stop here when the lease is lost or a stop was asked for and is safe."""
        self.around.lease.check()
        self.around.stop.check()

    def unrepeatable(self, reason: str) -> None:
        """Write into the record, once, that what follows must not be done twice."""
        self.check()
        self.touched_server = True
        if self.attempt.transaction:
            return
        begun = self.passage.ledger.begun
        if begun is not None and reason == self._text:
            if self.passage.begin(replace(begun, risk=Risk.TWICE)):
                self._note()
        elif self.declared is None and self.repeatable:
            self._note(repeatable=False)
            self.repeatable = False

    def arrive(self, operation: Operation) -> Former | None:
        """What earlier attempts recorded of the operation that comes now."""
        text, self._identity = operation.describe(), fingerprint(operation)
        recorded = self.passage.arrive(text, self._identity)
        if isinstance(recorded, Entry):
            self.ownership.finished(operation, recorded.outcome)
            revision = self.attempt.revision
            self.around.listener(events.OperationStarted(revision, text))
            self.around.listener(events.OperationFinished(revision, text, "skipped", 0.0))
            return Former(recorded.outcome)
        return Former(proof=recorded.proof) if isinstance(recorded, Begun) else None

    def begin(self, operation: Operation, stake: Stake) -> None:
        """Record that an operation begins and, in the same write, that those before it ended."""
        self.touched_server = True
        self._text = operation.describe()
        self._atomic = operation.atomic and not operation.several
        self._ticketed = self._batches = False
        begun = Begun(self._text, self._identity, Risk(stake.risk), proof=stake.proof)
        if self.passage.begin(begun) and not self.attempt.transaction:
            # The code went on after an operation that it did not see through: nobody can follow.
            loose = self.passage.loose and self.declared is None and self.repeatable
            self.repeatable = self.repeatable and not loose
            self._note(repeatable=False if loose else None)
        self.around.watch.written.clear()

    def held(self, operation: Operation) -> None:
        """Record that the operation's checkpoints tell exactly how far it is."""
        begun = self.passage.ledger.begun
        if begun is None or begun.risk is Risk.NONE or operation.describe() != self._text:
            return
        if self.passage.begin(replace(begun, risk=Risk.NONE, proof=None)):
            self._note()

    def lost_track(self, operation: Operation) -> NoReturn:
        """Record that nobody can tell what an earlier attempt made of the operation, and raise."""
        del operation
        self.touched_server = True
        raise self.passage.lost_track()

    def _note(self, *, repeatable: bool | None = None) -> None:
        change = records.note(self.attempt, self.passage.ledger, repeatable=repeatable)
        self.around.history.write([change])

    def touched(self, collection: str) -> None:
        """Note a collection that the revision works on."""
        self.collections[collection] = None

    def warning(self, message: str) -> None:
        """Keep a failed creation that `strict = false` forgives."""
        self.warnings.append(self.around.redact(message))
        self.around.listener(events.Notice(message, self.attempt.revision, "warning"))

    def operation_started(self, operation: Operation) -> None:
        """Tell that an operation begins."""
        text = operation.describe()
        self.around.listener(events.OperationStarted(self.attempt.revision, text))

    def operation_finished(self, operation: Operation, seconds: float, outcome: str) -> None:
        """Tell how an operation ended."""
        text = operation.describe()
        self.passage.end(outcome)
        self.ownership.finished(operation, outcome)
        done = events.OperationFinished(self.attempt.revision, text, outcome, seconds)
        self.around.listener(done)

    def progress(self, operation: Operation, advance: Advance) -> None:
        """Tell how far a long operation is, and now and then write it into the record."""
        seconds = time.monotonic() - self.started
        rate = self.long_work.note(operation, advance)
        self.around.listener(
            events.Progress(
                self.attempt.revision,
                operation.describe(),
                advance.done,
                advance.total,
                seconds,
                rate.rate,
                rate.left,
                *_told(advance.place),
            )
        )

    def ticket(self, operation: Operation) -> Ticket | None:
        """Where a long operation keeps its checkpoints."""
        self.check()
        ticket = self.long_work.ticket(self.passage.place)
        # Another's, run from inside this one, is not its own.
        self._ticketed = ticket is not None and operation.describe() == self._text
        return ticket

    def edges(self) -> AbstractContextManager[None]:
        """While it lasts, a wish to stop waits for the next edge between two batches."""
        revision = self.attempt.revision
        text = f"stopping after this batch of {revision}; press Ctrl-C again to stop now"
        if not self.can_stop:
            text += " (leaves it half done)"
        self._batches = True
        notice = events.Notice(text, revision, "warning")
        return self.around.stop.at_edges(deferred=lambda: self.around.listener(notice))

    def edge(self) -> None:
        """Stop here, between two batches, when the lease is lost or a stop was asked for."""
        self.around.lease.check()
        try:
            self.around.stop.edge()
        except StopNow as stop:
            self.edge_stop = stop
            raise

    def message(self, text: str) -> None:
        """Pass on what the revision itself says."""
        self.around.listener(events.Notice(text, self.attempt.revision))

    @property
    def can_stop(self) -> bool:
        """Whether ending the code here leaves nothing that a repeat would do twice, or lose."""
        begun = self.passage.ledger.begun
        safe = self.repeatable and (begun is None or begun.risk is Risk.NONE)
        return self.attempt.transaction or self.declared is True or safe

    def broke_off(self, operation: Operation, error: BaseException) -> None:
        """Note what is known of an operation that an error ended."""
        del operation
        self.passage.ledger = self.passage.ledger.left(self._end(error))

    def _end(self, error: BaseException) -> End:
        if error is self.edge_stop and self._ticketed:
            return End.HELD
        if not self._batches and not self.around.written:
            return End.NOTHING
        causes = tuple(chain(error))
        if _is_interruption(error) or any(map(is_unsure, causes)):
            return End.UNKNOWN
        if self._atomic or any(map(is_unreadable, causes)):
            return End.NOTHING
        return End.FAILED

    @property
    def outcome(self) -> Outcome:
        """What is known of what an attempt that ended badly leaves."""
        untouched = not self.touched_server and self.passage.ledger.empty
        return Outcome.NOTHING if self.attempt.transaction or untouched else Outcome.UNKNOWN

    @property
    def blocks(self) -> bool:
        """Whether an attempt that ends here leaves what only a person can judge."""
        unclear = not self.repeatable or self.passage.ledger.blocked
        return unclear and self.outcome is Outcome.UNKNOWN

    @property
    def milliseconds(self) -> float:
        """The time since the step began."""
        return round((time.monotonic() - self.started) * 1_000, 1)


def _told(place: Place | None) -> tuple[int | None, int | None, str | None]:
    if place is None:
        return None, None, None
    return place.ranges, place.ranges_done, place.reached or None


def load_scripts(plan: Plan, *, project: Path) -> list[Script]:
    """Every script of the plan, imported before the first one runs; `project` is importable.

    Raises:
        InvalidRevision: one cannot be imported, lacks what the plan needs of it, or asks of `op`
            what it has not.
    """
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
        goes_on=records.continues(record, attempt.direction),
    )
    journal = StepJournal(
        attempt,
        around,
        declared=step.revision.repeatable,
        started=time.monotonic(),
        long_work=long_work,
        passage=_passage(step, records.ledger_before(record, attempt.direction)),
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
    return records.begin(journal.attempt, known.get(step.revision.id), subject)


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
        raise _stopped_between(plan, index)
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
        raise _lost(step, error) from error
    except PyMongoError as error:
        error.add_note(
            f"{step.revision.id} ran to its end, but its record could not be written: the next "
            "run finds it interrupted, and `mongover status` says how to go on"
        )
        raise


def _lost(step: Step, conflict: RecordConflict) -> MongoverError:
    if conflict.gone:
        return RecordConflict(
            f"the record of {step.revision.id} was deleted while it ran",
            hint="its own code may have done it (does it drop the database?); what it did stands: "
            f'note it with mongover stamp {step.revision.id} --reason "…"',
            after="nothing after it was run.",
        )
    return LockLost(
        f"this process lost the lock while {step.revision.id} ran: {conflict.message}",
        hint=f"see what the new holder made of it: mongover show {step.revision.id}",
        after="its record was left to the new holder.",
    )


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
        explained = _explain(step, journal, error, around, way_on=_way_on(plan, index))
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
    return records.finish(
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
        raise _lost(step, conflict) from error
    except PyMongoError as unreachable:
        explained.after = "nothing after it was run."
        explained.notes += (
            f"the failure could not be recorded: {around.redact(message_of(unreachable))}",
            f"{step.revision.id} stays as it is until the next run finds its holder gone",
        )


def _stop(journal: StepJournal, error: BaseException, around: Surroundings) -> Change:
    _settle(journal)
    return records.stop(
        journal.attempt,
        State.INTERRUPTED if _is_interruption(error) else State.FAILED,
        outcome=journal.outcome,
        error=_described(error, around),
        duration_ms=journal.milliseconds,
        ledger=journal.passage.ledger,
        effects=None if journal.attempt.transaction else journal.ownership.effects,
    )


def _is_done(record: Record, direction: Direction) -> bool:
    done = State.APPLIED if direction is Direction.UP else State.REVERTED
    return record.state is done


def _is_interruption(error: BaseException) -> bool:
    return isinstance(error, (StopNow, KeyboardInterrupt))


def _described(error: BaseException, around: Surroundings) -> dict[str, Any]:
    """The error for record and listener; a stop that was asked for is named by what it means."""
    if _is_interruption(error):
        return describe(Interrupted("the run was asked to stop"), around.redact)
    return describe(error, around.redact)


def _explain(
    step: Step, journal: StepJournal, error: BaseException, around: Surroundings, *, way_on: str
) -> MongoverError:
    """The error that a person should read for what ended a revision's code."""
    revision = step.revision
    where = where_in(revision.path, error.__traceback__)
    recorded = f"{revision.id} is recorded as failed; nothing after it was run."
    if isinstance(error, MongoverError):
        error.where = error.where or where
        if not isinstance(error, LockLost):  # then its record is the new holder's
            error.after = f"{error.after} {recorded}".lstrip()
        if journal.blocks and not isinstance(error, Blocked):
            error.notes += (f"{revision.id} is blocked: {_way_out(step)}",)
        return error
    if _is_interruption(error):
        return Interrupted(
            f"{revision.id} was interrupted",
            hint=_way_out(step) if journal.blocks else way_on,
            after="its record says so, and the lock was released.",
        )
    return RevisionFailed(
        f"{revision.id}: {_verb(step)}() {around.redact(_said(error))}",
        where=where,
        notes=_driver_notes(error, around),
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


def _driver_notes(error: BaseException, around: Surroundings) -> tuple[str, ...]:
    """The driver's own words, which may hold values of documents."""
    if not isinstance(error, PyMongoError) or str(error) == message_of(error):
        return ()
    return (f"driver: {around.redact(' '.join(str(error).split()))}",)


def _verb(step: Step) -> str:
    return "upgrade" if step.direction is Direction.UP else "downgrade"


def _way_on(plan: Plan, index: int) -> str:
    target = rest_of(plan, index)
    words = "" if target == "head" and plan.direction is Direction.UP else f" {target}"
    return f"`mongover {_verb(plan.steps[index])}{words}` goes on from there"


def _way_out(step: Step) -> str:
    """What to do about a revision that stopped where nobody knows what it left."""
    resolve = f'mongover resolve {step.revision.id} --retry | --applied | --reverted --reason "…"'
    shorter = " (or `mongover upgrade --retry`)" if step.direction is Direction.UP else ""
    return f"look at what it left, then {resolve}{shorter}"


def _stopped_between(plan: Plan, index: int) -> Interrupted:
    done, following = plan.steps[index].revision.id, plan.steps[index + 1].revision.id
    return Interrupted(
        f"stopped after {done}, as asked; {following} was not started",
        hint=_way_on(plan, index + 1),
        after=f"{index + 1} of {len(plan.steps)} revisions ran, and the lock was released.",
    )


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
            state="interrupted" if _is_interruption(error) else "failed",
            message=_described(error, around)["message"],
        )
    )


def _tell_deferred(step: Step, around: Surroundings) -> None:
    text = f"finishing {step.revision.id}; press Ctrl-C again to stop now (leaves it half done)"
    around.listener(events.Notice(text, step.revision.id, "warning"))
