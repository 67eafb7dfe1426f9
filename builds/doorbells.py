"""Hearing doorbells: one subscription to groups of the channel layer that survives its faults.

A doorbell says "look", no more, so what counts is that somebody looks after the last ring. Rings
that come while nobody waits are kept as one message per subject; while the layer is away nothing
is heard, and everyone who waits looks by himself every 15 s anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import structlog
from channels.layers import get_channel_layer
from redis.exceptions import RedisError

#: Who waits for a doorbell looks by himself after so long.
LOOK_S: Final = 15.0
_AGAIN_S: Final = 2.0
_READY_S: Final = 2.0
_MAX_SUBJECTS: Final = 1000
_FAULTS = (RedisError, OSError)
_log = structlog.get_logger(__name__)

Message = dict[str, Any]


class Doorbell:
    """Rings of some groups, gathered until they are asked for."""

    def __init__(self, groups: Sequence[str]) -> None:
        self._groups = groups
        self._rung = asyncio.Event()
        self._ready = asyncio.Event()
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

    async def _listen(self) -> None:
        pause_s = _AGAIN_S
        while True:
            try:
                await self._subscribed()
            except _FAULTS as fault:
                _log.warning("doorbell.lost", groups=self._groups, error=str(fault))
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LOOK_S)

    async def _subscribed(self) -> None:
        layer = get_channel_layer()
        if layer is None:
            raise OSError("no channel layer is configured")
        channel = await layer.new_channel()
        try:
            for group in self._groups:
                await layer.group_add(group, channel)
            if self._ready.is_set():
                self._rung.set()
            self._ready.set()
            while True:
                self._take(await layer.receive(channel))
        finally:
            await self._unsubscribe(layer, channel)

    async def _unsubscribe(self, layer: Any, channel: str) -> None:
        try:
            for group in self._groups:
                await layer.group_discard(group, channel)
        except Exception as fault:
            # redis-py raises more than its own errors on a connection that is gone, and the
            # subscription with it
            _log.info("doorbell.not_returned", groups=self._groups, error=repr(fault))

    def _take(self, message: Message) -> None:
        subject = (message.get("type"), message.get("build"), message.get("stage"))
        if subject in self._gathered or len(self._gathered) < _MAX_SUBJECTS:
            self._gathered[subject] = message
        self._rung.set()


@contextlib.asynccontextmanager
async def doorbell(*groups: str) -> AsyncIterator[Doorbell]:
    """Hear the doorbells of `groups` from now on; nothing that comes later is missed."""
    bell = Doorbell(groups)
    # an own context: the subscription may outlive the request that began it
    task = asyncio.create_task(bell._listen(), context=contextvars.Context())
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_S):
                await bell._ready.wait()
        yield bell
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
