"""The names of mongover's own collections, said once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OwnCollections:
    """The collections that no operation may name: the history, and all that stands beside it.

    `in` tells them from others: some by name, the backups by how they begin.
    """

    history: str

    @property
    def lock(self) -> str:
        """The lease of who runs."""
        return f"{self.history}_lock"

    @property
    def checkpoints(self) -> str:
        """How far long operations are."""
        return f"{self.history}_checkpoints"

    @property
    def rejects(self) -> str:
        """The documents that transforms kept aside."""
        return f"{self.history}_rejects"

    @property
    def backup_prefix(self) -> str:
        """What the names of all backups begin with, and no other's."""
        return f"{self.history}_backup_"

    def backup(self, revision: str, collection: str) -> str:
        """The collection that holds a revision's backup of another."""
        return f"{self.backup_prefix}{revision}_{collection}"

    def backup_of(self, name: str) -> tuple[str, str]:
        """The revision and the collection of a backup, by its name."""
        revision, _, collection = name.removeprefix(self.backup_prefix).partition("_")
        return revision, collection

    def __contains__(self, name: object) -> bool:
        named = self.history, self.lock, self.checkpoints, self.rejects
        return name in named or (isinstance(name, str) and name.startswith(self.backup_prefix))
