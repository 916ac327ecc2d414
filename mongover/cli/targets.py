"""What the shell offers where a target is typed: revisions, schemas and the words for both ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from mongover.errors import MongoverError

if TYPE_CHECKING:
    import click


def complete_target(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The targets that begin with what was typed; read from the files, without a server."""
    del param
    config = ctx.params.get("config") or ctx.find_root().params.get("config")
    try:
        targets = known_targets(config)
    except MongoverError:  # a broken project offers nothing; a command will say what is wrong
        return []
    return [
        CompletionItem(target, help=text)
        for target, text in targets.items()
        if target.startswith(incomplete)
    ]


def known_targets(config: str | None) -> dict[str, str]:
    """Every target without arithmetic, with a word about it."""
    from mongover.config.load import load_config
    from mongover.revisions.folder import read_revisions

    path = None if config is None else Path(config)
    found = load_config(
        path, overrides={}, environ=os.environ, cwd=Path.cwd(), needs_database=False
    )
    revisions = read_revisions(found.versions).revisions.values()
    schemas = dict.fromkeys(one.schema for one in revisions if one.schema)
    return {
        "head": "all schemas",
        "base": "nothing applied",
        **dict.fromkeys(schemas, "a schema"),
        **{one.id: one.message for one in revisions},
    }
