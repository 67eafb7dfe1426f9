"""Archives: a tar stream, compressed. Everything is a stream of pieces, whatever its size."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, BinaryIO, Final, cast

import zstandard

from agents.cache.backends.base import CacheError

PIECE_BYTES: Final = 1024 * 1024
#: Pieces that come out of an archive: small enough that whoever unpacks one does not wait for it.
_OUT_BYTES: Final = 256 * 1024
_LEVEL: Final = 3
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_GZIP: Final = b"\x1f\x8b"
#: A tar stream ends with two empty blocks.
_END: Final = bytes(1024)


class Broken(CacheError):
    """An archive that is not whole, or not one."""


class Stopped(CacheError):
    """The step that asked has ended."""


def write(pieces: Iterable[bytes], target: IO[bytes], method: str) -> int:
    """Compress a tar stream into a file; returns the bytes before compression."""
    size = 0
    with _writer(target, method) as writer:
        for piece in pieces:
            size += len(piece)
            writer.write(piece)
    return size


def _writer(target: IO[bytes], method: str) -> BinaryIO:
    if method == "gzip":
        return cast("BinaryIO", gzip.GzipFile(fileobj=target, mode="wb", compresslevel=6, mtime=0))
    threads = min(os.cpu_count() or 1, 4)
    packer = zstandard.ZstdCompressor(_LEVEL, threads=threads, write_checksum=True)
    return cast("BinaryIO", packer.stream_writer(target, closefd=False))


def read(source: BinaryIO) -> Iterator[bytes]:
    """The tar stream of an archive, made by whichever method. Raises: Broken.

    A cut archive is told by its missing end, after the last piece.
    """
    start = source.read(len(_ZSTD))
    whole = cast("BinaryIO", io.BufferedReader(Joined(start, source), PIECE_BYTES))
    tail = b""
    try:
        stream = _reader(start, whole)
        while piece := stream.read(_OUT_BYTES):
            tail = (tail + piece[-len(_END) :])[-len(_END) :]
            yield piece
    except (zstandard.ZstdError, zlib.error, EOFError, gzip.BadGzipFile) as fault:
        raise Broken(f"the archive is broken: {fault}") from fault
    if tail != _END:
        raise Broken("the archive is broken: its end is missing")


def _reader(start: bytes, whole: BinaryIO) -> BinaryIO:
    if start.startswith(_ZSTD):
        unpacker = zstandard.ZstdDecompressor()
        return cast(
            "BinaryIO",
            unpacker.stream_reader(whole, read_size=PIECE_BYTES, read_across_frames=True),
        )
    if start.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=whole, mode="rb"))
    return whole


class Joined(io.RawIOBase):
    """A stream with what was already read of it put back."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start, self._rest = start, rest

    def readable(self) -> bool:
        return True

    def readinto(self, space: object) -> int:
        """Fill the space from the start, then from the rest."""
        view = memoryview(cast("bytearray", space))
        data = self._start[: len(view)] if self._start else self._rest.read(len(view))
        self._start = self._start[len(data) :] if self._start else b""
        view[: len(data)] = data
        return len(data)


class Pieces(io.RawIOBase):
    """A stream over pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self._left = iter(pieces), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, space: object) -> int:
        """Fill the space from the current piece, or the next one."""
        view = memoryview(cast("bytearray", space))
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def watched(pieces: Iterable[bytes], stopped: Callable[[], bool]) -> Iterator[bytes]:
    """The same pieces, until the step that wants them has ended. Raises: Stopped."""
    for piece in pieces:
        if stopped():
            raise Stopped("the step has ended")
        yield piece


def renamed(pieces: Iterable[bytes], path: str) -> Iterator[bytes]:
    """A tar stream whose names begin with `path` where they began with their first part."""

    def name(old: str) -> str:
        _, _, rest = old.partition("/")
        return f"{path.rstrip('/')}/{rest}" if rest else path

    source = cast("BinaryIO", io.BufferedReader(Pieces(pieces), PIECE_BYTES))
    with tarfile.open(fileobj=source, mode="r|") as old:
        for member in old:
            member.name = name(member.name)
            member.pax_headers = {
                key: value
                for key, value in member.pax_headers.items()
                if key not in ("path", "linkpath", "size")
            }
            if member.islnk():
                member.linkname = name(member.linkname)
            yield member.tobuf(tarfile.PAX_FORMAT, tarfile.ENCODING, "surrogateescape")
            file = old.extractfile(member) if member.isreg() else None
            while file is not None and (data := file.read(PIECE_BYTES)):
                yield data
            yield bytes(-member.size % tarfile.BLOCKSIZE if member.isreg() else 0)
    yield bytes(tarfile.RECORDSIZE)


def first_name(pieces: Iterator[bytes]) -> tuple[str, Iterator[bytes]]:
    """The name of a tar stream's first member, and the whole stream."""
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= PIECE_BYTES:
            break
    try:
        with tarfile.open(fileobj=io.BytesIO(head), mode="r|") as tar:
            member = tar.next()
    except tarfile.TarError as fault:
        raise Broken(f"the archive is broken: {fault}") from fault
    return (member.name if member else ""), _chain(head, pieces)


def _chain(head: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
    yield head
    yield from pieces
