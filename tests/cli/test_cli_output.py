"""Streams, signs, colours, documents and the block of an error."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mongover.cli.options import Settings
from mongover.cli.screen.output import Output, Paint, Screen, relative, to_json
from mongover.errors import Edited, RevisionFailed, Where
from mongover.report.documents import plain

URL = "mongodb://ana:s3cr3t-word@db.example/shop"


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding)

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        return self.bytes.getvalue().decode(self.encoding)


class Broken(io.StringIO):
    """A stream whose reader went away."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0

    def write(self, text: str) -> int:
        del text
        self.attempts += 1
        raise BrokenPipeError


def make_output(
    monkeypatch: pytest.MonkeyPatch,
    *,
    encoding: str = "utf-8",
    environ: Any = None,
    **settings: Any,
) -> tuple[Output, Terminal, Terminal]:
    out, err = Terminal(encoding), Terminal(encoding)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    return Output(Settings(**settings), environ or {}), out, err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_every_encoding_can_carry_every_line(encoding: str) -> None:
    stream = Terminal(encoding)
    Screen(stream, color=False).line("✓ ○ ✗ … → \U0001f600 é \udc80 [/bold] [red]x")
    line = stream.text
    assert "[/bold] [red]x" in line
    assert ("✓ ○ ✗ … →" in line) == (encoding == "utf-8")
    assert ("[x] [ ] [!] ... ->" in line) == (encoding != "utf-8")


@given(st.text(st.characters(codec=None)), st.sampled_from(["ascii", "cp1252", "utf-8"]))
def test_no_text_raises_and_no_text_makes_a_second_line(text: str, encoding: str) -> None:
    stream = Terminal(encoding)
    Screen(stream, color=False).line(text)
    assert stream.text.count("\n") == 1
    assert stream.text.endswith("\n")


def test_colours_come_from_us_and_never_from_a_text() -> None:
    stream = Terminal()
    Screen(stream, color=None).line(Paint("a\x1b[31m", "bold"), " \x1b[2J")
    assert stream.text == "\x1b[1ma\\x1b[31m\x1b[0m \\x1b[2J\n"


def test_a_pipe_has_no_colours_and_a_missing_stream_says_nothing() -> None:
    stream = io.StringIO()
    Screen(stream, color=None).line(Paint("a", "bold"))
    assert stream.getvalue() == "a\n"
    Screen(None, color=None).line("nobody hears this")


@pytest.mark.parametrize(
    ("environ", "settings", "colored"),
    [
        ({}, {}, True),
        ({"NO_COLOR": "1"}, {}, False),
        ({"NO_COLOR": ""}, {}, True),
        ({"TERM": "dumb"}, {}, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, {}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, {}, False),
        ({"FORCE_COLOR": "1"}, {"no_color": True}, False),
    ],
)
def test_who_decides_on_colours(
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    settings: dict[str, Any],
    colored: bool,
) -> None:
    output, out, _ = make_output(monkeypatch, environ=environ, **settings)
    output.data(Paint("x", "red"))
    assert ("\x1b[" in out.text) is colored


def test_a_reader_that_went_away_silences_the_stream_and_raises_nothing() -> None:
    stream = Broken()
    screen = Screen(stream, color=False)
    screen.line("one")
    screen.line("two")
    assert stream.attempts == 1
    assert isinstance(screen.failure, BrokenPipeError)


def test_what_a_signal_handler_says_in_the_middle_of_a_write_arrives(tmp_path: Path) -> None:
    class Busy(io.StringIO):
        def write(self, text: str) -> int:
            raise RuntimeError(f"reentrant call: {text}")

        def fileno(self) -> int:
            return file.fileno()

    with (tmp_path / "said").open("w") as file:
        Screen(Busy(), color=False).line("finishing 0007")
    assert (tmp_path / "said").read_text() == "finishing 0007\n"


def test_quiet_hides_talk_and_results_but_neither_data_nor_warnings_nor_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, out, err = make_output(monkeypatch, quiet=True, no_color=True)
    output.data("data")
    output.result("result")
    output.talk("talk")
    output.detail("detail")
    output.hint("hint")
    output.warning("careful")
    output.error(Edited("0003 was edited"))
    assert out.text == "data\n"
    assert err.text == "warning: careful\nerror[MGV040]: 0003 was edited\n"


def test_with_json_stdout_carries_the_document_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    output, out, err = make_output(monkeypatch, json=True, verbose=True)
    output.data("data")
    output.verbatim("data\n")
    output.document({"a": 1})
    output.result("done")
    output.detail("more")
    assert json.loads(out.text) == {"a": 1}
    assert err.text == "done\nmore\n"


def test_the_block_of_an_error_says_where_what_and_what_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    output, _, err = make_output(monkeypatch, no_color=True)
    output.error(
        RevisionFailed(
            "0007 failed\nValueError: no",
            where=Where(tmp_path / "versions" / "0007_x.py", 14, "    op.insert(x)\n"),
            notes=["server: 11000", "a\n\tb", ""],
            after="nothing was kept.\n0007 is failed.",
            hint="do this\nor that",
        )
    )
    assert err.text.splitlines() == [
        "error[MGV020]: 0007 failed",
        "  --> versions/0007_x.py:14   op.insert(x)",
        "   = ValueError: no",
        "   = server: 11000",
        "   = a",
        "   =         b",
        "   = ",
        "nothing was kept.",
        "0007 is failed.",
        "next: do this",
        "      or that",
    ]


def test_an_error_without_a_message_is_named_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    output, _, err = make_output(monkeypatch, no_color=True)
    output.error(Edited("", where=Where(Path("/x/y.py"))))
    assert err.text.splitlines() == ["error[MGV040]: Edited", "  --> /x/y.py"]


def test_debug_adds_the_traceback_and_the_error_stays_last(monkeypatch: pytest.MonkeyPatch) -> None:
    output, _, err = make_output(monkeypatch, debug=True, no_color=True)
    error = Edited("0003 was edited")
    error.__cause__ = ValueError("deep down")
    assert output.report(error) == 4
    assert "ValueError: deep down" in err.text
    assert err.text.splitlines()[-1] == "error[MGV040]: 0003 was edited"


@pytest.mark.parametrize("json_mode", [True, False])
def test_the_password_of_the_url_leaves_in_no_way(
    monkeypatch: pytest.MonkeyPatch,
    json_mode: bool,
) -> None:
    output, out, err = make_output(monkeypatch, json=json_mode, debug=True)
    output.hide_secrets_of(URL)
    for text in (URL, "the word is s3cr3t-word"):
        output.data(text)
        output.talk(text)
        output.warning(text)
        output.document({"deep": [{"text": text}], "path": Path(text)})
        error = Edited(text, notes=[text], hint=text, after=text)
        error.__cause__ = ValueError(text)
        output.report(error)
    assert "s3cr3t-word" not in out.text + err.text
    assert "***" in err.text


def test_any_url_in_a_text_loses_its_password_before_the_configuration_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output, _, err = make_output(monkeypatch)
    output.talk(f"cannot reach {URL}")
    assert "s3cr3t-word" not in err.text
    assert "db.example" in err.text


def test_a_verbatim_text_goes_through_a_pipe_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    Output(Settings(), {}).verbatim("a\r\n\tb\x1b\n")
    assert stream.getvalue() == "a\r\n\tb\x1b\n"


def test_a_verbatim_text_is_harmless_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    output, out, _ = make_output(monkeypatch)
    output.verbatim("a\x1b[2J\n\nb")
    assert out.text == "a\\x1b[2J\n\nb\n"


def test_json_knows_times_paths_sets_and_numbers_that_json_has_not() -> None:
    value = {
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "path": Path("a/b"),
        "none": None,
        "yes": True,
        "nan": float("nan"),
        "half": 0.5,
        "set": {1},
        "bytes": b"x",
    }
    assert plain(value, str) == {
        "at": "2026-01-02T00:00:00+00:00",
        "path": "a/b",
        "none": None,
        "yes": True,
        "nan": "nan",
        "half": 0.5,
        "set": [1],
        "bytes": "b'x'",
    }


@given(st.text(st.characters(codec=None)), st.sampled_from(["ascii", "cp1252", "utf-8"]))
def test_json_survives_every_encoding(text: str, encoding: str) -> None:
    written = to_json({"text": text}, encoding=encoding)
    assert json.loads(written.encode(encoding).decode(encoding)) == {"text": text}


def test_a_path_outside_the_working_folder_is_shown_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert relative(tmp_path / "a.py") == "a.py"
    assert relative(Path("/elsewhere/a.py")) == "/elsewhere/a.py"
