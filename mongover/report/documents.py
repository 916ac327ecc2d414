"""Every value that answers as its one JSON document, for the command line and for HTTP. Pure.

A document holds the values as they are. `plain` makes JSON's own types of them and takes secrets
out; it is applied once, where a document leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from mongover.running.events import Progress, StepFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from mongover.database.server import ServerInfo
    from mongover.history.lease import LeaseState
    from mongover.history.record import LogEntry, Record
    from mongover.operations.backup import BackupInfo
    from mongover.planning.plan import Plan, Step
    from mongover.planning.problems import Problem
    from mongover.preflight.doctor import Finding
    from mongover.preflight.trial import Difference, Tried
    from mongover.report.catalogue import Catalogue, Entry
    from mongover.report.shown import LoggedEntry, Shown
    from mongover.report.status import CollectionStatus, Running, SchemaStatus, Status
    from mongover.revisions.revision import Revision
    from mongover.running.events import Event
    from mongover.running.rejects import Rejected, Retried
    from mongover.running.request import RunResult

    Document = dict[str, Any]

# What a record keeps for the next run alone, and what is shown only on request.
_NOT_SHOWN: Final = frozenset({"checkpoint", "ledger", "log", "source"})


@dataclass(frozen=True, slots=True)
class Audience:
    """To whom a document goes, where that makes a difference.

    Attributes:
        told: What is told of the text of an error. A terminal gets it whole; over HTTP it holds no
            URL and no folder, which are the server's own business.
        path: How a file is named. On the command line as it can be opened from there, over HTTP
            by its bare name.
    """

    told: Callable[[str], str]
    path: Callable[[Path], str]


def plain(value: Any, hide: Callable[[str], str]) -> Any:
    """A value in JSON's own types: times in ISO 8601, the rest as text, without secrets."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # infinities and NaN are no JSON
    if isinstance(value, Mapping):
        return {str(key): plain(item, hide) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, hide) for item in value]
    return hide(value.isoformat() if isinstance(value, date) else str(value))


# ------------------------------------------------------------------------------ files and history


def revision_document(revision: Revision, audience: Audience) -> Document:
    """A revision file without its text."""
    return {
        "revision": revision.id,
        "path": audience.path(revision.path),
        "schema": revision.schema,
        "message": revision.message,
        "down_revision": revision.down_revision,
        "depends_on": revision.depends_on,
        "transaction": revision.transaction,
        "reversible": revision.has_downgrade,
        "checksum": revision.checksum,
    }


def revisions_document(revisions: Iterable[Revision], audience: Audience) -> Document:
    """Several revision files."""
    return {"revisions": [revision_document(one, audience) for one in revisions]}


def record_document(
    record: Record, audience: Audience, *, log: bool = False, source: bool = False
) -> Document:
    """A record's stored fields by their stored names."""
    names = [each.name for each in fields(record) if each.name not in _NOT_SHOWN]
    document = {name: getattr(record, name) for name in names}
    document["error"] = _recorded_error(record.error, audience)
    if log:
        document["log"] = [_entry_document(entry, audience) for entry in record.log]
    if source:
        document["source"] = record.source
    return document


def history_document(records: Iterable[Record], audience: Audience) -> Document:
    """The records in order of application."""
    return {"revisions": [record_document(record, audience) for record in records]}


def log_document(entries: Iterable[LoggedEntry], audience: Audience) -> Document:
    """Everything ever done, each with its revision."""
    logged = [{"revision": one.revision, **_entry_document(one.entry, audience)} for one in entries]
    return {"log": logged}


def _entry_document(entry: LogEntry, audience: Audience) -> Document:
    error = _recorded_error(entry.error, audience)
    return {"at": entry.at, **entry.to_document(), "error": error}


def _recorded_error(error: Mapping[str, Any] | None, audience: Audience) -> Any:
    return None if error is None else plain(error, audience.told)


def shown_document(shown: Shown, audience: Audience, *, source: bool = False) -> Document:
    """One revision: its file, its record with the log, and what is wrong with it."""
    record = shown.record
    return {
        "revision": shown.revision and revision_document(shown.revision, audience),
        "record": record and record_document(record, audience, log=True, source=source),
        "problems": [problem_document(problem, audience) for problem in shown.problems],
    }


def catalogue_document(found: Catalogue, database: str, audience: Audience) -> Document:
    """Every revision with its links, and everything that is wrong."""
    return {
        "database": database,
        "revisions": [_catalogued(entry) for entry in found.entries],
        "problems": [problem_document(problem, audience) for problem in found.problems],
    }


def _catalogued(entry: Entry) -> Document:
    return {
        "revision": entry.revision,
        "schema": entry.schema,
        "message": entry.message,
        "down_revision": entry.down_revision,
        "depends_on": entry.depends_on,
        "state": entry.state,
        "applied": entry.applied,
        "file": entry.file,
        "reversible": entry.reversible,
    }


# --------------------------------------------------------------------------------- what is wrong


def problem_document(problem: Problem, audience: Audience) -> Document:
    """One thing that is wrong with files and history, and what to do about it."""
    document: Document = plain(
        {
            "revision": problem.revision,
            "kind": problem.kind,
            "message": problem.message,
            "hint": problem.hint,
        },
        audience.told,
    )
    return document


def placed_document(problem: Problem, audience: Audience) -> Document:
    """The problem with its code and its place in a file, for those who have the files."""
    error = problem.error
    where = None if error is None else error.where
    return problem_document(problem, audience) | {
        "code": None if error is None else error.code,
        "path": None if where is None else audience.path(where.path),
        "line": None if where is None else where.line,
    }


def findings_document(found: Iterable[Finding]) -> Document:
    """What the doctor looked at."""
    return {
        "findings": [
            {"name": one.name, "ok": one.ok, "detail": one.detail, "hint": one.hint}
            for one in found
        ]
    }


# ---------------------------------------------------------------------------------- where it stands


def status_document(status: Status, audience: Audience) -> Document:
    """The whole picture."""
    return {
        "database": status.database,
        "server": _server_document(status.server),
        "schemas": [schema_document(schema) for schema in status.schemas],
        "applied": status.applied,
        "pending": [revision.id for revision in status.pending],
        "problems": [problem_document(problem, audience) for problem in status.problems],
        "lock": lease_document(status.lock),
        "running": [_running_document(one) for one in status.running],
    }


def _server_document(server: ServerInfo) -> Document:
    return {
        "address": server.address,
        "version": server.version,
        "topology": server.topology,
        "transactions": server.transactions,
    }


def schema_document(line: SchemaStatus) -> Document:
    """One line; several heads are joined by a comma."""
    return {
        "schema": line.schema,
        "current": ",".join(line.current) or None,
        "head": ",".join(line.head) or None,
        "pending": [revision.id for revision in line.pending],
        "state": line.state,
        "collections": [_collection_document(one) for one in line.collections],
    }


def _collection_document(one: CollectionStatus) -> Document:
    return {
        "name": one.name,
        "exists": one.exists,
        "documents": one.documents,
        "indexes": one.indexes,
    }


def _running_document(one: Running) -> Document:
    progress = one.progress
    return {
        "revision": one.revision,
        "schema": one.schema,
        "direction": one.direction,
        "startedAt": one.started_at,
        "operation": progress and progress.operation,
        "done": progress and progress.done,
        "total": progress and progress.total,
        "rate": progress and progress.rate,
        "left": progress and progress.left,
        **ranges_document(progress),
    }


def ranges_document(progress: Progress | None) -> Document:
    """Where in a collection an operation is."""
    return {
        "ranges": progress and progress.ranges,
        "rangesDone": progress and progress.ranges_done,
        "reached": progress and progress.reached,
    }


def lease_document(state: LeaseState | None) -> Document | None:
    """Who holds the lock; None before anybody ever did."""
    if state is None:
        return None
    return {
        "held": state.held,
        "expired": state.expired,
        "owner": state.owner,
        "holder": state.holder,
        "acquiredAt": state.acquired_at,
        "heartbeatAt": state.heartbeat_at,
        "expiresAt": state.expires_at,
        "fence": state.fence,
    }


def lock_document(state: LeaseState | None) -> Document:
    """The answer to the question who holds the lock."""
    return {"lock": lease_document(state)}


# -------------------------------------------------------------------------------------------- runs


def plan_document(plan: Plan, audience: Audience) -> Document:
    """What a run would do."""
    return {
        "direction": plan.direction,
        "target": plan.target,
        "steps": [_step_document(step) for step in plan.steps],
        "notices": [audience.told(notice) for notice in plan.notices],
        "destroys": [each.to_json() for each in plan.destroys],
        "unforeseen": plan.unforeseen,
    }


def _step_document(step: Step) -> Document:
    revision = step.revision
    return {
        "revision": revision.id,
        "schema": revision.schema,
        "direction": step.direction,
        "message": revision.message,
        "transaction": revision.transaction,
    }


def result_document(result: RunResult) -> Document:
    """What a run did."""
    return result.to_json()


def event_document(event: Event, audience: Audience) -> Document:
    """`{"event": "StepStarted", …}` with the event's own fields."""
    own = _progress_fields(event) if isinstance(event, Progress) else asdict(event)
    document: Document = {"event": type(event).__name__, **own}
    return plain(document, audience.told) if isinstance(event, StepFailed) else document


def _progress_fields(event: Progress) -> Document:
    return {
        "revision": event.revision,
        "operation": event.operation,
        "done": event.done,
        "total": event.total,
        "seconds": event.seconds,
        "rate": event.rate,
        "left": event.left,
        "ranges": event.ranges,
        "ranges_done": event.ranges_done,
        "reached": event.reached,
    }


# --------------------------------------------------------------------------------------- documents


def tried_document(target: str, tried: Iterable[Tried]) -> Document:
    """What a revision would make of some documents."""
    return {"target": target, "operations": [_tried(each) for each in tried]}


def _tried(one: Tried) -> Document:
    differences = [_difference(each) for each in one.differences]
    return {"operation": one.operation, "looked": one.looked, "differences": differences}


def _difference(one: Difference) -> Document:
    from mongover.operations.arguments import plain as shown

    return {
        "document": shown(one.document),
        "changes": {path: shown(list(two)) for path, two in one.changes.items()},
        "deleted": one.deleted,
        "error": one.error or None,
    }


def rejects_document(found: Iterable[Rejected]) -> Document:
    """The documents that were kept aside."""
    return {"rejects": [one.to_json() for one in found]}


def retried_document(target: str, result: Retried) -> Document:
    """How many of them are transformed now."""
    return {"target": target, "done": result.done, "left": result.left}


def backups_document(found: Iterable[BackupInfo]) -> Document:
    """What revisions kept of what they removed."""
    return {"backups": [backup_document(one) for one in found]}


def backup_document(one: BackupInfo) -> Document:
    """One backup, with the server's own counters."""
    return {
        "name": one.name,
        "revision": one.revision,
        "collection": one.collection,
        "documents": one.documents,
        "bytes": one.bytes,
    }
