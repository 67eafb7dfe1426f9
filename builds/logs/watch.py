"""Who is being watched: viewers' processes write it down, the one that takes a batch reads it.

Each process with viewers keeps one row that it renews; a row that is not renewed lapses, so a
killed process leaves nothing behind. The pace at which an agent sends follows from it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from django.core.cache import cache

from builds.models import ServerState

RENEW_S: Final = 10
_LAPSE_S: Final = 30
_CACHED_S: Final = 1
_PREFIX: Final = "watch:"
_CACHE_KEY: Final = "builds.logs.watch"
_CROWD: Final = 100
PACE_ALONE_MS: Final = 1000
PACE_CROWD_MS: Final = 100


def announce(process: str, viewers_by_step: Mapping[int, int]) -> None:
    """Write down that this process's viewers watch these steps; empty takes the row away."""
    rows = ServerState.objects
    now = time.time()
    if viewers_by_step:
        steps = {str(step): count for step, count in viewers_by_step.items()}
        value = {"until": now + _LAPSE_S, "steps": steps}
        rows.update_or_create(key=_PREFIX + process, defaults={"value": value})
    else:
        rows.filter(key=_PREFIX + process).delete()
    lapsed = [row.key for row in rows.filter(key__startswith=_PREFIX) if row.value["until"] < now]
    if lapsed:
        rows.filter(key__in=lapsed).delete()
    cache.delete(_CACHE_KEY)


def viewers(step_id: int) -> int:
    """How many watch a step; up to a second old."""
    return _table().get(str(step_id), 0)


def pace_ms(step_id: int) -> int:
    """How long an agent shall gather before it sends the step's next batch."""
    watching = viewers(step_id)
    if watching == 0:
        return PACE_ALONE_MS
    return PACE_CROWD_MS if watching > _CROWD else 0


def _table() -> dict[str, int]:
    table: dict[str, int] | None = cache.get(_CACHE_KEY)
    if table is None:
        table = {}
        for row in ServerState.objects.filter(key__startswith=_PREFIX):
            _add(table, row.value)
        cache.set(_CACHE_KEY, table, _CACHED_S)
    return table


def _add(table: dict[str, int], value: dict[str, Any]) -> None:
    if value["until"] >= time.time():
        for step, count in value["steps"].items():
            table[step] = table.get(step, 0) + count
