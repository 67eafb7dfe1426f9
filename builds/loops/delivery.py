"""Deliver the outbox: in order per topic, again and again until it is taken or given up."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final

import httpx
import structlog
from django.conf import settings
from django.db.models import Min
from django.utils import timezone

from builds import outbox
from builds.api import documents
from builds.models import Build, Outbox
from pipeline.errors import PlatformError

log = structlog.get_logger(__name__)

INTERVAL_S: Final = 2.0
MOST: Final = 200
MOST_ATTEMPTS: Final = 20
FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(hours=1)
TIMEOUT_S: Final = 60.0


class NotDelivered(PlatformError):
    """The other side did not take a message; it is tried again."""


def run_once(now: datetime | None = None) -> int:
    """Deliver what is due; how many messages were taken."""
    moment = now or timezone.now()
    taken = 0
    for row in _due(moment):
        taken += _try(row, moment)
    return taken


def _due(now: datetime) -> list[Outbox]:
    """The oldest message of each topic, where its next try has come."""
    heads = Outbox.objects.values("topic").annotate(head=Min("id")).values("head")
    return list(Outbox.objects.filter(pk__in=heads, next_try__lte=now).order_by("pk")[:MOST])


def _try(row: Outbox, now: datetime) -> bool:
    try:
        _deliver(row)
    except (NotDelivered, httpx.HTTPError) as fault:
        _put_off(row, str(fault) or type(fault).__name__, now)
        return False
    row.delete()
    return True


def _put_off(row: Outbox, error: str, now: datetime) -> None:
    row.attempts += 1
    if row.attempts >= MOST_ATTEMPTS:
        log.error("outbox.given_up", kind=row.kind, topic=row.topic, error=error)
        row.delete()
        return
    pause = min(FIRST_PAUSE * 2 ** (row.attempts - 1), LONGEST_PAUSE)
    row.error, row.next_try = error[:1000], now + pause
    row.save(update_fields=["attempts", "error", "next_try"])
    log.warning("outbox.put_off", kind=row.kind, topic=row.topic, error=error)


def _deliver(row: Outbox) -> None:
    build = Build.objects.select_related("repo").filter(pk=row.payload["build"]).first()
    if build is None:
        log.info("outbox.build_gone", kind=row.kind, build_id=row.payload["build"])
    elif row.kind == outbox.WEBHOOK:
        _post(row.payload, build)
    else:
        log.info("status.not_shown", scm=build.repo.scm, build_id=build.pk)


def _post(payload: dict[str, Any], build: Build) -> None:
    """Source: reference server, section 3.6."""
    body = {
        "event": payload["event"],
        "action": payload["action"],
        "repo": documents.repo(build.repo_id),
        "build": {**documents.build(build.pk), "status": payload["status"]},
        "system": {"link": settings.PUBLIC_URL, "version": settings.VERSION},
    }
    data = json.dumps(body).encode()
    answer = httpx.post(
        payload["endpoint"],
        content=data,
        headers=signed_headers(data, payload["event"], timezone.now()),
        timeout=TIMEOUT_S,
    )
    if answer.is_error:
        raise NotDelivered(f"{payload['endpoint']} answered {answer.status_code}")


def signed_headers(data: bytes, event: str, now: datetime) -> dict[str, str]:
    """The headers that prove a webhook. Source: reference server, sections 3.6 and 10."""
    date = format_datetime(now, usegmt=True)
    digest = "SHA-256=" + base64.b64encode(hashlib.sha256(data).digest()).decode()
    text = f"date: {date}\ndigest: {digest}"
    key = settings.WEBHOOK_SECRET.encode()
    signature = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "X-Drone-Event": event,
        "Date": date,
        "Digest": digest,
        "Signature": 'keyId="hmac-key",algorithm="hmac-sha256",'
        f'signature="{signature}",headers="date digest"',
    }
