"""What the driver's errors mean, and what may be said of them."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    InvalidName,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
    WriteError,
    WTimeoutError,
)

from mongover.database.faults import (
    code_of,
    describe,
    is_transient,
    is_unsure,
    message_of,
    name_of,
    server_message,
    translate,
)
from mongover.errors import (
    AuthenticationFailed,
    ConfigError,
    DatabaseError,
    DuplicateValues,
    NotAllowed,
    Unreachable,
)


def reply(code: int, message: str = "no", **details: Any) -> OperationFailure:
    document = {"ok": 0, "code": code, "errmsg": message, "codeName": "Name"} | details
    return OperationFailure(message, code, document)


def bulk(code: int, **error: Any) -> BulkWriteError:
    return BulkWriteError({"writeErrors": [{"code": code, "index": 0} | error]})


@pytest.mark.parametrize(
    ("error", "unsure"),
    [
        (AutoReconnect("gone"), True),
        (NetworkTimeout("gone"), True),
        (NotPrimaryError("gone", {"code": 10107}), True),
        (ServerSelectionTimeoutError("gone"), True),
        (WTimeoutError("w", 64, {"code": 64}), True),
        (WriteConcernError("w", 91, {"code": 91}), True),
        (WriteConcernError("w", 100, {"code": 100}), True),
        (reply(11602), True),
        (BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 7}]}), True),
        (bulk(11000), False),
        (
            BulkWriteError({"writeErrors": [{"code": 11000}], "writeConcernErrors": [{"code": 7}]}),
            False,
        ),
        (reply(13), False),
        (reply(112), False),
        (OperationFailure("bare"), False),
        (ValueError("x"), False),
    ],
)
def test_errors_after_which_nobody_knows_whether_it_landed(
    error: BaseException, unsure: bool
) -> None:
    assert is_unsure(error) is unsure


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (reply(26), 26),
        (bulk(11000), 11000),
        (BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}), 64),
        (BulkWriteError({"writeErrors": [{"index": 0}]}), None),
        (PyMongoError("x"), None),
        (ValueError("x"), None),
        (SystemExit({1}), None),
        (SystemExit(3), 3),
    ],
)
def test_the_code_is_the_number_of_the_server_or_none(
    error: BaseException, code: int | None
) -> None:
    assert code_of(error) == code


def test_the_name_of_a_code_is_there_where_the_server_gave_it() -> None:
    assert name_of(reply(26)) == "Name"
    assert name_of(ValueError("x")) == ""


def test_only_the_label_of_the_server_makes_an_error_transient() -> None:
    assert is_transient(reply(112, errorLabels=["TransientTransactionError"]))
    assert not is_transient(reply(112))
    assert not is_transient(ValueError("x"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            DuplicateKeyError(
                "E11000", 11000, {"keyPattern": {"email": 1}, "keyValue": {"e": "S"}}
            ),
            "duplicate key on email",
        ),
        (DuplicateKeyError("E11000 dup key: { a: 'Secret' }", 11000), "duplicate key"),
        (bulk(11000, keyPattern={"a": 1, "b": 1}, errmsg="Secret"), "duplicate key on a, b"),
        (bulk(121, errmsg="Secret"), "a document fails the collection's validator"),
        (
            WriteError("cannot create field 'x' in element {a: \"Secret\"}", 28, {"code": 28}),
            "cannot create field 'x' in element {…}",
        ),
        (reply(26, "ns not found,\n full"), "ns not found, full"),
        (reply(1, "x" * 5000), "x" * 1000),
        (
            OperationFailure("told, full error: {'a': 'Secret'}", 1, None),
            "told",
        ),
        (AutoReconnect("h:1: [Errno 111] Connection refused (configured …)"), "connection refused"),
        (AutoReconnect("h:1: [Errno -2] Name or service not known"), "the host name is unknown"),
        (AutoReconnect("nodename nor servname provided"), "the host name is unknown"),
        (AutoReconnect("[Errno 2] No such file or directory"), "the socket does not exist"),
        (AutoReconnect("SSL handshake failed: x"), "the TLS handshake failed"),
        (NetworkTimeout("h:1: timed out"), "no answer"),
        (ServerSelectionTimeoutError("No servers found yet, Timeout: 1s"), "no answer"),
        (AutoReconnect("odd  words, Timeout: 5s, Topology: x"), "odd words"),
    ],
)
def test_the_words_of_the_server_come_without_values_of_documents(
    error: PyMongoError, said: str
) -> None:
    assert server_message(error) == said
    assert "Secret" not in message_of(error)


def test_a_record_gets_type_code_name_and_message_without_secrets() -> None:
    def redact(text: str) -> str:
        return text.replace("Secret", "***")

    assert describe(reply(26, "Secret"), redact) == {
        "type": "OperationFailure",
        "code": 26,
        "code_name": "Name",
        "message": "***",
    }
    assert describe(ValueError("a Secret"), redact) == {
        "type": "ValueError",
        "code": None,
        "code_name": "",
        "message": "a ***",
    }
    ours = DuplicateValues("ten Secret values")
    assert describe(ours, redact)["code"] == "MGV021"
    ours.__cause__ = reply(11000)
    found = describe(ours, redact)
    assert (found["code"], found["code_name"], found["type"]) == (11000, "Name", "DuplicateValues")
    assert describe(ValueError(), redact)["message"] == "ValueError"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ConfigurationError("bad option"), ConfigError, "bad option"),
        (InvalidName("bad name"), ConfigError, "bad name"),
        (reply(18), AuthenticationFailed, "does not accept the user or password"),
        (reply(8000), AuthenticationFailed, "does not accept the user or password"),
        (reply(13, "not authorized on x"), NotAllowed, "the user may not: not authorized on x"),
        (NotPrimaryError("no", {"code": 10107}), DatabaseError, "is not a writable primary"),
        (reply(13435), DatabaseError, "is not a writable primary"),
        (
            ServerSelectionTimeoutError("h:1: [Errno 111] Connection refused"),
            Unreachable,
            "no MongoDB answers at h:1 within 2 s: connection refused",
        ),
        (reply(96, "broken"), DatabaseError, "answered with an error: 96 Name: broken"),
        (PyMongoError("odd"), DatabaseError, "answered with an error: odd"),
    ],
)
def test_every_error_of_the_driver_becomes_one_of_ours_with_a_hint(
    error: PyMongoError, kind: type[DatabaseError], words: str
) -> None:
    ours = translate(error, address="h:1", timeout=2)
    assert type(ours) is kind
    assert words in ours.message
    assert "\n" not in ours.message
    assert ours.hint


def test_what_was_noted_on_the_way_is_kept() -> None:
    error = AutoReconnect("gone")
    error.add_note("0001 ran to its end")
    assert translate(error, address="h", timeout=1).notes == ("0001 ran to its end",)
