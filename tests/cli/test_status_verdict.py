"""What `status` counts, how `status --check` ends, and that the dashboard says the same."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from mongover.errors import Edited, InvalidRevision, MongoverError
from mongover.planning.problems import Problem
from tests.support.browser import open_browser, run_site, watch
from tests.support.cli_fakes import fake, invoke, status
from tests.support.projects import Project, make_project_fixture, project_fixture
from tests.support.servers import run_cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

__all__ = ["make_project_fixture", "project_fixture"]

PROBLEMS = {
    "edited": Problem("0003", "edited", "0003 was edited", "", Edited("edited")),
    "unreadable": Problem("0004", "unreadable", "no", "", InvalidRevision("no")),
    "failed": Problem("0002", "failed", "0002 failed", "mongover upgrade"),
    "degraded": Problem("0001", "degraded", "0001 has warnings", "mongover repair"),
    "reformatted": Problem("0001", "reformatted", "0001 was reformatted", ""),
}


@pytest.mark.parametrize(
    ("kinds", "says"),
    [
        ("", "0 problems"),
        ("reformatted", "0 problems"),
        ("failed", "1 problem."),
        ("degraded", "1 problem."),
        ("edited reformatted failed", "2 problems"),
    ],
)
def test_status_counts_what_somebody_must_do_something_about(kinds: str, says: str) -> None:
    found = tuple(PROBLEMS[kind] for kind in kinds.split())
    assert says in invoke(fake(status=status(problems=found)), "status").stdout


@pytest.mark.parametrize(
    ("kinds", "pending", "code"),
    [
        ("", False, 0),
        ("reformatted degraded", False, 0),
        ("failed", True, 6),
        ("unreadable", False, 4),
        ("unreadable", True, 4),
        ("reformatted edited", True, 4),
    ],
)
def test_status_check_ends_with_4_over_a_problem_that_stops_an_upgrade(
    kinds: str, pending: bool, code: int
) -> None:
    found = tuple(PROBLEMS[kind] for kind in kinds.split())
    state = status(problems=found) if pending else status(problems=found, pending=())
    assert invoke(fake(status=state), "status", "--check").exit_code == code
    assert invoke(fake(status=state), "status").exit_code == 0


def checked(project: Project) -> Any:
    flags = ["--url", project.server.url, "--database", project.database]
    return run_cli("status", "--check", *flags, cwd=project.folder)


def test_a_file_that_cannot_be_read_is_never_up_to_date(project: Project) -> None:
    path = project.write("0001", "op.create_collection('a')")
    project.upgrade()
    assert checked(project).returncode == 0
    path.write_text("revision = 1\n" + path.read_text())
    assert checked(project).returncode == 4
    project.write("0001", "op.create_collection('a')")
    (project.versions / "0002_x.py").write_text("revision = (\n")
    assert checked(project).returncode == 4


@pytest.fixture(name="browser")
def browser_fixture() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


def test_the_dashboard_counts_the_same_problems_and_knows_when_the_lock_was_let_go(
    project: Project, browser: Browser
) -> None:
    first = project.write("0001", "op.create_collection('a')")
    project.write("0002", "raise ValueError('no')", after="0001")
    with pytest.raises(MongoverError):
        project.upgrade()
    first.write_text(first.read_text() + "# a remark\n")
    project.locks.update_one({"_id": "lock"}, {"$set": {"heartbeat_at": datetime(2001, 1, 1)}})  # noqa: DTZ001 - as the server keeps it
    let_go = project.locks.find_one({"_id": "lock"})["expires_at"].astimezone(UTC)
    assert "1 applied, 1 pending, 1 problem." in checked(project).stdout
    with run_site(project) as served:
        seen = watch(browser)
        page = seen.open(served)
        expect(page.locator("#summary .figure").last).to_have_text("1 problem")
        expect(page.locator("#problems-list .tag.is-bad")).to_have_text("failed")
        expect(page.locator("#problems-list .tag:not(.is-bad)")).to_have_text("reformatted")
        until = page.locator("#lock dt:text-is('until') + dd time").get_attribute("datetime")
        assert until is not None
        assert abs(datetime.fromisoformat(until) - let_go).total_seconds() < 1
        page.context.close()
