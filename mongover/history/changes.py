"""The changes that a history can be asked to make, as pure values and functions.

A `Change` says which state a record must be in, what it becomes and what is added to its log; a
`History` writes changes and knows nothing of revisions or plans.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from mongover.errors import RecordConflict
from mongover.history.ledger import Ledger
from mongover.history.record import (
    FORMAT,
    LOG_LIMIT,
    NOW,
    STOPPED,
    TOOL,
    Direction,
    LogEntry,
    Remains,
    State,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from typing import Any, Final

    from mongover.history.effects import Effect
    from mongover.history.record import Record


@dataclass(frozen=True, slots=True)
class Change:
    """One transition of one record, written atomically with its log entry.

    Attributes:
        revision: The record's id.
        expect: The states in which the record may be; `State.PENDING` allows that there is none.
        values: What its fields become; `NOW` stands for the server's time.
        entry: What is added to the log, if anything.
        guard: Owner and fence that the record must carry, if it must.
    """

    revision: str
    expect: frozenset[State]
    values: Mapping[str, Any]
    entry: LogEntry | None = None
    guard: tuple[str | None, int] | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """The revision that a change is about, as far as the history keeps it."""

    revision: str
    schema: str | None
    message: str
    down_revision: tuple[str, ...]
    depends_on: tuple[str, ...]
    checksum: str
    source: str
    file: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one revision by one holder of the lease."""

    revision: str
    direction: Direction
    run: str
    owner: str
    fence: int
    by: Mapping[str, Any]
    checksum: str
    transaction: bool = False
    repeatable: bool = True  # unless the revision says of itself that it cannot be repeated

    @property
    def guard(self) -> tuple[str, int]:
        """What the record must carry for this attempt's later writes to count."""
        return (self.owner, self.fence)

    @property
    def running(self) -> State:
        """The state while the attempt lasts."""
        return State.APPLYING if self.direction is Direction.UP else State.REVERTING

    @property
    def action(self) -> str:
        """The attempt's name in the log."""
        return "apply" if self.direction is Direction.UP else "revert"

    def entry(self, outcome: str, **details: Any) -> LogEntry:
        """A log entry of this attempt."""
        return LogEntry(
            self.action, outcome, run=self.run, by=self.by, checksum=self.checksum, **details
        )


def continues(record: Record | None, direction: Direction) -> bool:
    """Whether an attempt goes on with one that stopped, so that what that did still counts."""
    return record is not None and record.state in STOPPED and record.direction is direction


def ledger_before(record: Record | None, direction: Direction) -> Ledger:
    """What earlier attempts did of what an attempt begins with."""
    if record is None or record.ledger is None or not continues(record, direction):
        return Ledger()
    return record.ledger


def begin(attempt: Attempt, record: Record | None, subject: Subject) -> Change:
    """The change that stands in the history before any of the revision's code runs."""
    values: dict[str, Any] = {
        "state": attempt.running,
        "direction": attempt.direction,
        "outcome": None,
        "attempt": 1 if record is None else record.attempt + 1,
        "run": attempt.run,
        "owner": attempt.owner,
        "fence": attempt.fence,
        "started_at": NOW,
        "transaction": attempt.transaction,
        "repeatable": attempt.repeatable,
        "by": attempt.by,
        "error": None,
        "ledger": ledger_before(record, attempt.direction).to_document(),
    }
    if not continues(record, attempt.direction):
        values["checkpoint"] = None
    if attempt.direction is Direction.UP:
        values |= _identity(subject)
        values |= {"applied_at": None, "reverted_at": None, "duration_ms": None, "warnings": ()}
        values["adopted"] = False
        if not continues(record, attempt.direction):
            values["effects"] = ()
    state = State.PENDING if record is None else record.state
    return Change(attempt.revision, frozenset({state}), values)


def _identity(subject: Subject) -> dict[str, Any]:
    return {
        "tool": TOOL,
        "v": FORMAT,
        "schema": subject.schema,
        "message": subject.message,
        "down_revision": subject.down_revision,
        "depends_on": subject.depends_on,
        "checksum": subject.checksum,
        "checksum_v": 1,
        "source": subject.source,
        "file": subject.file,
    }


def finish(
    attempt: Attempt,
    *,
    sequence: int,
    duration_ms: float,
    collections: Sequence[str] = (),
    warnings: Sequence[str] = (),
    ledger: Ledger | None = None,
    effects: Sequence[Effect] | None = (),
) -> Change:
    """The flip to applied or reverted; `sequence` is the place in the order of application."""
    values: dict[str, Any] = {"outcome": None, "error": None, "checkpoint": None}
    values["ledger"] = (ledger or Ledger()).to_document()
    if attempt.direction is Direction.UP:
        values |= {
            "state": State.APPLIED,
            "applied_at": NOW,
            "sequence": sequence,
            "duration_ms": duration_ms,
            "collections": tuple(collections),
            "warnings": tuple(warnings),
            "effects": None if effects is None else tuple(effects),
        }
    else:
        values |= {"state": State.REVERTED, "reverted_at": NOW, "warnings": ()}
    return Change(
        attempt.revision,
        frozenset({attempt.running}),
        values,
        attempt.entry(values["state"], duration_ms=duration_ms),
        attempt.guard,
    )


def stop(
    attempt: Attempt,
    state: State,
    *,
    outcome: Remains,
    error: Mapping[str, Any],
    duration_ms: float,
    ledger: Ledger | None = None,
    effects: Sequence[Effect] | None = None,
) -> Change:
    """The end of an attempt that failed (`FAILED`) or was told to end (`INTERRUPTED`).

    `effects` are those of all attempts so far; None leaves what the record holds.
    """
    values: dict[str, Any] = {"state": state, "outcome": outcome, "error": error}
    values["ledger"] = (ledger or Ledger()).to_document()
    if effects is not None:
        values["effects"] = tuple(effects)
    return Change(
        attempt.revision,
        frozenset({attempt.running}),
        values,
        attempt.entry(state, duration_ms=duration_ms, error=error),
        attempt.guard,
    )


def note(attempt: Attempt, ledger: Ledger, *, repeatable: bool | None = None) -> Change:
    """What the operations did so far; with the mark before an act that must not happen twice."""
    values: dict[str, Any] = {"ledger": ledger.to_document()}
    if repeatable is not None:
        values["repeatable"] = repeatable
    return Change(attempt.revision, frozenset({attempt.running}), values, guard=attempt.guard)


_HOLDER_LOST: Final[Mapping[str, Any]] = {
    "type": "HolderLost",
    "message": "the process that ran it ended or lost its lease",
}


def swept(record: Record) -> Record:
    """The record of a holder that died as `sweep` will leave it."""
    # What an earlier attempt did outside a transaction is not undone with this one.
    undone = record.transaction and (record.ledger is None or record.ledger.empty)
    outcome = Remains.NOTHING if undone else Remains.UNKNOWN
    return replace(record, state=State.INTERRUPTED, outcome=outcome, error=_HOLDER_LOST)


def note_progress(attempt: Attempt, summary: Mapping[str, Any]) -> Change:
    """How far a long operation is, for those who look on from outside."""
    values = {"checkpoint": dict(summary)}
    return Change(attempt.revision, frozenset({attempt.running}), values, guard=attempt.guard)


def sweep(record: Record) -> Change:
    """The change for a record whose holder died: interrupted, with what is known of it."""
    outcome, error = swept(record).outcome, dict(_HOLDER_LOST)
    action = "apply" if record.direction is Direction.UP else "revert"
    return Change(
        record.revision,
        frozenset({record.state}),
        {"state": State.INTERRUPTED, "outcome": outcome, "error": error},
        LogEntry(
            action,
            State.INTERRUPTED,
            run=record.run,
            by=record.by,
            checksum=record.checksum,
            error=error,
        ),
        (record.owner, record.fence),
    )


class Resolution(StrEnum):
    """What a person says of a revision that stopped half-way."""

    RETRY = "retry"  # it can run again as it is
    APPLIED = "applied"  # its effect is whole
    REVERTED = "reverted"  # nothing of it is left


def resolve(
    record: Record, resolution: Resolution, *, by: Mapping[str, Any], reason: str, sequence: int
) -> Change:
    """The end of a blocked state; `sequence` counts only when it becomes applied anew."""
    values: dict[str, Any]
    if resolution is Resolution.RETRY:
        retried = record.retried()
        values = {"repeatable": True, "ledger": (retried.ledger or Ledger()).to_document()}
    elif resolution is Resolution.APPLIED:
        values = {"state": State.APPLIED, "direction": Direction.UP, "applied_at": NOW}
        if record.direction is Direction.DOWN:
            values["applied_at"] = record.applied_at
        else:
            values["sequence"] = sequence
    else:
        values = {"state": State.REVERTED, "direction": Direction.DOWN, "reverted_at": NOW}
    if resolution is not Resolution.RETRY:
        values |= {"outcome": None, "error": None, "checkpoint": None}
        values["ledger"] = Ledger().to_document()
    entry = LogEntry("resolve", resolution, by=by, checksum=record.checksum, reason=reason)
    return Change(record.revision, frozenset({record.state}), values, entry)


def stamp(
    subject: Subject, record: Record | None, *, by: Mapping[str, Any], reason: str, sequence: int
) -> Change:
    """The record of a revision that is taken for applied without having run."""
    values = _identity(subject) | {
        "state": State.APPLIED,
        "direction": Direction.UP,
        "outcome": None,
        "sequence": sequence,
        "attempt": 0 if record is None else record.attempt,
        "fence": 0 if record is None else record.fence,
        "started_at": None,
        "applied_at": NOW,
        "reverted_at": None,
        "duration_ms": None,
        "transaction": False,
        "repeatable": True,
        "by": by,
        "collections": (),
        "warnings": (),
        "adopted": True,
        "effects": (),
        "error": None,
        "checkpoint": None,
        "ledger": Ledger().to_document(),
    }
    state = State.PENDING if record is None else record.state
    entry = LogEntry("stamp", "applied", by=by, checksum=subject.checksum, reason=reason)
    return Change(subject.revision, frozenset({state}), values, entry)


def unstamp(record: Record, *, by: Mapping[str, Any], reason: str) -> Change:
    """The record of a revision that is taken for reverted without having run."""
    values = {
        "state": State.REVERTED,
        "direction": Direction.DOWN,
        "outcome": None,
        "error": None,
        "reverted_at": NOW,
    }
    entry = LogEntry("stamp", "reverted", by=by, checksum=record.checksum, reason=reason)
    return Change(record.revision, frozenset({record.state}), values, entry)


def repair(record: Record, subject: Subject, *, by: Mapping[str, Any], reason: str) -> Change:
    """The acceptance of an applied revision as it is now: its file, and its warnings as mended."""
    warned = {"type": "Warnings", "message": "; ".join(record.warnings)}
    entry = LogEntry(
        "repair",
        "accepted",
        by=by,
        checksum=subject.checksum,
        reason=reason,
        error=warned if record.warnings else None,
    )
    values = _identity(subject) | {"warnings": ()}
    return Change(record.revision, frozenset({record.state}), values, entry)


def apply_change(
    document: Mapping[str, Any] | None, change: Change, *, now: datetime
) -> dict[str, Any]:
    """The document that a change makes of another: what every history must do, as a pure function.

    Raises:
        RecordConflict: the record is not in an expected state or not the guard's.
    """
    if not fits(document, change):
        raise conflict(change, document)
    changed = dict(document or {"_id": change.revision, "tool": TOOL, "log": []})
    changed |= {name: now if value is NOW else value for name, value in change.values.items()}
    if change.entry is not None:
        entry = change.entry.to_document() | {"at": now}
        changed["log"] = [*changed.get("log", []), entry][-LOG_LIMIT:]
    return changed


def fits(document: Mapping[str, Any] | None, change: Change) -> bool:
    """Whether a change may be made to the document as it is."""
    if document is None:
        return State.PENDING in change.expect and change.guard is None
    if document.get("tool") != TOOL or document.get("state") not in change.expect:
        return False
    return change.guard in (None, (document.get("owner"), document.get("fence") or 0))


def conflict(
    change: Change, document: Mapping[str, Any] | None, *, seen: bool = True
) -> RecordConflict:
    """The error for a change that does not fit; `seen` says that the record was looked at."""
    found = "gone" if document is None else f"{document.get('state')}"
    if document is not None and document.get("owner") is not None:
        found += f" (fence {document.get('fence')})"
    wanted = " or ".join(sorted(change.expect))
    return RecordConflict(
        f"the record of {change.revision} is {found}, where this run left it {wanted}",
        hint="another process took over: look at `mongover lock` and `mongover status`",
        after="nothing more was written.",
        revision=change.revision,
        gone=seen and document is None,
    )


class History(Protocol):
    """Where records are kept: `MongoHistory` in the database, `MemoryHistory` for tests."""

    def read(self, *, details: bool = False) -> dict[str, Record]:
        """All records by id, in one query; never creates anything.

        `details` adds `source` and `log`, which are large.
        """
        ...

    def read_one(self, revision: str) -> Record | None:
        """One record with its source and log, or None."""
        ...

    def write(self, changes: Sequence[Change], *, session: Any = None) -> None:
        """Make the changes in order, each atomically; the first that does not fit ends it.

        With a session, the changes join its transaction.

        Raises:
            RecordConflict: a record is not what the change expects; later ones are not made.
        """
        ...
