"""An upgrade in a process of its own that kills itself at one of its writes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import TYPE_CHECKING, Any

from pymongo import monitoring

from mongover.errors import MongoverError
from mongover.migrator import Migrator

if TYPE_CHECKING:
    from collections.abc import Mapping

WRITES = frozenset(
    {
        "aggregate",
        "collMod",
        "commitTransaction",
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

_spawn = multiprocessing.get_context("forkserver")
_spawn.set_forkserver_preload(["tests.support.reruns"])


class Killer(monitoring.CommandListener):
    """Ends the process before or after its n-th write."""

    def __init__(self, at: int, *, after: bool, touching: str) -> None:
        self.left = at
        self.after = after
        self.touching = touching

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if self.counts(event):
            self.left -= 1
            if not self.left and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)

    def counts(self, event: monitoring.CommandStartedEvent) -> bool:
        command = event.command
        if event.command_name not in WRITES:
            return False
        if "aggregate" in command and "$merge" not in command["pipeline"][-1]:
            return False
        return self.touching in ("", command[event.command_name])

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if event.command_name in WRITES and self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """It goes on."""


def _move(settings: Mapping[str, Any], verb: str, killer: Killer) -> None:
    monitoring.register(killer)
    try:
        migrator = Migrator.from_config(environ={}, **settings)
        migrator.upgrade() if verb == "upgrade" else migrator.downgrade("base")
    except MongoverError:
        os._exit(3)
    os._exit(0)


def move_and_kill(
    settings: Mapping[str, Any], verb: str, at: int, *, after: bool, touching: str = ""
) -> bool:
    """Upgrade or downgrade; whether it was killed at that write (else it had less to do).

    Only writes to the collection `touching` count, if it is given.
    """
    killer = Killer(at, after=after, touching=touching)
    process = _spawn.Process(target=_move, args=(settings, verb, killer))
    process.start()
    process.join(60)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode == -signal.SIGKILL
