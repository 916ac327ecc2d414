"""The endpoints, and the router that an application includes in one line."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Body, Query, Request, Security
from fastapi import Path as FromPath
from fastapi.security import HTTPBearer
from starlette.responses import JSONResponse, Response, StreamingResponse

from mongover.config.config import Config
from mongover.errors import TargetError, UsageError
from mongover.history.record import Direction
from mongover.migrator import Migrator
from mongover.process import told_of_shutdown
from mongover.web import documents, models
from mongover.web.auth import READ_VARIABLE, WRITE_VARIABLE, Scope, Tokens
from mongover.web.dashboard import add_dashboard
from mongover.web.feed import Message, frame
from mongover.web.guard import address_of, guarded, scope_of
from mongover.web.health import health_document, look
from mongover.web.problems import MEDIA_TYPE, RETRY_SECONDS, Problem, Refusal
from mongover.web.runs import Order
from mongover.web.service import Options, Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from mongover.running.request import RunResult
    from mongover.web.runs import Run
    from mongover.web.service import StartUp

PREFIX: Final = "/migrations"
_NAME_LIMIT: Final = 200

Name = Annotated[str, FromPath(max_length=_NAME_LIMIT)]


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


class Endpoints:
    """The functions behind the addresses. Each answers with one of `documents`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    # ---- reading -------------------------------------------------------------------------------

    async def status(self) -> Response:
        """Every schema with its collection, what is applied and what is pending.

        A line of revisions without a schema stands under the empty name.
        """
        found = await self._service.share("status", self._service.migrator.status)
        return JSONResponse(documents.status_document(found))

    async def plan(self, query: Annotated[models.PlanQuery, Query()]) -> Response:
        """What a run would do. Nothing is run, written or locked."""
        direction = Direction(query.direction)
        if direction is Direction.DOWN and query.target is None:
            raise UsageError("a plan downwards needs a target", hint="?direction=down&target=-1")
        target = query.target or "head"
        found = await self._service.call(self._service.migrator.plan, direction, target)
        return JSONResponse(documents.plan_document(found, self._service.redaction))

    async def history(self, query: Annotated[models.HistoryQuery, Query()]) -> Response:
        """The records in order of application."""
        records = await self._service.call(self._service.migrator.history, query.span)
        chosen = records[-query.limit :] if query.limit else records
        return JSONResponse(documents.history_document(chosen, self._service.redaction))

    async def revision(self, id: Name) -> Response:  # noqa: A002 - the word in the address
        """One revision: its file, its record with the log, and what is wrong with it."""
        try:
            shown = await self._service.call(self._service.migrator.show, id)
        except TargetError as error:
            detail = self._service.redaction.clean(error.message)
            raise _missing("revision", detail, code=error.code) from error
        return JSONResponse(documents.shown_document(shown, self._service.redaction))

    async def catalogue(self) -> Response:
        """Every revision of files and history with its links and states, and every problem."""
        migrator, redaction = self._service.migrator, self._service.redaction
        found = await self._service.share("catalogue", migrator.catalogue)
        return JSONResponse(
            documents.catalogue_document(found, migrator.config.database, redaction)
        )

    async def access(self, request: Request) -> Response:
        """What the token of this request allows, and what needs one. Needs none itself."""
        scope = scope_of(self._service, request)
        return JSONResponse(documents.access_document(scope, self._service.options.tokens))

    async def lock(self) -> Response:
        """Who holds the lock."""
        state = await self._service.call(self._service.migrator.lock)
        return JSONResponse(documents.lock_document(state, self._service.redaction))

    async def health(self, request: Request) -> Response:
        """Whether the application may be sent requests: 200 or 503. Needs no token.

        Ready means: the database answers, nothing is pending, nothing runs, failed or waits for a
        person, and no migration of the application's start is going on.
        """
        found = await self._service.share("health", partial(look, self._service.migrator))
        startup = self._service.startup or getattr(request.app.state, "mongover_startup", None)
        ready, document = health_document(found, self._service.runs.active, startup)
        headers = {} if ready else {"Retry-After": str(RETRY_SECONDS)}
        return JSONResponse(document, 200 if ready else 503, headers=headers)

    async def run_of(self, id: Name) -> Response:  # noqa: A002 - the word in the address
        """A run by its id: of this process, or as far as the history knows it, of another."""
        run = self._service.runs.get(id)
        if run is not None:
            return JSONResponse(run.to_json(self._service.redaction))
        records = await self._service.call(self._service.migrator.history)
        found = documents.foreign_run_document(id, records)
        if found is None:
            raise _missing("run", "there is no run with this id, or it has left no trace")
        return JSONResponse(found)

    # ---- progress ------------------------------------------------------------------------------

    async def events(
        self, request: Request, query: Annotated[models.EventsQuery, Query()]
    ) -> Response:
        """What the runs of this process do, as it happens, as server-sent events.

        The first event is `State`: the run at work, or null. Then one event for each thing that
        happens, under the names of `--json-lines`, and `RunEnded` with how it ended. A comment
        every fifteen seconds shows that the stream lives. `Last-Event-ID` goes on from there.
        """
        feed = self._service.feed
        if query.run is not None and self._service.runs.get(query.run) is None:
            raise _missing("run", "no run of this process has this id")
        if feed.followers >= self._service.options.followers or feed.closed:
            raise Refusal(_full())
        place = feed.place_of(request.headers.get("last-event-id"))
        headers = {"X-Accel-Buffering": "no"}  # a proxy would hold the events back
        return EventStream(self._frames(place, query.run), headers=headers)

    async def _frames(self, place: int | None, only: str | None) -> AsyncIterator[str]:
        feed = self._service.feed
        # A run that is asked for by its id is told from its beginning.
        start = place if place is not None else (0 if only is not None else feed.number)
        yield frame(feed.epoch, self._state(start))
        if only is not None and self._told(only, start):
            return
        async for message in feed.follow(start, heartbeat=self._service.options.heartbeat):
            if only is not None and message is not None and message.run != only:
                continue
            yield frame(feed.epoch, message)
            if only is not None and message is not None and message.name == "RunEnded":
                return

    def _told(self, identifier: str, number: int) -> bool:
        """Whether the run is over and its end is not among the messages still to be sent."""
        run = self._service.runs.get(identifier)
        ends = (one for one in self._service.feed.after(number) if one.name == "RunEnded")
        over = run is None or run.over.is_set()
        return over and all(one.run != identifier for one in ends)

    def _state(self, number: int) -> Message:
        run = self._service.runs.active
        document = None if run is None else run.to_json(self._service.redaction)
        return Message(number, "State", {"active": document}, None if run is None else run.id)

    # ---- writing -------------------------------------------------------------------------------

    async def run(self, request: Request, query: Annotated[models.RunQuery, Query()]) -> Response:
        """Apply every pending revision."""
        order = self._order(request, query, Direction.UP, "head")
        return await self._carry_out(request, query, order, documents.upgrade_document)

    async def run_schema(
        self,
        request: Request,
        schema: Name,
        query: Annotated[models.RunQuery, Query()],
    ) -> Response:
        """Apply the pending revisions of one schema and what they depend on, and nothing else."""
        known = await self._service.call(self._schemas)
        if schema not in known:
            raise _missing("schema", "there is no schema of this name", more={"known": known})
        order = self._order(request, query, Direction.UP, f"{schema}@head", schema)
        document = partial(documents.upgrade_document, schema=schema)
        return await self._carry_out(request, query, order, document)

    async def downgrade(
        self,
        request: Request,
        query: Annotated[models.RunQuery, Query()],
        body: Annotated[models.MigrationDowngrade, Body()],
    ) -> Response:
        """Revert what stands above a target, in reverse order of application."""
        order = replace(
            self._order(request, query, Direction.DOWN, body.target),
            allow_data_loss=tuple(body.allowDataLoss),
        )
        document = partial(documents.downgrade_document, redaction=self._service.redaction)
        return await self._carry_out(request, query, order, document)

    def _schemas(self) -> list[str]:
        found = {head.schema for head in self._service.migrator.heads()}
        return sorted(schema for schema in found if schema is not None)

    def _order(
        self,
        request: Request,
        query: models.RunQuery,
        direction: Direction,
        target: str,
        schema: str | None = None,
    ) -> Order:
        by = f"an HTTP client at {address_of(request)}"
        return Order(direction, target, by, schema, query.wait_for_lock)

    async def _carry_out(
        self,
        request: Request,
        query: models.RunQuery,
        order: Order,
        document: Callable[[RunResult], Mapping[str, Any]],
    ) -> Response:
        run = self._service.runs.start(order)
        address = _address(request, order, run)
        if not query.wait:
            accepted = run.to_json(self._service.redaction)
            return JSONResponse(accepted, 202, headers={"Location": address})
        await run.ended()
        if run.problem is not None:
            raise Refusal(run.problem)
        assert run.result is not None  # noqa: S101 - a run that ended has a result or a problem
        return JSONResponse(document(run.result), headers={"Content-Location": address})


def _address(request: Request, order: Order, run: Run) -> str:
    """The run's address, with whatever prefixes the application and its proxies put before it."""
    path, root = request.scope["path"], request.scope.get("root_path", "")
    whole = path if path.startswith(root) else root + path
    parts = 2 if order.schema is not None else 1  # `run/{schema}`, else `run` or `downgrade`
    base = whole
    for _ in range(parts):
        base = base.rpartition("/")[0]
    return f"{base}/runs/{run.id}"


def _missing(
    what: str, detail: str, *, code: str | None = None, more: Mapping[str, Any] | None = None
) -> Refusal:
    title = f"There is no such {what}"
    return Refusal(Problem(404, f"unknown-{what}", title, detail, code, more=more or {}))


def _full() -> Problem:
    return Problem(
        503,
        "too-many-listeners",
        "Too many listeners",
        "no more streams of events are open for now",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


# ------------------------------------------------------------------------------------ the router


def migrations_router(
    config: Migrator | Config | str | Path | None = None,
    *,
    prefix: str = PREFIX,
    token: str | None = None,
    read_token: str | None = None,
    hosts: Collection[str] | None = None,
    origins: Collection[str] = (),
    include_in_schema: bool = True,
    startup: StartUp | None = None,
    environ: Mapping[str, str] | None = None,
    **overrides: object,
) -> APIRouter:
    """The router of the migrations: `app.include_router(migrations_router())`.

    Args:
        config: The project: a configuration, its file, or (None) the one found upwards from the
            working folder; a `Migrator` is used as it is and not closed.
        prefix: Where the addresses begin.
        token: Who has it may write; without one here or in `MONGOVER_API_TOKEN`, nobody may.
        read_token: Who has it may read; without one here or in `MONGOVER_API_READ_TOKEN`, all may.
        hosts: The names that this server answers to; None leaves that to the application.
        origins: Sites beside the server's own whose pages may send writes.
        include_in_schema: Whether the addresses stand in the application's OpenAPI document.
        startup: What `ensure_head` returned, for the health; that of `lifespan` is found by itself.
        environ: Instead of the process's environment.
        overrides: Keys of the configuration.

    Raises:
        ConfigError: the configuration or a token is wrong.
    """
    variables = os.environ if environ is None else environ
    tokens = Tokens.of(
        write=token or variables.get(WRITE_VARIABLE),
        read=read_token or variables.get(READ_VARIABLE),
    )
    options = Options(
        tokens,
        hosts=None if hosts is None else frozenset(hosts),
        origins=frozenset(origins),
    )
    owned = not isinstance(config, Migrator)
    migrator = _migrator(config, variables, overrides)
    service = Service(migrator, options, startup)
    router = APIRouter(
        prefix=prefix,
        tags=["migrations"],
        include_in_schema=include_in_schema,
        lifespan=partial(_lifespan, service, owned),
    )
    add_routes(router, service)
    return router


def _migrator(
    config: Migrator | Config | str | Path | None,
    environ: Mapping[str, str],
    overrides: dict[str, Any],
) -> Migrator:
    if isinstance(config, Migrator):
        return config
    if isinstance(config, Config):
        return Migrator(config, environ=environ)
    return Migrator.from_config(config, environ=environ, **overrides)


@asynccontextmanager
async def _lifespan(service: Service, owned: bool, app: Any) -> AsyncIterator[None]:  # noqa: FBT001 - bound by partial
    """Open with the application, and end with it: a run is asked to stop and waited for."""
    del app
    loop = asyncio.get_running_loop()
    service.open()
    try:
        # A server first waits for its open requests, so a run and the streams must hear of the
        # end by themselves.
        with told_of_shutdown(lambda: _soon(loop, service), later=False):
            yield
    finally:
        await service.close(owned=owned)


def _soon(loop: asyncio.AbstractEventLoop, service: Service) -> None:
    """From a signal handler, which may have cut into anything: act when the loop is next free."""
    loop.call_soon_threadsafe(service.stop)


def add_routes(router: APIRouter, service: Service) -> None:
    """Every address of the API."""
    do = Endpoints(service)
    add_dashboard(router, service)
    _add_reads(router, service, do)
    _add_open(router, service, do)
    _add_writes(router, service, do)


def _add_reads(router: APIRouter, service: Service, do: Endpoints) -> None:
    security = _reading(service.options.tokens)
    reads: Sequence[tuple[str, Any, Any, tuple[int, ...]]] = (
        ("/status", do.status, dict[str, models.MigrationSchema], (409,)),
        ("/plan", do.plan, models.MigrationPlan, (409,)),
        ("/history", do.history, models.MigrationHistory, (409,)),
        ("/revisions", do.catalogue, models.MigrationCatalogue, (409,)),
        ("/revisions/{id}", do.revision, models.MigrationRevision, (404, 409)),
        ("/lock", do.lock, models.MigrationLockAnswer, ()),
        ("/runs/{id}", do.run_of, models.MigrationRun, (404, 409)),
    )
    for path, endpoint, model, more in reads:
        router.add_api_route(
            path,
            endpoint,
            response_model=model,
            responses=_answers(400, 401, 415, 422, 429, 503, *more),
            dependencies=security,
            route_class_override=guarded(service, Scope.READ),
        )
    router.add_api_route(
        "/events",
        do.events,
        response_class=EventStream,
        responses=_answers(400, 401, 404, 415, 422, 429, 503),
        dependencies=security,
        route_class_override=guarded(service, Scope.READ),
    )


def _add_open(router: APIRouter, service: Service, do: Endpoints) -> None:
    router.add_api_route(
        "/access",
        do.access,
        response_model=models.MigrationAccess,
        responses=_answers(400, 401, 415, 429),
        route_class_override=guarded(service, Scope.OPEN),
    )
    router.add_api_route(
        "/health",
        do.health,
        response_model=models.MigrationHealth,
        responses={
            **_answers(400, 415),
            503: {"model": models.MigrationHealth, "description": "Not ready"},
        },
        route_class_override=guarded(service, Scope.OPEN),
    )


def _add_writes(router: APIRouter, service: Service, do: Endpoints) -> None:
    writes: Sequence[tuple[str, Any, Any, tuple[int, ...]]] = (
        ("/run", do.run, models.MigrationsApplied, ()),
        ("/run/{schema}", do.run_schema, models.SchemaMigrationsApplied, (404,)),
        ("/downgrade", do.downgrade, models.MigrationsReverted, ()),
    )
    for path, endpoint, model, more in writes:
        router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            response_model=model,
            responses={
                202: {
                    "model": models.MigrationRun,
                    "description": "Begun; `Location` is where to look after it",
                },
                **_answers(400, 401, 403, 408, 409, 413, 415, 422, 429, 500, 503, *more),
            },
            dependencies=[Security(_bearer("migrationsToken", WRITE_VARIABLE))],
            route_class_override=guarded(service, Scope.WRITE),
        )


def _reading(tokens: Tokens) -> list[Any]:
    if tokens.read is None:
        return []
    return [
        Security(_bearer("migrationsReadToken", READ_VARIABLE)),
        Security(_bearer("migrationsToken", WRITE_VARIABLE)),
    ]


def _bearer(name: str, variable: str) -> HTTPBearer:
    """The scheme for the OpenAPI document; the check itself is the guard's."""
    text = f"The token in the server's {variable}."
    return HTTPBearer(scheme_name=name, description=text, auto_error=False)


_DESCRIPTIONS: Final[Mapping[int, str]] = {
    400: "The Host header names another server",
    401: "No token, or a wrong one",
    403: "Writes are off, the token may only read, or the Origin is foreign",
    404: "There is no such thing",
    408: "The body did not come in time",
    409: "The lock is held, or history and files disagree",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "The request makes no sense",
    429: "Too many wrong tokens from this address",
    500: "A revision failed; its record and the log under `errorId` say how",
    503: "The database is away, or the server is ending",
}


def _answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    schema = {"$ref": f"#/components/schemas/{models.MigrationProblem.__name__}"}
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in sorted(statuses)
    }
