"""Targets that cannot be reached, circles that hide a head, and what a downgrade may touch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mongover.errors import (
    AmbiguousTarget,
    CycleError,
    MongoverError,
    UsageError,
    WalkTooFar,
)
from mongover.history.record import State
from mongover.planning.graph import Graph
from mongover.planning.plan import plan_downgrade, plan_upgrade
from mongover.planning.problems import find_problems
from mongover.planning.targets import Targets
from tests.support.depth import examples
from tests.support.graphs import (
    Project,
    applied,
    done,
    folder,
    no_source,
    projects,
    record,
    rev,
    run,
)
from tests.support.projects import make_project_fixture  # noqa: F401 - a fixture
from tests.support.servers import run_cli

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mongover.history.record import Record
    from mongover.planning.plan import Plan
    from mongover.revisions.revision import RevisionFiles
    from tests.support.projects import Project as Folder
    from tests.support.servers import Server


def up(files: RevisionFiles, records: Mapping[str, Record], target: str = "head") -> Plan:
    return plan_upgrade(files, records, target, sources=no_source)


def down(files: RevisionFiles, records: Mapping[str, Record], target: str) -> Plan:
    return plan_downgrade(files, records, target, sources=no_source)


def ids(plan: Plan) -> list[str]:
    return [step.revision.id for step in plan.steps]


# ── circles ──────────────────────────────────────────────────────────────────────────────────────

CIRCLES = {
    "simple": [rev("0001", "a", "0002"), rev("0002", "a", "0001")],
    "upper": [rev("0001", "a"), rev("0002", "a", "0001 0003"), rev("0003", "a", "0002")],
    "extra": [
        *(rev("0001", "a"), rev("0002", "a", "0001")),
        *(rev("0003", "a", "0004"), rev("0004", "a", "0003")),
    ],
    "solitary": [rev("0001", "a", "0001")],
    "head loop": [rev("0001", "a"), rev("0002", "a", "0001 0002")],
    "merge loop": [
        *(rev("0001", "a"), rev("0002", "a", "0001"), rev("0003", "a", "0001")),
        rev("0004", "a", "0002 0003 0004"),
    ],
    "between lines": [rev("0001", "a", needs="0002"), rev("0002", "b", needs="0001")],
    "upon itself": [rev("0001", "a", needs="0001")],
}


@pytest.mark.parametrize("circle", CIRCLES)
@pytest.mark.parametrize("target", ["head", "heads", "a", "a@head", "+1", "a@+1", "0001+99"])
def test_an_upgrade_over_a_circle_is_refused_and_shows_it(circle: str, target: str) -> None:
    with pytest.raises(MongoverError) as caught:
        up(folder(*CIRCLES[circle]), {}, target)
    if target != "0001+99":
        assert type(caught.value) is CycleError
        assert "the links form a circle" in caught.value.message


@pytest.mark.parametrize("circle", CIRCLES)
def test_a_circle_is_one_problem_and_spoils_no_other_line(circle: str) -> None:
    files = folder(*CIRCLES[circle], rev("0009", "z"))
    assert [each.kind for each in find_problems(files, {}, sources=no_source)] == ["cycle"]
    assert ids(up(files, {}, "z")) == ["0009"]
    with pytest.raises(CycleError):
        up(files, {}, "head")


@pytest.mark.parametrize("circle", sorted(CIRCLES.keys() - {"between lines", "upon itself"}))
@pytest.mark.parametrize("ask", ["one", "stamp", "upgrade", "downgrade"])
@pytest.mark.parametrize("target", ["a", "a@head", "head"])
def test_the_head_of_a_line_with_a_circle_is_not_guessed(
    circle: str, ask: str, target: str
) -> None:
    with pytest.raises(CycleError):
        getattr(Targets(Graph(CIRCLES[circle]), ()), ask)(target)


@settings(max_examples=examples(2))
@given(projects(), st.data())
def test_an_upgrade_never_ends_in_nothing_over_a_circle(
    project: Project, data: st.DataObject
) -> None:
    revisions = dict(project.files.revisions)
    low = data.draw(st.sampled_from(sorted(revisions)))
    schema = revisions[low].schema
    high = data.draw(st.sampled_from(sorted({low} | project.graph.above([low]))))
    revisions[low] = replace(revisions[low], down_revision=(*revisions[low].down_revision, high))
    there = {each for each in revisions if low not in project.graph.ancestors([each])}
    records = applied(revisions[each] for each in project.graph.order(there))
    for target in ("head", f"{schema or ''}@head", high, low):
        with pytest.raises(CycleError):
            up(folder(*revisions.values()), records, target)


@pytest.mark.parametrize("circle", ["simple", "upper", "extra"])
def test_no_command_takes_a_circle_for_an_empty_or_finished_line(
    circle: str, tmp_path: Path
) -> None:
    (tmp_path / "versions").mkdir()
    for each in CIRCLES[circle]:
        parents = each.down_revision
        text = f'revision = "{each.id}"\ndown_revision = {parents!r}\nschema = "a"\n'
        (tmp_path / "versions" / f"{each.id}_x.py").write_text(text + "def upgrade(op): pass\n")
    for command in (["heads"], ["revision", "-m", "x", "--schema", "a"], ["merge", "a", "-m", "x"]):
        done_ = run_cli(*command, cwd=tmp_path)
        assert done_.returncode == 4, done_.stdout
        assert "the links form a circle" in done_.stderr
    assert run_cli("check", cwd=tmp_path).returncode == 4


# ── what a downgrade may touch ───────────────────────────────────────────────────────────────────

# users      0001 ── 0004 ── 0006
# calls      0002 ── 0005            0005 needs 0004
# schedules  0003                    needs 0001
SHOP = [
    *(rev("0001", "users"), rev("0002", "calls"), rev("0003", "schedules", needs="0001")),
    *(rev("0004", "users", "0001"), rev("0005", "calls", "0002", "0004")),
    rev("0006", "users", "0004"),
]


def history(*names: str) -> dict[str, Record]:
    known = {each.id: each for each in SHOP}
    return applied(known[name] for name in names)


def test_what_depends_on_a_revision_that_stays_stays_too() -> None:
    plan = down(folder(*SHOP), history("0001", "0002", "0003"), "users@0001")
    assert plan.steps == ()
    assert plan.nothing == "nothing to do: no revision above users@0001 is applied in users"


def test_what_depends_on_what_is_reverted_goes_first_and_is_named() -> None:
    plan = down(folder(*SHOP), history(*[each.id for each in SHOP]), "users@0001")
    assert ids(plan) == ["0006", "0005", "0004"]
    assert plan.reaches == ("calls",)
    assert plan.notices == ("also reverts 0005 (calls): it stands on what is reverted",)


def needing(graph: Graph, seeds: set[str]) -> set[str]:
    """The seeds and all that needs them, link by link."""
    found = set(seeds)
    while True:
        more = {each for each in graph.nodes if found.intersection(graph.parents(each))} - found
        if not more:
            return found
        found |= more


def above(graph: Graph, identifier: str) -> set[str]:
    """What stands on a revision by links of its own line alone."""
    found: set[str] = set()
    while True:
        low = found | {identifier}
        more = {
            each.id for each in graph.nodes.values() if low.intersection(each.down_revision)
        } - found
        if not more:
            return found
        found |= more


@st.composite
def moves(draw: st.DrawFn) -> tuple[Project, dict[str, Record], str, set[str]]:
    """A project with some of it applied, a target of any form, and what it says shall go."""
    project = draw(projects())
    graph = project.graph
    records = project.records(draw(st.sets(st.sampled_from(sorted(graph.nodes)), min_size=1)))
    there = [each for each in records if records[each].counts_as_applied]
    chosen = draw(st.sampled_from(there))
    schema = graph.nodes[chosen].schema
    line = [each for each in there if graph.nodes[each].schema == schema]
    steps = draw(st.integers(1, len(line)))
    named = schema or ""
    forms: list[tuple[str, set[str]]] = [
        (chosen, above(graph, chosen)),
        (f"{named}@{chosen}", above(graph, chosen)),
        ("base", set(there)),
        (f"{named}@base", set(line)),
        (f"-{steps}", set(there[-steps:])),
        (f"{named}@-{steps}", set(line[-steps:])),
        ("current", set()),
        (f"{named}@current", set()),
    ]
    target, seeds = draw(st.sampled_from(forms))
    return project, records, target, seeds & set(there)


@settings(max_examples=examples(3))
@given(moves())
def test_a_downgrade_reverts_what_its_target_says_with_its_dependents_and_nothing_that_stays(
    move: tuple[Project, dict[str, Record], str, set[str]],
) -> None:
    project, records, target, seeds = move
    plan = down(project.files, records, target)
    assert set(ids(plan)) == needing(project.graph, seeds) & done(records)
    assert bool(plan.nothing) is (not plan.steps)
    named = {project.graph.nodes[each].schema for each in seeds}
    reached = {project.graph.nodes[each].schema for each in ids(plan)} - named
    assert set(plan.reaches) == reached
    told = " ".join(plan.notices)
    assert all(each in told for each in set(ids(plan)) - seeds)
    after = run(records, plan)
    left = done(after)
    assert all(left.issuperset(project.graph.parents(each)) for each in left)


# ── moves that cannot be made ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("target", "there", "says"),
    [
        ("0004", "0001", "0004 is not applied: users stands at 0001"),
        ("0004", "", "0004 is not applied: no revision of users is"),
        ("users@4", "0001", "users@4 (0004) is not applied: users stands at 0001"),
        ("0001+1", "0001", "0001+1 (0004) is not applied"),
        ("users@current+1", "0001", "(0004) is not applied"),
        ("users@base+2", "0001", "(0004) is not applied"),
        ("users", "0001", "users (0006) is not applied"),
        ("users@head", "0001 0004", "(0006) is not applied: users stands at 0004"),
        ("head", "0001 0002 0003 0004 0005", "head (0006) is not applied"),
        ("heads", "0001", "is not applied"),
        ("0005", "0001 0002 0004", "0005 is not applied: calls stands at 0002"),
    ],
)
def test_a_downgrade_to_what_is_not_applied_is_refused(target: str, there: str, says: str) -> None:
    with pytest.raises(UsageError, match="a downgrade goes down") as caught:
        down(folder(*SHOP), history(*there.split()), target)
    assert says in caught.value.message
    assert caught.value.hint == f"mongover upgrade {target}, or a target that is applied"
    assert caught.value.exit_code == 2


def test_what_is_pending_below_applied_ones_can_be_gone_down_to() -> None:
    files = folder(rev("0001"), rev("0002", None, "0001"), rev("0003", None, "0002"))
    records = applied([files.revisions["0001"], files.revisions["0003"]])
    assert ids(down(files, records, "0002")) == ["0003"]


def test_what_is_being_applied_is_waited_for() -> None:
    files = folder(*SHOP)
    records = history("0001") | {"0004": record(SHOP[3], State.APPLYING, sequence=2)}
    assert down(files, records, "0004").steps == ()


@settings(max_examples=examples(2))
@given(projects(), st.data())
def test_a_downgrade_to_a_revision_moves_or_is_there_or_is_refused(
    project: Project, data: st.DataObject
) -> None:
    names = sorted(project.graph.nodes)
    records = project.records(data.draw(st.sets(st.sampled_from(names))))
    target = data.draw(st.sampled_from(names))
    if target in done(records):
        assert done(run(records, down(project.files, records, target))) >= {target}
    else:
        with pytest.raises(UsageError, match="is not applied"):
            down(project.files, records, target)


# ── base, and walks from it ──────────────────────────────────────────────────────────────────────

LINE = [rev("0001", "a"), rev("0002", "a", "0001"), rev("0003", "a", "0002")]


@pytest.mark.parametrize("before", ["", "a@"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_walk_up_from_base_counts_the_revisions_that_are_applied(before: str, steps: int) -> None:
    files, names = folder(*LINE), [each.id for each in LINE]
    target = f"{before}base+{steps}"
    assert ids(up(files, {}, target)) == names[:steps]
    assert ids(up(files, applied(LINE[:1]), target)) == names[1:steps]
    assert ids(down(files, applied(LINE), target)) == names[steps:][::-1]
    assert Targets(Graph(LINE), ()).one(target) == names[steps - 1]


@pytest.mark.parametrize("ask", ["upgrade", "downgrade", "one", "stamp"])
def test_a_walk_from_base_goes_neither_below_it_nor_beyond_the_head(ask: str) -> None:
    look_up = getattr(Targets(Graph(LINE), ()), ask)
    with pytest.raises(WalkTooFar, match="there are only 3 steps above base in a"):
        look_up("a@base+4")
    with pytest.raises(WalkTooFar, match="there is no step below base in a"):
        look_up("a@base-1")


def test_a_walk_from_the_base_of_several_lines_asks_which() -> None:
    with pytest.raises(AmbiguousTarget, match="can be 0001, 0002 or 0003"):
        up(folder(*SHOP), {}, "base+1")


def test_an_upgrade_to_base_itself_still_goes_down() -> None:
    for target in ("base", "a@base"):
        with pytest.raises(UsageError, match="is below everything"):
            up(folder(*LINE), {}, target)


# ── the commands ─────────────────────────────────────────────────────────────────────────────────


def shop_on(make_project: Callable[[Server], Folder], server: Server) -> Folder:
    project = make_project(server)
    project.write("0001", "op.create_collection('users')", schema="users")
    project.write(
        *("0002", "op.create_collection('calls')", "op.drop_collection('calls')"),
        schema="calls",
        extra='depends_on = "0001"',
    )
    project.write("0003", after="0001", schema="users")
    project.upgrade("calls")
    return project


def command(project: Folder, *words: str) -> Any:
    flags = ["--url", project.server.url, "--database", project.database]
    return run_cli(*words, *flags, cwd=project.folder)


def test_the_commands_keep_what_stays_and_say_what_cannot_be(
    make_project: Callable[[Server], Folder], replica_set: Server
) -> None:
    project = shop_on(make_project, replica_set)
    stays = command(project, "downgrade", "users@0001")
    assert stays.returncode == 0
    assert "no revision above users@0001 is applied in users" in stays.stdout + stays.stderr
    assert "calls" in project.db.list_collection_names()
    for words in (["downgrade", "0003"], ["plan", "--down", "0003"], ["downgrade", "users"]):
        refused = command(project, *words)
        assert refused.returncode == 2, words
        assert "is not applied: users stands at 0001" in refused.stderr
        assert "next: mongover upgrade" in refused.stderr
    assert {each["state"] for each in project.history.find()} == {"applied"}


def test_the_other_lines_are_named_before_a_downgrade_starts(
    make_project: Callable[[Server], Folder], replica_set: Server
) -> None:
    project = shop_on(make_project, replica_set)
    done_ = command(project, "downgrade", "users@base")
    said = done_.stdout + done_.stderr
    assert done_.returncode == 0
    assert "also reverts 0002 (calls)" in said
    assert done_.stderr.index("also reverts") < done_.stderr.index("[1/2]")
