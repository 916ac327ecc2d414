"""Watching the driver's commands: which one of a transaction failed first, what was written to."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pymongo.monitoring import CommandListener

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymongo.monitoring import CommandFailedEvent, CommandStartedEvent, CommandSucceededEvent


@dataclass(frozen=True, slots=True)
class Failure:
    """A command that the server answered with an error."""

    command: str
    code: int
    name: str
    transient: bool

    def __str__(self) -> str:
        return f"{self.command}: {self.code} {self.name}".rstrip()


_WRITES: Final = frozenset(
    {
        "aggregate",
        "bulkWrite",
        "collMod",
        "convertToCapped",
        "create",
        "createIndexes",
        "delete",
        "drop",
        "dropIndexes",
        "findAndModify",
        "insert",
        "renameCollection",
        "update",
    }
)


def _writes(command: Mapping[str, Any]) -> bool:
    if "aggregate" not in command:
        return True
    stages = command["pipeline"]
    return bool(stages) and not {"$merge", "$out"}.isdisjoint(stages[-1])


class CommandWatch(CommandListener):
    """Remembers which command broke the transaction of one thread, since `start`.

    Other threads and commands outside the transaction do not count. A later success forgives: some
    commands are refused without harm to the transaction.
    """

    def __init__(self) -> None:
        self._thread: int | None = None
        self._request: int | None = None
        self.first: Failure | None = None
        self.written: set[str] = set()  # the collections that writes were sent to, from any thread

    def start(self) -> None:
        """Forget what was seen, and watch this thread from now on."""
        self.first = None
        self._request = None
        self._thread = threading.get_ident()

    def stop(self) -> None:
        """Watch no longer; what was seen stays."""
        self._thread = None

    def started(self, event: CommandStartedEvent) -> None:
        """A command leaves; only that of a transaction says so of itself."""
        if event.command_name in _WRITES and _writes(event.command):
            self.written.add(str(event.command.get(event.command_name)))
        if self._thread == threading.get_ident() and event.command.get("autocommit") is False:
            self._request = event.request_id

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """A reply may say ok and still carry write errors."""
        if not self._awaited(event.request_id):
            return
        if "writeErrors" in event.reply:
            self._note(event.command_name, event.reply["writeErrors"][0], {})
        else:
            self.first = None

    def failed(self, event: CommandFailedEvent) -> None:
        """A reply that is an error."""
        if self._awaited(event.request_id):
            self._note(event.command_name, event.failure, event.failure)

    def _awaited(self, request: int) -> bool:
        return self._thread == threading.get_ident() and self._request == request

    def _note(self, command: str, error: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        if self.first is None and "code" in error:
            labels = reply.get("errorLabels", ())
            self.first = Failure(
                command=command,
                code=error["code"],
                name=str(error.get("codeName", "")),
                transient="TransientTransactionError" in labels,
            )
