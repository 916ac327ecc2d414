"""Writing what a function made of documents.

In a transaction they were read and are written in one snapshot: if anybody changes one of them
meanwhile, the whole batch is given up and read again. Elsewhere each write carries the document as
it was read, and lands only where that is still so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import OperationFailed
from mongover.operations.bulk.batches import TOO_LARGE, SmallerBatch, send
from mongover.operations.bulk.change import shows, shows_all
from mongover.operations.bulk.checkpoints import Counts
from mongover.operations.bulk.ranges import exact
from mongover.operations.bulk.reader import GROUP, Found, Reader, encoded, found_in
from mongover.operations.bulk.statements import (
    Item,
    Reject,
    alone,
    bare,
    in_bson,
    made,
    parts,
    together,
)
from mongover.operations.duplicates import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from mongover.operations.base import Document
    from mongover.operations.bulk.compute import Computing, Spec

_ROUNDS: Final = 200
_TOO_MUCH: Final = frozenset({15, 10334})  # nested too deeply, or too large, for one command


@dataclass(slots=True)
class Written:
    """What became of some items."""

    counts: Counts = field(default_factory=Counts)
    rejected: list[Item] = field(default_factory=list)
    unsure: list[Item] = field(default_factory=list)  # perhaps not as they were read

    def add(self, other: Written) -> None:
        """What another part became."""
        self.counts += other.counts
        self.rejected += other.rejected
        self.unsure += other.unsure


class InSnapshot:
    """Writes documents in the transaction that read them."""

    def __init__(self, db: Database[Any], spec: Spec, computing: Computing, *, bound: bool) -> None:
        self._db = db
        self._spec = spec
        self._computing = computing
        self._options = exact(db.codec_options)
        self._bound = bound  # the transaction is the caller's: nothing can be tried again
        self._singly = bound  # whether each document gets a statement of its own

    def settled(self) -> None:
        """The batch is committed."""
        self._computing.refused.clear()
        self._singly = self._bound

    def write(self, items: Sequence[Item], session: ClientSession | None, size: int) -> Counts:
        """Write what the items of a batch say.

        Raises:
            SmallerBatch: the transaction is to be given up and tried again, without what was
                refused or with at most so many documents.
            OperationFailed: a document was refused, and the policy is to stop.
        """
        counts = Counts()
        for part in parts(items):
            new = [item for item in part if item.new]
            updated = [item for item in part if item.update is not None]
            deleted = [item for item in part if item.delete]
            if new and not self._singly:
                counts += Counts(changed=self._together(new, session, size))
            elif new:
                counts += Counts(changed=self._one_by_one(new, session, size))
            if updated:
                counts += Counts(changed=self._one_by_one(updated, session, size))
            if deleted:
                counts += Counts(deleted=self._one_by_one(deleted, session, size))
        return counts

    def _together(self, items: Sequence[Item], session: ClientSession | None, size: int) -> int:
        """Write new values; what is refused, only statements of their own can tell."""
        from pymongo.errors import OperationFailure

        groups = [items[start : start + GROUP] for start in range(0, len(items), GROUP)]
        statements = [statement for group in groups for statement in together(group, None)]
        try:
            reply = self._run(statements, session)
        except OperationFailure as error:
            if error.code not in _TOO_MUCH:
                raise
        else:
            if not reply.get("writeErrors"):
                return int(reply["nModified"])
            self.check_size(reply["writeErrors"][0], size)
        self._singly = True
        raise SmallerBatch(size)

    def _run(
        self, statements: list[Document], session: ClientSession | None, *, delete: bool = False
    ) -> Document:
        # An error's reply may hold a value of a document, such as a date that Python cannot hold.
        return self._db.command(
            _command(self._spec, statements, delete=delete),
            session=session,
            codec_options=self._options,
        )

    @staticmethod
    def check_size(error: Document, size: int) -> None:
        """Ask for fewer documents where they are too much for one transaction together.

        Raises:
            SmallerBatch: they are.
        """
        if error.get("code") in TOO_LARGE and size > 1:
            raise SmallerBatch(size // 2)

    def _one_by_one(self, items: Sequence[Item], session: ClientSession | None, size: int) -> int:
        delete = items[0].delete
        statements = [bare(item) for item in items]
        reply = self._run(statements, session, delete=delete)
        if reply.get("writeErrors"):
            # The transaction is gone with the error; near bad documents there may be more of them.
            first = reply["writeErrors"][0]
            if session is not None:
                self.check_size(first, size)
            item, reject = items[int(first["index"])], refused(first)
            if self._spec.on_error == "stop" or session is None:
                raise _not_written(self._spec, item, reject)
            self._computing.refused[in_bson(item.key)] = reject
            raise SmallerBatch(max(1, size // 4))
        return int(reply["n"] if delete else reply["nModified"])


class Guarded:
    """Writes documents only where they are still as they were read."""

    def __init__(self, db: Database[Any], spec: Spec, computing: Computing, reader: Reader) -> None:
        self._db = db
        self._spec = spec
        self._computing = computing
        self._reader = reader

    def write(self, items: Sequence[Item]) -> Written:
        """Write each document only if it is still as it was read."""
        written = Written()
        unsure: list[Item] = []
        for part in parts(items):
            written.counts += self._write_part(part, unsure)
        doubtful = set(map(id, unsure))
        written.unsure = [item for item in items if id(item) in doubtful]
        written.rejected = [item for item in items if item.error is not None]
        return written

    def settle(self, written: Written) -> Written:
        """Compute anew what changed meanwhile, until all is written."""
        for _ in range(_ROUNDS):
            waiting, _ = self._look_again(written.unsure)
            written.rejected += [item for item in written.unsure if item.error is not None]
            if not waiting:
                return written
            written.unsure = []
            written.add(self.write(waiting))
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
        from pymongo.errors import OperationFailure

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
        command = {**_command(self._spec, statements, delete=delete), "ordered": False}
        return send(self._db, command, None)

    def _judge(
        self, items: Sequence[Item], reply: Document, witness: str, unsure: list[Item]
    ) -> Counts:
        for error in reply.get("writeErrors", ()):
            item, reject = items[int(error["index"])], refused(error)
            if self._spec.on_error == "stop":
                raise _not_written(self._spec, item, reject)
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
                in_bson(one.given["_id"]): one for one in self._reader.these([i.key for i in some])
            }
            # A document that is gone was deleted meanwhile, or is no longer what was asked for.
            for item in some:
                found = there.get(in_bson(item.key))
                if found is None:
                    continue
                if self._was_written(item, found.before):
                    written += 1
                elif self._renew(item, found):
                    waiting.append(item)
        return waiting, written

    def _was_written(self, item: Item, current: Document) -> bool:
        if item.whole:
            (read,) = found_in(item.raw, self._reader.options)
            return shows_all(current, read.given, made(item, read.given, self._reader.options))
        change = self._computing.change(item)
        return change is not None and shows(current, change)

    def _renew(self, item: Item, found: Found) -> bool:
        """Compute an item from the document as it is now; False when nothing is to be done."""
        if self._spec.fields:
            names = {"_id", *self._spec.fields}
            kept = {name: value for name, value in found.before.items() if name in names}
            (found,) = found_in(encoded(kept), self._reader.options)
        item.become(self._computing.item(found))
        return item.writes


# -- small parts ------------------------------------------------------------------------------


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


def _not_written(spec: Spec, item: Item, reject: Reject) -> OperationFailed:
    return OperationFailed(
        f"a document of {spec.collection} cannot be written as {spec.name} made it: "
        f"{reject.message}",
        notes=(f"_id {shown(item.key)}",),
        hint='mend the function or the document and run again, or say on_error="collect"',
        after="every batch before it is done and recorded.",
    )


def _command(spec: Spec, statements: list[Document], *, delete: bool = False) -> Document:
    verb, many = ("delete", "deletes") if delete else ("update", "updates")
    return {verb: spec.collection, many: statements}
