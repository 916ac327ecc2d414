"""Reading the documents of a transform: in groups over the wire, ahead of what is written."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mongover.operations.bulk.ranges import BY_ID, between, both, exact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bson.codec_options import CodecOptions
    from pymongo.client_session import ClientSession
    from pymongo.collection import Collection
    from pymongo.database import Database

    from mongover.operations.base import Document
    from mongover.operations.bulk.checkpoints import Span
    from mongover.operations.bulk.ranges import Bound
    from mongover.operations.bulk.statements import Item

GROUP: Final = 500
_CONNECTIONS: Final = 2  # for a checkpoint and a heartbeat
_PAGE: Final = 100
_PAGE_BYTES: Final = 128 * 1024


def options_of(db: Database[Any]) -> CodecOptions[Document]:
    """How documents of a database are decoded: so that they come back as they were sent."""
    return exact(db.codec_options).with_options(tz_aware=db.codec_options.tz_aware)


class Page:
    """A few documents in a row, decoded together.

    Attributes:
        raws: The documents in BSON.
        given: The same for the function, which may change them; of one that cannot be decoded,
            what is readable of it.
        errors: Why documents cannot be decoded, by their place.
    """

    def __init__(self, raws: Sequence[bytes], options: CodecOptions[Document]) -> None:
        self.raws = raws
        self._options = options
        self._before: list[Document] | None = None
        self._odd = False
        self.errors: dict[int, Exception] = {}
        self.given = self._decoded()

    def before(self, place: int) -> Document:
        """One of them again, as it was read: a function may have changed what it was given."""
        if self._before is None:
            self._before = self._decoded()
            self._odd = self._is_odd(self._before)
        return self._before[place]

    def check(self, place: int) -> None:
        """Raise why a document cannot be decoded."""
        if place in self.errors:
            raise self.errors[place]

    def odd(self, place: int) -> bool:
        """Whether one does not come back as it was when it is encoded: a field is there twice."""
        before = self.before(place)
        return self._odd and len(encoded(before)) != len(self.raws[place])

    def _is_odd(self, documents: list[Document]) -> bool:
        around = len(encoded({"": [None] * len(documents)}))  # null has no bytes of its own
        return len(encoded({"": documents})) - around != sum(map(len, self.raws))

    def _decoded(self) -> list[Document]:
        from bson import decode_all
        from bson.errors import BSONError

        try:
            return decode_all(b"".join(self.raws), self._options)
        except BSONError:
            return [self._one(place) for place in range(len(self.raws))]

    def _one(self, place: int) -> Document:
        from bson import decode
        from bson.errors import BSONError

        try:
            return decode(self.raws[place], self._options)
        except BSONError as error:
            self.errors[place] = error
            readable = self._options.with_options(unicode_decode_error_handler="replace")
            return decode(self.raws[place], readable)


def encoded(document: Document) -> bytes:
    """A document in BSON."""
    from bson import encode

    return encode(document)


class Found(NamedTuple):
    """One document that was read: `given` is for the function, which may change it."""

    given: Document
    raw: bytes
    page: Page
    place: int

    @property
    def before(self) -> Document:
        """The document as it was read."""
        return self.page.before(self.place)


def found_in(data: bytes, options: CodecOptions[Document]) -> Iterator[Found]:
    """The documents that stand one after another in a piece of BSON."""
    for raws in _cut(data):
        page = Page(raws, options)
        for place, raw in enumerate(raws):
            given = page.given[place]
            page.given[place] = {}  # what a function makes of it lives no longer than it must
            yield Found(given, raw, page, place)


def _cut(data: bytes) -> Iterator[list[bytes]]:
    raws: list[bytes] = []
    start = end = 0
    while end < len(data):
        size = int.from_bytes(data[end : end + 4], "little")
        raws.append(data[end : end + size])
        end += size
        if len(raws) == _PAGE or end - start > _PAGE_BYTES:
            yield raws
            raws, start = [], end
    if raws:
        yield raws


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the documents of a span as they are, in the order of `_id`.

    Attributes:
        collection: Where.
        filter: Which of them.
        fields: The only ones that are wanted; none: all.
        options: How they are decoded.
    """

    collection: Collection[Any]
    filter: Document | None
    fields: tuple[str, ...]
    options: CodecOptions[Document]

    def once(self, session: ClientSession | None, span: Span, size: int) -> Iterator[Found]:
        """At most `size` documents; a cursor that is gone is an error."""
        return self._found(session, span.low, span.high, limit=size)

    def on_and_on(self, span: Span) -> Iterator[Found]:
        """All documents; a cursor that is gone (a long pause) is opened again."""
        from pymongo import CursorType
        from pymongo.errors import CursorNotFound

        # The server sends on without being asked, while this process computes; that takes a
        # connection as long as it lasts.
        most = self.collection.database.client.options.pool_options.max_pool_size
        roomy = most is None or most > _CONNECTIONS
        kind = CursorType.EXHAUST if roomy else CursorType.NON_TAILABLE
        low: Bound = span.low
        last: Found | None = None
        while True:
            try:
                for found in self._found(None, low, span.high, cursor_type=kind):
                    last = found
                    yield found
            except CursorNotFound:
                low = low if last is None else [last.before["_id"]]
                continue
            return

    def these(self, keys: Sequence[Any]) -> Iterator[Found]:
        """Those of these documents that the filter finds, whole, in any order."""
        query = both({"_id": {"$in": list(keys)}}, self.filter)
        return self._all(self.collection.find_raw_batches(query))

    def found_by(self, stages: Sequence[Document]) -> Iterator[Found]:
        """Those that an aggregation finds."""
        return self._all(self.collection.aggregate_raw_batches(stages))

    def _found(
        self, session: ClientSession | None, low: Bound, high: Bound, **how: Any
    ) -> Iterator[Found]:
        query = both(between(low, high), self.filter)
        projection = dict.fromkeys(("_id", *self.fields), 1) if self.fields else None
        hint = None if self.filter else BY_ID
        batches = self.collection.find_raw_batches(
            query, projection, session=session, batch_size=GROUP, hint=hint, **how
        )
        return self._all(batches.sort("_id", 1))

    def _all(self, batches: Any) -> Iterator[Found]:
        with batches as cursor:
            for data in cursor:
                yield from found_in(data, self.options)


class Stream:
    """The items of a span one after another; some are computed before they are asked for."""

    def __init__(self, items: Iterator[Item], span: Span) -> None:
        self._items = items
        self._ready: deque[Item] = deque()
        self._error: Exception | None = None
        self._span = span
        self._last: Item | None = None

    def continues(self, span: Span) -> bool:
        """Whether the next item is the first of what is left of this span."""
        low = self._span.low if self._last is None else [self._last.key]
        return self._span.key == span.key and low == span.low

    def next(self) -> Item | None:
        """The next item; None at the end.

        Raises:
            Exception: what computing it raised, now or when it was computed ahead.
        """
        if self._ready:
            item: Item | None = self._ready.popleft()
        elif self._error is not None:
            raise self._error
        else:
            item = next(self._items, None)
        if item is not None:
            self._last = item
        return item

    def ahead(self, most: int) -> bool:
        """Compute one more item for later; False when there is none, or enough of them."""
        if len(self._ready) >= most or self._error is not None:
            return False
        try:
            item = next(self._items, None)
        except Exception as error:  # noqa: BLE001 - it is raised where the item is asked for
            self._error = error
            return False
        if item is None:
            return False
        self._ready.append(item)
        return True
