"""The backups that revisions made of what they removed: listed and dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mongover.errors import UsageError
from mongover.operations.backup import backups_of
from mongover.operations.ranges import size_of


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


def list_backups(db: Any, history: str) -> tuple[BackupInfo, ...]:
    """All backups beside a history, by name."""
    prefix = backups_of(history)
    found = db.list_collections(filter={"type": "collection"}, nameOnly=True)
    names = sorted(row["name"] for row in found if row["name"].startswith(prefix))
    return tuple(_info(db, name, name.removeprefix(prefix)) for name in names)


def _info(db: Any, name: str, rest: str) -> BackupInfo:
    revision, _, collection = rest.partition("_")
    size = size_of(db, name)
    return BackupInfo(name, revision, collection, size.documents, size.documents * size.average)


def drop_backup(db: Any, history: str, name: str) -> BackupInfo:
    """Drop one backup, and say what it was.

    Raises:
        UsageError: there is no backup of that name.
    """
    known = {backup.name: backup for backup in list_backups(db, history)}
    if name not in known:
        raise UsageError(f"there is no backup {name!r}", hint="mongover backups")
    db.drop_collection(name)
    return known[name]
