from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from builds import claims, clock, triggers
from builds.models import Agent, Lease, Repo, ServerState, Stage, User
from pipeline.wire import Claim


def last_beat(ago: timedelta) -> None:
    value = {"at": (timezone.now() - ago).isoformat()}
    ServerState.objects.update_or_create(key="web.beat", defaults={"value": value})


def test_without_any_beat_time_is_the_databases(db: None) -> None:
    assert abs(clock.lease_now() - timezone.now()) < timedelta(seconds=30)


def test_time_stands_still_without_beats(db: None) -> None:
    last_beat(timedelta(hours=1))
    behind = timezone.now() - clock.lease_now()
    assert timedelta(minutes=59) < behind < timedelta(minutes=60, seconds=30)
    clock.beat()
    assert timezone.now() - clock.lease_now() < timedelta(seconds=30)


@pytest.fixture
def lease(make_repo: Callable[..., Repo], make_agent: Callable[..., Agent], user: User) -> Lease:
    triggers.create(make_repo(), user=user)
    claimed = claims.claim(make_agent(), Claim("nonce-0001"))
    assert claimed is not None
    return Lease.objects.get()


def test_a_gap_is_nobodys_silence(lease: Lease) -> None:
    before = timezone.now() - timedelta(hours=2)
    Lease.objects.update(seen=before)
    Stage.objects.update(lost=before)
    last_beat(timedelta(hours=2))
    clock.beat()
    lease.refresh_from_db()
    assert timezone.now() - lease.seen < timedelta(minutes=1)
    assert timezone.now() - Stage.objects.get().lost < timedelta(minutes=1)  # type: ignore[operator]


def test_a_report_after_the_gap_is_not_moved(lease: Lease) -> None:
    seen = lease.seen
    last_beat(timedelta(hours=2))
    clock.beat()
    lease.refresh_from_db()
    assert lease.seen == seen


def test_a_short_pause_is_no_gap(lease: Lease) -> None:
    seen = timezone.now() - timedelta(seconds=20)
    Lease.objects.update(seen=seen)
    last_beat(timedelta(seconds=10))
    clock.beat()
    lease.refresh_from_db()
    assert lease.seen == seen


def test_beating_ends_when_told(transactional_db: None) -> None:
    stop = threading.Event()
    stop.set()
    clock.beat_forever(stop)
    assert ServerState.objects.filter(key="web.beat").exists()
