"""Hearing doorbells: one subscription to groups of the channel layer that survives its faults.

A doorbell says "look", no more, so what counts is that somebody looks after the last ring. Rings
that come while nobody waits are kept as one message per subject; while the layer is away nothing
is heard, and everyone who waits looks by himself every 15 s anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import structlog
from channels.exceptions import ChannelFull
from channels.layers import get_channel_layer
from redis.exceptions import RedisError

#: Who waits for a doorbell looks by himself after so long.
LOOK_S: Final = 15.0
_AGAIN_S: Final = 2.0
_READY_S: Final = 2.0
_MAX_SUBJECTS: Final = 1000
_FAULTS = (RedisError, OSError, ChannelFull)
_log = structlog.get_logger(__name__)

Message = dict[str, Any]


@contextlib.asynccontextmanager
async def subscription(
    groups: Sequence[str],
    take: Callable[[Message], None],
    back: Callable[[], None],
    *,
    longest_pause_s: float = LOOK_S,
) -> AsyncIterator[None]:
    """Have `take` called with each message of these groups of the channel layer from now on.

    It survives the layer's absences; `back` is called after each, as messages were missed.
    """
    ready = asyncio.Event()
    # an own context: the subscription may outlive the request that began it
    task = asyncio.create_task(
        _listen(groups, take, back, ready, longest_pause_s), context=contextvars.Context()
    )
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_S):
                await ready.wait()
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _listen(
    groups: Sequence[str],
    take: Callable[[Message], None],
    back: Callable[[], None],
    ready: asyncio.Event,
    longest_pause_s: float,
) -> None:
    pause_s = _AGAIN_S
    while True:
        try:
            await _subscribed(groups, take, back, ready)
        except _FAULTS as fault:
            _log.warning("subscription.lost", groups=groups, error=str(fault))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_pause_s)


async def _subscribed(
    groups: Sequence[str],
    take: Callable[[Message], None],
    back: Callable[[], None],
    ready: asyncio.Event,
) -> None:
    layer = get_channel_layer()
    if layer is None:
        raise OSError("no channel layer is configured")
    channel = await layer.new_channel()
    try:
        for group in groups:
            await layer.group_add(group, channel)
        if ready.is_set():
            back()
        ready.set()
        while True:
            take(await layer.receive(channel))
    finally:
        await _unsubscribe(layer, groups, channel)


async def _unsubscribe(layer: Any, groups: Sequence[str], channel: str) -> None:
    try:
        for group in groups:
            await layer.group_discard(group, channel)
    except Exception as fault:
        # redis-py raises more than its own errors on a connection that is gone, and the
        # subscription with it
        _log.info("subscription.not_returned", groups=groups, error=repr(fault))


class Doorbell:
    """Rings of some groups, gathered until they are asked for."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._gathered: dict[tuple[Any, ...], Message] = {}

    async def wait(self, timeout_s: float = LOOK_S) -> list[Message]:
        """The messages since the last call, the newest of each subject, waiting for the first.

        Empty after `timeout_s`, and after the layer came back: look yourself.
        """
        # not `wait_for`, which swallows a cancellation that comes together with the ring
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._rung.wait()
        self._rung.clear()
        messages, self._gathered = list(self._gathered.values()), {}
        return messages

    def _take(self, message: Message) -> None:
        subject = (message.get("type"), message.get("build"), message.get("stage"))
        if subject in self._gathered or len(self._gathered) < _MAX_SUBJECTS:
            self._gathered[subject] = message
        self._rung.set()


@contextlib.asynccontextmanager
async def doorbell(*groups: str) -> AsyncIterator[Doorbell]:
    """Hear the doorbells of `groups` from now on; nothing that comes later is missed."""
    bell = Doorbell()
    async with subscription(groups, bell._take, bell._rung.set):
        yield bell
