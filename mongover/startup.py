"""Migrations at the start of an application: one call for any program, one line for FastAPI.

ensure_head("alembic-style.ini")                    # any program
app = FastAPI(lifespan=lifespan("alembic-style.ini"))  # FastAPI, Starlette
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from mongover.config.urls import redact
from mongover.errors import (
    Ahead,
    DatabaseError,
    EmbeddedError,
    Interrupted,
    MongoverError,
    PendingRevisions,
    UsageError,
)
from mongover.process import told_of_shutdown
from mongover.running.log import RunLog, failure_text
from mongover.running.stop import Stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from mongover.config.config import Config
    from mongover.migrator import Migrator, RunResult
    from mongover.planning.plan import Plan

logger = logging.getLogger("mongover.startup")

Policy = Literal["upgrade", "wait", "check", "off"]
OnError = Literal["log", "raise"]
State = Literal["starting", "done", "failed", "pending", "ahead", "off"]

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0


class Startup:
    """The migration of one start: where it stands, and how to wait for it or stop it.

    Attributes:
        state: `starting` until it is over; then `done`, `failed`, `pending` (policy check or wait),
            `ahead` (the database is of a newer release) or `off`.
        error: What ended it, if anything did.
        result: What an upgrade did.
    """

    def __init__(
        self,
        policy: Policy,
        open_migrator: Callable[[], Migrator],
        *,
        timeout: float | None = None,
    ) -> None:
        self.policy = policy
        self.state: State = "starting"
        self.error: Exception | None = None
        self.result: RunResult | None = None
        self._open = open_migrator
        self._timeout = timeout
        self._url = ""
        self._stop = Stop()
        self._stopped = threading.Event()
        self._over = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether it is over, however it ended: the database itself says if anything is pending."""
        return self._over.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Return when it is over, or after `timeout` seconds; whether it is over."""
        return self._over.wait(timeout)

    def stop(self) -> None:
        """Ask it to end at the next safe point; a second time, at once."""
        self._stopped.set()
        self._stop.request()

    def to_json(self) -> dict[str, Any]:
        """Its state and the code of its error, for the health."""
        error = self.error
        code = error.code if isinstance(error, MongoverError) else error and MongoverError.code
        return {"policy": self.policy, "state": self.state, "code": code}

    def run(self) -> None:
        """Do what the policy says, once; how it ended is kept and logged, and not raised."""
        began = time.monotonic()
        try:
            self.state = self._act()
        except Exception as error:  # noqa: BLE001 - the boundary: kept, told, and raised on request
            self._fail(error)
        except BaseException:
            self.state = "failed"
            raise
        finally:
            self._over.set()
            logger.debug("start-up %s after %.3f s", self.state, time.monotonic() - began)

    def _act(self) -> State:
        if self.policy == "off":
            return "off"
        migrator = self._open()
        self._url = migrator.config.url.reveal()
        for warning in migrator.config.warnings:
            logger.warning("%s", warning)
        try:
            return self._upgrade(migrator) if self.policy == "upgrade" else self._look(migrator)
        finally:
            # Ending the connection takes as long as the driver's threads sleep; nobody waits.
            threading.Thread(target=migrator.close, name="mongover-close").start()

    def _upgrade(self, migrator: Migrator) -> State:
        self.result = migrator.upgrade("head", listener=RunLog("start-up"), stop=self._stop)
        logger.info("%s", self.result.message)
        for warning in self.result.warnings:
            logger.warning("%s", warning)
        return "done"

    def _look(self, migrator: Migrator) -> State:
        """Return once nothing is pending; with policy `wait`, another process may see to it."""
        timeout = migrator.config.lock_wait if self._timeout is None else self._timeout
        deadline = time.monotonic() + (timeout if self.policy == "wait" else 0.0)
        pause = _FIRST_PAUSE
        while True:
            left = deadline - time.monotonic()
            found = _pending(migrator, patient=left > 0)
            if found is not None and not found.steps and not found.running:
                logger.info("%s", found.nothing)
                return "done"
            if found is not None and left <= 0:
                raise _pending_error(found)
            if self._stopped.wait(min(pause, left)):
                raise Interrupted("stopped while waiting for the migrations of another process")
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _fail(self, error: Exception) -> None:
        self.error = error
        if isinstance(error, Ahead):
            self.state = "ahead"
            logger.warning("%s; the application starts as it is", error.message)
            return
        self.state = "pending" if isinstance(error, PendingRevisions) else "failed"
        text = failure_text(error, lambda text: redact(text, self._url))
        level = logging.WARNING if isinstance(error, Interrupted) else logging.ERROR
        logger.log(level, "the migrations at the start did not succeed\n%s", text)


def _pending(migrator: Migrator, *, patient: bool) -> Plan | None:
    """What is still to be applied; None when the server does not answer yet."""
    from mongover.history.record import Direction

    try:
        return migrator.plan(Direction.UP, "head")
    except (DatabaseError, EmbeddedError):
        if not patient:
            raise
        return None


def _pending_error(plan: Plan) -> PendingRevisions:
    ids = [*plan.running, *(step.revision.id for step in plan.steps)]
    shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")  # noqa: PLR2004 - part of one line
    return PendingRevisions(
        f"the database lacks {len(ids)} revision{'s'[: len(ids) - 1]}: {shown}",
        hint="run `mongover upgrade`",
    )


def ensure_head(
    config: Config | str | Path | None = None,
    *,
    policy: Policy = "upgrade",
    on_error: OnError = "log",
    blocking: bool = True,
    timeout: float | None = None,
    environ: Mapping[str, str] | None = None,
    **overrides: Any,
) -> Startup:
    """Bring the database to head, wait for another process to do so, or only look.

    With nothing pending this is one read, without a lock. By default a failure is logged in full
    and the program goes on. A database that a newer release has migrated is a warning.

    Args:
        config: A configuration, its file, or (None) the one found upwards from the working folder.
        policy: `upgrade` under the lock; `wait` until another process did; `check`; `off`.
        on_error: `log` and go on, or `raise`.
        blocking: False works in a thread; the value returned says when it is over.
        timeout: Seconds that `wait` waits; by default the configured `lock_wait`.
        environ: Instead of the process's environment.
        overrides: Keys of the configuration.

    Raises:
        UsageError: a policy or an `on_error` that there is not.
        MongoverError: with `on_error="raise"` and `blocking`, what went wrong.
    """
    startup = _prepare(
        config,
        policy=policy,
        on_error=on_error,
        timeout=timeout,
        environ=environ,
        overrides=overrides,
    )
    if not blocking:
        _in_background(startup)
        return startup
    # In this thread a revision's code runs: the signal's own handling must not cut into it.
    with told_of_shutdown(startup.stop, later=True):
        startup.run()
    _raise(startup, on_error)
    return startup


def lifespan(
    config: Config | str | Path | None = None,
    *,
    policy: Policy = "upgrade",
    on_error: OnError = "log",
    blocking: bool = True,
    timeout: float | None = None,
    inner: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
    environ: Mapping[str, str] | None = None,
    **overrides: Any,
) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    """The lifespan of a FastAPI or Starlette application that migrates first.

    `FastAPI(lifespan=lifespan("alembic-style.ini"))`. The event loop is never held. `inner` is the
    application's own lifespan, entered afterwards. With `blocking=False` the application starts at
    once, and the health says that it is not ready until the migrations are over. The `Startup` is
    `app.state.mongover_startup`. The other arguments are those of `ensure_head`.

    Raises:
        UsageError: a policy or an `on_error` that there is not.
    """
    _check(policy, on_error)

    @asynccontextmanager
    async def span(app: Any) -> AsyncIterator[Any]:
        startup = _prepare(
            config,
            policy=policy,
            on_error=on_error,
            timeout=timeout,
            environ=environ,
            overrides=overrides,
        )
        if hasattr(app, "state"):
            app.state.mongover_startup = startup
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_end, startup)
            with told_of_shutdown(startup.stop, later=False):
                _in_background(startup)
                if blocking:
                    await asyncio.to_thread(startup.wait)
            if blocking:
                _raise(startup, on_error)
            yield None if inner is None else await stack.enter_async_context(inner(app))

    return span


async def _end(startup: Startup) -> None:
    if not startup.ready:
        startup.stop()
        await asyncio.to_thread(startup.wait)


def _check(policy: str, on_error: str) -> None:
    for name, value, words in (
        ("policy", policy, get_args(Policy)),
        ("on_error", on_error, get_args(OnError)),
    ):
        if value not in words:
            raise UsageError(f"{name} is {value!r}", hint=f"it is one of {', '.join(words)}")


def _prepare(
    config: Config | str | Path | None,
    *,
    policy: Policy,
    on_error: OnError,
    timeout: float | None,
    environ: Mapping[str, str] | None,
    overrides: dict[str, Any],
) -> Startup:
    _check(policy, on_error)
    variables = os.environ if environ is None else environ

    def open_migrator() -> Migrator:
        from mongover.config.config import Config
        from mongover.migrator import Migrator

        if isinstance(config, Config):
            return Migrator(config, environ=variables)
        return Migrator.from_config(config, environ=variables, **overrides)

    return Startup(policy, open_migrator, timeout=timeout)


def _in_background(startup: Startup) -> None:
    # Not a daemon: an interpreter that ends normally lets a revision finish. Its context is empty,
    # so that nothing of the caller's leaks into it.
    threading.Thread(target=Context().run, args=(startup.run,), name="mongover-startup").start()


def _raise(startup: Startup, on_error: OnError) -> None:
    if on_error == "raise" and startup.error is not None and startup.state != "ahead":
        raise startup.error
