"""The dashboard in a real browser (chromium), before a real server and a real database."""

from __future__ import annotations

import re
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from playwright.sync_api import expect

from mongover.web.dashboard import POLICY, read_assets
from tests.support.browser import (
    OTHER_TOKEN,
    READ_TOKEN,
    TOKEN,
    applied,
    enter_token,
    mount,
    open_browser,
    run_host,
    run_site,
    sign_in,
    wait_applied,
    watch,
)
from tests.support.projects import Project, make_project_fixture, project_fixture
from tests.support.servers import run_standalone, start_cli, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Dialog, Page

    from tests.support.browser import Seen
    from tests.support.web_support import Served

    StartSite = Callable[..., Served]

__all__ = ["make_project_fixture", "project_fixture"]

expect.set_options(timeout=15_000)

# What the browser itself says of an answer that is not 2xx; the page handles each of them.
REFUSED = "Failed to load resource"
ODD = "<script>alert('x')</script> <img src=x onerror=alert(1)> \u202eRTL עברית 🎉 & \"quotes\""


@pytest.fixture(scope="module", name="browser")
def browser_fixture() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module", name="host")
def host_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with run_host(tmp_path_factory.mktemp("host")) as served:
        yield served


@pytest.fixture(name="start_site")
def start_site_fixture(host: Served) -> StartSite:
    """Call it with a project to put it behind the server that all tests share."""
    return partial(mount, host)


@pytest.fixture(name="serve_alone")
def serve_alone_fixture() -> Iterator[StartSite]:
    """Call it with a project for a `mongover serve` of its own, which ends after the page."""
    with ExitStack() as stack:
        yield lambda project, **options: stack.enter_context(run_site(project, **options))


@pytest.fixture(name="seen")
def seen_fixture(browser: Browser, serve_alone: StartSite) -> Iterator[Seen]:
    """A page; a test that expects refused requests empties `console` of them itself."""
    del serve_alone  # it must end after the page
    seen = watch(browser)
    seen.page.set_default_timeout(15_000)
    yield seen
    seen.page.context.close()
    assert seen.errors() == []


def two_schemas(project: Project) -> None:
    """users 0001 ── 0003 and calls 0002, which needs 0001."""
    project.write("0001", "op.create_collection('users')", schema="users", message="create users")
    project.write("0002", schema="calls", message="create calls", extra="depends_on = ('0001',)")
    project.write("0003", schema="users", after="0001", message="add phone")


def gate(path: Path) -> str:
    """The body of a revision that waits until a file is there."""
    return f"""
        import pathlib, time
        while not pathlib.Path({str(path)!r}).exists():
            time.sleep(0.02)
    """


def row(page: Page, schema: str) -> Any:
    return page.locator(f'tr[data-schema="{schema}"]')


def look_again(page: Page) -> None:
    """Make the page read now, as it does when a person comes back to it."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def agree(page: Page, button: str) -> None:
    """Wait for the plan, then agree to it."""
    expect(page.locator("#plan-go")).to_have_text(button)
    expect(page.locator("#plan-go")).to_be_enabled()
    page.click("#plan-go")


# ── what it shows ────────────────────────────────────────────────────────────────────────────────


def test_without_a_token_everything_is_shown_and_nothing_can_be_run(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    two_schemas(project)
    project.upgrade("0002")
    served = start_site(project)
    page = seen.open(served)
    expect(page.locator("#database")).to_have_text(project.database)
    expect(page.locator("#access")).to_contain_text("enter a token")
    expect(page.locator("#summary")).to_have_text(re.compile(r"2 applied\s*1 pending"))
    expect(row(page, "users")).to_contain_text(re.compile(r"pending.*0001.*0003"))
    expect(row(page, "calls")).to_contain_text("up to date")
    expect(page.locator(".timeline li")).to_have_count(2)
    expect(page.locator(".timeline li").first).to_contain_text("file unchanged")
    expect(page.locator("#lock")).to_contain_text("free")
    page.click("#upgrade")
    expect(page.locator(".steps li")).to_have_text(re.compile("0003 add phone users"))
    agree(page, "Apply 1 revision")
    expect(page.locator("#token-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#plan-problem")).to_contain_text("Nothing was run")
    page.keyboard.press("Escape")
    expect(page.locator("#plan-dialog")).to_be_hidden()
    assert applied(project) == ["0001", "0002"]


def test_a_server_without_a_token_for_writing_says_so_and_keeps_the_button_off(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    two_schemas(project)
    served = start_site(project, token=None)
    page = seen.open(served)
    expect(page.locator("#access")).to_contain_text("MONGOVER_API_TOKEN")
    expect(page.locator("#token")).to_be_hidden()
    page.click("#upgrade")
    expect(page.locator(".steps li")).to_have_count(3)
    expect(page.locator("#plan-go")).to_be_disabled()
    expect(page.locator("#plan-body")).to_contain_text("read-only")


def test_an_empty_project_says_how_to_begin(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    served = start_site(project)
    page = seen.open(served)
    expect(page.locator("#schemas")).to_contain_text("mongover revision")
    expect(page.locator("#history")).to_contain_text("Nothing was applied yet")
    expect(page.locator("#upgrade")).to_be_disabled()
    expect(page.locator("#downgrade")).to_be_disabled()


def test_what_people_wrote_is_shown_as_text_and_never_becomes_markup(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    project.write("0001", schema="users", message=ODD.replace('"', "'"))
    project.write("0002", "raise ValueError('<b>boom</b>')", schema="users", after="0001")
    with pytest.raises(Exception, match="boom"):
        project.upgrade()
    dialogs: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    seen.page.on("dialog", dismiss)
    served = start_site(project)
    page = seen.open(served)
    expect(page.locator(".timeline")).to_contain_text("<script>alert('x')</script>")
    expect(page.locator(".timeline .failure")).to_contain_text("<b>boom</b>")
    expect(page.locator(".rows")).to_contain_text("<img src=x onerror=alert(1)>")
    page.click('[data-key="graph 0001"]')
    expect(page.locator("#revision-title")).to_contain_text("<script>")
    assert page.locator("main script, main img, main b").count() == 0
    assert dialogs == []


def test_the_graph_has_a_lane_per_schema_and_a_link_per_dependency(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    # users 0001 ── 0003        calls 0002, which needs 0001
    two_schemas(project)
    served = start_site(project)
    page = seen.open(served)
    places = page.eval_on_selector_all(".dot", "all => all.map(one => +one.getAttribute('cx'))")
    newest, calls, users = places[2], places[1], places[0]
    assert newest == users != calls
    assert page.locator("path.line").count() == 1
    need = page.locator("path.need")
    assert [need.get_attribute("data-from"), need.get_attribute("data-to")] == ["0002", "0001"]
    expect(page.locator(".rows li")).to_have_count(3)
    expect(page.locator(".rows li").first).to_contain_text("revises 0001")
    page.focus('[data-key="graph 0002"]')
    expect(page.locator("path.need.hot")).to_have_count(1)


def test_three_hundred_revisions_are_drawn_quickly_and_scroll_inside_the_graph(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    last: dict[str, str] = {}
    for number in range(1, 301):
        schema = f"s{number % 6}"
        project.write(f"{number:04}", schema=schema, after=last.get(schema))
        last[schema] = f"{number:04}"
    served = start_site(project)
    page = seen.open(served)
    expect(page.locator(".rows li")).to_have_count(300)
    height, inside = page.evaluate(
        "[document.documentElement.scrollHeight, document.getElementById('graph').scrollHeight]"
    )
    assert inside > 300 * 40 > height
    drawing = page.evaluate(
        """async () => {
            const { drawGraph } = await import('./assets/graph.js');
            const answer = await (await fetch('revisions')).json();
            const start = performance.now();
            drawGraph(answer.revisions, () => {}).getBoundingClientRect();
            return performance.now() - start;
        }"""
    )
    assert drawing < 1_000


def test_the_page_fits_phones_and_desks_in_both_themes(
    start_site: StartSite, project: Project, browser: Browser
) -> None:
    two_schemas(project)
    project.write("0004", schema="s" * 60, message="m" * 300)
    project.upgrade("users")
    served = start_site(project)
    for scheme in ("light", "dark"):
        for width in (390, 1280):
            view = {"width": width, "height": 844}
            seen = watch(browser, viewport=view, color_scheme=scheme)
            check_layout(seen.open(served), width, dark=scheme == "dark")
            seen.page.context.close()
            assert seen.errors() == []


def check_layout(page: Page, width: int, *, dark: bool) -> None:
    """Nothing is wider than the page, the theme is the asked one and every text can be read."""
    page.wait_for_selector(".timeline")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (shown == "rgb(17, 22, 20)") == dark
    assert page.eval_on_selector_all(".tag, h2, .soft, button:enabled", CONTRAST) == []
    inside = "[...document.querySelectorAll('#schemas, #run, #lock')]"
    assert page.evaluate(f"{inside}.every((one) => one.scrollWidth <= one.clientWidth)")
    page.click("#upgrade")
    expect(page.locator(".steps li")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("#plan-dialog").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


# The texts whose contrast with what is behind them is under 4.5 : 1, as WCAG counts it.
CONTRAST = """all => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
        .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
        .reduce((sum, one, index) => sum + one * [0.2126, 0.7152, 0.0722][index], 0);
    const behind = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const colour = parse(getComputedStyle(one).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    return all.filter((one) => one.checkVisibility()).map((one) => {
        const colours = [parse(getComputedStyle(one).color), behind(one)];
        const pair = colours.map(light).sort((a, b) => b - a);
        return [one.className || one.tagName, (pair[0] + 0.05) / (pair[1] + 0.05)];
    }).filter(([, ratio]) => ratio < 4.5);
}"""


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_token_is_refused_and_asked_for_again(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    two_schemas(project)
    served = start_site(project)
    page = seen.open(served)
    page.click("#token")
    enter_token(page, OTHER_TOKEN)
    expect(page.locator("#token-error")).to_contain_text("does not accept")
    enter_token(page, "wörd with späces")
    expect(page.locator("#token-error")).to_contain_text("no spaces")
    enter_token(page)
    expect(page.locator("#token-dialog")).to_be_hidden()
    expect(page.locator("#access")).to_be_hidden()
    seen.console[:] = seen.errors(REFUSED)


def test_the_token_is_kept_in_no_storage_and_gone_after_a_reload(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    two_schemas(project)
    served = start_site(project)
    page = seen.open(served)
    sign_in(page)
    kept = page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie,"
        " location.href, document.documentElement.outerHTML,"
        " document.getElementById('token-value').value])"
    )
    assert TOKEN not in kept
    assert page.context.cookies() == []
    page.reload()
    expect(page.locator("#token")).to_have_text("Enter token…")
    sign_in(page)
    page.click("#token")
    expect(page.locator("#access")).to_contain_text("Read-only")
    assert TOKEN not in served.text()


def test_a_server_whose_reads_need_a_token_shows_nothing_before_one_is_entered(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    two_schemas(project)
    served = start_site(project, read_token=READ_TOKEN)
    page = seen.page
    page.goto(f"{served.url}/migrations/")
    expect(page.locator("#connection")).to_have_text("locked")
    expect(page.locator("#access")).to_contain_text("Reading needs a token")
    assert project.database not in page.content()
    sign_in(page, READ_TOKEN)
    expect(row(page, "users")).to_contain_text("pending")
    expect(page.locator("#access")).to_contain_text("may only read")
    expect(page.locator("#connection")).to_have_text("live")
    page.click("#upgrade")
    agree(page, "Apply 3 revisions")
    enter_token(page, READ_TOKEN)
    expect(page.locator("#token-error")).to_contain_text("may only read")
    enter_token(page)
    wait_applied(project, "0001", "0002", "0003")
    seen.console[:] = seen.errors(REFUSED)


def test_a_token_that_expired_is_asked_for_again_and_the_agreed_plan_goes_on(
    serve_alone: StartSite, project: Project, seen: Seen
) -> None:
    two_schemas(project)
    served = serve_alone(project)
    page = seen.open(served)
    sign_in(page)
    port = int(served.url.rpartition(":")[2])
    page.click("#upgrade")
    expect(page.locator("#plan-go")).to_be_enabled()
    served.process.terminate()
    served.process.wait(20)
    serve_alone(project, port=port, token=OTHER_TOKEN)
    agree(page, "Apply 3 revisions")
    expect(page.locator("#token-reason")).to_contain_text("no longer accepts the token")
    expect(page.locator("#plan-dialog")).to_be_visible()
    enter_token(page, OTHER_TOKEN)
    expect(page.locator("#run-title")).to_have_text("Upgrade to head done")
    expect(page.locator("#connection")).to_have_text("live")
    assert applied(project) == ["0001", "0002", "0003"]
    seen.console[:] = seen.errors(REFUSED)


# ── acting ───────────────────────────────────────────────────────────────────────────────────────


def test_upgrade_all_shows_the_plan_then_runs_it(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    two_schemas(project)
    served = start_site(project)
    page = seen.open(served)
    sign_in(page)
    page.click("#upgrade")
    expect(page.locator(".steps li code")).to_have_text(["0001", "0002", "0003"])
    assert applied(project) == []
    agree(page, "Apply 3 revisions")
    expect(page.locator("#run-title")).to_have_text("Upgrade to head done")
    expect(page.locator("#run-body")).to_contain_text("3 revisions applied")
    expect(page.locator("#summary")).to_contain_text("3 applied")
    expect(row(page, "users")).to_contain_text("up to date")
    expect(page.locator(".timeline li")).to_have_count(3)
    expect(page.locator("#upgrade")).to_be_disabled()
    expect(page.locator("#announce")).to_contain_text("3 revisions applied")


def test_cancel_runs_nothing(start_site: StartSite, project: Project, seen: Seen) -> None:
    two_schemas(project)
    served = start_site(project)
    page = seen.open(served)
    sign_in(page)
    page.click("#upgrade")
    expect(page.locator("#plan-go")).to_be_enabled()
    page.click("#plan-dialog .cancel")
    expect(page.locator("#plan-dialog")).to_be_hidden()
    expect(page.locator("#run")).to_be_hidden()
    assert project.history.count_documents({}) == 0


def test_one_schema_is_upgraded_with_what_it_needs_and_nothing_else(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    two_schemas(project)
    served = start_site(project)
    page = seen.open(served)
    sign_in(page)
    row(page, "calls").get_by_role("button", name="Upgrade calls").click()
    expect(page.locator(".steps li code")).to_have_text(["0001", "0002"])
    agree(page, "Apply 2 revisions")
    expect(page.locator("#run-title")).to_have_text("Upgrade to calls@head done")
    expect(row(page, "users")).to_contain_text("pending")
    assert applied(project) == ["0001", "0002"]


def test_one_schema_is_downgraded_to_a_chosen_place_after_saying_what_goes_with_it(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    two_schemas(project)
    project.upgrade()
    served = start_site(project)
    page = seen.open(served)
    sign_in(page)
    row(page, "users").get_by_role("button", name="Downgrade users").click()
    expect(page.locator(".steps li code")).to_have_text(["0003"])
    page.select_option("#plan-select", "users@base")
    expect(page.locator(".steps li code")).to_have_text(["0003", "0002", "0001"])
    expect(page.locator("#plan-body .warning")).to_contain_text("calls")
    page.select_option("#plan-select", "users@0001")
    expect(page.locator(".steps li code")).to_have_text(["0003"])
    agree(page, "Revert 1 revision")
    expect(page.locator("#run-title")).to_have_text("Downgrade to users@0001 done")
    expect(page.locator(".timeline")).to_contain_text("reverted")
    assert applied(project) == ["0001", "0002"]


def test_a_failing_revision_shows_its_problem_and_can_be_tried_again(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    project.write("0001", schema="users", message="good")
    path = project.write("0002", "raise ValueError('boom')", schema="users", after="0001")
    served = start_site(project)
    page = seen.open(served)
    sign_in(page)
    page.click("#upgrade")
    agree(page, "Apply 2 revisions")
    problem = page.locator("#run .problem")
    expect(problem).to_contain_text("A revision failed")
    expect(problem).to_contain_text("revision 0002")
    expect(problem).to_contain_text("errorId")
    expect(page.locator("#run-body")).to_contain_text("1 revision applied before it")
    expect(row(page, "users")).to_contain_text("failed")
    expect(page.locator(".timeline .failure")).to_contain_text("boom")
    path.write_text(path.read_text().replace("raise ValueError('boom')", "pass"))
    page.get_by_role("button", name="Try again").click()
    agree(page, "Apply 1 revision")
    expect(page.locator("#run-title")).to_have_text("Upgrade to head done")
    assert applied(project) == ["0001", "0002"]


def test_a_lock_held_by_another_process_is_told_with_who_and_since_when(
    start_site: StartSite, project: Project, seen: Seen, tmp_path: Path
) -> None:
    opened = tmp_path / "open"
    project.write("0001", gate(opened), schema="users")
    project.write("0002", schema="calls")
    served = start_site(project)
    config = str(project.folder / "mongover.ini")
    with start_cli("-c", config, "upgrade", "users", cwd=project.folder) as other:
        wait_until(lambda: project.history.count_documents({"state": "applying"}), "a run")
        page = seen.open(served)
        expect(page.locator("#lock")).to_contain_text(f"pid {other.pid}")
        expect(page.locator("#lock")).to_contain_text("held")
        sign_in(page)
        page.click('[data-key="upgrade calls"]')
        agree(page, "Apply 1 revision")
        holder = page.locator("#run .holder")
        expect(holder).to_contain_text(f"pid {other.pid}")
        expect(holder).to_contain_text(re.compile(r"since \d+ s ago; its last heartbeat was"))
        expect(page.locator("#run-body")).to_contain_text("Another run holds the lock")
        opened.touch()
        assert other.wait(20) == 0
        page.get_by_role("button", name="Try again").click()
        agree(page, "Apply 1 revision")
        expect(page.locator("#run-title")).to_have_text("Upgrade to calls@head done")
    assert applied(project) == ["0001", "0002"]


def test_a_slow_run_is_followed_live_also_by_a_page_that_came_later(
    start_site: StartSite, project: Project, seen: Seen, browser: Browser, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    project.write("0001", gate(first), schema="users", message="slow one")
    body = f"{gate(second)}\n        op.create_collection('calls')"
    project.write("0002", body, schema="calls", message="slow two")
    served = start_site(project)
    page = seen.open(served)
    sign_in(page)
    page.click("#upgrade")
    agree(page, "Apply 2 revisions")
    expect(page.locator("#run-body")).to_contain_text("0001 · 1 of 2")
    expect(page.locator("#announce")).to_contain_text("slow one")
    expect(row(page, "users")).to_contain_text("running")
    late = watch(browser)
    watcher = late.open(served)
    expect(watcher.locator("#run-body")).to_contain_text("0001 · 1 of 2")
    first.touch()
    expect(page.locator("#run-body")).to_contain_text("0002 · 2 of 2")
    expect(page.locator("#run-body progress").first).to_have_attribute("value", "1")
    expect(watcher.locator("#run-body")).to_contain_text("0002 · 2 of 2")
    second.touch()
    expect(page.locator("#run-title")).to_have_text("Upgrade to head done")
    expect(page.locator(".lines")).to_contain_text("collection calls")
    expect(watcher.locator("#run-title")).to_have_text("Upgrade to head done")
    watcher.context.close()
    assert late.errors() == []


def test_a_long_change_of_documents_shows_how_far_it_is_and_where(
    start_site: StartSite, project: Project, seen: Seen, browser: Browser, tmp_path: Path
) -> None:
    opened = tmp_path / "open"
    project.db["calls"].insert_many([{"_id": f"call {n:04}"} for n in range(3_000)])
    waits = f"""
        import pathlib, time

        def wait(document):
            while document["_id"] == "call 2500" and not pathlib.Path({str(opened)!r}).exists():
                time.sleep(0.02)
            return {{**document, "seen": True}}

        op.transform("calls", wait, batch_size=500)
    """
    project.write("0001", waits, schema="calls")
    served = start_site(project)
    page = seen.open(served)
    sign_in(page)
    page.click("#upgrade")
    agree(page, "Apply 1 revision")
    line = page.locator("#run-body .operation")
    expect(line).to_contain_text("transform calls by")
    expect(line).to_contain_text("2,500 of 3,000 documents")
    expect(line).to_contain_text("range")
    expect(line).to_contain_text('at _id "call 2499"')
    expect(line.locator("progress")).to_have_attribute("value", "2500")
    late = watch(browser)
    watcher = late.open(served)
    expect(watcher.locator("#run-body .operation")).to_contain_text('at _id "call 2499"')
    opened.touch()
    expect(page.locator("#run-title")).to_have_text("Upgrade to head done")
    expect(watcher.locator("#run-title")).to_have_text("Upgrade to head done")
    watcher.context.close()
    assert late.errors() == []
    assert project.db["calls"].count_documents({"seen": True}) == 3_000


def test_a_run_is_followed_by_polling_when_events_do_not_come_through(
    start_site: StartSite, project: Project, seen: Seen, tmp_path: Path
) -> None:
    opened = tmp_path / "open"
    project.write("0001", gate(opened), schema="users")
    project.write("0002", schema="users", after="0001")
    served = start_site(project)
    page = seen.page
    page.route("**/migrations/events", lambda route: route.abort())
    page.goto(f"{served.url}/migrations/")
    expect(page.locator("#connection")).to_have_text("polling")
    sign_in(page)
    page.click("#upgrade")
    agree(page, "Apply 2 revisions")
    expect(page.locator("#run-body")).to_contain_text("0001 · 1 of 2")
    opened.touch()
    expect(page.locator("#run-title")).to_have_text("Upgrade to head done")
    expect(page.locator("#run-body")).to_contain_text("2 revisions applied")
    seen.console[:] = seen.errors(REFUSED)


def test_a_page_that_nobody_looks_at_holds_no_connection_and_catches_up_later(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    two_schemas(project)
    served = start_site(project)
    page = seen.open(served)
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/events")):
        hide(page, hidden=True)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    served.post("/migrations/run", headers=bearer).raise_for_status()
    hide(page, hidden=False)
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.locator("#run-title")).to_have_text("Upgrade to head done")
    expect(page.locator("#summary")).to_contain_text("3 applied")


def hide(page: Page, *, hidden: bool) -> None:
    """Let the page believe that its tab was left, or come back to."""
    page.evaluate(
        """(hidden) => {
            Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
            document.dispatchEvent(new Event('visibilitychange'));
        }""",
        hidden,
    )


# ── faults ───────────────────────────────────────────────────────────────────────────────────────


def test_a_database_that_goes_away_is_told_and_its_return_noticed(
    serve_alone: StartSite, seen: Seen, tmp_path: Path
) -> None:
    (tmp_path / "versions").mkdir()
    with run_standalone() as server, server.client() as client:
        project = Project(tmp_path, server, "away", client)
        two_schemas(project)
        served = serve_alone(project)
        page = seen.open(served)
        server.node.kill()
        look_again(page)
        expect(page.locator("#banner")).to_contain_text("database")
        expect(page.locator("#connection")).to_have_text("no answer")
        expect(row(page, "users")).to_contain_text("pending")
        server.node.start(keep_port=True)
        expect(page.locator("#banner")).to_be_hidden(timeout=30_000)
        expect(page.locator("#connection")).to_have_text("live")
        seen.console[:] = seen.errors(REFUSED)
        served.process.terminate()
        served.process.wait(20)


def test_a_server_that_starts_again_is_found_again(
    serve_alone: StartSite, project: Project, seen: Seen
) -> None:
    two_schemas(project)
    served = serve_alone(project)
    page = seen.open(served)
    port = int(served.url.rpartition(":")[2])
    served.process.terminate()
    served.process.wait(20)
    expect(page.locator("#banner")).to_contain_text("The server does not answer")
    project.upgrade()
    serve_alone(project, port=port)
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("#summary")).to_contain_text("3 applied")
    expect(page.locator("#connection")).to_have_text("live")
    seen.console[:] = seen.errors(REFUSED)


# ── by keyboard ──────────────────────────────────────────────────────────────────────────────────


def test_everything_can_be_done_by_keyboard_and_the_focus_is_never_lost(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    two_schemas(project)
    served = start_site(project)
    page = seen.open(served)
    press, active = page.keyboard.press, "document.activeElement"
    press("Tab")
    assert page.evaluate(f"{active}.className") == "skip"
    press("Enter")
    press("Tab")
    assert page.evaluate(f"{active}.id") == "upgrade"
    assert page.evaluate(f"getComputedStyle({active}).outlineStyle") == "solid"
    press("Enter")
    expect(page.locator("#plan-go")).to_be_enabled()
    walk_to(page, "plan-go")
    press("Enter")
    expect(page.locator("#token-value")).to_be_focused()
    page.keyboard.type(TOKEN)
    press("Enter")
    expect(page.locator("#run-title")).to_be_focused()
    expect(page.locator("#run-title")).to_have_text("Upgrade to head done")
    expect(row(page, "users")).to_contain_text("up to date")
    walk_to(page, "downgrade users")
    press("Enter")
    expect(page.locator("#plan-select")).to_be_focused()
    press("End")
    expect(page.locator(".steps li")).to_have_count(3)
    press("Escape")
    assert focused(page) == "downgrade users"
    walk_to(page, "graph 0003")
    press("Enter")
    expect(page.locator("#revision-dialog")).to_contain_text("add phone")
    press("Escape")
    assert focused(page) == "graph 0003"


def focused(page: Page) -> str:
    found: str = page.evaluate(
        "document.activeElement.dataset.key ?? document.activeElement.id ?? ''"
    )
    return found


def walk_to(page: Page, name: str) -> None:
    """Press Tab until the element of this key or id has the focus."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if focused(page) == name:
            return
    pytest.fail(f"the keyboard does not reach {name}")


def test_a_table_that_is_drawn_anew_gives_the_focus_back(
    start_site: StartSite, project: Project, seen: Seen
) -> None:
    two_schemas(project)
    served = start_site(project)
    page = seen.open(served)
    page.focus('[data-key="upgrade calls"]')
    project.upgrade("0001")
    look_again(page)
    expect(page.locator("#summary")).to_contain_text("1 applied")
    assert focused(page) == "upgrade calls"


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────


def test_the_page_is_sent_with_strict_headers_and_its_files_only_by_their_names(
    serve_alone: StartSite,
    project: Project,
) -> None:
    served = serve_alone(project)
    page = httpx2.get(f"{served.url}/migrations/")
    assert page.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["x-frame-options"] == "DENY"
    script = httpx2.get(f"{served.url}/migrations/assets/dashboard.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    known = {"If-None-Match": script.headers["etag"]}
    again = httpx2.get(str(script.url), headers=known)
    assert (again.status_code, again.content) == (304, b"")
    for odd in ("../api.py", "..%2fapi.py", "%2e%2e/api.py", "nothing.js", "index.html", ""):
        answer = httpx2.get(f"{served.url}/migrations/assets/{odd}")
        assert answer.status_code == 404, odd
    assert httpx2.post(f"{served.url}/migrations/").status_code == 405
    assert httpx2.get(f"{served.url}/migrations").status_code in {200, 307}
    elsewhere = httpx2.get(f"{served.url}/migrations/", headers={"Host": "evil.example"})
    assert elsewhere.status_code == 400


def test_every_file_that_the_page_names_is_in_the_package_and_nothing_comes_from_elsewhere() -> (
    None
):
    assets = {asset.name: asset.content.decode() for asset in read_assets()}
    named = {name for text in assets.values() for name in re.findall(r'"\./([\w.]+)"', text)}
    named |= set(re.findall(r'(?:src|href)="assets/([\w.]+)"', assets["index.html"]))
    assert named == assets.keys() - {"index.html"}
    for name, text in assets.items():
        found = re.findall(r"https?://[^\s\"')]+", text)
        assert set(found) <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    assert not re.search(r"<script>|<style|style=|\son\w+=", assets["index.html"])
