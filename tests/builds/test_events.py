from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from builds import events, triggers
from builds.models import Repo, User
from tests.services import Redis


@pytest.mark.django_db(transaction=True)
def test_watchers_hear_of_a_new_build_after_the_commit(
    make_repo: Callable[..., Repo], user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[Any, Any]] = []
    monkeypatch.setattr(events, "send", lambda groups, message: sent.append((groups, message)))
    build = triggers.create(make_repo(), user=user)
    assert build is not None
    groups, message = sent[0]
    assert groups == (f"build-{build.pk}", f"repo-{build.repo_id}", "all")
    assert (message["type"], message["build"], message["stage"]) == ("stage.changed", build.pk, 0)


@pytest.mark.django_db(transaction=True)
def test_an_agent_hears_of_orders() -> None:
    layer = get_channel_layer()
    assert layer is not None
    channel = async_to_sync(layer.new_channel)()
    async_to_sync(layer.group_add)("agent-7", channel)
    events.orders(7)
    assert async_to_sync(layer.receive)(channel) == {"type": "agent.orders"}
    async_to_sync(layer.group_add)("log-3", channel)
    events.log_grew(3)
    assert async_to_sync(layer.receive)(channel) == {"type": "log.grew", "step": 3}


def on_redis(settings: Any, address: str) -> None:
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [{"address": address}], "prefix": "ci.ch"},
        }
    }


def test_without_redis_a_doorbell_is_only_logged(settings: Any, tmp_path: Any) -> None:
    on_redis(settings, f"unix://{tmp_path}/nobody.sock")
    events.send(("all",), {"type": "log.grew"})


@pytest.mark.service
def test_the_redis_layer_gets_what_it_would_send_itself(
    settings: Any, redis_service: Redis
) -> None:
    on_redis(settings, redis_service.url)

    async def listen() -> Any:
        from asgiref.sync import sync_to_async

        layer = get_channel_layer()
        assert layer is not None
        channel = await layer.new_channel()
        await layer.group_add("build-1", channel)
        await sync_to_async(events.send)(("build-1", "all"), {"type": "stage.changed", "build": 1})
        try:
            return await layer.receive(channel)
        finally:
            await layer.flush()

    assert async_to_sync(listen)() == {"type": "stage.changed", "build": 1}
