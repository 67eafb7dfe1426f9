"""Doorbells for whoever watches: which stage changed, which log grew, whose orders are new.

Groups of the channel layer: `all`, `repo-{id}`, `build-{id}`, `log-{step id}`, `agent-{id}`. A
doorbell says that something is new, never what: watchers look it up, so one that is lost costs
nothing. Sent after the commit, by a thread of the process; a layer that is away is logged and
forgotten.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

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

#: How long the end of a process waits for its last doorbells.
_LAST_S: Final = 2.0
#: Who is answered first: a call that has just changed a status, then those who watch it.
_GIVE_WAY_S: Final = 0.003


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
    send((f"log-{step_id}",), {"type": "log.grew", "step": step_id}, at_once=True)


def orders(agent_id: int) -> None:
    """There is something new for an agent that waits for orders."""
    transaction.on_commit(lambda: send((f"agent-{agent_id}",), {"type": "agent.orders"}))


def send(groups: Sequence[str], message: dict[str, Any], *, at_once: bool = False) -> None:
    """Ring each group once, soon or at once: whoever rings need not wait for the layer."""
    layer = get_channel_layer()
    if isinstance(layer, RedisPubSubChannelLayer):
        config = cast("dict[str, Any]", settings.CHANNEL_LAYERS["default"]["CONFIG"])
        prefix, data = config.get("prefix", "asgi"), layer.serialize(message)
        ringer = _ringer(_address(config["hosts"][0]), os.getpid())
        doorbells = [(f"{prefix}__group__{group}", data) for group in groups]
        ringer.ring(_Ring(doorbells, at_once))
    elif layer is not None:
        try:
            for group in groups:
                async_to_sync(layer.group_send)(group, message)
        except ChannelFull as fault:
            log.warning("event.not_sent", groups=groups, error=str(fault))


def _address(host: Any) -> str:
    return str(host["address"] if isinstance(host, dict) else host)


@lru_cache(maxsize=4)
def _ringer(address: str, _process: int) -> _Ringer:
    """The thread that rings at a Redis; of this process, since a fork has no threads."""
    return _Ringer(address)


@dataclass(frozen=True, slots=True)
class _Ring:
    """Messages to publish, each on a channel of Redis."""

    messages: Sequence[tuple[str, bytes]]
    at_once: bool = False


class _Ringer:
    """Does what the layer's own `group_send` does, in a thread without an event loop of its own.

    A loop and a connection per doorbell would cost milliseconds of every report; doorbells that
    gather while it speaks to Redis go together.
    """

    def __init__(self, address: str) -> None:
        self._client = redis.Redis.from_url(address, socket_timeout=5, socket_connect_timeout=2)
        self._waiting: queue.SimpleQueue[_Ring | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="doorbells", daemon=True)
        self._thread.start()
        atexit.register(self._close)

    def ring(self, ring: _Ring) -> None:
        """Publish the messages."""
        self._waiting.put(ring)

    def _close(self) -> None:
        """A process that ends has rung what it was to ring, if there is a Redis."""
        self._waiting.put(None)
        self._thread.join(_LAST_S)

    def _run(self) -> None:
        going = True
        while going:
            gathered = [self._waiting.get()]
            if gathered[0] is not None and not gathered[0].at_once:
                time.sleep(_GIVE_WAY_S)
            while not self._waiting.empty():
                gathered.append(self._waiting.get())
            going = None not in gathered
            self._publish([one for ring in gathered if ring for one in ring.messages])

    def _publish(self, messages: list[tuple[str, bytes]]) -> None:
        try:
            pipe = self._client.pipeline(transaction=False)
            for channel, data in messages:
                pipe.publish(channel, data)
            pipe.execute()
        except (RedisError, OSError) as fault:
            log.warning("event.not_sent", doorbells=len(messages), error=str(fault))
