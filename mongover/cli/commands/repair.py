"""The commands that bring files and history together again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mongover.cli.command import App, Command, TargetCommand
from mongover.cli.commands.files import tell_problems
from mongover.cli.commands.run import heard
from mongover.cli.screen.output import Paint, relative
from mongover.cli.screen.text import count
from mongover.cli.targets import complete_target
from mongover.errors import UsageError

if TYPE_CHECKING:
    from mongover.history.record import Record

_REASON = click.option(
    "--reason", required=True, metavar="TEXT", help="Why; it stays in the revision's log."
)


@click.command("verify", cls=Command)
def verify(app: App) -> int:
    """Compare every record with its file.

    Exit code 4 when they disagree.
    """
    with app.migrator() as migrator:
        problems = migrator.verify()
    return tell_problems(app, problems, good="history and files agree")


@click.command("diff", cls=TargetCommand)
@click.argument("target", shell_complete=complete_target)
def diff(app: App, target: str) -> None:
    """Show what changed in a file since it was applied.

    A unified diff from the text in the history to the file.
    """
    with app.migrator() as migrator:
        text = migrator.diff(target)
    if app.settings.json:
        app.output.document({"target": target, "diff": text})
    app.output.verbatim(text)
    if not text:
        app.output.talk(f"{target} is what was applied")


@click.command("restore", cls=TargetCommand)
@click.argument("target", shell_complete=complete_target)
def restore(app: App, target: str) -> None:
    """Write a lost file back from its record.

    Never over another file.
    """
    with app.migrator() as migrator:
        path = migrator.restore(target)
    if app.settings.json:
        app.output.document({"path": relative(path)})
    app.output.data("wrote ", relative(path))


@click.command("repair", cls=TargetCommand)
@click.argument("target", shell_complete=complete_target)
@_REASON
def repair(app: App, target: str, reason: str) -> None:
    """Accept an edited file as it is.

    From then on the record holds the text and the checksum of the file on disk.
    """
    with app.migrator() as migrator, heard(app, migrator) as how:
        record = migrator.repair(target, reason=_told(reason), **how)
    _tell_record(app, record, f"{record.revision} is accepted as its file is now")


@click.command("resolve", cls=TargetCommand)
@click.argument("target", shell_complete=complete_target)
@click.option("--retry", "resolution", flag_value="retry", help="It can run again as it is.")
@click.option("--applied", "resolution", flag_value="applied", help="Its effect is whole.")
@click.option("--reverted", "resolution", flag_value="reverted", help="Nothing of it is left.")
@_REASON
def resolve(app: App, target: str, resolution: str | None, reason: str) -> None:
    """Say what a stopped revision left behind.

    For a revision that failed or was interrupted half-way: look at the database first.
    """
    if resolution is None:
        raise UsageError(
            "resolve needs --retry, --applied or --reverted",
            hint=f'mongover show {target}, then: mongover resolve {target} --retry --reason "…"',
        )
    from mongover.history.changes import Resolution

    with app.migrator() as migrator:
        said = Resolution(resolution)
        with heard(app, migrator) as how:
            record = migrator.resolve(target, said, reason=_told(reason), **how)
    words = {"retry": "will run again", "applied": "is applied", "reverted": "is reverted"}
    _tell_record(app, record, f"{record.revision} {words[resolution]}")


@click.command("stamp", cls=TargetCommand)
@click.argument("target", shell_complete=complete_target)
@click.option("--reason", default="", metavar="TEXT", help="Why; it stays in the log.")
def stamp(app: App, target: str, reason: str) -> None:
    """Record revisions as applied without running them.

    TARGET and all below it count as applied from then on; base, or users@base, takes the records
    back. Nothing else in the database changes.
    """
    with app.migrator() as migrator, heard(app, migrator) as how:
        changed = migrator.stamp(target, reason=reason, **how)
    if app.settings.json:
        app.output.document({"target": target, "stamped": changed})
    if not changed:
        app.output.result(f"nothing to stamp: the history is at {target} already")
        return
    app.output.result(
        Paint("✓", "green"), f" {count(len(changed), 'record')} stamped: ", ", ".join(changed)
    )


def _told(reason: str) -> str:
    if not reason.strip():
        raise UsageError("--reason is empty", hint='say why: --reason "…"')
    return reason


def _tell_record(app: App, record: Record, sentence: str) -> None:
    if app.settings.json:
        app.output.document({"record": record.to_json()})
    app.output.result(Paint("✓", "green"), " ", sentence)
    app.output.hint("mongover status")
