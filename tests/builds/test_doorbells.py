"""Doorbells over a real Redis that goes away and comes back empty."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from channels.layers import channel_layers, get_channel_layer

from builds import events
from builds.doorbells import Doorbell, doorbell
from tests import services
from tests.builds.asgi import run

pytestmark = pytest.mark.service


@pytest.fixture
def layer(settings: Any) -> Iterator[services.Redis]:
    """The channel layer of production, on a Redis that does not run yet."""
    with services.short_folder() as folder:
        redis = services.Redis(services.free_port(), folder)
        settings.CHANNEL_LAYERS = {
            "default": {
                "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
                "CONFIG": {"hosts": [redis.url], "prefix": "ci.ch"},
            }
        }
        channel_layers.backends.clear()
        yield redis
        channel_layers.backends.clear()


async def over() -> None:
    """End the layer's own task of this loop."""
    layer = get_channel_layer()
    assert layer is not None
    await layer.flush()


async def heard(bell: Doorbell) -> None:
    """Ring until it is heard, as the world goes on ringing."""
    for _ in range(600):
        events.log_grew(7)
        if {"type": "log.grew", "step": 7} in await bell.wait(0.1):
            return
    raise AssertionError("never heard")


def test_a_doorbell_is_heard_again_after_redis_was_restarted_empty(layer: services.Redis) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            with layer.run():
                bell = await stack.enter_async_context(doorbell("log-7"))
                await heard(bell)
            events.log_grew(7)  # nobody hears it, and nothing is raised
            with layer.run():
                await heard(bell)
        await over()

    run(scenario)


def test_a_doorbell_may_be_waited_for_before_redis_is_there(layer: services.Redis) -> None:
    async def scenario() -> None:
        async with doorbell("log-7") as bell:
            assert await bell.wait(0.1) == []
            with layer.run():
                await heard(bell)
        await over()

    run(scenario)
