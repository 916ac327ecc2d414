"""The screen of `status`: one table, the problems, a line of totals, and what to type next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mongover.cli.screen.moment import done_words, place_words
from mongover.cli.screen.output import Paint, place
from mongover.cli.screen.text import (
    NOTHING,
    count,
    duration,
    milliseconds,
    moment,
    number,
    person,
    schema_name,
    shorten,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mongover.cli.screen.output import Output
    from mongover.history.lease import LeaseState
    from mongover.history.record import Record
    from mongover.planning.problems import Problem
    from mongover.report.status import Running, SchemaStatus, Status
    from mongover.revisions.revision import Revision

_HEADER: Final = (
    *("schema", "current", "head", "pending", "collection", "documents", "indexes", ""),
)
_RIGHT: Final = (5,)
_PENDING_SHOWN: Final = 3
_MESSAGE: Final = 36
_ORDINARY: Final = frozenset({"pending", "up to date"})


def show_status(output: Output, status: Status) -> None:
    """The whole screen."""
    output.data(Paint(server_line(status), "bold"))
    output.data("")
    rows = [row for schema in status.schemas for row in schema_rows(schema)]
    if rows:
        header, *lines = table([_HEADER, *rows], right=_RIGHT)
        output.data("  ", Paint(header, "dim"))
        for line in lines:
            output.data("  ", line)
        output.data("")
    if status.lock is not None and status.lock.held:
        output.data(Paint("↻", "cyan"), f" {lock_line(status.lock)}")
    for one in status.running:
        output.data(Paint("↻", "cyan"), f" {running_line(one)}")
    show_problems(output, status.problems)
    output.data(totals_line(status))
    following = next_line(status)
    if following:
        output.hint(following)


def server_line(status: Status) -> str:
    """`shop on rs0/127.0.0.1:27600 (MongoDB 6.0.5, replica set, transactions: yes)`."""
    server = status.server
    able = "yes" if server.transactions else "no"
    about = f"MongoDB {server.version}, {server.topology}, transactions: {able}"
    return f"{status.database} on {server.address} ({about})"


def schema_rows(schema: SchemaStatus) -> Iterator[list[str]]:
    """The rows of one schema: its collections on the left, what is pending on the right."""
    notes = pending_notes(schema.pending)
    if str(schema.state) not in _ORDINARY:
        notes.insert(0, f"⚠ {schema.state}")
    first = [
        schema_name(schema.schema),
        ",".join(schema.current) or NOTHING,
        ",".join(schema.head) or NOTHING,
        number(len(schema.pending)) if schema.pending else NOTHING,
    ]
    for i in range(max(1, len(schema.collections), len(notes))):
        cells = [NOTHING] * 3 if i == 0 else [""] * 3
        if i < len(schema.collections):
            one = schema.collections[i]
            counts = [number(one.documents), str(one.indexes)] if one.exists else [NOTHING] * 2
            cells = [one.name, *counts]
        yield [*(first if i == 0 else [""] * 4), *cells, notes[i] if i < len(notes) else ""]


def pending_notes(pending: Sequence[Revision]) -> list[str]:
    """The first few pending revisions, and how many more there are."""
    notes = [f"○ {one.id} {shorten(one.message, _MESSAGE)}" for one in pending[:_PENDING_SHOWN]]
    more = len(pending) - _PENDING_SHOWN
    return [*notes, f"… {more:,} more"] if more > 0 else notes


def lock_line(lock: LeaseState) -> str:
    """Who holds the lock, since when, and whether it is alive."""
    command = lock.holder.get("command")
    doing = f" ({command})" if command else ""
    return (
        f"locked by {lock.who()} for {duration(lock.held_seconds)}{doing}, "
        f"alive {duration(lock.heartbeat_seconds)} ago"
    )


def running_line(one: Running) -> str:
    """`0006 runs: update users, 61 %, 512,400/840,112, 41,200/s, 8.0 s left, 3/8 ranges`."""
    verb = "runs" if one.direction == "up" else "is being reverted"
    progress = one.progress
    if progress is None:
        return f"{one.revision} {verb}"
    parts = [f"{one.revision} {verb}: {progress.operation}", *done_words(progress)]
    if progress.rate is not None:
        parts.append(f"{number(round(progress.rate))}/s")
    if progress.left is not None:
        parts.append(f"{duration(progress.left)} left")
    return ", ".join([*parts, *place_words(progress)])


def show_problems(output: Output, problems: Sequence[Problem], *, places: bool = False) -> None:
    """Each problem with the command that ends it and, with `places`, the line that it is about."""
    for problem in problems:
        mark = Paint("⚠", "yellow") if problem.error is not None else "·"
        output.data(mark, f" {problem.message}")
        where = problem.error.where if places and problem.error is not None else None
        if where is not None and where.line is not None:
            output.data("    at ", place(where))
        if problem.hint:
            output.data("    → ", problem.hint)
    if problems:
        output.data("")


def totals_line(status: Status) -> str:
    """`4 applied, 2 pending, 0 problems. Last: 0004 create schedules, …`."""
    problems = count(sum(one.waits for one in status.problems), "problem")
    line = f"{status.applied:,} applied, {len(status.pending):,} pending, {problems}."
    return line if status.last is None else f"{line} Last: {last_note(status.last)}."


def last_note(last: Record) -> str:
    """The newest record in a few words."""
    took = milliseconds(last.duration_ms)
    done = f"{moment(last.applied_at)} by {person(last.by)}"
    return f"{last.revision} {shorten(last.message, 40)}, {done}" + (f", {took}" if took else "")


def next_line(status: Status) -> str:
    """What to type next, or nothing."""
    if any(problem.error is not None for problem in status.problems):
        return ""  # each problem has said what comes next
    if status.pending:
        return "mongover upgrade            (look first: mongover plan)"
    if not status.schemas:
        return 'mongover revision -m "create users" --schema users'
    return ""
