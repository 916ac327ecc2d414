"""The commands that look: they write nothing and take no lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mongover.cli.command import App, Command, TargetCommand
from mongover.cli.screen.output import HERE, Paint, relative
from mongover.cli.screen.status import show_problems, show_status
from mongover.cli.screen.text import (
    NOTHING,
    milliseconds,
    moment,
    person,
    schema_name,
    shorten,
    table,
)
from mongover.cli.targets import complete_target
from mongover.report import documents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mongover.cli.screen.output import Output
    from mongover.history.record import LogEntry, Record
    from mongover.report.status import Status
    from mongover.revisions.revision import Revision

_DISAGREE = 4
_PENDING = 6
_MESSAGE = 60
_MARKS = {
    "applied": Paint("✓", "green"),
    "reverted": Paint("○", "dim"),
    "failed": Paint("✗", "red"),
    "interrupted": Paint("✗", "red"),
}


@click.command("status", cls=Command)
@click.option("--schema", metavar="NAME", help="Only this schema.")
@click.option(
    "--check",
    is_flag=True,
    help="Exit 6 when something is pending, 4 when a problem is in its way.",
)
def status(app: App, schema: str | None, check: bool) -> int:  # noqa: FBT001 - a flag of the command line
    """Show each schema and what is pending.

    Works on revision files that cannot be imported, and shows each problem with the command that
    ends it. Exit codes with --check: 0 up to date, 4 files and history disagree, 6 something is
    pending.
    """
    with app.migrator() as migrator:
        state = migrator.status(schema=schema)
    if app.settings.json:
        app.output.document(documents.status_document(state, HERE))
    else:
        show_status(app.output, state)
    return _verdict(state) if check else 0


def _verdict(state: Status) -> int:
    """What stops an upgrade goes before what it would do."""
    if any(problem.error is not None for problem in state.problems):
        return _DISAGREE
    return _PENDING if state.pending else 0


@click.command("current", cls=Command)
def current(app: App) -> None:
    """Show the applied head of each schema."""
    with app.migrator() as migrator:
        records = migrator.current()
    if app.settings.json:
        app.output.document(documents.history_document(records, HERE))
        return
    rows = [
        [schema_name(one.schema), one.revision, one.message, moment(one.applied_at)]
        for one in records
    ]
    _print_table(app.output, rows)
    if not rows:
        app.output.talk("nothing is applied")
        app.output.hint("mongover upgrade")


@click.command("heads", cls=Command)
def heads(app: App) -> None:
    """Show the newest file of each schema.

    Reads the files alone, without a server.
    """
    with app.migrator(needs_database=False) as migrator:
        revisions = migrator.heads()
    if app.settings.json:
        app.output.document(documents.revisions_document(revisions, HERE))
        return
    rows = [[schema_name(one.schema), one.id, one.message, relative(one.path)] for one in revisions]
    _print_table(app.output, rows)
    if not rows:
        app.output.talk("there is no revision file")
        app.output.hint('mongover revision -m "create users" --schema users')


@click.command("history", cls=TargetCommand)
@click.argument("span", metavar="[RANGE]", required=False)
@click.option("--log", is_flag=True, help="Everything ever done, failures and repairs included.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
def history(app: App, span: str | None, log: bool, limit: int | None) -> None:  # noqa: FBT001 - a flag of the command line
    """Show what was applied, newest first.

    RANGE is 0002:0005, :0003, 0003: or one target. With --json the records stand in the order of
    application.
    """
    with app.migrator() as migrator:
        if log:
            _show_log(app, migrator.log()[:limit])
            return
        records = migrator.history(span)
    records = records[-limit:] if limit else records
    if app.settings.json:
        app.output.document(documents.history_document(records, HERE))
        return
    _show_history(app.output, records)


def _show_history(output: Output, records: Sequence[Record]) -> None:
    if not records:
        output.talk("nothing was ever applied")
        return
    rows = [["applied", "took", "by", "revision", "schema", "message"]]
    for one in reversed(records):
        took = milliseconds(one.duration_ms) or NOTHING
        rows.append(
            [
                moment(one.applied_at),
                took,
                person(one.by),
                one.revision,
                schema_name(one.schema),
                shorten(one.message, _MESSAGE) + _state_note(one),
            ]
        )
    header, *lines = table(rows)
    output.data(Paint("  " + header, "dim"))
    for line, record in zip(lines, reversed(records), strict=True):
        output.data(_MARKS.get(record.state, "↻"), " ", line)


def _state_note(record: Record) -> str:
    if record.state == "applied":
        return ""
    return f"  ({record.direction} {record.state})" if record.unfinished else f"  ({record.state})"


def _show_log(app: App, entries: Sequence[Any]) -> None:
    if app.settings.json:
        app.output.document(documents.log_document(entries, HERE))
        return
    rows = [
        [
            moment(one.entry.at),
            one.revision,
            one.entry.action,
            one.entry.outcome,
            milliseconds(one.entry.duration_ms),
            person(one.entry.by),
            shorten(_log_note(one.entry), _MESSAGE * 2),
        ]
        for one in entries
    ]
    _print_table(app.output, rows)
    if not rows:
        app.output.talk("nothing was ever done")


def _log_note(entry: LogEntry) -> str:
    if entry.reason is not None:
        return f'"{entry.reason}"'
    if not entry.error:
        return ""
    parts = [entry.error.get(name) for name in ("type", "code", "message")]
    return " ".join(str(part) for part in parts if part is not None)


@click.command("show", cls=TargetCommand)
@click.argument("target", shell_complete=complete_target)
@click.option("--source", is_flag=True, help="The text that was applied, too.")
def show(app: App, target: str, source: bool) -> None:  # noqa: FBT001 - a flag of the command line
    """Show one revision and its record."""
    with app.migrator() as migrator:
        shown = migrator.show(target)
    if app.settings.json:
        app.output.document(documents.shown_document(shown, HERE, source=source))
        return
    _show_file(app.output, shown.revision)
    _show_record(app.output, shown.record)
    show_problems(app.output, shown.problems)
    if source and shown.record is not None and shown.record.source is not None:
        app.output.data("")
        app.output.verbatim(shown.record.source)


def _show_file(output: Output, revision: Revision | None) -> None:
    if revision is None:
        return
    output.data(Paint(f"{revision.id} {revision.message}", "bold"))
    needs = ", ".join(revision.depends_on)
    _fields(
        output,
        {
            "file": relative(revision.path),
            "schema": schema_name(revision.schema),
            "revises": ", ".join(revision.down_revision) or "(base)",
            "depends on": needs,
            "transaction": "yes" if revision.transaction else "",
            "downgrade": "" if revision.has_downgrade else "none: it cannot be reverted",
            "created": revision.create_date or "",
        },
    )


def _show_record(output: Output, record: Record | None) -> None:
    if record is None:
        _fields(output, {"state": "pending"})
        return
    took = milliseconds(record.duration_ms)
    error = record.error or {}
    _fields(
        output,
        {
            "state": record.state + (" (blocked)" if record.blocked else ""),
            "applied": _stamped(record, took) if record.applied_at else "",
            "reverted": moment(record.reverted_at) if record.state == "reverted" else "",
            "attempts": str(record.attempt) if record.attempt > 1 else "",
            "collections": ", ".join(record.collections),
            "warnings": "; ".join(record.warnings),
            "operations": _operations(record),
            "error": " ".join(str(error[key]) for key in ("type", "message") if error.get(key)),
            "checksum": record.checksum,
        },
    )
    for entry in reversed(record.log):
        note = shorten(_log_note(entry), _MESSAGE)
        cells = [moment(entry.at), entry.action, entry.outcome, person(entry.by), note]
        output.data("    ", Paint("  ".join(cell for cell in cells if cell), "dim"))


def _operations(record: Record) -> str:
    """What an attempt that did not end well is known to have done."""
    if record.ledger is None or record.unfinished is None:
        return ""
    return "; ".join(record.ledger.said)


def _stamped(record: Record, took: str) -> str:
    return f"{moment(record.applied_at)} by {person(record.by)}" + (f", {took}" if took else "")


def _fields(output: Output, fields: dict[str, str]) -> None:
    for name, value in fields.items():
        if value:
            output.data(f"  {name:<12}", value)


def _print_table(output: Output, rows: Sequence[Sequence[str]]) -> None:
    for line in table(rows):
        output.data(line)
