"""What a person's corrections change in the history: resolve, repair and stamp, as pure functions.

Each looks at records and files and returns changes, or refuses before anything is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mongover.errors import MissingFile, UnknownTarget, UsageError
from mongover.history import changes
from mongover.history import record as records
from mongover.planning.case import applied_in_order, find_revision, known_graph
from mongover.planning.plan import subject_of
from mongover.planning.targets import Targets
from mongover.revisions.write import number_of, numbered_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mongover.history.changes import Change, Resolution
    from mongover.history.record import Record
    from mongover.revisions.revision import Revision, RevisionFiles

    Records = Mapping[str, Record]
    Changes = Callable[[Records], tuple[Change, ...]]


def change_of(
    files: RevisionFiles, target: str, change: Callable[[Record, Records], Change]
) -> Changes:
    """The one change of the record that a target names, to be made of the history as it is then.

    Raises (when it is called):
        TargetError: the target names no revision.
        UsageError: it names one that never ran.
    """

    def changes(known: Records) -> tuple[Change, ...]:
        revision = find_revision(files, known, target)
        if revision not in known:
            raise UsageError(
                f"{revision} has no record: it never ran",
                hint=f"`mongover show {revision}` shows its file",
            )
        return (change(known[revision], known),)

    return changes


def resolution_of(
    record: Record, known: Records, resolution: Resolution, *, by: Mapping[str, Any], reason: str
) -> Change:
    """The end of a half-done state with what a person found out.

    Raises:
        UsageError: the revision did not stop half-way.
    """
    if record.state not in records.STOPPED:
        raise UsageError(
            f"{record.revision} is {record.state}; only a failed or interrupted revision "
            "can be resolved",
            hint="`mongover status` shows which ones are",
        )
    place = next_place(known)
    return changes.resolve(record, resolution, by=by, reason=reason, sequence=place)


def acceptance_of(
    record: Record, files: RevisionFiles, *, by: Mapping[str, Any], reason: str
) -> Change:
    """The acceptance of an applied file as it is now, and of warnings that were mended.

    Raises:
        UsageError: the revision is not applied, or there is nothing to accept.
        MissingFile: there is no file.
        InvalidRevision: its file cannot be read.
    """
    if not record.counts_as_applied:
        raise UsageError(
            f"{record.revision} is {record.state}, so its file may be edited freely",
            hint="only what is applied is bound to its text: see `mongover status`",
        )
    revision = file_of(files, record.revision)
    if record.checksum == revision.checksum and not record.warnings:
        raise UsageError(
            f"{record.revision} needs no repair: its file is what was applied",
            hint="`mongover verify` compares every record with its file",
        )
    return changes.repair(record, subject_of(revision), by=by, reason=reason)


def stamps(
    target: str, files: RevisionFiles, known: Records, *, by: Mapping[str, Any], reason: str
) -> tuple[Change, ...]:
    """What a stamp marks as applied and as reverted, without anything having run.

    Raises:
        TargetError: the target names nothing.
        MissingFile: a revision that it would mark as applied has no file.
    """
    stopped = [each for each, record in known.items() if record.state in records.STOPPED]
    targets = Targets(known_graph(files, known), applied_in_order(known))
    try:
        add, remove = targets.stamp(target, stopped=stopped)
    except UnknownTarget:
        file_of(files, find_revision(files, known, target))  # it may be there, and unreadable
        raise
    place = next_place(known)
    marked = (
        changes.stamp(
            subject_of(file_of(files, revision)),
            known.get(revision),
            by=by,
            reason=reason,
            sequence=place + index,
        )
        for index, revision in enumerate(add)
    )
    unmarked = (changes.unstamp(known[revision], by=by, reason=reason) for revision in remove)
    return (*marked, *unmarked)


def next_place(known: Records) -> int:
    """The next number in the order of application."""
    return max((record.sequence for record in known.values()), default=0) + 1


def file_of(files: RevisionFiles, revision: str) -> Revision:
    """The file of a revision.

    Raises:
        MissingFile: there is none.
        FilesError: it cannot be read.
    """
    if revision not in files.revisions:
        raise files.broken.get(revision) or MissingFile(
            f"{revision} has no file", hint=f"mongover restore {revision} writes it back"
        )
    return files.revisions[revision]


def path_of(files: RevisionFiles, revision: str) -> Path | None:
    """Where the file with the number of a revision is, readable or not."""
    if revision in files.revisions:
        return files.revisions[revision].path
    there = (path for path in numbered_files(files.folder) if number_of(path) == revision)
    return next(there, None)
