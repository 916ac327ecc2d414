"""Verbs for validators: set one after a look at the documents, and drop it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from mongover.errors import InvalidDocuments
from mongover.operations.arguments import check_choice, check_name, one_line, plain, source
from mongover.operations.base import Document, Need, Operation, Outcome, Target
from mongover.operations.collections import missing
from mongover.operations.ddl import ddl, stored_collection
from mongover.operations.duplicates import shown
from mongover.operations.validation import as_validator, left_out_message

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVELS = ("strict", "moderate", "off", "constraint")
ACTIONS = ("error", "warn", "errorAndLog")
_NEWER = frozenset({"constraint", "errorAndLog"})
_FOR_ALL = frozenset({"strict", "constraint"})  # documents that are there already must pass too
_REFUSING = frozenset({"error", "errorAndLog"})
ON_INVALID = ("refuse", "moderate", "warn")
_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class FieldReport:
    """One rule that documents break: what it is, how many break it, and the first `_id`s."""

    rule: str
    count: int
    ids: tuple[Any, ...]

    def text(self) -> str:
        """`missing email: 100 (e.g. _id 0, 1)`."""
        ids = ", ".join(shown(value) for value in self.ids)
        return f"{self.rule}: {self.count:,} (e.g. _id {ids})"


@dataclass(frozen=True, slots=True)
class SetValidator(Operation):
    """The validator of a collection.

    `validator` is a query as collMod takes it (`{"$jsonSchema": ...}`). With `level` strict and
    `action` error the documents are counted first: any that break it would refuse every later
    update. Then `on_invalid` decides: `refuse` raises, `moderate` lets documents that are
    already invalid be updated, `warn` makes the server only log.
    """

    collection: str
    validator: Document
    level: str = "strict"
    action: str = "error"
    on_invalid: str = "refuse"
    left_out: tuple[str, ...] = field(default=(), compare=False)

    verb: ClassVar[str] = "set_validator"
    atomic: ClassVar[bool] = True
    repeatable: ClassVar[bool] = True  # the same validator again is no change
    refusal: ClassVar[str] = "MongoDB cannot set a validator in a transaction"

    @classmethod
    def of(
        cls, collection: str, schema: Any, *, level: str, action: str, on_invalid: str
    ) -> SetValidator:
        """From the arguments of `op.set_validator`, checked."""
        check_name(collection)
        found = as_validator(schema)
        return cls(
            collection,
            found.query,
            left_out=found.left_out,
            level=check_choice("level", level, LEVELS),
            action=check_choice("action", action, ACTIONS),
            on_invalid=check_choice("on_invalid", on_invalid, ON_INVALID),
        )

    @property
    def needs(self) -> tuple[Need, ...]:
        """What its level and action ask for."""
        return ("constraint, errorAndLog",) if {self.level, self.action} & _NEWER else ()

    def describe(self) -> str:
        """`validator on users`."""
        return one_line(f"validator on {self.collection}")

    def apply(self, target: Target) -> Outcome:
        """Look at the documents, then set it; unchanged when it is set already."""
        stored = stored_collection(target, self.collection)
        if stored is None:
            raise missing(target, self.collection)
        options = stored.get("options", {})
        if self.is_set(options):
            return "unchanged"
        decided = self._decided(target)
        if decided.is_set(options):
            return "unchanged"
        ddl(target, {"collMod": self.collection, **decided.as_options()})
        if self.left_out:
            target.journal.warning(
                left_out_message(target.namespace(self.collection), self.left_out)
            )
        self._tell_of_another(target, options)
        return "done"

    def _tell_of_another(self, target: Target, options: Document) -> None:
        """Show the validator that was there before, so that it can be set again."""
        before = options.get("validator")
        if before and before != self.validator:
            text = source(plain(before))
            target.journal.message(
                f"{self.describe()}: it takes the place of the one that was there: {text}"
            )

    def as_options(self) -> Document:
        """As collMod takes them, and as the server lists them."""
        return {
            "validator": self.validator,
            "validationLevel": self.level,
            "validationAction": self.action,
        }

    def is_set(self, options: Document) -> bool:
        """Whether the stored options of the collection are these."""
        stored = {"validationLevel": "strict", "validationAction": "error", **options}
        return all(stored.get(name) == value for name, value in self.as_options().items())

    def _decided(self, target: Target) -> SetValidator:
        """Itself, or what `on_invalid` makes of it."""
        if self.level not in _FOR_ALL or self.action not in _REFUSING:
            return self
        count = target.db[self.collection].count_documents({"$nor": [self.validator]})
        if not count:
            return self
        noun = "document violates" if count == 1 else "documents violate"
        message = f"{count:,} {noun} the new validator of {target.namespace(self.collection)}"
        if self.on_invalid == "refuse":
            raise self._invalid(target, message)
        if self.on_invalid == "moderate":
            target.journal.warning(f"{message}; they may still be updated (moderate)")
            return replace(self, level="moderate")
        target.journal.warning(f"{message}; the server only logs violations (warn)")
        return replace(self, action="warn")

    def _invalid(self, target: Target, message: str) -> InvalidDocuments:
        reports = invalid_by_field(target, self.collection, self.validator)
        return InvalidDocuments(
            message,
            notes=tuple(report.text() for report in reports),
            hint='mend them first, or say on_invalid="moderate" (they stay as they are)'
            ' or on_invalid="warn" (violations are only logged)',
            after="the validator was not set.",
        )


@dataclass(frozen=True, slots=True)
class DropValidator(Operation):
    """A collection accepts every document again."""

    collection: str

    verb: ClassVar[str] = "drop_validator"
    atomic: ClassVar[bool] = True
    repeatable: ClassVar[bool] = True  # what is gone stays gone
    refusal: ClassVar[str] = "MongoDB cannot drop a validator in a transaction"

    def describe(self) -> str:
        """`drop validator on users`."""
        return one_line(f"drop validator on {self.collection}")

    def apply(self, target: Target) -> Outcome:
        """Drop it; unchanged where there is none, or no such collection."""
        stored = stored_collection(target, self.collection)
        if stored is None or not stored.get("options", {}).get("validator"):
            return "unchanged"
        back = {"validator": {}, "validationLevel": "strict", "validationAction": "error"}
        ddl(target, {"collMod": self.collection, **back})
        return "done"


def invalid_by_field(
    target: Target, collection: str, validator: Document
) -> tuple[FieldReport, ...]:
    """Which rules the invalid documents break; one pass, and a few ids of each."""
    rules = field_rules(validator)
    facets: Document = {}
    for number, (_, match) in enumerate(rules):
        facets[f"n{number}"] = [{"$match": match}, {"$count": "n"}]
        samples = [{"$match": match}, {"$limit": _SAMPLES}, {"$project": {"_id": 1}}]
        facets[f"s{number}"] = samples
    pipeline: Sequence[Document] = [{"$match": {"$nor": [validator]}}, {"$facet": facets}]
    reply = next(iter(target.db[collection].aggregate(pipeline, allowDiskUse=True)))
    found = []
    for number, (rule, _) in enumerate(rules):
        if reply[f"n{number}"]:
            ids = tuple(row["_id"] for row in reply[f"s{number}"])
            found.append(FieldReport(rule, reply[f"n{number}"][0]["n"], ids))
    return tuple(found)


def field_rules(validator: Document) -> list[tuple[str, Document]]:
    """The validator taken apart: the name of each rule, and a query for what breaks it.

    The last rule catches what the others do not name, so that no document goes unreported.
    """
    schema = validator.get("$jsonSchema", {})
    rules = [
        (f"missing {name}", _breaks({"required": [name]})) for name in schema.get("required", [])
    ]
    properties = schema.get("properties", {})
    rules += [
        (f"bad {name}", _breaks({"properties": {name: rule}}))
        for name, rule in properties.items()
        if rule
    ]
    if schema.get("additionalProperties") is False:
        known: Document = {name: {} for name in properties}
        patterns: Document = {name: {} for name in schema.get("patternProperties", {})}
        closed = {"properties": known, "additionalProperties": False}
        rules.append(("unknown fields", _breaks({**closed, "patternProperties": patterns})))
    others = {"$nor": [match for _, match in rules]} if rules else {}
    return [*rules, ("other rules", others)]


def _breaks(schema: Document) -> Document:
    return {"$nor": [{"$jsonSchema": schema}]}
