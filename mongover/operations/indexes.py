"""Verbs for indexes: create one or many, drop, replace, hide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mongover.errors import OperationFailed
from mongover.operations.arguments import Source, call, check_name, one_line, plain, source
from mongover.operations.base import Operation, Outcome, Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self


from mongover.operations.index import Index, Keys, index_json, reference, reference_text
from mongover.operations.index_builds import (
    build,
    drop,
    find_index,
    refused_build,
    set_hidden,
    stored_indexes,
)
from mongover.operations.replacing import Replacement


@dataclass(frozen=True, slots=True)
class CreateIndex(Operation):
    """One index."""

    collection: str
    index: Index

    verb: ClassVar[str] = "create_index"
    atomic: ClassVar[bool] = True
    creation: ClassVar[bool] = True
    repeatable: ClassVar[bool] = True  # the server itself answers that it is there

    def describe(self) -> str:
        """`index users.email unique`."""
        return self.index.describe(self.collection)

    def arguments(self) -> tuple[list[Any], Mapping[str, Any]]:
        """Keys and options as a person would write them."""
        keys, options = self.index.call_arguments()
        return [self.collection, keys], options

    def to_json(self) -> dict[str, Any]:
        """The operation as a JSON document."""
        return {"operation": self.verb, "collection": self.collection, **index_json(self.index)}

    def reverse(self) -> Operation:
        """Drop it by its name."""
        return DropIndex(self.collection, self.index.name)

    def refused(self, target: Target) -> str:
        """In a transaction only on what was created there, or where it exists already."""
        return refused_build(target, self.collection, (self.index,))

    def apply(self, target: Target) -> Outcome:
        """Build it."""
        return build(target, self.collection, (self.index,), what=self.describe())


@dataclass(frozen=True, slots=True)
class CreateIndexes(Operation):
    """Several indexes of one collection in one command: the documents are read once."""

    collection: str
    indexes: tuple[Index, ...]

    verb: ClassVar[str] = "create_indexes"
    atomic: ClassVar[bool] = True
    creation: ClassVar[bool] = True
    repeatable: ClassVar[bool] = True  # the server itself answers that they are there

    @classmethod
    def of(cls, collection: str, indexes: Iterable[Any]) -> CreateIndexes:
        """From the arguments of `op.create_indexes`: keys, `Index` values or IndexModels."""
        check_name(collection)
        if isinstance(indexes, (str, dict)):
            raise OperationFailed(
                f"create_indexes takes a list of indexes, not {indexes!r}",
                hint=f"op.create_index({source(collection)}, {source(indexes)})",
            )
        found = tuple(_as_index(item) for item in indexes)
        if not found:
            raise OperationFailed(f"create_indexes on {collection} needs at least one index")
        names = [index.name for index in found]
        for name in names:
            if names.count(name) > 1:
                raise OperationFailed(f"two of the indexes on {collection} are named {name}")
        return cls(collection, found)

    def describe(self) -> str:
        """`12 indexes on calls`."""
        if len(self.indexes) == 1:
            return self.indexes[0].describe(self.collection)
        return one_line(f"{len(self.indexes)} indexes on {self.collection}")

    def arguments(self) -> tuple[list[Any], Mapping[str, Any]]:
        """Indexes with options as `op.index(...)`, the others as their keys."""
        return [self.collection, [_rendered(index) for index in self.indexes]], {}

    def to_json(self) -> dict[str, Any]:
        """The operation as a JSON document."""
        indexes = [index_json(index) for index in self.indexes]
        return {"operation": self.verb, "collection": self.collection, "indexes": indexes}

    def reverse(self) -> Operation | None:
        """Drop it, where it is one; several are dropped one by one."""
        if len(self.indexes) > 1:
            return None
        return DropIndex(self.collection, self.indexes[0].name)

    def refused(self, target: Target) -> str:
        """In a transaction only on what was created there, or where all exist already."""
        return refused_build(target, self.collection, self.indexes)

    def apply(self, target: Target) -> Outcome:
        """Build them."""
        return build(target, self.collection, self.indexes, what=self.describe())


@dataclass(frozen=True, slots=True)
class DropIndex(Operation):
    """An index goes, found by its name or by its keys.

    A downgrade refuses that for what no revision made, unless `even_if_not_ours` is said.
    """

    collection: str
    index: str | Keys
    even_if_not_ours: bool = False

    verb: ClassVar[str] = "drop_index"
    atomic: ClassVar[bool] = True
    repeatable: ClassVar[bool] = True  # what is gone stays gone
    refusal: ClassVar[str] = "MongoDB cannot drop an index in a transaction"

    @classmethod
    def of(cls, collection: str, index: Any, *, even_if_not_ours: bool = False) -> DropIndex:
        """From the arguments of `op.drop_index`, checked."""
        return cls(check_name(collection), reference(index), even_if_not_ours)

    def describe(self) -> str:
        """`drop index users.email_1`."""
        return one_line(f"drop index {self.collection}.{reference_text(self.index)}")

    def arguments(self) -> tuple[list[Any], Mapping[str, Any]]:
        """Collection and index."""
        more = {"even_if_not_ours": True} if self.even_if_not_ours else {}
        return [self.collection, _rendered_reference(self.index)], more

    def apply(self, target: Target) -> Outcome:
        """Drop it; unchanged when there is none."""
        found = find_index(stored_indexes(target, self.collection), self.index)
        if found is None:
            return "unchanged"
        return "done" if drop(target, self.collection, found["name"]) else "unchanged"


@dataclass(frozen=True, slots=True)
class _Visibility(Operation):
    """Whether the planner may use an index."""

    collection: str
    index: str | Keys

    atomic: ClassVar[bool] = True
    repeatable: ClassVar[bool] = True  # what is hidden or visible stays so
    hidden: ClassVar[bool]

    @classmethod
    def of(cls, collection: str, index: Any) -> Self:
        """From the arguments of the verb, checked."""
        return cls(check_name(collection), reference(index))

    def describe(self) -> str:
        """`hide index users.email_1`, or `unhide` it."""
        verb = self.verb.replace("_", " ")
        return one_line(f"{verb} {self.collection}.{reference_text(self.index)}")

    def arguments(self) -> tuple[list[Any], Mapping[str, Any]]:
        """Collection and index."""
        return [self.collection, _rendered_reference(self.index)], {}

    def apply(self, target: Target) -> Outcome:
        """Hide or show it; unchanged when it is so."""
        return set_hidden(target, self.collection, self.index, hidden=self.hidden)


@dataclass(frozen=True, slots=True)
class HideIndex(_Visibility):
    """The planner no longer uses an index; it is kept up to date, and can be shown again."""

    verb: ClassVar[str] = "hide_index"
    refusal: ClassVar[str] = "MongoDB cannot hide an index in a transaction"
    hidden: ClassVar[bool] = True

    def reverse(self) -> Operation:
        """Show it again."""
        return UnhideIndex(self.collection, self.index)


@dataclass(frozen=True, slots=True)
class UnhideIndex(_Visibility):
    """The planner may use a hidden index again."""

    verb: ClassVar[str] = "unhide_index"
    refusal: ClassVar[str] = "MongoDB cannot show an index in a transaction"
    hidden: ClassVar[bool] = False

    def reverse(self) -> Operation:
        """Hide it again."""
        return HideIndex(self.collection, self.index)


@dataclass(frozen=True, slots=True)
class ReplaceIndex(Operation):
    """An index with a new definition takes the place of the old one.

    The old one is `old` (a name or keys); without it, the one of the new one's name, else the
    one of the same identity: keys, collation, partial filter and `sparse`. No other is touched.
    The old one stands until the new one does, and stays when the new one is refused.
    """

    collection: str
    index: Index
    old: str | Keys | None = None

    verb: ClassVar[str] = "replace_index"
    repeatable: ClassVar[bool] = True  # it ends the same wherever it began
    refusal: ClassVar[str] = "MongoDB cannot replace an index in a transaction"

    @classmethod
    def of(cls, collection: str, index: Index, *, old: Any) -> ReplaceIndex:
        """From the arguments of `op.replace_index`, checked."""
        check_name(collection)
        return cls(collection, index, None if old is None else reference(old))

    def describe(self) -> str:
        """`replace index users.email unique`."""
        return one_line(f"replace {self.index.describe(self.collection)}")

    def arguments(self) -> tuple[list[Any], Mapping[str, Any]]:
        """Keys, the old one and options as a person would write them."""
        keys, options = self.index.call_arguments()
        old = {} if self.old is None else {"old": _rendered_reference(self.old)}
        return [self.collection, keys], {**old, **options}

    def to_json(self) -> dict[str, Any]:
        """The operation as a JSON document."""
        head = {"operation": self.verb, "collection": self.collection}
        return {**head, "old": plain(self.old), **index_json(self.index)}

    def apply(self, target: Target) -> Outcome:
        """Replace it; unchanged when only the new one is there."""
        return Replacement(self, target, self.collection, self.index).run(self.old)


def _rendered_reference(index: str | Keys) -> Any:
    return index if isinstance(index, str) else list(index)


def _rendered(index: Index) -> Any:
    keys, options = index.call_arguments()
    return Source(call("op.index", [keys], options)) if options else keys


def _as_index(item: Any) -> Index:
    if isinstance(item, Index):
        return item
    document = getattr(item, "document", None)
    if isinstance(document, dict) and "key" in document:  # pymongo's IndexModel
        options = {name: value for name, value in document.items() if name != "key"}
        return Index.of(dict(document["key"]), options)
    return Index.of(item, {})
