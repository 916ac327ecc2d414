"""What a function made of a document, as the smallest change that has that effect (all pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import OperationFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mongover.operations.base import Document


class Verdict(Enum):
    """What a function may return besides a document."""

    DELETE = "delete"


DELETE: Final = Verdict.DELETE
_ATOMS: Final = frozenset({str, int, bool, bytes, datetime, type(None)})
_MISSING: Final = object()
_OPERATORS: Final = frozenset(
    {
        *("$set", "$unset", "$inc", "$mul", "$min", "$max", "$rename", "$currentDate", "$bit"),
        *("$setOnInsert", "$push", "$pop", "$pull", "$pullAll", "$addToSet"),
    }
)


@dataclass(slots=True)
class Fields:
    """Paths that get values, and paths that go."""

    set: Document = field(default_factory=dict)
    unset: Document = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.set or self.unset)

    def operators(self) -> Document:
        """As an update document."""
        change: Document = {"$set": self.set} if self.set else {}
        return change | ({"$unset": self.unset} if self.unset else {})


class NeedsReplacement(Exception):
    """The change cannot be said with paths: a name has a dot or begins with `$`."""


def changed(before: Document, after: Mapping[str, Any]) -> Fields:
    """The fields at the top by which `after` differs from `before`; their order does not count.

    Raises:
        NeedsReplacement: one of them cannot be named by a path.
    """
    found = Fields()
    known = 0
    for name, value in after.items():
        old = before.get(name, _MISSING)
        if old is not _MISSING:
            known += 1
            kind = type(value)
            # Most fields of most documents are these: no call is spent on them.
            if old is value or (kind in _ATOMS and kind is type(old) and old == value):
                continue
            if same(old, value):
                continue
        found.set[_top(name)] = value
    if known < len(before):
        found.unset.update((_top(name), "") for name in before if name not in after)
    return found


def difference(before: Document, after: Mapping[str, Any]) -> Fields:
    """The paths by which `after` differs from `before`.

    Nested documents are compared field by field, lists of one length place by place. The order of
    the fields at the top does not count; inside it does, since it tells documents apart.

    Raises:
        NeedsReplacement: a changed field at the top cannot be named by a path.
    """
    top = changed(before, after)
    found = Fields(unset=top.unset)
    for name, value in top.set.items():
        if name in before:
            _descend(name, before[name], value, found)
        else:
            found.set[name] = value
    return found


def difference_or_all(before: Document, after: Mapping[str, Any]) -> Fields:
    """The difference for people to read: odd names at the top stand for themselves."""
    try:
        return difference(before, after)
    except NeedsReplacement:
        changed = {n: v for n, v in after.items() if n not in before or not same(before[n], v)}
        return Fields(changed, {name: "" for name in before if name not in after})


def value_at(document: Document, path: str) -> Any:
    """The value at a path, or None where there is none."""
    return document[path] if path in document else _at(document, path, None)


def _top(name: str) -> str:
    if not _is_plain(name):
        raise NeedsReplacement(name)
    return name


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and bool(name) and "." not in name and name[0] != "$"


def same(before: Any, after: Any) -> bool:
    """Whether two values are the same in type too: 1, 1.0 and True are three."""
    if before is after:
        return True
    kind = type(before)
    if kind is not type(after):
        return False
    if kind is dict:
        return len(before) == len(after) and _all_same_fields(before, after)
    if kind is list:
        return len(before) == len(after) and _all_same(before, after)
    if kind is float:
        return repr(before) == repr(after)  # zero has two signs, and no NaN equals another
    return bool(before == after)


def _all_same_fields(before: Document, after: Document) -> bool:
    """Whether two documents of one length have the same fields, in the same order too."""
    for (name, old), (other, new) in zip(before.items(), after.items(), strict=True):
        if name != other:
            return False
        kind = type(old)
        if kind is not type(new) or not (old == new if kind in _ATOMS else same(old, new)):
            return False
    return True


def _all_same(before: Sequence[Any], after: Sequence[Any]) -> bool:
    for old, new in zip(before, after, strict=True):
        kind = type(old)
        if kind is not type(new) or not (old == new if kind in _ATOMS else same(old, new)):
            return False
    return True


def _descend(path: str, before: Any, after: Any, found: Fields) -> None:
    """Name what differs inside two values that are not the same, or the whole of it."""
    if type(before) is dict and type(after) is dict and _is_walkable(before, after):
        _documents(path, before, after, found)
    elif type(before) is list and type(after) is list and _is_patch(before, after):
        for place, (old, new) in enumerate(zip(before, after, strict=True)):
            if not same(old, new):
                _descend(f"{path}.{place}", old, new, found)
    else:
        found.set[path] = after


def _documents(path: str, before: Document, after: Document, found: Fields) -> None:
    for name in before:
        if name not in after:
            found.unset[f"{path}.{name}"] = ""
    for name, value in after.items():
        if name not in before:
            found.set[f"{path}.{name}"] = value
        elif not same(before[name], value):
            _descend(f"{path}.{name}", before[name], value, found)


def _is_walkable(before: Document, after: Document) -> bool:
    """Whether fields can be changed in place: nameable, in the same order, new ones at the end."""
    if not before or not after or not all(map(_is_plain, (*before, *after))):
        return False
    kept = [name for name in before if name in after]
    return bool(kept) and list(after)[: len(kept)] == kept


def _is_patch(before: Sequence[Any], after: Sequence[Any]) -> bool:
    """Whether few enough places of a list differ to name them one by one."""
    if len(before) != len(after):
        return False
    changed = sum(not same(old, new) for old, new in zip(before, after, strict=True))
    return changed * 2 <= len(before)


def shows(document: Document, fields: Fields) -> bool:
    """Whether a document has all that a change gives, and nothing that it takes away."""
    missing = object()
    return all(
        same(_at(document, path, missing), value) for path, value in fields.set.items()
    ) and all(_at(document, path, missing) is missing for path in fields.unset)


def shows_all(current: Document, before: Document, after: Document) -> bool:
    """Whether a document has, of what `before` and `after` differ in, what `after` has."""
    return all(
        same(current.get(name, _MISSING), after.get(name, _MISSING))
        for name in before.keys() | after.keys()
        if not same(before.get(name, _MISSING), after.get(name, _MISSING))
    )


def _at(value: Any, path: str, missing: object | None) -> Any:
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return missing
    return value


def check_result(result: Any, name: str, before: Callable[[], Mapping[str, Any]]) -> Any:
    """What a function made of `before`, or OperationFailed when it is nothing that can be written.

    Names that begin with `$` are operators, except those that the document itself had at its top.
    """
    if result is None or result is DELETE or _is_document(result):
        return result
    if isinstance(result, dict):
        if not result or not all(map(_is_text, result)) or _is_mixed(result, before):
            raise OperationFailed(
                f"{name} returned {_odd(result)}",
                hint="return the whole new document, or operators alone; None leaves it as it is",
            )
        return result
    if isinstance(result, list) and result and all(isinstance(item, dict) for item in result):
        return result
    raise OperationFailed(
        f"{name} returned a {type(result).__name__}",
        hint="return a document, an update, a pipeline, None (unchanged) or op.DELETE",
    )


def _is_document(result: Any) -> bool:
    """Whether it is plainly a new document, as most results are."""
    if type(result) is not dict:
        return False
    try:
        return bool(result) and "$" not in "".join(result)
    except TypeError:  # a name that is no string
        return False


def _is_text(name: Any) -> bool:
    return type(name) is str


def _is_mixed(result: Mapping[str, Any], before: Callable[[], Mapping[str, Any]]) -> bool:
    """Whether it names operators and fields, and the operators are none of the document's fields.

    A field whose name begins with `$` is written where the document had it; a new one is taken for
    an operator that was mistyped.
    """
    signed = [name for name in result if name[:1] == "$"]
    return 0 < len(signed) < len(result) and not before().keys() >= set(signed)


def _odd(result: Mapping[Any, Any]) -> str:
    if not result:
        return "an empty document"
    if not all(map(_is_text, result)):
        return "a document with a name that is no string"
    signed = next(name for name in result if name[:1] == "$")
    return f"a mix of operators and fields ({signed} is no field that the document had)"


def is_operators(result: Mapping[str, Any], before: Callable[[], Mapping[str, Any]]) -> bool:
    """Whether a checked result is an update document instead of a new document."""
    if not next(iter(result)).startswith("$") or not all(name[:1] == "$" for name in result):
        return False
    return not _OPERATORS.isdisjoint(result) or not before().keys() >= result.keys()


def plain_fields(result: Any) -> Fields | None:
    """An update that only sets and unsets fields at the top, or None for any other."""
    if not isinstance(result, dict) or not result.keys() <= {"$set", "$unset"}:
        return None
    found = Fields(dict(result.get("$set") or {}), dict(result.get("$unset") or {}))
    names = (*found.set, *found.unset)
    return found if names and all(map(_is_plain, names)) else None


def applied(document: Document, fields: Fields) -> Document:
    """The document after a change of fields at the top."""
    kept = {name: value for name, value in document.items() if name not in fields.unset}
    return kept | fields.set


# -- typed documents --------------------------------------------------------------------------


def untyped(original: Document, old: Any, new: Any, *, keep: bool) -> Document:
    """The document that a typed result stands for.

    Fields that neither the old nor the new model names are kept, inside nested models too, unless
    `keep` is false. `_id` stays in any case.

    Args:
        original: The stored document.
        old: What the old model made of it, or None when the function took plain documents.
        new: An instance of a pydantic model.
        keep: Whether unnamed fields stay.
    """
    named = _names(old) | _names(new) if keep else set(original) - {"_id"}
    result = {name: value for name, value in original.items() if name not in named}
    for name, value, dumped in _dumped(new):
        result[name] = _nested(original.get(name), _field(old, name), value, dumped, keep=keep)
    return result


def _nested(original: Any, old: Any, new: Any, dumped: Any, *, keep: bool) -> Any:
    if _is_model(new) and isinstance(original, dict):
        inner = untyped(original, old, new, keep=keep)
        # A nested document without a named `_id` has none to protect.
        return {name: inner[name] for name in _ordered(original, inner)}
    if isinstance(new, (list, tuple)) and isinstance(original, list) and len(new) == len(original):
        olds = old if isinstance(old, (list, tuple)) and len(old) == len(new) else [None] * len(new)
        groups = zip(original, olds, new, dumped, strict=True)
        return [_nested(o, was, now, d, keep=keep) for o, was, now, d in groups]
    return dumped


def _ordered(original: Document, inner: Document) -> Iterable[str]:
    """The names in the order of the original, new ones after them."""
    return [*(name for name in original if name in inner), *(n for n in inner if n not in original)]


def _is_model(value: Any) -> bool:
    return hasattr(type(value), "model_fields")


def _names(instance: Any) -> set[str]:
    if instance is None or not _is_model(instance):
        return set()
    found = set()
    for name, info in type(instance).model_fields.items():
        alias = info.validation_alias
        found |= {name, info.alias or name, info.serialization_alias or name}
        found |= {alias} if isinstance(alias, str) else set()
    return found


def _dumped(instance: Any) -> Iterable[tuple[str, Any, Any]]:
    """Stored name, value and plain value of each field."""
    plain = instance.model_dump(by_alias=True)
    for name, info in type(instance).model_fields.items():
        stored = info.serialization_alias or info.alias or name
        if stored in plain:
            yield stored, getattr(instance, name), plain[stored]
    extra = set(getattr(instance, "model_extra", None) or ())
    for name in plain:
        if name in extra:
            yield name, plain[name], plain[name]


def _field(instance: Any, stored: str) -> Any:
    if instance is None or not _is_model(instance):
        return None
    for name, info in type(instance).model_fields.items():
        if stored in {name, info.alias, info.serialization_alias, info.validation_alias}:
            return getattr(instance, name, None)
    return None
