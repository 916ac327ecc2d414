"""Which values a unique index would meet more than once, found by one aggregation.

The aggregation follows the index's own rules: a missing field counts as null, an array gives one
key per element, an empty array a key of its own, one document never collides with itself, and
`partialFilterExpression`, `sparse` and `collation` decide as they do for the index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mongover.operations.arguments import plain, source
from mongover.operations.paths import is_position

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pymongo.collection import Collection

    from mongover.operations.base import Document

SHOWN = 5
_WIDTH = 40


@dataclass(frozen=True, slots=True)
class Duplicate:
    """One key that several documents share; `ids` are the smallest and the largest of them."""

    key: tuple[Any, ...]
    times: int
    ids: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """How many keys occur more than once, and the first few of them, the most frequent first."""

    total: int
    first: tuple[Duplicate, ...]


def find_duplicates(
    collection: Collection[Document],
    paths: Sequence[str],
    *,
    options: Mapping[str, Any],
    first: Sequence[Document] = (),
) -> Duplicates:
    """Ask the server; memory here is bounded by `SHOWN`, there it may use the disk.

    Args:
        collection: Where the index would be.
        paths: The fields of the index, in its order.
        options: The index's options, by MongoDB's names.
        first: Stages that make the documents what they will be.
    """
    arrays = _has_arrays(collection, paths)
    pipeline = [*first]
    pipeline += duplicates_pipeline(paths, options=options, arrays=arrays)
    extra: dict[str, Any] = {}
    if options.get("collation"):
        extra["collation"] = options["collation"]
    reply = next(iter(collection.aggregate(pipeline, allowDiskUse=True, **extra)))
    total = reply["total"][0]["keys"] if reply["total"] else 0
    shared = tuple(
        Duplicate(tuple(row["_id"]), row["times"], tuple(dict.fromkeys(map(_Id, row["ids"]))))
        for row in reply["first"]
    )
    return Duplicates(total, tuple(Duplicate(d.key, d.times, _ids(d.ids)) for d in shared))


class _Id:
    """An `_id` that can be compared although it may be a dict."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Id) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash(repr(self.value))


def _ids(wrapped: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(item.value for item in wrapped)


def _has_arrays(collection: Collection[Document], paths: Sequence[str]) -> bool:
    prefixes = [{prefix: {"$type": "array"}} for prefix in _prefixes(paths)]
    return collection.find_one({"$or": prefixes}, {"_id": 1}) is not None


def _prefixes(paths: Sequence[str]) -> list[str]:
    """`a.b`, `a.c` → `a`, `a.b`, `a.c`: each once, a parent before its children."""
    found: dict[str, None] = {}
    for path in paths:
        parts = path.split(".")
        for length in range(1, len(parts) + 1):
            found[".".join(parts[:length])] = None
    return sorted(found, key=lambda prefix: prefix.count("."))


def duplicates_pipeline(
    paths: Sequence[str], *, options: Mapping[str, Any], arrays: bool
) -> list[Document]:
    """The aggregation: one result with `total` and `first`.

    Args:
        paths: The fields of the index, in its order.
        options: The index's options, by MongoDB's names.
        arrays: Whether arrays stand on any of the paths; without them it is cheaper.
    """
    stages: list[Document] = []
    if options.get("partialFilterExpression"):
        stages.append({"$match": options["partialFilterExpression"]})
    if options.get("sparse"):
        stages.append({"$match": {"$or": [{path: {"$exists": True}} for path in paths]}})
    roots = dict.fromkeys(path.split(".")[0] for path in paths)
    stages.append({"$project": {f"doc.{root}": f"${root}" for root in roots}})
    stages += _unwound(paths) if arrays else []
    key = [_key(path, number, arrays=arrays) for number, path in enumerate(paths)]
    stages += _grouped(key, arrays=arrays)
    return [*stages, {"$match": {"times": {"$gt": 1}}}, _summary()]


def _unwound(paths: Sequence[str]) -> list[Document]:
    # Unwinding by shared prefix keeps together what one array element holds: the keys of
    # `a.b, a.c` come from the same element of `a`, as the index has them.
    stages: list[Document] = []
    for prefix in _prefixes(paths):
        positions = _positions(prefix, paths)
        if positions:
            stages.append(_positioned(prefix, positions, paths))
            continue
        if prefix in paths:
            # $unwind drops an empty array, which the index tells apart from a missing field.
            flag = f"empty{list(paths).index(prefix)}"
            stages.append({"$set": {flag: {"$eq": [f"$doc.{prefix}", []]}}})
        stages.append({"$unwind": {"path": f"$doc.{prefix}", "preserveNullAndEmptyArrays": True}})
        if prefix not in paths:
            # The index goes through one array; in an array within it there is no field.
            single = {"$cond": [{"$isArray": [f"$doc.{prefix}"]}, None, f"$doc.{prefix}"]}
            stages.append({"$set": {f"doc.{prefix}": single}})
    return stages


def _positions(prefix: str, paths: Sequence[str]) -> list[str]:
    """The parts that follow a prefix, where all of them may be positions in an array."""
    start = f"{prefix}."
    following = {path.removeprefix(start).split(".")[0] for path in paths if path.startswith(start)}
    return sorted(following) if prefix not in paths and all(map(is_position, following)) else []


def _positioned(prefix: str, positions: Sequence[str], paths: Sequence[str]) -> Document:
    """An array becomes a document of the elements that the index takes from it."""
    array, elements = f"$doc.{prefix}", {}
    for part in positions:
        element: Document = {"$arrayElemAt": [array, int(part)]}
        if f"{prefix}.{part}" in paths:
            # An array at a position is one key, where one in a field is a key per element.
            element = {"$cond": [{"$isArray": [element]}, [element], element]}
        elements[part] = element
    return {"$set": {f"doc.{prefix}": {"$cond": [{"$isArray": [array]}, elements, array]}}}


def _key(path: str, number: int, *, arrays: bool) -> Document:
    value: Document = {"$ifNull": [f"$doc.{path}", None]}
    if not arrays:
        return value
    # In the index an empty array stands apart from null, and from every value of the data.
    return {"$cond": [f"$empty{number}", {"$literal": {"$emptyArray": True}}, value]}


def _grouped(key: list[Document], *, arrays: bool) -> list[Document]:
    # The smallest and the largest _id are samples that cost no memory, however big the group.
    ids: Document = {"times": {"$sum": 1}, "low": {"$min": "$_id"}, "high": {"$max": "$_id"}}
    if not arrays:
        return [{"$group": {"_id": key, **ids}}]
    each = {"$group": {"_id": {"key": key, "id": "$_id"}}}
    ids = {"times": {"$sum": 1}, "low": {"$min": "$_id.id"}, "high": {"$max": "$_id.id"}}
    return [each, {"$group": {"_id": "$_id.key", **ids}}]


def _summary() -> Document:
    return {
        "$facet": {
            "total": [{"$count": "keys"}],
            "first": [
                {"$sort": {"times": -1, "_id": 1}},
                {"$limit": SHOWN},
                {"$project": {"times": 1, "ids": ["$low", "$high"]}},
            ],
        }
    }


def table(paths: Sequence[str], duplicates: Duplicates) -> tuple[str, ...]:
    """An aligned table of the keys, how often they occur, and ids; values are shortened."""
    rows = [(_shown_key(d.key), str(d.times), _shown_ids(d)) for d in duplicates.first]
    head = (", ".join(paths), "times", "_id")
    first = max(len(row[0]) for row in [head, *rows])
    second = max(len(row[1]) for row in [head, *rows])
    lines = [f"{a:<{first}}  {b:>{second}}  {c}" for a, b, c in [head, *rows]]
    more = duplicates.total - len(duplicates.first)
    return (*lines, f"… {more} more") if more > 0 else tuple(lines)


def _shown_key(key: tuple[Any, ...]) -> str:
    return ", ".join("[]" if part == {"$emptyArray": True} else shown(part) for part in key)


def _shown_ids(duplicate: Duplicate) -> str:
    ids = ", ".join(shown(value) for value in duplicate.ids)
    return f"{ids}, …" if duplicate.times > len(duplicate.ids) else ids


def shown(value: Any) -> str:
    """A value of a document on one line, shortened: for notes, never for messages."""
    if value is None:
        return "null"
    text = source(plain(value)) if isinstance(value, (str, dict, list)) else str(value)
    text = text.replace("\n", " ")
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
