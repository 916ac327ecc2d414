"""An `op` that runs nothing and remembers what it was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mongover.errors import MongoverError, OperationFailed, RevisionFailed, UsageError
from mongover.history.record import Direction
from mongover.operations import Operations
from mongover.running.script import load_script, where_in

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

    from mongover.operations import Operation
    from mongover.revisions.revision import RevisionFiles
    from mongover.running.script import Script


class Noting(Operations):
    """An `op` that runs nothing and remembers what it was asked for."""

    def __init__(self) -> None:
        self.seen: list[Operation] = []

    @property
    def db(self) -> NoReturn:
        """Refused: what a revision does by itself cannot be held back."""
        raise OperationFailed(
            "op.db cannot be tried: what it does would be real",
            hint="look at the other operations in a revision of their own",
            after="nothing was written.",
        )

    def log(self, text: str) -> None:
        """Not shown."""

    def run(self, operation: Operation) -> None:
        """Note an operation."""
        self.seen.append(operation)


def noted(script: Script, direction: Direction) -> tuple[Operation, ...]:
    """The operations that a revision asks for, in order."""
    op = Noting()
    script.run(direction, op)
    return tuple(op.seen)


def operations_of(files: RevisionFiles, revision: str, *, project: Path) -> tuple[Operation, ...]:
    """The operations that a revision's upgrade asks for; nothing of it is done.

    Raises:
        UsageError: the revision has no file to run.
        RevisionFailed: its code raised.
    """
    if revision not in files.revisions:
        raise UsageError(
            f"{revision} has no file to run", hint=f"mongover restore {revision} writes it back"
        )
    script = load_script(files.revisions[revision], paths=(project,))
    try:
        return noted(script, Direction.UP)
    except MongoverError:
        raise
    except Exception as error:
        raise RevisionFailed(
            f"{revision}: upgrade() raised {type(error).__name__} while it was asked for its "
            "operations",
            where=where_in(script.revision.path, error.__traceback__),
            hint="mend it so that its operations can be told without their effects",
            after="nothing of it was run.",
        ) from error
