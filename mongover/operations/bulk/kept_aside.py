"""Documents of a transform that are kept aside: their ids and errors, beside the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mongover.errors import OperationFailed
from mongover.operations.bulk.batches import send

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from mongover.operations.base import Document, Ticket
    from mongover.operations.bulk.compute import Spec
    from mongover.operations.bulk.statements import Item

_SKIPPED_KEPT: Final = 1_000
_COLLECTED_KEPT: Final = 100_000


class Aside:
    """Keeps a bounded number of them."""

    def __init__(self, db: Database[Any], spec: Spec, ticket: Ticket) -> None:
        self._db = db
        self._spec = spec
        self._ticket = ticket
        self._kept = -1  # not counted yet
        self._new = 0  # of the batch that is not settled

    def keep(self, items: Sequence[Item], session: ClientSession | None) -> None:
        """Keep the documents' ids and errors, in the batch's transaction if there is one.

        Raises:
            OperationFailed: there are more than can be kept, and the policy is to collect all.
        """
        self._new = 0  # what an attempt before this one kept is gone with it
        if not items:
            return
        room = self._room()
        if room < len(items) and self._spec.on_error == "collect":
            raise OperationFailed(
                f"more than {_COLLECTED_KEPT:,} documents of {self._spec.collection} failed in "
                f"{self._spec.name}",
                hint="look at them with `mongover rejects`; mend the function and run again",
            )
        statements = [self._rejection(item) for item in items[:room]]
        if statements:
            send(self._db, {"update": self._ticket.own.rejects, "updates": statements}, session)
        self._new = len(statements)

    def settled(self) -> None:
        """The batch is committed."""
        self._kept += self._new
        self._new = 0

    def _room(self) -> int:
        if self._kept < 0:
            found = {"operation": self._ticket.key}
            self._kept = self._db[self._ticket.own.rejects].count_documents(found)
        limit = _COLLECTED_KEPT if self._spec.on_error == "collect" else _SKIPPED_KEPT
        return max(0, limit - self._kept)

    def _rejection(self, item: Item) -> Document:
        assert item.error is not None  # noqa: S101 - only those are kept
        ticket = self._ticket
        fixed = {
            "revision": ticket.revision,
            "direction": ticket.direction,
            "operation": ticket.key,
            "collection": self._spec.collection,
            "function": self._spec.name,
            "document": item.key,
            "error": item.error.to_document(),
        }
        key = {"operation": ticket.key, "document": item.key}
        change = {"$set": fixed, "$currentDate": {"at": True}}
        return {"q": {"_id": {"$eq": key}}, "u": change, "upsert": True}
