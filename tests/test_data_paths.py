"""Paths that go through arrays: each verb against a model of what it should do, and refusals."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import bson
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mongover.errors import OperationFailed
from mongover.operations import serverside
from tests.operations_support import Desk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.database import Database

    Db = Database[dict[str, Any]]

DEEPEST = 3  # arrays directly in one another, below the first
MANY = settings(max_examples=60, suppress_health_check=list(HealthCheck))


@pytest.fixture(params=["one command", "ranges"])
def db(request: pytest.FixtureRequest, any_db: Db, monkeypatch: pytest.MonkeyPatch) -> Db:
    if request.param == "ranges":
        monkeypatch.setattr(serverside, "SMALL", 2)
        monkeypatch.setattr(serverside, "RANGE", 2)
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
ENDS = SCALARS | st.lists(SCALARS, max_size=2) | st.just({}) | st.just({"a": 1})
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
    odd = st.builds(lambda one, other: {**other, **one}, place, ODD)
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


def check(db: Db, expected: Expected, stored: list[dict[str, Any]], verb: str, *a: Any, **k: Any):
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
    if len(stored) <= serverside.SMALL:
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
