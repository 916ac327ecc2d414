"""Who may do what: bearer tokens, compared in constant time, and a brake on those who guess.

Nothing here knows of a web framework.
"""

from __future__ import annotations

import hmac
import math
import re
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from mongover.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WRITE_VARIABLE: Final = "MONGOVER_API_TOKEN"
READ_VARIABLE: Final = "MONGOVER_API_READ_TOKEN"
SHORTEST: Final = 24

_SIGNS: Final = re.compile(r"[!-~]+")
_LONGEST: Final = 1_024


class Scope(IntEnum):
    """What a caller may do, or what an endpoint asks for; each holds those before it."""

    OPEN = 0
    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True)
class Tokens:
    """The hashes of the configured tokens; None where there is none."""

    write: bytes | None = field(default=None, repr=False)
    read: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, *, write: str | None = None, read: str | None = None) -> Tokens:
        """The tokens given; an empty one counts as none.

        Raises:
            ConfigError: one is too short, holds a sign that a header cannot carry, or both are one.
        """
        if write and write == read:
            raise ConfigError(
                f"{WRITE_VARIABLE} and {READ_VARIABLE} are the same, so who reads could write",
                hint="choose another token for reading",
            )
        return cls(_hash_of(write, WRITE_VARIABLE), _hash_of(read, READ_VARIABLE))

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Tokens:
        """The tokens of `MONGOVER_API_TOKEN` and `MONGOVER_API_READ_TOKEN`.

        Raises:
            ConfigError: as `of`.
        """
        return cls.of(write=environ.get(WRITE_VARIABLE), read=environ.get(READ_VARIABLE))

    def scope_of(self, given: bytes) -> Scope | None:
        """What a token allows, in a time that does not depend on it; None for an unknown one."""
        digest = sha256(given).digest()
        found: Scope | None = None
        for scope, expected in ((Scope.READ, self.read), (Scope.WRITE, self.write)):
            same = hmac.compare_digest(digest, expected or b"\0" * len(digest))
            if same and expected is not None:
                found = scope
        return found


def _hash_of(token: str | None, name: str) -> bytes | None:
    if not token:
        return None
    if not _SIGNS.fullmatch(token):
        raise ConfigError(
            f"{name} holds a space or a sign outside ASCII, which a header cannot carry",
            hint=_MAKE_ONE.format(name),
        )
    if len(token) < SHORTEST:
        raise ConfigError(
            f"{name} has {len(token)} signs; at least {SHORTEST} are needed, so that nobody "
            "guesses it",
            hint=_MAKE_ONE.format(name),
        )
    return sha256(token.encode()).digest()


_MAKE_ONE: Final = (
    "make one: export {}=\"$(python -c 'import secrets; print(secrets.token_urlsafe(32))')\""
)


def bearer_of(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """The bearer token of the raw headers; None without one.

    Bytes, because a header may hold any: a comparison of texts would fail on some. Two
    `Authorization` headers count as none, for nobody can say which is meant.
    """
    found = [value for name, value in headers if name.lower() == b"authorization"]
    if len(found) != 1:
        return None
    scheme, _, token = found[0].strip().partition(b" ")
    token = token.strip()
    return token if scheme.lower() == b"bearer" and 0 < len(token) <= _LONGEST else None


class Verdict(IntEnum):
    """How a request stands before an endpoint."""

    ALLOWED = 0
    MISSING = 1  # no token was given
    WRONG = 2  # the token is not one of ours
    TOO_LITTLE = 3  # a token for reading was given where writing is asked for
    WRITES_OFF = 4  # no token for writing is configured


def judge(tokens: Tokens, needed: Scope, given: bytes | None) -> Verdict:
    """Whether a request with this token may do what is needed (pure)."""
    if needed is Scope.OPEN or (needed is Scope.READ and tokens.read is None):
        return Verdict.ALLOWED
    if needed is Scope.WRITE and tokens.write is None:
        return Verdict.WRITES_OFF
    if given is None:
        return Verdict.MISSING
    scope = tokens.scope_of(given)
    if scope is None:
        return Verdict.WRONG
    return Verdict.ALLOWED if scope >= needed else Verdict.TOO_LITTLE


class Throttle:
    """Counts wrong tokens per address; a right token is never asked about here.

    The newest `size` addresses are remembered, so that many of them cannot fill the memory.
    """

    def __init__(
        self,
        *,
        limit: int = 5,
        seconds: float = 60.0,
        size: int = 1_024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._seconds = seconds
        self._size = size
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def failed(self, address: str) -> int:
        """Note a wrong token; the seconds to wait when there were too many, else 0."""
        now = self._clock()
        times = self._failures.setdefault(address, deque(maxlen=self._limit))
        self._failures.move_to_end(address)
        while len(self._failures) > self._size:
            self._failures.popitem(last=False)
        while times and now - times[0] >= self._seconds:
            times.popleft()
        if len(times) == self._limit:
            return max(1, math.ceil(self._seconds - (now - times[0])))
        times.append(now)
        return 0
