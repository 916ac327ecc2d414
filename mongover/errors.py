"""Every exception of mongover, each with a code, an exit code and a way out.

MongoverError
├── ConfigError            MGV001  exit 2   a file, key, flag or variable is wrong
├── UsageError             MGV002  exit 2   the call itself is wrong
├── FilesError                     exit 4   the revision files do not hold together
│   ├── InvalidRevision    MGV010           a header or script cannot be read
│   ├── DuplicateRevision  MGV011           two files carry one id
│   ├── UnknownParent      MGV012           a link points at no file
│   ├── CycleError         MGV013           the links form a circle
│   ├── MultipleHeads      MGV030           one line has two heads
│   └── OutOfOrder         MGV031           a pending file stands below applied ones
├── TargetError                    exit 2   a target names nothing that exists
│   ├── UnknownTarget      MGV014
│   ├── AmbiguousTarget    MGV015
│   ├── WrongLine          MGV016
│   └── WalkTooFar         MGV017
├── RevisionError                  exit 1   a revision could not run
│   ├── RevisionFailed     MGV020           its code raised
│   ├── DuplicateValues    MGV021           a unique index met duplicates
│   ├── OperationConflict  MGV022           it exists, with another definition
│   ├── NotInTransaction   MGV023           the server refuses it in a transaction
│   ├── SwallowedError     MGV024           the code hid an error of the server
│   ├── TransactionFailed  MGV025           the transaction could not be committed
│   ├── Irreversible       MGV026           there is no downgrade
│   ├── OperationFailed    MGV027           one operation was refused
│   ├── InvalidDocuments   MGV028           documents violate a validator
│   └── NotOurs            MGV029           a downgrade would destroy what it did not make
├── HistoryError                   exit 4   history and files disagree
│   ├── Edited             MGV040
│   ├── MissingFile        MGV041
│   ├── Blocked            MGV042
│   ├── ForeignDocument    MGV043
│   ├── NewerFormat        MGV044
│   ├── BadRecord          MGV045
│   ├── Ahead              MGV046
│   └── RecordConflict     MGV047           a record is not what the run left there
├── LockError                      exit 3
│   ├── LockHeld           MGV050
│   └── LockLost           MGV051
├── DatabaseError          MGV060  exit 5   the server cannot be reached or refuses
│   ├── Unreachable        MGV061
│   ├── AuthenticationFailed MGV062
│   ├── NotAllowed         MGV063
│   └── TransactionsUnsupported MGV064      a standalone has no transactions
├── EmbeddedError          MGV065  exit 5   the embedded mongod cannot run
├── Interrupted            MGV070  exit 130 a signal ended the run
└── PendingRevisions       MGV080  exit 6   revisions wait to be applied
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from typing import Any, Self


def did_you_mean(word: str, words: Iterable[str], form: str = "{}") -> str:
    """`did you mean x?` with the nearest of the words, written in `form`; empty where none is near.

    The one rule of what is near, for keys, options, targets, verbs and arguments: at 0.6, `find`
    would be taken for `index`.
    """
    from difflib import get_close_matches

    near = get_close_matches(word, list(words), n=1, cutoff=0.7)
    return f"did you mean {form.format(near[0])}?" if near else ""


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a revision file: its path, line (1-based) and the text of that line."""

    path: Path
    line: int | None = None
    text: str = ""


class MongoverError(Exception):
    """The root of every error that mongover raises on purpose.

    Attributes:
        message: What happened and to which thing, in one sentence.
        hint: The next command or act, or an empty string.
        notes: Further facts, a line each; a line may hold values of documents,
            so they are shown to people and never stored.
        where: The place in a file, where there is one.
        after: What the failure left behind (`nothing was run.`), or an empty string.
    """

    code: ClassVar[str] = "MGV000"
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        notes: Sequence[str] = (),
        where: Where | None = None,
        after: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.notes = tuple(notes)
        self.where = where
        self.after = after

    @property
    def kind(self) -> str:
        """The name of the class, stable in JSON."""
        return type(self).__name__

    def but(
        self,
        *,
        message: str | None = None,
        notes: Sequence[str] | None = None,
        where: Where | None = None,
        after: str | None = None,
    ) -> Self:
        """The same error, said otherwise by who knows more of it; this one stays as it is.

        It has this one's cause and trace, and is made without the class's own constructor, which
        in classes of others may ask for anything.
        """
        said = {"message": message, "notes": notes, "where": where, "after": after}
        other = type(self).__new__(type(self), *self.args)
        other.__dict__ |= self.__dict__ | {k: v for k, v in said.items() if v is not None}
        other.args = self.args if message is None else (message,)
        other.notes = tuple(other.notes)
        other.__cause__, other.__context__ = self.__cause__, self.__context__
        other.__suppress_context__ = self.__suppress_context__
        return other.with_traceback(self.__traceback__)

    def to_dict(self) -> dict[str, str | int]:
        """The error as the CLI's `--json` and the HTTP API show it; no values of documents."""
        return {
            "code": self.code,
            "kind": self.kind,
            "message": self.message,
            "hint": self.hint,
            "exit": self.exit_code,
        }


class ConfigError(MongoverError):
    """A configuration file, key, flag or environment variable is wrong."""

    code = "MGV001"
    exit_code = 2


class UsageError(MongoverError):
    """The call does not make sense as it was made."""

    code = "MGV002"
    exit_code = 2


class FilesError(MongoverError):
    """The revision files do not hold together."""

    exit_code = 4


class InvalidRevision(FilesError):
    """A revision file's header or script cannot be read."""

    code = "MGV010"


class DuplicateRevision(FilesError):
    """Two files carry one revision id; `paths` are those that do, where they are known."""

    code = "MGV011"

    def __init__(self, message: str, *, paths: Sequence[Path] = (), **said: Any) -> None:
        super().__init__(message, **said)
        self.paths = tuple(paths)


class UnknownParent(FilesError):
    """`down_revision` or `depends_on` names a revision without a file."""

    code = "MGV012"


class CycleError(FilesError):
    """The links of the revision files form a circle."""

    code = "MGV013"


class MultipleHeads(FilesError):
    """One line has more than one head."""

    code = "MGV030"


class OutOfOrder(FilesError):
    """A pending revision stands below applied ones."""

    code = "MGV031"


class TargetError(MongoverError):
    """A target cannot be resolved to revisions."""

    code = "MGV018"
    exit_code = 2


class UnknownTarget(TargetError):
    """No revision or schema has this name."""

    code = "MGV014"


class AmbiguousTarget(TargetError):
    """A prefix fits several revisions."""

    code = "MGV015"


class WrongLine(TargetError):
    """The revision exists, but in another line than the target says."""

    code = "MGV016"


class WalkTooFar(TargetError):
    """A relative target goes beyond the end of its line."""

    code = "MGV017"


class RevisionError(MongoverError):
    """A revision could not be run to its end."""

    code = "MGV020"
    exit_code = 1


class RevisionFailed(RevisionError):
    """A revision's own code raised."""

    code = "MGV020"


class DuplicateValues(RevisionError):
    """A unique index cannot be built over values that occur more than once."""

    code = "MGV021"


class OperationConflict(RevisionError):
    """What an operation would create exists with another definition."""

    code = "MGV022"


class NotInTransaction(RevisionError):
    """The server cannot run this operation in a transaction."""

    code = "MGV023"


class SwallowedError(RevisionError):
    """A revision's code caught and hid an error that ended its transaction."""

    code = "MGV024"


class TransactionFailed(RevisionError):
    """A revision's transaction could not be committed."""

    code = "MGV025"


class Irreversible(RevisionError):
    """A revision has no downgrade."""

    code = "MGV026"


class OperationFailed(RevisionError):
    """The server refused one operation, or its arguments make no sense."""

    code = "MGV027"


class InvalidDocuments(RevisionError):
    """Documents violate the validator that should be set."""

    code = "MGV028"


class NotOurs(RevisionError):
    """A downgrade would destroy what the history did not make."""

    code = "MGV029"


class HistoryError(MongoverError):
    """History and files disagree, or the history cannot be trusted."""

    code = "MGV040"
    exit_code = 4


class Edited(HistoryError):
    """A file was edited after it was applied."""

    code = "MGV040"


class MissingFile(HistoryError):
    """A file of an applied revision is gone."""

    code = "MGV041"


class Blocked(HistoryError):
    """A revision stopped half-way and only a person can say what it left."""

    code = "MGV042"


class ForeignDocument(HistoryError):
    """The history collection holds a document of another tool."""

    code = "MGV043"


class NewerFormat(HistoryError):
    """A record was written by a newer release of mongover."""

    code = "MGV044"


class BadRecord(HistoryError):
    """A record's content makes no sense."""

    code = "MGV045"


class Ahead(HistoryError):
    """The database holds revisions that are newer than all files."""

    code = "MGV046"


class RecordConflict(HistoryError):
    """A record is not in the state in which this run left it; `revision` is its id.

    `gone` says that there is no record any more.
    """

    code = "MGV047"

    def __init__(
        self, message: str, *, revision: str = "", gone: bool = False, **said: Any
    ) -> None:
        super().__init__(message, **said)
        self.revision = revision
        self.gone = gone


class LockError(MongoverError):
    """The lease could not be had or kept."""

    exit_code = 3


class LockHeld(LockError):
    """Another process holds the lease."""

    code = "MGV050"


class LockLost(LockError):
    """This process lost its lease while it worked."""

    code = "MGV051"


class DatabaseError(MongoverError):
    """The database refused a command that should have worked."""

    code = "MGV060"
    exit_code = 5


class Unreachable(DatabaseError):
    """No server answers at the configured address."""

    code = "MGV061"


class AuthenticationFailed(DatabaseError):
    """The server does not accept the credentials."""

    code = "MGV062"


class NotAllowed(DatabaseError):
    """The user lacks a privilege."""

    code = "MGV063"


class TransactionsUnsupported(DatabaseError):
    """A transactional revision meets a server without transactions."""

    code = "MGV064"


class EmbeddedError(MongoverError):
    """The embedded mongod cannot be found, started or used."""

    code = "MGV065"
    exit_code = 5


class Interrupted(MongoverError):
    """A signal ended the run; what was done is recorded."""

    code = "MGV070"
    exit_code = 130


class PendingRevisions(MongoverError):
    """Revisions wait to be applied where none should."""

    code = "MGV080"
    exit_code = 6
