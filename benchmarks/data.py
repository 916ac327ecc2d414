"""Measure data migrations beside plain loops and other tools, and print one table.

    python benchmarks/data.py                     # 500,000 small documents
    python benchmarks/data.py --quick             # 50,000
    python benchmarks/data.py --real FILE.json    # the documents of a file (extended JSON, one a
                                                  # line), as often as it takes
    python benchmarks/data.py --peer PYTHON       # also Beanie and mongomig, from an interpreter
                                                  # that has them

Every line is a process of its own, so that its peak memory is its own (of several processes, the
largest). Each runs on a fresh collection, on servers that this script starts. Ratios are to the
plain command or loop measured just before on the same server. The last column is the share of the
time that the writes and reads of checkpoints took.
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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bson import json_util  # noqa: E402 - after the path of the checkout
from pymongo import MongoClient, UpdateOne  # noqa: E402 - the same
from pymongo.monitoring import CommandListener, register  # noqa: E402 - the same
from pymongo.write_concern import WriteConcern  # noqa: E402 - the same

from mongover.migrator import Migrator  # noqa: E402 - as above
from mongover.process import collect_seldom  # noqa: E402 - as above
from mongover.running import events  # noqa: E402 - the checkout beside this script is measured
from tests.support.servers import run_replica_set, run_standalone  # noqa: E402 - as above

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.monitoring import (
        CommandFailedEvent,
        CommandStartedEvent,
        CommandSucceededEvent,
    )

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
PEER_HEAD = """
import asyncio, json, resource, sys, time
from pymongo import AsyncMongoClient, MongoClient, UpdateOne

def tell(started):
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    rss = int(peak.split()[1]) / 1024
    print(json.dumps({"seconds": time.monotonic() - started, "rss": rss, "cpu": cpu}))
"""
BEANIE = (
    PEER_HEAD
    + """
from beanie import Document, init_beanie, iterative_migration

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
    tell(started)

asyncio.run(main())
"""
)
MONGOMIG = (
    PEER_HEAD
    + """
from mongomig.migrations.checkpoints import CheckpointStore
from mongomig.migrations.context import MigrationContext

db = MongoClient(sys.argv[1], w="majority")["bench"]
store = CheckpointStore(db, "checkpoints", revision="1", direction="upgrade", checksum="1")
ctx = MigrationContext(db, checkpoints=store)
started = time.monotonic()
"""
)
MONGOMIG_UPDATE = (
    MONGOMIG
    + f"""
ctx.ops.backfill("docs", {{}}, {PIPELINE!r})
tell(started)
"""
)
MONGOMIG_LOOP = (
    MONGOMIG
    + """
for batch in ctx.batches("docs", transactional=len(sys.argv) > 2):
    requests = [
        UpdateOne({"_id": one["_id"]}, {"$set": {"label": one["name"].upper()}}) for one in batch
    ]
    db["docs"].bulk_write(requests, ordered=False, session=batch.session)
tell(started)
"""
)
PEERS = {
    "Beanie, iterative": BEANIE,
    "mongomig, backfill": MONGOMIG_UPDATE,
    "mongomig, batches": MONGOMIG_LOOP,
    "mongomig, batches in transactions": MONGOMIG_LOOP,
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    server: str
    name: str
    documents: int
    seconds: float
    rss: float
    cpu: float
    checkpoints: float | None
    base: float | None

    def text(self) -> str:
        """The line."""
        rate = self.documents / self.seconds
        ratio = "" if self.base is None else f"{rate / self.base:8.2f}"
        share = "" if self.checkpoints is None else f"{self.checkpoints:7.1%}"
        return (
            f"{self.server:<12} {self.name:<34} {self.documents:>8,} {rate:>9,.0f}/s {ratio:>8}"
            f" {self.rss:>7.0f} MB {self.cpu:>6.1f} s {share}"
        ).rstrip()


def documents(count: int, file: str = "") -> Iterator[dict[str, Any]]:
    """Small documents, always the same; or those of a file, again and again."""
    if file:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
        for number in range(count):
            document: dict[str, Any] = json_util.loads(lines[number % len(lines)])
            del document["_id"]
            yield document
        return
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


def fill(url: str, count: int, file: str = "") -> None:
    """A fresh database with so many documents."""
    with MongoClient[dict[str, Any]](url) as client:
        client.drop_database(DATABASE)
        batch: list[dict[str, Any]] = []
        for document in documents(count, file):
            batch.append(document)
            if len(batch) == 10_000:  # noqa: PLR2004 - a batch
                client[DATABASE]["docs"].insert_many(batch, ordered=False)
                batch = []
        if batch:
            client[DATABASE]["docs"].insert_many(batch, ordered=False)


# -- one measured process each ----------------------------------------------------------------


def plain_update(url: str) -> None:
    """The floor of a change on the server: one command."""
    with MongoClient[dict[str, Any]](url, w="majority") as client:
        client[DATABASE]["docs"].update_many({}, PIPELINE)


def plain_loop(url: str, span: dict[str, Any] | None = None) -> None:
    """What people write by hand: no checkpoint, no look at what changed meanwhile."""
    with MongoClient[dict[str, Any]](url, w="majority") as client:
        collection = client[DATABASE].get_collection("docs", write_concern=WriteConcern("majority"))
        requests = []
        for document in collection.find(span or {}):
            label = {"$set": {"label": document["name"].upper()}}
            requests.append(UpdateOne({"_id": document["_id"]}, label))
            if len(requests) == 1_000:  # noqa: PLR2004 - the usual batch
                collection.bulk_write(requests, ordered=False)
                requests = []
        if requests:
            collection.bulk_write(requests, ordered=False)


def two_loops(url: str) -> None:
    """What two cores allow: the loop in two processes, a half of the collection each."""
    with MongoClient[dict[str, Any]](url) as client:
        docs = client[DATABASE]["docs"]
        half = docs.estimated_document_count() // 2
        middle = docs.find({}, {"_id": 1}).sort("_id", 1).skip(half).limit(1)[0]["_id"]
    spans = [{"_id": {"$lt": middle}}, {"_id": {"$gte": middle}}]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(plain_loop, [url, url], spans))


class Checkpoints(CommandListener):
    """Adds up the time that commands on the checkpoints take."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._ours: set[int] = set()

    def started(self, event: CommandStartedEvent) -> None:
        """Note a command on the checkpoints."""
        if event.command.get(event.command_name) == "_migrations_checkpoints":
            self._ours.add(event.request_id)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Add its time."""
        if event.request_id in self._ours:
            self._ours.discard(event.request_id)
            self.seconds += event.duration_micros / 1e6

    def failed(self, event: CommandFailedEvent) -> None:
        """Not expected."""


def ours(url: str, body: str) -> tuple[float, float]:
    """Seconds of the one operation, without what an upgrade costs around it, and of checkpoints."""
    took: list[float] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.OperationFinished):
            took.append(event.seconds)

    collect_seldom()  # as the command line and its workers do
    spent = Checkpoints()
    register(spent)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "0001_bench.py").write_text(HEADER + body)
        with Migrator.from_config(url=url, database=DATABASE, versions=folder) as migrator:
            migrator.upgrade(listener=listen)
    return took[0], spent.seconds


WAYS: dict[str, Callable[[str], tuple[float, float] | None]] = {
    "update_many": plain_update,
    "op.update, in ranges": lambda url: ours(url, SERVER_SIDE),
    "find + bulk_write": plain_loop,
    "find + bulk_write, 2 processes": two_loops,
    "op.transform, 1 worker": lambda url: ours(url, TRANSFORM.format(workers=1)),
    "op.transform, 2 workers": lambda url: ours(url, TRANSFORM.format(workers=2)),
}


def own_peak() -> int:
    """The peak of this process in KB; that of `getrusage` begins with its parent's."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def child(way: str, url: str) -> None:
    """Run one way in this process, and print what it cost."""
    started = time.monotonic()
    seconds, checkpoints = WAYS[way](url) or (time.monotonic() - started, None)
    own = resource.getrusage(resource.RUSAGE_SELF)
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime
    rss = max(own_peak(), workers.ru_maxrss) / 1024
    print(json.dumps({"seconds": seconds, "rss": rss, "cpu": cpu, "checkpoints": checkpoints}))


@dataclass(frozen=True)
class Bench:
    """One server and what is measured on it."""

    server: str
    url: str
    count: int
    file: str
    peer: str

    def measure(self, way: str, base: Row | None = None, *, part: int = 1) -> Row:
        """One line, in a process of its own, of all documents or of a part of them."""
        count = self.count // part
        fill(self.url, count, self.file)
        command = [sys.executable, __file__, "--child", way, "--url", self.url]
        if way in PEERS:
            more = ["transactions"] if way.endswith("transactions") else []
            command = [self.peer, "-c", PEERS[way], self.url, *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{way}: {done.stderr[-2000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        spent = found.get("checkpoints")
        floor = None if base is None else base.documents / base.seconds
        # What workers spend on checkpoints, this process does not see.
        share = None if spent is None or "2 workers" in way else spent / found["seconds"]
        row = Row(
            self.server, way, count, found["seconds"], found["rss"], found["cpu"], share, floor
        )
        print(row.text(), flush=True)
        return row

    def table(self) -> None:
        """All ways, each beside its floor and its peers."""
        plain = self.measure("update_many")
        self.with_memory("op.update, in ranges", plain)
        if self.peer:
            self.measure("mongomig, backfill", plain)
        loop = self.measure("find + bulk_write")
        self.measure("find + bulk_write, 2 processes", loop)
        self.with_memory("op.transform, 1 worker", loop)
        self.with_memory("op.transform, 2 workers", loop)
        if self.peer:
            self.measure("mongomig, batches", loop)
            if self.server == "replica set":
                self.measure("mongomig, batches in transactions", loop)
            self.measure("Beanie, iterative", loop, part=10)

    def with_memory(self, way: str, base: Row) -> None:
        """One of our ways, and its memory beside that for a tenth of the documents."""
        big, small = self.measure(way, base), self.measure(way, part=10)
        note = f"peak of {self.count // 10:,} / of {self.count:,} documents"
        print(f"{'':12} {note}: {small.rss / big.rss:.2f}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="50,000 documents")
    parser.add_argument("--documents", type=int, default=500_000)
    parser.add_argument("--real", default="", help="a file of documents")
    parser.add_argument("--peer", default="", help="a Python that has Beanie and mongomig")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.url)
        return
    count = 50_000 if given.quick else given.documents
    print(
        f"{'server':<12} {'way':<34} {'docs':>8} {'rate':>11} {'ratio':>8} {'peak':>10} {'cpu':>8}"
        f" {'checkp.':>7}"
    )
    for name, start in (("standalone", run_standalone), ("replica set", run_replica_set)):
        with start() as server:
            Bench(name, server.url, count, given.real, given.peer).table()


if __name__ == "__main__":
    main()
