"""The history's values: records, log entries, and the changes that a history can be asked to make.

Everything here is pure. A `Change` says which state a record must be in, what it becomes and what
is added to its log; a `History` writes changes and knows nothing of revisions or plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from mongover.errors import BadRecord, ForeignDocument, NewerFormat, RecordConflict
from mongover.ledger import Ledger, parse_ledger
from mongover.ours import is_effect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mongover.ours import Effect

_Member = TypeVar("_Member", bound=StrEnum)

TOOL: Final = "mongover"
FORMAT: Final = 1
LOG_LIMIT: Final = 1_000


class State(StrEnum):
    """Where a revision stands in the history; `PENDING` is the absence of a record."""

    PENDING = "pending"
    APPLYING = "applying"
    APPLIED = "applied"
    REVERTING = "reverting"
    REVERTED = "reverted"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Direction(StrEnum):
    """Which of the two functions of a revision runs."""

    UP = "up"
    DOWN = "down"


class Outcome(StrEnum):
    """What a failed or interrupted attempt is known to have left."""

    NOTHING = "nothing"
    UNKNOWN = "unknown"


class Marker(StrEnum):
    """Values that only the store can fill in."""

    NOW = "now"  # the server's clock at the moment of the write


NOW: Final = Marker.NOW
RUNNING: Final = frozenset({State.APPLYING, State.REVERTING})
STOPPED: Final = frozenset({State.FAILED, State.INTERRUPTED})


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One thing that was done to a revision; `at` is the server's time, filled in by the store."""

    action: str  # apply | revert | resolve | stamp | unstamp | repair
    outcome: str  # applied | reverted | failed | interrupted | retry | edited | …
    run: str | None = None
    by: Mapping[str, Any] = field(default_factory=dict)
    at: datetime | None = None
    duration_ms: float | None = None
    checksum: str | None = None
    error: Mapping[str, Any] | None = None
    reason: str | None = None

    def to_document(self) -> dict[str, Any]:
        """The entry as stored, without `at`."""
        return {
            "action": self.action,
            "outcome": self.outcome,
            "duration_ms": self.duration_ms,
            "run": self.run,
            "by": dict(self.by),
            "checksum": self.checksum,
            "error": None if self.error is None else dict(self.error),
            "reason": self.reason,
        }

    def to_json(self) -> dict[str, Any]:
        """The entry as the CLI's `--json` and the HTTP API show it."""
        return {"at": self.at, **self.to_document()}


@dataclass(frozen=True, slots=True)
class Record:
    """What the history knows of one revision. `source` and `log` are only there when asked for.

    `adopted` says that it was stamped and its upgrade never ran; `effects` are what it made, found
    and took away (None: written by a release that did not keep that).
    """

    revision: str
    state: State
    schema: str | None = None
    message: str = ""
    down_revision: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    direction: Direction = Direction.UP
    outcome: Outcome | None = None
    sequence: int = 0
    attempt: int = 0
    run: str | None = None
    owner: str | None = None
    fence: int = 0
    checksum: str = ""
    started_at: datetime | None = None
    applied_at: datetime | None = None
    reverted_at: datetime | None = None
    duration_ms: float | None = None
    transaction: bool = False
    repeatable: bool = True
    by: Mapping[str, Any] = field(default_factory=dict)
    collections: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    adopted: bool = False
    effects: tuple[Effect, ...] | None = None
    error: Mapping[str, Any] | None = None
    checkpoint: Any = None
    ledger: Ledger | None = field(default_factory=Ledger)  # None: of a release that kept none
    file: str | None = None
    source: str | None = None
    log: tuple[LogEntry, ...] = ()

    def to_json(self, *, log: bool = False, source: bool = False) -> dict[str, Any]:
        """The stored fields by their stored names, as `--json` and the HTTP API show them."""
        document = {name: getattr(self, name) for name in _SHOWN}
        if log:
            document["log"] = [entry.to_json() for entry in self.log]
        if source:
            document["source"] = self.source
        return document

    @property
    def counts_as_applied(self) -> bool:
        """Whether the revision's effect is taken to be in the database.

        A downgrade that failed or was interrupted leaves its revision applied until resolved.
        """
        if self.state is State.APPLIED or self.state is State.REVERTING:
            return True
        return self.state in STOPPED and self.direction is Direction.DOWN

    @property
    def blocked(self) -> bool:
        """Whether only a person can say what the last attempt left behind."""
        if self.state not in STOPPED or self.outcome is not Outcome.UNKNOWN:
            return False
        return not self.repeatable or self.ledger is None or self.ledger.blocked

    def retried(self) -> Record:
        """The record after a person's word that the revision may go on."""
        ledger = Ledger() if self.ledger is None else self.ledger.retried()
        return replace(self, repeatable=True, ledger=ledger)

    @property
    def unfinished(self) -> Direction | None:
        """The direction of an attempt that began and did not end well, else None."""
        if self.state is State.APPLYING or self.state is State.REVERTING or self.state in STOPPED:
            return self.direction
        return None


_SHOWN: Final = tuple(
    each.name
    for each in fields(Record)
    if each.name not in {"checkpoint", "ledger", "log", "source"}
)

# Field by field: the types that a stored value may have. None is allowed where `optional` holds.
_NUMBER = (int, float)
_TYPES: Final[Mapping[str, tuple[tuple[type, ...], bool]]] = {
    "schema": ((str,), True),
    "message": ((str,), False),
    "down_revision": ((list, tuple), False),
    "depends_on": ((list, tuple), False),
    "sequence": ((int,), False),
    "attempt": ((int,), False),
    "run": ((str,), True),
    "owner": ((str,), True),
    "fence": ((int,), False),
    "checksum": ((str,), False),
    "started_at": ((datetime,), True),
    "applied_at": ((datetime,), True),
    "reverted_at": ((datetime,), True),
    "duration_ms": (_NUMBER, True),
    "transaction": ((bool,), False),
    "repeatable": ((bool,), False),
    "by": ((Mapping,), False),
    "collections": ((list, tuple), False),
    "warnings": ((list, tuple), False),
    "adopted": ((bool,), False),
    "effects": ((list, tuple), True),
    "error": ((Mapping,), True),
    "file": ((str,), True),
    "source": ((str,), True),
    "log": ((list, tuple), False),
}
_TUPLES: Final = frozenset({"down_revision", "depends_on", "collections", "warnings"})
_REPAIR_HINT: Final = "correct the field by hand, or restore the collection from a backup"


def parse_record(document: Mapping[str, Any]) -> Record:
    """The record that a stored document holds; unknown fields are left alone.

    Raises:
        ForeignDocument: another tool wrote it.
        NewerFormat: a newer release of mongover wrote it.
        BadRecord: a field has a type or value that makes no sense; names the field.
    """
    _check_ownership(document)
    values: dict[str, Any] = {
        name: _checked(document, name, types, optional=optional)
        for name, (types, optional) in _TYPES.items()
        if name in document
    }
    for name in _TUPLES & values.keys():
        values[name] = _strings(document, name)
    if values.get("effects") is not None:
        values["effects"] = _parse_effects(document)
    if "log" in values:
        values["log"] = tuple(_parse_entry(document["_id"], entry) for entry in values["log"])
    outcome = document.get("outcome")
    return Record(
        revision=document["_id"],
        state=_state(document),
        direction=_member(document, "direction", Direction, Direction.UP),
        outcome=None if outcome is None else _member(document, "outcome", Outcome),
        checkpoint=document.get("checkpoint"),
        ledger=_ledger(document),
        **values,
    )


def _check_ownership(document: Mapping[str, Any]) -> None:
    key = document.get("_id")
    if document.get("tool") != TOOL:
        raise ForeignDocument(
            f"the history collection holds a document of another tool, _id {key!r}",
            hint="give mongover a collection of its own: `collection = …` in the configuration",
            after="nothing was run, and the document was not touched.",
        )
    version = document.get("v")
    if isinstance(version, bool) or not isinstance(version, int):
        raise BadRecord(f"record {key!r}: v is {version!r}, not a number", hint=_REPAIR_HINT)
    if version > FORMAT:
        raise NewerFormat(
            f"record {key!r} has format {version}; this release of mongover reads up to {FORMAT}",
            hint="upgrade mongover: pip install -U mongover",
            after="nothing was run.",
        )
    if not isinstance(key, str):
        raise BadRecord(f"record {key!r}: its _id is not a string", hint=_REPAIR_HINT)


def _checked(
    document: Mapping[str, Any], name: str, types: tuple[type, ...], *, optional: bool
) -> Any:
    value = document[name]
    if value is None and optional:
        return value
    is_bool = isinstance(value, bool)
    if not isinstance(value, types) or (is_bool and bool not in types):
        wanted = " or ".join(kind.__name__ for kind in types)
        raise BadRecord(
            f"record {document['_id']!r}: {name} is a {type(value).__name__}, not {wanted}",
            hint=_REPAIR_HINT,
        )
    return value


def _ledger(document: Mapping[str, Any]) -> Ledger | None:
    value = document.get("ledger")
    if value is None:
        return None
    try:
        return parse_ledger(value)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadRecord(
            f"record {document['_id']!r}: ledger makes no sense", hint=_REPAIR_HINT
        ) from None


def _strings(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    for value in document[name]:
        if not isinstance(value, str):
            raise BadRecord(
                f"record {document['_id']!r}: {name} holds a {type(value).__name__}, not a string",
                hint=_REPAIR_HINT,
            )
    return tuple(document[name])


def _parse_effects(document: Mapping[str, Any]) -> tuple[Effect, ...]:
    for value in document["effects"]:
        if not is_effect(value):
            raise BadRecord(
                f"record {document['_id']!r}: effects holds a {type(value).__name__} that is none",
                hint=_REPAIR_HINT,
            )
    return tuple(document["effects"])


def _state(document: Mapping[str, Any]) -> State:
    state = _member(document, "state", State)
    if state is State.PENDING:
        raise BadRecord(
            f"record {document['_id']!r}: state is 'pending', which only the absence of a record"
            " can say",
            hint=_REPAIR_HINT,
        )
    return state


def _member(
    document: Mapping[str, Any], name: str, kind: type[_Member], default: _Member | None = None
) -> _Member:
    value = document.get(name, default)
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(kind)
        raise BadRecord(
            f"record {document['_id']!r}: {name} is {value!r}, not one of {known}",
            hint=_REPAIR_HINT,
        ) from None


_ENTRY_TYPES: Final[Mapping[str, tuple[tuple[type, ...], bool]]] = {
    "action": ((str,), False),
    "outcome": ((str,), False),
    "run": ((str,), True),
    "by": ((Mapping,), False),
    "at": ((datetime,), True),
    "duration_ms": (_NUMBER, True),
    "checksum": ((str,), True),
    "error": ((Mapping,), True),
    "reason": ((str,), True),
}


def _parse_entry(revision: str, entry: Any) -> LogEntry:
    if not isinstance(entry, Mapping) or not {"action", "outcome"} <= entry.keys():
        raise BadRecord(
            f"record {revision!r}: log holds {type(entry).__name__} that is no log entry",
            hint=_REPAIR_HINT,
        )
    named = {"_id": f"{revision} (log)", **entry}
    return LogEntry(
        **{
            name: _checked(named, name, types, optional=optional)
            for name, (types, optional) in _ENTRY_TYPES.items()
            if name in entry
        }
    )


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
    outcome: Outcome,
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
    outcome = Outcome.NOTHING if record.transaction else Outcome.UNKNOWN
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


def conflict(change: Change, document: Mapping[str, Any] | None) -> RecordConflict:
    """The error for a change that does not fit."""
    found = "gone" if document is None else f"{document.get('state')}"
    if document is not None and document.get("owner") is not None:
        found += f" (fence {document.get('fence')})"
    wanted = " or ".join(sorted(change.expect))
    error = RecordConflict(
        f"the record of {change.revision} is {found}, where this run left it {wanted}",
        hint="another process took over: look at `mongover lock` and `mongover status`",
        after="nothing more was written.",
    )
    error.revision = change.revision
    error.gone = document is None
    return error


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
