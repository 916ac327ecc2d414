"""The moving line of a terminal, drawn by rich: imported when an operation takes long enough."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

from mongover.cli.moment import Moment, progress_text

if TYPE_CHECKING:
    from mongover.cli.output import Screen


class Label(ProgressColumn):
    """The operation, as plain text: what a user wrote is never markup."""

    def __init__(self, sign: str) -> None:
        super().__init__()
        self._sign = sign

    def render(self, task: Task) -> Text:
        """The sign and the description."""
        return Text(f"      {self._sign} {task.description}", no_wrap=True, overflow="ellipsis")


class State(ProgressColumn):
    """How far it is, how fast, and how long it will take."""

    def render(self, task: Task) -> Text:
        """The same words as outside a terminal."""
        now = time.monotonic()
        moment = Moment(task.description, task.fields["began"])
        if task.completed:
            moment.done = int(task.completed)
            moment.total = None if task.total is None else int(task.total)
        return Text(progress_text(moment, now), no_wrap=True)


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
    live = Progress(
        Label(screen.fit("↻")),
        BarColumn(bar_width=24),
        State(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        refresh_per_second=8,
    )
    live.start()
    return live
