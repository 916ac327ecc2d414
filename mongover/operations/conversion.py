"""A field's values converted to another type, on the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mongover.errors import OperationFailed
from mongover.operations.arguments import check_choice, check_name, check_path, one_line
from mongover.operations.base import Document, Operation, Outcome, Target
from mongover.operations.bulk.ranges import both
from mongover.operations.bulk.server_side import Change, perform, updating
from mongover.operations.duplicates import shown

if TYPE_CHECKING:
    from mongover.operations.bulk.pace import Pace

TYPES = ("double", "string", "objectId", "bool", "date", "int", "long", "decimal")
ON_ERROR = ("refuse", "keep", "null", "unset")
_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class ConvertField(Operation):
    """The values of a field become another type; null and missing ones stay as they are.

    Values that cannot be converted: `refuse` raises before anything is changed, `keep` leaves
    them, `null` and `unset` give them up.
    """

    collection: str
    field: str
    to: str
    on_error: str = "refuse"
    filter: Document | None = None
    pace: Pace | None = None

    verb: ClassVar[str] = "convert_field"

    @classmethod
    def of(cls, collection: str, field: str, to: str, *, on_error: str, **options: Any) -> Any:
        """From the arguments of `op.convert_field`, checked."""
        check_choice("to", to, TYPES)
        check_choice("on_error", on_error, ON_ERROR)
        if check_path(field) == "_id":
            raise OperationFailed("_id cannot be converted: no document can change its own")
        return cls(check_name(collection), field, to, on_error, **options)

    @property
    def repeatable(self) -> bool:
        """A second time finds no value of another type."""
        return True

    @property
    def destructive(self) -> bool:
        """Where values are given up."""
        return self.on_error in {"null", "unset"}

    def describe(self) -> str:
        """`convert users.age to int`."""
        return one_line(f"convert {self.collection}.{self.field} to {self.to}")

    def apply(self, target: Target) -> Outcome:
        """Count what cannot be converted where that matters, then convert the rest."""
        if self.on_error == "refuse":
            self._check(target)
        convertible = self._can(known=False)
        wanted = (
            self._other if self.on_error in {"null", "unset"} else both(self._other, convertible)
        )
        change = Change(
            self.collection,
            wanted,
            updating(self.collection, [{"$set": self._set()}]),
            settles=True,
        )
        return perform(self, target, change, self.pace)

    @property
    def _other(self) -> Document:
        """The documents whose value has another type, is not null and no array."""
        other = {self.field: {"$exists": True, "$not": {"$type": [self.to, "null", "array"]}}}
        # Through an array of documents a path gives an array, which is left alone too.
        single = {"$expr": {"$not": [{"$isArray": [f"${self.field}"]}]}}
        return both(both(self.filter, other), single)

    def _converted(self) -> Document:
        return {
            "$convert": {
                "input": f"${self.field}",
                "to": self.to,
                "onError": {"$literal": None},
                "onNull": {"$literal": None},
            }
        }

    def _can(self, *, known: bool) -> Document:
        """The query for values that can (or, `known`, cannot) be converted."""
        operator = "$eq" if known else "$ne"
        return {"$expr": {operator: [self._converted(), {"$literal": None}]}}

    def _set(self) -> Document:
        if self.on_error != "unset":
            return {self.field: self._converted()}
        lost = {"$cond": [{"$eq": ["$$v", None]}, "$$REMOVE", "$$v"]}
        return {self.field: {"$let": {"vars": {"v": self._converted()}, "in": lost}}}

    def _check(self, target: Target) -> None:
        bad = both(self._other, self._can(known=True))
        collection = target.db[self.collection]
        ids = [row["_id"] for row in collection.find(bad, {"_id": 1}).limit(_SAMPLES)]
        if not ids:
            return
        count = collection.count_documents(bad)
        noun = "value" if count == 1 else "values"
        raise OperationFailed(
            f"{count:,} {noun} of {target.namespace(self.collection)}.{self.field} cannot become "
            f"{self.to}",
            notes=(f"for example _id {', '.join(shown(value) for value in ids)}",),
            hint='mend them, or say on_error="keep", "null" or "unset"',
            after="nothing was converted.",
        )
