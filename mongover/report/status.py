"""Where the lines stand, and beside them the collections with their sizes and indexes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mongover.errors import UnknownTarget
from mongover.history.record import RUNNING
from mongover.planning.lines import status_rows
from mongover.planning.problems import find_problems
from mongover.report.seen import see
from mongover.running.events import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from mongover.database.server import ServerInfo
    from mongover.history.lease import LeaseState
    from mongover.history.record import Direction, Record
    from mongover.history.store import Store
    from mongover.operations.base import Place
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


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """One line: where it stands, what is pending, and its collections."""

    schema: str | None
    current: tuple[str, ...]
    head: tuple[str, ...]
    pending: tuple[Revision, ...]
    state: str
    collections: tuple[CollectionStatus, ...]


@dataclass(frozen=True, slots=True)
class Running:
    """A revision that some process is running now, as far as its record tells.

    `progress` is there once an operation over many documents has told how far it is.
    """

    revision: str
    schema: str | None
    direction: Direction
    started_at: datetime | None
    progress: Progress | None = None


def running_of(records: Iterable[Record]) -> tuple[Running, ...]:
    """What is being run now, by the records; what a record says of its progress may be nonsense."""
    return tuple(_running(record) for record in records if record.state in RUNNING)


def _running(record: Record) -> Running:
    told = record.checkpoint if isinstance(record.checkpoint, dict) else {}
    progress = _progress(record.revision, told)
    return Running(record.revision, record.schema, record.direction, record.started_at, progress)


def _progress(revision: str, told: Mapping[str, Any]) -> Progress | None:
    """What `Progress.summary` stored; None where it names no operation, or no number of it."""
    from mongover.operations.base import Advance

    operation, done = _text(told.get("operation")), _number(told.get("done"))
    if not operation or done is None:
        return None
    advance = Advance(done, _number(told.get("total")), place=_place(told))
    rate, left = _number(told.get("rate")), _number(told.get("left"))
    return Progress(revision, operation, advance, rate=rate, left=left)


def _place(told: Mapping[str, Any]) -> Place | None:
    from mongover.operations.base import Place

    ranges, done = _number(told.get("ranges")), _number(told.get("ranges_done"))
    if ranges is None or done is None:
        return None
    return Place(ranges, done, _text(told.get("reached")))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


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
        documents=_documents_in(collection),
        indexes=sum(index != "_id_" for index in indexes),
    )


def _documents_in(collection: Any) -> int:
    """By the server's counter; after a kill it may be wrong, and where that shows, they count."""
    estimated = int(collection.estimated_document_count())
    return estimated if estimated >= 0 else int(collection.count_documents({}))


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
