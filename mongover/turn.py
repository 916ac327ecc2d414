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
from mongover.errors import (
    Blocked,
    DatabaseError,
    FilesError,
    Interrupted,
    MongoverError,
    RevisionError,
    RevisionFailed,
    UsageError,
)
from mongover.graph import Targets
from mongover.identity import author
from mongover.ownership import owners
from mongover.plan import (
    applied_in_order,
    known_graph,
    plan_downgrade,
    plan_upgrade,
    status_rows,
)
from mongover.records import RUNNING, Direction, Resolution, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from mongover.checkpointing import Workplace
    from mongover.config import Config
    from mongover.events import Listener
    from mongover.holding import Held
    from mongover.losses import Losses
    from mongover.operations import Operation
    from mongover.plan import Plan
    from mongover.records import Change, Record
    from mongover.rejects import Retried, RetriedRevision
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
    retry_rejects: bool = False
    allow_data_loss: frozenset[str] = frozenset()
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
    rejects: tuple[RetriedRevision, ...] | None = None  # None where no retry was asked for

    def to_json(self) -> dict[str, Any]:
        """The value as `--json` and the HTTP API show it."""
        done = "applied" if self.direction is Direction.UP else "reverted"
        tried = self.rejects
        more = {} if tried is None else {"rejects": [one.to_json() for one in tried]}
        return {
            "direction": self.direction.value,
            "target": self.target,
            "run": self.run,
            done: list(self.revisions),
            "durationMs": round(self.seconds * 1_000, 1),
            "warnings": list(self.warnings),
            **more,
        }

    def with_rejects(self, tried: tuple[RetriedRevision, ...] | None) -> RunResult:
        """The same, with what became of rejected documents; those that are left are warned of."""
        warned = tuple(filter(None, (one.warning() for one in tried or ())))
        return replace(self, rejects=tried, warnings=(*self.warnings, *warned))


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

    def losses(self, plan: Plan, known: Records, allowed: Collection[str] = ()) -> Losses:
        """What a downgrade would destroy, as far as its text tells; runs nothing."""
        from mongover.losses import Losses, losses_of  # noqa: PLC0415 - only a downgrade looks

        if plan.direction is not Direction.DOWN or not plan.steps:
            return Losses()
        owned = owners(plan, known, self.store.history.read_one)
        return losses_of(plan, owned, self.store.server.database, allowed)

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
            if not plan.steps and not self._rejecting(request, known):
                return _nothing(plan, started, request)
        with self._held(request, self._still_needed(request)) as held:
            if held is None:
                known = self.store.history.read()
                plan = self.plan(request.direction, request.target, known)
                return _nothing(plan, started, request)
            plan, retried = self._plan_retrying(request, held.known)
            if not plan.steps:
                tried = self._retry_all(request, held)
                return _nothing(plan, started, request).with_rejects(tried)
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
            OperationFailed: it has not all of these transforms any more; the others were tried.
        """
        from mongover.rejects import function_gone  # noqa: PLC0415 - the driver is heavy

        operations = self.noted(revision)
        with self._held(request, lambda _: True) as found:
            held = cast("Held", found)  # always needed, so nothing gives up waiting
            result = self._try_rejects(request, held, revision, operations)
        if result.gone:
            raise function_gone(revision, result.gone)
        return result

    def noted(self, revision: str) -> tuple[Operation, ...]:
        """The operations that a revision's upgrade asks for; nothing of it is done.

        Raises:
            UsageError: the revision has no file to run.
            RevisionFailed: its code raised.
        """
        from mongover.script import where_in  # noqa: PLC0415 - needed for few commands
        from mongover.trial import noted  # noqa: PLC0415 - the driver is heavy

        script = self.script(revision)
        try:
            return noted(script, Direction.UP)
        except MongoverError:
            raise
        except Exception as error:
            raise RevisionFailed(
                f"{revision}: upgrade() raised {type(error).__name__} while it was asked for its "
                "operations",
                where=where_in(script.revision.path, error.__traceback__),
                hint="mend it so that its operations can be told without their effects",
                after="nothing of it was run.",
            ) from error

    def _try_rejects(
        self, request: Request, held: Held, revision: str, operations: Iterable[Operation]
    ) -> Retried:
        from mongover.rejects import retry_rejects  # noqa: PLC0415 - the driver is heavy

        def check() -> None:
            held.lease.check()
            if request.stop.requested:
                raise Interrupted(
                    f"stopped between two rejected documents of {revision}, as asked",
                    hint="the same command goes on with those that are left",
                    after="the lock was released.",
                )

        server = self.store.server
        return retry_rejects(
            server.database,
            self.store.rejects,
            revision,
            operations,
            transactions=server.info().transactions,
            check=check,
        )

    def _rejecting(self, request: Request, known: Records) -> tuple[str, ...]:
        """The applied revisions that the target needs and that kept documents aside."""
        if not request.retry_rejects:
            return ()
        from mongover.rejects import rejecting_revisions  # noqa: PLC0415 - the driver is heavy

        graph, applied = known_graph(self.files, known), applied_in_order(known)
        scope = graph.ancestors(Targets(graph, applied).upgrade(request.target).ids)
        kept = rejecting_revisions(self.store.rejects) & scope
        return tuple(each for each in applied if each in kept and _is_applied(known[each]))

    def _retry_all(self, request: Request, held: Held) -> tuple[RetriedRevision, ...] | None:
        if not request.retry_rejects:
            return None
        revisions = self._rejecting(request, held.known)
        return tuple(self._retry_one(request, held, each) for each in revisions)

    def _retry_one(self, request: Request, held: Held, revision: str) -> RetriedRevision:
        """Retry the rejects of one revision; what is wrong with its code alone stops no other."""
        from mongover.rejects import (  # noqa: PLC0415 - the driver is heavy
            RetriedRevision,
            count_rejects,
            function_gone,
        )

        try:
            result = self._try_rejects(request, held, revision, self.noted(revision))
            gone = function_gone(revision, result.gone) if result.gone else None
            problem = "" if gone is None else _told(gone)
            tried = RetriedRevision(revision, result.done, result.left, problem)
        except (FilesError, RevisionError, UsageError) as error:
            left = count_rejects(self.store.rejects, revision)
            tried = RetriedRevision(revision, 0, left, _told(error))
        request.listener(events.Notice(tried.sentence(), revision))
        return tried

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
            if self.plan(request.direction, request.target, known).steps:
                return True
            return bool(self._rejecting(request, known))

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
        retried = {each.revision: each.retried() for each in blocked}
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
        self._refuse_losses(request, plan, held.known)
        around = replace(
            self._surroundings(request, held, run=run, transactions=info.transactions),
            ours=owners(plan, held.known, self.store.history.read_one),
        )
        _announce(plan, run, info, request.listener)
        # Only now: all that could refuse the plan has agreed to it.
        self.store.history.write(retried)
        tried = self._retry_all(request, held)
        warnings = run_plan(plan, scripts, held.known, around)
        seconds = time.monotonic() - started
        ids = tuple(step.revision.id for step in plan.steps)
        request.listener(events.RunFinished(run, plan.direction, ids, seconds))
        heads = _heads_after(plan, self.files, self.store.history.read())
        said = _done(plan, seconds)
        result = RunResult(plan.direction, plan.target, run, ids, seconds, warnings, said, heads)
        return result.with_rejects(tried)

    def _refuse_losses(self, request: Request, plan: Plan, known: Records) -> None:
        from mongover.losses import refuse_losses  # noqa: PLC0415 - only a downgrade looks

        refuse_losses(plan, self.losses(plan, known, request.allow_data_loss))

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
            watch=self.store.server.watch,
            workplace=_workplace(self.config, self.store),
            target=request.target,
            allowed=request.allow_data_loss,
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


def _nothing(plan: Plan, started: float, request: Request) -> RunResult:
    seconds = time.monotonic() - started
    result = RunResult(
        plan.direction, plan.target, None, (), seconds, tuple(plan.notices), plan.nothing
    )
    return result.with_rejects(() if request.retry_rejects else None)


def _is_applied(record: Record) -> bool:
    return record.state is State.APPLIED


def _told(error: MongoverError) -> str:
    """An error, its place and its way out in one sentence."""
    place = ""
    if error.where is not None and error.where.line is not None:
        place = f" ({error.where.path.name}:{error.where.line})"
    return f"{error.message}{place}; {error.hint}" if error.hint else f"{error.message}{place}"


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
