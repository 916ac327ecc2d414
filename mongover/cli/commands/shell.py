"""The completion scripts of the shells."""

from __future__ import annotations

import click

from mongover.cli.command import App, Command

_PLACES = {
    "bash": 'eval "$(mongover completion bash)"     # in ~/.bashrc',
    "zsh": 'eval "$(mongover completion zsh)"      # in ~/.zshrc',
    "fish": "mongover completion fish > ~/.config/fish/completions/mongover.fish",
}


@click.command("completion", cls=Command)
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(list(_PLACES)))
@click.pass_context
def completion(ctx: click.Context, app: App, shell: str) -> None:
    """Print the completion script of a shell.

    For example: eval "$(mongover completion bash)"
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    root = ctx.find_root().command
    script = "" if kind is None else kind(root, {}, "mongover", "_MONGOVER_COMPLETE").source()
    if app.settings.json:
        app.output.document({"shell": shell, "script": script})
    app.output.verbatim(script)
    app.output.detail(_PLACES[shell])
