"""Long operations that the server does itself: one command for few documents, ranges for many."""

from __future__ import annotations

import contextvars
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mongover.operations.base import Advance
from mongover.operations.bulk.batches import RANGE, Course, Done, walk_spans, write
from mongover.operations.bulk.checkpoints import Checkpoints, Counts, Halted
from mongover.operations.bulk.ranges import BY_ID, between, both, cut, exact, size_of, step_end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from mongover.operations.base import Document, Operation, Outcome, Target, Ticket
    from mongover.operations.bulk.batches import Step
    from mongover.operations.bulk.checkpoints import Span, Work
    from mongover.operations.bulk.pace import Pace
    from mongover.operations.bulk.ranges import Size

SMALL: Final = 20_000
THREADS: Final = 2
_SPANS_PER_THREAD: Final = 4
_COUNT_LIMIT_MS: Final = 2_000
_POLL: Final = 0.2
_TIMED_OUT: Final = 50


@dataclass(frozen=True, slots=True)
class Change:
    """What a verb does to the documents of a filter.

    Attributes:
        collection: Where.
        filter: Which documents; None for all.
        command: The command for a query; `hint` is the index that it must use, if any.
        settles: Whether a changed document is no longer found by the filter, so that a last look
            can tell whether any are left.
        single: Whether it must be one command, because a collation orders `_id` differently.
        transactional: Whether the server can do it in a transaction.
    """

    collection: str
    filter: Document | None
    command: Callable[[Document, Document | None], Document]
    settles: bool = False
    single: bool = False
    transactional: bool = True

    @property
    def counted(self) -> bool:
        """Whether the server says what it changed: of an aggregation's `$merge` it says nothing."""
        return "aggregate" not in self.command({}, None)


def perform(
    operation: Operation, target: Target, change: Change, pace: Pace | None = None
) -> Outcome:
    """Do it in the way that its size asks for.

    A few documents take one command. Many are done in ranges of `_id`, with a checkpoint after
    each. What must not be done twice is done with a checkpoint however small it is, where the
    server has transactions.
    """
    ticket = None if target.transaction or change.single else target.journal.ticket(operation)
    if ticket is None:
        return _outcome(operation, target, change)
    checkpoints = Checkpoints(target.db, ticket)
    work = checkpoints.find(operation)
    exactly = target.transactions and change.transactional and not operation.repeatable
    if work is None:
        size = size_of(target.db, change.collection)
        if not exactly and _is_small(target.db, change, size):
            return _outcome(operation, target, change)
        work = _begin(operation, target, change, checkpoints, size)
    if work.finished:
        return "unchanged"
    if target.transactions and change.transactional:
        target.journal.held(operation)
    counts = _run_threads(operation, target, ticket, change, work, pace)
    counts += _rest(operation, target, change, work)
    checkpoints.finish()
    return _ending(change, counts)


def _outcome(operation: Operation, target: Target, change: Change) -> Outcome:
    """Of one command for all. What nobody counted is not told of."""
    counts = _at_once(target, change)
    if change.counted:
        target.journal.progress(operation, Advance(counts.matched, counts.matched))
    return _ending(change, counts)


def _ending(change: Change, counts: Counts) -> Outcome:
    known = change.counted
    return "unchanged" if known and not counts.changed and not counts.deleted else "done"


def _at_once(target: Target, change: Change) -> Counts:
    """One command for all; in the open transaction if there is one, whose session is bound."""
    command = change.command(change.filter or {}, None)
    if not change.counted:
        write(target.db, command, None)
        return Counts()
    collection = target.db[change.collection]
    if "deletes" in command:
        one = command["deletes"][0]
        gone = collection.delete_many(one["q"], collation=one.get("collation")).deleted_count
        return Counts(walked=gone, matched=gone, deleted=gone)
    one = command["updates"][0]
    result = collection.update_many(
        one["q"], one["u"], array_filters=one.get("arrayFilters"), collation=one.get("collation")
    )
    matched = result.matched_count
    return Counts(walked=matched, matched=matched, changed=result.modified_count)


def counted(reply: Document) -> Counts:
    """What a reply to update or delete says."""
    matched = int(reply.get("n", 0))
    if "nModified" in reply:
        return Counts(walked=matched, matched=matched, changed=int(reply["nModified"]))
    return Counts(walked=matched, matched=matched, deleted=matched)


def updating(collection: str, update: Any, **options: Any) -> Callable[..., Document]:
    """The command that updates all documents of a query; options by MongoDB's names."""
    given = {name: value for name, value in options.items() if value is not None}

    def command(query: Document, hint: Document | None) -> Document:
        one = {"q": query, "u": update, "multi": True, **given}
        return {"update": collection, "updates": [one | ({"hint": hint} if hint else {})]}

    return command


def deleting(collection: str, **options: Any) -> Callable[..., Document]:
    """The command that deletes all documents of a query."""
    given = {name: value for name, value in options.items() if value is not None}

    def command(query: Document, hint: Document | None) -> Document:
        one = {"q": query, "limit": 0, **given}
        return {"delete": collection, "deletes": [one | ({"hint": hint} if hint else {})]}

    return command


def _is_small(db: Database[Document], change: Change, size: Size) -> bool:
    """Whether few documents are found; a count that takes long is a reason for ranges."""
    from pymongo.errors import OperationFailure

    if size.documents <= SMALL:
        return True
    if not change.filter:
        return False
    try:
        found = db[change.collection].count_documents(
            change.filter, limit=SMALL + 1, maxTimeMS=_COUNT_LIMIT_MS
        )
    except OperationFailure as error:
        if error.code != _TIMED_OUT:
            raise
        return False
    return found <= SMALL


def _begin(
    operation: Operation, target: Target, change: Change, checkpoints: Checkpoints, size: Size
) -> Work:
    collection = target.db[change.collection]
    collection = collection.with_options(codec_options=exact(collection.codec_options))
    parts = 1 if size.documents <= SMALL else THREADS * _SPANS_PER_THREAD
    highs = cut(collection, parts, size.documents)
    return checkpoints.begin(operation, highs, size.documents)


class _Ranges:
    """The step of a server-side change: find where a range ends, and send one command for it."""

    def __init__(self, db: Database[Any], change: Change, *, bare: bool) -> None:
        found = db[change.collection]
        self._db = db
        self._change = change
        self._collection = found.with_options(codec_options=exact(found.codec_options))
        self._bare = bare  # the command cannot be part of a transaction

    def batch(self, session: ClientSession | None, span: Span, size: int) -> Done:
        """One range."""
        end = step_end(self._collection, span.low, span.high, size, session=session)
        position = end or span.high
        part = between(span.low, position)
        walked = size if end else self._rest(part, session)
        command = self._change.command(both(part, self._change.filter), BY_ID)
        reply = write(self._db, command, None if self._bare else session)
        if not self._change.counted:
            # How many a filter found nobody says either; without one it is all of them.
            return Done(position, Counts(walked, 0 if self._change.filter else walked))
        counts = counted(reply)
        return Done(
            position, Counts(walked, counts.matched, changed=counts.changed, deleted=counts.deleted)
        )

    def _rest(self, part: Document, session: ClientSession | None) -> int:
        return self._collection.count_documents(part, hint=BY_ID, session=session)

    def settled(self) -> None:
        """Nothing is kept between batches."""


def _run_threads(  # noqa: PLR0917 - one private step of perform
    operation: Operation,
    target: Target,
    ticket: Ticket,
    change: Change,
    work: Work,
    pace: Pace | None,
) -> Counts:
    """Walk the spans with a few threads; this one tells of progress and looks for a stop."""
    watch = Watch(operation, target, ticket, work)
    size = size_of(target.db, change.collection).range_of(RANGE)
    threads = min(THREADS, max(1, watch.checkpoints.unfinished()))
    course = Course(
        db=target.db,
        ticket=ticket,
        transactions=target.transactions and change.transactional,
        size=size,
        pace=pace.share(threads) if pace else None,
        halt=watch.halt,
        tell=watch.tell,
    )

    def walk() -> None:
        step: Step = _Ranges(target.db, change, bare=not change.transactional)
        walk_spans(course, step)

    watch.checkpoints.ready()
    with ThreadPoolExecutor(threads, thread_name_prefix="mongover") as pool:
        # An empty context: a thread must never join a session that is bound in ours.
        futures = [pool.submit(contextvars.Context().run, walk) for _ in range(threads)]
        watch.over(futures)
    return watch.standing.counts


class Watch:
    """The main thread's side of workers: counts, progress, and the wish to stop."""

    def __init__(self, operation: Operation, target: Target, ticket: Ticket, work: Work) -> None:
        self.checkpoints = Checkpoints(target.db, ticket)
        self.standing = work.standing
        self._before = work.standing.counts.walked
        self._operation = operation
        self._journal = target.journal
        self._total = work.total
        self._mutex = threading.Lock()
        self._halted = threading.Event()
        self._started = time.monotonic()

    def tell(self, span: Span, done: Done) -> None:
        """A batch of a span is done; from any thread."""
        with self._mutex:
            self.standing = self.standing.moved(span, done.position, done.counts)

    def halt(self) -> None:
        """Raise Halted once the workers shall stop."""
        if self._halted.is_set():
            raise Halted

    def report(self) -> None:
        """Tell how far it is, and where."""
        standing = self.standing
        done = standing.counts.walked
        advance = Advance(done, max(self._total, done), self._before, standing.place)
        self._journal.progress(self._operation, advance)

    def over(self, futures: list[Future[None]]) -> None:
        """Wait for the workers' end while telling of progress; a stop lets batches end first.

        Raises:
            MongoverError: what a worker raised; the others stopped after their batches.
        """
        try:
            with self._journal.edges():
                waiting = set(futures)
                while waiting:
                    done, waiting = wait(waiting, timeout=_POLL, return_when=FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    self.report()
                    self._journal.edge()
        except BaseException as ending:
            self._halted.set()
            let_end(futures, ending)
            raise


def let_end(futures: Sequence[Future[None]], ending: BaseException) -> None:
    """Wait for the workers' end, after an error or a stop.

    Raises:
        Exception: at a stop, what a worker failed with instead: its batch may be half done.
    """
    wait(futures)
    if isinstance(ending, Exception):
        return
    for future in futures:
        error = None if future.cancelled() else future.exception()
        if error is not None and not isinstance(error, Halted):
            raise error


def _rest(operation: Operation, target: Target, change: Change, work: Work) -> Counts:
    """What the walk could not meet: documents that came behind it or above its end."""
    collection = target.db[change.collection]
    if change.settles and change.filter is not None:
        left = collection.count_documents(change.filter, limit=1)
        if left:
            return _at_once(target, change)
    elif operation.repeatable and work.high:
        above = both(between(work.high, []), change.filter)
        if collection.count_documents(above, limit=1, hint=BY_ID):
            return counted(write(target.db, change.command(above, BY_ID), None))
    return Counts()
