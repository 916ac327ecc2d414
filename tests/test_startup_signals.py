"""Hearing of the end of the process without taking its signals away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from mongover.process import told_of_shutdown
from tests.support.servers import cli_environment

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """What was told, in order; the process's own handler of SIGTERM tells `own`."""
    told: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: told.append("own"))
    yield told
    signal.signal(signal.SIGTERM, before)


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def test_a_server_hears_of_its_signal_at_once_and_after_us(heard: list[str]) -> None:
    with told_of_shutdown(lambda: heard.append("we"), later=False):
        send()
        heard.append("block")
    assert heard == ["we", "own", "block"]
    send()
    assert heard[-1] == "own"


def test_a_program_hears_of_its_signal_when_the_block_has_ended_and_once(heard: list[str]) -> None:
    with told_of_shutdown(lambda: heard.append("we"), later=True):
        send()
        send()
        heard.append("block")
    assert heard == ["we", "we", "block", "own"]


def test_what_we_raise_does_not_lose_the_signal(heard: list[str]) -> None:
    def fail() -> None:
        raise KeyError("we")

    with pytest.raises(KeyError), told_of_shutdown(fail, later=True):
        send()
    assert heard == ["own"]


def test_a_handler_that_was_installed_meanwhile_stays(heard: list[str]) -> None:
    with told_of_shutdown(lambda: heard.append("we"), later=False):
        signal.signal(signal.SIGTERM, lambda *_: heard.append("newer"))
    send()
    assert heard == ["newer"]


def test_an_ignored_signal_stays_ignored(heard: list[str]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with told_of_shutdown(lambda: heard.append("we"), later=False):
        send()
    assert heard == []


def test_outside_the_main_thread_nothing_is_installed(heard: list[str]) -> None:
    found: list[Any] = []
    before = signal.getsignal(signal.SIGTERM)

    def look() -> None:
        with told_of_shutdown(lambda: None, later=True):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


PROGRAM = """
import os, signal, sys
from mongover.process import told_of_shutdown

with told_of_shutdown(lambda: print("told", flush=True), later={later}):
    os.kill(os.getpid(), signal.SIGTERM)
    print("the block ends", flush=True)
print("never", flush=True)
"""


@pytest.mark.parametrize("later", [True, False])
def test_the_default_handling_ends_the_process_only_after_the_block(later: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(later=later)],
        env=cli_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGTERM
    assert done.stdout.split("\n") == ["told", "the block ends", ""]
