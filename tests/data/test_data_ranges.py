"""Long changes on the server: ranges of `_id`, checkpoints, resumption, fences."""

from __future__ import annotations

import datetime as dt
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from hypothesis import given
from hypothesis import strategies as st
from pymongo.errors import OperationFailure
from pymongo.monitoring import CommandListener

from mongover.errors import LockLost, OperationFailed
from mongover.operations import Operations
from mongover.operations.bulk import pace, server_side
from mongover.operations.bulk.batches import Course, Done, next_size, walk_spans
from mongover.operations.bulk.checkpoints import Checkpoints, Counts, Span, reached, take_over
from mongover.operations.bulk.pace import Pace, lag_of
from mongover.operations.bulk.ranges import between, cut, last_id, step_end
from mongover.operations.documents import Update
from tests.support.operations_support import Desk, Notebook, recorded

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.database import Database
    from pymongo.monitoring import CommandStartedEvent

    from tests.support.servers import Server

    Db = Database[dict[str, Any]]

UPDATE = recorded("update", "a", {}, {"$set": {"n": 1}})
ODD_IDS = [
    *(None, 1, 2.5, Int64(7), Decimal128("3.3"), float("nan"), float("inf"), -0.0),
    *("", "a", "$x", {}, {"a": 1}, {"a": None}, {"b": {"c": [1, 2]}}, b"\x00\x01"),
    *(Binary(b"q" * 16, 4), ObjectId(), ObjectId(), True, False, Timestamp(1, 2)),
    *(dt.datetime(2020, 1, 1, tzinfo=dt.UTC), MinKey(), MaxKey()),
]


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred documents are many, and thirty make a range."""
    monkeypatch.setattr(server_side, "SMALL", 100)
    monkeypatch.setattr(server_side, "RANGE", 30)


@pytest.fixture
def ranged(any_db: Db, small_ranges: None) -> Db:
    return any_db


def mixed_ids(count: int) -> list[Any]:
    rng = random.Random(7)
    kinds: list[Callable[[int], Any]] = [
        lambda n: n,
        lambda n: f"key {n}",
        lambda _: ObjectId(),
        lambda n: {"a": n, "b": "x"},
        lambda n: n + 0.5,
        lambda n: Binary(n.to_bytes(16, "big"), 4),
        lambda n: dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=n),
    ]
    ids = [rng.choice(kinds)(number) for number in range(count)]
    return [*ids, *ODD_IDS]


def test_a_range_finds_what_the_server_sorts_into_it_whatever_the_types(standalone_db: Db) -> None:
    collection = standalone_db["a"]
    collection.insert_many([{"_id": value} for value in ODD_IDS])
    order = [row["_id"] for row in collection.find().sort("_id")]
    assert len(order) == len(ODD_IDS)
    for i, low in enumerate(order):
        for j, high in enumerate(order[i:], i):
            found = collection.count_documents(between([low], [high]), hint={"_id": 1})
            assert found == j - i, (low, high)
    assert collection.count_documents(between([], [])) == len(order)
    assert collection.count_documents(between([order[3]], [])) == len(order) - 4
    assert collection.count_documents(between([], [order[3]])) == 4


def test_steps_through_a_collection_meet_every_document_once(standalone_db: Db) -> None:
    collection = standalone_db["a"]
    collection.insert_many([{"_id": value} for value in mixed_ids(200)])
    low: list[Any] = []
    high, seen = last_id(collection), 0
    while low != high:
        end = step_end(collection, low, high, 17) or high
        seen += collection.count_documents(between(low, end))
        low = end
    assert seen == 200 + len(ODD_IDS)


def test_spans_cover_a_collection_without_overlap(standalone_db: Db) -> None:
    collection = standalone_db["a"]
    collection.insert_many([{"_id": value} for value in mixed_ids(3000)])
    highs = cut(collection, 8, 3000)
    assert 4 <= len(highs) <= 8
    lows = [[], *highs[:-1]]
    sizes = [
        collection.count_documents(between(low, high))
        for low, high in zip(lows, highs, strict=True)
    ]
    assert sum(sizes) == 3000 + len(ODD_IDS)
    assert min(sizes) > 0


def test_an_empty_or_missing_collection_has_no_spans(any_db: Db, small_ranges: None) -> None:
    assert cut(any_db["none"], 8, 0) == []
    assert Desk(any_db).do("update", "none", {}, [{"$set": {"a": 1}}]) == "unchanged"
    assert Desk(any_db).do("transform", "none", lambda d: d) == "unchanged"


@pytest.mark.parametrize("seed", range(3))
def test_many_documents_of_mixed_ids_are_changed_exactly_once(ranged: Db, seed: int) -> None:
    ids = mixed_ids(1000 + seed * 37)
    ranged["a"].insert_many([{"_id": value, "n": 0} for value in ids])
    desk = Desk(ranged)
    assert desk.do("update", "a", {}, {"$inc": {"n": 1}}) == "done"
    assert ranged["a"].count_documents({"n": 1}) == len(ids)
    done, total = desk.book.steps[-1]
    assert done == len(ids)
    assert total is not None
    assert total >= done


def test_progress_tells_the_ranges_done_and_the_highest_id_reached(ranged: Db) -> None:
    ranged["a"].insert_many([{"_id": n, "n": 0} for n in range(3000)])
    desk = Desk(ranged)
    desk.do("update", "a", {}, {"$inc": {"n": 1}}, pause=0.02)
    places = [place for place in desk.book.places if place is not None]
    assert {place.ranges for place in places} == {8}
    done = [place.ranges_done for place in places]
    assert done == sorted(done)
    assert done[-1] == 8
    reached = [int(place.reached) for place in places if place.reached]
    assert reached == sorted(reached)
    assert reached[-1] == 2999


def test_progress_tells_of_the_ranges_that_an_earlier_attempt_did(
    replica_db: Db, small_ranges: None
) -> None:
    replica_db["a"].insert_many([{"_id": n, "n": 0} for n in range(3000)])
    interrupt_update(replica_db, {"$inc": {"n": 1}}, after=8)
    left = [row["finished"] for row in replica_db["_m_checkpoints"].find({"kind": "span"})]
    desk = next_run(replica_db)
    desk.do("update", "a", {}, {"$inc": {"n": 1}}, pause=0.02)
    first, last = desk.book.places[0], desk.book.places[-1]
    assert first is not None
    assert last is not None
    assert first.ranges_done >= sum(left)
    assert first.reached
    assert (last.ranges_done, last.reached) == (8, "2999")


@pytest.mark.parametrize("verb", ["update", "transform"])
def test_telling_where_it_is_costs_no_read_however_many_batches(
    replica_set: Server, replica_db: Db, small_ranges: None, verb: str
) -> None:
    watch = Finds("_m_checkpoints")
    replica_db["a"].insert_many([{"_id": n, "n": 0} for n in range(2000)])
    with replica_set.client(event_listeners=[watch]) as client:
        desk = Desk(client[replica_db.name])
        how = [{}, {"$inc": {"n": 1}}] if verb == "update" else [lambda doc: doc | {"n": 1}]
        options = {} if verb == "update" else {"batch_size": 30}
        desk.do(verb, "a", *how, **options)
    assert desk.book.places[-1] is not None
    assert sum(row["n"] for row in replica_db["a"].find()) == 2000
    assert watch.seen <= 2  # the head at the beginning, the counts at the end


class Finds(CommandListener):
    """Counts the finds in one collection."""

    def __init__(self, collection: str) -> None:
        self.collection = collection
        self.seen = 0

    def started(self, event: CommandStartedEvent) -> None:
        self.seen += event.command.get("find") == self.collection

    def succeeded(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...


@pytest.mark.parametrize(
    "value", [*ODD_IDS, "x" * 1_000_000, "a\x1b[2J\nb", {"k": "y" * 500}, "é…"]
)
def test_an_id_is_told_on_one_short_line_whatever_it_is(value: Any) -> None:
    text = reached([value])
    assert 0 < len(text) <= 40
    assert text.isprintable()
    assert reached([]) == ""


def test_a_range_that_ends_at_true_does_not_end_at_one(any_db: Db) -> None:
    ids = [*range(-98, 2), *(f"key {n}" for n in range(200)), True]
    any_db["a"].insert_many([{"_id": value, "n": 0} for value in ids])
    desk = Desk(any_db)
    ticket = desk.book.ticket(UPDATE)
    assert ticket is not None
    checkpoints = Checkpoints(any_db, ticket)
    checkpoints.begin(Update("a", {}, {}), [[True]], 301)
    span = checkpoints.claim()
    assert span is not None
    moved = checkpoints.advance(span, [1], Counts(), session=None)
    assert checkpoints.unfinished() == 1
    checkpoints.advance(moved, [True], Counts(), session=None)
    assert checkpoints.unfinished() == 0
    desk.do("transform", "a", lambda doc: doc | {"n": doc["n"] + 1}, batch_size=100)
    assert any_db["a"].count_documents({"n": 1}) == 301


def test_verbs_that_settle_leave_nothing_behind(ranged: Db) -> None:
    ids = mixed_ids(500)
    ranged["a"].insert_many([{"_id": value, "n": 0, "old": 1} for value in ids])
    desk = Desk(ranged)
    desk.op.add_field("a", "new", 5)
    desk.op.rename_field("a", "old", "renamed")
    desk.op.remove_field("a", "n")
    assert ranged["a"].count_documents({"new": 5, "renamed": 1, "n": None, "old": None}) == len(ids)
    assert desk.do("delete", "a", {"new": 5}) == "done"
    assert ranged["a"].count_documents({}) == 0
    assert desk.do("add_field", "a", "new", 5) == "unchanged"


def test_a_filter_that_finds_few_of_many_takes_one_command(ranged: Db) -> None:
    ranged["a"].insert_many([{"_id": n, "rare": n % 200 == 0, "n": 0} for n in range(1000)])
    desk = Desk(ranged)
    assert desk.do("update", "a", {"rare": True}, {"$set": {"n": 1}}) == "done"
    assert ranged["a"].count_documents({"n": 1}) == 5
    assert ranged["_m_checkpoints"].count_documents({}) == 0


def test_a_collation_orders_ids_differently_so_it_takes_one_command(ranged: Db) -> None:
    names = [f"{letter}{n}" for n in range(150) for letter in "aAbB"]
    ranged["a"].insert_many([{"_id": name, "k": "X"} for name in names])
    desk = Desk(ranged)
    desk.op.update("a", {"k": "x"}, {"$inc": {"n": 1}}, collation={"locale": "en", "strength": 2})
    assert ranged["a"].count_documents({"n": 1}) == 600
    assert desk.book.reasons


def test_a_collection_with_a_collation_of_its_own_is_walked_in_its_order(ranged: Db) -> None:
    ranged.create_collection("a", collation={"locale": "en", "strength": 1})
    ranged["a"].insert_many([{"_id": f"{'aBcD'[n % 4]}{n}", "n": 0} for n in range(600)])
    Desk(ranged).op.update("a", {}, {"$inc": {"n": 1}})
    assert ranged["a"].count_documents({"n": 1}) == 600


def test_a_clustered_collection_is_walked_too(ranged: Db) -> None:
    ranged.create_collection("a", clusteredIndex={"key": {"_id": 1}, "unique": True})
    ranged["a"].insert_many([{"_id": n, "n": 0} for n in range(600)])
    Desk(ranged).op.update("a", {}, {"$inc": {"n": 1}})
    assert ranged["a"].count_documents({"n": 1}) == 600


def first_run(db: Db) -> Desk:
    """A desk of a run that another one will follow."""
    desk = Desk(db)
    desk.book.revision = "0001"
    return desk


def interrupt_update(db: Db, update: dict[str, Any], *, after: int = 3) -> None:
    """Run an update and stop it after a few batches, as Ctrl-C does."""
    desk = first_run(db)
    desk.book.stop_at = after
    with pytest.raises(KeyboardInterrupt):
        desk.op.update("a", {}, update, pause=0.02)


def next_run(db: Db) -> Desk:
    """A desk of the run after: a higher fence, the same operations again."""
    desk = first_run(db)
    desk.book.fence = 2
    ticket = desk.book.ticket(UPDATE)
    assert ticket is not None
    desk.book.tickets = 0
    take_over(db, ticket)
    return desk


def test_an_interrupted_update_goes_on_where_it_stopped_and_counts_each_document_once(
    replica_db: Db, small_ranges: None
) -> None:
    replica_db["a"].insert_many([{"_id": value, "n": 0} for value in mixed_ids(3000)])
    interrupt_update(replica_db, {"$inc": {"n": 1}})
    before = replica_db["a"].count_documents({"n": 1})
    assert 0 < before < 3000
    desk = next_run(replica_db)
    assert desk.do("update", "a", {}, {"$inc": {"n": 1}}) == "done"
    assert replica_db["a"].count_documents({"n": 1}) == 3000 + len(ODD_IDS)
    assert desk.book.steps[0][0] >= before


def test_a_finished_operation_is_not_done_again_by_the_next_attempt(
    replica_db: Db, small_ranges: None
) -> None:
    replica_db["a"].insert_many([{"_id": n, "n": 0} for n in range(10)])
    first_run(replica_db).op.update("a", {}, {"$inc": {"n": 1}})
    desk = next_run(replica_db)
    assert desk.do("update", "a", {}, {"$inc": {"n": 1}}) == "unchanged"
    assert replica_db["a"].count_documents({"n": 1}) == 10


def test_an_edited_operation_is_refused_when_the_old_one_must_not_be_repeated(
    replica_db: Db, small_ranges: None
) -> None:
    replica_db["a"].insert_many([{"_id": n, "n": 0} for n in range(1000)])
    interrupt_update(replica_db, {"$inc": {"n": 1}})
    before = replica_db["a"].count_documents({"n": 1})
    with pytest.raises(OperationFailed, match="was edited") as caught:
        next_run(replica_db).op.update("a", {}, {"$inc": {"n": 2}})
    assert "resolve 0001 --reverted" in caught.value.hint
    assert replica_db["a"].count_documents({"n": 1}) == before


def test_an_edited_operation_begins_anew_when_repeating_does_no_harm(
    replica_db: Db, small_ranges: None
) -> None:
    replica_db["a"].insert_many([{"_id": n, "n": 0} for n in range(1000)])
    interrupt_update(replica_db, {"$set": {"n": 1}})
    next_run(replica_db).op.update("a", {}, {"$set": {"n": 2}})
    assert replica_db["a"].count_documents({"n": 2}) == 1000


def test_a_zombie_writes_nothing_after_a_takeover(replica_db: Db, small_ranges: None) -> None:
    replica_db["a"].insert_many([{"_id": n, "n": 0} for n in range(1000)])
    zombie = first_run(replica_db)
    taken: list[int] = []

    def take_it_over(*_: Any) -> None:
        if len(zombie.book.steps) == 1 and not taken:
            next_run(replica_db)
            taken.append(replica_db["a"].count_documents({"n": 1}))

    zombie.book.edge = take_it_over  # type: ignore[method-assign] # the moment of the takeover
    with pytest.raises(LockLost):
        zombie.op.update("a", {}, {"$inc": {"n": 1}}, pause=0.3)
    assert taken == [replica_db["a"].count_documents({"n": 1})]


def test_a_standalone_stops_a_zombie_before_its_next_batch(
    standalone_db: Db, small_ranges: None
) -> None:
    standalone_db["a"].insert_many([{"_id": n, "n": 0} for n in range(200)])
    book = Notebook(revision="0001")
    ticket = book.ticket(UPDATE)
    assert ticket is not None
    checkpoints = Checkpoints(standalone_db, ticket)

    checkpoints.begin(Update("a", {}, {"$set": {"n": 1}}), [[199]], 200)
    span = checkpoints.claim()
    assert span is not None
    next_run(standalone_db)
    with pytest.raises(LockLost):
        checkpoints.check(span)
    with pytest.raises(LockLost):
        checkpoints.advance(span, [100], Counts(), session=None)


def test_conflicts_with_the_application_are_tried_again_with_smaller_batches(
    replica_db: Db, small_ranges: None
) -> None:
    replica_db["a"].insert_many([{"_id": n, "n": 0} for n in range(500)])
    sizes: list[int] = []
    original = server_side._Ranges.batch

    def meddle(self: Any, session: Any, span: Span, size: int) -> Done:
        done = original(self, session, span, size)
        sizes.append(size)
        if len(sizes) <= 3:
            # The application changed what this transaction saw: it cannot commit.

            labels = {"errorLabels": ["TransientTransactionError"]}
            raise OperationFailure("conflict", 112, labels)
        return done

    server_side._Ranges.batch = meddle  # type: ignore[method-assign] # put back below
    try:
        Desk(replica_db).op.update("a", {}, {"$inc": {"n": 1}})
    finally:
        server_side._Ranges.batch = original  # type: ignore[method-assign]
    assert min(sizes) < max(sizes)
    assert replica_db["a"].count_documents({"n": 1}) == 500


def test_documents_that_come_and_go_meanwhile_do_no_harm(ranged: Db) -> None:
    ranged["a"].insert_many([{"_id": n, "n": 0} for n in range(0, 2000, 2)])
    desk = Desk(ranged)
    rng = random.Random(3)

    def meddle() -> None:
        key = rng.randrange(2000)
        ranged["a"].delete_one({"_id": key - key % 2})
        ranged["a"].update_one({"_id": 2001 + key}, {"$set": {"n": 0}}, upsert=True)

    desk.book.edge = meddle  # type: ignore[method-assign] # between the batches
    desk.op.update("a", {}, {"$set": {"done": True}}, pause=0.05)
    assert ranged["a"].count_documents({"_id": {"$lt": 2000}, "done": None}) == 0


def test_a_pace_slows_an_update_down(ranged: Db) -> None:
    ranged["a"].insert_many([{"_id": n} for n in range(400)])

    started = time.monotonic()
    Desk(ranged).op.update("a", {}, {"$set": {"n": 1}}, max_rate=400)
    assert time.monotonic() - started > 0.5


def test_a_pace_counts_where_every_range_is_one_batch_too(
    ranged: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_side, "RANGE", 10_000)
    ranged["a"].insert_many([{"_id": n} for n in range(2_000)])
    paused: list[int] = []
    monkeypatch.setattr(pace.Throttle, "after", lambda _, count, _seconds: paused.append(count))
    Desk(ranged).op.update("a", {}, {"$set": {"n": 1}}, max_rate=4_000)
    spans = ranged["_m_checkpoints"].count_documents({"kind": "span", "batches": 1})
    assert spans == 8
    assert len(paused) >= spans - 2  # none after the last of each of two threads


def test_max_lag_without_replication_is_refused_with_the_reason(
    standalone_db: Db, small_ranges: None
) -> None:
    standalone_db["a"].insert_many([{"_id": n} for n in range(400)])
    with pytest.raises(OperationFailed, match="max_lag cannot be kept"):
        Desk(standalone_db).op.update("a", {}, {"$set": {"n": 1}}, max_lag=5)


def test_the_lag_is_that_of_the_slowest_secondary() -> None:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    members: list[dict[str, Any]] = [
        {"state": 1, "optimeDate": now},
        {"state": 2, "optimeDate": now - dt.timedelta(seconds=2)},
        {"state": 2, "optimeDate": now - dt.timedelta(seconds=7)},
        {"state": 7},
    ]
    assert lag_of(members) == 7
    assert lag_of(members[:1]) == 0


@pytest.mark.parametrize("bad", [{"max_rate": -1}, {"pause": "x"}, {"max_lag": True}, {"rate": 1}])
def test_a_pace_that_makes_no_sense_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(OperationFailed):
        Pace.of(bad)


@given(
    st.integers(1, 10_000),
    st.floats(0, 100),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
)
def test_batches_never_vanish_and_never_outgrow_their_limit(
    size: int, seconds: float, walked: int, matched: int
) -> None:
    counts = Counts(walked=walked, matched=matched)
    assert 1 <= next_size(size, seconds, counts, most=10_000) <= 160_000


def test_pace_and_operation_are_told_apart_in_what_a_later_attempt_knows() -> None:
    class Only(Operations):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def run(self, operation: Any) -> None:
            self.seen.append(operation)

    op = Only()
    op.update("a", {}, {"$inc": {"n": 1}})
    op.update("a", {}, {"$inc": {"n": 1}}, max_rate=5, pause=1)
    plain, slow = op.seen
    assert plain.identity() == slow.identity()
    assert slow.render() == 'op.update("a", {}, {"$inc": {"n": 1}}, max_rate=5, pause=1)'


def test_a_walk_ends_when_no_span_is_left(replica_db: Db) -> None:
    ticket = Notebook().ticket(UPDATE)
    assert ticket is not None

    course = Course(replica_db, ticket, True, 10, None, lambda: None, lambda *_: None)  # noqa: FBT003 - a plain value

    class Never:
        def batch(self, *_: Any) -> Done:
            raise AssertionError("there is nothing to do")

        def settled(self) -> None: ...

    walk_spans(course, Never())
