"""Every five seconds: ring where stages wait unheard, and let nothing hang on a silent agent."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import structlog
from django.conf import settings
from django.db.models import Count, Exists, OuterRef

from builds import clock, debug, dispatch, transitions
from builds.membership import AWAY
from builds.models import Agent, Lease, ServerState, Stage
from builds.queue import PAUSED
from builds.transitions import StaleTransition
from pipeline import states

log = structlog.get_logger(__name__)

MOST_TICKETS: Final = 64
#: An agent without work calls at least every 45 s.
AWAY_AFTER: Final = timedelta(seconds=100)


def run_once(now: datetime | None = None) -> None:
    """One round; `now` is the leases' time and comes from the database unless given."""
    moment = now or clock.lease_now()
    watch_leases(moment)
    close_leases(moment)
    end_orphans()
    debug.forget()
    mark_away(moment)
    ring_queues()


def watch_leases(now: datetime) -> None:
    """Deal with open leases whose agent has been silent for too long."""
    silent = Lease.objects.filter(
        state=Lease.OPEN, seen__lt=now - timedelta(seconds=settings.LEASE_LOST_S)
    )
    for lease in silent.select_related("stage__build__repo", "agent"):
        try:
            _deal_with(lease, now)
        except StaleTransition:
            log.info("lease.moved_on", lease=lease.pk)


def _deal_with(lease: Lease, now: datetime) -> None:
    stage = lease.stage
    if not lease.begun:
        transitions.requeue(stage)
    elif stage.lost is None:
        transitions.lose(stage, now)
    elif stage.lost < now - timedelta(seconds=settings.LOST_GRACE_S):
        _give_up(lease)


def _give_up(lease: Lease) -> None:
    stage = lease.stage
    if lease.attempt <= stage.build.repo.retry_lost:
        transitions.requeue(stage, begun=True)
        return
    text = f"agent {stage.machine} was lost: it has not reported since {lease.seen:%H:%M:%S} UTC"
    transitions.finish_stage_error(stage, text, attempt=lease.attempt)


def close_leases(now: datetime) -> None:
    """End the leases of cancelled stages whose agents did not finish in time."""
    late = now - timedelta(seconds=settings.CLOSING_S)
    for pk in Lease.objects.filter(state=Lease.CLOSING, stage__stopped__lt=late).values_list(
        "pk", flat=True
    ):
        transitions.close_lease(pk)


def end_orphans() -> None:
    """End running stages that no lease stands for: their agent's row was deleted."""
    live = Lease.objects.filter(stage=OuterRef("pk")).exclude(state=Lease.CLOSED)
    for stage in Stage.objects.filter(~Exists(live), status=states.RUNNING).select_related(
        "build__repo"
    ):
        try:
            text = f"agent {stage.machine} was removed from the server"
            transitions.finish_stage_error(stage, text, attempt=stage.attempt)
        except StaleTransition:
            log.info("stage.moved_on", stage_id=stage.pk)


def mark_away(now: datetime) -> None:
    """Show agents that have not called for a while as away."""
    silent = Agent.objects.filter(left=None, seen__lt=now - AWAY_AFTER).exclude(state=AWAY)
    silent.update(state=AWAY)


def ring_queues() -> None:
    """Ring each queue that has pending stages and no tickets, once per stage up to a bound."""
    pending = Stage.objects.filter(status=states.PENDING).values_list("queue")
    counts = dict(pending.annotate(count=Count("pk")).order_by("queue"))
    if not counts or ServerState.objects.filter(key=PAUSED).exists():
        return
    try:
        lengths = dispatch.waiting(counts)
    except dispatch.BROKER_FAULTS as fault:
        log.warning("broker.away", error=str(fault))
        return
    for queue, count in counts.items():
        if lengths[queue] == 0:
            dispatch.ring_now(queue, min(count, MOST_TICKETS))
