"""The embedded server keeps to its own folder, whatever else runs on the machine."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from mongover.database.embedded import open_embedded

_UNIX = re.compile(r"^\S+: (?:\S+ ){5}\s*(\d+) (\S.*)$")


def sockets_of(pid: int) -> list[str]:
    """The paths of the unix sockets that a process has bound."""
    links = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    rows = map(_UNIX.match, Path("/proc/net/unix").read_text().splitlines())
    return [row[2] for row in rows if row and f"socket:[{row[1]}]" in links]


def test_it_binds_the_socket_in_its_folder_and_no_other(tmp_path: Path) -> None:
    with open_embedded(tmp_path / "db", environ=os.environ) as server:
        assert set(sockets_of(server.pid)) == {"./mongod.sock"}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o577])
def test_every_folder_that_it_makes_is_its_owners_alone_whatever_the_umask(
    tmp_path: Path, umask: int
) -> None:
    folder = tmp_path / ".mongover" / "dev" / "db"
    before = os.umask(umask)
    try:
        with open_embedded(folder, environ=os.environ):
            modes = [stat.S_IMODE(each.stat().st_mode) for each in (folder, *folder.parents[:2])]
    finally:
        os.umask(before)
    assert modes == [0o700] * 3


def test_the_rights_of_a_folder_that_was_there_are_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    with open_embedded(data / "db", environ=os.environ):
        pass
    assert stat.S_IMODE(data.stat().st_mode) == 0o755
