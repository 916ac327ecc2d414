from __future__ import annotations

import gc
import sys
import textwrap
import warnings
from typing import TYPE_CHECKING, Any, Never

import pytest

from mongover.errors import InvalidRevision, Irreversible, UsageError
from mongover.history.record import Direction
from mongover.revisions.header import parse_revision
from mongover.running.script import load_script, where_in

if TYPE_CHECKING:
    from pathlib import Path

    from mongover.revisions.revision import Revision
    from mongover.running.script import Script


def revision(folder: Path, body: str, *, name: str = "0001_first.py") -> Revision:
    text = f'"""first"""\nrevision = "0001"\n{textwrap.dedent(body)}'
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return parse_revision(path, text.encode())


def load(folder: Path, body: str, **options: Any) -> Script:
    return load_script(revision(folder, body), **options)


def refusal(folder: Path, body: str) -> Any:
    with pytest.raises(InvalidRevision) as caught:
        load(folder, body)
    assert caught.value.hint
    return caught.value


def test_both_functions_run_with_the_op_that_is_passed(tmp_path: Path) -> None:
    script = load(
        tmp_path,
        """
        def upgrade(op): op.append("up")
        def downgrade(op): op.append("down")
        """,
    )
    seen: list[Any] = []
    script.run(Direction.UP, seen)
    script.run(Direction.DOWN, seen)
    assert seen == ["up", "down"]


def test_a_revision_without_downgrade_loads_and_refuses_to_be_reverted(tmp_path: Path) -> None:
    script = load(tmp_path, "def upgrade(op): pass")
    assert script.downgrade is None
    with pytest.raises(Irreversible, match="0001 has no downgrade"):
        script.run(Direction.DOWN, None)


def test_the_text_that_was_read_runs_even_when_the_file_has_changed(tmp_path: Path) -> None:
    read = revision(tmp_path, "def upgrade(op): op.append(1)")
    read.path.write_text("raise SystemExit")
    seen: list[Any] = []
    load_script(read).run(Direction.UP, seen)
    assert seen == [1]


# ---- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says", "line"),
    [
        ("x = 1", "has no upgrade(op)", None),
        ("upgrade = None", "has no upgrade(op)", None),
        ("upgrade = 3", "is no function but a int", None),
        ("class upgrade: pass", "is no function but a type", None),
        ("async def upgrade(op): pass", "`async def`", 3),
        ("async def upgrade(op): yield", "`yield`", 3),
        ("def upgrade(op): yield", "`yield`", 3),
        ("def upgrade(): pass", "takes (), but is called with one argument", 3),
        ("def upgrade(op, db): pass", "takes (op, db)", 3),
        ("def upgrade(*, op): pass", "takes (*, op)", 3),
        ("def upgrade(op): pass\nasync def downgrade(op): pass", "downgrade of", 4),
        (
            "import functools\nasync def f(x, op): pass\nupgrade = functools.partial(f, 1)",
            "`async def`",
            None,
        ),
        (
            "class A:\n    async def __call__(self, op): pass\nclass B(A): pass\nupgrade = B()",
            "`async def`",
            None,
        ),
    ],
)
def test_what_could_not_do_its_work_is_refused_before_it_runs(
    tmp_path: Path, body: str, says: str, line: int | None
) -> None:
    error = refusal(tmp_path, body)
    assert says in error.message
    assert error.where.path == tmp_path / "0001_first.py"
    assert error.where.line == line


@pytest.mark.parametrize(
    "body",
    [
        "def upgrade(op, *, times=1): op.append(1)",
        "def upgrade(*args): args[0].append(1)",
        "upgrade = lambda op: op.append(1)",
        "class A:\n    def __call__(self, op): op.append(1)\nupgrade = A()",
        "upgrade = list.clear",
        "class A:\n    def go(self, op): op.append(1)\nupgrade = A().go",
        "def upgrade(op):\n    op.append(1)\n    return [1]",
    ],
)
def test_whatever_can_be_called_with_op_is_taken(tmp_path: Path, body: str) -> None:
    load(tmp_path, body).run(Direction.UP, [])


def test_a_callable_without_a_signature_is_taken(tmp_path: Path) -> None:
    load(tmp_path, "upgrade = iter").run(Direction.UP, [])


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("async def f(op): pass\nupgrade = lambda op: f(op)", "coroutine"),
        ("def f(op): yield\nupgrade = lambda op: f(op)", "generator"),
        ("async def f(op): yield\nupgrade = lambda op: f(op)", "async_generator"),
        ("upgrade = lambda op: map(print, [op])", "map"),
        (
            (
                "import functools\ndef wrap(f):\n    @functools.wraps(f)\n"
                "    def inner(op): return f(op)\n    return inner\n"
                "async def f(op): pass\nupgrade = wrap(f)"
            ),
            "coroutine",
        ),
    ],
)
def test_work_that_was_given_back_instead_of_done_is_refused(
    tmp_path: Path, body: str, kind: str
) -> None:
    script = load(tmp_path, body)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InvalidRevision, match=f"gave back a {kind}: its work was not done"):
            script.run(Direction.UP, None)
        gc.collect()


@pytest.mark.parametrize(
    ("body", "says", "line", "text"),
    [
        ("\nimport no_such_module_x", "No module named 'no_such_module_x'", 4, "import"),
        ("import sys\nsys.exit(0)", "ends the process with sys.exit(0)", 4, "sys.exit(0)"),
        ("1 / 0", "ZeroDivisionError: division by zero", 3, "1 / 0"),
        ("raise KeyError", "cannot be imported: KeyError", 3, "raise KeyError"),
        ("def f(): g()\ndef g(): [][1]\nf()", "IndexError", 4, "def g(): [][1]"),
        ("import json\njson.loads('{')", "JSONDecodeError", 4, "json.loads('{')"),
        ("from mongover.errors import UsageError\nraise UsageError('no', hint='h')", "no", 4, "r"),
    ],
)
def test_whatever_happens_at_import_says_which_line_of_the_file(
    tmp_path: Path, body: str, says: str, line: int | None, text: str
) -> None:
    error = refusal(tmp_path, body)
    assert "0001_first.py cannot be imported" in error.message
    assert says in error.message
    assert error.where.line == line
    assert error.where.text.startswith(text)
    assert error.__cause__ is not None


def test_a_body_that_is_no_python_says_which_line(tmp_path: Path) -> None:
    error = refusal(tmp_path, "def upgrade(op):\n    x = = 1\n")
    assert (error.where.line, error.where.text) == (4, "x = = 1")
    assert "cannot be compiled: invalid syntax" in error.message


def test_a_body_that_is_too_deep_or_holds_a_nul_is_refused(tmp_path: Path) -> None:
    assert "compiled" in refusal(tmp_path, f"def upgrade(op):\n    x = {'(' * 500}").message
    assert "compiled" in refusal(tmp_path, "def upgrade(op):\n    x = '\0'").message
    deep = f"def upgrade(op):\n    x = {'-' * 100_000}1\n"
    assert "compiled" in refusal(tmp_path, deep).message


def test_ctrl_c_while_a_file_is_imported_stays_ctrl_c(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, "raise KeyboardInterrupt")


# ---- imports and names -----------------------------------------------------------------------


def test_dataclasses_and_pickle_work_inside_a_revision(tmp_path: Path) -> None:
    script = load(
        tmp_path,
        """
        import pickle
        from dataclasses import dataclass
        from typing import ClassVar

        @dataclass
        class Point:
            name: 'ClassVar[str]' = "p"
            x: int = 1

        def upgrade(op):
            @dataclass
            class Local:
                y: 'ClassVar[int]' = 2
            op.append(pickle.loads(pickle.dumps(Point(3))) == Point(3))
        """,
    )
    seen: list[Any] = []
    script.run(Direction.UP, seen)
    assert seen == [True]


def test_nothing_of_a_revision_stays_in_sys_modules_or_in_the_path(tmp_path: Path) -> None:
    before, path = set(sys.modules), list(sys.path)
    script = load(tmp_path, "def upgrade(op): raise ValueError")
    with pytest.raises(ValueError):
        script.run(Direction.UP, None)
    refusal(tmp_path, "1 / 0")
    assert set(sys.modules) == before
    assert sys.path == path


def test_two_revisions_share_no_names(tmp_path: Path) -> None:
    one = load(tmp_path, "x = 1\ndef upgrade(op): op.append(x)")
    two = load(tmp_path, "x = 2\ndef upgrade(op): op.append(x)")
    seen: list[Any] = []
    one.run(Direction.UP, seen)
    two.run(Direction.UP, seen)
    assert seen == [1, 2]


def test_a_helper_beside_the_revisions_and_modules_of_the_project_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, folder in (("mv_beside", "versions"), ("mv_root", "."), ("mv_cwd", "cwd")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.py").write_text(f"value = '{name}'\n")
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    monkeypatch.chdir(tmp_path / "cwd")
    script = load(
        tmp_path / "versions",
        """
        from mv_beside import value as a
        def upgrade(op):
            from mv_root import value as b
            from mv_cwd import value as c
            op.extend([a, b, c])
        """,
        paths=[tmp_path],
    )
    seen: list[Any] = []
    script.run(Direction.UP, seen)
    assert seen == ["mv_beside", "mv_root", "mv_cwd"]


def test_a_stray_file_never_hides_a_module_of_python(tmp_path: Path) -> None:
    (tmp_path / "colorsys.py").write_text("raise SystemExit(3)\n")
    load(tmp_path, "import colorsys\ndef upgrade(op): pass")


def test_a_revision_that_tidies_the_path_itself_does_no_harm(tmp_path: Path) -> None:
    path = list(sys.path)
    load(tmp_path, f"import sys\nsys.path.remove({str(tmp_path)!r})\ndef upgrade(op): pass")
    assert sys.path == path


# ---- where -----------------------------------------------------------------------------------


def test_the_deepest_line_inside_the_file_is_found(tmp_path: Path) -> None:
    script = load(
        tmp_path,
        """
        def upgrade(op):
            helper(op)

        def helper(op):
            op()   # the call
        """,
    )

    def fail() -> Never:
        raise UsageError("no")

    with pytest.raises(UsageError) as caught:
        script.run(Direction.UP, fail)
    where = where_in(script.revision.path, caught.value.__traceback__)
    assert where is not None
    assert (where.path, where.line) == (script.revision.path, 8)
    assert where.text == "op()   # the call"


def test_a_traceback_that_never_enters_the_file_has_no_place_in_it(tmp_path: Path) -> None:
    assert where_in(tmp_path / "x.py", None) is None
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 / 0
    assert where_in(tmp_path / "x.py", caught.value.__traceback__) is None
