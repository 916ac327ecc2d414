"""`check` reads whole files: what could not run is found before anybody runs it."""

from __future__ import annotations

import json
import keyword
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mongover.errors import InvalidRevision, MongoverError
from mongover.operations import Operations
from mongover.revisions.header import parse_revision
from mongover.running.bodies import find_faults, refuse_misuse
from mongover.running.script import load_script
from tests.support.graphs import FOLDER
from tests.support.projects import HEADER, make_project_fixture  # noqa: F401 - a fixture
from tests.support.servers import run_cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mongover.revisions.revision import Revision
    from tests.support.projects import Project
    from tests.support.servers import Server

HEAD = 'revision = "0001"\n'  # one line: a body begins in line 2


def revision_of(body: str) -> Revision:
    return parse_revision(FOLDER / "0001_x.py", (HEAD + textwrap.dedent(body)).encode())


def faults(body: str) -> list[tuple[int | None, str, str]]:
    found = find_faults(revision_of(body))
    return [(one.where.line if one.where else None, one.message, one.hint) for one in found]


def using(code: str) -> str:
    """An upgrade of this code; it begins in line 3."""
    return "def upgrade(op):\n" + textwrap.indent(textwrap.dedent(code).strip("\n"), "    ")


# ── what cannot be called ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "line", "says"),
    [
        ("def upgrade(op):\n    x = = 1\n", 3, "cannot be compiled: invalid syntax"),
        ("def upgrade(op):\n    pass\n\n\ndef helper(:\n", 6, "cannot be compiled"),
        ("def upgrade(op): pass\nreturn 1\n", 3, "'return' outside function"),
        ("def upgrade(op):\n    await op.db.x()\n", 3, "cannot be compiled"),
        ("def upgrade(op, op): pass\n", 2, "cannot be compiled"),
        ("def downgrade(op): pass\n", None, "0001_x.py has no upgrade(op)"),
        ("def ugprade(op): pass\n", None, "has no upgrade(op)"),
        ("upgrade = None\n", None, "has no upgrade(op)"),
        ("upgrade = 3\n", 2, "upgrade of 0001_x.py is no function but a int"),
        ("class upgrade: pass\n", 2, "is no function but a type"),
        ("async def upgrade(op): pass\n", 2, "is `async def`"),
        ("async def upgrade(op): yield\n", 2, "has a `yield`"),
        ("def upgrade(op):\n    yield op\n", 2, "has a `yield`"),
        ("def upgrade(): pass\n", 2, "takes (), but is called with one argument, op"),
        ("def upgrade(op, db): pass\n", 2, "takes (op, db)"),
        ("def upgrade(*, op): pass\n", 2, "takes (*, op)"),
        ("def upgrade(op, *, db): pass\n", 2, "takes (op, *, db)"),
        ("def upgrade(**op): pass\n", 2, "takes (**op)"),
        ("upgrade = lambda: None\n", 2, "takes ()"),
        ("def upgrade(op): pass\nasync def downgrade(op): pass\n", 3, "downgrade of 0001_x.py"),
        ("def upgrade(op): pass\ndef downgrade(): pass\n", 3, "downgrade of 0001_x.py takes ()"),
    ],
)
def test_what_could_not_be_called_is_found_with_its_line(
    body: str, line: int | None, says: str
) -> None:
    ((found, message, hint),) = faults(body)
    assert says in message
    assert found == line
    assert hint


@pytest.mark.parametrize(
    "body",
    [
        "def upgrade(op): pass",
        "def upgrade(op, /): pass",
        "def upgrade(op, times=1, *, more=2): pass",
        "def upgrade(*ops): pass",
        "def upgrade(*ops, **more): pass",
        "upgrade = lambda op: op.log('x')",
        "def upgrade(op):\n    def inner():\n        yield 1\n    list(inner())",
        "from elsewhere import upgrade",
        "from elsewhere import *",
        "import elsewhere\nupgrade = elsewhere.steps('a')",
        "for name in ['upgrade']:\n    globals()[name] = print",
        "def __getattr__(name): return print",
        "import sys\nsys.modules[__name__].upgrade = print",
        "def made(f): return lambda op: None\n@made\nasync def upgrade(): yield",
        "if True:\n    def upgrade(op): pass\nelse:\n    def upgrade(): pass",
        "def upgrade(): pass\ndef upgrade(op): pass",
        "def upgrade(): pass\nupgrade = print",
        "class Callable(type):\n    pass\nclass upgrade(metaclass=Callable): pass",
        "def setup():\n    global upgrade\n    upgrade = print\nsetup()",
        "def upgrade(op): pass\ndowngrade = None",
        "match print:\n    case upgrade: pass",
    ],
)
def test_what_may_be_callable_is_left_to_the_run(body: str) -> None:
    assert faults(body + "\n") == []


def test_a_fault_is_said_in_the_words_of_the_run(tmp_path: Path) -> None:
    for body in ("x = 1", "async def upgrade(op): pass", "def upgrade(a, b): pass", "def f(:"):
        path = tmp_path / "0001_x.py"
        path.write_text(HEAD + body)
        revision = parse_revision(path, path.read_bytes())
        with pytest.raises(InvalidRevision) as caught:
            load_script(revision)
        (found,) = find_faults(revision)
        assert (found.message, found.hint) == (caught.value.message, caught.value.hint)


names = st.sampled_from(["op", "db", "a"])
default = st.sampled_from(["", "=1"])
shapes = st.sampled_from(
    [
        "def upgrade({}):\n    pass",
        "def upgrade({}):\n    yield",
        "async def upgrade({}):\n    pass",
    ]
)


@st.composite
def signatures(draw: st.DrawFn) -> str:
    """Parameter lists of all kinds; some are no Python."""
    parts = [name + draw(default) for name in draw(st.lists(names, max_size=2))]
    parts += draw(st.sampled_from([[], ["/"], ["*more"], ["*"]]))
    parts += [f"k{name}{draw(default)}" for name in draw(st.lists(names, max_size=1))]
    return ", ".join(parts + draw(st.sampled_from([[], ["**words"]])))


@given(signatures(), shapes)
def test_a_plain_file_is_found_faulty_exactly_when_its_import_is_refused(
    args: str, shape: str
) -> None:
    revision = revision_of(shape.format(args) + "\n")
    try:
        load_script(revision)
        said = []
    except InvalidRevision as error:
        said = [error.message]
    assert [each.message for each in find_faults(revision)] == said


# ── what is asked of op ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "line", "says", "hint"),
    [
        ('op.create_idx("users", "email")', 3, "op has no `create_idx`", "op.create_index?"),
        ('op.createIndex("users", "a")', 3, "op has no `createIndex`", "op.create_index?"),
        ('op.log("x")\nop.insert_many("a", [])', 4, "`insert_many`", "op.insert?"),
        ('op.find("users")', 3, "op has no `find`", "op.db is pymongo's own Database"),
        ('if op.log("x"):\n    op.ad_field("a", "b", 1)', 4, "`ad_field`", "op.add_field?"),
        ('for x in "ab":\n    with open(x):\n        op.drop(x)', 5, "op has no `drop`", "op."),
        ('make = op.create_idx\nmake("users")', 3, "`create_idx`", "create_index"),
        ('(lambda: op.create_idx("a"))()', 3, "`create_idx`", "create_index"),
        ("def inner():\n    op.create_idx()\ninner()", 4, "`create_idx`", "create_index"),
        ("try:\n    op.create_idx()\nexcept Exception:\n    pass", 4, "`create_idx`", "index"),
        ('op.create_index("users")', 3, "missing a required argument: 'keys'", "(collection, keys"),
        (
            'op.drop_index("a", "b", "c")',
            3,
            "too many positional arguments",
            "(collection, index, *, even_if_not_ours=False)",
        ),
        ('op.drop_collection(nme="a")', 3, "argument", "name"),
        ('op.insert("a", [], ky="b")', 3, "unexpected keyword argument 'ky'", "mean key=?"),
        ('op.merge_into("a", "b", what_ever=1)', 3, "what_ever", "pipeline"),
        ('op.create_index("a", "b", unqiue=True)', 3, "argument 'unqiue'", "mean unique=?"),
        ('op.create_index("a", "b", **o, unqiue=True)', 3, "argument 'unqiue'", "unique=?"),
        ('op.create_indexes("a", [op.index("b", uniq=1)])', 3, "op.index: got", "mean unique=?"),
        ('op.create_collection("a", cappd=True)', 3, "argument 'cappd'", "mean capped=?"),
        ('op.update("a", {}, {}, max_rates=3)', 3, "argument 'max_rates'", "mean max_rate=?"),
        ('op.add_field("a", collection="a")', 3, "multiple values for argument", "op.add_field("),
    ],
)
def test_what_op_does_not_have_is_found_with_the_nearest_name(
    code: str, line: int, says: str, hint: str
) -> None:
    ((found, message, way_out),) = faults(using(code))
    assert message.startswith(f"0001_x.py, line {line}: ")
    assert found == line
    assert says in message
    assert hint in way_out


def test_op_is_known_by_the_name_that_each_function_gives_it() -> None:
    body = """
    def upgrade(m):
        m.log("x")
        index(m, "users")
        index(name="b", where=m)

    def index(where, name):
        where.create_idx(name, "email")
        deeper("x", o=where)

    def deeper(x, *, o):
        o.creat_view("a", "b", [])
        index(o, "again")

    def downgrade(op):
        op.drop_idx("a", "b")

    def beside(op):
        op.whatever()
    """
    assert [(line, message.partition(": ")[2]) for line, message, _ in faults(body)] == [
        (9, "where has no `create_idx`"),
        (13, "o has no `creat_view`"),
        (17, "op has no `drop_idx`"),
    ]


@pytest.mark.parametrize(
    "code",
    [
        'op.create_index("users", ("a", "b"), unique=True, expireAfterSeconds=3)',
        'op.create_collection("a", validationLevel="off", validation_action="warn")',
        'op.transform("a", lambda op: op.anything, batch_size=3, max_lag=2)',
        'op.db["a"].create_idx("x")',
        "op.db.anything.at_all()",
        "op.create_index(*args)",
        "op.create_index(*args, unique=True)",
        'op.create_index("a", **options)',
        'getattr(op, "create_idx")("a")',
        'if hasattr(op, "create_search_index"):\n    op.create_search_index("a")',
        "try:\n    op.create_search_index()\nexcept AttributeError:\n    pass",
        "op = wrapped(op)\nop.create_idx()",
        "for op in ops:\n    op.create_idx()",
        "with wrapped() as op:\n    op.create_idx()",
        "import op\nop.create_idx()",
        "def inner(op):\n    op.create_idx()\ninner(other)",
        "[op.create_idx() for op in ops]",
        "op.mark = print\nop.mark()",
        "op._target.anything",
        "return op.DELETE",
        "other.create_idx()",
        "match op:\n    case Wrapped(inner=op):\n        op.create_idx()",
    ],
)
def test_what_op_may_have_is_left_to_the_run(code: str) -> None:
    assert faults(using(code)) == []


@pytest.mark.parametrize(
    "body",
    [
        "def upgrade(*ops):\n    ops.create_idx()",
        "def made(f): return f\n@made\ndef upgrade(op):\n    op.create_idx()",
        "def upgrade(op):\n    f(op)\ndef f(o): o.a()\ndef f(p): p.log('x')",
        "def upgrade(op):\n    f(*x, op)\ndef f(a, o): a.what()",
        "def upgrade(op):\n    f.g(op)\nclass f:\n    def g(self): self.what()",
        "from mongover import Operations\nOperations.new = print\ndef upgrade(op):\n    op.new()",
        "from mongover import __version__\ndef upgrade(op):\n    if __version__ > '9': op.newer()",
    ],
)
def test_a_function_that_may_be_given_something_else_is_left_alone(body: str) -> None:
    assert faults(body + "\n") == []


def test_an_odd_escape_or_comparison_is_no_fault_and_no_warning() -> None:
    assert faults("def upgrade(op):\n    return '\\d' if op is 1 else 2\n") == []


VERBS = sorted(
    name
    for name, verb in vars(Operations).items()
    if callable(verb) and not name.startswith("_") and name not in ("run", "DELETE")
)
WORDS = [
    *("collection", "name", "to", "field", "keys", "filter", "key", "unique", "max_rate", "old"),
    *("capped", "what", "schema", "index", "value", "pipeline", "expireAfterSeconds", "on"),
]


@given(
    st.sampled_from(VERBS),
    st.integers(0, 4),
    st.lists(st.sampled_from(WORDS), max_size=3, unique=True),
)
def test_a_call_is_faulty_exactly_when_the_verb_refuses_its_arguments(
    verb: str, count: int, words: list[str]
) -> None:
    """Called with a value that no verb takes, a good call gets as far as that value."""
    arguments = ["None"] * count + [f"{word}=None" for word in words]
    found = faults(using(f"op.{verb}({', '.join(arguments)})"))
    op: Any = Operations.__new__(Operations)
    op.run = lambda operation: operation
    op._target = None
    refusal = refused(lambda: getattr(op, verb)(*[None] * count, **dict.fromkeys(words)))
    signature = [each for each in found if "unexpected keyword" not in each[1]]
    if f"{verb}() " in refusal or "no option" in refusal:
        assert found
    else:
        assert signature == []
    if not refusal:
        assert found == []


def refused(call: Callable[[], Any]) -> str:
    """Why a call fails; empty when it does not."""
    try:
        call()
    except MongoverError as error:
        return error.message
    except (TypeError, AttributeError) as error:
        return str(error)
    return ""


@given(st.text(alphabet="abcdefgnoprstuwx_()[]:.,=*'\"\n 01", max_size=60))
def test_whatever_a_body_says_only_faults_come_out(body: str) -> None:
    try:
        revision = revision_of(body)
    except InvalidRevision:  # the header cannot be told from the body
        return
    for error in find_faults(revision):
        assert error.hint
        assert error.where is not None


@given(st.from_regex(r"[a-z]{1,6}(_[a-z]{1,6})?", fullmatch=True))
def test_any_name_that_op_lacks_is_found(name: str) -> None:
    if not hasattr(Operations, name) and not keyword.iskeyword(name):
        assert len(faults(using(f"op.{name}()"))) == 1


# ── the commands ─────────────────────────────────────────────────────────────────────────────────

UNSET = "[mongover]\nurl = mongodb://${MONGO_USER}@${MONGO_HOST}/shop\ncollection = ${NAMED}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of two files, one of them broken below its header, without any secret."""
    (tmp_path / "versions").mkdir()
    (tmp_path / "alembic-style.ini").write_text(UNSET)
    write(tmp_path, "0001", None, "op.log('x')")
    write(tmp_path, "0002", "0001", "op.create_idx('a', 'b')")
    return tmp_path


def write(folder: Path, identifier: str, after: str | None, code: str) -> None:
    text = HEADER.format(message="a change", id=identifier, down=after, schema=None, extra="")
    path = folder / "versions" / f"{identifier}_change.py"
    path.write_text(text + f"def upgrade(op):\n    {code}\n")


def test_check_says_what_cannot_run_with_code_file_and_line(folder: Path) -> None:
    done = run_cli("check", cwd=folder)
    assert done.returncode == 4
    assert "0002_change.py, line 9: op has no `create_idx`" in done.stdout
    assert "at versions/0002_change.py:9   op.create_idx('a', 'b')" in done.stdout
    assert "→ did you mean op.create_index?" in done.stdout
    told = json.loads(run_cli("check", "--json", cwd=folder).stdout)
    assert told["problems"] == [
        {
            "revision": "0002",
            "kind": "unrunnable",
            "message": "0002_change.py, line 9: op has no `create_idx`",
            "hint": "did you mean op.create_index?",
            "code": "MGV010",
            "path": "versions/0002_change.py",
            "line": 9,
        }
    ]
    shown = run_cli("check", "--format", "github", cwd=folder).stdout
    assert shown.startswith(
        "::error title=MGV010,file=versions/0002_change.py,line=9::0002_change.py, line 9: op"
    )


@pytest.mark.parametrize("environ", [{}, {"MONGO_USER": "", "MONGO_HOST": "", "NAMED": "$"}])
def test_what_only_looks_at_files_needs_no_variable_of_the_server(
    folder: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    write(folder, "0002", "0001", "op.log('x')")
    environ = environ | {"EDITOR": "true"}
    for command in (
        ["check"],
        ["heads"],
        ["edit", "0001"],
        ["revision", "-m", "more"],
        ["revision", "-m", "other", "--schema", "a", "--depends-on", "0001"],
    ):
        done = run_cli(*command, cwd=folder, env=environ)
        assert done.returncode == 0, done.stderr
    write(folder, "0009", "0001", "op.log('x')")
    assert run_cli("merge", "-m", "join", cwd=folder, env=environ).returncode == 0
    assert (tmp_path / "versions" / "0010_join.py").is_file()


@pytest.mark.parametrize(
    "command", [["status"], ["upgrade"], ["plan"], ["edit", "head"], ["rebase", "2"], ["mongod"]]
)
def test_what_asks_the_server_says_which_variable_is_not_set(
    folder: Path, command: list[str]
) -> None:
    done = run_cli(*command, cwd=folder)
    assert done.returncode == 2
    assert "`url` needs the variable MONGO_USER, which is not set" in done.stderr
    assert "alembic-style.ini:2" in done.stderr


def test_the_folder_of_the_revisions_is_needed_by_all(folder: Path) -> None:
    (folder / "alembic-style.ini").write_text("[mongover]\nversions = ${WHERE}\n")
    done = run_cli("check", cwd=folder)
    assert done.returncode == 2
    assert "`versions` needs the variable WHERE, which is not set" in done.stderr


def test_a_url_that_no_variable_could_mend_is_refused_by_all(folder: Path) -> None:
    (folder / "alembic-style.ini").write_text("[mongover]\nurl = htp://x\n")
    assert run_cli("check", cwd=folder).returncode == 2


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


def test_an_upgrade_refuses_what_op_lacks_before_anything_is_run(
    make_project: Callable[[Server], Project], replica_set: Server
) -> None:
    project = make_project(replica_set)
    project.write("0001", "op.create_collection('a')")
    project.write("0002", "op.create_collection('b')\nop.create_idx('b', 'x')", after="0001")
    with pytest.raises(InvalidRevision, match="line 10: op has no `create_idx`"):
        project.upgrade()
    assert project.db.list_collection_names(filter={"name": {"$in": ["a", "b"]}}) == []
    assert project.history.count_documents({}) == 0


def test_only_the_function_that_runs_can_stand_in_the_way(
    make_project: Callable[[Server], Project], replica_set: Server
) -> None:
    project = make_project(replica_set)
    project.write("0001", "op.create_collection('a')", "op.drop_idx('a')")
    project.upgrade()
    with pytest.raises(InvalidRevision, match="op has no `drop_idx`"):
        project.migrator().downgrade("base")
    assert project.record()["state"] == "applied"
    with pytest.raises(InvalidRevision):
        refuse_misuse(parse_revision(*file_of(project)), "downgrade")
    refuse_misuse(parse_revision(*file_of(project)), "upgrade")


def file_of(project: Project) -> tuple[Path, bytes]:
    path = project.versions / "0001_change.py"
    return path, path.read_bytes()
