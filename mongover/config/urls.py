"""MongoDB URLs: shown without their secrets, and checked for their shape without the driver."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterator

HIDDEN: Final = "***"

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# A sign that closes the sentence around a URL is not part of it.
_MONGO_URL: Final = re.compile(
    r"mongodb(?:\+srv)?://\S*?(?=[)'\"`,.;:>}\]]*(?:\s|$))", re.IGNORECASE
)
_OPTION: Final = re.compile(
    r"(?P<key>[?&;][^=&;]*(?:password|passphrase|secret|token|authmechanismproperties)[^=&;]*=)"
    r"(?P<value>[^&;]*(?:[&;](?![^=&;]*=)[^&;]*)*)",
    re.IGNORECASE,
)
_SHORT: Final = 4  # a shorter password would tear words apart: it is hidden where it stands alone
_PASSWORD_SIGNS: Final = re.compile(r"[/?#@:&;=,%]+")


class SecretUrl:
    """A URL that shows itself without its secrets; `reveal()` is the one way to the whole."""

    __slots__ = ("_url",)

    def __init__(self, url: str) -> None:
        self._url = url

    def reveal(self) -> str:
        """The URL as the driver needs it, with its password."""
        return self._url

    def __str__(self) -> str:
        return redact_url(self._url)

    def __repr__(self) -> str:
        return f"SecretUrl({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretUrl) and other._url == self._url

    def __hash__(self) -> int:
        return hash(self._url)


def redact_url(url: str) -> str:
    """The URL with `***` for its password and for every option that can hold a secret.

    A password may hold any sign, encoded or not: whatever stands before the last `@` counts as
    its own, so that a URL that nobody can parse loses too much rather than too little.
    """
    scheme = _SCHEME.match(url)
    start = scheme.end() if scheme else 0
    found = _password_span(url, start)
    if found is not None:
        url = url[: found[0]] + HIDDEN + url[found[1] :]
    return _OPTION.sub(rf"\g<key>{HIDDEN}", url)


def redact(text: str, url: str = "") -> str:
    """The text without the secrets of any MongoDB URL in it and without those of `url`.

    The password of `url` is taken out in every form in which it can stand in a message: as typed,
    decoded, encoded, quoted by `repr`, and in pieces. One of fewer than four signs is taken out
    where it is not part of a longer word.
    """
    if url:
        text = text.replace(url, redact_url(url))
    text = _MONGO_URL.sub(lambda found: redact_url(found[0]), text)
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = _hide(text, secret)
    return text


def _password_span(url: str, start: int) -> tuple[int, int] | None:
    """Where the password stands in a URL, as typed; None where there is none."""
    if url.startswith("embedded:"):
        return None
    at = url.rfind("@", start)
    colon = url.find(":", start)
    if at >= 0:
        return (colon + 1, at) if 0 <= colon < at else None
    if not start:
        return None
    # `mongodb://ana:secret` lacks its host: what should be a port is a password.
    authority = _authority(url, start)
    port = re.search(r":([^:,\]]*[^0-9:,\]][^:,\]]*)$", authority)
    return None if port is None else (start + port.start(1), start + port.end(1))


def _authority(url: str, start: int) -> str:
    return re.split(r"[/?]", url[start:], maxsplit=1)[0]


def _secrets(url: str) -> set[str]:
    scheme = _SCHEME.match(url)
    span = _password_span(url, scheme.end() if scheme else 0)
    raw = [] if span is None else [url[span[0] : span[1]]]
    for option in _OPTION.finditer(url):
        raw += _option_secrets(option["key"], option["value"])
    return {form for secret in raw for form in _forms(secret)}


def _option_secrets(key: str, value: str) -> Iterator[str]:
    if "authmechanismproperties" not in key.lower():
        yield value
        return
    for pair in re.split(r",|%2[cC]", value):
        name, _, secret = unquote(pair).partition(":")
        if re.search("token|secret|password", name, re.IGNORECASE):
            yield secret


def _forms(secret: str) -> Iterator[str]:
    plain = unquote(secret)
    whole = {secret, plain, unquote_plus(secret)}
    for form in (secret, plain):
        encoded = quote(form, safe="")
        whole |= {encoded, encoded.lower()}
    for form in whole:
        yield form
        yield repr(form)[1:-1]
    for form in (secret, plain):
        yield from (piece for piece in _PASSWORD_SIGNS.split(form) if len(piece) >= _SHORT)


def _hide(text: str, secret: str) -> str:
    if not secret or secret in HIDDEN:
        return text
    if len(secret) >= _SHORT:
        return text.replace(secret, HIDDEN)
    return re.sub(rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])", HIDDEN, text)


# ------------------------------------------------------------------------ what a URL may look like

_ENCODE: Final = (
    "percent-encode user name and password: `/` is %2F, `?` %3F, `@` %40, `:` %3A, `#` %23, `%` %25"
)
_HOST: Final = re.compile(r"(?P<name>\[[0-9A-Fa-f:.%]+\]|[^:\[\]]+)(?::(?P<port>.*))?", re.DOTALL)
_BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MAX_PORT: Final = 65_535


def url_problem(url: str) -> tuple[str, str] | None:
    """What is wrong with a URL and what to do, without a secret; None when nothing is.

    Only the shape is looked at, so that the driver need not be imported; what an option means is
    the driver's to say.
    """
    scheme = _SCHEME.match(url)
    embedded = url.startswith("embedded:") and scheme is None
    if re.search(r"[\x00-\x1f\x7f]" if embedded else r"[\s\x00-\x1f\x7f]", url):
        return "the URL holds a space or a control sign", _ENCODE
    if embedded:
        return None if url != "embedded:" else ("no folder stands after `embedded:`", _EMBEDDED)
    if scheme is None or scheme[0].lower() not in {"mongodb://", "mongodb+srv://", "mongomock://"}:
        return f"the URL's scheme is unknown: {_scheme_of(url)}", _SCHEMES
    if scheme[0].lower() == "mongomock://":
        return None
    return _network_problem(url[scheme.end() :], srv="+srv" in scheme[0].lower())


_EMBEDDED: Final = "write it as `embedded:.mongover/db`"
_SCHEMES: Final = "it begins with mongodb://, mongodb+srv:// or embedded:"


def _scheme_of(url: str) -> str:
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)", url)
    return f"`{found[0]}:`" if found else "there is none"


def _network_problem(rest: str, *, srv: bool) -> tuple[str, str] | None:
    authority = _authority(rest, 0)
    tail = rest[len(authority) :]
    if "@" in tail:
        return "an `@` stands after a `/` or `?`, which must be part of the password", _ENCODE
    userinfo, at, hosts = authority.rpartition("@")
    if at and (problem := _userinfo_problem(userinfo)):
        return problem, _ENCODE
    if problem := _hosts_problem(hosts.split(","), srv=srv):
        return problem, _HOSTS if not at else f"{_HOSTS}; {_ENCODE}"
    query = tail.partition("?")[2]
    if query and not all("=" in pair for pair in re.split("[&;]", query) if pair):
        return "an option of the URL has no value", "write options as ?name=value&name=value"
    return None


_HOSTS: Final = "write it as mongodb://[user:password@]host[:port][,host…]/database"


def _userinfo_problem(userinfo: str) -> str | None:
    if "@" in userinfo:
        return "more than one `@` stands before the host"
    if userinfo.count(":") > 1:
        return "more than one `:` stands in user name and password"
    if not userinfo.partition(":")[0]:
        return "the user name is empty"
    if _BAD_PERCENT.search(userinfo):
        return "a `%` in user name or password is not followed by two hexadecimal digits"
    return None


def _hosts_problem(hosts: list[str], *, srv: bool) -> str | None:
    if srv and (len(hosts) > 1 or re.search(r":\d*$", hosts[0])):
        return "a mongodb+srv:// URL has one host name and no port"
    for host in hosts:
        found = _HOST.fullmatch(host)
        if found is None:
            return "a host is empty" if not host or host[0] == ":" else "a host has a wrong shape"
        port = found["port"]  # never shown: in `mongodb://ana:secret` it is a password
        if port is not None and not _is_port(port):
            return f"the port of {found['name']} is no number from 1 to {_MAX_PORT}"
    return None


def _is_port(port: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", port) is not None and 0 < int(port) <= _MAX_PORT


def url_database(url: str) -> str:
    """The database that a URL's path names; empty without one, and for `admin`.

    With a user in the URL `/admin` says where that user is looked up, not where data should go.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        return ""
    path = url[scheme.end() :].partition("?")[0].partition("/")[2]
    name = unquote(path.rstrip("/"))
    return "" if name == "admin" else name
