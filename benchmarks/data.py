"""Measure data migrations beside plain loops and other tools, and print one table.

    python benchmarks/data.py                    # 500,000 documents, about fifteen minutes
    python benchmarks/data.py --quick            # 50,000 documents
    python benchmarks/data.py --peer PYTHON      # also Beanie, from an interpreter that has it

Every line is a process of its own, so that its peak memory is its own. Each runs on a fresh
collection, on servers that this script starts. Ratios are to the plain command or loop measured
just before on the same server.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pymongo import MongoClient, UpdateOne  # noqa: E402 - after the path of the checkout
from pymongo.write_concern import WriteConcern  # noqa: E402 - the same

from mongover import events  # noqa: E402 - the checkout beside this script is measured
from mongover.migrator import Migrator  # noqa: E402 - as above
from tests.servers import run_replica_set, run_standalone  # noqa: E402 - as above

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATABASE = "bench"
PIPELINE = [{"$set": {"label": {"$concat": ["$name", " <", "$email", ">"]}}}]
HEADER = '"""bench"""\n\nrevision = "0001"\ndown_revision = None\n\n\n'
SERVER_SIDE = f'def upgrade(op):\n    op.update("docs", {{}}, {PIPELINE!r})\n'
TRANSFORM = """def label(document):
    document["label"] = document["name"].upper()
    return document


def upgrade(op):
    op.transform("docs", label, workers={workers})
"""
BEANIE = """
import asyncio, sys, time
from beanie import Document, init_beanie, iterative_migration
from pymongo import AsyncMongoClient

class Old(Document):
    name: str
    email: str
    class Settings:
        name = "docs"

class New(Document):
    name: str
    email: str
    label: str | None = None
    class Settings:
        name = "docs"

class Forward:
    @iterative_migration()
    async def label(self, input_document: Old, output_document: New):
        output_document.label = input_document.name.upper()

async def main():
    client = AsyncMongoClient(sys.argv[1])
    await init_beanie(client["bench"], document_models=[Old, New])
    started = time.monotonic()
    async with client.start_session() as session:
        await Forward.label.run(session=session)
    import json, resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu = time.process_time()
    print(json.dumps({"seconds": time.monotonic() - started, "rss": peak, "cpu": cpu}))

asyncio.run(main())
"""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    server: str
    name: str
    documents: int
    seconds: float
    rss: float
    cpu: float
    base: float | None

    def text(self) -> str:
        """The line."""
        rate = self.documents / self.seconds
        ratio = "" if self.base is None else f"{rate / self.base:8.2f}"
        return (
            f"{self.server:<12} {self.name:<34} {self.documents:>8,} {rate:>9,.0f}/s {ratio:>8}"
            f" {self.rss:>7.0f} MB {self.cpu:>6.1f} s"
        )


def documents(count: int) -> Iterator[dict[str, Any]]:
    """Small documents, always the same."""
    rng = random.Random(1)  # noqa: S311 - made-up data
    for number in range(count):
        yield {
            "name": f"user {number}",
            "email": f"u{number}@example.org",
            "age": rng.randrange(90),
            "address": {"city": "Lima", "zip": str(number)},
            "tags": ["a", "b"],
            "active": True,
        }


def fill(url: str, count: int) -> None:
    """A fresh database with so many documents."""
    with MongoClient(url) as client:
        client.drop_database(DATABASE)
        batch: list[dict[str, Any]] = []
        for document in documents(count):
            batch.append(document)
            if len(batch) == 10_000:  # noqa: PLR2004 - a batch
                client[DATABASE]["docs"].insert_many(batch, ordered=False)
                batch = []
        if batch:
            client[DATABASE]["docs"].insert_many(batch, ordered=False)


# -- one measured process each ----------------------------------------------------------------


def plain_update(url: str) -> None:
    """The floor of a change on the server: one command."""
    with MongoClient(url, w="majority") as client:
        client[DATABASE]["docs"].update_many({}, PIPELINE)


def plain_loop(url: str) -> None:
    """What people write by hand: no checkpoint, no look at what changed meanwhile."""
    with MongoClient(url, w="majority") as client:
        collection = client[DATABASE].get_collection("docs", write_concern=WriteConcern("majority"))
        requests = []
        for document in collection.find():
            label = {"$set": {"label": document["name"].upper()}}
            requests.append(UpdateOne({"_id": document["_id"]}, label))
            if len(requests) == 1_000:  # noqa: PLR2004 - the usual batch
                collection.bulk_write(requests, ordered=False)
                requests = []
        if requests:
            collection.bulk_write(requests, ordered=False)


def ours(url: str, body: str) -> float:
    """Seconds of the one operation, without what an upgrade costs around it."""
    took: list[float] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.OperationFinished):
            took.append(event.seconds)

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "0001_bench.py").write_text(HEADER + body)
        with Migrator.from_config(url=url, database=DATABASE, versions=folder) as migrator:
            migrator.upgrade(listener=listen)
    return took[0]


WAYS: dict[str, Callable[[str], float | None]] = {
    "update_many": plain_update,
    "op.update, in ranges": lambda url: ours(url, SERVER_SIDE),
    "find + bulk_write": plain_loop,
    "op.transform, 1 worker": lambda url: ours(url, TRANSFORM.format(workers=1)),
    "op.transform, 2 workers": lambda url: ours(url, TRANSFORM.format(workers=2)),
}


def child(way: str, url: str) -> None:
    """Run one way in this process, and print what it cost."""
    started = time.monotonic()
    seconds = WAYS[way](url) or time.monotonic() - started
    own = resource.getrusage(resource.RUSAGE_SELF)
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime
    rss = max(own.ru_maxrss, workers.ru_maxrss) / 1024
    print(json.dumps({"seconds": seconds, "rss": rss, "cpu": cpu}))


def measure(server: str, way: str, url: str, count: int, base: float | None, peer: str) -> Row:  # noqa: PLR0917 - a script's own
    """One line, in a process of its own."""
    fill(url, count)
    command = [sys.executable, __file__, "--child", way, "--url", url]
    if way == "Beanie, iterative":
        command = [peer, "-c", BEANIE, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    row = Row(server, way, count, found["seconds"], found["rss"], found["cpu"], base)
    print(row.text(), flush=True)
    return row


def table(server: str, url: str, count: int, peer: str) -> None:
    """All ways on one server, then the memory of ours on a tenth of the documents."""
    plain = measure(server, "update_many", url, count, None, peer)
    measure(server, "op.update, in ranges", url, count, count / plain.seconds, peer)
    loop = measure(server, "find + bulk_write", url, count, None, peer)
    base = count / loop.seconds
    for way in ("op.transform, 1 worker", "op.transform, 2 workers"):
        big = measure(server, way, url, count, base, peer)
        small = measure(server, way, url, count // 10, None, peer)
        print(f"{'':12} memory at {count // 10:,} / {count:,}: {small.rss / big.rss:.2f}")
    if peer and server == "replica set":
        measure(server, "Beanie, iterative", url, count // 10, base, peer)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="50,000 documents")
    parser.add_argument("--documents", type=int, default=500_000)
    parser.add_argument("--peer", default="", help="a Python that has Beanie")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.url)
        return
    count = 50_000 if given.quick else given.documents
    head = (
        f"{'server':<12} {'way':<34} {'docs':>8} {'rate':>11} {'ratio':>8} {'peak':>10} {'cpu':>8}"
    )
    print(f"{head} {'peak':>10} {'cpu':>8}")
    for name, start in (("standalone", run_standalone), ("replica set", run_replica_set)):
        with start() as server:
            table(name, server.url, count, given.peer)


if __name__ == "__main__":
    main()
