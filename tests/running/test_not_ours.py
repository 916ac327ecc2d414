"""A downgrade destroys nothing that the history did not make, unless somebody says that it may."""

from __future__ import annotations

import json
import textwrap
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mongover.cli.app import run
from mongover.errors import BadRecord, Edited, NotOurs, RevisionFailed
from mongover.history.changes import Resolution
from mongover.history.effects import Ours, Thing, effect, why_not
from mongover.history.record import Direction, parse_record
from mongover.running.foresight import Foreseen, Unforeseen, foresee
from tests.support.depth import examples
from tests.support.projects import (  # noqa: F401 - fixtures
    Project,
    make_project_fixture,
    project_fixture,
    standalone_project_fixture,
)
from tests.support.web_support import TOKEN, client_of, make_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.servers import Server

AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}
MANY = 500
CREATE = 'op.create_collection("customers")'
DROP = 'op.drop_collection("customers")'


def fill(project: Project, name: str = "customers", **fields: Any) -> None:
    project.db[name].insert_many([{"n": n, **fields} for n in range(MANY)])


def count(project: Project, name: str = "customers") -> int:
    return int(project.db[name].count_documents({}))


def effects(project: Project, id: str = "0001") -> list[dict[str, str]]:  # noqa: A002 - as users say it
    return list(project.record(id)["effects"])


def down(project: Project, target: str = "-1", **options: Any) -> Any:
    return project.migrator().downgrade(target, **options)


@pytest.fixture
def stamped(project: Project) -> Project:
    """A database that was there before its revision, which is stamped."""
    fill(project, phone="1")
    project.db.customers.create_index("n")
    project.write("0001", CREATE, DROP, schema="customers")
    project.migrator().stamp("head", reason="adopted")
    return project


# ---- a stamped revision ------------------------------------------------------------------------


def test_the_downgrade_of_a_stamped_revision_does_not_drop_its_collection(stamped: Project) -> None:
    before = stamped.record()
    with pytest.raises(NotOurs) as caught:
        down(stamped)
    error = caught.value
    assert "collection customers with 500 documents" in error.message
    assert "0001 was stamped" in error.message
    assert "mongover downgrade -1 --allow-data-loss customers" in error.hint
    assert 'op.drop_collection("customers", even_if_not_ours=True)' in error.hint
    assert "mongover stamp -1" in error.hint
    assert error.after == "nothing was run."
    assert count(stamped) == MANY
    assert stamped.record() == before


def test_a_named_loss_is_carried_out(stamped: Project) -> None:
    with pytest.raises(NotOurs):
        down(stamped, allow_data_loss=["custom"])
    assert down(stamped, allow_data_loss="customers").revisions == ("0001",)
    assert "customers" not in stamped.db.list_collection_names()


def test_the_word_in_the_file_counts_too(project: Project) -> None:
    fill(project)
    project.write("0001", CREATE, 'op.drop_collection("customers", even_if_not_ours=True)')
    project.migrator().stamp("head", reason="adopted")
    down(project)
    assert count(project) == 0


def test_a_stamp_downwards_keeps_the_documents(stamped: Project) -> None:
    stamped.migrator().stamp("-1", reason="kept")
    assert stamped.record()["state"] == "reverted"
    assert count(stamped) == MANY


@pytest.mark.parametrize("gone", ["empty", "missing"])
def test_an_empty_collection_may_go(stamped: Project, gone: str) -> None:
    stamped.db.customers.delete_many({})
    if gone == "missing":
        stamped.db.customers.drop()
    assert down(stamped).revisions == ("0001",)
    assert "customers" not in stamped.db.list_collection_names()


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ('op.drop_index("customers", "n_1")', "index customers.n_1"),
        ('op.drop_index("customers", "n")', "index customers.n_1"),
        ('op.drop_index("customers", [("n", 1)])', "index customers.n_1"),
        ('op.remove_field("customers", "phone")', "field customers.phone of 500 documents"),
        ('op.remove_field("customers", "phone", filter={"n": 3})', "of 1 document:"),
        ('op.delete("customers", {"n": {"$lt": 7}})', "7 documents of customers"),
        ('op.drop_collection("view")', "the view view"),
        ('op.drop_collection("series")', "collection series with 1 document"),
    ],
)
def test_nothing_that_was_there_before_a_stamp_is_destroyed(
    stamped: Project, code: str, what: str
) -> None:
    stamped.db.create_collection("view", viewOn="customers", pipeline=[])
    stamped.db.create_collection("series", timeseries={"timeField": "at"})
    stamped.db.series.insert_one({"at": stamped.record()["applied_at"]})
    stamped.history.delete_many({})
    stamped.write("0001", CREATE, f"names = ['x']\nop.log(names[0])\n{code}")
    stamped.migrator().stamp("head", reason="adopted")
    with pytest.raises(NotOurs) as caught:
        down(stamped)
    assert what in caught.value.message
    assert caught.value.after == "nothing was run."
    assert {"view", "series"} <= set(stamped.db.list_collection_names())
    assert "n_1" in stamped.db.customers.index_information()
    assert stamped.db.customers.count_documents({"phone": "1"}) == MANY


def test_a_part_may_be_named_alone(project: Project) -> None:
    fill(project, phone="1")
    project.write("0001", "pass", f'op.remove_field("customers", "phone")\n{DROP}')
    project.migrator().stamp("head", reason="adopted")
    with pytest.raises(NotOurs, match="collection customers"):
        down(project, allow_data_loss=["customers.phone"])
    assert project.db.customers.count_documents({"phone": "1"}) == MANY
    down(project, allow_data_loss=["customers"])


def test_nothing_of_a_long_downgrade_runs_before_the_refusal(project: Project) -> None:
    fill(project)
    project.write("0001", CREATE, DROP)
    project.migrator().stamp("0001", reason="adopted")
    project.write(
        "0002", 'op.insert("roles", [{"_id": 1}])', 'op.drop_collection("roles")', after="0001"
    )
    project.upgrade()
    with pytest.raises(NotOurs, match="0001"):
        down(project, "base")
    assert project.record("0002")["state"] == "applied"
    assert count(project, "roles") == 1


# ---- what the text does not tell ---------------------------------------------------------------

HIDDEN = """
names = sorted(["customers"])
for name in names:
    op.drop_collection(name)
"""


def test_a_computed_name_is_refused_at_the_verb(any_project: Project) -> None:
    fill(any_project)
    any_project.write("0001", CREATE, 'op.insert("kept", [{"_id": 1}])\n' + HIDDEN)
    any_project.migrator().stamp("head", reason="adopted")
    plan = any_project.migrator().plan(Direction.DOWN, "-1")
    assert plan.destroys == ()
    assert any("op.drop_collection, whose arguments are computed" in one for one in plan.unforeseen)
    with pytest.raises(NotOurs) as caught:
        down(any_project)
    assert "it was left as it is." in caught.value.after
    assert count(any_project) == MANY
    assert count(any_project, "kept") == 1
    assert any_project.record()["state"] == "failed"
    assert down(any_project, allow_data_loss=["customers"]).revisions == ("0001",)
    assert count(any_project) == 0


def test_a_refusal_as_the_first_act_leaves_nothing_to_be_resolved(project: Project) -> None:
    fill(project)
    project.write("0001", CREATE, HIDDEN)
    project.migrator().stamp("head", reason="adopted")
    with pytest.raises(NotOurs):
        down(project)
    assert (project.record()["state"], project.record()["outcome"]) == ("failed", "nothing")


def test_what_a_condition_spares_is_not_refused(stamped: Project) -> None:
    stamped.history.delete_many({})
    code = f"if op.db.customers.estimated_document_count() == 0:\n    {DROP}"
    stamped.write("0001", CREATE, code)
    stamped.migrator().stamp("head", reason="adopted")
    (seen,) = stamped.migrator().plan(Direction.DOWN, "-1").destroys
    assert seen.sentence().startswith("0001 may destroy the collection customers with 500")
    assert down(stamped).revisions == ("0001",)
    assert count(stamped) == MANY


@pytest.fixture(params=["replica_set", "standalone"])
def any_project(request: pytest.FixtureRequest, make_project: Callable[..., Project]) -> Project:
    """An empty project; the test runs on both servers."""
    return make_project(request.getfixturevalue(request.param))


# ---- a revision that ran -----------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
def test_what_an_upgrade_made_its_downgrade_takes_away(any_project: Project, strict: bool) -> None:
    any_project.write(
        "0001",
        """
        op.create_collection("customers")
        op.create_index("customers", "n")
        op.create_indexes("customers", ["a", ("a", "b")])
        op.insert("roles", [{"_id": 1}])
        op.create_index("things", "x")
        op.copy("roles", "copied")
        op.create_view("seen", "roles", [])
        op.db.drawer.insert_one({"a": 1})
        """,
        """
        op.drop_collection("seen")
        op.drop_index("customers", ("a", "b"))
        op.drop_index("customers", "n")
        for name in ("customers", "roles", "things", "copied", "drawer"):
            op.drop_collection(name)
        """,
    )
    any_project.migrator(strict=strict).upgrade()
    fill(any_project)
    fill(any_project, "things")
    assert down(any_project).revisions == ("0001",)
    gone = {"seen", "customers", "roles", "things", "copied", "drawer"}
    assert gone.isdisjoint(any_project.db.list_collection_names())


@pytest.mark.parametrize(
    ("up", "code"),
    [
        (CREATE, DROP),
        ('op.create_index("customers", "n")', 'op.drop_index("customers", "n_1")'),
        ('op.create_indexes("customers", ["n"])', 'op.drop_index("customers", "n_1")'),
        ('op.create_indexes("customers", ["n", "m"])', 'op.drop_index("customers", "n_1")'),
        ('op.add_field("customers", "phone", "")', 'op.remove_field("customers", "phone")'),
        ("pass", DROP),
        ("pass", 'op.drop_index("customers", "n_1")'),
        ('op.insert("customers", [{"_id": 1}])', DROP),
        ('op.create_view("view", "customers", [])', 'op.drop_collection("view")'),
        ('op.rename_collection("customers", "people")', 'op.drop_collection("people")'),
        ("op.db.customers.insert_one({'n': -1})", DROP),
    ],
)
def test_what_an_upgrade_found_its_downgrade_leaves(
    any_project: Project, up: str, code: str
) -> None:
    fill(any_project, phone="1")
    any_project.db.customers.create_index("n")
    any_project.db.create_collection("view", viewOn="customers", pipeline=[])
    any_project.write("0001", up, code)
    any_project.upgrade()
    with pytest.raises(NotOurs) as caught:
        down(any_project)
    assert caught.value.after == "nothing was run."
    assert "was stamped" not in caught.value.message
    assert any_project.record()["state"] == "applied"
    down(any_project, allow_data_loss=["customers", "people", "view"])


def test_an_added_field_and_those_that_other_verbs_wrote_are_removed(project: Project) -> None:
    fill(project)
    project.write(
        "0001",
        'op.add_field("customers", "a", 1)\nop.update("customers", {}, {"$set": {"b": 1}})',
        'op.remove_field("customers", "a")\nop.remove_field("customers", "b")',
    )
    project.upgrade()
    assert {"did": "created", "collection": "customers", "field": "a"} in effects(project)
    down(project)
    assert set(project.db.customers.find_one() or {}) == {"_id", "n"}


def test_a_field_that_was_added_to_no_document_is_not_one_that_was_there(project: Project) -> None:
    project.db.create_collection("customers")
    project.write("0001", 'op.add_field("customers", "a", 1)', 'op.remove_field("customers", "a")')
    project.upgrade()
    fill(project, a=2)  # the application, which knows the field by now
    down(project)
    assert project.db.customers.count_documents({"a": 2}) == 0


def test_a_collection_that_an_earlier_revision_made_is_dropped_unless_it_was_found(
    project: Project,
) -> None:
    project.write("0001", CREATE, DROP)
    project.write("0002", "pass", DROP, after="0001")
    project.write("0003", CREATE, DROP, after="0002")
    project.upgrade()
    fill(project)
    with pytest.raises(
        NotOurs,
        match="0003 would destroy the collection customers with 500 documents: its upgrade found",
    ):
        down(project)
    project.migrator().stamp("-1", reason="by hand")
    down(project)
    assert count(project) == 0


def test_a_rename_carries_over_whose_a_collection_is(project: Project) -> None:
    project.write("0001", f'{CREATE}\nop.create_index("customers", "n")', DROP)
    project.write(
        "0002",
        'op.rename_collection("customers", "people")',
        """
        op.copy("people", "customers")
        op.drop_index("people", "n")
        op.drop_collection("people")
        """,
        after="0001",
    )
    project.upgrade("0001")
    fill(project)
    project.upgrade()
    down(project)
    assert count(project) == MANY
    down(project)
    assert count(project) == 0


def test_what_came_back_after_a_later_revision_took_it_away_is_not_ours(project: Project) -> None:
    project.write("0001", CREATE, DROP, schema="a")
    project.write("0002", DROP, "pass", schema="b")
    project.upgrade()
    fill(project)  # the application makes it anew
    with pytest.raises(NotOurs, match="no applied revision made it"):
        down(project, "a@base")
    assert count(project) == MANY


def test_a_forward_drop_is_meant(project: Project) -> None:
    fill(project)
    project.write("0001", f'{DROP}\nop.remove_field("x", "y")')
    project.upgrade()
    assert count(project) == 0


def test_a_downgrade_may_drop_what_it_made_itself(stamped: Project) -> None:
    stamped.history.delete_many({})
    stamped.write(
        "0001",
        CREATE,
        """
        op.copy("customers", "passing")
        op.rename_collection("passing", "passed")
        op.drop_collection("passed")
        op.db.drawer.insert_one({"a": 1})
        op.drop_collection("drawer")
        """,
    )
    stamped.migrator().stamp("head", reason="adopted")
    assert down(stamped).revisions == ("0001",)
    assert {"passed", "drawer"}.isdisjoint(stamped.db.list_collection_names())


def test_a_rename_under_op_db_makes_no_collection_ours(project: Project) -> None:
    fill(project)
    project.write(
        "0001",
        'op.db.other.insert_one({"a": 1})\nop.rename_collection("customers", "people")',
        'op.drop_collection("people")',
    )
    project.upgrade()
    assert {"did": "created", "collection": "other"} in effects(project)
    with pytest.raises(NotOurs):
        down(project)
    assert count(project, "people") == MANY


def test_a_transaction_keeps_the_effects_of_its_last_attempt_alone(project: Project) -> None:
    project.write("0001", CREATE, extra="transaction = True")
    project.upgrade()
    assert effects(project) == [{"did": "created", "collection": "customers"}]
    project.write(
        "0002", 'op.create_collection("a")\n1 / 0', extra="transaction = True", after="0001"
    )
    with pytest.raises(RevisionFailed):
        project.upgrade()
    assert effects(project, "0002") == []


def test_a_retry_remembers_what_the_failed_attempt_made(any_project: Project) -> None:
    any_project.write("0001", f"{CREATE}\n1 / 0", DROP)
    with pytest.raises(RevisionFailed):
        any_project.upgrade()
    any_project.write("0001", CREATE, DROP)
    any_project.upgrade()
    fill(any_project)
    assert down(any_project).revisions == ("0001",)


def test_a_warning_is_not_a_creation(project: Project) -> None:
    project.db.create_collection("customers", capped=True, size=4096)
    project.db.customers.insert_one({"n": 1})
    project.write("0001", CREATE, DROP)
    project.migrator(strict=False).upgrade()
    project.migrator().repair("0001", reason="it may stay so")
    with pytest.raises(NotOurs):
        down(project)


# ---- how a revision came to be applied ---------------------------------------------------------


def test_applied_reverted_and_stamped_again_is_not_ours(project: Project) -> None:
    project.write("0001", CREATE, DROP)
    project.upgrade()
    down(project)
    fill(project)
    project.migrator().stamp("head", reason="restored by hand")
    assert project.record()["adopted"] is True
    with pytest.raises(NotOurs, match="stamped"):
        down(project)
    project.migrator().stamp("base", reason="again")
    project.upgrade()
    assert project.record()["adopted"] is False
    with pytest.raises(NotOurs, match="found it there"):
        down(project)


def test_resolved_as_applied_is_ours_as_far_as_it_came(project: Project) -> None:
    code = f'{CREATE}\nop.db.roles.insert_one({{"a": 1}})\n1 / 0\nop.create_collection("late")'
    project.write(
        "0001", code, f'{DROP}\nfor name in ("roles", "late"):\n    op.drop_collection(name)'
    )
    with pytest.raises(RevisionFailed):
        project.upgrade()
    fill(project, "late")
    project.migrator().resolve("0001", Resolution.APPLIED, reason="the rest by hand")
    fill(project)
    with pytest.raises(NotOurs, match="late"):
        down(project)
    down(project, allow_data_loss=["late"])


@pytest.mark.parametrize("action", ["stamp", "apply"])
def test_records_of_earlier_releases_are_judged_by_their_log(project: Project, action: str) -> None:
    fill(project)
    project.write("0001", "pass", DROP)
    if action == "stamp":
        project.migrator().stamp("head", reason="adopted")
    else:
        project.upgrade()
    project.history.update_one({}, {"$unset": {"effects": 1, "adopted": 1}})
    if action == "stamp":
        with pytest.raises(NotOurs, match="stamped"):
            down(project)
    else:
        down(project)
        assert count(project) == 0


def test_a_failed_downgrade_of_an_earlier_releases_record_stays_what_it_was(
    project: Project,
) -> None:
    project.write("0001", CREATE, f'op.log("x")\nop.create_index("a", "b")\n1 / 0\n{DROP}')
    project.upgrade()
    fill(project)
    project.history.update_one({}, {"$unset": {"effects": 1, "adopted": 1}})
    with pytest.raises(RevisionFailed):
        down(project)
    assert "effects" not in project.record()
    project.write("0001", CREATE, f'op.create_index("a", "b")\n{DROP}')
    assert down(project).revisions == ("0001",)


@pytest.mark.parametrize(
    "value",
    ["x", ["x"], [{"did": 1}], [{"did": "created"}], [{"did": "renamed", "collection": "a"}]],
)
def test_effects_that_make_no_sense_stop_every_command(project: Project, value: Any) -> None:
    project.write("0001", CREATE)
    project.upgrade()
    project.history.update_one({}, {"$set": {"effects": value}})
    with pytest.raises(BadRecord, match="effects"):
        project.migrator().history()


def test_effects_of_a_kind_that_this_release_does_not_know_are_kept(project: Project) -> None:
    project.write("0001", CREATE, DROP)
    project.upgrade()
    document = project.record() | {"effects": [{"did": "polished", "with": "wax"}]}
    parsed = parse_record(document)
    assert parsed.effects == ({"did": "polished", "with": "wax"},)
    project.history.update_one({}, {"$push": {"effects": {"did": "polished", "with": "wax"}}})
    fill(project)
    assert down(project).revisions == ("0001",)


# ---- screens -----------------------------------------------------------------------------------


def cli(project: Project, *args: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    folder = str(project.versions)
    (project.folder / "alembic-style.ini").write_text(
        f"[mongover]\nurl = {project.server.url}\ndatabase = {project.database}\n"
        f"versions = {folder}\n"
    )
    config = str(project.folder / "alembic-style.ini")
    code = run([*args, "-c", config])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_the_plan_of_a_downgrade_says_what_it_would_destroy(
    stamped: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    stamped.write(
        "0002",
        'op.insert("roles", [{"_id": 1}])',
        'op.drop_collection("roles")',
        after="0001",
        schema="customers",
    )
    stamped.upgrade()
    before = list(stamped.history.find())
    code, out, _ = cli(stamped, "plan", "base", capsys=capsys)
    assert code == 0
    assert "0002 destroys the collection roles with 1 document\n" in out
    assert "0001 destroys the collection customers with 500 documents, which it did not make" in out
    code, out, _ = cli(stamped, "plan", "--down", "base", "--json", capsys=capsys)
    assert without_messages(json.loads(out)["destroys"]) == [
        loss("0002", "collection", "roles", documents=1, ours=True),
        loss("0001", "collection", "customers", documents=500, refused=True),
    ]
    code, out, _ = cli(
        stamped,
        "downgrade",
        "base",
        "--plan",
        "--allow-data-loss",
        "customers",
        "--json",
        capsys=capsys,
    )
    assert [one["refused"] for one in json.loads(out)["destroys"]] == [False, False]
    assert list(stamped.history.find()) == before


def loss(revision: str, what: str, collection: str, **more: Any) -> dict[str, Any]:
    common = {"name": None, "documents": None, "ours": False, "certain": True, "refused": False}
    return {"revision": revision, "what": what, "collection": collection, **common, **more}


def without_messages(losses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert all(str(each.pop("message")).startswith(each["revision"]) for each in losses)
    return losses


def test_the_plan_says_what_it_cannot_foresee(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write("0001", CREATE, "op.db.customers.drop()")
    project.upgrade()
    code, out, err = cli(project, "plan", "-1", capsys=capsys)
    assert (code, "cannot be foreseen: 0001 line" in out + err) == (0, True)
    code, out, _ = cli(project, "plan", "-1", "--json", capsys=capsys)
    (line,) = json.loads(out)["unforeseen"]
    assert line.endswith("what it does by op.db")


def test_the_command_refuses_and_takes_the_word(
    stamped: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = cli(stamped, "downgrade", "-1", "--json", capsys=capsys)
    assert (code, json.loads(out)["error"]["code"]) == (1, "MGV029")
    code, _, _ = cli(stamped, "downgrade", "-1", "--allow-data-loss", "customers", capsys=capsys)
    assert (code, count(stamped)) == (0, 0)


def test_the_word_in_an_applied_file_needs_a_repair_as_every_edit(stamped: Project) -> None:
    stamped.write(
        "0001",
        CREATE,
        'op.drop_collection("customers", even_if_not_ours=True)',
        schema="customers",
    )
    with pytest.raises(Edited):
        down(stamped)
    stamped.migrator().repair("0001", reason="it may go")
    down(stamped)
    assert count(stamped) == 0


# ---- pure --------------------------------------------------------------------------------------


HELPER = """
NAMES = ("a", "b")
ONE = "c"

def helper(op, name="z"):
    op.drop_collection(name)

def downgrade(op):
"""


def seen(code: str) -> list[str]:
    text = HELPER + textwrap.indent(code, "    ")
    return [_told(each) for each in foresee(text, "downgrade")]


def _told(one: Foreseen | Unforeseen) -> str:
    if isinstance(one, Unforeseen):
        return "?"
    return f"{'' if one.certain else 'perhaps '}{one.operation.describe()}"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ('op.drop_collection("a")', ["drop collection a"]),
        ("op.drop_collection(ONE)", ["drop collection c"]),
        ("for n in NAMES:\n    op.drop_collection(n)", ["drop collection a", "drop collection b"]),
        (
            'for n in NAMES:\n    op.drop_collection(f"{n}_x")',
            ["drop collection a_x", "drop collection b_x"],
        ),
        ('for n, i in [("a", "x")]:\n    op.drop_index(n, i)', ["drop index a.x"]),
        ('helper(op, "q")', ["drop collection q"]),
        ('helper(op, name="q")', ["drop collection q"]),
        ("helper(op)", ["?"]),
        ("other(op)", ["?"]),
        ("op.drop_collection(computed())", ["?"]),
        ('if x:\n    op.drop_collection("a")', ["perhaps drop collection a"]),
        ('if x:\n    return\nop.drop_collection("a")', ["perhaps drop collection a"]),
        (
            'try:\n    op.drop_collection("a")\nexcept ValueError:\n    pass',
            ["perhaps drop collection a"],
        ),
        ('x and op.drop_collection("a")', ["perhaps drop collection a"]),
        ('return\nop.drop_collection("a")', []),
        ('with x:\n    op.drop_collection("a")', ["drop collection a"]),
        ('op.db.a.drop()\nop.drop_collection("a")', ["?", "drop collection a"]),
        ("drop = op.drop_collection\ndrop('a')", ["?"]),
        ("me = op\nme.drop_collection('a')", ["?"]),
        ("def inner():\n    op.drop_collection('a')\ninner()", ["?"]),
        ("f = lambda: op.drop_collection('a')", ["?"]),
        (
            "n = 'a'\nop.drop_collection(n)\nn = x()\nop.drop_collection(n)",
            ["drop collection a", "?"],
        ),
        ("op.log('x')", []),
        ("op.run(x)", ["?"]),
        ("op.drop_collection()", ["?"]),
    ],
)
def test_a_text_is_read_as_far_as_it_is_plain(code: str, told: list[str]) -> None:
    assert seen(code) == told


def test_a_text_that_cannot_be_parsed_foresees_nothing() -> None:
    assert foresee("def downgrade(op:", "downgrade") == ()
    assert foresee("x = 1", "downgrade") == ()


NAMES = st.sampled_from("abc")
ACTS = st.one_of(
    st.tuples(st.just("create"), NAMES),
    st.tuples(st.just("drop"), NAMES),
    st.tuples(st.just("rename"), NAMES, NAMES),
    st.tuples(st.just("foreign"), NAMES),
)


@given(st.lists(ACTS, max_size=12))
def test_ours_is_what_was_made_and_carried_along_and_nothing_else(
    acts: list[tuple[str, ...]],
) -> None:
    """A model beside it: a dictionary of who made what is there."""
    ours = Ours()
    there: dict[str, Any] = {}
    for act, name, *more in acts:
        if act == "foreign":
            there.setdefault(name, "others")
        elif act == "create":
            did = "found" if name in there else "created"
            ours.add(effect(did, Thing(name)))
            there.setdefault(name, "us")
        elif act == "drop" and there.pop(name, None) is not None:
            ours.add(effect("removed", Thing(name)))
        elif act == "rename" and name in there and more[0] not in there:
            there[more[0]] = there.pop(name)
            ours.add(effect("renamed", Thing(name), to=more[0]))
    for name, owner in there.items():
        assert (why_not(ours, Thing(name)) == "") is (owner == "us")


BODY = st.lists(
    st.sampled_from(
        [
            'op.create_collection("a")',
            'op.create_collection("b")',
            'op.insert("a", [{"_id": 1}])',
            'op.insert("b", [{"_id": 1}], key="_id")',
            'op.create_index("a", "x")',
            'op.copy("a", "c")',
            "move(op)",
            'op.drop_collection("b")',
            'op.db.c.insert_one({"v": 1})',
        ]
    ),
    min_size=1,
    max_size=5,
)


MOVE = """
def move(op):
    there = op.db.list_collection_names()
    if "a" in there and "d" not in there:
        op.rename_collection("a", "d")


def upgrade"""


@settings(max_examples=examples(0.2))
@given(
    up=BODY,
    back=st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True),
    before=st.sets(st.sampled_from("abcd")),
    way=st.tuples(st.booleans(), st.booleans()),
)
def test_documents_from_before_a_revision_outlive_its_downgrade(
    standalone: Server,
    up: list[str],
    back: list[str],
    before: set[str],
    way: tuple[bool, bool],
) -> None:
    """Whatever an upgrade does and its downgrade drops, what was there first stays there."""
    adopted, hidden = way
    names = f"sorted({back!r})" if hidden else repr(back)
    with TemporaryDirectory() as folder, standalone.client() as client:
        versions = Path(folder, "versions")
        versions.mkdir()
        project = Project(Path(folder), standalone, f"t_{uuid.uuid4().hex[:12]}", client)
        project.write("0001", "\n".join(up), f"for n in {names}:\n    op.drop_collection(n)")
        path = versions / "0001_change.py"
        path.write_text(path.read_text().replace("def upgrade", MOVE, 1))
        for name in before:
            project.db[name].insert_one({"_id": f"{name}-old"})
        with project.migrator() as migrator:
            migrator.stamp("head", reason="x") if adopted else migrator.upgrade()
            old = old_documents(project)
            try:
                migrator.downgrade("-1")
            except NotOurs:
                assert before or adopted
        assert old_documents(project) == old
        client.drop_database(project.database)


def old_documents(project: Project) -> set[str]:
    """The documents from before the revision, wherever they are by now."""
    names = [name for name in project.db.list_collection_names() if not name.startswith("_")]
    query = {"_id": {"$regex": "-old$"}}
    return {one["_id"] for name in names for one in project.db[name].find(query)}


# ---- over HTTP ---------------------------------------------------------------------------------


def test_a_downgrade_over_http_refuses_and_takes_the_word(stamped: Project) -> None:
    with client_of(make_app(stamped.migrator()), headers=AUTHORISED) as client:
        plan = client.get("/migrations/plan?direction=down&target=-1").json()
        assert without_messages(plan["destroys"]) == [
            loss("0001", "collection", "customers", documents=500, refused=True)
        ]
        refused = client.post("/migrations/downgrade", json={"target": "-1"})
        assert (refused.status_code, refused.json()["type"]) == (
            409,
            "urn:mongover:problem:not-ours",
        )
        assert "allowDataLoss" in refused.json()["hint"]
        assert count(stamped) == MANY
        asked = {"target": "-1", "allowDataLoss": ["customers"]}
        done = client.post("/migrations/downgrade", json=asked)
        assert (done.status_code, done.json()["reverted"]) == (200, ["0001"])
    assert count(stamped) == 0
