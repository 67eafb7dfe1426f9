"""Taking lines in: where a log stands moves in the same transaction as the lines are stored."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import connections, router, transaction
from django.db.models import F

from builds.logs import batches
from builds.models import LogBatch, StepLog

_LOG, _BATCH = StepLog._meta.db_table, LogBatch._meta.db_table
# Written out because every report of every stage passes here: Django takes longer to build these
# than a database to run them.
_BEGIN: Final = f"""INSERT INTO {_LOG} (step, next, "end", size_bytes, key, "index")
    VALUES (%s, %s, %s, %s, '', '[]') ON CONFLICT DO NOTHING"""  # noqa: S608 - constants
_MOVE: Final = f"""UPDATE {_LOG} SET next = %s, size_bytes = size_bytes + %s
    WHERE step = %s AND next = %s AND key = ''"""  # noqa: S608 - constants
_ADD: Final = f"INSERT INTO {_BATCH} (step, first, count, data) VALUES (%s, %s, %s, %s)"  # noqa: S608 - constants
_END: Final = f'UPDATE {_LOG} SET "end" = %s WHERE step = %s AND "end" IS NULL'  # noqa: S608 - constants
_STANDING: Final = f"SELECT next FROM {_LOG} WHERE step = %s"  # noqa: S608 - constants


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
    return take(step_id, ((from_, data),))


def finish(step_id: int, end: int) -> bool:
    """Say where a log ends, as the agent's last report does; whether it is complete now.

    The first word counts; repeats change nothing.
    """
    take(step_id, (), end)
    return position(step_id).complete


def take(step_id: int, parts: Sequence[tuple[int, bytes]], end: int | None = None) -> int:
    """Store batches, each with the position of its first line, and where the log ends, if known.

    All of it in one transaction: one wait for the disk. Returns where the log stands then.

    Raises: BatchError, as `append`; then nothing is stored.
    """
    measured = [(from_, batches.measure(data), data) for from_, data in parts]
    database = router.db_for_write(LogBatch)
    stands: int | None = None
    with transaction.atomic(using=database), connections[database].cursor() as cursor:
        for from_, batch, data in measured:
            stands = _add(cursor, step_id, from_, batch, data)
        if end is not None:
            cursor.execute(_END, [end, step_id])
            if not cursor.rowcount:
                cursor.execute(_BEGIN, [step_id, 0, end, 0])
    return next_position(step_id) if stands is None else stands


def _add(cursor: Any, step_id: int, from_: int, batch: batches.Batch, data: bytes) -> int:
    """Store one batch if the log stands where it begins; where the log stands then."""
    first = from_ + batch.skip
    after = first + batch.count
    if _advance(cursor, step_id, from_, after, batch.size_bytes):
        binary = cursor.db.Database.Binary(data)
        cursor.execute(_ADD, [step_id, first, batch.count, binary])
        return after
    cursor.execute(_STANDING, [step_id])
    next_ = (cursor.fetchone() or (0,))[0]
    if next_ == from_:
        raise batches.BatchError("this log is complete", "logs:complete")
    return int(next_)


def _advance(cursor: Any, step_id: int, from_: int, after: int, size_bytes: int) -> bool:
    if from_ == 0:
        cursor.execute(_BEGIN, [step_id, after, None, size_bytes])
        if cursor.rowcount:
            return True
    cursor.execute(_MOVE, [after, size_bytes, step_id, from_])
    return bool(cursor.rowcount)


def ended(step_ids: Collection[int]) -> set[int]:
    """Those of the steps whose log's end is known."""
    rows = StepLog.objects.filter(step__in=step_ids, end__isnull=False)
    return set(rows.values_list("step", flat=True))


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
