"""The commands that write files, and those that bring files and history together."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mongover.cli.commands.files import open_editor
from mongover.config.config import Config
from mongover.config.load import load_config
from mongover.config.urls import SecretUrl
from mongover.database.embedded import EmbeddedServer
from mongover.errors import UsageError
from mongover.history.changes import Resolution
from mongover.report.shown import Shown
from tests.support.cli_fakes import FakeMigrator, document, fake, invoke, lease, record, revision
from tests.support.servers import run_cli


def told(migrator: FakeMigrator) -> list[tuple[str, tuple[Any, ...], str]]:
    """The calls with their reasons; each has a listener, so that a wait for the lock is shown."""
    assert all({"listener", "stop"} <= how.keys() for _, _, how in migrator.calls)
    return [(name, args, how["reason"]) for name, args, how in migrator.calls]


def test_init_makes_a_project_and_says_what_comes_next(tmp_path: Path) -> None:
    done = run_cli("init", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.split() == [
        *("created", "versions/", "created", ".gitignore", "created", "alembic-style.ini"),
    ]
    assert 'next: mongover revision -m "create users"' in done.stderr
    config = load_config(None, overrides={}, environ={}, cwd=tmp_path)
    assert str(config.url) == f"embedded:{tmp_path}/.mongover/db"
    assert config.versions == tmp_path / "versions"
    assert ".mongover/" in (tmp_path / ".gitignore").read_text()


def test_init_says_what_it_made_and_what_it_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gitignore").write_text("mine")
    (tmp_path / "versions").mkdir()
    result = invoke(fake(), "init")
    assert result.stdout.splitlines() == [
        "created  alembic-style.ini",
        "kept     versions/",
        "changed  .gitignore",
    ]
    assert (tmp_path / ".gitignore").read_text() == "mine\n.mongover/\n"
    assert "cd " not in result.stderr
    assert document(invoke(fake(), "init", "sub", "--json"))["kept"] == []
    assert "cd sub, then " in invoke(fake(), "init", "sub").stderr


def test_init_never_overwrites(tmp_path: Path) -> None:
    for name in ("alembic-style.ini", ".gitignore"):
        (tmp_path / name).write_text("[mongover]\n# mine\n")
    (tmp_path / "versions").mkdir()
    done = run_cli("init", "--json", cwd=tmp_path)
    assert document(done)["created"] == []
    assert document(done)["kept"] == ["alembic-style.ini"]
    assert (tmp_path / "alembic-style.ini").read_text() == "[mongover]\n# mine\n"
    assert (tmp_path / ".gitignore").read_text() == "[mongover]\n# mine\n"


def test_init_keeps_a_pyproject_with_our_section_and_ignores_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    assert "created  alembic-style.ini" in invoke(fake(), "init").stdout
    other = tmp_path / "other"
    other.mkdir()
    (other / "pyproject.toml").write_text("[tool.mongover]\n")
    assert invoke(fake(), "init", "other").stdout == "kept     other/pyproject.toml\n"
    assert not (other / "alembic-style.ini").exists()


def test_init_in_another_folder_with_url_and_database(tmp_path: Path) -> None:
    done = run_cli("init", "new one", "--url", "mongodb://db.example/", "--database", "shop",
                   cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0
    assert "cd 'new one', then " in done.stderr
    config = load_config(None, overrides={}, environ={}, cwd=tmp_path / "new one")
    assert (str(config.url), config.database) == ("mongodb://db.example/", "shop")


def test_a_revision_is_written_and_its_path_told() -> None:
    path = Path.cwd() / "versions" / "0006_add_phone.py"
    migrator = fake(create_revision=path)
    args = ["revision", "-m", "add phone", "--schema", "users", "--depends-on", "1",
            "--depends-on", "0002", "--id", "0006"]  # fmt: skip
    result = invoke(migrator, *args)
    assert result.stdout == "wrote versions/0006_add_phone.py\n"
    assert migrator.calls == [
        (
            "create_revision",
            ("add phone",),
            {"schema": "users", "depends_on": ("1", "0002"), "id": "0006"},
        )
    ]
    assert document(invoke(migrator, *args, "--json")) == {
        "files": ["versions/0006_add_phone.py"],
        "revision": "0006",
        "path": "versions/0006_add_phone.py",
    }


def test_a_revision_needs_a_message() -> None:
    result = invoke(fake(), "revision")
    assert result.exit_code == 2
    assert "--message" in result.stderr


def test_merge_and_rebase_tell_every_file_they_wrote() -> None:
    paths = (Path.cwd() / "versions/0008_a.py", Path.cwd() / "versions/0009_b.py")
    migrator = fake(merge=paths[0], rebase=paths)
    assert invoke(migrator, "merge", "users", "-m", "join").stdout == "wrote versions/0008_a.py\n"
    assert invoke(migrator, "merge", "-m", "join").exit_code == 0
    assert [call[1] for call in migrator.calls] == [("users", "join"), (None, "join")]
    assert invoke(migrator, "rebase", "7").stdout.splitlines() == [
        "wrote versions/0008_a.py",
        "wrote versions/0009_b.py",
    ]
    assert document(invoke(migrator, "rebase", "7", "--json")) == {
        "files": ["versions/0008_a.py", "versions/0009_b.py"]
    }


@pytest.fixture
def editor(tmp_path: Path) -> Path:
    """An editor with a blank in its path that writes the name of the file it is given."""
    script = tmp_path / "my editor"
    script.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/edited"\n')
    script.chmod(0o755)
    return script


def test_a_new_revision_can_be_opened_at_once(editor: Path, tmp_path: Path) -> None:
    migrator = fake(create_revision=tmp_path / "0001_x.py")
    env = {"VISUAL": f"'{editor}' --wait", "EDITOR": "false"}
    assert invoke(migrator, "revision", "-m", "x", "--edit", env=env).exit_code == 0
    assert (tmp_path / "edited").read_text() == f"--wait {tmp_path}/0001_x.py\n"


def with_versions(migrator: Any, folder: Path) -> Any:
    object.__setattr__(migrator.config, "versions", folder)
    return migrator


def test_edit_finds_a_broken_file_by_its_name_without_a_server(
    editor: Path, tmp_path: Path
) -> None:
    (tmp_path / "0007_broken.py").write_text("def (")
    migrator = with_versions(fake(), tmp_path)
    result = invoke(migrator, "edit", "0007", "--json", env={"VISUAL": f"'{editor}'"})
    assert result.exit_code == 0, result.output
    assert document(result) == {"path": str(tmp_path / "0007_broken.py")}
    assert (tmp_path / "edited").read_text() == f"{tmp_path}/0007_broken.py\n"


def test_edit_of_a_target_and_of_a_missing_file(editor: Path, tmp_path: Path) -> None:
    path = tmp_path / "0001_x.py"
    migrator = with_versions(fake(show=Shown(revision(path=path), None, ())), tmp_path)
    assert invoke(migrator, "edit", "users", env={"VISUAL": f"'{editor}'"}).exit_code == 0
    gone = with_versions(fake(show=Shown(None, record(), ())), tmp_path)
    result = invoke(gone, "edit", "1")
    assert result.exit_code == 4
    assert "next: mongover restore 1" in result.stderr


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"EDITOR": "/no/such/editor"}, "cannot be run"),
        ({"EDITOR": "false"}, "exit code 1"),
        ({"EDITOR": "'unbalanced"}, "cannot be run"),
    ],
)
def test_an_editor_that_does_not_work_is_named(environ: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_editor(Path("x.py"), environ)


def test_without_an_editor_the_hint_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no editor") as caught:
        open_editor(Path("x.py"), {"EDITOR": "  "})
    assert "EDITOR" in caught.value.hint
    nano = tmp_path / "nano"
    nano.write_text(f"#!{sys.executable}\n")
    nano.chmod(0o755)
    open_editor(Path("x.py"), {})


def test_diff_prints_the_diff_alone() -> None:
    migrator = fake(diff="--- a\n+++ b\n-x\r\n+y\n")
    assert invoke(migrator, "diff", "3").stdout_bytes == b"--- a\n+++ b\n-x\r\n+y\n"
    assert document(invoke(migrator, "diff", "3", "--json"))["diff"].startswith("--- a")
    same = invoke(fake(diff=""), "diff", "3")
    assert (same.stdout, same.stderr) == ("", "3 is what was applied\n")


def test_restore_tells_the_path() -> None:
    migrator = fake(restore=Path.cwd() / "versions/0003_x.py")
    assert invoke(migrator, "restore", "3").stdout == "wrote versions/0003_x.py\n"
    assert document(invoke(migrator, "restore", "3", "--json")) == {"path": "versions/0003_x.py"}


def test_repair_needs_a_reason_that_says_something() -> None:
    migrator = fake(repair=record("0003"))
    assert invoke(migrator, "repair", "3").exit_code == 2
    assert invoke(migrator, "repair", "3", "--reason", " ").exit_code == 2
    assert migrator.calls == []
    result = invoke(migrator, "repair", "3", "--reason", "typo")
    assert result.stdout == "✓ 0003 is accepted as its file is now\n"
    assert told(migrator) == [("repair", ("3",), "typo")]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--retry", "0004 will run again"),
        ("--applied", "0004 is applied"),
        ("--reverted", "0004 is reverted"),
    ],
)
def test_resolve_passes_on_what_a_person_found_out(flag: str, words: str) -> None:
    migrator = fake(resolve=record("0004"))
    result = invoke(migrator, "resolve", "4", flag, "--reason", "looked")
    assert words in result.stdout
    assert told(migrator) == [("resolve", ("4", Resolution(flag[2:])), "looked")]
    shown = document(invoke(migrator, "resolve", "4", flag, "--reason", "looked", "--json"))
    assert shown["record"]["revision"] == "0004"


def test_resolve_without_a_resolution_says_which_there_are() -> None:
    result = invoke(fake(), "resolve", "4", "--reason", "x")
    assert result.exit_code == 2
    assert "--retry, --applied or --reverted" in result.stderr


def test_stamp_tells_the_records_that_changed() -> None:
    migrator = fake(stamp=("0001", "0002"))
    result = invoke(migrator, "stamp", "-1", "--reason", "imported")
    assert result.stdout == "✓ 2 records stamped: 0001, 0002\n"
    assert told(migrator) == [("stamp", ("-1",), "imported")]
    assert document(invoke(migrator, "stamp", "2", "--json"))["stamped"] == ["0001", "0002"]
    assert "nothing to stamp" in invoke(fake(stamp=()), "stamp", "2").stdout


def test_unlock_of_nothing_is_a_sentence() -> None:
    for state in (None, lease(owner=None)):
        assert invoke(fake(lock=state), "unlock").stdout == "nobody holds the lock\n"
    assert document(invoke(fake(lock=None), "unlock", "--json"))["unlocked"] is False


def test_an_expired_lock_is_ended_without_a_question() -> None:
    migrator = fake(lock=lease(seconds_left=-1), unlock=lease(owner=None))
    assert "was ended" in invoke(migrator, "unlock").stdout
    assert migrator.calls[-1] == ("unlock", (), {"owner": None})


def test_a_live_lock_is_not_ended_where_nobody_can_be_asked() -> None:
    migrator = fake(lock=lease(), unlock=lease(owner=None))
    result = invoke(migrator, "unlock")
    assert result.exit_code == 2
    assert "mongover unlock --owner token-1" in result.stderr
    assert [call[0] for call in migrator.calls] == ["lock"]


@pytest.mark.parametrize("args", [["--yes"], ["--owner", "token-1"]])
def test_a_live_lock_is_ended_for_who_says_so(args: list[str]) -> None:
    migrator = fake(lock=lease(), unlock=lease(owner=None))
    result = invoke(migrator, "unlock", *args, "--json")
    assert document(result)["unlocked"] is True
    assert migrator.calls[-1] == ("unlock", (), {"owner": "token-1"})


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 130)])
def test_on_a_terminal_unlock_asks(answer: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    migrator = fake(lock=lease(), unlock=lease(owner=None))
    monkeypatch.setattr("mongover.cli.commands.server.has_keyboard", lambda: True)
    result = invoke(migrator, "unlock", stdin=answer)
    assert result.exit_code == code
    assert "End it all the same?" in result.stderr
    assert ("unlock" in [call[0] for call in migrator.calls]) is (code == 0)


def test_mongod_needs_an_embedded_url(tmp_path: Path) -> None:
    (tmp_path / "alembic-style.ini").write_text("[mongover]\nurl = mongodb://u:hush@h/shop\n")
    done = run_cli("mongod", cwd=tmp_path)
    assert done.returncode == 2
    assert "not an embedded one: mongodb://u:***@h/shop" in done.stderr
    assert os.listdir(tmp_path) == ["alembic-style.ini"]  # noqa: PTH208 - names are compared


def with_embedded(monkeypatch: pytest.MonkeyPatch, folder: Path, *, alive: bool) -> Any:
    """A migrator of an embedded project; its server is stopped by the signal that it gets."""
    migrator = fake()
    migrator.config = Config(url=SecretUrl(f"embedded:{folder}"), database="shop")

    @contextmanager
    def open_embedded(where: Path, *, environ: Any) -> Any:
        del environ
        yield EmbeddedServer("mongodb://socket/", 42, started=alive, folder=where)

    def is_alive(server: EmbeddedServer) -> bool:
        del server
        os.kill(os.getpid(), signal.SIGTERM)
        return alive

    monkeypatch.setattr("mongover.database.embedded.open_embedded", open_embedded)
    monkeypatch.setattr("mongover.database.embedded.is_alive", is_alive)
    monkeypatch.setattr("mongover.cli.commands.server.LOOK_SECONDS", 0.01)
    return migrator


def test_mongod_prints_its_url_and_ends_with_a_signal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    result = invoke(with_embedded(monkeypatch, tmp_path, alive=True), "mongod")
    assert result.exit_code == 0
    assert result.stdout == "mongodb://socket/\n"
    assert "running, pid 42" in result.stderr
    assert result.stderr.endswith("stopped; the data stays\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_mongod_notices_that_its_server_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = invoke(with_embedded(monkeypatch, tmp_path, alive=False), "mongod", "--json")
    assert result.exit_code == 5
    assert document(result)["pid"] == 42
    assert "it ran already; attached" in result.stderr
    assert "ended by itself" in result.stderr


def test_mongod_of_another_server_is_refused() -> None:
    result = invoke(fake(), "mongod")
    assert result.exit_code == 2
    assert "not an embedded one" in result.stderr
    assert "hush-hush" not in result.output
