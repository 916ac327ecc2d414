"""The definition of an index: keys, options, names, and what no server would build."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from mongover.errors import OperationFailed
from mongover.operations.arguments import (
    mongo_options,
    nearest,
    one_line,
    plain,
    snake,
    source,
    spellings,
)
from mongover.operations.collections import collation_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mongover.operations.base import Document


Direction = int | str
Keys = tuple[tuple[str, Direction], ...]

KINDS = ("text", "2dsphere", "2d", "hashed")
SIGNS: Mapping[str, Direction] = {
    "-": -1,
    "+": 1,
    "#": "hashed",
    "*": "2dsphere",
    "(": "2d",
}
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
        if "background" in options:
            raise OperationFailed(
                "an index has no option 'background'",
                hint="leave it out: since MongoDB 4.2 every build lets others read and write",
            )
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
        return one_line(" ".join([f"index {collection}.{'+'.join(self.paths)}", *marks]))

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
        _check_sign(item)
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


def _check_sign(path: str) -> None:
    """Refuse what other libraries spell a direction or kind by: here it would name a field."""
    sign, field = path[:1], path[1:]
    if sign not in SIGNS or not field:
        return
    raise OperationFailed(
        f"{path!r} would be a key on a field of that name",
        hint=f"say what is meant: [{source((field, SIGNS[sign]))}],"
        f" or [{source((path, 1))}] for a field that is named so",
    )


def _fraction(path: str, number: float) -> int:
    raise OperationFailed(f"the index key {path!r} cannot be {number!r}", hint="use 1 or -1")


def _bad_keys(keys: Any) -> OperationFailed:
    if isinstance(keys, Index) or isinstance(getattr(keys, "document", None), dict):
        return OperationFailed(
            f"a definition of an index ({type(keys).__name__}) cannot be its keys",
            hint="op.create_indexes takes a list of them, op.create_index keys and options",
        )
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
    if any(direction != 1 or path[:1] in SIGNS for path, direction in keys):
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


def reference_text(index: str | Keys) -> str:
    """A reference as a message names it."""
    return index if isinstance(index, str) else default_name(index)


def index_json(index: Index) -> dict[str, Any]:
    """An index as a JSON document."""
    return {"keys": [list(pair) for pair in index.keys], "options": plain(index.options)}
