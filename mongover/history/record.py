"""One record of the history as a value: its states, its log, and how a stored document is read.

What may become of it is in `changes`; where records are kept, in `mongo` and `memory`. All pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from mongover.errors import BadRecord, ForeignDocument, NewerFormat
from mongover.history.effects import is_effect
from mongover.history.ledger import Ledger, parse_ledger

if TYPE_CHECKING:
    from typing import Any, Final

    from mongover.history.effects import Effect


_Member = TypeVar("_Member", bound=StrEnum)
TOOL: Final = "mongover"
FORMAT: Final = 1
LOG_LIMIT: Final = 1_000
SOURCE_LIMIT: Final = 14_000_000  # bytes; a document holds 16 MB, and the log is one of its parts


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


class Remains(StrEnum):
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
    outcome: Remains | None = None
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
        if self.state not in STOPPED or self.outcome is not Remains.UNKNOWN:
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


def someone_runs(known: Mapping[str, Record]) -> bool:
    """Whether a record says that its revision is being run."""
    return any(record.state in RUNNING for record in known.values())


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
        outcome=None if outcome is None else _member(document, "outcome", Remains),
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
