"""The graph of revisions and the targets that name places in it. Pure: no files, no database.

A graph is built of anything that has an id, a schema and links. It is built leniently: what is
wrong with a revision is kept as a problem and raised only for those who need that revision.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Protocol

from mongover.errors import CycleError, MultipleHeads, UnknownParent, Where

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Final

    from mongover.errors import MongoverError


SHOWN: Final = 12  # as many candidates as a message lists


class Linked(Protocol):
    """What a graph wants to know of a revision."""

    @property
    def id(self) -> str:
        """The revision's id, unique in the graph."""
        ...

    @property
    def schema(self) -> str | None:
        """Its line; None is the unnamed line."""
        ...

    @property
    def message(self) -> str:
        """What it says it does, in a line."""
        ...

    @property
    def down_revision(self) -> tuple[str, ...]:
        """The revisions of its own line that it stands on."""
        ...

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Further revisions that must be applied before it."""
        ...

    @property
    def path(self) -> Path | None:
        """Its file, where it has one."""
        ...


@dataclass(frozen=True, slots=True)
class Node:
    """A revision as the history knows it: what stands in for a file that is gone."""

    id: str
    schema: str | None = None
    message: str = ""
    down_revision: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    path: Path | None = None


NO_NUMBER: Final = 10**300  # more than any number that fits into the name of a file


def number_of(identifier: str) -> tuple[int, str]:
    """The key by which ids sort: by number, then by text; what is no number comes last."""
    if identifier.isascii() and identifier.isdigit() and len(identifier) <= 300:  # noqa: PLR2004  # the digits of NO_NUMBER
        return (int(identifier), identifier)
    return (NO_NUMBER, identifier)


def same_number(name: str, ids: Iterable[str]) -> list[str]:
    """The ids with the number of a name."""
    number = number_of(name)[0]
    return [each for each in ids if number_of(each)[0] == number != NO_NUMBER]


def name_of(schema: str | None) -> str:
    """A line's name in a sentence."""
    return "the unnamed line" if schema is None else schema


class Graph:
    """Revisions and their links, over all lines; every walk is iterative and near-linear.

    Attributes:
        nodes: The revisions by id, in the order of their numbers.
        lines: The ids of each schema, in the order of their numbers.
    """

    def __init__(
        self, nodes: Iterable[Linked], *, broken: Mapping[str, MongoverError] | None = None
    ) -> None:
        """Link the nodes; `broken` says what is wrong with revisions that could not be read."""
        ordered = sorted(nodes, key=lambda node: number_of(node.id))
        self.nodes: Mapping[str, Linked] = {node.id: node for node in ordered}
        self.broken: Mapping[str, MongoverError] = broken or {}
        self._index = {identifier: index for index, identifier in enumerate(self.nodes)}
        lines: dict[str | None, list[str]] = {}
        for node in self.nodes.values():
            lines.setdefault(node.schema, []).append(node.id)
        self.lines: Mapping[str | None, Sequence[str]] = lines
        self._wrong: dict[str, MongoverError] = {}
        self._parents: dict[str, tuple[str, ...]] = {}
        self._children: dict[str, list[str]] = {identifier: [] for identifier in self.nodes}
        self._followed: set[str] = set()
        self._numbers: dict[int, str] = {}
        for node in self.nodes.values():
            self._link(node)

    def _link(self, node: Linked) -> None:
        links = node.down_revision
        if node.depends_on:
            links = tuple(dict.fromkeys((*links, *node.depends_on)))
        known = tuple(link for link in links if link in self.nodes)
        if len(known) != len(links):
            missing = next(link for link in links if link not in self.nodes)
            self._wrong[node.id] = self.broken.get(missing) or self._unknown(node, missing)
        self._parents[node.id] = known
        for parent in known:
            self._children[parent].append(node.id)
        for parent in node.down_revision:
            if parent not in self.nodes:
                continue
            if self.nodes[parent].schema == node.schema:
                self._followed.add(parent)
            else:
                self._wrong.setdefault(node.id, _other_line(node, self.nodes[parent]))

    def _unknown(self, node: Linked, missing: str) -> UnknownParent:
        self._numbers = self._numbers or {number_of(each)[0]: each for each in self.nodes}
        same = self._numbers.get(number_of(missing)[0])
        link = "revises" if missing in node.down_revision else "depends on"
        hint = f"restore it with `mongover restore {missing}`, or correct the link"
        return UnknownParent(
            f"{node.id} {link} {missing}, which has no file",
            hint=f'write "{same}" for "{missing}"' if same else hint,
            where=_file_of(node),
            after="nothing was run.",
        )

    @property
    def schemas(self) -> tuple[str | None, ...]:
        """The lines, in the order of their first revisions."""
        return tuple(self.lines)

    def parents(self, identifier: str) -> tuple[str, ...]:
        """What a revision needs directly, over both kinds of link."""
        return self._parents[identifier]

    def children(self, identifier: str) -> tuple[str, ...]:
        """What needs a revision directly, over both kinds of link."""
        return tuple(self._children[identifier])

    def heads(self, schema: str | None) -> tuple[str, ...]:
        """The revisions of a line that no other of the line revises."""
        line = self.lines.get(schema, ())
        return tuple(identifier for identifier in line if identifier not in self._followed)

    def bases(self, schema: str | None) -> tuple[str, ...]:
        """The revisions of a line that revise none."""
        line = self.lines.get(schema, ())
        return tuple(each for each in line if not self.nodes[each].down_revision)

    def in_line(self, identifier: str, *, up: bool) -> tuple[str, ...]:
        """The next revisions of the same line, upwards or downwards."""
        node = self.nodes[identifier]
        if not up:
            return tuple(
                parent
                for parent in node.down_revision
                if parent in self.nodes and self.nodes[parent].schema == node.schema
            )
        children = (self.nodes[child] for child in self._children[identifier])
        return tuple(
            child.id
            for child in children
            if child.schema == node.schema and identifier in child.down_revision
        )

    def ancestors(self, ids: Iterable[str]) -> set[str]:
        """The given revisions and everything that they need."""
        return _reach(ids, self._parents)

    def descendants(self, ids: Iterable[str]) -> set[str]:
        """The given revisions and everything that needs them."""
        return _reach(ids, self._children)

    def above(self, ids: Iterable[str]) -> set[str]:
        """What stands on the given revisions in their own lines, without them."""
        given = set(ids)
        reached = set(given)
        stack = list(given)
        while stack:
            for child in self.in_line(stack.pop(), up=True):
                if child not in reached:
                    reached.add(child)
                    stack.append(child)
        return reached - given

    def order(
        self,
        ids: Collection[str],
        *,
        rank: Callable[[str], int] | None = None,
        reverse: bool = False,
    ) -> list[str]:
        """The given revisions, each after those of them that it needs, ties by number.

        Only links between the given ones count: give a set closed under `ancestors` (or, for
        `reverse`, under `descendants`) where a link through others matters.

        Args:
            ids: Revisions of this graph.
            rank: What goes before the number among those that could come next: lowest first.
            reverse: Each before those that it needs, and ties by the highest number.

        Raises:
            CycleError: the links of the given revisions form a circle.
        """
        ordered, left = self._sort(ids, rank=rank, reverse=reverse)
        if left:
            raise self._cycle_error(next(iter(self._cycles(self._sort(ids)[1]))))
        return ordered

    def listing(self, ids: Collection[str]) -> list[str]:
        """The same order for those who only look: a circle's members come last, by number."""
        ordered, left = self._sort(ids)
        return ordered + sorted(left, key=self._index.__getitem__)

    def _sort(
        self,
        ids: Collection[str],
        *,
        rank: Callable[[str], int] | None = None,
        reverse: bool = False,
    ) -> tuple[list[str], set[str]]:
        before: Mapping[str, Iterable[str]] = self._parents
        after: Mapping[str, Iterable[str]] = self._children
        left, sign, rank_of = set(ids), 1, rank or _no_rank
        if reverse:
            before, after, sign = after, before, -1
        waits = {each: sum(other in left for other in before[each]) for each in left}
        ready = [
            (rank_of(each), sign * self._index[each], each) for each in left if not waits[each]
        ]
        heapify(ready)
        ordered = []
        while ready:
            identifier = heappop(ready)[2]
            ordered.append(identifier)
            for other in after[identifier]:
                if other in waits:
                    waits[other] -= 1
                    if not waits[other]:
                        heappush(ready, (rank_of(other), sign * self._index[other], other))
        return ordered, left.difference(ordered)

    def check(self, ids: Iterable[str]) -> None:
        """Refuse when the links of one of the given revisions are wrong; circles are `order`'s.

        Raises:
            FilesError: a link points nowhere, into another line, or at an unreadable file.
        """
        wrong = self._wrong.keys() & ids
        if wrong:
            raise self._wrong[min(wrong, key=self._index.__getitem__)]

    def problems(self) -> dict[str, MongoverError]:
        """Everything wrong with the links, by the revision that it is wrong with.

        Every circle is reported, unless it shares revisions with one that is.
        """
        found = dict(self._wrong)
        left = self._sort(self.nodes)[1]
        for cycle in self._cycles(left):
            found.setdefault(cycle[0], self._cycle_error(cycle))
        return {each: found[each] for each in sorted(found, key=self._index.__getitem__)}

    def _cycles(self, left: Collection[str]) -> Iterable[list[str]]:
        seen: set[str] = set()
        for start in sorted(left, key=self._index.__getitem__):
            walk: dict[str, int] = {}
            here = start
            while here not in seen:
                seen.add(here)
                walk[here] = len(walk)
                here = next(parent for parent in self._parents[here] if parent in left)
            if here in walk:
                cycle = list(walk)[walk[here] :]
                least = cycle.index(min(cycle, key=self._index.__getitem__))
                yield cycle[least:] + cycle[:least]

    def _cycle_error(self, cycle: Sequence[str]) -> CycleError:
        first = self.nodes[cycle[0]]
        return CycleError(
            "the links form a circle: " + " needs ".join((*cycle, cycle[0])),
            hint="correct down_revision or depends_on of one of them",
            notes=[describe(self.nodes[each]) for each in cycle[:SHOWN]],
            where=_file_of(first),
            after="nothing was run.",
        )

    def check_circles(self, schema: str | None) -> None:
        """Refuse a line of which a part leads to no head: only a circle does that.

        Raises:
            CycleError: shows the circle; what an upgrade of the line would have to end at is not
                known.
        """
        below = set(self.heads(schema))
        stack = list(below)
        while stack:
            for parent in self.in_line(stack.pop(), up=False):
                if parent not in below:
                    below.add(parent)
                    stack.append(parent)
        self.order([each for each in self.lines.get(schema, ()) if each not in below])

    def check_heads(self, schema: str | None, *, applied: Collection[str] = ()) -> None:
        """Refuse a line that does not have one head, above all of it.

        Raises:
            CycleError: its links form a circle.
            MultipleHeads: names the heads with their files, and how to join them.
        """
        self.check_circles(schema)
        heads = self.heads(schema)
        if len(heads) < 2:  # noqa: PLR2004  # "multiple" begins at two
            return
        joined = f'`mongover merge{f" {schema}" if schema else ""} -m "…"` joins them'
        free = [head for head in heads if head not in applied]
        others = [head for head in heads if not free or head != free[-1]]
        moved = f"`mongover rebase {free[-1]}` puts it on top of {others[0]}, or " if free else ""
        raise MultipleHeads(
            f"{name_of(schema)} has {len(heads)} heads: {', '.join(heads[:SHOWN])}",
            hint=moved + joined,
            notes=[describe(self.nodes[head]) for head in heads[:SHOWN]]
            + [f"{name} cannot be read, and may join them" for name in self.broken],
            where=_file_of(self.nodes[(free or heads)[-1]]),
            after="nothing was run.",
        )


def _no_rank(_: str) -> int:
    return 0


def _reach(ids: Iterable[str], links: Mapping[str, Iterable[str]]) -> set[str]:
    reached = set(ids)
    stack = list(reached)
    while stack:
        for other in links[stack.pop()]:
            if other not in reached:
                reached.add(other)
                stack.append(other)
    return reached


def _file_of(node: Linked) -> Where | None:
    return None if node.path is None else Where(node.path)


def _other_line(node: Linked, parent: Linked) -> UnknownParent:
    return UnknownParent(
        f"{node.id} ({name_of(node.schema)}) revises {parent.id}, which is in"
        f" {name_of(parent.schema)}: down_revision stays within a line",
        hint=f'write depends_on = "{parent.id}" in {node.id} instead',
        where=_file_of(node),
        after="nothing was run.",
    )


def describe(node: Linked) -> str:
    """A revision in a line: id, message, parents and file."""
    base = f", revises {' and '.join(node.down_revision)}" if node.down_revision else ""
    return f"{node.id} {node.message}{base}, {node.path or 'without a file'}"
