"""Where settings come from: the file, the environment, the caller; merged, expanded, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mongover.config.config import Config, checked_value, settings
from mongover.config.kinds import INI_NAME, OTHER_VARIABLES, PREFIX, SECTION, TOML_NAME, Given
from mongover.errors import ConfigError, Where

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, Final


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


def _settled(given: Mapping[str, Given]) -> tuple[dict[str, Any], ConfigError | None]:
    """The values that are checked, and why some that come from the environment are left out.

    Without a server nothing but the folder of the revisions matters: a variable that is not set,
    or is empty where a pipeline has no secrets, is no concern of who looks at files alone.
    """
    try:
        return checked_value(given), None
    except ConfigError as error:
        certain = {
            name: each for name, each in given.items() if name == "versions" or not each.expanded
        }
        return checked_value(certain), error


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
    import tomllib

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
    import configparser

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
    from difflib import get_close_matches

    found = get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; did you mean `{found[0]}`?" if found else ""


def _merge(
    file: _File | None, overrides: Mapping[str, object], environ: Mapping[str, str], cwd: Path
) -> dict[str, Given]:
    given: dict[str, Given] = {}
    names = [setting.name for setting in settings()]
    for name in overrides:
        if name not in names:
            raise ConfigError(f"unknown option `{name}`{_nearest(name, names)}", hint="see --help")
    for setting in settings():
        name, variable = setting.name, setting.variable
        if overrides.get(name) is not None:
            given[name] = Given(overrides[name], f"--{name.replace('_', '-')}", cwd)
        elif environ.get(variable):
            given[name] = Given(environ[variable], variable, cwd)
        elif file is not None and name in file.values:
            given[name] = _from_file(file, name, environ)
        elif isinstance(setting.default, Path):
            base = cwd if file is None else file.path.parent
            given[name] = Given(setting.default, "the default", base)
    return given


def _from_file(file: _File, key: str, environ: Mapping[str, str]) -> Given:
    raw = file.values[key]
    where = file.where(key)
    label = str(file.path) if where.line is None else f"{file.path}, line {where.line}"
    if not isinstance(raw, str):
        return Given(raw, label, file.path.parent, where)
    try:
        value = expand(raw, environ)
    except _UnsetError as error:
        unset = ConfigError(f"{label}: `{key}` {error}", hint=error.hint, where=where)
        return Given(raw, label, file.path.parent, where, expanded=True, unset=unset)
    return Given(value, label, file.path.parent, where, expanded=value != raw)


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
    known = {setting.variable for setting in settings()} | OTHER_VARIABLES
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            yield f"the variable {name} means nothing to mongover{_nearest(name, sorted(known))}"
