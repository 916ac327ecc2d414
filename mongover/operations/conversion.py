"""A field's values converted to another type, on the server."""

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
    check_path,
    one_line,
)
from mongover.operations.duplicates import shown
from mongover.operations.lossless import TYPES, converted
from mongover.operations.ranges import both
from mongover.operations.serverside import Change, perform, updating

if TYPE_CHECKING:
    from mongover.operations.pace import Pace

ON_ERROR = ("refuse", "keep", "null", "unset")
_SAMPLES = 3
_ENDS = {"keep": "left as before", "null": "given up for null", "unset": "given up"}


@dataclass(frozen=True, slots=True)
class ConvertField(Operation):
    """The values of a field become another type; null and missing ones stay as they are.

    A value that would lose something cannot be converted. Of those that cannot, `refuse` raises
    before anything is changed, `keep` leaves them, `null` and `unset` give them up.
    """

    collection: str
    field: str
    to: str
    on_error: str = "refuse"
    filter: Document | None = None
    format: str = ""
    timezone: str = ""
    pace: Pace | None = None

    verb: ClassVar[str] = "convert_field"

    @classmethod
    def of(cls, collection: str, field: str, to: str, *, on_error: str, **options: Any) -> Any:
        """From the arguments of `op.convert_field`, checked."""
        check_choice("to", to, TYPES)
        check_choice("on_error", on_error, ON_ERROR)
        if check_path(field) == "_id":
            raise OperationFailed("_id cannot be converted: no document can change its own")
        for option in ("format", "timezone"):
            _check_reading(option, options[option], to)
        return cls(check_name(collection), field, to, on_error, **options)

    @property
    def repeatable(self) -> bool:
        """A second time finds no value of another type."""
        return True

    def describe(self) -> str:
        """`convert users.age to int`."""
        return one_line(f"convert {self.collection}.{self.field} to {self.to}")

    def apply(self, target: Target) -> Outcome:
        """Count what cannot be converted, and say so or refuse, then convert the rest."""
        self._count(target)
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
        return converted(f"${self.field}", self.to, form=self.format, timezone=self.timezone)

    def _can(self, *, known: bool) -> Document:
        """The query for values that can (or, `known`, cannot) be converted."""
        operator = "$eq" if known else "$ne"
        return {"$expr": {operator: [self._converted(), {"$literal": None}]}}

    def _set(self) -> Document:
        if self.on_error != "unset":
            return {self.field: self._converted()}
        lost = {"$cond": [{"$eq": ["$$v", None]}, "$$REMOVE", "$$v"]}
        return {self.field: {"$let": {"vars": {"v": self._converted()}, "in": lost}}}

    def _count(self, target: Target) -> None:
        bad = both(self._other, self._can(known=True))
        collection = target.db[self.collection]
        ids = [row["_id"] for row in collection.find(bad, {"_id": 1}).limit(_SAMPLES)]
        if not ids:
            return
        count = collection.count_documents(bad)
        noun = "value" if count == 1 else "values"
        what = (
            f"{count:,} {noun} of {target.namespace(self.collection)}.{self.field} cannot become "
            f"{self.to} without loss"
        )
        if self.on_error != "refuse":
            target.journal.message(one_line(f"{what}: {_ENDS[self.on_error]}"))
            return
        raise OperationFailed(
            what,
            notes=(f"for example _id {', '.join(shown(value) for value in ids)}",),
            hint=self._hint(),
            after="nothing was converted.",
        )

    def _hint(self) -> str:
        hint = 'mend them, or say on_error="keep", "null" or "unset"'
        if self.to == "date" and not self.format:
            return f'{hint}; strings in another form than ISO 8601 need format="%d/%m/%Y"'
        return hint


def _check_reading(option: str, value: Any, to: str) -> None:
    """How dates are written: a string, and only where strings become dates."""
    if not isinstance(value, str):
        raise OperationFailed(f"{option} cannot be {value!r}", hint='such as format="%d/%m/%Y"')
    if value and to != "date":
        raise OperationFailed(f"{option} tells how dates are written: it needs to='date'")
