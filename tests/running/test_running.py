"""What one process can see of a revision that another one is running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mongover.cli.screen.status import running_line
from mongover.history.record import Direction, Record, State
from mongover.operations.base import Advance, Place
from mongover.report.status import Running, running_of
from mongover.running import events, long_work
from tests.support.projects import make_project_fixture, project_fixture  # noqa: F401 - fixtures
from tests.support.servers import wait_until

if TYPE_CHECKING:
    from mongover.report.status import Status
    from tests.support.projects import Project

LONG = 'op.update("users", {}, {"$set": {"seen": True}}, pause=0.3)'


def walked(project: Project) -> int:
    spans = project.db["_migrations_checkpoints"].find({"kind": "span"})
    return sum(span["walked"] for span in spans)


def test_status_shows_the_revision_that_another_process_runs_and_how_far_it_is(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_work, "_NOTE_EVERY", 0.0)  # what is told is on the record
    project.db["users"].insert_many([{"_id": number} for number in range(45_000)])
    project.write("0001", LONG)
    seen: list[Status] = []

    def look(event: events.Event) -> None:
        if isinstance(event, events.Progress):
            seen.append(project.migrator().status())
            wait_until(lambda: walked(project), "the end of a first range")

    project.migrator().upgrade(listener=look)
    running = [one for status in seen for one in status.running]
    assert running
    assert {one.revision for one in running} == {"0001"}
    assert running[0].direction is Direction.UP
    told = [one.progress for one in running if one.progress is not None]
    assert told
    assert all(one.total == 45_000 and 0 <= one.done <= 45_000 for one in told)
    assert any(one.done for one in told)
    assert all((one.ranges or 0) >= (one.ranges_done or 0) >= 0 for one in told)
    assert any(one.ranges == 8 and one.reached for one in told)  # two threads, four ranges each
    assert "users" in told[0].operation
    assert project.migrator().status().running == ()


def test_the_line_of_status_tells_the_range() -> None:
    note = {"operation": "update users", "done": 61, "total": 100, "rate": 10.0, "left": 3.9}
    place = {"ranges": 8, "ranges_done": 3, "reached": "665f"}
    (running,) = running_of([Record("0006", State.APPLYING, checkpoint=note | place)])
    assert running_line(running) == (
        "0006 runs: update users, 61 %, 61/100, 10/s, 3.9 s left, 3/8 ranges, at _id 665f"
    )


@pytest.mark.parametrize(
    "told", [None, "nonsense", 7, {"operation": 7, "reached": 7, "ranges": ""}]
)
def test_a_progress_edited_into_nonsense_is_not_shown(told: Any) -> None:
    record = Record("0001", State.APPLYING, checkpoint=told)
    assert running_of([record]) == (Running("0001", None, Direction.UP, None),)


@given(
    st.integers(0, 10**12),
    st.none() | st.integers(0, 10**12),
    st.none() | st.builds(Place, st.integers(1, 99), st.integers(0, 99), st.text(max_size=40)),
    st.none() | st.floats(0, 1e9),
)
def test_what_a_run_tells_of_itself_and_what_its_record_tells_is_the_same(
    done: int, total: int | None, place: Place | None, rate: float | None
) -> None:
    told = events.Progress(
        "0001", "update users", Advance(done, total, place=place), 0.0, rate, 3.0
    )
    (running,) = running_of([Record("0001", State.APPLYING, checkpoint=told.summary())])
    assert running.progress == told
