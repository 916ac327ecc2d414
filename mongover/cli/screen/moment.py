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
        self.done: int | None = None
        self.total: int | None = None
        self.rate: float | None = None  # as the operation tells it: by this attempt alone
        self.left: float | None = None
        self.place: tuple[str, ...] = ()

    def advance(self, event: Progress) -> None:
        """The operation is as far as it says."""
        self.done, self.total = event.done, event.total
        self.rate, self.left = event.rate, event.left
        self.place = place_words(event.ranges, event.ranges_done, event.reached)


def place_words(
    ranges: int | None, ranges_done: int | None, reached: str | None
) -> tuple[str, ...]:
    """`3/8 ranges` where there are several, and `at _id 665f…` once a batch is done."""
    several = ranges is not None and ranges > 1
    parts = [f"{number(ranges_done or 0)}/{number(ranges)} ranges"] if several else []
    return (*parts, f"at _id {reached}") if reached else tuple(parts)


def progress_text(moment: Moment, now: float) -> str:
    """The state of an operation in words.

    `61 %, 512,400/840,112, 41,200/s, 8.0 s left, 3/8 ranges, at _id 665f…`
    """
    elapsed = max(now - moment.began, 0.0)
    if moment.done is None:
        return f"running for {duration(elapsed)}"
    rate = moment.rate or (moment.done / elapsed if elapsed else 0.0)
    if not moment.total:
        parts = [f"{number(moment.done)} documents", f"{number(round(rate))}/s"]
        return ", ".join([*parts, *moment.place])
    parts = [
        f"{min(moment.done * 100 // moment.total, 100)} %",
        f"{number(moment.done)}/{number(moment.total)}",
        f"{number(round(rate))}/s",
    ]
    if rate:
        rest = max(moment.total - moment.done, 0) / rate if moment.left is None else moment.left
        parts.append(f"{duration(rest)} left")
    return ", ".join([*parts, *moment.place])
