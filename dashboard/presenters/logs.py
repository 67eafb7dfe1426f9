"""A step's log as rows for the page, and as the JSON that the page's script asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from builds import logs
from builds.models import Step, StepLog
from dashboard.presenters import ansi, words

PAGE_LINES: Final = 1000
MAX_HITS: Final = 500


@dataclass(frozen=True, slots=True)
class Line:
    """One row: `number` counts from 1; `dropped` lines before it were left out by the size cap."""

    number: int
    spans: tuple[ansi.Span, ...]
    time: str = ""
    command: bool = False
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a log that a page shows: positions [first, next) of `total`.

    `open`: the last row is unfinished, the line at `next` continues it. `complete`: nothing more
    will come.
    """

    lines: tuple[Line, ...]
    first: int
    next: int
    total: int
    open: bool
    complete: bool

    @property
    def earlier(self) -> int | None:
        """Where the page before this one starts."""
        return max(0, self.first - PAGE_LINES) if self.first > 0 else None

    @property
    def later(self) -> int | None:
        """Where the page after this one starts."""
        return self.next if self.next < self.total else None


@dataclass(frozen=True, slots=True)
class Hit:
    """A line that a search found; `before`, `match`, `after` are its text."""

    number: int
    first: int
    before: str
    match: str
    after: str


def window(step: Step, first: int | None = None) -> Window:
    """At most 1000 lines from position `first`; without one, the last of the log."""
    log = StepLog.objects.filter(step=step.pk).values("next", "end").first()
    total, end = (log["next"], log["end"]) if log else (0, None)
    start = _start(step.pk, total, first)
    rows, after, open_ = _rows(step.pk, start)
    return Window(
        lines=tuple(rows),
        first=start,
        next=after,
        total=total,
        open=open_,
        complete=end is not None and total >= end,
    )


def _start(step_id: int, total: int, first: int | None) -> int:
    """Where a window begins; one that would begin among dropped lines begins before them."""
    start = max(0, total - PAGE_LINES) if first is None else min(max(0, first), total)
    stored = _stored(step_id, start)
    if stored is None or stored == start:
        return start
    low, high = 0, start
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _stored(step_id, middle) == stored else (middle + 1, high)
    after = total - stored
    return max(0, low - PAGE_LINES + (after if first is None else min(after, PAGE_LINES // 2)))


def _stored(step_id: int, position: int) -> int | None:
    """The first position from this one on whose line is stored."""
    return next((chunk.first for chunk in logs.read(step_id, position, 1)), None)


def frame(step_id: int, first: int, limit: int) -> dict[str, Any]:
    """Lines as JSON, like a frame of the live view: `first`, `lines`, `times`, and `open`, here the
    indices of unfinished lines. Stops before a gap left by the size cap."""
    outs: list[str] = []
    times: list[int] = []
    opens: list[int] = []
    start = first
    for chunk in logs.read(step_id, first, limit):
        if not outs:
            start = chunk.first
        elif chunk.first != start + len(outs):
            break
        opens += [len(outs) + index for index in chunk.open]
        outs += chunk.data.decode("utf-8", "replace").split("\n")[:-1]
        times += chunk.line_times()
    return {"first": start, "lines": outs, "times": times, "open": opens}


def hits(step_id: int, wanted: str) -> list[Hit]:
    """The first 500 lines that contain `wanted`, in any case."""
    found = []
    for line in logs.search(step_id, wanted, MAX_HITS):
        text = ansi.plain(line.line)
        at = max(0, text.lower().find(wanted.lower()))
        found.append(
            Hit(
                number=line.position + 1,
                first=max(0, line.position - PAGE_LINES // 2),
                before=text[:at],
                match=text[at : at + len(wanted)],
                after=text[at + len(wanted) :],
            )
        )
    return found


@dataclass(slots=True)
class _Row:
    position: int
    text: str
    ms: int
    dropped: int


def _rows(step_id: int, first: int) -> tuple[list[Line], int, bool]:
    """Rows from `first` on, the position after the last, and whether that one is unfinished."""
    rows: list[_Row] = []
    after, open_ = first, False
    for position, text, ms, unfinished in _lines(step_id, first):
        if open_ and rows:
            rows[-1].text += text
        else:
            rows.append(_Row(position, text, ms, max(0, position - after)))
        after, open_ = position + 1, unfinished
    return [_line(row) for row in rows], after, open_


def _lines(step_id: int, first: int) -> Iterator[tuple[int, str, int, bool]]:
    for chunk in logs.read(step_id, first, PAGE_LINES):
        opens = set(chunk.open)
        outs = chunk.data.decode("utf-8", "replace").split("\n")[:-1]
        for index, (out, ms) in enumerate(zip(outs, chunk.line_times(), strict=True)):
            yield chunk.first + index, out, ms, index in opens


def _line(row: _Row) -> Line:
    return Line(
        number=row.position + 1,
        spans=tuple(ansi.spans(row.text)),
        time=words.offset(row.ms),
        command=row.text.startswith("+ "),
        dropped=row.dropped,
    )
