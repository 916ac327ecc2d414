"""What the operations of one revision did, in order, so that no later attempt does them again.

Everything here is pure. A `Ledger` is what the record keeps; a `Passage` is the way of one attempt
through the operations of its revision, compared step by step with what earlier attempts recorded.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import Blocked

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT: Final = 200
"""So many finished operations are kept one by one; of the rest only a digest."""

_TEXT: Final = 120
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
        digest = _rolled(self.digest, entry.identity)
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


def _rolled(digest: str, identity: str) -> str:
    return hashlib.sha256(f"{digest}{identity}".encode()).hexdigest()[:32]


@dataclass(slots=True)
class Passage:
    """The way of one attempt through its operations, beside what earlier attempts recorded.

    Attributes:
        revision: Whose operations they are, for messages.
        found: What earlier attempts recorded.
        lenient: The revision says of itself that it can be repeated: then another sequence is
            no reason to stop, and what differs runs.
        ledger: What is recorded now, with what this attempt did.
        loose: The code went on after an operation of this attempt that broke off half-way.
    """

    revision: str
    found: Ledger
    lenient: bool = False
    ledger: Ledger = field(init=False)
    place: int = -1
    loose: bool = False
    _next: int = 0
    _asked: Begun = field(default_factory=lambda: Begun("", ""))
    _digest: str = ""
    _refused: Blocked | None = None

    def __post_init__(self) -> None:
        self.ledger = self.found

    def arrive(self, operation: str, identity: str) -> Entry | Begun | None:
        """What is recorded of the operation that the code asks for now; None if nothing.

        Raises:
            Blocked: the code asks for another sequence than the one that is recorded.
        """
        if self._refused is not None:
            raise self._refused
        self._settle()
        self.place, self._next = self._next, self._next + 1
        self._asked = Begun(operation[:_TEXT], identity, end=End.NOTHING)
        if self.place < self.found.done:
            return self._pass(operation[:_TEXT], identity)
        self._check_digest()
        begun = self.found.begun if self.place == self.found.done else None
        if begun is None or begun.end is End.NOTHING:
            return None
        if begun.identity == identity or self.lenient:
            return begun
        raise self._other(begun.operation, operation)

    def _settle(self) -> None:
        """An operation of this attempt that did not finish has raised, and the code caught it."""
        if self.place >= self.found.done and self.ledger.done == self.place:
            begun = self.ledger.begun or self._asked
            self.loose = self.loose or begun.end is not End.NOTHING
            self.ledger = self.ledger.begin(begun).finish("failed")

    def _pass(self, operation: str, identity: str) -> Entry | None:
        entry = self._entry(operation, identity)
        if entry is None:
            self.found = self.ledger = self.found.cut(self.place, self._digest)
            return None
        self._digest = _rolled(self._digest, entry.identity)
        # What `strict = false` forgave is tried again: its warning would be gone otherwise.
        return None if entry.outcome == "warning" else entry

    def _entry(self, operation: str, identity: str) -> Entry | None:
        """The entry at this place; None where what differs shall run."""
        kept = self.place < len(self.found.entries)
        if not kept:
            return None if self.lenient else Entry(operation, identity, "done")
        entry = self.found.entries[self.place]
        same = entry.identity == identity
        if same or (self.found.trusted and entry.operation == operation):
            return entry
        if self.lenient:
            return None
        raise self._other(entry.operation, operation)

    def _check_digest(self) -> None:
        first = self.place == self.found.done and self.found.done > KEPT
        if first and not self.found.trusted and self._digest != self.found.digest:
            raise self._other(f"one of {KEPT + 1:,} to {self.found.done:,}", "another one")

    def begin(self, begun: Begun) -> bool:
        """Note the operation that begins; whether that must be written down.

        One that is tried again in its old place changes nothing of what is recorded.
        """
        if self.place < self.found.done:
            return False
        begun = replace(begun, operation=begun.operation[:_TEXT])
        if self.lenient:
            begun = replace(begun, risk=Risk.NONE, proof=None)
        self.ledger = self.ledger.begin(begun)
        return True

    def end(self, outcome: str) -> None:
        """The operation finished."""
        if self.place >= self.found.done:
            self.ledger = self.ledger.finish(outcome)

    def close(self) -> None:
        """The code ended well.

        Raises:
            Blocked: it did not ask for all that earlier attempts did or began.
        """
        if self._refused is not None:
            raise self._refused
        self._settle()
        if self.lenient:
            return
        if self._next < self.found.done:
            entry = self.found.entries[self._next : self._next + 1]
            raise self._other(entry[0].operation if entry else "more", "nothing more")
        begun = self.found.begun
        if self._next == self.found.done and begun is not None and begun.end is not End.NOTHING:
            raise self._other(begun.operation, "nothing more")

    def lost_track(self) -> Blocked:
        """The error where what was begun left no trace that tells of its end."""
        begun = self.ledger.begun
        if begun is not None:
            self.ledger = self.ledger.begin(replace(begun, proof=None))
        self._refused = Blocked(
            f"{self.revision}: an earlier attempt began `{begun.operation if begun else ''}`, and "
            "nothing tells whether it was carried out",
            hint=f"look at what it left, then mongover resolve {self.revision} --retry | --applied"
            ' | --reverted --reason "…"',
            notes=self.found.said,
        )
        return self._refused

    def _other(self, recorded: str, asked: str) -> Blocked:
        begun = self._next > self.found.done
        did = "began" if begun or self.place >= self.found.done else "did"
        self._refused = Blocked(
            f"{self.revision} was edited, or its code depends on data: an earlier attempt {did}"
            f" `{recorded}` as operation {min(self._next, self.found.done + 1)},"
            f" where the code asks for `{asked}` now",
            hint="put its operations back as they were; or undo by hand what was done and begin"
            f' anew: mongover resolve {self.revision} --reverted --reason "…"; where only values'
            f" differ that are new each time: mongover resolve {self.revision} --retry"
            ' --reason "…"',
            notes=self.found.said,
        )
        return self._refused
