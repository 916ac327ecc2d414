"""What is wrong between files and history, each with the command that ends it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mongover.errors import Ahead, CycleError, DuplicateRevision, MultipleHeads
from mongover.history.record import RUNNING, STOPPED, Direction, State
from mongover.planning.case import (
    half_done,
    late_below,
    left_something,
    look_at,
    shared_places,
    state_of,
    text_verdict,
)
from mongover.planning.graph import number_of
from mongover.planning.sentences import (
    blocked_error,
    command_again,
    edited_error,
    gone_error,
    how_it_ended,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mongover.errors import MongoverError
    from mongover.history.record import Record
    from mongover.planning.case import Case
    from mongover.revisions.revision import RevisionFiles


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong, or worth knowing when there is no `error`.

    `kind` is one of: unreadable, duplicate, unknown-parent, cycle, multiple-heads, unrunnable,
    edited, missing, ahead, blocked, out-of-order, bad-record; without an error: reformatted,
    failed, interrupted, degraded.
    """

    revision: str | None
    kind: str
    message: str
    hint: str
    error: MongoverError | None = None

    @property
    def waits(self) -> bool:
        """Whether somebody must do something about it; a file that was reformatted may stay so."""
        return self.kind != "reformatted"


def find_problems(
    files: RevisionFiles, records: Mapping[str, Record], *, sources: Callable[[str], str]
) -> list[Problem]:
    """Everything wrong with files and history, blocking or not; raises nothing of its own."""
    case = look_at(files, records, sources)
    unreadable = set(case.files.broken.values())
    wrong = case.graph.problems()
    problems = [
        _problem(name, "duplicate" if isinstance(error, DuplicateRevision) else "unreadable", error)
        for name, error in case.files.broken.items()
    ]
    problems += [
        _problem(name, "cycle" if isinstance(error, CycleError) else "unknown-parent", error)
        for name, error in wrong.items()
        if error not in unreadable
    ]
    problems += _head_problems(case, wrong)
    problems += [_problem(name, "bad-record", error) for name, error in shared_places(case).items()]
    for name in sorted(records, key=number_of):
        problems.extend(_record_problems(case, records[name]))
    pending = [each for each in case.graph.nodes if state_of(case, each) not in RUNNING]
    pending = [each for each in pending if each not in case.done]
    problems += [_problem(name, "out-of-order", error) for name, error in late_below(case, pending)]
    return problems


def _problem(name: str, kind: str, error: MongoverError) -> Problem:
    return Problem(name, kind, error.message, error.hint, error)


def _head_problems(case: Case, wrong: Mapping[str, MongoverError]) -> Iterator[Problem]:
    if case.files.broken:
        return  # a file that cannot be read may be the one that joins two heads
    for schema, line in case.graph.lines.items():
        try:
            case.graph.check_heads(schema, applied=case.done)
        except CycleError:
            continue  # it is a problem of its own
        except MultipleHeads as error:
            if wrong.keys().isdisjoint(line):
                yield _problem(case.graph.heads(schema)[-1], "multiple-heads", error)


def _record_problems(case: Case, record: Record) -> Iterator[Problem]:
    name = record.revision
    if record.state in RUNNING:
        return
    if record.blocked or half_done(record, Direction.DOWN):
        yield _problem(name, "blocked", blocked_error(case, record))
    elif record.state in STOPPED:
        yield _unfinished(case, record)
    if record.state is State.APPLIED and record.warnings:
        yield _degraded(record)
    if name in case.files.broken or not left_something(record):
        return
    if name not in case.files.revisions:
        gone = gone_error(case, record)
        yield _problem(name, "ahead" if isinstance(gone, Ahead) else "missing", gone)
        return
    yield from _text_problems(case, record)


def _text_problems(case: Case, record: Record) -> Iterator[Problem]:
    name, verdict = record.revision, text_verdict(case, record)
    if verdict == "edited":
        yield _problem(name, verdict, edited_error(case, record))
    elif verdict == "reformatted":
        message = f"{name} was reformatted after it was applied; its code says the same"
        hint = f'nothing need be done; mongover repair {name} --reason "…" notes the new text'
        yield Problem(name, verdict, message, hint)


def _unfinished(case: Case, record: Record) -> Problem:
    """An attempt that can be run again without anybody's word."""
    name, command = record.revision, "upgrade"
    resolve, hint = f"mongover resolve {name}", f"`{command_again(case, record)}` goes on with it"
    if record.direction is Direction.DOWN:
        command = "downgrade"
        hint += f', or it stays applied: {resolve} --applied --reason "…"'
    elif name not in case.graph.nodes:
        hint = f'its file is gone; forget it: {resolve} --reverted --reason "…", or write the file'
        hint += f" back: mongover restore {name}"
    message = f"the {command} of {name} {how_it_ended(record)}"
    return Problem(name, str(record.state), message, hint)


def _degraded(record: Record) -> Problem:
    """An applied revision of which `strict = false` let something fail."""
    first, *others = record.warnings
    more = f" (and {len(others)} more)" if others else ""
    return Problem(
        record.revision,
        "degraded",
        f"{record.revision} was applied with {'warnings' if others else 'a warning'}:"
        f" {first}{more}",
        f'mend it in the database, then: mongover repair {record.revision} --reason "…"',
    )
