"""What a pipeline does to the documents that go through it, read from its stages alone.

Three things decide how a copy may run: whether each document can be treated by itself, what becomes
of `_id`, and whether the same documents would come out again. What is not known for certain counts
as the worse answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mongover.operations.base import Document

EACH: Final = frozenset(
    {
        *("$match", "$redact", "$unwind", "$lookup", "$graphLookup"),
        *("$project", "$set", "$addFields", "$unset", "$replaceRoot", "$replaceWith"),
    }
)
"""The stages that treat each document by itself; every other one may need them all at once."""

_FIRST: Final = frozenset({"$text"})  # refused by the server behind a range of `_id`
NO_MERGE: Final = "MongoDB cannot copy with $merge in a transaction"
_SAME: Final = frozenset({"$match", "$sort", "$limit", "$skip", "$sample"})
_GROUPS: Final = frozenset({"$group", "$bucket", "$bucketAuto", "$sortByCount"})
_KEYLESS: Final = frozenset({"$count", "$facet"})
_CHANCE: Final = frozenset({"$rand", "$sample", "$sampleRate", "$function", "$accumulator"})
_TIMES: Final = frozenset({"$$NOW", "$$CLUSTER_TIME"})
_ROOTS: Final = frozenset({"$$ROOT", "$$CURRENT"})
_OWN_ID: Final = frozenset({"$_id", "$$ROOT._id", "$$CURRENT._id"})
_READS: Final = {"$lookup": "from", "$graphLookup": "from", "$unionWith": "coll"}

Key = Literal["own", "made", "none", "unknown"]


@dataclass(frozen=True, slots=True)
class Flow:
    """What comes out of a pipeline.

    Attributes:
        whole: The first stage that needs all documents at once; empty where there is none.
        key: Its `_id`: the source's `own`, one that is `made` by the pipeline, `none` in any
            document, or `unknown`.
        unique: Whether each document comes out once at most.
    """

    whole: str = ""
    key: Key = "own"
    unique: bool = True

    def with_key(self, key: Key) -> Flow:
        """With another `_id`."""
        return replace(self, key=key)


def flow_of(stages: Iterable[Document]) -> Flow:
    """What comes out of stages that a collection's documents go into."""
    flow = Flow()
    for stage in stages:
        ((name, spec),) = stage.items()
        if not flow.whole and (name not in EACH or mentions(spec, _FIRST)):
            flow = replace(flow, whole=name)
        flow = (_after_each if name in EACH else _after_all)(flow, name, spec)
    return flow


def by_chance(stages: list[Document]) -> bool:
    """Whether the same documents may come out differently each time, or others."""
    if mentions(stages, _CHANCE):
        return True
    names = [name for stage in stages for name in stage]
    cuts = [names.index(name) for name in ("$limit", "$skip") if name in names]
    return bool(cuts) and "$sort" not in names[: min(cuts)]


def tells_time(stages: list[Document]) -> bool:
    """Whether the moment of the run goes into what comes out."""
    return mentions(stages, _TIMES)


def reads(stages: list[Document], collection: str) -> bool:
    """Whether a stage, however deep, looks into another collection that has this name."""

    def found(name: Any, value: Any) -> bool:
        if name not in _READS:
            return False
        return bool((value.get(_READS[name]) if isinstance(value, dict) else value) == collection)

    return _any(stages, found)


def mentions(value: Any, names: frozenset[str]) -> bool:
    """Whether one of these operators or variables stands in an expression, however deep."""

    def found(name: Any, part: Any) -> bool:
        if isinstance(part, str) and part.startswith("$$"):
            return part.split(".")[0] in names
        return name in names

    return _any([value], found)


def _any(value: Any, found: Callable[[Any, Any], bool], name: Any = None) -> bool:
    """Whether a name and value of a nested expression are what is looked for."""
    if name == "$literal":
        return False
    if found(name, value):
        return True
    if isinstance(value, dict):
        return any(_any(part, found, key) for key, part in value.items())
    return isinstance(value, (list, tuple)) and any(_any(part, found) for part in value)


# -- what becomes of _id ----------------------------------------------------------------------


def _after_each(flow: Flow, name: str, spec: Any) -> Flow:
    options = spec if isinstance(spec, dict) else {}
    match name:
        case "$set" | "$addFields" | "$project":
            return _computed(flow, options, projecting=name == "$project")
        case "$unset":
            return _without(flow, spec if isinstance(spec, (list, tuple)) else [spec])
        case "$replaceRoot" | "$replaceWith":
            return _rooted(flow, options.get("newRoot") if name == "$replaceRoot" else spec)
        case "$unwind":
            path = str(options.get("path", spec)).removeprefix("$")
            flow = _written(flow, [path, options.get("includeArrayIndex")])
            return replace(flow, unique=False)
        case "$lookup" | "$graphLookup":
            return _written(flow, [options.get("as")])
        case "$redact":
            flow = flow.with_key("unknown")  # an _id that is a document may be pruned
    return flow


def _after_all(flow: Flow, name: str, spec: Any) -> Flow:
    if name in _SAME:
        return flow
    if name in _GROUPS:
        return flow.with_key("made")
    if name in _KEYLESS:
        return flow.with_key("none")
    if name == "$setWindowFields" and isinstance(spec, dict):
        return _written(flow, spec.get("output", ()))
    return flow.with_key("unknown")


def _is_id(path: Any) -> bool:
    return str(path).split(".")[0] == "_id"


def _written(flow: Flow, paths: Iterable[Any]) -> Flow:
    return flow.with_key("made") if any(_is_id(path) for path in paths) else flow


def _without(flow: Flow, paths: Iterable[Any]) -> Flow:
    named = [path for path in paths if _is_id(path)]
    if "_id" in named:
        return flow.with_key("none")
    return flow.with_key("made") if named and flow.key != "none" else flow


def _computed(flow: Flow, spec: Document, *, projecting: bool) -> Flow:
    for name, value in spec.items():
        if name == "_id":
            flow = _valued(flow, value, projecting=projecting)
        elif _is_id(name):
            flow = flow.with_key("made")
    return flow


def _valued(flow: Flow, value: Any, *, projecting: bool = False) -> Flow:
    """With `_id` set to a value, or projected by it."""
    if value == "$$REMOVE" or (projecting and isinstance(value, (int, float)) and not value):
        return flow.with_key("none")
    if projecting and isinstance(value, (int, float)):
        return flow
    return flow if isinstance(value, str) and value in _OWN_ID else flow.with_key("made")


def _rooted(flow: Flow, root: Any) -> Flow:
    """With another document in the place of each."""
    if isinstance(root, str) and root in _ROOTS:
        return flow
    if not isinstance(root, dict):
        return flow.with_key("unknown")
    if isinstance(root.get("$mergeObjects"), (list, tuple)):
        return _merged(flow, root["$mergeObjects"])
    if any(str(name).startswith("$") for name in root):
        return flow.with_key("unknown")
    return _valued(flow, root["_id"]) if "_id" in root else flow.with_key("none")


def _merged(flow: Flow, parts: Iterable[Any]) -> Flow:
    found = flow.with_key("none")
    for part in parts:
        after = _rooted(flow, part)
        if after.key == "unknown" and found.key in {"own", "made"}:
            found = found.with_key("made")  # what is there may only be replaced
        elif after.key != "none":
            found = after
    return found
