"""Reading logs by position, from rows or from a compacted object."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from builds.logs import batches, store
from builds.logs.batches import Chunk
from builds.models import LogBatch, StepLog

_PAGE_ROWS: Final = 16
_MAX_FOUND: Final = 1000

Frame = tuple[int, bytes]  # the position of its first line, and the frame as stored


def read(step_id: int, first: int = 0, limit: int | None = None) -> Iterator[Chunk]:
    """The stored lines from position `first` on, at most `limit` of them, in chunks and in order.

    A chunk may start after the end of the one before: the lines between were dropped by the cap.
    A range read unpacks only the frames it touches.
    """
    position, left = first, limit
    while left is None or left > 0:
        page = _page(step_id, position)
        if not page:
            return
        for start, frame in page:
            if left == 0:
                return
            wanted = batches.unpack(frame, start).since(position)
            if left is not None:
                wanted = wanted.upto(left)
                left -= wanted.count
            yield wanted
            position = wanted.next


def text(step_id: int, first: int = 0) -> Iterator[bytes]:
    """The log as the step wrote it, from line `first` on."""
    for chunk in read(step_id, first):
        yield chunk.text()


def lines(step_id: int) -> Iterator[dict[str, Any]]:
    """Drone's lines `{pos, out, time}`: unfinished ones joined, `time` in seconds.

    Source: reference server, section 2 (Line).
    """
    begun: dict[str, Any] | None = None
    for chunk in read(step_id):
        opens = set(chunk.open)
        outs = chunk.data.decode("utf-8", "replace").split("\n")[:-1]
        for index, (out, ms) in enumerate(zip(outs, chunk.line_times(), strict=True)):
            if begun is None:
                begun = {"pos": chunk.first + index, "out": "", "time": ms // 1000}
            begun["out"] += out
            if index not in opens:
                begun["out"] += "\n"
                yield begun
                begun = None
    if begun is not None:
        yield begun


@dataclass(frozen=True, slots=True)
class Found:
    """A line that a search found."""

    position: int
    line: str


def search(step_id: int, wanted: str, limit: int = _MAX_FOUND) -> Iterator[Found]:
    """The lines that contain `wanted` (any case), in order, at most `limit`."""
    pattern = re.compile(re.escape(wanted.encode()), re.IGNORECASE)
    found = 0
    for chunk in read(step_id):
        seen = at = 0
        for hit in pattern.finditer(chunk.data):
            if hit.start() < at:
                continue
            seen += chunk.data.count(b"\n", at, hit.start())
            begin = chunk.data.rfind(b"\n", 0, hit.start()) + 1
            at = chunk.data.find(b"\n", hit.start()) + 1
            yield Found(chunk.first + seen, chunk.data[begin : at - 1].decode("utf-8", "replace"))
            seen += 1
            found += 1
            if found >= limit:
                return


def _page(step_id: int, position: int) -> list[Frame]:
    """Some frames that hold the lines from `position` on; empty where there are none yet."""
    for _ in range(2):
        log = StepLog.objects.filter(step=step_id).values("next", "key", "index").first()
        if log is None or log["next"] <= position:
            return []
        if log["key"] and log["key"] != store.ROWS:
            return _frame(log["key"], log["index"], position)
        if page := _rows(step_id, position):
            return page
        # compacted between the two queries: the row now names the object
    return []


def _rows(step_id: int, position: int) -> list[Frame]:
    rows = LogBatch.objects.filter(step=step_id)
    start = (
        rows.filter(first__lte=position).order_by("-first").values_list("first", flat=True).first()
    )
    page = (
        rows.filter(first__gte=start or 0).order_by("first").values_list("first", "count", "data")
    )
    return [
        (first, bytes(data)) for first, count, data in page[:_PAGE_ROWS] if first + count > position
    ]


def _frame(key: str, index: list[int], position: int) -> list[Frame]:
    """The frame with the line `position`, or the next one where that line was dropped.

    `index` is flat: first line, line count, offset, length, of each frame.
    """
    firsts, counts = index[0::4], index[1::4]
    at = max(bisect.bisect_right(firsts, position) - 1, 0)
    if firsts[at] + counts[at] <= position:
        at += 1
    first, _, offset, length = index[4 * at : 4 * at + 4]
    return [(first, store.by_key(key).read(key, offset, length))]
