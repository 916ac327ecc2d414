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


# -- what becomes of a document ---------------------------------------------------------------


# No ABC: to ask for an instance of one takes several times as long, and that is done per document.
@dataclass(frozen=True, slots=True)
class New:
    """A new value that is known here: encoded at once, for a function may go on changing it.

    `new` is a document in BSON whose only field, without a name, is the value.
    """

    new: bytes

    @property
    def shape(self) -> tuple[Any, ...]:
        """What it has in common with those that one statement can write with it."""
        raise NotImplementedError

    def stage(self, value: Any) -> Document:
        """The stage that puts the value of an expression where this one belongs."""
        raise NotImplementedError

    def either(self, same: Document, new: Document) -> Document:
        """The new value where the document is as it was read, else the one that is there."""
        raise NotImplementedError

    def put(self, before: Document, value: Any) -> Document:
        """The document that the value, decoded, makes of another."""
        raise NotImplementedError

    def operators(self) -> Any:
        """The update that gives a document the value."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class NewField(New):
    """Of the only field that changes."""

    name: str

    @property
    def shape(self) -> tuple[Any, ...]:
        """Its name."""
        return NewField, self.name

    def stage(self, value: Any) -> Document:
        """Set it."""
        return {"$set": {self.name: value}}

    def either(self, same: Document, new: Document) -> Document:
        """Of the field alone."""
        return {"$cond": [same, new, f"${self.name}"]}

    def put(self, before: Document, value: Any) -> Document:
        """With the field as it is now."""
        return {**before, self.name: value}

    def operators(self) -> Any:
        """One `$set`."""
        field = self.new[4:5] + self.name.encode() + b"\x00" + self.new[6:-1]
        return _raw(b"\x03$set\x00" + _document(field))


@dataclass(frozen=True, slots=True)
class NewFields(New):
    """Of several fields, by name; those that are `gone` are taken away."""

    gone: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[Any, ...]:
        """What goes."""
        return NewFields, self.gone

    def stage(self, value: Any) -> Document:
        """The document with them replaces it."""
        return {"$replaceWith": value}

    def either(self, same: Document, new: Document) -> Document:
        """Of the whole document, with the others as they are there."""
        new = {"$mergeObjects": ["$$ROOT", new]}
        new = _without(self.gone, new) if self.gone else new
        return {"$cond": [same, new, "$$ROOT"]}

    def put(self, before: Document, value: Any) -> Document:
        """With the fields as they are now."""
        return {n: old for n, old in before.items() if n not in self.gone} | dict(value)

    def operators(self) -> Any:
        """`$set` and `$unset`."""
        from bson import encode

        value = self.new[6:-1]
        operators = b"\x03$set\x00" + value if len(value) > _EMPTY else b""
        if self.gone:
            operators += encode({"$unset": dict.fromkeys(self.gone, "")})[4:-1]
        return _raw(operators)


@dataclass(frozen=True, slots=True)
class NewDocument(New):
    """Of the whole document."""

    @property
    def shape(self) -> tuple[Any, ...]:
        """All whole documents go together."""
        return (NewDocument,)

    def stage(self, value: Any) -> Document:
        """It replaces the old one."""
        return {"$replaceWith": value}

    def either(self, same: Document, new: Document) -> Document:
        """Of the whole document."""
        return {"$cond": [same, new, "$$ROOT"]}

    def put(self, before: Document, value: Any) -> Document:
        """Itself."""
        del before
        return dict(value)

    def operators(self) -> Any:
        """A pipeline: a plain replacement refuses names that begin with `$`."""
        from bson.raw_bson import RawBSONDocument

        return [{"$replaceWith": {"$literal": RawBSONDocument(self.new[6:-1])}}]


@dataclass(frozen=True, slots=True)
class ByServer:
    """What only the server can carry out: what a command's `u` is, operators or a pipeline."""

    update: Any


@dataclass(frozen=True, slots=True)
class Deletion:
    """The document goes."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Why a document was kept aside, and nothing is to be written; no values of documents."""

    kind: str
    code: int | None
    message: str

    def to_document(self) -> Document:
        """As it is stored."""
        return {"type": self.kind, "code": self.code, "message": self.message}


Fate = New | ByServer | Deletion | Reject
"""What becomes of a document that does not stay as it is."""

Guard = tuple[str, ...] | None
"""The fields that are compared with what was read, `()` for all; None: in a snapshot, nothing."""


@dataclass(slots=True)
class Item:
    """One document: its `_id`, how it was read in BSON, and what becomes of it."""

    key: Any
    raw: bytes
    fate: Fate | None = None

    @property
    def error(self) -> Reject | None:
        """Why nothing is to be written."""
        return self.fate if isinstance(self.fate, Reject) else None

    @property
    def writes(self) -> bool:
        """Whether anything is to be sent for it."""
        return self.fate is not None and not isinstance(self.fate, Reject)

    @property
    def weight(self) -> int:
        """About how many bytes it adds to a command."""
        new = 0
        if isinstance(self.fate, New):
            new = len(self.fate.new)
        elif isinstance(self.fate, ByServer):
            update = self.fate.update
            new = sum(len(one.raw) for one in (update if isinstance(update, list) else [update]))
        return len(self.raw) + new + _weight_of(self.key) + _OVERHEAD

    @property
    def large(self) -> bool:
        """Whether it is too large to be compared whole."""
        return len(self.raw) > _LARGE

    def become(self, other: Item) -> None:
        """Take over what was computed anew."""
        self.raw, self.fate = other.raw, other.fate


# -- statements -------------------------------------------------------------------------------


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
    alike: dict[tuple[Any, ...], list[Item]] = {}
    for item in items:
        alike.setdefault(_new(item).shape, []).append(item)
    return [_statement(some, guard) for some in alike.values()]


def _statement(items: Sequence[Item], guard: Guard) -> Document:
    keys = [item.key for item in items]
    statement: Document = {
        "q": {"_id": {"$in": keys}},
        "u": [_new(items[0]).stage(_tree(items, guard))],
        "multi": True,
    }
    return statement | _bytewise(keys)


def alone(item: Item, fields: tuple[str, ...]) -> Document:
    """The statement for one item that writes, if its document is as it was read."""
    statement: Document = {"q": {"_id": item.key}, **_bytewise([item.key])}
    fate = item.fate
    if isinstance(fate, New):
        if item.large:
            value = fate.either(_about_as_read(item, fields), _element(_new_values([item]), 0))
        else:
            value = _found([item], fields)
        return statement | {"u": [fate.stage(value)]}
    old = _element(_raws([item]), 0)
    same = _about_as_read(item, fields) if item.large else _same(old, fields)
    statement |= {"q": {"_id": item.key, "$expr": same}, "hint": BY_ID}
    return statement | ({"u": fate.update} if isinstance(fate, ByServer) else {"limit": 1})


def bare(item: Item) -> Document:
    """The statement for one item that writes, whatever its document is now."""
    statement: Document = {"q": {"_id": item.key}}
    if isinstance(item.fate, ByServer):
        return statement | {"u": item.fate.update}
    return statement | (
        {"u": item.fate.operators()} if isinstance(item.fate, New) else {"limit": 1}
    )


def in_bson(value: Any) -> bytes:
    """A value in BSON, to tell values and their types apart by."""
    from bson import encode

    return encode({"": value})


def made(new: New, before: Document, options: Any) -> Document:
    """The document that a new value makes of `before`."""
    import bson

    value: Any = bson.decode(new.new, options)[""]
    return new.put(before, value)


def _new(item: Item) -> New:
    assert isinstance(item.fate, New)  # noqa: S101 - only those can be written together
    return item.fate


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
    value = _new(items[0]).either(same, _element(_new_values(items), "$$place"))
    return {"$let": {"vars": {"place": place}, "in": value}}


def _without(names: tuple[str, ...], document: Document) -> Document:
    """The document without some fields, in words that MongoDB 4.4 has as well."""
    other = {"$not": {"$in": ["$$field.k", {"$literal": list(names)}]}}
    pairs = {"$filter": {"input": {"$objectToArray": document}, "as": "field", "cond": other}}
    return {"$arrayToObject": pairs}


def _same(old: Document, fields: tuple[str, ...]) -> Document:
    """The expression for a document that is what was read; only `fields` of it, if any."""
    if not fields:
        # Before MongoDB 6.0 a query refuses $eq of $$ROOT and a constant.
        return {"$eq": [{"$cmp": ["$$ROOT", old]}, 0]}
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
    room = min(_LARGE, LARGEST - (len(item.fate.new) if isinstance(item.fate, New) else 0))
    for name, value in raw.items():
        weight = len(bson.encode({name: value})) + _OVERHEAD
        if weight < _LARGE // 100 and weight < room:
            room -= weight
            conditions.append(_has(name, value))
    return {"$and": conditions}


def _has(name: str, value: Any) -> Document:
    """The expression for a document with this value in a field at the top, whatever its name."""
    if name and "." not in name and not name.startswith("$"):
        return {"$eq": [f"${name}", {"$literal": value}]}
    field = {"k": name, "v": value}
    return {"$in": [{"$literal": field}, {"$objectToArray": "$$ROOT"}]}


# -- put together from BSON, which is not decoded and encoded again ---------------------------


def _raws(items: Iterable[Item]) -> Document:
    """The documents as they were read."""
    return _array(b"\x03%d\x00%b" % (place, item.raw) for place, item in enumerate(items))


def _new_values(items: Iterable[Item]) -> Document:
    """The new values: in `new` stand the type, the end of an empty name, and the value."""
    news = (_new(item).new for item in items)
    return _array(b"%b%d%b" % (new[4:5], place, new[5:-1]) for place, new in enumerate(news))


def _array(elements: Iterable[bytes]) -> Document:
    """Elements in BSON, each named by its place, as an expression."""
    literal: Document = _raw(b"\x04$literal\x00" + _document(b"".join(elements)))
    return literal


def _raw(elements: bytes) -> Any:
    from bson.raw_bson import RawBSONDocument

    return RawBSONDocument(_document(elements))


def _document(elements: bytes) -> bytes:
    return (len(elements) + 5).to_bytes(4, "little") + elements + b"\x00"


def _element(array: Document, place: int | str) -> Document:
    return {"$arrayElemAt": [array, place]}
