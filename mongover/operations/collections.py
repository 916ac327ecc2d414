"""Verbs for collections and views: create, drop, rename, modify."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from mongover.errors import OperationConflict, OperationFailed
from mongover.operations.arguments import (
    check_choice,
    check_name,
    mongo_options,
    one_line,
    plain,
    snake,
    source,
    spellings,
)
from mongover.operations.base import Document, Operation, Outcome, Target
from mongover.operations.ddl import ddl, stored_collection
from mongover.operations.validation import as_validator, left_out_message, same_validator
from mongover.operations.views import repoint, warn_of_readers

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMESPACE_NOT_FOUND = 26
NAMESPACE_EXISTS = 48
MISSING = ("refuse", "skip")


class CollectionOptions(TypedDict, total=False):
    """Options of `create_collection`; MongoDB's own spelling (`validationLevel`) works too."""

    validator: Any
    validation_level: str
    validation_action: str
    capped: bool
    size: int
    max: int
    timeseries: Document
    clustered_index: Document | bool
    collation: Any
    expire_after_seconds: int
    change_stream_pre_and_post_images: Document | bool
    storage_engine: Document
    index_option_defaults: Document
    encrypted_fields: Document


class ModifyOptions(TypedDict, total=False):
    """Options of `modify_collection`; MongoDB's own spelling works too."""

    expire_after_seconds: int | str
    timeseries: Document
    capped_size: int
    capped_max: int
    change_stream_pre_and_post_images: Document | bool
    view_on: str
    pipeline: list[Document]


CREATE_OPTIONS = spellings(
    (
        "validator",
        "validationLevel",
        "validationAction",
        "capped",
        "size",
        "max",
        "timeseries",
        "clusteredIndex",
        "collation",
        "expireAfterSeconds",
        "changeStreamPreAndPostImages",
        "storageEngine",
        "indexOptionDefaults",
        "encryptedFields",
    )
)
MODIFY_OPTIONS = spellings(
    (
        "expireAfterSeconds",
        "timeseries",
        "cappedSize",
        "cappedMax",
        "changeStreamPreAndPostImages",
        "viewOn",
        "pipeline",
    )
)
_STORED_AS = {"cappedSize": "size", "cappedMax": "max"}
_MAY_CHANGE = frozenset(
    {
        "validator",
        "validationLevel",
        "validationAction",
        "expireAfterSeconds",
        "changeStreamPreAndPostImages",
    }
)
_COLLATION_DEFAULTS: Mapping[str, Any] = {
    "caseLevel": False,
    "strength": 3,
    "numericOrdering": False,
    "maxVariable": "punct",
}
_SIZE_UNIT = 256


@dataclass(frozen=True, slots=True)
class CreateCollection(Operation):
    """A collection with its options, by MongoDB's names."""

    collection: str
    options: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = field(default=(), compare=False)

    verb: ClassVar[str] = "create_collection"
    creation: ClassVar[bool] = True
    atomic: ClassVar[bool] = True

    @classmethod
    def of(cls, collection: str, options: Mapping[str, Any]) -> CreateCollection:
        """From the arguments of `op.create_collection`, checked."""
        check_name(collection)
        found = mongo_options(options, known=CREATE_OPTIONS, what="create_collection")
        found = {name: _full(name, value) for name, value in found.items()}
        _check_kinds(collection, found)
        if not found.get("validator"):
            return cls(collection, found)
        validator = as_validator(found["validator"], queries=True)
        return cls(collection, {**found, "validator": validator.query}, validator.left_out)

    @property
    def repeatable(self) -> bool:
        """It creates nothing twice."""
        return True

    def describe(self) -> str:
        """`collection users`, with its kind."""
        kinds = {"timeseries": "time series", "capped": "capped", "clusteredIndex": "clustered"}
        kind = next((f" {text}" for name, text in kinds.items() if self.options.get(name)), "")
        return one_line(f"collection {self.collection}{kind}")

    def arguments(self) -> tuple[list[Any], Mapping[str, Any]]:
        """The options in Python's spelling."""
        return [self.collection], {snake(name): value for name, value in self.options.items()}

    def reverse(self) -> Operation:
        """Drop it."""
        return DropCollection(self.collection)

    def refused(self, target: Target) -> str:
        """Time series cannot be created in a transaction, except where they exist already."""
        if "timeseries" not in self.options or stored_collection(target, self.collection):
            return ""
        return "MongoDB cannot create a time-series collection in a transaction"

    def apply(self, target: Target) -> Outcome:
        """Create it, or compare it with what has its name."""
        if target.transaction:
            # The server's own answer to an existing name would end the transaction.
            stored = stored_collection(target, self.collection)
            if stored is not None:
                return self._compared(target, stored)
        return self._create(target)

    def _create(self, target: Target) -> Outcome:
        from pymongo.errors import OperationFailure

        try:
            ddl(target, {"create": self.collection, **self.options})
        except OperationFailure as error:
            if error.code != NAMESPACE_EXISTS or target.transaction:
                raise
            stored = stored_collection(target, self.collection)
            if stored is None:
                raise
            return self._compared(target, stored, cause=error)
        target.created.add(self.collection)
        if self.left_out:
            target.journal.warning(
                left_out_message(target.namespace(self.collection), self.left_out)
            )
        return "done"

    def _compared(
        self, target: Target, stored: Document, *, cause: Exception | None = None
    ) -> Outcome:
        if same_collection(self.options, stored):
            return "unchanged"
        raise OperationConflict(
            f"{target.namespace(self.collection)} exists with another definition",
            notes=(
                f"wanted: {_definition('collection', self.options)}",
                f"exists: {_definition(stored['type'], stored.get('options', {}))}",
            ),
            hint="write a revision that changes or drops it, or ask for what is there",
        ) from cause


@dataclass(frozen=True, slots=True)
class CreateView(Operation):
    """A read-only view: an aggregation over a collection or another view."""

    collection: str
    source: str
    pipeline: list[Document]
    collation: dict[str, Any] | None = None

    verb: ClassVar[str] = "create_view"
    creation: ClassVar[bool] = True
    atomic: ClassVar[bool] = True

    @property
    def repeatable(self) -> bool:
        """It creates nothing twice."""
        return True

    def describe(self) -> str:
        """`view active_users on users`."""
        return one_line(f"view {self.collection} on {self.source}")

    def reverse(self) -> Operation:
        """Drop it."""
        return DropCollection(self.collection)

    def refused(self, target: Target) -> str:
        """The server refuses views in a transaction; one that exists may stay."""
        if stored_collection(target, self.collection):
            return ""
        return "MongoDB cannot create a view in a transaction"

    def apply(self, target: Target) -> Outcome:
        """Create it, or compare it with what has its name."""
        options: dict[str, Any] = {"viewOn": self.source, "pipeline": self.pipeline}
        if self.collation:
            options["collation"] = self.collation
        return CreateCollection(self.collection, options).apply(target)


@dataclass(frozen=True, slots=True)
class DropCollection(Operation):
    """A collection or view, with its documents and indexes, goes.

    A downgrade refuses that for what no revision made, unless `even_if_not_ours` is said.
    `repoint_views` names what the views that read from it read from then; False says that it is
    meant that they find nothing.
    """

    collection: str
    even_if_not_ours: bool = False
    repoint_views: str | bool | None = None

    verb: ClassVar[str] = "drop_collection"
    atomic: ClassVar[bool] = True

    @classmethod
    def of(cls, collection: str, *, even_if_not_ours: bool, repoint_views: Any) -> DropCollection:
        """From the arguments of `op.drop_collection`, checked."""
        check_name(collection)
        if repoint_views is True or repoint_views == collection:
            raise OperationFailed(
                "drop_collection: the views need something else to read from",
                hint='name it: repoint_views="people"',
            )
        if isinstance(repoint_views, str):
            check_name(repoint_views)
        return cls(collection, even_if_not_ours, repoint_views)

    @property
    def repeatable(self) -> bool:
        """What is gone stays gone."""
        return True

    @property
    def destructive(self) -> bool:
        """Its documents are gone."""
        return True

    @property
    def several(self) -> bool:
        """Its views are repointed before it."""
        return bool(self.repoint_views)

    def proof(self, target: Target) -> Mapping[str, Any]:
        """Which collection has the name, if any: each has a UUID of its own."""
        return {"uuid": identity_of(target, self.collection)}

    def landed(self, target: Target, proof: Mapping[str, Any]) -> bool:
        """Whether that collection is gone; one that was made since is another."""
        now = identity_of(target, self.collection)
        return now is None or now != proof["uuid"]

    def describe(self) -> str:
        """`drop collection users`."""
        return one_line(f"drop collection {self.collection}")

    def refused(self, target: Target) -> str:
        """The server refuses even the drop of what is not there."""
        del target
        return "MongoDB cannot drop a collection in a transaction"

    def apply(self, target: Target) -> Outcome:
        """Drop it; unchanged when it is not there. Its views are repointed before."""
        if isinstance(self.repoint_views, str):
            repoint(target, self.collection, self.repoint_views)
        outcome = self._drop(target)
        if self.repoint_views is None:
            way_out = 'repoint_views="other" makes them read from another one, False means them so'
            warn_of_readers(target, self.collection, why="is dropped", way_out=way_out)
        return outcome

    def _drop(self, target: Target) -> Outcome:
        from pymongo.errors import OperationFailure

        try:
            reply = ddl(target, {"drop": self.collection})
        except OperationFailure as error:
            if error.code != NAMESPACE_NOT_FOUND:
                raise
            return "unchanged"
        # Servers from 7.0 on answer ok for a missing collection, without its namespace.
        return "done" if "ns" in reply else "unchanged"


@dataclass(frozen=True, slots=True)
class RenameCollection(Operation):
    """A collection gets another name in the same database; never over an existing one.

    `missing` says what happens where neither name is there: `refuse`, or `skip` for installations
    that never had it. With `repoint_views` the views that read from it read from the new name;
    False says that it is meant that they do not.
    """

    collection: str
    to: str
    missing: str = "refuse"
    repoint_views: bool | None = None

    verb: ClassVar[str] = "rename_collection"
    atomic: ClassVar[bool] = True

    @classmethod
    def of(
        cls, collection: str, to: str, *, missing: str, repoint_views: bool | None
    ) -> RenameCollection:
        """From the arguments of `op.rename_collection`, checked."""
        if check_name(collection) == check_name(to):
            raise OperationFailed(f"rename_collection: {collection!r} is its name already")
        return cls(collection, to, check_choice("missing", missing, MISSING), repoint_views)

    @property
    def repeatable(self) -> bool:
        """A second time finds the old name gone and the new one there."""
        return True

    @property
    def destructive(self) -> bool:
        """The old name is gone, and may be taken again."""
        return True

    @property
    def several(self) -> bool:
        """Its views are repointed after it."""
        return bool(self.repoint_views)

    def proof(self, target: Target) -> Mapping[str, Any] | None:
        """Which collection has the old name: it keeps its UUID."""
        uuid = identity_of(target, self.collection)
        return {"uuid": uuid} if uuid else None

    def landed(self, target: Target, proof: Mapping[str, Any]) -> bool | None:
        """Whether that collection has the new name; None where it has neither."""
        if identity_of(target, self.to) == proof["uuid"]:
            return not self.several  # its views may still wait
        return False if identity_of(target, self.collection) == proof["uuid"] else None

    @property
    def collections(self) -> tuple[str, ...]:
        """Both names."""
        return (self.collection, self.to)

    def describe(self) -> str:
        """`rename collection users to people`."""
        return one_line(f"rename collection {self.collection} to {self.to}")

    def reverse(self) -> Operation:
        """The way back."""
        return RenameCollection(self.to, self.collection, self.missing, self.repoint_views)

    def refused(self, target: Target) -> str:
        """The server refuses it."""
        del target
        return "MongoDB cannot rename a collection in a transaction"

    def apply(self, target: Target) -> Outcome:
        """Rename it; unchanged when only the new name is there."""
        outcome = self._rename(target)
        if self.repoint_views and repoint(target, self.collection, self.to):
            return "done"
        if self.repoint_views is None:
            way_out = "repoint_views=True makes them read from the new name, False means them so"
            warn_of_readers(target, self.collection, why="is renamed", way_out=way_out)
        return outcome

    def _rename(self, target: Target) -> Outcome:
        from pymongo.errors import OperationFailure

        command = {
            "renameCollection": target.namespace(self.collection),
            "to": target.namespace(self.to),
        }
        try:
            ddl(target, command, admin=True)
        except OperationFailure as error:
            if error.code == NAMESPACE_NOT_FOUND:
                return self._absent(target, error)
            if error.code == NAMESPACE_EXISTS:
                raise self._taken(target) from error
            raise
        return "done"

    def _absent(self, target: Target, error: Exception) -> Outcome:
        if stored_collection(target, self.to):
            return "unchanged"
        if self.missing == "skip":
            target.journal.message(f"{self.describe()}: neither is there, skipped")
            return "unchanged"
        raise OperationFailed(
            f"{target.namespace(self.collection)} cannot become {target.namespace(self.to)}:"
            " neither is there",
            hint='look at the name, or say missing="skip" for databases that never had it',
        ) from error

    def _taken(self, target: Target) -> OperationConflict:
        return OperationConflict(
            f"{target.namespace(self.collection)} cannot become {target.namespace(self.to)}:"
            " both exist",
            hint=f'drop one of them first, or merge them: op.drop_collection("{self.to}")',
        )


@dataclass(frozen=True, slots=True)
class ModifyCollection(Operation):
    """Options of a collection or view that can be changed in place, by MongoDB's names."""

    collection: str
    options: dict[str, Any]

    verb: ClassVar[str] = "modify_collection"
    atomic: ClassVar[bool] = True

    @classmethod
    def of(cls, collection: str, options: Mapping[str, Any]) -> ModifyCollection:
        """From the arguments of `op.modify_collection`, checked."""
        check_name(collection)
        for name in ("validator", "validation_level", "validation_action"):
            if name in options:
                raise OperationFailed(
                    f"modify_collection does not take {name}",
                    hint="op.set_validator looks at the documents first: use that",
                )
        found = mongo_options(options, known=MODIFY_OPTIONS, what="modify_collection")
        if not found:
            raise OperationFailed(
                f"modify_collection({source(collection)}) says nothing to change",
                hint=f"it takes {', '.join(sorted(set(map(snake, MODIFY_OPTIONS))))}",
            )
        return cls(collection, {name: _full(name, value) for name, value in found.items()})

    @property
    def repeatable(self) -> bool:
        """The same value again is no change."""
        return True

    def describe(self) -> str:
        """`modify collection users: cappedSize`."""
        return one_line(f"modify collection {self.collection}: {', '.join(self.options)}")

    def arguments(self) -> tuple[list[Any], Mapping[str, Any]]:
        """The options in Python's spelling."""
        return [self.collection], {snake(name): value for name, value in self.options.items()}

    def refused(self, target: Target) -> str:
        """The server refuses collMod."""
        del target
        return "MongoDB cannot modify a collection in a transaction"

    def apply(self, target: Target) -> Outcome:
        """Change it; unchanged when every option has its value already."""
        stored = stored_collection(target, self.collection)
        if stored is None:
            raise missing(target, self.collection)
        if _contains(stored.get("options", {}), self._as_stored()):
            return "unchanged"
        ddl(target, {"collMod": self.collection, **self.options})
        return "done"

    def _as_stored(self) -> dict[str, Any]:
        options = {_STORED_AS.get(name, name): value for name, value in self.options.items()}
        if options.get("expireAfterSeconds") == "off":
            options["expireAfterSeconds"] = None
        if options.get("changeStreamPreAndPostImages") == {"enabled": False}:
            options["changeStreamPreAndPostImages"] = None
        if options.get("size"):
            options["size"] = _rounded(options["size"])
        return options


def identity_of(target: Target, name: str) -> str | None:
    """By what a collection is known whatever its name; None for one that is not there.

    A view has no UUID: it holds no documents, and is as good as the next of its name.
    """
    stored = stored_collection(target, name)
    if stored is None:
        return None
    if stored["type"] == "timeseries" and "uuid" not in stored.get("info", {}):
        stored = stored_collection(target, f"system.buckets.{name}") or stored
    uuid = stored.get("info", {}).get("uuid")
    return f"{stored['type']} {uuid.hex() if isinstance(uuid, bytes) else uuid or ''}".strip()


def missing(target: Target, collection: str) -> OperationFailed:
    """The error of a verb that needs a collection which is not there."""
    return OperationFailed(
        f"{target.namespace(collection)} does not exist",
        hint=f"create it first: op.create_collection({source(collection)})",
    )


def collation_document(collation: Any) -> dict[str, Any]:
    """A collation as a plain document, from a dict or from pymongo's `Collation`."""
    document = getattr(collation, "document", collation)
    if not isinstance(document, dict) or not isinstance(document.get("locale"), str):
        raise OperationFailed(
            "a collation needs a locale", hint='collation={"locale": "en", "strength": 2}'
        )
    return dict(document)


def same_collection(wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Whether a stored collection has the wanted definition, defaults of the server aside.

    What later verbs may set (validator, expiry, change-stream images) counts only where it is
    wanted, so that a revision that creates and then modifies can be repeated from its start.
    """
    left = _normal(wanted, stored.get("options", {}))
    right = _normal(stored.get("options", {}), stored.get("options", {}))
    right = {
        name: value for name, value in right.items() if name in left or name not in _MAY_CHANGE
    }
    if same_validator(left.get("validator"), right.get("validator")):
        left.pop("validator", None)
        right.pop("validator", None)
    return left == right


def _normal(options: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the server's defaults filled in or taken out, ready to be compared."""
    normal = dict(options)
    if normal.get("collation"):
        normal["collation"] = normal_collation(normal["collation"], stored.get("collation", {}))
    if "timeseries" in normal:
        normal["timeseries"] = _normal_timeseries(normal["timeseries"], stored.get("timeseries"))
    if normal.get("clusteredIndex"):
        normal["clusteredIndex"] = {"v": 2, "name": "_id_", **normal["clusteredIndex"]}
    if normal.get("size"):
        normal["size"] = _rounded(normal["size"])
    if normal.get("changeStreamPreAndPostImages") == {"enabled": False}:
        del normal["changeStreamPreAndPostImages"]
    for name, default in (("validationLevel", "strict"), ("validationAction", "error")):
        if normal.get(name) == default:
            del normal[name]
    return {name: value for name, value in normal.items() if value not in (None, False, {})}


def normal_collation(wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """A wanted collation with all that the server added to the stored one by itself."""
    if wanted.get("locale") == "simple":
        return {}
    # What the locale itself decides (caseFirst, backwards, ...) is taken from the server.
    from_locale = {k: v for k, v in stored.items() if k not in _COLLATION_DEFAULTS}
    return {**from_locale, **_COLLATION_DEFAULTS, **wanted}


def _normal_timeseries(wanted: Mapping[str, Any], stored: Any) -> dict[str, Any]:
    spans = {"bucketMaxSpanSeconds", "bucketRoundingSeconds"}
    found = {k: v for k, v in (stored or {}).items() if k in spans}
    if spans & wanted.keys():
        return {**found, **wanted}
    return {**found, "granularity": "seconds", **wanted}


def _contains(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(
        _contains(stored.get(name) or {}, value)
        if name == "timeseries"
        else stored.get(name) == value
        for name, value in wanted.items()
    )


def _full(name: str, value: Any) -> Any:
    """An option's short forms written out."""
    if name == "collation":
        return collation_document(value)
    if name == "changeStreamPreAndPostImages" and isinstance(value, bool):
        return {"enabled": value}
    if name == "clusteredIndex" and value is True:
        return {"key": {"_id": 1}, "unique": True}
    return value


def _rounded(size: float) -> int:
    return -(-int(size) // _SIZE_UNIT) * _SIZE_UNIT


def _check_kinds(collection: str, options: Mapping[str, Any]) -> None:
    kinds = [name for name in ("timeseries", "capped", "clusteredIndex") if options.get(name)]
    if len(kinds) > 1:
        raise OperationFailed(f"{collection} cannot be {' and '.join(kinds)} at once")
    if options.get("capped") and not options.get("size"):
        raise OperationFailed(
            f"the capped collection {collection} needs a size", hint="size=16 * 1024 * 1024"
        )
    if not options.get("capped") and ("size" in options or "max" in options):
        raise OperationFailed(f"{collection} has a size without being capped", hint="capped=True")
    if "expireAfterSeconds" in options and not {"timeseries", "clusteredIndex"} & set(kinds):
        raise OperationFailed(
            f"{collection} cannot expire as a plain collection",
            hint='use an index: op.create_index(name, "createdAt", expire_after_seconds=3600)',
        )
    if "timeseries" in options and "timeField" not in (options["timeseries"] or {}):
        raise OperationFailed(
            f"the time series {collection} needs a timeField",
            hint='timeseries={"timeField": "at", "metaField": "sensor"}',
        )


def _definition(kind: str, options: Mapping[str, Any]) -> str:
    kind = "view" if "viewOn" in options else kind
    kind = "time series" if "timeseries" in options else kind
    return f"{kind} {source(plain(dict(options)))}" if options else f"{kind} without options"
