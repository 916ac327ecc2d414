"""What a plan says of a server without transactions, from the text of the files alone."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mongover.cli.app import run
from mongover.history.record import Direction
from mongover.operations import Operations
from mongover.operations.bulk.batches import IN_BATCHES
from mongover.planning.plan import Plan, Step
from mongover.preflight.forecast import forewarned, works_in_batches
from mongover.revisions.header import parse_revision
from tests.support.projects import (  # noqa: F401 - fixtures
    make_project_fixture,
    project_fixture,
    standalone_project_fixture,
)
from tests.support.web_support import client_of, make_app

if TYPE_CHECKING:
    from mongover.revisions.revision import Revision
    from tests.support.projects import Project

HEADER = '"""m"""\n\nrevision = "{id}"\ndown_revision = None\n{more}\n\n'
SAYS = (
    "0002 changes documents in batches, and a standalone has no transactions: after a crash each "
    "document is done at least once, with at most one batch per worker repeated (a replica set, of "
    "one node too, does each exactly once)"
)


def revision(code: str, id: str = "0001", more: str = "") -> Revision:  # noqa: A002 - as users say it
    text = HEADER.format(id=id, more=more) + code
    return parse_revision(Path(f"{id}_m.py"), text.encode())


def up(code: str, **options: str) -> Step:
    return Step(revision(code, **options), Direction.UP)


CALL = 'def upgrade(op):\n    op.transform("a", f)\n'


@pytest.mark.parametrize("verb", sorted(IN_BATCHES))
def test_each_verb_that_works_in_batches_is_found(verb: str) -> None:
    assert works_in_batches(up(f'def upgrade(op):\n    op.{verb}("a")\n'))


def test_the_verbs_are_all_those_that_can_be_paced() -> None:
    paced = {
        name
        for name, method in vars(Operations).items()
        if inspect.isfunction(method) and "pace" in inspect.signature(method).parameters
    }
    assert paced | {"merge_into"} == IN_BATCHES


@pytest.mark.parametrize(
    "code",
    [
        'def upgrade(migration):\n    for name in "ab":\n        migration.update(name, {}, {})\n',
        "async def upgrade(op):\n    op.delete('a', {})\n",
        "def upgrade(op):\n    change = op.transform\n    change('a', print)\n",
        "def upgrade(op):\n    def inner():\n        op.copy('a', 'b')\n    inner()\n",
        "def upgrade(op):\n    one(op)\ndef one(o):\n    two(t=o)\ndef two(*, t):\n    t.copy(1)\n",
        "def upgrade(op):\n    one(op)\ndef one(op):\n    one(op)\n    op.update('a', {}, {})\n",
        "def upgrade(op):\n    op.update('a', {}, {'$set': {'a': '\\d'}})\n",
    ],
)
def test_a_verb_is_found_wherever_the_file_hands_op_to(code: str) -> None:
    assert works_in_batches(up(code))


@pytest.mark.parametrize(
    "code",
    [
        "def upgrade(op):\n    op.create_index('a', 'update')\n",
        "def upgrade(op):\n    {}.update(a=1)\n    op.log('delete')\n",
        "def upgrade(op):\n    pass\ndef downgrade(op):\n    op.delete('a', {})\n",
        "def upgrade(op):\n    other(op)\n",
        "def upgrade(op):\n    one(1, 2, op=op)\ndef one(a):\n    a.update('a')\n",
        "def upgrade():\n    update = 1\n",
        "upgrade = update = print\n",
        "def upgrade(op):\n    op.update('a', {}, {}\n",  # it cannot be parsed
        "def upgrade(op):\n    loop(op)\ndef loop(op):\n    loop(op)  # update\n",
    ],
)
def test_what_only_looks_like_a_verb_is_none(code: str) -> None:
    assert not works_in_batches(up(code))


def test_the_downgrade_of_a_step_is_what_counts_when_it_is_reverted() -> None:
    both = revision("def upgrade(op):\n    pass\ndef downgrade(op):\n    op.delete('a', {})\n")
    assert works_in_batches(Step(both, Direction.DOWN))
    assert not works_in_batches(Step(both, Direction.UP))


def test_a_step_in_one_transaction_has_no_batches() -> None:
    assert not works_in_batches(up(CALL, more="transaction = True\n"))


def never() -> bool:
    raise AssertionError("the server was asked for nothing")


def test_the_server_is_asked_only_when_it_matters() -> None:
    for steps in ((), (up("def upgrade(op):\n    op.create_index('a', 'b')\n"),)):
        plan = Plan(Direction.UP, "head", steps, notices=("one",))
        assert forewarned(plan, never) is plan
    plan = Plan(Direction.UP, "head", (up(CALL),), notices=("one",))
    assert forewarned(plan, lambda: True) is plan
    assert len(forewarned(plan, lambda: False).notices) == 2


def test_many_steps_are_named_in_one_short_sentence() -> None:
    steps = tuple(up(CALL, id=f"{n:04d}") for n in range(1, 1001))
    (notice,) = forewarned(Plan(Direction.UP, "head", steps), lambda: False).notices
    assert notice.startswith("0001, 0002, 0003, 0004, 0005 and 995 more change documents in ")
    (notice,) = forewarned(Plan(Direction.UP, "head", steps[:2]), lambda: False).notices
    assert notice.startswith("0001 and 0002 change documents in ")


def fill(project: Project) -> Project:
    project.write("0001", "op.create_collection('a')")
    project.write("0002", "raise SystemExit('never run')\nop.update('a', {}, {})", after="0001")
    return project


def test_a_plan_on_a_standalone_says_that_a_crash_repeats_a_batch(
    standalone_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project = fill(standalone_project)
    lines = ["[mongover]", f"url = {project.server.url}", f"database = {project.database}"]
    (project.folder / "alembic-style.ini").write_text("\n".join(lines))
    base = ["-c", str(project.folder / "alembic-style.ini")]
    for command in (["plan"], ["upgrade", "--plan"]):
        assert run([*base, *command]) == 0
        assert f"warning: {SAYS}" in " ".join(capsys.readouterr().err.split())
    assert run([*base, "--json", "plan"]) == 0
    assert json.loads(capsys.readouterr().out)["notices"] == [SAYS]
    with client_of(make_app(project.migrator())) as client:
        assert client.get("/migrations/plan").json()["notices"] == [SAYS]
    assert project.migrator().plan(Direction.UP, "0001").notices == ()
    assert project.client[project.database].list_collection_names() == []


def test_a_plan_on_a_replica_set_has_nothing_to_say_of_it(project: Project) -> None:
    assert fill(project).migrator().plan(Direction.UP, "head").notices == ()
