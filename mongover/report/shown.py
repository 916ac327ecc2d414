"""The value of `show`: one revision, its file and its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mongover.history.record import LogEntry, Record
    from mongover.planning.problems import Problem
    from mongover.revisions.revision import Revision


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is known of one revision: its file, its record (with log), and what is wrong."""

    revision: Revision | None
    record: Record | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """One line of the log of everything ever done."""

    revision: str
    entry: LogEntry
