"""Failed steps that agents keep for debugging: who may sit at their shells, and who did."""

from __future__ import annotations

import secrets as random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from builds import events, permissions
from builds.models import Audit, Build, Hold, Lease, Repo, Stage, Step, User
from builds.permissions import Level
from pipeline.errors import UserError
from pipeline.spec import StageSpec
from pipeline.wire import HoldReport, Report

log = structlog.get_logger(__name__)

ACTION: Final = "shell"
#: A viewer who has not been seen for so long has left.
GONE_AFTER: Final = timedelta(seconds=45)


class InUse(UserError):
    """Somebody else sits at the shell."""

    code = "shell:in-use"


# --- who may --------------------------------------------------------------------------------------


def level(repo: Repo, source_repo: str) -> Level:
    """The right that debugging such a build takes: a fork's code is not that of the writers."""
    return "admin" if permissions.is_foreign(repo, source_repo) else "write"


def may(user: User | AnonymousUser | None, build: Build) -> bool:
    """Whether a user may debug a build, and sit at its shells."""
    return permissions.can(user, build.repo, level(build.repo, build.source_repo))


def amended(spec: StageSpec, build: Build) -> StageSpec:
    """The stage with how long its failed steps are kept."""
    if not build.debug:
        return spec
    return replace(
        spec, debug_s=settings.DEBUG_MIN * 60.0, debug_max_s=settings.DEBUG_MAX_MIN * 60.0
    )


# --- what agents say ------------------------------------------------------------------------------


def take(lease: Lease, steps: Sequence[Step], report: Report) -> tuple[int, ...]:
    """Note which steps are kept; the numbers of those that the agent shall let go.

    `lease` comes with its stage, build and repo, `steps` are the stage's.
    """
    stage = lease.stage
    if not stage.build.debug:
        return ()
    told = {} if report.done else {one.step: one for one in report.holds}
    known = {hold.step_id: hold for hold in Hold.objects.filter(lease=lease)}
    changed = False
    for step in steps:
        if step.number in told:
            changed |= _keep(lease, step, known.pop(step.pk, None), told[step.number])
    if known:
        Hold.objects.filter(pk__in=known).delete()
    if changed or known:
        _announce(stage)
    released = Hold.objects.filter(lease=lease, released=True).values_list(
        "step__number", flat=True
    )
    return tuple(released) if told else ()


def _keep(lease: Lease, step: Step, hold: Hold | None, told: HoldReport) -> bool:
    """Note that a step is kept; whether that is news."""
    now = timezone.now()
    expires = now + timedelta(milliseconds=told.left_ms)
    if hold is not None:
        Hold.objects.filter(pk=hold.pk).update(expires=expires)
        return False
    Hold.objects.create(
        step=step, lease=lease, exit_code=told.exit_code, created=now, expires=expires
    )
    log.info("step.kept", step_id=step.pk, build_id=lease.stage.build_id)
    return True


def _announce(stage: Stage) -> None:
    build = stage.build
    events.stage_changed(build.repo_id, build.pk, build.number, stage.number, stage.status)


def forget() -> int:
    """Forget kept steps whose leases have ended; how many."""
    gone = Hold.objects.exclude(lease__state=Lease.OPEN)
    found = list(gone.select_related("step__stage__build"))
    if found:
        Hold.objects.filter(pk__in=[hold.pk for hold in found]).delete()
    for hold in found:
        _announce(hold.step.stage)
    return len(found)


# --- what people do -------------------------------------------------------------------------------


def _kept() -> QuerySet[Hold]:
    """What is kept now."""
    return Hold.objects.filter(lease__state=Lease.OPEN, released=False)


def holds(build_id: int) -> QuerySet[Hold]:
    """The steps of a build that are kept now, with their steps and stages, in order."""
    rows = _kept().filter(step__stage__build=build_id).select_related("step__stage", "user")
    return rows.order_by("step__stage__number", "step__number")


def held(build_id: int) -> list[Hold]:
    """As `holds`, read."""
    return list(holds(build_id))


def held_step(build_id: int, stage: int, step: int) -> Hold | None:
    """One of them, by its numbers."""
    return holds(build_id).filter(step__stage__number=stage, step__number=step).first()


def find(step_id: int) -> Hold | None:
    """The hold of a step that is kept now, with everything above it."""
    return _kept().filter(pk=step_id).select_related("step__stage__build__repo", "user").first()


def release(hold: Hold, by: str) -> None:
    """Have a step let go. The agent hears of it at once, or with its next report."""
    Hold.objects.filter(pk=hold.pk).update(released=True)
    log.info("step.released", step_id=hold.pk, by=by)
    events.send((agent_group(hold.pk),), {"type": "shell.look"})
    _announce(hold.step.stage)


def is_released(step_id: int) -> bool:
    """Whether the agent of a step is to let it go."""
    return Hold.objects.filter(pk=step_id, released=True).exists()


def agent_group(step_id: int) -> str:
    """Where the socket of a kept step's agent listens."""
    return f"shell-{step_id}-agent"


def viewer_group(step_id: int) -> str:
    """Where the socket of a kept step's viewer listens."""
    return f"shell-{step_id}-viewer"


# --- visits ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody at a shell, from `began` on."""

    key: str
    step_id: int
    user_id: int
    audit_id: int
    began: datetime


def enter(hold: Hold, user: User, *, address: str, client: str, by_force: bool = False) -> Visit:
    """Sit down at the shell, instead of oneself elsewhere, or of nobody.

    Instead of somebody else only `by_force`. `client` says what with: browser or terminal.

    Raises: InUse.
    """
    key, now = random.token_hex(8), timezone.now()
    with transaction.atomic():
        row = Hold.objects.select_for_update().get(pk=hold.pk)
        here = row.shell and row.shell_seen and row.shell_seen > now - GONE_AFTER
        if here and row.user_id != user.pk and not by_force:
            raise InUse(f"{row.user.username if row.user else 'somebody'} is using this shell")
        Hold.objects.filter(pk=hold.pk).update(shell=key, user=user, shell_seen=now)
        audit = Audit.objects.create(
            user=user,
            action=ACTION,
            subject=_subject(hold),
            detail=_facts(hold, user, address, client),
        )
    log.info(
        "shell.opened", user=user.username, address=address, client=client, subject=audit.subject
    )
    return Visit(key, hold.pk, user.pk, audit.pk, now)


def _subject(hold: Hold) -> str:
    stage = hold.step.stage
    return f"{stage.build} {stage.name}/{hold.step.name}"


def _facts(hold: Hold, user: User, address: str, client: str) -> dict[str, Any]:
    stage = hold.step.stage
    return {
        "user": user.username,
        "address": address,
        "client": client,
        "repo": stage.build.repo.slug,
        "build": stage.build.number,
        "stage": stage.number,
        "step": hold.step.number,
        "seconds": 0,
    }


def stay(visit: Visit) -> str:
    """Note that a visitor is still there; why he must go, or empty."""
    hold = find(visit.step_id)
    if hold is None:
        return "debugging has ended"
    if hold.shell != visit.key:
        return (
            f"the shell was opened elsewhere by {hold.user.username if hold.user else 'somebody'}"
        )
    user = User.objects.filter(pk=visit.user_id).first()
    if not may(user, hold.step.stage.build):
        return "you may not use this shell any more"
    Hold.objects.filter(pk=hold.pk, shell=visit.key).update(shell_seen=timezone.now())
    _audit(visit, {})
    return ""


def leave(visit: Visit, why: str) -> None:
    """A visitor has gone."""
    Hold.objects.filter(pk=visit.step_id, shell=visit.key).update(shell="", user=None)
    detail = _audit(visit, {"ended": why})
    log.info(
        "shell.closed",
        user=detail.get("user"),
        address=detail.get("address"),
        seconds=detail.get("seconds"),
        why=why,
    )


def _audit(visit: Visit, more: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bring the visit's row in the audit up to date."""
    row = Audit.objects.filter(pk=visit.audit_id).first()
    if row is None:
        return {}
    row.detail |= {"seconds": int((timezone.now() - visit.began).total_seconds()), **more}
    row.save(update_fields=["detail"])
    detail: Mapping[str, Any] = row.detail
    return detail
