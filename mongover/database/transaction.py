"""One transaction, tried again a bounded number of times, that can say which command failed first.

The driver's own `with_transaction` repeats for two minutes and hides why; this loop ends at once
when the code swallowed an error, when the transaction lived too long, or after its last try.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pymongo import ReadPreference
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from mongover.database.faults import code_of, is_transient, message_of
from mongover.errors import SwallowedError, TransactionFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.client_session import ClientSession

    from mongover.database.command_watch import CommandWatch, Failure

T = TypeVar("T")

ATTEMPTS: Final = 5
_COMMIT_ATTEMPTS: Final = 5
_NO_SUCH_TRANSACTION: Final = 251
_TOO_LARGE: Final = 388
_DEFAULT_LIFETIME: Final = 60.0
_NEARLY: Final = 0.9
_FIRST_PAUSE: Final = 0.05


def run_transaction(
    session: ClientSession,
    work: Callable[[], T],
    *,
    watch: CommandWatch,
    before: Callable[[], None],
    attempts: int = ATTEMPTS,
) -> T:
    """Run `work` in a transaction that every operation of the client joins, and commit it.

    `before` is called ahead of each attempt and may raise to end the loop. `work` may run several
    times; nothing of an attempt that is given up stays.

    Raises:
        SwallowedError: the code hid a server error that had already ended the transaction.
        TransactionFailed: it could not be committed; says which command failed first. When its
            `__cause__` leaves the commit's outcome unknown, the caller looks at the record.
    """
    for attempt in range(1, attempts + 1):
        before()
        started = time.monotonic()
        try:
            return _attempt(session, work, watch)
        except Exception as error:
            if code_of(error) == _TOO_LARGE:
                raise _too_large() from error
            if not _is_transient(error, watch.first):
                raise
            _give_up_if_hopeless(session, watch.first, error, time.monotonic() - started)
            if attempt == attempts:
                _end_session(session)
                raise _used_up(attempts, watch.first, error) from error
        time.sleep(_FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.0))  # noqa: S311 - a pause
    raise AssertionError("a transaction needs at least one attempt")


def _is_transient(error: Exception, first: Failure | None) -> bool:
    """Whether another attempt may succeed; the code may have put an error of its own on top."""
    if isinstance(error, PyMongoError):
        return is_transient(error)
    return first is not None and first.transient


def _attempt(session: ClientSession, work: Callable[[], T], watch: CommandWatch) -> T:
    session.start_transaction(
        read_concern=ReadConcern("local"),  # the others forbid DDL
        write_concern=WriteConcern("majority", j=True),
        read_preference=ReadPreference.PRIMARY,
    )
    watch.start()
    try:
        with session.bind(end_session=False):
            result = work()
        watch.stop()
    except BaseException:
        watch.stop()
        if session.in_transaction:
            session.abort_transaction()
        raise
    _commit(session)
    return result


def _commit(session: ClientSession) -> None:
    for attempt in range(1, _COMMIT_ATTEMPTS + 1):
        try:
            session.commit_transaction()
        except PyMongoError as error:
            if not error.has_error_label("UnknownTransactionCommitResult"):
                _end_session(session)  # a refused commit may leave the transaction open
                raise
            if attempt == _COMMIT_ATTEMPTS:
                _end_session(session)
                raise _unconfirmed(error) from error
            time.sleep(_FIRST_PAUSE * attempt)
        else:
            return


def _end_session(session: ClientSession) -> None:
    """Let the server drop a transaction that it may still hold, whatever it answered.

    Left open, it would make the next write to the record wait for its end.
    """
    # The server that does not answer now will drop it by itself.
    with suppress(PyMongoError):
        session.client.admin.command({"killSessions": [session.session_id]})


def _give_up_if_hopeless(
    session: ClientSession, first: Failure | None, error: Exception, seconds: float
) -> None:
    if code_of(error) != _NO_SUCH_TRANSACTION:
        return
    if first is not None and not first.transient and first.code != _NO_SUCH_TRANSACTION:
        raise SwallowedError(
            f"the code caught and hid an error of the server ({first}), which had already ended "
            "the transaction",
            hint="let the error through, or avoid it by asking first (find before insert)",
            after="nothing was changed.",
        ) from error
    if seconds >= _NEARLY * _lifetime(session):
        raise TransactionFailed(
            f"the transaction ran for {seconds:.0f} s, longer than the server lets one live",
            hint="split the revision, or declare `transaction = False`",
            after="nothing was changed.",
        ) from error


def _lifetime(session: ClientSession) -> float:
    """The server's limit in seconds; its default where we may not ask."""
    name = "transactionLifetimeLimitSeconds"
    try:
        reply: dict[str, Any] = session.client.admin.command({"getParameter": 1, name: 1})
    except PyMongoError:  # not allowed, or the server is gone: the default is as good as any
        return _DEFAULT_LIFETIME
    return float(reply[name])


def _used_up(attempts: int, first: Failure | None, error: Exception) -> TransactionFailed:
    said = message_of(error)
    because = f"; the first failing command was {first}" if first is not None else f": {said}"
    return TransactionFailed(
        f"the transaction was given up after {attempts} tries{because}",
        hint="the application writes the same documents: run it at a quieter time, or declare "
        "`transaction = False`",
        after="nothing was changed.",
    )


def _unconfirmed(error: PyMongoError) -> TransactionFailed:
    return TransactionFailed(
        f"the server did not confirm the transaction's commit: {message_of(error)}",
        hint="`mongover status` shows whether it landed; the next run goes on from there",
    )


def _too_large() -> TransactionFailed:
    return TransactionFailed(
        "the transaction is too large for the server's cache",
        hint="split the revision, or declare `transaction = False`",
        after="nothing was changed.",
    )
