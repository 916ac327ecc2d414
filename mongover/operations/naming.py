"""What names a field that is about to go: unique indexes, validators, filters, views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mongover.errors import DuplicateValues
from mongover.operations.arguments import source
from mongover.operations.ddl import stored_collection
from mongover.operations.duplicates import find_duplicates, table
from mongover.operations.index_builds import stored_index, stored_indexes
from mongover.operations.views import readers, stored_views

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mongover.operations.base import Document, Target
    from mongover.operations.index import Index


def before_it_goes(target: Target, collection: str, field: str, having: Document) -> None:
    """Look at what names a field before it goes from the documents that `having` finds.

    Raises:
        DuplicateValues: A unique index would meet several documents without the field, all of
            which count as null.
    """
    if target.db[collection].find_one(having, {"_id": 1}) is None:
        return
    indexes = [stored_index(spec) for spec in stored_indexes(target, collection)]
    for index in indexes:
        if index.options.get("unique") and any(_within(path, field) for path in index.paths):
            _check_unique(target, collection, index, field, having)
    named = [*_of_collection(target, collection, field), *_of_indexes(indexes, field)]
    named += _of_views(target, collection, field)
    if named:
        goes = "go on with it" if len(named) > 1 else "goes on with it"
        target.journal.warning(
            f"{target.namespace(collection)}.{field} goes from documents and is still named by"
            f" {', '.join(named)}: what names it {goes}; change that first"
        )


def _check_unique(
    target: Target, collection: str, index: Index, field: str, having: Document
) -> None:
    # What keeps the field keeps its keys apart; only those without it can meet in null.
    nulls: list[Document] = [{path: None} for path in index.paths if _within(path, field)]
    gone: list[Document] = [{"$match": {"$or": [having, *nulls]}}, {"$unset": field}]
    found = find_duplicates(target.db[collection], index.paths, options=index.options, first=gone)
    if not found.total:
        return
    raise DuplicateValues(
        f"{target.namespace(collection)}.{field} stands under the unique index {index.name},"
        " which counts a missing field as null: without it documents would collide",
        notes=table(index.paths, found),
        hint=f"first op.drop_index({source(collection)}, {source(index.name)}), or"
        " op.replace_index it by one that is sparse or has a partial filter",
        after="no document was changed.",
    )


def _of_collection(target: Target, collection: str, field: str) -> Iterator[str]:
    options: Mapping[str, Any] = (stored_collection(target, collection) or {}).get("options", {})
    if query_names(options.get("validator") or {}, field):
        yield "the validator"
    for name in ("timeField", "metaField"):
        path = (options.get("timeseries") or {}).get(name)
        if path and _within(path, field):
            yield f"the time series ({name})"


def _of_indexes(indexes: Iterable[Index], field: str) -> Iterator[str]:
    for index in indexes:
        if query_names(index.options.get("partialFilterExpression") or {}, field):
            yield f"the partial filter of index {index.name}"
        if "expireAfterSeconds" in index.options and _within(index.paths[0], field):
            yield f"the TTL index {index.name}"


def _of_views(target: Target, collection: str, field: str) -> Iterator[str]:
    for view in readers(stored_views(target), collection):
        if pipeline_names(view.pipeline, field):
            yield f"the view {view.name}"


# -- who names it (pure) ----------------------------------------------------------------------


def _within(path: str, field: str) -> bool:
    """Whether a path is the field or lies in it."""
    return f"{path}.".startswith(f"{field}.")


def query_names(query: Any, field: str) -> bool:
    """Whether a filter or validator names a field or something in it."""
    if isinstance(query, list):
        return any(query_names(part, field) for part in query)
    if not isinstance(query, dict):
        return False
    return any(_condition_names(name, value, field) for name, value in query.items())


def _condition_names(name: str, value: Any, field: str) -> bool:
    if name == "$jsonSchema":
        return schema_names(value, field.split("."))
    if name == "$expr":
        return expression_names(value, field)
    return _within(name, field) or (name.startswith("$") and query_names(value, field))


def schema_names(schema: Any, parts: Sequence[str]) -> bool:
    """Whether a JSON Schema names the field at this path."""
    if isinstance(schema, list):
        return any(schema_names(part, parts) for part in schema)
    if not isinstance(schema, dict):
        return False
    first, *rest = parts
    properties = schema.get("properties", {})
    if not rest and (first in properties or first in schema.get("required", ())):
        return True
    if rest and schema_names(properties.get(first), rest):
        return True
    inner = ("items", "allOf", "anyOf", "oneOf", "not")
    return any(schema_names(schema.get(name), parts) for name in inner)


def expression_names(value: Any, field: str) -> bool:
    """Whether an expression reads a field: `$field`, `$$ROOT.field`, or something in it."""
    if isinstance(value, str):
        path = value.removeprefix("$$ROOT.").removeprefix("$$CURRENT.").removeprefix("$")
        return value.startswith("$") and _within(path, field)
    if isinstance(value, dict):
        return any(expression_names(part, field) for part in value.values())
    return isinstance(value, list) and any(expression_names(part, field) for part in value)


_PATHS = frozenset({"localField", "foreignField", "connectFromField", "connectToField"})


def pipeline_names(pipeline: Iterable[Any], field: str) -> bool:
    """Whether stages name a field; a name that a stage itself gives does not count."""
    return any(
        _stage_names(name, value, field) for stage in pipeline for name, value in stage.items()
    )


def _stage_names(name: str, value: Any, field: str) -> bool:
    if expression_names(value, field) or (name == "$match" and query_names(value, field)):
        return True
    if name == "$facet":
        return any(pipeline_names(stages, field) for stages in value.values())
    inner = (isinstance(value, dict) and value.get("pipeline")) or ()
    paths = _paths_of(name, value)
    return any(_within(path, field) for path in paths) or pipeline_names(inner, field)


def _paths_of(name: str, value: Any) -> list[str]:
    """The paths that a stage gives without a `$`."""
    if name == "$unset":
        return [value] if isinstance(value, str) else list(value)
    if not isinstance(value, dict):
        return []
    if name in {"$project", "$sort"}:
        return [path for path, kind in value.items() if isinstance(kind, (int, float))]
    return [str(value[part]) for part in _PATHS & value.keys()]
