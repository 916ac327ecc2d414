from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import WriteConcern
from pymongo.errors import (
    AutoReconnect,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

import mongover.operations as operations_package
from mongover.errors import (
    MongoverError,
    NotAllowed,
    NotInTransaction,
    OperationConflict,
    OperationFailed,
)
from mongover.operations import Operation, Target
from mongover.operations.ddl import ddl, patiently
from tests.support.operations_support import Desk, in_transaction

if TYPE_CHECKING:
    from pymongo.database import Database

    from mongover.operations import Outcome

    Db = Database[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Custom(Operation):
    """An operation of a user."""

    collection: str
    error: Exception | None = None
    again: bool = False

    @property
    def repeatable(self) -> bool:
        return self.again

    def describe(self) -> str:
        return "custom work"

    def apply(self, target: Target) -> Outcome:
        if self.error is not None:
            raise self.error
        target.db[self.collection].insert_one({"x": 1})
        return "done"


@dataclass(frozen=True, slots=True)
class Nameless(Operation):
    """An operation that names no collection."""

    def describe(self) -> str:
        return "nothing"

    def apply(self, target: Target) -> Outcome:
        return "unchanged"


def test_the_package_and_its_names_cost_no_driver() -> None:
    code = (
        "import sys; from mongover.operations import Operations, Index, Target;"
        "Operations; assert not {'pymongo', 'bson', 'pydantic', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_offers_exactly_its_names() -> None:
    assert set(operations_package.__all__) <= set(dir(operations_package))
    for name in operations_package.__all__:
        assert getattr(operations_package, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = operations_package.nonsense


def test_an_operation_of_ones_own_runs_and_is_not_repeatable_by_default(any_db: Db) -> None:
    desk = Desk(any_db)
    desk.op.run(Custom("a"))
    assert desk.book.reasons == ["custom work"]
    assert desk.book.collections == ["a"]
    assert desk.book.outcomes == ["done"]
    desk.op.run(Custom("a", again=True))
    desk.op.run(Nameless())
    assert desk.book.reasons == ["custom work", "nothing"]
    assert desk.book.checks == 3
    assert Custom("a").reverse() is None
    with pytest.raises(OperationFailed, match="not a dict"):
        desk.op.run({})  # type: ignore[arg-type]


def test_the_database_is_handed_out_and_noted_except_in_a_transaction(replica_db: Db) -> None:
    desk = Desk(replica_db)
    desk.op.db["a"].insert_one({"_id": 1})
    assert desk.book.reasons == ["op.db"]
    with in_transaction(replica_db) as inside:
        inside.op.db["a"].insert_one({"_id": 2})
        inside.op.run(Custom("a"))
        inside.op.log("half way")
        assert inside.book.reasons == []
        assert inside.book.messages == ["half way"]
    assert replica_db["a"].count_documents({}) == 3


def test_no_verb_touches_the_history(any_db: Db) -> None:
    desk = Desk(any_db, protected=frozenset({"_migrations", "_migrations_lock"}))
    for verb, args in (
        ("drop_collection", ("_migrations",)),
        ("rename_collection", ("a", "_migrations_lock")),
        ("delete", ("_migrations", {})),
    ):
        with pytest.raises(OperationFailed, match="history of the migrations"):
            desk.do(verb, *args)
    assert desk.book.started == []


def test_without_strictness_a_failing_creation_is_a_warning_and_the_rest_still_raises(
    any_db: Db,
) -> None:
    any_db["a"].insert_many([{"_id": 1, "e": 1}, {"_id": 2, "e": 1}])
    desk = Desk(any_db, strict=False)
    assert desk.do("create_index", "a", "e", unique=True) == "warning"
    assert desk.do("create_collection", "a", capped=True, size=4096) == "warning"
    assert desk.do("create_index", "a", "f") == "done"
    assert desk.do("create_collection", "odd", validator={"$nope": 1}) == "warning"
    assert [text.split(":")[0] for text in desk.book.warnings] == [
        "index a.e unique",
        "collection a capped",
        "collection odd",
    ]
    with pytest.raises(OperationFailed):
        desk.do("update", "a", {"$nope": 1}, {"$set": {"x": 1}})
    with pytest.raises(AutoReconnect):
        desk.op.run(Custom("a", AutoReconnect("gone")))


def test_in_a_transaction_strictness_cannot_be_given_up(replica_db: Db) -> None:
    replica_db.create_collection("a")
    with in_transaction(replica_db, strict=False) as desk:
        with pytest.raises(OperationConflict):
            desk.do("create_collection", "a", capped=True, size=4096)
        assert desk.book.warnings == []


def test_errors_of_the_server_keep_values_out_of_the_message(any_db: Db) -> None:
    any_db["a"].create_index("e", unique=True)
    any_db["a"].insert_one({"_id": 1, "e": "secret"})
    with pytest.raises(OperationFailed) as caught:
        Desk(any_db).do("insert", "a", [{"_id": 2, "e": "secret"}])
    error = caught.value
    assert "secret" not in error.message
    assert f"{any_db.name}.a" in error.message
    assert "11000 DuplicateKey" in error.message
    assert error.notes[0] == "server: 11000 DuplicateKey"
    assert isinstance(error.__cause__, PyMongoError)
    any_db.command({"collMod": "a", "validator": {"e": {"$type": "string"}}})
    with pytest.raises(OperationFailed, match="121 DocumentValidationFailure"):
        Desk(any_db).do("update", "a", {}, {"$set": {"e": 1}})


@pytest.mark.parametrize("value", [object(), 2**70])
def test_a_value_that_bson_does_not_know_is_our_error(any_db: Db, value: Any) -> None:
    with pytest.raises(OperationFailed, match="the driver refused it with"):
        Desk(any_db).do("insert", "a", {"_id": 1, "x": value})


def labelled(code: int) -> OperationFailure:
    details = {"code": code, "errorLabels": ["TransientTransactionError"]}
    return OperationFailure("again", code, details)


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("gone"),
        NotPrimaryError("stepped down"),
        WriteConcernError("not confirmed", 64),
        OperationFailure("down", 11602),
        labelled(112),
    ],
)
def test_what_the_runner_must_see_passes_untouched(standalone_db: Db, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        Desk(standalone_db).op.run(Custom("a", error))
    assert caught.value is error


@pytest.mark.parametrize(
    ("code", "kind"),
    [(13, NotAllowed), (48, OperationConflict), (263, OperationFailed), (1, OperationFailed)],
)
def test_codes_of_the_server_become_our_errors(
    standalone_db: Db, code: int, kind: type[MongoverError]
) -> None:
    with pytest.raises(kind) as caught:
        Desk(standalone_db).op.run(Custom("a", OperationFailure("no", code, {"codeName": "N"})))
    assert caught.value.notes[0] == f"server: {code} N"
    assert caught.value.hint


def test_a_refusal_inside_a_transaction_names_the_way_out(replica_db: Db) -> None:
    with in_transaction(replica_db) as desk, pytest.raises(NotInTransaction) as caught:
        desk.op.run(Custom("a", OperationFailure("no", 263)))
    assert "transaction = False" in caught.value.hint


def test_an_error_that_the_server_labels_transient_passes_in_a_transaction(replica_db: Db) -> None:
    replica_db["a"].insert_one({"_id": 1, "n": 0})

    def conflict() -> None:
        with in_transaction(replica_db) as desk:
            desk.do("update", "a", {"_id": 1}, {"$set": {"n": 2}})

    with replica_db.client.start_session() as other, other.start_transaction():
        replica_db["a"].update_one({"_id": 1}, {"$set": {"n": 1}}, session=other)
        with pytest.raises(OperationFailure) as caught:
            conflict()
    assert caught.value.has_error_label("TransientTransactionError")


def test_a_command_that_no_majority_confirmed_is_not_taken_for_done(replica_db: Db) -> None:
    db = replica_db.client.get_database(replica_db.name, write_concern=WriteConcern(3, wtimeout=50))
    with pytest.raises(WriteConcernError):
        ddl(Target(db, Desk(replica_db).book), {"create": "a"})


def test_no_attempt_at_all_is_an_error_not_a_silent_nothing(standalone_db: Db) -> None:
    desk = Desk(standalone_db, attempts=0)
    with pytest.raises(OperationFailed, match="no attempt"):
        patiently(desk.target, lambda: None, what="nothing")


def test_a_stop_is_heeded_before_an_operation_begins(standalone_db: Db) -> None:
    desk = Desk(standalone_db)
    desk.book.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        desk.do("create_collection", "a")
    assert standalone_db.list_collection_names() == []
