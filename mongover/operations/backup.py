"""Backups of documents and fields: kept beside the history, put back, listed and dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mongover.errors import OperationFailed, UsageError
from mongover.operations.arguments import check_choice, check_name, one_line
from mongover.operations.base import Operation
from mongover.operations.bulk.ranges import both, size_of
from mongover.operations.bulk.server_side import BulkChange, perform
from mongover.operations.ddl import ddl, stored_collection
from mongover.operations.stages import NO_MERGE

if TYPE_CHECKING:
    from datetime import datetime
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
_NULL: Final[Document] = {"_id": None}
_NO_NULL: Final[Document] = {"_id": {"$not": {"$type": "null"}}}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a revision keeps what it removes from a collection, and since when.

    `since` is the last time that the revision was reverted: what was kept before belongs to an
    application of it that is over.
    """

    name: str
    since: datetime | None

    @classmethod
    def of(cls, operation: Operation, target: Target, collection: str) -> _Place:
        ticket = target.journal.ticket(operation)
        if ticket is None:
            raise OperationFailed(
                f"{operation.describe()}: there is no place for backups",
                hint="set `transaction = False` in the revision",
            )
        record = target.db[ticket.own.history].find_one(
            {"_id": ticket.revision}, {"log.outcome": 1, "log.at": 1}
        )
        log = (record or {}).get("log", ())
        ends = [entry["at"] for entry in log if entry.get("outcome") == "reverted"]
        return cls(ticket.own.backup(ticket.revision, collection), max(ends, default=None))

    def prepare(self, target: Target, collection: str) -> None:
        """Make the collection, and set one aside that an earlier application filled."""
        kept = target.db[self.name].find_one({}, {"since": 1})
        if kept is not None and self.since is not None and kept.get("since") != self.since:
            aside = f"{self.name}@{self.since.isoformat(timespec='milliseconds')}"
            command = {"renameCollection": target.namespace(self.name)}
            ddl(target, {**command, "to": target.namespace(aside)}, admin=True)
            target.journal.message(
                one_line(
                    f"the backup of {collection} from before the last downgrade is now {aside}"
                )
            )
        if stored_collection(target, self.name) is None:
            source = stored_collection(target, collection) or {}
            collation = source.get("options", {}).get("collation")
            # As the source, or else the server would compare their `_id`s in two ways.
            ddl(target, {"create": self.name, **({"collation": collation} if collation else {})})


@dataclass(frozen=True, slots=True)
class _Merge:
    """Documents of one collection, changed by stages, put into another.

    `matched` is the expression for what a document there becomes (`$$ROOT`) in view of the one
    that comes (`$$new`). Only a pipeline leaves names with a dot or a `$` as they are.
    """

    source: str
    into: str
    stages: list[Document]
    matched: Document
    insert: bool = True

    def command(self, query: Document, hint: Document | None) -> Document:
        """One aggregation, for all but a document whose `_id` is null, which `$merge` refuses."""
        merge = {
            "into": self.into,
            "on": "_id",
            "whenMatched": [{"$replaceWith": self.matched}],
            "whenNotMatched": "insert" if self.insert else "discard",
        }
        stages = [{"$match": both(query, _NO_NULL)}, *self.stages, {"$merge": merge}]
        found: Document = {"aggregate": self.source, "pipeline": stages, "cursor": {}}
        return found | ({"hint": hint} if hint else {})

    def null(self, target: Target, query: Document | None) -> None:
        """The same for the document whose `_id` is null."""
        from bson.codec_options import CodecOptions
        from bson.raw_bson import RawBSONDocument

        raw: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
        source: Any = target.db.get_collection(self.source, codec_options=raw)
        stages = [{"$match": both(_NULL, query)}, *self.stages]
        for new in source.aggregate(stages):
            matched = {"$let": {"vars": {"new": {"$literal": new}}, "in": self.matched}}
            change = [{"$replaceWith": matched}]
            target.db[self.into].update_one(_NULL, change, upsert=self.insert)


@dataclass(frozen=True, slots=True)
class Backup(Operation):
    """The ids and the given top-level fields of documents, or whole documents, are kept.

    What a first attempt kept stays: a second one would find values that are changed already. Other
    fields are added to it. What was kept before the revision was reverted is set aside.
    """

    collection: str
    fields: tuple[str, ...] = ()
    filter: Document | None = None
    pace: Pace | None = None

    verb: ClassVar[str] = "backup"
    repeatable: ClassVar[bool] = True  # a second time changes nothing of the first
    refusal: ClassVar[str] = NO_MERGE

    def describe(self) -> str:
        """`backup users.phone`."""
        if not self.fields:
            return one_line(f"backup {self.collection}")
        names = self.fields[0] if len(self.fields) == 1 else f"{len(self.fields)} fields"
        dot = "." if len(self.fields) == 1 else ": "
        return one_line(f"backup {self.collection}{dot}{names}")

    def apply(self, target: Target) -> Outcome:
        """In ranges of `_id`, on the server."""
        place = _Place.of(self, target, self.collection)
        place.prepare(target, self.collection)
        kept: Any = "$$ROOT"
        if self.fields:
            kept = {field: f"${field}" for field in self.fields}
        named = {"$literal": dict.fromkeys(self.fields, True)}
        row = {"_id": 1, "kept": kept, "fields": named, "since": {"$literal": place.since}}
        matched = {"$cond": [_there("$kept._id"), "$$ROOT", self._added()]}
        merge = _Merge(self.collection, place.name, [{"$project": row}], matched)
        merge.null(target, self.filter)
        change = BulkChange(self.collection, self.filter, merge.command, transactional=False)
        return perform(self, target, change, self.pace)

    def _added(self) -> Document:
        """What was kept of some fields, with those that it lacks; those it has are older."""
        kept: Any = {"$mergeObjects": ["$$new.kept", "$kept"]}
        if self.fields:
            kept = {"$mergeObjects": ["$kept", {name: _older(name) for name in self.fields}]}
        fields = {"$mergeObjects": ["$fields", "$$new.fields"]}
        return {"$mergeObjects": ["$$new", "$$ROOT", {"kept": kept, "fields": fields}]}


def _older(name: str) -> Document:
    covered = {"$or": [_there(f"$fields.{name}"), _there(f"$kept.{name}")]}
    return {"$cond": [covered, f"$kept.{name}", f"$$new.kept.{name}"]}


def _there(value: str) -> Document:
    return {"$ne": [{"$type": value}, "missing"]}


@dataclass(frozen=True, slots=True)
class RestoreBackup(Operation):
    """What `backup` of the same revision kept is put back.

    A field that has a value again is newer than the backup: `keep` leaves it and fills only what
    is missing; `overwrite` puts the kept value there, and of a document that was kept whole leaves
    nothing else. A document that is gone is put back only from a backup of whole documents.
    """

    collection: str
    fields: tuple[str, ...] = ()
    on_existing: str = "keep"
    pace: Pace | None = None

    verb: ClassVar[str] = "restore_backup"
    repeatable: ClassVar[bool] = True  # the same values again
    refusal: ClassVar[str] = NO_MERGE

    @classmethod
    def of(cls, collection: str, fields: tuple[str, ...], on_existing: str, pace: Any) -> Any:
        """From the arguments of `op.restore_backup`, checked."""
        check_choice("on_existing", on_existing, ON_EXISTING)
        return cls(check_name(collection), fields, on_existing, pace)

    @property
    def destructive(self) -> bool:
        """Where newer values are overwritten."""
        return self.on_existing == "overwrite"

    def describe(self) -> str:
        """`restore the backup of users`."""
        return one_line(f"restore the backup of {self.collection}")

    def apply(self, target: Target) -> Outcome:
        """In ranges of `_id`, on the server.

        Raises:
            OperationFailed: the revision has no backup of the collection.
        """
        name = _Place.of(self, target, self.collection).name
        if stored_collection(target, name) is None:
            raise OperationFailed(
                f"there is no backup of {self.collection} ({name})",
                hint="`mongover backups` lists what there is",
                after="nothing was restored.",
            )
        for field in self.fields:
            self._check_kept(target, name, field)
        self._tell(target, name)
        outcomes: set[Outcome] = set()
        for query, merge in self._merges(name):
            merge.null(target, query)
            change = BulkChange(name, query, merge.command, transactional=False)
            outcomes.add(perform(self, target, change, self.pace))
        return "done" if "done" in outcomes else "unchanged"

    def _check_kept(self, target: Target, name: str, field: str) -> None:
        collection = target.db[name]
        found = [
            {part: {"$exists": True}} for part in ("kept._id", f"fields.{field}", f"kept.{field}")
        ]
        if collection.find_one({}) is not None and collection.find_one({"$or": found}) is None:
            raise OperationFailed(
                f"the backup of {self.collection} ({name}) has no field {field}",
                hint=f'add it to what is kept: op.backup("{self.collection}", fields=["{field}"])',
                after="nothing was restored.",
            )

    def _merges(self, name: str) -> list[tuple[Document | None, _Merge]]:
        """What is put back, as queries over the backup and what becomes of each."""
        if self.fields:
            values = {field: self._value(field) for field in self.fields}
            matched = {"$mergeObjects": ["$$ROOT", values]}
            return [(None, _Merge(name, self.collection, [], matched, insert=False))]
        found: list[tuple[Document | None, _Merge]] = []
        for whole in (True, False):
            root = {"$mergeObjects": ["$kept", {"_id": "$_id"}]}
            stages: list[Document] = [{"$replaceWith": root}]
            merge = _Merge(name, self.collection, stages, self._matched(whole=whole), insert=whole)
            found.append(({"kept._id": {"$exists": whole}}, merge))
        return found

    def _matched(self, *, whole: bool) -> Document:
        if self.on_existing == "keep":
            # The order of the document as it was, for what is put back in its old place.
            return {
                "$mergeObjects": ["$$new", "$$ROOT"] if whole else ["$$ROOT", "$$new", "$$ROOT"]
            }
        return {"$mergeObjects": [*([] if whole else ["$$ROOT"]), "$$new", {"_id": "$_id"}]}

    def _value(self, name: str) -> Any:
        kept, there = f"$$new.kept.{name}", f"${name}"
        if self.on_existing == "overwrite":
            return {"$cond": [_there(kept), kept, there]}
        return {"$cond": [_there(there), there, kept]}

    def _tell(self, target: Target, name: str) -> None:
        """Say beforehand what will be put back: of an aggregation the server says nothing."""
        rows = target.db[name].aggregate(self._counting(), allowDiskUse=True)
        counts = next(iter(rows), {"gone": 0, "filled": 0, "newer": 0, "whole": 0})
        newer = "overwritten" if self.on_existing == "overwrite" else "left with newer values"
        again = 0 if self.fields else counts["whole"]
        parts = [f"{counts['filled']:,} filled", f"{counts['newer']:,} {newer}"]
        parts += [f"{again:,} inserted again"] if again or not self.fields else []
        lost = counts["gone"] - again
        parts += [f"{lost:,} gone, of which only fields are kept or asked for"] if lost else []
        what = f"the backup of {self.collection}, in documents: {', '.join(parts)}"
        target.journal.message(one_line(what))

    def _counting(self) -> list[Document]:
        kept: Any = "$kept"
        if self.fields:
            kept = {field: f"$kept.{field}" for field in self.fields}
        both_ways = {
            "filled": {"$lt": [_size("$at"), _size({"$mergeObjects": ["$at", "$kept"]})]},
            "newer": {
                "$ne": [
                    {"$mergeObjects": ["$at", "$kept"]},
                    {"$mergeObjects": ["$at", "$kept", "$at"]},
                ]
            },
        }
        gone = {"$eq": [{"$type": "$at"}, "missing"]}
        flags = {
            "gone": gone,
            "whole": {"$and": [gone, "$whole"]},
            **{key: {"$and": [{"$not": [gone]}, value]} for key, value in both_ways.items()},
        }
        sums = {key: {"$sum": {"$cond": [value, 1, 0]}} for key, value in flags.items()}
        look = {"from": self.collection, "localField": "_id", "foreignField": "_id", "as": "at"}
        return [
            {"$lookup": look},
            {
                "$project": {
                    "at": {"$arrayElemAt": ["$at", 0]},
                    "whole": _there("$kept._id"),
                    "kept": kept,
                }
            },
            {"$group": {"_id": None, **sums}},
        ]


def _size(document: Any) -> Document:
    return {"$size": {"$objectToArray": {"$ifNull": [document, {}]}}}
