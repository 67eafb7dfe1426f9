"""Compaction: the many batches of a complete log become one object with an index.

The object is written first, then one transaction names it and removes the rows; so a crash at any
point leaves a log that reads the same, and compacting again is harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import structlog
from django.db import router, transaction
from django.db.models import F

from builds.logs import batches, reading, store
from builds.logs.batches import Chunk
from builds.models import LogBatch, StepLog

FRAME_BYTES: Final = 1024 * 1024
#: Logs up to this many bytes of text stay in the database.
SMALL_BYTES: Final = 64 * 1024
_FRAME_MARKS: Final = 8192
_log = structlog.get_logger(__name__)


def compact(step_id: int) -> bool:
    """Compact a log that is complete; whether there was anything to do."""
    log = StepLog.objects.filter(
        step=step_id, key="", end__isnull=False, next__gte=F("end")
    ).first()
    if log is None:
        return False
    place = store.chosen()
    if place is None or log.size_bytes <= SMALL_BYTES:
        _into_rows(step_id)
        return True
    key = place.key(step_id)
    index: list[int] = []
    place.write(key, _frames(reading.read(step_id), index))
    database = router.db_for_write(StepLog)
    with transaction.atomic(using=database):
        open_logs = StepLog.objects.using(database).filter(step=step_id, key="")
        if open_logs.update(key=key, index=index):
            LogBatch.objects.using(database).filter(step=step_id).delete()
    if not StepLog.objects.using(database).filter(step=step_id).exists():
        place.delete(key)  # the log was removed meanwhile
    return True


def compact_due(limit: int = 1000) -> int:
    """Compact up to `limit` complete logs, oldest first; how many were done.

    One that fails (a full disk, an absent bucket) stays as it is and does not hold up the others.
    """
    due = list(
        StepLog.objects.filter(key="", end__isnull=False, next__gte=F("end"))
        .order_by("step")
        .values_list("step", "size_bytes")[:limit]
    )
    done = _mark_small([step for step, size in due if size <= SMALL_BYTES])
    for step, _ in due:
        if step in done:
            continue
        try:
            compact(step)
        except (OSError, store.StoreFault) as fault:
            _log.error("log.compaction_failed", step_id=step, error=str(fault))
        else:
            done.add(step)
    return len(done)


def _mark_small(steps: list[int]) -> set[int]:
    """Settle small logs that already are one row, or none, in one statement."""
    several = set(
        LogBatch.objects.filter(step__in=steps, first__gt=0)
        .values_list("step", flat=True)
        .distinct()
    )
    single = set(steps) - several
    database = router.db_for_write(StepLog)
    StepLog.objects.using(database).filter(step__in=single, key="").update(key=store.ROWS)
    return single


def _into_rows(step_id: int) -> None:
    """Replace a log's batches by as few rows as hold it."""
    database = router.db_for_write(StepLog)
    rows = LogBatch.objects.using(database).filter(step=step_id)
    with transaction.atomic(using=database):
        merged = [
            LogBatch(step=step_id, first=chunk.first, count=chunk.count, data=batches.pack(chunk))
            for chunk in _merge(reading.read(step_id))
        ]
        rows.delete()
        LogBatch.objects.using(database).bulk_create(merged)
        StepLog.objects.using(database).filter(step=step_id, key="").update(key=store.ROWS)


def _frames(chunks: Iterable[Chunk], index: list[int]) -> Iterator[bytes]:
    """Frames of about 1 MiB of text each; `index` is filled meanwhile."""
    offset = 0
    for chunk in _merge(chunks):
        frame = batches.pack(chunk)
        index += [chunk.first, chunk.count, offset, len(frame)]
        offset += len(frame)
        yield frame


def _merge(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Join and cut chunks to about FRAME_BYTES each; a gap stays between two chunks."""
    held: list[Chunk] = []
    size = marks = 0
    for chunk in _cut(chunks):
        full = size + len(chunk.data) > FRAME_BYTES or marks + len(chunk.times) > _FRAME_MARKS
        if held and (full or held[-1].next != chunk.first):
            yield batches.join(held)
            held, size, marks = [], 0, 0
        held.append(chunk)
        size += len(chunk.data)
        marks += len(chunk.times) + len(chunk.open)
    if held:
        yield batches.join(held)


def _cut(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    for whole in chunks:
        chunk = whole
        while len(chunk.data) > FRAME_BYTES:
            edge = chunk.data.find(b"\n", FRAME_BYTES - 1) + 1
            count = chunk.data.count(b"\n", 0, edge)
            yield chunk.upto(count)
            if count == chunk.count:
                break
            chunk = chunk.since(chunk.first + count)
        else:
            yield chunk
