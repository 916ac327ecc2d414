"""The commands that write files: a project, revisions, merges."""

from __future__ import annotations

import glob
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mongover.cli.command import App, Command
from mongover.cli.screen.output import relative
from mongover.cli.screen.status import show_problems
from mongover.cli.screen.text import count
from mongover.cli.targets import complete_target
from mongover.errors import MissingFile, MongoverError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mongover.cli.screen.output import Output
    from mongover.migrator import Migrator
    from mongover.planning.problems import Problem

_DISAGREE: Final = 4
_EDITORS: Final = ("sensible-editor", "nano", "vim", "vi")


@click.command("init", cls=Command)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
def init(app: App, folder: Path) -> None:
    """Make a project in this folder.

    Writes alembic-style.ini, the folder versions and a .gitignore. What is there already stays as
    it is. Without --url the project uses a private embedded MongoDB.
    """
    from mongover.revisions.project import EMBEDDED_URL, init_project

    url = app.settings.url or EMBEDDED_URL
    project = init_project(folder, url=url, database=app.settings.database)
    told = {
        "created": [_shown(path) for path in project.created],
        "kept": [_shown(path) for path in project.kept],
        "changed": [_shown(path) for path in project.changed],
    }
    if app.settings.json:
        app.output.document(told)
    for what, paths in told.items():
        for path in paths:
            app.output.data(f"{what:<7}  ", path)
    steps = ['mongover revision -m "create users" --schema users', "mongover upgrade"]
    if folder.resolve() != Path.cwd():
        steps.insert(0, f"cd {shlex.quote(str(folder))}")
    app.output.hint(", then ".join(steps))


def _shown(path: Path) -> str:
    return relative(path) + ("/" if path.is_dir() else "")


@click.command("revision", cls=Command)
@click.option("-m", "--message", required=True, metavar="TEXT", help="What it does, in few words.")
@click.option("--schema", metavar="NAME", help="The line that it belongs to.")
@click.option("--depends-on", multiple=True, metavar="REV", help="Needed first (repeatable).")
@click.option("--id", "revision_id", metavar="ID", help="Its number; the next one without it.")
@click.option("--edit", "then_edit", is_flag=True, help="Open it in the editor.")
def revision(  # noqa: PLR0917 - click calls it by keyword
    app: App,
    message: str,
    schema: str | None,
    depends_on: tuple[str, ...],
    revision_id: str | None,
    then_edit: bool,  # noqa: FBT001 - a flag of the command line
) -> None:
    """Write a new revision file.

    It stands on top of its schema and has the next number over all of them.
    """
    with app.migrator(needs_database=False) as migrator:
        path = migrator.create_revision(
            message, schema=schema, depends_on=depends_on, id=revision_id
        )
    _tell_files(app.output, [path])
    if then_edit:
        open_editor(path, app.environ)
    app.output.hint(
        f"write its upgrade and downgrade (mongover edit {_id_of(path)}), then mongover upgrade"
    )


@click.command("merge", cls=Command)
@click.argument("schema", required=False)
@click.option("-m", "--message", required=True, metavar="TEXT", help="What is joined.")
def merge(app: App, schema: str | None, message: str) -> None:
    """Join the two heads of a schema.

    Writes one revision with all heads as its parents. Without SCHEMA, for the line without a name.
    """
    with app.migrator(needs_database=False) as migrator:
        path = migrator.merge(schema, message)
    _tell_files(app.output, [path])
    app.output.hint("mongover upgrade")


@click.command("rebase", cls=Command)
@click.argument("target", shell_complete=complete_target)
def rebase(app: App, target: str) -> None:
    """Put a pending revision on top of its schema.

    Gives it the next free number, renames its file and rewrites the links to it. Refused for a
    revision that has a record.
    """
    with app.migrator() as migrator:
        paths = migrator.rebase(target)
    _tell_files(app.output, paths)
    app.output.hint("mongover plan")


def _tell_files(output: Output, paths: Sequence[Path]) -> None:
    names = [relative(path) for path in paths]
    if output.settings.json:
        document: dict[str, object] = {"files": names}
        if len(paths) == 1:
            document |= {"revision": _id_of(paths[0]), "path": names[0]}
        output.document(document)
    for name in names:
        output.data("wrote ", name)


def _id_of(path: Path) -> str:
    return path.stem.partition("_")[0]


@click.command("edit", cls=Command)
@click.argument("target", shell_complete=complete_target)
def edit(app: App, target: str) -> None:
    """Open a revision file in the editor.

    The editor is $VISUAL, else $EDITOR, else the first that is found.
    """
    with app.migrator(needs_database=False) as migrator:
        path = _file_named(migrator, target)
    if path is None:
        with app.migrator() as migrator:
            path = _file_of(migrator, target)
    open_editor(path, app.environ)
    if app.settings.json:
        app.output.document({"path": relative(path)})


@click.command("check", cls=Command)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "github"]),
    default="text",
    help="github: annotations for a workflow.",
)
def check(app: App, form: str) -> int:
    """Check the revision files, without a server.

    Each file can be read, each schema has one head, no number stands twice, no link is broken, and
    the code below the headers can be run: it is Python, its functions take op, and op has what they
    use. Exit code 4 when something is wrong.
    """
    with app.migrator(needs_database=False) as migrator:
        problems = migrator.check()
    return tell_problems(app, problems, good="the revision files hold together", form=form)


def tell_problems(app: App, problems: Sequence[Problem], *, good: str, form: str = "text") -> int:
    """Show what is wrong, or say that nothing is; the exit code."""
    if app.settings.json:
        app.output.document({"problems": [_placed(problem) for problem in problems]})
    elif form == "github":
        for problem in problems:
            app.output.verbatim(annotation(problem) + "\n")
    else:
        show_problems(app.output, problems, places=True)
    wrong = sum(problem.error is not None for problem in problems)
    if not wrong:
        app.output.result(good)
        return 0
    app.output.talk(count(wrong, "problem"))
    return _DISAGREE


def _placed(problem: Problem) -> dict[str, str | int | None]:
    """The problem as a document, with its code and its place in a file where it has one."""
    error = problem.error
    where = None if error is None else error.where
    return problem.to_json() | {
        "code": None if error is None else error.code,
        "path": None if where is None else relative(where.path),
        "line": None if where is None else where.line,
    }


def annotation(problem: Problem) -> str:
    """The problem as a line that a GitHub workflow shows beside the file."""
    error = problem.error
    where = error.where if isinstance(error, MongoverError) else None
    fields = {"title": error.code if isinstance(error, MongoverError) else problem.kind}
    if where is not None:
        fields["file"] = relative(where.path)
        if where.line is not None:
            fields["line"] = str(where.line)
    listed = ",".join(f"{name}={_github(value, ':,')}" for name, value in fields.items())
    text = problem.message + (f"; next: {problem.hint}" if problem.hint else "")
    level = "notice" if error is None else "error"
    return f"::{level} {listed}::{_github(text)}"


def _github(text: str, more: str = "") -> str:
    """The text with what has a meaning in a workflow command percent-encoded."""
    for sign in "%\r\n" + more:
        text = text.replace(sign, f"%{ord(sign):02X}")
    return text


def _file_named(migrator: Migrator, target: str) -> Path | None:
    """The one file whose name begins with an id, if it can be read or not; needs no server."""
    named = sorted(migrator.config.versions.glob(f"{glob.escape(target)}_*.py"))
    return named[0] if len(named) == 1 else None


def _file_of(migrator: Migrator, target: str) -> Path:
    """The file of the revision that a target names in files and history."""
    shown = migrator.show(target)
    if shown.revision is None:
        raise MissingFile(f"{target} has no file", hint=f"mongover restore {target}")
    return shown.revision.path


def open_editor(path: Path, environ: Mapping[str, str]) -> None:
    """Run the editor on the file and wait for it.

    Raises:
        UsageError: there is none, or it cannot be run.
    """
    command = _editor(environ)
    try:
        code = subprocess.call([*command, str(path)])  # noqa: S603 - the editor that the user named
    except OSError as error:
        raise UsageError(
            f"the editor {command[0]} cannot be run: {error.strerror}", hint="set $EDITOR"
        ) from error
    if code:
        raise UsageError(f"the editor {command[0]} ended with exit code {code}")


def _editor(environ: Mapping[str, str]) -> list[str]:
    named = environ.get("VISUAL") or environ.get("EDITOR")
    if named:
        try:
            words = shlex.split(named, posix=os.name != "nt")
        except ValueError:
            words = [named]
        if words:
            return words
    found = next((name for name in _EDITORS if shutil.which(name)), None)
    if found is None:
        raise UsageError("there is no editor", hint="set $EDITOR, such as EDITOR=nano")
    return [found]
