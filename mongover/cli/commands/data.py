"""The commands around documents: try a revision on a sample, what was kept aside, backups."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from mongover.cli.command import App, Command, TargetCommand
from mongover.cli.commands.run import heard
from mongover.cli.screen.output import Paint
from mongover.cli.screen.text import count, moment, number, shorten, table
from mongover.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mongover.cli.screen.output import Output
    from mongover.migrator import Migrator

_VALUE = 60
_MOST = click.IntRange(min=1)
_LISTED = 50


@click.command("try", cls=TargetCommand)
@click.argument("target")
@click.option(
    "--sample", type=_MOST, default=10, metavar="N", show_default=True, help="So many documents."
)
def try_(app: App, target: str, sample: int) -> int:
    """Show what a revision would do to a sample of documents.

    Nothing is written. Transforms and updates by a pipeline are shown before and after; other
    operations are named. Exit code 1 when a document of the sample cannot be transformed.
    """
    with app.migrator() as migrator:
        tried = migrator.try_revision(target, sample=sample)
    failed = any(one.error for each in tried for one in each.differences)
    if app.settings.json:
        app.output.document({"target": target, "operations": [each.to_json() for each in tried]})
        return int(failed)
    for each in tried:
        _show_tried(app.output, each)
    app.output.talk("nothing was written")
    return int(failed)


def _show_tried(output: Output, tried: Any) -> None:
    if tried.looked is None:
        output.data(Paint("·", "dim"), f" {tried.operation}")
        return
    note = f"{len(tried.differences):,} of {count(tried.looked, 'document')} would change"
    output.data(Paint("↻", "cyan"), f" {tried.operation}: {note}")
    for one in tried.differences:
        output.data(f"  _id {_text(one.document)}", *_verdict(one))
        for path, (before, after) in one.changes.items():
            output.data(f"    {path}: {_text(before)} → {_text(after)}")


def _verdict(one: Any) -> tuple[str | Paint, ...]:
    if one.error:
        return ("  ", Paint("✗", "red"), f" {one.error}")
    return ("  ", Paint("deleted", "red")) if one.deleted else ()


def _text(value: Any) -> str:
    from mongover.operations.arguments import plain

    if value is None:
        return "-"
    return shorten(json.dumps(plain(value), ensure_ascii=False), _VALUE)


@click.command("rejects", cls=TargetCommand)
@click.argument("target", required=False)
@click.option("--retry", is_flag=True, help="Transform them again, with the file as it is now.")
@click.option("--limit", type=_MOST, metavar="N", help="Only the oldest N (50 on a screen).")
def rejects(app: App, target: str | None, retry: bool, limit: int | None) -> int:  # noqa: FBT001 - a flag of the command line
    """Show the documents that could not be transformed.

    Those of one revision with TARGET. They are named by their _id, with the kind of the error.
    Exit code 1 when --retry leaves some.
    """
    if retry and target is None:
        raise UsageError("--retry needs a revision", hint="mongover rejects 0007 --retry")
    with app.migrator() as migrator:
        if retry and target is not None:
            return _retry(app, migrator, target)
        most = limit or (0 if app.settings.json else _LISTED)
        found = migrator.rejects(target, limit=most)
    if app.settings.json:
        app.output.document({"rejects": [one.to_json() for one in found]})
        return 0
    _show_rejects(app.output, found, most)
    return 0


def _retry(app: App, migrator: Migrator, target: str) -> int:
    with heard(app, migrator) as how:
        result = migrator.retry_rejects(target, **how)
    if app.settings.json:
        app.output.document({"target": target, "done": result.done, "left": result.left})
    mark = Paint("✗", "red") if result.left else Paint("✓", "green")
    said = f" {count(result.done, 'document')} transformed, {result.left:,} left"
    app.output.result(mark, said)
    return int(result.left > 0)


def _show_rejects(output: Output, found: Sequence[Any], most: int) -> None:
    rows = [
        [one.revision, one.collection, _text(one.document), one.message, moment(one.at)]
        for one in found
    ]
    for line in table(rows):
        output.data(line)
    if not rows:
        output.talk("no document was kept aside")
        return
    if len(rows) == most:
        output.talk(f"these are the oldest {most}; --limit shows more")
    output.hint(f"mend the function, then: mongover rejects {rows[0][0]} --retry")


@click.command("backups", cls=Command)
@click.option("--drop", "name", metavar="NAME", help="Drop this one; its values are gone then.")
def backups(app: App, name: str | None) -> None:
    """Show what revisions kept of what they removed.

    A backup is used by the downgrade of its revision.
    """
    with app.migrator() as migrator:
        if name is not None:
            dropped = migrator.drop_backup(name)
            if app.settings.json:
                app.output.document({"dropped": dropped.to_json()})
            app.output.result(Paint("✓", "green"), f" {dropped.name} dropped")
            return
        found = migrator.backups()
    if app.settings.json:
        app.output.document({"backups": [one.to_json() for one in found]})
        return
    rows = [
        [
            one.name,
            one.revision,
            one.collection,
            number(one.documents),
            f"{one.bytes / 1e6:,.1f} MB",
        ]
        for one in found
    ]
    for line in table(rows, right=(3, 4)):
        app.output.data(line)
    if not rows:
        app.output.talk("there is no backup")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
