"""A turn: one request carried out under the lease, from the first plan to the result.

With nothing to do it takes no lease. Otherwise the history is read and the plan made again once the
lease is held, because another process may just have done the work.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from mongover import events, records
from mongover.errors import Blocked, DatabaseError, UsageError
from mongover.identity import author
from mongover.plan import plan_downgrade, plan_upgrade, status_rows
from mongover.records import RUNNING, Direction, Resolution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mongover.checkpointing import Workplace
    from mongover.config import Config
    from mongover.events import Listener
    from mongover.holding import Held
    from mongover.plan import Plan
    from mongover.records import Change, Record
    from mongover.rejects import Retried
    from mongover.revision import RevisionFiles
    from mongover.runner import Surroundings
    from mongover.script import Script
    from mongover.server import ServerInfo
    from mongover.stop import Stop
    from mongover.store import Store

    Records = Mapping[str, Record]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for, and by whom it is heard and stopped."""

    command: str
    direction: Direction
    target: str
    listener: Listener
    stop: Stop
    retry: bool = False
    lock_wait: float | None = None  # instead of the configured one
    run: str | None = None  # the id under which the history shall know the run


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
class Turn:
    """The means of a turn: the configuration, where the history is, and the files."""

    config: Config
    store: Store
    files: RevisionFiles
    redact: Callable[[str], str]

    @property
    def by(self) -> Mapping[str, Any]:
        """Who acts, as the records will name them."""
        return author(self.config.versions)

    def plan(self, direction: Direction, target: str, known: Records) -> Plan:
        """The steps to a target; asks for a recorded text only where a checksum differs."""
        if direction is Direction.DOWN:
            return plan_downgrade(self.files, known, target, sources=self.source)
        policy = self.config.out_of_order
        return plan_upgrade(self.files, known, target, out_of_order=policy, sources=self.source)

    def source(self, revision: str) -> str:
        """The text of a revision as it was applied; empty where the history holds none."""
        record = self.store.history.read_one(revision)
        return "" if record is None or record.source is None else record.source

    def run(self, request: Request) -> RunResult:
        """Carry out an upgrade or a downgrade.

        Raises:
            MongoverError: files and history disagree, the lock is held, or a revision failed.
        """
        started = time.monotonic()
        known: Records = self.store.history.read()
        if not someone_runs(known):
            plan, _ = self._plan_retrying(request, known)
            if not plan.steps:
                return _nothing(plan, started)
        with self._held(request, self._still_needed(request)) as held:
            if held is None:
                known = self.store.history.read()
                return _nothing(self.plan(request.direction, request.target, known), started)
            plan, retried = self._plan_retrying(request, held.known)
            if not plan.steps:
                return _nothing(plan, started)
            return self._run_held(request, held, plan, retried)

    def write(
        self, request: Request, changes: Callable[[Records], tuple[Change, ...]]
    ) -> tuple[str, ...]:
        """Write changes of records under the lease, and return the ids that changed.

        What refuses the changes, or needs none, takes no lease.
        """
        known: Records = self.store.history.read()
        if not someone_runs(known) and not changes(known):
            return ()
        with self._held(request, lambda _: True) as found:
            held = cast("Held", found)  # always needed, so nothing gives up waiting
            made = changes(held.known)
            self.store.history.write(made)
            return tuple(change.revision for change in made)

    def retry_rejects(self, request: Request, revision: str) -> Retried:
        """Run a revision's transforms on the documents that they rejected, under the lease.

        Raises:
            UsageError: the revision has no file to run.
        """
        from mongover.rejects import retry_rejects  # noqa: PLC0415 - the driver is heavy
        from mongover.trial import noted  # noqa: PLC0415 - the same

        operations = noted(self.script(revision), Direction.UP)
        with self._held(request, lambda _: True) as found:
            held = cast("Held", found)  # always needed, so nothing gives up waiting
            server = self.store.server
            return retry_rejects(
                server.database,
                self.store.rejects,
                revision,
                operations,
                transactions=server.info().transactions,
                check=held.lease.check,
            )

    def script(self, revision: str) -> Script:
        """The code of one revision, loaded to run a part of it."""
        from mongover.script import load_script  # noqa: PLC0415 - needed for few commands

        if revision not in self.files.revisions:
            raise UsageError(
                f"{revision} has no file to run", hint=f"mongover restore {revision} writes it back"
            )
        return load_script(self.files.revisions[revision], paths=(self.config.root,))

    def _still_needed(self, request: Request) -> Callable[[Records], bool]:
        def needed(known: Records) -> bool:
            if request.retry or someone_runs(known):
                return True
            return bool(self.plan(request.direction, request.target, known).steps)

        return needed

    @contextmanager
    def _held(self, request: Request, needed: Callable[[Records], bool]) -> Iterator[Held | None]:
        from mongover.holding import hold  # noqa: PLC0415 - the driver is heavy

        # Who cannot write would wait for a lock in vain.
        _refuse_read_only(self.store.server.info())
        with hold(
            self.store.new_lease(request.command, wait=request.lock_wait),
            self.store.server.session(),
            history=self.store.history,
            listener=request.listener,
            stop=request.stop,
            needed=needed,
        ) as held:
            yield held

    def _plan_retrying(self, request: Request, known: Records) -> tuple[Plan, Sequence[Change]]:
        """The plan, and with `retry` the resolution of the one blocked revision that it runs."""
        blocked = [record for record in known.values() if _can_retry(record)]
        if not request.retry or not blocked:
            return self.plan(request.direction, request.target, known), ()
        retried = {each.revision: replace(each, repeatable=True) for each in blocked}
        plan = self.plan(request.direction, request.target, {**known, **retried})
        ids = {step.revision.id for step in plan.steps}
        blocked = [record for record in blocked if record.revision in ids]
        if len(blocked) > 1:
            raise _several(blocked)
        return plan, [
            records.resolve(
                each, Resolution.RETRY, by=self.by, reason="upgrade --retry", sequence=0
            )
            for each in blocked
        ]

    def _run_held(
        self, request: Request, held: Held, plan: Plan, retried: Sequence[Change]
    ) -> RunResult:
        from mongover.runner import load_scripts, refuse_transactions, run_plan  # noqa: PLC0415

        started, run = time.monotonic(), request.run or uuid4().hex
        info = self.store.server.info()
        refuse_transactions(plan, available=info.transactions)
        scripts = load_scripts(plan, project=self.config.root)
        around = self._surroundings(request, held, run=run, transactions=info.transactions)
        _announce(plan, run, info, request.listener)
        # Only now: all that could refuse the plan has agreed to it.
        self.store.history.write(retried)
        warnings = run_plan(plan, scripts, held.known, around)
        seconds = time.monotonic() - started
        ids = tuple(step.revision.id for step in plan.steps)
        request.listener(events.RunFinished(run, plan.direction, ids, seconds))
        heads = _heads_after(plan, self.files, self.store.history.read())
        said = _done(plan, seconds)
        return RunResult(plan.direction, plan.target, run, ids, seconds, warnings, said, heads)

    def _surroundings(
        self, request: Request, held: Held, *, run: str, transactions: bool
    ) -> Surroundings:
        from mongover.runner import Surroundings  # noqa: PLC0415 - the driver is heavy
        from mongover.transaction import run_transaction  # noqa: PLC0415 - the driver is heavy

        def transact(work: Callable[[], None]) -> None:
            run_transaction(
                held.session,
                work,
                watch=self.store.server.watch,
                before=held.lease.check,
                attempts=self.config.transaction_attempts,
            )

        return Surroundings(
            run=run,
            database=self.store.server.database,
            history=self.store.history,
            lease=held.lease,
            listener=request.listener,
            stop=request.stop,
            by=self.by,
            redact=self.redact,
            transact=transact,
            session=held.session,
            transactions=transactions,
            strict=self.config.strict,
            max_time_ms=int(self.config.ddl_max_time * 1_000),
            protected=own_collections(self.config),
            workplace=_workplace(self.config, self.store),
        )


def someone_runs(known: Records) -> bool:
    """Whether a record says that its revision is being run."""
    return any(record.state in RUNNING for record in known.values())


def _can_retry(record: Record) -> bool:
    return record.blocked and record.direction is Direction.UP


def _several(blocked: Sequence[Record]) -> Blocked:
    names = ", ".join(record.revision for record in blocked)
    return Blocked(
        f"several revisions are blocked: {names}",
        hint=f'resolve each: mongover resolve {blocked[0].revision} --retry --reason "…"',
        after="nothing was run.",
    )


@dataclass(frozen=True, slots=True)
class OwnCollections:
    """The collections that no operation may name: some by name, the backups by how they begin."""

    names: frozenset[str]
    backups: str

    def __contains__(self, name: object) -> bool:
        return name in self.names or (isinstance(name, str) and name.startswith(self.backups))


def own_collections(config: Config) -> OwnCollections:
    """Those of a history: it, its lock, and all that stands beside it."""
    from mongover.operations.backup import backups_of  # noqa: PLC0415 - needed only to run

    name = config.collection
    names = {name, config.lock_collection, f"{name}_checkpoints", f"{name}_rejects"}
    return OwnCollections(frozenset(names), backups_of(name))


def _workplace(config: Config, store: Store) -> Workplace | None:
    """Where long operations keep their checkpoints; None where workers cannot connect."""
    from mongover.checkpointing import Workplace  # noqa: PLC0415 - the driver is heavy

    if not store.url:
        return None
    return Workplace(
        checkpoints=f"{config.collection}_checkpoints",
        rejects=f"{config.collection}_rejects",
        url=store.url,
        database=config.database,
        timeout=config.connect_timeout,
    )


def _refuse_read_only(info: ServerInfo) -> None:
    if not info.writable:
        raise DatabaseError(
            f"{info.address} is a secondary: it cannot be written to",
            hint="name the replica set in `url` instead of one member: …/?replicaSet=NAME",
            after="nothing was run.",
        )


def _announce(plan: Plan, run: str, info: ServerInfo, listener: Listener) -> None:
    for notice in plan.notices:
        listener(events.Notice(notice))
    total = len(plan.steps)
    listener(events.RunStarted(run, plan.direction, plan.target, total, info.address))


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
    plan: Plan, files: RevisionFiles, known: Records
) -> Mapping[str | None, tuple[str, ...]]:
    """Where the lines that the plan touched stand now."""
    touched = {step.revision.schema for step in plan.steps}
    return {row.schema: row.current for row in status_rows(files, known) if row.schema in touched}
