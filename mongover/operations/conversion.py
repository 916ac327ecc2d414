"""A field's values converted to another type, on the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mongover.errors import OperationFailed
from mongover.operations.arguments import check_choice, check_name, check_path, one_line
from mongover.operations.base import Document, Operation, Outcome, Target
from mongover.operations.bulk.ranges import both
from mongover.operations.bulk.server_side import BulkChange, perform, updating
from mongover.operations.lossless import TYPES, converted
from mongover.operations.paths import put, without
from mongover.operations.reaching import documents, refuse, walked

if TYPE_CHECKING:
    from collections.abc import Callable

    from mongover.operations.bulk.pace import Pace
    from mongover.operations.paths import Path

ON_ERROR = ("refuse", "keep", "null", "unset")
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
    repeatable: ClassVar[bool] = True  # a second time finds no value of another type

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
    def destructive(self) -> bool:
        """Where values are given up."""
        return self.on_error in {"null", "unset"}

    def describe(self) -> str:
        """`convert users.age to int`."""
        return one_line(f"convert {self.collection}.{self.field} to {self.to}")

    def apply(self, target: Target) -> Outcome:
        """Count what cannot be converted, and say so or refuse, then convert the rest."""
        after = "nothing was converted."
        path = walked(target, self.collection, self.field, among=self.filter, after=after)
        self._count(target, path)
        found, stage = self._plainly() if path is None else self._walked(path)
        change = BulkChange(
            self.collection, found, updating(self.collection, [stage]), settles=True
        )
        outcome = perform(self, target, change, self.pace)
        if outcome == "unchanged":
            self._tell_of_arrays(target)
        return outcome

    def _tell_of_arrays(self, target: Target) -> None:
        """What was perhaps meant, and is not done, is said."""
        other = {"$elemMatch": {"$not": {"$type": [self.to, "null"]}}}
        found = target.db[self.collection].count_documents(both(self.filter, {self.field: other}))
        if found:
            target.journal.message(
                f"{documents(found, 'keeps', 'keep')} an array at "
                f"{target.namespace(self.collection)}.{self.field}: the elements of an array in "
                "the place of the value are not converted (op.update with a pipeline can)"
            )

    # -- where no array stands on the path ------------------------------------------------------

    def _plainly(self) -> tuple[Document, Document]:
        gives_up = self.on_error in {"null", "unset"}
        found = self._other if gives_up else both(self._other, self._can(known=False))
        return found, {"$set": self._set()}

    @property
    def _other(self) -> Document:
        """The documents whose value has another type, is not null and no array."""
        other = {self.field: {"$exists": True, "$not": {"$type": [self.to, "null", "array"]}}}
        # Through an array of documents a path gives an array, which is left alone too.
        single = {"$expr": {"$not": [{"$isArray": [f"${self.field}"]}]}}
        return both(both(self.filter, other), single)

    def _can(self, *, known: bool) -> Document:
        """The query for values that can (or, `known`, cannot) be converted."""
        lost = self._lost(f"${self.field}")
        return {"$expr": lost if known else {"$not": [lost]}}

    def _set(self) -> Document:
        converted = self._converted(f"${self.field}")
        if self.on_error != "unset":
            return {self.field: converted}
        lost = {"$cond": [{"$eq": ["$$v", None]}, "$$REMOVE", "$$v"]}
        return {self.field: {"$let": {"vars": {"v": converted}, "in": lost}}}

    # -- through arrays -----------------------------------------------------------------------

    def _walked(self, path: Path) -> tuple[Document, Document]:
        gives_up = self.on_error in {"null", "unset"}

        def wanted(place: str) -> Any:
            value = f"{place}.{path.leaf}"
            return self._differs(value) if gives_up else self._able(value)

        return both(self.filter, path.somewhere(wanted)), path.changed(self._at(path.leaf))

    def _at(self, name: str) -> Callable[[str], Any]:
        """What becomes of a place whose field has that name."""

        def at(place: str) -> Any:
            value = f"{place}.{name}"
            converted = self._converted(value)
            if self.on_error != "null":
                converted = {"$ifNull": [converted, value]}
            done = put(place, name, {"$cond": [self._differs(value), converted, value]})
            if self.on_error != "unset":
                return done
            return {"$cond": [self._unable(value), without(place, name), done]}

        return at

    def _able(self, value: Any) -> Any:
        return {"$and": [self._differs(value), {"$not": [self._lost(value)]}]}

    def _unable(self, value: Any) -> Any:
        return {"$and": [self._differs(value), self._lost(value)]}

    def _differs(self, value: Any) -> Any:
        """Whether a value has another type, is not null and no array; an expression."""
        same = [self.to, "null", "undefined", "missing", "array"]
        return {"$not": [{"$in": [{"$type": value}, same]}]}

    # -- one value ----------------------------------------------------------------------------

    def _converted(self, value: Any) -> Document:
        """The expression for a value converted; null where it cannot be, or would lose."""
        return converted(value, self.to, form=self.format, timezone=self.timezone)

    def _lost(self, value: Any) -> Document:
        """Whether a value cannot be converted; an expression."""
        return {"$eq": [self._converted(value), {"$literal": None}]}

    def _count(self, target: Target, path: Path | None) -> None:
        bad = self._bad(path)
        if self.on_error != "refuse":
            count = target.db[self.collection].count_documents(bad)
            if count:
                end = _ENDS[self.on_error]
                target.journal.message(one_line(f"{self._cannot(target, count, path)}: {end}"))
            return
        refuse(
            target,
            self.collection,
            bad,
            message=lambda count: self._cannot(target, count, path),
            hint=self._hint(),
            after="nothing was converted.",
        )

    def _bad(self, path: Path | None) -> Document:
        """The documents with a value that cannot be converted."""
        if path is None:
            return both(self._other, self._can(known=True))
        there = path.somewhere(lambda place: self._unable(f"{place}.{path.leaf}"))
        return both(self.filter, there)

    def _cannot(self, target: Target, count: int, path: Path | None) -> str:
        field = f"{target.namespace(self.collection)}.{self.field}"
        what = f"{field} cannot become {self.to} without loss"
        if path is None:
            return f"{count:,} {'value' if count == 1 else 'values'} of {what}"
        holds = "document: values" if count == 1 else "documents: values"
        return f"in {count:,} {holds} of {what}"

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
