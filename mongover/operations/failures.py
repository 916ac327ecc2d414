"""What the server answered, in the words of mongover: the one place that translates errors.

Errors that the runner itself must see (the network, a new primary, a transaction that may be
tried again, a write that was not confirmed) are left as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mongover.errors import (
    MongoverError,
    NotAllowed,
    NotInTransaction,
    OperationConflict,
    OperationFailed,
)
from mongover.operations.base import TRANSACTION_HINT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mongover.operations.base import Operation, Target

_NOT_IN_TRANSACTION = frozenset({263, 50791})
_CONFLICT = frozenset({48, 85, 86})
_UNAUTHORIZED = 13
_PRIMARY_GONE = frozenset({91, 189, 10058, 10107, 11600, 11602, 13435, 13436})
_SPECIFICATION = frozenset({2, 67, 224})
_PARTIAL = (
    'a partial filter takes equality, {"$exists": True}, $gt, $gte, $lt, $lte, $type and $and,'
    " from MongoDB 6.0 on also $or, $in and $geoWithin; never $ne, $not, $nin, $nor or $regex"
)
_HINTS: Mapping[int, str] = {
    26: "the collection is not there: create it first",
    66: "_id and shard keys cannot be changed: a copy by another key takes _id out of its pipeline;"
    " where the target's collation ignores case, two _ids may be one there",
    121: "the documents must satisfy the collection's validator",
    181: "several indexes have these keys: use the name",
    251: "the transaction ran too long: split the revision, or set `transaction = False`",
    388: "the transaction is too large: split the revision, or set `transaction = False`",
    51183: "a copy by a key needs a unique index on it in the target: create that first",
    11000: "another document has this key already: clean the data, or choose another key",
}


def translate(error: Exception, operation: Operation, target: Target) -> MongoverError | None:
    """The error in our words, or None when it must pass as it is.

    Args:
        error: What pymongo or bson raised.
        operation: The operation that met it.
        target: Where it ran.
    """
    from pymongo.errors import OperationFailure

    if _passes(error):
        return None
    if isinstance(error, OperationFailure):
        return _refused(error, operation, target)
    return OperationFailed(
        f"{operation.describe()}: the driver refused it with {type(error).__name__}",
        notes=(f"driver: {error}",),
        hint="look at the values that the operation was given",
    )


def _passes(error: Exception) -> bool:
    from pymongo.errors import (
        ConnectionFailure,
        OperationFailure,
        PyMongoError,
        ServerSelectionTimeoutError,
        WriteConcernError,
    )

    if isinstance(error, (ConnectionFailure, ServerSelectionTimeoutError, WriteConcernError)):
        return True
    if isinstance(error, PyMongoError) and error.has_error_label("TransientTransactionError"):
        return True
    return isinstance(error, OperationFailure) and _code(error) in _PRIMARY_GONE


def _refused(error: Any, operation: Operation, target: Target) -> MongoverError:
    code, name, text = _code(error), _name(error), _text(error)
    where = ", ".join(target.namespace(item) for item in operation.collections)
    what = f"{operation.describe()}{f' ({where})' if where else ''}"
    notes = (f"server: {code} {name}", *((f"server: {text}",) if text else ()))
    if code in _NOT_IN_TRANSACTION and target.transaction:
        return NotInTransaction(
            f"{what} cannot run in a transaction", notes=notes, hint=TRANSACTION_HINT
        )
    if code == _UNAUTHORIZED:
        return NotAllowed(
            f"{what}: this user may not do that",
            notes=notes,
            hint="grant readWrite and dbAdmin on the database, or the listed privileges",
        )
    if code in _CONFLICT:
        return OperationConflict(
            f"{what}: it exists already", notes=notes, hint="drop it first, or rename one of them"
        )
    return OperationFailed(
        f"{what}: the server refused it with {code} {name}",
        notes=notes,
        hint=_PARTIAL
        if code in _SPECIFICATION and "artial" in text
        else _HINTS.get(code, "change the operation as the server's words say, and run again"),
    )


def _first(error: Any) -> Mapping[str, Any]:
    """The first error of a bulk write, which hides it in its details, or the reply itself."""
    details: Mapping[str, Any] = error.details or {}
    writes = details.get("writeErrors") or ()
    return writes[0] if writes else details


def _code(error: Any) -> int:
    return int(_first(error).get("code") or error.code or 0)


def _name(error: Any) -> str:
    first = _first(error)
    if first.get("codeName"):
        return str(first["codeName"])
    known = {11000: "DuplicateKey", 121: "DocumentValidationFailure", 66: "ImmutableField"}
    return known.get(_code(error), type(error).__name__)


def _text(error: Any) -> str:
    return str(_first(error).get("errmsg", ""))
