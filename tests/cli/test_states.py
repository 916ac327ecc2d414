"""docs/states.md is the specification: its tables are read, set up on a server, and compared."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from mongover.cli.app import run as run_command
from mongover.cli.screen.output import HERE
from mongover.errors import LockHeld, MongoverError
from mongover.history import changes
from mongover.history import record as records
from mongover.history.changes import Attempt, Resolution
from mongover.history.lease import Lease, read_lease
from mongover.history.ledger import Ledger
from mongover.history.record import Direction, Record, Remains, State
from mongover.migrator import Migrator
from mongover.planning.plan import subject_of
from mongover.report.documents import problem_document
from mongover.revisions.header import parse_revision
from mongover.running.events import StepStarted
from tests.support.depth import deep, first_of
from tests.support.histories import BY
from tests.support.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pymongo.database import Database

    from mongover.history.store import Store
    from mongover.planning.problems import Problem
    from mongover.revisions.revision import Revision
    from mongover.running.events import Event
    from tests.support.servers import Server

    Documents = list[dict[str, Any]]
    Dump = dict[str, list[bytes]]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "states.md"
LEASES = ("free", "held", "expired")
FILES = ("same", "reformatted", "edited", "missing", "unreadable")
KINDS = ("transactional", "repeatable", "unrepeatable")
ATTEMPTS = ("outcome nothing", "outcome unknown, repeatable", "outcome unknown, unrepeatable")
RECORDS = (
    "no record",
    "applied",
    "applied, with warnings",
    "reverted",
    *(f"{running}, {kind}" for running in ("applying", "reverting") for kind in KINDS),
    *(
        f"{state}, {direction}, {attempt}"
        for state in ("failed", "interrupted")
        for direction in ("up", "down")
        for attempt in ATTEMPTS
    ),
)
COMMANDS = (
    "plan",
    "upgrade",
    "upgrade --retry",
    "downgrade -1",
    "downgrade base",
    "resolve --retry",
    "resolve --applied",
    "resolve --reverted",
    "repair",
    "restore",
    "diff",
    "check",
    "stamp 0002",
    "stamp base",
)
CHANGED = {"runs", "continues", "reverts", "resolves", "repairs", "restores", "stamps"}


# ── the page ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Row:
    line: int
    cells: Mapping[str, str]

    def fits(self, **values: str) -> bool:
        return all(_fits(self.cells[name], value) for name, value in values.items())


def _fits(cell: str, value: str) -> bool:
    """A cell is a list of patterns; commands, which hold spaces, are separated by commas."""
    choices = cell.split(", ") if value in COMMANDS else cell.split()
    return any(fnmatchcase(value, choice) for choice in choices)


def tables() -> list[list[Row]]:
    found: list[list[Row]] = []
    header: list[str] | None = None
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if header is None:
            header = cells
            found.append([])
        elif set(line) - set("|-"):
            found[-1].append(Row(number, dict(zip(header, cells, strict=True))))
    return found


def with_columns(*names: str) -> list[Row]:
    return [row for table in tables() for row in table if set(names) == row.cells.keys()]


NAMES = with_columns("record", "lease", "name")
REPORTS = with_columns("record", "file", "reports", "verify", "way out")
OUTCOMES = with_columns(
    "record", "file", "lease", "command", "exit", "outcome", "record after", "way out"
)


@cache
def name_row(record: str, lease: str) -> Row:
    rows = [row for row in NAMES if _names(row.cells["record"], record) and row.fits(lease=lease)]
    return the_one(rows, f"{record}, lease {lease}")


def _names(cell: str, record: str) -> bool:
    if cell.startswith("failed or interrupted"):
        return record.partition(", ")[0] in cell and record.endswith(cell.partition(", ")[2])
    return cell == record or (record.startswith(cell + ", ") and cell in ("applying", "reverting"))


def the_one(rows: Sequence[Row], what: str) -> Row:
    lines = ", ".join(str(row.line) for row in rows)
    assert len(rows) == 1, f"{what}: defined in {f'lines {lines}' if rows else 'no line'}"
    return rows[0]


@cache
def outcome_row(name: str, file: str, lease: str, command: str) -> Row:
    rows = [row for row in OUTCOMES if row.fits(record=name, file=file, lease=lease)]
    rows = [row for row in rows if row.fits(command=command)]
    return the_one(rows, f"{name}, file {file}, lease {lease}, {command}")


def report_row(name: str, file: str) -> Row:
    rows = [row for row in REPORTS if row.fits(record=name, file=file)]
    return the_one(rows, f"report of {name}, file {file}")


def test_every_combination_has_one_defined_outcome() -> None:
    used = set()
    for record, lease in product(RECORDS, LEASES):
        naming = name_row(record, lease)
        name = naming.cells["name"]
        used.add(naming.line)
        for file in FILES:
            used.add(report_row(name, file).line)
            used |= {outcome_row(name, file, lease, command).line for command in COMMANDS}
    unused = [row for row in (*NAMES, *REPORTS, *OUTCOMES) if row.line not in used]
    assert not unused, "rows that no combination meets"


def test_every_name_that_a_table_uses_is_one_that_the_page_explains() -> None:
    names = {row.cells["name"] for row in NAMES}
    for row in (*REPORTS, *OUTCOMES):
        for pattern in row.cells["record"].split():
            assert any(fnmatchcase(name, pattern) for name in names), (row.line, pattern)
        for file in row.cells["file"].split():
            assert file in (*FILES, "*"), (row.line, file)
    for row in OUTCOMES:
        assert row.cells["record after"] in {*names, "same"}, row.line
        assert set(row.cells["command"].split(", ")) <= set(COMMANDS), row.line


# ── the database and the files of a combination ──────────────────────────────────────────────────

HEADER = '''"""{message}"""

revision = "{id}"
down_revision = {down}
schema = "{schema}"


def upgrade(op):
    op.db["marks"].update_one({{"_id": "{id}"}}, {{"$inc": {{"up": 1}}}}, upsert=True)


def downgrade(op):
    op.db["marks"].update_one({{"_id": "{id}"}}, {{"$inc": {{"down": 1}}}}, upsert=True)
'''
SUBJECT = HEADER.format(message="the subject", id="0002", down='"0001"', schema="users")
OTHERS = {
    "0001_base.py": HEADER.format(message="the base", id="0001", down=None, schema="users"),
    "0003_call.py": HEADER.format(message="another line", id="0003", down=None, schema="calls"),
}
TEXTS = {
    "same": SUBJECT,
    "reformatted": SUBJECT.replace('"up"', "'up'").replace("\ndef", "\n# why\n\n\ndef", 1),
    "edited": SUBJECT.replace('"up": 1', '"up": 1, "edited": 0'),
    "unreadable": SUBJECT.replace("revision =", "revision = =", 1),
}
NAME = "0002_subject.py"


def attempt(revision: Revision, direction: Direction, **values: Any) -> Attempt:
    checksum = revision.checksum
    fixed = {"run": "run-0", "owner": "holder", "fence": 1, "by": BY, "checksum": checksum}
    return Attempt(revision.id, direction, **{**fixed, **values})


class Maker:
    """Writes the records of a state as a run would write them."""

    def __init__(self, store: Store, versions: Path) -> None:
        self.history = store.history
        self.versions = versions

    def revision(self, name: str) -> Revision:
        path = self.versions / name
        return parse_revision(path, path.read_bytes())

    def begin(self, revision: Revision, direction: Direction, **values: Any) -> Attempt:
        one = attempt(revision, direction, **values)
        before = self.history.read_one(revision.id)
        self.history.write([changes.begin(one, before, subject_of(revision))])
        return one

    def apply(self, name: str, place: int, *, warnings: Sequence[str] = ()) -> None:
        one = self.begin(self.revision(name), Direction.UP)
        end = changes.finish(one, sequence=place, duration_ms=1.0, warnings=warnings)
        self.history.write([end])

    def make(self, record: str) -> None:
        self.apply("0003_call.py", 1)
        self.apply("0001_base.py", 2)
        if record == "no record":
            return
        first, _, rest = record.partition(", ")
        down = first in ("reverted", "reverting") or rest.startswith("down")
        if down or first == "applied":
            self.apply(NAME, 3, warnings=["no index"] if rest == "with warnings" else ())
        if first == "reverted":
            one = self.begin(self.revision(NAME), Direction.DOWN)
            self.history.write([changes.finish(one, sequence=0, duration_ms=1.0)])
        elif first != "applied":
            self.stop(first, rest, Direction.DOWN if down else Direction.UP)

    def stop(self, first: str, rest: str, direction: Direction) -> None:
        transaction = rest == "transactional"
        one = self.begin(self.revision(NAME), direction, transaction=transaction)
        if rest.endswith("unrepeatable"):
            self.history.write([changes.note(one, Ledger(), repeatable=False)])
        if first in ("failed", "interrupted"):
            outcome = Remains.NOTHING if rest.endswith("nothing") else Remains.UNKNOWN
            error = {"type": "Boom", "message": "it broke"}
            end = changes.stop(one, State(first), outcome=outcome, error=error, duration_ms=1.0)
            self.history.write([end])


def lease_documents(database: Database[dict[str, Any]], lease: str) -> Documents:
    """What a real lease leaves in its collection when it is free, held or expired."""
    locks = database["leases"]
    locks.delete_many({})
    holder = Lease(locks, holder={**BY, "command": "upgrade"}, length=3_600, wait=0)
    if lease == "expired":
        holder = Lease(locks, holder={**BY, "command": "upgrade"}, length=0.05, wait=0)
    holder.owner = "holder"
    with database.client.start_session() as session:
        assert holder.acquire(session, lambda *_: True)
    if lease == "free":
        holder.release()
    holder._over.set()
    if holder._beat is not None:
        holder._beat.join()
    if lease == "expired":
        wait_until(lambda: (state := read_lease(locks)) and state.expired, "the end of the lease")
    return list(locks.find())


@dataclass
class Scene:
    """One record in one test: its combinations are set up one after the other."""

    database: Database[dict[str, Any]]
    migrator: Migrator
    versions: Path
    record: str
    history: Documents = field(default_factory=list)
    leases: dict[str, Documents] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    standing: tuple[str, str] | None = None  # the file and lease that are set up and untouched
    untouched: Dump = field(default_factory=dict)

    def prepare(self) -> Self:
        self.write_file("same")
        with self.migrator._database() as store:
            Maker(store, self.versions).make(self.record)
        self.history = list(self.database["_migrations"].find())
        self.leases = {lease: lease_documents(self.database, lease) for lease in LEASES}
        self.database.drop_collection("leases")
        return self

    def write_file(self, file: str) -> None:
        path = self.versions / NAME
        if file == "missing":
            path.unlink(missing_ok=True)
        else:
            path.write_text(TEXTS[file], encoding="utf-8")

    def set_up(self, file: str, lease: str) -> None:
        if self.standing == (file, lease):
            return
        for path in self.versions.iterdir():
            path.unlink()
        for name, text in OTHERS.items():
            (self.versions / name).write_text(text, encoding="utf-8")
        self.write_file(file)
        stored = {
            "_migrations": self.history,
            "_migrations_lock": self.leases[lease],
            "marks": [{"_id": "0003"}],
        }
        for name, documents in stored.items():
            self.database[name].delete_many({})
            self.database[name].insert_many(documents)
        self.standing = (file, lease)
        self.untouched = self.dump()

    def dump(self) -> Dump:
        """Every collection and file, byte for byte."""
        found: Dump = {path.name: [path.read_bytes()] for path in sorted(self.versions.iterdir())}
        for name in ("_migrations", "_migrations_lock", "marks"):
            found[name] = [each.raw for each in self.raw(name).find().sort("_id", 1)]
        return found

    def raw(self, name: str) -> Any:
        options = CodecOptions(document_class=RawBSONDocument)
        return self.database.get_collection(name, codec_options=options)

    def name_now(self) -> str:
        """The name of the subject's record as it stands; a running one is its holder's."""
        document = self.database["_migrations"].find_one({"_id": "0002"})
        return name_of(None if document is None else records.parse_record(document))

    def marks(self) -> tuple[int, int]:
        """How often the subject's upgrade and downgrade have run."""
        found = self.database["marks"].find_one({"_id": "0002"}) or {}
        return found.get("up", 0), found.get("down", 0)


def name_of(record: Record | None) -> str:
    if record is None:
        return "none"
    if record.state in records.RUNNING:
        return "running"
    if record.state not in records.STOPPED:
        return "degraded" if record.warnings and record.counts_as_applied else str(record.state)
    known = "nothing" if record.outcome is Remains.NOTHING else "repeatable"
    return f"{record.direction}-{'blocked' if record.blocked else known}"


@pytest.fixture
def open_scene(
    standalone: Server, open_database: Callable[..., Database[dict[str, Any]]], tmp_path: Path
) -> Iterator[Callable[[str], Scene]]:
    opened = []
    versions = tmp_path / "versions"
    versions.mkdir()
    for name, text in OTHERS.items():
        (versions / name).write_text(text, encoding="utf-8")

    def open_(record: str) -> Scene:
        database = open_database(standalone, tz_aware=True, w=1, journal=False)
        migrator = Migrator.from_config(
            url=standalone.url,
            database=database.name,
            versions=str(versions),
            lock_wait=0,
            cwd=tmp_path,
            environ={},
        )
        opened.append(migrator)
        return Scene(database, migrator, versions, record).prepare()

    yield open_
    for migrator in opened:
        migrator.close()


# ── what a command did ───────────────────────────────────────────────────────────────────────────


def do(scene: Scene, command: str) -> tuple[int, str, str]:
    """Run a command; its exit code, its outcome in the page's words, and the hint of its error."""
    scene.events.clear()
    try:
        return 0, _do(scene, command), ""
    except LockHeld as error:
        return error.exit_code, f"waits {error.code}", error.hint
    except MongoverError as error:
        return error.exit_code, f"refuses {error.code}", error.hint


def _do(scene: Scene, command: str) -> str:
    migrator, listen = scene.migrator, scene.events.append
    verb, _, rest = command.partition(" ")
    match verb:
        case "plan":
            return "plans" if migrator.plan(Direction.UP, "head").steps else "nothing"
        case "upgrade":
            result = migrator.upgrade(retry=rest == "--retry", listener=listen)
            return _ran(scene, result.revisions, "runs")
        case "downgrade":
            return _ran(scene, migrator.downgrade(rest, listener=listen).revisions, "reverts")
        case "stamp":
            return _ran(scene, migrator.stamp(rest, reason="because"), "stamps")
        case "diff":
            return "shows" if migrator.diff("0002") else "nothing"
    return _mend(migrator, verb, rest)


def _mend(migrator: Migrator, verb: str, rest: str) -> str:
    if verb == "resolve":
        migrator.resolve("0002", Resolution(rest.removeprefix("--")), reason="because")
    elif verb == "repair":
        migrator.repair("0002", reason="because")
    else:
        assert migrator.restore("0002").read_text(encoding="utf-8") == SUBJECT
    return f"{verb}s"


def _ran(scene: Scene, revisions: Iterable[str], verb: str) -> str:
    ids = set(revisions)
    if "0002" not in ids:
        return f"{verb} others" if ids else "nothing"
    started = [each for each in scene.events if isinstance(each, StepStarted)]
    return "continues" if any(s.continues for s in started if s.revision == "0002") else verb


def check_files(scene: Scene) -> tuple[int, str, str]:
    """`check` raises nothing: its exit code and hint are those of the problems it lists."""
    problems = scene.migrator.check()
    wrong = any(problem.error is not None for problem in problems)
    hints = " ".join(problem.hint for problem in problems)
    return 4 if wrong else 0, "reports" if problems else "nothing", hints


def findings(scene: Scene, row: Row, file: str, lease: str, command: str) -> list[str]:
    """What one combination did otherwise than its row says."""
    scene.set_up(file, lease)
    cells, name = row.cells, name_row(scene.record, lease).cells["name"]
    dead = scene.record.startswith(("applying", "reverting")) and lease != "held"
    exit_code, outcome, hint = check_files(scene) if command == "check" else do(scene, command)
    after = scene.name_now()
    if dead and after == "running":  # what only reads shows it so, and writes nothing
        after = name
    wanted_name = name if cells["record after"] == "same" else cells["record after"]
    wanted = (cells["exit"], cells["outcome"], wanted_name, _runs(outcome, command))
    seen = (str(exit_code), outcome, after, scene.marks())
    wrong = [] if seen == wanted else [f"is {seen}, not {wanted}"]
    way_out = cells["way out"].strip("`")
    if way_out.startswith("mongover") and way_out not in hint:
        wrong.append(f"the hint {hint!r} does not name {way_out}")
    scene.standing = None
    if outcome.partition(" ")[0] not in CHANGED and not outcome.endswith("others"):
        now = scene.dump()
        # Who takes the lock marks what a dead holder left; nothing else may change.
        swept = ("_migrations", "_migrations_lock") if dead else ()
        if any(now[name] != scene.untouched[name] for name in now.keys() - swept):
            wrong.append("something was changed")
        elif now == scene.untouched:
            scene.standing = (file, lease)
    place = f"{scene.record} · {file} · {lease} · {command} (line {row.line})"
    return [f"{place}: {each}" for each in wrong]


def _runs(outcome: str, command: str) -> tuple[int, int]:
    """How often each function of the subject must have run."""
    ran = int(outcome in ("runs", "continues", "reverts"))
    return (0, ran) if command.startswith("downgrade") else (ran, 0)


# ── the combinations ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("leases", [LEASES[:1], deep(LEASES[1:])], ids=",".join)
@pytest.mark.parametrize("record", RECORDS)
def test_every_command_does_what_the_table_says(
    record: str, leases: Sequence[str], open_scene: Callable[[str], Scene]
) -> None:
    scene = open_scene(record)
    wrong = []
    for file, lease, command in product(FILES, leases, COMMANDS):
        name = name_row(record, lease).cells["name"]
        row = outcome_row(name, file, lease, command)
        wrong += findings(scene, row, file, lease, command)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("record", first_of(RECORDS, every=2))
def test_status_show_and_verify_report_what_the_table_says_and_write_nothing(
    record: str, open_scene: Callable[[str], Scene]
) -> None:
    scene = open_scene(record)
    for file, lease in product(FILES, LEASES):
        row = report_row(name_row(record, lease).cells["name"], file)
        scene.set_up(file, lease)
        before = scene.dump()
        found = [one for one in scene.migrator.verify() if one.revision == "0002"]
        assert as_json(problems_of(scene)) == as_json(found), "status and verify differ"
        if name_row(record, lease).cells["name"] != "none":
            assert as_json(scene.migrator.show("0002").problems) == as_json(found)
            assert "0002" in [one.revision for one in scene.migrator.history()]
        assert scene.dump() == before, "reading wrote something"
        stopped = {"failed": "stopped", "interrupted": "stopped"}
        kinds = [stopped.get(one.kind, one.kind) for one in found]
        place = (record, file, lease, row.line)
        assert sorted(kinds) == sorted(row.cells["reports"].replace("nothing", "").split()), place
        assert row.cells["verify"] == ("4" if any(one.error for one in found) else "0"), place
        hints = " ".join(one.hint for one in found)
        for way_out in re.findall("`([^`]*)`", row.cells["way out"]):
            assert way_out in hints, (place, hints)


def as_json(problems: Iterable[Problem]) -> list[dict[str, str | None]]:
    return [problem_document(problem, HERE) for problem in problems]


# ── the ways out ─────────────────────────────────────────────────────────────────────────────────


class Kept:
    """The test's migrator for the command line, which closes the one it is given."""

    def __init__(self, migrator: Migrator) -> None:
        self.migrator = migrator
        self.config = migrator.config

    def __enter__(self) -> Migrator:
        return self.migrator

    def __exit__(self, *exc: object) -> None:
        pass


def named_commands(hint: str) -> list[str]:
    """The commands that a hint names, each alternative of `--a | --b` for itself."""
    found = []
    for text in re.findall(r"mongover [a-z]+(?: [^`,;…]*)?(?:…\")?", hint):
        options = re.findall(r"--\w+(?= \|)|(?<=\| )--\w+", text)
        plain = re.sub(r"--\w+(?: \| --\w+)+", "{}", text).strip()
        found += [plain.format(option) for option in options] if options else [plain]
    return found


def test_a_hints_commands_are_found_as_they_are_typed() -> None:
    hint = (
        'finish it with `mongover upgrade`, or mongover resolve 2 --retry | --applied --reason "…"'
    )
    assert named_commands(hint) == [
        "mongover upgrade",
        'mongover resolve 2 --retry --reason "…"',
        'mongover resolve 2 --applied --reason "…"',
    ]


def type_in(scene: Scene, command: str) -> int:
    scene.standing = None
    words = shlex.split(command)[1:]
    return run_command(words, opener=lambda *_, **__: Kept(scene.migrator))


def problems_of(scene: Scene) -> Sequence[Problem]:
    return [one for one in scene.migrator.status().problems if one.revision == "0002"]


def leads_out(scene: Scene, command: str) -> str:
    """Follow a hint, and the first hint of what is left then, until nothing is; why not, else."""
    typed = []
    for _ in range(5):
        typed.append(command)
        code = type_in(scene, command)
        left = problems_of(scene)
        if not left:
            return "" if code == 0 else f"{typed} ended with exit code {code}"
        if left[0].kind == "unreadable":
            scene.standing = None
            scene.write_file("same")
            left = problems_of(scene) or left
        if not (commands := named_commands(left[0].hint)):
            commands = ["mongover upgrade"]
        if left[-1].kind == "missing":  # a file first, whatever else there is
            commands = named_commands(left[-1].hint)
        command = commands[0]
    return f"{typed} leaves {[(one.kind, one.hint) for one in left]}"


@pytest.mark.parametrize("record", first_of(RECORDS, every=4))
def test_the_commands_that_problems_name_lead_out_of_every_state(
    record: str, open_scene: Callable[[str], Scene], capsys: pytest.CaptureFixture[str]
) -> None:
    scene = open_scene(record)
    wrong = []
    for file in FILES:
        scene.set_up(file, "free")
        named = [
            command
            for one in problems_of(scene)
            for command in named_commands(one.hint)
            if one.kind != "unreadable"
        ]
        for command in dict.fromkeys(named):
            scene.set_up(file, "free")
            reason = leads_out(scene, command)
            wrong += [f"{file}: {command}: {reason}"] if reason else []
            capsys.readouterr()
    assert not wrong, "\n".join(wrong)
