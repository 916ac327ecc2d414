"""Where each line of revisions stands: the rows of `status`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from mongover.history.record import RUNNING, STOPPED, Direction
from mongover.planning.case import half_done, known_graph

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mongover.history.record import Record
    from mongover.planning.graph import Graph
    from mongover.revisions.revision import RevisionFiles


class LineState(StrEnum):
    """How a line stands; the first that holds, in this order."""

    RUNNING = "running"  # a process runs a revision of it
    BLOCKED = "blocked"  # a person must say what an attempt left, or finish a downgrade
    FAILED = "failed"  # an attempt did not end well, and can simply be run again
    DEGRADED = "degraded"  # applied, but with warnings that wait to be mended
    PENDING = "pending"
    UP_TO_DATE = "up to date"


@dataclass(frozen=True, slots=True)
class StatusRow:
    """One line: its applied heads, its heads, what is pending in order of a run."""

    schema: str | None
    current: tuple[str, ...]
    head: tuple[str, ...]
    pending: tuple[str, ...]
    state: LineState


def status_rows(files: RevisionFiles, records: Mapping[str, Record]) -> list[StatusRow]:
    """One row per line, in the order of their first revisions."""
    graph = known_graph(files, records)
    done = {name for name, record in records.items() if record.counts_as_applied}
    order = graph.listing([each for each in graph.nodes if each not in done])
    pending: dict[str | None, list[str]] = {schema: [] for schema in graph.schemas}
    for each in order:
        pending[graph.nodes[each].schema].append(each)
    return [
        _row(records, graph, schema=schema, pending=waiting) for schema, waiting in pending.items()
    ]


def _row(
    records: Mapping[str, Record],
    graph: Graph,
    *,
    schema: str | None,
    pending: Sequence[str],
) -> StatusRow:
    held = [records[each] for each in graph.lines[schema] if each in records]
    done = {record.revision for record in held if record.counts_as_applied}
    current = done.difference(*(graph.nodes[each].down_revision for each in done))
    return StatusRow(
        schema,
        current=tuple(each.revision for each in held if each.revision in current),
        head=graph.heads(schema),
        pending=tuple(pending),
        state=_line_state(held, pending),
    )


def _line_state(held: Sequence[Record], pending: Sequence[str]) -> LineState:
    if any(record.state in RUNNING for record in held):
        return LineState.RUNNING
    stopped = [record for record in held if record.state in STOPPED]
    if any(record.blocked or half_done(record, Direction.DOWN) for record in stopped):
        return LineState.BLOCKED
    if stopped:
        return LineState.FAILED
    if any(record.warnings and record.counts_as_applied for record in held):
        return LineState.DEGRADED
    return LineState.PENDING if pending else LineState.UP_TO_DATE
