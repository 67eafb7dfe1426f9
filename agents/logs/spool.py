"""A step's masked lines on disk, by position: written as read, kept until the server has them.

A spool is a few segments, each a file of lines (`3.0.log`) and a file of records (`3.0.idx`), one
record per chunk read. Data is written before its record, so after a sudden death the records are a
prefix of the truth: whole lines behind the last record are kept, a torn tail is cut. The first
segment takes half of the cap and may be shipped at any time. What comes behind it goes round in a
ring of segments, whose oldest is dropped when the cap is reached, and is shipped once the step has
ended and it is known what was left out.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import operator
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import structlog

from agents.logs.masks import Masker
from pipeline.wire import MAX_LINE_BYTES

log = structlog.get_logger("agents.spool")

#: Position of the first line, bytes, lines, milliseconds since the step's start, flags.
_RECORD: Final = struct.Struct("<QIIIB")
_OPEN: Final = 1
_RING_PARTS: Final = 8
#: Bytes masked at once: a record of them fits a batch even if every second byte is a secret.
_CHUNK_BYTES: Final = 512 * 1024
#: Records per batch at most: each may add a time to the batch's header.
MAX_RECORDS: Final = 20_000
#: How long a full disk is waited for before it is tried again.
_FULL_DISK_S: Final = 1.0
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Record:
    """A run of whole lines read together. `open`: the last one was unfinished, its LF is ours."""

    position: int
    offset: int
    size: int
    lines: int
    ms: int
    open: bool = False

    @property
    def end(self) -> int:
        """The position after the last line."""
        return self.position + self.lines


@dataclass(slots=True)
class Segment:
    """One pair of files, open for as long as the spool is."""

    path: Path
    data: int
    index: int
    records: list[Record] = field(default_factory=list)
    size: int = 0

    def close(self) -> None:
        os.close(self.data)
        os.close(self.index)

    def unlink(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".idx").unlink(missing_ok=True)


class Spool:
    """The log of one step. Any thread; `write` is the driver's, the rest the courier's."""

    def __init__(
        self,
        folder: Path,
        number: int,
        masker: Masker,
        *,
        cap_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        on_data: Callable[[], None] = lambda: None,
        copy: Callable[[bytes], None] | None = None,
    ) -> None:
        self._folder, self._number, self._masker = folder, number, masker
        self._half = max(cap_bytes // 2, 1)
        self._clock, self._on_data, self._copy = clock, on_data, copy
        #: Whether lines were left out because the log is longer than its limit.
        self.trimmed = False
        self._started = clock()
        self._changed = threading.Condition()
        self._partial = b""
        self._heard = 0.0
        #: When something was read for the first time in this life; 0.0: not yet.
        self.first_heard = 0.0
        self._given_up = False
        #: Whether a write waits for room on the disk, and lets others look meanwhile.
        self._stuck = False
        #: How many lines could not be stored since the last one that was.
        self._lost = 0
        self._closed = False
        self.finished = False
        self._segments = [_recover(path) for path in _segment_paths(folder, number)]
        self._end = self._segments[-1].records[-1].end if self._known() else 0

    def _known(self) -> bool:
        return bool(self._segments and self._segments[-1].records)

    # --- the writing side ---

    def make_ready(self) -> None:
        """Make the first files now: there is time. Never raises: the first line tries again."""
        with self._changed:
            if not self._segments and not self._closed:
                with contextlib.suppress(OSError):
                    self._segments.append(_open(self._path(0)))

    def write(self, data: bytes) -> None:
        """Mask, cut into lines and store a chunk. Blocks while the disk is full."""
        with self._changed:
            self._heard = self._clock()
            self.first_heard = self.first_heard or self._heard
            for place in range(0, len(data), _CHUNK_BYTES):
                piece = data[place : place + _CHUNK_BYTES] if len(data) > _CHUNK_BYTES else data
                self._take(self._masker.feed(piece))
        self._on_data()

    def finish(self) -> int:
        """The step has ended: store what was withheld or unfinished; returns the end position."""
        with self._changed:
            if not self.finished:
                self._take(self._masker.finish())
                self._close_line()
                self._say_what_was_lost()
                self._say_what_was_left_out()
                self.finished = True
            return self._end

    def flush_open(self, silent_s: float) -> bool:
        """Store an unfinished line as an open one if nothing came for `silent_s`."""
        with self._changed:
            due = self._partial and self._clock() - self._heard >= silent_s and not self._stuck
            if due:
                self._close_line(_OPEN)
            return bool(due)

    @property
    def silent_since(self) -> float | None:
        """When something was last read, if a line is unfinished since; else None."""
        return self._heard if self._partial and not self._stuck else None

    def give_up(self) -> None:
        """Stop waiting for a full disk: what cannot be stored is lost."""
        with self._changed:
            self._given_up = True
            self._changed.notify_all()

    def close(self) -> None:
        """Close the files; they stay on disk."""
        with self._changed:
            for segment in self._segments:
                segment.close()
            self._segments = []
            self._closed = self._given_up = True

    def _take(self, masked: bytes) -> None:
        if self._copy is not None:
            self._copy(masked)
        pieces, self._partial, lines = cut_lines(self._partial + masked)
        if pieces:
            self._append(pieces, lines)

    def _close_line(self, flags: int = 0) -> None:
        if self._partial:
            rest, self._partial = self._partial, b""
            self._append([rest + b"\n"], 1, flags)

    def _append(self, pieces: list[bytes], lines: int, flags: int = 0) -> None:
        self._say_what_was_lost()
        if self._lost or not self._store(pieces, lines, flags):
            self._lost += lines

    def _store(self, pieces: list[bytes], lines: int, flags: int = 0) -> bool:
        """Write whole lines behind the last ones; False if none of them could be."""
        size = sum(map(len, pieces))
        segment = self._segment_for(size)
        if segment is None:
            return False
        if not self._write_all(segment.data, b"".join(pieces)):
            os.ftruncate(segment.data, segment.size)
            return False
        ms = int((self._clock() - self._started) * 1000)
        record = Record(self._end, segment.size, size, lines, ms, bool(flags & _OPEN))
        if not self._write_all(
            segment.index, _RECORD.pack(record.position, size, lines, ms, flags)
        ):
            written = os.fstat(segment.index).st_size
            os.ftruncate(segment.index, written - written % _RECORD.size)
        segment.records.append(record)
        segment.size += size
        self._end = record.end
        return True

    def _write_all(self, file: int, data: bytes) -> bool:
        rest = memoryview(data)
        while rest:
            written = self._when_there_is_room(partial(os.write, file, rest))
            if written is None:
                return False
            rest = rest[written:]
        return True

    def _when_there_is_room(self, act: Callable[[], Result]) -> Result | None:
        """What `act` returns, tried until the disk has room for it; None if it cannot be done."""
        since = None
        try:
            while True:
                try:
                    result = act()
                except OSError as fault:
                    if fault.errno not in _FULL or self._given_up:
                        if not self._lost:
                            log.error("spool.broken", folder=str(self._folder), reason=str(fault))
                        return None
                    if since is None:
                        since = self._clock()
                        log.warning("spool.disk-full", folder=str(self._folder))
                    self._stuck = True
                    self._changed.wait(_FULL_DISK_S)
                else:
                    if since is not None:
                        waited = round(self._clock() - since)
                        log.warning("spool.goes-on", folder=str(self._folder), waited_s=waited)
                    return result
        finally:
            self._stuck = False

    def _segment_for(self, size: int) -> Segment | None:
        if self._closed:
            return None
        if not self._segments and not self._open_segment(0):
            return None
        last = self._segments[-1]
        room = self._half if len(self._segments) == 1 and self._is_head(last) else self._ring_part
        if last.size and last.size + size > room:
            if not self._open_segment(_ordinal(last.path) + 1):
                return None
            self._drop_oldest(size)
        return self._segments[-1]

    @property
    def _ring_part(self) -> int:
        return max(self._half // _RING_PARTS, 1)

    def _is_head(self, segment: Segment) -> bool:
        return _ordinal(segment.path) == 0

    def _path(self, ordinal: int) -> Path:
        return self._folder / f"{self._number}.{ordinal}.log"

    def _open_segment(self, ordinal: int) -> bool:
        """Begin another segment; whether that was possible."""
        path = self._path(ordinal)
        segment = self._when_there_is_room(lambda: _open(path))
        if segment is not None:
            self._segments.append(segment)
        return segment is not None

    def _drop_oldest(self, size: int) -> None:
        ring = self._segments[1:]
        while len(ring) > 2 and sum(part.size for part in ring) + size > self._half:
            ring.pop(0).unlink()
            self.trimmed = True
        self._segments[1:] = ring

    def _say_what_was_lost(self) -> None:
        """Put a line in the place of those that could not be stored, if there is room for it."""
        if self._lost:
            text = f"[{self._lost} lines lost: the agent could not store them on its disk]\n"
            if self._store([text.encode()], 1):
                self._lost = 0

    def _say_what_was_left_out(self) -> None:
        """Put a line in the place of the last one that was dropped."""
        ring = self._segments[1:]
        if not ring or not self._segments[0].records or not ring[0].records:
            return
        left_out = ring[0].records[0].position - self._segments[0].records[-1].end
        if left_out < 1:
            return
        text = f"[{left_out} lines left out here: the log is longer than its limit]\n".encode()
        note = _open(self._path(_ordinal(ring[0].path) - 1))
        record = Record(ring[0].records[0].position - 1, 0, len(text), 1, ring[0].records[0].ms)
        if self._write_all(note.data, text):
            packed = _RECORD.pack(record.position, record.size, 1, record.ms, 0)
            self._write_all(note.index, packed)
            note.records.append(record)
            note.size = record.size
        self._segments.insert(1, note)

    # --- the reading side ---

    @property
    def end(self) -> int:
        """The position after the last stored line."""
        return self._end

    def waiting(self, position: int) -> bool:
        """Whether lines from `position` on may be shipped now."""
        with self._changed:
            return position < self._shippable()

    def bytes_from(self, position: int) -> int:
        """How many bytes of lines from `position` on are stored, roughly (by whole records)."""
        with self._changed:
            return sum(record.size for _, record in self._records(position))

    def read(self, position: int, limit: int) -> tuple[list[Record], bytes]:
        """Records from `position` on and their lines: at most `limit` bytes, at least one record.

        Ends with a record that is open and before a gap. A first record that lies only partly
        behind `position` is cut; one that begins behind it means that lines were left out.
        """
        with self._changed:
            records: list[Record] = []
            pieces: list[bytes] = []
            for segment, run in self._runs(position, limit):
                size = sum(record.size for record in run)
                records += run
                pieces.append(os.pread(segment.data, size, run[0].offset))
        if not records:
            return records, b""
        records[0], pieces[0] = _from(position, records[0], pieces[0])
        return records, b"".join(pieces)

    def _runs(self, position: int, limit: int) -> Iterator[tuple[Segment, list[Record]]]:
        for segment, records in itertools.groupby(
            self._choose(position, limit), key=operator.itemgetter(0)
        ):
            yield segment, [record for _, record in records]

    def _choose(self, position: int, limit: int) -> Iterator[tuple[Segment, Record]]:
        size, expected = 0, -1
        for segment, record in itertools.islice(self._records(position), MAX_RECORDS):
            gap = expected not in (-1, record.position)
            if record.position >= self._shippable() or gap or (size and size + record.size > limit):
                return
            yield segment, record
            size, expected = size + record.size, record.end
            if record.open:
                return

    def _records(self, position: int) -> Iterator[tuple[Segment, Record]]:
        for segment in self._segments:
            if segment.records and segment.records[-1].end > position:
                for record in segment.records[_first_behind(segment.records, position) :]:
                    yield segment, record

    def _shippable(self) -> int:
        if self.finished or not self._segments:
            return self._end
        head = self._segments[0]
        return head.records[-1].end if head.records and self._is_head(head) else 0

    def forget(self, position: int) -> None:
        """The server has everything before `position`: its records need no memory any more."""
        with self._changed:
            for segment in self._segments:
                keep = _first_behind(segment.records, position)
                if keep > 1:
                    # the last one stays: it says where the segment ends
                    del segment.records[: min(keep, len(segment.records) - 1)]


def cut_lines(text: bytes) -> tuple[list[bytes], bytes, int]:
    """Pieces of whole lines, the unfinished rest, and how many lines the pieces are.

    A line longer than `MAX_LINE_BYTES` is cut into lines of that length.
    """
    pieces: list[bytes] = []
    place = added = 0
    while len(text) - place > MAX_LINE_BYTES:
        cut = text.rfind(b"\n", place, place + MAX_LINE_BYTES + 1) + 1
        if cut > place:
            pieces.append(text[place:cut])
            place = cut
        else:
            pieces.append(text[place : place + MAX_LINE_BYTES] + b"\n")
            place += MAX_LINE_BYTES
            added += 1
    cut = max(text.rfind(b"\n", place) + 1, place)
    if cut > place:
        pieces.append(text[place:cut])
    return pieces, text[cut:], text.count(b"\n", 0, cut) + added


def _from(position: int, record: Record, data: bytes) -> tuple[Record, bytes]:
    """The record and data, which begins with the record's, without the lines before `position`."""
    skip = position - record.position
    if skip <= 0:
        return record, data
    place = 0
    for _ in range(skip):
        place = data.index(b"\n", place) + 1
    size, offset = record.size - place, record.offset + place
    rest = Record(position, offset, size, record.lines - skip, record.ms, record.open)
    return rest, data[place:]


def _first_behind(records: list[Record], position: int) -> int:
    """Index of the first record that ends behind `position`."""
    low, high = 0, len(records)
    while low < high:
        middle = (low + high) // 2
        if records[middle].end > position:
            high = middle
        else:
            low = middle + 1
    return low


def _ordinal(path: Path) -> int:
    return int(path.name.split(".")[1])


def _segment_paths(folder: Path, number: int) -> list[Path]:
    return sorted(folder.glob(f"{number}.*.log"), key=_ordinal)


def _open(path: Path) -> Segment:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    data = os.open(path, flags, 0o600)
    try:
        return Segment(path, data, os.open(path.with_suffix(".idx"), flags, 0o600))
    except OSError:
        os.close(data)
        raise


def _recover(path: Path) -> Segment:
    """Open a segment an earlier agent left: its records, then whole lines behind them."""
    segment = _open(path)
    packed = path.with_suffix(".idx").read_bytes()
    whole = len(packed) // _RECORD.size * _RECORD.size
    os.ftruncate(segment.index, whole)
    for position, size, lines, ms, flags in _RECORD.iter_unpack(packed[:whole]):
        segment.records.append(Record(position, segment.size, size, lines, ms, bool(flags & _OPEN)))
        segment.size += size
    _keep_whole_lines(segment)
    return segment


def _keep_whole_lines(segment: Segment) -> None:
    rest = os.pread(segment.data, os.fstat(segment.data).st_size - segment.size, segment.size)
    size = rest.rfind(b"\n") + 1
    os.ftruncate(segment.data, segment.size + size)
    last = segment.records[-1] if segment.records else None
    if not size or (last is None and _ordinal(segment.path) > 0):
        return
    position, ms = (last.end, last.ms) if last else (0, 0)
    lines = rest.count(b"\n", 0, size)
    segment.records.append(Record(position, segment.size, size, lines, ms))
    segment.size += size
    with contextlib.suppress(OSError):
        os.write(segment.index, _RECORD.pack(position, size, lines, ms, 0))
