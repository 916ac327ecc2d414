"""Whether the application may be sent requests, as far as its migrations say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mongover.errors import DatabaseError, EmbeddedError, MongoverError
from mongover.history.record import Direction
from mongover.planning.lines import LineState
from mongover.web.runs import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mongover.migrator import Migrator
    from mongover.report.status import Running, Status
    from mongover.web.runs import Run
    from mongover.web.service import StartUp


@dataclass(frozen=True, slots=True)
class Health:
    """The database as a probe sees it; `pending` is None when the database does not answer.

    `state` is one of: ok, problems, pending, running, failed, blocked, unreachable. With `problems`
    files and history disagree somewhere, but nothing is pending, so requests can be served.
    """

    state: str
    pending: int | None
    code: str | None = None
    running: tuple[Running, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether the database holds all that the application's files ask for."""
        return self.state in {"ok", "problems"}


def look(migrator: Migrator) -> Health:
    """The health of the database: one query when nothing is pending and nothing is wrong."""
    try:
        plan = migrator.plan(Direction.UP, "head")
        if not plan.steps and not plan.running:
            return Health("ok", 0)
        return weigh(migrator.status())
    except (DatabaseError, EmbeddedError) as error:
        return Health("unreachable", None, error.code)
    except MongoverError as error:
        return _troubled(migrator, error)


def _troubled(migrator: Migrator, error: MongoverError) -> Health:
    try:
        return weigh(migrator.status(), code=error.code)
    except (DatabaseError, EmbeddedError) as worse:
        return Health("unreachable", None, worse.code)
    except MongoverError as worse:
        return Health("blocked", None, worse.code)


def weigh(status: Status, *, code: str | None = None) -> Health:
    """The health that a status means; `code` is that of what an upgrade would refuse (pure)."""
    states = {line.state for line in status.schemas}
    pending = len(status.pending)
    for found in (LineState.RUNNING, LineState.BLOCKED, LineState.FAILED):
        if found in states:
            return Health(str(found), pending, code, status.running)
    if pending:
        return Health("pending" if code is None else "blocked", pending, code)
    return Health("ok" if code is None else "problems", 0, code)


def _progress(one: Running) -> Progress:
    told = one.progress
    operation = None if told is None else told.operation
    return Progress(one.revision, str(one.direction), operation=operation, told=told)


def health_document(
    health: Health, run: Run | None, startup: StartUp | None
) -> tuple[bool, Mapping[str, Any]]:
    """Whether the application is ready, and the answer to a probe; it names no server (pure)."""
    ready = health.ready and (startup is None or startup.ready)
    progress: Progress | None = None
    if run is not None and run.state == "running":
        progress = run.progress
    elif health.running:  # what another process runs tells of itself in its record
        progress = _progress(health.running[0])
    document = {
        "status": health.state,
        "ready": ready,
        "pending": health.pending,
        "code": health.code,
        # A probe has no token, and an `_id` may tell of a person.
        "running": None if progress is None else progress.to_json(reached=False),
        "startup": None if startup is None else startup.to_json(),
    }
    return ready, document
