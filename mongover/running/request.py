"""What a run is asked for, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mongover.history.record import Direction

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from mongover.running.events import Listener
    from mongover.running.rejects import RetriedRevision
    from mongover.running.stop import Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for, and by whom it is heard and stopped."""

    command: str
    direction: Direction
    target: str
    listener: Listener
    stop: Stop
    retry: bool = False
    retry_rejects: bool = False
    allow_data_loss: frozenset[str] = frozenset()
    lock_wait: float | None = None  # instead of the configured one
    run: str | None = None  # the id under which the history shall know the run


@dataclass(frozen=True, slots=True)
class RunResult:
    """What an upgrade or a downgrade did; `run` is None when there was nothing to do."""

    direction: Direction
    target: str
    run: str | None
    revisions: tuple[str, ...]
    seconds: float
    warnings: tuple[str, ...] = ()
    message: str = ""
    heads: Mapping[str | None, tuple[str, ...]] = field(default_factory=dict)
    rejects: tuple[RetriedRevision, ...] | None = None  # None where no retry was asked for

    def to_json(self) -> dict[str, Any]:
        """The value as `--json` and the HTTP API show it."""
        done = "applied" if self.direction is Direction.UP else "reverted"
        tried = self.rejects
        more = {} if tried is None else {"rejects": [one.to_json() for one in tried]}
        return {
            "direction": self.direction.value,
            "target": self.target,
            "run": self.run,
            done: list(self.revisions),
            "durationMs": round(self.seconds * 1_000, 1),
            "warnings": list(self.warnings),
            **more,
        }

    def with_rejects(self, tried: tuple[RetriedRevision, ...] | None) -> RunResult:
        """The same, with what became of rejected documents; those that are left are warned of."""
        warned = tuple(filter(None, (one.warning() for one in tried or ())))
        return replace(self, rejects=tried, warnings=(*self.warnings, *warned))
