"""What the text of a planned revision tells of its work, without running any of it. Pure.

Only names are read: what `upgrade(op)` or `downgrade(op)` takes from its argument, and what the
functions of the same file take from it that are handed it. A name that is found need not be called,
and one may be missed that is reached in another way.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mongover.operations.bulk.batches import IN_BATCHES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mongover.planning.plan import Plan, Step

_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_UNPARSABLE: Final = (SyntaxError, ValueError, RecursionError, MemoryError)
_MENTION: Final = re.compile(rf"\b(?:{'|'.join(sorted(IN_BATCHES))})\b")
_SHOWN: Final = 5

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def forewarned(plan: Plan, has_transactions: Callable[[], bool]) -> Plan:
    """The plan, with a notice where a crash could make a step do a batch twice.

    `has_transactions` tells of the server; it is asked only when a step works in batches.
    """
    steps = [step for step in plan.steps if works_in_batches(step)]
    if not steps or has_transactions():
        return plan
    return replace(plan, notices=(*plan.notices, _repeats(steps)))


def works_in_batches(step: Step) -> bool:
    """Whether the step's code names an operation that changes many documents batch by batch."""
    if step.revision.transaction:
        return False  # one transaction, or refused
    text = step.revision.code
    return _MENTION.search(text) is not None and not IN_BATCHES.isdisjoint(
        _used(text, "upgrade" if step.direction == "up" else "downgrade")
    )


def _repeats(steps: list[Step]) -> str:
    ids = [step.revision.id for step in steps]
    more = len(ids) - _SHOWN
    names = [*ids[:_SHOWN], f"{more:,} more"] if more > 0 else ids
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    verb = "changes" if len(ids) == 1 else "change"
    return (
        f"{listed} {verb} documents in batches, and a standalone has no transactions: after a crash"
        " each document is done at least once, with at most one batch per worker repeated (a"
        " replica set, of one node too, does each exactly once)"
    )


def _used(text: str, function: str) -> Iterator[str]:
    """The names that a function takes from its first argument, by itself or through others."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a user's string
            tree = ast.parse(text)
    except _UNPARSABLE:
        return  # the run will refuse the file, and say where
    known = {node.name: node for node in tree.body if isinstance(node, _FUNCTIONS)}
    todo, seen = [(function, 0)], set()
    while todo:
        place = todo.pop()
        name = _parameter(known.get(place[0]), place[1])
        if place in seen or name is None:
            continue
        seen.add(place)
        for node in ast.walk(known[place[0]]):
            if isinstance(node, ast.Attribute) and _is(node.value, name):
                yield node.attr
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                todo += _handed(node, name, known.get(node.func.id))


def _handed(call: ast.Call, name: str, function: _Function | None) -> Iterator[tuple[str, int]]:
    """As which of its parameters a function of the file is given the value of a name."""
    if function is None:
        return
    for index, argument in enumerate(call.args):
        if _is(argument, name):
            yield function.name, index
    names = [each.arg for each in _parameters(function)]
    for keyword in call.keywords:
        if keyword.arg in names and _is(keyword.value, name):
            yield function.name, names.index(keyword.arg)


def _is(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _parameters(function: _Function) -> list[ast.arg]:
    found = function.args
    return [*found.posonlyargs, *found.args, *found.kwonlyargs]


def _parameter(function: _Function | None, index: int) -> str | None:
    parameters = [] if function is None else _parameters(function)
    return parameters[index].arg if index < len(parameters) else None
