"""What every request passes before its endpoint, and how every error leaves: as a problem.

It is a class of routes, so that it comes along into whatever application includes the router, and
changes nothing for that application's other routes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mongover.running.log import failure_text
from mongover.web.auth import (
    READ_VARIABLE,
    WRITE_VARIABLE,
    Scope,
    Verdict,
    bearer_of,
    judge,
)
from mongover.web.problems import MEDIA_TYPE, SERVER_ERROR, Problem, Refusal, problem_of

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from starlette.types import ASGIApp, Receive, Send
    from starlette.types import Scope as Scope_

    from mongover.web.problems import Redaction
    from mongover.web.service import Options, Service

logger = logging.getLogger("mongover.web")

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_JSON: Final = "application/json"
_REALM: Final = 'Bearer realm="mongover"'


def answer(problem: Problem) -> Response:
    """A problem as a response."""
    return JSONResponse(
        problem.to_json(), problem.status, headers=dict(problem.headers), media_type=MEDIA_TYPE
    )


def guarded(service: Service, needed: Scope) -> type[APIRoute]:
    """The routes whose endpoints ask for this scope."""

    class Guarded(APIRoute):
        """Lets a request pass to its endpoint, or answers with a problem."""

        def get_route_handler(self) -> Handler:
            """The endpoint's handler behind the guard."""
            inner = super().get_route_handler()

            async def handle(request: Request) -> Response:
                return await _pass(service, needed, request, inner)

            return handle

        async def handle(self, scope: Any, receive: Receive, send: Send) -> None:
            """As any route, with a problem for a method that there is not."""
            if self.methods and scope["method"] not in self.methods:
                refusal = _secured(answer(_wrong_method(self.methods)))
                await refusal(scope, receive, send)
                return
            await super().handle(scope, receive, send)

    return Guarded


async def _pass(service: Service, needed: Scope, request: Request, inner: Handler) -> Response:
    try:
        check(service, needed, request)
        response = await inner(Request(request.scope, _bounded(request.receive, service.options)))
    except Exception as error:  # noqa: BLE001 - the one boundary: every error becomes an answer
        response = answer(problem_for(error, service.redaction))
    return _secured(response)


def _secured(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def problem_for(error: Exception, redaction: Redaction) -> Problem:
    """The problem that answers an error; what it leaves out of a failure is logged."""
    if isinstance(error, Refusal):
        return error.problem
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return _of_http(error)
    problem = problem_of(error, redaction)
    if problem.status >= SERVER_ERROR:
        number = problem.more.get("errorId")
        logger.error(
            "a request failed (errorId %s)\n%s", number, failure_text(error, redaction.hide)
        )
    return problem


def _invalid(error: RequestValidationError) -> Problem:
    """What is wrong where, without what was sent."""
    found = [
        {"where": ".".join(str(part) for part in each["loc"]), "message": str(each["msg"])}
        for each in error.errors()
    ]
    first = found[0] if found else {"where": "request", "message": "it is not valid"}
    detail = f"{first['where']}: {first['message']}"
    return Problem(422, "bad-request", "The request makes no sense", detail, more={"errors": found})


def _of_http(error: HTTPException) -> Problem:
    # FastAPI's 400 is a body that it cannot read at all: bad input like any other.
    status = 422 if error.status_code == 400 else error.status_code  # noqa: PLR2004 - HTTP
    kind, title = _TITLES.get(status, ("bad-request", "The request makes no sense"))
    return Problem(status, kind, title, str(error.detail), headers=dict(error.headers or {}))


_TITLES: Final[Mapping[int, tuple[str, str]]] = {
    404: ("not-found", "There is nothing at this address"),
    405: ("wrong-method", "The method is not allowed here"),
    408: ("too-slow", "The body did not come in time"),
    413: ("too-large", "The body is too large"),
}


def _wrong_method(allowed: set[str]) -> Problem:
    names = ", ".join(sorted(allowed))
    kind, title = _TITLES[405]
    return Problem(405, kind, title, f"only {names} is allowed here", headers={"Allow": names})


# ----------------------------------------------------------------------------------- the checks


def check(service: Service, needed: Scope, request: Request) -> None:
    """Let a request pass, or not; its body is not read yet.

    Raises:
        Refusal: it may not pass.
    """
    _check_host(service.options.hosts, request)
    if needed is Scope.WRITE:
        _check_origin(service.options, request)
    _check_token(service, needed, request)
    _check_body(service.options, request)


class KnownHosts:
    """Middleware that refuses foreign names for every address, also where there is nothing."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope_, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with a problem."""
        if scope["type"] == "http":
            try:
                _check_host(self._hosts, Request(scope))
            except Refusal as refusal:
                await _secured(answer(refusal.problem))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _check_host(hosts: frozenset[str] | None, request: Request) -> None:
    """Refuse names that are not ours: a page elsewhere may let its own name point at us."""
    if hosts is None:
        return
    given = request.headers.getlist("host")
    if len(given) != 1 or host_name(given[0]) not in hosts:
        raise Refusal(
            Problem(
                400,
                "wrong-host",
                "The Host header names another server",
                "this server does not answer to the name in the Host header",
                hint="allow it with `mongover serve --allow-host NAME`",
            )
        )


def host_name(header: str) -> str:
    """The name in a `Host` header, without its port."""
    try:
        return (urlsplit(f"//{header.strip()}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _check_origin(options: Options, request: Request) -> None:
    """Refuse writes that a page of another origin sends, should it ever hold a token."""
    origin = request.headers.get("origin")
    if origin is None or origin in options.origins:
        return
    if urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower() != "":
        return
    raise Refusal(
        Problem(
            403,
            "foreign-origin",
            "Writes of other origins are refused",
            "the Origin header names another site than this server",
        )
    )


def _check_token(service: Service, needed: Scope, request: Request) -> None:
    verdict = judge(service.options.tokens, needed, bearer_of(request.headers.raw))
    if verdict is Verdict.ALLOWED:
        return
    if verdict is Verdict.WRONG:
        _brake(service, request)
    raise Refusal(_REFUSALS[verdict])


def scope_of(service: Service, request: Request) -> Scope:
    """What the token of a request allows; `OPEN` without one.

    Raises:
        Refusal: there is a token, and it is none of ours.
    """
    given = bearer_of(request.headers.raw)
    if given is None:
        return Scope.OPEN
    scope = service.options.tokens.scope_of(given)
    if scope is None:
        _brake(service, request)
        raise Refusal(_REFUSALS[Verdict.WRONG])
    return scope


def _brake(service: Service, request: Request) -> None:
    address = address_of(request)
    wait = service.throttle.failed(address)
    logger.warning("a wrong token was given by %s", address)
    if wait:
        raise Refusal(
            Problem(
                429,
                "too-many-tokens",
                "Too many wrong tokens",
                f"wrong tokens from this address are not looked at for {wait} s",
                headers={"Retry-After": str(wait)},
            )
        )


def address_of(request: Request) -> str:
    """The peer's address, as the server knows it; never what a header says."""
    return request.client.host if request.client is not None else "an unknown address"


_REFUSALS: Final[Mapping[Verdict, Problem]] = {
    Verdict.MISSING: Problem(
        401,
        "token-missing",
        "A token is needed",
        "send a token in the header: Authorization: Bearer TOKEN",
        headers={"WWW-Authenticate": _REALM},
    ),
    Verdict.WRONG: Problem(
        401,
        "token-wrong",
        "The token is not valid",
        "the token is not one that this server accepts",
        headers={"WWW-Authenticate": f'{_REALM}, error="invalid_token"'},
    ),
    Verdict.TOO_LITTLE: Problem(
        403,
        "token-for-reading",
        "The token may only read",
        f"this token is {READ_VARIABLE}; writing needs {WRITE_VARIABLE}",
        headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope"'},
    ),
    Verdict.WRITES_OFF: Problem(
        403,
        "writes-off",
        "Writes are off",
        "this server has no token for writing, so it only reads",
        hint=f"set {WRITE_VARIABLE} in the server's environment and send it as a bearer token",
    ),
}


def _check_body(options: Options, request: Request) -> None:
    length = request.headers.get("content-length", "0")
    size = int(length) if length.isascii() and length.isdigit() else 0
    if size > options.body_limit:
        raise _too_large(options.body_limit)
    if not size and "transfer-encoding" not in request.headers:
        return
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _JSON:
        raise Refusal(
            Problem(
                415,
                "wrong-content-type",
                "The content type is not accepted",
                f"a body must be sent as {_JSON}",
            )
        )


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"a body may have at most {limit:,} bytes")


def _too_slow(seconds: float) -> HTTPException:
    text = f"a body must come within {seconds:g} s"
    return HTTPException(408, text, headers={"Connection": "close"})


def _bounded(receive: Receive, options: Options) -> Receive:
    """The same messages, until the body is too long or too late, whatever its header said."""
    limit, seconds = options.body_limit, options.body_seconds
    total, more = 0, True
    deadline = anyio.current_time() + seconds

    async def next_message() -> MutableMapping[str, Any]:
        nonlocal total, more
        if not more:  # all that can follow is the end of the connection, and that may take long
            return await receive()
        # FastAPI lets this very class of errors pass; all others become its own error 400.
        try:
            with anyio.fail_after(max(0.0, deadline - anyio.current_time())):
                message = await receive()
        except TimeoutError:
            raise _too_slow(seconds) from None
        total += len(message.get("body", b""))
        more = bool(message.get("more_body", False))
        if total > limit:
            raise _too_large(limit)
        return message

    return next_message
