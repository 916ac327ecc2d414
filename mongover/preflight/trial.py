"""A revision tried on a sample: what its data operations would make of some documents.

Nothing is written. The revision's code runs with an `op` that only notes what it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mongover.operations.bulk.change import difference_or_all, value_at
from mongover.operations.bulk.compute import Computing
from mongover.operations.bulk.reader import Reader, options_of
from mongover.operations.bulk.statements import ByServer, Deletion
from mongover.operations.documents import Update
from mongover.operations.transform import Transform

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from mongover.operations import Operation


@dataclass(frozen=True, slots=True)
class Difference:
    """One document before and after; `changes` maps a path to its two values (None: not there)."""

    document: Any
    changes: Mapping[str, tuple[Any, Any]]
    deleted: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """One operation: described, and for those on data what it does to the sampled documents."""

    operation: str
    looked: int | None  # documents of the sample; None: this operation cannot be tried
    differences: tuple[Difference, ...] = ()


def try_operation(db: Any, operation: Operation, sample: int) -> Tried:
    """What an operation would do to at most so many documents, chosen by the server."""
    if isinstance(operation, Transform):
        found = tuple(_transformed(db, operation, sample))
    elif isinstance(operation, Update) and isinstance(operation.update, list):
        found = tuple(_piped(db, operation, sample))
    else:
        return Tried(operation.describe(), None)
    changed = tuple(one for one in found if one.changes or one.deleted or one.error)
    return Tried(operation.describe(), len(found), changed)


def _sampled(query: Any, sample: int) -> list[dict[str, Any]]:
    return [{"$match": query or {}}, {"$sample": {"size": sample}}]


def _transformed(db: Any, operation: Transform, sample: int) -> Iterator[Difference]:
    spec = replace(operation.spec(), on_error="collect")
    options = options_of(db)
    computing = Computing(spec, operation.function, options)
    reader = Reader(db[operation.collection], None, (), options)
    stages = _sampled(operation.filter, sample)
    if spec.fields:
        stages.append({"$project": dict.fromkeys(spec.fields, 1)})
    for found in reader.found_by(stages):
        item = computing.item(found)
        if item.error is not None:
            yield Difference(item.key, {}, error=item.error.message)
        elif isinstance(item.fate, Deletion):
            yield Difference(item.key, {}, deleted=True)
        elif (change := computing.change(item)) is not None:
            yield Difference(item.key, _changes(found.before, change.set, change.unset))
        elif isinstance(item.fate, ByServer):
            update = _readable(computing, item.fate.update)
            yield Difference(item.key, {"update": (None, update)})
        else:
            yield Difference(item.key, {})


def _readable(computing: Computing, update: Any) -> Any:
    if isinstance(update, list):
        return [computing.decoded(stage) for stage in update]
    return computing.decoded(update)


def _piped(db: Any, operation: Update, sample: int) -> Iterator[Difference]:
    collection = db[operation.collection]
    before = {repr(d["_id"]): d for d in collection.aggregate(_sampled(operation.filter, sample))}
    chosen = {"$match": {"_id": {"$in": [one["_id"] for one in before.values()]}}}
    for after in collection.aggregate([chosen, *operation.update]):
        stored = before.get(repr(after["_id"]))
        if stored is not None:
            yield Difference(after["_id"], _compared(stored, after))


def _compared(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    fields = difference_or_all(before, after)
    return _changes(before, fields.set, fields.unset)


def _changes(
    before: dict[str, Any], given: Mapping[str, Any], gone: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    found = {path: (value_at(before, path), value) for path, value in given.items()}
    return found | {path: (value_at(before, path), None) for path in gone}
