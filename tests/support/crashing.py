"""A project whose effects can be counted, and the oracle of every test that does it violence."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient

from mongover.testing.crash import Project, run
from tests.support.servers import cli_environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pymongo.database import Database

    from mongover.testing.crash import CrashRun, Recovery, Run
    from tests.support.servers import Server, ThreeNodes

    Store = Database[dict[str, Any]]

IDS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
USERS = 5
INDEXES = {"_id_", "status_1", "at_1_status_1"}


def write_revision(
    folder: Path,
    number: int,
    upgrade: str,
    downgrade: str = "pass",
    *,
    schema: str = "users",
    parent: str | None = None,
    header: str = "",
) -> Path:
    """A revision file with these bodies."""
    id_ = f"{number:04d}"
    path = folder / "versions" / f"{id_}_step.py"
    path.parent.mkdir(exist_ok=True)
    bodies = [
        textwrap.indent(textwrap.dedent(body).strip(), "    ") for body in (upgrade, downgrade)
    ]
    path.write_text(
        f'"""step {id_}"""\n\nimport os, signal, sys, time\n\nrevision = "{id_}"\n'
        f"down_revision = {parent!r}\nschema = {schema!r}\n{header}\n\n\n"
        f"def upgrade(op):\n{bodies[0]}\n\n\ndef downgrade(op):\n{bodies[1]}\n"
    )
    return path


COUNT = """
    op.db["counters"].update_one({{"_id": "{id}"}}, {{"$inc": {{"n": {by}}}}}, upsert=True)
"""
BOTH = (
    COUNT
    + """
    op.db["ledger"].insert_one({{"revision": "{id}", "by": {by}}})
"""
)


def write_project(folder: Path, *, transactions: bool) -> Path:
    """Seven revisions over three lines, transactional ones among them where there are any.

    0001 creates; 0002 inserts and sets (repeatable); 0003 counts and notes by `op.db`; 0004 counts
    by `op.db`; 0005 counts by an operation; 0006 creates in another line; 0007 declares itself
    repeatable.
    """
    maybe = f"transaction = {transactions}"
    write_revision(
        folder,
        1,
        """
        op.create_collection("users")
        op.create_index("users", "email", unique=True)
        """,
        'op.drop_collection("users")',
    )
    write_revision(
        folder,
        2,
        f"""
        op.insert("users", [{{"_id": i, "email": f"u{{i}}", "n": 0}} for i in range({USERS})])
        op.update("users", {{}}, {{"$set": {{"active": True}}}})
        """,
        'op.delete("users", {})',
        parent="0001",
    )
    for number, bodies, header in ((3, BOTH, maybe), (4, COUNT, "")):
        write_revision(
            folder,
            number,
            bodies.format(id=f"{number:04d}", by=1),
            bodies.format(id=f"{number:04d}", by=-1),
            schema="counters",
            parent="0003" if number == 4 else None,
            header=header,
        )
    write_revision(
        folder,
        5,
        'op.update("users", {}, {"$inc": {"n": 1}})',
        'op.update("users", {}, {"$inc": {"n": -1}})',
        parent="0002",
        header=maybe,
    )
    write_revision(
        folder,
        6,
        """
        op.create_collection("calls")
        op.create_indexes("calls", ["status", ("at", "status")])
        """,
        'op.drop_collection("calls")',
        schema="calls",
        header='depends_on = ("0001",)',
    )
    write_revision(
        folder,
        7,
        'op.db["counters"].update_one({"_id": "0007"}, {"$set": {"n": 1}}, upsert=True)',
        'op.db["counters"].update_one({"_id": "0007"}, {"$set": {"n": 0}}, upsert=True)',
        schema="counters",
        parent="0004",
        header="repeatable = True",
    )
    return folder


def project_on(
    server: Server | ThreeNodes, folder: Path, database: str, *, lease: float = 2.0, **env: str
) -> Project:
    """The project in the folder, on that server, free of this process's own settings."""
    return Project(folder, server.url, database, lease=lease, environ=cli_environment(env))


# ---- effects ------------------------------------------------------------------------------------


def effects(db: Store) -> dict[str, str]:
    """What of every revision is there: `none`, `half`, `done` or something worse."""
    users = list(db["users"].find())
    names = set(db.list_collection_names())
    return {
        "0001": _share([_has_index(db, names, "users", "email_1"), "users" in names]),
        "0002": _share([len(users) == USERS, bool(users) and all("active" in u for u in users)]),
        "0003": _share([_count(db, "0003"), _noted(db, "0003")]),
        "0004": _share([_count(db, "0004")]),
        "0005": _share([user["n"] for user in users] or [0]),
        "0006": _share(
            [_has_index(db, names, "calls", name) for name in sorted(INDEXES)] + ["calls" in names]
        ),
        "0007": _share([_count(db, "0007")]),
    }


def _share(parts: Sequence[int]) -> str:
    numbers = {int(part) for part in parts}
    if not numbers <= {0, 1}:
        return f"wrong: {list(parts)}"
    return "half" if len(numbers) == 2 else ("done" if numbers == {1} else "none")


def _has_index(db: Store, names: set[str], collection: str, index: str) -> bool:
    return collection in names and index in db[collection].index_information()


def _count(db: Store, id_: str) -> int:
    found = db["counters"].find_one({"_id": id_})
    return 0 if found is None else int(found["n"])


def _noted(db: Store, id_: str) -> int:
    return int(sum(entry["by"] for entry in db["ledger"].find({"revision": id_})))


def finish_by_hand(db: Store, id_: str, *, up: bool) -> None:
    """What a person does with a half-done revision, so that it is as if it had run to its end."""
    want = 1 if up else 0
    if id_ == "0003":
        db["counters"].update_one({"_id": id_}, {"$set": {"n": want}}, upsert=True)
        db["ledger"].delete_many({"revision": id_})
        db["ledger"].insert_one({"revision": id_, "by": want})
    if id_ == "0005":
        db["users"].update_many({}, {"$set": {"n": want}})


# ---- the oracle ---------------------------------------------------------------------------------


def open_(project: Project) -> MongoClient[dict[str, Any]]:
    return MongoClient(project.url, serverSelectionTimeoutMS=20_000, tz_aware=True)


def check_truth(project: Project) -> None:
    """No record without its effect, no effect without a record, unless the state says so."""
    with open_(project) as client:
        db = client[project.database]
        records = {record["_id"]: record for record in db["_migrations"].find()}
        found = effects(db)
        running = [id_ for id_, record in records.items() if record["state"] in RUNNING]
        assert len(running) <= 1, f"two revisions run at once: {running}"
        for id_, effect in found.items():
            record = records.get(id_, {"state": "pending"})
            assert effect in allowed(record), f"{id_} is {record['state']}, its effect is {effect}"


RUNNING = ("applying", "reverting")


def allowed(record: dict[str, Any]) -> set[str]:
    """Which effects a record in this state may have."""
    state = record["state"]
    if state == "applied":
        return {"done"}
    if state in {"pending", "reverted"}:
        return {"none"}
    if record["transaction"] or record.get("outcome") == "nothing":
        return {"none" if record["direction"] == "up" else "done"}
    return {"none", "half", "done"}


def check_lease(project: Project) -> None:
    """The lease is free, or it ends within its length."""
    with open_(project) as client:
        pipeline = [{"$match": {"_id": "lock"}}, {"$set": {"now": "$$NOW"}}]
        for lock in client[project.database]["_migrations_lock"].aggregate(pipeline):
            left = (lock["expires_at"] - lock["now"]).total_seconds()
            assert left <= project.lease, f"the lease lasts for {left} s more"


def check_crash(project: Project, crash: CrashRun) -> None:
    """What must hold the moment after a kill."""
    del crash
    check_truth(project)
    check_lease(project)


def settle(project: Project, command: Sequence[str], first: Run) -> list[str]:
    """Do what the messages name until the command succeeds; the revisions that were resolved."""
    resolved: list[str] = []
    last = first
    while last.exit_code != 0:
        assert last.exit_code == 4, f"exit {last.exit_code}: {last.text}"
        assert not last.broke, last.text
        named = re.search(r"mongover resolve (\d{4})", last.text)
        assert named, f"it names no way out: {last.text}"
        id_ = named[1]
        assert len(resolved) < len(IDS), f"it does not end: {resolved}: {last.text}"
        _resolve(project, id_)
        resolved.append(id_)
        last = run(project, command)
    return resolved


def _resolve(project: Project, id_: str) -> None:
    with open_(project) as client:
        db = client[project.database]
        up = db["_migrations"].find_one({"_id": id_}, {"direction": 1})["direction"] == "up"  # type: ignore[index] # it is blocked, so it is there
        if effects(db)[id_] == "half":
            finish_by_hand(db, id_, up=up)
        word = "--applied" if effects(db)[id_] == "done" else "--reverted"
    done = run(project, ["resolve", id_, word, "--reason", "looked at it"])
    assert done.exit_code == 0, done.text


def check_end(project: Project, *, applied: bool) -> None:
    """Every revision's effect and record exactly once, or nothing of any of them."""
    state, effect = ("applied", "done") if applied else ("reverted", "none")
    check_truth(project)
    check_lease(project)
    with open_(project) as client:
        db = client[project.database]
        found = effects(db)
        assert found == dict.fromkeys(IDS, effect), found
        states = {each["_id"]: standing(each) for each in db["_migrations"].find()}
        assert states == dict.fromkeys(IDS, state), states
        if applied:
            places = sorted(each["sequence"] for each in db["_migrations"].find())
            assert len(set(places)) == len(IDS), f"two revisions share a place: {places}"


def standing(record: dict[str, Any]) -> str:
    """The state; a downgrade that is known to have changed nothing leaves its revision applied."""
    stopped = record["state"] in {"failed", "interrupted"}
    undone = stopped and record["direction"] == "down" and record["outcome"] == "nothing"
    return "applied" if undone else str(record["state"])


def check_recovery(*, applied: bool) -> Callable[[Recovery], None]:
    """What must hold after the next command, once a person resolved what it asked for."""

    def check(recovery: Recovery) -> None:
        project, following = recovery.project, recovery.following
        check_truth(project)
        settle(project, following.command, following)
        check_end(project, applied=applied)

    return check


# ---- processes and failpoints -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gate:
    """A place in a revision's code where it waits until the test lets it through."""

    folder: Path
    name: str = "gate"

    @property
    def code(self) -> str:
        here, go = self.folder / f"{self.name}.here", self.folder / f"{self.name}.go"
        return (
            f"open({str(here)!r}, 'w').close()\n"
            f"while not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\n"
        )

    def reached(self, process: subprocess.Popen[str]) -> None:
        """Wait until the code stands at the gate."""
        here = self.folder / f"{self.name}.here"
        wait_until(lambda: here.exists() or process.poll() is not None, f"the {self.name}")
        assert here.exists(), process.communicate()

    def open(self) -> None:
        (self.folder / f"{self.name}.go").touch()


@contextlib.contextmanager
def started(
    project: Project, *command: str, patch: str = "", url: str | None = None
) -> Iterator[subprocess.Popen[str]]:
    """The command, running; `patch` is Python code that its interpreter runs first."""
    program = ["-m", "mongover"] if not patch else ["-c", f"{patch}\n{_MAIN}"]
    with subprocess.Popen(
        [sys.executable, *program, *command],
        cwd=project.folder,
        env=project.environment(url or project.url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


_MAIN = "from mongover.__main__ import main\nmain()"


def ended(process: subprocess.Popen[str], timeout: float = 90) -> tuple[int, str]:
    """The exit code and all that the process said."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out + err


@dataclass(slots=True)
class Failpoint:
    """A failpoint that is on; `hits` is known once it is off again."""

    hits: int = 0


@contextlib.contextmanager
def failing(
    client: MongoClient[dict[str, Any]],
    commands: Sequence[str],
    mode: Any,
    **data: Any,
) -> Iterator[Failpoint]:
    """Let these commands of mongover's connections fail."""
    point = Failpoint()
    data = {"failCommands": list(commands), "appName": "mongover", **data}
    on = client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})
    try:
        yield point
    finally:
        off = client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
        point.hits = off["count"] - on["count"]  # it counts since the server's start


def records_of(project: Project) -> dict[str, dict[str, Any]]:
    """The records as they are stored."""
    with open_(project) as client:
        return {each["_id"]: each for each in client[project.database]["_migrations"].find()}


def lock_of(project: Project) -> dict[str, Any]:
    """The lock's document, with the server's time in `now`; empty if there is none."""
    pipeline = [{"$match": {"_id": "lock"}}, {"$set": {"now": "$$NOW"}}]
    with open_(project) as client:
        found = client[project.database]["_migrations_lock"].aggregate(pipeline)
        return next(iter(found), {})


def heard(process: subprocess.Popen[str], text: str) -> str:
    """What the process said on stderr up to the line that holds the text."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if text in line:
            return said
    raise AssertionError(f"it ended without saying {text!r}: {said}")
