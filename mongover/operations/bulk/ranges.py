"""Ranges of `_id`: cutting a collection into spans, and walking through one in steps.

Values of every BSON type may stand beside each other in `_id`. The server sorts them in one order,
but a plain query compares only within one type; `$expr` compares across types, by the same index.
A bound is a list, empty where there is none, so that null can be one too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bson.codec_options import CodecOptions
    from pymongo.client_session import ClientSession
    from pymongo.collection import Collection
    from pymongo.database import Database

    from mongover.operations.base import Document

Bound = list[Any]

BY_ID: Final = {"_id": 1}
_SAMPLES_PER_PART: Final = 100
_SAMPLE_SHARE: Final = 25  # the server's random cursor serves at most a twentieth of a collection
_BATCH_BYTES: Final = 16 * 1024 * 1024
_NO_COLLECTION: Final = frozenset({26, 27})


@dataclass(frozen=True, slots=True)
class Size:
    """How large a collection is, by the server's own counters."""

    documents: int
    average: int  # bytes

    def range_of(self, most: int) -> int:
        """How many documents one batch may hold at first, so that it stays small in bytes too."""
        if not self.average:
            return most
        return max(1, min(most, _BATCH_BYTES // self.average))


def exact(options: CodecOptions[Any]) -> CodecOptions[Document]:
    """Codec options with which every `_id` comes back as it was sent."""
    from bson.codec_options import (
        CodecOptions,
        DatetimeConversion,
    )

    del options
    return CodecOptions(document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_AUTO)


def size_of(db: Database[Document], name: str) -> Size:
    """The server's counters of a collection; zero for one that is not there."""
    from pymongo.errors import OperationFailure

    try:
        found = list(db[name].aggregate([{"$collStats": {"storageStats": {}}}]))
    except OperationFailure as error:
        if error.code in _NO_COLLECTION:
            return Size(0, 0)
        raise
    stats = [row["storageStats"] for row in found]  # one per shard
    documents = sum(int(one.get("count", 0)) for one in stats)
    total = sum(int(one.get("size", 0)) for one in stats)
    return Size(documents, total // documents if documents else 0)


def _kind(value: Any) -> type | None:
    """The family of types within which a plain query compares; None where `$expr` must."""
    from bson import Binary, Int64, ObjectId

    kind = type(value)
    if kind is int or kind is Int64:
        return int
    if kind is float:
        return int if value == value else None  # noqa: PLR0124 - not a number is below all others
    if kind is bytes or kind is Binary:
        return bytes
    return kind if kind in {str, ObjectId, datetime} else None


def between(low: Bound, high: Bound) -> Document:
    """The query for `low < _id <= high`; an empty bound is no bound."""
    if low and high and _kind(low[0]) is not None and _kind(low[0]) is _kind(high[0]):
        return {"_id": {"$gt": low[0], "$lte": high[0]}}
    conditions: list[Document] = []
    if low:
        conditions.append({"$gt": ["$_id", {"$literal": low[0]}]})
    if high:
        conditions.append({"$lte": ["$_id", {"$literal": high[0]}]})
    return {"$expr": {"$and": conditions}} if conditions else {}


def both(first: Document | None, second: Document | None) -> Document:
    """The query for documents that both find."""
    if first and second:
        return {"$and": [first, second]}
    return first or second or {}


def last_id(collection: Collection[Document]) -> Bound:
    """The highest `_id` there is now; no bound for an empty collection."""
    found = collection.find({}, BY_ID).sort("_id", -1).limit(1)
    return [row["_id"] for row in found]


def cut(collection: Collection[Document], parts: int, documents: int) -> list[Bound]:
    """The upper bounds of at most so many spans of roughly equal size, in the server's order.

    They come from a sample, so the spans of a small collection may be uneven. The last bound is
    the highest `_id` at this moment: what is inserted above it later belongs to no span.
    """
    top = last_id(collection)
    size = min(_SAMPLES_PER_PART * parts, documents // _SAMPLE_SHARE)
    if not top or parts < 2 or size < parts:  # noqa: PLR2004 - one part needs no cut
        return [top] if top else []
    stages: list[Document] = [
        {"$sample": {"size": size}},
        {"$project": {"_id": 1}},
        {"$group": {"_id": "$_id"}},
        {"$sort": {"_id": 1}},
    ]
    ids = [row["_id"] for row in collection.aggregate(stages, allowDiskUse=True)]
    return [*_quantiles(ids, parts), top]


def _quantiles(ids: Sequence[Any], parts: int) -> list[Bound]:
    places = sorted({len(ids) * part // parts for part in range(1, parts)})
    # The highest one of the sample may be the highest of all, which bounds the last span.
    return [[ids[place]] for place in places if 0 < place < len(ids) - 1]


def step_end(
    collection: Collection[Document],
    low: Bound,
    high: Bound,
    size: int,
    *,
    session: ClientSession | None = None,
) -> Bound:
    """The `_id` of the `size`th document above `low`, or no bound when fewer are left."""
    found = collection.find(between(low, high), BY_ID, hint=BY_ID, session=session)
    return [row["_id"] for row in found.sort("_id", 1).skip(size - 1).limit(1)]
