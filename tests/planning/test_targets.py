from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mongover.errors import (
    AmbiguousTarget,
    CycleError,
    InvalidRevision,
    MongoverError,
    MultipleHeads,
    TargetError,
    UnknownTarget,
    UsageError,
    WalkTooFar,
    WrongLine,
)
from mongover.planning.graph import Graph, Node
from mongover.planning.targets import Selection, Targets, parse_target
from tests.support.graphs import Project, projects, rev

# users    0001 ── 0004 ── 0006
# calls    0002 ── 0005 ── 0008        0005 needs 0004
# user-2   0003
# unnamed  0007 ── 0010 ──┐
#            └──── 0011 ──┴── 0012
GRAPH = Graph(
    [
        rev("0001", "users"),
        rev("0004", "users", "0001"),
        rev("0006", "users", "0004"),
        rev("0002", "calls"),
        rev("0005", "calls", "0002", "0004"),
        rev("0008", "calls", "0005"),
        rev("0003", "user-2"),
        rev("0007"),
        rev("0010", None, "0007"),
        rev("0011", None, "0007"),
        rev("0012", None, "0010 0011"),
    ]
)
DONE = ("0002", "0001", "0004", "0005", "0003")
TARGETS = Targets(GRAPH, DONE)
EVERY = GRAPH.schemas


@pytest.mark.parametrize(
    ("text", "line", "name", "steps"),
    [
        ("head", None, "head", 0),
        (" users ", None, "users", 0),
        ("users@head", "users", "head", 0),
        ("users@-1", "users", "", -1),
        ("users@0004+2", "users", "0004", 2),
        ("+2", None, "", 2),
        ("-10", None, "", -10),
        ("0004-1", None, "0004", -1),
        ("a-b", None, "a-b", 0),
        ("a-b-3", None, "a-b", -3),
        ("@head", "", "head", 0),
        ("+007", None, "", 7),
        ("+" + "9" * 5000, None, "", 10**9),
    ],
)
def test_a_target_is_taken_apart(text: str, line: str | None, name: str, steps: int) -> None:
    target = parse_target(text)
    assert (target.line, target.name, target.steps) == (line, name, steps)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the target is empty"),
        ("  ", "the target is empty"),
        ("users@", "names nothing after the @"),
        ("a@b@c", "is not a target"),
        ("0004+x", "is not a target"),
        ("+", "is not a target"),
        ("+0", "a walk of no steps"),
        ("0004-0", "a walk of no steps"),
        ("a,b", "is not a target"),
        ("0001:0003", "is a range"),
    ],
)
def test_what_is_no_target_is_refused_with_the_grammar(text: str, says: str) -> None:
    with pytest.raises(UnknownTarget, match=says) as caught:
        parse_target(text)
    assert "users@head" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "ids", "lines", "whole"),
    [
        ("head", ("0006", "0008", "0003", "0012"), EVERY, True),
        ("heads", ("0006", "0008", "0003", "0012"), EVERY, True),
        ("users", ("0006",), ("users",), False),
        ("users@head", ("0006",), ("users",), False),
        ("@head", ("0012",), (None,), False),
        ("user-2", ("0003",), ("user-2",), False),
        ("users-2", ("0001",), (), False),
        ("0008", ("0008",), (), False),
        ("8", ("0008",), (), False),
        ("calls@8", ("0008",), (), False),
        ("calls@0002+2", ("0008",), (), False),
        ("0006-1", ("0004",), (), False),
        ("head-1", None, None, None),
        ("users@head-1", ("0004",), (), False),
        ("current", ("0002", "0001", "0004", "0005", "0003"), None, None),
        ("users@current", ("0004",), (), False),
        ("users@current+1", ("0006",), (), False),
        ("+2", ("0006", "0007"), EVERY, True),
        ("calls@+1", ("0008",), ("calls",), False),
        ("@+3", ("0007", "0010", "0011"), (None,), False),
    ],
)
def test_an_upgrade_target_picks_what_must_be_applied(
    text: str,
    ids: tuple[str, ...] | None,
    lines: tuple[str | None, ...] | None,
    whole: bool | None,  # a case of a table
) -> None:
    if ids is None:
        with pytest.raises(AmbiguousTarget):
            TARGETS.upgrade(text)
    elif whole is None:
        assert set(TARGETS.upgrade(text).ids) <= set(ids)
    else:
        assert TARGETS.upgrade(text) == Selection(ids, lines or (), whole=whole)


@pytest.mark.parametrize(
    ("text", "ids", "lines"),
    [
        ("-1", ("0003",), ("user-2",)),
        ("-2", ("0003", "0005"), ("user-2", "calls")),
        ("users@-1", ("0004",), ("users",)),
        ("base", ("0003", "0005", "0004", "0001", "0002"), EVERY),
        ("users@base", ("0004", "0001"), ("users",)),
        ("@base", (), (None,)),
        ("0001", ("0004",), ("users",)),
        ("1", ("0004",), ("users",)),
        ("0004-1", ("0004",), ("users",)),
        ("0001+1", (), ("users",)),
        ("calls@base+1", ("0005",), ("calls",)),
        ("0006", (), ("users",)),
        ("users", (), ("users",)),
        ("users@head", (), ("users",)),
        ("head", (), EVERY),
        ("current", (), EVERY),
        ("users@current", (), ("users",)),
    ],
)
def test_a_downgrade_target_picks_what_must_go(
    text: str, ids: tuple[str, ...], lines: tuple[str | None, ...]
) -> None:
    selection = TARGETS.downgrade(text)
    assert (selection.ids, selection.lines) == (ids, lines)


def test_minus_one_follows_the_order_of_application_and_not_the_numbers() -> None:
    assert Targets(GRAPH, ("0003", "0002")).downgrade("-1").ids == ("0002",)


@pytest.mark.parametrize(
    ("text", "one"),
    [
        ("users", "0006"),
        ("users@head", "0006"),
        ("users@base", "0001"),
        ("4", "0004"),
        ("0004", "0004"),
        ("current", "0003"),
        ("users@current", "0004"),
        ("0001+2", "0006"),
        ("+1", "0006"),
        ("-1", "0003"),
        ("-2", "0005"),
        ("001", None),  # 0001 by its number, 0010 and others as a prefix
        ("head", None),
    ],
)
def test_one_revision_is_named_or_the_candidates_are(text: str, one: str | None) -> None:
    if one is not None:
        assert TARGETS.one(text) == one
        return
    with pytest.raises(AmbiguousTarget) as caught:
        TARGETS.one(text)
    assert len(caught.value.notes) >= 3
    assert " or " in caught.value.message


def test_an_exact_id_wins_over_a_prefix_and_a_number_over_both() -> None:
    graph = Graph([rev("0001"), rev("00012", None, "0001"), rev("20261122", None, "00012")])
    targets = Targets(graph, ())
    assert targets.one("0001") == "0001"
    assert targets.one("12") == "00012"
    assert targets.one("2026") == "20261122"
    with pytest.raises(AmbiguousTarget, match="000 can be 0001 or 00012"):
        targets.one("000")


def test_a_prefix_is_looked_for_in_the_line_that_is_named() -> None:
    graph = Graph([rev("1001", "a"), rev("1002", "b")])
    assert Targets(graph, ()).one("b@1") == "1002"


@pytest.mark.parametrize(
    ("text", "error", "says", "hint"),
    [
        ("0099", UnknownTarget, "'0099' is no revision", "schemas: users, calls, user-2"),
        ("usrs", UnknownTarget, "'usrs' is no revision, schema or word", "did you mean users?"),
        ("usrs@head", UnknownTarget, "usrs@head: 'usrs' is no schema", "did you mean users?"),
        ("users@0099", UnknownTarget, "users@0099: '0099' is no revision", "schemas"),
        ("rev+50", UnknownTarget, "'rev' is no revision", "schemas"),
        ("users@calls", UnknownTarget, "'calls' is no revision", "schemas"),
        ("²", UnknownTarget, "'²' is no revision", "schemas"),
        ("9" * 400, UnknownTarget, "is no revision", "schemas"),
        ("users@0005", WrongLine, "0005 is in calls, not in users", "say calls@0005"),
        ("users@7", WrongLine, "0007 is in the unnamed line, not in users", "say 0007"),
        ("@0001", WrongLine, "not in the unnamed line", "say users@0001"),
        ("0004+2", WalkTooFar, "there is only 1 step above 0004 in users", "users@head"),
        ("0006-9", WalkTooFar, "there are only 2 steps below 0006", "users@base"),
        ("0012+1", WalkTooFar, "there is no step above 0012", "@head"),
        ("0007+1", AmbiguousTarget, "0010 or 0011", "name one of them"),
        ("0012-1", AmbiguousTarget, "0010 or 0011", "name one of them"),
    ],
)
def test_a_wrong_name_is_wrong_everywhere(
    text: str, error: type[MongoverError], says: str, hint: str
) -> None:
    for look_up in (TARGETS.upgrade, TARGETS.downgrade, TARGETS.one, TARGETS.stamp, TARGETS.span):
        with pytest.raises(error) as caught:
            look_up(text)
        assert type(caught.value) is error
        assert says in caught.value.message
        assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("+99", "+99 goes too far: there are only 6 pending revisions"),
        ("users@+2", "users@+2 goes too far: there is only 1 pending revision in users"),
        ("user-2@+1", "there are no pending revisions in user-2"),
    ],
)
def test_an_upgrade_beyond_the_end_says_how_many_there_are(text: str, says: str) -> None:
    with pytest.raises(WalkTooFar) as caught:
        TARGETS.upgrade(text)
    assert says in caught.value.message


def test_a_downgrade_beyond_the_base_says_how_many_there_are() -> None:
    with pytest.raises(WalkTooFar, match="only 5 applied revisions"):
        TARGETS.downgrade("-6")
    with pytest.raises(WalkTooFar, match="no applied revisions in the unnamed line"):
        TARGETS.downgrade("@-1")


@pytest.mark.parametrize("text", ["-1", "users@-1", "base", "users@base"])
def test_an_upgrade_never_goes_down(text: str) -> None:
    with pytest.raises(UsageError, match="an upgrade goes up") as caught:
        TARGETS.upgrade(text)
    assert caught.value.hint == f"mongover downgrade {text}"


@pytest.mark.parametrize("text", ["+1", "users@+1"])
def test_a_downgrade_never_goes_up(text: str) -> None:
    with pytest.raises(UsageError, match="a downgrade goes down") as caught:
        TARGETS.downgrade(text)
    assert caught.value.hint == f"mongover upgrade {text}"


def test_a_walk_up_needs_one_head_per_line() -> None:
    targets = Targets(Graph([rev("0001"), rev("0002")]), ())
    with pytest.raises(MultipleHeads):
        targets.upgrade("+1")
    with pytest.raises(AmbiguousTarget):
        targets.one("head")


def test_a_line_is_walked_in_the_order_that_links_through_other_lines_ask_for() -> None:
    # a  0002 (needs 0003)      a  0004
    # b  0003 (needs 0004)      merged by 0005
    graph = Graph(
        [
            rev("0002", "a", needs="0003"),
            rev("0003", "b", needs="0004"),
            rev("0004", "a"),
            rev("0005", "a", "0002 0004"),
        ]
    )
    assert Targets(graph, ()).upgrade("a@+1").ids == ("0004",)


def test_a_target_in_a_broken_file_shows_what_is_broken() -> None:
    targets = Targets(Graph([rev("0001")], broken={"0002": InvalidRevision("cannot parse")}), ())
    for text in ("0002", "2"):
        with pytest.raises(InvalidRevision, match="cannot parse"):
            targets.one(text)


def test_without_revisions_the_words_still_stand() -> None:
    targets = Targets(Graph([]), ())
    assert targets.upgrade("head") == Selection((), (), whole=True)
    assert targets.downgrade("base").ids == ()
    assert targets.span(":") == targets.span("head") == []
    assert targets.stamp("head") == targets.stamp("base") == ([], [])
    for text in ("head", "base", "current"):
        with pytest.raises(UnknownTarget, match="there is none yet"):
            targets.one(text)
    with pytest.raises(UnknownTarget) as caught:
        targets.one("0001")
    assert "mongover revision" in caught.value.hint


def test_many_candidates_are_counted_and_not_listed() -> None:
    graph = Graph([rev(f"{number:04d}", f"s{number}") for number in range(1, 31)])
    with pytest.raises(AmbiguousTarget, match="or 18 more") as caught:
        Targets(graph, ()).one("00")
    assert len(caught.value.notes) == 12


@pytest.mark.parametrize(
    ("text", "mark", "unmark"),
    [
        ("head", ["0006", "0007", "0008", "0010", "0011", "0012"], []),
        ("base", [], ["0005", "0004", "0003", "0002", "0001"]),
        ("users@base", [], ["0005", "0004", "0001"]),
        ("users", ["0006"], []),
        ("0001", [], ["0005", "0004"]),
        ("0008", ["0008"], []),
        ("0012", ["0007", "0010", "0011", "0012"], []),
        ("+1", ["0006"], []),
        ("-1", [], ["0003"]),
        ("current", [], []),
    ],
)
def test_a_stamp_marks_below_and_unmarks_above(
    text: str, mark: list[str], unmark: list[str]
) -> None:
    assert TARGETS.stamp(text) == (mark, unmark)


ORDER = GRAPH.order(GRAPH.nodes)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("0002:0005", ["0002", "0003", "0004", "0005"]),
        ("2 : 5", ["0002", "0003", "0004", "0005"]),
        (":0003", ["0001", "0002", "0003"]),
        ("0010:", ["0010", "0011", "0012"]),
        (":", ORDER),
        ("base:head", ORDER),
        ("users@0001:0005", ["0001", "0004"]),
        ("calls@0002:calls@head", ["0002", "0005", "0008"]),
        ("0004", ["0004"]),
        ("users", ["0001", "0004", "0006"]),
        ("users@head", ["0006"]),
        ("-2", ["0005"]),
    ],
)
def test_a_range_is_cut_from_the_order_of_a_run(text: str, span: list[str]) -> None:
    assert TARGETS.span(text) == span


@pytest.mark.parametrize(
    ("text", "says"), [("0005:0002", "runs backwards"), ("1:2:3", "has two colons")]
)
def test_a_range_that_makes_no_sense_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        TARGETS.span(text)


def test_a_range_can_be_seen_through_a_circle_but_not_stamped() -> None:
    graph = Graph([Node("0001", down_revision=("0002",)), Node("0002", down_revision=("0001",))])
    targets = Targets(graph, ())
    assert targets.span(":") == ["0001", "0002"]
    with pytest.raises(CycleError):
        targets.upgrade("head")
    with pytest.raises(CycleError):
        targets.stamp("0001")
    with pytest.raises(CycleError):
        targets.upgrade("+1")


@pytest.mark.parametrize("walk", ["+999999999", "-999999999"])
def test_a_walk_in_a_circle_ends(walk: str) -> None:
    graph = Graph([Node("0001", down_revision=("0002",)), Node("0002", down_revision=("0001",))])
    with pytest.raises(CycleError):
        Targets(graph, ()).one(f"0001{walk}")


ALPHABET = st.sampled_from([*"@:+-,0126 ²é\x00\n", "head", "base", "current", "users", "000"])


@given(st.text() | st.lists(ALPHABET).map("".join))
def test_the_parser_never_raises_anything_but_its_own_errors(text: str) -> None:
    with suppress(TargetError, UsageError):
        parse_target(text)


@given(st.text() | st.lists(ALPHABET, min_size=1).map("".join), projects(), st.data())
def test_looking_up_never_raises_anything_but_its_own_errors(
    text: str, project: Project, data: st.DataObject
) -> None:
    seeds = data.draw(st.sets(st.sampled_from(sorted(project.graph.nodes))))
    targets = Targets(project.graph, list(project.records(seeds)))
    for look_up in (targets.upgrade, targets.downgrade, targets.one, targets.stamp, targets.span):
        with suppress(TargetError, UsageError):
            look_up(text)
