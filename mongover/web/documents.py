"""The answers of the HTTP API: the documents of `report`, as they may be told over HTTP. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mongover.report import documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from mongover.history.lease import LeaseState
    from mongover.history.record import Record
    from mongover.migrator import RunResult
    from mongover.planning.plan import Plan
    from mongover.report.catalogue import Catalogue
    from mongover.report.shown import Shown
    from mongover.report.status import CollectionStatus, SchemaStatus, Status
    from mongover.running.events import Event
    from mongover.web.auth import Scope, Tokens
    from mongover.web.problems import Redaction


def _answer(document: Mapping[str, Any], redaction: Redaction) -> dict[str, Any]:
    answer: dict[str, Any] = documents.plain(document, redaction.hide)
    return answer


def status_document(status: Status) -> dict[str, Any]:
    """One entry per schema; the line without a schema stands under the empty name."""
    return {line.schema or "": _schema_document(line) for line in status.schemas}


def _schema_document(line: SchemaStatus) -> dict[str, Any]:
    main = _main_collection(line)
    document = documents.schema_document(line)
    del document["schema"]
    return {
        "collectionName": None if main is None else main.name,
        "documentCount": 0 if main is None else main.documents,
        "indexes": 0 if main is None else main.indexes,
        "exists": main is not None and main.exists,
        **document,
    }


def _main_collection(line: SchemaStatus) -> CollectionStatus | None:
    """The collection that bears the schema's name, else the first one of the line."""
    named = [one for one in line.collections if one.name == line.schema]
    return next(iter((*named, *line.collections)), None)


def upgrade_document(result: RunResult, schema: str | None = None) -> dict[str, Any]:
    """What an upgrade did; with a schema, which one it was about."""
    subject = "All migrations" if schema is None else f"All migrations of {schema}"
    count = len(result.warnings) if result.revisions else 0
    ending = "successfully" if not count else f"with {count} warning{'s'[: count - 1]}"
    document: dict[str, Any] = {"message": f"{subject} completed {ending}"}
    if schema is not None:
        document["schema"] = schema
    full = documents.result_document(result)
    return document | {"applied": full["applied"], "durationMs": full["durationMs"]}


def result_document(result: RunResult, redaction: Redaction) -> dict[str, Any]:
    """What a run did."""
    return _answer(documents.result_document(result), redaction)


def downgrade_document(result: RunResult, redaction: Redaction) -> dict[str, Any]:
    """What a downgrade did, with its sentence."""
    return {"message": redaction.clean(result.message), **result_document(result, redaction)}


def plan_document(plan: Plan, redaction: Redaction) -> dict[str, Any]:
    """The plan, and what a person should read before it runs."""
    more = {
        "reaches": [schema or "" for schema in plan.reaches],
        "running": plan.running,
        "nothing": plan.nothing,
    }
    return _answer(documents.plan_document(plan, redaction.audience) | more, redaction)


def history_document(records: Sequence[Record], redaction: Redaction) -> dict[str, Any]:
    """The records in order of application."""
    return _answer(documents.history_document(records, redaction.audience), redaction)


def shown_document(shown: Shown, redaction: Redaction) -> dict[str, Any]:
    """One revision: its file, its record with the log, and what is wrong with it."""
    return _answer(documents.shown_document(shown, redaction.audience), redaction)


def catalogue_document(found: Catalogue, database: str, redaction: Redaction) -> dict[str, Any]:
    """Every revision with its links, and everything that is wrong."""
    document = documents.catalogue_document(found, database, redaction.audience)
    return _answer(document, redaction)


def access_document(scope: Scope, tokens: Tokens) -> dict[str, Any]:
    """What the caller's token allows, and what needs one."""
    return {
        "token": ("none", "read", "write")[scope],
        "reads": "open" if tokens.read is None else "token",
        "writes": "off" if tokens.write is None else "token",
    }


def lock_document(state: LeaseState | None, redaction: Redaction) -> dict[str, Any]:
    """Who holds the lock."""
    return _answer(documents.lock_document(state), redaction)


def event_document(event: Event, redaction: Redaction) -> dict[str, Any]:
    """`{"event": "StepStarted", …}` with the event's own fields."""
    return _answer(documents.event_document(event, redaction.audience), redaction)


def foreign_run_document(identifier: str, records: Iterable[Record]) -> dict[str, Any] | None:
    """A run of another process, as far as the history knows it; None when it knows nothing."""
    mine = [record for record in records if record.run == identifier]
    if not mine:
        return None
    states = {str(record.state) for record in mine}
    running = [record for record in mine if record.state in {"applying", "reverting"}]
    done = [record for record in mine if record.state in {"applied", "reverted"}]
    return {
        "id": identifier,
        "state": _foreign_state(states),
        "direction": str(mine[0].direction),
        "target": None,
        "schema": None,
        "startedAt": _earliest(mine),
        "endedAt": None,
        "revisions": [record.revision for record in done],
        "progress": None if not running else {"revision": running[0].revision},
        "result": None,
        "problem": None,
    }


def _foreign_state(states: set[str]) -> str:
    for found, state in (
        ({"applying", "reverting"}, "running"),
        ({"failed"}, "failed"),
        ({"interrupted"}, "stopped"),
    ):
        if states & found:
            return state
    return "ended"


def _earliest(records: Sequence[Record]) -> str | None:
    times = [record.started_at for record in records if record.started_at is not None]
    return min(times).isoformat() if times else None
