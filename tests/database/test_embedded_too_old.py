"""An embedded mongod that is older than what mongover can use."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from mongover.database.embedded import open_embedded
from mongover.errors import EmbeddedError

if TYPE_CHECKING:
    from pathlib import Path

# It answers as the versions do: the first has no `hello`, the second one of an old wire version.
PROGRAM = """#!{python}
import socket, struct
import bson

server = socket.socket(socket.AF_UNIX)
server.bind("./mongod.sock")
server.listen()
while True:
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as asked:
        head = asked.read(21)
        if len(head) < 21:
            continue
        command = bson.decode(asked.read(struct.unpack_from("<i", head)[0] - 21))
        reply = bson.encode({hello} if "hello" in command else {{"version": "4.2.6", "ok": 1.0}})
        connection.sendall(struct.pack("<4iIB", 21 + len(reply), 1, 0, 2013, 0, 0) + reply)
"""


@pytest.mark.parametrize(
    "hello", ['{"ok": 0.0, "code": 59}', '{"ok": 1.0, "isreplicaset": True, "maxWireVersion": 8}']
)
def test_an_embedded_server_that_is_too_old_is_named_at_once_with_its_version(
    tmp_path: Path, hello: str
) -> None:
    program = tmp_path / "mongod"
    program.write_text(PROGRAM.format(python=sys.executable, hello=hello))
    program.chmod(0o755)
    started = time.monotonic()
    with (
        pytest.raises(EmbeddedError, match=r"is MongoDB 4\.2\.6, which is too old") as caught,
        open_embedded(tmp_path / "db", environ={"MONGOVER_MONGOD": str(program)}),
    ):
        pass
    assert time.monotonic() - started < 30
    assert "MONGOVER_MONGOD" in caught.value.hint
