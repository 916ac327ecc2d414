"""What the operations of one revision did, in order, so that no later attempt does them again.

Pure. How an attempt walks beside it is in `running/passage`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final


KEPT: Final = 200
"""So many finished operations are kept one by one; of the rest only a digest."""
TEXT: Final = 120
_SHOWN: Final = 5


class Risk(StrEnum):
    """What a second run of an operation could do where the end of the first is not known."""

    NONE = "none"
    LOSS = "loss"  # take away what has come since
    TWICE = "twice"  # change what is changed already


class End(StrEnum):
    """What is known of the end of an operation that began and did not finish."""

    UNKNOWN = "unknown"
    FAILED = "failed"  # it ended with an error, and may have changed something
    NOTHING = "nothing"  # it changed nothing
    HELD = "held"  # between two batches: its checkpoints hold what it did


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished operation."""

    operation: str
    identity: str
    outcome: str

    def to_document(self) -> dict[str, str]:
        """As it is stored."""
        return {
            "operation": self.operation,
            "identity": self.identity,
            "outcome": self.outcome,
        }


@dataclass(frozen=True, slots=True)
class Begun:
    """An operation that began and whose end is not recorded.

    Attributes:
        proof: By what a later attempt can see whether it was carried out, if by anything.
    """

    operation: str
    identity: str
    risk: Risk = Risk.NONE
    end: End = End.UNKNOWN
    proof: Mapping[str, Any] | None = None

    @property
    def unclear(self) -> bool:
        """Whether only a person can say if it may run again."""
        if self.proof is not None or self.risk is Risk.NONE:
            return False
        if self.risk is Risk.TWICE:
            return self.end in {End.UNKNOWN, End.FAILED}
        return self.end is End.UNKNOWN

    def to_document(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "operation": self.operation,
            "identity": self.identity,
            "risk": self.risk.value,
            "end": self.end.value,
            "proof": None if self.proof is None else dict(self.proof),
        }


@dataclass(frozen=True, slots=True)
class Ledger:
    """The finished operations of one direction of a revision, and the one that was begun.

    Attributes:
        done: How many are finished.
        digest: Over the identities of all of them, in order.
        entries: The first of them.
        begun: The one after them, if it began.
        trusted: Whether a person said that what is done counts, even if its values differ now.
    """

    done: int = 0
    digest: str = ""
    entries: tuple[Entry, ...] = ()
    begun: Begun | None = None
    trusted: bool = False

    @property
    def blocked(self) -> bool:
        """Whether only a person can say how to go on."""
        return self.begun is not None and self.begun.unclear

    @property
    def empty(self) -> bool:
        """Whether nothing was begun."""
        return not self.done and self.begun is None

    @property
    def said(self) -> tuple[str, ...]:
        """What is done and what is not known, a line each, for people."""
        lines = []
        if self.done:
            names = [entry.operation for entry in self.entries[-_SHOWN:]]
            more = self.done - len(names)
            lines.append(f"done: {f'{more:,} more, ' if more else ''}{', '.join(names)}")
        if self.begun is not None and self.begun.end is not End.NOTHING:
            ends = {End.FAILED: "failed part-way", End.HELD: "stopped between two batches"}
            end = ends.get(self.begun.end, "not known how far it came")
            lines.append(f"begun: {self.begun.operation} ({end})")
        return tuple(lines)

    def begin(self, begun: Begun) -> Ledger:
        """With an operation that begins."""
        return replace(self, begun=begun)

    def left(self, end: End) -> Ledger:
        """With what is known of the end of the one that was begun."""
        if self.begun is None:
            return self
        proof = self.begun.proof if end is End.UNKNOWN else None
        return replace(self, begun=replace(self.begun, end=end, proof=proof))

    def finish(self, outcome: str) -> Ledger:
        """With the one that was begun as finished."""
        if self.begun is None:
            return self
        entry = Entry(self.begun.operation, self.begun.identity, outcome)
        entries = (*self.entries, entry) if self.done < KEPT else self.entries
        digest = rolled(self.digest, entry.identity)
        return replace(self, done=self.done + 1, digest=digest, entries=entries, begun=None)

    def cut(self, place: int, digest: str) -> Ledger:
        """Only what was finished before a place."""
        return Ledger(place, digest, self.entries[:place])

    def retried(self) -> Ledger:
        """After a person's word that it may go on: what was begun may run, whatever it did."""
        return replace(self, begun=None, trusted=True)

    def to_document(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "done": self.done,
            "digest": self.digest,
            "entries": [entry.to_document() for entry in self.entries],
            "begun": None if self.begun is None else self.begun.to_document(),
            "trusted": self.trusted,
        }


def parse_ledger(document: Mapping[str, Any]) -> Ledger:
    """The ledger that a stored document holds.

    Raises:
        ValueError, KeyError, TypeError: it makes no sense.
    """
    begun = document["begun"]
    entries = [
        Entry(str(one["operation"]), str(one["identity"]), str(one["outcome"]))
        for one in document["entries"]
    ]
    return Ledger(
        int(document["done"]),
        str(document["digest"]),
        tuple(entries),
        None if begun is None else _parse_begun(begun),
        bool(document["trusted"]),
    )


def _parse_begun(document: Mapping[str, Any]) -> Begun:
    return Begun(
        str(document["operation"]),
        str(document["identity"]),
        Risk(document["risk"]),
        End(document["end"]),
        document["proof"],
    )


def rolled(digest: str, identity: str) -> str:
    """The digest of a sequence with one more identity."""
    return hashlib.sha256(f"{digest}{identity}".encode()).hexdigest()[:32]
