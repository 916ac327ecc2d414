"""Whether the code of a revision file can run, told from its text: nothing is imported. Pure.

Only what is certain is told. A function that is decorated, bound twice or reached through
`globals()` may be anything; a verb may be looked for with `hasattr` or `getattr`: such code is left
alone, and the run decides.
"""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import InvalidRevision, Where, did_you_mean
from mongover.history.record import SOURCE_LIMIT
from mongover.operations import Operations
from mongover.operations.bulk.pace import PaceOptions
from mongover.operations.collections import CREATE_OPTIONS, MODIFY_OPTIONS
from mongover.operations.index import INDEX_OPTIONS
from mongover.running.script import compile_script, is_called_wrongly, lacks_upgrade

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from mongover.revisions.revision import Revision

_Function = ast.FunctionDef | ast.AsyncFunctionDef

_NAMES: Final = ("upgrade", "downgrade")
# Whoever says one of these may bind names, or give verbs to `op`, in a way that no text shows.
_BINDERS: Final = frozenset(
    {"globals", "locals", "vars", "exec", "eval", "setattr", "modules", "__getattr__", "*"}
)
_ASKERS: Final = re.compile(r"\b(?:hasattr|setattr|AttributeError|__version__)\b")
_OPTIONS: Final[Mapping[str, Collection[str]]] = {
    "IndexOptions": INDEX_OPTIONS,
    "CollectionOptions": CREATE_OPTIONS,
    "ModifyOptions": MODIFY_OPTIONS,
    "PaceOptions": PaceOptions.__optional_keys__,
}
_UNPACKED: Final = re.compile(r"Unpack\[(\w+)\]")
_SELF: Final = 1  # arguments of a verb that no caller gives


def find_faults(revision: Revision) -> list[InvalidRevision]:
    """Everything for which the file's code cannot run, in the order of its lines.

    A text too large for a record, a syntax error anywhere, a missing `upgrade`, functions that
    cannot be called with `op`, and names and arguments that `op` does not take, in them and in
    what they hand `op` to.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an odd escape in a user's string
        try:
            refuse_large(revision)
            compile_script(revision)
        except InvalidRevision as error:
            return [error]
    text = _Text(revision)
    found = [fault for name in _NAMES for fault in _shape_faults(text, name)]
    found += _misuses(text, _NAMES)
    return sorted(found, key=lambda error: (error.where and error.where.line) or 0)


def refuse_large(revision: Revision) -> None:
    """Refuse a revision whose text its record could not hold.

    Raises:
        InvalidRevision: it is larger than `SOURCE_LIMIT`.
    """
    size = len(revision.source.encode("utf-8", "backslashreplace"))
    if size > SOURCE_LIMIT:
        raise InvalidRevision(
            f"{revision.path.name} has {size / 1_000_000:,.1f} MB: its record keeps the text, and "
            f"has room for {SOURCE_LIMIT / 1_000_000:,.1f} MB",
            hint="load large data from a file of its own",
            where=Where(revision.path),
        )


def refuse_misuse(revision: Revision, function: str) -> None:
    """Refuse a revision of which a function uses a verb that there is not, or wrongly.

    Raises:
        InvalidRevision: names the line, and the nearest verb.
    """
    for error in _misuses(_Text(revision), [function]):
        raise error


class _Text:
    """The syntax tree of a revision, and who binds which name in it."""

    def __init__(self, revision: Revision) -> None:
        self.revision = revision
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            self.tree = ast.parse(revision.code)
        self.bound: dict[str, list[ast.AST]] = {}
        for node in ast.walk(self.tree):
            for name in _bound_by(node):
                self.bound.setdefault(name, []).append(node)

    @cached_property
    def is_open(self) -> bool:
        """Whether names may be bound in a way that the text does not show."""
        said = (getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(self.tree))
        return not _BINDERS.isdisjoint((*self.bound, *said))

    def only(self, name: str) -> ast.stmt | None:
        """The one statement of the module that binds a name, where nothing else does."""
        nodes = self.bound.get(name, [])
        direct = [node for node in self.tree.body if nodes and _binds(node, nodes[0])]
        return direct[0] if len(nodes) == 1 and direct and not self.is_open else None

    def function(self, name: str) -> ast.FunctionDef | None:
        """The function of that name, when no decorator makes another thing of it."""
        node = self.only(name)
        plain = isinstance(node, ast.FunctionDef) and not node.decorator_list
        return node if plain else None  # type: ignore[return-value] # `plain` says so

    def where(self, line: int) -> Where:
        """A line of the file."""
        return Where(self.revision.path, line, self.revision.code.split("\n")[line - 1].strip())

    def fault(self, line: int, problem: str, hint: str) -> InvalidRevision:
        """What is wrong with a line."""
        name = self.revision.path.name
        return InvalidRevision(f"{name}, line {line}: {problem}", hint=hint, where=self.where(line))


def _binds(statement: ast.stmt, node: ast.AST) -> bool:
    return statement is node or (isinstance(statement, ast.Assign) and statement.targets == [node])


def _bound_by(node: ast.AST) -> Iterator[str]:
    """The names that a node binds, in whatever scope."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Name(ctx=ast.Store() | ast.Del()):
            yield node.id
        case ast.Global() | ast.Nonlocal():
            yield from node.names
        case ast.Import() | ast.ImportFrom():
            yield from ((each.asname or each.name).partition(".")[0] for each in node.names)
        case ast.ExceptHandler(name=str(name)) | ast.MatchMapping(rest=str(name)):
            yield name
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name


# ── the two functions ────────────────────────────────────────────────────────────────────────────


def _shape_faults(text: _Text, name: str) -> Iterator[InvalidRevision]:
    """Why a function of the file cannot be called with `op`."""
    node = text.only(name)
    missing = name == "upgrade" and name not in text.bound and not text.is_open
    if missing or (name == "upgrade" and _value(node) is None):
        yield lacks_upgrade(text.revision)
        return
    problem = _shape_problem(node)
    if node is not None and problem is not None:
        yield is_called_wrongly(text.revision, name, problem, text.where(node.lineno))


def _value(node: ast.AST | None) -> Any:
    """The constant that a statement assigns; Ellipsis for all else."""
    match node:
        case ast.Assign(value=ast.Constant(value=value)):
            return value
    return ...


def _shape_problem(node: ast.AST | None) -> str | None:
    match node:
        case ast.ClassDef(decorator_list=[], keywords=[]):
            return "is no function but a type"
        case ast.Assign(value=ast.Constant(value=value)) if value is not None:
            return f"is no function but a {type(value).__name__}"
        case ast.Assign(value=ast.Lambda(args=args)):
            return _arguments_problem(args)
        case ast.FunctionDef(decorator_list=[]) | ast.AsyncFunctionDef(decorator_list=[]):
            return _function_problem(node)
    return None


def _function_problem(function: _Function) -> str | None:
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in _own(function)):
        return "has a `yield`: it would never run"
    if isinstance(function, ast.AsyncFunctionDef):
        return "is `async def`: it would never be awaited"
    return _arguments_problem(function.args)


def _arguments_problem(args: ast.arguments) -> str | None:
    """Why `f(op)` is refused by these parameters."""
    positional = [*args.posonlyargs, *args.args]
    needed = len(positional) - len(args.defaults)
    takes_one = needed <= 1 and (positional or args.vararg is not None)
    if takes_one and None not in args.kw_defaults:
        return None
    return f"takes ({ast.unparse(args)}), but is called with one argument, op"


def _own(function: _Function) -> Iterator[ast.AST]:
    """The nodes of a function's body that are not those of a function inside it."""
    stack: list[ast.AST] = list(function.body)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, _Function | ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))


# ── what is asked of op ──────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Handed:
    """A function of the file that is given `op`, under a name of its own."""

    function: ast.FunctionDef
    op: str


def _misuses(text: _Text, names: Iterable[str]) -> Iterator[InvalidRevision]:
    if _ASKERS.search(text.revision.code):
        return
    given = {
        node.attr
        for node in ast.walk(text.tree)
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
    }
    for handed in _receivers(text, names):
        for node in _seeing(handed):
            if isinstance(node, ast.Attribute) and _is(node.value, handed.op):
                if node.attr not in given:
                    yield from _name_faults(text, node, handed.op)
            elif isinstance(node, ast.Call):
                yield from _call_faults(text, node, handed.op)


def _receivers(text: _Text, names: Iterable[str]) -> Iterator[_Handed]:
    """The named functions, and all those of the file to which they hand `op`, each once."""
    todo = [each for name in names for each in _at(text.function(name), 0)]
    seen = set()
    while todo:
        handed = todo.pop()
        key = (handed.function.name, handed.op)
        if key in seen or _rebinds(handed):
            continue
        seen.add(key)
        yield handed
        for node in _seeing(handed):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                todo += _handed_on(text.function(node.func.id), node, handed.op)


def _at(function: ast.FunctionDef | None, place: int) -> Iterator[_Handed]:
    if function is None:
        return
    positional = [*function.args.posonlyargs, *function.args.args]
    if place < len(positional):
        yield _Handed(function, positional[place].arg)


def _handed_on(function: ast.FunctionDef | None, call: ast.Call, op: str) -> Iterator[_Handed]:
    if function is None:
        return
    for place, argument in enumerate(call.args):
        if isinstance(argument, ast.Starred):
            break
        if _is(argument, op):
            yield from _at(function, place)
    named = {each.arg for each in (*function.args.args, *function.args.kwonlyargs)}
    for keyword in call.keywords:
        if keyword.arg in named and _is(keyword.value, op):
            yield _Handed(function, str(keyword.arg))


def _is(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _rebinds(handed: _Handed) -> bool:
    inner = (node for statement in handed.function.body for node in ast.walk(statement))
    return any(handed.op in _bound_by(node) for node in inner)


def _seeing(handed: _Handed) -> Iterator[ast.AST]:
    """The nodes for which the name still stands for `op`: no parameter inside hides it."""
    stack: list[ast.AST] = list(reversed(handed.function.body))
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, _Function | ast.Lambda) and handed.op in _parameters(node.args):
            continue
        stack.extend(reversed(list(ast.iter_child_nodes(node))))


def _parameters(args: ast.arguments) -> set[str]:
    return {node.arg for node in ast.walk(args) if isinstance(node, ast.arg)}


def _verbs() -> list[str]:
    return [name for name in dir(Operations) if not name.startswith("_")]


def _name_faults(text: _Text, node: ast.Attribute, op: str) -> Iterator[InvalidRevision]:
    if hasattr(Operations, node.attr) or node.attr.startswith("_"):
        return
    more = "op.db is pymongo's own Database, with all that it can do"
    hint = did_you_mean(node.attr, _verbs(), op + ".{}") or more
    yield text.fault(node.lineno, f"{op} has no `{node.attr}`", hint)


def _call_faults(text: _Text, call: ast.Call, op: str) -> Iterator[InvalidRevision]:
    """Arguments that a verb does not take, or lacks; nothing when some are not in the text."""
    if not isinstance(call.func, ast.Attribute) or not _is(call.func.value, op):
        return
    name = call.func.attr
    verb = inspect.getattr_static(Operations, name, None)
    if not isinstance(verb, FunctionType) or any(isinstance(a, ast.Starred) for a in call.args):
        return
    signature = inspect.signature(verb)
    words = [word.arg for word in call.keywords if word.arg is not None]
    bind = signature.bind if len(words) == len(call.keywords) else signature.bind_partial
    problem = _option_problem(signature, words)
    try:
        bind(*[None] * (_SELF + len(call.args)), **dict.fromkeys(words))
    except TypeError as error:
        problem = str(error)
    if problem is not None:
        hint = _argument_hint(signature, name, words)
        yield text.fault(call.lineno, f"{op}.{name}: {problem}", hint)


def _option_problem(signature: inspect.Signature, words: Iterable[str]) -> str | None:
    known = _known_words(signature)
    wrong = [word for word in words if known and word not in known]
    return f"got an unexpected keyword argument {wrong[0]!r}" if wrong else None


def _known_words(signature: inspect.Signature) -> list[str]:
    """What may be given by name; empty where that cannot be told."""
    known: list[str] = []
    for each in list(signature.parameters.values())[_SELF:]:
        if each.kind is not inspect.Parameter.VAR_KEYWORD:
            known.append(each.name)
            continue
        unpacked = _UNPACKED.fullmatch(str(each.annotation))
        if unpacked is None or unpacked[1] not in _OPTIONS:
            return []
        known.extend(_OPTIONS[unpacked[1]])
    return known


def _argument_hint(signature: inspect.Signature, name: str, words: Iterable[str]) -> str:
    known = _known_words(signature)
    for word in words:
        guess = did_you_mean(word, known, "{}=") if word not in known else ""
        if guess:
            return guess
    bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return f"it is op.{name}{inspect.Signature(bare[_SELF:])}"
