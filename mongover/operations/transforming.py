"""The work of one worker on documents: read a batch, call the function, write what differs.

In a transaction the documents are read and written in one snapshot: if anybody changes one of them
meanwhile, the whole batch is given up and read again. Elsewhere each write carries the document as
it was read, and lands only where that is still so.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import MongoverError, OperationFailed
from mongover.operations.batches import Done, SmallerBatch, send
from mongover.operations.checkpoints import Counts
from mongover.operations.difference import (
    DELETE,
    Fields,
    NeedsReplacement,
    applied,
    changed,
    check_result,
    difference_or_all,
    is_operators,
    plain_fields,
    same,
    shows,
    untyped,
)
from mongover.operations.duplicates import shown
from mongover.operations.guards import (
    BYTES,
    Item,
    Reject,
    alone,
    bare,
    made,
    parts,
    together,
)
from mongover.operations.ranges import exact
from mongover.operations.reading import GROUP, Found, Reader, Stream, found_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from mongover.operations.base import Document, Ticket
    from mongover.operations.checkpoints import Span
    from mongover.operations.ranges import Bound

BATCH: Final = 5_000
_BUDGET: Final = 2.0  # seconds of computing in one batch; a transaction must stay short
_LOOK: Final = 64  # documents between two looks at the clock
_ROUNDS: Final = 200
_SENDERS: Final = 3
_AHEAD: Final = 2 * GROUP
_SKIPPED_KEPT: Final = 1_000
_COLLECTED_KEPT: Final = 100_000
_LARGEST: Final = 16 * 1024 * 1024
_TOO_MUCH: Final = frozenset({15, 10334})  # nested too deeply, or too large, for one command


@dataclass(frozen=True, slots=True)
class Spec:
    """What is to be done to which documents; picklable where its parts are."""

    collection: str
    filter: Document | None
    fields: tuple[str, ...]  # the only ones that are read; none: all
    name: str  # of the function, for messages
    on_error: str
    batch: int
    model_from: Any = None
    model_to: Any = None
    keep: bool = True


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


@dataclass(slots=True)
class _Written:
    counts: Counts = field(default_factory=Counts)
    rejected: list[Item] = field(default_factory=list)
    unsure: list[Item] = field(default_factory=list)  # perhaps not as they were read

    def add(self, other: _Written) -> None:
        """What another part became."""
        self.counts += other.counts
        self.rejected += other.rejected
        self.unsure += other.unsure


class Transforming:
    """The step of `op.transform`."""

    def __init__(
        self,
        db: Database[Any],
        spec: Spec,
        function: Callable[[Any], Any],
        ticket: Ticket | None,
        *,
        bound: bool = False,
    ) -> None:
        import bson  # noqa: PLC0415 - costs 50 ms
        from bson.raw_bson import RawBSONDocument  # noqa: PLC0415 - the same

        self._db = db
        self._spec = spec
        self._function = function
        self._ticket = ticket
        self._bound = bound  # the caller's transaction is open and bound
        zone = db.codec_options.tz_aware
        self._options = exact(db.codec_options).with_options(tz_aware=zone)
        self._reader = Reader(db[spec.collection], spec.filter, spec.fields, self._options)
        self._stream: Stream | None = None
        self._decode = bson.decode
        self._encode = bson.encode
        self._new_raw = RawBSONDocument
        self._snapshot = bound
        self._singly = bound  # whether each document gets a statement of its own
        self._bad: dict[bytes, Reject] = {}
        self._kept = -1

    # -- one batch ----------------------------------------------------------------------------

    def batch(self, session: ClientSession | None, span: Span, size: int) -> Done:
        """Read, compute and write about `size` documents."""
        self._snapshot = session is not None or self._bound
        size = min(size, self._spec.batch)
        read = _Read()
        if self._snapshot:
            found = self._reader.once(session, span, size)
            items = list(self._until(map(self.item, found), size, read))
            counts = self._write_snapshot(items, session, size)
            rejected = [item for item in items if item.error is not None]
        else:
            written = self._read_and_write(span, size, read)
            counts, rejected = written.counts, written.rejected
        self._keep(rejected, session)
        done = Counts(read.count, read.count, rejected=len(rejected))
        return Done(span.high if read.ended else read.last, done + counts)

    def _read_and_write(self, span: Span, size: int, read: _Read) -> _Written:
        """Compute in this thread while others send what is ready.

        While the last of the batch is sent, the first of the next one are computed; they are sent
        only after this batch's checkpoint.
        """
        if self._stream is None or not self._stream.continues(span):
            self._stream = Stream(map(self.item, self._reader.on_and_on(span)), span)
        stream = self._stream
        sending: list[Future[_Written]] = []
        with ThreadPoolExecutor(_SENDERS, thread_name_prefix="mongover") as pool:
            items = self._until(iter(stream.next, None), size, read)
            while group := list(islice(items, GROUP)):
                sending.append(pool.submit(self._send_group, group))
            while any(not future.done() for future in sending[-_SENDERS:]) and stream.ahead(_AHEAD):
                pass
        written = _Written()
        for future in sending:
            written.add(future.result())
        return self._settle(written)

    def settled(self) -> None:
        """What was found bad has been kept aside."""
        self._bad.clear()
        self._singly = self._bound

    @staticmethod
    def _until(items: Iterator[Item], size: int, read: _Read) -> Iterator[Item]:
        """Items until one of the limits is met."""
        started = time.monotonic()
        for item in items:
            read.take(item)
            yield item
            if read.count >= size or read.size >= BYTES or _late(read.count, started):
                read.ended = False
                return

    def found_by(self, stages: list[Document]) -> Iterator[Found]:
        """The documents that an aggregation finds."""
        return self._reader.found_by(stages)

    def decoded(self, update: Any) -> Document:
        """What an item's update says."""
        return self._decode(update.raw, self._options)

    def item(self, found: Found) -> Item:
        """What the function makes of one document.

        Raises:
            OperationFailed: it failed, and the policy is to stop.
        """
        key = found.given["_id"]
        # The function could change one that is a document.
        item = Item(found.before["_id"] if isinstance(key, dict) else key, found.raw)
        known = self._bad.get(_key(item.key)) if self._bad else None
        if known is not None:
            item.error = known
            return item
        try:
            self._decide(item, found)
        except Exception as error:
            if self._spec.on_error == "stop":
                raise self._stopped(item.key, error) from error
            item.error = rejected(error, self._function)
            item.new, item.update, item.delete = b"", None, False
        return item

    def change(self, item: Item) -> Fields | None:
        """What becomes of the item's document; None where only the server can tell."""
        if not item.new:
            return None
        before = self._decode(item.raw, self._options)
        return difference_or_all(before, made(item, before, self._options))

    def _decide(self, item: Item, found: Found) -> None:
        result = self._call(found)
        if result is None:
            return
        if result is DELETE:
            item.delete = True
        elif isinstance(result, list):
            item.update = [self._raw(stage) for stage in result]
        elif is_operators(result):
            plain = plain_fields(result)
            if plain is None:
                item.update = self._raw(result)
            else:
                # Its effect can be known here, and so written like any other difference.
                self._compare(item, found.before, applied(found.before, plain))
        else:
            # The function may have changed the document that it was given.
            self._compare(item, found.before, result)

    def _call(self, found: Found) -> Any:
        spec, given = self._spec, found.given
        old = None
        if spec.model_from is not None:
            given = old = spec.model_from.model_validate(given)
        result = self._function(given)
        if hasattr(type(result), "model_fields"):
            if spec.model_to is not None and not isinstance(result, spec.model_to):
                raise OperationFailed(
                    f"{spec.name} returned a {type(result).__name__}, not a "
                    f"{spec.model_to.__name__}"
                )
            result = untyped(found.before, old, result, keep=spec.keep)
        return check_result(result, spec.name)

    def _compare(self, item: Item, before: Document, result: Document) -> None:
        """Take the difference to the document as it was read."""
        if "_id" not in result:
            result = {"_id": item.key, **result}
        elif same(result["_id"], item.key):
            before["_id"] = result["_id"]  # so that it is not compared again
        else:
            raise OperationFailed(
                f"{self._spec.name} returned another _id than it was given",
                hint="insert the new document by op.db and return op.DELETE for the old one",
            )
        try:
            if change := changed(before, result):
                self._name(item, change)
        except NeedsReplacement:
            self._replace(item, {"_id": item.key, **result})

    def _replace(self, item: Item, after: Document) -> None:
        if self._spec.fields:
            raise OperationFailed(
                f"{self._spec.name} changed a field whose name has a dot or begins with $",
                hint="leave `projection` out, so that whole documents can be replaced",
            )
        item.new, item.whole = self._encoded({"": after}), True

    def _name(self, item: Item, change: Fields) -> None:
        """Name the fields at the top that change, with their new values."""
        if len(change.set) == 1 and not change.unset:
            ((item.field, value),) = change.set.items()
            item.new = self._encoded({"": value})
        else:
            item.new, item.gone = self._encoded({"": change.set}), tuple(change.unset)

    def _raw(self, document: Document) -> Any:
        return self._new_raw(self._encoded(document))

    def _encoded(self, document: Document) -> bytes:
        """The document in BSON, once: what cannot be stored fails here, with its own document."""
        data = self._encode(document)
        if len(data) > _LARGEST:
            from pymongo.errors import DocumentTooLarge  # noqa: PLC0415 - heavy, seldom needed

            raise DocumentTooLarge("it would be larger than 16 MB")
        return data

    def _stopped(self, key: Any, error: Exception) -> MongoverError:
        why = error.message if isinstance(error, MongoverError) else type(error).__name__
        said = () if isinstance(error, MongoverError) else (f"it said: {error}",)
        place = place_of(error, self._function)
        return OperationFailed(
            f"{self._spec.name} failed on a document of {self._spec.collection}: {why}{place}",
            notes=(f"_id {shown(key)}", *said),
            hint='mend the function or the document and run again, or say on_error="collect"',
            after="every batch before it is done and recorded.",
        )

    # -- writing in a snapshot ----------------------------------------------------------------

    def _write_snapshot(
        self, items: Sequence[Item], session: ClientSession | None, size: int
    ) -> Counts:
        counts = Counts()
        for part in parts(items):
            new = [item for item in part if item.new]
            updated = [item for item in part if item.update is not None]
            deleted = [item for item in part if item.delete]
            if new and not self._singly:
                counts += Counts(changed=self._together_in_snapshot(new, session, size))
            elif new:
                counts += Counts(changed=self._singly_in_snapshot(new, session, size))
            if updated:
                counts += Counts(changed=self._singly_in_snapshot(updated, session, size))
            if deleted:
                counts += Counts(deleted=self._singly_in_snapshot(deleted, session, size))
        return counts

    def _together_in_snapshot(
        self, items: Sequence[Item], session: ClientSession | None, size: int
    ) -> int:
        """Write new values; what is refused, only statements of their own can tell."""
        from pymongo.errors import OperationFailure  # noqa: PLC0415 - heavy, needed only to run

        groups = [items[start : start + GROUP] for start in range(0, len(items), GROUP)]
        statements = [statement for group in groups for statement in together(group, None)]
        try:
            reply = self._db.command(self._writing(statements), session=session)
        except OperationFailure as error:
            if error.code not in _TOO_MUCH:
                raise
        else:
            if not reply.get("writeErrors"):
                return int(reply["nModified"])
        self._singly = True
        raise SmallerBatch(size)

    def _singly_in_snapshot(
        self, items: Sequence[Item], session: ClientSession | None, size: int
    ) -> int:
        delete = items[0].delete
        statements = [bare(item) for item in items]
        reply = self._db.command(self._writing(statements, delete=delete), session=session)
        if reply.get("writeErrors"):
            # The transaction is gone with the error; near bad documents there may be more of them.
            first = reply["writeErrors"][0]
            item, reject = items[int(first["index"])], refused(first)
            if self._spec.on_error == "stop" or session is None:
                raise self._not_written(item.key, reject)
            self._bad[_key(item.key)] = reject
            raise SmallerBatch(max(1, size // 4))
        return int(reply["n"] if delete else reply["nModified"])

    def _writing(self, statements: list[Document], *, delete: bool = False) -> Document:
        verb, many = ("delete", "deletes") if delete else ("update", "updates")
        return {verb: self._spec.collection, many: statements}

    def _not_written(self, key: Any, reject: Reject) -> OperationFailed:
        return OperationFailed(
            f"a document of {self._spec.collection} cannot be written as {self._spec.name} made "
            f"it: {reject.message}",
            notes=(f"_id {shown(key)}",),
            hint='mend the function or the document and run again, or say on_error="collect"',
            after="every batch before it is done and recorded.",
        )

    # -- writing where nothing changed meanwhile ----------------------------------------------

    def _send_group(self, items: Sequence[Item]) -> _Written:
        """Write each document only if it is still as it was read."""
        written = _Written()
        for part in parts(items):
            written.counts += self._write_part(part, written.unsure)
        written.rejected = [item for item in items if item.error is not None]
        return written

    def _settle(self, written: _Written) -> _Written:
        """Compute anew what changed meanwhile, until all is written."""
        for _ in range(_ROUNDS):
            waiting, _ = self._look_again(written.unsure)
            written.rejected += [item for item in written.unsure if item.error is not None]
            if not waiting:
                return written
            written.unsure = []
            written.add(self._send_group(waiting))
            written.counts += Counts(again=len(waiting))
        raise OperationFailed(
            f"{len(written.unsure)} documents of {self._spec.collection} change faster than they "
            "can be transformed",
            hint="run it at a quieter time; `mongover upgrade` goes on from the checkpoint",
        )

    def _write_part(self, part: Sequence[Item], unsure: list[Item]) -> Counts:
        counts = Counts()
        known = [item for item in part if item.new]
        large = [item for item in known if item.large]
        small = [item for item in known if not item.large] if large else known
        if small:
            counts += self._write_together(small, unsure)
        if large:
            counts += self._write_alone(large, unsure)
        # What operators do cannot be seen afterwards, so each of them goes by itself.
        gone = [item for item in part if item.delete]
        for some in (gone, *([item] for item in part if item.update is not None)):
            if some:
                statements = [alone(item, self._spec.fields) for item in some]
                reply = self._send(statements, delete=some[0].delete)
                counts += self._judge(some, reply, "n", unsure)
        return counts

    def _write_together(self, items: Sequence[Item], unsure: list[Item]) -> Counts:
        """All in a statement or two; where the server refuses a document, each in its own."""
        from pymongo.errors import OperationFailure  # noqa: PLC0415 - heavy, needed only to run

        try:
            reply = self._send(together(items, self._spec.fields))
        except OperationFailure as error:
            if error.code not in _TOO_MUCH:
                raise
        else:
            if not reply.get("writeErrors"):
                return self._judge(items, reply, "nModified", unsure)
        return self._write_alone(items, unsure)

    def _write_alone(self, items: Sequence[Item], unsure: list[Item]) -> Counts:
        reply = self._send([alone(item, self._spec.fields) for item in items])
        not_sure: list[Item] = []
        counts = self._judge(items, reply, "nModified", not_sure)
        if not not_sure:
            return counts
        # Some were written before the first refusal: how many, only a look can tell.
        waiting, written = self._look_again(not_sure)
        unsure += waiting
        return Counts(changed=written)

    def _send(self, statements: list[Document], *, delete: bool = False) -> Document:
        command = {**self._writing(statements, delete=delete), "ordered": False}
        return send(self._db, command, None)

    def _judge(
        self, items: Sequence[Item], reply: Document, witness: str, unsure: list[Item]
    ) -> Counts:
        for error in reply.get("writeErrors", ()):
            item, reject = items[int(error["index"])], refused(error)
            if self._spec.on_error == "stop":
                raise self._not_written(item.key, reject)
            item.error = reject
        sent = [item for item in items if item.error is None]
        done = int(reply[witness])
        if done < len(sent):
            unsure += sent
        return Counts(deleted=done) if items and items[0].delete else Counts(changed=done)

    def _look_again(self, items: Sequence[Item]) -> tuple[list[Item], int]:
        """Those that were not written because they were not as they were read, computed anew.

        Also how many were written after all.
        """
        waiting: list[Item] = []
        written = 0
        for some in parts(items):
            # Whole: what was written may not have been read.
            there = {
                _key(one.given["_id"]): one for one in self._reader.these([i.key for i in some])
            }
            # A document that is gone was deleted meanwhile, or is no longer what was asked for.
            for item in some:
                found = there.get(_key(item.key))
                if found is None:
                    continue
                if self._was_written(item, found.before):
                    written += 1
                elif self._renew(item, found):
                    waiting.append(item)
        return waiting, written

    def _was_written(self, item: Item, current: Document) -> bool:
        if item.whole:
            return same(current, made(item, current, self._options))
        change = self.change(item)
        return change is not None and shows(current, change)

    def _renew(self, item: Item, found: Found) -> bool:
        """Compute an item from the document as it is now; False when nothing is to be done."""
        if self._spec.fields:
            names = {"_id", *self._spec.fields}
            kept = {name: value for name, value in found.before.items() if name in names}
            (found,) = found_in(self._encoded(kept), self._options)
        item.become(self.item(found))
        return item.writes

    # -- what cannot be transformed -----------------------------------------------------------

    def _keep(self, items: Sequence[Item], session: ClientSession | None) -> None:
        """Keep the documents' ids and errors, in the batch's transaction if there is one."""
        if not items or self._ticket is None:
            return
        room = self._room(len(items))
        if room < len(items) and self._spec.on_error == "collect":
            raise OperationFailed(
                f"more than {_COLLECTED_KEPT:,} documents of {self._spec.collection} failed in "
                f"{self._spec.name}",
                hint="look at them with `mongover rejects`; mend the function and run again",
            )
        statements = [self._rejection(item) for item in items[:room]]
        if statements:
            send(self._db, {"update": self._ticket.rejects, "updates": statements}, session)

    def _room(self, wanted: int) -> int:
        assert self._ticket is not None  # noqa: S101 - the only caller looked
        if self._kept < 0:
            found = {"operation": self._ticket.key}
            self._kept = self._db[self._ticket.rejects].count_documents(found)
        limit = _COLLECTED_KEPT if self._spec.on_error == "collect" else _SKIPPED_KEPT
        room = max(0, limit - self._kept)
        self._kept += min(room, wanted)
        return room

    def _rejection(self, item: Item) -> Document:
        assert self._ticket is not None  # noqa: S101 - the only caller looked
        assert item.error is not None  # noqa: S101 - the same
        ticket = self._ticket
        fixed = {
            "revision": ticket.revision,
            "direction": ticket.direction,
            "operation": ticket.key,
            "collection": self._spec.collection,
            "function": self._spec.name,
            "document": item.key,
            "error": item.error.to_document(),
        }
        key = {"operation": ticket.key, "document": item.key}
        change = {"$set": fixed, "$currentDate": {"at": True}}
        return {"q": {"_id": {"$eq": key}}, "u": change, "upsert": True}


# -- small parts ------------------------------------------------------------------------------


def _late(count: int, started: float) -> bool:
    return (count % _LOOK == 0 or count < _LOOK) and time.monotonic() - started > _BUDGET


def _key(value: Any) -> bytes:
    import bson  # noqa: PLC0415 - costs 50 ms

    return bson.encode({"": value})


def refused(error: Document) -> Reject:
    """Why the server did not write a document, without its values."""
    code = int(error.get("code", 0))
    if code == 11000:  # noqa: PLR2004 - DuplicateKey
        fields = ", ".join(error.get("keyPattern", {}))
        return Reject("DuplicateKey", code, f"another document has its {fields or 'key'} already")
    if code == 121:  # noqa: PLR2004 - DocumentValidationFailure
        return Reject("DocumentValidationFailure", code, "it fails the collection's validator")
    if code in {10334, 17419, 17420}:
        return Reject("BSONObjectTooLarge", code, "it would be larger than 16 MB")
    return Reject("WriteError", code, f"the server refused it with {code}")


def rejected(error: Exception, function: Callable[..., Any]) -> Reject:
    """Why a function's result is none, without what the exception says of values."""
    if isinstance(error, MongoverError):
        return Reject(error.kind, None, error.message)
    kind = type(error).__name__
    return Reject(kind, None, f"{kind}{place_of(error, function)}")


def place_of(error: Exception, function: Callable[..., Any]) -> str:
    """` (0007_x.py:14)`: the deepest line of the function's own file in a traceback."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    line, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == file:
            line = step.tb_lineno
        step = step.tb_next
    if file is None or line is None:
        return ""
    return f" ({file.replace(chr(92), '/').rpartition('/')[2]}:{line})"
