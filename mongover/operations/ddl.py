"""Short DDL commands: sent with a limit on waiting, and repeated while a lock is in the way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mongover.errors import OperationFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.errors import OperationFailure

    from mongover.operations.base import Document, T, Target


LOCK_CODES = frozenset({24, 50})
"""LockTimeout and MaxTimeMSExpired: the collection was busy, the command may be sent again."""


def ddl(target: Target, command: Document, *, admin: bool = False) -> Document:
    """Send one short DDL command, never waiting long for its lock, and return the reply.

    A command that waits for a collection's lock makes every later write of the application wait
    behind it, so each attempt carries `maxTimeMS`, and attempts are bounded. In a transaction it
    is sent once: the server has its own 5 ms limit there, and an error ends the transaction.

    Raises:
        OperationFailed: When the lock could not be had in all attempts.
        OperationFailure: Whatever else the server answers.
    """
    if target.transaction:
        return _send(target, command, admin=admin)
    limited = {**command, "maxTimeMS": target.max_time_ms}
    return patiently(target, lambda: _send(target, limited, admin=admin), what=_subject(command))


def patiently(target: Target, send: Callable[[], T], *, what: str) -> T:
    """Call `send` until it does not run into a lock; between the calls the application's turn."""
    from pymongo.errors import OperationFailure

    for attempt in range(target.attempts):
        target.journal.check()
        try:
            return send()
        except OperationFailure as error:
            if error.code not in LOCK_CODES:
                raise
            if attempt == target.attempts - 1:
                raise _busy(target, what) from error
            time.sleep(min(0.05 * 2**attempt, 2.0))
    raise OperationFailed(f"{what}: no attempt is allowed", hint="attempts must be at least 1")


def _busy(target: Target, what: str) -> OperationFailed:
    return OperationFailed(
        f"{what} got no lock in {target.attempts} attempts of {target.max_time_ms} ms",
        hint="a long transaction or operation holds it: look with db.currentOp(), then run again",
        after="the command was not carried out.",
    )


def _subject(command: Document) -> str:
    name, value = next(iter(command.items()))
    return f"{name} {value}"


def _send(target: Target, command: Document, *, admin: bool) -> Document:
    db = target.db.client["admin"] if admin else target.db
    concern = target.db.write_concern.document
    if concern and not target.transaction:
        command = {**command, "writeConcern": concern}
    reply: Document = dict(db.command(command))
    if "writeConcernError" in reply:
        raise _unconfirmed(reply)
    return reply


def _unconfirmed(reply: Document) -> OperationFailure:
    # pymongo's command() leaves this part of a good reply alone: it was done, but a majority
    # has not confirmed it. The runner treats it like a lost reply.
    from pymongo.errors import WriteConcernError

    error = reply["writeConcernError"]
    return WriteConcernError(str(error.get("errmsg", "")), error.get("code"), error)


def stored_collection(target: Target, name: str) -> Document | None:
    """What `listCollections` says of one collection, read outside any transaction."""

    def read() -> Document | None:
        found = target.db.list_collections(filter={"name": name})
        return next((dict(entry) for entry in found), None)

    return target.outside(read)
