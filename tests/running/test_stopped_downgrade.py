"""A run that was asked to stop says what is left of it, in words and in a command that does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mongover.errors import Blocked, Interrupted, MongoverError
from mongover.history.record import Direction
from mongover.planning.plan import plan_downgrade, plan_upgrade, rest_of
from mongover.running.stop import Stop
from tests.support.depth import examples
from tests.support.graphs import done, no_source, projects, run
from tests.support.projects import Project, make_project_fixture, project_fixture

if TYPE_CHECKING:
    from tests.support.graphs import Project as Drawn

__all__ = ["make_project_fixture", "project_fixture"]


@settings(max_examples=examples(3))
@given(projects(), st.data())
def test_the_target_of_the_rest_runs_the_rest_and_nothing_else(
    drawn: Drawn, data: st.DataObject
) -> None:
    names = sorted(drawn.graph.nodes)
    records = drawn.records(data.draw(st.sets(st.sampled_from(names))))
    schema = data.draw(st.sampled_from([each or "" for each in drawn.graph.schemas]))
    walk = data.draw(st.integers(1, 4))
    forms = [f"{{sign}}{walk}", f"{schema}@{{sign}}{walk}", f"{schema}@current{{sign}}{walk}"]
    forms += ["head", "base", f"{schema}@base", f"{schema}@head", data.draw(st.sampled_from(names))]
    form = data.draw(st.sampled_from(forms))
    decide: Any = data.draw(st.sampled_from([plan_upgrade, plan_downgrade]))
    try:
        target = form.format(sign="+" if decide is plan_upgrade else "-")
        plan = decide(drawn.files, records, target, sources=no_source)
    except MongoverError:
        return
    for index in range(1, len(plan.steps)):
        first = type(plan)(plan.direction, plan.target, plan.steps[:index])
        rest = decide(drawn.files, run(records, first), rest_of(plan, index), sources=no_source)
        assert [each.revision.id for each in rest.steps] == [
            each.revision.id for each in plan.steps[index:]
        ]
    assert plan.direction is Direction.UP or done(run(records, plan)) <= done(records)


def stopping(project: Project, target: str, *, after: int) -> Interrupted:
    """A downgrade that is asked to stop when so many revisions have begun."""
    stop, begun = Stop(), 0

    def listen(event: Any) -> None:
        nonlocal begun
        begun += type(event).__name__ == "StepStarted"
        if begun == after and type(event).__name__ == "OperationFinished":
            stop.request()

    with pytest.raises(Interrupted) as caught:
        project.migrator().downgrade(target, listener=listen, stop=stop)
    return caught.value


def three(project: Project, extra: str = "") -> None:
    for number, after in (("0001", None), ("0002", "0001"), ("0003", "0002")):
        name = f"c{number}"
        down = f"op.drop_index('{name}', 'a')\nop.drop_collection('{name}')"
        up = f"op.create_collection('{name}')\nop.create_index('{name}', 'a')"
        project.write(number, up, down, after=after, schema="a", extra=extra)
    project.upgrade()


@pytest.mark.parametrize(
    ("target", "command"),
    [("base", "base"), ("-3", "-3"), ("-2", "-2"), ("a@-2", "a@-2"), ("0001", "0001")],
)
def test_a_downgrade_that_was_stopped_names_a_command_that_ends_it(
    project: Project, target: str, command: str
) -> None:
    three(project)
    error = stopping(project, target, after=1)
    assert error.hint == f"`mongover downgrade {command}` goes on from there"
    record = project.record("0003")
    assert record["state"] == "interrupted"
    assert record["error"]["type"] == "Interrupted"
    assert record["error"]["message"] == "the run was asked to stop"
    with pytest.raises(Blocked) as caught:
        project.upgrade()
    assert caught.value.message.endswith("and it is not finished")
    assert "finish it with `mongover downgrade -1`" in caught.value.hint
    done = "done: drop index c0003.a"
    assert caught.value.notes == ("Interrupted: the run was asked to stop", done)
    project.migrator().downgrade(command)
    assert project.record("0003")["state"] == "reverted"
    left = {"base": 0, "-3": 0}.get(target, 1)
    assert project.history.count_documents({"state": "applied"}) == left


def test_a_walk_that_was_stopped_names_the_shorter_walk(project: Project) -> None:
    three(project)
    error = stopping(project, "-3", after=2)
    assert error.hint == "`mongover downgrade -2` goes on from there"
    project.migrator().downgrade("-2")
    assert project.history.count_documents({"state": "reverted"}) == 3
