r"""Regular expressions of pydantic, carried over to the server's.

Pydantic's own engine and Python's know all of Unicode in `\d`, `\w` and `\s`; the server's
knows ASCII there. What is carried over accepts at least what the model accepts: a class that would
be narrower takes every sign beyond ASCII, and what has another meaning is not carried over at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_WIDER = {
    "d": r"\d\x{80}-\x{10ffff}",
    "w": r"\w\x{80}-\x{10ffff}",
    "s": r"\s\x0b\x1c-\x1f\x{80}-\x{10ffff}",
}
_SAME = frozenset("DWSAzZnrtf")
_LONGEST = 1_000
_REPEATS = 20
_TOKEN = re.compile(
    r"""
    (?P<escape>\\(?:x[0-9A-Fa-f]{2}|x\{[0-9A-Fa-f]{1,6}\}|[^\x00-\x1f]))
    | (?P<set>\[\^?(?:\\.|[^]\\[])+\])
    | (?P<open>\((?:\?:|\?P<[A-Za-z_]\w*>|(?!\?)))
    | (?P<count>(?:[*+?]|\{[0-9]{1,3}(?:,(?:[0-9]{1,3})?)?\})\??(?![*+?{]))
    | (?P<plain>[.^$|)]|[^][(){}*+?\\\x00])
    """,
    re.VERBOSE | re.DOTALL,
)
_SET_ESCAPE = re.compile(r"\\(x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{2}|.)", re.DOTALL)
_SET_OPERATORS = ("&&", "--", "~~", "||")


def carried(pattern: str) -> str | None:
    """The pattern as the server reads it, never narrower; None where it would mean another thing.

    What looks around, refers back, sets flags, names properties of signs or word boundaries is not
    carried over; nor is a group that is repeated, which the server gives up in long texts.
    """
    if len(pattern) > _LONGEST:
        return None
    parts: list[str] = []
    nesting = _Nesting()
    at = 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        part = token and _part(token)
        if not token or part is None or not nesting.takes(token):
            return None
        parts.append(part)
        at = token.end()
    return "".join(parts)


@dataclass(slots=True)
class _Nesting:
    """Which open groups hold something of variable length, and what the last token was."""

    varies: list[bool] = field(default_factory=lambda: [False])
    closed: bool | None = None

    def takes(self, token: re.Match[str]) -> bool:
        """Go on by one token; False when it repeats a group in a way that is not carried over."""
        text, before, self.closed = token.group(), self.closed, None
        if token.lastgroup == "open":
            self.varies.append(False)
        elif text == ")" and token.lastgroup == "plain" and len(self.varies) > 1:
            self.closed = self.varies.pop()
            self.varies[-1] |= self.closed
        elif token.lastgroup == "count":
            self.varies[-1] |= not text.startswith("{") or "," in text
            return before is None or text[0] == "?" or _is_small(text, varies=before)
        return True


def _is_small(count: str, *, varies: bool) -> bool:
    """Whether a group so often repeated is a matter of a few steps."""
    highest = count.rstrip("?").strip("{}").rpartition(",")[2]
    return highest.isdigit() and int(highest) <= _REPEATS and not varies


def _part(token: re.Match[str]) -> str | None:
    text = token.group()
    if token.lastgroup == "escape":
        return _escape(text)
    return _set(text) if token.lastgroup == "set" else text


def _escape(text: str) -> str | None:
    sign = text[1]
    if sign in _WIDER:
        return f"[{_WIDER[sign]}]"
    return text if _means_the_same(text[1:], within_set=False) else None


def _means_the_same(escaped: str, *, within_set: bool) -> bool:
    if len(escaped) > 1:
        return True
    if within_set and escaped in "AzZ":
        return False
    return escaped in _SAME or (escaped.isascii() and not escaped.isalnum())


def _set(text: str) -> str | None:
    negated = text.startswith("[^")
    if any(operator in text for operator in _SET_OPERATORS):
        return None
    wider: list[str] = []
    for found in _SET_ESCAPE.finditer(text):
        escaped = found.group(1)
        if escaped in _WIDER:
            wider.append(_WIDER[escaped])
        elif not _means_the_same(escaped, within_set=True) or (negated and escaped in "DWS"):
            return None
    # A negated class of ASCII's digits is wider than one of all digits: it stays as it is.
    return text if negated or not wider else f"[{''.join(dict.fromkeys(wider))}{text[1:]}"
