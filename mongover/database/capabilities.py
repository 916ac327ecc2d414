"""What the connected server can do, in one value: nothing else compares version numbers.

Most features are known by the version. `probe` asks the server itself where a question changes
nothing: a service that speaks MongoDB's protocol may carry a version and lack what belongs to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Mapping

    Document = dict[str, Any]

Feature = Literal[
    "transactions",
    "time series",
    "$-fields",
    "$setField, $getField",
    "clustered collections",
    "pre-images",
    "change of a capped size",
    "TTL on a plain index",
    "prepareUnique",
    "$$ROOT in $expr",
    "constraint, errorAndLog",
    "search indexes",
    "killSessions",
]
"""What is asked of a server, by the name that people read."""

OLDEST: Final = (4, 4)
"""The first version that can keep a history: the driver speaks to none that is older."""

_ALWAYS: Final = (0, 0)
_SINCE: Final[Mapping[Feature, tuple[int, int]]] = MappingProxyType(
    {
        "transactions": _ALWAYS,
        "time series": (5, 0),
        "$-fields": (5, 0),
        "$setField, $getField": (5, 0),
        "clustered collections": (5, 3),
        "TTL on a plain index": (5, 1),
        "pre-images": (6, 0),
        "change of a capped size": (6, 0),
        "prepareUnique": (6, 0),
        "$$ROOT in $expr": (6, 0),
        "constraint, errorAndLog": (9, 0),
        "search indexes": (99, 0),  # no version has them by itself: a search service beside it does
        "killSessions": _ALWAYS,
    }
)
_MEANS: Final[Mapping[Feature, str]] = MappingProxyType(
    {
        "time series": "time-series collections",
        "$-fields": "fields whose names begin with `$`",
        "$setField, $getField": "$setField, $unsetField and $getField",
        "pre-images": "change-stream pre- and post-images",
        "change of a capped size": "collMod of a capped collection's size",
        "TTL on a plain index": "collMod that makes an index expire documents",
        "prepareUnique": "collMod that makes an index unique",
        "$$ROOT in $expr": "$eq of $$ROOT and a constant in $expr",
        "constraint, errorAndLog": 'validation level "constraint" and action "errorAndLog"',
        "killSessions": "killSessions",
    }
)
_SINGULAR: Final = frozenset(
    {
        "change of a capped size",
        "TTL on a plain index",
        "prepareUnique",
        "$$ROOT in $expr",
        "killSessions",
    }
)
_NO_COMMAND: Final = frozenset({59, 115, 238, 304})  # not found, not supported, not implemented
_NO_OPERATOR: Final = frozenset({168, 31325, 16409})
_NO_STAGE: Final = frozenset({40324, 31082, 6047400, 6047401, 115})
_NOWHERE: Final = "mongover_probe"  # a collection that is never made: reading it asks nothing


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server can do.

    Attributes:
        version: As the server says it.
        topology: `standalone`, `replica set`, `sharded`, or `in memory`.
        probed: What the server was asked itself; it counts before what its version tells.
    """

    version: str
    topology: str
    probed: Mapping[Feature, bool] = field(default_factory=dict)

    @property
    def supported(self) -> bool:
        """Whether mongover can work with it."""
        return self._number >= OLDEST

    @property
    def transactions(self) -> bool:
        """Whether it has transactions."""
        return self.has("transactions")

    @property
    def sharded(self) -> bool:
        """Whether routers stand before it."""
        return self.topology == "sharded"

    @property
    def _number(self) -> tuple[int, int]:
        found = re.match(r"(\d+)\.(\d+)", self.version)
        return (int(found[1]), int(found[2])) if found else _ALWAYS

    def has(self, feature: Feature, /) -> bool:
        """Whether it can do it."""
        if feature in self.probed:
            return self.probed[feature]
        if feature == "transactions":
            return self.topology in {"replica set", "sharded"}
        return self._number >= _SINCE[feature]

    def lacks(self, feature: Feature, /) -> str:
        """Why it cannot do it, with the version that can; empty where it can."""
        if self.has(feature):
            return ""
        return f"MongoDB {self.version} has no {_MEANS.get(feature, feature)}{self._way(feature)}"

    def _way(self, feature: Feature) -> str:
        since = _SINCE[feature]
        if self._number < since < _SINCE["search indexes"]:
            comes = "it comes" if feature in _SINGULAR else "they come"
            return f": {comes} with {since[0]}.{since[1]}"
        if feature == "transactions" and self.topology == "standalone":
            return " as a standalone: a replica set has them, also one of a single node"
        if feature == "search indexes":
            return ": they come with a search service beside the server"
        return ", although its version should: it is another server that speaks its protocol"

    def table(self) -> tuple[tuple[Feature, bool, str], ...]:
        """Every feature, whether it is there, and how that is known or when it comes."""
        return tuple((name, self.has(name), self._note(name)) for name in _SINCE)

    def _note(self, feature: Feature) -> str:
        if not self.has(feature):
            return f"no{self._way(feature)}"
        return "yes, asked" if feature in self.probed else "yes"


def probe(capabilities: Capabilities, database: Any) -> Capabilities:
    """The value with what the server itself says; every question leaves all as it is.

    Args:
        capabilities: What the version and the topology tell.
        database: The pymongo database to ask in.

    Raises:
        PyMongoError: the server does not answer.
    """
    field_now = {"$getField": {"field": {"$literal": "a"}, "input": "$$ROOT"}}
    fields: Document = {"$project": {"a": field_now}}
    root: Document = {"$match": {"$expr": {"$eq": ["$$ROOT", {"$literal": {}}]}}}
    found: dict[Feature, bool | None] = {
        "$setField, $getField": _reads(database, fields, _NO_OPERATOR),
        "$$ROOT in $expr": _reads(database, root, _NO_OPERATOR),
        "search indexes": _reads(database, {"$listSearchIndexes": {}}, _NO_STAGE),
        "killSessions": _kills(database),
    }
    known = {name: answer for name, answer in found.items() if answer is not None}
    return replace(capabilities, probed={**capabilities.probed, **known})


def _reads(database: Any, stage: Document, refusals: frozenset[int]) -> bool | None:
    """Whether the server reads a stage; None where it does not say."""
    from pymongo.errors import OperationFailure

    try:
        list(database[_NOWHERE].aggregate([stage]))
    except OperationFailure as error:
        return False if error.code in refusals else None
    return True


def _kills(database: Any) -> bool | None:
    """Whether sessions can be ended: asked with the id of one that nobody has."""
    from bson import Binary
    from pymongo.errors import OperationFailure

    nobody = {"id": Binary.from_uuid(uuid4())}
    try:
        database.client.admin.command({"killSessions": [nobody]})
    except OperationFailure as error:
        return False if error.code in _NO_COMMAND else None
    return True
