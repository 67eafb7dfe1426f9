"""The output of a container as the engine sends it, taken apart in big pieces.

The engine wraps what it reads from a container in frames of an 8-byte head (stream, three zeros,
length) and at most 32 KiB; the SDK reads each head and each body by a call of its own.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, Final

_HEAD_BYTES: Final = 8
_READ_BYTES: Final = 256 * 1024
_LENGTH: Final = struct.Struct(">I").unpack_from
#: A container that prints without pause is read in steps of this length, so that chunks are big.
_GATHER_S: Final = 0.002
_BUSY_BYTES: Final = 4096
_ENOUGH_BYTES: Final = 128 * 1024
#: How much of what was seen is kept to find the place in a replay.
_MARK_BYTES: Final = 4096


class Demultiplexer:
    """Turns frames, cut anywhere, into the plain output; both streams in the order they came."""

    def __init__(self) -> None:
        self._head = b""
        self._need = 0

    def feed(self, data: bytes | memoryview) -> bytes:
        """The output within the next piece of the frames."""
        if self._head:
            data = self._head + bytes(data)
            self._head = b""
        view = memoryview(data)
        end = len(view)
        need = self._need
        position = 0
        parts: list[memoryview] = []
        while position < end:
            if need:
                part = view[position : position + need]
                parts.append(part)
                position += len(part)
                need -= len(part)
            elif end - position < _HEAD_BYTES:
                self._head = bytes(view[position:])
                break
            else:
                need = _LENGTH(view, position + 4)[0]
                position += _HEAD_BYTES
        self._need = need
        return b"".join(parts)


class Stream:
    """One attached container. `read` is for one thread; `close` may come from any."""

    def __init__(self, answer: Any) -> None:
        # the way down to the socket is the SDK's own (its `attach_socket`), which would leave
        # the answer, and with it the connection, to the garbage collector
        raw = answer.raw._fp.fp.raw
        self._answer = answer
        self._socket = raw._sock
        self._socket.settimeout(None)
        self._frames = Demultiplexer()
        self._count = 0
        self._space = memoryview(bytearray(_READ_BYTES))

    def read(self) -> bytes:
        """The next output, blocking; empty at the end.

        Raises: OSError when the connection broke.
        """
        while True:
            if _BUSY_BYTES < self._count < _ENOUGH_BYTES:
                time.sleep(_GATHER_S)
            self._count = count = self._socket.recv_into(self._space)
            if not count:
                return b""
            data = self._frames.feed(self._space[:count])
            if data:
                return data

    def send(self, data: bytes) -> None:
        """Write to the container's input. Raises: OSError."""
        self._socket.sendall(data)

    def close(self) -> None:
        """Let go of the connection; a container that waits for its turn ends."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._answer.close()


class Plain(Stream):
    """An attached container that has a terminal: its output comes without frames."""

    def read(self) -> bytes:
        """The next output, blocking; empty at the end. Raises: OSError."""
        return bytes(self._space[: self._socket.recv_into(self._space)])


class Replay:
    """The log of a container over a chunked answer, from its byte `skip` on."""

    def __init__(self, answer: Any, skip: int) -> None:
        self._answer = answer
        self._skip = skip
        self._frames = Demultiplexer()
        self._pieces: Iterator[bytes] = answer.raw.stream(_READ_BYTES, decode_content=False)

    def read(self) -> bytes:
        """The next output, blocking; empty at the end.

        Raises: OSError when the connection broke.
        """
        while piece := self._next_piece():
            data = self._frames.feed(piece)
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            if skipped < len(data):
                return data[skipped:]
        return b""

    def _next_piece(self) -> bytes:
        import urllib3.exceptions

        try:
            return next(self._pieces, b"")
        except urllib3.exceptions.HTTPError as fault:
            raise OSError(str(fault)) from fault

    def close(self) -> None:
        """Let go of the connection."""
        self._answer.close()


class Seen:
    """Remembers what was read of a container's output, to go on behind it after a break.

    The count alone is not enough: a bounded log forgets its beginning, and the two streams of a
    container may come in another order the second time. So the first and last bytes are kept.
    """

    def __init__(self) -> None:
        self._count = 0
        self._first = b""
        self._last = b""

    def add(self, data: bytes) -> None:
        """Note the next output."""
        self._count += len(data)
        if len(self._first) < _MARK_BYTES:
            self._first += data[: _MARK_BYTES - len(self._first)]
        self._last = (self._last + data[-_MARK_BYTES:])[-_MARK_BYTES:]

    def unseen(self, replay: bytes) -> bytes | None:
        """What of a replay comes after what was seen; None if the place is not there any more."""
        if replay[: self._count].endswith(self._last) and len(replay) >= self._count:
            return replay[self._count :]
        place = replay.rfind(self._last) if self._last else -1
        if place >= 0:
            return replay[place + len(self._last) :]
        if self._first and replay.startswith(self._first):
            return replay[self._count :]
        return None
