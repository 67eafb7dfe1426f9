"""Which pending stage is next for an agent, and why one is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db import connection

from builds.membership import described, own_queues, repos_in_bounds, subset_queues
from builds.models import Agent, Build, Repo, ServerState, Stage
from pipeline import states
from pipeline.errors import PlatformError

PAUSED = "queue.paused"

_STAGE, _BUILD, _REPO, _STATE = (
    model._meta.db_table for model in (Stage, Build, Repo, ServerState)
)
# A stage counts those before it that are open, so that a limit holds however claims interleave.
_BEFORE = f"""SELECT COUNT(*) FROM {_STAGE} o WHERE o.repo_id = s.repo_id
    AND (o.status = 'running' OR (o.status = 'pending' AND o.id < s.id))"""  # noqa: S608 - constants
_WITHIN_LIMITS = f"""
    (s."limit" = 0 OR ({_BEFORE} AND o.name = s.name) < s."limit")
    AND (s.throttle = 0 OR ({_BEFORE}) < s.throttle)"""
_NEXT = f"""
    SELECT s.id, s.repo_id, s."limit" + s.throttle FROM {_STAGE} s
    JOIN {_BUILD} b ON b.id = s.build_id
    JOIN {_REPO} r ON r.id = s.repo_id
    LEFT JOIN (SELECT repo_id, COUNT(*) AS running FROM {_STAGE} WHERE status = 'running'
               GROUP BY repo_id) f ON f.repo_id = s.repo_id
    WHERE s.status = 'pending' AND %(queues)s AND %(repos)s
    AND (s.variant = '' OR s.variant = %%s) AND (s.kernel = '' OR s.kernel = %%s)
    AND (%%s = 0 OR s.id = %%s)
    AND {_WITHIN_LIMITS}
    AND NOT EXISTS (SELECT 1 FROM {_STATE} WHERE key = '{PAUSED}')
    ORDER BY b.priority DESC, COALESCE(f.running, 0), s.id LIMIT 1 %(lock)s
"""  # noqa: S608 - only constants and placeholders are put in


class Again(PlatformError):
    """Another claim has just used up the limit that this one counted on."""


def next_stage(agent: Agent, only: int = 0) -> int | None:
    """The pending stage an agent is to run next, by priority, fair share between repos and age.

    `only` is the id of the one stage it is for, if it is for one.

    Chosen in one statement. On PostgreSQL the stage's build is locked until the transaction ends;
    builds that others hold are passed over, and waited for only if nothing else is left.

    Raises: Again where the choice does not stand: to be asked anew in a new transaction, because
    this one holds the repo, and whoever holds a build may wait for that.
    """
    if not connection.features.has_select_for_update:
        found = _choose(agent, only, "")
        return found[0] if found else None
    found = _choose(agent, only, "FOR NO KEY UPDATE OF b SKIP LOCKED")
    found = found or _choose(agent, only, "FOR NO KEY UPDATE OF b")
    if found is None:
        return None
    stage_id, repo_id, limits = found
    if limits and not _still_next(stage_id, repo_id):
        raise Again
    return stage_id


def _choose(agent: Agent, only: int, lock: str) -> tuple[int, int, int] | None:
    """Ids of stage and repo, and whether there are limits; not 0 if so."""
    query, values = _query(agent, only, lock)
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        row: tuple[int, int, int] | None = cursor.fetchone()
    return row


def _query(agent: Agent, only: int, lock: str) -> tuple[str, list[Any]]:
    own, subset = own_queues(agent), subset_queues(agent)
    queues = f"(s.queue IN ({_marks(own)})"
    values: list[Any] = [*own]
    if subset:
        loose = "TRUE" if settings.SUBSET_LABELS else "r.subset_labels"
        queues += f" OR ({loose} AND s.queue IN ({_marks(subset)}))"
        values += subset
    repos = repos_in_bounds(agent)
    bound = "TRUE" if repos is None else f"s.repo_id IN ({_marks(repos)})"
    values += [*(repos or ()), agent.variant, agent.kernel, only, only]
    return _NEXT % {"queues": queues + ")", "repos": bound, "lock": lock}, values


def _marks(values: Sequence[object]) -> str:
    return ", ".join(["%s"] * len(values)) or "NULL"


def _still_next(stage_id: int, repo_id: int) -> bool:
    """Whether a chosen stage is within its limits now that its repo is locked.

    The choice saw the limits of a moment ago; two choices may have passed each other.
    """
    Repo.objects.select_for_update(of=("self",), no_key=True).get(pk=repo_id)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT 1 FROM {_STAGE} s WHERE s.id = %s AND s.status = %s AND {_WITHIN_LIMITS}",  # noqa: S608 - constants
            [stage_id, states.PENDING],
        )
        return cursor.fetchone() is not None


def why_waiting(stage: Stage) -> str:
    """In one sentence, why a stage does not run yet; empty for one that waits for nothing."""
    if stage.status == states.WAITING:
        return _waits_for(stage)
    if stage.status == states.BLOCKED:
        return "waits for approval"
    if stage.status != states.PENDING:
        return ""
    if ServerState.objects.filter(key=PAUSED).exists():
        return "the queue is paused"
    if not _is_within_limits(stage):
        return "waits for other stages: its concurrency limit or the repo's throttle is reached"
    return described(stage)


def _waits_for(stage: Stage) -> str:
    names = Stage.objects.filter(
        build=stage.build_id, name__in=stage.depends_on, status__in=states.OPEN
    ).values_list("name", flat=True)
    return f"waits for {', '.join(names)}" if names else ""


def _is_within_limits(stage: Stage) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT 1 FROM {_STAGE} s WHERE s.id = %s AND {_WITHIN_LIMITS}",  # noqa: S608 - constants
            [stage.pk],
        )
        return cursor.fetchone() is not None
