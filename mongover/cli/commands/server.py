"""The commands about the server: its lock, its health, and the embedded one."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from mongover.cli.command import App, Command
from mongover.cli.screen.output import Paint
from mongover.cli.screen.status import lock_line
from mongover.cli.screen.text import duration
from mongover.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mongover.database.embedded import EmbeddedServer
    from mongover.history.lease import LeaseState

_NOT_READY = 5
LOOK_SECONDS = 1.0


@click.command("lock", cls=Command)
def lock(app: App) -> None:
    """Show who holds the lock."""
    with app.migrator() as migrator:
        state = migrator.lock()
    if app.settings.json:
        app.output.document({"lock": None if state is None else state.to_json()})
        return
    if state is None or state.owner is None:
        app.output.data("nobody holds the lock")
    elif state.expired:
        app.output.data(expired_line(state))
        app.output.hint("nothing: the next run takes it over (or mongover unlock)")
    else:
        app.output.data(lock_line(state))
        app.output.talk(f"owner {state.owner}, fence {state.fence}")


def expired_line(state: LeaseState) -> str:
    """What is left of a holder that no longer says that it lives."""
    ago = duration(state.heartbeat_seconds)
    return f"the lock of {state.who()} has expired: last heard of {ago} ago"


@click.command("unlock", cls=Command)
@click.option("--owner", metavar="TOKEN", help="The owner, as `mongover lock` shows it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def unlock(app: App, owner: str | None, yes: bool) -> None:  # noqa: FBT001 - a flag of the command line
    """End the lock of another process.

    One that has expired is ended at once; for a live one the owner is needed, or a yes.
    """
    with app.migrator() as migrator:
        state = migrator.lock()
        if state is None or state.owner is None:
            if app.settings.json:
                app.output.document({"unlocked": False, "lock": None})
            app.output.result("nobody holds the lock")
            return
        if not state.expired and owner is None:
            _ask(app, state, yes=yes)
            owner = state.owner
        ended = migrator.unlock(owner=owner)
    if app.settings.json:
        app.output.document({"unlocked": True, "lock": ended.to_json()})
    app.output.result(Paint("✓", "green"), f" the lock of {state.who()} was ended")


def has_keyboard() -> bool:
    """Whether somebody can answer a question."""
    return sys.stdin is not None and sys.stdin.isatty()


def _ask(app: App, state: LeaseState, *, yes: bool) -> None:
    app.output.warning(lock_line(state) + "; it is working, not stuck")
    if yes:
        return
    if not has_keyboard():
        raise UsageError(
            "the lock is alive, and there is nobody to ask",
            hint=f"mongover unlock --owner {state.owner}",
            after="nothing was changed.",
        )
    question = "End it all the same? What it is doing now cannot be recorded any more."
    if not click.confirm(question, err=True):
        raise Interrupted("the lock stays", after="nothing was changed.")


@click.command("doctor", cls=Command)
def doctor(app: App) -> int:
    """Look for what would stop a run.

    Configuration, reach, version, topology, transactions, privileges and the lock; exit code 5
    when one of them is not as it must be.
    """
    with app.migrator() as migrator:
        source = migrator.config.source
        found = migrator.doctor()
    if app.settings.json:
        app.output.document({"findings": [one.to_json() for one in found]})
    app.output.data(Paint("✓", "green"), f" {'configuration':<15}", str(source or "no file"))
    for one in found:
        mark = Paint("✓", "green") if one.ok else Paint("✗", "red")
        app.output.data(mark, f" {one.name:<15}", one.detail)
        if one.hint and not one.ok:
            app.output.data(" " * 17, "→ ", one.hint)
    return 0 if all(one.ok for one in found) else _NOT_READY


@click.command("mongod", cls=Command)
def mongod(app: App) -> int:
    """Run the embedded server in the foreground.

    Prints its URL; Ctrl-C stops it, once no other command uses it. The commands beside it attach
    to it at once.
    """
    from mongover.database.embedded import open_embedded, parse_embedded

    with app.migrator(needs_database=False) as migrator:
        if migrator.config.unready is not None:
            raise migrator.config.unready
        url = migrator.config.url.reveal()
        folder = parse_embedded(url)
        if folder is None:
            raise UsageError(
                f"the configured server is not an embedded one: {migrator.config.safe_url}",
                hint="mongover mongod --url embedded:.mongover/db",
            )
    app.output.talk(f"starting the embedded server on {folder} …")
    with (
        _end_of_signals() as ended,
        open_embedded(folder, environ=app.environ) as server,
    ):
        _tell_server(app, server)
        code = _watch(app, server, ended)
    app.output.talk("stopped; the data stays")
    return code


@contextmanager
def _end_of_signals() -> Iterator[threading.Event]:
    """An event that is set by Ctrl-C and by SIGTERM, for as long as the block lasts."""
    ended = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: ended.set()) for number in signals]
    try:
        yield ended
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _tell_server(app: App, server: EmbeddedServer) -> None:
    if app.settings.json:
        app.output.document(
            {"url": server.url, "pid": server.pid, "started": server.started,
             "folder": server.folder}
        )  # fmt: skip
    app.output.data(server.url)
    word = "running" if server.started else "it ran already; attached"
    app.output.talk(f"{word}, pid {server.pid}. Ctrl-C stops it.")


def _watch(app: App, server: EmbeddedServer, ended: threading.Event) -> int:
    from mongover.database.embedded import is_alive

    while not ended.wait(LOOK_SECONDS):
        if not is_alive(server):
            app.output.warning(f"the server on {server.folder} ended by itself")
            return _NOT_READY
    return 0
