"""Errors as problem documents: the statuses, and what must never stand in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mongover import errors
from mongover.config.config import Config
from mongover.config.urls import SecretUrl
from mongover.web.guard import host_name
from mongover.web.problems import Redaction, problem_of

CONFIG = Config(
    url=SecretUrl("mongodb://ana:geheim99@db.example/"),
    database="shop",
    versions=Path("/srv/shop/versions"),
    root=Path("/srv/shop"),
)
REDACTION = Redaction(CONFIG)


def caused(error: errors.MongoverError, cause: Exception) -> errors.MongoverError:
    error.__cause__ = cause
    return error


def every_error() -> list[type[errors.MongoverError]]:
    found, todo = [], [errors.MongoverError]
    while todo:
        cls = todo.pop()
        found.append(cls)
        # Those of other tests have constructors of their own.
        todo += [each for each in cls.__subclasses__() if each.__module__.startswith("mongover.")]
    return found


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.LockHeld, 409),
        (errors.LockLost, 409),
        (errors.Edited, 409),
        (errors.MissingFile, 409),
        (errors.Blocked, 409),
        (errors.Ahead, 409),
        (errors.RecordConflict, 409),
        (errors.MultipleHeads, 409),
        (errors.OutOfOrder, 409),
        (errors.InvalidRevision, 409),
        (errors.UnknownTarget, 422),
        (errors.WalkTooFar, 422),
        (errors.UsageError, 422),
        (errors.Irreversible, 409),
        (errors.TransactionsUnsupported, 409),
        (errors.RevisionFailed, 500),
        (errors.DuplicateValues, 500),
        (errors.OperationFailed, 500),
        (errors.Unreachable, 503),
        (errors.AuthenticationFailed, 503),
        (errors.NotAllowed, 503),
        (errors.DatabaseError, 503),
        (errors.EmbeddedError, 503),
        (errors.Interrupted, 503),
        (errors.ConfigError, 503),
        (errors.MongoverError, 500),
    ],
)
def test_the_status_of_each_kind_of_error(kind: type[errors.MongoverError], status: int) -> None:
    problem = problem_of(kind("what happened"), REDACTION)
    document = problem.to_json()
    assert document["status"] == status
    assert document["code"] == kind.code
    assert document["type"].startswith("urn:mongover:problem:")
    assert ("errorId" in document) == (status >= 500)


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_no_error_brings_a_secret_a_url_a_path_or_a_value_of_a_document_along(
    kind: type[errors.MongoverError],
) -> None:
    error = kind(
        "geheim99 in mongodb://ana:geheim99@db.example/?x=1 at /srv/shop/versions/0003_x.py "
        "or /etc/secret/key.pem or https://intern.example/a",
        hint="see /srv/shop/alembic-style.ini and mongodb://ana:geheim99@db.example/",
        notes=["email: 'someone@example.com' stands 3 times"],
        where=errors.Where(Path("/srv/shop/versions/0003_x.py"), 7, "x = geheim99"),
    )
    text = str(problem_of(error, REDACTION, revision="0003").to_json())
    for secret in ("geheim99", "mongodb://", "https://", "/srv", "/etc", "someone@"):
        assert secret not in text
    assert "0003" in text


def test_a_failed_revision_is_told_by_the_name_of_its_exception_alone() -> None:
    error = caused(
        errors.RevisionFailed("0007: upgrade() raised ValueError: someone@example.com is bad"),
        ValueError("someone@example.com is bad"),
    )
    problem = problem_of(error, REDACTION, revision="0007")
    assert problem.detail.startswith("0007 ended with ValueError; ")
    assert problem.more["revision"] == "0007"


def test_an_error_that_nobody_foresaw_says_nothing_of_itself() -> None:
    problem = problem_of(KeyError("someone@example.com"), REDACTION)
    assert (problem.status, problem.kind) == (500, "internal")
    assert "someone" not in str(problem.to_json())


def test_what_a_person_wrote_keeps_its_slashes_and_loses_only_secrets() -> None:
    text = "rename /api/v1/users to /api/v2 with geheim99"
    assert REDACTION.hide(text) == "rename /api/v1/users to /api/v2 with ***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in /srv/shop/versions/0001_a.py", "in 0001_a.py"),
        ("in /srv/shop/versions at all", "in versions at all"),
        ("'/home/ana/x/y.py'", "'y.py'"),
        (r"C:\Users\ana\y.py is bad", "y.py is bad"),
        ("rs0/127.0.0.1:27017 and/or 3/4", "rs0/127.0.0.1:27017 and/or 3/4"),
        ("a / b", "a / b"),
    ],
)
def test_paths_become_names_and_other_slashes_stay(text: str, expected: str) -> None:
    assert REDACTION.clean(text) == expected


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:8000", "localhost"),
        ("LOCALHOST.", "localhost"),
        ("[::1]:8000", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("evil.example:80", "evil.example"),
        ("[::1", ""),
        ("", ""),
    ],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert host_name(header) == name
