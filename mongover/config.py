"""The configuration: where it is found, what it may say, and what every key means.

Flags win over `MONGOVER_*` variables, those over `alembic-style.ini` or `pyproject.toml`, and
those over the defaults. Numbers and switches are read by pydantic's engine alone, and only when
one is not the default: a `BaseModel` would cost every command more than 50 ms of CPU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import ConfigError, Where
from mongover.urls import SecretUrl, redact, redact_url, url_database, url_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic_core import CoreSchema

__all__ = [
    "Config",
    "SecretUrl",
    "Setting",
    "find_file",
    "load_config",
    "redact",
    "redact_url",
    "settings",
]

INI_NAME: Final = "alembic-style.ini"
TOML_NAME: Final = "pyproject.toml"
SECTION: Final = "mongover"
PREFIX: Final = "MONGOVER_"
DEFAULT_URL: Final = "mongodb://localhost:27017"

_DEFAULT_URL: Final = SecretUrl(DEFAULT_URL)
_DEFAULT_VERSIONS: Final = Path("versions")

_DAY: Final = 86_400.0
_OTHER_VARIABLES: Final = frozenset(
    PREFIX + name
    for name in (
        *("CONFIG", "MONGOD", "API_TOKEN", "API_READ_TOKEN"),
        *("JSON", "VERBOSE", "QUIET", "DEBUG"),
    )
)

# ------------------------------------------------------------------------------- kinds of values


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is not empty."""

    allowed: str

    def takes(self, value: object) -> bool:
        """Whether a value is one."""
        return isinstance(value, str) and value != ""


@dataclass(frozen=True, slots=True)
class Seconds:
    """A number of seconds within bounds."""

    low: float
    high: float

    @property
    def allowed(self) -> str:
        """What the key may be, for an error."""
        return f"a number of seconds from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number within bounds."""

    low: int
    high: int

    @property
    def allowed(self) -> str:
        """What the key may be, for an error."""
        return f"a whole number from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        """What the key may be, for an error."""
        return f"one of {', '.join(self.words)}"

    def takes(self, value: object) -> bool:
        """Whether a value is one."""
        return value in self.words


@dataclass(frozen=True, slots=True)
class Switch:
    """True or false."""

    allowed: str = "true or false (yes, no, on, off, 1, 0)"


Kind = Text | Seconds | Count | Choice | Switch


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the configuration: its default, what it may be, and what it means."""

    name: str
    default: Any
    kind: Kind
    doc: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.upper()


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
        values = _checked(
            {
                name: _Given(value, f"`{name}`", self.root)
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


# ----------------------------------------------------------------------------- checks of values


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as someone gave it, who that was, and from where relative folders count."""

    value: object
    label: str
    base: Path
    where: Where | None = None
    expanded: bool = False  # it came out of the environment: it is not shown
    unset: ConfigError | None = None  # the variable that it needs and that there is not


def _checked(given: Mapping[str, _Given]) -> dict[str, Any]:
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
            raise _wrong(name, given[name], f"must be {kind.allowed}")
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
    values: Mapping[str, object], given: Mapping[str, _Given], known: Mapping[str, Setting]
) -> dict[str, Any]:
    # Importing the engine costs 15 ms, a tenth of a bare `status`: most projects never need it.
    from pydantic_core import SchemaValidator, ValidationError, core_schema  # noqa: PLC0415

    fields_ = {name: core_schema.typed_dict_field(_schema(known[name].kind)) for name in values}
    try:
        parsed: dict[str, Any] = SchemaValidator(
            core_schema.typed_dict_schema(fields_)
        ).validate_python(values)
    except ValidationError as error:
        name = str(error.errors(include_url=False, include_input=False)[0]["loc"][0])
        raise _wrong(name, given[name], f"must be {known[name].kind.allowed}") from None
    return parsed


def _plain(value: object, kind: Kind) -> object:
    """The value without its wrapping; a switch where a number belongs is made unreadable."""
    if isinstance(value, SecretUrl):
        return value.reveal()
    if isinstance(value, Path) or (isinstance(value, bool) and not isinstance(kind, Switch)):
        return str(value)
    return value.strip() if isinstance(value, str) else value


def _schema(kind: Kind) -> CoreSchema:
    from pydantic_core import core_schema  # noqa: PLC0415 - see `_parsed`

    match kind:
        case Seconds(low, high):
            return core_schema.float_schema(ge=low, le=high, allow_inf_nan=False)
        case Count(low, high):
            return core_schema.int_schema(ge=low, le=high)
        case _:
            return core_schema.bool_schema()


def _wrong(name: str, given: _Given, problem: str, hint: str = "") -> ConfigError:
    shown = "" if name == "url" or given.expanded else f", not {_shown(given.value)}"
    return ConfigError(
        f"{given.label}: {name} {problem}{shown}",
        hint=hint or f"correct `{name}`",
        where=given.where,
    )


def _shown(value: object) -> str:
    text = redact(repr(value) if isinstance(value, str) else str(value))
    return text if len(text) <= 60 else f"{text[:57]}…"  # noqa: PLR2004 - part of one screen line


def _check_url(value: str, given: _Given) -> SecretUrl:
    problem = url_problem(value)
    if problem is not None:
        raise ConfigError(f"{given.label}: {problem[0]}", hint=problem[1], where=given.where)
    if value.startswith("embedded:"):
        folder = _absolute(value.removeprefix("embedded:").strip(), given.base)
        return SecretUrl(f"embedded:{folder}")
    return SecretUrl(value)


def _check_versions(value: str, given: _Given) -> Path:
    if "\0" in value:
        raise _wrong("versions", given, "must be a folder")
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


def _check_database(value: str, given: _Given) -> str:
    problem = database_problem(value)
    if problem is not None:
        raise _wrong("database", given, problem, "choose another name for `database`")
    return value


def _database_of_url(url: SecretUrl) -> str:
    name = url_database(url.reveal())
    problem = database_problem(name)
    if problem is not None:
        raise ConfigError(
            f"`url`: the database in its path {problem}, not {_shown(name)}",
            hint="correct it, or set `database`",
        )
    return name


def _check_collection(value: str, given: _Given) -> str:
    problem = None
    if "$" in value or "\0" in value:
        problem = "must hold neither `$` nor NUL"
    elif value.startswith(("system.", ".")) or value.endswith(".") or ".." in value:
        problem = "must not begin with `system.`, begin or end with a dot, or hold two in a row"
    elif len(value.encode("utf-8", "surrogatepass")) > _NAMESPACE_BYTES:
        problem = f"must have at most {_NAMESPACE_BYTES} bytes"
    if problem is not None:
        raise _wrong("collection", given, problem)
    return value


_CHECKS: Final[Mapping[str, Any]] = {
    "url": _check_url,
    "versions": _check_versions,
    "database": _check_database,
    "collection": _check_collection,
}

# ------------------------------------------------------------------------------------ loading


@dataclass(frozen=True, slots=True)
class _File:
    """A configuration file as read: its path, its text and what our section says."""

    path: Path
    text: str
    values: Mapping[str, object]

    def where(self, key: str) -> Where:
        """Where a key stands; the line's text is left out, for it may hold a password."""
        section = re.search(rf"^[ \t]*\[(?:tool\.)?{SECTION}\].*$", self.text, re.MULTILINE)
        start = section.end() if section else len(self.text)
        pattern = re.compile(
            rf"^[ \t]*[\"']?{re.escape(key)}[\"']?[ \t]*[=:]", re.MULTILINE | re.IGNORECASE
        )
        found = pattern.search(self.text, start)
        line = self.text.count("\n", 0, found.start()) + 1 if found else None
        return Where(self.path, line)


def load_config(
    path: Path | None,
    *,
    overrides: Mapping[str, object],
    environ: Mapping[str, str],
    cwd: Path,
    needs_database: bool = True,
) -> Config:
    """The configuration: overrides, then variables, then the file, then the defaults.

    Args:
        path: The file; None looks at `MONGOVER_CONFIG`, then upwards from `cwd`.
        overrides: Values by key, such as flags give them; None stands for "not given".
        environ: The environment; an empty variable counts as not set.
        cwd: From where relative folders of flags and variables count.
        needs_database: False for commands that only look at files: what the server is asked
            with may then wait for variables that are not set.

    Raises:
        ConfigError: a file is missing or unreadable, a key is unknown, a value is wrong, a
            variable is not set, or no database is named.
    """
    file = _file(path, environ, cwd)
    given = _merge(file, overrides, environ, cwd)
    values, unready = _settled(given)
    if needs_database and unready is not None:
        raise unready
    config = Config(
        **values,
        root=cwd if file is None else file.path.parent,
        source=None if file is None else file.path,
        warnings=tuple(_odd_variables(environ)),
        unready=unready,
    )
    if needs_database and not config.database:
        raise _no_database(config, file)
    return config


def _settled(given: Mapping[str, _Given]) -> tuple[dict[str, Any], ConfigError | None]:
    """The values that are checked, and why some that come from the environment are left out.

    Without a server nothing but the folder of the revisions matters: a variable that is not set,
    or is empty where a pipeline has no secrets, is no concern of who looks at files alone.
    """
    try:
        return _checked(given), None
    except ConfigError as error:
        certain = {
            name: each for name, each in given.items() if name == "versions" or not each.expanded
        }
        return _checked(certain), error


def _no_database(config: Config, file: _File | None) -> ConfigError:
    return ConfigError(
        f"no database is named: {config.safe_url} has none in its path",
        hint=f"set `database` in {_place(file)}, or {PREFIX}DATABASE, or --database"
        + ("; `mongover init` makes a project" if file is None else ""),
    )


def _place(file: _File | None) -> str:
    return f"[{SECTION}] of {INI_NAME}" if file is None else str(file.path)


def _file(path: Path | None, environ: Mapping[str, str], cwd: Path) -> _File | None:
    if path is not None:
        return _named_file(cwd / path.expanduser(), "-c")
    named = environ.get(f"{PREFIX}CONFIG")
    if named:
        return _named_file(cwd / Path(named).expanduser(), f"{PREFIX}CONFIG")
    return next((file for folder in (cwd, *cwd.parents) if (file := _file_in(folder))), None)


def find_file(folder: Path) -> Path | None:
    """The configuration file of this very folder, if it has one; folders above do not count."""
    file = _file_in(folder)
    return None if file is None else file.path


def _named_file(path: Path, label: str) -> _File:
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise ConfigError(
            f"the configuration file {path} ({label}) {kind}",
            hint="name an existing file, or make one with `mongover init`",
        )
    file = _read_toml(path) if path.suffix == ".toml" else _read_ini(path)
    if file is None:
        raise ConfigError(
            f"{path} has no section [tool.{SECTION}]",
            hint="add it, or name another file",
            where=Where(path),
        )
    return file


def _file_in(folder: Path) -> _File | None:
    ini, toml = folder / INI_NAME, folder / TOML_NAME
    if ini.is_file():
        return _read_ini(ini)
    return _read_toml(toml) if toml.is_file() else None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", hint="make it readable", where=Where(path)
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}, line {line}: not UTF-8", hint="save it as UTF-8", where=Where(path, line)
        ) from None


def _read_toml(path: Path) -> _File | None:
    text = _text(path)
    if SECTION not in text:  # somebody else's file: its faults are no business of ours
        return None
    import tomllib  # noqa: PLC0415 - only for projects that keep their settings there

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found[1]) if found else None
        raise _unreadable(path, line, "TOML") from None
    tool = document.get("tool")
    section = tool.get(SECTION) if isinstance(tool, dict) else None
    if section is None:
        return None
    if not isinstance(section, dict):
        raise ConfigError(
            f"{path}: tool.{SECTION} is no table",
            hint=f"write [tool.{SECTION}] and one key a line",
            where=Where(path),
        )
    return _known(_File(path, text, section))


def _read_ini(path: Path) -> _File:
    import configparser  # noqa: PLC0415 - not needed with flags and variables alone

    text = _text(path)
    # Raw: `%40` in a password is no interpolation. No default section: ours says it all.
    parser = configparser.RawConfigParser(default_section="\0")
    try:
        parser.read_string(text, source=str(path))
    except configparser.Error as error:
        # The parser's own words quote the line, which may hold a password.
        raise _unreadable(path, _error_line(error), "ini", _ini_problem(error)) from None
    if not parser.has_section(SECTION):
        raise ConfigError(
            f"{path} has no section [{SECTION}]",
            hint=f"put the line [{SECTION}] above the keys",
            where=Where(path),
        )
    return _known(_File(path, text, dict(parser.items(SECTION))))


def _error_line(error: Exception) -> int | None:
    listed = getattr(error, "errors", None)
    line = listed[0][0] if listed else getattr(error, "lineno", None)
    return line if isinstance(line, int) else None


def _ini_problem(error: Exception) -> str:
    return {
        "MissingSectionHeaderError": f"it does not begin with [{SECTION}]",
        "DuplicateOptionError": "a key stands twice",
        "DuplicateSectionError": "a section stands twice",
    }.get(type(error).__name__, "a line is neither `key = value` nor a section")


def _unreadable(path: Path, line: int | None, form: str, problem: str = "") -> ConfigError:
    place = str(path) if line is None else f"{path}, line {line}"
    return ConfigError(
        f"{place}: this is no {form} file{': ' if problem else ''}{problem}",
        hint="correct the line; `mongover init` in an empty folder writes a good file",
        where=Where(path, line),
    )


def _known(file: _File) -> _File:
    names = [setting.name for setting in settings()]
    for key in file.values:
        if key not in names:
            raise ConfigError(
                f"{file.path}: unknown key `{key}`{_nearest(key, names)}",
                hint=f"the keys are {', '.join(names)}",
                where=file.where(key),
            )
    return file


def _nearest(word: str, words: Iterable[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only an error needs it

    found = get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; did you mean `{found[0]}`?" if found else ""


def _merge(
    file: _File | None, overrides: Mapping[str, object], environ: Mapping[str, str], cwd: Path
) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    names = [setting.name for setting in settings()]
    for name in overrides:
        if name not in names:
            raise ConfigError(f"unknown option `{name}`{_nearest(name, names)}", hint="see --help")
    for setting in settings():
        name, variable = setting.name, setting.variable
        if overrides.get(name) is not None:
            given[name] = _Given(overrides[name], f"--{name.replace('_', '-')}", cwd)
        elif environ.get(variable):
            given[name] = _Given(environ[variable], variable, cwd)
        elif file is not None and name in file.values:
            given[name] = _from_file(file, name, environ)
        elif isinstance(setting.default, Path):
            base = cwd if file is None else file.path.parent
            given[name] = _Given(setting.default, "the default", base)
    return given


def _from_file(file: _File, key: str, environ: Mapping[str, str]) -> _Given:
    raw = file.values[key]
    where = file.where(key)
    label = str(file.path) if where.line is None else f"{file.path}, line {where.line}"
    if not isinstance(raw, str):
        return _Given(raw, label, file.path.parent, where)
    try:
        value = expand(raw, environ)
    except _UnsetError as error:
        unset = ConfigError(f"{label}: `{key}` {error}", hint=error.hint, where=where)
        return _Given(raw, label, file.path.parent, where, expanded=True, unset=unset)
    return _Given(value, label, file.path.parent, where, expanded=value != raw)


class _UnsetError(Exception):
    """A `${…}` that cannot be replaced; its text says why, without the value around it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


_REFERENCE: Final = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<inner>[^}]*)(?P<end>\}?))")
_NAME: Final = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)


def expand(text: str, environ: Mapping[str, str]) -> str:
    """The text with `${NAME}` and `${NAME:-default}` read from the environment, `$$` for `$`.

    A default also stands in for an empty variable; a value is never expanded again; a lone `$`
    stays what it is.
    """

    def replace(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        reference = _NAME.fullmatch(found["inner"])
        if reference is None or not found["end"]:
            raise _UnsetError("holds a `${` that is no `${NAME}`", "write `$$` for a dollar sign")
        name, default = reference["name"], reference["default"]
        if name not in environ and default is None:
            raise _UnsetError(
                f"needs the variable {name}, which is not set",
                f"set {name}, or write ${{{name}:-a default}}",
            )
        return environ.get(name, "") or default or ""

    return _REFERENCE.sub(replace, text)


def _odd_variables(environ: Mapping[str, str]) -> Iterator[str]:
    known = {setting.variable for setting in settings()} | _OTHER_VARIABLES
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            yield f"the variable {name} means nothing to mongover{_nearest(name, sorted(known))}"
