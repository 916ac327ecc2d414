"""Documents copied on the server into another collection, in ranges of `_id`, by `$merge`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mongover.errors import OperationFailed
from mongover.operations.base import (
    Document,
    Operation,
    Outcome,
    Target,
    check_choice,
    check_name,
    one_line,
)
from mongover.operations.ranges import both
from mongover.operations.serverside import Change, perform

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mongover.operations.pace import Pace

ON_MATCH = ("replace", "merge", "keep", "fail")
_WHEN_MATCHED = {"replace": "replace", "merge": "merge", "keep": "keepExisting", "fail": "fail"}


@dataclass(frozen=True, slots=True)
class Copy(Operation):
    """The documents of a filter, changed by a pipeline, put into another collection.

    A document of `to` that has the same key (`on`) is treated as `on_match` says. The pipeline
    sees the documents of one range at a time, so it must treat each by itself, unless
    `whole` says that all of them are needed at once (`$group`): then it is one command.
    """

    collection: str
    to: str
    pipeline: list[Document] | None = None
    filter: Document | None = None
    on: tuple[str, ...] = ("_id",)
    on_match: str = "replace"
    whole: bool = False
    pace: Pace | None = None

    verb: ClassVar[str] = "copy"

    @classmethod
    def of(
        cls,
        collection: str,
        to: str,
        *,
        pipeline: list[Document] | None,
        on: str | Iterable[str],
        on_match: str,
        **options: Any,
    ) -> Copy:
        """From the arguments of `op.copy`, checked."""
        if check_name(collection) == check_name(to):
            raise OperationFailed(f"copy of {collection} into itself", hint="op.update changes it")
        check_choice("on_match", on_match, ON_MATCH)
        stages = None if pipeline is None else list(pipeline)
        for stage in stages or ():
            if {"$out", "$merge"} & stage.keys():
                raise OperationFailed("copy adds its own $merge: leave $out and $merge out")
        keys = (on,) if isinstance(on, str) else tuple(on)
        return cls(collection, to, stages, on=keys, on_match=on_match, **options)

    @property
    def repeatable(self) -> bool:
        """The same documents again end as they were; `fail` would meet its own."""
        return self.on_match != "fail"

    @property
    def collections(self) -> tuple[str, ...]:
        """Both."""
        return (self.collection, self.to)

    @property
    def destructive(self) -> bool:
        """Unless what is there is kept."""
        return self.on_match not in {"keep", "fail"}

    def describe(self) -> str:
        """`copy users into people`."""
        return one_line(f"copy {self.collection} into {self.to}")

    def refused(self, target: Target) -> str:
        """The server refuses `$merge`."""
        del target
        return "MongoDB cannot copy with $merge in a transaction"

    def apply(self, target: Target) -> Outcome:
        """One aggregation for few documents or a whole pipeline, one per range for many."""
        change = Change(
            self.collection,
            self.filter,
            self._command,
            single=self.whole,
            transactional=False,
        )
        return perform(self, target, change, self.pace)

    def _command(self, query: Document, hint: Document | None) -> Document:
        merge: Document = {
            "into": self.to,
            "whenMatched": _WHEN_MATCHED[self.on_match],
            "whenNotMatched": "insert",
        }
        if self.on != ("_id",):
            merge["on"] = list(self.on)
        match = [{"$match": both(query, None)}] if query else []
        stages = [*match, *(self.pipeline or ()), {"$merge": merge}]
        command: Document = {"aggregate": self.collection, "pipeline": stages, "cursor": {}}
        command["allowDiskUse"] = True
        return command | ({"hint": hint} if hint else {})
