"""Indexes on the server: building them, what is in their way, and what is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mongover.errors import DuplicateValues, OperationConflict, OperationFailed
from mongover.operations.arguments import plain, source
from mongover.operations.collections import normal_collation
from mongover.operations.ddl import LOCK_CODES, ddl, patiently, stored_collection
from mongover.operations.duplicates import Duplicates, find_duplicates, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pymongo.errors import OperationFailure

    from mongover.operations.base import Document, Outcome, Target

from mongover.operations.index import Direction, Index, Keys, reference_text

INDEX_NOT_FOUND = 27
CONFLICT_CODES = frozenset({85, 86})
CANNOT_CREATE = 67
DUPLICATE_KEY = 11000
NAMESPACE_NOT_FOUND = 26
_PROBE = "mongover lock probe"


# -- building ---------------------------------------------------------------------------------


def build(target: Target, collection: str, indexes: tuple[Index, ...], *, what: str) -> Outcome:
    """Send one `createIndexes`; the server answers by itself what exists already."""
    from pymongo.errors import OperationFailure

    try:
        reply = _create_indexes(target, collection, indexes, what=what)
    except OperationFailure as error:
        if target.transaction and error.has_error_label("TransientTransactionError"):
            raise
        if error.code in CONFLICT_CODES or _second_text(error):
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


def _second_text(error: OperationFailure) -> bool:
    return error.code == CANNOT_CREATE and "only one text index" in str(error)


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
    from pymongo.errors import OperationFailure

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
    from pymongo.errors import OperationFailure

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
            raise conflict_of(target, collection, index, spec)


def _conflict(target: Target, collection: str, indexes: tuple[Index, ...]) -> OperationConflict:
    stored = stored_indexes(target, collection)
    for index in indexes:
        for spec in stored:
            clash = spec["name"] == index.name or _same_keys(index, spec)
            if clash and not same_index(index, spec):
                return conflict_of(target, collection, index, spec)
    return OperationConflict(f"an index on {target.namespace(collection)} is in the way")


def _same_keys(index: Index, spec: Document) -> bool:
    # Any two text indexes are in each other's way.
    return ("_fts" in spec["key"]) if is_text(index) else stored_keys(spec) == index.keys


def conflict_of(target: Target, collection: str, index: Index, spec: Document) -> OperationConflict:
    """The error of an index that another one is in the way of; both are shown."""
    renamed = spec["name"] != index.name
    why = "under another name" if renamed else "with another definition"
    with_old = f" with old={source(str(spec['name']))}" if renamed else ""
    return OperationConflict(
        f"the index {index.name} on {target.namespace(collection)} exists {why}"
        + (f": {spec['name']}" if renamed else ""),
        notes=(f"wanted: {definition(index)}", f"exists: {definition(stored_index(spec))}"),
        hint=f"op.replace_index{with_old} puts the new one in its place,"
        " op.drop_index removes the old one",
    )


def definition(index: Index) -> str:
    """Keys and options on one line, as notes show them."""
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
        found = _outside(target, lambda: duplicates_of(target, collection, index))
    except _pymongo_error() as failure:
        trouble = f"the duplicates could not be listed: {type(failure).__name__}"
    keys = ", ".join(f"{path}: {kind}" for path, kind in index.keys)
    server = f"server: {DUPLICATE_KEY} DuplicateKey, key {{{keys}}}"
    notes = (server, trouble) if trouble else (server,)
    return duplicate_values(target, collection, index, found, notes=notes)


def _outside(target: Target, read: Callable[[], Duplicates]) -> Duplicates:
    return target.outside(read)


def duplicates_of(target: Target, collection: str, index: Index) -> Duplicates:
    """What a unique index would meet more than once, by its own rules."""
    return find_duplicates(target.db[collection], index.paths, options=index.options)


def _pymongo_error() -> type[Exception]:
    from pymongo.errors import PyMongoError

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
    return same_keys(index, spec) and wanted_options(index, spec) == stored_index(spec).options


def same_keys(index: Index, spec: Mapping[str, Any]) -> bool:
    """Whether a stored index has these keys."""
    stored = stored_keys(spec)
    if is_text(index):
        # The order of text fields says nothing, and the server sorts them.
        return set(index.keys) == set(stored)
    return index.keys == stored


def is_text(index: Index) -> bool:
    """Whether it is a text index, of which a collection has at most one."""
    return any(kind == "text" for _, kind in index.keys)


def wanted_options(index: Index, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an index in the form of `stored_index(spec)`, ready to be compared."""
    document = {**index.document, "weights": _weights(index)}
    if "collation" in document and "collation" in spec:
        # What the locale itself decides (caseFirst, backwards, ...) is taken from the server.
        document["collation"] = normal_collation(document["collation"], spec["collation"])
    return _normal_options(document)


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
        if normal["collation"] in ({}, {"locale": "simple"}):
            del normal["collation"]
    return normal


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
        raise several(fits, "have these keys", hint="use its name")
    return fits[0] if fits else None


def several(specs: Iterable[Document], why: str, *, hint: str) -> OperationFailed:
    """The error of a reference that fits more than one index; all of them are listed."""
    found = list(specs)
    names = ", ".join(str(spec["name"]) for spec in found)
    notes = tuple(f"{spec['name']}: {definition(stored_index(spec))}" for spec in found)
    return OperationFailed(f"several indexes {why}: {names}", notes=notes, hint=hint)


def _keys_fit(wanted: Keys, spec: Document) -> bool:
    keys = stored_keys(spec)
    return set(keys) == set(wanted) if "_fts" in spec["key"] else keys == wanted


def drop(target: Target, collection: str, name: str) -> bool:
    """Drop one index by name; False when somebody else was quicker."""
    from pymongo.errors import OperationFailure

    try:
        ddl(target, {"dropIndexes": collection, "index": name})
    except OperationFailure as error:
        if error.code not in {INDEX_NOT_FOUND, NAMESPACE_NOT_FOUND}:
            raise
        return False
    return True


def set_hidden(target: Target, collection: str, index: str | Keys, *, hidden: bool) -> Outcome:
    """Hide or show one index."""
    found = find_index(stored_indexes(target, collection), index)
    if found is None:
        raise OperationFailed(
            f"{target.namespace(collection)} has no index {reference_text(index)}",
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
