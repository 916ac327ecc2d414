"""The folder of revision files: all of them read, the unreadable ones kept with their errors."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from mongover.errors import ConfigError, DuplicateRevision, InvalidRevision, Where
from mongover.revisions.header import CREATED, NUMBER, file_id, parse_revision
from mongover.revisions.revision import RevisionFiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Final

    from mongover.errors import MongoverError
    from mongover.revisions.revision import Revision


_STRAY: Final = re.compile(rb"^revision[ \t]*(?::[^=\r\n]*)?=[ \t]*['\"]", re.MULTILINE)


def read_revisions(folder: Path) -> RevisionFiles:
    """All revision files of a folder, in one look at it.

    Every `.py` file whose name begins with a digit is a revision file. Others are left alone,
    unless one holds a `revision = "…"` line: that one is reported as broken, not skipped.

    Raises:
        ConfigError: the folder is missing or cannot be read.
    """
    numbered, strays = _list_folder(folder)
    revisions: dict[str, Revision] = {}
    broken: dict[str, MongoverError] = {}
    for entries in numbered:
        paths = [folder / entry.name for entry in entries]
        if len(paths) > 1:
            error = duplicate_of(paths, _newest(entries, paths))
            broken.update({file_id(path): error for path in paths})
            continue
        try:
            revision = parse_revision(paths[0], _read(entries[0], paths[0]))
        except InvalidRevision as error:
            broken[file_id(paths[0])] = error
        else:
            revisions[revision.id] = revision
    for entry in strays:
        if _holds_revision(entry, folder / entry.name):
            broken[entry.name] = _unnumbered(folder / entry.name)
    return RevisionFiles(folder, revisions, broken)


def _list_folder(folder: Path) -> tuple[list[list[os.DirEntry[str]]], list[os.DirEntry[str]]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name[-3:].lower() == ".py"]
    except OSError as error:
        raise _no_folder(folder, error) from error
    by_number: dict[int, list[os.DirEntry[str]]] = {}
    strays = []
    for entry in sorted(found, key=lambda entry: entry.name):
        number = NUMBER.match(entry.name)
        if number is not None:
            by_number.setdefault(int(number[0]), []).append(entry)
        elif entry.name[0] not in "._":
            strays.append(entry)
    return [by_number[number] for number in sorted(by_number)], strays


def _no_folder(folder: Path, error: OSError) -> ConfigError:
    reason = {
        FileNotFoundError: "does not exist",
        NotADirectoryError: "is not a folder",
    }.get(type(error), f"cannot be read: {error.strerror}")
    return ConfigError(
        f"the folder of the revision files, {folder}, {reason}",
        hint="correct `versions` in the configuration, or make a project with `mongover init`",
    )


def _read(entry: os.DirEntry[str], path: Path) -> bytes:
    if path.suffix != ".py":
        raise InvalidRevision(
            f"{path.name} does not end with .py in small letters",
            hint=f"rename it to {path.stem}.py",
            where=Where(path),
        )
    try:
        if entry.is_file():  # to open a pipe would wait for ever
            return path.read_bytes()
        reason = "it is a folder, a link to nothing or the like"
    except OSError as error:
        reason = error.strerror or str(error)
    raise InvalidRevision(
        f"{path.name} cannot be read: {reason}",
        hint="make it a readable file, or move it out of the folder",
        where=Where(path),
    )


def _holds_revision(entry: os.DirEntry[str], path: Path) -> bool:
    # A stray file is no business of ours: one that cannot be read is a stray all the same.
    try:
        return _STRAY.search(_read(entry, path)) is not None
    except InvalidRevision:
        return False


def _unnumbered(path: Path) -> InvalidRevision:
    return InvalidRevision(
        f"{path.name} holds a revision, but its name does not begin with a number",
        hint=f"rename it to <id>_{path.name}, or move it out of the folder",
        where=Where(path),
    )


def duplicate_of(
    paths: Sequence[Path], moved: Path, *, applied: str | None = None
) -> DuplicateRevision:
    """The error of files with one number; `moved` is the one that shall get another.

    Only the history knows which of them is `applied` and keeps its number; without it the newer
    one is named, and the reader told to look.
    """
    names = " and ".join(path.name for path in paths)
    which = (
        f"{applied} is in the history and keeps it; give the other the next free number"
        if applied
        else "give one of them the next free number, the one that is applied nowhere"
        " (`mongover status` tells)"
    )
    return DuplicateRevision(
        f"{len(paths)} files carry the number {file_id(paths[0])}: {names}",
        hint=f"{which}: mongover rebase {moved.name}",
        notes=[str(path) for path in paths],
        where=Where(moved),
        paths=paths,
    )


def _newest(entries: Sequence[os.DirEntry[str]], paths: Sequence[Path]) -> Path:
    """The file that says that it was created last; the last by name where that is not told."""

    def created(number: int) -> tuple[str, int]:
        try:
            text = _read(entries[number], paths[number]).decode("utf-8", "replace")
        except InvalidRevision:
            text = ""
        found = CREATED.search(text)
        return ("" if found is None else found[1], number)

    return paths[max(range(len(paths)), key=created)]
