"""The only place that prints: streams, signs, colours, JSON documents and the block of an error.

Data goes to stdout and talk to stderr. A line is made of pieces, plain strings or `Paint`; each
piece is made harmless here, so that no text of a user can move the cursor or break a screen, and
a stream that cannot encode a character gets a plain one. A reader that went away never ends a run:
its stream falls silent.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from mongover.cli.screen.text import clean
from mongover.config.urls import redact

if TYPE_CHECKING:
    from mongover.cli.options import Settings
    from mongover.errors import MongoverError, Where

_STYLES: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
    "error": "1;31",
}
_SIGNS: Final = {
    "✓": "[x]",
    "○": "[ ]",
    "✗": "[!]",
    "⚠": "[!]",
    "↻": "[.]",
    "·": "-",
    "…": "...",
    "→": "->",
    "–": "-",  # noqa: RUF001 - the dash is what is replaced
    "“": '"',
    "”": '"',
    "━": "=",
}
_PLAIN: Final = str.maketrans(_SIGNS)


@dataclass(frozen=True, slots=True)
class Paint:
    """A piece of a line with the name of its style."""

    text: str
    style: str


Piece = str | Paint


class Screen:
    """One stream: knows whether it is a terminal, what it can encode and whether it has colours."""

    def __init__(self, stream: TextIO | None, *, color: bool | None, dumb: bool = False) -> None:
        self.stream = stream
        self.terminal = stream is not None and stream.isatty() and not dumb
        self.color = self.terminal if color is None else color
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.failure: OSError | None = None
        self.url = ""  # the configured one, whose secrets must not be printed
        self._signs = _encodable("".join(_SIGNS), self.encoding)

    def line(self, *pieces: Piece) -> None:
        """One line, with its end."""
        self.write(self.compose(*pieces) + "\n")

    def compose(self, *pieces: Piece) -> str:
        """The pieces as one string, harmless, with this stream's signs and colours."""
        return "".join(self._piece(piece) for piece in pieces)

    def _piece(self, piece: Piece) -> str:
        text = piece.text if isinstance(piece, Paint) else piece
        text = self.fit(clean(without_secrets(text, self.url)))
        if isinstance(piece, Paint) and self.color and text:
            return f"\x1b[{_STYLES[piece.style]}m{text}\x1b[0m"
        return text

    def fit(self, text: str) -> str:
        """The text as this stream can encode it: plain signs, then escapes."""
        if not self._signs:
            text = text.translate(_PLAIN)
        return _escaped(text, self.encoding)

    def write(self, text: str) -> None:
        """The text as it is, flushed; a stream that broke stays silent and remembers why."""
        if self.stream is None or self.failure is not None:
            return
        try:
            try:
                self.stream.write(text)
                self.stream.flush()
            except RuntimeError:
                # A signal's handler came in the middle of a write to the same stream, whose buffer
                # refuses a second one: what the handler says goes around it.
                os.write(self.stream.fileno(), text.encode(self.encoding, "backslashreplace"))
        except OSError as error:
            self.failure = error
            _mute(self.stream)


def _escaped(text: str, encoding: str) -> str:
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _encodable(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def without_secrets(text: str, url: str) -> str:
    """The text without the passwords of URLs in it, and without those of `url` anywhere."""
    return redact(text, url) if "://" in text or "@" in url else text


def _mute(stream: TextIO) -> None:
    """Point a broken stream at nothing, so that closing it at the end of the process is quiet."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
    except (OSError, ValueError):  # a stream without a descriptor has nothing to close
        return


def wants_color(settings: Settings, environ: Mapping[str, str]) -> bool | None:
    """True or False where someone decided on colours, None where the stream decides."""
    if settings.no_color or environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return None


class Output:
    """What a command says: `data` and `document` on stdout, `talk` and errors on stderr.

    With `--json`, stdout carries one document alone and `data` moves to stderr.
    With `-q`, talk is hidden; data, documents, warnings and errors never are.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        color = wants_color(settings, environ)
        dumb = environ.get("TERM") == "dumb"
        self.settings = settings
        self.out = Screen(sys.stdout, color=color, dumb=dumb)
        self.err = Screen(sys.stderr, color=color, dumb=dumb)

    def hide_secrets_of(self, url: str) -> None:
        """From now on, print nothing of this URL's secrets."""
        self.out.url = self.err.url = url

    @property
    def people(self) -> Screen:
        """Where text for people goes."""
        return self.err if self.settings.json else self.out

    def data(self, *pieces: Piece) -> None:
        """A line of what was asked for; with `--json` the document says it instead."""
        if not self.settings.json:
            self.out.line(*pieces)

    def verbatim(self, text: str) -> None:
        """A text of many lines: byte for byte into a pipe, harmless on a terminal."""
        if self.settings.json:
            return
        if self.out.terminal:
            for line in text.split("\n")[: -1 if text.endswith("\n") else None]:
                self.out.line(line.expandtabs())
        else:
            self.out.write(_escaped(text, self.out.encoding))

    def result(self, *pieces: Piece) -> None:
        """The sentence that ends an act: on stdout, but hidden by `-q`."""
        if not self.settings.quiet:
            self.people.line(*pieces)

    def talk(self, *pieces: Piece) -> None:
        """A line on stderr beside the data."""
        if not self.settings.quiet:
            self.err.line(*pieces)

    def detail(self, *pieces: Piece) -> None:
        """A line that only `-v` shows."""
        if self.settings.verbose:
            self.talk(*pieces)

    def warning(self, message: str) -> None:
        """A warning, which `-q` does not hide."""
        self.err.line(Paint("warning", "yellow"), ": ", message)

    def hint(self, text: str) -> None:
        """What to type next."""
        self.talk("next: ", text)

    def document(self, value: Any, *, indent: int | None = 2) -> None:
        """One JSON document on stdout."""
        plain = plain_value(value, self.out.url)
        self.out.write(to_json(plain, encoding=self.out.encoding, indent=indent) + "\n")

    def error(self, error: MongoverError) -> None:
        """The block of an error on stderr, and with `--json` its document on stdout."""
        if self.settings.json:
            self.document({"error": error.to_dict()}, indent=None)
        first, *more = error.message.splitlines() or [error.kind]
        self.err.line(Paint(f"error[{error.code}]", "error"), ": ", Paint(first, "bold"))
        if error.where is not None:
            self.err.line("  --> ", place(error.where))
        for note in (*more, *error.notes):
            for line in note.splitlines() or [""]:
                self.err.line("   = ", line.expandtabs())
        for line in error.after.splitlines():
            self.err.line(line)
        for index, line in enumerate(error.hint.splitlines()):
            self.err.line("      " if index else "next: ", line)

    def report(self, error: MongoverError) -> int:
        """Say an error once, with its traceback for those who asked for it; the exit code."""
        if self.settings.debug or self.settings.verbose:
            self.traceback(error)
        self.error(error)
        return error.exit_code

    def traceback(self, error: BaseException) -> None:
        """The traceback of an error, for those who asked for it."""
        from traceback import format_exception

        for line in "".join(format_exception(error)).splitlines():
            self.err.line(line)


def place(where: Where) -> str:
    """`versions/0007_x.py:14   op.create_index(…)`."""
    line = "" if where.line is None else f":{where.line}"
    text = where.text.strip()
    return relative(where.path) + line + (f"   {text}" if text else "")


def relative(path: Path) -> str:
    """The path as seen from the working folder, where it is below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def to_json(plain: Any, *, encoding: str = "utf-8", indent: int | None = None) -> str:
    """JSON of plain values that the encoding can carry."""
    text = json.dumps(plain, ensure_ascii=False, indent=indent)
    return text if _encodable(text, encoding) else json.dumps(plain, indent=indent)


def plain_value(value: Any, url: str = "") -> Any:
    """The value in JSON's own types, without secrets: times in ISO 8601, unknown types as text."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # infinities and NaN are no JSON
    if isinstance(value, Mapping):
        return {str(key): plain_value(item, url) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain_value(item, url) for item in value]
    text = value.isoformat() if isinstance(value, date) else str(value)
    return without_secrets(text, url)
