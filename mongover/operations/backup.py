"""Backups of documents and fields: kept beside the history, put back, listed and dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mongover.errors import OperationFailed, UsageError
from mongover.operations.arguments import check_choice, check_name, one_line
from mongover.operations.base import Operation
from mongover.operations.bulk.ranges import size_of
from mongover.operations.bulk.server_side import Change, perform
from mongover.operations.ddl import stored_collection

if TYPE_CHECKING:
    from typing import Any, Final

    from mongover.config.names import OwnCollections
    from mongover.operations.base import Document, Outcome, Target
    from mongover.operations.bulk.pace import Pace


@dataclass(frozen=True, slots=True)
class BackupInfo:
    """One collection of kept values; `documents` and `bytes` are the server's own counters."""

    name: str
    revision: str
    collection: str
    documents: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """The value as `--json` shows it."""
        return {
            "name": self.name,
            "revision": self.revision,
            "collection": self.collection,
            "documents": self.documents,
            "bytes": self.bytes,
        }


def list_backups(db: Any, own: OwnCollections) -> tuple[BackupInfo, ...]:
    """All backups beside a history, by name."""
    found = db.list_collections(filter={"type": "collection"}, nameOnly=True)
    names = sorted(row["name"] for row in found if row["name"].startswith(own.backup_prefix))
    return tuple(_info(db, name, *own.backup_of(name)) for name in names)


def _info(db: Any, name: str, revision: str, collection: str) -> BackupInfo:
    size = size_of(db, name)
    return BackupInfo(name, revision, collection, size.documents, size.documents * size.average)


def drop_backup(db: Any, own: OwnCollections, name: str) -> BackupInfo:
    """Drop one backup, and say what it was.

    Raises:
        UsageError: there is no backup of that name.
    """
    known = {backup.name: backup for backup in list_backups(db, own)}
    if name not in known:
        raise UsageError(f"there is no backup {name!r}", hint="mongover backups")
    db.drop_collection(name)
    return known[name]


ON_EXISTING: Final = ("keep", "overwrite")


def _name_for(operation: Operation, target: Target, collection: str) -> str:
    ticket = target.journal.ticket(operation)
    if ticket is None:
        raise OperationFailed(
            f"{operation.describe()}: there is no place for backups",
            hint="set `transaction = False` in the revision",
        )
    return ticket.own.backup(ticket.revision, collection)


def _merging(source: str, stages: list[Document], merge: Document) -> Any:
    def command(query: Document, hint: Document | None) -> Document:
        match = [{"$match": query}] if query else []
        pipeline = [*match, *stages, {"$merge": {"on": "_id", **merge}}]
        found: Document = {"aggregate": source, "pipeline": pipeline, "cursor": {}}
        return found | ({"hint": hint} if hint else {})

    return command


@dataclass(frozen=True, slots=True)
class Backup(Operation):
    """The ids and the given top-level fields of documents, or whole documents, are kept.

    What a first attempt kept stays: a second one would find values that are changed already.
    """

    collection: str
    fields: tuple[str, ...] = ()
    filter: Document | None = None
    pace: Pace | None = None

    verb: ClassVar[str] = "backup"

    @property
    def repeatable(self) -> bool:
        """A second time changes nothing of the first."""
        return True

    def describe(self) -> str:
        """`backup users.phone`."""
        if not self.fields:
            return one_line(f"backup {self.collection}")
        names = self.fields[0] if len(self.fields) == 1 else f"{len(self.fields)} fields"
        dot = "." if len(self.fields) == 1 else ": "
        return one_line(f"backup {self.collection}{dot}{names}")

    def refused(self, target: Target) -> str:
        """The server refuses `$merge`."""
        del target
        return "MongoDB cannot copy with $merge in a transaction"

    def apply(self, target: Target) -> Outcome:
        """In ranges of `_id`, on the server."""
        name = _name_for(self, target, self.collection)
        kept: Any = "$$ROOT"
        if self.fields:
            kept = {field: f"${field}" for field in self.fields}
        stages: list[Document] = [{"$project": {"_id": 1, "kept": kept}}]
        merge = {"into": name, "whenMatched": "keepExisting", "whenNotMatched": "insert"}
        command = _merging(self.collection, stages, merge)
        change = Change(self.collection, self.filter, command, transactional=False)
        return perform(self, target, change, self.pace)


@dataclass(frozen=True, slots=True)
class RestoreBackup(Operation):
    """What `backup` of the same revision kept is put back.

    A field that has a value again is newer than the backup: `keep` leaves it, `overwrite` does
    not. A document that is gone is put back only from a backup of whole documents.
    """

    collection: str
    fields: tuple[str, ...] = ()
    on_existing: str = "keep"
    pace: Pace | None = None

    verb: ClassVar[str] = "restore_backup"

    @classmethod
    def of(cls, collection: str, fields: tuple[str, ...], on_existing: str, pace: Any) -> Any:
        """From the arguments of `op.restore_backup`, checked."""
        check_choice("on_existing", on_existing, ON_EXISTING)
        return cls(check_name(collection), fields, on_existing, pace)

    @property
    def repeatable(self) -> bool:
        """The same values again."""
        return True

    @property
    def destructive(self) -> bool:
        """Where newer values are overwritten."""
        return self.on_existing == "overwrite"

    def describe(self) -> str:
        """`restore the backup of users`."""
        return one_line(f"restore the backup of {self.collection}")

    def refused(self, target: Target) -> str:
        """The server refuses `$merge`."""
        del target
        return "MongoDB cannot copy with $merge in a transaction"

    def apply(self, target: Target) -> Outcome:
        """In ranges of `_id`, on the server.

        Raises:
            OperationFailed: the revision has no backup of the collection.
        """
        name = _name_for(self, target, self.collection)
        if stored_collection(target, name) is None:
            raise OperationFailed(
                f"there is no backup of {self.collection} ({name})",
                hint="`mongover backups` lists what there is",
                after="nothing was restored.",
            )
        stages, merge = self._fields() if self.fields else self._whole()
        command = _merging(name, stages, {"into": self.collection, **merge})
        return perform(self, target, Change(name, None, command, transactional=False), self.pace)

    def _whole(self) -> tuple[list[Document], Document]:
        matched = "keepExisting" if self.on_existing == "keep" else "replace"
        stages: list[Document] = [{"$replaceRoot": {"newRoot": "$kept"}}]
        return stages, {"whenMatched": matched, "whenNotMatched": "insert"}

    def _fields(self) -> tuple[list[Document], Document]:
        values = {name: self._value(name) for name in self.fields}
        return [], {"whenMatched": [{"$set": values}], "whenNotMatched": "discard"}

    def _value(self, name: str) -> Any:
        kept = f"$$new.kept.{name}"
        missing = [{"$type": f"${name}"}, "missing"]
        if self.on_existing == "overwrite":
            missing = [{"$type": kept}, "missing"]
            return {"$cond": [{"$eq": missing}, f"${name}", kept]}
        return {"$cond": [{"$eq": missing}, kept, f"${name}"]}
