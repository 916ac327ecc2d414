"""`Migrator`: the one facade over files, history, lease and runner, and the only wiring of them.

Every method takes plain values and returns plain values; nothing here prints. What reads never
writes, creates or locks anything.
"""

from __future__ import annotations

import difflib
import os
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast
from uuid import uuid4

from mongover import events, records
from mongover.authoring import next_id, numbered_files, restore_file, write_revision
from mongover.authoring import number_of as file_number
from mongover.catalogue import catalogue
from mongover.config import load_config
from mongover.errors import (
    Blocked,
    DatabaseError,
    MissingFile,
    UnknownTarget,
    UsageError,
    Where,
)
from mongover.events import ignore
from mongover.graph import Graph, Targets, number_of
from mongover.identity import author
from mongover.plan import (
    applied_in_order,
    find_problems,
    find_revision,
    known_graph,
    plan_downgrade,
    plan_upgrade,
    status_rows,
)
from mongover.rebase import rebase
from mongover.records import RUNNING, Direction, Resolution
from mongover.revision import normalise_text, read_revisions
from mongover.stop import Stop
from mongover.urls import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mongover.catalogue import Catalogue
    from mongover.checkpointing import Workplace
    from mongover.config import Config
    from mongover.doctor import Finding
    from mongover.events import Listener
    from mongover.holding import Held
    from mongover.lease import LeaseState
    from mongover.plan import Plan, Problem
    from mongover.records import Change, LogEntry, Record
    from mongover.revision import Revision, RevisionFiles
    from mongover.runner import Surroundings
    from mongover.server import ServerInfo
    from mongover.store import Store
    from mongover.survey import Status


@dataclass(frozen=True, slots=True)
class RunResult:
    """What an upgrade or a downgrade did; `run` is None when there was nothing to do."""

    direction: Direction
    target: str
    run: str | None
    revisions: tuple[str, ...]
    seconds: float
    warnings: tuple[str, ...] = ()
    message: str = ""
    heads: Mapping[str | None, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The value as `--json` and the HTTP API show it."""
        done = "applied" if self.direction is Direction.UP else "reverted"
        return {
            "direction": self.direction.value,
            "target": self.target,
            "run": self.run,
            done: list(self.revisions),
            "durationMs": round(self.seconds * 1_000, 1),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is known of one revision: its file, its record (with log), and what is wrong."""

    revision: Revision | None
    record: Record | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """One line of the log of everything ever done."""

    revision: str
    entry: LogEntry


class Migrator:
    """Migrations of one database from one folder of revision files.

    Open it with `with Migrator.from_config() as migrator:`; `close` ends the connection and, when
    this process started it, the embedded server.
    """

    def __init__(self, config: Config, *, environ: Mapping[str, str] | None = None) -> None:
        self.config = config
        self._environ = dict(os.environ if environ is None else environ)
        self._stack = ExitStack()
        self._opened: Store | None = None
        self._opening = threading.Lock()  # threads share one connection

    @classmethod
    def from_config(
        cls,
        path: str | Path | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        **overrides: object,
    ) -> Migrator:
        """A migrator for the configuration file at `path`, or the one found upwards from `cwd`.

        Raises:
            ConfigError: the file, a key or a value is wrong.
        """
        config = load_config(
            None if path is None else Path(path),
            overrides=overrides,
            environ=os.environ if environ is None else environ,
            cwd=Path.cwd() if cwd is None else Path(cwd),
        )
        return cls(config, environ=environ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and the embedded server; the migrator can be used again."""
        self._opened = None
        self._stack.close()

    # ---- reading -------------------------------------------------------------------------------

    def status(self, *, schema: str | None = None) -> Status:
        """Every line with its state, what is pending, the problems and the lease.

        Raises:
            UnknownTarget: there is no such schema.
        """
        with self._database() as store:
            return self._status(store, schema)

    def current(self) -> tuple[Record, ...]:
        """The records of the applied heads of every line, in order of their ids."""
        files = self._files()
        with self._database() as store:
            known = self._seen(store)
        ids = [head for row in status_rows(files, known) for head in row.current]
        return tuple(known[revision] for revision in sorted(ids, key=_by_number))

    def heads(self) -> tuple[Revision, ...]:
        """The newest revision of every line, from the files alone."""
        files = self._files()
        graph = Graph(files.revisions.values())
        ids = [head for schema in graph.schemas for head in graph.heads(schema)]
        return tuple(files.revisions[revision] for revision in sorted(ids, key=_by_number))

    def history(self, span: str | None = None, *, details: bool = False) -> tuple[Record, ...]:
        """The records in order of application; `span` is a range of revisions such as `0002:`."""
        with self._database() as store:
            known = store.history.read(details=details)
        chosen = list(known.values())
        if span is not None:
            graph = known_graph(self._files(), known, whole=True)
            wanted = set(Targets(graph, applied_in_order(known)).span(span))
            chosen = [record for record in chosen if record.revision in wanted]
        return tuple(sorted(chosen, key=lambda record: (record.sequence, record.revision)))

    def log(self) -> tuple[LoggedEntry, ...]:
        """Everything ever done, newest first."""
        entries = [
            LoggedEntry(record.revision, entry)
            for record in self.history(details=True)
            for entry in record.log
        ]
        return tuple(sorted(entries, key=lambda one: str(one.entry.at), reverse=True))

    def show(self, target: str) -> Shown:
        """One revision: file, record with its log, problems."""
        with self._database() as store:
            files, known = self._files(), self._seen(store)
            revision = find_revision(files, known, target)
            problems = find_problems(files, known, sources=self._sources(store))
            return Shown(
                files.revisions.get(revision),
                store.history.read_one(revision),
                tuple(problem for problem in problems if problem.revision == revision),
            )

    def catalogue(self) -> Catalogue:
        """Every revision of files and history with its links and states, and every problem."""
        with self._database() as store:
            known = self._seen(store)
            return catalogue(self._files(), known, sources=self._sources(store))

    def plan(self, direction: Direction, target: str) -> Plan:
        """What an upgrade or a downgrade to the target would run; runs no code of a revision."""
        with self._database() as store:
            known = self._seen(store)
            return self._plan(direction, target, self._files(), known, self._sources(store))

    def check(self) -> tuple[Problem, ...]:
        """What is wrong with the files by themselves; asks no server."""
        return tuple(find_problems(self._files(), {}, sources=_no_sources))

    def verify(self) -> tuple[Problem, ...]:
        """Every record against every file."""
        with self._database() as store:
            known = self._seen(store)
            return tuple(find_problems(self._files(), known, sources=self._sources(store)))

    def diff(self, target: str) -> str:
        """What changed in a file since it was applied, as a unified diff; empty if nothing did.

        Raises:
            UsageError: the history holds no text of it.
            MissingFile: there is no file to compare with.
            InvalidRevision: its file cannot be read.
        """
        record = self._with_source(target)
        revision = _file(self._files(), record.revision)
        before, after, name = record.source or "", revision.code, revision.path.name
        lines = difflib.unified_diff(
            normalise_text(before).splitlines(),
            after.splitlines(),
            f"{name} (applied)",
            name,
            lineterm="",
        )
        return "".join(line + "\n" for line in lines)

    def lock(self) -> LeaseState | None:
        """The lease as it stands; None if there never was one."""
        with self._database() as store:
            return store.read_lease()

    def doctor(self) -> tuple[Finding, ...]:
        """A look at everything that a run needs."""
        from mongover.doctor import examine  # noqa: PLC0415 - the driver is heavy

        with self._database() as store:
            return tuple(examine(store))

    # ---- running -------------------------------------------------------------------------------

    def upgrade(
        self,
        target: str = "head",
        *,
        retry: bool = False,
        lock_wait: float | None = None,
        run: str | None = None,
        listener: Listener = ignore,
        stop: Stop | None = None,
    ) -> RunResult:
        """Apply what the target asks for and everything that it needs, under the lease.

        `retry` first resolves the one blocked revision as repeatable. `lock_wait` counts instead
        of the configured one; `run` is the id under which the history shall know this run.

        Raises:
            MongoverError: files and history disagree, the lock is held, or a revision failed.
        """
        request = _Request("upgrade", Direction.UP, target, listener, stop or Stop(), retry)
        return self._run(replace(request, lock_wait=lock_wait, run=run))

    def downgrade(
        self,
        target: str,
        *,
        lock_wait: float | None = None,
        run: str | None = None,
        listener: Listener = ignore,
        stop: Stop | None = None,
    ) -> RunResult:
        """Revert what stands above the target, in reverse order of application, under the lease.

        `lock_wait` and `run` are those of `upgrade`.

        Raises:
            MongoverError: as for `upgrade`; also a revision that has no downgrade.
        """
        request = _Request("downgrade", Direction.DOWN, target, listener, stop or Stop())
        return self._run(replace(request, lock_wait=lock_wait, run=run))

    def stamp(self, target: str, *, reason: str = "") -> tuple[str, ...]:
        """Record revisions as applied (or, below a base, as reverted) without running them.

        Returns the ids whose records changed.
        """
        with self._database() as store:
            return self._write_held(
                store, "stamp", lambda known: self._stamps(target, known, reason)
            )

    def resolve(self, target: str, resolution: Resolution, *, reason: str) -> Record:
        """End the blocked state of a revision with what a person found out.

        Raises:
            UsageError: the revision did not stop half-way.
        """

        def change(record: Record, known: Mapping[str, Record]) -> Change:
            if record.state not in records.STOPPED:
                raise UsageError(
                    f"{record.revision} is {record.state}; only a failed or interrupted revision "
                    "can be resolved",
                    hint="`mongover status` shows which ones are",
                )
            return records.resolve(
                record, resolution, by=self._by(), reason=reason, sequence=_next_place(known)
            )

        return self._change_one("resolve", target, change)

    def repair(self, target: str, *, reason: str) -> Record:
        """Accept an applied revision as it is now: its file, and that its warnings were mended.

        Raises:
            UsageError: the revision is not applied, or there is nothing to accept.
            MissingFile: there is no file.
            InvalidRevision: its file cannot be read.
        """
        files = self._files()

        def change(record: Record, known: Mapping[str, Record]) -> Change:
            del known
            if not record.counts_as_applied:
                raise UsageError(
                    f"{record.revision} is {record.state}, so its file may be edited freely",
                    hint="only what is applied is bound to its text: see `mongover status`",
                )
            revision = _file(files, record.revision)
            if record.checksum == revision.checksum and not record.warnings:
                raise UsageError(
                    f"{record.revision} needs no repair: its file is what was applied",
                    hint="`mongover verify` compares every record with its file",
                )
            from mongover.runner import subject_of  # noqa: PLC0415 - the driver is heavy

            return records.repair(record, subject_of(revision), by=self._by(), reason=reason)

        return self._change_one("repair", target, change)

    def unlock(self, *, owner: str | None = None) -> LeaseState:
        """End the lease: an expired one freely, a live one only for who names its owner.

        Raises:
            LockHeld: it is alive and `owner` is not its owner.
        """
        with self._database() as store:
            return store.end_lease(owner)

    # ---- files ---------------------------------------------------------------------------------

    def create_revision(
        self,
        message: str,
        *,
        schema: str | None = None,
        depends_on: Sequence[str] = (),
        id: str | None = None,  # noqa: A002 - the word that a user writes
    ) -> Path:
        """Write a new revision file on top of its line.

        Raises:
            MultipleHeads: the line has two heads; nothing says which one to follow.
        """
        files = self._files()
        graph = Graph(files.revisions.values())
        needed = tuple(Targets(graph, ()).one(target) for target in depends_on)
        return write_revision(
            files.folder,
            id=next_id((*files.revisions, *files.broken)) if id is None else id,
            message=message,
            schema=schema,
            down_revision=_parents(graph, schema),
            depends_on=needed,
        )

    def merge(self, schema: str | None, message: str) -> Path:
        """Write a revision that has all heads of a line as parents.

        Raises:
            UsageError: the line has no two heads.
        """
        files = self._files()
        heads = Graph(files.revisions.values()).heads(schema)
        if len(heads) < 2:  # noqa: PLR2004 - a merge is of two at least
            name = schema or "the unnamed line"
            raise UsageError(f"{name} has no two heads to merge")
        return write_revision(
            files.folder,
            id=next_id((*files.revisions, *files.broken)),
            message=message,
            schema=schema,
            down_revision=tuple(heads),
            depends_on=(),
        )

    def rebase(self, target: str) -> tuple[Path, ...]:
        """Give a revision that was never applied the next number on top of its line.

        Returns the files that were written.

        Raises:
            UsageError: it was applied, and its id stands in the history.
        """
        files = self._files()
        with self._database() as store:
            known = store.history.read()
        if target.endswith(".py"):  # the name of a file: its number may be another's, too
            record = next((one for one in known.values() if one.file == Path(target).name), None)
        else:
            target = Targets(Graph(files.revisions.values(), broken=files.broken), ()).one(target)
            record = known.get(target)
        if record is not None:
            raise UsageError(
                f"{record.revision} stands in the history ({record.state}), so it keeps its id",
                hint="`mongover merge` joins two heads of a line",
            )
        return tuple(rebase(files, target))

    def restore(self, target: str) -> Path:
        """Write a missing file back from its record, byte for byte; never over another file.

        Raises:
            UsageError: the history holds no text of it, or a file with its number is there.
        """
        record = self._with_source(target)
        there = _path_of(self._files(), record.revision)
        if there is not None:
            raise UsageError(
                f"{there.name} is there, and nothing is written over a file",
                hint=f"move it away, then: mongover restore {record.revision}",
                where=Where(there),
                after="nothing was restored.",
            )
        return restore_file(
            self.config.versions,
            id=record.revision,
            message=record.message,
            source=record.source or "",
            name=record.file,
        )

    # ---- inside --------------------------------------------------------------------------------

    def _with_source(self, target: str) -> Record:
        """The record that a target names, with the text that was applied."""
        with self._database() as store:
            revision = find_revision(self._files(), self._seen(store), target)
            record = store.history.read_one(revision)
        if record is None or record.source is None:
            raise UsageError(
                f"the history holds no text of {revision}: it was never applied from here",
                hint=f"`mongover show {revision}` shows what is known of it",
            )
        return record

    def _files(self) -> RevisionFiles:
        return read_revisions(self.config.versions)

    @contextmanager
    def _database(self) -> Iterator[Store]:
        """The open store; the driver's errors leave here as ours, without secrets."""
        from pymongo.errors import PyMongoError  # noqa: PLC0415 - the driver is heavy

        from mongover.faults import translate  # noqa: PLC0415 - the driver is heavy

        store = self._open()
        try:
            yield store
        except PyMongoError as error:
            server = store.server
            ours = translate(error, address=server.address, timeout=server.timeout)
            ours.message = self._redact(ours.message)
            ours.notes = tuple(map(self._redact, ours.notes))
            raise ours from error

    def _open(self) -> Store:
        from mongover.store import open_store  # noqa: PLC0415 - the driver is heavy

        with self._opening:  # threads of a web server share one migrator
            if self._opened is None:
                self._opened = open_store(self.config, environ=self._environ, stack=self._stack)
            return self._opened

    def _seen(self, store: Store) -> Mapping[str, Record]:
        """The history as it stands; what a dead holder left running is shown as interrupted."""
        from mongover.survey import without_dead  # noqa: PLC0415 - the driver is heavy

        known = store.history.read()
        if not _someone_runs(known):
            return known
        return without_dead(known, store.read_lease(), store.history.read())

    def _targets(self, files: RevisionFiles, known: Mapping[str, Record]) -> Targets:
        return Targets(known_graph(files, known), applied_in_order(known))

    def _sources(self, store: Store) -> Callable[[str], str]:
        def source(revision: str) -> str:
            record = store.history.read_one(revision)
            return "" if record is None or record.source is None else record.source

        return source

    def _plan(
        self,
        direction: Direction,
        target: str,
        files: RevisionFiles,
        known: Mapping[str, Record],
        sources: Callable[[str], str],
    ) -> Plan:
        if direction is Direction.DOWN:
            return plan_downgrade(files, known, target, sources=sources)
        policy = self.config.out_of_order
        return plan_upgrade(files, known, target, out_of_order=policy, sources=sources)

    def _status(self, store: Store, only: str | None) -> Status:
        from mongover.survey import Status, survey_lines  # noqa: PLC0415 - the driver is heavy

        known, files = self._seen(store), self._files()
        rows = [row for row in status_rows(files, known) if only in (None, row.schema)]
        if not rows and only is not None:
            names = [str(row.schema) for row in status_rows(files, known)]
            raise UnknownTarget(f"there is no schema {only!r}", hint=f"known: {', '.join(names)}")
        applied = [record for record in known.values() if record.counts_as_applied]
        schemas = survey_lines(store.server, rows, files, applied)
        return Status(
            database=self.config.database,
            server=store.server.info(),
            schemas=schemas,
            applied=len(applied),
            pending=tuple(revision for line in schemas for revision in line.pending),
            problems=tuple(find_problems(files, known, sources=self._sources(store))),
            lock=store.read_lease(),
            last=max(applied, key=lambda record: record.sequence, default=None),
        )

    # ---- under the lease -----------------------------------------------------------------------

    def _run(self, request: _Request) -> RunResult:
        started = time.monotonic()
        files = self._files()
        with self._database() as store:
            known: Mapping[str, Record] = store.history.read()

            def plan_on(known: Mapping[str, Record]) -> Plan:
                sources = self._sources(store)
                return self._plan(request.direction, request.target, files, known, sources)

            if not _someone_runs(known):
                plan, _ = self._plan_retrying(request, known, plan_on)
                if not plan.steps:
                    return _nothing(plan, started)
            with self._held(store, request, plan_on) as held:
                if held is None:
                    return _nothing(plan_on(store.history.read()), started)
                plan, retried = self._plan_retrying(request, held.known, plan_on)
                if not plan.steps:
                    return _nothing(plan, started)
                return self._run_held(store, request, held, plan, files, retried)

    @contextmanager
    def _held(
        self,
        store: Store,
        request: _Request,
        plan_on: Callable[[Mapping[str, Record]], Plan] | None = None,
    ) -> Iterator[Held | None]:
        from mongover.holding import hold  # noqa: PLC0415 - the driver is heavy

        _refuse_read_only(store.server.info())  # who cannot write would wait for a lock in vain

        def needed(known: Mapping[str, Record]) -> bool:
            if plan_on is None or request.retry or _someone_runs(known):
                return True
            return bool(plan_on(known).steps)

        with hold(
            store.new_lease(request.command, wait=request.lock_wait),
            store.server.session(),
            history=store.history,
            listener=request.listener,
            stop=request.stop,
            needed=needed,
        ) as held:
            yield held

    @contextmanager
    def _surely_held(self, store: Store, command: str) -> Iterator[Held]:
        """The lease for one change of the history, which has no plan that may turn out empty."""
        with self._held(store, _Request.of(command)) as held:
            yield cast("Held", held)  # without a plan, nothing gives up waiting

    def _plan_retrying(
        self,
        request: _Request,
        known: Mapping[str, Record],
        plan_on: Callable[[Mapping[str, Record]], Plan],
    ) -> tuple[Plan, Sequence[Change]]:
        """The plan, and with `retry` the resolution of the one blocked revision that it runs."""
        blocked = [record for record in known.values() if _can_retry(record)]
        if not request.retry or not blocked:
            return plan_on(known), ()
        plan = plan_on({**known, **{each.revision: _retried(each) for each in blocked}})
        ids = {step.revision.id for step in plan.steps}
        blocked = [record for record in blocked if record.revision in ids]
        if len(blocked) > 1:
            names = ", ".join(record.revision for record in blocked)
            raise Blocked(
                f"several revisions are blocked: {names}",
                hint=f'resolve each: mongover resolve {blocked[0].revision} --retry --reason "…"',
                after="nothing was run.",
            )
        by, reason = self._by(), "upgrade --retry"
        return plan, [
            records.resolve(each, Resolution.RETRY, by=by, reason=reason, sequence=0)
            for each in blocked
        ]

    def _run_held(  # noqa: PLR0917 - private
        self,
        store: Store,
        request: _Request,
        held: Held,
        plan: Plan,
        files: RevisionFiles,
        retried: Sequence[Change],
    ) -> RunResult:
        from mongover.runner import load_scripts, refuse_transactions, run_plan  # noqa: PLC0415

        started, run = time.monotonic(), request.run or uuid4().hex
        info = store.server.info()
        refuse_transactions(plan, available=info.transactions)
        scripts = load_scripts(plan, project=self.config.root)
        around = self._surroundings(store, request, held, run=run, transactions=info.transactions)
        ids = tuple(step.revision.id for step in plan.steps)
        for notice in plan.notices:
            request.listener(events.Notice(notice))
        total = len(plan.steps)
        request.listener(events.RunStarted(run, plan.direction, plan.target, total, info.address))
        store.history.write(retried)  # only now: all that could refuse the plan has agreed to it
        warnings = run_plan(plan, scripts, held.known, around)
        seconds = time.monotonic() - started
        request.listener(events.RunFinished(run, plan.direction, ids, seconds))
        heads = _heads_after(plan, files, store.history.read())
        return RunResult(
            plan.direction, plan.target, run, ids, seconds, warnings, _done(plan, seconds), heads
        )

    def _surroundings(
        self, store: Store, request: _Request, held: Held, *, run: str, transactions: bool
    ) -> Surroundings:
        from mongover.runner import Surroundings  # noqa: PLC0415 - the driver is heavy
        from mongover.transaction import run_transaction  # noqa: PLC0415 - the driver is heavy

        def transact(work: Callable[[], None]) -> None:
            run_transaction(
                held.session,
                work,
                watch=store.server.watch,
                before=held.lease.check,
                attempts=self.config.transaction_attempts,
            )

        return Surroundings(
            run=run,
            database=store.server.database,
            history=store.history,
            lease=held.lease,
            listener=request.listener,
            stop=request.stop,
            by=self._by(),
            redact=self._redact,
            transact=transact,
            session=held.session,
            transactions=transactions,
            strict=self.config.strict,
            max_time_ms=int(self.config.ddl_max_time * 1_000),
            protected=frozenset(self._own_collections()),
            workplace=self._workplace(store),
        )

    def _workplace(self, store: Store) -> Workplace | None:
        from mongover.checkpointing import Workplace  # noqa: PLC0415 - the driver is heavy

        if not store.url:
            return None
        return Workplace(
            checkpoints=f"{self.config.collection}_checkpoints",
            rejects=f"{self.config.collection}_rejects",
            url=store.url,
            database=self.config.database,
            timeout=self.config.connect_timeout,
        )

    def _own_collections(self) -> tuple[str, ...]:
        name = self.config.collection
        return (name, self.config.lock_collection, f"{name}_checkpoints", f"{name}_rejects")

    def _change_one(
        self, command: str, target: str, change: Callable[[Record, Mapping[str, Record]], Change]
    ) -> Record:
        """Change one record under the lease, and return it as it then is."""
        files = self._files()

        def changes(known: Mapping[str, Record]) -> tuple[Change, ...]:
            revision = find_revision(files, known, target)
            if revision not in known:
                raise UsageError(
                    f"{revision} has no record: it never ran",
                    hint=f"`mongover show {revision}` shows its file",
                )
            return (change(known[revision], known),)

        with self._database() as store:
            (written,) = self._write_held(store, command, changes)
            return cast("Record", store.history.read_one(written))  # no record is ever deleted

    def _write_held(
        self,
        store: Store,
        command: str,
        changes: Callable[[Mapping[str, Record]], tuple[Change, ...]],
    ) -> tuple[str, ...]:
        """Write changes under the lease; what refuses them, or needs none, takes no lease."""
        known: Mapping[str, Record] = store.history.read()
        if not _someone_runs(known) and not changes(known):
            return ()
        with self._surely_held(store, command) as held:
            made = changes(held.known)
            store.history.write(made)
            return tuple(change.revision for change in made)

    def _stamps(self, target: str, known: Mapping[str, Record], reason: str) -> tuple[Change, ...]:
        from mongover.runner import subject_of  # noqa: PLC0415 - the driver is heavy

        files, by = self._files(), self._by()
        stopped = [each for each, record in known.items() if record.state in records.STOPPED]
        try:
            add, remove = self._targets(files, known).stamp(target, stopped=stopped)
        except UnknownTarget:
            _file(files, find_revision(files, known, target))
            raise
        place = _next_place(known)
        return tuple(
            records.stamp(
                subject_of(_file(files, revision)),
                known.get(revision),
                by=by,
                reason=reason,
                sequence=place + index,
            )
            for index, revision in enumerate(add)
        ) + tuple(records.unstamp(known[revision], by=by, reason=reason) for revision in remove)

    def _by(self) -> Mapping[str, Any]:
        return author(self.config.versions)

    def _redact(self, text: str) -> str:
        return redact(text, self.config.url.reveal())


@dataclass(frozen=True, slots=True)
class _Request:
    """What was asked for, and by whom it is heard and stopped."""

    command: str
    direction: Direction
    target: str
    listener: Listener
    stop: Stop
    retry: bool = False
    lock_wait: float | None = None
    run: str | None = None

    @classmethod
    def of(cls, command: str) -> _Request:
        """A request for one change of the history, without a plan."""
        return cls(command, Direction.UP, "head", ignore, Stop())


def _someone_runs(known: Mapping[str, Record]) -> bool:
    return any(record.state in RUNNING for record in known.values())


def _nothing(plan: Plan, started: float) -> RunResult:
    seconds = time.monotonic() - started
    return RunResult(
        plan.direction, plan.target, None, (), seconds, tuple(plan.notices), plan.nothing
    )


def _done(plan: Plan, seconds: float) -> str:
    done = "applied" if plan.direction is Direction.UP else "reverted"
    count = len(plan.steps)
    return f"{count} revision{'' if count == 1 else 's'} {done} in {seconds:.1f} s"


def _heads_after(
    plan: Plan, files: RevisionFiles, known: Mapping[str, Record]
) -> Mapping[str | None, tuple[str, ...]]:
    """Where the lines that the plan touched stand now."""
    touched = {step.revision.schema for step in plan.steps}
    return {row.schema: row.current for row in status_rows(files, known) if row.schema in touched}


def _refuse_read_only(info: ServerInfo) -> None:
    if not info.writable:
        raise DatabaseError(
            f"{info.address} is a secondary: it cannot be written to",
            hint="name the replica set in `url` instead of one member: …/?replicaSet=NAME",
            after="nothing was run.",
        )


def _no_file(revision: str) -> MissingFile:
    return MissingFile(
        f"{revision} has no file", hint=f"mongover restore {revision} writes it back"
    )


def _can_retry(record: Record) -> bool:
    return record.blocked and record.direction is Direction.UP


def _retried(record: Record) -> Record:
    """The record as it will be once it is resolved as repeatable."""
    return replace(record, repeatable=True)


def _path_of(files: RevisionFiles, revision: str) -> Path | None:
    """Where the file with the number of a revision is, readable or not."""
    if revision in files.revisions:
        return files.revisions[revision].path
    there = (path for path in numbered_files(files.folder) if file_number(path) == revision)
    return next(there, None)


def _file(files: RevisionFiles, revision: str) -> Revision:
    if revision not in files.revisions:
        raise files.broken.get(revision) or _no_file(revision)
    return files.revisions[revision]


def _next_place(known: Mapping[str, Record]) -> int:
    return max((record.sequence for record in known.values()), default=0) + 1


def _by_number(revision: str) -> tuple[int, str]:
    return number_of(revision)


def _no_sources(revision: str) -> str:
    raise AssertionError(f"no record, so no recorded text of {revision} can be asked for")


def _parents(graph: Graph, schema: str | None) -> tuple[str, ...]:
    if schema not in graph.lines:
        return ()
    graph.check_heads(schema)
    return tuple(graph.heads(schema))
