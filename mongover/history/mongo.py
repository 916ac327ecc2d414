"""The history on MongoDB: one document per revision in `_migrations`, never deleted."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure, PyMongoError

from mongover.database.faults import code_of, is_unsure
from mongover.errors import DatabaseError, RecordConflict
from mongover.history.changes import Change, conflict
from mongover.history.record import LOG_LIMIT, NOW, TOOL, Record, State, parse_record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pymongo.client_session import ClientSession
    from pymongo.collection import Collection

_LIGHT: Final = {"source": 0, "log": 0}
_DUPLICATE_KEY: Final = 11000
_IMMUTABLE_ID: Final = 66
_RETRY_PAUSE: Final = 0.2
_BSON_AS_IS: Final = frozenset({int, float, bool, type(None), datetime})
_BSON_LIMIT: Final = frozenset({10334, 17419, 17420})


class MongoHistory:
    """Records in a collection with majority and journaled writes.

    A write that ended in a network or write-concern error is looked up before anything is said of
    it: what landed is not repeated, what did not is written again until `patience` seconds passed.
    """

    def __init__(
        self,
        collection: Collection[dict[str, Any]],
        *,
        patience: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collection = collection
        self._patience = patience
        self._clock = clock

    def read(self, *, details: bool = False) -> dict[str, Record]:
        """All records by id, in one query; never creates the collection.

        Raises:
            ForeignDocument: another tool keeps documents there.
            NewerFormat: a newer release wrote a record.
            BadRecord: a record makes no sense.
        """
        found = self._collection.find({}, None if details else _LIGHT)
        return {record.revision: record for record in map(parse_record, found)}

    def read_one(self, revision: str) -> Record | None:
        """One record with its source and log, or None."""
        document = self._collection.find_one({"_id": revision})
        return None if document is None else parse_record(document)

    def write(self, changes: Sequence[Change], *, session: ClientSession | None = None) -> None:
        """Make the changes in order in one journaled write; the first that does not fit ends it.

        Raises:
            RecordConflict: a record is not what the change expects; later ones are not made.
        """
        if session is not None:
            self._send(changes, session)
            return
        self._write_surely(list(changes))

    def _write_surely(self, waiting: list[Change]) -> None:
        deadline = self._clock() + self._patience
        unsure = False
        while waiting:
            try:
                self._send(waiting, None)
            except RecordConflict:
                left = self._not_landed(waiting) if unsure else waiting
                if len(left) == len(waiting):
                    raise
                waiting = left
            except PyMongoError as error:
                if not is_unsure(error) or self._clock() >= deadline:
                    raise
                unsure = True
                waiting = self._look_again(waiting, deadline)
            else:
                return

    def _look_again(self, waiting: list[Change], deadline: float) -> list[Change]:
        """What of the changes did not land, as soon as a primary can be asked."""
        while True:
            time.sleep(_RETRY_PAUSE)
            try:
                return self._not_landed(waiting)
            except PyMongoError as error:
                if not is_unsure(error) or self._clock() >= deadline:
                    raise

    def _not_landed(self, changes: list[Change]) -> list[Change]:
        ids = [change.revision for change in changes]
        found = {
            document["_id"]: document for document in self._collection.find({"_id": {"$in": ids}})
        }
        return [change for change in changes if not _landed(found.get(change.revision), change)]

    def _send(self, changes: Sequence[Change], session: ClientSession | None) -> None:
        requests = [_request(change) for change in changes]
        try:
            self._collection.bulk_write(requests, ordered=True, session=session)
        except BulkWriteError as error:
            if code_of(error) not in {_DUPLICATE_KEY, _IMMUTABLE_ID}:
                raise _too_large(error, changes) from error
            index = error.details["writeErrors"][0]["index"]
            raise self._conflict(changes[index], session) from error
        except (OperationFailure, DocumentTooLarge) as error:
            if isinstance(error, OperationFailure) and error.code not in _BSON_LIMIT:
                raise
            # The whole command was refused. What comes before the change at fault is made anyway.
            if len(changes) == 1:
                raise _not_storable(changes[0]) from error
            for change in changes:
                self._send([change], session)

    def _conflict(self, change: Change, session: ClientSession | None) -> RecordConflict:
        # In a transaction the failed write ended it, so nothing can be read there any more.
        if session is not None:
            return conflict(change, None, seen=False)
        return conflict(change, self._collection.find_one({"_id": change.revision}))


def _too_large(error: BulkWriteError, changes: Sequence[Change]) -> Exception:
    if code_of(error) not in _BSON_LIMIT:
        return error
    return _not_storable(changes[error.details["writeErrors"][0]["index"]])


def _not_storable(change: Change) -> DatabaseError:
    return DatabaseError(
        f"the record of {change.revision} would be larger than the server's 16 MB",
        hint="make the revision file smaller: load large data from a file of its own",
    )


def _request(change: Change) -> UpdateOne:
    """The update that makes the change, or meets error 11000 or 66 where the record does not fit.

    An upsert turns "does not match" into an error, which ends an ordered bulk there and then.
    Where no record may be created, the pipeline would change `_id`, which no server allows.
    """
    query: dict[str, Any] = {"_id": change.revision, "tool": TOOL}
    query["state"] = {"$in": [_plain(state) for state in sorted(change.expect)] + _absent(change)}
    if change.guard is not None:
        owner, fence = change.guard
        query["owner"] = owner
        query["fence"] = fence or {"$in": [0, None]}  # hands may have taken the field away
    if _absent(change) and change.entry is None:
        return UpdateOne(query, _plain_update(change), upsert=True)
    return UpdateOne(query, [{"$set": _fields(change)}], upsert=True)


def _plain_update(change: Change) -> dict[str, Any]:
    """The cheaper form, for what needs no expression: the beginning of nearly every revision."""
    timed = {name: True for name, value in change.values.items() if value is NOW}
    fixed = {name: _plain(value) for name, value in change.values.items() if value is not NOW}
    # Equal to the query's value, and refused in a $set beside an upsert's query.
    fixed.pop("tool", None)
    return {"$set": fixed, "$currentDate": timed, "$setOnInsert": {"log": []}}


def _absent(change: Change) -> list[None]:
    return [None] if State.PENDING in change.expect and change.guard is None else []


def _fields(change: Change) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: "$$NOW" if value is NOW else _literal(value) for name, value in change.values.items()
    }
    if not _absent(change):
        fields["_id"] = {"$cond": [{"$eq": [{"$type": "$v"}, "missing"]}, "", "$_id"]}
    log: dict[str, Any] = {"$ifNull": ["$log", []]}
    if change.entry is not None:
        entry = {k: _literal(v) for k, v in change.entry.to_document().items()}
        added = {"$concatArrays": [log, [entry | {"at": "$$NOW"}]]}
        log = {"$slice": [added, -LOG_LIMIT]}
    return fields | {"log": log}


def _literal(value: Any) -> Any:
    """The value for a pipeline; wrapped only where the server would take it for an expression."""
    plain = _plain(value)
    if isinstance(plain, (dict, list)) or (isinstance(plain, str) and plain.startswith("$")):
        return {"$literal": plain}
    return plain


def _plain(value: Any) -> Any:
    """The value as BSON knows it: enums by value, tuples as lists, text without surrogates."""
    if type(value) in _BSON_AS_IS:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _landed(document: Mapping[str, Any] | None, change: Change) -> bool:
    """Whether the document already is what the change makes of it."""
    if document is None or document.get("tool") != TOOL:
        return False
    fixed = {name: value for name, value in change.values.items() if value is not NOW}
    return all(_same(document.get(name), _plain(value)) for name, value in fixed.items())


def _same(stored: Any, wanted: Any) -> bool:
    if isinstance(stored, datetime) and isinstance(wanted, datetime):
        stored, wanted = (_millis(moment) for moment in (stored, wanted))
    return bool(stored == wanted)


def _millis(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1_000)
