"""`op.transform`: a Python function over many documents, in this process or in several."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import (
    FIRST_EXCEPTION,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mongover.errors import OperationFailed
from mongover.operations.arguments import Source, check_choice, check_name, one_line, plain
from mongover.operations.base import Advance, Document, Operation, Outcome, Place, Target, Ticket
from mongover.operations.bulk.batches import Course, walk_spans
from mongover.operations.bulk.checkpoints import Checkpoints, Counts, Halted, Span, ends_at, reached
from mongover.operations.bulk.compute import Spec
from mongover.operations.bulk.ranges import cut, exact, last_id, size_of
from mongover.operations.bulk.server_side import Supervisor, let_end
from mongover.operations.bulk.worker import BATCH, Transforming
from mongover.process import collect_seldom, held_back, let_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mongover.operations.bulk.batches import Done
    from mongover.operations.bulk.checkpoints import Work
    from mongover.operations.bulk.pace import Pace

ON_ERROR = ("stop", "skip", "collect")
_SPANS_PER_WORKER: Final = 4
_POLL: Final = 0.5


@dataclass(frozen=True, slots=True)
class Reference:
    """A function or class by the place where another process finds it."""

    module: str  # empty: the revision's own
    name: str

    def resolve(self, ticket: Ticket) -> Any:
        """The thing itself, in this process."""
        if not self.module:
            assert ticket.door is not None  # noqa: S101 - workers are refused without one
            return ticket.door.function(self.name)
        found: Any = import_module(self.module)
        for part in self.name.split("."):
            found = getattr(found, part)
        return found


@dataclass(frozen=True, slots=True)
class Transform(Operation):
    """A function over the documents of a filter; see `op.transform`."""

    collection: str
    function: Callable[[Any], Any]
    filter: Document | None = None
    projection: tuple[str, ...] = ()
    batch_size: int = BATCH
    workers: int | None = 1
    executor: Executor | None = None
    model_from: Any = None
    model_to: Any = None
    unnamed: str = "keep"
    on_error: str = "stop"
    idempotent: bool = True
    pace: Pace | None = None

    verb: ClassVar[str] = "transform"

    @classmethod
    def of(cls, collection: str, function: Any, **options: Any) -> Transform:
        """From the arguments of `op.transform`, checked.

        Raises:
            OperationFailed: an argument makes no sense.
        """
        check_name(collection)
        if not callable(function):
            raise OperationFailed(
                f"transform of {collection} takes a function, not a {type(function).__name__}"
            )
        check_choice("on_error", options["on_error"], ON_ERROR)
        check_choice("unnamed", options["unnamed"], ("keep", "drop"))
        for name in ("batch_size", "workers"):
            value = options[name]
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise OperationFailed(f"{name} cannot be {value!r}", hint="give a whole number")
            if value is not None and value < 1:
                raise OperationFailed(f"{name} cannot be {value}", hint="at least 1")
        for name in ("model_from", "model_to"):
            if options[name] is not None and not hasattr(options[name], "model_fields"):
                raise OperationFailed(f"{name} must be a pydantic model class")
        options["projection"] = check_projection(options["projection"])
        return cls(collection, function, **options)

    @property
    def name(self) -> str:
        """The function's name."""
        return str(getattr(self.function, "__qualname__", type(self.function).__name__))

    @property
    def repeatable(self) -> bool:
        """As the caller says of the function."""
        return self.idempotent

    def exactly_once(self, target: Target) -> bool:
        """Where there are transactions."""
        return target.transactions or target.transaction

    def describe(self) -> str:
        """`transform users by split_name`."""
        return one_line(f"transform {self.collection} by {self.name}")

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """The function, models and executor are rendered by their names."""
        keyword = dict(Operation.arguments(self)[1])
        for name in ("model_from", "model_to"):
            if name in keyword:
                keyword[name] = Source(keyword[name].__name__)
        if "executor" in keyword:
            keyword["executor"] = Source("executor")
        return [self.collection, Source(self.name)], keyword

    def to_json(self) -> dict[str, Any]:
        """The operation as a JSON document; code by its name."""
        return {
            "operation": self.verb,
            "collection": self.collection,
            "function": self.name,
            "filter": plain(self.filter),
            "projection": list(self.projection),
            "batch_size": self.batch_size,
            "workers": self.workers,
            "on_error": self.on_error,
            "model_from": getattr(self.model_from, "__name__", None),
            "model_to": getattr(self.model_to, "__name__", None),
            "unnamed": self.unnamed,
        }

    def identity(self) -> dict[str, Any]:
        """What it does to which documents; a function may be mended between two attempts."""
        how = {"batch_size", "workers", "on_error", "function"}
        return {name: value for name, value in self.to_json().items() if name not in how}

    def refused(self, target: Target) -> str:
        """Several workers cannot share one transaction."""
        del target
        if self.workers == 1 and self.executor is None:
            return ""
        return "several workers cannot share the transaction of the revision"

    def spec(self) -> Spec:
        """What a worker needs to know."""
        return Spec(
            collection=self.collection,
            filter=self.filter,
            fields=self.projection,
            name=self.name,
            on_error=self.on_error,
            batch=self.batch_size,
            model_from=self.model_from,
            model_to=self.model_to,
            keep=self.unnamed == "keep",
        )

    def apply(self, target: Target) -> Outcome:
        """Work through the spans that are not done yet."""
        ticket = None if target.transaction else target.journal.ticket(self)
        if ticket is None:
            return self._in_one_go(target)
        workers = self._workers()
        if workers > 1 or self.executor is not None:
            self._references(ticket)  # refused before anything is done
        checkpoints = Checkpoints(target.db, ticket)
        work = checkpoints.find(self) or self._begin(target, checkpoints, workers)
        if work.finished:
            return "unchanged"
        supervisor = Supervisor(self, target, ticket, work)
        checkpoints.ready()
        if workers == 1 and self.executor is None:
            self._here(target, ticket, supervisor)
        else:
            self._elsewhere(target, ticket, supervisor, workers)
        self._catch_up(target, ticket, work)
        checkpoints.finish()
        counts = checkpoints.standing().counts
        self._tell_rejected(target, counts)
        return "done" if counts.changed or counts.deleted else "unchanged"

    def _workers(self) -> int:
        return self.workers or os.cpu_count() or 1

    def _begin(self, target: Target, checkpoints: Checkpoints, workers: int) -> Work:
        size = size_of(target.db, self.collection)
        collection = target.db[self.collection]
        collection = collection.with_options(codec_options=exact(collection.codec_options))
        parts = 1 if workers == 1 else workers * _SPANS_PER_WORKER
        return checkpoints.begin(self, cut(collection, parts, size.documents), size.documents)

    # -- in this process ----------------------------------------------------------------------

    def _in_one_go(self, target: Target) -> Outcome:
        """All of it inside the revision's own transaction, whose session is bound."""
        step = Transforming(target.db, self.spec(), self.function, None, bound=target.transaction)
        counts, span = Counts(), Span("", [], last_id(target.db[self.collection]))
        while span.high and not ends_at(span.low, span.high):
            target.journal.check()
            done = step.batch(None, span, self.batch_size)
            counts += done.counts
            span = Span("", done.position, span.high)
            ended = int(ends_at(span.low, span.high))
            place = Place(1, ended, reached(span.low))
            target.journal.progress(self, Advance(counts.walked, None, place=place))
        return "done" if counts.changed or counts.deleted else "unchanged"

    def _here(self, target: Target, ticket: Ticket, supervisor: Supervisor) -> None:
        def tell(span: Span, done: Done) -> None:
            supervisor.tell(span, done)
            supervisor.report()

        with target.journal.edges():
            course = self._course(target.db, ticket, target.transactions, target.journal.edge, tell)
            walk_spans(course, Transforming(target.db, self.spec(), self.function, ticket))

    def _course(
        self,
        db: Any,
        ticket: Ticket,
        transactions: bool,  # noqa: FBT001 - handed on
        halt: Callable[[], None],
        tell: Callable[[Span, Done], None],
    ) -> Course:
        size = size_of(db, self.collection).range_of(self.batch_size)
        return Course(db, ticket, transactions, size, self.pace, halt, tell)

    def _catch_up(self, target: Target, ticket: Ticket, work: Work) -> None:
        """Documents that came above the end meanwhile, where the filter tells them apart."""
        if not self.filter or not work.high:
            return
        step = Transforming(target.db, self.spec(), self.function, ticket)
        collection = target.db[self.collection]
        top = last_id(collection.with_options(codec_options=exact(collection.codec_options)))
        span = Span("", work.high, top)
        while self.idempotent and span.high and not ends_at(span.low, span.high):
            target.journal.check()
            span = Span("", step.batch(None, span, self.batch_size).position, span.high)

    def _tell_rejected(self, target: Target, counts: Counts) -> None:
        if counts.rejected:
            noun = "document" if counts.rejected == 1 else "documents"
            if counts.rejected == counts.walked:
                noun = f"{noun}, all that there are,"
            target.journal.warning(
                f"{counts.rejected:,} {noun} of {self.collection} could not be transformed by "
                f"{self.name}: `mongover rejects` lists them"
            )

    # -- in other processes -------------------------------------------------------------------

    def _references(self, ticket: Ticket) -> tuple[Reference, Reference | None, Reference | None]:
        models = (
            None if model is None else reference(model, ticket)
            for model in (self.model_from, self.model_to)
        )
        return (reference(self.function, ticket), *models)  # type: ignore[return-value] # of three

    def _elsewhere(
        self, target: Target, ticket: Ticket, supervisor: Supervisor, workers: int
    ) -> None:
        """Let other processes walk the spans; this one tells of progress and looks for a stop."""
        spec = self.spec()
        function, old, new = self._references(ticket)
        size = size_of(target.db, self.collection).range_of(self.batch_size)
        task = Task(
            ticket=ticket,
            function=function,
            model_from=old,
            model_to=new,
            spec=_without_models(spec),
            transactions=target.transactions,
            size=size,
            pace=self.pace.share(workers) if self.pace else None,
        )
        count = min(workers, max(1, supervisor.checkpoints.unfinished()))
        with _pool(self.executor, count) as pool, self._alive(target):
            with held_back() if self.executor is None else nullcontext():
                futures = [pool.submit(run_task, task) for _ in range(count)]
            _attend(futures, target, supervisor)
        if supervisor.checkpoints.unfinished():
            raise self._worker_gone()

    @contextmanager
    def _alive(self, target: Target) -> Iterator[None]:
        """Take workers that die at a stop for that stop: a signal may reach their whole group."""
        try:
            yield
        except BrokenExecutor as broken:
            time.sleep(_POLL)  # the same signal may be on its way to this process
            try:
                target.journal.edge()
            except BaseException as stop:
                if isinstance(stop, Exception):
                    raise
                # As a stop at any other place: one between two batches would promise that no
                # batch is half done, and a worker may have died in the middle of its own.
                raise type(stop)(*stop.args) from broken
            raise self._worker_gone() from broken

    def _worker_gone(self) -> OperationFailed:
        return OperationFailed(
            f"{self.describe()}: a worker ended before its work was done",
            hint="look for a killed process (memory?), then run again: it goes on",
            after="every finished batch is recorded.",
        )


@dataclass(frozen=True, slots=True)
class Task:
    """What one worker process is sent; every part of it can be pickled."""

    ticket: Ticket
    function: Reference
    model_from: Reference | None
    model_to: Reference | None
    spec: Spec
    transactions: bool
    size: int
    pace: Pace | None


def run_task(task: Task) -> None:
    """The life of one worker: open the database, load the function, walk spans until none is left.

    Raises:
        MongoverError: a document could not be transformed, or the lock was lost.
    """
    ticket = task.ticket
    assert ticket.door is not None  # noqa: S101 - workers are refused without one
    old = task.model_from and task.model_from.resolve(ticket)
    new = task.model_to and task.model_to.resolve(ticket)
    spec = _with_models(task.spec, old, new)
    with ticket.door.database() as db, suppress(Halted):
        step = Transforming(db, spec, task.function.resolve(ticket), ticket)
        course = Course(
            db, ticket, task.transactions, task.size, task.pace, _go_on, tell=lambda *_: None
        )
        walk_spans(course, step)


def _go_on() -> None:
    """Nothing: a worker learns from its checkpoint that it shall stop."""


def _attend(futures: list[Future[None]], target: Target, supervisor: Supervisor) -> None:
    """Wait for the workers; at a stop or an error all of them end after their batches."""
    try:
        with target.journal.edges():
            waiting: set[Future[None]] = set(futures)
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                supervisor.standing = supervisor.checkpoints.standing()
                supervisor.report()
                target.journal.edge()
    except BaseException as ending:
        supervisor.checkpoints.halt()
        for future in futures:
            future.cancel()
        let_end(futures, ending)
        raise


@contextmanager
def _pool(executor: Executor | None, workers: int) -> Iterator[Executor]:
    """The caller's executor, which stays open, or processes of our own."""
    if executor is not None:
        yield executor
        return
    from multiprocessing import get_context

    # A forked child would inherit the driver's locks and sockets in an unknown state.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent) as pool:
        yield pool


def _follow_parent() -> None:
    """Make a worker process end with its parent, and with nothing else.

    A Ctrl-C of the terminal reaches the whole group, but the parent alone decides what it means.
    The end is that of a kill: an exception out of a signal handler could leave a lock of the driver
    taken, and hang for ever. The takeover ends the session of the transaction that stays open.
    """
    from multiprocessing import parent_process

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    collect_seldom()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    let_through()  # a Ctrl-C that came before this function is forgotten now
    threading.Thread(target=watch, daemon=True).start()


def reference(thing: Any, ticket: Ticket) -> Reference:
    """Where another process finds a function or class.

    Raises:
        OperationFailed: it has no name at the top level of a module.
    """
    name = getattr(thing, "__qualname__", "")
    module = getattr(thing, "__module__", "") or ""
    if not name or "<" in name or module == "__main__":
        raise OperationFailed(
            f"{name or type(thing).__name__} cannot be found by other processes",
            hint="write it as a function at the top level of the revision, or say workers=1",
            after="nothing was changed.",
        )
    if module == ticket.module and ticket.door is None:
        raise OperationFailed("workers need a database that they can connect to")
    return Reference("" if module == ticket.module else module, name)


def _without_models(spec: Spec) -> Spec:
    return _with_models(spec, None, None)


def _with_models(spec: Spec, old: Any, new: Any) -> Spec:
    from dataclasses import replace

    return replace(spec, model_from=old, model_to=new)


def check_projection(fields: str | Iterable[str] | None) -> tuple[str, ...]:
    """The top-level fields that a function reads; none means all of them."""
    if isinstance(fields, (set, frozenset)):
        fields = sorted(fields, key=str)  # a set has another order in each process
    names = () if fields is None else (fields,) if isinstance(fields, str) else tuple(fields)
    for name in names:
        if not isinstance(name, str) or not name or "." in name or name.startswith("$"):
            whole = name.partition(".")[0] if isinstance(name, str) else ""
            hint = f'the whole top-level field: "{whole}"' if whole and "$" not in whole else ""
            raise OperationFailed(
                f"{name!r} is no top-level field, so it cannot be in a projection or a backup",
                hint=hint or 'top-level fields: ["name", "address"]',
            )
    return tuple(name for name in names if name != "_id")


__all__ = ["ON_ERROR", "Reference", "Task", "Transform", "run_task"]
