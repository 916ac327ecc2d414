"""Errors as RFC 9457 problem documents: a status, a stable type, a sentence; never a secret.

A problem holds no URL, password, path of a file, trace or value of a document. What the sentence
leaves out stands in the log under the problem's `errorId`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from mongover import errors
from mongover.config.urls import redact
from mongover.report.documents import Audience

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mongover.config.config import Config

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:mongover:problem:"
RETRY_SECONDS: Final = 5
SERVER_ERROR: Final = 500

_ANY_URL: Final = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"`)>,;]+")
_PATH: Final = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:[\\/]|/)(?:[^\s/\\:'\"`,;()]+[\\/])+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One answer to a request that was not carried out.

    Attributes:
        status: The HTTP status.
        kind: The stable last part of `type`, such as `lock-held`.
        title: What kind of problem it is, the same for every occurrence.
        detail: What happened this time.
        code: The error's code (`MGV050`), where it is one of mongover's own.
        hint: What to do next, or an empty string.
        more: Further members of the document.
        headers: Headers that belong to the answer.
    """

    status: int
    kind: str
    title: str
    detail: str
    code: str | None = None
    hint: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The document."""
        document: dict[str, Any] = {
            "type": TYPE_PREFIX + self.kind,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.code is not None:
            document["code"] = self.code
        if self.hint:
            document["hint"] = self.hint
        return document | dict(self.more)


class Refusal(Exception):
    """Ends the work on a request with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one class of errors is answered; with `detail`, its own message is not shown."""

    status: int
    kind: str
    title: str
    detail: str = ""
    retry: bool = False
    hint: str = ""  # instead of the error's own, which speaks of the command line


_FAILED: Final = _Kind(500, "revision-failed", "A revision failed")
_SILENT: Final = "the server's log has the rest under this errorId"

# The first class that an error belongs to decides, so the special ones stand first.
_KINDS: Final[Mapping[type[errors.MongoverError], _Kind]] = {
    errors.LockHeld: _Kind(
        409,
        "lock-held",
        "Another run holds the lock",
        retry=True,
        hint="try again later, or wait for it with ?wait_for_lock=SECONDS",
    ),
    errors.LockLost: _Kind(409, "lock-lost", "The run lost its lock"),
    errors.HistoryError: _Kind(409, "history-disagrees", "History and files disagree"),
    errors.FilesError: _Kind(409, "files-invalid", "The revision files do not hold together"),
    errors.TargetError: _Kind(422, "unknown-target", "The target names nothing"),
    errors.UsageError: _Kind(422, "bad-request", "The request makes no sense"),
    errors.Irreversible: _Kind(409, "irreversible", "A revision has no downgrade"),
    errors.NotOurs: _Kind(
        409,
        "not-ours",
        "A downgrade would destroy what no revision made",
        hint="name what may be destroyed in `allowDataLoss` of the body",
    ),
    errors.RevisionError: _FAILED,
    errors.TransactionsUnsupported: _Kind(
        409, "transactions-unsupported", "The database has no transactions"
    ),
    errors.AuthenticationFailed: _Kind(
        503,
        "database-refuses",
        "The database refuses the server",
        "the database does not accept the server's credentials",
    ),
    errors.NotAllowed: _Kind(
        503,
        "database-refuses",
        "The database refuses the server",
        "the server's database user lacks a privilege",
    ),
    errors.Unreachable: _Kind(
        503,
        "database-away",
        "The database cannot be reached",
        "the database does not answer",
        retry=True,
    ),
    errors.DatabaseError: _Kind(
        503,
        "database-away",
        "The database cannot be reached",
        "the database refused a command",
        retry=True,
    ),
    errors.EmbeddedError: _Kind(
        503,
        "database-away",
        "The database cannot be reached",
        "the embedded database does not run",
        retry=True,
    ),
    errors.Interrupted: _Kind(503, "stopped", "The run was stopped", retry=True),
    errors.ConfigError: _Kind(
        503, "misconfigured", "The server is not configured rightly", "its configuration is wrong"
    ),
}
_BUG: Final = _Kind(500, "internal", "The server failed", "the server failed in a way not foreseen")

# Their messages quote a revision's own exception or the server, which may quote documents.
_QUOTING: Final = (
    errors.RevisionFailed,
    errors.OperationFailed,
    errors.TransactionFailed,
    errors.SwallowedError,
)


@dataclass(frozen=True, slots=True)
class Redaction:
    """What may be said of a project to whoever asks over HTTP."""

    config: Config

    def hide(self, text: str) -> str:
        """The text without secrets: for what people wrote, which is shown as they wrote it."""
        return redact(text, self.config.url.reveal())

    @property
    def audience(self) -> Audience:
        """Who asks over HTTP does not have the files: errors are cleaned, and files only named."""
        return Audience(told=self.clean, path=lambda path: path.name)

    def clean(self, text: str) -> str:
        """The text of an error: no secrets, no URLs, and file names in place of paths."""
        text = _ANY_URL.sub("[URL]", self.hide(text))
        for folder in (self.config.versions, self.config.root):
            if len(folder.parts) > 1:
                text = text.replace(f"{folder}/", "").replace(str(folder), folder.name)
        return _PATH.sub("", text)


def problem_of(error: Exception, redaction: Redaction, *, revision: str | None = None) -> Problem:
    """The problem that tells of an error; `revision` is the one that failed, where known."""
    kind = next((kind for cls, kind in _KINDS.items() if isinstance(error, cls)), _BUG)
    headers = {"Retry-After": str(RETRY_SECONDS)} if kind.retry else {}
    if not isinstance(error, errors.MongoverError):
        return with_id(Problem(kind.status, kind.kind, kind.title, f"{kind.detail}; {_SILENT}"))
    more: dict[str, Any] = {} if revision is None else {"revision": revision}
    problem = Problem(
        kind.status,
        kind.kind,
        kind.title,
        _detail(error, kind, redaction, revision),
        error.code,
        _hint(error, kind, redaction),
        more,
        headers,
    )
    return with_id(problem) if kind.status >= SERVER_ERROR else problem


def with_id(problem: Problem) -> Problem:
    """The problem with an id by which its full story is found in the log."""
    return replace(problem, more={**problem.more, "errorId": uuid4().hex[:12]})


def _hint(error: errors.MongoverError, kind: _Kind, redaction: Redaction) -> str:
    return kind.hint or ("" if kind.detail else redaction.clean(error.hint))


def _detail(
    error: errors.MongoverError, kind: _Kind, redaction: Redaction, revision: str | None
) -> str:
    if kind.detail:
        return f"{kind.detail}; {_SILENT}"
    if not isinstance(error, _QUOTING):
        return redaction.clean(error.message)
    cause = type(error.__cause__).__name__ if error.__cause__ is not None else error.kind
    return f"{revision or 'a revision'} ended with {cause}; {_SILENT}"
