"""How the documents of a collection stand to a path, asked before anything is changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import OperationFailed
from mongover.operations.bulk.ranges import both
from mongover.operations.duplicates import shown
from mongover.operations.paths import NESTED, Path

if TYPE_CHECKING:
    from collections.abc import Callable

    from mongover.operations.base import Document, Target

_SAMPLES: Final = 3
_BY_HAND: Final = "change them with op.transform, whose function is given each document"


def met(target: Target, collection: str, query: Document) -> bool:
    """Whether there is such a document."""
    return target.db[collection].find_one(query, {"_id": 1}) is not None


def refuse(
    target: Target,
    collection: str,
    query: Document,
    *,
    message: Callable[[int], str],
    hint: str,
    after: str,
    collation: Document | None = None,
) -> None:
    """Nothing where no document is found.

    Raises:
        OperationFailed: the message, which is told how many there are, with a few ids.
    """
    found = target.db[collection]
    options: dict[str, Any] = {"collation": collation} if collation else {}
    ids = [row["_id"] for row in found.find(query, {"_id": 1}, **options).limit(_SAMPLES)]
    if not ids:
        return
    raise OperationFailed(
        message(found.count_documents(query, **options)),
        notes=(f"for example _id {', '.join(shown(value) for value in ids)}",),
        hint=hint,
        after=after,
    )


def documents(count: int, one: str, many: str) -> str:
    """`1 document holds`, `2 documents hold`."""
    return f"1 document {one}" if count == 1 else f"{count:,} documents {many}"


def walked(
    target: Target, collection: str, field: str, *, among: Document | None, after: str
) -> Path | None:
    """The path as it must be walked, or None where no document has an array on it.

    Args:
        target: Where.
        collection: The collection.
        field: The path.
        among: The documents that the operation is about.
        after: What a refusal says of what was done: nothing.

    Raises:
        OperationFailed: some documents cannot be walked, or a number in the path is no field.
    """
    path = Path(field)
    if not path.prefixes or not met(target, collection, both(among, path.through_array())):
        return None
    if path.positions:
        _check_positions(target, collection, path, among=among, after=after)
    if met(target, collection, both(among, path.through_nested())):
        path = replace(path, depth=NESTED)
        _check_depth(target, collection, path, among=among, after=after)
    if not path.walkable:
        raise OperationFailed(
            f"{field} has too many parts to be walked through arrays on the server",
            hint=_BY_HAND,
            after=after,
        )
    return path


def _check_positions(
    target: Target, collection: str, path: Path, *, among: Document | None, after: str
) -> None:
    where, deepest = target.namespace(collection), replace(path, depth=NESTED)
    refuse(
        target,
        collection,
        both(among, deepest.at_position()),
        message=lambda count: (
            f"{documents(count, 'has', 'have')} an array at {path.parent} in {where}: "
            f"{path.text} is a position in it, and no field"
        ),
        hint="elements are changed by op.update with a pipeline, or by op.transform",
        after=after,
    )
    refuse(
        target,
        collection,
        both(among, deepest.ambiguous()),
        message=lambda count: (
            f"{path.text} means two things in {documents(count, 'that has', 'that have')} arrays "
            f"on this path in {where}: a number of it is a position, and the name of a field of "
            "the documents there"
        ),
        hint=_BY_HAND,
        after=after,
    )


def _check_depth(
    target: Target, collection: str, path: Path, *, among: Document | None, after: str
) -> None:
    where = target.namespace(collection)
    refuse(
        target,
        collection,
        both(among, path.through_deeper()),
        message=lambda count: (
            f"{documents(count, 'has', 'have')} more than {NESTED + 1} arrays directly in one "
            f"another on the path {path.text} in {where}"
        ),
        hint=_BY_HAND,
        after=after,
    )
