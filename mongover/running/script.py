"""The code of a revision: compiled from the text that was read, checked, and called.

Nothing of a revision is executed before it is to run. A module of one lives under a private name,
and stands in `sys.modules` only while its code runs, so that dataclasses and pickle find it.
"""

from __future__ import annotations

import inspect
import linecache
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import InvalidRevision, Irreversible, MongoverError, Where
from mongover.history.record import Direction

if TYPE_CHECKING:
    from mongover.revisions.revision import Revision

# What a call can return instead of having done its work.
_UNFINISHED: Final = (Awaitable, AsyncIterator, Generator, map, filter)
_PLAIN: Final = "write it as a plain function: def {name}(op): …"


@dataclass(frozen=True, slots=True)
class Script:
    """The two functions of a revision, ready to be called.

    Attributes:
        downgrade: None when the revision is irreversible.
        paths: Folders from which its imports may come, after all others.
    """

    revision: Revision
    upgrade: Callable[[Any], Any]
    downgrade: Callable[[Any], Any] | None
    module: ModuleType
    paths: tuple[Path, ...]

    def run(self, direction: Direction, op: Any) -> None:
        """Call `upgrade(op)` or `downgrade(op)` and wait for its end.

        Raises:
            Irreversible: there is no downgrade.
            InvalidRevision: the call gave back a coroutine, a generator or the like, whose work
                was never done.
        """
        name = "upgrade" if direction is Direction.UP else "downgrade"
        function = self.upgrade if direction is Direction.UP else self.downgrade
        if function is None:
            raise Irreversible(
                f"{self.revision.id} has no downgrade",
                hint="write downgrade(op) in its file, or restore a backup",
                where=Where(self.revision.path),
            )
        with _importable(self.module, self.paths):
            result = function(op)
        if isinstance(result, _UNFINISHED):
            _close(result)
            raise InvalidRevision(
                f"{name}() of {self.revision.id} gave back a {type(result).__name__}:"
                " its work was not done",
                hint=_PLAIN.format(name=name),
                where=_place(self.revision.path, function),
            )


def load_script(revision: Revision, *, paths: Sequence[Path] = ()) -> Script:
    """The functions of a revision, from the text that was read with its header.

    Its imports may come from everywhere Python looks, then from `paths`, then from the working
    folder, then from the folder of the revisions: a stray file there never hides a module.

    Raises:
        InvalidRevision: the code cannot be compiled or imported, or a function of it cannot be
            called as `upgrade(op)`; says which line.
    """
    code = compile_script(revision)
    module = ModuleType(f"mongover_revision_{revision.id}_{id(code):x}")
    module.__file__ = str(revision.path)
    places = (*paths, Path.cwd(), revision.path.parent.absolute())
    with _importable(module, places):
        _execute(code, module, revision)
    upgrade = _function(revision, module, "upgrade")
    if upgrade is None:
        raise lacks_upgrade(revision)
    return Script(revision, upgrade, _function(revision, module, "downgrade"), module, places)


def lacks_upgrade(revision: Revision) -> InvalidRevision:
    """The error of a file without the one function that every revision has."""
    return InvalidRevision(
        f"{revision.path.name} has no upgrade(op)",
        hint="add a function `def upgrade(op): …` to the file",
        where=Where(revision.path),
    )


def is_called_wrongly(revision: Revision, name: str, problem: str, where: Where) -> InvalidRevision:
    """The error of a function that cannot be called with `op` as its one argument."""
    return InvalidRevision(
        f"{name} of {revision.path.name} {problem}", hint=_PLAIN.format(name=name), where=where
    )


def where_in(path: Path, traceback: TracebackType | None) -> Where | None:
    """The deepest place of a traceback that lies in the file at `path`; None where none does."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    if line is None:
        return None
    linecache.checkcache(str(path))
    return Where(path, line, linecache.getline(str(path), line).strip())


@contextmanager
def _importable(module: ModuleType, paths: Sequence[Path]) -> Iterator[None]:
    """While it lasts the module can be found by its name, and imports look into `paths` too."""
    added = [path for path in dict.fromkeys(map(str, paths)) if path not in sys.path]
    sys.modules[module.__name__] = module
    sys.path.extend(added)
    try:
        yield
    finally:
        sys.modules.pop(module.__name__, None)
        for path in added:
            with suppress(ValueError):  # the code of the revision may have taken it out
                sys.path.remove(path)


def compile_script(revision: Revision) -> CodeType:
    """The whole text of a revision, compiled and not run.

    Raises:
        InvalidRevision: it is no Python; says which line.
    """
    try:
        return compile(revision.code, str(revision.path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        lines = revision.code.split("\n")
        text = lines[line - 1].strip() if line and line <= len(lines) else ""
        problem = getattr(error, "msg", None) or str(error) or type(error).__name__
        raise InvalidRevision(
            f"{revision.path.name} cannot be compiled: {problem}",
            hint="correct the syntax of the file",
            where=Where(revision.path, line, text),
        ) from error


def _execute(code: CodeType, module: ModuleType, revision: Revision) -> None:
    try:
        exec(code, module.__dict__)  # noqa: S102 - to run revisions is what mongover is for
    except (Exception, SystemExit) as error:
        name = revision.path.name
        raise InvalidRevision(
            f"{name} cannot be imported: {_described(error)}",
            hint=_import_hint(error),
            where=where_in(revision.path, error.__traceback__) or Where(revision.path),
        ) from error


def _described(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it ends the process with sys.exit({error.code!r})"
    message = error.message if isinstance(error, MongoverError) else str(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _import_hint(error: BaseException) -> str:
    if isinstance(error, ImportError):
        return "install what is missing, or start mongover in the folder of the project"
    return "move what the file does into upgrade(op), or correct the line"


def _function(revision: Revision, module: ModuleType, name: str) -> Callable[[Any], Any] | None:
    """The function of that name, if the module has one; refused when it cannot be called so."""
    function = getattr(module, name, None)
    if function is None:
        return None
    problem = _problem(function)
    if problem is not None:
        raise is_called_wrongly(revision, name, problem, _place(revision.path, function))
    checked: Callable[[Any], Any] = function
    return checked


def _problem(function: object) -> str | None:
    if not callable(function) or isinstance(function, type):
        return f"is no function but a {type(function).__name__}"
    bodies = (function, function.__call__)
    if any(inspect.iscoroutinefunction(body) for body in bodies):
        return "is `async def`: it would never be awaited"
    if any(
        inspect.isasyncgenfunction(body) or inspect.isgeneratorfunction(body) for body in bodies
    ):
        return "has a `yield`: it would never run"
    return _signature_problem(function)


def _signature_problem(function: Callable[..., Any]) -> str | None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C: only the call can tell
        return None
    try:
        signature.bind(None)
    except TypeError:
        return f"takes {signature}, but is called with one argument, op"
    return None


def _place(path: Path, function: object) -> Where:
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or code.co_filename != str(path):
        return Where(path)
    line = code.co_firstlineno
    linecache.checkcache(str(path))
    return Where(path, line, linecache.getline(str(path), line).strip())


def _close(result: object) -> None:
    """End a coroutine or generator that will never run, so that Python does not complain."""
    close = getattr(result, "close", None)
    if callable(close):
        close()
