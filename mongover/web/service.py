"""What the endpoints work with: one `Migrator`, its runs, and reads that never hold the loop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar

import anyio
import anyio.to_thread

from mongover.web.auth import Throttle, Tokens
from mongover.web.feed import Feed
from mongover.web.problems import Redaction
from mongover.web.runs import Runs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from mongover.migrator import Migrator

P = ParamSpec("P")
T = TypeVar("T")

READERS: Final = 16  # threads for reads: a slow database does not use up those of the application


class StartUp(Protocol):
    """What the health endpoint asks of a migration at the start of the application."""

    @property
    def ready(self) -> bool:
        """Whether it is over, or was not to be waited for."""
        ...

    def to_json(self) -> Mapping[str, Any]:
        """Its state and the code of its error."""
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """How the endpoints are guarded.

    Attributes:
        tokens: Who may read and write.
        hosts: The names that the `Host` header may hold, without ports; None allows any.
        origins: Origins beside the server's own that may send writes (`https://app.example`).
        body_limit: The longest body in bytes.
        body_seconds: How long a body may take to come.
        heartbeat: Seconds between two signs of life in a quiet stream of events.
        followers: How many may follow the events at once.
    """

    tokens: Tokens = field(default_factory=Tokens)
    hosts: frozenset[str] | None = None
    origins: frozenset[str] = frozenset()
    body_limit: int = 16 * 1024
    body_seconds: float = 20.0
    heartbeat: float = 15.0
    followers: int = 64


class Shared:
    """One read at a time for all who ask at once.

    Whoever asks while a read is under way shares the next one with the others who do, so that an
    answer is never older than its question.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[Any] | None = None

    async def __call__(self, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` returns, or what it returned to another who asked after us."""
        upcoming = self._next
        if upcoming is None or upcoming.get_loop() is not asyncio.get_running_loop():
            upcoming = self._next = asyncio.ensure_future(self._run(read))
        # The read goes on when one of those who wait for it goes away.
        found: T = await asyncio.shield(upcoming)
        return found

    async def _run(self, read: Callable[[], Awaitable[T]]) -> T:
        async with self._lock:
            self._next = None
            return await read()


class Service:
    """One project behind HTTP; `close` when the application ends."""

    def __init__(self, migrator: Migrator, options: Options, startup: StartUp | None) -> None:
        self.migrator = migrator
        self.options = options
        self.startup = startup
        self.redaction = Redaction(migrator.config)
        self.feed = Feed()
        self.runs = Runs(migrator, self.feed, self.redaction)
        self.throttle = Throttle()
        self._readers = anyio.CapacityLimiter(READERS)
        self._shared: dict[str, Shared] = {}

    async def call(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a call that talks to the database, made in another thread."""
        return await anyio.to_thread.run_sync(partial(act, *args, **kwargs), limiter=self._readers)

    async def share(self, name: str, act: Callable[[], T]) -> T:
        """As `call`, for a read that many ask for at the same time."""
        shared = self._shared.setdefault(name, Shared())
        return await shared(lambda: self.call(act))

    def open(self) -> None:
        """Allow runs and streams; a service is open from the start, and again after a close."""
        self.runs.restart()
        self.feed.open()

    def stop(self) -> None:
        """Ask the run at work to end safely, and end the streams; nothing is waited for."""
        self.runs.stop()
        self.feed.close()

    async def close(self, *, owned: bool) -> None:
        """Stop, wait for the run to end, and close the connection if it is our own."""
        self.stop()
        await anyio.to_thread.run_sync(self.runs.join)
        if owned:
            await anyio.to_thread.run_sync(self.migrator.close)
