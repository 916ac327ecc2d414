"""How fast a long operation may go: a rate, a pause between batches, a limit on replication lag."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypedDict

from mongover.errors import OperationFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pymongo.database import Database

_SLICE: Final = 0.2
_LAG_EVERY: Final = 2.0
_LAG_PAUSE: Final = 0.5
_PRIMARY: Final = 1
_SECONDARY: Final = 2


class PaceOptions(TypedDict, total=False):
    """The options that slow a long operation down."""

    max_rate: float | None
    pause: float
    max_lag: float | None


@dataclass(frozen=True, slots=True)
class Pace:
    """Limits of one operation; None and 0 are no limit.

    Attributes:
        max_rate: Documents per second, over all workers.
        pause: Seconds after each batch of each worker.
        max_lag: Seconds by which a secondary may be behind before the operation waits for it.
    """

    max_rate: float | None = None
    pause: float = 0.0
    max_lag: float | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Pace | None:
        """From the arguments of a verb, checked; None where nothing limits.

        Raises:
            OperationFailed: for an unknown option or a value that is no positive number.
        """
        for name, value in options.items():
            if name not in PaceOptions.__optional_keys__:
                raise OperationFailed(
                    f"there is no option {name!r}", hint="the pace is max_rate, pause and max_lag"
                )
            least = 0 if name == "pause" else 1e-9
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least
            ):
                raise OperationFailed(f"{name} cannot be {value!r}", hint="give a positive number")
        given = {name: value for name, value in options.items() if value}
        return cls(**given) if given else None

    def options(self) -> dict[str, Any]:
        """As a verb takes them."""
        named = {"max_rate": self.max_rate, "pause": self.pause, "max_lag": self.max_lag}
        return {name: value for name, value in named.items() if value}

    def share(self, workers: int) -> Pace:
        """The pace of one of so many workers."""
        rate = None if self.max_rate is None else self.max_rate / workers
        return Pace(rate, self.pause, self.max_lag)


class Throttle:
    """Keeps one worker to its pace; `halt` is called while it waits and may raise."""

    def __init__(self, pace: Pace | None, db: Database[Any], halt: Callable[[], None]) -> None:
        self._pace = pace or Pace()
        self._db = db
        self._halt = halt
        self._looked = float("-inf")

    def after(self, documents: int, seconds: float) -> None:
        """Wait as long as a batch of so many documents, which took so long, asks for."""
        rest = self._pace.pause
        if self._pace.max_rate is not None:
            rest = max(rest, documents / self._pace.max_rate - seconds)
        self._sleep(rest)
        if self._pace.max_lag is None or time.monotonic() - self._looked < _LAG_EVERY:
            return
        while (lag := replication_lag(self._db)) > self._pace.max_lag:
            self._sleep(min(_LAG_PAUSE, max(lag, _SLICE)))
        self._looked = time.monotonic()

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._halt()
            time.sleep(min(left, _SLICE))


def replication_lag(db: Database[Any]) -> float:
    """Seconds by which the slowest secondary is behind the primary; 0 without secondaries.

    Raises:
        OperationFailed: the server does not say, for lack of a right or of replication.
    """
    from pymongo.errors import OperationFailure

    try:
        status = db.client.admin.command({"replSetGetStatus": 1})
    except OperationFailure as error:
        raise OperationFailed(
            "max_lag cannot be kept: the server does not say how far its secondaries are",
            notes=(f"server: {error.code} {(error.details or {}).get('codeName', '')}",),
            hint="grant clusterMonitor on admin, or leave max_lag out (a standalone has no lag)",
        ) from error
    return lag_of(status["members"])


def lag_of(members: list[dict[str, Any]]) -> float:
    """The lag in seconds that a member list of replSetGetStatus shows (pure)."""
    primary = [one["optimeDate"] for one in members if one["state"] == _PRIMARY]
    others = [one["optimeDate"] for one in members if one["state"] == _SECONDARY]
    if not primary or not others:
        return 0.0
    return float(max(0.0, (primary[0] - min(others)).total_seconds()))
