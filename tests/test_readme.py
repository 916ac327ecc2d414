"""The two commands of the README, run to the letter in a clone without anything of ours around."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.pages import ROOT, blocks_of

if TYPE_CHECKING:
    from pathlib import Path

LEFT_OUT = shutil.ignore_patterns(
    *(".git", ".venv*", ".mongover", "__pycache__", ".*_cache", ".hypothesis", ".coverage*")
)


def _shell_commands() -> list[str]:
    text = (ROOT / "README.md").read_text()
    return [block.text.strip() for block in blocks_of(text) if block.language == "sh"]


def _run(command: str, clone: Path) -> str:
    """Run it as someone would who has just cloned: with the system's Python 3.11 or newer."""
    tools = clone.parent / "bin"
    tools.mkdir(exist_ok=True)
    if not (tools / "python3").exists():
        (tools / "python3").symlink_to(os.path.realpath(sys.executable))
    kept = ("HOME", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "http_proxy", "https_proxy", "no_proxy")
    names = [name for name in os.environ if name in kept or name.startswith("PIP_")]
    environ = {name: os.environ[name] for name in names}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=clone,
        env=environ | {"PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.deep
@pytest.mark.timeout(900)
def test_each_of_the_two_commands_makes_the_environment_and_does_what_it_is_for(
    tmp_path: Path,
) -> None:
    """One after the other in one clone, as readers do: what the first installed, the second has."""
    clone = tmp_path / "mongover"
    shutil.copytree(ROOT, clone, ignore=LEFT_OUT)
    first, second = _shell_commands()[:2]
    shown = _run(first, clone)
    indexes = {"users": 5, "assistants": 6, "clients": 4, "schedules": 9, "calls": 12}
    for number, (schema, count) in enumerate(indexes.items(), 1):
        assert re.search(
            rf"{schema} +000{number} +000{number} +- +{schema} +0 +{count}$", shown, re.MULTILINE
        )
    assert "5 applied, 0 pending, 0 problems." in shown
    assert second == "tests/run"
    assert "3 passed" in _run(f"{second} -q tests/test_readme.py -k parts", clone)


def test_the_checks_call_the_command_of_the_readme() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines[-1].startswith(_shell_commands()[1])


@pytest.mark.parametrize("part", ["README.md", "versions", "alembic-style.ini"])
def test_the_parts_of_a_clone_are_there(part: str) -> None:
    assert (ROOT / part).exists()
