"""The wire protocol of MongoDB as far as a proxy must read it: whose command is this, on what."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bson.raw_bson import RawBSONDocument

from mongover.errors import MongoverError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

_HEADER: Final = struct.Struct("<iiii")  # length, request, response to, operation
_OP_MSG: Final = 2013
_OP_COMPRESSED: Final = 2012
_MORE_TO_COME: Final = 2
_CHECKSUM: Final = 1
_LARGEST: Final = 64 * 1024 * 1024

WRITES: Final = frozenset(
    {
        *("insert", "update", "delete", "findAndModify", "bulkWrite"),
        *("create", "createIndexes", "collMod", "drop", "dropIndexes", "dropDatabase"),
        *("renameCollection", "convertToCapped", "commitTransaction", "abortTransaction"),
        *("killSessions", "createUser", "updateUser", "dropUser", "createRole"),
    }
)
_WRITING_STAGES: Final = frozenset({"$out", "$merge"})


class WireError(MongoverError):
    """A peer sent what is not the wire protocol, or what this proxy cannot read."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was on the wire."""

    data: bytes
    request: int
    response_to: int
    operation: int


@dataclass(frozen=True, slots=True)
class Command:
    """A command that a client sent.

    Attributes:
        name: As the server knows it: `update`, `findAndModify`.
        namespace: `database.collection`, or `database` for commands without a collection.
        request: The number that its reply will carry.
        writes: Whether it changes something.
        heartbeat: Whether it is the heartbeat of a lease, which comes when it wants.
        answered: False for an unacknowledged write, which gets no reply.
    """

    name: str
    namespace: str
    request: int
    writes: bool
    heartbeat: bool
    answered: bool = True


def read_message(peer: socket.socket) -> Message | None:
    """The next message; None where the peer closed the connection.

    Raises:
        WireError: it is no message of MongoDB.
    """
    header = _receive(peer, _HEADER.size)
    if header is None:
        return None
    length, request, response_to, operation = _HEADER.unpack(header)
    if not _HEADER.size <= length <= _LARGEST:
        raise WireError(f"a message of {length} bytes is no message of MongoDB")
    body = _receive(peer, length - _HEADER.size)
    return None if body is None else Message(header + body, request, response_to, operation)


def _receive(peer: socket.socket, count: int) -> bytes | None:
    chunks = bytearray()
    while len(chunks) < count:
        try:
            chunk = peer.recv(min(count - len(chunks), 1 << 20))
        except ConnectionError:  # a killed process may reset its connection
            return None
        if not chunk:
            return None
        chunks += chunk
    return bytes(chunks)


def read_command(message: Message) -> Command | None:
    """The command in a client's message; None for the first greeting in the old protocol.

    Raises:
        WireError: the message is compressed, so that nobody can tell what it holds.
    """
    if message.operation == _OP_COMPRESSED:
        raise WireError(
            "the connection is compressed: the proxy cannot count what it cannot read",
            hint="take `compressors` out of the URL",
        )
    if message.operation != _OP_MSG:
        return None
    flags = struct.unpack_from("<I", message.data, _HEADER.size)[0]
    body: Any = {}
    sequences: dict[str, list[Any]] = {}
    for name, documents in _sections(message.data, checksum=bool(flags & _CHECKSUM)):
        if name is None:
            body = documents[0]
        else:
            sequences[name] = documents
    return _command(body, sequences, message.request, answered=not flags & _MORE_TO_COME)


def _sections(data: bytes, *, checksum: bool) -> Iterator[tuple[str | None, list[Any]]]:
    """The body under no name, then the document sequences under theirs."""
    place = _HEADER.size + 4
    end = len(data) - (4 if checksum else 0)
    while place < end:
        kind = data[place]
        length = struct.unpack_from("<i", data, place + 1)[0]
        section = data[place + 1 : place + 1 + length]
        if kind == 0:
            yield None, [_decode(section)]
        else:
            zero = section.index(b"\0", 4)
            yield section[4:zero].decode(), list(_documents(section[zero + 1 :]))
        place += 1 + length


def _documents(data: bytes) -> Iterator[Any]:
    place = 0
    while place < len(data):
        length = struct.unpack_from("<i", data, place)[0]
        yield _decode(data[place : place + length])
        place += length


def _decode(data: bytes) -> Any:
    """A document whose inner ones are not decoded, so that no odd value of a user can hurt."""
    return RawBSONDocument(data)


def _command(
    body: Mapping[str, Any], sequences: Mapping[str, list[Any]], request: int, *, answered: bool
) -> Command:
    name = next(iter(body), "")
    target = body.get(name)
    database = str(body.get("$db", ""))
    return Command(
        name=name,
        namespace=f"{database}.{target}" if isinstance(target, str) else database,
        request=request,
        writes=name in WRITES or _writes_by_pipeline(body),
        heartbeat=name == "update" and _is_heartbeat(sequences.get("updates", [])),
        answered=answered,
    )


def _writes_by_pipeline(body: Mapping[str, Any]) -> bool:
    if next(iter(body), "") != "aggregate":
        return False
    stages = body.get("pipeline") or []
    return any(_WRITING_STAGES & set(stage) for stage in stages)


def _is_heartbeat(updates: list[Any]) -> bool:
    """The only update that sets `heartbeat_at`; taking the lease is a findAndModify."""
    if len(updates) != 1:
        return False
    change = updates[0].get("u")
    if not isinstance(change, list) or not change:
        return False
    fields = change[0].get("$set")
    return isinstance(fields, RawBSONDocument) and "heartbeat_at" in fields
