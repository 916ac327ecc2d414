"""The shapes of requests and answers, for the OpenAPI document and for checking what comes in.

What goes out is made by `documents`; the tests hold every answer against these models.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads it
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

TargetText = Annotated[str, StringConstraints(min_length=1, max_length=200)]
DirectionText = Literal["up", "down"]


class Answer(BaseModel):
    """A document that goes out: these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Asked(BaseModel):
    """A document or query that comes in: an unknown field is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


class RunQuery(Asked):
    """How a run is waited for."""

    wait: bool = Field(
        default=True, description="False: answer 202 at once, with the run's `Location`."
    )
    wait_for_lock: float = Field(
        0.0,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds to wait for another run, of any process, to end.",
    )


class PlanQuery(Asked):
    """Which plan to show."""

    direction: DirectionText = Field("up", description="Apply or revert.")
    target: TargetText | None = Field(
        None, description="Where to go: `head` without one; a plan downwards needs one."
    )


class HistoryQuery(Asked):
    """Which records to show."""

    span: TargetText | None = Field(None, description="A range such as `0002:0005` or `0003:`.")
    limit: int | None = Field(None, ge=1, le=1_000_000, description="Only the newest so many.")


class EventsQuery(Asked):
    """Which events to follow."""

    run: str | None = Field(
        None, max_length=64, description="Only those of one run; the stream ends with it."
    )


class MigrationDowngrade(Asked):
    """Where a downgrade goes."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"target": "-1"}]})

    target: TargetText = Field(
        description="`-1`, `users@-1`, `users@base`, `base`, or the revision that stays: `0004`."
    )
    allowDataLoss: list[TargetText] = Field(  # noqa: N815 - JSON
        default=[],
        max_length=100,
        description="Collections (or `collection.index`, `collection.field`) that may be destroyed"
        " even though no revision made them.",
    )


class MigrationCollection(Answer):
    """One collection of a schema."""

    name: str
    exists: bool
    documents: int = Field(description="The server's estimate; nothing is counted.")
    indexes: int = Field(description="Without `_id_`.")


class MigrationSchema(Answer):
    """Where one schema stands."""

    collectionName: str | None = Field(description="Its main collection.")  # noqa: N815 - JSON
    documentCount: int = Field(  # noqa: N815 - JSON
        description="The estimated documents of that collection."
    )
    indexes: int = Field(description="The indexes of that collection, without `_id_`.")
    exists: bool = Field(description="Whether that collection exists.")
    current: str | None = Field(description="The applied head; several are joined by commas.")
    head: str | None = Field(description="The newest file; several are joined by commas.")
    pending: list[str]
    state: Literal["running", "blocked", "failed", "degraded", "pending", "up to date"]
    collections: list[MigrationCollection]


class MigrationsApplied(Answer):
    """What an upgrade did."""

    message: str
    applied: list[str] = Field(description="Empty when there was nothing to do.")
    durationMs: float  # noqa: N815 - JSON


class SchemaMigrationsApplied(MigrationsApplied):
    """What an upgrade of one schema did, and of what it needs."""

    schema_: str = Field(alias="schema")


class MigrationsReverted(Answer):
    """What a downgrade did."""

    message: str
    direction: DirectionText
    target: str
    run: str | None
    reverted: list[str]
    durationMs: float  # noqa: N815 - JSON
    warnings: list[str]


class MigrationStep(Answer):
    """One revision of a plan."""

    revision: str
    schema_: str | None = Field(alias="schema")
    direction: DirectionText
    message: str
    transaction: bool


class MigrationLoss(Answer):
    """Something that a downgrade would destroy."""

    revision: str
    what: Literal["collection", "view", "index", "field", "documents"]
    collection: str
    name: str | None = Field(description="Of an index or a field.")
    documents: int | None = Field(description="About how many; null where nobody can say.")
    ours: bool = Field(description="Whether a revision made it.")
    certain: bool = Field(description="False where the code may leave it alone.")
    refused: bool = Field(description="Whether it needs `allowDataLoss`.")
    message: str = Field(description="The same in a sentence.")


class MigrationPlan(Answer):
    """What a run would do."""

    direction: DirectionText
    target: str
    steps: list[MigrationStep]
    notices: list[str] = Field(description="What a person should read before it runs.")
    destroys: list[MigrationLoss] = Field(
        description="What a downgrade would destroy, as far as its text tells."
    )
    unforeseen: list[str] = Field(description="What that text does not tell.")
    reaches: list[str] = Field(description="Other schemas that a downgrade goes into.")
    running: list[str] = Field(description="Revisions in its way that another process runs now.")
    nothing: str = Field(description="Why there are no steps; empty when there are some.")


class MigrationAuthor(BaseModel):
    """Who did it."""

    model_config = ConfigDict(extra="allow")

    user: str | None = None
    host: str | None = None
    pid: int | None = None


class MigrationLogLine(Answer):
    """One thing that was done to a revision."""

    at: datetime | None
    action: str
    outcome: str
    duration_ms: float | None
    run: str | None
    by: MigrationAuthor
    checksum: str | None
    error: dict[str, Any] | None
    reason: str | None


class MigrationRecord(Answer):
    """The record of one revision."""

    revision: str
    state: Literal[
        "pending", "applying", "applied", "reverting", "reverted", "failed", "interrupted"
    ]
    schema_: str | None = Field(alias="schema")
    message: str
    down_revision: list[str]
    depends_on: list[str]
    direction: DirectionText
    outcome: Literal["nothing", "unknown"] | None
    sequence: int
    attempt: int
    run: str | None
    owner: str | None
    fence: int
    checksum: str
    started_at: datetime | None
    applied_at: datetime | None
    reverted_at: datetime | None
    duration_ms: float | None
    transaction: bool
    repeatable: bool
    by: MigrationAuthor
    collections: list[str]
    warnings: list[str]
    adopted: bool = Field(description="Whether it was stamped, so that its upgrade never ran.")
    effects: list[dict[str, str]] | None = Field(
        description="What it made, found and took away; null where an older release wrote it."
    )
    error: dict[str, Any] | None
    file: str | None


class LoggedMigrationRecord(MigrationRecord):
    """The record of one revision with its log."""

    log: list[MigrationLogLine]


class MigrationHistory(Answer):
    """The records in order of application."""

    revisions: list[MigrationRecord]


class MigrationFile(Answer):
    """A revision file, without its text."""

    revision: str
    path: str = Field(description="The file's name.")
    schema_: str | None = Field(alias="schema")
    message: str
    down_revision: list[str]
    depends_on: list[str]
    transaction: bool
    reversible: bool
    checksum: str


class MigrationFinding(Answer):
    """Something that is wrong, or worth knowing."""

    revision: str | None
    kind: str
    message: str
    hint: str


class MigrationRevision(Answer):
    """All that is known of one revision."""

    revision: MigrationFile | None
    record: LoggedMigrationRecord | None
    problems: list[MigrationFinding]


class MigrationEntry(Answer):
    """One revision of the catalogue."""

    revision: str
    schema_: str | None = Field(alias="schema")
    message: str
    down_revision: list[str]
    depends_on: list[str]
    state: Literal[
        "pending", "applying", "applied", "reverting", "reverted", "failed", "interrupted"
    ]
    applied: bool = Field(description="Whether its effect is taken to be in the database.")
    file: Literal["same", "reformatted", "edited", "missing", "unreadable"] | None = Field(
        description="How its file compares with what was applied; null while nothing is."
    )
    reversible: bool | None = Field(
        description="Whether its file has a downgrade; null without a readable file."
    )


class MigrationCatalogue(Answer):
    """Every revision of files and history, each after those that it needs."""

    database: str
    revisions: list[MigrationEntry]
    problems: list[MigrationFinding]


class MigrationAccess(Answer):
    """What the caller's token allows, and what needs one."""

    token: Literal["none", "read", "write"] = Field(description="What the token that came allows.")
    reads: Literal["open", "token"]
    writes: Literal["off", "token"]


class MigrationLock(Answer):
    """The lease as it stands."""

    held: bool
    expired: bool
    owner: str | None
    holder: dict[str, Any]
    acquiredAt: datetime | None  # noqa: N815 - JSON
    heartbeatAt: datetime | None  # noqa: N815 - JSON
    expiresAt: datetime  # noqa: N815 - JSON
    fence: int


class MigrationLockAnswer(Answer):
    """The lease; null when there never was one."""

    lock: MigrationLock | None


class MigrationProgress(Answer):
    """How far a run is."""

    revision: str | None = None
    direction: DirectionText | None = None
    position: int | None = Field(None, description="Which of `total` revisions, from 1.")
    total: int | None = None
    operation: str | None = None
    done: int | None = Field(None, description="Documents that the operation has worked through.")
    documents: int | None = Field(None, description="Of how many, where known.")
    ranges: int | None = Field(None, description="Of `_id`, into which the collection was cut.")
    rangesDone: int | None = Field(None, description="How many of them are done.")  # noqa: N815 - JSON
    reached: str | None = Field(
        None, description="The highest `_id` reached, shortened; the health leaves it out."
    )


class MigrationStartUp(Answer):
    """The migration at the start of the application."""

    policy: Literal["upgrade", "wait", "check", "off"]
    state: Literal["starting", "done", "failed", "pending", "ahead", "off"]
    code: str | None


class MigrationHealth(Answer):
    """Whether the application may be sent requests."""

    status: Literal["ok", "problems", "pending", "running", "failed", "blocked", "unreachable"]
    ready: bool
    pending: int | None = Field(description="Null when the database does not answer.")
    code: str | None = Field(description="The error that an upgrade would end with, if any.")
    running: MigrationProgress | None
    startup: MigrationStartUp | None


class MigrationProblem(BaseModel):
    """A problem document as in RFC 9457, with the error's code where it is one of mongover's."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:mongover:problem:lock-held",
                    "title": "Another run holds the lock",
                    "status": 409,
                    "detail": "the lock is still held by ci@runner-7 pid 412 (upgrade): its last "
                    "heartbeat is 3 s old, so it is working, not stuck",
                    "code": "MGV050",
                    "hint": "wait, or run again with a longer --lock-wait",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str
    code: str | None = None
    hint: str | None = None


class MigrationRun(Answer):
    """A run: of this process in full, of another one as far as the history knows it."""

    id: str
    state: Literal["waiting", "running", "succeeded", "failed", "stopped", "ended"]
    direction: DirectionText
    target: str | None
    schema_: str | None = Field(alias="schema")
    startedAt: datetime | None  # noqa: N815 - JSON
    endedAt: datetime | None  # noqa: N815 - JSON
    revisions: list[str]
    progress: MigrationProgress | None
    result: dict[str, Any] | None
    problem: MigrationProblem | None
