"""The sentences and errors about revisions that plans, problems and status share. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mongover.errors import Ahead, Blocked, Edited, Irreversible, MissingFile, Where
from mongover.history.record import Direction, State
from mongover.planning.case import NOTHING_RUN
from mongover.planning.graph import NO_NUMBER, name_of, number_of
from mongover.revisions.text import difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mongover.history.record import Record
    from mongover.planning.case import Case
    from mongover.planning.targets import Selection
    from mongover.revisions.revision import Revision


def gone_error(case: Case, record: Record) -> MissingFile | Ahead:
    """The error for a record whose file is not there: removed, or of a newer release."""
    name, folder = record.revision, case.files.folder
    if 0 <= case.newest < number_of(name)[0] < NO_NUMBER:
        return Ahead(
            f"the database holds {name} ({record.message}), which is newer than every file in"
            f" {folder}",
            hint="run the release that brought it, or write its file back with"
            f" `mongover restore {name}`",
            after=NOTHING_RUN,
        )
    what = "is applied" if record.counts_as_applied else "was begun"
    return MissingFile(
        f"{name} ({record.message}) {what}, but {folder} has no file of it",
        hint=f"mongover restore {name}",
        notes=() if case.newest >= 0 else [f"there are no revision files in {folder} at all"],
        after=NOTHING_RUN,
    )


def blocked_error(case: Case, record: Record) -> Blocked:
    """The error for a revision of which only a person can say what it left."""
    what = "upgrade" if record.direction is Direction.UP else "downgrade"
    resolve = f'mongover resolve {record.revision} --retry | --applied | --reverted --reason "…"'
    ledger = record.ledger
    return Blocked(
        f"{record.revision} stopped half-way: its {what} {how_it_ended(record)},"
        f" and {_unknown(record)}",
        hint=resolve
        if record.blocked
        else f"finish it with `{command_again(case, record)}`, or {resolve}",
        notes=[*_error_notes(record), *(() if ledger is None else ledger.said)],
        after=NOTHING_RUN,
    )


def _unknown(record: Record) -> str:
    """What is not known of a revision that stopped half-way."""
    ledger = record.ledger
    if not record.blocked:
        return "it is not finished"
    if ledger is None:
        return "the release of mongover that ran it did not note what was done"
    if ledger.blocked and ledger.begun is not None:
        return f"how far `{ledger.begun.operation}` came is not known"
    return "what it left is not known"


def command_again(case: Case, record: Record) -> str:
    """The command that goes on with an attempt and, where a target can say so, does no more."""
    if record.direction is Direction.UP:
        return "mongover upgrade"
    line = [each for each in case.applied if case.graph.nodes[each].schema == record.schema]
    if case.applied[-1] == record.revision:
        return "mongover downgrade -1"
    if line[-1] == record.revision:
        return f"mongover downgrade {record.schema or ''}@-1"
    below = record.down_revision[0] if record.down_revision else f"{record.schema or ''}@base"
    return f"mongover downgrade {below}"


def how_it_ended(record: Record) -> str:
    """`failed (begun …) by ana@web-3`."""
    verb = "failed" if record.state is State.FAILED else "was interrupted"
    began = "" if record.started_at is None else f" (begun {record.started_at:%Y-%m-%d %H:%M:%S})"
    who = _who(record)
    return f"{verb}{began}{f' by {who}' if who else ''}"


def _who(record: Record) -> str:
    parts = (record.by.get("user"), record.by.get("host"))
    return "@".join(str(part) for part in parts if part)


def _error_notes(record: Record) -> list[str]:
    error = record.error or {}
    said = dict.fromkeys(str(error[key]) for key in ("type", "message") if error.get(key))
    return [": ".join(said)] if said else []


def edited_error(case: Case, record: Record) -> Edited:
    """The error for an applied revision whose file says something else now."""
    revision = case.files.revisions[record.revision]
    who = _who(record)
    when = "" if record.applied_at is None else f" {record.applied_at:%Y-%m-%d %H:%M:%S}"
    differs = difference(case.sources(record.revision), revision.source)
    return Edited(
        f"{revision.id} was edited after it was applied",
        hint="put the file back, or write a new revision, or accept it:"
        f' mongover repair {revision.id} --reason "…"',
        notes=[
            f"applied{when}{f' by {who}' if who else ''}, {_short(record.checksum)}",
            f"on disk {_short(revision.checksum)}, {differs} (`mongover diff {revision.id}`)",
        ],
        where=Where(revision.path),
        after=NOTHING_RUN,
    )


def _short(digest: str) -> str:
    return f"sha256 {digest.removeprefix('sha256:')[:8]}…"


def irreversible_error(revision: Revision) -> Irreversible:
    """The error for a revision without a downgrade."""
    return Irreversible(
        f"{revision.id} ({revision.message}) cannot be reverted: {revision.path.name} has no"
        " downgrade()",
        hint="write a downgrade(op) in it and accept the file:"
        f' mongover repair {revision.id} --reason "…"; or go to a target above it',
        where=Where(revision.path),
        after=NOTHING_RUN,
    )


def running_sentence(record: Record) -> str:
    """Who is running a revision."""
    what = "applied" if record.state is State.APPLYING else "reverted"
    who = _who(record)
    return f"{record.revision} is being {what}{f' by {who}' if who else ' by another process'}"


def continues_sentence(record: Record) -> str:
    """That a step goes on with an attempt that stopped."""
    what = "upgrade" if record.direction is Direction.UP else "downgrade"
    return f"continues {record.revision}, whose {what} {how_it_ended(record)}"


def nothing_up(case: Case, selection: Selection, running: Sequence[str]) -> str:
    """Why an upgrade has no steps."""
    if running:
        return f"nothing to do now: {running_sentence(case.records[running[0]])}"
    if not case.graph.nodes:
        return f"nothing to do: there are no revision files in {case.files.folder}"
    if len(selection.lines) > 1:
        return f"nothing to do: all {len(selection.lines)} lines are at their heads"
    if selection.lines:
        head = ", ".join(case.graph.heads(selection.lines[0]))
        return f"nothing to do: {name_of(selection.lines[0])} is at {head}, its head"
    verb = "are" if len(selection.ids) > 1 else "is"
    names = ", ".join(selection.ids) or "all that is current"
    return f"nothing to do: {names} {verb} applied already"


def nothing_down(case: Case, target: str, selection: Selection, running: Sequence[str]) -> str:
    """Why a downgrade has no steps."""
    if running:
        return f"nothing to do now: {running_sentence(case.records[running[0]])}"
    if not case.applied:
        return "nothing to do: no revision is applied"
    if target.strip().endswith("base"):
        lines = ", ".join(name_of(schema) for schema in selection.lines)
        return f"nothing to do: no revision of {lines} is applied"
    above = f"nothing to do: no revision above {target.strip()} is applied"
    lines = ", ".join(name_of(schema) for schema in selection.lines)
    return above if selection.whole or not lines else f"{above} in {lines}"
