"""The names of mongover's own collections, said once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mongover.config.config import Config


def backups_of(history: str) -> str:
    """What the names of all backups beside a history begin with, and no other's."""
    return f"{history}_backup_"


@dataclass(frozen=True, slots=True)
class OwnCollections:
    """The collections that no operation may name: some by name, the backups by how they begin."""

    names: frozenset[str]
    backups: str

    def __contains__(self, name: object) -> bool:
        return name in self.names or (isinstance(name, str) and name.startswith(self.backups))


def own_collections(config: Config) -> OwnCollections:
    """Those of a history: it, its lock, and all that stands beside it."""
    name = config.collection
    names = {name, config.lock_collection, f"{name}_checkpoints", f"{name}_rejects"}
    return OwnCollections(frozenset(names), backups_of(name))
