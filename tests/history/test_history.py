"""One contract, kept by the history in memory and by the one on MongoDB."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from mongover.errors import (
    BadRecord,
    DatabaseError,
    ForeignDocument,
    MongoverError,
    NewerFormat,
    RecordConflict,
)
from mongover.history import changes
from mongover.history.changes import Change, Resolution
from mongover.history.ledger import Ledger
from mongover.history.memory import MemoryHistory
from mongover.history.mongo import MongoHistory
from mongover.history.record import (
    LOG_LIMIT,
    Direction,
    LogEntry,
    Record,
    Remains,
    State,
    parse_record,
)
from tests.support.depth import examples
from tests.support.histories import BY, attempt, subject
from tests.support.servers import failpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.database import Database

    from mongover.history.changes import History
    from tests.support.servers import Server

    Open = Callable[..., Database[dict[str, Any]]]


def mongo_history(database: Database[dict[str, Any]], **options: Any) -> MongoHistory:
    collection = database.get_collection(
        "_migrations",
        write_concern=WriteConcern("majority", j=True),
        read_concern=ReadConcern("majority"),
    )
    return MongoHistory(collection, **options)


@pytest.fixture(params=["memory", "standalone", "replica_set"])
def history(request: pytest.FixtureRequest, open_database: Open) -> History:
    """Every implementation, empty."""
    if request.param == "memory":
        return MemoryHistory()
    return mongo_history(
        open_database(request.getfixturevalue(request.param), tz_aware=True), patience=5
    )


def applied(history: History, revision: str = "0001", sequence: int = 1) -> Record:
    """A record that went through begin and finish."""
    one = attempt(revision)
    history.write([changes.begin(one, history.read_one(revision), subject(revision))])
    history.write([changes.finish(one, sequence=sequence, duration_ms=41.7, collections=["users"])])
    found = history.read_one(revision)
    assert found is not None
    return found


def test_an_empty_history_reads_as_empty(history: History) -> None:
    assert history.read() == {}
    assert history.read_one("0001") is None


def test_a_record_says_applying_before_it_says_applied(history: History) -> None:
    one = attempt()
    history.write([changes.begin(one, None, subject())])
    begun = history.read()["0001"]
    assert (begun.state, begun.attempt, begun.fence) == (State.APPLYING, 1, 7)
    history.write([changes.finish(one, sequence=3, duration_ms=41.7)])
    done = history.read()["0001"]
    assert (done.state, done.sequence, done.duration_ms) == (State.APPLIED, 3, 41.7)


def test_a_finished_record_carries_everything_that_is_known(history: History) -> None:
    record = applied(history)
    assert record.schema == "users"
    assert record.collections == ("users",)
    assert record.source == "text of the file"
    assert dict(record.by) == BY
    assert record.started_at is not None
    assert record.applied_at is not None
    assert [(entry.action, entry.outcome) for entry in record.log] == [("apply", "applied")]
    assert abs(datetime.now(UTC) - record.applied_at) < timedelta(minutes=1)


def test_source_and_log_are_read_only_when_asked_for(history: History) -> None:
    applied(history)
    light, full = history.read()["0001"], history.read(details=True)["0001"]
    assert (light.source, light.log) == (None, ())
    assert full.source == "text of the file"
    assert len(full.log) == 1


def test_a_second_beginning_of_a_running_revision_conflicts(history: History) -> None:
    history.write([changes.begin(attempt(), None, subject())])
    with pytest.raises(RecordConflict) as caught:
        history.write([changes.begin(attempt(owner="other"), None, subject())])
    assert caught.value.revision == "0001"
    assert history.read()["0001"].owner == "owner-1"


def test_the_end_of_an_attempt_needs_its_own_fence(history: History) -> None:
    history.write([changes.begin(attempt(), None, subject())])
    zombie = attempt(fence=6)
    with pytest.raises(RecordConflict):
        history.write([changes.finish(zombie, sequence=1, duration_ms=1)])
    assert history.read()["0001"].state is State.APPLYING


def test_a_write_ends_at_the_first_change_that_does_not_fit(history: History) -> None:
    first, second = attempt("0001"), attempt("0002")
    history.write([changes.begin(first, None, subject("0001"))])
    history.write([changes.sweep(history.read()["0001"])])
    with pytest.raises(RecordConflict) as caught:
        history.write(
            [
                changes.finish(first, sequence=1, duration_ms=1),
                changes.begin(second, None, subject("0002")),
            ]
        )
    assert caught.value.revision == "0001"
    assert set(history.read()) == {"0001"}


def test_a_finish_never_creates_a_record_that_somebody_deleted(history: History) -> None:
    with pytest.raises(RecordConflict, match="gone"):
        history.write([changes.finish(attempt(), sequence=1, duration_ms=1)])
    assert history.read() == {}


def test_the_changes_of_people_never_create_a_record_either(history: History) -> None:
    record = applied(history)
    change = changes.unstamp(record, by=BY, reason="x")
    ghost = Change("0009", change.expect, change.values, change.entry)
    with pytest.raises(RecordConflict, match="gone"):
        history.write([ghost])
    assert set(history.read()) == {"0001"}


def test_values_that_look_like_expressions_are_kept_as_they_are(history: History) -> None:
    odd = subject(message="$state", source="$$NOW {$add: [1, 2]}", schema="$users")
    one = attempt()
    history.write([changes.begin(one, None, odd)])
    history.write([changes.finish(one, sequence=1, duration_ms=1, warnings=["$log"])])
    found = history.read_one("0001")
    assert found is not None
    assert (found.message, found.source, found.schema) == ("$state", odd.source, "$users")
    assert found.warnings == ("$log",)


def test_the_log_keeps_its_newest_entries_only(history: History) -> None:
    record = applied(history)
    for number in range(LOG_LIMIT + 5):
        entry = LogEntry("resolve", f"n{number}", by=BY)
        history.write([Change("0001", frozenset({State.APPLIED}), {"attempt": number}, entry)])
    found = history.read_one(record.revision)
    assert found is not None
    assert len(found.log) == LOG_LIMIT
    assert found.log[-1].outcome == f"n{LOG_LIMIT + 4}"
    assert found.log[0].outcome == "n5"


def test_a_downgrade_keeps_when_and_in_which_place_it_was_applied(history: History) -> None:
    before = applied(history, sequence=4)
    down = attempt(direction=Direction.DOWN)
    history.write([changes.begin(down, before, subject())])
    assert history.read()["0001"].counts_as_applied
    history.write([changes.finish(down, sequence=9, duration_ms=1)])
    after = history.read()["0001"]
    assert (after.state, after.sequence) == (State.REVERTED, 4)
    assert after.applied_at == before.applied_at
    assert after.reverted_at is not None


def test_a_failed_downgrade_counts_as_applied(history: History) -> None:
    before = applied(history)
    down = attempt(direction=Direction.DOWN)
    history.write([changes.begin(down, before, subject())])
    error = {"type": "ValueError", "code": None, "message": "x"}
    history.write(
        [changes.stop(down, State.FAILED, outcome=Remains.UNKNOWN, error=error, duration_ms=2.0)]
    )
    record = history.read()["0001"]
    assert record.counts_as_applied
    assert record.unfinished is Direction.DOWN
    assert record.error == error


@pytest.mark.parametrize(
    ("transaction", "outcome"), [(True, Remains.NOTHING), (False, Remains.UNKNOWN)]
)
def test_a_swept_record_says_what_is_known_of_it(
    history: History, transaction: bool, outcome: Remains
) -> None:
    history.write([changes.begin(attempt(transaction=transaction), None, subject())])
    history.write([changes.sweep(history.read()["0001"])])
    record = history.read_one("0001")
    assert record is not None
    assert (record.state, record.outcome) == (State.INTERRUPTED, outcome)
    assert record.log[-1].by == BY
    assert not record.blocked


def test_an_unrepeatable_record_is_blocked_until_it_is_resolved(history: History) -> None:
    one = attempt()
    history.write([changes.begin(one, None, subject())])
    history.write([changes.note(one, Ledger(), repeatable=False)])
    history.write([changes.sweep(history.read()["0001"])])
    record = history.read()["0001"]
    assert record.blocked
    history.write([changes.resolve(record, Resolution.RETRY, by=BY, reason="looked", sequence=1)])
    resolved = history.read_one("0001")
    assert resolved is not None
    assert not resolved.blocked
    assert resolved.log[-1].reason == "looked"


@pytest.mark.parametrize(
    ("resolution", "state"),
    [(Resolution.APPLIED, State.APPLIED), (Resolution.REVERTED, State.REVERTED)],
)
def test_a_resolution_sets_the_state_that_a_person_found(
    history: History, resolution: Resolution, state: State
) -> None:
    history.write([changes.begin(attempt(), None, subject())])
    history.write([changes.sweep(history.read()["0001"])])
    record = history.read()["0001"]
    history.write([changes.resolve(record, resolution, by=BY, reason="x", sequence=5)])
    after = history.read()["0001"]
    assert (after.state, after.outcome, after.error) == (state, None, None)
    assert after.sequence == (5 if resolution is Resolution.APPLIED else 0)


def test_stamp_and_unstamp_are_logged_and_keep_the_record(history: History) -> None:
    history.write([changes.stamp(subject(), None, by=BY, reason="old database", sequence=1)])
    record = history.read_one("0001")
    assert record is not None
    assert record.state is State.APPLIED
    history.write([changes.unstamp(record, by=BY, reason="wrong")])
    after = history.read_one("0001")
    assert after is not None
    assert after.state is State.REVERTED
    assert [entry.reason for entry in after.log] == ["old database", "wrong"]


def test_repair_takes_the_file_as_it_is_now(history: History) -> None:
    record = applied(history)
    new = subject(checksum="sha256:bb", source="other text")
    history.write([changes.repair(record, new, by=BY, reason="comment")])
    after = history.read_one("0001")
    assert after is not None
    assert (after.checksum, after.source) == ("sha256:bb", "other text")
    assert after.applied_at == record.applied_at


@settings(
    max_examples=examples(0.25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.sampled_from(["begin", "finish", "fail", "sweep", "down", "stamp"]), max_size=9))
def test_memory_and_mongodb_agree_on_every_sequence_of_changes(
    replica_db: Database[dict[str, Any]], steps: list[str]
) -> None:
    replica_db["_migrations"].delete_many({})
    one, two = MemoryHistory(), mongo_history(replica_db)
    for number, step in enumerate(steps):
        results = [_try_step(store, step, number) for store in (one, two)]
        assert results[0] == results[1]
    assert _timeless(one) == _timeless(two)


def _try_step(history: History, step: str, number: int) -> str:
    record = history.read().get("0001")
    direction = Direction.DOWN if step == "down" else Direction.UP
    one = attempt(direction=direction, run=f"run-{number}")
    failure: dict[str, Any] = {"outcome": Remains.UNKNOWN, "error": {"type": "X"}}
    steps: dict[str, Callable[[], Change | None]] = {
        "begin": lambda: changes.begin(one, record, subject()),
        "down": lambda: changes.begin(one, record, subject()) if record else None,
        "finish": lambda: changes.finish(one, sequence=number, duration_ms=1),
        "fail": lambda: changes.stop(one, State.FAILED, duration_ms=1, **failure),
        "sweep": lambda: changes.sweep(record) if record else None,
        "stamp": lambda: changes.stamp(subject(), record, by=BY, reason="", sequence=number),
    }
    change = steps[step]()
    try:
        history.write([change] if change else [])
    except RecordConflict:
        return "conflict"
    return "written"


def _timeless(history: History) -> list[tuple[Any, ...]]:
    return [
        (record.state, record.attempt, record.sequence, record.run, len(record.log))
        for record in history.read(details=True).values()
    ]


# ---- what only a real database can do ------------------------------------------------------------


def test_reading_creates_no_collection(any_db: Database[dict[str, Any]]) -> None:
    mongo_history(any_db).read()
    assert any_db.list_collection_names() == []


def test_unknown_fields_of_a_record_are_kept(any_db: Database[dict[str, Any]]) -> None:
    history = mongo_history(any_db)
    record = applied(history)
    any_db["_migrations"].update_one({"_id": "0001"}, {"$set": {"note": "ours"}})
    history.write([changes.unstamp(record, by=BY, reason="x")])
    found = any_db["_migrations"].find_one({"_id": "0001"})
    assert found is not None
    assert found["note"] == "ours"


@pytest.mark.parametrize(
    ("document", "error", "words"),
    [
        ({"_id": 1, "name": "x"}, ForeignDocument, "another tool"),
        ({"_id": "0001", "tool": "mongover", "v": 2}, NewerFormat, "format 2"),
        ({"_id": "0001", "tool": "mongover"}, BadRecord, "v is None"),
        ({"_id": "0001", "tool": "mongover", "v": True}, BadRecord, "v is True"),
        ({"_id": 4, "tool": "mongover", "v": 1, "state": "applied"}, BadRecord, "_id"),
        ({"_id": "0001", "tool": "mongover", "v": 1, "state": "done"}, BadRecord, "'done'"),
        ({"_id": "0001", "tool": "mongover", "v": 1}, BadRecord, "state"),
    ],
)
def test_a_document_that_makes_no_sense_is_named_and_never_touched(
    any_db: Database[dict[str, Any]],
    document: dict[str, Any],
    error: type[MongoverError],
    words: str,
) -> None:
    any_db["_migrations"].insert_one(document)
    with pytest.raises(error, match=words):
        mongo_history(any_db).read()
    assert list(any_db["_migrations"].find()) == [document]


WRONG = [
    ("sequence", "four"), ("sequence", True), ("fence", 1.5), ("down_revision", "0001"),
    ("down_revision", [1]), ("collections", [None]), ("applied_at", "yesterday"), ("by", "ana"),
    ("transaction", 1), ("repeatable", None), ("direction", "sideways"), ("outcome", "maybe"),
    ("duration_ms", "fast"), ("checksum", None), ("error", "x"), ("message", 7), ("schema", 7),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_field_edited_into_nonsense_is_named(name: str, value: Any) -> None:
    document = {"_id": "0001", "tool": "mongover", "v": 1, "state": "applied", name: value}
    with pytest.raises(BadRecord, match=name):
        parse_record(document)


@pytest.mark.parametrize("entry", [7, {}, {"action": "x", "outcome": "y", "at": "noon"}])
def test_a_log_entry_edited_into_nonsense_is_named(entry: Any) -> None:
    document = {"_id": "0001", "tool": "mongover", "v": 1, "state": "applied", "log": [entry]}
    with pytest.raises(BadRecord, match="log"):
        parse_record(document)


@given(
    st.dictionaries(
        st.sampled_from(["state", "v", "tool", "fence", "by", "log", "direction", "source"]),
        st.one_of(st.none(), st.integers(), st.text(max_size=4), st.lists(st.integers())),
    )
)
def test_no_document_makes_parsing_crash(values: dict[str, Any]) -> None:
    document = {"_id": "0001", "tool": "mongover", "v": 1, "state": "applied"} | values
    with contextlib.suppress(MongoverError):
        assert parse_record(document).revision == "0001"


def test_a_foreign_document_under_our_id_is_not_overwritten(
    any_db: Database[dict[str, Any]],
) -> None:
    any_db["_migrations"].insert_one({"_id": "0001", "name": "theirs"})
    with pytest.raises(RecordConflict):
        mongo_history(any_db).write([changes.begin(attempt(), None, subject())])
    assert any_db["_migrations"].find_one() == {"_id": "0001", "name": "theirs"}


def test_a_log_edited_into_nonsense_stops_the_write_and_stays(
    any_db: Database[dict[str, Any]],
) -> None:
    history = mongo_history(any_db)
    record = applied(history)
    any_db["_migrations"].update_one({"_id": "0001"}, {"$set": {"log": "nonsense"}})
    with pytest.raises(OperationFailure, match="concatArrays"):
        history.write([changes.unstamp(record, by=BY, reason="x")])
    found = any_db["_migrations"].find_one()
    assert found is not None
    assert (found["log"], found["state"]) == ("nonsense", "applied")


def test_a_record_beyond_the_servers_limit_is_refused_by_name(
    any_db: Database[dict[str, Any]],
) -> None:
    huge = subject(source="x" * (16 * 1024 * 1024))
    with pytest.raises((DatabaseError, OperationFailure)):
        mongo_history(any_db).write([changes.begin(attempt(), None, huge)])
    assert mongo_history(any_db).read() == {}


def test_a_flip_in_a_transaction_lands_with_it_or_not_at_all(
    replica_db: Database[dict[str, Any]],
) -> None:
    history = mongo_history(replica_db)
    one = attempt(transaction=True)
    history.write([changes.begin(one, None, subject())])
    flip = changes.finish(one, sequence=1, duration_ms=1)
    with replica_db.client.start_session() as session:
        session.start_transaction()
        history.write([flip], session=session)
        session.abort_transaction()
        assert history.read()["0001"].state is State.APPLYING
        session.start_transaction()
        history.write([flip], session=session)
        session.commit_transaction()
    assert history.read()["0001"].state is State.APPLIED


def test_a_conflict_in_a_transaction_is_named(replica_db: Database[dict[str, Any]]) -> None:
    history = mongo_history(replica_db)
    flip = changes.finish(attempt(), sequence=1, duration_ms=1)
    with replica_db.client.start_session() as session:
        session.start_transaction()
        with pytest.raises(RecordConflict):
            history.write([flip], session=session)


FAULTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"times": 1}, {"closeConnection": True}),
    ({"times": 3}, {"closeConnection": True}),
    ({"times": 1}, {"errorCode": 10107}),
    ({"times": 3}, {"errorCode": 10107}),
    ({"times": 2}, {"errorCode": 91}),
    ({"times": 1}, {"writeConcernError": {"code": 64, "errmsg": "x"}}),
    ({"times": 1}, {"writeConcernError": {"code": 91, "errmsg": "x"}}),
]


@pytest.mark.parametrize(("mode", "data"), FAULTS)
def test_a_write_lands_exactly_once_through_network_and_write_concern_errors(
    replica_set: Server, open_database: Open, mode: dict[str, Any], data: dict[str, Any]
) -> None:
    name = "mongover-history"
    database = open_database(replica_set, tz_aware=True, appName=name, heartbeatFrequencyMS=500)
    history = mongo_history(database)
    one = attempt()
    with (
        replica_set.client() as admin,
        failpoint(
            admin, "failCommand", mode, {"failCommands": ["update"], "appName": name, **data}
        ),
    ):
        history.write([changes.begin(one, None, subject())])
        history.write([changes.finish(one, sequence=1, duration_ms=1)])
    record = history.read_one("0001")
    assert record is not None
    assert record.state is State.APPLIED
    assert (record.attempt, len(record.log)) == (1, 1)


def test_patience_ends_when_no_server_answers() -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(
        "mongodb://127.0.0.1:1", serverSelectionTimeoutMS=100
    )
    history = mongo_history(client["x"], patience=0.3)
    with client, pytest.raises(AutoReconnect):
        history.write([changes.begin(attempt(), None, subject())])


class Flaky:
    """A collection whose calls meet what a script says.

    `gone` never arrives, `lost` is done and not answered; a function is called first.
    """

    def __init__(self, collection: Any, **script: list[Any]) -> None:
        self.collection = collection
        self.script = script

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.collection, name)
        steps = self.script.get(name, [])

        def call(*args: Any, **options: Any) -> Any:
            step = steps.pop(0) if steps else None
            if callable(step):
                step()
            elif step == "gone":
                raise AutoReconnect("before it arrived")
            answer = method(*args, **options)
            if step == "lost":
                raise AutoReconnect("after it was done")
            return answer

        return call


def flaky_history(database: Database[dict[str, Any]], **script: list[Any]) -> MongoHistory:
    return MongoHistory(Flaky(database["_migrations"], **script))  # type: ignore[arg-type]  # it passes all on


def test_a_write_whose_answer_was_lost_is_not_made_twice(any_db: Database[dict[str, Any]]) -> None:
    history = flaky_history(any_db, bulk_write=["lost"], find=["gone", "gone"])
    one = attempt()
    history.write([changes.begin(one, None, subject())])
    history.write([changes.finish(one, sequence=1, duration_ms=1)])
    found = history.read_one("0001")
    assert found is not None
    assert (found.attempt, len(found.log)) == (1, 1)


def test_a_lost_resolution_with_a_time_in_it_is_recognised(
    any_db: Database[dict[str, Any]],
) -> None:
    plain, down = mongo_history(any_db), attempt(direction=Direction.DOWN)
    plain.write([changes.begin(attempt(), None, subject())])
    plain.write([changes.finish(attempt(), sequence=1, duration_ms=1)])
    plain.write([changes.begin(down, plain.read()["0001"], subject())])
    error = {"type": "ValueError", "message": "x"}
    plain.write(
        [changes.stop(down, State.FAILED, outcome=Remains.UNKNOWN, error=error, duration_ms=1)]
    )
    record = plain.read()["0001"]
    change = changes.resolve(record, Resolution.APPLIED, by={}, reason="x", sequence=2)
    flaky_history(any_db, bulk_write=["lost"]).write([change])
    found = plain.read_one("0001")
    assert found is not None
    assert (found.state, found.applied_at) == (State.APPLIED, record.applied_at)
    assert [entry.action for entry in found.log].count("resolve") == 1


def test_a_write_that_arrives_late_is_not_taken_for_that_of_another(
    any_db: Database[dict[str, Any]],
) -> None:
    plain = mongo_history(any_db)
    begin = changes.begin(attempt(), None, subject())
    late = Flaky(any_db["_migrations"], bulk_write=["gone", lambda: plain.write([begin])])
    MongoHistory(late).write([begin])  # type: ignore[arg-type]  # it passes all on
    assert plain.read()["0001"].state is State.APPLYING


def test_a_server_that_stays_away_while_it_is_looked_up_ends_the_patience(
    any_db: Database[dict[str, Any]],
) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    flaky = Flaky(any_db["_migrations"], bulk_write=["gone"], find=["gone"] * 20)
    history = MongoHistory(flaky, patience=4, clock=clock)  # type: ignore[arg-type]  # it passes all on
    with pytest.raises(AutoReconnect):
        history.write([changes.begin(attempt(), None, subject())])
