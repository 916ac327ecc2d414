"""What a pipeline would yield, counted by its keys before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymongo.collection import Collection

    from mongover.operations.base import Document

_SHOWN: Final = 3
_NO_KEY: Final = ("missing", "undefined", "null", "array")  # what $merge refuses


@dataclass(frozen=True, slots=True)
class Yield:
    """How many documents come out, and how their keys stand to each other.

    Attributes:
        documents: All of them.
        keyless: Those without a value by which one can be looked for.
        shared: How many keys belong to several documents.
        sharing: How many documents those are.
        first: A few of these keys, with the number of their documents.
    """

    documents: int = 0
    keyless: int = 0
    shared: int = 0
    sharing: int = 0
    first: tuple[tuple[tuple[Any, ...], int], ...] = ()


def count_yield(
    collection: Collection[Document],
    stages: Sequence[Document],
    on: Sequence[str],
) -> Yield:
    """Run the stages, and group what comes out by the fields that make its key."""
    reply = next(iter(collection.aggregate([*stages, *_grouped(on)], allowDiskUse=True)))
    if not reply["total"]:
        return Yield()
    total = {name: int(value) for name, value in reply["total"][0].items() if name != "_id"}
    first = tuple((tuple(row["_id"].values()), int(row["times"])) for row in reply["first"])
    return Yield(**total, first=first)


def _grouped(on: Sequence[str]) -> list[Document]:
    names = {f"k{number}": path for number, path in enumerate(on)}
    keys = {name: f"${path}" for name, path in names.items()}
    twice = {"$and": [{"$not": ["$lacks"]}, {"$gt": ["$times", 1]}]}
    total = {
        "_id": None,
        "documents": {"$sum": "$times"},
        "keyless": {"$sum": {"$cond": ["$lacks", "$times", 0]}},
        "shared": {"$sum": {"$cond": [twice, 1, 0]}},
        "sharing": {"$sum": {"$cond": [twice, "$times", 0]}},
    }
    first: list[Document] = [
        {"$match": {"lacks": False, "times": {"$gt": 1}}},
        {"$sort": {"times": -1, "_id": 1}},
        {"$limit": _SHOWN},
    ]
    return [
        {"$project": {"_id": 0, **keys}},
        {"$group": {"_id": "$$ROOT", "times": {"$sum": 1}}},
        {"$set": {"lacks": {"$or": [_lacks(name) for name in names]}}},
        {"$facet": {"total": [{"$group": total}], "first": first}},
    ]


def _lacks(name: str) -> Document:
    return {"$in": [{"$type": f"$_id.{name}"}, list(_NO_KEY)]}
