"""A proxy between a client and a real server that counts commands and makes one of them fail.

It runs in this process, on loopback, two threads a connection. The client must reach it with
`directConnection=true`: a replica set's members would tell it their own addresses.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from mongover.testing.wire import Command, Message, WireError, read_command, read_message

if TYPE_CHECKING:
    from collections.abc import Callable


class When(StrEnum):
    """On which side of the server's work a fault lies."""

    BEFORE = "before"  # the command does not reach the server
    AFTER = "after"  # the server carried it out, but its reply does not arrive


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one command, or to `times` of them in a row.

    Attributes:
        at: Which of the counted commands, from 1.
        when: Before the server sees it, or after it was carried out.
        act: Called at that moment, say to kill the client; the connection is closed afterwards.
        times: How many commands meet the fault (the driver sends some again by itself).
    """

    at: int
    when: When
    act: Callable[[], None] = lambda: None
    times: int = 1


def is_write(command: Command) -> bool:
    """What a proxy counts unless told otherwise: every write but a lease's heartbeats."""
    return command.writes and not command.heartbeat


@dataclass(slots=True)
class _Link:
    """One client's connection with its counterpart at the server."""

    client: socket.socket
    server: socket.socket
    doomed: set[int] = field(default_factory=set)  # requests whose replies must not arrive

    def close(self) -> None:
        for side in (self.client, self.server):
            with contextlib.suppress(OSError):  # the other thread may have closed it
                side.shutdown(socket.SHUT_RDWR)
            side.close()


class Proxy:
    """Forwards every message and remembers the counted commands; a context manager.

    Attributes:
        seen: The counted commands so far, in the order in which they came.
        hits: Those of them that met the fault.
        errors: What the proxy could not read; a test that finds one here proved nothing.
    """

    def __init__(
        self,
        server: tuple[str, int | None],
        *,
        fault: Fault | None = None,
        counts: Callable[[Command], bool] = is_write,
    ) -> None:
        self._server = server
        self._fault = fault
        self._counts = counts
        self._mutex = threading.Lock()
        self._links: list[_Link] = []
        self._closed = False
        self._door = socket.create_server(("127.0.0.1", 0))
        self.seen: list[Command] = []
        self.hits: list[Command] = []
        self.errors: list[Exception] = []

    @property
    def port(self) -> int:
        """Where the proxy listens on loopback."""
        number: int = self._door.getsockname()[1]
        return number

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="mongover-proxy", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._mutex:
            self._closed = True
            links = list(self._links)
        with contextlib.suppress(OSError):  # wakes the accepting thread where close does not
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        for link in links:
            link.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:  # the door was closed
                return
            self._open(client)

    def _open(self, client: socket.socket) -> None:
        try:
            link = _Link(client, self._dial())
        except OSError:  # the server is away: the client sees what it would see without us
            client.close()
            return
        with self._mutex:
            closed = self._closed
            self._links.append(link)
        if closed:
            link.close()
            return
        for forward in (self._requests, self._replies):
            threading.Thread(target=self._serve, args=(forward, link), daemon=True).start()

    def _dial(self) -> socket.socket:
        host, port = self._server
        if port is not None:
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(host)
        return server

    def _serve(self, forward: Callable[[_Link], None], link: _Link) -> None:
        try:
            forward(link)
        except OSError:
            return  # one side went away, as killed processes do
        except (WireError, ValueError) as error:
            self.errors.append(error)
        finally:
            link.close()

    def _requests(self, link: _Link) -> None:
        while (message := read_message(link.client)) is not None:
            fault = self._judge(message, link)
            if fault is not None and fault.when is When.BEFORE:
                fault.act()
                return
            link.server.sendall(message.data)
            if fault is not None and message.request not in link.doomed:
                fault.act()  # no reply will come that could be held back
                return

    def _replies(self, link: _Link) -> None:
        while (message := read_message(link.server)) is not None:
            if self._fault is not None and message.response_to in link.doomed:
                self._fault.act()
                return
            link.client.sendall(message.data)

    def _judge(self, message: Message, link: _Link) -> Fault | None:
        """Count the command; the fault if this is its turn."""
        command = read_command(message)
        if command is None or not self._counts(command):
            return None
        with self._mutex:
            self.seen.append(command)
            fault = self._fault
            if fault is None or not fault.at <= len(self.seen) < fault.at + fault.times:
                return None
            self.hits.append(command)
        if fault.when is When.AFTER and command.answered:
            link.doomed.add(command.request)
        return fault
