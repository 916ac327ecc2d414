"""The documentation's code blocks: how they are read, run and compared with what they promise.

    ```console            commands after `$ `, each followed by what it prints; `# exit 4` at a
                          command's end is the exit code it must have, a line `…` stands for any
    ```python             a program; with `op.` and without `def upgrade` it is given an `op`
    <!-- file: NAME -->   the block below is written to that file
    <!-- output -->       the block below is what the Python block before it prints
    <!-- check: EXPR -->  must be true of `db` (a Python expression)
    <!-- copy: NAME -->   a file or folder of the repository is copied into the page's folder
    <!-- skip: WHY -->    the block below is not run

All blocks of a page run in one folder, one after the other. `python -m tests.support.pages
docs/x.md` writes real output over what differs, and fills in each output that is a lone `?`.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mongover.database.embedded import open_embedded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
HOME = "/home/ana/shop"  # the page's folder, as readers see it
ANYTHING = "…"
UNKNOWN = "?"

_FENCE = re.compile(r"```(\w*)\s*$")
_NOTE = re.compile(r"<!-- (\w+)(?:: (.*))? -->$")
_EXIT = re.compile(r"\s+# exit (\d+)$")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block, or a note that stands alone; `line` is that of its first line of text."""

    language: str
    text: str
    line: int
    note: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a console block, what it must print (None: not said) and its exit code."""

    text: str
    output: tuple[str, ...] | None
    code: int
    line: int  # of its first line of output


def blocks_of(text: str) -> Iterator[Block]:
    """Every block of a page, with the note above it; `check` and `copy` are blocks themselves."""
    lines = iter(enumerate(text.splitlines(), 1))
    note, value = "", ""
    for number, line in lines:
        found, fence = _NOTE.match(line), _FENCE.match(line)
        if found and found[1] in {"check", "copy"}:
            yield Block(found[1], found[2], number)
        elif found:
            note, value = found[1], found[2] or ""
        elif fence:
            body = list(_until_fence(lines))
            yield Block(fence[1], "".join(f"{row}\n" for row in body), number + 1, note, value)
            note, value = "", ""
        elif line.strip():
            note, value = "", ""


def _until_fence(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if line.rstrip() == "```":
            return
        yield line


def commands_of(block: Block) -> Iterator[Command]:
    """The commands of a console block; a line `> …` continues the command above it."""
    rows = block.text.splitlines()
    starts = [index for index, row in enumerate(rows) if row.startswith("$ ")]
    for start, end in zip_longest(starts, starts[1:], fillvalue=len(rows)):
        assert start is not None
        after = start + 1
        while after < len(rows) and rows[after].startswith("> "):
            after += 1
        words = "\n".join(row[2:] for row in rows[start:after])
        found = _EXIT.search(words)
        output = tuple(rows[after:end])
        while output and not output[-1]:
            output = output[:-1]
        yield Command(
            _EXIT.sub("", words), output or None, int(found[1]) if found else 0, block.line + after
        )


# ---------------------------------------------------------------------------------- comparison

_MASKS = tuple(
    (re.compile(pattern), shown)
    for pattern, shown in (
        (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?", "TIME"),
        (r"(?:<1|\d[\d,]*(?:\.\d+)?) (?:ms|s)\b|\d+ m \d\d s", "TOOK"),
        (r'"(durationMs|duration_ms|pid|seconds)": [\d.e-]+', r'"\1": N'),
        (r'"(host|user|mongover|pymongo|version)": "[^"]*"', r'"\1": NAME'),
        (r"\b[0-9a-f]{64}\b", "SHA"),
        (r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "ID"),
        (r"\b[0-9a-f]{8}(?=…)", "SHA"),
        (r"pid \d+", "PID"),
        (r"MongoDB \d+\.\d+\.\d+", "MongoDB"),
        (r"mongover \d+\.\d+\.\d+\S*", "mongover"),
        (r"\s+", " "),
    )
)


def masked(line: str) -> str:
    """The line without what differs from run to run."""
    for pattern, shown in _MASKS:
        line = pattern.sub(shown, line)
    return line.strip()


def alike(expected: Sequence[str], actual: Sequence[str]) -> bool:
    """Whether the output is as promised; `…` alone on a line stands for any number of lines."""
    if not expected:
        return not any(line.strip() for line in actual)
    if expected[0].strip() == ANYTHING:
        return any(alike(expected[1:], actual[skip:]) for skip in range(len(actual) + 1))
    if not actual:
        return False
    return masked(expected[0]) == masked(actual[0]) and alike(expected[1:], actual[1:])


# --------------------------------------------------------------------------------------- running


@dataclass
class PageFolder:
    """The folder of one page, with `mongover` on its PATH and a server that stays between commands.

    The kept server spares each command the start of its own; what they print is the same.
    """

    folder: Path
    keep_server: bool = True
    _stack: ExitStack = field(default_factory=ExitStack)
    _served: set[Path] = field(default_factory=set)

    def __enter__(self) -> Self:
        tools = self.folder.parent / "bin"
        tools.mkdir(parents=True)
        self.folder.mkdir()
        for name, words in (("mongover", "-m mongover"), ("python", "")):
            script = tools / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} -W error {words} "$@"\n')
            script.chmod(0o755)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def environ(self) -> dict[str, str]:
        kept = {
            name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ
        }
        tools = self.folder.parent / "bin"
        return kept | {
            "PATH": f"{tools}:{kept.get('PATH', os.defpath)}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder.parent),
            "LANG": "C.UTF-8",
            "COLUMNS": "100",
        }

    def run(self, words: Sequence[str]) -> tuple[int, list[str]]:
        """Exit code and all lines of both streams, as readers would see them."""
        done = subprocess.run(
            list(words),
            cwd=self.folder,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        self._serve()
        return done.returncode, [self._shown(line) for line in done.stdout.splitlines()]

    def _serve(self) -> None:
        """Hold the embedded servers of the projects that stand in the folder by now."""
        for file in (self.folder, *self.folder.iterdir()) if self.keep_server else ():
            database = file / ".mongover" / "db"
            if file not in self._served and database.is_dir():
                self._served.add(file)
                self._stack.enter_context(open_embedded(database, environ=os.environ))

    def _shown(self, line: str) -> str:
        user, host = getpass.getuser(), socket.gethostname()
        for real, shown in (
            (str(self.folder), HOME),
            (f"{user}@{host}", "ana@laptop"),
            (f'"user": "{user}"', '"user": "ana"'),
            (f'"host": "{host}"', '"host": "laptop"'),
        ):
            line = line.replace(real, shown)
        return line.rstrip()

    def copy(self, name: str) -> None:
        """Copy a file or a folder of the repository."""
        source, copied = ROOT / name, self.folder / name
        if source.is_dir():
            shutil.copytree(source, copied, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copied)

    def write(self, block: Block) -> None:
        """Write a block to the file that its note names."""
        path = self.folder / block.value
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)


@dataclass(frozen=True, slots=True)
class Finding:
    """A command whose output or exit code is not what its page says."""

    command: Command
    code: int
    actual: list[str]

    def __str__(self) -> str:
        expected = "\n".join(self.command.output or ("(nothing said)",))
        return (
            f"line {self.command.line}: {self.command.text}\n--- expected, exit "
            f"{self.command.code}\n{expected}\n--- actual, exit {self.code}\n"
            + "\n".join(self.actual)
        )


def run_console(page: PageFolder, block: Block) -> Iterator[Finding]:
    """Run the commands of a block; those that break a promise."""
    for command in commands_of(block):
        code, actual = page.run(["bash", "-c", command.text])
        wrong = command.output is not None and not alike(command.output, actual)
        if wrong or code != command.code:
            yield Finding(command, code, actual)


def run_program(page: PageFolder, block: Block, promise: Block | None) -> Iterator[Finding]:
    """Run a Python block as a program of its own; it must end well and print what is promised."""
    code, actual = page.run([sys.executable, "-W", "error", "-c", block.text])
    output = tuple(promise.text.splitlines()) if promise else None
    if code or (output is not None and not alike(output, actual)):
        line = promise.line if promise else block.line
        yield Finding(Command("(the Python block)", output, 0, line), code, actual)


def needs_op(block: Block) -> bool:
    """Whether a Python block is the body of a revision rather than a program."""
    return "op." in block.text and "def upgrade" not in block.text


def run_page(page: PageFolder, blocks: Sequence[Block]) -> Iterator[Finding]:
    """Run all blocks that need no `op`, in order."""
    for block, after in zip_longest(blocks, blocks[1:]):
        assert block is not None
        if block.note in {"skip", "output"}:
            continue
        if block.language == "copy":
            page.copy(block.text)
        elif block.note == "file":
            page.write(block)
        elif block.language == "console":
            yield from run_console(page, block)
        elif block.language == "python" and not needs_op(block):
            promise = after if after is not None and after.note == "output" else None
            yield from run_program(page, block, promise)


# ------------------------------------------------------------------------------------- rewriting


def rewrite(path: Path) -> int:
    """Put real output where a page differs from it; the number of outputs that changed."""
    text = path.read_text()
    with tempfile.TemporaryDirectory() as folder, PageFolder(Path(folder, "page", "shop")) as page:
        findings = list(run_page(page, list(blocks_of(text))))
    rows = text.splitlines()
    for finding in reversed(findings):
        command = finding.command
        if finding.code != command.code:
            print(f"{path}: {finding}\n")  # noqa: T201 - a tool that tells
        if command.output is None:
            continue
        start = command.line - 1
        rows[start : start + len(command.output)] = finding.actual or [ANYTHING]
    path.write_text("\n".join(rows) + "\n")
    return len(findings)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {rewrite(Path(name))} rewritten")  # noqa: T201 - the same
