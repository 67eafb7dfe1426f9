"""What the outside must be told: rows written in the transaction of the change they tell of.

The delivery loop sends them in order per topic and tries again until they are taken or given up.
Plain git repositories have nobody to tell a status; webhooks exist where endpoints are configured.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.utils import timezone

from builds.forges import has_statuses
from builds.models import Build, Outbox
from pipeline import states

STATUS, WEBHOOK = "status", "webhook"
SILENT_EVENTS = frozenset({"cron"})
DESCRIPTIONS = {
    states.PENDING: "Build is pending",
    states.RUNNING: "Build is running",
    states.BLOCKED: "Build is pending approval",
    states.SUCCESS: "Build is passing",
    states.FAILURE: "Build is failing",
    states.ERROR: "Build encountered an error",
    states.KILLED: "Build was killed",
    states.DECLINED: "Build was declined",
    states.SKIPPED: "Build was skipped",
}


def tell(build: Build, status: str, action: str = "updated") -> None:
    """Write the rows for a build's new status; `action` is the webhook's, created or updated.

    Needs `build.repo`; no statement runs where nobody is to be told.
    """
    rows = [*_statuses(build, status), *_webhooks(build, status, action)]
    if rows:
        Outbox.objects.bulk_create(rows)


def _statuses(build: Build, status: str) -> Iterable[Outbox]:
    if not has_statuses(build.repo.scm) or build.event in SILENT_EVENTS:
        return
    yield _row(
        STATUS,
        f"status:{build.repo_id}:{build.after}:{build.event}:{build.deploy_to}",
        {"build": build.pk, "status": status, "description": DESCRIPTIONS[status]},
    )


def _webhooks(build: Build, status: str, action: str) -> Iterable[Outbox]:
    for endpoint in settings.WEBHOOK_ENDPOINTS:
        yield _row(
            WEBHOOK,
            f"webhook:{endpoint}:{build.pk}"[:250],
            {
                "build": build.pk,
                "status": status,
                "endpoint": endpoint,
                "event": "build",
                "action": action,
            },
        )


def _row(kind: str, topic: str, payload: dict[str, Any]) -> Outbox:
    now = timezone.now()
    return Outbox(kind=kind, topic=topic, payload=payload, created=now, next_try=now)
