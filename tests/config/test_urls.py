from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mongover.config.urls import SecretUrl, redact, redact_url, url_database, url_problem

PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4, max_size=24)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mongodb://ana:s3cret@host/shop", "mongodb://ana:***@host/shop"),
        ("mongodb://ana:p/w@host/shop", "mongodb://ana:***@host/shop"),
        ("mongodb://ana:p?w@host/shop", "mongodb://ana:***@host/shop"),
        ("mongodb://ana:p@w@host/shop", "mongodb://ana:***@host/shop"),
        ("mongodb://ana:p@q/w@host/shop", "mongodb://ana:***@host/shop"),
        ("mongodb://ana:p%40w@a:1,b:2/shop?w=1", "mongodb://ana:***@a:1,b:2/shop?w=1"),
        ("mongodb+srv://ana:s3cret@c.example.net", "mongodb+srv://ana:***@c.example.net"),
        ("mongodb://ana@host/shop", "mongodb://ana@host/shop"),
        ("mongodb://ana:@host", "mongodb://ana:***@host"),
        ("mongodb://host:27017/shop", "mongodb://host:27017/shop"),
        ("mongodb://[::1]:27017/shop", "mongodb://[::1]:27017/shop"),
        ("mongodb://a:1,b:2/shop", "mongodb://a:1,b:2/shop"),
        ("mongodb://ana:s3cret", "mongodb://ana:***"),
        ("mongodb://ana:s3cret/shop", "mongodb://ana:***/shop"),
        (
            "mongodb://h/d?tlsCertificateKeyFilePassword=abcd&w=1",
            "mongodb://h/d?tlsCertificateKeyFilePassword=***&w=1",
        ),
        (
            "mongodb://h/d?w=1&authMechanismProperties=AWS_SESSION_TOKEN:abcd",
            "mongodb://h/d?w=1&authMechanismProperties=***",
        ),
        ("mongodb://h/d?proxyPassword=a&b&w=1", "mongodb://h/d?proxyPassword=***&w=1"),
        ("embedded:.mongover/db", "embedded:.mongover/db"),
        ("embedded:/data/a:b@c", "embedded:/data/a:b@c"),
        ("localhost:27017", "localhost:27017"),
        ("ana:s3cret@host", "ana:***@host"),
        ("", ""),
    ],
)
def test_a_shown_url_keeps_everything_but_its_secrets(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert str(SecretUrl(url)) == shown


@given(password=PASSWORDS, encode=st.booleans())
@example(password="a@b/", encode=False)
@example(password="p?x=1@", encode=False)
@example(password="////", encode=False)
@example(password="0%00", encode=False)
def test_no_password_survives_in_any_form(*, password: str, encode: bool) -> None:
    typed = quote(password, safe="") if encode else password
    url = f"mongodb://zz:{typed}@h:1/d"
    text = (
        f"no {url}: 1) {password} 2) {password!r} 3) {quote(password, safe='')} 4) {typed}"
        f" 5) mongodb://zz:{typed}@h:2"
    )
    # signs that our own sentence holds too say nothing about the password
    around = text.replace(password, "").replace(typed, "").replace(quote(password, safe=""), "")
    clean = redact(text, url)
    assert "***" in clean
    for form in {password, typed, quote(password, safe="")}:
        assert form not in clean or form in around or form in "zz:***@h:1/d" or form in "****"


def test_pieces_of_a_password_that_a_url_broke_into_are_hidden() -> None:
    assert redact("no host named topsecret", "mongodb://ana:a@topsecret/x@h") == "no host named ***"


def test_a_token_in_the_options_is_hidden_wherever_it_stands() -> None:
    url = "mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:tok%2Fen,SERVICE_NAME:mongodb"
    assert redact("bad tok/en of mongodb", url) == "bad *** of mongodb"
    assert redact("bad abcd", "mongodb://h/?proxyPassword=abcd") == "bad ***"


def test_a_short_password_does_not_tear_words_apart() -> None:
    assert redact("a cat: 'a' failed", "mongodb://ana:a@h") == "*** cat: '***' failed"
    assert redact("nothing to hide", "mongodb://ana:@h") == "nothing to hide"


def test_every_url_in_a_text_is_cleaned_without_being_named() -> None:
    text = "from mongodb://a:pw1@h to mongodb+srv://b:pw2@i?w=1, done"
    assert redact(text) == "from mongodb://a:***@h to mongodb+srv://b:***@i?w=1, done"


def test_the_sentence_around_a_url_is_not_taken_for_a_password() -> None:
    text = "tried 'mongodb://h:27017', (mongodb://h:27018) and `mongodb://i:1`: no answer"
    assert redact(text) == text


def test_a_secret_url_shows_its_password_to_nobody_who_did_not_ask() -> None:
    secret = SecretUrl("mongodb://ana:s3cret@h")
    assert "s3cret" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "mongodb://ana:s3cret@h"
    assert secret == SecretUrl(secret.reveal())
    assert secret != "mongodb://ana:s3cret@h"
    assert len({secret, SecretUrl(secret.reveal())}) == 1


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://localhost",
        "mongodb://localhost:27017/shop?w=1&retryWrites=true",
        "mongodb://ana:p%40w@a:1,b:2/shop",
        "mongodb://ana@h",
        "mongodb://[::1]:27017/x",
        "mongodb://[::1]",
        "mongodb://%2Ftmp%2Fm.sock/shop",
        "mongodb+srv://c.example.net/shop",
        "MONGODB://h",
        "mongomock://",
        "embedded:.mongover/db",
        "embedded:/home/ana/my shop/db",
    ],
)
def test_a_good_url_has_no_problem(url: str) -> None:
    assert url_problem(url) is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mongodb://", "host is empty"),
        ("mongodb://a,,b", "host is empty"),
        ("mongodb://:27017", "host is empty"),
        ("mongodb://ana:pw99@", "host is empty"),
        ("mongodb://[::1", "wrong shape"),
        ("mongodb://h:pw99", "port of h"),
        ("mongodb://h:0", "port of h"),
        ("mongodb://h:65536", "port of h"),
        ("mongodb://h:", "port of h"),
        ("mongodb://ana:pw99/x@h", "`@` stands after"),
        ("mongodb://ana:pw99?x@h", "`@` stands after"),
        ("mongodb://ana:pw99@x@h", "more than one `@`"),
        ("mongodb://ana:pw99:x@h", "more than one `:`"),
        ("mongodb://:pw99@h", "user name is empty"),
        ("mongodb://ana:pw99%zz@h", "hexadecimal"),
        ("mongodb+srv://a,b", "one host name and no port"),
        ("mongodb+srv://a:27017", "one host name and no port"),
        ("mongodb://h/d?pw99", "no value"),
        ("mongodb://h h", "space"),
        ("mysql://ana:pw99@h", "`mysql:`"),
        ("localhost:27017", "scheme is unknown: `localhost:`"),
        ("pw99", "there is none"),
        ("embedded:", "no folder"),
        ("embedded:a\nb", "control sign"),
        ("embedded://x", "scheme is unknown"),
    ],
)
def test_a_bad_url_is_explained_without_its_password(url: str, says: str) -> None:
    problem = url_problem(url)
    assert problem is not None
    assert says in problem[0]
    assert problem[1]
    assert "pw99" not in "".join(problem)


@given(st.text(max_size=40))
def test_any_text_after_the_scheme_is_judged_without_a_crash(rest: str) -> None:
    for scheme in ("mongodb://", "mongodb+srv://", "embedded:", ""):
        url_problem(scheme + rest)
        redact_url(scheme + rest)
        redact(rest, scheme + rest)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("mongodb://h/shop?w=1", "shop"),
        ("mongodb://h/sh%20op", "sh op"),
        ("mongodb://h", ""),
        ("mongodb://h/", ""),
        ("mongodb://ana:pw@h/admin", ""),
        ("mongodb://h/?w=1", ""),
        ("embedded:/a/b", ""),
    ],
)
def test_the_database_is_the_path_but_never_where_users_are_looked_up(url: str, name: str) -> None:
    assert url_database(url) == name
