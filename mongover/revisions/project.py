"""A new project: its folders and its configuration file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mongover.config.config import database_problem, settings
from mongover.config.kinds import INI_NAME, SECTION
from mongover.config.load import find_file
from mongover.config.urls import redact_url, url_problem
from mongover.errors import UsageError
from mongover.revisions.write import SLUG_LENGTH, cannot_write, create_file

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Final

    from mongover.config.kinds import Setting


EMBEDDED_URL: Final = "embedded:.mongover/db"


@dataclass(frozen=True, slots=True)
class Project:
    """What `init_project` made, what it found and left alone, and what it added a line to."""

    created: tuple[Path, ...] = ()
    kept: tuple[Path, ...] = ()
    changed: tuple[Path, ...] = ()


def init_project(folder: Path, *, url: str = EMBEDDED_URL, database: str | None = None) -> Project:
    """Make a project that works at once; whatever exists is kept.

    The configuration is written last: as long as it is missing, a second try makes the rest.

    Args:
        folder: Where; it is made when it is missing.
        url: The server, without a password: a file is no place for one.
        database: The database; None names it after the folder.

    Raises:
        UsageError: the URL holds a secret, or a name is wrong.
        ConfigError: the folder cannot be written, or its configuration cannot be read.
    """
    folder = folder.absolute()
    text = _ini_text(url, _checked_database(folder, database), secret=_holds_secret(url))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        existing = find_file(folder)
        if existing is not None:
            return Project(kept=(existing,))
        project = _make_versions(folder / "versions")
        if url.startswith("embedded:"):
            project = _ignore(folder / ".gitignore", project)
    except OSError as error:
        raise cannot_write(folder, error) from error
    create_file(folder / INI_NAME, text)
    return replace(project, created=(*project.created, folder / INI_NAME))


def _make_versions(versions: Path) -> Project:
    if versions.exists():
        return Project(kept=(versions,))
    versions.mkdir()
    create_file(versions / ".gitkeep", "")  # an empty folder would not reach the other clones
    return Project(created=(versions,))


def _ignore(path: Path, project: Project) -> Project:
    line = ".mongover/"
    if not path.exists():
        create_file(path, f"{line}\n")
        return replace(project, created=(*project.created, path))
    data = path.read_bytes()
    if line.encode() in data:
        return replace(project, kept=(*project.kept, path))
    gap = b"" if not data or data.endswith(b"\n") else b"\n"
    with path.open("ab") as file:
        file.write(gap + line.encode() + b"\n")
    return replace(project, changed=(*project.changed, path))


def _holds_secret(url: str) -> bool:
    shape = re.sub(r"\$\{[^}]*\}", "***", url)
    return redact_url(shape) != shape


def database_name(folder: str) -> str:
    """A database name that MongoDB takes, made of a folder's name."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", folder).strip("_-")[:SLUG_LENGTH]
    return f"{name}_app" if name.lower() in {"admin", "local", "config"} else name or "app"


def _checked_database(folder: Path, database: str | None) -> str:
    if database is None:
        return database_name(folder.name)
    problem = database_problem(database) if database else "must not be empty"
    if problem is not None:
        raise UsageError(f"the database {problem}", hint="choose another name with --database")
    return database


def _ini_text(url: str, database: str, *, secret: bool) -> str:
    if secret:
        raise UsageError(
            "the URL holds a password, which does not belong in a file",
            hint="write ${NAME} in its place, or set MONGOVER_URL and leave --url out",
        )
    problem = None if "${" in url else url_problem(url)
    if problem is not None:
        raise UsageError(problem[0], hint=problem[1])
    given = {"url": url if "${" in url else url.replace("$", "$$"), "database": database}
    parts = [_INI_HEAD, *(_ini_key(setting, given.get(setting.name)) for setting in settings())]
    return "\n".join(parts)


_INI_HEAD: Final = f"""\
# The configuration of mongover. Flags and the environment (MONGOVER_URL and the like) win over it.
# ${{NAME}} and ${{NAME:-default}} are read from the environment, $$ is a dollar sign.
# Relative folders count from here. A key that is commented out shows its default.

[{SECTION}]
"""


def _ini_key(setting: Setting, given: str | None) -> str:
    comment = f"# {setting.doc}\n"
    if given is not None:
        return f"{comment}{setting.name} = {given}\n"
    default = setting.default
    if isinstance(default, bool):
        shown = str(default).lower()
    else:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    return f"{comment}# {setting.name} = {shown}\n"
