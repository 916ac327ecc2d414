"""Plain values that look like expressions: the server would store them as they are, uncomputed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import OperationFailed

if TYPE_CHECKING:
    from mongover.operations.base import Document

_PLAIN: Final = frozenset({"$set", "$setOnInsert", "$min", "$max", "$push", "$addToSet"})
_MODIFIERS: Final = frozenset({"$each", "$position", "$slice", "$sort"})
_REFERENCE: Final = frozenset({"$ref", "$id", "$db"})


def expression_in(value: Any) -> str:
    """The first key in a value that begins with `$`, or an empty string.

    A reference to another document (`$ref`, `$id`, `$db`) is one of the data's own.
    """
    if isinstance(value, (list, tuple)):
        return next(filter(None, map(expression_in, value)), "")
    if not isinstance(value, Mapping):
        return ""
    odd = [key for key in value if isinstance(key, str) and key.startswith("$")]
    if odd and not (_REFERENCE >= set(odd) >= {"$ref", "$id"}):
        return str(odd[0])
    return next(filter(None, map(expression_in, value.values())), "")


def check_value(what: str, path: str, value: Any, *, way: str) -> None:
    """Refuse a value for a field that is not plain.

    Args:
        what: What would be done with it, for the message.
        path: The field.
        value: What would be stored.
        way: How a pipeline is given instead, with `[]` in its place.

    Raises:
        OperationFailed: it holds a key that begins with `$`.
    """
    key = expression_in(value)
    if not key:
        return
    stages = f'[{{"$set": {{"{path}": {{"{key}": ...}}}}}}]'
    raise OperationFailed(
        f"{what}: the value of {path} holds {key}, which would be stored as it is, not computed",
        hint=f'{way.replace("[]", stages)} computes it; {{"$literal": {{"{key}": ...}}}} there'
        " stores it as it is",
        after="nothing was changed.",
    )


def check_operators(what: str, update: Document, *, way: str) -> None:
    """The same for all that the operators of an update would store."""
    for operator in _PLAIN & update.keys():
        change = update[operator]
        for path, value in change.items() if isinstance(change, Mapping) else ():
            check_value(what, path, _pushed(operator, value), way=way)


def _pushed(operator: str, value: Any) -> Any:
    """What `$push` and `$addToSet` add: with `$each` its elements."""
    if operator not in {"$push", "$addToSet"} or not isinstance(value, Mapping):
        return value
    several = "$each" in value and value.keys() <= _MODIFIERS
    return value["$each"] if several else value
