"""What happens, told from the threads that run revisions to the coroutines that listen."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping


class Wakers:
    """Wakes coroutines, of any event loop, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sleepers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def __len__(self) -> int:
        return len(self._sleepers)

    def wake(self) -> None:
        """Set the event of everyone who listens now."""
        with self._lock:
            sleepers = tuple(self._sleepers)
        for loop, event in sleepers:
            with suppress(RuntimeError):  # the loop has ended, and its listener with it
                loop.call_soon_threadsafe(event.set)

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event of the running loop that `wake` sets, for as long as the block lasts."""
        sleeper = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._sleepers.add(sleeper)
        try:
            yield sleeper[1]
        finally:
            with self._lock:
                self._sleepers.discard(sleeper)


@dataclass(frozen=True, slots=True)
class Message:
    """One thing that happened: its place in the feed, its name and its JSON-like content."""

    number: int
    name: str
    data: Mapping[str, Any]
    run: str | None = None


class Feed:
    """The newest `size` messages, and whoever follows them.

    A follower that is slower than the feed misses the oldest messages, never the newest, and
    costs the others nothing.
    """

    def __init__(self, *, size: int = 1_000) -> None:
        self.epoch = uuid4().hex[:8]
        self._messages: deque[Message] = deque(maxlen=size)
        self._lock = threading.Lock()
        self._number = 0
        self._wakers = Wakers()
        self._closed = False

    @property
    def followers(self) -> int:
        """How many follow now."""
        return len(self._wakers)

    @property
    def closed(self) -> bool:
        """Whether the feed has ended."""
        return self._closed

    @property
    def number(self) -> int:
        """The number of the newest message."""
        return self._number

    def publish(self, name: str, data: Mapping[str, Any], *, run: str | None = None) -> None:
        """Tell everyone; callable from any thread, and it never waits for a follower."""
        with self._lock:
            self._number += 1
            self._messages.append(Message(self._number, name, data, run))
        self._wakers.wake()

    def open(self) -> None:
        """Allow followers again, after a close."""
        self._closed = False

    def close(self) -> None:
        """Let every follower end."""
        self._closed = True
        self._wakers.wake()

    def after(self, number: int) -> list[Message]:
        """The messages kept that are newer than `number`."""
        with self._lock:
            return [message for message in self._messages if message.number > number]

    def place_of(self, identifier: str | None) -> int | None:
        """The number that a message's id names; None for an id of another process, or none."""
        epoch, _, number = (identifier or "").partition("-")
        if epoch != self.epoch or not (number.isascii() and number.isdigit()):
            return None
        return min(int(number[:18]), self._number)

    async def follow(self, number: int, *, heartbeat: float) -> AsyncIterator[Message | None]:
        """The messages newer than `number`, then those to come; None after each quiet while."""
        with self._wakers.listening() as event:
            while True:
                event.clear()
                for message in self.after(number):
                    number = message.number
                    yield message
                if self._closed:
                    return
                try:
                    async with asyncio.timeout(heartbeat):
                        await event.wait()
                except TimeoutError:
                    yield None


def frame(epoch: str, message: Message | None) -> str:
    """A message in the form of server-sent events; a comment for None."""
    if message is None:
        return ": alive\n\n"
    data = json.dumps({"run": message.run, **message.data}, ensure_ascii=False)
    return f"id: {epoch}-{message.number}\nevent: {message.name}\ndata: {data}\n\n"
