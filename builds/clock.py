"""The clock that leases live by: the database's, standing still while no web process is up.

A web process that is up says so every few seconds (`beat`). What passes without a beat is no
agent's silence: nobody could have taken its report. While it lasts, `lease_now` does not move; when
it is over, the first beat moves the leases' marks on by as much.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Final

import structlog
from django.conf import settings
from django.db import DatabaseError, close_old_connections, connection, transaction
from django.db.models import F
from django.utils import timezone

from builds.models import Lease, ServerState, Stage

log = structlog.get_logger(__name__)

LONGEST_PULSE_S: Final = 5.0
_KEY: Final = "web.beat"


def pulse_s() -> float:
    """How often web processes beat and the reconciler looks: often for the time leases have."""
    return min(LONGEST_PULSE_S, settings.LEASE_LOST_S / 9)


def gap() -> timedelta:
    """A longer pause between two beats is a gap."""
    return timedelta(seconds=3 * pulse_s())


def database_now() -> datetime:
    """The database's time; SQLite's is this machine's."""
    if connection.vendor != "postgresql":
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        found: datetime = cursor.fetchone()[0]
    return found


def beat() -> None:
    """Say that a web process is up; called by each of them every `pulse_s`."""
    with transaction.atomic():
        row = ServerState.objects.select_for_update().filter(key=_KEY).first()
        now = database_now()
        if row is not None:
            last = _read(row)
            if now - last > gap():
                _move_on(last, now - last)
        ServerState.objects.update_or_create(key=_KEY, defaults={"value": {"at": now.isoformat()}})


def beat_forever(stop: threading.Event) -> None:
    """Beat until told to stop; a database that is away makes a gap, as it should."""
    while True:
        try:
            close_old_connections()
            beat()
        except DatabaseError as fault:
            log.warning("beat.missed", error=str(fault))
        if stop.wait(pulse_s()):
            break
    connection.close()


def lease_now() -> datetime:
    """What time it is for leases: never long after the last beat."""
    now = database_now()
    row = ServerState.objects.filter(key=_KEY).first()
    return now if row is None else min(now, _read(row) + gap())


def _read(row: ServerState) -> datetime:
    return datetime.fromisoformat(row.value["at"])


def _move_on(last: datetime, pause: timedelta) -> None:
    """Move marks made before a gap to the other side of it."""
    live = Lease.objects.exclude(state=Lease.CLOSED).filter(seen__lte=last + gap())
    live.update(seen=F("seen") + pause)
    Stage.objects.filter(lost__isnull=False).update(lost=F("lost") + pause)
