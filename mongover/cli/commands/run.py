"""The commands that run revisions, or say what a run would do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from mongover.cli.command import App, TargetCommand
from mongover.cli.options import ConfigOption, Seconds
from mongover.cli.screen.output import Paint
from mongover.cli.screen.progress import LineListener, RunScreen
from mongover.cli.screen.text import count, duration, schema_name, table
from mongover.cli.signals import stopping
from mongover.cli.targets import complete_target
from mongover.errors import MongoverError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mongover.migrator import Migrator, RunResult
    from mongover.planning.plan import Plan
    from mongover.running.rejects import RetriedRevision

_SECONDS = Seconds(min=0)
_DOWNGRADE_HINT = """\
mongover downgrade -1          the revision that was applied last
mongover downgrade users@-1    the last one of a schema
mongover downgrade 0004        all above 0004, which stays
mongover downgrade base        all"""


def _run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that upgrade and downgrade share."""
    options = [
        click.option("--plan", "only_plan", is_flag=True, help="Show what would run, run nothing."),
        click.option(
            "--lock-wait",
            type=_SECONDS,
            metavar="SECONDS",
            help="Wait for the lock at most so long.",
            cls=ConfigOption,
            envvar="MONGOVER_LOCK_WAIT",
            show_envvar=True,
        ),
        click.option(
            "--lease",
            type=Seconds(min=0, min_open=True),
            metavar="SECONDS",
            help="Let others take over so long after a crash.",
            cls=ConfigOption,
            envvar="MONGOVER_LEASE",
            show_envvar=True,
        ),
        click.option(
            "--wait",
            type=_SECONDS,
            metavar="SECONDS",
            help="Wait for a server that is still starting, at most so long.",
            cls=ConfigOption,
            envvar="MONGOVER_WAIT",
            show_envvar=True,
        ),
        click.option(
            "--json-lines", is_flag=True, help="Every event as a JSON line, the result last."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command("upgrade", cls=TargetCommand)
@click.argument("target", shell_complete=complete_target, default="head")
@click.option("--retry", is_flag=True, help="Run the one blocked revision again.")
@click.option(
    "--retry-rejects",
    is_flag=True,
    help="First transform the documents again that were kept aside.",
)
@_run_options
def upgrade(  # noqa: PLR0917 - click calls it by keyword
    app: App,
    target: str,
    retry: bool,  # noqa: FBT001 - a flag of the command line
    retry_rejects: bool,  # noqa: FBT001 - the same
    only_plan: bool,  # noqa: FBT001 - the same
    lock_wait: float | None,
    lease: float | None,
    wait: float | None,
    json_lines: bool,  # noqa: FBT001 - the same
) -> None:
    """Apply pending revisions.

    TARGET is head (the default), a schema (users), a revision (0004, users@0004) or a number of
    steps (+2, users@+1).
    """
    if only_plan and retry_rejects:
        raise UsageError(
            "--plan shows revisions, and cannot show what --retry-rejects would do",
            hint="mongover rejects lists the documents",
            after="nothing was run.",
        )
    with app.migrator(lock_wait=lock_wait, lease=lease, wait=wait) as migrator:
        if only_plan:
            _show_plan(app, migrator.plan(_direction("up"), target))
            return
        _run(
            app,
            migrator,
            lambda **how: migrator.upgrade(target, retry=retry, retry_rejects=retry_rejects, **how),
            json_lines=json_lines,
        )


@click.command("downgrade", cls=TargetCommand)
@click.argument("target", shell_complete=complete_target, required=False)
@click.option(
    "--allow-data-loss",
    multiple=True,
    metavar="COLLECTION",
    help="Destroy it even though no revision made it; may be repeated.",
)
@_run_options
def downgrade(  # noqa: PLR0917 - click calls it by keyword
    app: App,
    target: str | None,
    allow_data_loss: tuple[str, ...],
    only_plan: bool,  # noqa: FBT001 - a flag of the command line
    lock_wait: float | None,
    lease: float | None,
    wait: float | None,
    json_lines: bool,  # noqa: FBT001 - the same
) -> None:
    """Revert applied revisions.

    TARGET is a number of steps (-1, users@-1), the revision that shall stay (0004), base, or
    users@base. What depends on a reverted revision is reverted first. What no revision made (a
    collection with documents, an index, a field) is destroyed only where --allow-data-loss names
    its collection, or COLLECTION.INDEX or COLLECTION.FIELD.
    """
    if target is None:
        raise UsageError("downgrade needs a target", hint=_DOWNGRADE_HINT, after="nothing was run.")
    with app.migrator(lock_wait=lock_wait, lease=lease, wait=wait) as migrator:
        if only_plan:
            down = _direction("down")
            _show_plan(app, migrator.plan(down, target, allow_data_loss=allow_data_loss))
            return
        _run(
            app,
            migrator,
            lambda **how: migrator.downgrade(target, allow_data_loss=allow_data_loss, **how),
            json_lines=json_lines,
        )


@click.command("plan", cls=TargetCommand)
@click.argument("target", shell_complete=complete_target, required=False)
@click.option("--down", is_flag=True, help="The plan of a downgrade.")
def plan(app: App, target: str | None, down: bool) -> None:  # noqa: FBT001 - a flag of the command line
    """Show what a run would do.

    Nothing is run: no revision's code is imported, nothing is written, no lock is taken. TARGET is
    that of upgrade (head without one), or with --down that of downgrade.
    """
    down = down or (target is not None and _goes_down(target))
    if down and target is None:
        raise UsageError("plan --down needs a target", hint="mongover plan --down -1")
    with app.migrator() as migrator:
        _show_plan(app, migrator.plan(_direction("down" if down else "up"), target or "head"))


def _goes_down(target: str) -> bool:
    """Whether a target can only be one of a downgrade: `-1`, `users@-1`, `base`, `users@base`."""
    step = target.rpartition("@")[2]
    return step == "base" or (step.startswith("-") and step[1:].isdigit())


def _direction(name: str) -> Any:
    from mongover.history.record import Direction

    return Direction(name)


@contextmanager
def heard(app: App, migrator: Migrator) -> Iterator[dict[str, Any]]:
    """The listener and the stop of a command that waits for the lock, as keyword arguments."""
    from mongover.running.stop import Stop

    stop, screen = Stop(), _screen(app, migrator)
    try:
        with stopping(stop, lambda: screen.stage):
            yield {"listener": screen, "stop": stop}
    finally:
        screen.close()


def _run(app: App, migrator: Migrator, act: Callable[..., RunResult], *, json_lines: bool) -> None:
    from mongover.running.stop import Stop

    stop = Stop()
    listener = LineListener(app.output) if json_lines else _screen(app, migrator)
    try:
        with stopping(stop, lambda: listener.stage):
            result = act(listener=listener, stop=stop)
    except MongoverError as error:
        if json_lines and not app.settings.json:
            app.output.document({"event": "error", "error": error.to_dict()}, indent=None)
        raise
    finally:
        listener.close()
    if json_lines:
        app.output.document({"event": "result", **result.to_json()}, indent=None)
    elif app.settings.json:
        app.output.document(result.to_json())
    if not json_lines:
        _tell_result(app, result)


def _screen(app: App, migrator: Migrator) -> RunScreen:
    return RunScreen(app.output, database=migrator.config.database)


def _tell_result(app: App, result: RunResult) -> None:
    for warning in result.warnings:
        app.output.warning(warning)
    if result.rejects is not None:
        app.output.result(*rejects_sentence(result.rejects))
    if not result.revisions:
        app.output.result(result.message)
        return
    app.output.result(Paint("✓", "green"), " ", result_sentence(result))
    if result.direction == "up":
        app.output.talk(f"undo: mongover downgrade -{len(result.revisions)}")


def result_sentence(result: RunResult) -> str:
    """What was done, in how long, and where each schema stands now."""
    word = "applied" if result.direction == "up" else "reverted"
    heads = [
        f"{schema_name(schema)} {' '.join(ids) or 'base'}" for schema, ids in result.heads.items()
    ]
    told = f" {', '.join(heads)}." if heads else ""
    done = count(len(result.revisions), "revision")
    return f"{done} {word} in {duration(result.seconds)}.{told}"


def rejects_sentence(tried: Sequence[RetriedRevision]) -> tuple[str | Paint, ...]:
    """How many of the documents that were kept aside are transformed now, and how many are not."""
    if not tried:
        return ("no rejected document to transform",)
    done, left = sum(one.done for one in tried), sum(one.left for one in tried)
    mark = Paint("✗", "red") if left else Paint("✓", "green")
    return (mark, f" {count(done, 'rejected document')} transformed, {left:,} left")


def _show_losses(app: App, planned: Plan) -> None:
    for each in planned.destroys:
        mark = Paint("✗", "red") if each.refused else "-"
        app.output.data("  ", mark, " ", each.sentence())
    for unforeseen in planned.unforeseen:
        app.output.warning(f"what this destroys cannot be foreseen: {unforeseen}")


def _show_plan(app: App, planned: Plan) -> None:
    app.output.document(planned.to_json()) if app.settings.json else None
    rows = [
        [
            "  apply" if step.direction == "up" else "  revert",
            step.revision.id,
            schema_name(step.revision.schema),
            step.revision.message,
            "in one transaction" if step.revision.transaction else "",
        ]
        for step in planned.steps
    ]
    for line in table(rows):
        app.output.data(line)
    _show_losses(app, planned)
    for notice in planned.notices:
        app.output.warning(str(notice))
    if not planned.steps:
        app.output.data(planned.nothing)
        return
    app.output.talk(f"{count(len(planned.steps), 'revision')} would run. Nothing was run.")
    verb = "upgrade" if planned.direction == "up" else "downgrade"
    app.output.hint(f"mongover {verb} {planned.target}".removesuffix(" head"))
