"""What is of no use any more goes: logs without a build, ended leases, old links, stuck builds."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import structlog
from django.db.models import F, Max, Q
from django.utils import timezone

from builds import artifacts, logs, transitions
from builds.models import Agent, Build, Lease, LoginLink, Stage, Step, StepLog
from pipeline import states

log = structlog.get_logger(__name__)

INTERVAL_S: Final = 300.0
#: How long the lines of a stage that ended may still be on their way.
LATE_LINES: Final = timedelta(hours=1)
MOST_LOGS: Final = 10_000
KEPT_LEASES: Final = timedelta(days=7)
KEPT_AGENTS: Final = timedelta(days=30)
#: Source: Drone's reaper (reference server, section 4).
REAP_AFTER: Final = timedelta(hours=24, minutes=30)
REAP_BUFFER: Final = timedelta(minutes=30)


def run_once(now: datetime | None = None) -> None:
    """One round of everything."""
    moment = now or timezone.now()
    end_logs(moment)
    forget(moment)
    reap(moment)
    logs.sweep()
    artifacts.sweep(moment)


def end_logs(now: datetime) -> None:
    """Let the logs end whose agents have been gone for so long that no more lines will come."""
    hot = StepLog.objects.filter(Q(end=None) | Q(next__lt=F("end")), key="")
    steps = list(hot.order_by("step").values_list("step", flat=True)[:MOST_LOGS])
    ended = Step.objects.filter(pk__in=steps, stage__status__in=states.DONE)
    for step in ended.filter(stage__stopped__lt=now - LATE_LINES).values_list("pk", flat=True):
        logs.give_up(step)


def forget(now: datetime) -> None:
    """Delete rows that nobody asks for any more."""
    done = Lease.objects.filter(state=Lease.CLOSED, ended__lt=now - KEPT_LEASES)
    done.exclude(stage__status=states.RUNNING).delete()
    LoginLink.objects.filter(expires__lt=now).delete()
    live = Lease.objects.exclude(state=Lease.CLOSED).values("agent")
    Agent.objects.filter(left__lt=now - KEPT_AGENTS).exclude(pk__in=live).delete()


def reap(now: datetime) -> None:
    """Cancel builds that wait or run for more than a day without a chance to end."""
    old = Q(status=states.PENDING, created__lt=now - REAP_AFTER)
    old |= Q(status=states.RUNNING, started__lt=now - REAP_AFTER)
    found = Stage.objects.filter(old).values_list("build_id", flat=True).distinct()
    for build in Build.objects.filter(pk__in=found).select_related("repo"):
        if _is_stuck(build, now):
            log.info("build.reaped", build_id=build.pk)
            transitions.cancel(build.pk, by="retention")


def _is_stuck(build: Build, now: datetime) -> bool:
    running = Stage.objects.filter(build=build, status=states.RUNNING)
    newest = running.aggregate(newest=Max("started"))["newest"]
    if build.status == states.PENDING or newest is None:
        return True
    deadline: datetime = newest + timedelta(minutes=build.repo.timeout_min) + REAP_BUFFER
    return deadline < now
