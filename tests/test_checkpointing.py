"""What an attempt did only once, and whether checkpoints hold all of it: a table of stories."""

from __future__ import annotations

import pytest

from mongover.checkpointing import OnceOnly

# Each word is one thing that the runner tells: an operation's name begins it.
STORIES = [
    ("", True),
    ("begin:x", True),
    ("begin:x end:done", True),  # it may be repeated
    ("begin:x act:x", False),
    ("begin:x act:x ticket:x", False),
    ("begin:x act:x ticket:x batches", True),
    ("begin:x act:x batches", False),  # there was no place for checkpoints
    ("begin:x act:x end:done", False),
    ("begin:x act:x end:unchanged", True),
    ("begin:x act:x ticket:x end:done", False),  # one command
    ("begin:x act:x ticket:x end:unchanged", True),  # an earlier attempt did it
    ("begin:x act:x ticket:x batches end:done", True),
    ("begin:x act:x ticket:x batches end:done begin:y ticket:y batches", True),
    ("begin:x act:x ticket:x batches end:done begin:y act:y", False),
    ("begin:x act:x end:done begin:y act:y ticket:y batches", False),
    ("begin:x act:x ticket:x batches begin:y", False),  # x broke off, the code caught it
    ("begin:x ticket:x batches begin:y", True),  # it may be repeated
    ("act:op.db", False),
    ("act:op.db begin:x act:x ticket:x batches", False),
    ("begin:x act:x ticket:x batches act:op.db", False),
    ("begin:x act:x ticket:x batches end:done act:x", False),  # x is over
    ("begin:x act:x ticket:y batches", False),  # y, run from inside of x, is not all of x
    ("act:", False),
]


@pytest.mark.parametrize(("story", "held"), STORIES, ids=[story for story, _ in STORIES])
def test_only_what_stands_in_checkpoints_is_held(story: str, held: bool) -> None:
    once = OnceOnly()
    for word in story.split():
        verb, _, name = word.partition(":")
        match verb:
            case "begin":
                once.begin(name)
            case "act":
                once.act(name)
            case "ticket":
                once.ticketed(name)
            case "batches":
                once.in_batches()
            case _:
                once.end(name)
    assert once.held is held
