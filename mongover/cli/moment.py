"""How far the running operation is, in words. Pure."""

from __future__ import annotations

from mongover.cli.text import duration, number


class Moment:
    """The operation that runs now, as far as it is known; shared with the thread that shows it."""

    def __init__(self, label: str, began: float) -> None:
        self.label = label
        self.began = began
        self.told = began
        self.done: int | None = None
        self.total: int | None = None


def progress_text(moment: Moment, now: float) -> str:
    """The state of an operation in words: `61 %, 512,400/840,112, 41,200/s, 0:00:08 left`."""
    elapsed = max(now - moment.began, 0.0)
    if moment.done is None:
        return f"running for {duration(elapsed)}"
    rate = moment.done / elapsed if elapsed else 0.0
    parts = [f"{number(moment.done)}/{number(moment.total)}" if moment.total else ""]
    if moment.total:
        parts.insert(0, f"{min(moment.done * 100 // moment.total, 100)} %")
        if rate:
            parts.append(f"{duration(max(moment.total - moment.done, 0) / rate)} left")
    else:
        parts = [f"{number(moment.done)} documents"]
    parts.insert(-1 if moment.total and rate else len(parts), f"{number(round(rate))}/s")
    return ", ".join(parts)
