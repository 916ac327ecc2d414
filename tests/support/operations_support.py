"""A notebook in the place of the runner, and an `op` on a real database."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import bson
from pymongo import WriteConcern

from mongover.config.names import OwnCollections
from mongover.database.server import describe_server
from mongover.operations import Operations, Target
from mongover.operations.base import Ticket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.database import Database

    from mongover.database.capabilities import Capabilities
    from mongover.operations import Operation
    from mongover.operations.base import Advance, Former, Place, Stake


@dataclass
class Notebook:
    """A Journal that remembers what it was told."""

    reasons: list[str] = field(default_factory=list)
    collections: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    started: list[Operation] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    steps: list[tuple[int, int | None]] = field(default_factory=list)
    places: list[Place | None] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    stakes: list[Stake] = field(default_factory=list)
    broken: list[Operation] = field(default_factory=list)
    holding: list[Operation] = field(default_factory=list)
    checks: int = 0
    stop_at: int | None = None
    tickets: int = 0
    fence: int = 1
    revision: str = field(default_factory=lambda: uuid.uuid4().hex)

    def check(self) -> None:
        self.checks += 1
        if self.stop_at is not None and self.checks >= self.stop_at:
            raise KeyboardInterrupt

    def unrepeatable(self, reason: str) -> None:
        self.reasons.append(reason)

    def touched(self, collection: str) -> None:
        self.collections.append(collection)

    def warning(self, message: str) -> None:
        self.warnings.append(message)

    def arrive(self, operation: Operation) -> Former | None:
        return None

    def begin(self, operation: Operation, stake: Stake) -> None:
        self.stakes.append(stake)
        if stake.risk == "twice":
            self.reasons.append(operation.describe())

    def broke_off(self, operation: Operation, error: BaseException) -> None:
        self.broken.append(operation)

    def held(self, operation: Operation) -> None:
        self.holding.append(operation)

    def lost_track(self, operation: Operation) -> NoReturn:
        raise AssertionError(operation.describe())

    def operation_started(self, operation: Operation) -> None:
        self.started.append(operation)

    def operation_finished(self, operation: Operation, seconds: float, outcome: str) -> None:
        assert seconds >= 0
        self.outcomes.append(outcome)

    def progress(self, operation: Operation, advance: Advance) -> None:
        self.steps.append((advance.done, advance.total))
        self.places.append(advance.place)

    def ticket(self, operation: Operation) -> Ticket | None:
        self.tickets += 1
        own = OwnCollections("_m")
        return Ticket(own, self.revision, "up", self.tickets, "me", self.fence)

    @contextmanager
    def edges(self) -> Iterator[None]:
        yield

    def edge(self) -> None:
        self.check()

    def message(self, text: str) -> None:
        self.messages.append(text)


class Desk:
    """An `op` with its notebook; each verb that is called returns its outcome."""

    def __init__(self, db: Database[dict[str, Any]], **options: Any) -> None:
        self.book = Notebook()
        db = db.client.get_database(db.name, write_concern=WriteConcern("majority", j=True))
        hello = db.client.admin.command("hello")
        options.setdefault("transactions", "setName" in hello)
        options.setdefault("server", capabilities_of(db))
        self.target = Target(db, self.book, **options)
        self.op = Operations(self.target)
        self.db = db

    def do(self, verb: str, *args: Any, **kwargs: Any) -> str:
        getattr(self.op, verb)(*args, **kwargs)
        return self.book.outcomes[-1]


@contextmanager
def in_transaction(db: Database[dict[str, Any]], **options: Any) -> Iterator[Desk]:
    """A desk inside a bound transaction, which is committed at the end."""
    with db.client.start_session() as session, session.bind(end_session=False):
        session.start_transaction()
        desk = Desk.__new__(Desk)
        desk.book = Notebook()
        desk.target = Target(db, desk.book, transaction=True, transactions=True, **options)
        desk.op = Operations(desk.target)
        desk.db = db
        yield desk
        session.commit_transaction()


def capabilities_of(db: Database[dict[str, Any]]) -> Capabilities:
    """What the server of a database can do."""
    version = db.client.admin.command("buildInfo")["version"]
    hello = db.client.admin.command("hello")
    return describe_server(hello, version=version, fallback="").capabilities


class Recorder(Operations):
    """An `op` that only keeps the operations it is asked for."""

    def __init__(self) -> None:
        self.seen: list[Operation] = []

    def run(self, operation: Operation) -> None:
        self.seen.append(operation)


def recorded(verb: str, *args: Any, **kwargs: Any) -> Operation:
    """The operation that a verb makes."""
    recorder = Recorder()
    getattr(recorder, verb)(*args, **kwargs)
    return recorder.seen[0]


def rebuilt(operation: Operation) -> Operation:
    """The operation that its rendered source makes."""
    recorder = Recorder()
    names = {name: getattr(bson, name) for name in ("ObjectId", "Int64", "Decimal128", "Regex")}
    code = compile(operation.render(), "<rendered>", "exec")
    exec(code, {"op": recorder, "datetime": dt, "re": re, **names})  # noqa: S102 - our own source
    return recorder.seen[0]
