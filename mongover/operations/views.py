"""Which views read from a collection, and how they are pointed at another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mongover.operations.ddl import ddl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mongover.operations.base import Document, Target


@dataclass(frozen=True, slots=True)
class View:
    """A view: its name, what it stands on, and its stages."""

    name: str
    view_on: str
    pipeline: list[Document]

    @property
    def sources(self) -> set[str]:
        """The collections and views that it reads: its own and those that it joins."""
        found = {self.view_on}

        def note(name: str) -> str:
            found.add(name)
            return name

        _stages(self.pipeline, note)
        return found

    def pointed(self, old: str, new: str) -> View:
        """The view with one source in the place of another, wherever it is named."""

        def swap(name: str) -> str:
            return new if name == old else name

        return View(self.name, swap(self.view_on), _stages(self.pipeline, swap))


def _stages(pipeline: Iterable[Document], swap: Callable[[str], str]) -> list[Document]:
    return [{name: _stage(name, value, swap) for name, value in s.items()} for s in pipeline]


def _stage(name: str, value: Any, swap: Callable[[str], str]) -> Any:
    if name == "$facet":
        return {facet: _stages(stages, swap) for facet, stages in value.items()}
    if name == "$unionWith" and isinstance(value, str):
        return swap(value)
    if name not in {"$unionWith", "$lookup", "$graphLookup"}:
        return value
    changed = dict(value)
    for part in ("from", "coll"):
        if isinstance(changed.get(part), str):
            changed[part] = swap(changed[part])
    if "pipeline" in changed:
        changed["pipeline"] = _stages(changed["pipeline"], swap)
    return changed


def stored_views(target: Target) -> tuple[View, ...]:
    """All views of the database by name, read outside any transaction."""

    def read() -> list[Document]:
        return [dict(entry) for entry in target.db.list_collections(filter={"type": "view"})]

    entries = sorted(target.outside(read), key=lambda entry: str(entry["name"]))
    return tuple(
        View(entry["name"], entry["options"]["viewOn"], list(entry["options"]["pipeline"]))
        for entry in entries
    )


def readers(views: Iterable[View], collection: str) -> tuple[View, ...]:
    """The views that read from a collection, then those that read from these (pure)."""
    found: dict[str, View] = {}
    near = {collection}
    rest = list(views)
    while near:
        new = [view for view in rest if view.name not in found and near & view.sources]
        found |= {view.name: view for view in new}
        near = {view.name for view in new}
    return tuple(found.values())


def repoint(target: Target, collection: str, to: str) -> bool:
    """Let the views that read from a collection read from another one; whether there were any."""
    near = [view for view in stored_views(target) if collection in view.sources]
    for view in near:
        new = view.pointed(collection, to)
        ddl(target, {"collMod": view.name, "viewOn": new.view_on, "pipeline": new.pipeline})
    if near:
        names = ", ".join(view.name for view in near)
        target.journal.message(f"now on {to} instead of {collection}: {_noun(near)} {names}")
    return bool(near)


def warn_of_readers(target: Target, collection: str, *, why: str, way_out: str) -> None:
    """Keep a warning on the record when views read from what is gone."""
    found = readers(stored_views(target), collection)
    if found:
        names = ", ".join(view.name for view in found)
        target.journal.warning(
            f"{target.namespace(collection)} {why}, and the {_noun(found)} {names}"
            f" {'reads' if len(found) == 1 else 'read'} from it: nothing is found there until"
            f" something has that name again; {way_out}"
        )


def _noun(views: Iterable[View]) -> str:
    return "view" if len(list(views)) == 1 else "views"
