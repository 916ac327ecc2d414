"""No answer of the server names, or is given to, a host that only a header names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mongover.migrator import Migrator
from mongover.web.app import LOOPBACK_NAMES, create_app
from tests.support.web_support import TOKEN, client_of, config_for, make_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from mongover.config.config import Config
    from tests.support.servers import Server

FORGED = {"Host": "evil.example"}
ADDRESSES = [
    "/migrations", "/migrations/", "/migrations/status", "/migrations/status/",
    "/migrations/health",
    "/migrations/health/", "/migrations/openapi.json", "/migrations/openapi.json/", "/", "/nowhere",
    "/migrations/nowhere/", "/migrations/assets/", "/migrations?x=1", "//evil.example/migrations",
]  # fmt: skip


@pytest.fixture
def config(replica_set: Server, mongo_database: Callable[..., str]) -> Config:
    return config_for(replica_set, mongo_database(replica_set))


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_on_loopback_a_foreign_host_is_refused_at_every_address(
    config: Config, method: str
) -> None:
    app = create_app(Migrator(config), hosts=LOOPBACK_NAMES, environ={})
    with client_of(app, base_url="http://localhost") as client:
        for address in ADDRESSES:
            found = client.request(method, address, headers=FORGED, follow_redirects=False)
            assert found.status_code == 400, address
            assert found.headers["content-type"] == "application/problem+json"
            assert "location" not in found.headers
        assert client.get("/migrations/openapi.json").status_code == 200


def test_no_redirect_leads_to_the_host_of_the_header(config: Config) -> None:
    app = create_app(Migrator(config), hosts=None, environ={"MONGOVER_API_TOKEN": TOKEN})
    with client_of(app) as client:
        for address in ADDRESSES:
            found = client.get(address, headers=FORGED, follow_redirects=False)
            assert "evil" not in found.headers.get("location", ""), address
            assert found.status_code in {200, 307, 404, 503}


@pytest.mark.parametrize("prefix", ["/migrations", "/ops/db v1"])
def test_the_prefix_leads_to_the_page_by_a_relative_address_in_any_application(
    config: Config, prefix: str
) -> None:
    with client_of(make_app(config, prefix=prefix)) as client:
        found = client.get(f"{prefix}?a=b", headers=FORGED, follow_redirects=False)
        last = prefix.rpartition("/")[2].replace(" ", "%20")
        assert found.status_code == 307
        assert found.headers["location"] == f"./{last}/?a=b"
        assert client.get(prefix).text.startswith("<!doctype html>")


def test_the_redirect_of_a_guarded_router_refuses_a_foreign_host(config: Config) -> None:
    with client_of(make_app(config, hosts={"testserver"})) as client:
        assert client.get("/migrations", headers=FORGED, follow_redirects=False).status_code == 400
        assert client.get("/migrations", follow_redirects=False).status_code == 307
