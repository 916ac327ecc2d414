"""A revision as its file declares it: a value.

How a file's text is read is in `text` and `header`; a folder of them, in `folder`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mongover.revisions.text import normalise_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mongover.errors import MongoverError


@dataclass(frozen=True, slots=True)
class Revision:
    """What a revision file says of itself.

    `source` is the whole text as it stands in the file, so that it can be written back byte for
    byte; `code` is what Python and the checksum make of it.
    """

    id: str
    path: Path
    schema: str | None
    message: str
    down_revision: tuple[str, ...]
    depends_on: tuple[str, ...]
    transaction: bool
    repeatable: bool | None
    has_downgrade: bool
    checksum: str
    source: str
    create_date: str | None

    @property
    def code(self) -> str:
        """The text without byte order mark, its lines ended by a newline sign."""
        return normalise_text(self.source)


@dataclass(frozen=True, slots=True)
class RevisionFiles:
    """The revision files of a folder, by id in the order of their numbers.

    Attributes:
        folder: Where they were read.
        revisions: The readable ones.
        broken: What is wrong with the others, by the id in the file's name; a file without a
            number that holds a revision all the same stands under its name.
    """

    folder: Path
    revisions: Mapping[str, Revision]
    broken: Mapping[str, MongoverError]
