"""One step of a plan while it runs, and how its notebook is opened."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pymongo.write_concern import WriteConcern

from mongover.history import changes
from mongover.history.changes import Attempt
from mongover.history.effects import Ours
from mongover.history.record import Direction
from mongover.operations import Target
from mongover.planning.plan import subject_of
from mongover.running.journal import StepJournal
from mongover.running.long_work import LongWork
from mongover.running.ownership import Ownership
from mongover.running.passage import Passage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mongover.history.changes import Change
    from mongover.history.record import Record
    from mongover.planning.plan import Plan, Step
    from mongover.revisions.revision import Revision
    from mongover.running.script import Script
    from mongover.running.surroundings import Means, Surroundings, Voice


@dataclass(frozen=True, slots=True)
class PlanRun:
    """A plan on its way.

    Attributes:
        scripts: The code of its steps, in their order.
        known: The history as it was before the first of them.
        ours: By revision, what it had made by then.
    """

    plan: Plan
    scripts: Sequence[Script]
    known: Mapping[str, Record]
    around: Surroundings
    ours: Mapping[str, Ours] = field(default_factory=dict)

    def first(self) -> StepRun:
        """Its first step, with an empty notebook; nothing of it is written yet."""
        before = max((record.sequence for record in self.known.values()), default=0)
        return StepRun(self, 0, before + 1, _journal(self, self.plan.steps[0]))


@dataclass(frozen=True, slots=True)
class StepRun:
    """One step of a plan on its way: its place in plan and history, and its notebook."""

    whole: PlanRun
    index: int
    sequence: int  # its place in the order of application
    journal: StepJournal

    @property
    def plan(self) -> Plan:
        """The plan that it is a step of."""
        return self.whole.plan

    @property
    def around(self) -> Surroundings:
        """What it shares with the others."""
        return self.whole.around

    @property
    def means(self) -> Means:
        """What it works with."""
        return self.around.means

    @property
    def voice(self) -> Voice:
        """Who hears of it."""
        return self.around.voice

    @property
    def step(self) -> Step:
        """The step itself."""
        return self.plan.steps[self.index]

    @property
    def revision(self) -> Revision:
        """The revision that it applies or reverts."""
        return self.step.revision

    @property
    def script(self) -> Script:
        """The revision's code."""
        return self.whole.scripts[self.index]

    def following(self) -> StepRun | None:
        """The next step, as `PlanRun.first` gives the first; None after the last."""
        index = self.index + 1
        if index == len(self.plan.steps):
            return None
        journal = _journal(self.whole, self.plan.steps[index])
        return StepRun(self.whole, index, self.sequence + 1, journal)

    def beginning(self) -> Change:
        """The change that notes its begin."""
        known = self.whole.known.get(self.revision.id)
        return changes.begin(self.journal.attempt, known, subject_of(self.revision))

    def flip(self) -> Change:
        """The change that notes its end."""
        journal = self.journal
        return changes.finish(
            journal.attempt,
            sequence=self.sequence,
            duration_ms=journal.milliseconds,
            collections=tuple(journal.collections),
            warnings=tuple(journal.warnings),
            ledger=journal.passage.ledger,
            effects=journal.ownership.effects,
        )

    def target(self) -> Target:
        """What its operations work on."""
        rules, attempt, database = self.around.rules, self.journal.attempt, self.means.database
        if attempt.transaction:  # its concern is the transaction's: one of its own is refused
            database = database.with_options(write_concern=WriteConcern())
        return Target(
            db=database,
            journal=self.journal,
            transaction=attempt.transaction,
            transactions=self.means.capabilities.transactions,
            strict=rules.strict,
            max_time_ms=rules.max_time_ms,
            protected=rules.protected,
            watch=self.journal.ownership,
            server=self.means.capabilities,
        )

    def start_over(self) -> None:
        """Empty the notebook: a transaction was undone, or is about to begin."""
        self.journal.collections.clear()
        self.journal.warnings.clear()
        self.journal.passage = self.journal.passage.anew()
        self.journal.ownership.reset()


def _journal(whole: PlanRun, step: Step) -> StepJournal:
    around, record = whole.around, whole.known.get(step.revision.id)
    attempt = _attempt(step, around)
    long_work = LongWork(
        attempt,
        step.revision,
        database=around.means.database,
        history=around.means.history,
        workplace=around.means.workplace,
        goes_on=changes.continues(record, attempt.direction),
    )
    found = changes.ledger_before(record, attempt.direction)
    return StepJournal(
        attempt,
        around,
        declared=step.revision.repeatable,
        started=time.monotonic(),
        long_work=long_work,
        passage=Passage(step.revision.id, found, lenient=step.revision.repeatable is True),
        ownership=_ownership(whole, step),
        repeatable=attempt.repeatable,
    )


def _attempt(step: Step, around: Surroundings) -> Attempt:
    return Attempt(
        revision=step.revision.id,
        direction=step.direction,
        run=around.run,
        owner=around.means.lease.owner,
        fence=around.means.lease.fence,
        by=around.voice.by,
        checksum=step.revision.checksum,
        transaction=step.revision.transaction,
        repeatable=step.revision.repeatable is not False,
    )


def _ownership(whole: PlanRun, step: Step) -> Ownership:
    return Ownership(
        whole.around.means.database,
        step.revision.id,
        whole.ours.get(step.revision.id) or Ours(),
        undoes=whole.plan.target if step.direction is Direction.DOWN else None,
        allowed=whole.around.rules.allowed,
        own=whole.around.rules.protected,
    )
