"""Work of the server worker that somebody else asked for, by its Celery queue."""

from __future__ import annotations

from typing import Any, Final

import structlog
from celery import shared_task

from builds.forges.base import ForgeError, Unreachable
from builds.models import Repo
from builds.triggers import Hook, trigger

log = structlog.get_logger(__name__)

#: Source: Drone tries a forge three times, 15 s apart (reference server, section 3.4).
TRIES: Final = 3
PAUSE_S: Final = 15
TRIGGER: Final = "builds.trigger"


@shared_task(bind=True, name=TRIGGER, max_retries=TRIES - 1, default_retry_delay=PAUSE_S)
def trigger_build(self: Any, repo_id: int, hook: dict[str, Any]) -> None:
    """Make the build of an event; a forge that does not answer is asked again."""
    try:
        trigger(Repo.objects.get(pk=repo_id), Hook(**hook))
    except Unreachable as fault:
        raise self.retry(exc=fault) from fault
    except ForgeError as fault:
        log.warning("trigger.refused", repo_id=repo_id, error=str(fault))
