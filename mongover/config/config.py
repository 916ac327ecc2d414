"""The configuration: where it is found, what it may say, and what every key means.

Flags win over `MONGOVER_*` variables, those over `alembic-style.ini` or `pyproject.toml`, and
those over the defaults. Numbers and switches are read by pydantic's engine alone, and only when
one is not the default: a `BaseModel` would cost every command more than 50 ms of CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from mongover.config.kinds import (
    Choice,
    Count,
    Given,
    Seconds,
    Setting,
    Switch,
    Text,
    shown_value,
    wrong_value,
)
from mongover.config.urls import SecretUrl, url_database, url_problem
from mongover.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from pydantic_core import CoreSchema

    from mongover.config.kinds import Kind

DEFAULT_URL: Final = "mongodb://localhost:27017"
_DEFAULT_URL: Final = SecretUrl(DEFAULT_URL)
_DEFAULT_VERSIONS: Final = Path("versions")
_DAY: Final = 86_400.0


def _setting(default: object, kind: Kind, doc: str) -> Any:
    return field(default=default, metadata={"kind": kind, "doc": doc})


@dataclass(frozen=True, slots=True)
class Config:
    """What mongover is told: checked, complete, and safe to print.

    Relative folders are taken from `root` when a `Config` is made by hand; `load_config` takes
    them from the folder of the file that names them, or from the working folder.

    Attributes:
        root: The folder of the configuration file, or the working folder.
        source: The configuration file, where there is one.
        warnings: What is odd but does not stop a command, a sentence each.
        unready: What the environment lacks to ask a server; `load_config` lets it pass only for
            those who need no database.

    Raises:
        ConfigError: a value is not what its key allows.
    """

    url: SecretUrl = _setting(  # noqa: RUF009 - a frozen value
        _DEFAULT_URL,
        Text("a MongoDB URL or embedded:FOLDER"),
        "The server: mongodb://…, mongodb+srv://…, or embedded:FOLDER for a private mongod.",
    )
    database: str = _setting(
        "", Text("a database name"), "The database. Without it, the one in the URL's path."
    )
    versions: Path = _setting(  # noqa: RUF009 - a frozen value
        _DEFAULT_VERSIONS, Text("a folder"), "The folder of the revision files."
    )
    collection: str = _setting(
        "_migrations",
        Text("a collection name"),
        "The collection of the history; the lock's collection is this name and `_lock`.",
    )
    lease: float = _setting(
        60.0,
        Seconds(1, _DAY),
        "Seconds until the lock of a dead process is free; longer than a failover of the server.",
    )
    lock_wait: float = _setting(
        60.0, Seconds(0, _DAY), "Seconds to wait for a lock that another process holds."
    )
    connect_timeout: float = _setting(
        5.0, Seconds(0.05, _DAY), "Seconds after which a server that does not answer is given up."
    )
    wait: float = _setting(
        0.0, Seconds(0, _DAY), "Seconds to wait for a server that is still starting."
    )
    out_of_order: str = _setting(
        "error",
        Choice(("error", "warn", "allow")),
        "What to do about a pending revision below applied ones of its line: error, warn or allow.",
    )
    strict: bool = _setting(
        True,  # noqa: FBT003 - the default of a key, not an argument that switches something
        Switch(),
        "False: go on when a collection or an index cannot be created, and show it as degraded.",
    )
    ddl_max_time: float = _setting(
        30.0,
        Seconds(0, _DAY),
        "Seconds that a change of a collection or index may take or queue for; 0 is no limit.",
    )
    transaction_attempts: int = _setting(
        5, Count(1, 1_000), "How often a transaction that met a conflict is tried in all."
    )
    root: Path = field(default_factory=Path.cwd)
    source: Path | None = None
    warnings: tuple[str, ...] = ()
    unready: ConfigError | None = None

    def __post_init__(self) -> None:
        given = {setting.name: getattr(self, setting.name) for setting in settings()}
        values = checked_value(
            {
                name: Given(value, f"`{name}`", self.root)
                for name, value in given.items()
                if name != "database" or value  # none yet is no wrong name
            }
        )
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if not self.database:
            object.__setattr__(self, "database", _database_of_url(self.url))

    @property
    def safe_url(self) -> str:
        """The URL without its secrets."""
        return str(self.url)

    @property
    def lock_collection(self) -> str:
        """The collection of the lock."""
        return f"{self.collection}_lock"

    def to_dict(self) -> dict[str, Any]:
        """Every key with its value, JSON-like, the URL without its secrets."""
        values = {setting.name: getattr(self, setting.name) for setting in settings()}
        return values | {"url": self.safe_url, "versions": str(self.versions)}


def settings() -> tuple[Setting, ...]:
    """Every key of the configuration, in the order in which they are documented."""
    return tuple(
        Setting(each.name, each.default, each.metadata["kind"], each.metadata["doc"])
        for each in fields(Config)
        if each.metadata
    )


def checked_value(given: Mapping[str, Given]) -> dict[str, Any]:
    """The values of the keys given, each of the type that `Config` promises."""
    for each in given.values():
        if each.unset is not None:
            raise each.unset
    known = {setting.name: setting for setting in settings()}
    values = {name: _plain(each.value, known[name].kind) for name, each in given.items()}
    parsed = {name: value for name, value in values.items() if _must_parse(value, known[name])}
    if parsed:
        values |= _parsed(parsed, given, known)
    for name, value in values.items():
        kind = known[name].kind
        if isinstance(kind, Text | Choice) and not kind.takes(value):
            raise wrong_value(name, given[name], f"must be {kind.allowed}")
    for name, check in _CHECKS.items():
        if name in values:
            values[name] = check(values[name], given[name])
    return values


def _must_parse(value: object, setting: Setting) -> bool:
    """Whether a value needs the engine: a default never does."""
    if isinstance(setting.kind, Text | Choice):
        return False
    return type(value) is not type(setting.default) or value != setting.default


def _parsed(
    values: Mapping[str, object], given: Mapping[str, Given], known: Mapping[str, Setting]
) -> dict[str, Any]:
    # Importing the engine costs 15 ms, a tenth of a bare `status`: most projects never need it.
    from pydantic_core import SchemaValidator, ValidationError, core_schema

    fields_ = {name: core_schema.typed_dict_field(_schema(known[name].kind)) for name in values}
    try:
        parsed: dict[str, Any] = SchemaValidator(
            core_schema.typed_dict_schema(fields_)
        ).validate_python(values)
    except ValidationError as error:
        name = str(error.errors(include_url=False, include_input=False)[0]["loc"][0])
        raise wrong_value(name, given[name], f"must be {known[name].kind.allowed}") from None
    return parsed


def _plain(value: object, kind: Kind) -> object:
    """The value without its wrapping; a switch where a number belongs is made unreadable."""
    if isinstance(value, SecretUrl):
        return value.reveal()
    if isinstance(value, Path) or (isinstance(value, bool) and not isinstance(kind, Switch)):
        return str(value)
    return value.strip() if isinstance(value, str) else value


def _schema(kind: Kind) -> CoreSchema:
    from pydantic_core import core_schema

    match kind:
        case Seconds(low, high):
            return core_schema.float_schema(ge=low, le=high, allow_inf_nan=False)
        case Count(low, high):
            return core_schema.int_schema(ge=low, le=high)
        case _:
            return core_schema.bool_schema()


def _check_url(value: str, given: Given) -> SecretUrl:
    problem = url_problem(value)
    if problem is not None:
        raise ConfigError(f"{given.label}: {problem[0]}", hint=problem[1], where=given.where)
    if value.startswith("embedded:"):
        folder = _absolute(value.removeprefix("embedded:").strip(), given.base)
        return SecretUrl(f"embedded:{folder}")
    return SecretUrl(value)


def _check_versions(value: str, given: Given) -> Path:
    if "\0" in value:
        raise wrong_value("versions", given, "must be a folder")
    return _absolute(value, given.base)


def _absolute(folder: str, base: Path) -> Path:
    return base / Path(folder).expanduser()


_DATABASE_SIGNS: Final = '/\\. "$\0'
_DATABASE_BYTES: Final = 63
_NAMESPACE_BYTES: Final = 120
_SERVER_DATABASES: Final = frozenset({"local", "config"})


def database_problem(name: str) -> str | None:
    """Why the server would not take a database name, or why it should not be used; else None."""
    found = "".join(sign for sign in _DATABASE_SIGNS if sign in name)
    if found:
        return f"must not hold {' '.join(repr(sign) for sign in found)}"
    if len(name.encode("utf-8", "surrogatepass")) > _DATABASE_BYTES:
        return f"must have at most {_DATABASE_BYTES} bytes"
    if name in _SERVER_DATABASES:
        return "must not be the server's own"
    return None


def _check_database(value: str, given: Given) -> str:
    problem = database_problem(value)
    if problem is not None:
        raise wrong_value("database", given, problem, "choose another name for `database`")
    return value


def _database_of_url(url: SecretUrl) -> str:
    name = url_database(url.reveal())
    problem = database_problem(name)
    if problem is not None:
        raise ConfigError(
            f"`url`: the database in its path {problem}, not {shown_value(name)}",
            hint="correct it, or set `database`",
        )
    return name


def _check_collection(value: str, given: Given) -> str:
    problem = None
    if "$" in value or "\0" in value:
        problem = "must hold neither `$` nor NUL"
    elif value.startswith(("system.", ".")) or value.endswith(".") or ".." in value:
        problem = "must not begin with `system.`, begin or end with a dot, or hold two in a row"
    elif len(value.encode("utf-8", "surrogatepass")) > _NAMESPACE_BYTES:
        problem = f"must have at most {_NAMESPACE_BYTES} bytes"
    if problem is not None:
        raise wrong_value("collection", given, problem)
    return value


_CHECKS: Final[Mapping[str, Any]] = {
    "url": _check_url,
    "versions": _check_versions,
    "database": _check_database,
    "collection": _check_collection,
}
