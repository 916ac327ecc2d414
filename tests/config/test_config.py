from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, Never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mongover.config.config import Config, settings
from mongover.config.load import expand, find_file, load_config
from mongover.config.urls import SecretUrl
from mongover.errors import ConfigError


def load(
    cwd: Path,
    *,
    path: Path | None = None,
    environ: dict[str, str] | None = None,
    needs_database: bool = True,
    **overrides: Any,
) -> Config:
    return load_config(
        path,
        overrides=overrides,
        environ=environ or {},
        cwd=cwd,
        needs_database=needs_database,
    )


def ini(folder: Path, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "alembic-style.ini"
    path.write_text("\n".join(["[mongover]", *lines, ""]))
    return path


def refusal(*args: Any, **kwargs: Any) -> Any:
    with pytest.raises(ConfigError) as caught:
        load(*args, **kwargs)
    assert caught.value.hint
    return caught.value


# ---- precedence -----------------------------------------------------------------------------


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    ini(tmp_path, "database = shop", "lease = 11", "lock_wait = 12", "wait = 13")
    environ = {"MONGOVER_LEASE": "21", "MONGOVER_LOCK_WAIT": "22"}
    config = load(tmp_path, environ=environ, lease=31.0)
    assert (config.lease, config.lock_wait, config.wait, config.connect_timeout) == (31, 22, 13, 5)


def test_a_flag_that_was_not_given_and_an_empty_variable_count_for_nothing(tmp_path: Path) -> None:
    ini(tmp_path, "database = shop")
    config = load(tmp_path, environ={"MONGOVER_DATABASE": ""}, database=None)
    assert config.database == "shop"


def test_without_any_file_the_defaults_hold(tmp_path: Path) -> None:
    config = load(tmp_path, database="shop")
    assert config.url.reveal() == "mongodb://localhost:27017"
    assert config.versions == tmp_path / "versions"
    assert (config.collection, config.lock_collection) == ("_migrations", "_migrations_lock")
    assert (config.strict, config.out_of_order) == (True, "error")
    assert (config.source, config.root, config.warnings) == (None, tmp_path, ())


def test_every_key_can_be_set_by_its_variable(tmp_path: Path) -> None:
    values = {
        "url": "mongodb://h",
        "database": "d",
        "versions": "v",
        "collection": "c",
        "out_of_order": "warn",
        "strict": "no",
    }
    environ = {each.variable: values.get(each.name, "7") for each in settings()}
    config = load(tmp_path, environ=environ)
    assert config.to_dict() == {
        **dict.fromkeys(("lease", "lock_wait", "connect_timeout", "wait", "ddl_max_time"), 7.0),
        **values,
        "versions": str(tmp_path / "v"),
        "strict": False,
        "transaction_attempts": 7,
    }


# ---- where it is found -----------------------------------------------------------------------


def test_the_file_is_found_upwards_and_its_folders_count_from_it(tmp_path: Path) -> None:
    path = ini(tmp_path / "project", "database = shop", "versions = db/versions")
    inner = tmp_path / "project" / "src" / "app"
    inner.mkdir(parents=True)
    config = load(inner)
    assert config.source == path
    assert config.versions == tmp_path / "project" / "db" / "versions"


def test_folders_of_flags_and_variables_count_from_the_working_folder(tmp_path: Path) -> None:
    ini(tmp_path, "database = shop")
    inner = tmp_path / "inner"
    inner.mkdir()
    environ = {"MONGOVER_URL": "embedded:db"}
    config = load(inner, environ=environ, versions="mine")
    assert config.versions == inner / "mine"
    assert config.url.reveal() == f"embedded:{inner / 'db'}"


def test_an_embedded_folder_counts_from_the_file(tmp_path: Path) -> None:
    ini(tmp_path, "database = shop", "url = embedded:.mongover/db")
    assert load(tmp_path).url.reveal() == f"embedded:{tmp_path}/.mongover/db"


def test_pyproject_counts_only_with_a_section_of_ours(tmp_path: Path) -> None:
    ini(tmp_path, "database = outer")
    inner = tmp_path / "inner"
    inner.mkdir()
    toml = inner / "pyproject.toml"
    toml.write_text("[project]\nname = 'x'\n")
    assert load(inner).database == "outer"
    toml.write_text("[project]\nname = 'mongover-user'\n")
    assert load(inner).database == "outer"
    toml.write_text("[tool.mongover]\ndatabase = 'inner'\nstrict = false\nlease = 7\n")
    config = load(inner)
    assert (config.database, config.strict, config.lease) == ("inner", False, 7.0)
    assert find_file(inner) == toml


def test_the_ini_wins_over_a_pyproject_beside_it(tmp_path: Path) -> None:
    ini(tmp_path, "database = a")
    (tmp_path / "pyproject.toml").write_text("[tool.mongover]\ndatabase = 'b'\n")
    assert load(tmp_path).database == "a"
    assert find_file(tmp_path / "none") is None


def test_a_broken_pyproject_of_somebody_else_is_no_business_of_ours(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[[[")
    assert load(tmp_path, database="shop").source is None


def test_a_named_file_is_used_by_flag_and_by_variable(tmp_path: Path) -> None:
    path = tmp_path / "other.ini"
    path.write_text("[mongover]\ndatabase = other\n")
    assert load(tmp_path, path=Path("other.ini")).database == "other"
    assert load(tmp_path, environ={"MONGOVER_CONFIG": "other.ini"}).database == "other"


def test_a_named_file_that_is_missing_is_said_to_be_missing(tmp_path: Path) -> None:
    assert "none.ini (-c) does not exist" in refusal(tmp_path, path=Path("none.ini")).message
    error = refusal(tmp_path, environ={"MONGOVER_CONFIG": "none.ini"})
    assert "none.ini (MONGOVER_CONFIG) does not exist" in error.message
    assert "is a folder" in refusal(tmp_path, path=tmp_path).message


def test_a_named_toml_without_our_section_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("[tool.black]\n")
    assert "[tool.mongover]" in refusal(tmp_path, path=path).message


# ---- files that are wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("url = s3cret\n", 1, "does not begin with [mongover]"),
        ("[mongover]\ndatabase = a\nurl s3cret\n", 3, "neither"),
        ("[mongover]\nurl = s3cret\nurl = s3cret\n", 3, "twice"),
        ("[mongover]\nurl = s3cret\n[mongover]\n", 3, "section stands twice"),
        ("[other]\nurl = s3cret\n", None, "no section [mongover]"),
        ("[DEFAULT]\nurl = s3cret\n", None, "no section [mongover]"),
    ],
)
def test_an_ini_that_is_none_is_explained_with_its_line(
    tmp_path: Path, text: str, line: int | None, says: str
) -> None:
    path = tmp_path / "alembic-style.ini"
    path.write_text(text)
    error = refusal(tmp_path)
    assert says in error.message
    assert str(path) in error.message
    assert (error.where.path, error.where.line, error.where.text) == (path, line, "")
    assert "s3cret" not in str(error)
    assert error.__cause__ is None


def test_a_toml_that_is_none_is_explained_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text("[tool.mongover]\nurl = s3cret\n")
    error = refusal(tmp_path)
    assert (error.where.line, "s3cret" in str(error)) == (2, False)
    path.write_text("[tool]\nmongover = 3\n")
    assert "no table" in refusal(tmp_path).message
    path.write_text("tool = 3 # mongover\n")
    assert load(tmp_path, database="shop").source is None


def test_a_toml_that_ends_too_early_is_explained(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.mongover]\nurl = '''")
    assert "no TOML file" in refusal(tmp_path).message


def test_bytes_that_are_not_utf_8_are_explained_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "alembic-style.ini"
    path.write_bytes(b"[mongover]\ndatabase = \xff\n")
    assert (refusal(tmp_path).where.line, path.name in refusal(tmp_path).message) == (2, True)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "alembic-style.ini"
    path.write_bytes(b"\xef\xbb\xbf[mongover]\r\ndatabase = shop\r\nstrict = no\r\n")
    assert (load(tmp_path).database, load(tmp_path).strict) == ("shop", False)


def test_a_file_that_vanishes_while_it_is_read_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ini(tmp_path, "database = shop")

    def gone(_: Any) -> Never:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", gone)
    assert "cannot be read: Permission denied" in refusal(tmp_path).message


def test_an_unknown_key_names_the_file_the_line_and_the_nearest_key(tmp_path: Path) -> None:
    path = ini(tmp_path, "database = shop", "lock-wait = 3")
    error = refusal(tmp_path)
    assert error.message == f"{path}: unknown key `lock-wait`; did you mean `lock_wait`?"
    assert error.where.line == 3
    ini(tmp_path, "zzzzzz = 3")
    assert refusal(tmp_path).message.endswith("unknown key `zzzzzz`")


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    assert "did you mean `lease`?" in refusal(tmp_path, leese=3).message


# ---- values --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["True", "true", "yes", "ON", "1", " True "])
def test_every_way_to_say_true_is_understood(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, environ={"MONGOVER_STRICT": text}, database="d").strict is True


@pytest.mark.parametrize("text", ["False", "no", "OFF", "0"])
def test_every_way_to_say_false_is_understood(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, environ={"MONGOVER_STRICT": text}, database="d").strict is False


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("strict", "maybe", "true or false"),
        ("strict", "2", "true or false"),
        ("lease", "60s", "a number of seconds from 1 to 86400"),
        ("lease", "0", "a number of seconds"),
        ("lease", "nan", "a number of seconds"),
        ("lease", "inf", "a number of seconds"),
        ("lease", "true", "a number of seconds"),
        ("wait", "-1", "a number of seconds from 0"),
        ("connect_timeout", "0", "a number of seconds from 0.05"),
        ("transaction_attempts", "0", "a whole number from 1 to 1000"),
        ("transaction_attempts", "2.5", "a whole number"),
        ("out_of_order", "Warn", "one of error, warn, allow"),
        ("database", "a/b c", "must not hold '/' ' '"),
        ("database", 'a$."\\', "'\\\\' '.' '\"' '$'"),
        ("database", "x" * 64, "at most 63 bytes"),
        ("database", "local", "the server's own"),
        ("collection", "a$b", "neither `$`"),
        ("collection", "system.x", "must not begin"),
        ("collection", "a..b", "two in a row"),
        ("collection", "x" * 121, "at most 120 bytes"),
    ],
)
def test_a_wrong_value_names_file_line_key_value_and_what_is_allowed(
    tmp_path: Path, key: str, value: str, allowed: str
) -> None:
    path = ini(tmp_path, "# first", f"{key} = {value}")
    error = refusal(tmp_path)
    assert error.message.startswith(f"{path}, line 3: {key} ")
    assert allowed in error.message
    assert "not " in error.message
    assert value[:20] in error.message.replace("\\\\", "\\")


def test_the_line_of_a_key_is_looked_for_in_our_section_alone(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text("[tool.x]\nlease = 1\n[tool.mongover]\nlease = 0\n")
    assert refusal(tmp_path).where.line == 4
    path.write_text("tool.mongover.lease = 0\n")
    assert refusal(tmp_path).where.line is None


def test_wrong_types_in_a_toml_are_refused(tmp_path: Path) -> None:
    for line in ("lease = true", "database = 5", "strict = 'ja'", "versions = ['a']", "url = ''"):
        (tmp_path / "pyproject.toml").write_text(f"[tool.mongover]\n{line}\n")
        key = line.partition(" ")[0]
        assert f"line 2: {key} must be" in refusal(tmp_path).message


def test_an_empty_value_is_refused(tmp_path: Path) -> None:
    ini(tmp_path, "database =")
    assert "must be a database name, not ''" in refusal(tmp_path).message


def test_a_wrong_value_says_which_flag_or_variable_it_came_from(tmp_path: Path) -> None:
    assert refusal(tmp_path, lock_wait="x").message.startswith("--lock-wait: lock_wait must be")
    error = refusal(tmp_path, environ={"MONGOVER_LEASE": "x"})
    assert error.message.startswith("MONGOVER_LEASE: lease must be")


def test_a_long_or_secret_value_is_not_repeated_whole(tmp_path: Path) -> None:
    assert len(refusal(tmp_path, lease="9" * 5_000 + "x").message) < 160
    error = refusal(tmp_path, lease="mongodb://ana:s3cret@h")
    assert "s3cret" not in error.message
    ini(tmp_path, "database = ${SECRET}")
    assert "a/b" not in refusal(tmp_path, environ={"SECRET": "a/b"}).message


def test_a_versions_folder_that_no_system_can_have_is_refused(tmp_path: Path) -> None:
    assert "must be a folder" in refusal(tmp_path, versions="a\0b").message


def test_no_database_says_where_to_set_it(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert "no database is named" in error.message
    assert "[mongover] of alembic-style.ini" in error.hint
    path = ini(tmp_path, "url = mongodb://ana:s3cret@h/admin")
    error = refusal(tmp_path)
    assert str(path) in error.hint
    assert "s3cret" not in str(error)
    assert load(tmp_path, needs_database=False).database == ""


def test_the_database_of_the_url_is_used_unless_one_is_named(tmp_path: Path) -> None:
    assert load(tmp_path, url="mongodb://h/shop").database == "shop"
    assert load(tmp_path, url="mongodb://h/shop", database="other").database == "other"
    assert "must not hold '.'" in refusal(tmp_path, url="mongodb://h/a.b").message


def test_a_malformed_url_is_refused_without_its_password(tmp_path: Path) -> None:
    ini(tmp_path, "database = d", "url = mongodb://ana:s3cr/et@h")
    error = refusal(tmp_path)
    assert "line 3: an `@` stands after" in error.message
    assert "%2F" in error.hint
    assert "et@h" not in f"{error}{error.hint}"


# ---- the environment in files --------------------------------------------------------------


def test_variables_are_read_in_ini_and_toml(tmp_path: Path) -> None:
    ini(tmp_path, "url = mongodb://ana:${PW}@${HOST:-h}/shop", "database = ${DB:-x}y")
    config = load(tmp_path, environ={"PW": "p%40w"})
    assert config.url.reveal() == "mongodb://ana:p%40w@h/shop"
    assert config.database == "xy"
    (tmp_path / "alembic-style.ini").unlink()
    (tmp_path / "pyproject.toml").write_text("[tool.mongover]\ndatabase = '${DB}'\n")
    assert load(tmp_path, environ={"DB": "shop"}).database == "shop"


def test_an_unset_variable_names_file_key_and_variable_but_not_the_value(tmp_path: Path) -> None:
    path = ini(tmp_path, "database = shop", "url = mongodb://ana:s3cret@${HOST}")
    error = refusal(tmp_path)
    assert error.message == (f"{path}, line 3: `url` needs the variable HOST, which is not set")
    assert "set HOST" in error.hint
    assert load(tmp_path, url="mongodb://h").url.reveal() == "mongodb://h"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a$$b", "a$b"),
        ("$$${A}", "$1"),
        ("$${A}", "${A}"),
        ("a$b$", "a$b$"),
        ("${A}${A}", "11"),
        ("${E}", ""),
        ("${E:-x}", "x"),
        ("${N:-}", ""),
        ("${N:-a:-b $x}", "a:-b $x"),
        ("${R}", "${A}"),
    ],
)
def test_references_expand_once_and_dollars_can_be_written(text: str, result: str) -> None:
    assert expand(text, {"A": "1", "E": "", "R": "${A}"}) == result


@pytest.mark.parametrize("text", ["${", "${A", "${}", "${1A}", "${A-x}", "${A B}"])
def test_a_reference_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    ini(tmp_path, f"url = mongodb://{text}")
    assert "is no `${NAME}`" in refusal(tmp_path, environ={"A": "1"}).message


@given(st.text(max_size=30))
def test_a_text_with_its_dollars_doubled_comes_out_as_it_was(text: str) -> None:
    assert expand(text.replace("$", "$$"), {}) == text


def test_a_percent_sign_in_a_password_is_no_interpolation(tmp_path: Path) -> None:
    ini(tmp_path, "url = mongodb://ana:p%40w;#@h/shop")
    assert load(tmp_path).url.reveal() == "mongodb://ana:p%40w;#@h/shop"


def test_a_misspelt_variable_is_a_warning_that_names_the_nearest(tmp_path: Path) -> None:
    environ = dict.fromkeys(
        ("MONGOVER_DATABSE", "MONGOVER_MONGOD", "MONGOVER_API_TOKEN", "MONGOVER_API_READ_TOKEN"),
        "s3cret",
    )
    config = load(tmp_path, environ=environ, database="shop")
    assert config.warnings == (
        (
            "the variable MONGOVER_DATABSE means nothing to mongover;"
            " did you mean `MONGOVER_DATABASE`?"
        ),
    )


# ---- the value -----------------------------------------------------------------------------


def test_a_config_made_by_hand_is_checked_and_completed(tmp_path: Path) -> None:
    by_hand: Any = {"url": "mongodb://h/shop", "versions": "v", "lease": 3, "root": tmp_path}
    config = Config(**by_hand)
    assert (config.database, config.versions, config.lease) == ("shop", tmp_path / "v", 3.0)
    assert isinstance(config.url, SecretUrl)
    wrong: Any
    for wrong in ({"lease": 0}, {"url": "x"}, {"database": "a b"}, {"strict": "maybe"}):
        with pytest.raises(ConfigError):
            Config(**wrong)
    with pytest.raises(TypeError):
        Config(leese=3)  # type: ignore[call-arg] # the refusal is what is tested


def test_a_config_cannot_be_changed_and_never_shows_its_password(tmp_path: Path) -> None:
    config = load(tmp_path, url="mongodb://ana:s3cret@h/shop")
    with pytest.raises(AttributeError):
        config.lease = 3  # type: ignore[misc] # the refusal is what is tested
    assert "s3cret" not in f"{config!r} {config} {config.to_dict()} {config.safe_url}"
    assert config.safe_url == "mongodb://ana:***@h/shop"
    assert config.url.reveal() == "mongodb://ana:s3cret@h/shop"


def test_every_key_is_documented_with_what_it_allows() -> None:
    for setting in settings():
        assert setting.doc.endswith(".")
        assert setting.kind.allowed


@pytest.mark.parametrize(("overrides", "engine"), [("", False), ("'lease': '7'", True)])
def test_to_load_a_configuration_imports_no_driver_and_no_model(
    overrides: str, engine: object
) -> None:
    code = (
        "import sys, pathlib; from mongover.config import load_config, redact; redact('x');"
        f"given = {{'database': 'd', {overrides}}};"
        "load_config(None, overrides=given, environ={}, cwd=pathlib.Path('/'));"
        "heavy = {'pymongo', 'bson', 'pydantic', 'tomllib', 'configparser', 'click'};"
        "print('pydantic_core' in sys.modules, sorted(heavy & set(sys.modules)))"
    )
    bare = {"PATH": os.defpath}  # without the measuring of coverage, which imports more
    done = subprocess.run(
        [sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{engine} []\n"


def test_every_collection_of_our_own_is_known_by_the_name_that_it_is_given() -> None:
    own = Config(collection="_m").own
    backup = own.backup("0001_a", "old_users")
    for name in (own.history, own.lock, own.checkpoints, own.rejects, backup):
        assert name in own
        assert name.startswith("_m")
        assert name not in Config(collection="_n").own
    assert own.lock == Config(collection="_m").lock_collection
    assert pickle.loads(pickle.dumps(own)) == own  # noqa: S301 - our own bytes
