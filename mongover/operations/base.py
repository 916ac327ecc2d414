"""What every operation is made of: the contract with the runner, names, source text, DDL.

An operation is a frozen value. It says what it would do (`describe`, `render`, `to_json`), does it
(`apply`) and knows what undoes it (`reverse`). It reaches the server only through its `Target`.
"""

from __future__ import annotations

import contextvars
import math
import time
from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Protocol, TypeVar

from mongover.errors import OperationFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping
    from contextlib import AbstractContextManager

    from pymongo.database import Database
    from pymongo.errors import OperationFailure

Document = dict[str, Any]
Outcome = Literal["done", "unchanged", "warning"]
T = TypeVar("T")

LOCK_CODES = frozenset({24, 50})
"""LockTimeout and MaxTimeMSExpired: the collection was busy, the command may be sent again."""

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
        checkpoints: The collection of the checkpoints.
        rejects: The collection of the documents that were kept aside.
        ordinal: The place of the operation among those of the revision.
        part: Which of the operation's own long works it is; most have one.
        owner: The holder of the lease.
        fence: Its fence.
    """

    checkpoints: str
    rejects: str
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
        return ""

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


# -- source text and JSON ---------------------------------------------------------------------


def call(function: str, positional: Iterable[Any], keyword: Mapping[str, Any]) -> str:
    """A call as Python source; keywords that are no identifiers are spread from a dict."""
    parts = [source(value) for value in positional]
    parts += [f"{name}={source(value)}" for name, value in keyword.items() if name.isidentifier()]
    odd = {name: value for name, value in keyword.items() if not name.isidentifier()}
    if odd:
        parts.append(f"**{source(odd)}")
    return f"{function}({', '.join(parts)})"


def source(value: Any) -> str:
    """A value as Python source, strings in double quotes as the house formats them."""
    match value:
        case Source():
            return value.text
        case dict():
            return "{" + ", ".join(f"{source(k)}: {source(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return _sequence(value)
        case float() if not math.isfinite(value):
            return f'float("{value}")'
        case _:
            return _quoted(value) if type(value) is str else repr(value)


def _sequence(value: list[Any] | tuple[Any, ...]) -> str:
    body = ", ".join(source(item) for item in value)
    if isinstance(value, list):
        return f"[{body}]"
    return f"({body},)" if len(value) == 1 else f"({body})"


def one_line(text: str) -> str:
    """The text with line breaks and other control signs written out: names may hold any."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _quoted(text: str) -> str:
    single = repr(text)
    if single[0] == '"' or '"' in text:
        return single
    return f'"{single[1:-1]}"'


@dataclass(frozen=True, slots=True)
class Source:
    """A piece of Python source that stands for itself where values are rendered."""

    text: str


def plain(value: Any) -> Any:
    """A value as JSON can hold it; BSON types become MongoDB's extended JSON."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if type(value) is int or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return _extended(value)


def _extended(value: Any) -> Any:
    from bson import json_util  # noqa: PLC0415 - bson costs 50 ms, most values never need it

    try:
        # The parts may be BSON values again, as the id of a DBRef.
        return plain(json_util.default(value))
    except TypeError:
        return f"<{type(value).__name__}>"


# -- checks of arguments ----------------------------------------------------------------------


def check_name(name: Any, *, what: str = "a collection") -> str:
    """A collection name that the server would take and that is no collection of its own.

    Raises:
        OperationFailed: For an empty name, `$`, a NUL, a dot at an end, or `system.`.
    """
    if not isinstance(name, str) or not name:
        raise OperationFailed(f"{what} needs a name: {name!r} is none")
    if "$" in name or "\0" in name or ".." in name or name[0] == "." or name[-1] == ".":
        raise OperationFailed(
            f"{name!r} cannot name {what}",
            hint="a name has no `$`, no NUL and no dot at an end or beside another",
        )
    if name.startswith("system."):
        raise OperationFailed(
            f"{name!r} belongs to the server itself", hint="what must be done there goes by op.db"
        )
    return name


def check_path(path: Any, *, what: str = "a field") -> str:
    """A field path that can be updated: no empty part and no part that begins with `$`."""
    if not isinstance(path, str) or not path:
        raise OperationFailed(f"{what} needs a name: {path!r} is none")
    if any(not part or part.startswith("$") or "\0" in part for part in path.split(".")):
        raise OperationFailed(
            f"{path!r} cannot name {what}", hint='write a path like "address.city"'
        )
    return path


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """One of a few words, or OperationFailed with the nearest one."""
    words = tuple(allowed)
    if value in words:
        return str(value)
    raise OperationFailed(
        f"{name} cannot be {value!r}", hint=nearest(str(value), words) or f"one of {_list(words)}"
    )


def nearest(word: str, words: Iterable[str]) -> str:
    """`did you mean "x"?`, or an empty string."""
    found = get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f'did you mean "{found[0]}"?' if found else ""


def _list(words: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def snake(name: str) -> str:
    """MongoDB's name of an option in Python's spelling: `validationLevel`, `validation_level`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def mongo_options(
    options: Mapping[str, Any], *, known: Mapping[str, str], what: str
) -> dict[str, Any]:
    """Options by MongoDB's names, in the order of `known`; None means not given.

    Args:
        options: As the caller spelt them, in Python's or in MongoDB's way.
        known: Every allowed spelling and MongoDB's name for it.
        what: What the options belong to, for the message.

    Raises:
        OperationFailed: For an unknown option, or one that is given in both spellings.
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise OperationFailed(
                f"{what} has no option {name!r}",
                hint=nearest(name, known) or f"it has {', '.join(sorted(known))}",
            )
        if known[name] in found:
            raise OperationFailed(f"{what}: {known[name]} is given twice")
        if value is not None:
            found[known[name]] = value
    order = list(dict.fromkeys(known.values()))
    return {name: found[name] for name in order if name in found}


def spellings(names: Iterable[str]) -> dict[str, str]:
    """Every allowed spelling of MongoDB's option names, Python's first."""
    table: dict[str, str] = {}
    for name in names:
        table[snake(name)] = name
        table[name] = name
    return table


# -- commands ---------------------------------------------------------------------------------


def ddl(target: Target, command: Document, *, admin: bool = False) -> Document:
    """Send one short DDL command, never waiting long for its lock, and return the reply.

    A command that waits for a collection's lock makes every later write of the application wait
    behind it, so each attempt carries `maxTimeMS`, and attempts are bounded. In a transaction it
    is sent once: the server has its own 5 ms limit there, and an error ends the transaction.

    Raises:
        OperationFailed: When the lock could not be had in all attempts.
        OperationFailure: Whatever else the server answers.
    """
    if target.transaction:
        return _send(target, command, admin=admin)
    limited = {**command, "maxTimeMS": target.max_time_ms}
    return patiently(target, lambda: _send(target, limited, admin=admin), what=_subject(command))


def patiently(target: Target, send: Callable[[], T], *, what: str) -> T:
    """Call `send` until it does not run into a lock; between the calls the application's turn."""
    from pymongo.errors import OperationFailure  # noqa: PLC0415 - heavy, needed only to run

    for attempt in range(target.attempts):
        target.journal.check()
        try:
            return send()
        except OperationFailure as error:
            if error.code not in LOCK_CODES:
                raise
            if attempt == target.attempts - 1:
                raise _busy(target, what) from error
            time.sleep(min(0.05 * 2**attempt, 2.0))
    raise OperationFailed(f"{what}: no attempt is allowed", hint="attempts must be at least 1")


def _busy(target: Target, what: str) -> OperationFailed:
    return OperationFailed(
        f"{what} got no lock in {target.attempts} attempts of {target.max_time_ms} ms",
        hint="a long transaction or operation holds it: look with db.currentOp(), then run again",
        after="the command was not carried out.",
    )


def _subject(command: Document) -> str:
    name, value = next(iter(command.items()))
    return f"{name} {value}"


def _send(target: Target, command: Document, *, admin: bool) -> Document:
    db = target.db.client["admin"] if admin else target.db
    concern = target.db.write_concern.document
    if concern and not target.transaction:
        command = {**command, "writeConcern": concern}
    reply: Document = dict(db.command(command))
    if "writeConcernError" in reply:
        raise _unconfirmed(reply)
    return reply


def _unconfirmed(reply: Document) -> OperationFailure:
    # pymongo's command() leaves this part of a good reply alone: it was done, but a majority
    # has not confirmed it. The runner treats it like a lost reply.
    from pymongo.errors import WriteConcernError  # noqa: PLC0415 - heavy, needed only to run

    error = reply["writeConcernError"]
    return WriteConcernError(str(error.get("errmsg", "")), error.get("code"), error)


def stored_collection(target: Target, name: str) -> Document | None:
    """What `listCollections` says of one collection, read outside any transaction."""

    def read() -> Document | None:
        found = target.db.list_collections(filter={"name": name})
        return next((dict(entry) for entry in found), None)

    return target.outside(read)
