"""The batch format: one zstd frame of a JSON header, LF, and lines that each end with LF.

The agent makes batches, they are stored as they came, and compacted objects are made of the same
frames. Everything here works on whole bodies; no line is looked at by itself while appending.

Header keys: `t` [[index, ms], ...] lines from index on were read ms after the step's start; `open`
the last line was unfinished when it was sent; `skip` lines before this batch were dropped by the
cap; `o` (compacted frames only) indices of all unfinished lines.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any, Final

import zstandard

from pipeline.errors import UserError
from pipeline.wire import MAX_BATCH_BYTES

_MAX_HEADER_BYTES: Final = 512 * 1024
_LEVEL: Final = 3

Times = tuple[tuple[int, int], ...]


class BatchError(UserError):
    """A log batch that cannot be taken."""

    code = "logs:malformed"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines [first, first + count) of a step: `data` holds them, each ended by LF.

    `times` are (index, ms after the step's start) per read of the agent, `open` the indices of
    lines whose next line continues them.
    """

    first: int
    count: int
    data: bytes
    times: Times = ()
    open: tuple[int, ...] = ()

    @property
    def next(self) -> int:
        """The position after the last line."""
        return self.first + self.count

    def since(self, position: int) -> Chunk:
        """This chunk without the lines before `position`, which must lie inside it."""
        drop = position - self.first
        if drop <= 0:
            return self
        rest = self.data.split(b"\n", drop)[drop]
        times = tuple((index - drop, ms) for index, ms in self.times if index > drop)
        before = [ms for index, ms in self.times if index <= drop]
        if before:
            times = ((0, before[-1]), *times)
        opens = tuple(index - drop for index in self.open if index >= drop)
        return Chunk(position, self.count - drop, rest, times, opens)

    def upto(self, count: int) -> Chunk:
        """The first `count` lines of this chunk."""
        if count >= self.count:
            return self
        rest = self.data.split(b"\n", count)[count]
        data = self.data[: len(self.data) - len(rest)]
        times = tuple(pair for pair in self.times if pair[0] < count)
        return Chunk(
            self.first, count, data, times, tuple(index for index in self.open if index < count)
        )

    def text(self) -> bytes:
        """The bytes as the step wrote them: the LF added to an unfinished line is taken out."""
        if not self.open:
            return self.data
        lines = self.data.split(b"\n")
        pieces, start = [], 0
        for index in self.open:
            pieces.append(b"\n".join(lines[start : index + 1]))
            start = index + 1
        pieces.append(b"\n".join(lines[start:]))
        return b"".join(pieces)

    def line_times(self) -> list[int]:
        """Milliseconds after the step's start, one per line."""
        found: list[int] = []
        marks = [*self.times, (self.count, 0)]
        if marks[0][0] > 0:
            found += [marks[0][1]] * min(marks[0][0], self.count)
        for (index, ms), (until, _) in itertools.pairwise(marks):
            found += [ms] * (until - index)
        return found


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch says before it has a place: its line count, size and how many lines it skips."""

    count: int
    size_bytes: int
    skip: int


def measure(frame: bytes) -> Batch:
    """Check a batch from an agent and count its lines.

    Raises: BatchError for what is malformed (`logs:malformed`) or larger than 4 MiB unpacked
    (`logs:too-large`); nothing larger is ever unpacked.
    """
    header, raw, start = _open(frame, MAX_BATCH_BYTES)
    count = raw.count(b"\n", start)
    if not count or not raw.endswith(b"\n"):
        raise BatchError("a log batch holds one or more lines, each ended by LF")
    skip = header.get("skip", 0)
    if type(skip) is not int or skip < 0:
        raise BatchError("skip: expected a count of lines")
    if "o" in header:
        raise BatchError("o: only compacted frames have it")
    _times(header, count)
    return Batch(count, len(raw) - start, skip)


def unpack(frame: bytes, first: int) -> Chunk:
    """The chunk that a stored frame holds; `first` is the position of its first line."""
    header, raw, start = _open(frame, 2 * MAX_BATCH_BYTES)
    count = raw.count(b"\n", start)
    opens = tuple(header.get("o") or ((count - 1,) if header.get("open") else ()))
    return Chunk(first, count, raw[start:], _times(header, count), opens)


def pack(chunk: Chunk) -> bytes:
    """A frame of `chunk`, as compaction writes it; carries a checksum."""
    header: dict[str, Any] = {"t": chunk.times}
    if chunk.open:
        header["o"] = chunk.open
    raw = json.dumps(header, separators=(",", ":")).encode() + b"\n" + chunk.data
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(raw)


def join(chunks: list[Chunk]) -> Chunk:
    """One chunk of several that follow each other without a gap."""
    if len(chunks) == 1:
        return chunks[0]
    base = chunks[0].first
    times = [(index + chunk.first - base, ms) for chunk in chunks for index, ms in chunk.times]
    opens = [index + chunk.first - base for chunk in chunks for index in chunk.open]
    data = b"".join(chunk.data for chunk in chunks)
    return Chunk(base, chunks[-1].next - base, data, tuple(times), tuple(opens))


def _open(frame: bytes, limit: int) -> tuple[dict[str, Any], bytes, int]:
    """Header, unpacked bytes (at most `limit`), and where in them the body starts."""
    raw = _inflate(frame, limit)
    start = raw.find(b"\n", 0, _MAX_HEADER_BYTES) + 1
    if not start:
        raise BatchError("a log batch starts with one line of JSON")
    try:
        header = json.loads(raw[: start - 1])
    except (ValueError, RecursionError) as fault:
        raise BatchError(f"the header of the log batch is not JSON: {fault}") from fault
    if not isinstance(header, dict):
        raise BatchError("the header of the log batch is not an object")
    return header, raw, start


def _inflate(frame: bytes, limit: int) -> bytes:
    try:
        size = zstandard.frame_content_size(frame)
        if size > limit:
            raise BatchError(f"a log batch of {size} bytes; {limit} are allowed", "logs:too-large")
        # the size a frame declares is checked by the decoder; without one the bound is given to it
        return zstandard.ZstdDecompressor().decompress(
            frame, max_output_size=limit if size < 0 else 0, allow_extra_data=False
        )
    except zstandard.ZstdError as fault:
        raise BatchError(f"not one whole zstd frame within the bound: {fault}") from fault


def _times(header: dict[str, Any], count: int) -> Times:
    pairs = header.get("t", [])
    last = -1
    try:
        for index, ms in pairs:
            if type(index) is not int or type(ms) is not int or not last < index < count or ms < 0:
                raise BatchError("t: expected rising pairs of a line's index and milliseconds")
            last = index
        return tuple((index, ms) for index, ms in pairs)
    except (TypeError, ValueError) as fault:
        raise BatchError("t: expected a list of pairs") from fault
