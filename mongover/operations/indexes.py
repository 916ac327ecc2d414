"""Verbs for indexes: create one or many, drop, replace, hide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from mongover.errors import DuplicateValues, OperationConflict, OperationFailed
from mongover.operations.base import (
    LOCK_CODES,
    Document,
    Operation,
    Outcome,
    Source,
    Target,
    call,
    check_name,
    ddl,
    mongo_options,
    nearest,
    patiently,
    plain,
    snake,
    source,
    spellings,
    stored_collection,
)
from mongover.operations.collections import collation_document
from mongover.operations.duplicates import Duplicates, find_duplicates, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pymongo.errors import OperationFailure

Direction = int | str
Keys = tuple[tuple[str, Direction], ...]

KINDS = ("text", "2dsphere", "2d", "hashed")
INDEX_NOT_FOUND = 27
CONFLICT_CODES = frozenset({85, 86})
DUPLICATE_KEY = 11000
NAMESPACE_NOT_FOUND = 26
_PROBE = "mongover lock probe"
_MAX_TTL = 2**31 - 1


class IndexOptions(TypedDict, total=False):
    """Options of an index; MongoDB's own spelling (`expireAfterSeconds`) works too."""

    name: str
    unique: bool
    sparse: bool
    hidden: bool
    expire_after_seconds: int
    partial_filter_expression: Document
    collation: Any
    wildcard_projection: Document
    weights: dict[str, int]
    default_language: str
    language_override: str
    bits: int
    min: float
    max: float
    storage_engine: Document


INDEX_OPTIONS = spellings(
    (
        "name",
        "unique",
        "sparse",
        "hidden",
        "expireAfterSeconds",
        "partialFilterExpression",
        "collation",
        "wildcardProjection",
        "weights",
        "default_language",
        "language_override",
        "textIndexVersion",
        "2dsphereIndexVersion",
        "bits",
        "min",
        "max",
        "storageEngine",
    )
)


@dataclass(frozen=True, slots=True)
class Index:
    """The definition of one index: its keys, and its options by MongoDB's names.

    `options` always holds the name; options that say nothing (`unique=False`) are left out.
    """

    keys: Keys
    options: dict[str, Any]

    @classmethod
    def of(cls, keys: Any, options: Mapping[str, Any]) -> Index:
        """From the arguments of `op.create_index`, checked.

        Raises:
            OperationFailed: For keys or options that no server would take, or that contradict
                each other.
        """
        pairs = key_pairs(keys)
        found = mongo_options(options, known=INDEX_OPTIONS, what="an index")
        found = {name: value for name, value in found.items() if value is not False}
        if "collation" in found:
            found["collation"] = collation_document(found["collation"])
        name = found.pop("name", default_name(pairs))
        if not isinstance(name, str) or not name or name == "*":
            raise OperationFailed(f"{name!r} cannot name an index")
        index = cls(pairs, {"name": name, **found})
        check_index(index)
        return index

    @property
    def name(self) -> str:
        """The name, MongoDB's default where none was given."""
        return str(self.options["name"])

    @property
    def paths(self) -> tuple[str, ...]:
        """The fields, in order."""
        return tuple(path for path, _ in self.keys)

    @property
    def document(self) -> Document:
        """As `createIndexes` takes it."""
        return {"key": dict(self.keys), **self.options}

    def describe(self, collection: str) -> str:
        """`index users.email unique`."""
        marks = [kind for kind in self._kinds() if kind]
        return " ".join([f"index {collection}.{'+'.join(self.paths)}", *marks])

    def _kinds(self) -> Iterable[str]:
        yield from dict.fromkeys(kind for _, kind in self.keys if isinstance(kind, str))
        for option in ("unique", "sparse", "hidden"):
            yield option if self.options.get(option) else ""
        yield "partial" if "partialFilterExpression" in self.options else ""
        yield "TTL" if "expireAfterSeconds" in self.options else ""

    def call_arguments(self) -> tuple[Any, dict[str, Any]]:
        """Keys and options as a person would write them."""
        options = {snake(name): value for name, value in self.options.items()}
        if self.name == default_name(self.keys):
            del options["name"]
        return short_keys(self.keys), options


def key_pairs(keys: Any) -> Keys:
    """Keys in any accepted form as pairs of field and direction or kind.

    `"email"` · `("a", "b")` · `[("a", 1), ("b", -1)]` · `("a", -1)` · `{"a": "text"}`
    """
    if isinstance(keys, str):
        items: list[Any] = [keys]
    elif isinstance(keys, dict):
        items = list(keys.items())
    elif isinstance(keys, (list, tuple)):
        items = [tuple(keys)] if _is_pair(keys) else list(keys)
    else:
        raise _bad_keys(keys)
    pairs = tuple(_pair(item) for item in items)
    _check_pairs(pairs)
    return pairs


def _is_pair(keys: Any) -> bool:
    numbers = (int, float)
    return len(keys) == 2 and isinstance(keys[0], str) and isinstance(keys[1], numbers)  # noqa: PLR2004 - a pair has two parts


def _pair(item: Any) -> tuple[str, Direction]:
    if isinstance(item, str):
        return item, 1
    match item:
        case (str(path), bool() | None):
            raise _bad_keys((path, item[1]))
        case (str(path), int() | float() as number) if number:
            return path, int(number) if number == int(number) else _fraction(path, number)
        case (str(path), str(kind)):
            if kind not in KINDS:
                raise OperationFailed(
                    f"the index key {path!r} cannot be {kind!r}",
                    hint=nearest(kind, KINDS) or f"1, -1 or one of {', '.join(KINDS)}",
                )
            return path, kind
    raise _bad_keys(item)


def _fraction(path: str, number: float) -> int:
    raise OperationFailed(f"the index key {path!r} cannot be {number!r}", hint="use 1 or -1")


def _bad_keys(keys: Any) -> OperationFailed:
    return OperationFailed(
        f"{keys!r} cannot be the keys of an index",
        hint='write "email", ("a", "b"), [("a", 1), ("b", -1)] or {"a": "text"}',
    )


def _check_pairs(pairs: Keys) -> None:
    if not pairs:
        raise _bad_keys(list(pairs))
    paths = [path for path, _ in pairs]
    for path in paths:
        parts = path.split(".")
        odd = any(part.startswith("$") for part in parts[:-1])
        last = parts[-1].startswith("$") and parts[-1] != "$**"
        if not all(parts) or odd or last or "\0" in path:
            raise OperationFailed(f"{path!r} cannot be a key of an index")
        if paths.count(path) > 1:
            raise OperationFailed(f"{path!r} stands twice in the keys of one index")


def default_name(keys: Keys) -> str:
    """MongoDB's own: `a_1_b_-1`."""
    return "_".join(f"{path}_{direction}" for path, direction in keys)


def short_keys(keys: Keys) -> Any:
    """Keys in their shortest accepted form."""
    if any(direction != 1 for _, direction in keys):
        return list(keys)
    return keys[0][0] if len(keys) == 1 else tuple(path for path, _ in keys)


def check_index(index: Index) -> None:
    """Refuse what no server would build; the server's own words come too late and are long."""
    kinds = {kind for _, kind in index.keys if isinstance(kind, str)}
    wildcard = any(path.split(".")[-1] == "$**" for path in index.paths) and "text" not in kinds
    for wrong, why, hint in (*_ttl_rules(index, kinds), *_kind_rules(index, kinds, wildcard)):
        if wrong:
            raise OperationFailed(f"the index {index.name} {why}", hint=hint)


Rule = tuple[bool, str, str]


def _ttl_rules(index: Index, kinds: set[str]) -> Iterable[Rule]:
    if "expireAfterSeconds" not in index.options:
        return ()
    seconds = index.options["expireAfterSeconds"]
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    return (
        (len(index.keys) > 1, "cannot expire documents: it has several fields", "use one field"),
        (bool(kinds), "cannot expire documents: it is no plain index", "use a date field"),
        (index.paths == ("_id",), "cannot expire documents by _id", "use a date field"),
        (
            not number or not 0 <= seconds <= _MAX_TTL,
            "needs a number of seconds",
            f"expire_after_seconds is between 0 and {_MAX_TTL}",
        ),
    )


def _kind_rules(index: Index, kinds: set[str], wildcard: bool) -> Iterable[Rule]:  # noqa: FBT001 - a private table of rules
    options, unique = index.options, bool(index.options.get("unique"))
    hashed = sum(1 for _, kind in index.keys if kind == "hashed")
    ttl = "expireAfterSeconds" in options
    plain_wildcard = index.paths == ("$**",) and wildcard
    return (
        (unique and hashed > 0, "cannot be hashed and unique", "make a plain unique index"),
        (hashed > 1, "has more than one hashed field", "hash one of them"),
        (wildcard and unique, "cannot be wildcard and unique", "name the fields"),
        (wildcard and ttl, "cannot be wildcard and expire documents", "name the date field"),
        (
            "wildcardProjection" in options and not plain_wildcard,
            "has a wildcard projection without being an index on $**",
            'keys "$**"',
        ),
        (
            "partialFilterExpression" in options and bool(options.get("sparse")),
            "cannot be sparse and partial",
            'write the filter: {"field": {"$exists": True}}',
        ),
        (
            "weights" in options and "text" not in kinds,
            "has weights without being a text index",
            'keys {"title": "text"}',
        ),
        (
            bool(options.get("hidden")) and index.paths == ("_id",),
            "on _id cannot be hidden",
            "leave it visible",
        ),
    )


# -- verbs ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateIndex(Operation):
    """One index."""

    collection: str
    index: Index

    verb: ClassVar[str] = "create_index"
    creation: ClassVar[bool] = True

    @property
    def repeatable(self) -> bool:
        """The server itself answers that it is there."""
        return True

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
    creation: ClassVar[bool] = True

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

    @property
    def repeatable(self) -> bool:
        """The server itself answers that they are there."""
        return True

    def describe(self) -> str:
        """`12 indexes on calls`."""
        if len(self.indexes) == 1:
            return self.indexes[0].describe(self.collection)
        return f"{len(self.indexes)} indexes on {self.collection}"

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
    """An index goes, found by its name or by its keys."""

    collection: str
    index: str | Keys

    verb: ClassVar[str] = "drop_index"

    @classmethod
    def of(cls, collection: str, index: Any) -> DropIndex:
        """From the arguments of `op.drop_index`, checked."""
        return cls(check_name(collection), reference(index))

    @property
    def repeatable(self) -> bool:
        """What is gone stays gone."""
        return True

    def describe(self) -> str:
        """`drop index users.email_1`."""
        return f"drop index {self.collection}.{_reference_text(self.index)}"

    def arguments(self) -> tuple[list[Any], Mapping[str, Any]]:
        """Collection and index."""
        return [self.collection, _rendered_reference(self.index)], {}

    def refused(self, target: Target) -> str:
        """The server refuses it."""
        del target
        return "MongoDB cannot drop an index in a transaction"

    def apply(self, target: Target) -> Outcome:
        """Drop it; unchanged when there is none."""
        found = find_index(stored_indexes(target, self.collection), self.index)
        if found is None:
            return "unchanged"
        return "done" if drop(target, self.collection, found["name"]) else "unchanged"


@dataclass(frozen=True, slots=True)
class HideIndex(Operation):
    """The planner no longer uses an index; it is kept up to date, and can be shown again."""

    collection: str
    index: str | Keys

    verb: ClassVar[str] = "hide_index"

    @classmethod
    def of(cls, collection: str, index: Any) -> HideIndex:
        """From the arguments of `op.hide_index`, checked."""
        return cls(check_name(collection), reference(index))

    @property
    def repeatable(self) -> bool:
        """What is hidden stays hidden."""
        return True

    def describe(self) -> str:
        """`hide index users.email_1`."""
        return f"hide index {self.collection}.{_reference_text(self.index)}"

    def arguments(self) -> tuple[list[Any], Mapping[str, Any]]:
        """Collection and index."""
        return [self.collection, _rendered_reference(self.index)], {}

    def reverse(self) -> Operation:
        """Show it again."""
        return UnhideIndex(self.collection, self.index)

    def refused(self, target: Target) -> str:
        """The server refuses collMod."""
        del target
        return "MongoDB cannot hide an index in a transaction"

    def apply(self, target: Target) -> Outcome:
        """Hide it; unchanged when it is."""
        return set_hidden(target, self.collection, self.index, hidden=True)


@dataclass(frozen=True, slots=True)
class UnhideIndex(Operation):
    """The planner may use a hidden index again."""

    collection: str
    index: str | Keys

    verb: ClassVar[str] = "unhide_index"

    @classmethod
    def of(cls, collection: str, index: Any) -> UnhideIndex:
        """From the arguments of `op.unhide_index`, checked."""
        return cls(check_name(collection), reference(index))

    @property
    def repeatable(self) -> bool:
        """What is visible stays visible."""
        return True

    def describe(self) -> str:
        """`unhide index users.email_1`."""
        return f"unhide index {self.collection}.{_reference_text(self.index)}"

    def arguments(self) -> tuple[list[Any], Mapping[str, Any]]:
        """Collection and index."""
        return [self.collection, _rendered_reference(self.index)], {}

    def reverse(self) -> Operation:
        """Hide it again."""
        return HideIndex(self.collection, self.index)

    def refused(self, target: Target) -> str:
        """The server refuses collMod."""
        del target
        return "MongoDB cannot show an index in a transaction"

    def apply(self, target: Target) -> Outcome:
        """Show it; unchanged when it is visible."""
        return set_hidden(target, self.collection, self.index, hidden=False)


@dataclass(frozen=True, slots=True)
class ReplaceIndex(Operation):
    """An index with a new definition takes the place of the old one.

    The old one is `old` (a name or keys); without it, whatever has the new one's name or keys.
    The new index is built first and the old one dropped after, so that queries are served
    throughout; where the server cannot hold both, the old one goes first.
    """

    collection: str
    index: Index
    old: str | Keys | None = None

    verb: ClassVar[str] = "replace_index"

    @classmethod
    def of(cls, collection: str, index: Index, *, old: Any) -> ReplaceIndex:
        """From the arguments of `op.replace_index`, checked."""
        check_name(collection)
        return cls(collection, index, None if old is None else reference(old))

    @property
    def repeatable(self) -> bool:
        """At its end the new one is there and the old one is not, wherever it began."""
        return True

    def describe(self) -> str:
        """`replace index users.email unique`."""
        return f"replace {self.index.describe(self.collection)}"

    def arguments(self) -> tuple[list[Any], Mapping[str, Any]]:
        """Keys, the old one and options as a person would write them."""
        keys, options = self.index.call_arguments()
        old = {} if self.old is None else {"old": _rendered_reference(self.old)}
        return [self.collection, keys], {**old, **options}

    def to_json(self) -> dict[str, Any]:
        """The operation as a JSON document."""
        head = {"operation": self.verb, "collection": self.collection}
        return {**head, "old": plain(self.old), **index_json(self.index)}

    def refused(self, target: Target) -> str:
        """The server refuses the drop."""
        del target
        return "MongoDB cannot replace an index in a transaction"

    def apply(self, target: Target) -> Outcome:
        """Replace it; unchanged when only the new one is there."""
        stored = stored_indexes(target, self.collection)
        there = any(same_index(self.index, spec) for spec in stored)
        olds = [spec for spec in stored if self._is_old(spec)]
        if there:
            return _drop_all(target, self.collection, olds)
        if len(olds) == 1 and (change := in_place(self.index, olds[0])):
            change = {"name": self.index.name, **change}
            ddl(target, {"collMod": self.collection, "index": change})
            return "done"
        self._swap(target, olds)
        return "done"

    def _is_old(self, spec: Document) -> bool:
        if spec["name"] == "_id_" or same_index(self.index, spec):
            return False
        if self.old is not None and find_index([spec], self.old) is not None:
            return True
        if spec["name"] == self.index.name:
            return True
        return self.old is None and stored_keys(spec) == self.index.keys

    def _swap(self, target: Target, olds: list[Document]) -> None:
        what = self.describe()
        if all(spec["name"] != self.index.name for spec in olds):
            try:
                build(target, self.collection, (self.index,), what=what)
            except OperationConflict:
                if not olds:
                    raise
            else:
                _drop_all(target, self.collection, olds)
                return
        self._check_before_drop(target)
        _drop_all(target, self.collection, olds)
        build(target, self.collection, (self.index,), what=what)

    def _check_before_drop(self, target: Target) -> None:
        """The old index is not dropped for a new one that cannot be built."""
        if not self.index.options.get("unique"):
            return
        found = find_duplicates(
            target.db[self.collection], self.index.paths, options=self.index.options
        )
        if found.total:
            raise duplicate_values(
                target, self.collection, self.index, found, after="the old index was kept."
            )


# -- building ---------------------------------------------------------------------------------


def build(target: Target, collection: str, indexes: tuple[Index, ...], *, what: str) -> Outcome:
    """Send one `createIndexes`; the server answers by itself what exists already."""
    from pymongo.errors import OperationFailure  # noqa: PLC0415 - heavy, needed only to run

    try:
        reply = _create_indexes(target, collection, indexes, what=what)
    except OperationFailure as error:
        if target.transaction and error.has_error_label("TransientTransactionError"):
            raise
        if error.code in CONFLICT_CODES:
            raise _conflict(target, collection, indexes) from error
        if error.code == DUPLICATE_KEY:
            raise _duplicates(target, collection, indexes, error) from error
        raise
    if reply.get("createdCollectionAutomatically"):
        target.created.add(collection)
    if reply.get("numIndexesBefore") != reply.get("numIndexesAfter"):
        return "done"
    _check_hidden(target, collection, indexes)
    return "unchanged"


def _create_indexes(
    target: Target, collection: str, indexes: tuple[Index, ...], *, what: str
) -> Document:
    """Build without cutting a long build and without queueing long for the lock.

    `maxTimeMS` bounds the whole command, and a build over a large collection may take hours. So
    the first attempt carries it: that is enough wherever the collection is free and small. When
    it runs out, either the lock was held or the build is long, and the two look alike. Then a
    command that needs the same lock and changes nothing is sent, with `maxTimeMS`, until it
    gets through: the lock is free. The build follows at once without a limit.
    """
    from pymongo.errors import OperationFailure  # noqa: PLC0415 - heavy, needed only to run

    documents = [index.document for index in indexes]
    command: Document = {"createIndexes": collection, "indexes": documents}
    if target.transactions and not target.transaction:
        # The default, every voting member, waits for ever when one of them is down.
        command["commitQuorum"] = "majority"
    try:
        return ddl(_once(target), command)
    except OperationFailed as error:
        cause = error.__cause__
        if not isinstance(cause, OperationFailure) or cause.code not in LOCK_CODES:
            raise
    patiently(target, lambda: _probe(target, collection), what=what)
    return ddl(_unlimited(target), command)


def _once(target: Target) -> Target:
    return target if target.transaction else replace(target, attempts=1)


def _unlimited(target: Target) -> Target:
    return replace(target, attempts=1, max_time_ms=0)


def _probe(target: Target, collection: str) -> None:
    """Take and give back the collection's exclusive lock: drop an index that cannot exist."""
    from pymongo.errors import OperationFailure  # noqa: PLC0415 - heavy, needed only to run

    command = {"dropIndexes": collection, "index": _PROBE, "maxTimeMS": target.max_time_ms}
    try:
        target.db.command(command)
    except OperationFailure as error:
        if error.code not in {INDEX_NOT_FOUND, NAMESPACE_NOT_FOUND}:
            raise


def _check_hidden(target: Target, collection: str, indexes: tuple[Index, ...]) -> None:
    """`createIndexes` does not compare `hidden`: a visible index would pass for a hidden one."""
    wanted = [index for index in indexes if index.options.get("hidden")]
    if not wanted:
        return
    stored = {spec["name"]: spec for spec in stored_indexes(target, collection)}
    for index in wanted:
        spec = stored.get(index.name, {"hidden": True})
        if not spec.get("hidden"):
            raise _conflict_of(target, collection, index, spec)


def _conflict(target: Target, collection: str, indexes: tuple[Index, ...]) -> OperationConflict:
    stored = stored_indexes(target, collection)
    for index in indexes:
        for spec in stored:
            clash = spec["name"] == index.name or _same_keys(index, spec)
            if clash and not same_index(index, spec):
                return _conflict_of(target, collection, index, spec)
    return OperationConflict(f"an index on {target.namespace(collection)} is in the way")


def _same_keys(index: Index, spec: Document) -> bool:
    text = any(kind == "text" for _, kind in index.keys)
    # A collection has at most one text index, so any two of them are in each other's way.
    return ("_fts" in spec["key"]) if text else stored_keys(spec) == index.keys


def _conflict_of(
    target: Target, collection: str, index: Index, spec: Document
) -> OperationConflict:
    renamed = spec["name"] != index.name
    why = "under another name" if renamed else "with another definition"
    return OperationConflict(
        f"the index {index.name} on {target.namespace(collection)} exists {why}"
        + (f": {spec['name']}" if renamed else ""),
        notes=(f"wanted: {_definition(index)}", f"exists: {_definition(stored_index(spec))}"),
        hint="op.replace_index puts the new one in its place, op.drop_index removes the old one",
    )


def _definition(index: Index) -> str:
    options = {name: plain(value) for name, value in index.options.items()}
    keys = ", ".join(f"{path}: {direction}" for path, direction in index.keys)
    parts = [f"{name}={source(value)}" for name, value in options.items()]
    return ", ".join([f"{{{keys}}}", *parts])


# -- duplicates -------------------------------------------------------------------------------


def _duplicates(
    target: Target, collection: str, indexes: tuple[Index, ...], error: OperationFailure
) -> DuplicateValues:
    details: Mapping[str, Any] = error.details or {}
    index = _failed_index(indexes, details)
    found, trouble = Duplicates(0, ()), ""
    try:
        found = _outside(target, lambda: _found(target, collection, index))
    except _pymongo_error() as failure:
        trouble = f"the duplicates could not be listed: {type(failure).__name__}"
    keys = ", ".join(f"{path}: {kind}" for path, kind in index.keys)
    server = f"server: {DUPLICATE_KEY} DuplicateKey, key {{{keys}}}"
    notes = (server, trouble) if trouble else (server,)
    return duplicate_values(target, collection, index, found, notes=notes)


def _outside(target: Target, read: Callable[[], Duplicates]) -> Duplicates:
    return target.outside(read)


def _found(target: Target, collection: str, index: Index) -> Duplicates:
    return find_duplicates(target.db[collection], index.paths, options=index.options)


def _pymongo_error() -> type[Exception]:
    from pymongo.errors import PyMongoError  # noqa: PLC0415 - heavy, needed only to run

    return PyMongoError


def _failed_index(indexes: tuple[Index, ...], details: Mapping[str, Any]) -> Index:
    pattern = tuple(dict(details.get("keyPattern") or {}).items())
    fits = [index for index in indexes if index.keys == pattern]
    text = str(details.get("errmsg", ""))
    named = [index for index in fits or indexes if f"index: {index.name} " in text]
    return (named or fits or list(indexes))[0]


def duplicate_values(
    target: Target,
    collection: str,
    index: Index,
    found: Duplicates,
    *,
    notes: tuple[str, ...] = (),
    after: str = "nothing of this index was kept.",
) -> DuplicateValues:
    """The error of a unique index that meets duplicates; the values stand in its notes only."""
    count = f"{found.total} values occur" if found.total > 1 else "a value occurs"
    rows = table(index.paths, found) if found.first else ()
    return DuplicateValues(
        f"cannot build the unique index {index.name} on {target.namespace(collection)}:"
        f" {count} more than once",
        notes=(*notes, *rows),
        hint="clean the data and run `mongover upgrade` again,"
        " or leave them out with partialFilterExpression",
        after=after,
    )


# -- what is stored ---------------------------------------------------------------------------


def stored_indexes(target: Target, collection: str) -> list[Document]:
    """The indexes as the server lists them, read outside any transaction."""
    return target.outside(lambda: [dict(spec) for spec in target.db[collection].list_indexes()])


def stored_keys(spec: Mapping[str, Any]) -> Keys:
    """The keys of a stored index as they would be asked for; text fields come from its weights."""
    pairs: list[tuple[str, Direction]] = []
    for path, direction in spec["key"].items():
        if path == "_fts":
            pairs += [(name, "text") for name in spec.get("weights", {})]
        elif path != "_ftsx":
            pairs.append((path, direction if isinstance(direction, str) else int(direction)))
    return tuple(pairs)


def stored_index(spec: Mapping[str, Any]) -> Index:
    """A stored index as it would be asked for: what the server adds by itself is left out."""
    return Index(stored_keys(spec), _normal_options(dict(spec)))


def same_index(index: Index, spec: Mapping[str, Any]) -> bool:
    """Whether a stored index has exactly this name and definition."""
    stored = stored_index(spec)
    wanted = Index(index.keys, _normal_options({**index.document, "weights": _weights(index)}))
    if any(kind == "text" for _, kind in index.keys):
        # The order of text fields says nothing, and the server sorts them.
        return set(wanted.keys) == set(stored.keys) and wanted.options == stored.options
    return wanted == stored


def _weights(index: Index) -> dict[str, int]:
    weights = dict(index.options.get("weights", {}))
    for path, kind in index.keys:
        if kind == "text":
            weights.setdefault(path, 1)
    return weights


_INDEX_DEFAULTS: Mapping[str, Any] = {
    "default_language": "english",
    "language_override": "language",
    "bits": 26,
    "min": -180,
    "max": 180,
}
_NOT_DEFINITION = frozenset(
    {"v", "ns", "key", "background", "textIndexVersion", "2dsphereIndexVersion"}
)
_NORMAL_COLLATION: Mapping[str, Any] = {
    "caseLevel": False,
    "caseFirst": "off",
    "strength": 3,
    "numericOrdering": False,
    "alternate": "non-ignorable",
    "maxVariable": "punct",
    "normalization": False,
    "backwards": False,
}


def _normal_options(spec: Mapping[str, Any]) -> dict[str, Any]:
    normal: dict[str, Any] = {}
    for name, value in spec.items():
        if name in _NOT_DEFINITION or value is False or value == _INDEX_DEFAULTS.get(name, ...):
            continue
        normal[name] = value
    if "weights" in normal:
        weights = {path: int(weight) for path, weight in normal["weights"].items()}
        normal["weights"] = weights
        if set(weights.values()) <= {1}:
            del normal["weights"]
    if "collation" in normal:
        normal["collation"] = {
            name: value
            for name, value in normal["collation"].items()
            if name != "version" and value != _NORMAL_COLLATION.get(name, ...)
        }
    return normal


def in_place(index: Index, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The options that collMod can change so that the stored index becomes the wanted one.

    Empty when that is not enough; then the index has to be built anew.
    """
    stored = stored_index(spec)
    wanted = _normal_options(index.document)
    names = [*stored.options, *wanted]
    differ = {name for name in names if stored.options.get(name) != wanted.get(name)}
    if index.keys != stored.keys or not differ <= {"expireAfterSeconds", "hidden"}:
        return {}
    if "expireAfterSeconds" in differ and not {"expireAfterSeconds"} <= (
        stored.options.keys() & wanted.keys()
    ):
        return {}
    return {name: wanted.get(name, False) for name in sorted(differ)}


def find_index(stored: Iterable[Document], wanted: str | Keys) -> Document | None:
    """The stored index of a name, else the one of these keys.

    Raises:
        OperationFailed: When several have these keys.
    """
    specs = list(stored)
    if isinstance(wanted, str):
        named = [spec for spec in specs if spec["name"] == wanted]
        if named:
            return named[0]
        wanted = ((wanted, 1),)
    fits = [spec for spec in specs if _keys_fit(wanted, spec)]
    if len(fits) > 1:
        names = ", ".join(str(spec["name"]) for spec in fits)
        raise OperationFailed(f"several indexes have these keys: {names}", hint="use its name")
    return fits[0] if fits else None


def _keys_fit(wanted: Keys, spec: Document) -> bool:
    keys = stored_keys(spec)
    return set(keys) == set(wanted) if "_fts" in spec["key"] else keys == wanted


def drop(target: Target, collection: str, name: str) -> bool:
    """Drop one index by name; False when somebody else was quicker."""
    from pymongo.errors import OperationFailure  # noqa: PLC0415 - heavy, needed only to run

    try:
        ddl(target, {"dropIndexes": collection, "index": name})
    except OperationFailure as error:
        if error.code not in {INDEX_NOT_FOUND, NAMESPACE_NOT_FOUND}:
            raise
        return False
    return True


def _drop_all(target: Target, collection: str, specs: list[Document]) -> Outcome:
    for spec in specs:
        drop(target, collection, spec["name"])
    return "done" if specs else "unchanged"


def set_hidden(target: Target, collection: str, index: str | Keys, *, hidden: bool) -> Outcome:
    """Hide or show one index."""
    found = find_index(stored_indexes(target, collection), index)
    if found is None:
        raise OperationFailed(
            f"{target.namespace(collection)} has no index {_reference_text(index)}",
            hint="op.create_index makes it",
        )
    if bool(found.get("hidden")) is hidden:
        return "unchanged"
    change = {"name": found["name"], "hidden": hidden}
    ddl(target, {"collMod": collection, "index": change})
    return "done"


def refused_build(target: Target, collection: str, indexes: tuple[Index, ...]) -> str:
    """Why these indexes cannot be built in the open transaction, or an empty string."""
    if collection not in target.created and stored_collection(target, collection) is not None:
        stored = stored_indexes(target, collection)
        if all(any(same_index(index, spec) for spec in stored) for index in indexes):
            return ""
        return (
            f"MongoDB cannot build an index in a transaction on {collection},"
            " which existed before it"
        )
    if target.db[collection].find_one({}, {"_id": 1}) is not None:
        return (
            f"MongoDB cannot build an index in a transaction on {collection},"
            " which holds documents by now: create the index before they are inserted"
        )
    return ""


# -- references and texts ---------------------------------------------------------------------


def reference(index: Any) -> str | Keys:
    """A name or keys that point at an existing index."""
    if isinstance(index, Index):
        return index.name
    if isinstance(index, str):
        if not index or index == "*":
            raise OperationFailed(f"{index!r} names no index", hint="name one index")
        if index == "_id_":
            raise OperationFailed("the index _id_ can be neither dropped nor hidden")
        return index
    pairs = key_pairs(index)
    if pairs == (("_id", 1),):
        raise OperationFailed("the index _id_ can be neither dropped nor hidden")
    return pairs


def _reference_text(index: str | Keys) -> str:
    return index if isinstance(index, str) else default_name(index)


def _rendered_reference(index: str | Keys) -> Any:
    return index if isinstance(index, str) else list(index)


def index_json(index: Index) -> dict[str, Any]:
    """An index as a JSON document."""
    return {"keys": [list(pair) for pair in index.keys], "options": plain(index.options)}


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
