"""Targets: what `head`, `users@-1` or `0004+2` mean on a graph, and which revisions they select."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mongover.errors import AmbiguousTarget, UnknownTarget, UsageError, WalkTooFar, WrongLine
from mongover.planning.graph import SHOWN, describe, name_of, same_number

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from typing import Final, NoReturn

    from mongover.planning.graph import Graph


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
        same = same_number(name, self.graph.nodes)
        unreadable = same_number(name, self.graph.broken) if not same else []
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
        from difflib import get_close_matches

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
