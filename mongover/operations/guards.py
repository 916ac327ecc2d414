"""Documents of a transform, and the statements that change one only where it is as it was read.

A statement for many documents is one `multi` update whose pipeline finds the document's part by
halving: a tree of comparisons on `_id`. To the server that is little more than one change of many
documents, where a statement for each costs it the search, the parsing and the bookkeeping anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mongover.operations.ranges import BY_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mongover.operations.base import Document

BYTES: Final = 12 * 1024 * 1024  # of one command or batch; the server's limit is 16 MB and a bit
_LARGE: Final = 1024 * 1024  # a document beyond it is not sent back whole to be compared
_OVERHEAD: Final = 200
_SHORT: Final = 1_000
_INT32: Final = 2**31


@dataclass(frozen=True, slots=True)
class Reject:
    """Why a document was kept aside; no values of documents."""

    kind: str
    code: int | None
    message: str

    def to_document(self) -> Document:
        """As it is stored."""
        return {"type": self.kind, "code": self.code, "message": self.message}


@dataclass(slots=True)
class Item:
    """One document: as it was read, and what shall become of it.

    What is to be written is encoded at once, unless it cannot change: a function may go on changing
    what it returned.

    Attributes:
        key: Its `_id`.
        raw: As it was read, a RawBSONDocument.
        update: What a command's `u` is: operators, a pipeline or a replacement.
        visible: Whether a look at a document tells if `update` was done to it.
        literal: Instead of `update`, `{"$literal": …}`: the new value of `field`; or with no
            `field` those of several, by name; or with `whole` the new document.
        field: The only field that changes.
        gone: Fields to be taken away.
        whole: Whether `literal` is the whole new document.
        delete: Whether it shall go.
        error: Why nothing is to be written.
    """

    key: Any
    raw: Any
    update: Any = None
    visible: bool = False
    literal: Any = None
    field: str = ""
    gone: tuple[str, ...] = ()
    whole: bool = False
    delete: bool = False
    error: Reject | None = None

    @property
    def writes(self) -> bool:
        """Whether anything is to be sent for it."""
        return self.literal is not None or self.update is not None or self.delete

    @property
    def weight(self) -> int:
        """About how many bytes it adds to a command."""
        new = self.update if self.literal is None else self.literal
        return len(self.raw.raw) + len(getattr(new, "raw", b"")) + _OVERHEAD

    def become(self, other: Item) -> None:
        """Take over what was computed anew."""
        for name in self.__slots__:
            if name != "key":
                setattr(self, name, getattr(other, name))


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


def together(items: Sequence[Item]) -> list[Document]:
    """Few statements for items with a literal, given in the order of `_id`.

    A document that is not as it was read is left as it is.
    """
    by_field: dict[str, list[Item]] = {}
    for item in items:
        by_field.setdefault(item.field, []).append(item)
    return [
        {
            "q": {"_id": {"$in": [item.key for item in some]}},
            "u": [_stage(field, _tree(some, 0, len(some)))],
            "multi": True,
        }
        for field, some in by_field.items()
    ]


def alone(item: Item) -> Document:
    """The statement for one item with a literal."""
    return {"q": {"_id": item.key}, "u": [_stage(item.field, _new(item))]}


def guarded(item: Item, fields: tuple[str, ...]) -> Document:
    """The statement for one item with an update, or that shall go; `fields` are those read."""
    query = {"_id": item.key, "$expr": _unchanged(item, fields)}
    if item.delete:
        return {"q": query, "limit": 1, "hint": BY_ID}
    return {"q": query, "u": item.update, "hint": BY_ID}


def is_simple(value: Any) -> bool:
    """Whether a value can be stored for certain, comes back as it is and cannot change meanwhile.

    It need not be encoded at once, and by itself.
    """
    kind = type(value)
    if kind is str:
        return len(value) < _SHORT and value.isascii()
    if kind is int:
        return bool(-_INT32 <= value < _INT32)
    return kind is bool or value is None


def _stage(field: str, value: Any) -> Document:
    return {"$set": {field: value}} if field else {"$replaceWith": value}


def _tree(items: Sequence[Item], first: int, end: int) -> Any:
    """The expression that comes to the item of the document at hand, by halving."""
    if end - first == 1:
        return _new(items[first])
    middle = (first + end) // 2
    lower = {"$lt": ["$_id", {"$literal": items[middle].key}]}
    return {"$cond": [lower, _tree(items, first, middle), _tree(items, middle, end)]}


def _new(item: Item) -> Document:
    """The new value where the document is as it was read, else the one that is there."""
    same = _as_read(item.raw)
    if item.field:
        return {"$cond": [same, item.literal, f"${item.field}"]}
    if item.whole:
        return {"$cond": [same, item.literal, "$$ROOT"]}
    made: Any = {"$mergeObjects": ["$$ROOT", item.literal]}
    for name in item.gone:
        made = {"$unsetField": {"field": name, "input": made}}
    return {"$cond": [same, made, "$$ROOT"]}


def made(item: Item, before: Document, options: Any) -> Document:
    """The document that an item with a literal makes of `before`."""
    import bson  # noqa: PLC0415 - costs 50 ms

    simple = isinstance(item.literal, dict)
    literal = item.literal if simple else bson.decode(item.literal.raw, options)
    new: Any = literal["$literal"]
    if item.field:
        return {**before, item.field: new}
    if item.whole:
        return dict(new)
    return {name: value for name, value in before.items() if name not in item.gone} | dict(new)


def _as_read(raw: Any) -> Document:
    """The expression for a document that is what was read.

    Of a large one only its size and its smaller fields are compared: with the whole of it the
    command could be larger than the server takes.
    """
    if len(raw.raw) <= _LARGE:
        return {"$eq": ["$$ROOT", {"$literal": raw}]}
    import bson  # noqa: PLC0415 - costs 50 ms

    conditions: list[Document] = [{"$eq": [{"$bsonSize": "$$ROOT"}, len(raw.raw)]}]
    for name, value in raw.items():
        if len(bson.encode({"": value})) < _LARGE // 100:
            field_now = {"$getField": {"$literal": name}}
            conditions.append({"$eq": [field_now, {"$literal": value}]})
    return {"$and": conditions}


def _unchanged(item: Item, fields: tuple[str, ...]) -> Document:
    if not fields:
        return _as_read(item.raw)
    conditions: list[Document] = []
    for name in fields:
        now = {"$getField": {"$literal": name}}
        if name in item.raw:
            conditions.append({"$eq": [now, {"$literal": item.raw[name]}]})
        else:
            conditions.append({"$eq": [{"$type": now}, "missing"]})
    return {"$and": conditions}
