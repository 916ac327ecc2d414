"""The driver's errors, read in one place: what they mean, and what may be said of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import (
    AuthenticationFailed,
    ConfigError,
    DatabaseError,
    MongoverError,
    NotAllowed,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.errors import OperationFailure, PyMongoError

_MESSAGE_LIMIT: Final = 1_000
_DOCUMENTS: Final = re.compile(r"\{.*\}", re.DOTALL)
_AUTHENTICATION: Final = frozenset({18, 8000})
_UNAUTHORIZED: Final = 13
_DUPLICATE_KEY: Final = 11000
_VALIDATION: Final = 121
# The server's codes for "not a writable primary" and "shutting down": another node may answer.
_NOT_PRIMARY: Final = frozenset({91, 189, 10058, 10107, 11600, 11602, 13435, 13436})
_READ_ONLY: Final = frozenset({10107, 13435})
_WRITE_CONCERN: Final = frozenset({64, 79, 100})
# FailedToParse, ConflictingUpdateOperators, odd field names (52, 56, 57), and what the server says
# of expressions and stages that it cannot read.
_UNREADABLE: Final = frozenset(
    {9, 40, 52, 56, 57, 168, 15983, 15998, 16020, 16410, 17276, 40323, 40324}
)
_ROLE: Final = (
    "grant the user `readWrite` and `dbAdmin` on the database, or the role in docs/privileges.md"
)


def is_unsure(error: BaseException) -> bool:
    """Whether the server may have carried the command out although it ended in this error."""
    from pymongo.errors import (
        AutoReconnect,
        OperationFailure,
        WTimeoutError,
    )

    if isinstance(error, (AutoReconnect, WTimeoutError)):
        return True
    if isinstance(error, OperationFailure):
        return code_of(error) in _NOT_PRIMARY | _WRITE_CONCERN or _only_write_concern(error)
    return False


def is_unreadable(error: BaseException) -> bool:
    """Whether the server refused a command as it is written, before it looked at any document."""
    return code_of(error) in _UNREADABLE


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it was raised from, the last first."""
    while error is not None:
        yield error
        error = error.__cause__


def _only_write_concern(error: OperationFailure) -> bool:
    details = error.details or {}
    return bool(details.get("writeConcernErrors")) and not details.get("writeErrors")


def code_of(error: BaseException) -> int | None:
    """The server's code: of a bulk write, that of its first write error."""
    details = getattr(error, "details", None)
    if isinstance(details, dict):
        for kind in ("writeErrors", "writeConcernErrors"):
            if details.get(kind):
                return _number(details[kind][0].get("code"))
        if "code" in details:  # some errors of the driver keep it nowhere else
            return _number(details["code"])
    return _number(getattr(error, "code", None))


def _number(code: object) -> int | None:
    # Errors of others have a `code` too, and it may be anything.
    return code if isinstance(code, int) else None


def name_of(error: BaseException) -> str:
    """The server's name of the code, or an empty string."""
    details = getattr(error, "details", None)
    return str(details.get("codeName", "")) if isinstance(details, dict) else ""


def is_transient(error: BaseException) -> bool:
    """Whether the server says that the whole transaction may be tried again."""
    has_label = getattr(error, "has_error_label", None)
    return has_label is not None and bool(has_label("TransientTransactionError"))


def server_message(error: PyMongoError) -> str:
    """What the server said, on one line, without values of documents."""
    code = code_of(error)
    details = getattr(error, "details", None) or {}
    if code == _DUPLICATE_KEY:
        first = (details.get("writeErrors") or [details])[0]
        fields = ", ".join(first.get("keyPattern", {}))
        return f"duplicate key on {fields}" if fields else "duplicate key"
    if code == _VALIDATION:
        return "a document fails the collection's validator"
    if not details and _is_unanswered(error):
        return _reason(error)
    text = str(details.get("errmsg") or error).split(", full error:", maxsplit=1)[0]
    if _is_of_documents(error):
        text = _DOCUMENTS.sub("{…}", text)
    return " ".join(text.split())[:_MESSAGE_LIMIT]


def _is_unanswered(error: PyMongoError) -> bool:
    from pymongo.errors import AutoReconnect

    return isinstance(error, AutoReconnect)


def _is_of_documents(error: PyMongoError) -> bool:
    from pymongo.errors import BulkWriteError, WriteError

    return isinstance(error, (BulkWriteError, WriteError))


def message_of(error: BaseException) -> str:
    """What any error says, on at most 1,000 signs that can be stored, without values of documents.

    An error of other code says what its author wrote, which no one can look through.
    """
    from pymongo.errors import PyMongoError

    if isinstance(error, MongoverError):
        text = error.message
    elif isinstance(error, PyMongoError):
        text = server_message(error)
    else:
        text = _text_of(error)
    return text.encode("utf-8", "backslashreplace").decode()[:_MESSAGE_LIMIT]


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - the error's own code is broken; it says so
        return f"(its text cannot be had: {type(broken).__name__})"


def describe(error: BaseException, redact: Callable[[str], str]) -> dict[str, Any]:
    """The error as a record keeps it: type, code, code name and message, without secrets."""
    from pymongo.errors import PyMongoError

    if isinstance(error, MongoverError):
        cause = error.__cause__
        code: Any = code_of(cause) if isinstance(cause, PyMongoError) else None
        return {
            "type": error.kind,
            "code": code if code is not None else error.code,
            "code_name": name_of(cause) if cause is not None else "",
            "message": redact(message_of(error)) or type(error).__name__,
        }
    known = isinstance(error, PyMongoError)
    return {
        "type": type(error).__name__,
        "code": code_of(error) if known else None,
        "code_name": name_of(error) if known else "",
        "message": redact(message_of(error)) or type(error).__name__,
    }


def translate(error: PyMongoError, *, address: str, timeout: float) -> MongoverError:
    """The error of ours that says what the driver's means; `address` is free of secrets.

    What was noted on the driver's error on its way becomes its notes.
    """
    ours = _translated(error, address, timeout)
    ours.notes += tuple(getattr(error, "__notes__", ()))
    return ours


def _translated(error: PyMongoError, address: str, timeout: float) -> MongoverError:
    from pymongo.errors import (
        AutoReconnect,
        ConfigurationError,
        InvalidName,
        InvalidURI,
    )

    if isinstance(error, (ConfigurationError, InvalidURI, InvalidName)):
        return ConfigError(
            f"the driver refuses the configuration: {server_message(error)}",
            hint="correct `url` or `database`",
        )
    by_code = _translate_code(error, address)
    if by_code is not None:
        return by_code
    if isinstance(error, AutoReconnect):
        return Unreachable(
            f"no MongoDB answers at {address} within {timeout:g} s: {_reason(error)}",
            hint="start it, correct `url`, or wait for it with `--wait SECONDS`",
        )
    code = code_of(error)
    prefix = "" if code is None else f"{code} {name_of(error)}".rstrip() + ": "
    return DatabaseError(
        f"{address} answered with an error: {prefix}{server_message(error)}",
        hint="`mongover doctor` looks at the server, `--debug` shows the trace",
    )


def _translate_code(error: PyMongoError, address: str) -> MongoverError | None:
    code = code_of(error)
    if code in _AUTHENTICATION:
        return AuthenticationFailed(
            f"{address} does not accept the user or password of `url`",
            hint="correct them (`authSource=admin` if the user stands in admin)",
        )
    if code == _UNAUTHORIZED:
        return NotAllowed(f"the user may not: {server_message(error)}", hint=_ROLE)
    if code in _READ_ONLY:
        return DatabaseError(
            f"{address} is not a writable primary",
            hint="name the replica set in `url` (…/?replicaSet=NAME) instead of one member",
        )
    return None


def _reason(error: PyMongoError) -> str:
    """The shortest true reason in a driver's long text."""
    text = str(error).split(", Timeout:")[0].split(" (configured timeouts")[0]
    lowered = text.lower()
    for sign, reason in (
        ("connection refused", "connection refused"),
        ("name or service not known", "the host name is unknown"),
        ("nodename nor servname", "the host name is unknown"),
        ("no such file", "the socket does not exist"),
        ("ssl handshake failed", "the TLS handshake failed"),
        ("timed out", "no answer"),
        ("no servers found yet", "no answer"),
    ):
        if sign in lowered:
            return reason
    return " ".join(text.split())[:200]
