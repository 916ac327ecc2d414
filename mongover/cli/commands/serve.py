"""The command that serves the API."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from mongover.cli.command import App, Command
from mongover.errors import UsageError

_PORTS = click.IntRange(0, 65_535)


@click.command("serve", cls=Command)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS")
@click.option("--port", default=8000, show_default=True, type=_PORTS, metavar="PORT")
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="A further name that the Host header may hold, such as that of a proxy in front.",
)
def serve(app: App, host: str, port: int, allow_host: tuple[str, ...]) -> int:
    """Serve the HTTP API.

    Reads, writes and health stand below /migrations. Writes need the token in MONGOVER_API_TOKEN;
    without it the server only reads and listens on loopback only. Reads need a token once
    MONGOVER_API_READ_TOKEN is set. Ctrl-C lets a run at work end at its next safe point.
    """
    run = _server()
    with app.migrator() as migrator:
        app.output.talk("Ctrl-C stops the server.")
        code: int = run(migrator, host=host, port=port, hosts=allow_host, environ=app.environ)
    return code


def _server() -> Any:
    """The server, found by its name: it is an extra, and not a part of the command line."""
    try:
        return import_module("mongover.web.app").serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mongover"):
            raise
        raise UsageError(
            f"the server needs {error.name}, which is not installed",
            hint="pip install 'mongover[web]'",
        ) from error
