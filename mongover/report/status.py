"""Where the lines stand, and beside them the collections with their sizes and indexes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from mongover.errors import UnknownTarget
from mongover.history.record import RUNNING
from mongover.planning.lines import status_rows
from mongover.planning.problems import find_problems
from mongover.report.seen import see

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from mongover.database.server import ServerInfo
    from mongover.history.lease import LeaseState
    from mongover.history.record import Direction, Record
    from mongover.history.store import Store
    from mongover.planning.lines import StatusRow
    from mongover.planning.problems import Problem
    from mongover.revisions.revision import Revision, RevisionFiles


class Surveyed(Protocol):
    """What a survey asks of a server."""

    @property
    def database(self) -> Any:
        """A pymongo Database."""
        ...

    def kinds(self, names: Iterable[str]) -> Mapping[str, str]:
        """Which of the named collections exist, and what each is."""
        ...


@dataclass(frozen=True, slots=True)
class CollectionStatus:
    """One collection: `documents` is the server's estimate, `indexes` leaves `_id_` out."""

    name: str
    exists: bool
    documents: int
    indexes: int

    def to_json(self) -> dict[str, Any]:
        """The value as `--json` shows it."""
        return {
            "name": self.name,
            "exists": self.exists,
            "documents": self.documents,
            "indexes": self.indexes,
        }


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """One line: where it stands, what is pending, and its collections."""

    schema: str | None
    current: tuple[str, ...]
    head: tuple[str, ...]
    pending: tuple[Revision, ...]
    state: str
    collections: tuple[CollectionStatus, ...]

    def to_json(self) -> dict[str, Any]:
        """The value as `--json` shows it; several heads are joined by a comma."""
        return {
            "schema": self.schema,
            "current": ",".join(self.current) or None,
            "head": ",".join(self.head) or None,
            "pending": [revision.id for revision in self.pending],
            "state": self.state,
            "collections": [collection.to_json() for collection in self.collections],
        }


@dataclass(frozen=True, slots=True)
class Running:
    """A revision that some process is running now, as far as its record tells.

    `operation` and what follows are there once an operation over many documents has told how far it
    is: `done` of `total` documents, `rate` a second, `left` seconds, `ranges_done` of `ranges` of
    `_id`, and the highest `_id` that was `reached`, shortened.
    """

    revision: str
    schema: str | None
    direction: Direction
    started_at: datetime | None
    operation: str | None = None
    done: int | None = None
    total: int | None = None
    rate: float | None = None
    left: float | None = None
    ranges: int | None = None
    ranges_done: int | None = None
    reached: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The value as `--json` shows it."""
        return {
            "revision": self.revision,
            "schema": self.schema,
            "direction": self.direction.value,
            "startedAt": None if self.started_at is None else self.started_at.isoformat(),
            "operation": self.operation,
            "done": self.done,
            "total": self.total,
            "rate": self.rate,
            "left": self.left,
            "ranges": self.ranges,
            "rangesDone": self.ranges_done,
            "reached": self.reached,
        }


_NUMBERS: Final = ("done", "total", "rate", "left", "ranges", "ranges_done")


def running_of(records: Iterable[Record]) -> tuple[Running, ...]:
    """What is being run now, by the records; what a record says of its progress may be nonsense."""
    return tuple(_running(record) for record in records if record.state in RUNNING)


def _running(record: Record) -> Running:
    told = record.checkpoint if isinstance(record.checkpoint, dict) else {}
    numbers = {name: _number(told.get(name)) for name in _NUMBERS}
    return Running(
        record.revision,
        record.schema,
        record.direction,
        record.started_at,
        operation=_text(told.get("operation")),
        reached=_text(told.get("reached")),
        **numbers,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number else None


@dataclass(frozen=True, slots=True)
class Status:
    """The whole picture: server, lines, problems, lease."""

    database: str
    server: ServerInfo
    schemas: tuple[SchemaStatus, ...]
    applied: int
    pending: tuple[Revision, ...]
    problems: tuple[Problem, ...]
    lock: LeaseState | None
    last: Record | None
    running: tuple[Running, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The value as `--json` shows it."""
        return {
            "database": self.database,
            "server": self.server.to_json(),
            "schemas": [schema.to_json() for schema in self.schemas],
            "applied": self.applied,
            "pending": [revision.id for revision in self.pending],
            "problems": [problem.to_json() for problem in self.problems],
            "lock": None if self.lock is None else self.lock.to_json(),
            "running": [one.to_json() for one in self.running],
        }


def collection_names(schema: str | None, records: Iterable[Record]) -> tuple[str, ...]:
    """The collections that a line's applied revisions worked on; before any ran, its own name."""
    names: dict[str, None] = {}
    for record in records:
        if record.counts_as_applied:
            names.update(dict.fromkeys(record.collections))
    if not names and schema is not None:
        names[schema] = None
    return tuple(names)


def survey_collections(server: Surveyed, names: Iterable[str]) -> dict[str, CollectionStatus]:
    """How the named collections stand: one listing, then two metadata reads for each found."""
    wanted = tuple(dict.fromkeys(names))
    if not wanted:
        return {}
    kinds = server.kinds(wanted)
    return {name: _survey(server.database, name, kinds.get(name)) for name in wanted}


def _survey(database: Any, name: str, kind: str | None) -> CollectionStatus:
    if kind is None:
        return CollectionStatus(name, exists=False, documents=0, indexes=0)
    if kind == "view":
        return CollectionStatus(name, exists=True, documents=0, indexes=0)
    collection = database[name]
    indexes = [index["name"] for index in collection.list_indexes()]
    return CollectionStatus(
        name,
        exists=True,
        documents=collection.estimated_document_count(),
        indexes=sum(index != "_id_" for index in indexes),
    )


def survey_lines(
    server: Surveyed,
    rows: Sequence[StatusRow],
    files: RevisionFiles,
    applied: Sequence[Record],
) -> tuple[SchemaStatus, ...]:
    """Every line with its pending revisions and its collections as they stand."""
    names = {
        row.schema: collection_names(
            row.schema, [record for record in applied if record.schema == row.schema]
        )
        for row in rows
    }
    found = survey_collections(server, [name for group in names.values() for name in group])
    return tuple(
        SchemaStatus(
            schema=row.schema,
            current=row.current,
            head=row.head,
            pending=tuple(
                files.revisions[revision] for revision in row.pending if revision in files.revisions
            ),
            state=row.state,
            collections=tuple(found[name] for name in names[row.schema]),
        )
        for row in rows
    )


def status_of(
    store: Store,
    files: RevisionFiles,
    *,
    database: str,
    schema: str | None,
    sources: Callable[[str], str],
) -> Status:
    """The whole picture of all lines, or of that of one schema, in one look at the history.

    Raises:
        UnknownTarget: there is no such schema.
    """
    seen = see(store)
    known = seen.known
    rows = _rows(files, known, schema)
    applied = [record for record in known.values() if record.counts_as_applied]
    schemas = survey_lines(store.server, rows, files, applied)
    return Status(
        database=database,
        server=store.server.info(),
        schemas=schemas,
        applied=len(applied),
        pending=tuple(revision for line in schemas for revision in line.pending),
        problems=tuple(find_problems(files, known, sources=sources)),
        lock=seen.lock,
        last=max(applied, key=lambda record: record.sequence, default=None),
        running=running_of(known.values()),
    )


def _rows(
    files: RevisionFiles, known: Mapping[str, Record], schema: str | None
) -> Sequence[StatusRow]:
    rows = status_rows(files, known)
    chosen = [row for row in rows if schema in (None, row.schema)]
    if not chosen and schema is not None:
        names = ", ".join(str(row.schema) for row in rows)
        raise UnknownTarget(f"there is no schema {schema!r}", hint=f"known: {names}")
    return chosen
