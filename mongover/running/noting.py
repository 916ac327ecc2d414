"""An `op` that runs nothing and remembers what it was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mongover.errors import OperationFailed
from mongover.operations import Operations

if TYPE_CHECKING:
    from typing import NoReturn

    from mongover.history.record import Direction
    from mongover.operations import Operation
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
