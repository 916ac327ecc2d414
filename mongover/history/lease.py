"""The lease: one holder at a time by the server's clock, with a heartbeat and a fence.

Two documents, never deleted: `lock` says who holds it and until when; `fence` holds the highest
fence number that was published. A heartbeat never touches `fence`, so a transaction that writes
`fence` conflicts with a takeover and with nothing else.
"""

from __future__ import annotations

import contextvars
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pymongo
from bson.int64 import Int64
from pymongo.collection import ReturnDocument
from pymongo.errors import DuplicateKeyError, OperationFailure, PyMongoError

from mongover.database.faults import is_unsure
from mongover.errors import LockHeld, LockLost, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pymongo.client_session import ClientSession
    from pymongo.collection import Collection

LOCK: Final = "lock"
FENCE: Final = "fence"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Nobody's, expired by the server's clock, or without a time that means anything.
_FREE: Final[dict[str, Any]] = {
    "$or": [
        {"owner": {"$not": {"$type": "string"}}},
        {"expires_at": {"$not": {"$type": "date"}}},
        {"$expr": {"$lte": ["$expires_at", "$$NOW"]}},
    ]
}
_BEATS_PER_LEASE: Final = 4
_DEAD_LIMIT: Final = 100
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_PATIENCE: Final = 30.0


def steady_seconds() -> float:
    """A clock that no one sets back and that goes on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@dataclass(frozen=True, slots=True)
class LeaseState:
    """Who holds the lease, as seen at the server's time `now`."""

    owner: str | None
    holder: Mapping[str, Any]
    acquired_at: datetime | None
    heartbeat_at: datetime | None
    expires_at: datetime
    now: datetime
    fence: int

    @property
    def expired(self) -> bool:
        """Whether the lease may be taken over."""
        return self.expires_at <= self.now

    @property
    def held(self) -> bool:
        """Whether somebody holds it and it has not expired."""
        return self.owner is not None and not self.expired

    @property
    def held_seconds(self) -> float:
        """Since when it is held."""
        return _between(self.acquired_at, self.now)

    @property
    def heartbeat_seconds(self) -> float:
        """How long ago the holder last said that it lives."""
        return _between(self.heartbeat_at, self.now)

    def who(self) -> str:
        """The holder in a few words: `ci@runner-7 pid 412`."""
        user, host = self.holder.get("user", "?"), self.holder.get("host", "?")
        return f"{user}@{host} pid {self.holder.get('pid', '?')}"


def _between(start: datetime | None, end: datetime) -> float:
    return 0.0 if start is None else max(0.0, (end - start).total_seconds())


def read_lease(collection: Collection[dict[str, Any]]) -> LeaseState | None:
    """The lease as it stands, in one query that creates nothing; None if there never was one."""
    pipeline = [{"$match": {"_id": LOCK}}, {"$set": {"now": "$$NOW"}}]
    for document in collection.aggregate(pipeline):
        return _state(document)
    return None


def _state(document: Mapping[str, Any]) -> LeaseState:
    """The state in a document that hands may have changed: what makes no sense counts as absent."""
    holder, fence = document.get("holder"), document.get("fence")
    owner, expires = document.get("owner"), _moment(document.get("expires_at"))
    now: datetime = document["now"]
    return LeaseState(
        owner=owner if isinstance(owner, str) else None,
        holder=holder if isinstance(holder, dict) else {},
        acquired_at=_moment(document.get("acquired_at")),
        heartbeat_at=_moment(document.get("heartbeat_at")),
        expires_at=_EPOCH.replace(tzinfo=now.tzinfo) if expires is None else expires,
        now=now,
        fence=int(fence) if isinstance(fence, (int, float)) else 0,
    )


def _moment(value: object) -> datetime | None:
    return value if isinstance(value, datetime) else None


def end_lease(collection: Collection[dict[str, Any]], *, owner: str | None) -> LeaseState:
    """End a lease by hand: an expired one freely, a live one only for who names its owner.

    Raises:
        UsageError: nobody holds it.
        LockHeld: it is alive and `owner` is not its owner.
    """
    state = read_lease(collection)
    if state is None or state.owner is None:
        raise UsageError("nobody holds the lock", hint="`mongover status` shows what is pending")
    if not state.expired and owner != state.owner:
        raise LockHeld(
            f"the lock is held by {state.who()}, whose heartbeat is "
            f"{state.heartbeat_seconds:.0f} s old",
            hint=f"if that process is truly gone: mongover unlock --owner {state.owner}",
            after="the lock was not touched.",
        )
    # The owner stays, so that whoever comes next ends its session; the higher fence ends its
    # heartbeat.
    ended = {"expires_at": "$$NOW", "fence": {"$add": ["$fence", {"$toLong": 1}]}}
    seen = {"_id": LOCK, "owner": state.owner, "fence": state.fence}
    if not collection.update_one(seen, [{"$set": ended}]).matched_count:
        raise LockHeld(
            "the lock changed hands at this very moment",
            hint="look at it again: mongover lock",
            after="the lock was not touched.",
        )
    return state


class Lease:
    """The lock of one run. Take it with `acquire`, keep it by its heartbeat, end it with `release`.

    Times are seconds. `length` is how long a dead holder blocks others, `wait` how long to wait for
    a live one. All comparisons of time are the server's; the local deadline only ever ends earlier.
    """

    def __init__(
        self,
        collection: Collection[dict[str, Any]],
        *,
        holder: Mapping[str, Any],
        length: float,
        wait: float,
        clock: Callable[[], float] = steady_seconds,
    ) -> None:
        self._collection = collection
        self._holder = dict(holder)
        self._length = length
        self._wait = wait
        self._clock = clock
        self._deadline = 0.0
        self._over = threading.Event()
        self._lost: str | None = None
        self._beat: threading.Thread | None = None
        self._dead_sessions: list[Mapping[str, Any]] = []
        self.owner = uuid4().hex
        self.fence = 0
        self.previous: str | None = None

    def acquire(self, session: ClientSession, on_wait: Callable[[LeaseState, float], bool]) -> bool:
        """Take the lease, waiting for a live holder; False if `on_wait` says it is not needed.

        `on_wait` gets the state and the seconds left, about once a second.

        Raises:
            LockHeld: it was still held when the wait was over.
        """
        give_up = self._clock() + self._wait
        pause = _FIRST_PAUSE
        while not self._try(session):
            state = read_lease(self._collection)
            if state is None:
                self._bootstrap()
            if state is None or not state.held:
                continue
            left = give_up - self._clock()
            if not on_wait(state, max(0.0, left)):
                return False
            if left <= 0:
                raise _still_held(state)
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)
        self._begin()
        return True

    def _bootstrap(self) -> None:
        # A lock document that somebody deleted must not start again below the published fence.
        published = self._collection.find_one({"_id": FENCE}) or {}
        fence = Int64(published.get("fence", 0))
        fresh = {"owner": None, "fence": fence, "expires_at": _EPOCH}
        try:
            self._collection.update_one({"_id": LOCK}, {"$setOnInsert": fresh}, upsert=True)
        except DuplicateKeyError:
            return  # another process made it at the same moment, which is all that we want

    def _try(self, session: ClientSession) -> bool:
        """One atomic attempt. Our own token matches too, so a repeat after a lost reply is safe."""
        now = self._clock()
        update = _acquisition(self.owner, self._holder, session.session_id, self._milliseconds)
        found = _surely(
            lambda: self._collection.find_one_and_update(
                {"_id": LOCK, "$or": [_FREE, {"owner": self.owner}]},
                update,
                return_document=ReturnDocument.AFTER,
            )
        )
        if found is None:
            return False
        self._deadline = now + self._length
        self.fence = int(found["fence"])
        self._end_previous(found.get("prev"))
        self._dead_sessions = [each for each in found["dead"] if isinstance(each, dict)]
        return True

    @property
    def _milliseconds(self) -> int:
        return int(self._length * 1_000)

    def _end_previous(self, previous: Mapping[str, Any] | None) -> None:
        """Note the dead holder; its session is ended once the heartbeat runs."""
        if previous is not None:
            holder = previous.get("holder") or {}
            user, host = holder.get("user", "?"), holder.get("host", "?")
            self.previous = f"{user}@{host} pid {holder.get('pid', '?')}"

    def _begin(self) -> None:
        """What must follow an acquisition, in this order: heartbeat, dead session, fence."""
        context = contextvars.Context()  # empty: a heartbeat never joins a bound session
        self._beat = threading.Thread(
            target=context.run, args=(self._keep,), name="mongover-heartbeat", daemon=True
        )
        self._beat.start()
        try:
            self._kill_dead_sessions()
            self._publish()
        except BaseException:
            self.release()
            raise

    def _kill_dead_sessions(self) -> None:
        if not self._dead_sessions:
            return
        # Another user's session cannot be ended by us: the server then answers ok and reaps it
        # itself. A refusal is no reason to stop: the fence still keeps the dead holder out.
        try:
            self._collection.database.client.admin.command({"killSessions": self._dead_sessions})
        except OperationFailure as error:
            self.previous = f"{self.previous} (its session could not be ended: {error.code})"

    def _publish(self) -> None:
        higher = {"$lt": [{"$ifNull": ["$fence", 0]}, self.fence]}
        change = {
            "fence": {"$max": [{"$ifNull": ["$fence", 0]}, self.fence]},
            "owner": {"$cond": [higher, self.owner, "$owner"]},
        }
        _surely(
            lambda: self._collection.update_one({"_id": FENCE}, [{"$set": change}], upsert=True)
        )

    def _keep(self) -> None:
        """The heartbeat: a quarter of the lease between beats, quicker after a failed one."""
        interval = self._length / _BEATS_PER_LEASE
        pause = interval
        while not self._over.wait(pause):
            before = self._clock()
            try:
                with pymongo.timeout(interval):
                    kept = self._collection.update_one(self._mine, [_beat(self._milliseconds)])
            except PyMongoError:
                # The deadline decides whether this was one beat too many, not the error.
                pause = min(interval, 1.0)
                continue
            if not kept.matched_count:
                self._lost = "another process took it over, or it was ended by hand"
                return
            self._deadline = before + self._length
            pause = interval

    @property
    def _mine(self) -> dict[str, Any]:
        return {"_id": LOCK, "owner": self.owner, "fence": self.fence}

    @property
    def lost(self) -> str | None:
        """Why the lease can no longer be trusted, or None while it is ours."""
        if self._lost is None and self._clock() >= self._deadline:
            return "its heartbeat did not reach the server in time"
        return self._lost

    def check(self) -> None:
        """Go on only while the lease is ours.

        Raises:
            LockLost: it is not.
        """
        if self.lost is not None:
            raise self.gone(self.lost)

    def gone(self, reason: str) -> LockLost:
        """The error for a lease that was lost."""
        return LockLost(
            f"this process lost the lock (fence {self.fence}): {reason}",
            hint="look at `mongover lock` and `mongover status`; the next upgrade goes on",
            after="nothing more was written.",
        )

    def guard(self, session: ClientSession) -> None:
        """Write the fence in the session's transaction: it commits only if nobody took over.

        Raises:
            LockLost: somebody did.
        """
        ours = {"_id": FENCE, "owner": self.owner, "fence": self.fence}
        found = self._collection.update_one(ours, {"$inc": {"writes": 1}}, session=session)
        if found.matched_count != 1:
            raise self.gone("a newer holder published its fence")

    def release(self) -> None:
        """End the heartbeat and give the lease back, if it is still ours."""
        self._over.set()
        if self._beat is not None:
            self._beat.join()
            self._beat = None
        now = {"expires_at": "$$NOW", "released_at": "$$NOW"}
        freed: dict[str, Any] = {"owner": None, "lsid": None, "dead": [], **now}
        _surely(
            lambda: self._collection.update_one(self._mine, [{"$set": freed}]),
            patience=self._length / _BEATS_PER_LEASE,
        )


def _acquisition(
    owner: str, holder: Mapping[str, Any], lsid: Mapping[str, Any], milliseconds: int
) -> list[dict[str, Any]]:
    previous = {
        "owner": "$owner",
        "fence": "$fence",
        "holder": "$holder",
        "heartbeat_at": "$heartbeat_at",
        "lsid": "$lsid",
    }
    # A repeat of our own attempt must not take ourselves for the previous holder.
    another = {"$and": [{"$gt": ["$owner", None]}, {"$ne": ["$owner", owner]}]}
    none = {"$cond": [{"$eq": ["$owner", owner]}, "$prev", None]}
    # All since the last release: whoever took over may have died before it ended any of them.
    dead = {"$cond": [{"$isArray": "$dead"}, "$dead", []]}
    last = {"$cond": [{"$and": [another, {"$eq": [{"$type": "$lsid"}, "object"]}]}, ["$lsid"], []]}
    taken = {
        "prev": {"$cond": [another, previous, none]},
        "dead": {"$slice": [{"$concatArrays": [dead, last]}, -_DEAD_LIMIT]},
        "owner": {"$literal": owner},
        "fence": {"$add": [{"$ifNull": ["$fence", 0]}, {"$toLong": 1}]},
        "acquired_at": "$$NOW",
        "heartbeat_at": "$$NOW",
        "expires_at": {"$add": ["$$NOW", milliseconds]},
        "holder": {"$literal": holder},
        "lsid": {"$literal": dict(lsid)},
    }
    return [{"$set": taken}]


def _beat(milliseconds: int) -> dict[str, Any]:
    kept = {"heartbeat_at": "$$NOW", "expires_at": {"$add": ["$$NOW", milliseconds]}}
    return {"$set": kept}


def _surely(call: Callable[[], Any], *, patience: float = _PATIENCE) -> Any:
    """Make an idempotent call again while it is unknown whether it arrived."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return call()
        except PyMongoError as error:
            if not is_unsure(error) or time.monotonic() >= deadline:
                raise
            time.sleep(_FIRST_PAUSE)


def _still_held(state: LeaseState) -> LockHeld:
    return LockHeld(
        f"the lock is still held by {state.who()} ({state.holder.get('command', '?')}): its last "
        f"heartbeat is {state.heartbeat_seconds:.0f} s old, so it is working, not stuck",
        hint="wait, or run again with a longer --lock-wait; `mongover lock` shows what it does",
        after="nothing was run.",
    )
