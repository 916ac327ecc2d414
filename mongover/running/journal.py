"""The notebook of one step: what its operations tell, and what becomes of the record meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mongover.database.faults import chain, is_unreadable, is_unsure
from mongover.history import changes
from mongover.history.ledger import Begun, End, Entry, Risk
from mongover.history.record import Remains
from mongover.operations.base import Former
from mongover.operations.bulk.checkpoints import fingerprint
from mongover.running import events
from mongover.running.stop import StopNow, is_interruption

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import NoReturn

    from mongover.history.changes import Attempt
    from mongover.history.ledger import Ledger
    from mongover.operations import Operation
    from mongover.operations.base import Advance, Stake, Ticket
    from mongover.running.long_work import LongWork
    from mongover.running.ownership import Ownership
    from mongover.running.passage import Passage
    from mongover.running.surroundings import Surroundings


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

    def start(self) -> None:
        """The revision's code begins now: count its time from here."""
        self.started = time.monotonic()

    def check(self) -> None:
        """Stop here when the lease is lost or a stop was asked for and is safe."""
        self.around.means.lease.check()
        self.around.voice.stop.check()

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
            self._tell(events.OperationStarted(revision, text))
            self._tell(events.OperationFinished(revision, text, "skipped", 0.0))
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
        self.around.means.server.watch.written.clear()

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

    def _tell(self, event: events.Event) -> None:
        self.around.voice.listener(event)

    def _note(self, *, repeatable: bool | None = None) -> None:
        change = changes.note(self.attempt, self.passage.ledger, repeatable=repeatable)
        self.around.means.history.write([change])

    def touched(self, collection: str) -> None:
        """Note a collection that the revision works on."""
        self.collections[collection] = None

    def warning(self, message: str) -> None:
        """Keep a failed creation that `strict = false` forgives."""
        self.warnings.append(self.around.voice.redact(message))
        self._tell(events.Notice(message, self.attempt.revision, "warning"))

    def operation_started(self, operation: Operation) -> None:
        """Tell that an operation begins."""
        text = operation.describe()
        self._tell(events.OperationStarted(self.attempt.revision, text))

    def operation_finished(self, operation: Operation, seconds: float, outcome: str) -> None:
        """Tell how an operation ended."""
        text = operation.describe()
        self.passage.end(outcome)
        self.ownership.finished(operation, outcome)
        done = events.OperationFinished(self.attempt.revision, text, outcome, seconds)
        self._tell(done)

    def progress(self, operation: Operation, advance: Advance) -> None:
        """Tell how far a long operation is, and now and then write it into the record."""
        seconds = time.monotonic() - self.started
        self._tell(self.long_work.note(operation, advance, seconds))

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
        return self.around.voice.stop.at_edges(deferred=lambda: self._tell(notice))

    def edge(self) -> None:
        """Stop here, between two batches, when the lease is lost or a stop was asked for."""
        self.around.means.lease.check()
        try:
            self.around.voice.stop.edge()
        except StopNow as stop:
            self.edge_stop = stop
            raise

    def message(self, text: str) -> None:
        """Pass on what the revision itself says."""
        self._tell(events.Notice(text, self.attempt.revision))

    @property
    def can_stop(self) -> bool:
        """Whether ending the code here leaves nothing that a repeat would do twice, or lose."""
        begun = self.passage.ledger.begun
        safe = self.repeatable and (begun is None or begun.risk is Risk.NONE)
        return self.attempt.transaction or self.declared is True or safe

    def broke_off(self, operation: Operation, error: BaseException) -> None:
        """Note what is known of an operation that an error ended."""
        del operation
        self.passage.left(self._end(error))

    def _end(self, error: BaseException) -> End:
        if error is self.edge_stop and self._ticketed:
            return End.HELD
        if not self._batches and not self.around.written:
            return End.NOTHING
        causes = tuple(chain(error))
        if is_interruption(error) or any(map(is_unsure, causes)):
            return End.UNKNOWN
        if self._atomic or any(map(is_unreadable, causes)):
            return End.NOTHING
        return End.FAILED

    @property
    def remaining(self) -> Ledger:
        """What stays recorded of the operations when the attempt ends badly.

        What a transaction did is undone with it; what was done before it began is not.
        """
        return self.passage.found if self.attempt.transaction else self.passage.ledger

    @property
    def outcome(self) -> Remains:
        """What is known of what an attempt that ended badly leaves."""
        touched = self.touched_server and not self.attempt.transaction
        return Remains.UNKNOWN if touched or not self.remaining.empty else Remains.NOTHING

    @property
    def blocks(self) -> bool:
        """Whether an attempt that ends here leaves what only a person can judge."""
        unclear = not self.repeatable or self.remaining.blocked
        return unclear and self.outcome is Remains.UNKNOWN

    @property
    def milliseconds(self) -> float:
        """The time since the step began."""
        return round((time.monotonic() - self.started) * 1_000, 1)
