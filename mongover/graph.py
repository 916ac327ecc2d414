"""The graph of revisions and the targets that name places in it. Pure: no files, no database.

A graph is built of anything that has an id, a schema and links. It is built leniently: what is
wrong with a revision is kept as a problem and raised only for those who need that revision.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from mongover.errors import (
    AmbiguousTarget,
    CycleError,
    MultipleHeads,
    UnknownParent,
    UnknownTarget,
    UsageError,
    WalkTooFar,
    Where,
    WrongLine,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

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


def _same_number(name: str, ids: Iterable[str]) -> list[str]:
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


# ── targets ──────────────────────────────────────────────────────────────────────────────────────

WORDS: Final = ("head", "heads", "base", "current")

_FORM: Final = re.compile(
    r"(?:(?P<line>[^@]*)@)?(?P<rest>(?P<name>[^@+:,]*?)(?P<walk>[+-][0-9]+)?)", re.DOTALL
)
_FARTHEST: Final = 10**9
_GRAMMAR: Final = "a target is head, base, 0004, users, users@head, users@0004, users@-1, +2 or -1"


@dataclass(frozen=True, slots=True)
class Target:
    """A target as it was typed, taken apart but not yet looked up.

    Attributes:
        text: The whole.
        line: What stands before `@`: a schema, "" for the unnamed line; None without `@`.
        rest: What stands after `@`, or the whole.
        name: `rest` without the walk: a word, an id or a part of it, a schema; "" for a bare walk.
        steps: The walk, upwards or downwards; 0 for none.
    """

    text: str
    line: str | None
    rest: str
    name: str
    steps: int


def parse_target(text: str) -> Target:
    """Take a target apart.

    Raises:
        UnknownTarget: it has no form that a target can have.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None or not found["rest"]:
        raise _no_target(text)
    digits = (found["walk"] or "").lstrip("+-0")
    if found["walk"] and not digits:
        raise UnknownTarget(f"{text!r} is a walk of no steps", hint=_GRAMMAR)
    steps = min(int(digits[:10]), _FARTHEST) if digits else 0
    down = (found["walk"] or "").startswith("-")
    return Target(
        text.strip(), found["line"], found["rest"], found["name"], -steps if down else steps
    )


def _no_target(text: str) -> UnknownTarget:
    if not text.strip():
        return UnknownTarget("the target is empty", hint=_GRAMMAR)
    if ":" in text:
        message = f"{text!r} is a range, and only history takes one"
    elif text.strip().endswith("@"):
        message = f"{text!r} names nothing after the @"
    else:
        message = f"{text!r} is not a target"
    return UnknownTarget(message, hint=_GRAMMAR)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a target picks: revisions, and the lines that it speaks of.

    For an upgrade `ids` are to be applied with everything that they need, and each of `lines`
    must have one head. For a downgrade `ids` are to be reverted with all that stands on them, and
    `stays` are the revisions at which it ends, where the target names some.
    """

    ids: tuple[str, ...]
    lines: tuple[str | None, ...]
    whole: bool = False  # the target speaks of every line that there is
    stays: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Targets:
    """Looks targets up in a graph; `applied` are the applied revisions in order of application."""

    graph: Graph
    applied: Sequence[str]

    def upgrade(self, text: str) -> Selection:
        """What an upgrade to the target must see applied.

        Raises:
            TargetError: the target names nothing, or goes too far.
            UsageError: the target goes downwards.
        """
        target = parse_target(text)
        name = self._name(target)
        lines = self._lines(target)
        if not name:
            if target.steps < 0:
                raise UsageError(
                    f"an upgrade goes up, and {target.text} goes down",
                    hint=f"mongover downgrade {target.text}",
                )
            return Selection(self._next(target, lines), lines, whole=target.line is None)
        if name == "base" and name == target.rest:
            raise UsageError(
                f"an upgrade goes up, and {target.text} is below everything",
                hint=f"mongover downgrade {target.text}",
            )
        ids = self._ids(target)
        if name == target.rest and name in ("head", "heads"):
            return Selection(ids, lines, whole=target.line is None)
        return Selection(ids, (target.rest,) if self._names_schema(target) else ())

    def downgrade(self, text: str) -> Selection:
        """What a downgrade to the target must revert: what is applied above it in its line.

        Revisions of other lines are reverted with what they stand on, and only then: what stays
        keeps those that depend on it.

        Raises:
            TargetError: the target names nothing, or goes too far.
            UsageError: the target goes upwards.
        """
        target = parse_target(text)
        name = self._name(target)
        lines = self._lines(target)
        if not name:
            if target.steps > 0:
                raise UsageError(
                    f"a downgrade goes down, and {target.text} goes up",
                    hint=f"mongover upgrade {target.text}",
                )
            ids = self._last(target, lines)
            return Selection(ids, self._lines_of(ids))
        if name == "base" and name == target.rest:
            reverted = tuple(reversed(self._applied_in(lines)))
            return Selection(reverted, lines, whole=target.line is None)
        ids = self._ids(target)
        above = self.graph.above(ids)
        whole = target.line is None and name == target.rest and name in WORDS
        return Selection(
            tuple(each for each in reversed(self.applied) if each in above),
            lines if whole else self._lines_of(ids) or lines,
            whole=whole,
            stays=ids,
        )

    def one(self, text: str) -> str:
        """The one revision that a target names, for `show`, `diff` and the like.

        Raises:
            TargetError: it names none, or several.
        """
        target = parse_target(text)
        if self._name(target):
            return self._single(target, self._ids(target))
        lines = self._lines(target)
        if target.steps > 0:
            return self._next(target, lines)[-1]
        return self._last(target, lines)[-1]

    def stamp(self, text: str, *, stopped: Collection[str] = ()) -> tuple[list[str], list[str]]:
        """What a stamp must mark as applied and as reverted, each in the order of a run.

        `head` marks all as applied, `base` none; an id marks what it needs and unmarks what
        stands on it, and leaves other lines alone. `stopped` are revisions with an attempt that
        did not end well: they are neither applied nor reverted until they are marked.

        Raises:
            TargetError: the target names nothing.
        """
        target = parse_target(text)
        word = target.name if target.name == target.rest else ""
        up = word != "base" and (target.name or target.steps > 0)
        down = word not in ("head", "heads") and (target.name or target.steps < 0)
        wanted = self.graph.ancestors(self.upgrade(text).ids) if up else set()
        known = tuple(dict.fromkeys((*self.applied, *stopped)))
        known = tuple(each for each in known if each in self.graph.nodes)
        below = self if target.steps else Targets(self.graph, known)
        unwanted = self.graph.descendants(below.downgrade(text).ids) if down else set()
        self.graph.check(wanted)
        done, left = set(self.applied).difference(stopped), set(known)
        return (
            [each for each in self.graph.order(wanted) if each not in done],
            [each for each in self.graph.order(unwanted, reverse=True) if each in left],
        )

    def span(self, text: str) -> list[str]:
        """The revisions of a range such as `0002:0005`, `:0003` or `0003:`, in order.

        Both ends are included. A target without a colon is its own range, a schema its line.
        An end that names a line (`users@0002:`) keeps the range to that line.

        Raises:
            TargetError: an end names nothing, or several revisions.
            UsageError: the range runs backwards.
        """
        first, colon, last = text.partition(":")
        if not colon:
            target = parse_target(text)
            if self._names_schema(target):
                return self.graph.listing(self.graph.lines[target.rest])
            return self.graph.listing(self._ids(target) if self._name(target) else [self.one(text)])
        if ":" in last:
            raise UsageError(f"{text!r} has two colons", hint="a range is 0002:0005")
        order = self.graph.listing(self.graph.nodes)
        place = {identifier: index for index, identifier in enumerate(order)}
        start = place[self.one(first)] if first.strip() not in ("", "base") else 0
        end = place[self.one(last)] if last.strip() not in ("", "head", "heads") else len(order) - 1
        if start > end and order:
            raise UsageError(
                f"the range {text} runs backwards", hint=f"write {last.strip()}:{first.strip()}"
            )
        ends = [parse_target(each) for each in (first, last) if "@" in each]
        lines = {line for each in ends for line in self._lines(each)} or set(self.graph.lines)
        return [each for each in order[start : end + 1] if self.graph.nodes[each].schema in lines]

    # How a target is read: an exact schema or id wins over any other reading of its text.

    def _names_schema(self, target: Target) -> bool:
        return target.line is None and target.rest in self.graph.lines

    def _name(self, target: Target) -> str:
        exact = target.rest in self.graph.nodes or self._names_schema(target)
        return target.rest if exact else target.name

    def _lines(self, target: Target) -> tuple[str | None, ...]:
        if target.line is None:
            return self.graph.schemas
        schema = target.line or None
        if schema not in self.graph.lines:
            raise self._unknown(target, target.line)
        return (schema,)

    def _lines_of(self, ids: Iterable[str]) -> tuple[str | None, ...]:
        return tuple(dict.fromkeys(self.graph.nodes[each].schema for each in ids))

    def _applied_in(self, lines: Collection[str | None]) -> list[str]:
        return [each for each in self.applied if self.graph.nodes[each].schema in lines]

    def _next(self, target: Target, lines: Collection[str | None]) -> tuple[str, ...]:
        for schema in lines:
            self.graph.check_heads(schema, applied=self.applied)
        done = set(self.applied)
        members = {each for schema in lines for each in self.graph.lines[schema]}
        order = self.graph.order(self.graph.ancestors(members), rank=lambda each: each not in done)
        pending = [each for each in order if each in members and each not in done]
        _check_walk(target, len(pending), "pending")
        return tuple(pending[: target.steps])

    def _last(self, target: Target, lines: Collection[str | None]) -> tuple[str, ...]:
        applied = self._applied_in(lines)
        _check_walk(target, len(applied), "applied")
        return tuple(reversed(applied[target.steps :]))

    def _ids(self, target: Target) -> tuple[str, ...]:
        """The revisions that a target with a name stands for, its walk walked."""
        name, lines = self._name(target), self._lines(target)
        if self._names_schema(target):
            return self._heads([name])
        ids = self._named(target, name, lines)
        if name == target.rest or not target.steps:
            return ids
        return (self._walk(target, self._single(target, ids)),)

    def _heads(self, lines: Iterable[str | None]) -> tuple[str, ...]:
        found: list[str] = []
        for schema in lines:
            self.graph.check_circles(schema)
            found.extend(self.graph.heads(schema))
        return tuple(found)

    def _named(self, target: Target, name: str, lines: Collection[str | None]) -> tuple[str, ...]:
        if name in ("head", "heads"):
            return self._heads(lines)
        if name == "base":
            return tuple(base for schema in lines for base in self.graph.bases(schema))
        if name == "current":
            return self._current(lines)
        if target.line is None and name in self.graph.lines:
            return self._heads([name])
        return (self._find(target, name, lines),)

    def _current(self, lines: Collection[str | None]) -> tuple[str, ...]:
        applied = self._applied_in(lines)
        done = set(applied)
        return tuple(each for each in applied if done.isdisjoint(self.graph.in_line(each, up=True)))

    def _single(self, target: Target, ids: Sequence[str]) -> str:
        if target.name == "current" and ids:
            return ids[-1]
        if len(ids) == 1:
            return ids[0]
        if not ids:
            raise UnknownTarget(
                f"{target.text} names no revision: there is none yet", hint=self._hint("")
            )
        raise self._ambiguous(target, ids)

    def _find(self, target: Target, name: str, lines: Collection[str | None]) -> str:
        if name in self.graph.nodes:
            return self._in_line(target, name, lines)
        candidates = self._fitting(name)
        inside = [each for each in candidates if self.graph.nodes[each].schema in lines]
        if not candidates:
            raise self._unknown(target, name)
        if len(inside) > 1:
            raise self._ambiguous(target, inside)
        return inside[0] if inside else self._in_line(target, candidates[0], lines)

    def _fitting(self, name: str) -> list[str]:
        """The ids of this number or, when there is none, those that begin with the text.

        With leading zeros (`001`) the text can be meant either way, so that both count.
        """
        same = _same_number(name, self.graph.nodes)
        unreadable = _same_number(name, self.graph.broken) if not same else []
        if unreadable:
            raise self.graph.broken[unreadable[0]]
        if same and not name.startswith("0"):
            return same
        begun = [each for each in self.graph.nodes if name and each.startswith(name)]
        return list(dict.fromkeys((*same, *begun)))

    def _in_line(self, target: Target, identifier: str, lines: Collection[str | None]) -> str:
        schema = self.graph.nodes[identifier].schema
        if schema in lines:
            return identifier
        where = f"{schema}@{identifier}" if schema else identifier
        raise WrongLine(
            f"{target.text}: {identifier} is in {name_of(schema)}, not in"
            f" {name_of(target.line or None)}",
            hint=f"say {where}, or one of {_some(self.graph.lines[target.line or None])}",
        )

    def _walk(self, target: Target, start: str) -> str:
        """The walk from a revision; from `base`, where nothing is applied, its first step is it."""
        here, left, met = start, abs(target.steps), {start}
        if target.name == "base":
            if target.steps < 0:
                self._too_far(target, start, 0)
            left -= 1
        while left:
            following = self.graph.in_line(here, up=target.steps > 0)
            if len(following) > 1:
                raise self._ambiguous(target, following)
            if not following:
                self._too_far(target, start, abs(target.steps) - left)
            here, left = following[0], left - 1
            if here in met:
                self.graph.order(self.graph.nodes)  # raises: the line runs in a circle
            met.add(here)
        return here

    def _too_far(self, target: Target, start: str, walked: int) -> NoReturn:
        schema = self.graph.nodes[start].schema
        side, end = ("above", "head") if target.steps > 0 else ("below", "base")
        from_ = "base" if target.name == "base" else start
        raise WalkTooFar(
            f"{target.text} goes too far: there {_steps(walked)} {side} {from_}"
            f" in {name_of(schema)}",
            hint=f"the end is {schema or ''}@{end}",
        )

    def _ambiguous(self, target: Target, ids: Sequence[str]) -> AmbiguousTarget:
        return AmbiguousTarget(
            f"{target.text} can be {_some(ids, 'or')}",
            hint="name one of them in full",
            notes=[describe(self.graph.nodes[each]) for each in ids[:SHOWN]],
        )

    def _unknown(self, target: Target, name: str) -> UnknownTarget:
        what = "is no schema" if name == target.line else "is no revision, schema or word"
        whole = "" if name == target.text else f"{target.text}: "
        return UnknownTarget(f"{whole}{name!r} {what}", hint=self._hint(name))

    def _hint(self, name: str) -> str:
        from difflib import get_close_matches  # noqa: PLC0415  # only an error needs it

        schemas = [schema for schema in self.graph.lines if schema is not None]
        close = get_close_matches(name, [*schemas, *WORDS, *self.graph.nodes], n=1)
        guess = f"did you mean {close[0]}? " if close else ""
        if not self.graph.nodes:
            return "there are no revisions yet: write the first with `mongover revision -m …`"
        return f"{guess}schemas: {_some(schemas) or 'none has a name'}; see `mongover history`"


def _some(names: Sequence[str], last: str = "") -> str:
    shown = [*names[:SHOWN], *([f"{len(names) - SHOWN} more"] if len(names) > SHOWN else [])]
    if last and len(shown) > 1:
        return f"{', '.join(shown[:-1])} {last} {shown[-1]}"
    return ", ".join(shown)


def _steps(count: int) -> str:
    return "is only 1 step" if count == 1 else f"are only {count} steps" if count else "is no step"


def _check_walk(target: Target, there: int, kind: str) -> None:
    if abs(target.steps) > there:
        revisions = "revision" if there == 1 else "revisions"
        count = f"only {there} {kind} {revisions}" if there else f"no {kind} revisions"
        line = f" in {name_of(target.line or None)}" if target.line is not None else ""
        verb = "is" if there == 1 else "are"
        raise WalkTooFar(
            f"{target.text} goes too far: there {verb} {count}{line}",
            hint=("say " + ("head" if target.steps > 0 else "base") + " for all of them")
            if there
            else "mongover status",
        )
