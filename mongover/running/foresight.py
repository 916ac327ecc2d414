"""The operations that a downgrade names in its text, in order, without running any of it. Pure.

Names and values are read where they are literals, constants of the file, or taken one by one from a
literal in a `for`. What stands under a condition may happen; what cannot be read is told of.
"""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import MongoverError
from mongover.operations import Operations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mongover.operations import Operation

_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_CONDITIONAL: Final = (
    ast.IfExp,
    ast.BoolOp,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)
_UNPARSABLE: Final = (SyntaxError, ValueError, RecursionError, MemoryError)
_SILENT: Final = frozenset({"log", "index", "DELETE"})
_DEPTH: Final = 20


@dataclass(frozen=True, slots=True)
class Foreseen:
    """One operation of a downgrade; `certain` that it will be asked for as the code stands."""

    operation: Operation
    certain: bool
    line: int


@dataclass(frozen=True, slots=True)
class Unforeseen:
    """Something that the text alone does not tell: `op.db`, a name that is computed."""

    what: str
    line: int


Seen = Foreseen | Unforeseen


class _Unknown(Exception):
    """A value that the text does not tell."""


class _Recorder(Operations):
    """An `op` that keeps the last operation it was asked for."""

    def __init__(self) -> None:
        self.last: Operation | None = None

    def run(self, operation: Operation) -> None:
        self.last = operation


def foresee(text: str, function: str) -> tuple[Seen, ...]:
    """What a function of a revision asks of its `op`; nothing of a text that cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a user's string
            tree = ast.parse(text)
    except _UNPARSABLE:
        return ()  # the run will refuse the file, and say where
    reader = _Reader(tree)
    reader.call(function, 0, {}, certain=True)
    return tuple(reader.seen)


class _Reader:
    """Walks through statements in their order."""

    def __init__(self, tree: ast.Module) -> None:
        self.seen: list[Seen] = []
        self._functions = {node.name: node for node in tree.body if isinstance(node, _FUNCTIONS)}
        self._constants = dict(_constants(tree))
        self._depth = 0

    def call(self, name: str, place: int, given: Mapping[str, Any], *, certain: bool) -> None:
        """Read a function of the file whose parameter at `place` is `op`."""
        function = self._functions.get(name)
        names = [] if function is None else _parameters(function)
        if function is None or place >= len(names) or self._depth > _DEPTH:
            return
        self._depth += 1
        walk = _Walk(self, names[place], {**self._constants, **given})
        walk.block(function.body, certain=certain)
        self._depth -= 1

    def parameters(self, name: str) -> list[str] | None:
        """The names of the parameters of a function of the file; None where there is none."""
        function = self._functions.get(name)
        return None if function is None else _parameters(function)


class _Walk:
    """One function: the name of its `op`, the values that are known, whether all is certain."""

    def __init__(self, reader: _Reader, op: str, values: dict[str, Any]) -> None:
        self._reader = reader
        self._op = op
        self._values = values
        self._left = False  # by a return that may or may not happen

    def block(self, statements: Sequence[ast.stmt], *, certain: bool) -> None:
        for statement in statements:
            self._statement(statement, certain=certain and not self._left)
            if isinstance(statement, (ast.Return, ast.Raise)):
                return

    def _statement(self, node: ast.stmt, *, certain: bool) -> None:
        match node:
            case ast.For() | ast.AsyncFor():
                self._loop(node, certain=certain)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    self._expression(item.context_expr, certain=certain)
                self.block(node.body, certain=certain)
            case ast.If() | ast.While():
                self._expression(node.test, certain=certain)
                self._branches([node.body, node.orelse])
            case ast.Match():
                self._branches([each.body for each in node.cases])
            case ast.Try():
                handlers = [each.body for each in node.handlers]
                self._branches([node.body, *handlers, node.orelse, node.finalbody])
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self._inner(node, node.lineno)
            case _:
                self._simple(node, certain=certain)

    def _branches(self, blocks: Sequence[Sequence[ast.stmt]]) -> None:
        for statements in blocks:
            self.block(statements, certain=False)
            leaves = (ast.Return, ast.Raise, ast.Break, ast.Continue)
            found = (each for one in statements for each in ast.walk(one))
            self._left = self._left or any(isinstance(each, leaves) for each in found)

    def _loop(self, node: ast.For | ast.AsyncFor, *, certain: bool) -> None:
        self._expression(node.iter, certain=certain)
        try:
            values = list(self._value(node.iter))
            names = [_bound(node.target, each) for each in values]
        except (_Unknown, TypeError, ValueError):
            self._forget(node.target)
            self._branches([node.body])
            return
        for each in names:
            self._values |= each
            self.block(node.body, certain=certain and not self._left)

    def _simple(self, node: ast.stmt, *, certain: bool) -> None:
        self._expression(node, certain=certain)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and self._is_name(node.value):
            self._unforeseen("op by another name", node)
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value)
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            self._forget(node.target)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        try:
            self._values |= _bound(target, self._value(value))
        except (_Unknown, TypeError, ValueError):
            self._forget(target)

    def _forget(self, target: ast.expr) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name):
                self._values.pop(node.id, None)

    # -- expressions -----------------------------------------------------------------------------

    def _expression(self, node: ast.AST, *, certain: bool) -> None:
        parts = list(_in_order(node, certain=certain))
        called = {id(found.func) for found, _ in parts if isinstance(found, ast.Call)}
        for found, sure in parts:
            if isinstance(found, ast.Call):
                self._call(found, certain=sure)
            elif isinstance(found, ast.Lambda):
                self._inner(found, found.lineno)
            elif isinstance(found, ast.Attribute) and self._is_op(found):
                self._attribute(found, called=id(found) in called)

    def _attribute(self, node: ast.Attribute, *, called: bool) -> None:
        if node.attr == "db":
            self._unforeseen("what it does by op.db", node)
        elif not called and node.attr not in _SILENT:
            self._unforeseen(f"op.{node.attr} by another name", node)

    def _inner(self, node: ast.AST, line: int) -> None:
        """A function in the function: nobody follows when it is called."""
        if any(isinstance(each, ast.Name) and each.id == self._op for each in ast.walk(node)):
            self._reader.seen.append(Unforeseen("what an inner function does with op", line))

    def _call(self, node: ast.Call, *, certain: bool) -> None:
        function = node.func
        if isinstance(function, ast.Attribute) and self._is_op(function):
            if function.attr not in _SILENT:
                self._verb(node, function.attr, certain=certain)
            return
        places = [place for place, each in enumerate(node.args) if self._is_name(each)]
        named = [each.arg for each in node.keywords if self._is_name(each.value)]
        if not places and not named:
            return
        names = self._reader.parameters(function.id) if isinstance(function, ast.Name) else None
        if isinstance(function, ast.Name) and places and names is not None:
            given = self._given(node, names)
            self._reader.call(function.id, places[0], given, certain=certain)
        else:
            self._unforeseen(f"what {ast.unparse(function)} does with op", node)

    def _given(self, node: ast.Call, names: Sequence[str]) -> dict[str, Any]:
        """What a function of the file is called with, as far as it is known."""
        pairs = [*zip(names, node.args, strict=False)]
        pairs += [(each.arg, each.value) for each in node.keywords if each.arg is not None]
        given = {}
        for name, value in pairs:
            try:
                given[name] = self._value(value)
            except (_Unknown, TypeError, ValueError):
                continue
        return given

    def _verb(self, node: ast.Call, verb: str, *, certain: bool) -> None:
        try:
            arguments = [self._value(each) for each in node.args]
            keywords = {each.arg: self._value(each.value) for each in node.keywords if each.arg}
            recorder = _Recorder()
            getattr(recorder, verb)(*arguments, **keywords)
        except (_Unknown, MongoverError, TypeError, ValueError, AttributeError):
            self._unforeseen(f"op.{verb}, whose arguments are computed", node)
            return
        if recorder.last is not None:
            certain = certain and not any(each.arg is None for each in node.keywords)
            self._reader.seen.append(Foreseen(recorder.last, certain, node.lineno))

    def _unforeseen(self, what: str, node: ast.expr | ast.stmt) -> None:
        self._reader.seen.append(Unforeseen(what, node.lineno))

    def _is_op(self, node: ast.Attribute) -> bool:
        return self._is_name(node.value)

    def _is_name(self, node: ast.expr | None) -> bool:
        return isinstance(node, ast.Name) and node.id == self._op

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Name():
                return self._named(node)
            case ast.Tuple():
                return tuple(self._value(each) for each in node.elts)
            case ast.List():
                return [self._value(each) for each in node.elts]
            case ast.Dict():
                return self._dictionary(node)
            case ast.JoinedStr():
                return "".join(self._text(each) for each in node.values)
            case _:
                return _literal(node)

    def _named(self, node: ast.Name) -> Any:
        if node.id not in self._values:
            raise _Unknown
        return self._values[node.id]

    def _dictionary(self, node: ast.Dict) -> dict[Any, Any]:
        if None in node.keys:
            raise _Unknown
        keys = [self._value(each) for each in node.keys if each is not None]
        return dict(zip(keys, map(self._value, node.values), strict=True))

    def _text(self, node: ast.expr) -> str:
        if isinstance(node, ast.FormattedValue):
            if node.format_spec is not None or node.conversion != -1:
                raise _Unknown
            return str(self._value(node.value))
        return str(self._value(node))


def _constants(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    """The names that the file gives a literal, once."""
    given = [
        (target.id, node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    names = [name for name, _ in given]
    for name, value in given:
        if names.count(name) == 1:
            try:
                yield name, _literal(value)
            except _Unknown:
                continue


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (*_UNPARSABLE, TypeError):
        raise _Unknown from None


def _bound(target: ast.expr, value: Any) -> dict[str, Any]:
    """The names that an assignment of the value gives their values."""
    if isinstance(target, ast.Name):
        return {target.id: value}
    if not isinstance(target, (ast.Tuple, ast.List)):
        return {}
    found: dict[str, Any] = {}
    for part, each in zip(target.elts, value, strict=True):
        found |= _bound(part, each)
    return found


def _in_order(node: ast.AST, *, certain: bool) -> Iterator[tuple[ast.AST, bool]]:
    """The parts of an expression, inner ones first, and whether each is evaluated for certain."""
    if not isinstance(node, ast.Lambda):
        inside = certain and not isinstance(node, _CONDITIONAL)
        for child in ast.iter_child_nodes(node):
            yield from _in_order(child, certain=inside)
    yield node, certain


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    found = function.args
    return [each.arg for each in (*found.posonlyargs, *found.args, *found.kwonlyargs)]
