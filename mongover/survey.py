"""What stands in the database beside the history: collections, their sizes and indexes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mongover.lease import LeaseState
    from mongover.plan import Problem
    from mongover.records import Record
    from mongover.revision import Revision
    from mongover.server import Server, ServerInfo


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


def survey_collections(server: Server, names: Iterable[str]) -> dict[str, CollectionStatus]:
    """How the named collections stand: one listing, then two metadata reads for each found."""
    wanted = tuple(dict.fromkeys(names))
    if not wanted:
        return {}
    listed = server.database.list_collections(filter={"name": {"$in": wanted}})
    kinds = {entry["name"]: entry for entry in listed}
    return {name: _survey(server, name, kinds.get(name)) for name in wanted}


def _survey(server: Server, name: str, listed: Mapping[str, Any] | None) -> CollectionStatus:
    if listed is None:
        return CollectionStatus(name, exists=False, documents=0, indexes=0)
    if listed.get("type") == "view":
        return CollectionStatus(name, exists=True, documents=0, indexes=0)
    collection = server.database[name]
    indexes = [index["name"] for index in collection.list_indexes()]
    return CollectionStatus(
        name,
        exists=True,
        documents=collection.estimated_document_count(),
        indexes=sum(index != "_id_" for index in indexes),
    )
