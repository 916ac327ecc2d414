"""The API as a server of its own: `mongover serve`."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from mongover.errors import UsageError
from mongover.version import __version__
from mongover.web.api import PREFIX, migrations_router
from mongover.web.auth import READ_VARIABLE, WRITE_VARIABLE, Tokens
from mongover.web.connections import limits_of_process, protocol
from mongover.web.guard import HEADERS, KnownHosts, answer, problem_for
from mongover.web.problems import Redaction

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from mongover.migrator import Migrator

logger = logging.getLogger("mongover.web")

_BACKLOG: Final = 128
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def create_app(
    migrator: Migrator,
    *,
    hosts: Collection[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> FastAPI:
    """An application of the migrations alone, below `/migrations`, with its OpenAPI document there.

    The pages that FastAPI would add are left out: they load their code from elsewhere.

    Raises:
        ConfigError: a token is wrong.
    """
    app = FastAPI(
        title="mongover",
        version=__version__,
        summary="Migrations of a MongoDB database",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it would lead to whatever server the Host header names
    )
    app.include_router(migrations_router(migrator, hosts=hosts, environ=environ))
    redaction = Redaction(migrator.config)
    if hosts is not None:  # the document, and what is nowhere, have no guard of their own
        app.add_middleware(KnownHosts, hosts=frozenset(hosts))

    async def no_route(request: Request, error: Exception) -> Response:
        del request
        response = answer(problem_for(error, redaction))
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    app.add_exception_handler(HTTPException, no_route)
    return app


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine can reach a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_hosts(host: str, more: Collection[str]) -> frozenset[str] | None:
    """The names to answer to: on loopback those of loopback, else any unless some are given."""
    if is_loopback(host):
        return LOOPBACK_NAMES | {host.lower()} | {name.lower() for name in more}
    return frozenset(name.lower() for name in more) or None


def refuse_open_server(host: str, tokens: Tokens) -> None:
    """Refuse to listen where others can reach the server while no token guards it.

    Raises:
        UsageError: it would.
    """
    if tokens.write is None and not is_loopback(host):
        raise UsageError(
            f"without a token the server listens on loopback only, not on {host}",
            hint=f"set {WRITE_VARIABLE} (and {READ_VARIABLE}), or leave --host out",
            after="nothing was started.",
        )
    if tokens.read is None and not is_loopback(host):
        logger.warning("whoever reaches %s may read: %s is not set", host, READ_VARIABLE)


def serve(
    migrator: Migrator,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    hosts: Collection[str] = (),
    environ: Mapping[str, str] | None = None,
) -> int:
    """Serve until SIGINT or SIGTERM; a run at work is then asked to stop, and waited for.

    Raises:
        ConfigError: a token is wrong.
        UsageError: the address is beyond loopback without a token, or cannot be listened on.
    """
    variables = os.environ if environ is None else environ
    refuse_open_server(host, Tokens.from_environ(variables))
    app = create_app(migrator, hosts=allowed_hosts(host, hosts), environ=variables)
    limits = limits_of_process()
    with listen(host, port) as listener:
        config = uvicorn.Config(
            app,
            host=host,
            port=listener.getsockname()[1],
            log_config=LOGGING,
            server_header=False,
            http=protocol(limits),
            ws="none",
            # asyncio takes in as many at a time before it looks at the first of them.
            backlog=limits.burst,
            proxy_headers=False,  # the brake on wrong tokens counts peers, not what a header says
        )
        _leave_quietly()
        server = _Server(config)  # from here on LOGGING counts
        logger.info("running on %s with everything below %s", base_url(listener), PREFIX)
        server.run(sockets=[listener])
    return 0


class _Server(uvicorn.Server):
    """Lets the kernel keep more connections waiting than are taken in at a time."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(_BACKLOG)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        UsageError: the address is taken, unknown or not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror or error}",
            hint="another program may be using it: choose another --port",
            after="nothing was started.",
        ) from error


def base_url(listener: socket.socket) -> str:
    """The address of a listening socket, as a browser takes it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _leave_quietly() -> None:
    """Let the signals that end the server end only the server: it raises them again afterwards."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)


LOGGING: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"}},
    "filters": {"seldom": {"()": "mongover.web.connections.Seldom"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "stream": "ext://sys.stderr",
        }
    },
    "loggers": {
        "mongover": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn.access": {"level": "WARNING"},
        "uvicorn.error": {"filters": ["seldom"]},
        "mongover.web.connections": {"filters": ["seldom"]},
        "asyncio": {
            "handlers": ["stderr"],
            "level": "WARNING",
            "filters": ["seldom"],
            "propagate": False,
        },
    },
}
