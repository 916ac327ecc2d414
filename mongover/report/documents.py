"""Values as JSON, in one shape for the command line and for HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mongover.revisions.revision import Revision


def plain(value: Any, hide: Callable[[str], str]) -> Any:
    """A value in JSON's own types: times in ISO 8601, the rest as text, without secrets."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # infinities and NaN are no JSON
    if isinstance(value, Mapping):
        return {str(key): plain(item, hide) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, hide) for item in value]
    return hide(value.isoformat() if isinstance(value, date) else str(value))


def revision_document(revision: Revision) -> dict[str, Any]:
    """A revision file without its text; of its path only the name."""
    return {
        "revision": revision.id,
        "path": revision.path.name,
        "schema": revision.schema,
        "message": revision.message,
        "down_revision": list(revision.down_revision),
        "depends_on": list(revision.depends_on),
        "transaction": revision.transaction,
        "reversible": revision.has_downgrade,
        "checksum": revision.checksum,
    }
