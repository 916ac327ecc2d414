"""Random sequences of runs, crashes and broken connections: the truth holds after every one."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from mongover.testing.crash import NotKilled, When, run, run_and_disconnect, run_and_kill
from tests.support.crashing import (
    check_end,
    check_lease,
    check_truth,
    project_on,
    settle,
    write_project,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mongover.testing.crash import Project, Run
    from tests.support.servers import Server

    NewName = Callable[[Server], str]

FULL = bool(os.environ.get("MONGOVER_FULL_CRASH"))
SEEDS = range(40 if FULL else 1)
STEPS = 6
COMMANDS = (["upgrade"], ["upgrade", "+2"], ["downgrade", "-1"], ["downgrade", "base"])


def act(project: Project, chance: random.Random) -> tuple[list[str], Run, bool]:
    """One random act: the command, how it ended, and whether violence was done to it."""
    command = chance.choice(COMMANDS)
    kind = chance.choice(["run", "kill", "kill", "kill", "break"])
    at, when = chance.randint(1, 20), chance.choice(list(When))
    if kind == "run":
        return command, run(project, command), False
    if kind == "break":
        broken = run_and_disconnect(project, command, at=at, when=when, times=2)
        return command, broken.run, bool(broken.hits)
    try:
        return command, run_and_kill(project, command, at=at, when=when).run, True
    except NotKilled:  # the command had less to do than that
        return command, run(project, command), False


@pytest.mark.deep
@pytest.mark.parametrize("seed", SEEDS)
def test_the_truth_holds_after_any_sequence_of_accidents(
    any_server: Server, tmp_path: Path, mongo_database: NewName, seed: int
) -> None:
    write_project(tmp_path, transactions=any_server.has_transactions)
    project = project_on(any_server, tmp_path, mongo_database(any_server), lease=1.0)
    chance = random.Random(seed)
    run_and_kill(project, ["upgrade"], at=chance.randint(1, 10))
    for _ in range(STEPS):
        command, ended, hurt = act(project, chance)
        assert not ended.broke, f"{command}: {ended.text}"
        assert hurt or ended.exit_code in {0, 2, 4}, f"{command}: {ended.text}"
        check_truth(project)
        check_lease(project)
        status = run(project, ["status"])
        assert status.exit_code == 0, status.text
    settle(project, ["upgrade"], run(project, ["upgrade"]))
    check_end(project, applied=True)
