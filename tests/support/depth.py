"""What a run at a desk leaves out: the `deep` mark, and values that carry it.

`tests/run` leaves `deep` out unless `-m` says otherwise, `.ci/run` runs it all. A desk run keeps
one case of each kind; the others of the same kind are deep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DESK = "not deep"
# What a test asks for that is deep by itself: a set of three nodes takes seconds to heal.
DEEP_FIXTURES = frozenset({"three_nodes"})
_EXAMPLES = {True: 100, False: 20}  # of Hypothesis, by whether the run is a deep one


def deep(*values: Any, id: str | None = None) -> Any:  # noqa: A002 - the word of `pytest.param`
    """One case of a parametrised test that only a deep run takes."""
    return pytest.param(*values, marks=pytest.mark.deep, id=id)


def first_of(values: Iterable[Any], *, every: int = 0) -> list[Any]:
    """All cases; the first one (or each `every`-th) also at a desk, the others deep."""
    return [
        value if number == 0 or (every and number % every == 0) else deep(value)
        for number, value in enumerate(values)
    ]


def load_profile(*, whole: bool, derandomize: bool) -> None:
    """Set how many examples Hypothesis tries, before any test file is read.

    A busy machine makes examples slow; that says nothing about the code.
    """
    settings.register_profile(
        "mongover",
        deadline=None,
        derandomize=derandomize,
        max_examples=_EXAMPLES[whole],
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("mongover")


def examples(times: float) -> int:
    """So many times what the profile says: for `max_examples` of one test."""
    return int(settings.default.max_examples * times)  # type: ignore[union-attr] # one is loaded


def mark_by_fixtures(items: Sequence[pytest.Item]) -> None:
    """Mark as deep what uses a deep fixture."""
    for item in items:
        if DEEP_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.deep)
