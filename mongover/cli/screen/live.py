"""The moving lines of a terminal, drawn by rich: imported when an operation takes long enough."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

from mongover.cli.screen.moment import progress_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from mongover.cli.screen.moment import Moment
    from mongover.cli.screen.output import Screen


class Label(ProgressColumn):
    """The operation, as plain text: what a user wrote is never markup."""

    def __init__(self, sign: str) -> None:
        super().__init__()
        self._sign = sign

    def render(self, task: Task) -> Text:
        """The sign and the description."""
        return Text(f"      {self._sign} {task.description}", no_wrap=True, overflow="ellipsis")


class Silence(ProgressColumn):
    """For how long an operation has been running that counts nothing."""

    def render(self, task: Task) -> Text:
        """The same words as outside a terminal; none once documents are counted."""
        return Text() if _counts(task) else _state(task)


class Moving(Progress):
    """A line with the operation and a bar, and one below it with the figures, for lack of room."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is drawn."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if _counts(task):
                yield Text(" " * 8, no_wrap=True, overflow="ellipsis").append(_state(task))


def _counts(task: Task) -> bool:
    moment: Moment = task.fields["moment"]
    return moment.progress is not None


def _state(task: Task) -> Text:
    return Text(progress_text(task.fields["moment"], time.monotonic()), no_wrap=True)


def start_live(screen: Screen) -> Progress:
    """A started display on the screen; it leaves nothing behind when it is stopped."""
    console = Console(
        file=screen.stream,
        force_terminal=True,
        no_color=not screen.color,
        markup=False,
        highlight=False,
        emoji=False,
    )
    live = Moving(
        Label(screen.fit("↻")),
        BarColumn(bar_width=24),
        Silence(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        refresh_per_second=8,
    )
    live.start()
    return live
