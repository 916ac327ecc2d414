"""The connections of `mongover serve`: how many there may be, and how long one may keep it waiting.

A client that sends half a request, or does not read its answer, costs a descriptor for as long as
it likes; with all of them gone the server would be deaf to everybody, its health among the rest.
What works, a stream of events or a request that waits for a run, may take as long as it takes.
"""

from __future__ import annotations

import logging
import resource
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger("mongover.web.connections")

_MOST: Final = 1_000
_QUIET: Final = 60.0  # seconds between two lines that say the same
_NO_DESCRIPTORS: Final = "socket.accept() out of system resource"
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Retry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server allows its clients.

    Attributes:
        connections: How many at once.
        burst: How many are taken in before the first of them is looked at.
        head: Seconds for the head of a request, from the connection or the answer before it.
        body: Seconds for the rest of a request.
        stall: Seconds in which nothing of an answer is read.
    """

    connections: int = _MOST
    burst: int = 128
    head: float = 10.0
    body: float = 30.0
    stall: float = 30.0


def limits_of_process() -> Limits:
    """As many connections as half of the descriptors; the other half is for the database."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return Limits()
    return Limits(connections=max(8, min(_MOST, soft // 2)), burst=max(4, min(128, soft // 16)))


@dataclass(slots=True)
class Door:
    """All open connections of one server, and those that it waits for, the longest wait first."""

    limits: Limits
    connections: set[Connection] = field(default_factory=set)
    waiting: dict[Connection, None] = field(default_factory=dict)

    def let_in(self, newcomer: Connection) -> bool:
        """Whether there is room for one more; room is made of those that it waits for."""
        self.connections.add(newcomer)
        if len(self.connections) <= self.limits.connections:
            return True
        logger.warning(
            "all %d connections that this server takes are open: it closes those that have waited "
            "longest without a request, and refuses more where there are none",
            self.limits.connections,
        )
        if not self.waiting:
            return False
        next(iter(self.waiting)).end()
        return True

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        self.connections.discard(connection)
        self.waiting.pop(connection, None)


class Connection(H11Protocol):
    """One connection of uvicorn's, with a limit on each wait for its client."""

    door: Door  # of the class that `protocol` makes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._wait: tuple[str, object] | None = None
        self._unread = 0
        self._heard = False  # something came since the wait began

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or refuse."""
        super().connection_made(transport)
        if not self.door.let_in(self):
            transport.write(_FULL)
            self.end()
            return
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._rest()
        self.door.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; what only begins a request does not prolong the wait for it."""
        self._heard = True
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._look()

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        self._look()

    def end(self) -> None:
        """Close it now, whatever it has not sent or read."""
        self.door.waiting.pop(self, None)
        # What fits into the socket is on its way; the rest is for somebody who does not read.
        self.transport.abort()

    def _look(self) -> None:
        """Begin to count where the wait is another than before."""
        wait = self._waits_for()
        if wait == self._wait:
            return
        self._rest()
        if wait is not None:
            self._wait, self._heard = wait, False
            self.door.waiting[self] = None
            self._count(wait[0])

    def _waits_for(self) -> tuple[str, object] | None:
        """The limit that its client is under, and of which request; None while the server works."""
        if self.flow is not None and self.flow.write_paused:
            return "stall", self.cycle
        if self.cycle is None or self.cycle.response_complete:
            return "head", self.cycle
        return ("body", self.cycle) if self.cycle.more_body else None

    def _count(self, limit: str) -> None:
        self._unread = self.transport.get_write_buffer_size()
        seconds = getattr(self.door.limits, limit)
        self._timer = self.loop.call_later(seconds, self._too_late, limit)

    def _too_late(self, limit: str) -> None:
        left = self.transport.get_write_buffer_size()
        if 0 < left < self._unread:  # slowly, but it reads
            self._count("stall")
            return
        if limit != "head" or left or self._heard:
            logger.warning("connections are closed whose clients are too slow to send or to read")
        self.end()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._wait = None
        self.door.waiting.pop(self, None)


def protocol(limits: Limits) -> type[Connection]:
    """The connections of one server, under its limits."""
    return type("ServedConnection", (Connection,), {"door": Door(limits)})


class Seldom(logging.Filter):
    """Lets a warning that repeats itself pass once a minute: clients decide how often it comes."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is to be told."""
        if str(record.msg).startswith(_NO_DESCRIPTORS):
            record.msg = f"{_NO_DESCRIPTORS}: raise the limit of open files (ulimit -n)"
            record.exc_info = record.exc_text = None
        elif record.levelno > logging.WARNING:
            return True
        now, key = time.monotonic(), (record.name, str(record.msg))
        if now - self._last.get(key, -_QUIET) < _QUIET:
            return False
        self._last[key] = now
        return True
