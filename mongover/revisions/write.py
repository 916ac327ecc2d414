"""Writing revision files: new ones, restored ones, and the first files of a project.

No file is ever written over: each is created exclusively.
"""

from __future__ import annotations

import os
import re
import unicodedata
from datetime import UTC, datetime
from string import Template
from typing import TYPE_CHECKING

from mongover.errors import ConfigError, DuplicateRevision, InvalidRevision, UsageError, Where
from mongover.revisions.header import parse_revision

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from typing import Final


SLUG_LENGTH: Final = 40
_ID_WIDTH: Final = 4
_ID_LENGTH: Final = 40
_NUMBERED: Final = re.compile(r"([0-9]+)(.*)\.py", re.DOTALL)
_TEMPLATE: Final = Template(
    '''"""$message

Revision ID: $id
Revises: $revises
${schema_note}Create Date: $created
"""

from mongover import Operations

revision = $revision
down_revision = $down_revision
${schema}depends_on = $depends_on
${transaction}

def upgrade(op: Operations) -> None:
    $upgrade


def downgrade(op: Operations) -> None:
    $downgrade
'''
)


def next_id(existing: Iterable[str]) -> str:
    """The number after the highest of all ids, with four digits or more; `0001` for the first."""
    numbers = [int(id_) for id_ in existing if re.fullmatch("[0-9]+", id_)]
    return f"{max(numbers, default=0) + 1:0{_ID_WIDTH}d}"


def slug(message: str) -> str:
    """A message as part of a file name: small letters, digits and `_`, 1 to 40 signs.

    Accents of Latin letters are dropped, letters of other scripts are kept.
    """
    split = unicodedata.normalize("NFKD", message.lower())
    plain = unicodedata.normalize("NFC", re.sub("[\u0300-\u036f]", "", split))
    words = re.sub(r"[\W_]+", "_", plain).strip("_")
    return words[:SLUG_LENGTH].strip("_") or "revision"


def write_revision(
    folder: Path,
    *,
    id: str,  # noqa: A002 - the word that a user writes
    message: str,
    schema: str | None = None,
    down_revision: str | Sequence[str] | None = None,
    depends_on: Sequence[str] = (),
    create_date: datetime | None = None,
    transaction: bool = False,
) -> Path:
    """Write a new revision file and return its path; two or more parents make it a merge.

    White space in the message is folded to single spaces, so that it is one line.

    Raises:
        UsageError: the message is empty, or an id or the schema is none.
        DuplicateRevision: a file with this number exists.
        ConfigError: the folder is missing or cannot be written.
    """
    message = " ".join(message.encode("utf-8", "replace").decode().split())
    if not message:
        raise UsageError("a revision needs a message", hint='give it one: -m "create users"')
    if re.fullmatch(f"[0-9]{{1,{_ID_LENGTH}}}", id) is None:
        raise UsageError(f"{id[:80]!r} is no revision id", hint="an id is a number such as 0042")
    path = folder / f"{id}_{slug(message)}.py"
    text = _render(
        id=id,
        message=message,
        schema=schema,
        parents=_ids(down_revision),
        depends_on=tuple(depends_on),
        create_date=create_date or datetime.now(UTC),
        transaction=transaction,
    )
    _readable(path, text)
    _refuse_second(folder, id)
    create_file(path, text)
    return path


def restore_file(
    folder: Path,
    *,
    id: str,  # noqa: A002 - the word that a user writes
    message: str,
    source: str,
    name: str | None = None,
) -> Path:
    """Write a lost revision file back from its record and return its path.

    Args:
        folder: The folder of the revisions; it is made when it is missing.
        id: The id of the revision.
        message: The message of the revision, for the name of its file.
        source: The text of the file.
        name: The name that the file had, where it is known.

    Raises:
        DuplicateRevision: a file with this number exists; it is left alone.
        UsageError: the id cannot be part of a file name.
        ConfigError: the folder cannot be written.
    """
    if re.fullmatch("[0-9]+", id) is None:  # it comes from a database: never build a path from it
        raise UsageError(f"{id!r} is no revision id", hint="an id is a number such as 0042")
    named = _NUMBERED.fullmatch(name or "")
    safe = named is not None and named[1] == id and re.search(r"[/\\\0]", named[2]) is None
    path = folder / (name if name and safe else f"{id}_{slug(message)}.py")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    _refuse_second(folder, id)
    create_file(path, source)
    return path


def _render(
    *,
    id: str,  # noqa: A002 - the word that a user writes
    message: str,
    schema: str | None,
    parents: tuple[str, ...],
    depends_on: tuple[str, ...],
    create_date: datetime,
    transaction: bool,
) -> str:
    merge = len(parents) > 1
    return _TEMPLATE.substitute(
        message=_in_docstring(message),
        id=id,
        revises=_in_docstring(", ".join(parents)),
        schema_note="" if schema is None else f"Schema: {_in_docstring(schema)}\n",
        created=create_date.isoformat(sep=" ", timespec="seconds"),
        revision=quoted(id),
        down_revision=_literal(parents) if merge else _parent(parents),
        schema="" if schema is None else f"schema = {quoted(schema)}\n",
        depends_on=_literal(depends_on),
        transaction="transaction = True\n" if transaction else "",
        upgrade="pass" if merge else 'pass  # op.create_index("users", "email", unique=True)',
        downgrade="pass" if merge else 'pass  # op.drop_index("users", "email_1")',
    ).replace("Revises: \n", "Revises:\n", 1)


def _ids(value: str | Sequence[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _escaped(text: str) -> str:
    """The text as it stands in a literal: no backslash of its own, nothing that cannot be seen."""
    return "".join(
        char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode()
        for char in text
    )


def _in_docstring(text: str) -> str:
    escaped = _escaped(text).replace('"""', r"\"\"\"")
    return f"\\{escaped}" if escaped.startswith('"') else escaped


def quoted(text: str, quote: str = '"') -> str:
    """The text as a Python literal in these quotes."""
    return f"{quote}{_escaped(text).replace(quote, chr(92) + quote)}{quote}"


def _literal(ids: Sequence[str]) -> str:
    inner = ", ".join(quoted(each) for each in ids)
    return f"({inner},)" if len(ids) == 1 else f"({inner})"


def _parent(ids: Sequence[str]) -> str:
    return quoted(ids[0]) if ids else "None"


def _readable(path: Path, text: str) -> None:
    """Refuse what the reader of revisions would not take back."""
    try:
        parse_revision(path, text.encode())
    except InvalidRevision as error:
        problem = error.message.partition(": ")[2] or error.message
        raise UsageError(
            f"such a revision cannot be written: {problem}", hint="correct the arguments"
        ) from error


def _refuse_second(folder: Path, id_: str) -> None:
    for other in numbered_files(folder):
        if int(number_of(other)) == int(id_):
            raise DuplicateRevision(
                f"a file with the number {id_} exists: {other.name}",
                hint="take another id, or rename that file",
                where=Where(other),
            )


def numbered_files(folder: Path) -> list[Path]:
    """The files of a folder that carry a number, in the order of their names.

    Raises:
        ConfigError: the folder is missing or cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if _NUMBERED.fullmatch(path.name))
    except OSError as error:
        raise cannot_write(folder, error) from error


def number_of(path: Path) -> str:
    """The number at the beginning of a file's name, as it is written; empty without one."""
    found = _NUMBERED.fullmatch(path.name)
    return found[1] if found else ""


def create_file(path: Path, text: str) -> None:
    """Create a file with exactly this text; nothing stays of a try that failed.

    Raises:
        DuplicateRevision: the file exists; it is left alone.
        ConfigError: it cannot be written.
    """
    try:
        file = path.open("xb")
    except FileExistsError as error:
        raise DuplicateRevision(
            f"{path} exists and was left alone", hint="move it away first", where=Where(path)
        ) from error
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        with file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> ConfigError:
    """What a person should read when the folder of the revisions cannot be used."""
    return ConfigError(
        f"{path} cannot be written: {error.strerror or error}",
        hint="make the folder and let this user write there; `versions` names it",
        where=Where(path),
    )
