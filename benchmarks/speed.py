"""Measure mongover against floors in one run, and print a table of ratios.

    python benchmarks/speed.py            # all of it, about two minutes
    python benchmarks/speed.py --quick    # fewer repeats and revisions, half a minute

Every figure stands beside the floor that was measured in the same run, alternating with it, on
servers that this script starts (the real mongod of the `embedded` extra). CPU time is that of the
client process alone. Byte code is compiled first: without it (`PYTHONDONTWRITEBYTECODE`, as in many
images) `status` costs half as much again.
"""

from __future__ import annotations

import argparse
import compileall
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient, UpdateOne
from pymongo.write_concern import WriteConcern

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mongover.migrator import Migrator  # noqa: E402 - the checkout beside this script is measured
from tests.support.servers import run_replica_set, run_standalone  # noqa: E402 - as above

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BARE_CLICK = """
import click
@click.group()
def main(): "Versioned migrations."
for name in {names!r}:
    main.command(name, help="Do it.")(lambda: None)
main()
"""
PLAIN_PYMONGO = """
import os, sys, click
@click.command()
@click.option("--url")
def main(url):
    from pymongo import MongoClient
    for document in MongoClient(url)["shop"]["_migrations"].find({}, {"source": 0, "log": 0}):
        print(document["_id"], document["state"])
    sys.stdout.flush()
    os._exit(0)
main()
"""
REVISION = '''"""empty {number}

Revision ID: {id}
Revises: {parent}
"""

from mongover import Operations

revision = "{id}"
down_revision = {literal}
schema = "many"


def upgrade(op: Operations) -> None:
    pass


def downgrade(op: Operations) -> None:
    pass
'''


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure, its floor, and the ratio that is aimed at."""

    name: str
    unit: str
    ours: float
    floor: float
    goal: float

    def __str__(self) -> str:
        ratio = self.ours / self.floor
        verdict = "ok" if ratio <= self.goal else "MISSED"
        return (
            f"{self.name:<58}{self.ours:>9.2f}{self.floor:>9.2f} {self.unit:<9}"
            f"{ratio:>6.2f} <= {self.goal:<5} {verdict}"
        )


def cpu_and_wall(command: Sequence[str], env: dict[str, str], cwd: Path) -> tuple[float, float]:
    """Milliseconds of CPU and of wall time of one child process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=env, cwd=cwd, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used * 1_000, wall * 1_000


def alternate(
    ours: Sequence[str], floor: Sequence[str], env: dict[str, str], cwd: Path, repeats: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Median CPU and wall time of two commands that take turns."""
    runs = [(cpu_and_wall(ours, env, cwd), cpu_and_wall(floor, env, cwd)) for _ in range(repeats)]

    def median(which: int, kind: int) -> float:
        return statistics.median(run[which][kind] for run in runs)

    return (median(0, 0), median(0, 1)), (median(1, 0), median(1, 1))


def write_project(folder: Path, count: int) -> None:
    """A project of one line of empty revisions."""
    versions = folder / "versions"
    versions.mkdir(parents=True)
    for number in range(1, count + 1):
        parent = f"{number - 1:04}" if number > 1 else ""
        text = REVISION.format(
            number=number,
            id=f"{number:04}",
            parent=parent,
            literal=f'"{parent}"' if parent else None,
        )
        (versions / f"{number:04}_empty.py").write_text(text, encoding="utf-8")
    (folder / "alembic-style.ini").write_text("[mongover]\ndatabase = shop\n", encoding="utf-8")


def start_rows(url: str, folder: Path, repeats: int) -> Iterator[Row]:
    """What a process costs: --help, status, a no-op upgrade."""
    python, env = sys.executable, os.environ | {"MONGOVER_URL": url, "PYTHONPATH": str(ROOT)}
    names = [f"command{number}" for number in range(24)]
    bare = [python, "-c", BARE_CLICK.format(names=names), "--help"]
    tool = [python, "-m", "mongover"]
    subprocess.run([*tool, "-q", "upgrade"], env=env, cwd=folder, check=True)
    ours, floor = alternate([*tool, "--help"], bare, env, folder, repeats)
    yield Row("--help, CPU, against bare click", "ms", ours[0], floor[0], 1.5)
    plain = [python, "-c", PLAIN_PYMONGO, "--url", url]
    for command in ("status", "upgrade"):
        ours, floor = alternate([*tool, command], plain, env, folder, repeats)
        name = "no-op upgrade" if command == "upgrade" else command
        yield Row(f"{name}, CPU, against plain pymongo", "ms", ours[0], floor[0], 1.5)
        yield Row(f"{name}, wall, against plain pymongo", "ms", ours[1], floor[1], 1.5)


def empty_row(kind: str, url: str, folder: Path, count: int) -> Row:
    """The wall time of one empty revision against one journaled majority write of its record."""
    client: MongoClient[dict[str, object]] = MongoClient(url)
    floor_before = journaled_write(client, count // 2)
    with Migrator.from_config(cwd=folder, url=url) as migrator:
        started = time.perf_counter()
        result = migrator.upgrade()
        each = (time.perf_counter() - started) / count * 1_000
    assert len(result.revisions) == count
    floor = (floor_before + journaled_write(client, count // 2)) / 2
    client.close()
    name = f"empty revision of {count}, {kind}, against one journaled write"
    return Row(name, "ms wall", each, floor, 1.3)


def journaled_write(client: MongoClient[dict[str, object]], count: int) -> float:
    """Milliseconds of one bulk write with majority and journal of a document like a record."""
    concern = WriteConcern("majority", j=True)
    collection = client["floor"].get_collection("_records", write_concern=concern)
    source = REVISION.format(number=1, id="0001", parent="", literal=None)
    started = time.perf_counter()
    for number in range(count):
        document = {"state": "applied", "source": source, "log": [{"action": "apply"}]}
        update = [{"$set": document | {"at": "$$NOW"}}]
        collection.bulk_write([UpdateOne({"_id": f"{number:04}"}, update, upsert=True)])
    taken = (time.perf_counter() - started) / count * 1_000
    client.drop_database("floor")
    return taken


def status_row(url: str, few: Path, many: Path, counts: tuple[int, int], repeats: int) -> Row:
    """CPU per revision file of `status`, from two sizes: half as many and all of them."""
    python, env = sys.executable, os.environ | {"PYTHONPATH": str(ROOT)}
    used = []
    for folder, count in zip((few, many), counts, strict=True):
        env["MONGOVER_URL"], env["MONGOVER_DATABASE"] = url, f"many{count}"
        tool = [python, "-m", "mongover"]
        subprocess.run([*tool, "-q", "upgrade"], env=env, cwd=folder, check=True)
        runs = [cpu_and_wall([*tool, "status"], env, folder)[0] for _ in range(repeats)]
        used.append(statistics.median(runs))
    each = (used[1] - used[0]) / (counts[1] - counts[0])
    name = f"status, CPU per file and record, {counts[0]} to {counts[1]} files"
    return Row(name, "ms", each, 0.15, 1.0)


def growth_row(url: str, few: Path, many: Path, counts: tuple[int, int]) -> Row:
    """Whether upgrading twice as many revisions costs twice as much, and not four times."""
    taken = []
    for folder, count in zip((few, many), counts, strict=True):
        with Migrator.from_config(cwd=folder, url=url, database=f"grow{count}") as migrator:
            started = time.process_time()
            migrator.upgrade()
            taken.append(time.process_time() - started)
    growth = counts[1] / counts[0]
    name = f"upgrade, client CPU, {counts[1]} against {counts[0]} revisions"
    return Row(name, "s", taken[1], taken[0] * growth, 1.25)


def rows(*, quick: bool) -> Iterator[Row]:
    """All figures, as they come."""
    repeats, empty, counts = (5, 200, (500, 1_000)) if quick else (15, 1_000, (2_500, 5_000))
    with tempfile.TemporaryDirectory() as made, run_standalone() as one, run_replica_set() as two:
        folder = Path(made)
        for count in {empty, 5, *counts}:
            write_project(folder / str(count), count)
        yield from start_rows(one.url, folder / "5", repeats)
        for kind, server in (("standalone", one), ("replica set", two)):
            with MongoClient[dict[str, Any]](server.url) as client:
                client.drop_database("shop")
            yield empty_row(kind, server.url, folder / str(empty), empty)
        few, many = (folder / str(count) for count in counts)
        yield status_row(one.url, few, many, counts, max(3, repeats // 3))
        yield growth_row(one.url, few, many, counts)


def main(out: Callable[[str], None] = print) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats and revisions")
    options = parser.parse_args()
    compileall.compile_dir(ROOT / "mongover", quiet=1)
    out("byte code is compiled")
    out(f"{'':<58}{'ours':>9}{'floor':>9} {'':<9}{'ratio':>6}    goal")
    for row in rows(quick=options.quick):
        out(str(row))


if __name__ == "__main__":
    main()
