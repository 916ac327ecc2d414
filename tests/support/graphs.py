"""Revisions, records and whole projects for the tests of the graph and the planner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from mongover.history.record import Record, State
from mongover.planning.graph import Graph
from mongover.revisions.revision import Revision, RevisionFiles
from mongover.revisions.text import checksum

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from mongover.errors import MongoverError

FOLDER = Path("versions")


def rev(
    identifier: str, schema: str | None = None, down: str = "", needs: str = "", **values: Any
) -> Revision:
    """A revision; `down` and `needs` are ids separated by spaces."""
    source = values.pop("source", f"revision = {identifier!r}\n")
    return Revision(
        **{
            "id": identifier,
            "path": FOLDER / f"{identifier}_x.py",
            "schema": schema,
            "message": f"message {identifier}",
            "down_revision": tuple(down.split()),
            "depends_on": tuple(needs.split()),
            "transaction": False,
            "repeatable": None,
            "has_downgrade": True,
            "checksum": checksum(source),
            "source": source,
            "create_date": None,
            **values,
        }
    )


def folder(
    *revisions: Revision, broken: Mapping[str, MongoverError] | None = None
) -> RevisionFiles:
    return RevisionFiles(FOLDER, {each.id: each for each in revisions}, broken or {})


def record(revision: Revision, state: State = State.APPLIED, **values: Any) -> Record:
    """The record that a revision has when it is in a state."""
    return Record(
        revision.id,
        state,
        **{
            "schema": revision.schema,
            "message": revision.message,
            "down_revision": revision.down_revision,
            "depends_on": revision.depends_on,
            "checksum": revision.checksum,
            "by": {"user": "ana", "host": "web-3"},
            **values,
        },
    )


def applied(revisions: Iterable[Revision]) -> dict[str, Record]:
    """Records of revisions that were applied in this order."""
    return {each.id: record(each, sequence=place) for place, each in enumerate(revisions, start=1)}


@dataclass(frozen=True)
class Project:
    files: RevisionFiles
    graph: Graph

    def records(self, ids: Collection[str]) -> dict[str, Record]:
        """Everything among `ids` and below it, applied in an order that respects the links."""
        order = self.graph.order(self.graph.ancestors(ids))
        return applied(self.files.revisions[each] for each in order)

    def loose_records(self, ids: Iterable[str]) -> dict[str, Record]:
        """Just these, applied in the order in which they are named."""
        return applied(self.files.revisions[each] for each in ids)


@st.composite
def projects(draw: st.DrawFn, max_size: int = 14) -> Project:
    """Projects of up to three lines with branches, merges and dependencies, one head per line.

    Ids do not follow the order of the links.
    """
    size = draw(st.integers(1, max_size))
    names = draw(st.permutations([f"{number:04d}" for number in range(1, size + 4)]))
    made: list[Revision] = []
    heads: dict[str | None, list[str]] = {}
    for name in names[:size]:
        schema = draw(st.sampled_from([None, "a", "b"]))
        line = [each.id for each in made if each.schema == schema]
        down = draw(st.sets(st.sampled_from(line), min_size=1, max_size=2)) if line else set()
        needs = (
            draw(st.sets(st.sampled_from([each.id for each in made]), max_size=2)) if made else ()
        )
        made.append(rev(name, schema, " ".join(sorted(down)), " ".join(sorted(needs))))
        heads[schema] = [each for each in heads.get(schema, []) if each not in down] + [name]
    for (schema, ends), name in zip(heads.items(), names[size:], strict=False):
        if len(ends) > 1:
            made.append(rev(name, schema, " ".join(ends)))
    files = folder(*sorted(made, key=lambda each: each.id))
    return Project(files, Graph(files.revisions.values()))


def run(records: Mapping[str, Record], plan: Any) -> dict[str, Record]:
    """The records after a plan has run."""
    changed = dict(records)
    last = max((each.sequence for each in changed.values()), default=0)
    for step in plan.steps:
        last += 1
        up = step.direction == "up"
        state = State.APPLIED if up else State.REVERTED
        changed[step.revision.id] = replace(record(step.revision, state), sequence=last)
    return changed


def done(records: Mapping[str, Record]) -> set[str]:
    return {name for name, each in records.items() if each.counts_as_applied}


def no_source(identifier: str) -> str:
    raise AssertionError(f"the source of {identifier} was asked for")
