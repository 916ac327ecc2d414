"""An error that is said otherwise is another one: the first stays as it was raised."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path

import pytest

from mongover.errors import (
    DuplicateRevision,
    MongoverError,
    OperationFailed,
    RecordConflict,
    Where,
)


class Demanding(OperationFailed):
    """One of a user's, whose constructor asks for other things."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{number}: {text}", hint="look", notes=("first",))
        self.number = number


def demand() -> None:
    try:
        raise KeyError("behind it")  # noqa: TRY301 - the chain is what is tested
    except KeyError as error:
        raise Demanding(7, "no") from error


def raised() -> Demanding:
    with pytest.raises(Demanding) as caught:
        demand()
    return caught.value


def test_an_error_said_otherwise_keeps_its_class_its_cause_and_its_trace() -> None:
    error = raised()
    other = error.but(notes=["second"], where=Where(Path("0001_a.py"), 3), after="nothing.")
    assert type(other) is Demanding
    assert (other.number, other.message, other.hint) == (7, "7: no", "look")
    assert (other.notes, other.after, other.where) == (
        ("second",),
        "nothing.",
        Where(Path("0001_a.py"), 3),
    )
    assert other.__cause__ is error.__cause__
    assert traceback.format_exception(other) == traceback.format_exception(error)


def test_the_error_that_is_said_otherwise_stays_as_it_is() -> None:
    error = raised()
    error.add_note("on its way")
    other = error.but(message="hidden", notes=())
    assert (error.message, error.notes, error.after, error.where) == ("7: no", ("first",), "", None)
    assert (str(other), other.message, other.notes) == ("hidden", "hidden", ())
    assert other.__notes__ == ["on its way"]


@pytest.mark.parametrize(
    "error",
    [
        RecordConflict("it is gone", revision="0001", gone=True, hint="look"),
        DuplicateRevision("two files", paths=[Path("a.py"), Path("b.py")]),
    ],
)
def test_an_error_with_facts_of_its_own_passes_from_process_to_process(
    error: MongoverError,
) -> None:
    passed = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert vars(passed) == vars(error)
    assert vars(error.but(after="nothing was run.")) == vars(error) | {"after": "nothing was run."}
