"""Doorbells for whoever watches: which stage changed, which log grew, whose orders are new.

Groups of the channel layer: `all`, `repo-{id}`, `build-{id}`, `log-{step id}`, `agent-{id}`. A
doorbell says that something is new, never what: watchers look it up, so one that is lost costs
nothing. Sent after the commit; a layer that is away is logged and forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import redis
import structlog
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from channels.layers import get_channel_layer
from channels_redis.pubsub import RedisPubSubChannelLayer
from django.conf import settings
from django.db import transaction
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)


def stage_changed(
    repo_id: int, build_id: int, build_number: int, stage_number: int, status: str
) -> None:
    """A stage has a new status; stage 0 is the build itself."""
    message = {
        "type": "stage.changed",
        "repo": repo_id,
        "build": build_id,
        "number": build_number,
        "stage": stage_number,
        "status": status,
    }
    groups = (f"build-{build_id}", f"repo-{repo_id}", "all")
    transaction.on_commit(lambda: send(groups, message))


def log_grew(step_id: int) -> None:
    """A step's log has more lines, or its end."""
    send((f"log-{step_id}",), {"type": "log.grew", "step": step_id})


def orders(agent_id: int) -> None:
    """There is something new for an agent that waits for orders."""
    transaction.on_commit(lambda: send((f"agent-{agent_id}",), {"type": "agent.orders"}))


def send(groups: Sequence[str], message: dict[str, Any]) -> None:
    """Ring each group once, at once."""
    layer = get_channel_layer()
    try:
        if isinstance(layer, RedisPubSubChannelLayer):
            _publish(layer, groups, message)
        elif layer is not None:
            for group in groups:
                async_to_sync(layer.group_send)(group, message)
    except (RedisError, OSError, ChannelFull) as fault:
        log.warning("event.not_sent", groups=groups, error=str(fault))


def _publish(
    layer: RedisPubSubChannelLayer, groups: Sequence[str], message: dict[str, Any]
) -> None:
    """What the layer's own `group_send` does, from a thread without an event loop of its own.

    A loop and a connection per doorbell would cost milliseconds of every report.
    """
    config = cast("dict[str, Any]", settings.CHANNEL_LAYERS["default"]["CONFIG"])
    data = layer.serialize(message)
    pipe = _client(_address(config["hosts"][0])).pipeline(transaction=False)
    for group in groups:
        pipe.publish(f"{config.get('prefix', 'asgi')}__group__{group}", data)
    pipe.execute()


def _address(host: Any) -> str:
    return str(host["address"] if isinstance(host, dict) else host)


@lru_cache(maxsize=4)
def _client(address: str) -> redis.Redis:
    return redis.Redis.from_url(address, socket_timeout=5, socket_connect_timeout=2)
