"""`mongover` and `python -m mongover`."""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable


def main() -> NoReturn:
    """Run the command line and end the process.

    The end does not wait for the driver's threads: by then the migrator is closed, the lease is
    released and an embedded server is stopped, so nothing of value is left in them.
    """
    from mongover.process import collect_seldom

    collect_seldom()
    from mongover.cli.app import run
    from mongover.cli.signals import install_end

    ending = install_end()
    try:
        code = run(sys.argv[1:])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    ending.heeded(math.inf)
    os._exit(flush([sys.stdout, sys.stderr], code))


def flush(streams: Iterable[TextIO | None], code: int) -> int:
    """Write out what is buffered; the exit code, which is 1 when data could not be written."""
    for stream in streams:
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:
            continue  # the reader has what it wanted
        except (OSError, ValueError):
            code = code or 1
    return code


if __name__ == "__main__":
    main()
