"""The collector of cyclic garbage, in processes that are our own."""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (50_000, 20, 50)


def collect_seldom() -> None:
    """Look for cycles only now and then, for the rest of this process.

    Modules, and documents on their way through a transform, are many objects and hardly any cycles:
    by default the search for them costs a tenth of a command's time. Only for a process that ends
    with its command or its work; a library leaves it to the application.
    """
    gc.set_threshold(*_THRESHOLDS)
