"""Taking lines in: where a log stands moves in the same transaction as the lines are stored."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import router, transaction
from django.db.models import F

from builds.logs import batches, store
from builds.models import LogBatch, StepLog


@dataclass(frozen=True, slots=True)
class Position:
    """How far a log has got: `next` is the position after its last line, `end` where it ends."""

    next: int = 0
    end: int | None = None

    @property
    def complete(self) -> bool:
        """Whether every line the step wrote is here."""
        return self.end is not None and self.next >= self.end


def append(step_id: int, from_: int, data: bytes) -> int:
    """Store a batch whose first line is `from_`, durably, and return the position after the last.

    Where the log does not stand at `from_`, nothing is written: the answer is where it stands, and
    the sender cuts anew from there. So a repeated batch changes nothing.

    Raises: BatchError for a batch that is malformed, too large, or follows a log's end.
    """
    batch = batches.measure(data)
    first = from_ + batch.skip
    database = router.db_for_write(LogBatch)
    with transaction.atomic(using=database):
        if from_ == 0:
            StepLog.objects.using(database).bulk_create(
                [StepLog(step=step_id)], ignore_conflicts=True
            )
        standing = StepLog.objects.using(database).filter(step=step_id, next=from_)
        moved = standing.filter(key="").update(
            next=first + batch.count, size_bytes=F("size_bytes") + batch.size_bytes
        )
        if moved:
            LogBatch.objects.using(database).bulk_create(
                [LogBatch(step=step_id, first=first, count=batch.count, data=data)]
            )
            return first + batch.count
        if standing.exists():
            raise batches.BatchError("this log is complete", "logs:complete")
    return next_position(step_id)


def finish(step_id: int, end: int) -> bool:
    """Say where a log ends, as the agent's last report does; whether it is complete now.

    The first word counts; repeats change nothing.
    """
    database = router.db_for_write(StepLog)
    rows = StepLog.objects.using(database)
    rows.bulk_create([StepLog(step=step_id)], ignore_conflicts=True)
    rows.filter(step=step_id, end=None).update(end=end)
    return position(step_id).complete


def give_up(step_id: int) -> None:
    """Let a log end where it stands: nobody will send the rest (its agent is gone for good)."""
    rows = StepLog.objects.using(router.db_for_write(StepLog))
    rows.filter(step=step_id, key="").update(end=F("next"))


def position(step_id: int) -> Position:
    """How far a step's log has got; a step without a log stands at 0."""
    row = StepLog.objects.filter(step=step_id).values_list("next", "end").first()
    return Position(*row) if row else Position()


def next_position(step_id: int) -> int:
    """The position after the last stored line."""
    return position(step_id).next


def delete(step_id: int) -> None:
    """Remove a log, wherever its lines are; repeatable."""
    database = router.db_for_write(StepLog)
    with transaction.atomic(using=database):
        rows = StepLog.objects.using(database).filter(step=step_id)
        key = rows.values_list("key", flat=True).first()
        rows.delete()
        LogBatch.objects.using(database).filter(step=step_id).delete()
    if key and key != store.ROWS:
        store.by_key(key).delete(key)
