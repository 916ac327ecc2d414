"""How a dotted path is walked on the server: through documents, arrays, and arrays in arrays.

Update operators stop at an array and a query passes one level of it; here an aggregation
expression goes through all. The *places* of a path are the documents in which its last part may
stand: of `items.x` the document `items`, or every document of the array `items`. What is done at a
place, and what is asked of it, comes as a function from the expression of that document to another
expression; how it is reached is decided here alone. A document is rebuilt with `$mergeObjects`, so
its other fields keep their order, and names such as `a.b` or `$c` stay what they are.

A part that is a number is a position where an array stands, and a name where a document stands,
as in update operators. All of it runs on MongoDB 4.4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mongover.operations.base import Document

    Expr = Any
    At = Callable[[str], Expr]
    """From the expression of a document, such as `$$e`, to another expression."""

NESTED: Final = 3
"""How many arrays may stand directly in one another below the first, and are still walked."""

_DEEPEST: Final = 155  # the server takes 200 levels of BSON; the rest is for what a place does
_ALL: Final = "$[]"
_DIGITS: Final = 9  # more of them are no position that an array could have
_VALUES: Final = (
    *("double", "string", "binData", "undefined", "objectId", "bool", "date", "null", "regex"),
    *("dbPointer", "javascript", "symbol", "javascriptWithScope", "int", "timestamp", "long"),
    *("decimal", "minKey", "maxKey"),
)  # what is neither a document nor an array


@dataclass(frozen=True, slots=True)
class Path:
    """A path of at least two parts, and how many arrays in arrays it goes through."""

    text: str
    depth: int = 0

    @property
    def parts(self) -> list[str]:
        """`items.x` → `items`, `x`."""
        return self.text.split(".")

    @property
    def leaf(self) -> str:
        """The name of the field at each place."""
        return self.parts[-1]

    @property
    def parent(self) -> str:
        """`a.b.x` → `a.b`; empty for a field of the document itself."""
        return self.text.rpartition(".")[0]

    @property
    def prefixes(self) -> list[str]:
        """What is to be gone through: `a.b.x` → `a`, `a.b`."""
        parts = self.parts
        return [".".join(parts[:end]) for end in range(1, len(parts))]

    @property
    def positions(self) -> bool:
        """Whether a part below the first may be a position in an array."""
        return any(map(is_position, self.parts[1:]))

    # -- queries ------------------------------------------------------------------------------

    def through_array(self) -> Document:
        """The query for documents with an array on the way."""
        return _any_of({prefix: {"$type": "array"}} for prefix in self.prefixes)

    def through_nested(self) -> Document:
        """The query for documents with an array directly in an array on the way."""
        return _any_of({prefix: {"$elemMatch": {"$type": "array"}}} for prefix in self.prefixes)

    def through_deeper(self) -> Document:
        """The query for documents with more arrays in arrays on the way than are walked."""

        def deep(value: Expr, following: str) -> Expr:
            return False if is_position(following) else _nested(value, NESTED + 1)

        return _on_the_way(replace(self, depth=NESTED), deep)

    def through_value(self) -> Document:
        """The query for documents with what is neither document nor array on the way."""
        if not self.depth and not self.positions:
            return _any_of({prefix: {"$type": list(_VALUES)}} for prefix in self.prefixes)

        def blocked(value: Expr, following: str) -> Expr:
            itself = {"$not": [{"$in": [{"$type": value}, ["object", "array", "missing"]]}]}
            if is_position(following):
                return itself
            return {"$or": [itself, _holds_value(value, self.depth)]}

        return _on_the_way(self, blocked)

    def ambiguous(self) -> Document:
        """The query for documents where a number of the path is a position and a name at once."""

        def named(value: Expr, following: str) -> Expr:
            if not is_position(following):
                return False
            found = _spread(value, self.depth, lambda e: exists(f"{e}.{following}"), "n")
            return {"$and": [{"$isArray": [value]}, found]}

        return _on_the_way(self, named)

    def at_position(self) -> Document:
        """The query for documents where the last part is a position in an array."""

        def positioned(value: Expr, following: str) -> Expr:
            return is_position(following) and {"$isArray": [value]}

        return {"$expr": _met(self, len(self.parts) - 1, positioned)}

    def somewhere(self, test: At) -> Document:
        """The query for documents with a place that passes a test."""
        return {"$expr": _some(self, test)}

    def having(self) -> Document:
        """The query for documents with the field at a place."""
        if not self.depth and not self.positions:
            return {self.text: {"$exists": True}}
        return self.somewhere(lambda place: exists(f"{place}.{self.leaf}"))

    def having_at_any_depth(self) -> Document:
        """The query for documents with the field at a place, whatever arrays lead there."""
        plain = {self.text: {"$exists": True}}
        if not self.prefixes:
            return plain
        return {"$or": [plain, replace(self, depth=NESTED).having()]}

    def lacking(self) -> Document:
        """The query for documents that lack the field at a place, or the document to hold it."""
        first, *inner = [*self.prefixes, self.text]
        found = [missing(f"${first}"), *(_lacks(replace(self, text=text)) for text in inner)]
        return {"$expr": {"$or": found}}

    # -- changes ------------------------------------------------------------------------------

    def changed(self, at: At, *, absent: Expr = None) -> Document:
        """The stage that puts `at(place)` in the stead of every place.

        Args:
            at: What becomes of a place.
            absent: The field's value where a document on the way is missing: that document is
                made, with the field. None makes nothing.
        """
        walk = _Walk(self.depth, at, absent)
        first, *rest = self.parts
        return {"$set": {first: walk.below(f"${first}", rest)}}

    def removed(self) -> list[Document]:
        """The stages that take the field from every place."""
        if not self.positions:
            return [{"$unset": self.text}]

        def less(place: str) -> Expr:
            return {"$cond": [exists(f"{place}.{self.leaf}"), without(place, self.leaf), place]}

        return [self.changed(less)]

    @property
    def walkable(self) -> bool:
        """Whether the server takes an expression for a path as long as this."""
        return _levels(self.changed(lambda place: place)) <= _DEEPEST


@dataclass(frozen=True, slots=True)
class _Walk:
    """The expression that rebuilds what a path goes through."""

    depth: int
    at: At
    absent: Expr

    def below(self, child: Expr, rest: list[str]) -> Expr:
        """The new value of a child, with so many parts below it."""
        away = self._away(child, rest)
        return {"$cond": [_is_walked(child), self._value(child, rest), away]}

    def _away(self, child: Expr, rest: list[str], *, possible: Expr = True) -> Expr:
        """What stays of a child that is not walked, or is made where it is missing."""
        if self.absent is None:
            return child
        made = self.absent
        for part in reversed(rest):
            made = {part: made}
        return {"$cond": [{"$and": [missing(child), possible]}, made, child]}

    def _value(self, value: Expr, rest: list[str]) -> Expr:
        if not is_position(rest[0]):
            return _mapped(value, self.depth, lambda e: self._step(e, rest), f"v{len(rest)}")
        if len(rest) == 1:
            return {"$cond": [_is_document(value), self.at(value), value]}
        return self._positioned(value, rest)

    def _step(self, place: Expr, rest: list[str]) -> Expr:
        if len(rest) == 1:
            return self.at(place)
        child = f"{place}.{rest[0]}"
        return {"$mergeObjects": [place, {rest[0]: self.below(child, rest[1:])}]}

    def _positioned(self, value: Expr, rest: list[str]) -> Expr:
        part, old, new = rest[0], f"o{len(rest)}", f"n{len(rest)}"
        away = self._away(f"$${old}", rest[1:], possible=_is_document(value))
        below = {"$cond": [_is_walked(f"$${old}"), self._value(f"$${old}", rest[1:]), away]}
        spliced = {"$cond": [exists(f"$${old}"), _spliced(value, int(part), f"$${new}"), value]}
        merged = {"$mergeObjects": [value, {part: f"$${new}"}]}
        put = {"$cond": [{"$isArray": [value]}, spliced, merged]}
        inner = {"$let": {"vars": {new: below}, "in": put}}
        return {"$let": {"vars": {old: _picked(value, part)}, "in": inner}}


def stopped_by_array(path: str) -> Document | None:
    """The query for documents with a field that update operators do not reach for an array.

    They pass an array by a position or by `$[]`. None where an array cannot be in the way, or
    `$` and `$[name]` leave open which elements are meant.
    """
    parts = path.split(".")
    if any(part.startswith("$") and part != _ALL for part in parts):
        return None
    prefixes = [
        ".".join(part for part in parts[:end] if part != _ALL)
        for end in range(1, len(parts))
        if parts[end] != _ALL and parts[end - 1] != _ALL and not is_position(parts[end])
    ]
    if not prefixes:
        return None
    arrays = _any_of({prefix: {"$type": "array"}} for prefix in prefixes)
    field = Path(".".join(part for part in parts if part != _ALL))
    return {"$and": [arrays, field.having_at_any_depth()]}


# -- what is done at a place ------------------------------------------------------------------


def exists(value: Expr) -> Expr:
    """Whether there is such a field; null is one."""
    return {"$ne": [{"$type": value}, "missing"]}


def missing(value: Expr) -> Expr:
    """Whether there is no such field."""
    return {"$eq": [{"$type": value}, "missing"]}


def put(place: str, name: str, value: Expr) -> Expr:
    """The place with a field set, where it stands or else at the end; a missing value sets none."""
    return {"$mergeObjects": [place, {name: value}]}


def without(place: Expr, name: str) -> Expr:
    """The place without a field."""
    pairs = {"$filter": {"input": {"$objectToArray": place}, "as": "f", "cond": _other(name)}}
    return {"$arrayToObject": pairs}


def _other(name: str) -> Expr:
    return {"$ne": ["$$f.k", {"$literal": name}]}


# -- small parts ------------------------------------------------------------------------------


def _on_the_way(path: Path, test: Callable[[Expr, str], Expr]) -> Document:
    """The query for documents where a value that is gone through passes; see `_met`."""
    return {"$expr": {"$or": [_met(path, end, test) for end in range(1, len(path.parts))]}}


def _lacks(path: Path) -> Expr:
    return _some(path, lambda place: missing(f"{place}.{path.leaf}"))


def _some(path: Path, test: At) -> Expr:
    """Whether a place passes."""

    def places(value: Expr, following: str) -> Expr:
        if is_position(following):
            return {"$and": [_is_document(value), test(value)]}
        return _spread(value, path.depth, test, "p")

    return _met(path, len(path.parts) - 1, places)


def _met(path: Path, end: int, test: Callable[[Expr, str], Expr]) -> Expr:
    """Whether a value of the first `end` parts passes a test, which is told the part after them."""
    parts = path.parts

    def met(value: Expr, rest: list[str]) -> Expr:
        if not rest:
            return test(value, parts[end])
        part, name = rest[0], f"w{len(rest)}"
        if is_position(part):
            held = {name: _picked(value, part)}
            return {"$let": {"vars": held, "in": met(f"$${name}", rest[1:])}}
        return _spread(value, path.depth, lambda e: met(f"{e}.{part}", rest[1:]), name)

    return met(f"${parts[0]}", parts[1:end])


def is_position(part: str) -> bool:
    """Whether a part of a path may be a position in an array."""
    return part.isascii() and part.isdigit() and len(part) <= _DIGITS and str(int(part)) == part


def _any_of(queries: Iterable[Document]) -> Document:
    found = list(queries)
    return found[0] if len(found) == 1 else {"$or": found}


def _is_document(value: Expr) -> Expr:
    return {"$eq": [{"$type": value}, "object"]}


def _is_walked(value: Expr) -> Expr:
    return {"$in": [{"$type": value}, ["object", "array"]]}


def _listed(value: Expr) -> Expr:
    return {"$cond": [{"$isArray": [value]}, value, [value]]}


def _each(value: Expr, name: str, inner: Expr) -> Expr:
    return {"$map": {"input": value, "as": name, "in": inner}}


def _spread(value: Expr, depth: int, test: At, name: str) -> Expr:
    """Whether the value, or a document in it where it is an array, is a document and passes."""

    def passes(item: Expr, left: int) -> Expr:
        if left < 0:
            return {"$and": [_is_document(item), test(item)]}
        var = f"{name}_{left}"
        return {"$anyElementTrue": [_each(_listed(item), var, passes(f"$${var}", left - 1))]}

    return passes(value, depth)


def _mapped(value: Expr, depth: int, change: At, name: str) -> Expr:
    """The value with each of its documents changed, or the one that it is."""

    def mapped(item: Expr, left: int) -> Expr:
        if left < 0:
            return {"$cond": [_is_document(item), change(item), item]}
        var, done = f"{name}_{left}", f"{name}_{left}d"
        each = _each(_listed(item), var, mapped(f"$${var}", left - 1))
        back = {"$cond": [{"$isArray": [item]}, f"$${done}", {"$arrayElemAt": [f"$${done}", 0]}]}
        return {"$let": {"vars": {done: each}, "in": back}}

    return mapped(value, depth)


def _nested(value: Expr, levels: int) -> Expr:
    """Whether so many arrays stand directly in one another below an array."""
    if not levels:
        return {"$isArray": [value]}
    var = f"a{levels}"
    inner = {"$anyElementTrue": [_each(value, var, _nested(f"$${var}", levels - 1))]}
    return {"$and": [{"$isArray": [value]}, inner]}


def _holds_value(value: Expr, depth: int) -> Expr:
    """Whether an array holds what is neither document nor array."""
    var = f"h{depth}"
    item = f"$${var}"
    lone = {"$not": [_is_walked(item)]}
    inner = lone if not depth else {"$or": [lone, _holds_value(item, depth - 1)]}
    found = {"$anyElementTrue": [_each(value, var, inner)]}
    return {"$and": [{"$isArray": [value]}, found]}


def _picked(value: Expr, part: str) -> Expr:
    """The element at a position of an array, or the field of a document with that name."""
    element = {"$arrayElemAt": [value, int(part)]}
    return {"$cond": [{"$isArray": [value]}, element, f"{value}.{part}"]}


def _spliced(value: Expr, position: int, item: Expr) -> Expr:
    before = [{"$slice": [value, position]}] if position else []
    after = {"$slice": [value, position + 1, {"$size": value}]}
    return {"$concatArrays": [*before, [item], after]}


def _levels(value: Any) -> int:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_levels, items), default=0)
