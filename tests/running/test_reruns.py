"""A revision that stopped is gone on with: what it did is not done again, or a person is asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mongover.errors import Blocked, MongoverError, RevisionError
from mongover.history.changes import Resolution
from mongover.history.ledger import KEPT, Begun, End, Entry, Ledger
from mongover.running.passage import Passage
from tests.support.depth import examples
from tests.support.projects import make_project_fixture, project_fixture  # noqa: F401 - fixtures
from tests.support.reruns import move_and_kill

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.database import Database

    from tests.support.projects import Project
    from tests.support.servers import Server

    Db = Database[dict[str, Any]]
    Make = Callable[[Server], Project]

FEW = settings(
    max_examples=examples(0.25),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FAIL = 'raise ValueError("not yet")'


def body(*lines: str) -> str:
    return "\n".join(lines)


def failed(project: Project, *, down: bool = False) -> MongoverError:
    with pytest.raises(MongoverError) as caught:
        project.migrator().downgrade("base") if down else project.upgrade()
    return caught.value


def contents(db: Db) -> dict[str, Any]:
    """Every document and index of the application."""
    return {
        name: (
            sorted(db[name].find(), key=lambda each: str(each["_id"])),
            sorted(db[name].index_information()),
        )
        for name in sorted(db.list_collection_names())
        if not name.startswith("_migrations")
    }


def expire(project: Project) -> None:
    """Let the lease of a killed holder end now."""
    lock = [{"$set": {"expires_at": {"$subtract": ["$$NOW", 1]}}}]
    project.db["_migrations_lock"].update_one({"_id": "lock"}, lock)


@pytest.fixture
def anywhere(make_project: Make, any_server: Server) -> Project:
    return make_project(any_server)


# ---- what was done is not done again


def test_a_drop_and_a_rename_are_not_repeated_once_the_failed_index_is_mended(
    anywhere: Project,
) -> None:
    db = anywhere.db
    db["a"].insert_many([{"_id": i, "x": i % 2} for i in range(4)])
    db["b"].insert_one({"_id": "old"})
    steps = ('op.drop_collection("b")', 'op.rename_collection("a", "b")')
    anywhere.write("0001", body(*steps, 'op.create_index("b", "x", unique=True)'))
    assert "MGV021" in failed(anywhere).code
    anywhere.write("0001", body(*steps, 'op.create_index("b", "x")'))
    anywhere.upgrade()
    assert [each["_id"] for each in db["b"].find()] == [0, 1, 2, 3]
    assert "x_1" in db["b"].index_information()


@pytest.mark.parametrize(
    ("before", "steps", "after"),
    [
        ([{"_id": 1, "a": 1, "b": 2}], ['remove_field("c", "b")', 'rename_field("c", "a", "b")'],
         [{"_id": 1, "b": 1}]),
        ([{"_id": 1, "a": 1, "b": 2}],
         [
             'rename_field("c", "a", "t")', 'rename_field("c", "b", "a")',
             'rename_field("c", "t", "b")',
         ],
         [{"_id": 1, "a": 2, "b": 1}]),
        ([{"_id": 1}, {"_id": 2, "old": True}],
         ['delete("c", {"old": True})', 'update("c", {}, {"$set": {"old": True}})'],
         [{"_id": 1, "old": True}]),
        ([{"_id": 1, "a": 1}],
         ['rename_field("c", "a", "b", on_existing="overwrite")', 'add_field("c", "a", 9)'],
         [{"_id": 1, "a": 9, "b": 1}]),
        ([{"_id": 1, "n": 1}], ['update("c", {}, {"$inc": {"n": 1}})'], [{"_id": 1, "n": 2}]),
        ([{"_id": 1, "n": 1}], ['update("c", {}, [{"$set": {"n": {"$add": ["$n", 1]}}}])'],
         [{"_id": 1, "n": 2}]),
    ],
)  # fmt: skip
def test_a_sequence_that_a_repeat_would_ruin_is_gone_on_with(
    anywhere: Project, before: list[Any], steps: list[str], after: list[Any]
) -> None:
    anywhere.db["c"].insert_many(before)
    lines = [f"op.{step}" for step in steps]
    anywhere.write("0001", body(*lines, FAIL))
    for _ in range(2):
        failed(anywhere)
    anywhere.write("0001", body(*lines))
    anywhere.upgrade()
    assert list(anywhere.db["c"].find()) == after


def test_a_copy_and_the_drop_of_its_source_are_not_repeated(anywhere: Project) -> None:
    anywhere.db["a"].insert_many([{"_id": i} for i in range(9)])
    steps = ('op.copy("a", "b")', 'op.drop_collection("a")', 'op.rename_collection("b", "a")')
    anywhere.write("0001", body(*steps, FAIL))
    failed(anywhere)
    anywhere.write("0001", body(*steps))
    anywhere.upgrade()
    assert anywhere.db["a"].count_documents({}) == 9


def test_a_downgrade_that_failed_repeats_nothing_either(anywhere: Project) -> None:
    anywhere.db["a"].insert_one({"_id": 1})
    steps = ('op.drop_collection("b")', 'op.rename_collection("a", "b")')
    anywhere.write("0001", "pass", body(*steps, FAIL))
    anywhere.upgrade()
    failed(anywhere, down=True)
    anywhere.write("0001", "pass", body(*steps))
    anywhere.migrator().repair("0001", reason="mended")
    anywhere.migrator().downgrade("base")
    assert list(anywhere.db["b"].find()) == [{"_id": 1}]


def test_operations_that_an_earlier_attempt_finished_are_told_of_as_skipped(
    project: Project,
) -> None:
    project.write("0001", body('op.create_collection("c")', FAIL))
    failed(project)
    project.write("0001", body('op.create_collection("c")', 'op.create_index("c", "x")'))
    project.events.clear()
    project.upgrade()
    told = [getattr(event, "outcome", None) for event in project.events]
    assert [each for each in told if each] == ["skipped", "done"]
    assert project.record()["collections"] == ["c"]


def test_the_failed_step_may_be_edited_where_it_changed_nothing(anywhere: Project) -> None:
    anywhere.db["c"].insert_one({"_id": 1, "n": 1})
    add = 'op.update("c", {}, {"$inc": {"n": 1}})'
    anywhere.write("0001", body(add, 'op.update("c", {}, {"$set": {"n.x.$bad.": 1}})'))
    failed(anywhere)
    anywhere.write("0001", body(add, 'op.update("c", {}, {"$set": {"x": 1}})'))
    anywhere.upgrade()
    assert list(anywhere.db["c"].find()) == [{"_id": 1, "n": 2, "x": 1}]


def test_a_failed_step_that_may_have_changed_something_cannot_become_another(
    anywhere: Project,
) -> None:
    db = anywhere.db
    db.create_collection("c", validator={"y": {"$ne": 2}})
    db["c"].insert_many([{"_id": 1}, {"_id": 2}])
    step = 'op.update("c", {}, [{"$set": {"y": "$_id"}}])'
    anywhere.write("0001", body(step))
    failed(anywhere)
    anywhere.write("0001", body('op.update("c", {}, {"$set": {"z": 1}})'))
    error = failed(anywhere)
    assert isinstance(error, Blocked)
    assert "update c by a pipeline" in str(error.message) + str(error.notes)
    assert not db["c"].count_documents({"z": 1})


def test_what_strict_forgave_is_tried_again_and_warned_of_again(
    make_project: Make, replica_set: Server
) -> None:
    project = make_project(replica_set)
    project.db["c"].insert_many([{"x": 1}, {"x": 1}])
    steps = ('op.create_index("c", "x", unique=True)', 'op.create_index("c", "y")')
    project.write("0001", body(*steps, FAIL))
    with pytest.raises(RevisionError):
        project.migrator(strict=False).upgrade()
    project.write("0001", body(*steps))
    result = project.migrator(strict=False).upgrade()
    assert len(result.warnings) == 1


# ---- transactions, whose failure undoes what they did


def test_a_transaction_that_failed_is_run_again_from_its_first_operation(project: Project) -> None:
    project.db["c"].insert_one({"_id": 1, "n": 0})
    add, head = 'op.update("c", {}, {"$inc": {"n": 1}})', "transaction = True"
    project.write("0001", body(add, FAIL), extra=head)
    for _ in range(2):
        failed(project)
        assert project.db["c"].find_one() == {"_id": 1, "n": 0}
        assert (project.record()["outcome"], project.record()["ledger"]["done"]) == ("nothing", 0)
    project.write("0001", add, extra=head)
    project.upgrade()
    assert project.db["c"].find_one() == {"_id": 1, "n": 1}


def test_a_transaction_skips_what_was_done_before_it_was_one(project: Project) -> None:
    project.db["c"].insert_one({"_id": 1, "n": 0})
    first, second = (f'op.update("c", {{}}, {{"$inc": {{"n": {n}}}}})' for n in (1, 10))
    project.write("0001", body(first, FAIL))
    failed(project)
    project.write("0001", body(first, second, FAIL), extra="transaction = True")
    failed(project)
    assert (project.record()["outcome"], project.record()["ledger"]["done"]) == ("unknown", 1)
    project.write("0001", body(first, second), extra="transaction = True")
    project.upgrade()
    assert project.db["c"].find_one() == {"_id": 1, "n": 11}


def test_an_operation_that_ended_before_it_was_noted_keeps_its_place() -> None:
    """As one that the server cannot do, and that `strict = false` forgives."""
    names = ("forgiven", "next", "last")
    first = Passage("0001", Ledger(begun=Begun("was", "was", end=End.NOTHING)))
    for name, noted in zip(names, (False, True, False), strict=True):
        assert first.arrive(name, name) is None
        if noted:
            assert first.begin(Begun(name, name))
        first.end("done" if noted else "warning")
    assert [entry.operation for entry in first.ledger.entries] == list(names)
    assert first.ledger.done == len(names)
    again = Passage("0001", first.ledger)
    outcomes = [again.arrive(name, name) for name in names]
    again.close()
    assert [isinstance(each, Entry) for each in outcomes] == [False, True, False]


# ---- another sequence


@pytest.mark.parametrize("more", ["", 'op.insert("c", [{"_id": "last"}])'])
def test_an_edit_beyond_the_operations_that_are_kept_one_by_one_blocks(
    project: Project, more: str
) -> None:
    lines = [f'op.insert("c", [{{"_id": {number}}}])' for number in range(KEPT + 30)]
    project.write("0001", body(*lines, FAIL))
    failed(project)
    edited = [*lines]
    edited[KEPT + 20] = 'op.insert("c", [{"_id": "other"}])'
    project.write("0001", body(*edited, more))
    for _ in range(2):
        assert isinstance(failed(project), Blocked)
        project.migrator().resolve("0001", Resolution.RETRY, reason="no word about these")
    assert project.db["c"].count_documents({"_id": {"$type": "string"}}) == 0
    project.write("0001", body(*lines, more))
    project.upgrade()
    assert project.db["c"].count_documents({}) == KEPT + 30 + bool(more)


def test_an_edit_of_what_is_done_blocks_until_it_is_put_back(anywhere: Project) -> None:
    anywhere.db["a"].insert_one({"_id": 1})
    steps = ('op.rename_collection("a", "b")', 'op.create_index("b", "x")')
    anywhere.write("0001", body(*steps, FAIL))
    failed(anywhere)
    for edited in (steps[1:], (*reversed(steps),), steps[:1], ('op.drop_collection("b")', *steps)):
        anywhere.write("0001", body(*edited))
        error = failed(anywhere)
        assert isinstance(error, Blocked), edited
        assert (error.code, error.exit_code) == ("MGV042", 4)
        assert "mongover resolve 0001 --reverted" in error.hint
        assert "done: rename collection a to b, index b.x" in error.notes
        assert contents(anywhere.db)["b"] == ([{"_id": 1}], ["_id_", "x_1"])
    anywhere.write("0001", body(*steps))
    anywhere.upgrade()


def test_code_that_swallows_the_block_does_nothing_more(project: Project) -> None:
    project.write("0001", body('op.create_collection("a")', FAIL))
    failed(project)
    caught = "try:\n    op.create_collection('b')\nexcept Exception:\n    pass"
    project.write("0001", f"{caught}\n{caught.replace('b', 'c', 1)}")
    assert isinstance(failed(project), Blocked)
    assert sorted(contents(project.db)) == ["a"]


def test_values_that_are_new_each_time_need_a_word(project: Project) -> None:
    project.write("0001", body("import datetime", "now = datetime.datetime.now()",
                               'op.insert("c", [{"_id": 1, "at": now}])', FAIL))  # fmt: skip
    failed(project)
    error = failed(project)
    assert isinstance(error, Blocked)
    assert "mongover resolve 0001 --retry" in error.hint
    project.migrator().resolve("0001", Resolution.RETRY, reason="a time")
    project.write("0001", body("import datetime", "now = datetime.datetime.now()",
                               'op.insert("c", [{"_id": 1, "at": now}])'))  # fmt: skip
    project.upgrade()
    assert project.db["c"].count_documents({}) == 1


def test_reverted_by_hand_it_begins_anew(project: Project) -> None:
    project.write("0001", body('op.insert("c", [{"_id": 1}])', FAIL))
    failed(project)
    project.db["c"].drop()
    project.migrator().resolve("0001", Resolution.REVERTED, reason="undone")
    project.write("0001", 'op.insert("c", [{"_id": 2}])')
    project.upgrade()
    assert list(project.db["c"].find()) == [{"_id": 2}]


def test_what_says_that_it_can_be_repeated_skips_what_is_the_same_and_runs_what_differs(
    project: Project,
) -> None:
    head = "repeatable = True"
    up = 'op.update("c", {}, {"$inc": {"n": 1}})'
    project.db["c"].insert_one({"_id": 1, "n": 0})
    project.write("0001", body(up, FAIL), extra=head)
    failed(project)
    project.write("0001", body(up, 'op.create_index("c", "n")', FAIL), extra=head)
    failed(project)
    project.write("0001", body(up, 'op.create_index("c", "m")'), extra=head)
    project.upgrade()
    assert contents(project.db)["c"] == ([{"_id": 1, "n": 1}], ["_id_", "m_1", "n_1"])


# ---- what says of itself that it cannot be repeated, and what nobody noted


def test_repeatable_false_is_obeyed_after_an_error(anywhere: Project) -> None:
    anywhere.write("0001", body('op.create_collection("a")', FAIL), extra="repeatable = False")
    assert "mongover resolve 0001" in failed(anywhere).hint
    anywhere.write("0001", 'op.create_collection("a")', extra="repeatable = False")
    assert isinstance(failed(anywhere), Blocked)
    anywhere.migrator().resolve("0001", Resolution.RETRY, reason="looked")
    anywhere.upgrade()


def test_repeatable_false_is_obeyed_after_a_kill(anywhere: Project) -> None:
    anywhere.write("0001", 'op.create_collection("a")', extra="repeatable = False")
    assert killed(anywhere, "a", after=True)
    assert isinstance(failed(anywhere), Blocked)


def test_what_an_earlier_release_left_half_way_is_blocked(project: Project) -> None:
    project.write("0001", body('op.create_collection("a")', FAIL))
    failed(project)
    project.history.update_one({"_id": "0001"}, {"$unset": {"ledger": ""}})
    error = failed(project)
    assert isinstance(error, Blocked)
    assert "did not note what was done" in error.message


def test_a_ledger_that_makes_no_sense_is_said(project: Project) -> None:
    project.write("0001")
    project.upgrade()
    project.history.update_one({"_id": "0001"}, {"$set": {"ledger": {"done": "x"}}})
    assert "ledger makes no sense" in failed(project).message


# ---- kills


def killed(project: Project, touching: str, *, after: bool, verb: str = "upgrade") -> bool:
    """Kill the command at its first write to that collection."""
    done = kill_at(project, touching, after=after, verb=verb)
    expire(project)
    return done


def kill_at(project: Project, touching: str, *, after: bool, verb: str) -> bool:
    settings = settings_of(project)
    return move_and_kill(settings, verb, 1, after=after, touching=touching)


def settings_of(project: Project) -> dict[str, Any]:
    return {
        "url": project.server.url,
        "database": project.database,
        "versions": str(project.versions),
        "cwd": project.folder,
        "lease": 20,
    }


@pytest.mark.parametrize("after", [False, True])
def test_a_drop_whose_end_was_not_recorded_is_found_out(anywhere: Project, after: bool) -> None:
    anywhere.db["a"].insert_one({"_id": "old"})
    anywhere.write("0001", body('op.drop_collection("a")', 'op.create_index("b", "x")'))
    assert killed(anywhere, "a", after=after)
    if after:  # the application goes on with a collection of that name
        anywhere.db["a"].insert_one({"_id": "new"})
    anywhere.upgrade()
    assert [each["_id"] for each in anywhere.db["a"].find()] == (["new"] if after else [])


@pytest.mark.parametrize("after", [False, True])
def test_a_rename_whose_end_was_not_recorded_is_found_out(anywhere: Project, after: bool) -> None:
    anywhere.db["a"].insert_one({"_id": "old"})
    anywhere.write("0001", 'op.rename_collection("a", "b")')
    assert killed(anywhere, f"{anywhere.database}.a", after=after)
    if after:
        anywhere.db["a"].insert_one({"_id": "new"})
    anywhere.upgrade()
    assert list(anywhere.db["b"].find()) == [{"_id": "old"}]
    assert anywhere.db["a"].count_documents({}) == int(after)


def test_a_rename_of_which_no_trace_is_left_asks_a_person(anywhere: Project) -> None:
    anywhere.db["a"].insert_one({"_id": "old"})
    anywhere.write("0001", 'op.rename_collection("a", "b")')
    assert killed(anywhere, f"{anywhere.database}.a", after=True)
    anywhere.db["b"].drop()
    anywhere.db["a"].insert_one({"_id": "new"})
    for _ in range(2):
        assert isinstance(failed(anywhere), Blocked)
    assert contents(anywhere.db)["a"][0] == [{"_id": "new"}]


@pytest.mark.parametrize("after", [False, True])
def test_a_delete_whose_end_is_not_known_asks_a_person(anywhere: Project, after: bool) -> None:
    anywhere.db["a"].insert_many([{"_id": 1, "old": 1}, {"_id": 2}])
    steps = ('op.update("a", {}, {"$set": {"x": 1}})', 'op.delete("a", {"old": 1})')
    anywhere.write("0001", body(*steps))
    assert move_and_kill(settings_of(anywhere), "upgrade", 2, after=after, touching="a")
    expire(anywhere)
    error = failed(anywhere)
    assert isinstance(error, Blocked)
    assert "`delete a by old`" in error.message
    assert "done: update a.x" in error.notes
    (problem,) = anywhere.migrator().status().problems
    assert (problem.kind, problem.message) == ("blocked", error.message)
    anywhere.migrator().resolve("0001", Resolution.RETRY, reason="looked")
    anywhere.upgrade()
    assert list(anywhere.db["a"].find()) == [{"_id": 2, "x": 1}]


@st.composite
def programs(draw: st.DrawFn) -> list[str]:
    """A few operations on three small collections and three fields."""
    name, field = st.sampled_from("abc"), st.sampled_from("xyz")

    def one() -> str:
        a, b, x, y = draw(name), draw(name), draw(field), draw(field)
        return draw(
            st.sampled_from(
                [
                    f'op.drop_collection("{a}")',
                    f'op.rename_collection("{a}", "{b}2")',
                    f'op.rename_collection("{a}2", "{b}")',
                    f'op.insert("{a}", [{{"_id": 7, "{x}": 5}}, {{"_id": 8}}])',
                    f'op.insert("{a}", [{{"_id": 1, "{x}": 6}}], on_existing="replace")',
                    f'op.update("{a}", {{"{x}": {{"$gt": 1}}}}, {{"$inc": {{"{y}": 1}}}})',
                    f'op.update("{a}", {{}}, {{"$set": {{"{x}": 4}}}})',
                    f'op.update("{a}", {{}}, [{{"$set": {{"{x}": {{"$add": ["$_id", 1]}}}}}}])',
                    f'op.delete("{a}", {{"{x}": {{"$lt": 4}}}})',
                    f'op.add_field("{a}", "{x}", 9)',
                    f'op.remove_field("{a}", "{x}")',
                    f'op.rename_field("{a}", "{x}", "{y}", on_existing="overwrite")',
                    f'op.rename_field("{a}", "{x}", "{y}", on_existing="skip")',
                    f'op.copy("{a}", "{b}")',
                    f'op.merge_into("{a}", "{b}")',
                    f'op.create_index("{a}", "{x}")',
                ]
            ).filter(
                lambda line: (
                    len(set(re.findall(r'"(\w2?)"', line))) > 1
                    or "," not in line
                    or not line.startswith(("op.rename_field", "op.copy", "op.merge"))
                )
            )
        )

    return [one() for _ in range(draw(st.integers(2, 6)))]


SEEDS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 6)), max_size=12
)


def sow(db: Db, seeds: list[tuple[str, str, int]]) -> None:
    for number, (name, field, value) in enumerate(seeds):
        db[name].insert_one({"_id": number, field: value})


def clean(project: Project, seeds: list[Any], lines: list[str]) -> tuple[list[str], Any]:
    """As many of the operations as one run can do, and what that leaves."""
    while True:
        project.client.drop_database(project.database)
        sow(project.db, seeds)
        path = project.write("0001", body("pass", *lines))
        done = attempt(project)
        if done is None:
            return lines, contents(project.db)
        where = done.where
        assert where is not None
        assert where.line is not None
        first = path.read_text().splitlines().index("    pass") + 2
        lines = lines[: where.line - first]


def attempt(project: Project) -> MongoverError | None:
    """Upgrade; the error that a person would read, if any."""
    try:
        project.upgrade()
    except (Blocked, RevisionError) as error:
        return error
    return None


def check_end(project: Project, want: Any) -> None:
    """What the next upgrade leaves: all that one clean run does, or a question to a person."""
    error = attempt(project)
    if error is None:
        assert contents(project.db) == want
    else:
        assert isinstance(error, Blocked)
        assert "mongover resolve 0001" in error.hint


SERVERS = pytest.mark.parametrize("server", ["standalone", "replica_set"])


def project_of(request: pytest.FixtureRequest, server: str) -> Project:
    made: Project = request.getfixturevalue("make_project")(request.getfixturevalue(server))
    return made


@SERVERS
@FEW
@given(program=st.tuples(programs(), SEEDS), at=st.integers(0, 6), edit=st.booleans())
def test_after_a_failure_at_any_place_the_end_is_that_of_one_clean_run_or_a_block(
    request: pytest.FixtureRequest, server: str, program: Any, at: int, *, edit: bool
) -> None:
    project = project_of(request, server)
    lines, want = clean(project, program[1], program[0])
    project.client.drop_database(project.database)
    sow(project.db, program[1])
    wrong = 'op.create_index("a", {"x": "nonsense"})' if edit else FAIL
    project.write("0001", body("pass", *lines[:at], wrong, *lines[at:]))
    failed(project)
    project.write("0001", body("pass", *lines))
    check_end(project, want)


@SERVERS
@settings(FEW, max_examples=examples(0.12) + 2)
@given(program=st.tuples(programs(), SEEDS), at=st.integers(4, 30), after=st.booleans())
def test_after_a_kill_at_any_write_the_end_is_that_of_one_clean_run_or_a_block(
    request: pytest.FixtureRequest, server: str, program: Any, at: int, *, after: bool
) -> None:
    project = project_of(request, server)
    _, want = clean(project, program[1], program[0])
    project.client.drop_database(project.database)
    sow(project.db, program[1])
    move_and_kill(settings_of(project), "upgrade", at, after=after)
    expire(project)
    check_end(project, want)


@FEW
@given(program=st.tuples(programs(), SEEDS), at=st.integers(0, 6))
def test_a_transaction_that_failed_at_any_place_ends_as_one_clean_run(
    project: Project, program: Any, at: int
) -> None:
    lines = [line for line in program[0] if not re.search(r"collection|index|copy|merge", line)]
    lines, want = clean(project, program[1], lines)
    project.client.drop_database(project.database)
    sow(project.db, program[1])
    project.write("0001", body("pass", *lines[:at], FAIL, *lines[at:]), extra="transaction = True")
    failed(project)
    project.write("0001", body("pass", *lines), extra="transaction = True")
    project.upgrade()
    assert contents(project.db) == want


# ---- what it costs


def test_an_operation_costs_one_write_of_the_record_and_in_a_transaction_none(
    project: Project,
) -> None:
    project.write("0001", body(*(f'op.create_index("c", "x{i}")' for i in range(20))))
    lines = (f'op.update("c", {{}}, {{"$set": {{"x": {i}}}}})' for i in range(20))
    project.write("0002", body(*lines), after="0001", extra="transaction = True")
    assert writes_of(project, "0001") == 20 + 2
    assert writes_of(project, "0002") == 2


def writes_of(project: Project, target: str) -> int:
    """How many commands wrote to the history."""
    from pymongo import monitoring

    class Count(monitoring.CommandListener):
        writes = 0

        def started(self, event: monitoring.CommandStartedEvent) -> None:
            self.writes += event.command_name == "update" and (
                event.command["update"] == "_migrations"
            )

        def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

        def failed(self, event: monitoring.CommandFailedEvent) -> None: ...

    count = Count()
    monitoring._LISTENERS.command_listeners.append(count)
    try:
        project.upgrade(target)
    finally:
        monitoring._LISTENERS.command_listeners.remove(count)
    return count.writes
