"""The work of one worker on documents: read a batch, call the function, write what differs."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from mongover.operations.bulk.batches import Done
from mongover.operations.bulk.checkpoints import Counts
from mongover.operations.bulk.compute import Computing, Spec
from mongover.operations.bulk.kept_aside import Aside
from mongover.operations.bulk.reader import GROUP, Reader, Stream, options_of
from mongover.operations.bulk.statements import BYTES, Item
from mongover.operations.bulk.writer import Guarded, InSnapshot, Written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from mongover.operations.base import Ticket
    from mongover.operations.bulk.checkpoints import Span
    from mongover.operations.bulk.ranges import Bound

BATCH: Final = 5_000
_BUDGET: Final = 2.0  # seconds of computing in one batch; a transaction must stay short
_LOOK: Final = 64  # documents between two looks at the clock
_SENDERS: Final = 3
_AHEAD: Final = 2 * GROUP


@dataclass(slots=True)
class _Read:
    count: int = 0
    size: int = 0  # bytes
    last: Bound = field(default_factory=list)
    ended: bool = True  # whether the span holds nothing more

    def take(self, item: Item) -> None:
        """Count one more item."""
        self.count += 1
        self.size += len(item.raw)
        self.last = [item.key]


class Transforming:
    """The work of `op.transform`."""

    def __init__(
        self,
        db: Database[Any],
        spec: Spec,
        function: Callable[[Any], Any],
        ticket: Ticket | None,
        *,
        bound: bool = False,
    ) -> None:
        options = options_of(db)
        self._bound = bound  # the caller's transaction is open and bound
        self._size = spec.batch
        self._reader = Reader(db[spec.collection], spec.filter, spec.fields, options)
        self._computing = Computing(spec, function, options)
        self._in_snapshot = InSnapshot(db, spec, self._computing, bound=bound)
        self._guarded = Guarded(db, spec, self._computing, self._reader)
        self._aside = None if ticket is None else Aside(db, spec, ticket)
        self._stream: Stream | None = None

    def batch(self, session: ClientSession | None, span: Span, size: int) -> Done:
        """Read, compute and write about `size` documents."""
        size = min(size, self._size)
        read = _Read()
        if session is not None or self._bound:
            found = self._reader.once(session, span, size)
            items = list(_until(map(self._computing.item, found), size, read))
            counts = self._in_snapshot.write(items, session, size)
            rejected = [item for item in items if item.error is not None]
        else:
            written = self._read_and_write(span, size, read)
            counts, rejected = written.counts, written.rejected
        if self._aside is not None:
            self._aside.keep(rejected, session)
        done = Counts(read.count, read.count, rejected=len(rejected))
        return Done(span.high if read.ended else read.last, done + counts)

    def settled(self) -> None:
        """The last batch is committed."""
        self._in_snapshot.settled()
        if self._aside is not None:
            self._aside.settled()

    def _read_and_write(self, span: Span, size: int, read: _Read) -> Written:
        """Compute in this thread while others send what is ready.

        While the last of the batch is sent, the first of the next one are computed; they are sent
        only after this batch's checkpoint.
        """
        if self._stream is None or not self._stream.continues(span):
            found = self._reader.on_and_on(span)
            self._stream = Stream(map(self._computing.item, found), span)
        stream = self._stream
        sending: list[Future[Written]] = []
        with ThreadPoolExecutor(_SENDERS, thread_name_prefix="mongover") as pool:
            items = _until(iter(stream.next, None), size, read)
            while group := list(islice(items, GROUP)):
                sending.append(pool.submit(self._guarded.write, group))
            while any(not future.done() for future in sending[-_SENDERS:]) and stream.ahead(_AHEAD):
                pass
        written = Written()
        for future in sending:
            written.add(future.result())
        return self._guarded.settle(written)


def _until(items: Iterator[Item], size: int, read: _Read) -> Iterator[Item]:
    """Items until one of the limits is met."""
    started = time.monotonic()
    for item in items:
        read.take(item)
        yield item
        if read.count >= size or read.size >= BYTES or _late(read.count, started):
            read.ended = False
            return


def _late(count: int, started: float) -> bool:
    return (count % _LOOK == 0 or count < _LOOK) and time.monotonic() - started > _BUDGET
