"""The group of commands, loaded one at a time, and the boundary where errors become exit codes.

Nothing here imports the driver, the configuration or a module of commands before a command of it
runs: `mongover --help` prints the table below and is done.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from mongover import errors
from mongover.cli.command import Root, bug_of, write_options
from mongover.cli.options import Settings, guess_settings, shared_options, take_settings
from mongover.cli.screen.output import Output
from mongover.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mongover.cli.command import Opener

# Section by section: the command, the module that holds it, and its line of help, which is the
# first line of its docstring (a test compares them).
SECTIONS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "Start": {
        "init": ("files", "Make a project in this folder."),
        "mongod": ("server", "Run the embedded server in the foreground."),
        "doctor": ("server", "Look for what would stop a run."),
        "completion": ("shell", "Print the completion script of a shell."),
    },
    "Write revisions": {
        "revision": ("files", "Write a new revision file."),
        "edit": ("files", "Open a revision file in the editor."),
        "merge": ("files", "Join the two heads of a schema."),
        "rebase": ("files", "Put a pending revision on top of its schema."),
        "check": ("files", "Check the revision files, without a server."),
    },
    "Run them": {
        "try": ("data", "Show what a revision would do to a sample of documents."),
        "plan": ("run", "Show what a run would do."),
        "upgrade": ("run", "Apply pending revisions."),
        "downgrade": ("run", "Revert applied revisions."),
        "serve": ("serve", "Serve the HTTP API."),
    },
    "Look": {
        "status": ("read", "Show each schema and what is pending."),
        "current": ("read", "Show the applied head of each schema."),
        "heads": ("read", "Show the newest file of each schema."),
        "history": ("read", "Show what was applied, newest first."),
        "show": ("read", "Show one revision and its record."),
        "lock": ("server", "Show who holds the lock."),
    },
    "Mend": {
        "verify": ("repair", "Compare every record with its file."),
        "diff": ("repair", "Show what changed in a file since it was applied."),
        "restore": ("repair", "Write a lost file back from its record."),
        "repair": ("repair", "Accept an edited file as it is."),
        "resolve": ("repair", "Say what a stopped revision left behind."),
        "stamp": ("repair", "Record revisions as applied without running them."),
        "rejects": ("data", "Show the documents that could not be transformed."),
        "backups": ("data", "Show what revisions kept of what they removed."),
        "unlock": ("server", "End the lock of another process."),
    },
}
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    name: entry for section in SECTIONS.values() for name, entry in section.items()
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None for an unknown name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"mongover.cli.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, _attribute(cmd_name))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the table's names to suggest from."""
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=list(COMMANDS), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sections of the table."""
        del ctx
        width = max(map(len, COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                rows = [(name.ljust(width), text) for name, (_, text) in section.items()]
                formatter.write_dl(rows)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands first, then the options, which go before or after a command."""
        self.format_commands(ctx, formatter)
        write_options(self, ctx, formatter)

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> NoReturn:
        """Run a command line and leave with its exit code."""
        sys.exit(run(sys.argv[1:] if args is None else args, opener=extra.get("obj")))

    def parse(self, args: Sequence[str], opener: Opener | None) -> Any:
        """What the command returns; click's exceptions pass."""
        return super().main(list(args), "mongover", standalone_mode=False, obj=opener)


def _attribute(command: str) -> str:
    """The name of a command's function: a keyword of Python gets an underscore."""
    return f"{command}_" if iskeyword(command) else command


def _remember(ctx: click.Context, **params: Any) -> None:
    ctx.obj = Root(take_settings(params, Settings()), ctx.obj)


cli: Final = LazyGroup(
    name="mongover",
    callback=click.pass_context(_remember),
    params=[*shared_options()],
    help="Versioned migrations for MongoDB: numbered revisions, a record of every run.",
    epilog="`mongover COMMAND --help` says more. The options may stand after the command too.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
click.version_option(__version__, prog_name="mongover", message="%(prog)s %(version)s")(cli)


def run(
    args: Sequence[str], *, opener: Opener | None = None, environ: Mapping[str, str] = os.environ
) -> int:
    """Run one command line; its exit code. Every error ends here, said once."""
    output = Output(guess_settings(list(args), environ), environ)
    try:
        result = cli.parse(args, opener)
    except errors.MongoverError as error:
        return output.report(error)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return output.report(_usage(error))
    except (click.Abort, KeyboardInterrupt):
        return output.report(errors.Interrupted("interrupted"))
    except Exception as error:  # noqa: BLE001 - the one boundary: a bug is said in one line too
        return output.report(bug_of(error))
    return result if isinstance(result, int) else 0


def _usage(error: click.ClickException) -> errors.MongoverError:
    message = " ".join(error.format_message().split()).rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = "mongover" if context is None else context.command_path
    return errors.UsageError(message, hint=f"{command} --help")
