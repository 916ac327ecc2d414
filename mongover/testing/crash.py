"""Kill `mongover` at every write that it makes, and see whether the next command puts it right.

A real process runs a real command against a real server, through a proxy on loopback. The proxy
counts the writes; at the chosen one it kills the process with SIGKILL, before the server sees the
command or after the server carried it out. `sweep` does so for every write, each in a new database:

    project = Project(Path("."), url="mongodb://localhost:27017", database="crash_test")
    report = sweep(project, ["upgrade"], check=my_check)
    assert not report.findings, report.text()

Heartbeats of the lease are not counted: they come when they want, and everything else comes in the
same order each time.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from mongover.errors import MongoverError, UsageError
from mongover.testing.proxy import Fault, Proxy, When, is_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mongover.testing.wire import Command

__all__ = [
    "Broken",
    "CrashRun",
    "Finding",
    "NotKilled",
    "Project",
    "Recovery",
    "Report",
    "Run",
    "When",
    "crash_points",
    "proxied_url",
    "recover",
    "run",
    "run_and_disconnect",
    "run_and_kill",
    "sweep",
]

KILLED: Final = -9
_DISAGREEMENT: Final = 4  # the exit code
_SIGNS: Final = ("Traceback (most recent call last)", "this is a bug in mongover")
_NOT_THROUGH_A_PROXY: Final = frozenset(
    {"replicaset", "tls", "ssl", "compressors", "directconnection", "loadbalanced"}
)


class NotKilled(MongoverError):
    """The command ended before the write at which it was to be killed."""


@dataclass(frozen=True, slots=True)
class Project:
    """The project under test and where it runs; every run may create and drop the database.

    Attributes:
        folder: The project's folder, with its configuration or its `versions`.
        url: The server; several hosts are fine, TLS is not (the proxy must read what it counts).
        database: The database, or for `sweep` the beginning of the names of its databases.
        lease: Seconds until the lock of a killed process is free; at least 1.
        timeout: Seconds that one command may take.
        environ: The environment of the commands; this process's own when None.
    """

    folder: Path
    url: str
    database: str
    lease: float = 2.0
    timeout: float = 120.0
    environ: Mapping[str, str] | None = None

    def environment(self, url: str) -> dict[str, str]:
        """The environment in which a command meets this project at that URL."""
        return {
            **(os.environ if self.environ is None else self.environ),
            "MONGOVER_URL": url,
            "MONGOVER_DATABASE": self.database,
            "MONGOVER_LEASE": str(self.lease),
        }


@dataclass(frozen=True, slots=True)
class Run:
    """How a command ended; `exit_code` is negative for a signal."""

    command: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def text(self) -> str:
        """All that it said."""
        return self.stdout + self.stderr

    @property
    def broke(self) -> bool:
        """Whether it ended with a traceback, or with what mongover itself calls a bug."""
        return any(sign in self.text for sign in _SIGNS)


@dataclass(frozen=True, slots=True)
class CrashRun:
    """A run that was killed at its write number `at`."""

    run: Run
    at: int
    when: When
    command: Command  # the write that it died at

    def __str__(self) -> str:
        where = f"{self.command.name} {self.command.namespace}"
        return f"{' '.join(self.run.command)}, killed {self.when} write {self.at}: {where}"


@dataclass(frozen=True, slots=True)
class Broken:
    """A run whose connection broke at a write, once or several times, without a kill."""

    run: Run
    hits: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What came after a kill: `mongover status`, then the next command."""

    project: Project
    crash: CrashRun
    status: Run
    following: Run

    @property
    def blocked(self) -> bool:
        """Whether mongover asks a person to look and to say what a revision left."""
        return self.asks and "mongover resolve" in self.following.text

    @property
    def asks(self) -> bool:
        """Whether history and files disagree and the message names a command that ends it."""
        way_out = self.following.text.rpartition("next:")[2]
        return self.following.exit_code == _DISAGREEMENT and "mongover " in way_out


@dataclass(frozen=True, slots=True)
class Finding:
    """What went wrong after one kill."""

    crash: str
    problem: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a sweep did: every kill with its recovery, and what was found wrong."""

    recoveries: tuple[Recovery, ...]
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return len(self.recoveries)

    @property
    def blocked(self) -> int:
        """After how many kills a person was asked to look."""
        return sum(recovery.blocked for recovery in self.recoveries)

    def text(self) -> str:
        """The report for people."""
        head = (
            f"{self.kills} kills in {self.seconds:.0f} s: {self.kills - self.blocked} continued by "
            f"themselves, {self.blocked} asked for a resolution, {len(self.findings)} findings"
        )
        return "\n".join([head, *(f"- {each.crash}\n  {each.problem}" for each in self.findings)])


# ---- one run ------------------------------------------------------------------------------------


def run(project: Project, command: Sequence[str]) -> Run:
    """Run `mongover COMMAND …` on the project, without a proxy."""
    with _started(project, command, project.url) as process:
        return _ended(project, command, process, time.monotonic())


def crash_points(project: Project, command: Sequence[str]) -> tuple[Command, ...]:
    """The writes at which a command can be killed, in order: it runs once, to its end.

    The database afterwards is as the command leaves it.

    Raises:
        MongoverError: the command failed.
    """
    with _proxy(project, None) as proxy:
        with _started(project, command, proxied_url(project.url, proxy.port)) as process:
            ended = _ended(project, command, process, time.monotonic())
        _refuse_errors(proxy)
    if ended.exit_code != 0:
        raise MongoverError(
            f"mongover {' '.join(command)} ended with exit code {ended.exit_code}: {ended.text}",
            hint="a command must succeed before it can be killed half-way",
        )
    return tuple(proxy.seen)


def run_and_kill(
    project: Project, command: Sequence[str], *, at: int, when: When = When.AFTER
) -> CrashRun:
    """Run a command and kill it with SIGKILL at its write number `at` (from 1).

    Raises:
        NotKilled: it ended before.
    """
    victim = _Victim()
    with _proxy(project, Fault(at, When(when), victim.kill)) as proxy:
        url = proxied_url(project.url, proxy.port)
        with _started(project, command, url) as process:
            victim.meet(process)
            ended = _ended(project, command, process, time.monotonic())
        _refuse_errors(proxy)
    if ended.exit_code != KILLED or not proxy.hits:
        raise NotKilled(
            f"mongover {' '.join(command)} ended with exit code {ended.exit_code} after "
            f"{len(proxy.seen)} writes, before it could be killed at number {at}: {ended.text}"
        )
    return CrashRun(ended, at, When(when), proxy.hits[0])


def run_and_disconnect(
    project: Project,
    command: Sequence[str],
    *,
    at: int,
    when: When = When.AFTER,
    times: int = 1,
    counts: Callable[[Command], bool] = is_write,
) -> Broken:
    """Run a command whose connection breaks at its write number `at`, `times` writes in a row.

    `AFTER` is the fault that no client can tell from a lost command: executed, reply lost.
    """
    fault = Fault(at, When(when), times=times)
    with _proxy(project, fault, counts) as proxy:
        with _started(project, command, proxied_url(project.url, proxy.port)) as process:
            ended = _ended(project, command, process, time.monotonic())
        _refuse_errors(proxy)
        return Broken(ended, tuple(proxy.hits))


def recover(project: Project, crash: CrashRun, following: Sequence[str]) -> Recovery:
    """What `mongover status` and then the next command make of a crash."""
    status = run(project, ["status", "--json"])
    return Recovery(project, crash, status, run(project, following))


class _Victim:
    """A process that may have to be killed before its number is known here."""

    def __init__(self) -> None:
        self._known = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def meet(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._known.set()

    def kill(self) -> None:
        self._known.wait()
        if self._process is not None:
            self._process.kill()


@contextlib.contextmanager
def _started(project: Project, command: Sequence[str], url: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(  # noqa: S603 - this very interpreter, with the tester's own arguments
        [sys.executable, "-m", "mongover", *command],
        cwd=project.folder,
        env=project.environment(url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _ended(
    project: Project, command: Sequence[str], process: subprocess.Popen[str], began: float
) -> Run:
    out, err = process.communicate(timeout=project.timeout)
    return Run(tuple(command), process.returncode, out, err, time.monotonic() - began)


def _refuse_errors(proxy: Proxy) -> None:
    for error in proxy.errors:
        raise error


# ---- the way to the server ----------------------------------------------------------------------


def _proxy(
    project: Project, fault: Fault | None, counts: Callable[[Command], bool] = is_write
) -> Proxy:
    return Proxy(_primary_of(project.url), fault=fault, counts=counts)


def _primary_of(url: str) -> tuple[str, int | None]:
    from pymongo import MongoClient

    with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=10_000) as client:
        client.admin.command("hello")
        address = client.address
    if address is None:
        raise UsageError("the server has no primary", hint="wait for its election")
    return address


def proxied_url(url: str, port: int) -> str:
    """The URL with the proxy in the place of its hosts, and all that a proxy cannot do left out.

    Raises:
        UsageError: the URL asks for TLS, for a DNS lookup, or is no MongoDB URL.
    """
    scheme, found, rest = url.partition("://")
    if not found or scheme != "mongodb":
        raise UsageError(
            f"the crash harness needs a mongodb:// URL, not {scheme}:",
            hint="`mongover mongod` prints the URL of a private server",
        )
    network, _, tail = rest.partition("/")
    path, _, query = tail.partition("?")
    user, at, _ = network.rpartition("@")
    options = [option for option in query.split("&") if option]
    kept = [option for option in options if _name(option) not in _NOT_THROUGH_A_PROXY]
    if any(_name(option) in {"tls", "ssl"} and option.endswith("true") for option in options):
        raise UsageError("the crash harness cannot read what TLS hides", hint="test without TLS")
    return f"mongodb://{user}{at}127.0.0.1:{port}/{path}?" + "&".join(
        [*kept, "directConnection=true"]
    )


def _name(option: str) -> str:
    return option.partition("=")[0].lower()


# ---- every write of a command -------------------------------------------------------------------


def _nothing(project: Project) -> None:
    """No preparation: the command starts on an empty database."""


def _agree(*_: object) -> None:
    """No check of the tester's own."""


@dataclass(frozen=True, slots=True)
class _Sweep:
    """What is the same at every point of a sweep."""

    project: Project
    command: tuple[str, ...]
    following: tuple[str, ...]
    prepare: Callable[[Project], None]
    inspect: Callable[[Project, CrashRun], None]
    check: Callable[[Recovery], None]
    trial: str = field(default_factory=lambda: uuid4().hex[:6])

    def at(self, name: str) -> Project:
        """The project on a database of one point."""
        return replace(self.project, database=f"{self.project.database}_{self.trial}_{name}")


def sweep(
    project: Project,
    command: Sequence[str],
    *,
    following: Sequence[str] | None = None,
    prepare: Callable[[Project], None] = _nothing,
    inspect: Callable[[Project, CrashRun], None] = _agree,
    check: Callable[[Recovery], None] = _agree,
    choose: Callable[[Sequence[Command]], Iterable[int]] | None = None,
    workers: int = 2,
) -> Report:
    """Kill a command before and after each of its writes, each time in a database of its own.

    Args:
        project: Its `database` is the beginning of the databases' names; they are dropped.
        command: What is killed: `["upgrade"]`, `["downgrade", "base"]`.
        following: What is run after `mongover status`; the same command again by default.
        prepare: Brings a new database to where the command starts.
        inspect: Raises AssertionError for what should not be right after the kill.
        check: The same, after the recovery.
        choose: The numbers (from 1) of the writes to die at, out of all; every one by default.
        workers: How many kills are tried at once.

    Returns:
        A report whose `findings` are the failed checks, tracebacks, and refusals without a way out.
    """
    plan = _Sweep(project, tuple(command), tuple(following or command), prepare, inspect, check)
    began = time.monotonic()
    with _fresh(plan, "points") as first:
        points = crash_points(first, command)
    numbers = range(1, len(points) + 1) if choose is None else sorted(set(choose(points)))
    cases = [(number, when) for number in numbers for when in When]
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(lambda case: _crash_at(plan, *case), cases))
    recoveries = tuple(found for found, _ in results if found is not None)
    findings = tuple(finding for _, group in results for finding in group)
    return Report(recoveries, findings, time.monotonic() - began)


@contextlib.contextmanager
def _fresh(plan: _Sweep, name: str) -> Iterator[Project]:
    """A prepared database, dropped at the end."""
    from pymongo import MongoClient

    project = plan.at(name)
    try:
        plan.prepare(project)
        yield project
    finally:
        with MongoClient[dict[str, Any]](project.url) as client:
            client.drop_database(project.database)


def _crash_at(plan: _Sweep, at: int, when: When) -> tuple[Recovery | None, list[Finding]]:
    with _fresh(plan, f"{at}_{when}") as project:
        try:
            crash = run_and_kill(project, plan.command, at=at, when=when)
        except NotKilled as error:
            return None, [Finding(f"{' '.join(plan.command)} at write {at}", error.message)]
        problems = list(_failed(plan.inspect, project, crash))
        recovery = recover(project, crash, plan.following)
        problems += _problems(plan, recovery)
        return recovery, [Finding(str(crash), text) for text in problems]


def _problems(plan: _Sweep, recovery: Recovery) -> Iterator[str]:
    """What is wrong with a recovery."""
    following = recovery.following
    for each in (recovery.crash.run, recovery.status, following):
        if each.broke:
            yield f"`mongover {' '.join(each.command)}` ended with a traceback: {each.text}"
    if recovery.status.exit_code != 0:
        yield f"`mongover status` ended with {recovery.status.exit_code}: {recovery.status.text}"
    if following.exit_code != 0 and not recovery.asks:
        yield f"`mongover {' '.join(following.command)}` named no way out: {following.text}"
    yield from _failed(plan.check, recovery)


def _failed(check: Callable[..., None], *values: Any) -> Iterator[str]:
    try:
        check(*values)
    except AssertionError as error:
        yield f"check failed: {error}"
