"""How far the running operation is, in words. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mongover.cli.screen.text import duration, number

if TYPE_CHECKING:
    from mongover.running.events import Progress


class Moment:
    """The operation that runs now, as far as it is known; shared with the thread that shows it."""

    def __init__(self, label: str, began: float) -> None:
        self.label = label
        self.began = began
        self.told = began
        self.progress: Progress | None = None  # as the operation told it last
        self.place: tuple[str, ...] = ()

    def advance(self, event: Progress) -> None:
        """The operation is as far as it says."""
        self.progress, self.place = event, place_words(event)


def place_words(progress: Progress) -> tuple[str, ...]:
    """`3/8 ranges` where there are several, and `at _id 665f…` once a batch is done."""
    ranges, reached = progress.ranges, progress.reached
    several = ranges is not None and ranges > 1
    parts = [f"{number(progress.ranges_done or 0)}/{number(ranges)} ranges"] if several else []
    return (*parts, f"at _id {reached}") if reached else tuple(parts)


def progress_text(moment: Moment, now: float) -> str:
    """The state of an operation in words.

    `61 %, 512,400/840,112, 41,200/s, 8.0 s left, 3/8 ranges, at _id 665f…`
    """
    elapsed = max(now - moment.began, 0.0)
    progress = moment.progress
    if progress is None:
        return f"running for {duration(elapsed)}"
    # The operation tells its rate by this attempt alone.
    rate = progress.rate or (progress.done / elapsed if elapsed else 0.0)
    parts = [*done_words(progress), f"{number(round(rate))}/s"]
    if progress.total and rate:
        rest = max(progress.total - progress.done, 0) / rate
        parts.append(f"{duration(rest if progress.left is None else progress.left)} left")
    return ", ".join([*parts, *moment.place])


def done_words(progress: Progress) -> tuple[str, ...]:
    """`61 %` and `512,400/840,112`, or `512,400 documents` where nobody knows of how many."""
    done, total = progress.done, progress.total
    if not total:
        return (f"{number(done)} documents",)
    return (f"{min(done * 100 // total, 100)} %", f"{number(done)}/{number(total)}")
