"""The driver's errors, read in one place: what they mean, and what may be said of them."""

from __future__ import annotations

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
    from collections.abc import Callable

    from pymongo.errors import OperationFailure, PyMongoError

_MESSAGE_LIMIT: Final = 1_000
_AUTHENTICATION: Final = frozenset({18, 8000})
_UNAUTHORIZED: Final = 13
_DUPLICATE_KEY: Final = 11000
_VALIDATION: Final = 121
# The server's codes for "not a writable primary" and "shutting down": another node may answer.
_NOT_PRIMARY: Final = frozenset({91, 189, 10058, 10107, 11600, 11602, 13435, 13436})
_READ_ONLY: Final = frozenset({10107, 13435})
_WRITE_CONCERN: Final = frozenset({64, 79, 100})
_ROLE: Final = (
    "grant the user `readWrite` and `dbAdmin` on the database, or the role in docs/privileges.md"
)


def is_unsure(error: BaseException) -> bool:
    """Whether the server may have carried the command out although it ended in this error."""
    from pymongo.errors import (  # noqa: PLC0415 - whoever holds such an error has the driver
        AutoReconnect,
        OperationFailure,
        WTimeoutError,
    )

    if isinstance(error, (AutoReconnect, WTimeoutError)):
        return True
    if isinstance(error, OperationFailure):
        return code_of(error) in _NOT_PRIMARY | _WRITE_CONCERN or _only_write_concern(error)
    return False


def _only_write_concern(error: OperationFailure) -> bool:
    details = error.details or {}
    return bool(details.get("writeConcernErrors")) and not details.get("writeErrors")


def code_of(error: BaseException) -> int | None:
    """The server's code: of a bulk write, that of its first write error."""
    details = getattr(error, "details", None)
    if isinstance(details, dict):
        for kind in ("writeErrors", "writeConcernErrors"):
            if details.get(kind):
                return details[kind][0].get("code")  # type: ignore[no-any-return]  # a reply is untyped
    return getattr(error, "code", None)


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
    text = str(details.get("errmsg") or error)
    return " ".join(text.split(", full error:", maxsplit=1)[0].split())[:_MESSAGE_LIMIT]


def describe(error: BaseException, redact: Callable[[str], str]) -> dict[str, Any]:
    """The error as a record keeps it: type, code, code name and message, without secrets."""
    from pymongo.errors import PyMongoError  # noqa: PLC0415 - as above

    if isinstance(error, MongoverError):
        cause = error.__cause__
        code: Any = code_of(cause) if isinstance(cause, PyMongoError) else None
        return {
            "type": error.kind,
            "code": code if code is not None else error.code,
            "code_name": name_of(cause) if cause is not None else "",
            "message": redact(error.message)[:_MESSAGE_LIMIT],
        }
    text = server_message(error) if isinstance(error, PyMongoError) else str(error)
    return {
        "type": type(error).__name__,
        "code": code_of(error),
        "code_name": name_of(error),
        "message": redact(text)[:_MESSAGE_LIMIT],
    }


def translate(error: PyMongoError, *, address: str, timeout: float) -> MongoverError:
    """The error of ours that says what the driver's means; `address` is free of secrets."""
    from pymongo.errors import (  # noqa: PLC0415 - as above
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
    ):
        if sign in lowered:
            return reason
    return " ".join(text.split())[:200]
