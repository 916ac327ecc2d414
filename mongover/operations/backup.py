"""What an irreversible change removes, kept beside the history so that it can be put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mongover.errors import OperationFailed
from mongover.operations.base import (
    Document,
    Operation,
    Outcome,
    Target,
    check_choice,
    check_name,
    one_line,
    stored_collection,
)
from mongover.operations.serverside import Change, perform

if TYPE_CHECKING:
    from mongover.operations.pace import Pace

ON_EXISTING: Final = ("keep", "overwrite")


def backup_name(history: str, revision: str, collection: str) -> str:
    """The collection that holds a revision's backup of another."""
    return f"{backups_of(history)}{revision}_{collection}"


def backups_of(history: str) -> str:
    """What the names of all backups beside a history begin with, and no other's."""
    return f"{history}_backup_"


def _name_for(operation: Operation, target: Target, collection: str) -> str:
    ticket = target.journal.ticket(operation)
    if ticket is None:
        raise OperationFailed(
            f"{operation.describe()}: there is no place for backups",
            hint="set `transaction = False` in the revision",
        )
    return backup_name(ticket.checkpoints.removesuffix("_checkpoints"), ticket.revision, collection)


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
