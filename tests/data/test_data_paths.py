"""Paths that go through arrays: each verb against a model of what it should do, and refusals."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import bson
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mongover.errors import DuplicateValues, OperationFailed
from mongover.operations.bulk import server_side
from mongover.operations.duplicates import find_duplicates
from mongover.operations.index import Index
from tests.support.operations_support import Desk, in_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.database import Database

    Db = Database[dict[str, Any]]

DEEPEST = 3  # arrays directly in one another, below the first
MANY = settings(max_examples=40, suppress_health_check=list(HealthCheck))


@pytest.fixture(params=["one command", "ranges"])
def db(request: pytest.FixtureRequest, any_db: Db, monkeypatch: pytest.MonkeyPatch) -> Db:
    if request.param == "ranges":
        monkeypatch.setattr(server_side, "SMALL", 2)
        monkeypatch.setattr(server_side, "RANGE", 2)
    return any_db


# -- the model: what a path reaches ------------------------------------------------------------


def is_position(part: str) -> bool:
    return part in {"0", "1", "2"}


def flat(value: Any, levels: int = DEEPEST + 1) -> Iterator[Any]:
    """What is in an array and its arrays; a lone value is itself."""
    if not isinstance(value, list) or not levels:
        yield value
        return
    for item in value:
        yield from flat(item, levels - 1)


def on_the_way(document: dict[str, Any], parts: list[str]) -> Iterator[tuple[Any, str]]:
    """Each value that is gone through, and the part that follows."""
    first, *rest = parts
    if rest and first in document:
        yield document[first], rest[0]
        yield from _below(document[first], rest)


def _below(value: Any, parts: list[str]) -> Iterator[tuple[Any, str]]:
    if isinstance(value, list) and is_position(parts[0]):
        if len(parts) > 1 and int(parts[0]) < len(value):
            item = value[int(parts[0])]
            yield item, parts[1]
            yield from _below(item, parts[1:])
        return
    for item in flat(value):
        if isinstance(item, dict):
            yield from on_the_way(item, parts)


def places(document: dict[str, Any], parts: list[str]) -> Iterator[dict[str, Any]]:
    """The documents in which the last part may stand."""
    if len(parts) == 1:
        yield document
        return
    ends = len(parts) - 1
    for value, item in _at(document, parts[:ends]):
        del item
        if is_position(parts[-1]) and isinstance(value, list):
            continue
        for place in flat(value):
            if isinstance(place, dict):
                yield place


def _at(document: dict[str, Any], parts: list[str]) -> Iterator[tuple[Any, None]]:
    """The values at a path, arrays not taken apart at its end."""
    first, *rest = parts
    if first in document:
        yield from _values(document[first], rest)


def _values(value: Any, parts: list[str]) -> Iterator[tuple[Any, None]]:
    if not parts:
        yield value, None
    elif isinstance(value, list) and is_position(parts[0]):
        if int(parts[0]) < len(value):
            yield from _values(value[int(parts[0])], parts[1:])
    else:
        for item in flat(value):
            if isinstance(item, dict):
                yield from _at(item, parts)


def has_array(document: dict[str, Any], path: str) -> bool:
    return any(isinstance(value, list) for value, _ in on_the_way(document, path.split(".")))


def levels(value: Any) -> int:
    return 1 + max(map(levels, value), default=0) if isinstance(value, list) else 0


@dataclass
class Expected:
    """What becomes of documents: refused for so many of them, or changed."""

    documents: list[dict[str, Any]]
    refused: set[int] = field(default_factory=set)

    def refusing(self, meets: Callable[[dict[str, Any]], bool]) -> None:
        if not self.refused:
            self.refused = {one["_id"] for one in self.documents if meets(one)}

    def walked(self, path: str) -> None:
        """Refuse what no verb can walk."""
        parts = path.split(".")
        if not any(has_array(one, path) for one in self.documents):
            return

        def at_position(one: dict[str, Any]) -> bool:
            # Of the values on the way, the last is the one that the last part stands in.
            last = _at(one, parts[:-1])
            return is_position(parts[-1]) and any(isinstance(v, list) for v, _ in last)

        def ambiguous(one: dict[str, Any]) -> bool:
            return any(
                isinstance(value, list)
                and is_position(part)
                and any(isinstance(item, dict) and part in item for item in flat(value))
                for value, part in on_the_way(one, parts)
            )

        def too_deep(one: dict[str, Any]) -> bool:
            way = on_the_way(one, parts)
            return any(levels(v) > DEEPEST + 1 and not is_position(part) for v, part in way)

        for meets in (at_position, ambiguous, too_deep):
            self.refusing(meets)


def blocked(document: dict[str, Any], path: str) -> bool:
    """Whether something on the way can hold no field."""
    for value, part in on_the_way(document, path.split(".")):
        items = [value] if isinstance(value, list) and is_position(part) else flat(value)
        if any(not isinstance(item, (dict, list)) for item in items):
            return True
    return False


def add(document: Any, parts: list[str], value: Any) -> None:
    if isinstance(document, list):
        if is_position(parts[0]):
            if len(parts) > 1 and int(parts[0]) < len(document):
                add(document[int(parts[0])], parts[1:], value)
            return
        for item in document:
            add(item, parts, value)
    elif isinstance(document, dict):
        if len(parts) == 1:
            document.setdefault(parts[0], value)
        else:
            add(document.setdefault(parts[0], {}), parts[1:], value)


def in_order(place: dict[str, Any], old: str, new: str) -> None:
    """Rename as the server does: in the place of the other name, or at the end."""
    place[new] = place.pop(old)


def unable(value: Any) -> bool:
    """Whether a value cannot become a whole number."""
    return value == "x" or isinstance(value, dict)


def convert(place: dict[str, Any], name: str, policy: str) -> None:
    value = place.get(name)
    if value is None or isinstance(value, list):
        return
    if not unable(value):
        place[name] = int(value)
    elif policy == "null":
        place[name] = None
    elif policy == "unset":
        del place[name]


# -- random documents --------------------------------------------------------------------------

SCALARS = st.sampled_from([1, 7, "5", "x", None, 3.0, bson.Int64(9)])
ODD = st.dictionaries(st.sampled_from(["a.b", "$c", "é", ""]), SCALARS, max_size=1)
ENDS: st.SearchStrategy[Any] = (
    SCALARS | st.lists(SCALARS, max_size=2) | st.just({}) | st.just({"a": 1})
)
WORDS = st.lists(st.sampled_from(["a", "b", "x"]), min_size=1, max_size=4).map(".".join)
NUMBERED = st.lists(st.sampled_from(["a", "b", "0", "1"]), min_size=2, max_size=4).map(".".join)
PATHS = WORDS | WORDS | NUMBERED


def along(parts: list[str], siblings: list[str]) -> st.SearchStrategy[Any]:
    """Values that a path may meet: what it wants, arrays of that, and what is in its way."""
    if not parts:
        return ENDS
    inner = along(parts[1:], siblings)
    place = st.fixed_dictionaries(
        {}, optional={parts[0]: inner, **{name: ENDS for name in siblings if name != parts[0]}}
    )
    odd: st.SearchStrategy[Any] = st.builds(lambda one, other: {**other, **one}, place, ODD)
    if is_position(parts[0]):
        odd = odd | st.lists(inner, max_size=3)
    many = st.lists(odd, max_size=3)
    usual = odd | odd | many | many
    return usual | st.lists(usual | many, max_size=2) | st.lists(many, max_size=2) | ENDS


def documents_for(path: str, *siblings: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    """A few documents, as wild as what a path may meet."""
    first, *rest = path.split(".")
    value = along(rest, list(siblings))
    others = {name: ENDS for name in siblings if name != first}
    document = st.fixed_dictionaries({}, optional={first: value, **others})
    return st.lists(document, min_size=1, max_size=5)


def check(
    db: Db, expected: Expected, stored: list[dict[str, Any]], verb: str, *a: Any, **k: Any
) -> None:
    """Run a verb twice over the documents and compare with what the model says."""
    db["o"].delete_many({})
    db["o"].insert_many(copy.deepcopy(stored))
    desk = Desk(db)
    if expected.refused:
        with pytest.raises(OperationFailed) as caught:
            desk.do(verb, "o", *a, **k)
        many = len(expected.refused)
        assert f"{many} document" in caught.value.message or f"{many} value" in caught.value.message
        assert_same(db, stored)
        return
    changed = [n for n, one in enumerate(expected.documents) if differ(one, stored[n])]
    assert desk.do(verb, "o", *a, **k) == ("done" if changed else "unchanged")
    assert_same(db, expected.documents)
    if len(stored) <= server_side.SMALL:
        assert desk.book.steps[-1][0] == len(changed)
    assert Desk(db).do(verb, "o", *a, **k) == "unchanged"
    assert_same(db, expected.documents)


def differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Order, types and all."""
    return bson.encode(one) != bson.encode(other)


def assert_same(db: Db, documents: list[dict[str, Any]]) -> None:
    found = list(db["o"].find().sort("_id", 1))
    assert found == documents
    assert [bson.encode(one) for one in found] == [bson.encode(one) for one in documents]


def numbered(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # Through BSON, so that no two documents share a value that the model changes.
    return [bson.decode(bson.encode({"_id": n, **one})) for n, one in enumerate(documents)]


# -- each verb is what the model says ----------------------------------------------------------


@MANY
@given(data=st.data(), path=PATHS, value=st.sampled_from([0, None, "$a", {"k": [1]}]))
def test_add_field_reaches_every_place_once(
    db: Db, data: st.DataObject, path: str, value: Any
) -> None:
    stored = numbered(data.draw(documents_for(path)))
    expected = Expected(copy.deepcopy(stored))
    expected.walked(path)
    expected.refusing(lambda one: blocked(one, path))
    if not expected.refused:
        for one in expected.documents:
            add(one, path.split("."), copy.deepcopy(value))
    check(db, expected, stored, "add_field", path, value)


@MANY
@given(data=st.data(), path=PATHS, low=st.sampled_from([0, 0, 2]))
def test_remove_field_reaches_every_place_of_the_filtered(
    db: Db, data: st.DataObject, path: str, low: int
) -> None:
    parts = path.split(".")
    stored = numbered(data.draw(documents_for(path, "y")))
    expected = Expected(copy.deepcopy(stored)[low:])
    expected.walked(path)
    for one in expected.documents:
        for place in places(one, parts):
            place.pop(parts[-1], None)
    expected.documents[:0] = copy.deepcopy(stored[:low])
    check(db, expected, stored, "remove_field", path, filter={"_id": {"$gte": low}})


@MANY
@given(
    data=st.data(),
    path=PATHS,
    name=st.sampled_from(["a", "b", "x", "y", "0"]),
    policy=st.sampled_from(["refuse", "skip", "overwrite"]),
)
def test_rename_field_keeps_its_policy_at_every_place(
    db: Db, data: st.DataObject, path: str, name: str, policy: str
) -> None:
    *parents, old = path.split(".")
    name = "y" if name == old else name
    to = ".".join([*parents, name])
    stored = numbered(data.draw(documents_for(path, name)))
    expected = Expected(copy.deepcopy(stored))
    expected.walked(path)
    expected.walked(to)

    def both(one: dict[str, Any]) -> bool:
        return any(old in place and name in place for place in places(one, path.split(".")))

    if policy == "refuse":
        expected.refusing(both)
    for one in expected.documents:
        for place in list(places(one, path.split("."))):
            if old in place and (policy == "overwrite" or name not in place):
                in_order(place, old, name)
    check(db, expected, stored, "rename_field", path, to, on_existing=policy)


@MANY
@given(data=st.data(), path=WORDS, to=WORDS)
def test_rename_field_moves_a_value_to_another_parent_only_without_arrays(
    db: Db, data: st.DataObject, path: str, to: str
) -> None:
    parts, others = path.split("."), to.split(".")
    assume(parts[:-1] != others[:-1])
    assume(not f"{path}.".startswith(f"{to}.") and not f"{to}.".startswith(f"{path}."))
    found = data.draw(st.tuples(documents_for(path), documents_for(to)))
    stored = numbered([{**one, **other} for one, other in zip(*found, strict=False)])
    expected = Expected(copy.deepcopy(stored))

    def has(one: dict[str, Any], path: list[str]) -> bool:
        return any(path[-1] in place for place in places(one, path))

    def crosses(one: dict[str, Any]) -> bool:
        return has(one, parts) and (has_array(one, path) or has_array(one, to))

    expected.refusing(crosses)
    expected.refusing(lambda one: has(one, parts) and blocked(one, to))
    expected.refusing(lambda one: has(one, parts) and has(one, others))
    if not expected.refused:
        for one in expected.documents:
            for place in list(places(one, parts)):
                if parts[-1] in place:
                    add(one, others, place.pop(parts[-1]))
    check(db, expected, stored, "rename_field", path, to)


@MANY
@given(
    data=st.data(),
    path=PATHS,
    policy=st.sampled_from(["refuse", "keep", "null", "unset"]),
)
def test_convert_field_converts_at_every_place(
    db: Db, data: st.DataObject, path: str, policy: str
) -> None:
    *_, name = parts = path.split(".")
    stored = numbered(data.draw(documents_for(path)))
    expected = Expected(copy.deepcopy(stored))
    expected.walked(path)

    if policy == "refuse":
        expected.refusing(lambda one: any(unable(p.get(name)) for p in places(one, parts)))
    for one in expected.documents:
        for place in places(one, parts):
            convert(place, name, policy)
    check(db, expected, stored, "convert_field", path, "int", on_error=policy)


# -- single promises ---------------------------------------------------------------------------


def refusal(db: Db, verb: str, *args: Any, **options: Any) -> OperationFailed:
    before = list(db["o"].find().sort("_id", 1))
    with pytest.raises(OperationFailed) as caught:
        Desk(db).do(verb, "o", *args, **options)
    assert list(db["o"].find().sort("_id", 1)) == before
    assert caught.value.hint
    return caught.value


def test_names_with_dots_and_dollars_stay_what_they_are_beside_a_change(db: Db) -> None:
    odd = {"v1.2": {"$x": 1}, "$y": [{"a.b": 2}]}
    db["o"].insert_one({"_id": 1, "i": [{**odd, "x": "1", **odd}], **odd})
    for n, (verb, *args) in enumerate(
        [
            ("add_field", "i.z", {"k": 1}),
            ("convert_field", "i.x", "int"),
            ("rename_field", "i.x", "i.w"),
            ("remove_field", "i.z"),
        ]
    ):
        assert Desk(db).do(str(verb), "o", *args) == "done", n
    assert db["o"].find_one() == {"_id": 1, "i": [{**odd, "w": 1}], **odd}


def test_a_value_where_a_document_is_needed_is_counted_before_a_field_is_added(db: Db) -> None:
    db["o"].insert_many([{"_id": 1, "i": [{"x": 1}]}, {"_id": 2, "i": [1]}, {"_id": 3, "i": None}])
    error = refusal(db, "add_field", "i.z", 1)
    assert "2 documents have null or another value where i.z needs a document" in error.message
    assert error.notes == ("for example _id 2, 3",)
    assert Desk(db).do("add_field", "o", "i.z", 1, filter={"_id": 1}) == "done"


def test_a_field_is_renamed_through_arrays_only_within_its_parent(db: Db) -> None:
    db["o"].insert_many([{"_id": 1, "i": [{"a": 1}]}, {"_id": 2, "i": {"a": 2}}, {"_id": 3}])
    error = refusal(db, "rename_field", "i.a", "other.b")
    assert "1 document has an array on the way from i.a to other.b" in error.message
    assert '"i.b"' in str(error.hint)
    assert Desk(db).do("rename_field", "o", "i.a", "i.b") == "done"
    assert list(db["o"].find({"_id": {"$lt": 3}})) == [
        {"_id": 1, "i": [{"b": 1}]},
        {"_id": 2, "i": {"b": 2}},
    ]


def test_a_rename_through_arrays_is_taken_back_by_its_reverse(db: Db) -> None:
    stored = [{"_id": n, "i": [{"a": n, "z": 1}, [{"z": 2}], {"a": n}]} for n in range(6)]
    db["o"].insert_many(stored)
    desk = Desk(db)
    desk.do("rename_field", "o", "i.a", "i.b")
    back = desk.book.started[-1].reverse()
    assert back is not None
    desk.op.run(back)
    assert list(db["o"].find().sort("_id", 1)) == stored
    assert desk.book.outcomes == ["done", "done"]


def test_both_names_at_one_place_are_counted_and_at_two_places_allowed(db: Db) -> None:
    db["o"].insert_many(
        [{"_id": 1, "i": [{"a": 1}, {"b": 2}]}, {"_id": 2, "i": [{"a": 1, "b": 2}]}]
    )
    assert "1 document has both i.a and i.b" in refusal(db, "rename_field", "i.a", "i.b").message
    assert Desk(db).do("rename_field", "o", "i.a", "i.b", on_existing="skip") == "done"
    assert [one["i"] for one in db["o"].find()] == [[{"b": 1}, {"b": 2}], [{"a": 1, "b": 2}]]


def test_documents_whose_values_cannot_be_converted_are_counted_once_each(db: Db) -> None:
    db["o"].insert_many([{"_id": 1, "i": [{"p": "x"}, {"p": "y"}]}, {"_id": 2, "i": [{"p": "1"}]}])
    error = refusal(db, "convert_field", "i.p", "int")
    assert error.message.startswith("in 1 document: values of ")
    assert error.message.endswith(".o.i.p cannot become int without loss")


def test_arrays_in_the_place_of_the_value_stay_and_are_named(db: Db) -> None:
    db["o"].insert_many([{"_id": 1, "t": ["1"]}, {"_id": 2, "t": [1, None]}, {"_id": 3, "t": []}])
    desk = Desk(db)
    assert desk.do("convert_field", "o", "t", "int") == "unchanged"
    (message,) = desk.book.messages
    assert message.startswith("1 document keeps an array at ")


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("add_field", ("i.0", 1)),
        ("remove_field", ("i.0",)),
        ("rename_field", ("i.0", "i.a")),
        ("rename_field", ("i.a", "i.0")),
        ("convert_field", ("i.0", "int")),
    ],
)
def test_a_position_at_the_end_of_a_path_is_no_field(db: Db, verb: str, args: Any) -> None:
    db["o"].insert_many([{"_id": 1, "i": [{"a": 1}, "5"]}, {"_id": 2, "i": {"c": 1}}])
    error = refusal(db, verb, *args)
    assert "1 document has an array at i in" in error.message
    assert "i.0 is a position in it, and no field" in error.message


def test_a_number_in_a_path_is_a_position_in_arrays_and_a_name_in_documents(db: Db) -> None:
    db["o"].insert_many([{"_id": 1, "i": [{"x": 1}, {"x": 1}]}, {"_id": 2, "i": {"0": {"x": 1}}}])
    assert Desk(db).do("remove_field", "o", "i.0.x") == "done"
    assert [one["i"] for one in db["o"].find()] == [[{}, {"x": 1}], {"0": {}}]


def test_a_number_that_is_position_and_name_at_once_is_refused(db: Db) -> None:
    db["o"].insert_many([{"_id": 1, "i": [{"0": {"x": 1}}]}, {"_id": 2, "i": [{"x": 1}]}])
    assert "two things in 1 document" in refusal(db, "remove_field", "i.0.x").message


def test_arrays_too_deep_in_one_another_are_counted(db: Db) -> None:
    db["o"].insert_many([{"_id": 1, "i": [[[[{"x": 1}]]]]}, {"_id": 2, "i": [[[[[{"x": 1}]]]]]}])
    assert "1 document has more than 4 arrays" in refusal(db, "remove_field", "i.x").message
    assert Desk(db).do("remove_field", "o", "i.x", filter={"_id": 1}) == "done"
    assert db["o"].find_one()["i"] == [[[[{}]]]]  # type: ignore[index] # it is there


def test_a_path_of_too_many_parts_is_refused_only_where_it_meets_arrays(db: Db) -> None:
    path = ".".join(["a"] * 30)
    db["o"].insert_one({"_id": 1, "a": {"a": 1}})
    assert Desk(db).do("remove_field", "o", path) == "unchanged"
    db["o"].insert_one({"_id": 2, "a": [{"a": 1}]})
    assert "too many parts" in refusal(db, "remove_field", path).message


@pytest.mark.parametrize("parts", [2, 5, 9])
def test_long_paths_are_walked_by_every_verb(any_db: Db, parts: int) -> None:
    names = [f"p{n}" for n in range(parts)]
    document: Any = {"x": "1"}
    for name in reversed(names):
        document = {name: [document, {}]}
    any_db["o"].insert_one({"_id": 1, **document})
    path = ".".join(names)
    for policy in ("refuse", "keep", "null", "unset"):
        for kind in ("int", "string"):
            done = Desk(any_db).do("convert_field", "o", f"{path}.x", kind, on_error=policy)
            assert done == "done", (policy, kind)
    for policy in ("refuse", "skip", "overwrite"):
        for old, new in (("x", "y"), ("y", "x")):
            renamed = ("rename_field", "o", f"{path}.{old}", f"{path}.{new}")
            assert Desk(any_db).do(*renamed, on_existing=policy) == "done", (policy, old)
    assert Desk(any_db).do("add_field", "o", f"{path}.z", 1) == "done"
    assert Desk(any_db).do("remove_field", "o", f"{path}.x") == "done"


def test_large_and_empty_arrays_are_walked(any_db: Db) -> None:
    many = [{"x": str(n)} for n in range(50_000)]
    any_db["o"].insert_many([{"_id": 1, "i": many}, {"_id": 2, "i": []}, {"_id": 3}])
    assert Desk(any_db).do("convert_field", "o", "i.x", "int") == "done"
    assert Desk(any_db).do("add_field", "o", "i.y", 0, filter={"_id": {"$lt": 3}}) == "done"
    assert Desk(any_db).do("rename_field", "o", "i.x", "i.z") == "done"
    found = list(any_db["o"].find().sort("_id", 1))
    assert found[0]["i"] == [{"y": 0, "z": n} for n in range(50_000)]
    assert found[1:] == [{"_id": 2, "i": []}, {"_id": 3}]


def test_paths_through_arrays_are_walked_in_a_transaction(replica_db: Db) -> None:
    replica_db["o"].insert_one({"_id": 1, "i": [{"x": "1"}, {}]})
    with in_transaction(replica_db) as desk:
        desk.op.convert_field("o", "i.x", "int")
        desk.op.rename_field("o", "i.x", "i.y")
        desk.op.add_field("o", "i.z", 1)
    assert replica_db["o"].find_one() == {"_id": 1, "i": [{"y": 1, "z": 1}, {"z": 1}]}


def test_an_unset_that_an_array_would_stop_is_refused_with_counts(db: Db) -> None:
    db["o"].insert_many([{"_id": 1, "i": [{"x": 1}]}, {"_id": 2, "i": {"x": 1}}, {"_id": 3}])
    error = refusal(db, "update", {}, {"$unset": {"i.x": ""}})
    assert "1 document has an array on the path i.x" in error.message
    assert Desk(db).do("update", "o", {"_id": 2}, {"$unset": {"i.x": ""}}) == "done"
    assert Desk(db).do("update", "o", {"_id": 1}, {"$unset": {"i.$[].x": ""}}) == "done"
    assert Desk(db).do("update", "o", {}, {"$unset": {"i.x": ""}}) == "unchanged"


def test_an_operator_that_the_server_stops_at_an_array_names_the_way_through(any_db: Db) -> None:
    any_db["o"].insert_one({"_id": 1, "i": [{"x": 1}]})
    assert "items.$[].x" in str(refusal(any_db, "update", {}, {"$set": {"i.y": 1}}).hint)


@pytest.mark.parametrize("verb", ["backup", "restore_backup"])
def test_a_dotted_field_is_no_part_of_a_backup_and_the_way_out_is_named(db: Db, verb: str) -> None:
    db["o"].insert_one({"_id": 1, "i": [{"x": 1}]})
    error = refusal(db, verb, fields=["i.x"])
    assert "'i.x'" in error.message
    assert '"i"' in str(error.hint)


# -- unique indexes through arrays --------------------------------------------------------------

_KEYS = st.sampled_from([None, 1, 2])
_ENDS = _KEYS | st.lists(_KEYS, max_size=2)
_PLACES = st.fixed_dictionaries({}, optional={"b": _ENDS, "c": st.fixed_dictionaries({"d": _KEYS})})
_HELD = _PLACES | st.lists(_PLACES | _KEYS | st.lists(_PLACES | _KEYS, max_size=2), max_size=3)
_ROWS = st.fixed_dictionaries({}, optional={"a": _HELD, "e": _KEYS})
_UNIQUE = st.sampled_from(
    [
        "a",
        "a.b",
        "a.c.d",
        "a.0.b",
        "a.1",
        "a.0",
        ("a.0.b", "e"),
        ("a.0.b", "a.1.b"),
        ("a.b", "a.c.d"),
    ]
)


@MANY
@given(rows=st.lists(_ROWS, min_size=2, max_size=4), keys=_UNIQUE)
def test_duplicates_through_arrays_are_those_that_a_unique_index_meets(
    standalone_db: Db, rows: list[dict[str, Any]], keys: Any
) -> None:
    standalone_db["o"].drop()
    standalone_db["o"].insert_many(numbered(rows))
    wanted = Index.of(keys, {"unique": True})
    found = find_duplicates(standalone_db["o"], wanted.paths, options=wanted.options)
    try:
        Desk(standalone_db).op.create_index("o", keys, unique=True)
    except DuplicateValues:
        assert found.total > 0
    except OperationFailed as error:
        if "171" not in error.message:  # arrays side by side
            raise
    else:
        assert found.total == 0
