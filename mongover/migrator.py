"""`Migrator`: the one facade over files, history, lease and runner, and the only wiring of them.

Every method takes plain values and returns plain values; nothing here prints. What reads never
writes, creates or locks anything.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mongover.config.load import load_config
from mongover.config.urls import redact
from mongover.errors import UsageError, Where
from mongover.history.record import Direction
from mongover.planning.case import applied_in_order, find_revision, known_graph
from mongover.planning.corrections import (
    acceptance_of,
    change_of,
    file_of,
    path_of,
    resolution_of,
    stamps,
)
from mongover.planning.drafts import draft, draft_merge, unapplied
from mongover.planning.graph import Graph, number_of
from mongover.planning.lines import status_rows
from mongover.planning.problems import Problem, find_problems
from mongover.planning.targets import Targets
from mongover.report.seen import seen_history
from mongover.report.shown import LoggedEntry, Shown
from mongover.revisions.folder import read_revisions
from mongover.revisions.text import normalise_text
from mongover.revisions.write import restore_file
from mongover.running.events import ignore
from mongover.running.request import Request, RunResult
from mongover.running.stop import Stop
from mongover.running.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from typing import Self

    from mongover.config.config import Config
    from mongover.history.changes import Change, Resolution
    from mongover.history.lease import LeaseState
    from mongover.history.record import Record
    from mongover.history.store import Store
    from mongover.operations.backup import BackupInfo
    from mongover.planning.plan import Plan
    from mongover.preflight.doctor import Finding
    from mongover.preflight.trial import Tried
    from mongover.report.catalogue import Catalogue
    from mongover.report.status import Status
    from mongover.revisions.revision import Revision, RevisionFiles
    from mongover.running.events import Listener
    from mongover.running.rejects import Rejected, Retried


__all__ = ["LoggedEntry", "Migrator", "RunResult", "Shown"]


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
        from mongover.report.status import status_of

        with self._turn() as turn:
            return status_of(
                turn.store,
                turn.files,
                database=self.config.database,
                schema=schema,
                sources=turn.source,
            )

    def current(self) -> tuple[Record, ...]:
        """The records of the applied heads of every line, in order of their ids."""
        files = self._files()
        with self._database() as store:
            known = seen_history(store)
        ids = [head for row in status_rows(files, known) for head in row.current]
        return tuple(known[revision] for revision in sorted(ids, key=_by_number))

    def heads(self) -> tuple[Revision, ...]:
        """The newest revision of every line, from the files alone.

        Raises:
            CycleError: a line runs in a circle, and ends nowhere.
        """
        files = self._files()
        graph = Graph(files.revisions.values())
        for schema in graph.schemas:
            graph.check_circles(schema)
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
        with self._turn() as turn:
            files, known = turn.files, seen_history(turn.store)
            revision = find_revision(files, known, target)
            problems = find_problems(files, known, sources=turn.source)
            return Shown(
                files.revisions.get(revision),
                turn.store.history.read_one(revision),
                tuple(problem for problem in problems if problem.revision == revision),
            )

    def catalogue(self) -> Catalogue:
        """Every revision of files and history with its links and states, and every problem."""
        from mongover.report.catalogue import catalogue

        with self._turn() as turn:
            return catalogue(turn.files, seen_history(turn.store), sources=turn.source)

    def plan(
        self, direction: Direction, target: str, *, allow_data_loss: Collection[str] = ()
    ) -> Plan:
        """What an upgrade or a downgrade to the target would run; runs no code of a revision.

        A downgrade's plan says what it would destroy, as far as the text of the files tells, with
        estimated counts; `allow_data_loss` is that of `downgrade`.
        """
        from mongover.preflight.forecast import forewarned

        with self._turn() as turn:
            known = seen_history(turn.store)
            plan = turn.plan(direction, target, known)
            losses = turn.losses(plan, known, _names(allow_data_loss))
            plan = replace(plan, destroys=losses.destroys, unforeseen=losses.unforeseen)
            return forewarned(plan, lambda: turn.store.server.info().transactions)

    def check(self) -> tuple[Problem, ...]:
        """What is wrong with the files by themselves, and with their code; asks no server."""
        from mongover.running.bodies import find_faults

        files = self._files()
        faults = [
            Problem(revision.id, "unrunnable", error.message, error.hint, error)
            for revision in files.revisions.values()
            for error in find_faults(revision)
        ]
        return (*find_problems(files, {}, sources=_no_sources), *faults)

    def verify(self) -> tuple[Problem, ...]:
        """Every record against every file."""
        with self._turn() as turn:
            known = seen_history(turn.store)
            return tuple(find_problems(turn.files, known, sources=turn.source))

    def diff(self, target: str) -> str:
        """What changed in a file since it was applied, as a unified diff; empty if nothing did.

        Raises:
            UsageError: the history holds no text of it.
            MissingFile: there is no file to compare with.
            InvalidRevision: its file cannot be read.
        """
        from difflib import unified_diff

        record = self._with_source(target)
        revision = file_of(self._files(), record.revision)
        before, after, name = record.source or "", revision.code, revision.path.name
        lines = unified_diff(
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
        from mongover.preflight.doctor import examine

        with self._database() as store:
            return tuple(examine(store))

    # ---- running -------------------------------------------------------------------------------

    def upgrade(
        self,
        target: str = "head",
        *,
        retry: bool = False,
        retry_rejects: bool = False,
        lock_wait: float | None = None,
        run: str | None = None,
        listener: Listener = ignore,
        stop: Stop | None = None,
    ) -> RunResult:
        """Apply what the target asks for and everything that it needs, under the lease.

        `retry` first resolves the one blocked revision as repeatable. `retry_rejects` first tries
        the documents again that applied revisions kept aside, of those that the target needs;
        what fails again is warned of. `lock_wait` counts instead of the configured one; `run` is
        the id under which the history shall know this run.

        Raises:
            MongoverError: files and history disagree, the lock is held, or a revision failed.
        """
        request = Request(
            command="upgrade",
            direction=Direction.UP,
            target=target,
            listener=listener,
            stop=stop or Stop(),
            retry=retry,
            retry_rejects=retry_rejects,
            lock_wait=lock_wait,
            run=run,
        )
        with self._turn() as turn:
            return turn.run(request)

    def downgrade(
        self,
        target: str,
        *,
        allow_data_loss: Collection[str] = (),
        lock_wait: float | None = None,
        run: str | None = None,
        listener: Listener = ignore,
        stop: Stop | None = None,
    ) -> RunResult:
        """Revert what stands above the target, in reverse order of application, under the lease.

        What no revision made (the revision was stamped, or its upgrade found it there) is not
        destroyed, unless its collection, or `collection.index` or `collection.field`, is among
        `allow_data_loss`. `lock_wait` and `run` are those of `upgrade`.

        Raises:
            NotOurs: it would destroy what no revision made.
            MongoverError: as for `upgrade`; also a revision that has no downgrade.
        """
        request = Request(
            command="downgrade",
            direction=Direction.DOWN,
            target=target,
            listener=listener,
            stop=stop or Stop(),
            allow_data_loss=_names(allow_data_loss),
            lock_wait=lock_wait,
            run=run,
        )
        with self._turn() as turn:
            return turn.run(request)

    def stamp(
        self,
        target: str,
        *,
        reason: str = "",
        listener: Listener = ignore,
        stop: Stop | None = None,
    ) -> tuple[str, ...]:
        """Record revisions as applied (or, below a base, as reverted) without running them.

        Returns the ids whose records changed.

        Raises:
            TargetError: the target names nothing.
            MissingFile: a revision that would be marked as applied has no file.
        """
        with self._turn() as turn:
            return turn.write(
                _correction("stamp", listener, stop),
                lambda known: stamps(target, turn.files, known, by=turn.by, reason=reason),
            )

    def resolve(
        self,
        target: str,
        resolution: Resolution,
        *,
        reason: str,
        listener: Listener = ignore,
        stop: Stop | None = None,
    ) -> Record:
        """End the blocked state of a revision with what a person found out.

        Raises:
            UsageError: the revision did not stop half-way.
        """
        with self._turn() as turn:

            def change(record: Record, known: Mapping[str, Record]) -> Change:
                return resolution_of(record, known, resolution, by=turn.by, reason=reason)

            request = _correction("resolve", listener, stop)
            return _written(turn, request, change_of(turn.files, target, change))

    def repair(
        self,
        target: str,
        *,
        reason: str,
        listener: Listener = ignore,
        stop: Stop | None = None,
    ) -> Record:
        """Accept an applied revision as it is now: its file, and that its warnings were mended.

        Raises:
            UsageError: the revision is not applied, or there is nothing to accept.
            MissingFile: there is no file.
            InvalidRevision: its file cannot be read.
        """
        with self._turn() as turn:

            def change(record: Record, known: Mapping[str, Record]) -> Change:
                del known
                return acceptance_of(record, turn.files, by=turn.by, reason=reason)

            request = _correction("repair", listener, stop)
            return _written(turn, request, change_of(turn.files, target, change))

    def unlock(self, *, owner: str | None = None) -> LeaseState:
        """End the lease: an expired one freely, a live one only for who names its owner.

        Raises:
            LockHeld: it is alive and `owner` is not its owner.
        """
        with self._database() as store:
            return store.end_lease(owner)

    # ---- data ----------------------------------------------------------------------------------

    def try_revision(self, target: str, *, sample: int = 10) -> tuple[Tried, ...]:
        """What a revision's operations would do to a sample of documents; nothing is written.

        Runs the revision's code with an `op` that only notes what it is asked for.

        Raises:
            OperationFailed: the revision uses `op.db`, which cannot be held back.
        """
        from mongover.preflight.trial import try_operation
        from mongover.running.noting import operations_of

        with self._turn() as turn:
            known = seen_history(turn.store)
            revision = find_revision(turn.files, known, target)
            operations = operations_of(turn.files, revision, project=self.config.root)
            db = turn.store.server.database
            return tuple(try_operation(db, operation, sample) for operation in operations)

    def rejects(self, target: str | None = None, *, limit: int = 0) -> tuple[Rejected, ...]:
        """The documents that transforms kept aside, of all revisions or of one."""
        from mongover.running.rejects import read_rejects

        with self._database() as store:
            revision = None
            if target is not None:
                revision = find_revision(self._files(), seen_history(store), target)
            return read_rejects(store.rejects, revision, limit=limit)

    def retry_rejects(
        self, target: str, *, listener: Listener = ignore, stop: Stop | None = None
    ) -> Retried:
        """Run a revision's transforms on the documents that they kept aside, under the lease."""
        with self._turn() as turn:
            known = seen_history(turn.store)
            revision = find_revision(turn.files, known, target)
            return turn.retry_rejects(_correction("rejects", listener, stop), revision)

    def backups(self) -> tuple[BackupInfo, ...]:
        """What revisions kept of what they removed."""
        from mongover.operations.backup import list_backups

        with self._database() as store:
            return list_backups(store.server.database, self.config.own)

    def drop_backup(self, name: str) -> BackupInfo:
        """Drop one backup; nothing else can put its values back."""
        from mongover.operations.backup import drop_backup

        with self._database() as store:
            return drop_backup(store.server.database, self.config.own, name)

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
        return draft(self._files(), message, schema=schema, depends_on=depends_on, identifier=id)

    def merge(self, schema: str | None, message: str) -> Path:
        """Write a revision that has all heads of a line as parents.

        Raises:
            UsageError: the line has no two heads.
            CycleError: it runs in a circle.
            FilesError: it has no two heads, but a file cannot be read that may be one.
        """
        return draft_merge(self._files(), schema, message)

    def rebase(self, target: str) -> tuple[Path, ...]:
        """Give a revision that was never applied the next number on top of its line.

        Returns the files that were written.

        Raises:
            UsageError: it was applied, and its id stands in the history.
        """
        from mongover.revisions.rebase import rebase

        files = self._files()
        with self._database() as store:
            known = store.history.read()
        return tuple(rebase(files, unapplied(files, known, target)))

    def restore(self, target: str) -> Path:
        """Write a missing file back from its record, byte for byte; never over another file.

        Raises:
            UsageError: the history holds no text of it, or a file with its number is there.
        """
        record = self._with_source(target)
        there = path_of(self._files(), record.revision)
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
            revision = find_revision(self._files(), seen_history(store), target)
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
        from pymongo.errors import PyMongoError

        from mongover.database.faults import translate

        store = self._open()
        try:
            yield store
        except PyMongoError as error:
            server = store.server
            address, timeout = server.address, server.timeout
            raise translate(error, address=address, timeout=timeout, redact=self._redact) from error

    @contextmanager
    def _turn(self) -> Iterator[Turn]:
        """The open store and the files as they are now, for one request."""
        files = self._files()
        with self._database() as store:
            yield Turn(self.config, store, files, self._redact)

    def _open(self) -> Store:
        from mongover.history.store import open_store

        if self.config.unready is not None:
            raise self.config.unready
        with self._opening:  # threads of a web server share one migrator
            if self._opened is None:
                self._opened = open_store(self.config, environ=self._environ, stack=self._stack)
            return self._opened

    def _redact(self, text: str) -> str:
        return redact(text, self.config.url.reveal())


def _correction(command: str, listener: Listener, stop: Stop | None) -> Request:
    """A request for changes of the history, without a plan."""
    return Request(
        command=command,
        direction=Direction.UP,
        target="",
        listener=listener,
        stop=stop or Stop(),
    )


def _written(
    turn: Turn,
    request: Request,
    changes: Callable[[Mapping[str, Record]], tuple[Change, ...]],
) -> Record:
    """Make the one change of a record, and return the record as it then is."""
    (revision,) = turn.write(request, changes)
    return cast("Record", turn.store.history.read_one(revision))  # no record is ever deleted


def _names(given: Collection[str]) -> frozenset[str]:
    """Names as a set; one name alone is meant as one, not as its letters."""
    return frozenset((given,) if isinstance(given, str) else given)


def _by_number(revision: str) -> tuple[int, str]:
    return number_of(revision)


def _no_sources(revision: str) -> str:
    raise AssertionError(f"no record, so no recorded text of {revision} can be asked for")
