"""The way of one attempt through its operations, beside what earlier attempts recorded.

Pure: what is recorded is a `Ledger`; the journal writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mongover.errors import Blocked
from mongover.history.ledger import KEPT, TEXT, Begun, End, Entry, Risk, rolled

if TYPE_CHECKING:
    from typing import Final

    from mongover.history.ledger import Ledger


_NEW_VALUES: Final = (
    '; where only values differ that are new each time: mongover resolve {} --retry --reason "…"'
)


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
    _checked: bool = False
    _refused: Blocked | None = None

    def __post_init__(self) -> None:
        self.ledger = self.found

    def anew(self) -> Passage:
        """The way of one more try, from the first operation on: its transaction was undone."""
        return Passage(self.revision, self.found, lenient=self.lenient)

    def arrive(self, operation: str, identity: str) -> Entry | Begun | None:
        """What is recorded of the operation that the code asks for now; None if nothing.

        Raises:
            Blocked: the code asks for another sequence than the one that is recorded.
        """
        if self._refused is not None:
            raise self._refused
        self._settle()
        self.place, self._next = self._next, self._next + 1
        self._asked = Begun(operation[:TEXT], identity, end=End.NOTHING)
        if self.place < self.found.done:
            return self._pass(operation[:TEXT], identity)
        self._check_digest()
        begun = self.found.begun if self.place == self.found.done else None
        if begun is None or begun.end is End.NOTHING:
            return None
        if begun.identity == identity:
            return begun
        if self.lenient:
            return None
        raise self._other(begun.operation, operation)

    def _settle(self) -> None:
        """An operation of this attempt that did not finish has raised, and the code caught it."""
        if self.place >= self.found.done and self.ledger.done == self.place:
            self.loose = self.loose or self._current.end is not End.NOTHING
            self.end("failed")

    @property
    def _current(self) -> Begun:
        """The operation of this place; one that ended before it was noted changed nothing."""
        begun = self.ledger.begun
        return self._asked if begun is None or begun.identity != self._asked.identity else begun

    def _pass(self, operation: str, identity: str) -> Entry | None:
        entry = self._entry(operation, identity)
        if entry is None:
            self.found = self.ledger = self.found.cut(self.place, self._digest)
            return None
        self._digest = rolled(self._digest, entry.identity)
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
        """Compare those that are not kept one by one, once all of them have come.

        A person's word does not cover them: of these nothing else tells an edit.
        """
        if self._checked or self.found.done <= KEPT or self.lenient:
            return
        self._checked = True
        if self._digest != self.found.digest:
            these = f"one of {KEPT + 1:,} to {self.found.done:,}"
            raise self._other(these, "another one", retry=False)

    def begin(self, begun: Begun) -> bool:
        """Note the operation that begins; whether that must be written down.

        One that is tried again in its old place changes nothing of what is recorded.
        """
        if self.place < self.found.done:
            return False
        begun = replace(begun, operation=begun.operation[:TEXT])
        if self.lenient:
            begun = replace(begun, risk=Risk.NONE, proof=None)
        self.ledger = self.ledger.begin(begun)
        return True

    def left(self, end: End) -> None:
        """The operation ended with an error."""
        if self.place >= self.found.done:
            self.ledger = self.ledger.left(end)

    def end(self, outcome: str) -> None:
        """The operation finished."""
        if self.place >= self.found.done:
            self.ledger = self.ledger.begin(self._current).finish(outcome)

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
        self._check_digest()
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

    def _other(self, recorded: str, asked: str, *, retry: bool = True) -> Blocked:
        begun = self._next > self.found.done
        did = "began" if begun or self.place >= self.found.done else "did"
        self._refused = Blocked(
            f"{self.revision} was edited, or its code depends on data: an earlier attempt {did}"
            f" `{recorded}` as operation {min(self._next, self.found.done + 1)},"
            f" where the code asks for `{asked}` now",
            hint="put its operations back as they were; or undo by hand what was done and begin"
            f' anew: mongover resolve {self.revision} --reverted --reason "…"'
            + (_NEW_VALUES.format(self.revision) if retry else ""),
            notes=self.found.said,
        )
        return self._refused
