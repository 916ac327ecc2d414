"""Documents of a transform, and the statements that change one only where it is as it was read.

A statement for many documents is one `multi` update: what was read and what is new are two arrays
of constants in its pipeline, and a document finds its place in them by its `_id`. To the server
that is little more than one change of many documents, where a statement for each costs it the
search, the parsing and the bookkeeping anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mongover.operations.bulk.ranges import BY_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mongover.operations.base import Document

BYTES: Final = 12 * 1024 * 1024  # of one command or batch; the server's limit is 16 MB and a bit
LARGEST: Final = 16 * 1024 * 1024  # of a document
_LARGE: Final = 1024 * 1024  # a document beyond it is not sent back whole to be compared
_OVERHEAD: Final = 200
_EMPTY: Final = 5  # bytes of a document without fields
_NEAR: Final = 64  # documents among which the server looks for one place by place


@dataclass(frozen=True, slots=True)
class Reject:
    """Why a document was kept aside; no values of documents."""

    kind: str
    code: int | None
    message: str

    def to_document(self) -> Document:
        """As it is stored."""
        return {"type": self.kind, "code": self.code, "message": self.message}


Guard = tuple[str, ...] | None
"""The fields that are compared with what was read, `()` for all; None: in a snapshot, nothing."""


@dataclass(slots=True)
class Item:
    """One document: as it was read, and what shall become of it.

    What is to be written is encoded at once: a function may go on changing what it returned.

    Attributes:
        key: Its `_id`.
        raw: As it was read, in BSON.
        new: A document in BSON whose only field, without a name, is the new value of `field`; or
            with no `field` those of several, by name; or with `whole` the new document.
        field: The only field that changes.
        gone: Fields to be taken away.
        whole: Whether `new` is the whole new document.
        update: Instead of `new`, what a command's `u` is: operators or a pipeline.
        delete: Whether it shall go.
        error: Why nothing is to be written.
    """

    key: Any
    raw: bytes
    new: bytes = b""
    field: str = ""
    gone: tuple[str, ...] = ()
    whole: bool = False
    update: Any = None
    delete: bool = False
    error: Reject | None = None

    @property
    def writes(self) -> bool:
        """Whether anything is to be sent for it."""
        return bool(self.new) or self.update is not None or self.delete

    @property
    def weight(self) -> int:
        """About how many bytes it adds to a command."""
        update = self.update if isinstance(self.update, list) else [self.update]
        new = len(self.new) or sum(len(stage.raw) for stage in update if stage is not None)
        return len(self.raw) + new + _weight_of(self.key) + _OVERHEAD

    @property
    def large(self) -> bool:
        """Whether it is too large to be compared whole."""
        return len(self.raw) > _LARGE

    def become(self, other: Item) -> None:
        """Take over what was computed anew."""
        for name in self.__slots__:
            if name != "key":
                setattr(self, name, getattr(other, name))


def _weight_of(key: Any) -> int:
    """At most how many bytes a key adds, where it can be long: it is sent twice."""
    if isinstance(key, str):
        return 8 * len(key)
    if isinstance(key, bytes):
        return 2 * len(key)
    return 2 * len(in_bson(key)) if isinstance(key, dict) else 0


def parts(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Those that write, in groups that fit one command each."""
    part: list[Item] = []
    size = 0
    for item in items:
        if not item.writes:
            continue
        weight = item.weight
        if part and size + weight > BYTES:
            yield part
            part, size = [], 0
        part.append(item)
        size += weight
    if part:
        yield part


def together(items: Sequence[Item], guard: Guard) -> list[Document]:
    """Few statements for items with a new value, given in the order of `_id`.

    A document that is not as it was read is left as it is.
    """
    alike: dict[tuple[str, tuple[str, ...], bool], list[Item]] = {}
    for item in items:
        alike.setdefault((item.field, item.gone, item.whole), []).append(item)
    return [_statement(some, guard) for some in alike.values()]


def _statement(items: Sequence[Item], guard: Guard) -> Document:
    keys = [item.key for item in items]
    statement: Document = {
        "q": {"_id": {"$in": keys}},
        "u": [_stage(items[0], _tree(items, guard))],
        "multi": True,
    }
    return statement | _bytewise(keys)


def alone(item: Item, fields: tuple[str, ...]) -> Document:
    """The statement for one item that writes, if its document is as it was read."""
    statement: Document = {"q": {"_id": item.key}, **_bytewise([item.key])}
    if item.new:
        if item.large:
            value = _either(item, _about_as_read(item, fields), _element(_new_values([item]), 0))
        else:
            value = _found([item], fields)
        return statement | {"u": [_stage(item, value)]}
    old = _element(_raws([item]), 0)
    same = _about_as_read(item, fields) if item.large else _same(old, fields)
    statement |= {"q": {"_id": item.key, "$expr": same}, "hint": BY_ID}
    return statement | ({"limit": 1} if item.delete else {"u": item.update})


def bare(item: Item) -> Document:
    """The statement for one item that writes, whatever its document is now."""
    statement: Document = {"q": {"_id": item.key}}
    if item.delete:
        return statement | {"limit": 1}
    return statement | {"u": _operators(item) if item.new else item.update}


def in_bson(value: Any) -> bytes:
    """A value in BSON, to tell values and their types apart by."""
    from bson import encode

    return encode({"": value})


def made(item: Item, before: Document, options: Any) -> Document:
    """The document that an item with a new value makes of `before`."""
    import bson

    new: Any = bson.decode(item.new, options)[""]
    if item.field:
        return {**before, item.field: new}
    if item.whole:
        return dict(new)
    return {name: value for name, value in before.items() if name not in item.gone} | dict(new)


def _stage(item: Item, value: Any) -> Document:
    return {"$set": {item.field: value}} if item.field else {"$replaceWith": value}


def _tree(items: Sequence[Item], guard: Guard) -> Document:
    """The expression that halves until few are left, and looks for the document among those."""
    if len(items) <= _NEAR:
        return _found(items, guard)
    middle = len(items) // 2
    lower = {"$lt": ["$_id", {"$literal": items[middle].key}]}
    return {"$cond": [lower, _tree(items[:middle], guard), _tree(items[middle:], guard)]}


def _found(items: Sequence[Item], guard: Guard) -> Document:
    """The new value of the document at hand, where it is as it was read.

    One that is not among them has the place -1, the last: as a whole it is not the same as that.
    """
    place = {"$indexOfArray": [{"$literal": [item.key for item in items]}, "$_id"]}
    same: Document = {"$gte": ["$$place", 0]}
    if guard is not None:
        as_read = _same(_element(_raws(items), "$$place"), guard)
        same = {"$and": [same, as_read]} if guard else as_read
    value = _either(items[0], same, _element(_new_values(items), "$$place"))
    return {"$let": {"vars": {"place": place}, "in": value}}


def _either(item: Item, same: Document, new: Document) -> Document:
    """The new value where the document is as it was read, else the one that is there."""
    if item.field:
        return {"$cond": [same, new, f"${item.field}"]}
    if not item.whole:
        new = {"$mergeObjects": ["$$ROOT", new]}
        for name in item.gone:
            new = {"$unsetField": {"field": {"$literal": name}, "input": new}}
    return {"$cond": [same, new, "$$ROOT"]}


def _same(old: Document, fields: tuple[str, ...]) -> Document:
    """The expression for a document that is what was read; only `fields` of it, if any."""
    if not fields:
        return {"$eq": ["$$ROOT", old]}
    conditions = [{"$eq": [f"${name}", f"$$old.{name}"]} for name in fields]
    return {"$let": {"vars": {"old": old}, "in": {"$and": conditions}}}


def _bytewise(keys: Sequence[Any]) -> Document:
    """Compare as bytes, whatever the collection's collation: else a change of case were none.

    Strings are looked up in the index of `_id` by the collation of the collection alone.
    """
    if any(isinstance(key, (str, dict)) for key in keys):
        return {}
    return {"collation": {"locale": "simple"}}


def _about_as_read(item: Item, fields: tuple[str, ...]) -> Document:
    """The expression for a large document that is what was read, by its size and smaller fields.

    With the whole of it the command could be larger than the server takes.
    """
    import bson
    from bson.raw_bson import RawBSONDocument

    raw = RawBSONDocument(item.raw)
    size = {"$eq": [{"$bsonSize": "$$ROOT"}, len(item.raw)]}
    absent = [{"$eq": [{"$type": f"${name}"}, "missing"]} for name in fields if name not in raw]
    conditions: list[Document] = absent if fields else [size]
    room = min(_LARGE, LARGEST - len(item.new))
    for name, value in raw.items():
        weight = len(bson.encode({name: value})) + _OVERHEAD
        if weight < _LARGE // 100 and weight < room:
            room -= weight
            field_now = {"$getField": {"$literal": name}}
            conditions.append({"$eq": [field_now, {"$literal": value}]})
    return {"$and": conditions}


# -- put together from BSON, which is not decoded and encoded again ---------------------------


def _raws(items: Iterable[Item]) -> Document:
    """The documents as they were read."""
    return _array(b"\x03%d\x00%b" % (place, item.raw) for place, item in enumerate(items))


def _new_values(items: Iterable[Item]) -> Document:
    """The new values: in `new` stand the type, the end of an empty name, and the value."""
    news = (item.new for item in items)
    return _array(b"%b%d%b" % (new[4:5], place, new[5:-1]) for place, new in enumerate(news))


def _operators(item: Item) -> Any:
    """The update that gives a document its new value."""
    from bson import encode
    from bson.raw_bson import RawBSONDocument

    kind, value = item.new[4:5], item.new[6:-1]
    if item.whole:  # a plain replacement refuses names that begin with `$`
        return [{"$replaceWith": {"$literal": RawBSONDocument(value)}}]
    if item.field:
        value = _document(kind + item.field.encode() + b"\x00" + value)
    operators = b"\x03$set\x00" + value if len(value) > _EMPTY else b""
    if item.gone:
        operators += encode({"$unset": dict.fromkeys(item.gone, "")})[4:-1]
    return RawBSONDocument(_document(operators))


def _array(elements: Iterable[bytes]) -> Document:
    """Elements in BSON, each named by its place, as an expression."""
    from bson.raw_bson import RawBSONDocument

    array = _document(b"".join(elements))
    literal: Any = RawBSONDocument(_document(b"\x04$literal\x00" + array))
    return literal  # type: ignore[no-any-return]


def _document(elements: bytes) -> bytes:
    return (len(elements) + 5).to_bytes(4, "little") + elements + b"\x00"


def _element(array: Document, place: int | str) -> Document:
    return {"$arrayElemAt": [array, place]}
