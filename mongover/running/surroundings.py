"""What every step of one run shares: its means, its rules and its voice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mongover.database.transaction import run_transaction
from mongover.running.long_work import Workplace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Mapping
    from typing import Self

    from mongover.config.config import Config
    from mongover.database.capabilities import Capabilities
    from mongover.database.server import Server
    from mongover.history.changes import History
    from mongover.history.store import MockServer, Store
    from mongover.running.events import Listener
    from mongover.running.hold import Held
    from mongover.running.stop import Stop


class Holding(Protocol):
    """What a run needs of a lease that it holds."""

    owner: str
    fence: int

    @property
    def lost(self) -> str | None:
        """Why it can no longer be trusted, or None."""
        ...

    def check(self) -> None:
        """Raise LockLost once it is lost."""
        ...

    def guard(self, session: Any) -> None:
        """Make the session's transaction depend on the lease."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """What a run works with; `capabilities` says what the server can do."""

    server: Server | MockServer
    history: History
    lease: Holding
    session: Any  # a ClientSession, or None where the server has no sessions
    capabilities: Capabilities
    workplace: Workplace | None  # where long operations keep their checkpoints

    @classmethod
    def of(cls, store: Store, held: Held, config: Config, *, capabilities: Capabilities) -> Self:
        """Those of a store under a lease."""
        return cls(
            store.server,
            store.history,
            held.lease,
            held.session,
            capabilities,
            _workplace(config, store.url),
        )

    @property
    def database(self) -> Any:
        """The database that the revisions work on."""
        return self.server.database


@dataclass(frozen=True, slots=True)
class Rules:
    """What a run may do, and for how long; `protected` are the collections of mongover itself.

    `allowed` is what a downgrade may destroy although no revision made it.
    """

    strict: bool
    max_time_ms: int
    attempts: int  # at one transaction
    protected: Container[str]
    allowed: Collection[str] = ()

    @classmethod
    def of(cls, config: Config, *, allowed: Collection[str]) -> Self:
        """What the configuration and the request say."""
        return cls(
            config.strict,
            int(config.ddl_max_time * 1_000),
            config.transaction_attempts,
            config.own,
            allowed,
        )


@dataclass(frozen=True, slots=True)
class Voice:
    """In whose name a run acts, who hears of it without secrets, and who may stop it."""

    by: Mapping[str, Any]
    listener: Listener
    redact: Callable[[str], str]
    stop: Stop


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every step of one run shares; `run` is its id."""

    run: str
    means: Means
    rules: Rules
    voice: Voice

    @property
    def written(self) -> bool:
        """Whether anything but mongover's own was written to since the watch forgot."""
        written = self.means.server.watch.written.copy()
        return any(name not in self.rules.protected for name in written)

    def transact(self, work: Callable[[], None]) -> None:
        """Run the work in one transaction, for as long as the lease is held."""
        run_transaction(
            self.means.session,
            work,
            watch=self.means.server.watch,
            before=self.means.lease.check,
            attempts=self.rules.attempts,
        )


def _workplace(config: Config, url: str) -> Workplace | None:
    """Where long operations keep their checkpoints; None where workers cannot connect."""
    if not url:
        return None
    return Workplace(
        own=config.own,
        url=url,
        database=config.database,
        timeout=config.connect_timeout,
    )
