"""A real Chromium before a real server, for the tests of the dashboard."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright

from tests.support.servers import ROOT, free_port, wait_until
from tests.support.web_support import await_address, run_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.support.projects import Project
    from tests.support.web_support import Served

TOKEN = "write-" + "w" * 26
OTHER_TOKEN = "other-" + "o" * 26
READ_TOKEN = "reading-" + "r" * 24
NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CONFIG = """[mongover]
url = {url}
database = {database}
versions = versions
lease = 20
connect_timeout = 1
"""


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless Chromium with a new profile; an AssertionError says what to install."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert path, "the dashboard is tested in Chromium, which is missing: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def write_config(project: Project) -> Path:
    """The project's configuration file."""
    config = project.folder / "mongover.ini"
    config.write_text(CONFIG.format(url=project.server.url, database=project.database))
    return config


@contextlib.contextmanager
def run_host(folder: Path) -> Iterator[Served]:
    """A server process that any number of projects can be mounted on."""
    command = ["-m", "tests.support.browser_site"]
    with run_process(command, folder / "host.log", cwd=ROOT, env={}) as served:
        try:
            yield await_address(served)
        finally:
            served.process.terminate()
            served.process.wait(20)


def mount(
    host: Served, project: Project, *, token: str | None = TOKEN, read_token: str | None = None
) -> Served:
    """The project behind a server that runs already, at a prefix of its own."""
    prefix = f"/{project.database}/migrations"
    config = str(write_config(project))
    asked = {"config": config, "prefix": prefix, "token": token, "read_token": read_token}
    host.post("/mount", json=asked).raise_for_status()
    return replace(host, url=f"{host.url}/{project.database}")


@contextlib.contextmanager
def run_site(
    project: Project, *, port: int | None = None, token: str | None = TOKEN
) -> Iterator[Served]:
    """`mongover serve` for one project, listening; on SIGTERM it ends by itself."""
    config = write_config(project)
    port = free_port() if port is None else port
    command = ["-m", "mongover", "-c", str(config), "serve", "--port", str(port)]
    env = {} if token is None else {"MONGOVER_API_TOKEN": token}
    log = project.folder / f"site-{token}.log"
    with run_process(command, log, cwd=project.folder, env=env) as served:
        try:
            yield await_address(served)
        finally:
            served.process.terminate()
            served.process.wait(20)


@dataclass
class Seen:
    """A page and everything that its console said."""

    page: Page
    console: list[str] = field(default_factory=list)

    def errors(self, *allowed: str) -> list[str]:
        """What went wrong in the page, but for lines that hold one of these texts."""
        return [line for line in self.console if not any(text in line for text in allowed)]

    def open(self, served: Served) -> Page:
        self.page.goto(f"{served.url}/migrations/")
        self.page.wait_for_selector("#connection[data-state=live]")
        self.page.wait_for_selector("#schemas > *")
        return self.page


def watch(browser: Browser, **options: Any) -> Seen:
    """A page with a profile of its own, watched from its first byte."""
    page = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}).new_page()
    seen = Seen(page)
    page.on(
        "console",
        lambda line: seen.console.append(line.text) if line.type in {"error", "warning"} else None,
    )
    page.on("pageerror", lambda error: seen.console.append(f"page error: {error}"))
    return seen


def enter_token(page: Page, token: str = TOKEN) -> None:
    """Type a token into the dialog that asks for it, and send it by the keyboard."""
    page.wait_for_selector("#token-dialog[open]")
    page.fill("#token-value", token)
    page.keyboard.press("Enter")


def sign_in(page: Page, token: str = TOKEN) -> None:
    """Enter the token and wait until the page has it."""
    page.click("#token")
    enter_token(page, token)
    page.wait_for_selector("#token-dialog", state="hidden")


def applied(project: Project) -> list[str]:
    """The revisions that the history in the database says are applied."""
    return sorted(str(one["_id"]) for one in project.history.find({"state": "applied"}))


def wait_applied(project: Project, *ids: str) -> None:
    wait_until(lambda: applied(project) == sorted(ids), f"the application of {ids}", 20)
