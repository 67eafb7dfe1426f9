"""The way between two websockets that may end in two processes: a shell's viewer and its agent.

It leads through the channel layer, which may lose what it carries, and through Redis, which must
not read it. So parcels are sealed and numbered; who misses one begins anew, and nothing is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import structlog
from channels.exceptions import ChannelFull
from channels.layers import get_channel_layer
from redis.exceptions import RedisError

from builds.doorbells import Message, subscription
from builds.secrets import seal_bytes, unseal_bytes
from pipeline.errors import PlatformError
from pipeline.spec import from_json, to_json
from pipeline.wire import Shell

_AGAIN_S: Final = 2.0
_FAULTS: Final = (RedisError, OSError, ChannelFull)
_log = structlog.get_logger(__name__)


class Lost(Exception):
    """The channel layer is away."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What came: a word or bytes. `tag` names the talk it belongs to, `number` its place there."""

    tag: str = ""
    number: int = 0
    message: Shell | None = None
    data: bytes = b""

    @property
    def kind(self) -> str:
        """The word's kind; empty for bytes."""
        return self.message.kind if self.message else ""


#: The layer was away, or somebody rang: whoever waits should look around.
LOOK: Final = Parcel(message=Shell("look"))


class Relay:
    """One end: hears the group `mine`, sends to `theirs`. For one event loop."""

    def __init__(self, mine: str, theirs: str) -> None:
        self._mine, self._theirs = mine, theirs
        self._parcels: asyncio.Queue[Parcel] = asyncio.Queue()
        self._sending = asyncio.Lock()
        self._hearing = contextlib.AsyncExitStack()
        self._tag, self._sent = "", 0

    async def __aenter__(self) -> Relay:
        hear = subscription((self._mine,), self._take, self._look, longest_pause_s=_AGAIN_S)
        await self._hearing.enter_async_context(hear)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._hearing.aclose()

    def _take(self, message: Message) -> None:
        self._parcels.put_nowait(_opened(message))

    def _look(self) -> None:
        self._parcels.put_nowait(LOOK)

    def begin(self, tag: str) -> None:
        """Another talk begins: its parcels are counted anew."""
        self._tag, self._sent = tag, 0

    async def send(
        self, message: Shell | None = None, data: bytes = b"", tag: str | None = None
    ) -> None:
        """Send a parcel of the talk, or one of another `tag`. Raises: Lost."""
        layer = get_channel_layer()
        async with self._sending:
            known = self._tag if tag is None else tag
            head = [known, self._sent, None if message is None else to_json(message)]
            self._sent += tag is None
            sealed = seal_bytes(json.dumps(head, separators=(",", ":")).encode() + b"\n" + data)
            try:
                await layer.group_send(self._theirs, {"type": "shell.parcel", "sealed": sealed})
            except _FAULTS as fault:
                raise Lost(str(fault)) from fault

    async def receive(self, timeout_s: float) -> Parcel | None:
        """The next parcel, or None after a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                return await self._parcels.get()
        return None


def _opened(message: Message) -> Parcel:
    """A parcel as it was sent; one that nobody can read says no more than "look"."""
    if "sealed" not in message:
        return LOOK
    try:
        head, _, data = unseal_bytes(message["sealed"]).partition(b"\n")
        tag, number, word = json.loads(head)
        return Parcel(tag, number, None if word is None else from_json(Shell, word), data)
    except (PlatformError, ValueError) as fault:
        _log.warning("relay.unreadable", error=str(fault))
        return LOOK
