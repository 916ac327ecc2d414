"""The retry of rejected documents under the lease: of one revision, or of all that a target needs.

How one document is tried again stands in `running/rejects`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mongover.errors import FilesError, Interrupted, MongoverError, RevisionError, UsageError
from mongover.history.record import State
from mongover.planning.case import applied_in_order, known_graph
from mongover.planning.targets import Targets
from mongover.running import events
from mongover.running.noting import operations_of
from mongover.running.rejects import (
    RetriedRevision,
    count_rejects,
    function_gone,
    rejecting_revisions,
    retry_rejects,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mongover.history.record import Record
    from mongover.history.store import Store
    from mongover.operations import Operation
    from mongover.revisions.revision import RevisionFiles
    from mongover.running.hold import Held
    from mongover.running.rejects import Retried
    from mongover.running.request import Request


@dataclass(frozen=True, slots=True)
class Retrying:
    """The retry that one request asks for; `project` is from where revisions may import."""

    store: Store
    files: RevisionFiles
    project: Path
    request: Request

    def revisions(self, known: Mapping[str, Record]) -> tuple[str, ...]:
        """The applied revisions that the target needs and that kept documents aside."""
        graph, applied = known_graph(self.files, known), applied_in_order(known)
        scope = graph.ancestors(Targets(graph, applied).upgrade(self.request.target).ids)
        kept = rejecting_revisions(self.store.rejects) & scope
        return tuple(each for each in applied if each in kept and _is_applied(known[each]))

    def operations(self, revision: str) -> tuple[Operation, ...]:
        """What the revision's upgrade asks for, among it the transforms to try again."""
        return operations_of(self.files, revision, project=self.project)

    def all(self, held: Held) -> tuple[RetriedRevision, ...]:
        """Try those of every such revision; what is wrong with one's code alone stops no other."""
        return tuple(self._one(held, revision) for revision in self.revisions(held.known))

    def one(self, held: Held, revision: str, operations: Iterable[Operation]) -> Retried:
        """Try the rejects of one revision; stops between two documents."""
        server = self.store.server
        return retry_rejects(
            server.database,
            self.store.rejects,
            revision,
            operations,
            transactions=server.known().transactions,
            check=lambda: self._check(held, revision),
        )

    def _one(self, held: Held, revision: str) -> RetriedRevision:
        try:
            result = self.one(held, revision, self.operations(revision))
            gone = function_gone(revision, result.gone) if result.gone else None
            problem = "" if gone is None else _told(gone)
            tried = RetriedRevision(revision, result.done, result.left, problem)
        except (FilesError, RevisionError, UsageError) as error:
            left = count_rejects(self.store.rejects, revision)
            tried = RetriedRevision(revision, 0, left, _told(error))
        self.request.listener(events.Notice(tried.sentence(), revision))
        return tried

    def _check(self, held: Held, revision: str) -> None:
        held.lease.check()
        if self.request.stop.requested:
            raise Interrupted(
                f"stopped between two rejected documents of {revision}, as asked",
                hint="the same command goes on with those that are left",
                after="the lock was released.",
            )


def _is_applied(record: Record) -> bool:
    return record.state is State.APPLIED


def _told(error: MongoverError) -> str:
    """An error, its place and its way out in one sentence."""
    place = ""
    if error.where is not None and error.where.line is not None:
        place = f" ({error.where.path.name}:{error.where.line})"
    return f"{error.message}{place}; {error.hint}" if error.hint else f"{error.message}{place}"
