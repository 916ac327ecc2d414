"""A turn: one request carried out under the lease, from the first plan to the result.

With nothing to do it takes no lease. Otherwise the history is read and the plan made again once the
lease is held, because another process may just have done the work.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast
from uuid import uuid4

from mongover.config.names import own_collections
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
from mongover.history import changes
from mongover.history.author import author
from mongover.history.changes import Resolution
from mongover.history.record import RUNNING, Direction, State
from mongover.planning.case import applied_in_order, known_graph
from mongover.planning.lines import status_rows
from mongover.planning.ownership import owners
from mongover.planning.plan import plan_downgrade, plan_upgrade
from mongover.planning.targets import Targets
from mongover.running import events
from mongover.running.request import RunResult

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from mongover.config.config import Config
    from mongover.database.server import ServerInfo
    from mongover.history.changes import Change
    from mongover.history.record import Record
    from mongover.history.store import Store
    from mongover.operations import Operation
    from mongover.planning.plan import Plan
    from mongover.revisions.revision import RevisionFiles
    from mongover.running.events import Listener
    from mongover.running.hold import Held
    from mongover.running.journal import Surroundings
    from mongover.running.long_work import Workplace
    from mongover.running.losses import Losses
    from mongover.running.rejects import Retried, RetriedRevision
    from mongover.running.request import Request
    from mongover.running.script import Script

    Records = Mapping[str, Record]


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
        from mongover.running.losses import Losses, losses_of

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
        from mongover.running.rejects import function_gone

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
        from mongover.running.noting import noted
        from mongover.running.script import where_in

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
        from mongover.running.rejects import retry_rejects

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
        from mongover.running.rejects import rejecting_revisions

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
        from mongover.running.rejects import RetriedRevision, count_rejects, function_gone

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
        from mongover.running.script import load_script

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
        from mongover.running.hold import hold

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
            changes.resolve(
                each, Resolution.RETRY, by=self.by, reason="upgrade --retry", sequence=0
            )
            for each in blocked
        ]

    def _run_held(
        self, request: Request, held: Held, plan: Plan, retried: Sequence[Change]
    ) -> RunResult:
        from mongover.running.runner import load_scripts, refuse_transactions, run_plan

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
        from mongover.running.losses import refuse_losses

        refuse_losses(plan, self.losses(plan, known, request.allow_data_loss))

    def _surroundings(
        self, request: Request, held: Held, *, run: str, transactions: bool
    ) -> Surroundings:
        from mongover.database.transaction import run_transaction
        from mongover.running.journal import Surroundings

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


def _workplace(config: Config, store: Store) -> Workplace | None:
    """Where long operations keep their checkpoints; None where workers cannot connect."""
    from mongover.running.long_work import Workplace

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
