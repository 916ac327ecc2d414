"""Documents copied on the server into another collection, in ranges of `_id`, by `$merge`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mongover.errors import OperationFailed
from mongover.operations.arguments import check_choice, check_name, check_path, one_line
from mongover.operations.base import Document, Operation, Outcome, Target
from mongover.operations.bulk.ranges import BY_ID
from mongover.operations.bulk.server_side import BulkChange, perform
from mongover.operations.ddl import stored_collection
from mongover.operations.duplicates import shown
from mongover.operations.stages import NO_MERGE, by_chance, flow_of, mentions, reads, tells_time
from mongover.operations.yields import count_yield

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mongover.operations.bulk.pace import Pace
    from mongover.operations.stages import Flow
    from mongover.operations.yields import Yield

ON_MATCH = ("replace", "merge", "keep", "fail")
# The words that $merge has for the first three take a key with a dot for a path, and refuse one
# that begins with `$`; pipelines take every key as it is.
_WHEN_MATCHED: Final[dict[str, Any]] = {
    "replace": [{"$replaceWith": "$$new"}],
    "merge": [{"$replaceWith": {"$mergeObjects": ["$$ROOT", "$$new"]}}],
    "keep": [],
    "fail": "fail",
}
_ID: Final = ("_id",)
_NULL: Final = {"_id": None}


@dataclass(frozen=True, slots=True)
class Copy(Operation):
    """The documents of a filter, changed by a pipeline, put into another collection.

    A document of `to` that has the same key (`on`) is treated as `on_match` says. No two documents
    that come out may share a key. Where every stage treats each document by itself, many documents
    are copied in ranges; another stage (`$group`), or `whole`, makes it one command.

    A collection may be merged into itself: then the pipeline ends with a `$project` that names the
    top-level fields to be written, and no other field is touched.
    """

    collection: str
    to: str
    pipeline: list[Document] | None = None
    filter: Document | None = None
    on: tuple[str, ...] = _ID
    on_match: str = "replace"
    whole: bool = False
    pace: Pace | None = None

    verb: ClassVar[str] = "copy"
    refusal: ClassVar[str] = NO_MERGE

    @classmethod
    def of(
        cls,
        collection: str,
        to: str,
        *,
        pipeline: Iterable[Document] | None,
        on: str | Iterable[str],
        on_match: str,
        **options: Any,
    ) -> Copy:
        """From the arguments of `op.copy`, checked."""
        check_name(collection)
        check_name(to)
        check_choice("on_match", on_match, ON_MATCH)
        stages = None if pipeline is None else _checked_stages(pipeline)
        keys = (on,) if isinstance(on, str) else tuple(on)
        for key in keys:
            check_path(key, what="a key")
        if not keys:
            raise OperationFailed("copy needs a key", hint='leave `on` out, or say on="email"')
        copy = cls(collection, to, stages, on=keys, on_match=on_match, **options)
        if copy.at_home:
            _check_at_home(copy)
        copy.check_pace(copy.one_command)
        return copy

    @property
    def at_home(self) -> bool:
        """Whether the documents are merged into their own collection."""
        return self.collection == self.to

    @property
    def flow(self) -> Flow:
        """What the pipeline makes of the documents."""
        return flow_of(self.pipeline or ())

    @property
    def one_command(self) -> str:
        """Why it is one command however many documents there are; or an empty string."""
        if self.whole:
            return "whole=True"
        if mentions(self.filter, frozenset({"$text"})):
            return "$text"
        return self.flow.whole

    @property
    def repeatable(self) -> bool:
        """Whether the same documents again would meet what became of them, and end as they were.

        Not with `fail`, which would meet its own; not without an `_id`, for which the server makes
        a new one each time; not where chance decides what comes out, nor where what was written
        may be read again.
        """
        stages = self._stages
        if self.on_match == "fail" or self.at_home or reads(stages, self.to):
            return False
        key = self.flow.key
        if by_chance(stages) or (tells_time(stages) and (key, self.on) != ("own", _ID)):
            return False
        return "_id" not in self.on or key in {"own", "made"}

    @property
    def collections(self) -> tuple[str, ...]:
        """Both."""
        return (self.collection,) if self.at_home else (self.collection, self.to)

    @property
    def destructive(self) -> bool:
        """Unless what is there is kept."""
        return self.on_match not in {"keep", "fail"}

    def describe(self) -> str:
        """`copy users into people`, and whether each run would make new documents."""
        if self.at_home:
            return one_line(f"merge {self.collection} into itself")
        fresh = " with new _ids" if "_id" in self.on and self.flow.key == "none" else ""
        return one_line(f"copy {self.collection} into {self.to}{fresh}")

    def check_pace(self, why: str) -> None:
        """Refuse a pace that a single command cannot keep."""
        if why and self.pace:
            names = " and ".join(self.pace.options())
            raise OperationFailed(
                f"{self.describe()} is one command because of {why}, which {names} cannot slow",
                hint=f"leave {names} out",
            )

    def apply(self, target: Target) -> Outcome:
        """One aggregation for few documents or a whole pipeline, one per range for many.

        Raises:
            OperationFailed: documents would share a key, or have none; nothing was written.
        """
        self._check_target(target, _kind(stored_collection(target, self.to)))
        source = stored_collection(target, self.collection)
        if _looks_at(target, source, self.to):
            target.journal.unrepeatable(self.describe())
        kind = _kind(source)
        plain = kind == "collection"
        if not plain:
            self.check_pace(f"its source, a {kind}")
        if not self._certain(target, plain=plain):
            self._check_yield(target)
        change = BulkChange(
            self.collection,
            self.filter,
            self._command,
            single=bool(self.one_command) or not plain,
            transactional=False,
        )
        return perform(self, target, change, self.pace)

    @property
    def _stages(self) -> list[Document]:
        match: list[Document] = [{"$match": self.filter}] if self.filter else []
        return [*match, *(self.pipeline or ())]

    def _certain(self, target: Target, *, plain: bool) -> bool:
        """Whether each document that comes out is known to have a key of its own."""
        flow = self.flow
        if self.on != _ID or flow.key not in {"own", "none"}:
            return False
        if flow.key == "none":
            return True  # each gets a new one
        return plain and flow.unique and target.db[self.collection].find_one(_NULL, BY_ID) is None

    def _check_target(self, target: Target, kind: str) -> None:
        if kind == "collection":
            return
        hint = f"copy into the collection that {self.to} reads from"
        if kind == "timeseries":
            hint = f'op.insert("{self.to}", op.db["{self.collection}"].find()) sends the documents'
        raise OperationFailed(
            f"{target.namespace(self.to)} is a {kind}, and $merge writes only into collections",
            hint=hint,
            after="nothing was written.",
        )

    def _check_yield(self, target: Target) -> None:
        stages = self._stages
        if self.on == _ID and self.flow.key == "unknown":
            stages.append({"$match": {"_id": {"$exists": True}}})  # the others get a new one
        found = count_yield(target.db[self.collection], stages, self.on)
        if found.keyless:
            raise self._keyless(target, found)
        if found.shared:
            raise self._shared(target, found)

    def _keyless(self, target: Target, found: Yield) -> OperationFailed:
        names = ", ".join(self.on)
        hint = "leave them out by a filter, or give each a value there"
        if self.on == _ID:
            hint = (
                'give each its _id ({"$set": {"_id": …}}), or take it from all ({"$unset": "_id"}):'
                " then each gets a new one, and a second run would add them again"
            )
        return OperationFailed(
            f"{found.keyless:,} of {found.documents:,} documents for {target.namespace(self.to)}"
            f" come without the key {names}: it is missing, null or an array, which $merge refuses",
            hint=hint,
            after="nothing was written.",
        )

    def _shared(self, target: Target, found: Yield) -> OperationFailed:
        names = ", ".join(self.on)
        keys = "one key" if found.shared == 1 else f"{found.shared:,} keys"
        first = ", ".join(f"{_shown(key)} ({times:,} times)" for key, times in found.first)
        return OperationFailed(
            f"{found.sharing:,} of {found.documents:,} documents for {target.namespace(self.to)}"
            f" share {keys} ({names}): of each, one alone would remain",
            notes=(f"for example {names} {first}",),
            hint=f"make {names} differ, or bring those that belong together into one by $group"
            + ('; {"$unset": "_id"} gives each a new one' if self.on == _ID else ""),
            after="nothing was written.",
        )

    def _when_matched(self) -> Any:
        if self.on_match == "keep" and self.on == _ID:
            # Fails where a collation finds a document with another _id, which would be lost.
            return [{"$set": {"_id": "$$new._id"}}]
        return _WHEN_MATCHED[self.on_match]

    def _command(self, query: Document, hint: Document | None) -> Document:
        merge: Document = {
            "into": self.to,
            "whenMatched": self._when_matched(),
            "whenNotMatched": "insert",
        }
        if self.at_home:
            # A document that was deleted meanwhile stays deleted; and in the order of another
            # index one could be met again, at the place that its change gave it.
            merge["whenNotMatched"], hint = "discard", BY_ID
        if self.on != _ID:
            merge["on"] = list(self.on)
        match = [{"$match": query}] if query else []
        stages = [*match, *(self.pipeline or ()), {"$merge": merge}]
        command: Document = {"aggregate": self.collection, "pipeline": stages, "cursor": {}}
        command["allowDiskUse"] = True
        return command | ({"hint": hint} if hint else {})


def _kind(stored: Document | None) -> str:
    """What a collection is; one that is not there yet will be plain."""
    return str((stored or {}).get("type", "collection"))


def _looks_at(target: Target, view: Document | None, collection: str) -> bool:
    """Whether a view shows what stands in a collection."""
    while view is not None and "viewOn" in view.get("options", {}):
        options = view["options"]
        if options["viewOn"] == collection or reads(options.get("pipeline", []), collection):
            return True
        view = stored_collection(target, options["viewOn"])
    return False


def _shown(key: tuple[Any, ...]) -> str:
    return "/".join(shown(part) for part in key)


# -- checks of arguments ----------------------------------------------------------------------


def _checked_stages(pipeline: Iterable[Document]) -> list[Document]:
    stages = [pipeline] if isinstance(pipeline, (dict, str)) else list(pipeline)
    for stage in stages:
        names = list(stage) if isinstance(stage, dict) else []
        if len(names) != 1 or not str(names[0]).startswith("$"):
            raise OperationFailed(
                "each stage of a pipeline is a document with the stage's name",
                hint='pipeline=[{"$set": {"active": True}}]',
            )
        if names[0] in {"$out", "$merge"}:
            raise OperationFailed("copy adds its own $merge: leave $out and $merge out")
    return stages


def _check_at_home(copy: Copy) -> None:
    """A merge into the same collection writes fields that it names, by `_id`, and nothing else."""
    name = copy.collection
    if copy.on_match != "merge" or copy.on != _ID:
        raise OperationFailed(
            f"copy of {name} into itself",
            hint=f'op.merge_into("{name}", "{name}", pipeline=[…, {{"$project": {{"field": …}}}}])'
            " writes fields that a pipeline finds, from other collections too; op.update with a"
            " pipeline those that the document itself gives",
        )
    if copy.flow.key != "own":
        raise OperationFailed(
            f"merge of {name} into itself by a pipeline that does not keep _id",
            hint="it would meet other documents, or none: keep the _id of each in every stage",
        )
    odd = _not_named(copy.pipeline or [])
    if odd:
        raise OperationFailed(
            f"merge of {name} into itself: {odd}",
            hint='end with the fields to be written, each whole and by its first name: {"$project":'
            ' {"total": 1, "address": {"$mergeObjects": ["$address", …]}}}; other fields stay as'
            " the application writes them meanwhile",
        )


def _not_named(stages: list[Document]) -> str:
    """Why the fields that a merge writes are not known by name; or an empty string."""
    last = stages[-1].get("$project") if stages else None
    fields = {name: value for name, value in (last or {}).items() if name != "_id"}
    if not fields or any(
        isinstance(value, (int, float)) and not value for value in fields.values()
    ):
        return "its pipeline does not end with a $project that names what is to be written"
    parts = [name for name, value in fields.items() if "." in name or _is_nested(value)]
    return f"{parts[0]} is a part of a field, whose rest would be lost" if parts else ""


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) and not any(str(name).startswith("$") for name in value)
