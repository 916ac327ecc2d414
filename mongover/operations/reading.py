"""Reading the documents of a transform: in groups over the wire, ahead of what is written."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mongover.operations.ranges import BY_ID, between, both

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.client_session import ClientSession
    from pymongo.collection import Collection

    from mongover.operations.base import Document
    from mongover.operations.checkpoints import Span
    from mongover.operations.guards import Item
    from mongover.operations.ranges import Bound

GROUP: Final = 500


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the documents of a span as they are, in the order of `_id`.

    Attributes:
        collection: Where; its documents are RawBSONDocuments.
        filter: Which of them.
        fields: The only ones that are wanted; none: all.
    """

    collection: Collection[Any]
    filter: Document | None
    fields: tuple[str, ...]

    def once(self, session: ClientSession | None, span: Span, size: int) -> Iterator[Any]:
        """At most `size` documents; a cursor that is gone is an error."""
        return self._found(session, span.low, span.high, limit=size)

    def on_and_on(self, span: Span) -> Iterator[Any]:
        """All documents; a cursor that is gone (a long pause) is opened again."""
        from pymongo import CursorType  # noqa: PLC0415 - heavy, needed only to run
        from pymongo.errors import CursorNotFound  # noqa: PLC0415 - the same

        low: Bound = span.low
        last: Any = None
        while True:
            try:
                # The server sends on without being asked, while this process computes.
                for raw in self._found(None, low, span.high, cursor_type=CursorType.EXHAUST):
                    last = raw
                    yield raw
            except CursorNotFound:
                low = low if last is None else [last["_id"]]
                continue
            return

    def _found(
        self, session: ClientSession | None, low: Bound, high: Bound, **how: Any
    ) -> Iterator[Any]:
        query = both(between(low, high), self.filter)
        projection = dict.fromkeys(("_id", *self.fields), 1) if self.fields else None
        hint = None if self.filter else BY_ID
        found = self.collection.find(
            query, projection, session=session, batch_size=GROUP, hint=hint, **how
        )
        with found.sort("_id", 1) as cursor:
            yield from cursor


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
