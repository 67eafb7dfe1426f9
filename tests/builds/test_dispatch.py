from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, current_app
from kombu.exceptions import OperationalError

from builds import dispatch
from tests.services import Redis


def test_a_broker_that_is_away_is_only_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_args: object, **_options: object) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(Celery, "send_task", away)
    assert not dispatch.ring_now("ci.q.exec.linux.amd64")
    assert not dispatch.send("builds.trigger", 1)


def test_work_is_sent_to_the_server_worker(silent_broker: list[Any]) -> None:
    assert dispatch.send("builds.trigger", 1, {"event": "push"})
    name, options = silent_broker[0]
    assert (name, options["queue"]) == ("builds.trigger", "ci.srv.work")


@pytest.mark.service
def test_it_counts_the_tickets_that_lie_there(
    redis_service: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    with current_app.connection_for_write(redis_service.url) as connection:
        connection.default_channel.client.lpush("ci.q.one", "a", "b")
    monkeypatch.setattr(
        Celery, "connection_for_write", lambda app: app._connection(redis_service.url)
    )
    assert dispatch.waiting(["ci.q.one", "ci.q.none"]) == {"ci.q.one": 2, "ci.q.none": 0}
