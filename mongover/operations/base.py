"""The contract of every operation: what it says, does and knows of itself, and its journal.

An operation is a frozen value. It reaches the server only through its `Target`. How arguments are
checked and rendered is in `arguments`; how DDL is sent, in `ddl`.
"""

from __future__ import annotations

import contextvars
from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from mongover.operations.arguments import call, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping
    from contextlib import AbstractContextManager
    from typing import ClassVar, NoReturn

    from pymongo.database import Database

    from mongover.config.names import OwnCollections


Document = dict[str, Any]
Need = Literal[
    "time series",
    "clustered collections",
    "pre-images",
    "change of a capped size",
    "TTL on a plain index",
    "prepareUnique",
    "constraint, errorAndLog",
]
"""What an operation may need that not every server has, as `Abilities` knows it."""
Outcome = Literal["done", "unchanged", "warning"]
T = TypeVar("T")
TRANSACTION_HINT = "set `transaction = False` in the revision, or move this into one of its own"


class Journal(Protocol):
    """The runner's side of an operation: it is asked before acts and told after them."""

    def check(self) -> None:
        """Raise when the run must stop (lease lost, signal); before each operation and batch."""
        ...

    def unrepeatable(self, reason: str) -> None:
        """Note, before the first such act, that the revision cannot be repeated; idempotent."""
        ...

    def touched(self, collection: str) -> None:
        """Note that the revision works on a collection."""
        ...

    def warning(self, message: str) -> None:
        """Keep a warning on the record of the revision."""
        ...

    def arrive(self, operation: Operation) -> Former | None:
        """What earlier attempts recorded of the operation that comes now; None if nothing.

        One that they finished is not run again.

        Raises:
            Blocked: they recorded another sequence of operations.
        """
        ...

    def begin(self, operation: Operation, stake: Stake) -> None:
        """Record, before it changes anything, that an operation begins."""
        ...

    def broke_off(self, operation: Operation, error: BaseException) -> None:
        """An operation that began ends with an error."""
        ...

    def held(self, operation: Operation) -> None:
        """Note that checkpoints in the transactions of its batches hold all that it does."""
        ...

    def lost_track(self, operation: Operation) -> NoReturn:
        """Raise: nothing tells whether an operation that was begun was carried out."""
        ...

    def operation_started(self, operation: Operation) -> None:
        """An operation begins."""
        ...

    def operation_finished(self, operation: Operation, seconds: float, outcome: str) -> None:
        """An operation ended as `done`, `unchanged` or `warning`; not called when it raised."""
        ...

    def progress(self, operation: Operation, advance: Advance) -> None:
        """An operation got so far."""
        ...

    def ticket(self, operation: Operation) -> Ticket | None:
        """Where a long operation keeps its checkpoints; None where there can be none.

        Each call is one more operation of the revision: an attempt that goes on after another
        gets the same tickets in the same order.
        """
        ...

    def edges(self) -> AbstractContextManager[None]:
        """While it lasts, a wish to stop interrupts nothing, but is met by `edge`."""
        ...

    def edge(self) -> None:
        """Raise when the run must stop; called between two batches, where nothing is half-done."""
        ...

    def message(self, text: str) -> None:
        """A line that the revision itself wants to be seen."""
        ...


@dataclass(frozen=True, slots=True)
class Stake:
    """What a second run of an operation could do where the end of the first is not known.

    Attributes:
        risk: `none`, `loss` (it takes away what has come since), or `twice` (it changes again what
            is changed already).
        proof: By what `Operation.landed` can see whether it was carried out.
    """

    risk: Literal["none", "loss", "twice"] = "none"
    proof: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Former:
    """What earlier attempts recorded of an operation.

    Attributes:
        outcome: How it ended; empty when it began and its end is not recorded.
        proof: What its `Stake` held then.
    """

    outcome: str = ""
    proof: Mapping[str, Any] | None = None


class Door(Protocol):
    """How a worker in another process gets at the database and the revision's code; picklable."""

    def database(self) -> AbstractContextManager[Database[Document]]:
        """The database, over a client of its own."""
        ...

    def function(self, name: str) -> Callable[..., Any]:
        """A function or class at the top level of the revision's module."""
        ...


@dataclass(frozen=True, slots=True)
class Ticket:
    """One long operation of one attempt, as its checkpoints name it; picklable.

    Attributes:
        own: The names of the collections of checkpoints, of what is kept aside, and of backups.
        ordinal: The place of the operation among those of the revision.
        part: Which of the operation's own long works it is; most have one.
        owner: The holder of the lease.
        fence: Its fence.
    """

    own: OwnCollections
    revision: str
    direction: str
    ordinal: int
    owner: str
    fence: int
    module: str = ""
    door: Door | None = None
    part: int = 0

    @property
    def key(self) -> str:
        """The `_id` of the operation's head document."""
        part = f".{self.part}" if self.part else ""
        return f"{self.revision}/{self.direction}/{self.ordinal:04d}{part}"


@dataclass(frozen=True, slots=True)
class Advance:
    """How far an operation is.

    Attributes:
        done: Documents that are done.
        total: How many there are, where that is known.
        before: How many of those that are done an earlier attempt did.
        place: Where the operation is, if it goes through a collection by `_id`.
    """

    done: int
    total: int | None
    before: int = 0
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a collection an operation is.

    Attributes:
        ranges: How many ranges of `_id` the collection was cut into.
        ranges_done: How many of them are done.
        reached: The highest `_id` that a batch reached, for people: one line of at most 40 signs;
            empty before the first. Ranges below it need not be done.
    """

    ranges: int
    ranges_done: int
    reached: str


class Outside(Protocol):
    """Runs a read outside the session of the transaction."""

    def __call__(self, read: Callable[[], T], /) -> T:
        """What the read returned."""
        ...


class Watch(Protocol):
    """Who keeps an eye on what a revision makes and destroys."""

    def begin(self, operation: Operation) -> None:
        """An operation is about to run; raises where it must not."""
        ...

    def escape(self) -> None:
        """The revision is about to do something by itself."""
        ...


def fresh_context(read: Callable[[], T], /) -> T:
    """Run a read in an empty context, where no session is bound."""
    return contextvars.Context().run(read)


class Abilities(Protocol):
    """What the connected server can do."""

    def has(self, feature: Need, /) -> bool:
        """Whether it can do it."""
        ...

    def lacks(self, feature: Need, /) -> str:
        """Why it cannot do it, with the version that can; empty where it can."""
        ...


@dataclass(frozen=True, slots=True)
class Unasked:
    """A server that nobody asked: it may have everything, and refuses by itself what it has not."""

    def has(self, feature: Need, /) -> bool:
        """It may."""
        del feature
        return True

    def lacks(self, feature: Need, /) -> str:
        """Nothing is known."""
        del feature
        return ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how operations run.

    Attributes:
        db: The database, with majority read and write concern, on the primary.
        journal: The runner.
        transaction: Whether a transaction is open and its session is bound.
        transactions: Whether the server has transactions (a replica set).
        strict: Whether a failing creation of a collection or index stops the revision.
        max_time_ms: How long one short DDL command may wait for its lock.
        attempts: How often such a command is sent before it is given up.
        protected: Collections that no operation may name (mongover's own).
        outside: Runs a read outside the bound session.
        created: The collections created in this transaction so far; the operations add to it.
        watch: Who is told of every operation before it, and may refuse it.
        server: What the server can do: asked before anything is sent to it.
    """

    db: Database[Document]
    journal: Journal
    transaction: bool = False
    transactions: bool = False
    strict: bool = True
    max_time_ms: int = 2_000
    attempts: int = 12
    protected: Container[str] = frozenset()
    outside: Outside = fresh_context
    created: set[str] = field(default_factory=set)
    watch: Watch | None = None
    server: Abilities = Unasked()

    def namespace(self, collection: str) -> str:
        """`database.collection`, as messages name it."""
        return f"{self.db.name}.{collection}"


class Operation(ABC):
    """One reversible verb of `op`; its subclasses are frozen, slotted dataclasses.

    A subclass of your own may be given to `op.run`; unless it says that it is `repeatable`, a
    revision that used it outside a transaction is not continued by itself after a crash.
    """

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Any]]

    verb: ClassVar[str] = ""
    """The method of `op` that makes this operation."""
    creation: ClassVar[bool] = False
    """Whether `strict = false` turns its failure into a warning."""
    atomic: ClassVar[bool] = False
    """Whether an error of the server means that nothing was changed."""
    refusal: ClassVar[str] = ""
    """Why MongoDB never takes it in a transaction, if it does not."""

    @abstractmethod
    def describe(self) -> str:
        """One short line, such as `index users.email unique`."""

    @abstractmethod
    def apply(self, target: Target) -> Outcome:
        """Do it; `unchanged` when it was so already."""

    @property
    def repeatable(self) -> bool:
        """Whether doing it twice is the same as doing it once."""
        return False

    @property
    def several(self) -> bool:
        """Whether it takes several commands, so that an error may leave some of it done."""
        return False

    @property
    def destructive(self) -> bool:
        """Whether it takes data away, so that a second run could take what has come since."""
        return False

    def proof(self, target: Target) -> Mapping[str, Any] | None:
        """What `landed` needs to see later whether it was carried out; None if nothing can."""
        del target
        return None

    def landed(self, target: Target, proof: Mapping[str, Any]) -> bool | None:
        """Whether it was carried out after the proof was taken; None where that cannot be seen."""
        del target, proof
        return None

    def stake(self, target: Target) -> Stake:
        """What a second run could do where the end of this one is not known."""
        if target.transaction:
            return Stake()
        if not self.repeatable and not self.exactly_once(target):
            return Stake("twice")
        return Stake("loss", self.proof(target)) if self.destructive else Stake()

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it needs that not every server has; without it nothing is sent."""
        return ()

    @property
    def collections(self) -> tuple[str, ...]:
        """The collections that it names as its own."""
        name = getattr(self, "collection", None)
        return (name,) if isinstance(name, str) else ()

    def exactly_once(self, target: Target) -> bool:
        """Whether a repeat after a crash would not do it again, although it is not `repeatable`.

        True where checkpoints stand in the same transaction as what they tell of.
        """
        return target.transaction

    def identity(self) -> dict[str, Any]:
        """What a later attempt knows it by, as JSON; by default all of it."""
        pace = getattr(self, "pace", None)
        slow = pace.options() if pace else {}
        beside = {*slow, "even_if_not_ours"}
        return {name: value for name, value in self.to_json().items() if name not in beside}

    def reverse(self) -> Operation | None:
        """What undoes it where it found nothing before, or None where nothing can."""
        return None

    def refused(self, target: Target) -> str:
        """Why it cannot run in the open transaction, or an empty string; reads only."""
        del target
        return self.refusal

    def arguments(self) -> tuple[list[Any], Mapping[str, Any]]:
        """What the method of `op` is called with: the fields, optional ones by keyword."""
        positional: list[Any] = []
        keyword: dict[str, Any] = {}
        for item in _said(self):
            value = getattr(self, item.name)
            if item.default is MISSING and item.default_factory is MISSING:
                positional.append(value)
            elif item.name == "pace":
                keyword |= value.options() if value else {}
            elif value != _default(item):
                keyword[item.name] = value
        return positional, keyword

    def render(self) -> str:
        """The call as Python source; values beyond JSON need `datetime`, `re` and bson's names."""
        positional, keyword = self.arguments()
        return call(f"op.{self.verb}", positional, keyword)

    def to_json(self) -> dict[str, Any]:
        """The operation as a JSON document."""
        values = {item.name: getattr(self, item.name) for item in _said(self)}
        if pace := values.pop("pace", None):
            values |= pace.options()
        return {"operation": self.verb, **{name: plain(value) for name, value in values.items()}}


def _said(operation: Operation) -> list[Any]:
    """The fields that make an operation what it is; what is not compared is a note beside it."""
    return [item for item in fields(operation) if item.compare]


def _default(item: Any) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()
