"""What is mongover's own in a database: what its revisions made, found, renamed and removed. Pure.

A revision's record keeps its effects in their order. Folded over the applied revisions they answer
whether a collection, an index or a field was made by this history or was there before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Effect = dict[str, str]
"""`{"did": "created", "collection": "users"}`, with `index`, `field` or `to` where it is of one."""

CREATED: Final = "created"
FOUND: Final = "found"
REMOVED: Final = "removed"
RENAMED: Final = "renamed"
OTHER: Final = "other"  # by op.db or an operation of the user's own: nobody can say what

Kind = Literal["collection", "index", "field"]


@dataclass(frozen=True, slots=True)
class Thing:
    """A collection or view, or with a name an index or a field of one."""

    collection: str
    kind: Kind = "collection"
    name: str = ""

    @property
    def label(self) -> str:
        """`users`, `users.email_1`."""
        return f"{self.collection}.{self.name}" if self.name else self.collection


def effect(did: str, thing: Thing, **more: str) -> Effect:
    """What was done to a thing, as it is stored."""
    part = {thing.kind: thing.name} if thing.name else {}
    return {"did": did, "collection": thing.collection, **part, **more}


def thing_of(effect: Mapping[str, str]) -> Thing:
    """What an effect was done to."""
    if "index" in effect:
        return Thing(effect["collection"], "index", effect["index"])
    if "field" in effect:
        return Thing(effect["collection"], "field", effect["field"])
    return Thing(effect["collection"])


def is_effect(value: Any) -> bool:
    """Whether a stored value is an effect: texts throughout, and about a collection if known."""
    if not isinstance(value, dict) or not isinstance(value.get("did"), str):
        return False
    if not all(isinstance(text, str) for text in value.values()):
        return False
    about = value["did"] in {CREATED, FOUND, REMOVED, RENAMED}
    return not about or ("collection" in value and ("to" in value) is (value["did"] == RENAMED))


@dataclass(slots=True)
class Ours:
    """What one revision may take away without a further word.

    Attributes:
        made: What the revision itself made, and is still there by that name.
        found: What its upgrade wanted to make and found there.
        everywhere: What other applied revisions made.
        vague: Collections on which applied revisions worked whose records keep no effects.
        adopted: Its upgrade never ran here: all that it names was there before.
        trusted: Its record was written by a release that kept no effects, so nothing is known.
        unseen: It did things that nobody can name.
        kept: Whether its record keeps effects.
        effects: The effects so far, in order.
    """

    made: set[Thing] = field(default_factory=set)
    found: set[Thing] = field(default_factory=set)
    everywhere: set[Thing] = field(default_factory=set)
    vague: set[str] = field(default_factory=set)
    adopted: bool = False
    trusted: bool = False
    unseen: bool = False
    kept: bool = True
    effects: list[Effect] = field(default_factory=list)

    def add(self, effect: Effect) -> None:
        """Take in what the revision did; a repetition of the same changes nothing."""
        if not self._known(effect):
            self._fold(effect)
            self.effects.append(effect)

    def add_anothers(self, effect: Effect) -> None:
        """Take in what another applied revision did."""
        if effect["did"] == CREATED:
            self.everywhere.add(thing_of(effect))
        self._take_away(effect)

    def has_made(self, thing: Thing) -> bool:
        """Whether the revision made the thing, or the collection that it is in."""
        return thing in self.made or Thing(thing.collection) in self.made

    def knows(self, thing: Thing) -> bool:
        """Whether it was made or found by an applied revision."""
        return thing in self.made or thing in self.found or thing in self.everywhere

    def copy(self) -> Ours:
        """The same, to go on from separately."""
        return replace(
            self,
            made=set(self.made),
            found=set(self.found),
            everywhere=set(self.everywhere),
            vague=set(self.vague),
            effects=list(self.effects),
        )

    def _known(self, effect: Effect) -> bool:
        did = effect["did"]
        if did == OTHER:
            return self.unseen
        if did not in {FOUND, CREATED}:
            return False
        thing = thing_of(effect)
        if did == FOUND:  # what an earlier attempt or operation made is not found by the next
            return thing in self.found or self.has_made(thing)
        return thing in self.made

    def _fold(self, effect: Effect) -> None:
        if effect["did"] == OTHER:
            self.unseen = True
        elif effect["did"] == FOUND:
            self.found.add(thing_of(effect))
        elif effect["did"] == CREATED:
            self.found.discard(thing_of(effect))
            self.made.add(thing_of(effect))
        self._take_away(effect)

    def _take_away(self, effect: Effect) -> None:
        if effect["did"] not in {REMOVED, RENAMED}:
            return
        for things in (self.made, self.found, self.everywhere):
            gone = _with_parts(things, thing_of(effect))
            things.difference_update(gone)
            if "to" in effect:
                things.update(replace(thing, collection=effect["to"]) for thing in gone)


def _with_parts(things: set[Thing], gone: Thing) -> set[Thing]:
    """A thing and, of a collection, all that is in it."""
    whole = gone.kind == "collection"
    return {each for each in things if each == gone or (whole and _is_in(each, gone))}


def _is_in(thing: Thing, collection: Thing) -> bool:
    return thing.collection == collection.collection


def why_not(ours: Ours, thing: Thing) -> str:
    """Why a thing is not the revision's to take away: `adopted`, `found`, `foreign`, or nothing.

    Fields that no `add_field` found may have been written by any operation of the revision.
    """
    if ours.trusted or ours.has_made(thing):
        return ""
    if ours.adopted:
        return "adopted"
    if thing in ours.found:
        return "found"
    if thing.kind == "field" or thing in ours.everywhere:
        return ""
    unknown = ours.unseen or thing.collection in ours.vague
    return "" if thing.kind == "index" and unknown else "foreign"
