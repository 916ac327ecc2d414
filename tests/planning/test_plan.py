from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mongover.cli.screen.output import HERE
from mongover.errors import (
    Ahead,
    BadRecord,
    Blocked,
    CycleError,
    DuplicateRevision,
    Edited,
    InvalidRevision,
    Irreversible,
    MissingFile,
    MongoverError,
    MultipleHeads,
    OutOfOrder,
    UnknownParent,
)
from mongover.history.record import Direction, Record, Remains, State
from mongover.planning.case import applied_in_order, known_graph
from mongover.planning.lines import LineState, status_rows
from mongover.planning.plan import Plan, plan_downgrade, plan_upgrade
from mongover.planning.problems import find_problems
from mongover.report.documents import plain, plan_document, problem_document
from tests.support.depth import examples
from tests.support.graphs import (
    Project,
    applied,
    done,
    folder,
    no_source,
    projects,
    record,
    rev,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mongover.revisions.revision import Revision, RevisionFiles

# users   0001 ── 0004 ── 0006
# calls   0002 ── 0005             0005 needs 0004
# alone   0003
SHOP = [
    rev("0001", "users"),
    rev("0002", "calls"),
    rev("0003", "alone"),
    rev("0004", "users", "0001"),
    rev("0005", "calls", "0002", "0004"),
    rev("0006", "users", "0004"),
]
BY_ID = {each.id: each for each in SHOP}
UNKNOWN: dict[str, Any] = {"outcome": Remains.UNKNOWN, "repeatable": False}
REPEATABLE: dict[str, Any] = {"outcome": Remains.UNKNOWN, "repeatable": True}
NOTHING: dict[str, Any] = {"outcome": Remains.NOTHING}
DOWN: dict[str, Any] = {"direction": Direction.DOWN}


def shop(*without: str, changed: Revision | None = None, **broken: MongoverError) -> RevisionFiles:
    kept = [each for each in SHOP if each.id not in without]
    if changed is not None:
        kept = [changed if each.id == changed.id else each for each in kept]
    return folder(*kept, broken={name[1:]: error for name, error in broken.items()})


def history(*ids: str, **others: Record) -> dict[str, Record]:
    """Applied records in this order, and others under `_<id>`."""
    records = applied(BY_ID[each] for each in ids)
    return records | {each.revision: each for each in others.values()}


def up(files: RevisionFiles, records: Mapping[str, Record], target: str = "head") -> Plan:
    return plan_upgrade(files, records, target, sources=no_source)


def down(files: RevisionFiles, records: Mapping[str, Record], target: str) -> Plan:
    return plan_downgrade(files, records, target, sources=no_source)


def ids(plan: Plan) -> list[str]:
    return [step.revision.id for step in plan.steps]


def kinds(files: RevisionFiles, records: Mapping[str, Record]) -> list[tuple[str | None, str]]:
    problems = find_problems(files, records, sources=lambda each: BY_ID[each].source)
    return [(problem.revision, problem.kind) for problem in problems]


# ── what runs ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("target", "there", "steps"),
    [
        ("head", "", "0001 0002 0003 0004 0005 0006"),
        ("head", "0001 0002 0003", "0004 0005 0006"),
        ("heads", "0003", "0001 0002 0004 0005 0006"),
        ("users", "", "0001 0004 0006"),
        ("calls", "", "0001 0002 0004 0005"),
        ("calls", "0001 0004", "0002 0005"),
        ("alone", "", "0003"),
        ("0004", "", "0001 0004"),
        ("+2", "", "0001 0002"),
        ("+1", "0003 0001", "0002"),
        ("calls@+1", "0001", "0002"),
        ("calls@+2", "", "0001 0002 0004 0005"),
        ("0001+1", "", "0001 0004"),
    ],
)
def test_an_upgrade_runs_what_the_target_needs_and_lacks(
    target: str, there: str, steps: str
) -> None:
    plan = up(shop(), history(*there.split()), target)
    assert ids(plan) == steps.split()
    assert (plan.nothing, plan.notices, plan.running) == ("", (), ())
    assert {step.direction for step in plan.steps} == {Direction.UP}


@pytest.mark.parametrize(
    ("target", "there", "steps", "reaches"),
    [
        ("base", "0001 0002 0003", "0003 0002 0001", ()),
        ("base", "0003 0002 0001", "0001 0002 0003", ()),
        ("-1", "0001 0002 0003", "0003", ()),
        ("-1", "0003 0002 0001", "0001", ()),
        ("-2", "0001 0002 0004 0005 0003", "0003 0005", ()),
        ("users@-1", "0001 0003 0004 0002", "0004", ()),
        ("users@-1", "0001 0002 0004 0005", "0005 0004", ("calls",)),
        ("users@base", "0001 0002 0003 0004 0005 0006", "0006 0005 0004 0001", ("calls",)),
        ("0001", "0001 0002 0004 0005 0006", "0006 0005 0004", ("calls",)),
        ("calls@0002", "0001 0002 0004 0005 0006", "0005", ()),
        ("0006-1", "0001 0002 0004 0005 0006", "0006", ()),
        ("alone@base", "0001 0003 0002", "0003", ()),
    ],
)
def test_a_downgrade_reverts_what_stands_above_the_target_and_says_where_it_reaches(
    target: str, there: str, steps: str, reaches: tuple[str, ...]
) -> None:
    plan = down(shop(), history(*there.split()), target)
    assert ids(plan) == steps.split()
    assert plan.reaches == reaches
    assert {step.direction for step in plan.steps} == {Direction.DOWN}


def test_a_downgrade_by_steps_says_what_else_goes() -> None:
    plan = down(shop(), history("0001", "0002", "0004", "0005"), "users@-1")
    assert plan.notices == ("also reverts 0005 (calls): it stands on what is reverted",)


def test_the_plan_as_json_has_the_documented_fields() -> None:
    plan = up(shop(), history("0001", "0002", "0003", "0004", "0005"))
    assert plain(plan_document(plan, HERE), str) == {
        "direction": "up",
        "target": "head",
        "steps": [
            {
                "revision": "0006",
                "schema": "users",
                "direction": "up",
                "message": "message 0006",
                "transaction": False,
            }
        ],
        "notices": [],
        "destroys": [],
        "unforeseen": [],
    }


@pytest.mark.parametrize(
    ("target", "there", "says"),
    [
        ("head", [each.id for each in SHOP], "nothing to do: all 3 lines are at their heads"),
        ("alone", ["0003"], "nothing to do: alone is at 0003, its head"),
        ("0001", ["0001"], "nothing to do: 0001 is applied already"),
        ("current", ["0001", "0003"], "nothing to do: 0001, 0003 are applied already"),
        ("current", [], "nothing to do: all that is current is applied already"),
    ],
)
def test_an_upgrade_that_has_arrived_says_so(target: str, there: list[str], says: str) -> None:
    plan = up(shop(), history(*there), target)
    assert (plan.steps, plan.nothing) == ((), says)


@pytest.mark.parametrize(
    ("target", "there", "says"),
    [
        ("base", [], "nothing to do: no revision is applied"),
        ("users@base", ["0003"], "nothing to do: no revision of users is applied"),
        (
            "users",
            ["0001", "0004", "0006"],
            "nothing to do: no revision above users is applied in users",
        ),
        (
            "head",
            [each.id for each in SHOP],
            "nothing to do: no revision above head is applied",
        ),
        ("0003", ["0003"], "nothing to do: no revision above 0003 is applied in alone"),
        ("0001", ["0001", "0002"], "nothing to do: no revision above 0001 is applied in users"),
    ],
)
def test_a_downgrade_that_has_arrived_says_so(target: str, there: list[str], says: str) -> None:
    plan = down(shop(), history(*there), target)
    assert (plan.steps, plan.nothing) == ((), says)


def test_an_empty_folder_is_not_up_to_date() -> None:
    assert "there are no revision files in versions" in up(folder(), {}).nothing
    with pytest.raises(MissingFile) as caught:
        up(folder(), history("0001"))
    assert "no revision files in versions at all" in caught.value.notes[0]


def test_one_line_at_its_head_is_named() -> None:
    only = rev("0001", "users")
    assert up(folder(only), applied([only])).nothing == "nothing to do: users is at 0001, its head"


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────

EDITED = rev("0004", "users", "0001", source="x = 2\n")
REFORMATTED = rev("0004", "users", "0001", source="revision = '0004'  # why\n")
BROKEN = InvalidRevision("0004_x.py cannot be parsed")
TWICE = DuplicateRevision("2 files carry the number 0004")


def stopped(identifier: str, state: State = State.FAILED, **values: Any) -> Record:
    error = {"type": "OperationFailure", "message": "no room"}
    began = datetime(2026, 11, 20, 6, 31, 55, tzinfo=UTC)
    return record(BY_ID[identifier], state, error=error, started_at=began, sequence=9, **values)


FULL = ("0001", "0002", "0003", "0004", "0005", "0006")
REFUSED_UP = [
    # what is wrong, files, records, error, a target that needs it, one that does not
    ("unreadable", shop("0004", _0004=BROKEN), history("0001"), InvalidRevision, "users", "alone"),
    ("unreadable", shop("0004", _0004=BROKEN), history(*FULL), InvalidRevision, "calls", "0002"),
    ("duplicate", shop("0004", _0004=TWICE), history(), DuplicateRevision, "calls", "0001"),
    ("unknown parent", shop("0001"), history(), UnknownParent, "0004", "alone"),
    ("edited", shop(changed=EDITED), history("0001", "0004"), Edited, "0006", "0001"),
    ("missing", shop("0001"), history("0001"), MissingFile, "users", "alone"),
    ("ahead", shop("0006"), history(*FULL), Ahead, "users", "calls"),
    (
        "blocked",
        shop(),
        history("0001", _0004=stopped("0004", **UNKNOWN)),
        Blocked,
        "calls",
        "alone",
    ),
    (
        "half a downgrade",
        shop(),
        history("0001", _0004=stopped("0004", **DOWN, **REPEATABLE)),
        Blocked,
        "0004",
        "0001",
    ),
    ("out of order", shop(), history("0001", "0002", "0005"), OutOfOrder, "0004", "0001"),
    ("below its line", shop(), history("0001", "0006"), OutOfOrder, "users", "alone"),
    (
        "two heads",
        folder(*SHOP, rev("0007", "users", "0004")),
        history(),
        MultipleHeads,
        "users@head",
        "calls",
    ),
    (
        "a circle",
        folder(rev("0001", "a", "0002"), rev("0002", "a", "0001"), rev("0003", "a", "0002")),
        history(),
        CycleError,
        "0003",
        None,
    ),
    (
        "begun and gone",
        shop("0006"),
        history("0001", _0006=stopped("0006", **REPEATABLE)),
        Ahead,
        "users",
        "0001",
    ),
]


@pytest.mark.parametrize(
    ("files", "records", "error", "needs", "spares"),
    [each[1:] for each in REFUSED_UP],
    ids=[each[0] for each in REFUSED_UP],
)
def test_an_upgrade_is_refused_by_what_it_needs_and_by_nothing_else(
    files: RevisionFiles,
    records: dict[str, Record],
    error: type[MongoverError],
    *,
    needs: str,
    spares: str | None,
) -> None:
    for target in (needs, "head"):
        with pytest.raises(error):
            up_with_sources(files, records, target)
    if spares is not None:
        up_with_sources(files, records, spares)


def up_with_sources(files: RevisionFiles, records: dict[str, Record], target: str) -> Plan:
    return plan_upgrade(files, records, target, sources=lambda each: BY_ID[each].source)


REFUSED_DOWN = [
    ("unreadable", shop("0004", _0004=BROKEN), history(*FULL), InvalidRevision, "0001", "0006-1"),
    ("edited", shop(changed=EDITED), history("0001", "0004", "0003"), Edited, "users@-1", "-1"),
    ("missing", shop("0004"), history(*FULL), MissingFile, "users@base", "calls@-1"),
    ("ahead", shop("0006"), history(*FULL), Ahead, "-1", "calls@-1"),
    (
        "no way back",
        shop(changed=rev("0004", "users", "0001", has_downgrade=False)),
        history("0001", "0004", "0003"),
        Irreversible,
        "base",
        "-1",
    ),
    (
        "a blocked downgrade",
        shop(),
        history("0001", "0003", _0004=stopped("0004", **DOWN, **UNKNOWN)),
        Blocked,
        "-1",
        "alone@-1",
    ),
    (
        "a blocked upgrade above",
        shop(),
        history("0001", "0003", _0004=stopped("0004", **UNKNOWN)),
        Blocked,
        "users@-1",
        "alone@-1",
    ),
    (
        "half an upgrade above",
        shop(),
        history("0001", "0003", _0004=stopped("0004", State.INTERRUPTED, **REPEATABLE)),
        Blocked,
        "users@base",
        "-1",
    ),
    (
        "an unknown parent",
        shop(changed=rev("0004", "users", "0001", "0099")),
        history("0001", "0002", "0003", _0004=record(rev("0004", "users", "0001", "0099"))),
        UnknownParent,
        "0001",
        "alone@-1",
    ),
]


@pytest.mark.parametrize(
    ("files", "records", "error", "needs", "spares"),
    [each[1:] for each in REFUSED_DOWN],
    ids=[each[0] for each in REFUSED_DOWN],
)
def test_a_downgrade_is_refused_by_what_it_needs_and_by_nothing_else(
    files: RevisionFiles,
    records: dict[str, Record],
    error: type[MongoverError],
    *,
    needs: str,
    spares: str,
) -> None:
    def source(identifier: str) -> str:
        return BY_ID[identifier].source

    with pytest.raises(error) as caught:
        plan_downgrade(files, records, needs, sources=source)
    assert caught.value.hint or isinstance(caught.value, InvalidRevision)
    assert plan_downgrade(files, records, spares, sources=source).steps


def test_every_unreadable_file_stops_head_but_is_a_notice_elsewhere() -> None:
    files = shop(_0009=InvalidRevision("0009_x.py cannot be parsed"))
    for target in ("head", "heads", "+1"):
        with pytest.raises(InvalidRevision):
            up(files, {}, target)
    notice = "not needed here, but to be mended: 0009_x.py cannot be parsed"
    assert up(files, {}, "users").notices == (notice,)
    assert down(files, history("0001"), "-1").notices == (notice,)


def test_two_heads_may_be_joined_by_what_cannot_be_read() -> None:
    branch = [rev("0001", "a"), rev("0002", "a")]
    with pytest.raises(MultipleHeads) as caught:
        up(folder(*branch, broken={"0003": BROKEN}), {}, "a")
    assert caught.value.notes[-1] == "0003 cannot be read, and may join them"


def test_an_edited_file_is_named_with_both_checksums_and_three_ways_out() -> None:
    when = datetime(2026, 10, 8, 19, 2, 14, tzinfo=UTC)
    records = history("0001", _0004=record(BY_ID["0004"], applied_at=when))
    with pytest.raises(Edited, match="0004 was edited after it was applied") as caught:
        up_with_sources(shop(changed=EDITED), records, "head")
    error = caught.value
    assert error.notes[0].startswith("applied 2026-10-08 19:02:14 by ana@web-3, sha256 ")
    assert "mongover diff 0004" in error.notes[1]
    assert 'mongover repair 0004 --reason "…"' in error.hint
    assert error.after == "nothing was run."
    assert error.where is not None
    assert error.where.path == EDITED.path


def test_a_reformatted_file_is_a_notice() -> None:
    plan = up_with_sources(shop(changed=REFORMATTED), history("0001", "0004"), "0006")
    assert plan.notices == ("0004 was reformatted after it was applied; its code says the same",)
    plan = plan_downgrade(
        shop(changed=REFORMATTED),
        history("0001", "0004"),
        "-1",
        sources=lambda each: BY_ID[each].source,
    )
    assert len(plan.notices) == 1


def test_a_record_whose_checksum_is_not_that_of_its_source_is_not_trusted() -> None:
    records = history(_0001=record(BY_ID["0001"], checksum="sha256:0"))
    with pytest.raises(Edited):
        up_with_sources(shop(), records, "users")


def test_what_failed_or_waits_may_be_edited_freely() -> None:
    for state in (State.FAILED, State.INTERRUPTED, State.REVERTED):
        records = history("0001", _0004=record(BY_ID["0004"], state, **NOTHING))
        assert ids(up(shop(changed=EDITED), records, "0004")) == ["0004"]
    half = stopped("0004", **DOWN, **REPEATABLE)
    assert ids(down(shop(changed=EDITED), history("0001", _0004=half), "-1")) == ["0004"]


def test_an_edited_link_does_not_hide_what_stands_on_what_is_reverted() -> None:
    # calls 0005 was applied needing users 0004; its file now says that it needs nothing
    changed = rev("0005", "calls", "0002", source="x = 3\n")
    records = history("0001", "0002", "0004", "0005")
    with pytest.raises(Edited, match="0005"):
        plan_downgrade(
            shop(changed=changed), records, "users@base", sources=lambda each: BY_ID[each].source
        )
    row = {each.schema: each for each in status_rows(shop(changed=changed), records)}["calls"]
    assert row.current == ("0005",)


def test_a_blocked_revision_says_what_is_known_and_how_to_end_it() -> None:
    records = history("0001", _0004=stopped("0004", State.INTERRUPTED, **UNKNOWN))
    with pytest.raises(Blocked) as caught:
        up(shop(), records)
    assert caught.value.message == (
        "0004 stopped half-way: its upgrade was interrupted (begun 2026-11-20 06:31:55)"
        " by ana@web-3, and what it left is not known"
    )
    assert caught.value.hint == (
        'mongover resolve 0004 --retry | --applied | --reverted --reason "…"'
    )
    assert caught.value.notes == ("OperationFailure: no room",)


@pytest.mark.parametrize(
    ("identifier", "finish"),
    [("0004", "`mongover downgrade -1`"), ("0001", "`mongover downgrade -1`")],
)
def test_half_a_downgrade_says_how_to_finish_it(identifier: str, finish: str) -> None:
    record_ = stopped(identifier, **DOWN, **REPEATABLE)
    with pytest.raises(Blocked) as caught:
        up(shop(), history(_x=record_), "alone" if identifier == "0003" else identifier)
    assert finish in caught.value.hint
    assert f"mongover resolve {identifier}" in caught.value.hint


@pytest.mark.parametrize(
    ("half", "outcome", "command"),
    [
        ("0006", REPEATABLE, "mongover downgrade -1"),  # whatever was applied after it
        ("0006", NOTHING, "mongover downgrade users@-1"),
        ("0005", NOTHING, "mongover downgrade -1"),
        ("0003", NOTHING, "mongover downgrade alone@-1"),
    ],
)
def test_the_command_that_ends_half_a_downgrade_reverts_nothing_else(
    half: str, outcome: dict[str, Any], command: str
) -> None:
    records = history("0003", "0001", "0004", "0006", "0002", "0005")
    records[half] = replace(records[half], state=State.FAILED, direction=Direction.DOWN, **outcome)
    (problem,) = find_problems(shop(), records, sources=no_source)
    assert f"`{command}`" in problem.hint
    assert ids(down(shop(), records, command.rsplit(maxsplit=1)[-1])) == [half]


def test_two_applied_revisions_with_one_sequence_number_are_named_and_not_reverted() -> None:
    records = history("0001", "0002")
    records["0002"] = replace(records["0002"], sequence=1)
    (problem,) = find_problems(shop(), records, sources=no_source)
    assert (problem.revision, problem.kind) == ("0002", "bad-record")
    with pytest.raises(BadRecord, match="0001 and 0002 both have the sequence number 1"):
        down(shop(), records, "base")
    assert ids(up(shop(), records, "alone")) == ["0003"]


def test_little_is_said_of_who_and_when_when_little_is_known() -> None:
    bare = record(BY_ID["0001"], State.FAILED, by={}, **UNKNOWN)
    with pytest.raises(Blocked, match="its upgrade failed, and what") as caught:
        up(shop(), {"0001": bare})
    assert caught.value.notes == ()
    with pytest.raises(Edited) as edited:
        up_with_sources(shop(changed=EDITED), history(_x=record(BY_ID["0004"], by={})), "0004")
    assert edited.value.notes[0].startswith("applied, sha256")


# ── attempts that did not end well ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("left", [NOTHING, REPEATABLE])
@pytest.mark.parametrize("state", [State.FAILED, State.INTERRUPTED])
def test_an_upgrade_goes_on_where_it_is_safe_and_says_so(
    left: dict[str, Any], state: State
) -> None:
    plan = up(shop(), history("0001", _0004=stopped("0004", state, **left)), "users")
    assert [(step.revision.id, step.continues) for step in plan.steps] == [
        ("0004", True),
        ("0006", False),
    ]
    assert plan.notices[0].startswith("continues 0004, whose upgrade ")


@pytest.mark.parametrize("left", [NOTHING, REPEATABLE])
def test_a_downgrade_goes_on_and_never_takes_the_parent_instead(left: dict[str, Any]) -> None:
    plan = down(shop(), history("0001", _0004=stopped("0004", **DOWN, **left)), "-1")
    assert [(step.revision.id, step.continues) for step in plan.steps] == [("0004", True)]
    assert plan.notices[0].startswith("continues 0004, whose downgrade failed")


def test_attempts_that_left_nothing_do_not_hinder_the_other_direction() -> None:
    failed_up = history("0001", _0004=stopped("0004", **NOTHING))
    assert ids(down(shop(), failed_up, "base")) == ["0001"]
    failed_down = history("0001", _0004=stopped("0004", **DOWN, **NOTHING))
    assert ids(up(shop(), failed_down, "users")) == ["0006"]


def test_an_attempt_that_left_nothing_and_has_no_file_is_forgotten() -> None:
    records = history("0001", _0006=stopped("0006", **NOTHING))
    assert ids(up(shop("0006"), records, "users")) == ["0004"]
    assert kinds(shop("0006"), records) == [("0006", "failed")]


@pytest.mark.parametrize("state", [State.APPLYING, State.REVERTING])
def test_what_another_process_runs_is_waited_for_and_not_built_upon(state: State) -> None:
    records = history("0001", _0004=record(BY_ID["0004"], state))
    plan = up(shop(), records, "head")
    assert plan.running == ("0004",)
    assert ids(plan) == ["0002", "0003"]
    assert any("is being" in line and "by ana@web-3" in line for line in plan.notices)
    assert "nothing to do now: 0004 is being" in up(shop(), records, "users").nothing


@pytest.mark.parametrize("state", [State.APPLYING, State.REVERTING])
def test_nothing_is_reverted_under_what_another_process_runs(state: State) -> None:
    busy = record(BY_ID["0004"], state, by={}, sequence=8)
    plan = down(shop(), history("0001", "0002", "0003", _0004=busy), "base")
    assert plan.running == ("0004",)
    assert ids(plan) == ["0003", "0002"]
    plan = down(shop(), history("0001", _0004=busy), "base")
    assert plan.nothing.endswith("by another process")


# ── out of order ─────────────────────────────────────────────────────────────────────────────────


def test_a_file_below_applied_ones_follows_the_policy() -> None:
    records = history("0001", "0002", "0005")
    with pytest.raises(OutOfOrder, match="0004 is pending, but 0005, which stands on it") as caught:
        up(shop(), records)
    assert "mongover rebase 0004" in caught.value.hint
    warned = plan_upgrade(shop(), records, "head", out_of_order="warn", sources=no_source)
    assert ids(warned) == ["0003", "0004", "0006"]
    assert warned.notices[0].startswith("out of order: 0004 is pending, but 0005")
    allowed = plan_upgrade(shop(), records, "head", out_of_order="allow", sources=no_source)
    assert (ids(allowed), allowed.notices) == (["0003", "0004", "0006"], ())


def test_a_lower_number_in_another_line_is_in_order() -> None:
    assert ids(up(shop(), history("0002", "0003"), "users")) == ["0001", "0004", "0006"]


def test_the_applied_one_above_is_found_through_pending_ones() -> None:
    records = history("0006")
    with pytest.raises(OutOfOrder, match="0001 is pending, but 0006"):
        up(shop(), records)
    assert [each for each in kinds(shop(), records) if each[1] == "out-of-order"] == [
        ("0001", "out-of-order"),
        ("0004", "out-of-order"),
    ]


# ── problems and status ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("files", "records", "found"),
    [
        (shop(), history(*FULL), []),
        (shop("0004", _0004=BROKEN), history(*FULL), [("0004", "unreadable")]),
        (
            shop("0004", _0004=TWICE),
            history(),
            [("0004", "duplicate")],
        ),
        (shop("0001"), history(), [("0004", "unknown-parent")]),
        (shop("0001"), history("0001"), [("0001", "missing")]),
        (shop("0006"), history(*FULL), [("0006", "ahead")]),
        (shop(changed=EDITED), history(*FULL), [("0004", "edited")]),
        (shop(changed=REFORMATTED), history(*FULL), [("0004", "reformatted")]),
        (shop(), history(_x=stopped("0001", **UNKNOWN)), [("0001", "blocked")]),
        (shop(), history(_x=stopped("0001", **DOWN, **REPEATABLE)), [("0001", "blocked")]),
        (shop(), history(_x=stopped("0001", **DOWN, **NOTHING)), [("0001", "failed")]),
        (
            shop(),
            history(_x=stopped("0001", State.INTERRUPTED, **REPEATABLE)),
            [("0001", "interrupted")],
        ),
        (shop(), history(_x=record(BY_ID["0001"], State.APPLYING)), []),
        (folder(rev("0001"), rev("0002")), {}, [("0002", "multiple-heads")]),
        (folder(rev("0001", None, "0001")), {}, [("0001", "cycle")]),
        (folder(rev("0001"), rev("0003", None, "0002")), {}, [("0003", "unknown-parent")]),
        (
            shop("0006"),
            history(*FULL[:5], _x=stopped("0006", **UNKNOWN)),
            [("0006", "blocked"), ("0006", "ahead")],
        ),
    ],
)
def test_every_problem_is_found_and_nothing_else(
    files: RevisionFiles, records: dict[str, Record], found: list[tuple[str, str]]
) -> None:
    assert kinds(files, records) == found


def test_a_file_with_a_broken_parent_is_reported_once() -> None:
    files = shop("0001", _0001=InvalidRevision("0001_x.py cannot be parsed", hint="mend it"))
    problems = find_problems(files, {}, sources=no_source)
    assert [problem_document(each, HERE) for each in problems] == [
        {
            "revision": "0001",
            "kind": "unreadable",
            "message": "0001_x.py cannot be parsed",
            "hint": "mend it",
        }
    ]


def test_only_what_blocks_carries_an_error() -> None:
    files = shop(changed=REFORMATTED)
    records = history("0001", "0004", _x=stopped("0003", **NOTHING))
    problems = find_problems(files, records, sources=lambda each: BY_ID[each].source)
    assert [(each.kind, each.error) for each in problems] == [
        ("failed", None),
        ("reformatted", None),
    ]
    assert problems[0].hint == "`mongover upgrade` goes on with it"


def test_a_name_that_is_no_number_is_missing_and_not_ahead() -> None:
    odd = Record("x-y", State.APPLIED, schema="users")
    files = folder(*SHOP, broken={"add.py": InvalidRevision("add.py holds a revision")})
    assert kinds(files, {"x-y": odd}) == [("add.py", "unreadable"), ("x-y", "missing")]
    newer = Record("0099", State.APPLIED, schema="new")
    assert ("0099", "ahead") in kinds(files, {"0099": newer})


def test_status_has_a_row_for_every_line() -> None:
    rows = status_rows(shop(), history("0001", "0003", "0002"))
    assert [(row.schema, row.current, row.head, row.pending, row.state) for row in rows] == [
        ("users", ("0001",), ("0006",), ("0004", "0006"), LineState.PENDING),
        ("calls", ("0002",), ("0005",), ("0005",), LineState.PENDING),
        ("alone", ("0003",), ("0003",), (), LineState.UP_TO_DATE),
    ]


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({"state": State.APPLYING}, LineState.RUNNING),
        ({"state": State.REVERTING}, LineState.RUNNING),
        ({"state": State.FAILED, **UNKNOWN}, LineState.BLOCKED),
        ({"state": State.FAILED, **DOWN, **REPEATABLE}, LineState.BLOCKED),
        ({"state": State.FAILED, **REPEATABLE}, LineState.FAILED),
        ({"state": State.INTERRUPTED, **NOTHING}, LineState.FAILED),
        ({"state": State.APPLIED, "warnings": ("index",)}, LineState.DEGRADED),
        ({"state": State.REVERTED, "warnings": ("index",)}, LineState.PENDING),
    ],
)
def test_the_state_of_a_line_is_its_most_urgent_one(
    values: dict[str, Any], state: LineState
) -> None:
    rows = status_rows(shop(), {"0003": record(BY_ID["0003"], **values)})
    assert next(row.state for row in rows if row.schema == "alone") is state


def test_status_shows_lines_that_only_the_history_knows_and_survives_a_circle() -> None:
    files = folder(rev("0001", "a", "0002"), rev("0002", "a", "0001"))
    rows = status_rows(files, {"0009": Record("0009", State.APPLIED, schema="gone")})
    assert [(row.schema, row.current, row.pending) for row in rows] == [
        ("a", (), ("0001", "0002")),
        ("gone", ("0009",), ()),
    ]


def test_a_branch_has_two_current_revisions() -> None:
    # 0001 ── 0002
    #    └─── 0003
    branch = [rev("0001", "a"), rev("0002", "a", "0001"), rev("0003", "a", "0001")]
    (row,) = status_rows(folder(*branch), applied(branch))
    assert row.current == row.head == ("0002", "0003")


def test_applied_revisions_come_in_order_of_application_whatever_the_ties() -> None:
    records = {each.id: record(each, sequence=1) for each in (SHOP[2], SHOP[0])}
    records["0002"] = record(SHOP[1], State.REVERTING, sequence=0)
    records["0004"] = record(SHOP[3], State.REVERTED, sequence=3)
    assert applied_in_order(records) == ("0002", "0001", "0003")


# ── properties ───────────────────────────────────────────────────────────────────────────────────


@st.composite
def situations(draw: st.DrawFn) -> tuple[Project, dict[str, Record], str]:
    """A project, some of it applied with all that it needs, and one of its revisions."""
    project = draw(projects())
    names = st.sampled_from(sorted(project.graph.nodes))
    return project, project.records(draw(st.sets(names))), draw(names)


def assert_runnable(project: Project, records: Mapping[str, Record], plan: Plan) -> None:
    there = done(records)
    assert len(set(ids(plan))) == len(plan.steps)
    for step in plan.steps:
        name = step.revision.id
        if step.direction is Direction.UP:
            assert name not in there
            assert there.issuperset(project.graph.parents(name))
            there.add(name)
        else:
            assert name in there
            assert there.isdisjoint(project.graph.children(name))
            there.remove(name)


@given(situations())
def test_an_upgrade_runs_nothing_before_what_it_needs_and_nothing_twice(
    situation: tuple[Project, dict[str, Record], str],
) -> None:
    project, records, name = situation
    for target in ("head", name):
        plan = up(project.files, records, target)
        assert_runnable(project, records, plan)
        wanted = project.graph.nodes if target == "head" else project.graph.ancestors([name])
        assert set(ids(plan)) == set(wanted) - done(records)
        assert up(project.files, run(records, plan), target).steps == ()


@given(situations())
def test_a_schema_target_touches_nothing_outside_its_closure(
    situation: tuple[Project, dict[str, Record], str],
) -> None:
    project, records, name = situation
    schema = project.graph.nodes[name].schema
    plan = up(project.files, records, f"{schema or ''}@head")
    assert_runnable(project, records, plan)
    line = project.graph.lines[schema]
    assert set(ids(plan)) == project.graph.ancestors(line) - done(records)


@given(situations())
def test_a_downgrade_reverts_all_above_and_only_that(
    situation: tuple[Project, dict[str, Record], str],
) -> None:
    project, records, name = situation
    records = records | project.records({name, *records})
    plan = down(project.files, records, name)
    assert_runnable(project, records, plan)
    above = project.graph.above([name]) & done(records)
    assert set(ids(plan)) == project.graph.descendants(above) & done(records)
    schema = project.graph.nodes[name].schema
    others = {project.graph.nodes[each].schema for each in ids(plan)} - {schema}
    assert set(plan.reaches) == others
    left = run(records, down(project.files, records, f"{schema or ''}@base"))
    assert done(left).isdisjoint(project.graph.descendants(project.graph.lines[schema]))
    assert done(run(records, down(project.files, records, "base"))) == set()


@given(situations())
def test_upgrade_then_downgrade_by_as_many_steps_changes_nothing(
    situation: tuple[Project, dict[str, Record], str],
) -> None:
    project, records, name = situation
    for target in ("head", name):
        plan = up(project.files, records, target)
        if not plan.steps:
            continue
        after = run(records, plan)
        back = down(project.files, after, f"-{len(plan.steps)}")
        assert_runnable(project, after, back)
        assert ids(back) == ids(plan)[::-1]
        assert done(run(after, back)) == done(records)


@given(situations())
def test_steps_taken_one_by_one_are_the_steps_taken_together(
    situation: tuple[Project, dict[str, Record], str],
) -> None:
    project, records, _ = situation
    together = up(project.files, records)
    one_by_one = []
    for _ in together.steps:
        plan = up(project.files, records, "+1")
        one_by_one += ids(plan)
        records = run(records, plan)
    assert one_by_one == ids(together)


@settings(max_examples=examples(2))
@given(projects(), st.data())
def test_even_out_of_order_nothing_pending_runs_before_what_it_needs(
    project: Project, data: st.DataObject
) -> None:
    names = sorted(project.graph.nodes)
    there = data.draw(st.permutations(data.draw(st.lists(st.sampled_from(names), unique=True))))
    records = project.loose_records(there)
    plan = plan_upgrade(project.files, records, "head", out_of_order="allow", sources=no_source)
    assert set(ids(plan)) == set(names) - set(there)
    place = {name: index for index, name in enumerate(ids(plan))}
    for name in ids(plan):
        above = project.graph.descendants([name]) - {name}
        assert all(place[name] < place[each] for each in above & place.keys())
    back = down(project.files, records, "base")
    place = {name: index for index, name in enumerate(ids(back))}
    assert set(place) == set(there)
    for name in place:
        above = project.graph.descendants([name]) - {name}
        assert all(place[name] > place[each] for each in above & place.keys())
    late = {each.revision for each in find_problems(project.files, records, sources=no_source)}
    below = project.graph.ancestors(there)
    assert late == {each for each in names if each not in there and each in below}


@given(situations(), st.data())
def test_whatever_the_records_say_a_plan_is_runnable_or_an_error_of_ours(
    situation: tuple[Project, dict[str, Record], str], data: st.DataObject
) -> None:
    project, records, name = situation
    for each in list(records):
        state = data.draw(st.sampled_from([State.APPLIED, *State]))
        records[each] = replace(
            records[each],
            state=state,
            direction=data.draw(st.sampled_from(Direction)),
            outcome=data.draw(st.sampled_from([None, *Remains])),
            repeatable=data.draw(st.booleans()),
        )
    gone = data.draw(st.sets(st.sampled_from(sorted(project.graph.nodes)), max_size=2))
    files = folder(*(each for each in project.files.revisions.values() if each.id not in gone))
    for plan_of in (up, down):
        for target in ("head", name, "base"):
            try:
                plan = plan_of(files, records, target)
            except MongoverError as error:
                assert error.hint  # noqa: PT017  # every refusal names a way out
            else:
                busy = {each for each in ids(plan) if known(records, each)}
                assert not busy
                assert (plan.steps == ()) == bool(plan.nothing)
    find_problems(files, records, sources=no_source)
    status_rows(files, records)
    known_graph(files, records)


def known(records: Mapping[str, Record], name: str) -> bool:
    return name in records and (
        records[name].blocked or records[name].state in (State.APPLYING, State.REVERTING)
    )


def test_five_thousand_revisions_are_planned_in_linear_time() -> None:
    asked = []
    for size in (2_500, 5_000):
        chain = [
            rev(f"{n:04d}", f"s{n % 5}", f"{n - 5:04d}" if n > 5 else "") for n in range(1, size)
        ]
        records = CountingRecords(applied(chain[: size // 2]))
        up(folder(*chain), records)
        down(folder(*chain), records, "base")
        status_rows(folder(*chain), records)
        find_problems(folder(*chain), records, sources=no_source)
        asked.append(records.asked)
    assert asked[1] <= 2.1 * asked[0]


class CountingRecords(dict[str, Record]):
    """Records that count how often one of them is asked for."""

    asked = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.asked += 1
        return super().get(key, default)

    def __getitem__(self, key: str) -> Record:
        self.asked += 1
        return super().__getitem__(key)
