"""The dashboard: one page and its few files, sent as they lie in the package.

The page holds no data. What it shows it reads through the API, with the token that the person
who looks at it enters; so the page itself needs none.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.requests import Request  # noqa: TC002 - FastAPI reads the endpoints' annotations
from starlette.responses import RedirectResponse, Response

from mongover.web.auth import Scope
from mongover.web.guard import guarded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fastapi import APIRouter

    from mongover.web.service import Service

PAGE: Final = "index.html"
_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing inline, nothing from elsewhere, and no text that becomes markup or code.
_DIRECTIVES: Final[Mapping[str, str]] = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
POLICY: Final = "; ".join(f"{name} {value}" for name, value in _DIRECTIVES.items())
_PERMISSIONS: Final = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
_PAGE_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": _PERMISSIONS,
}
# Asked for again each time, so that page and scripts are always of one release.
_ASSET_HEADERS: Final[Mapping[str, str]] = {"Cache-Control": "no-cache"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page; `tag` changes with its content."""

    name: str
    content: bytes
    media_type: str
    tag: str


def read_assets() -> Iterator[Asset]:
    """The page and everything that it loads."""
    folder = resources.files("mongover.web") / "static"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        suffix = "." + file.name.rpartition(".")[2]
        if suffix in _TYPES:
            content = file.read_bytes()
            tag = f'"{sha256(content).hexdigest()[:32]}"'
            yield Asset(file.name, content, _TYPES[suffix], tag)


def add_dashboard(router: APIRouter, service: Service) -> None:
    """The page at the router's prefix with a slash, and its files below `assets/`.

    Only the files of the package have an address: no path is ever made of a request.
    """
    for asset in read_assets():
        is_page = asset.name == PAGE
        router.add_api_route(
            "/" if is_page else f"/assets/{asset.name}",
            _Sender(asset, _PAGE_HEADERS if is_page else _ASSET_HEADERS).send,
            methods=["GET", "HEAD"],
            name=f"mongover-dashboard-{asset.name}",
            include_in_schema=False,
            response_model=None,
            route_class_override=guarded(service, Scope.OPEN),
        )

    if router.prefix:  # left to the application, it would lead to where the Host header says
        router.add_api_route(
            "",
            _to_page,
            methods=["GET", "HEAD"],
            name="mongover-dashboard",
            include_in_schema=False,
            response_model=None,
            route_class_override=guarded(service, Scope.OPEN),
        )


async def _to_page(request: Request) -> Response:
    """To the page by a relative address: right behind any proxy, and on no other server."""
    name = quote(request.scope["path"].rpartition("/")[2])
    query = request.scope["query_string"].decode("latin-1")
    return RedirectResponse(f"./{name}/?{query}" if query else f"./{name}/")


class _Sender:
    """Answers with one file, or with 304 to who has it already."""

    def __init__(self, asset: Asset, headers: Mapping[str, str]) -> None:
        self._asset = asset
        self._headers = {**headers, "ETag": asset.tag}

    async def send(self, request: Request) -> Response:
        known = request.headers.get("if-none-match", "")
        if self._asset.tag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
            return Response(status_code=304, headers=self._headers)
        return Response(
            self._asset.content, headers=self._headers, media_type=self._asset.media_type
        )
