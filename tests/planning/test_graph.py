from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mongover.errors import CycleError, InvalidRevision, MultipleHeads, UnknownParent
from mongover.planning.graph import Graph, Node, describe, name_of, number_of
from tests.support.graphs import Project, projects, rev

# users      0001 ── 0006 ──┐
#              │    └─ 0007 ─┴── 0008
# calls      0002 ── 0003        │
#              └──(0001)         └──(0003)
USERS = [
    rev("0001", "users"),
    rev("0006", "users", "0001"),
    rev("0007", "users", "0001"),
    rev("0008", "users", "0006 0007", "0003"),
]
CALLS = [rev("0002", "calls", needs="0001"), rev("0003", "calls", "0002")]


@pytest.fixture
def graph() -> Graph:
    return Graph([*USERS, *CALLS])


def test_lines_have_their_own_heads_and_bases(graph: Graph) -> None:
    assert graph.schemas == ("users", "calls")
    assert graph.heads("users") == ("0008",)
    assert graph.bases("users") == ("0001",)
    assert graph.heads("calls") == ("0003",)
    assert graph.bases("calls") == ("0002",)
    assert graph.heads("none") == graph.bases("none") == ()


def test_a_dependency_of_another_line_does_not_take_a_head_away() -> None:
    #  a  0001
    #  b  0002 ──(0001)
    graph = Graph([rev("0001", "a"), rev("0002", "b", needs="0001")])
    assert graph.heads("a") == ("0001",)


def test_both_kinds_of_link_lead_up_and_down(graph: Graph) -> None:
    assert graph.parents("0008") == ("0006", "0007", "0003")
    assert graph.children("0001") == ("0002", "0006", "0007")
    assert graph.ancestors(["0003"]) == {"0001", "0002", "0003"}
    assert graph.descendants(["0002"]) == {"0002", "0003", "0008"}


def test_only_the_own_line_is_walked(graph: Graph) -> None:
    assert graph.in_line("0001", up=True) == ("0006", "0007")
    assert graph.in_line("0008", up=False) == ("0006", "0007")
    assert graph.in_line("0002", up=False) == ()


def test_a_merge_comes_after_both_parents_and_ties_go_by_number(graph: Graph) -> None:
    assert graph.order(graph.nodes) == ["0001", "0002", "0003", "0006", "0007", "0008"]
    assert graph.order(graph.nodes, reverse=True) == [
        *("0008", "0007", "0006", "0003", "0002", "0001"),
    ]


def test_rank_goes_before_number(graph: Graph) -> None:
    order = graph.order(graph.nodes, rank=lambda each: 0 if each in ("0006", "0007") else 1)
    assert order == ["0001", "0006", "0007", "0002", "0003", "0008"]


def test_a_parent_named_by_both_links_counts_once() -> None:
    graph = Graph([rev("0001"), rev("0002", None, "0001", "0001")])
    assert graph.order(graph.nodes) == ["0001", "0002"]
    assert graph.children("0001") == ("0002",)


def test_numbers_sort_past_9999_and_odd_ids_come_last() -> None:
    ids = ["10000", "9999", "x", "0001", "٣", "9" * 400]
    assert sorted(ids, key=number_of)[:3] == ["0001", "9999", "10000"]
    assert list(Graph([Node(each) for each in ids]).nodes)[:3] == ["0001", "9999", "10000"]


def test_an_unknown_parent_harms_only_those_who_need_it() -> None:
    # a  0001 ── 0003(0002?)      b  0004
    graph = Graph([rev("0001", "a"), rev("0003", "a", "0002"), rev("0004", "b")])
    graph.check(["0001", "0004"])
    with pytest.raises(UnknownParent, match="0003 revises 0002, which has no file") as caught:
        graph.check(graph.ancestors(["0003"]))
    assert "mongover restore 0002" in caught.value.hint
    assert caught.value.where is not None
    assert list(graph.problems()) == ["0003"]


def test_an_id_without_its_zeros_is_corrected() -> None:
    graph = Graph([rev("0001"), rev("0002", needs="1")])
    with pytest.raises(UnknownParent, match="0002 depends on 1") as caught:
        graph.check(["0002"])
    assert caught.value.hint == 'write "0001" for "1"'


def test_a_link_to_a_broken_file_shows_what_is_broken() -> None:
    error = InvalidRevision("0001_x.py cannot be parsed")
    graph = Graph([rev("0002", None, "0001")], broken={"0001": error})
    with pytest.raises(InvalidRevision, match="cannot be parsed"):
        graph.check(["0002"])


def test_down_revision_stays_within_a_line() -> None:
    graph = Graph([rev("0001", "a"), rev("0002", None, "0001")])
    with pytest.raises(UnknownParent, match="0001, which is in a: down_revision") as caught:
        graph.check(["0002"])
    assert caught.value.hint == 'write depends_on = "0001" in 0002 instead'
    assert graph.heads("a") == ("0001",)
    assert graph.in_line("0002", up=False) == graph.in_line("0001", up=True) == ()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_circle_is_shown_as_a_path(reverse: bool) -> None:  # both directions
    # 0001 ── 0002 ── 0003 ── 0005
    #          └── 0004 ──┘ (0003 needs 0004 needs 0003)
    graph = Graph(
        [
            rev("0001"),
            rev("0002", None, "0001"),
            rev("0003", None, "0002", "0004"),
            rev("0004", None, "0003"),
            rev("0005", None, "0003"),
        ]
    )
    with pytest.raises(CycleError, match="0003 needs 0004 needs 0003") as caught:
        graph.order(graph.nodes, reverse=reverse)
    assert [note[:4] for note in caught.value.notes] == ["0003", "0004"]
    assert graph.order(["0001", "0002"]) == ["0001", "0002"]
    assert graph.listing(graph.nodes) == ["0001", "0002", "0003", "0004", "0005"]
    assert list(graph.problems()) == ["0003"]


def test_separate_circles_are_all_reported() -> None:
    nodes = [rev("0001", "a", "0002"), rev("0002", "a", "0001"), rev("0003", "b", "0003")]
    problems = Graph(nodes).problems()
    assert list(problems) == ["0001", "0003"]
    assert "0003 needs 0003" in problems["0003"].message


def test_a_circle_of_records_has_no_place() -> None:
    with pytest.raises(CycleError) as caught:
        Graph([Node("0001", down_revision=("0001",))]).order(["0001"])
    assert caught.value.where is None


def test_two_heads_name_both_files_and_both_ways_out() -> None:
    # 0001 ── 0006
    #    └─── 0007
    graph = Graph([rev("0001", "users"), *USERS[1:3]])
    with pytest.raises(MultipleHeads, match="users has 2 heads: 0006, 0007") as caught:
        graph.check_heads("users", applied=["0001", "0007"])
    assert "`mongover rebase 0006` puts it on top of 0007" in caught.value.hint
    assert 'mongover merge users -m "…"' in caught.value.hint
    assert all("_x.py" in note for note in caught.value.notes)
    with pytest.raises(MultipleHeads) as caught:
        graph.check_heads("users", applied=["0006", "0007"])
    assert "rebase" not in caught.value.hint
    with pytest.raises(MultipleHeads) as caught:
        graph.check_heads("users")
    assert "`mongover rebase 0007` puts it on top of 0006" in caught.value.hint


def test_the_unnamed_line_has_a_name_in_sentences() -> None:
    graph = Graph([rev("0001"), rev("0002")])
    with pytest.raises(MultipleHeads, match="the unnamed line has 2 heads") as caught:
        graph.check_heads(None)
    assert 'mongover merge -m "…"' in caught.value.hint
    assert name_of(None) == "the unnamed line"


def test_a_revision_is_described_with_or_without_its_file() -> None:
    assert describe(USERS[3]).endswith("revises 0006 and 0007, versions/0008_x.py")
    assert describe(Node("0001", message="m")) == "0001 m, without a file"


@given(projects())
def test_order_respects_every_link(project: Project) -> None:
    graph = project.graph
    order = graph.order(graph.nodes)
    place = {each: index for index, each in enumerate(order)}
    assert sorted(order) == sorted(graph.nodes)
    assert all(place[p] < place[each] for each in order for p in graph.parents(each))
    backwards = graph.order(graph.nodes, reverse=True)
    place = {each: index for index, each in enumerate(backwards)}
    assert all(place[p] > place[each] for each in order for p in graph.parents(each))
    assert graph.problems() == {}


@given(projects(), st.data())
def test_ancestors_and_descendants_mirror_each_other(project: Project, data: st.DataObject) -> None:
    graph = project.graph
    one, other = (data.draw(st.sampled_from(sorted(graph.nodes))) for _ in range(2))
    assert (one in graph.ancestors([other])) == (other in graph.descendants([one]))


class CountingChain:
    """A chain of nodes that counts how often a link of theirs is asked for."""

    def __init__(self, size: int) -> None:
        self.asked = 0
        chain = self

        class Counting:
            schema, message, path, depends_on = "a", "", None, ()

            def __init__(self, number: int) -> None:
                self.id = f"{number:05d}"
                self.number = number

            @property
            def down_revision(self) -> tuple[str, ...]:
                chain.asked += 1
                return (f"{self.number - 1:05d}",) if self.number else ()

        self.nodes = [Counting(number) for number in range(size)]


def test_a_long_chain_takes_linear_work_and_no_recursion() -> None:
    asked = []
    for size in (2_500, 5_000):
        chain = CountingChain(size)
        graph = Graph(chain.nodes)
        assert len(graph.order(graph.ancestors([chain.nodes[-1].id]))) == size
        assert len(graph.descendants([chain.nodes[0].id])) == size
        assert len(graph.listing(graph.nodes)) == size
        assert graph.problems() == {}
        assert graph.heads("a") == (chain.nodes[-1].id,)
        asked.append(chain.asked)
    assert asked[1] <= asked[0] * 2 + 10


def test_a_circle_through_thousands_is_found_and_shortened() -> None:
    size = 5_000
    nodes = [Node(f"{n:05d}", down_revision=(f"{(n - 1) % size:05d}",)) for n in range(size)]
    with pytest.raises(CycleError) as caught:
        Graph(nodes).order([node.id for node in nodes])
    assert len(caught.value.notes) == 12
