"""Arguments of operations: checked, and written out as Python source or JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from mongover.errors import OperationFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any


def call(function: str, positional: Iterable[Any], keyword: Mapping[str, Any]) -> str:
    """A call as Python source; keywords that are no identifiers are spread from a dict."""
    parts = [source(value) for value in positional]
    parts += [f"{name}={source(value)}" for name, value in keyword.items() if name.isidentifier()]
    odd = {name: value for name, value in keyword.items() if not name.isidentifier()}
    if odd:
        parts.append(f"**{source(odd)}")
    return f"{function}({', '.join(parts)})"


def source(value: Any) -> str:
    """A value as Python source, strings in double quotes as the house formats them."""
    match value:
        case Source():
            return value.text
        case dict():
            return "{" + ", ".join(f"{source(k)}: {source(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return _sequence(value)
        case float() if not math.isfinite(value):
            return f'float("{value}")'
        case _:
            return _quoted(value) if type(value) is str else repr(value)


def _sequence(value: list[Any] | tuple[Any, ...]) -> str:
    body = ", ".join(source(item) for item in value)
    if isinstance(value, list):
        return f"[{body}]"
    return f"({body},)" if len(value) == 1 else f"({body})"


def one_line(text: str) -> str:
    """The text with line breaks and other control signs written out: names may hold any."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _quoted(text: str) -> str:
    single = repr(text)
    if single[0] == '"' or '"' in text:
        return single
    return f'"{single[1:-1]}"'


@dataclass(frozen=True, slots=True)
class Source:
    """A piece of Python source that stands for itself where values are rendered."""

    text: str


def plain(value: Any) -> Any:
    """A value as JSON can hold it; BSON types become MongoDB's extended JSON."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if type(value) is int or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return _extended(value)


def _extended(value: Any) -> Any:
    from bson import json_util

    try:
        # The parts may be BSON values again, as the id of a DBRef.
        return plain(json_util.default(value))
    except TypeError:
        return f"<{type(value).__name__}>"


def check_name(name: Any, *, what: str = "a collection") -> str:
    """A collection name that the server would take and that is no collection of its own.

    Raises:
        OperationFailed: For an empty name, `$`, a NUL, a dot at an end, or `system.`.
    """
    if not isinstance(name, str) or not name:
        raise OperationFailed(f"{what} needs a name: {name!r} is none")
    if "$" in name or "\0" in name or ".." in name or name[0] == "." or name[-1] == ".":
        raise OperationFailed(
            f"{name!r} cannot name {what}",
            hint="a name has no `$`, no NUL and no dot at an end or beside another",
        )
    if name.startswith("system."):
        raise OperationFailed(
            f"{name!r} belongs to the server itself", hint="what must be done there goes by op.db"
        )
    return name


def check_path(path: Any, *, what: str = "a field") -> str:
    """A field path that can be updated: no empty part and no part that begins with `$`."""
    if not isinstance(path, str) or not path:
        raise OperationFailed(f"{what} needs a name: {path!r} is none")
    if any(not part or part.startswith("$") or "\0" in part for part in path.split(".")):
        raise OperationFailed(
            f"{path!r} cannot name {what}", hint='write a path like "address.city"'
        )
    return path


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """One of a few words, or OperationFailed with the nearest one."""
    words = tuple(allowed)
    if value in words:
        return str(value)
    raise OperationFailed(
        f"{name} cannot be {value!r}", hint=nearest(str(value), words) or f"one of {_list(words)}"
    )


def nearest(word: str, words: Iterable[str]) -> str:
    """`did you mean "x"?`, or an empty string."""
    found = get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f'did you mean "{found[0]}"?' if found else ""


def _list(words: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def snake(name: str) -> str:
    """MongoDB's name of an option in Python's spelling: `validationLevel`, `validation_level`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def mongo_options(
    options: Mapping[str, Any], *, known: Mapping[str, str], what: str
) -> dict[str, Any]:
    """Options by MongoDB's names, in the order of `known`; None means not given.

    Args:
        options: As the caller spelt them, in Python's or in MongoDB's way.
        known: Every allowed spelling and MongoDB's name for it.
        what: What the options belong to, for the message.

    Raises:
        OperationFailed: For an unknown option, or one that is given in both spellings.
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise OperationFailed(
                f"{what} has no option {name!r}",
                hint=nearest(name, known) or f"it has {', '.join(sorted(known))}",
            )
        if known[name] in found:
            raise OperationFailed(f"{what}: {known[name]} is given twice")
        if value is not None:
            found[known[name]] = value
    order = list(dict.fromkeys(known.values()))
    return {name: found[name] for name in order if name in found}


def spellings(names: Iterable[str]) -> dict[str, str]:
    """Every allowed spelling of MongoDB's option names, Python's first."""
    table: dict[str, str] = {}
    for name in names:
        table[snake(name)] = name
        table[name] = name
    return table
