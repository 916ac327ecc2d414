"""What a function makes of one document after another: items that say what to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mongover.errors import MongoverError, OperationFailed
from mongover.operations.bulk.change import (
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
    untyped,
)
from mongover.operations.bulk.statements import LARGEST, Item, Reject, in_bson, made
from mongover.operations.duplicates import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from bson.codec_options import CodecOptions

    from mongover.operations.base import Document
    from mongover.operations.bulk.reader import Found


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


class Computing:
    """Calls the function, and takes the difference.

    Attributes:
        refused: Why the server did not take documents, by `_id` in BSON; they are not computed.
    """

    def __init__(
        self, spec: Spec, function: Callable[[Any], Any], options: CodecOptions[Document]
    ) -> None:
        import bson
        from bson.raw_bson import RawBSONDocument

        self.refused: dict[bytes, Reject] = {}
        self._spec = spec
        self._function = function
        self._options = options
        self._decode = bson.decode
        self._encode = bson.encode
        self._new_raw = RawBSONDocument

    def item(self, found: Found) -> Item:
        """What the function makes of one document.

        Raises:
            OperationFailed: it failed, and the policy is to stop.
        """
        key = found.given["_id"]
        # The function could change one that is a document.
        item = Item(found.before["_id"] if isinstance(key, dict) else key, found.raw)
        known = self.refused.get(in_bson(item.key)) if self.refused else None
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

    def decoded(self, update: Any) -> Document:
        """What an item's update says."""
        return self._decode(update.raw, self._options)

    def _decide(self, item: Item, found: Found) -> None:
        if found.page.errors:
            found.page.check(found.place)
        result = self._call(found)
        if result is None:
            return
        if result is DELETE:
            item.delete = True
        elif isinstance(result, list):
            self._refuse_odd(found)
            item.update = [self._raw(stage) for stage in result]
        elif is_operators(result):
            plain = plain_fields(result)
            if plain is None or self._hidden(plain):
                item.update = self._raw(result)
            else:
                # Its effect can be known here, and so written like any other difference.
                self._compare(item, found, applied(found.before, plain))
        else:
            # The function may have changed the document that it was given.
            self._compare(item, found, result)

    def _hidden(self, change: Fields) -> bool:
        """Whether it takes fields away that were not read."""
        return bool(self._spec.fields) and not change.unset.keys() <= set(self._spec.fields)

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

    def _compare(self, item: Item, found: Found, result: Document) -> None:
        """Take the difference to the document as it was read."""
        before = found.before
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
            change = changed(before, result)
        except NeedsReplacement:
            self._refuse_odd(found)
            self._replace(item, {"_id": item.key, **result})
            return
        if not change:
            return
        if found.page.odd(found.place):
            item.update = self._raw(change.operators())
        else:
            self._name(item, change)

    def _refuse_odd(self, found: Found) -> None:
        """Keep a document away from the server that it would bring down.

        Where a field is there twice, MongoDB 6.0 can end at a pipeline's update.
        """
        if found.page.odd(found.place):
            raise OperationFailed(
                "the document has a field twice, or one of a type that is no more",
                hint="return `$set` and `$unset` alone for it, or mend it by itself",
            )

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
        if len(data) > LARGEST:
            from pymongo.errors import DocumentTooLarge

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
