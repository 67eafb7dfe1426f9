from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from django.utils import timezone
from kombu.exceptions import OperationalError

from builds import claims, dispatch, logs, membership, outbox, transitions, triggers
from builds.loops import delivery, leader, reconciler, retention, run_forever
from builds.models import (
    Agent,
    Build,
    Leader,
    Lease,
    LoginLink,
    Outbox,
    Repo,
    ServerState,
    Stage,
    Step,
    StepLog,
    User,
)
from builds.queue import PAUSED
from pipeline.wire import Claim, Presence, Report, StepReport

Soon = Callable[[float], datetime]


@pytest.fixture
def agent(make_agent: Callable[..., Agent]) -> Agent:
    return make_agent()


@pytest.fixture
def build(make_repo: Callable[..., Repo], user: User) -> Build:
    found = triggers.create(make_repo(), user=user)
    assert found is not None
    return found


@pytest.fixture
def lease(agent: Agent, build: Build) -> Lease:
    claimed = claims.claim(agent, Claim("nonce-0001"))
    assert claimed is not None
    return Lease.objects.get()


def begin(lease: Lease) -> None:
    step = StepReport(1, "running", started_ms=0)
    claims.report(lease.agent, lease.pk, Report("running", begun=True, steps=(step,)))


def after(seconds: float) -> datetime:
    return timezone.now() + timedelta(seconds=seconds)


@pytest.fixture(autouse=True)
def tickets(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many tickets lie on each queue, for the reconciler."""
    lengths: dict[str, int] = {}
    monkeypatch.setattr(
        dispatch, "waiting", lambda queues: {queue: lengths.get(queue, 0) for queue in queues}
    )
    return lengths


# --- the reconciler -------------------------------------------------------------------------------


def test_a_silent_stage_that_had_not_begun_is_queued_again(lease: Lease, settings: Any) -> None:
    reconciler.run_once(after(settings.LEASE_LOST_S - 5))
    assert Stage.objects.get().status == "running"
    reconciler.run_once(after(settings.LEASE_LOST_S + 5))
    stage = Stage.objects.get()
    assert (stage.status, stage.agent, stage.started) == ("pending", None, None)
    assert not Step.objects.exists()
    assert Lease.objects.get().state == "closed"


def test_one_that_had_begun_is_shown_lost_and_ends_after_the_grace(
    lease: Lease, settings: Any
) -> None:
    begin(lease)
    lost = settings.LEASE_LOST_S + 5
    reconciler.run_once(after(lost))
    stage = Stage.objects.get()
    assert (stage.status, stage.lost is not None) == ("running", True)
    reconciler.run_once(after(lost + settings.LOST_GRACE_S - 5))
    assert Stage.objects.get().status == "running"
    reconciler.run_once(after(lost + settings.LOST_GRACE_S + 5))
    stage, step = Stage.objects.get(), Step.objects.get()
    assert (stage.status, stage.exit_code, stage.lost) == ("error", 255, None)
    assert stage.error.startswith("agent one was lost: it has not reported since ")
    assert (step.status, Build.objects.get().status) == ("error", "error")
    with pytest.raises(claims.LeaseClosed):
        claims.report(lease.agent, lease.pk, Report("success", True, True))


def test_within_the_grace_a_late_result_counts(lease: Lease, settings: Any) -> None:
    begin(lease)
    reconciler.run_once(after(settings.LEASE_LOST_S + 5))
    claims.report(lease.agent, lease.pk, Report("running", begun=True))
    assert Stage.objects.get().lost is None
    claims.report(lease.agent, lease.pk, Report("success", True, True))
    assert Build.objects.get().status == "success"


def test_a_repo_may_want_a_new_attempt(lease: Lease, settings: Any) -> None:
    Repo.objects.update(retry_lost=1)
    begin(lease)
    lost, end = settings.LEASE_LOST_S + 5, settings.LEASE_LOST_S + settings.LOST_GRACE_S + 10
    reconciler.run_once(after(lost))
    reconciler.run_once(after(end))
    assert Stage.objects.get().status == "pending"
    again = claims.claim(lease.agent, Claim("nonce-0002"))
    assert again is not None and again.spec.attempt == 2
    begin(Lease.objects.get(pk=again.lease))
    reconciler.run_once(after(lost))
    reconciler.run_once(after(end))
    assert Stage.objects.get().status == "error"


def test_a_closing_lease_ends_after_its_time(lease: Lease, build: Build, settings: Any) -> None:
    transitions.cancel(build.pk, by="octocat")
    reconciler.run_once(after(settings.CLOSING_S - 5))
    assert Lease.objects.get().state == "closing"
    reconciler.run_once(after(settings.CLOSING_S + 5))
    assert Lease.objects.get().state == "closed"


def test_a_stage_of_a_deleted_agent_ends(lease: Lease) -> None:
    Agent.objects.all().delete()
    reconciler.run_once()
    stage = Stage.objects.get()
    assert (stage.status, stage.error) == ("error", "agent one was removed from the server")


def test_a_silent_agent_is_away_until_it_calls(agent: Agent) -> None:
    reconciler.run_once(after(110))
    agent.refresh_from_db()
    assert agent.state == "away"
    membership.presence(agent, Presence())
    agent.refresh_from_db()
    assert agent.state == "idle"


def test_it_rings_where_stages_wait_unheard(
    build: Build, tickets: dict[str, int], silent_broker: list[tuple[str, dict[str, Any]]]
) -> None:
    reconciler.run_once()
    assert [options["queue"] for _, options in silent_broker] == ["ci.q.exec.linux.amd64"]
    tickets["ci.q.exec.linux.amd64"] = 1
    reconciler.run_once()
    assert len(silent_broker) == 1
    tickets.clear()
    ServerState.objects.create(key=PAUSED)
    reconciler.run_once()
    assert len(silent_broker) == 1


def test_it_rings_as_often_as_stages_wait_up_to_a_bound(
    build: Build,
    tickets: dict[str, int],
    user: User,
    silent_broker: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconciler, "MOST_TICKETS", 2)
    for _ in range(3):
        triggers.create(build.repo, user=user)
    reconciler.run_once()
    assert len(silent_broker) == 2


def test_a_broker_that_is_away_stops_nothing(
    lease: Lease, user: User, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_queues: object) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(dispatch, "waiting", away)
    triggers.create(build.repo, user=user)
    reconciler.run_once(after(100))
    assert set(Stage.objects.values_list("status", flat=True)) == {"pending"}


# --- retention ------------------------------------------------------------------------------------


def test_logs_that_nobody_will_finish_end(lease: Lease) -> None:
    begin(lease)
    step = Step.objects.get().pk
    StepLog.objects.create(step=step, next=3)
    transitions.finish_stage_error(Stage.objects.select_related("build__repo").get(), "gone")
    retention.run_once()
    assert not logs.position(step).complete
    retention.run_once(timezone.now() + timedelta(minutes=90))
    assert logs.position(step).complete


def test_logs_go_with_their_repository(lease: Lease) -> None:
    begin(lease)
    step = Step.objects.get().pk
    logs.finish(step, 0)
    retention.run_once()
    assert logs.position(step).complete
    Repo.objects.all().delete()
    retention.run_once()
    assert not StepLog.objects.exists()


def test_old_rows_are_forgotten(lease: Lease, user: User, agent: Agent) -> None:
    now = timezone.now()
    transitions.finish_stage_error(Stage.objects.select_related("build__repo").get(), "gone")
    LoginLink.objects.create(user=user, key_sha256="x", expires=now)
    membership.leave(agent, "bye")
    retention.run_once(now + timedelta(days=8))
    assert not Lease.objects.exists() and not LoginLink.objects.exists()
    assert Agent.objects.exists()
    retention.run_once(now + timedelta(days=31))
    assert not Agent.objects.exists()
    assert Stage.objects.get().machine == "one"


@pytest.mark.parametrize(
    ("begun", "timeout_min", "ends"),
    [(False, 60, "killed"), (True, 60, "killed"), (True, 60 * 48, "running")],
)
def test_what_is_stuck_for_a_day_is_cancelled(
    build: Build, agent: Agent, begun: bool, timeout_min: int, ends: str
) -> None:
    Repo.objects.update(timeout_min=timeout_min)
    if begun:
        claims.claim(agent, Claim("nonce-0001"))
    retention.reap(timezone.now() + timedelta(hours=24))
    assert Build.objects.get().status == ("running" if begun else "pending")
    retention.reap(timezone.now() + timedelta(hours=25))
    assert Build.objects.get().status == ends


# --- delivery -------------------------------------------------------------------------------------


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any], int]]:
    """(url, headers, status answered) of every webhook; the answers are taken from its end."""
    calls: list[tuple[str, dict[str, Any], int]] = []

    def post(url: str, *, content: bytes, headers: dict[str, str], timeout: float) -> Any:
        status = 500 if url.endswith("/bad") else 200
        calls.append((url, headers, status))
        return httpx.Response(status, request=httpx.Request("POST", url))

    monkeypatch.setattr(httpx, "post", post)
    return calls


def test_webhooks_are_told_of_every_status_in_order(
    make_repo: Callable[..., Repo],
    user: User,
    settings: Any,
    posted: list[tuple[str, dict[str, Any], int]],
) -> None:
    settings.WEBHOOK_ENDPOINTS = ["http://one/", "http://two/bad"]
    settings.WEBHOOK_SECRET = "s3cret"
    build = triggers.create(make_repo(), user=user)
    assert build is not None
    transitions.cancel(build.pk, by="octocat")
    assert Outbox.objects.count() == 4
    assert delivery.run_once() == 1
    assert delivery.run_once() == 1
    assert [url for url, _, status in posted if status == 200] == ["http://one/"] * 2
    assert posted[0][1]["X-Drone-Event"] == "build"
    late = Outbox.objects.order_by("pk").first()
    assert late is not None and (late.attempts, Outbox.objects.count()) == (1, 2)
    assert "answered 500" in late.error


def test_a_message_that_nobody_takes_is_given_up(build: Build, settings: Any, posted: Any) -> None:
    row = Outbox.objects.create(
        kind=outbox.WEBHOOK, topic="x", created=timezone.now(), next_try=timezone.now(),
        payload={"build": build.pk, "status": "success", "endpoint": "http://x/bad",
                 "event": "build", "action": "updated"},
    )  # fmt: skip
    moment = timezone.now()
    for _ in range(delivery.MOST_ATTEMPTS):
        assert Outbox.objects.filter(pk=row.pk).exists()
        moment += timedelta(hours=2)
        delivery.run_once(moment)
    assert not Outbox.objects.exists()


def test_what_concerns_a_deleted_build_or_a_plain_repository_is_dropped(build: Build) -> None:
    now = timezone.now()
    for topic, pk in (("a", build.pk), ("b", 0)):
        payload = {"build": pk, "status": "success"}
        Outbox.objects.create(
            kind=outbox.STATUS, topic=topic, payload=payload, created=now, next_try=now
        )
    assert delivery.run_once() == 2
    assert not Outbox.objects.exists()


def test_a_webhook_is_signed(settings: Any) -> None:
    settings.WEBHOOK_SECRET = "s3cret"
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.now().tzinfo)
    headers = delivery.signed_headers(b"{}", "build", now)
    assert headers["Date"] == "Fri, 02 Jan 2026 03:04:05 GMT"
    assert headers["Digest"] == "SHA-256=RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o="
    assert headers["Signature"] == (
        'keyId="hmac-key",algorithm="hmac-sha256",'
        'signature="J6p4NJq6qd9NbOj3QJSJ2a7VEGdRNoQjJmqTtXAeYq8=",headers="date digest"'
    )


# --- the leader -----------------------------------------------------------------------------------


def test_one_leads_until_its_term_is_over(db: None) -> None:
    assert leader.acquire("a") and leader.acquire("a")
    assert not leader.acquire("b")
    Leader.objects.update(until=timezone.now() - timedelta(seconds=1))
    assert leader.acquire("b") and not leader.acquire("a")
    leader.resign("a")
    assert not leader.acquire("a")
    leader.resign("b")
    assert leader.acquire("a")


def test_the_loops_run_while_leading_and_end_when_told(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, seen, failed = threading.Event(), threading.Event(), threading.Event()

    def once() -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("the first round fails")
        seen.set()

    monkeypatch.setattr("builds.loops.LOOPS", (("one", once, lambda: 0.01),))
    thread = threading.Thread(target=run_forever, args=(stop,))
    thread.start()
    try:
        assert seen.wait(60)
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert not Leader.objects.exists()
