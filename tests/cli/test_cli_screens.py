"""The screens and documents of the commands that look, over a migrator with given answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mongover.errors import Edited, InvalidRevision, Where
from mongover.history.record import Direction, Remains, State
from mongover.operations.base import Advance
from mongover.planning.problems import Problem
from mongover.preflight.doctor import Finding
from mongover.report.shown import LoggedEntry, Shown
from mongover.report.status import CollectionStatus, Running, SchemaStatus
from mongover.running.events import Progress
from tests.support.cli_fakes import (
    DOWN,
    NOON,
    document,
    entry,
    fake,
    invoke,
    lease,
    record,
    revision,
    status,
)
from tests.support.servers import run_cli

EDITED = Problem(
    "0003", "edited", "0003 was edited after it was applied", "mongover diff 0003", Edited("edited")
)
REFORMATTED = Problem("0002", "reformatted", "0002 was reformatted", "")
HOSTILE = "[/old] [jira-12] \x1b[2J\n\u202e gone"


def test_status_is_one_table_with_totals_and_the_next_command() -> None:
    result = invoke(fake(status=status()), "status")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "shop on rs0/127.0.0.1:27600 (MongoDB 6.0.5, replica set, transactions: yes)",
        "",
        "  schema  current  head  pending  collection  documents  indexes",
        "  users   0001     0006  1        users       1,284,310  5        ○ 0006 add phone",
        "  calls   -        0005  1        calls               -  -        ○ 0005 create calls",
        "",
        (
            "4 applied, 2 pending, 0 problems. Last: 0004 create schedules, "
            "2026-11-20 12:00:00 by ana@web-3, 4.2 s."
        ),
    ]
    assert result.stderr == "next: mongover upgrade            (look first: mongover plan)\n"


def test_status_json_has_the_documented_fields() -> None:
    shown = document(
        invoke(fake(status=status(problems=(EDITED,), lock=lease())), "status", "--json")
    )
    assert shown["pending"] == ["0005", "0006"]
    assert shown["schemas"][0]["collections"] == [
        {"name": "users", "exists": True, "documents": 1_284_310, "indexes": 5}
    ]
    assert shown["problems"][0] == {
        "revision": "0003",
        "kind": "edited",
        "message": "0003 was edited after it was applied",
        "hint": "mongover diff 0003",
    }
    assert shown["lock"]["held"] is True


@pytest.mark.parametrize(
    ("pending", "args", "code"),
    [
        (True, ["--check"], 6),
        (False, ["--check"], 0),
        (True, [], 0),
        (True, ["--check", "--json"], 6),
    ],
)
def test_status_check_exits_6_when_something_is_pending(
    pending: bool,
    args: list[str],
    code: int,
) -> None:
    state = status() if pending else status(pending=())
    assert invoke(fake(status=state), "status", *args).exit_code == code


def test_status_shows_problems_with_their_command_and_no_other_next_line() -> None:
    result = invoke(fake(status=status(problems=(EDITED, REFORMATTED))), "status")
    assert "⚠ 0003 was edited after it was applied" in result.stdout
    assert "→ mongover diff 0003" in result.stdout
    assert "· 0002 was reformatted" in result.stdout
    assert "1 problem." in result.stdout
    assert "next:" not in result.stderr


def test_status_shows_how_far_a_revision_of_another_process_is() -> None:
    far = Progress("0006", "update users", Advance(512_400, 840_112), rate=41_200.4, left=8)
    one = Running("0006", "users", Direction.UP, NOON, far)
    shown = invoke(fake(status=status(lock=lease(), running=(one,))), "status").stdout
    assert "0006 runs: update users, 60 %, 512,400/840,112, 41,200/s, 8.0 s left" in shown
    told = document(invoke(fake(status=status(running=(one,))), "status", "--json"))["running"]
    assert told[0]["revision"] == "0006"
    assert (told[0]["done"], told[0]["total"], told[0]["left"]) == (512_400, 840_112, 8)


def test_status_shows_a_running_revision_that_tells_nothing() -> None:
    for direction, words in ((Direction.UP, "runs"), (Direction.DOWN, "is being reverted")):
        one = Running("0006", None, direction, None)
        shown = invoke(fake(status=status(running=(one,))), "status").stdout
        assert f"0006 {words}\n" in shown
    far = Progress("0006", "delete", Advance(5, None))
    counted = Running("0006", None, Direction.UP, None, far)
    shown = invoke(fake(status=status(running=(counted,))), "status").stdout
    assert "0006 runs: delete, 5 documents" in shown


def test_status_shows_a_held_lock() -> None:
    result = invoke(fake(status=status(lock=lease())), "status")
    assert "locked by ana@web-3 pid 412 for 1 m 48 s (upgrade), alive 3.0 s ago" in result.stdout
    assert (
        "locked by" not in invoke(fake(status=status(lock=lease(seconds_left=-1))), "status").stdout
    )


def test_status_of_many_collections_and_pending_revisions_stays_one_screen() -> None:
    pending = tuple(revision(f"{n:04}", message=f"step {n}") for n in range(2, 30))
    collections = tuple(
        CollectionStatus(f"c{n}", exists=True, documents=n, indexes=0) for n in range(2)
    )
    schema = SchemaStatus(None, ("0001",), ("0028", "0029"), pending, "degraded", collections)
    result = invoke(fake(status=status(schemas=(schema,))), "status")
    table = result.stdout.splitlines()[3:9]
    assert table[0].split()[:6] == ["(unnamed)", "0001", "0028,0029", "28", "c0", "0"]
    assert table[0].endswith("⚠ degraded")
    assert table[1].split()[:2] == ["c1", "1"]
    assert table[4].strip() == "… 25 more"
    assert table[5] == ""


def test_status_of_a_schema_without_collections_and_without_pending() -> None:
    schema = SchemaStatus("users", ("0001",), ("0001",), (), "up to date", ())
    result = invoke(fake(status=status(schemas=(schema,), pending=(), last=None)), "status")
    assert "  users   0001     0001  -        -                   -  -" in result.stdout
    assert "Last:" not in result.stdout
    assert result.stderr == ""


def test_status_of_an_empty_project_says_how_to_begin() -> None:
    result = invoke(fake(status=status(schemas=(), pending=(), last=None, applied=0)), "status")
    assert 'next: mongover revision -m "create users" --schema users' in result.stderr


def test_an_embedded_server_is_called_by_its_folder_everywhere(tmp_path: Path) -> None:
    url = f"embedded:{tmp_path}/.mongover/db"
    run_cli("init", cwd=tmp_path)
    assert run_cli("revision", "-m", "one", cwd=tmp_path).returncode == 0
    run = run_cli("upgrade", cwd=tmp_path)
    assert "on embedded:.mongover/db: 1 revision to apply" in run.stderr
    screen = run_cli("status", cwd=tmp_path)
    assert " on embedded:.mongover/db (MongoDB" in screen.stdout
    elsewhere = run_cli("doctor", "--json", "--url", url, "--database", "x", cwd=tmp_path.parent)
    assert f"embedded:{tmp_path.name}/.mongover/db" in elsewhere.stdout


@pytest.mark.parametrize("charset", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("command", ["status", "history", "show", "heads", "current"])
def test_hostile_texts_break_no_screen_in_any_encoding(command: str, charset: str) -> None:
    bad_record = record(message=HOSTILE, schema=HOSTILE, by={"user": HOSTILE, "host": HOSTILE})
    bad_file = revision(message=HOSTILE, schema=HOSTILE)
    state = status(
        pending=(bad_file,),
        schemas=(SchemaStatus(HOSTILE, (), ("0001",), (bad_file,), "pending", ()),),
        last=bad_record,
        problems=(Problem("1", "edited", HOSTILE, HOSTILE),),
    )
    migrator = fake(
        status=state,
        history=(bad_record,),
        current=(bad_record,),
        heads=(bad_file,),
        show=Shown(bad_file, bad_record, ()),
    )
    args = [command, "1"] if command == "show" else [command]
    result = invoke(migrator, *args, charset=charset)
    assert result.exit_code == 0, result.output
    assert "[/old] [jira-12]" in result.stdout
    assert "\x1b" not in result.output
    assert "\u202e" not in result.output
    assert document(invoke(migrator, *args, "--json", charset=charset))


def test_history_is_newest_first_on_a_screen_and_in_order_in_json() -> None:
    migrator = fake(
        history=(
            record("0001"),
            record("0002", sequence=2, state=State.REVERTED, schema=None),
            record("0003", sequence=3, state=State.FAILED, duration_ms=None, applied_at=None),
        )
    )
    result = invoke(migrator, "history")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["applied", "took", "by", "revision", "schema", "message"]
    assert [line[0] for line in lines[1:]] == ["✗", "○", "✓"]
    assert lines[1].endswith("create users  (up failed)")
    assert lines[2].endswith("create users  (reverted)")
    assert lines[3].split()[1:] == [
        *("2026-11-20", "12:00:00", "4.2", "s", "ana@web-3", "0001", "users", "create", "users"),
    ]
    shown = document(invoke(migrator, "history", "--json"))["revisions"]
    assert [one["revision"] for one in shown] == ["0001", "0002", "0003"]
    assert "source" not in shown[0]
    assert shown[0]["applied_at"] == "2026-11-20T12:00:00+00:00"


def test_history_has_a_range_and_a_limit() -> None:
    migrator = fake(
        history=lambda span: (record("0001"), record("0002")) if span == "0001:" else ()
    )
    result = invoke(migrator, "history", "0001:", "--limit", "1", "--json")
    assert [one["revision"] for one in document(result)["revisions"]] == ["0002"]
    assert invoke(migrator, "history").stderr == "nothing was ever applied\n"
    assert invoke(migrator, "history", "--limit", "0").exit_code == 2


def test_the_log_tells_everything_with_reasons_and_errors() -> None:
    failed = entry("apply", "failed", duration_ms=900.0, error={"type": "DuplicateKeyError",
                   "code": 11000, "message": "E11000"})  # fmt: skip
    migrator = fake(
        log=(
            LoggedEntry("0005", entry("resolve", "reverted", reason="cleaned the data")),
            LoggedEntry("0005", failed),
        )
    )
    lines = invoke(migrator, "history", "--log").stdout.splitlines()
    assert lines[0].endswith('ana@web-3  "cleaned the data"')
    assert lines[1].endswith("0.9 s  ana@web-3  DuplicateKeyError 11000 E11000")
    logged = document(invoke(migrator, "history", "--log", "--json", "--limit", "1"))["log"]
    assert [(one["revision"], one["action"]) for one in logged] == [("0005", "resolve")]
    assert invoke(fake(log=()), "history", "--log").stderr == "nothing was ever done\n"


def test_show_tells_the_file_the_record_its_log_and_its_problems() -> None:
    kept = record(
        "0003",
        attempt=2,
        warnings=("index x was left out",),
        error={"type": "ValueError", "message": "no"},
        log=(entry(), entry("repair", "accepted", reason="typo")),
        source="text of 0003\n",
        state=State.FAILED,
        direction=DOWN,
        outcome=Remains.UNKNOWN,
        repeatable=False,
    )
    changed = revision("0003", depends_on=("0001",), down_revision=("0002",), has_downgrade=False,
                       transaction=True, create_date="2026-11-22")  # fmt: skip
    migrator = fake(show=Shown(changed, kept, (EDITED,)))
    shown = invoke(migrator, "show", "3", "--source").stdout
    for words in (
        "0003 create users",
        "revises     0002",
        "depends on  0001",
        "transaction yes",
        "downgrade   none: it cannot be reverted",
        "state       failed (blocked)",
        "applied     2026-11-20 12:00:00 by ana@web-3, 4.2 s",
        "attempts    2",
        "warnings    index x was left out",
        "error       ValueError no",
        '2026-11-20 12:00:00  repair  accepted  ana@web-3  "typo"',
        "→ mongover diff 0003",
        "text of 0003",
    ):
        assert words in shown
    told = document(invoke(migrator, "show", "3", "--json", "--source"))
    assert told["revision"]["reversible"] is False
    assert told["record"]["source"] == "text of 0003\n"
    assert len(told["record"]["log"]) == 2
    assert told["problems"][0]["kind"] == "edited"


def test_show_of_a_pending_file_and_of_a_record_without_a_file() -> None:
    assert (
        "state       pending" in invoke(fake(show=Shown(revision(), None, ())), "show", "1").stdout
    )
    lost = fake(show=Shown(None, record(state=State.REVERTED, applied_at=None), ()))
    shown = invoke(lost, "show", "1", "--source").stdout
    assert "state       reverted" in shown
    assert document(invoke(lost, "show", "1", "--json"))["revision"] is None


def test_current_and_heads() -> None:
    migrator = fake(current=(record(),), heads=(revision("0006", message="add phone"),))
    assert invoke(migrator, "current").stdout == "users  0001  create users  2026-11-20 12:00:00\n"
    assert (
        invoke(migrator, "heads").stdout
        == "users  0006  add phone  versions/0006_create_users.py\n"
    )
    assert document(invoke(migrator, "current", "--json"))["revisions"][0]["state"] == "applied"
    assert document(invoke(migrator, "heads", "--json"))["revisions"][0]["revision"] == "0006"


def test_nothing_applied_and_no_files_are_sentences() -> None:
    migrator = fake(current=(), heads=())
    assert "nothing is applied" in invoke(migrator, "current").stderr
    assert "there is no revision file" in invoke(migrator, "heads").stderr


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, "nobody holds the lock"),
        (lease(owner=None), "nobody holds the lock"),
        (lease(), "locked by ana@web-3 pid 412 for 1 m 48 s (upgrade), alive 3.0 s ago"),
        (
            lease(seconds_left=-1),
            "the lock of ana@web-3 pid 412 has expired: last heard of 3.0 s ago",
        ),
    ],
)
def test_lock_says_who_holds_it(state: Any, words: str) -> None:
    assert invoke(fake(lock=state), "lock").stdout == words + "\n"


def test_lock_in_json() -> None:
    assert document(invoke(fake(lock=None), "lock", "--json")) == {"lock": None}
    assert document(invoke(fake(lock=lease()), "lock", "--json"))["lock"]["owner"] == "token-1"


def test_doctor_lists_findings_and_fails_when_one_is_wrong() -> None:
    good = Finding("reach", ok=True, detail="rs0/a:1", hint="ignored when ok")
    bad = Finding("privileges", ok=False, detail="cannot write", hint="grant readWrite")
    result = invoke(fake(doctor=(good, bad)), "doctor")
    assert result.exit_code == 5
    assert "✓ configuration  no file" in result.stdout
    assert "✓ reach          rs0/a:1" in result.stdout
    assert "✗ privileges     cannot write" in result.stdout
    assert "→ grant readWrite" in result.stdout
    assert "ignored" not in result.stdout
    assert invoke(fake(doctor=(good,)), "doctor").exit_code == 0
    assert document(invoke(fake(doctor=(bad,)), "doctor", "--json"))["findings"][0]["ok"] is False


BROKEN = Problem(
    "0003",
    "unreadable",
    "0003 cannot be read: 100% wrong\nreally",
    "correct it",
    InvalidRevision("x", where=Where(Path.cwd() / "versions" / "0003,a:b.py", 7)),
)


@pytest.mark.parametrize("command", ["check", "verify"])
def test_check_and_verify_exit_4_only_when_something_is_wrong(command: str) -> None:
    good = invoke(fake(**{command: (REFORMATTED,)}), command)
    assert good.exit_code == 0
    assert "0002 was reformatted" in good.stdout
    assert "together" in good.stdout or "agree" in good.stdout
    bad = invoke(fake(**{command: (EDITED, REFORMATTED)}), command)
    assert bad.exit_code == 4
    assert "⚠ 0003 was edited" in bad.stdout
    assert bad.stderr == "1 problem\n"
    told = invoke(fake(**{command: (EDITED,)}), command, "--json")
    assert told.exit_code == 4
    assert document(told)["problems"][0]["revision"] == "0003"


def test_check_writes_annotations_that_a_workflow_can_read() -> None:
    whole = Problem(None, "cycle", "a cycle", "", Edited("x"))
    nowhere = Problem("1", "edited", "gone", "", InvalidRevision("x", where=Where(Path("/x.py"))))
    result = invoke(
        fake(check=(BROKEN, whole, nowhere, REFORMATTED)), "check", "--format", "github"
    )
    assert result.exit_code == 4
    assert result.stdout.splitlines() == [
        (
            "::error title=MGV010,file=versions/0003%2Ca%3Ab.py,line=7::"
            "0003 cannot be read: 100%25 wrong%0Areally; next: correct it"
        ),
        "::error title=MGV040::a cycle",
        "::error title=MGV010,file=/x.py::gone",
        "::notice title=reformatted::0002 was reformatted",
    ]
