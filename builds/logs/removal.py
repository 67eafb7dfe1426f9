"""Removal: logs go with their steps.

An object goes before the row that names it, so that a crash in between leaves what can be removed
again. The two tables may lie in another database than the steps, where no deletion reaches them:
`sweep` finds what was left.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import structlog
from django.db import router, transaction
from django.db.models import QuerySet

from builds.logs import store
from builds.models import LogBatch, ServerState, Step, StepLog

#: Logs that are looked at in one query and removed in one transaction.
_PAGE: Final = 500
_MOST: Final = 20_000
_MOST_REMOVED: Final = 2_000
#: A store that fails so often is away: each try may take it a while.
_MOST_FAULTS: Final = 3
_MARK: Final = "logs-swept"
_log = structlog.get_logger(__name__)


def delete(step_id: int) -> None:
    """Remove a log, wherever its lines are; repeatable. Raises: StoreFault, OSError."""
    for key in _objects([step_id]).values_list("key", flat=True):
        store.by_key(key).delete(key)
    _delete_rows([step_id])


def delete_all(step_ids: Collection[int]) -> set[int]:
    """Remove some logs; which of them stay, since their objects cannot be removed now."""
    stuck: set[int] = set()
    faults = 0
    for step, key in _objects(step_ids).values_list("step", "key"):
        try:
            if faults < _MOST_FAULTS:
                store.by_key(key).delete(key)
                continue
        except (OSError, store.StoreFault) as fault:
            faults += 1
            _log.error("log.removal_failed", step_id=step, error=str(fault))
        stuck.add(step)
    _delete_rows(set(step_ids) - stuck)
    return stuck


def sweep(most: int = _MOST) -> int:
    """Remove logs whose steps are gone; how many went.

    Looks at `most` logs, from where the last sweep ended, and begins anew after the last one. Ends
    sooner where there is much to remove, or a store fails.
    """
    mark = ServerState.objects.filter(key=_MARK).values_list("value", flat=True).first()
    after, removed = (mark or {}).get("after", 0), 0
    for _ in range(0, most, _PAGE):
        rows = StepLog.objects.filter(step__gt=after).order_by("step")
        # the logs are read first: a step is always there before its log
        page = list(rows.values_list("step", flat=True)[:_PAGE])
        gone = set(page) - set(Step.objects.filter(pk__in=page).values_list("pk", flat=True))
        stuck = delete_all(gone) if gone else gone
        removed += len(gone) - len(stuck)
        after = page[-1] if len(page) == _PAGE else 0
        if not after or stuck or removed >= _MOST_REMOVED:
            break
    ServerState.objects.update_or_create(key=_MARK, defaults={"value": {"after": after}})
    return removed


def _objects(step_ids: Collection[int]) -> QuerySet[StepLog]:
    rows = StepLog.objects.using(router.db_for_write(StepLog)).filter(step__in=step_ids)
    return rows.exclude(key__in=("", store.ROWS))


def _delete_rows(step_ids: Collection[int]) -> None:
    database = router.db_for_write(StepLog)
    with transaction.atomic(using=database):
        for model in (StepLog, LogBatch):
            rows: QuerySet[Any] = model._default_manager.using(database)
            rows.filter(step__in=step_ids).delete()
