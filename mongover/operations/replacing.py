"""One index in the place of another: which one is meant, and the way from the old to the new.

The old index stands until the new one does. Where the server can change it (`expireAfterSeconds`,
`hidden`, `unique`) that is all. Where both can stand, the new one is built first. Where they
cannot, because of one name or one signature, a stand-in goes between: the new definition under a
name of its own, with keys that the server takes for others (`{a: 2}` orders and guards as `{a: 1}`
does). It finds what the server or the documents refuse while the old index is still there, and
its name is how a later attempt knows a replacement that was killed half-way. Only a text index has
none, since a collection has at most one: there the old one goes first, and comes back on failure.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mongover.errors import DuplicateValues, MongoverError, OperationConflict, OperationFailed
from mongover.operations.ddl import ddl, stored_collection
from mongover.operations.failures import translate
from mongover.operations.index import Index, Keys
from mongover.operations.index_builds import (
    build,
    conflict_of,
    drop,
    duplicate_values,
    duplicates_of,
    find_index,
    is_text,
    same_index,
    same_keys,
    several,
    stored_index,
    stored_indexes,
    stored_keys,
    wanted_options,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mongover.operations.base import Document, Operation, Outcome, Target

KEPT = "the old index was kept."
_IN_PLACE = frozenset({"expireAfterSeconds", "hidden", "unique", "prepareUnique"})
_IDENTITY = ("collation", "partialFilterExpression", "sparse")
_SIGNATURE = (*_IDENTITY, "unique", "wildcardProjection")
_NOT_UNIQUE = 359  # CannotConvertIndexToUnique
_UNKNOWN_TO_SERVER = frozenset({9, 72, 40415})
"""What servers answer to what they do not know: unique before 6.0, a new TTL before 5.1."""


# -- which one is meant (pure) ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scene:
    """What a replacement finds.

    Attributes:
        there: Whether the new index stands already.
        old: The index whose place it takes.
        distinct: Whether `old` was told by words that cannot mean the new index: then a later
            attempt that finds both knows which of them is to go.
        stand_in: The stand-in that an attempt before this one left.
        others: The indexes that must stay as they are.
    """

    there: bool
    old: Document | None
    distinct: bool
    stand_in: Document | None
    others: tuple[Document, ...]


def scene_of(index: Index, old: str | Keys | None, stored: Sequence[Document]) -> Scene:
    """Tell the indexes of a collection apart (pure).

    Raises:
        OperationFailed: When several may be the one that is meant.
    """
    title = stand_in_name(index)
    there = any(same_index(index, spec) for spec in stored)
    rest = [
        spec
        for spec in stored
        if spec["name"] not in {"_id_", title} and not same_index(index, spec)
    ]
    distinct = old is not None and _distinct(index, rest, old)
    if old is None:
        meant = _meant(index, rest, there=there)
    else:
        meant = find_index(rest, old) if distinct or not there else None
    return Scene(
        there=there,
        old=meant,
        distinct=distinct,
        stand_in=next((spec for spec in stored if spec["name"] == title), None),
        others=tuple(spec for spec in rest if spec is not meant),
    )


def _distinct(index: Index, rest: list[Document], old: str | Keys) -> bool:
    if any(spec["name"] == old for spec in rest):
        return old != index.name
    keys = ((old, 1),) if isinstance(old, str) else old
    return set(keys) != set(index.keys)


def _meant(index: Index, rest: list[Document], *, there: bool) -> Document | None:
    """The index of the same name, else the one of the same identity; none for one that stands."""
    named = next((spec for spec in rest if spec["name"] == index.name), None)
    if named is not None or there:
        return named
    alike = [spec for spec in rest if _agree(index, spec, _IDENTITY)]
    if len(alike) > 1:
        raise several(alike, f"may be the one that {index.name} replaces", hint="name it: old=")
    return alike[0] if alike else None


def _agree(index: Index, spec: Document, options: Sequence[str]) -> bool:
    """Whether a stored index has the same keys and these options alike."""
    stored, wanted = stored_index(spec).options, wanted_options(index, spec)
    alike = all(stored.get(name) == wanted.get(name) for name in options)
    return alike and same_keys(index, spec)


def stand_in_name(index: Index) -> str:
    """The name of the index that stands between the old one and this one."""
    return f"mongover stand-in for {index.name}"


def stand_in_for(index: Index, stored: Sequence[Document]) -> Index | None:
    """An index that does what this one does, beside the old one; None for a text index (pure)."""
    if is_text(index):
        return None
    name = stand_in_name(index)
    taken = [stored_keys(spec) for spec in stored if spec["name"] != name]
    keys = next(keys for keys in _nudged(index.keys) if keys not in taken)
    return Index(keys, {**index.options, "name": name})


def _nudged(keys: Keys) -> Iterator[Keys]:
    """The same keys in the server's eyes others: only the sign of a number has a meaning."""
    place = next((n for n, (_, kind) in enumerate(keys) if isinstance(kind, int)), None)
    base: Keys = keys if place is not None else (*keys, ("_id", 1))
    place = len(keys) if place is None else place
    path, direction = base[place]
    if base is not keys:
        yield base
    factor = 2
    while isinstance(direction, int):
        yield (*base[:place], (path, direction * factor), *base[place + 1 :])
        factor += 1


def in_place(index: Index, spec: Document) -> dict[str, Any]:
    """What collMod has to change so that the stored index becomes the wanted one (pure).

    Empty when that is not enough; then the index has to be built anew.
    """
    stored, wanted = stored_index(spec).options, wanted_options(index, spec)
    differ = {name for name in {**stored, **wanted} if stored.get(name) != wanted.get(name)}
    if not same_keys(index, spec) or not differ <= _IN_PLACE:
        return {}
    if not {"expireAfterSeconds", "unique"} & differ <= wanted.keys():
        return {}
    if "unique" in differ and is_text(index):
        return {}
    return {name: wanted.get(name, False) for name in sorted(differ)}


# -- the ways ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Replacement:
    """One replacement at work."""

    operation: Operation
    target: Target
    collection: str
    index: Index

    def run(self, old: str | Keys | None) -> Outcome:
        """Put the index in the place of the old one; unchanged when only the new one is there."""
        stored = stored_indexes(self.target, self.collection)
        work = replace(self, index=_collated(self.index, self.target, self.collection))
        scene = scene_of(work.index, old, stored)
        if scene.there:
            return work.tidy(scene.old, scene.stand_in)
        work.check_others(scene)
        if scene.old is None:
            return work.create(scene, named=old is not None)
        changes = in_place(work.index, scene.old)
        if changes and work.change(scene.old, changes):
            work.tidy(scene.stand_in)
            return "done"
        free = scene.distinct and scene.old["name"] != work.index.name
        if not (free and work.beside(scene.old)):
            work.swap(scene.old, stand_in_for(work.index, stored), scene.stand_in)
        return "done"

    def tidy(self, *specs: Document | None) -> Outcome:
        """Take away what is left once the new index is there."""
        left = [spec for spec in specs if spec is not None]
        if left:
            # It may still be built, by a command whose sender was killed: this waits for it.
            self.build()
        for spec in left:
            drop(self.target, self.collection, spec["name"])
        return "done" if left else "unchanged"

    def check_others(self, scene: Scene) -> None:
        """Refuse what an index that must stay will be in the way of, before anything changes."""
        for spec in scene.others:
            text = is_text(self.index) and "_fts" in spec["key"]
            if text or spec["name"] == self.index.name or _agree(self.index, spec, _SIGNATURE):
                raise conflict_of(self.target, self.collection, self.index, spec)

    def create(self, scene: Scene, *, named: bool) -> Outcome:
        """Build it where no old one is, and say so."""
        self.build()
        if scene.stand_in is not None:
            return self.tidy(scene.stand_in)
        beside = [str(spec["name"]) for spec in scene.others if same_keys(self.index, spec)]
        if named and scene.others:
            self._say("there was no index to replace: the new one was built, the others stay")
        elif beside:
            names = ", ".join(beside)
            self._say(f"it was built beside {names}; old={beside[0]!r} would have replaced it")
        return "done"

    def _say(self, text: str) -> None:
        self.target.journal.message(f"{self.operation.describe()}: {text}")

    def build(self) -> None:
        """Build the new index under its own name."""
        build(self.target, self.collection, (self.index,), what=self.operation.describe())

    # -- in place --

    def change(self, old: Document, changes: dict[str, Any]) -> bool:
        """Change the old index by collMod; False where this server cannot."""
        changes = dict(changes)
        unique, prepared = changes.pop("unique", None), changes.pop("prepareUnique", None)
        with self.keeping(KEPT):
            if unique and not self.make_unique(old):
                return False
            if prepared is False and not unique:
                self._mod(old, prepareUnique=False)
            return not changes or self._known(lambda: self._mod(old, **changes))

    def make_unique(self, old: Document) -> bool:
        """Refuse new duplicates, then see that there are none; False where this server cannot."""
        from pymongo.errors import OperationFailure

        self.check_duplicates()
        if not self._known(lambda: self._mod(old, prepareUnique=True)):
            return False
        try:
            self._mod(old, unique=True)
        except (OperationFailure, OperationFailed) as error:
            self._mod(old, prepareUnique=False)
            if getattr(error, "code", None) == _NOT_UNIQUE:
                self.check_duplicates()
            raise
        return True

    def check_duplicates(self) -> None:
        """The old index is not touched for a unique one that cannot be."""
        found = duplicates_of(self.target, self.collection, self.index)
        if found.total:
            raise duplicate_values(self.target, self.collection, self.index, found, after=KEPT)

    def _mod(self, old: Document, **changes: Any) -> None:
        ddl(self.target, {"collMod": self.collection, "index": {"name": old["name"], **changes}})

    @staticmethod
    def _known(send: Callable[[], None]) -> bool:
        from pymongo.errors import OperationFailure

        try:
            send()
        except OperationFailure as error:
            if error.code not in _UNKNOWN_TO_SERVER:
                raise
            return False
        return True

    # -- anew --

    def beside(self, old: Document) -> bool:
        """The new one, then the old one's end; False where the server cannot have both.

        Only for an old one that was told apart: a later attempt knows by it what is left to do.
        """
        with self.keeping(KEPT):
            try:
                self.build()
            except OperationConflict:
                return False
        drop(self.target, self.collection, old["name"])
        return True

    def swap(self, old: Document, stand_in: Index | None, left: Document | None) -> None:
        """The stand-in, the old one's end, the new one, the stand-in's end."""
        with self.keeping(KEPT):
            if stand_in is None:
                self.ask()
            else:
                self.stand(stand_in, left)
        drop(self.target, self.collection, old["name"])
        try:
            with self.keeping(""):
                self.build()
        except MongoverError as error:
            self.put_back(old, stand_in, error)
            raise
        if stand_in is not None:
            drop(self.target, self.collection, stand_in.name)

    def ask(self) -> None:
        """Let the server look at a definition that it cannot build while the old one is there.

        It does so before it compares it with what stands: then a conflict is its consent.
        """
        with suppress(OperationConflict):
            self.build()

    def stand(self, stand_in: Index, left: Document | None) -> None:
        """Build the stand-in; one of an earlier attempt may have had another definition."""
        if left is not None and not same_index(stand_in, left):
            drop(self.target, self.collection, stand_in.name)
        what = self.operation.describe()
        try:
            build(self.target, self.collection, (stand_in,), what=what)
        except DuplicateValues:
            self.check_duplicates()
            raise

    def put_back(self, old: Document, stand_in: Index | None, error: MongoverError) -> None:
        """After the refusal of the new index: the old one again, and say what stands now."""
        from pymongo.errors import OperationFailure

        options = {name: value for name, value in old.items() if name not in {"key", "ns"}}
        same = Index(tuple(old["key"].items()), options)
        try:
            build(self.target, self.collection, (same,), what=self.operation.describe())
        except (OperationFailure, MongoverError):
            left = f'"{stand_in.name}" stands in for it' if stand_in else "neither is left"
            error.after = f"the old index {old['name']} could not be built again: {left}."
            return
        if stand_in is not None:
            drop(self.target, self.collection, stand_in.name)
        error.after = f"the old index {old['name']} was dropped and built again."

    @contextmanager
    def keeping(self, after: str) -> Iterator[None]:
        """A refusal within says what it left behind."""
        from pymongo.errors import OperationFailure

        try:
            yield
        except MongoverError as error:
            error.after = after or error.after
            raise
        except OperationFailure as error:
            ours = translate(error, self.operation, self.target)
            if ours is None:
                raise
            ours.after = after
            raise ours from error


def _collated(index: Index, target: Target, collection: str) -> Index:
    """The index with the collation that the collection gives it where it names none."""
    if "collation" in index.options:
        return index
    stored = stored_collection(target, collection) or {}
    default = dict(stored.get("options", {}).get("collation") or {})
    default.pop("version", None)
    return replace(index, options={**index.options, "collation": default}) if default else index
