"""One transaction of a long operation: begun, carried out, committed, or given up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.client_session import ClientSession

T = TypeVar("T")

_COMMITS: Final = 8
_PAUSE: Final = 0.01


def transact(session: ClientSession, work: Callable[[], T], *, landed: Callable[[], bool]) -> T:
    """Do the work in one transaction and commit it; where it raises, nothing of it stays.

    It is attempted once: whether another attempt makes sense, the caller knows. `landed` is asked
    where the server never said what became of the commit.
    """
    _start(session)
    try:
        result = work()
    except BaseException:
        if session.in_transaction:
            session.abort_transaction()
        raise
    _commit(session, landed)
    return result


def _start(session: ClientSession) -> None:
    """Begin a transaction that sees one moment, and whose commit lasts."""
    from pymongo import ReadPreference, WriteConcern
    from pymongo.read_concern import ReadConcern

    session.start_transaction(
        read_concern=ReadConcern("snapshot"),
        write_concern=WriteConcern("majority", j=True),
        read_preference=ReadPreference.PRIMARY,
    )


def _commit(session: ClientSession, landed: Callable[[], bool]) -> None:
    from pymongo.errors import PyMongoError

    for attempt in range(_COMMITS):
        try:
            session.commit_transaction()
        except PyMongoError as error:
            if not error.has_error_label("UnknownTransactionCommitResult"):
                raise
            if attempt == _COMMITS - 1:
                if landed():
                    return
                raise
            time.sleep(_PAUSE * 2**attempt)
        else:
            return
