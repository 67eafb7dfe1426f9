"""Websockets of the pages and of `ci log --follow`: doorbells of a build, lines of a log."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, Final
from urllib.parse import parse_qs

import structlog
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DatabaseError

from builds import permissions
from builds.api.auth import scope_user
from builds.doorbells import LOOK_S, doorbell
from builds.models import Build, Repo, Step
from builds.tails import Tails

NORMAL: Final = 1000
GUEST: Final = 4401
NOT_FOUND: Final = 4404
TRY_AGAIN: Final = 1013
FAILED: Final = 1011
_log = structlog.get_logger(__name__)


class Denied(Exception):
    """The caller may not open this socket; `code` closes it."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason[:100]


def admit(scope: Any, repo: Repo | None) -> None:
    """Let only those in who may read the repo.

    Raises: Denied.
    """
    caller = scope_user(scope)
    if repo is None or not permissions.can(caller, repo, "read"):
        raise Denied(NOT_FOUND if caller.is_authenticated else GUEST)


class Socket(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """A websocket that one task feeds until it ends, the client leaves, or something fails."""

    #: No subscription of its own: doorbells are shared, and a layer that is away stops nobody.
    channel_layer_alias = "none"
    _feeder: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        await self.accept()
        try:
            await database_sync_to_async(self.enter)()
        except Denied as denied:
            await self.close(denied.code, denied.reason or None)
        except DatabaseError:
            await self.close(TRY_AGAIN)
        else:
            self._feeder = asyncio.create_task(self._run())

    async def disconnect(self, code: int) -> None:
        await self.rest()

    async def rest(self) -> None:
        """Stop feeding."""
        if self._feeder is not None:
            self._feeder.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._feeder

    def enter(self) -> None:
        """Find the subject and check the caller. Raises: Denied."""
        raise NotImplementedError

    async def feed(self) -> None:
        """Send whatever there is to send, until there is no more."""
        raise NotImplementedError

    async def _run(self) -> None:
        code = NORMAL
        try:
            await self.feed()
        except OSError:
            return  # the client has left
        except DatabaseError as fault:
            _log.warning("socket.database_away", path=self.scope["path"], error=str(fault))
            code = TRY_AGAIN
        except Exception:
            _log.exception("socket.failed", path=self.scope["path"])
            code = FAILED
        await self.close(code)


class BuildSocket(Socket):
    """`ws/build/{id}`: which stage changed. `{}` means: look for yourself."""

    def enter(self) -> None:
        build = Build.objects.select_related("repo").filter(pk=self._build).first()
        admit(self.scope, build.repo if build else None)

    async def feed(self) -> None:
        async with doorbell(f"build-{self._build}") as bell:
            messages: list[dict[str, Any]] = []
            while True:
                for message in messages or [{}]:
                    ring = {key: message[key] for key in ("stage", "status") if key in message}
                    await self.send(text_data=json.dumps(ring))
                messages = await bell.wait(LOOK_S)

    @property
    def _build(self) -> int:
        return int(self.scope["url_route"]["kwargs"]["build"])


class LogSocket(Socket):
    """`ws/log/{step}?from=N`: the lines from N on, then live, until the log's end."""

    tails: Tails
    _position = 0

    def __init__(self, *, tails: Tails, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tails = tails

    def enter(self) -> None:
        step = Step.objects.select_related("stage__repo").filter(pk=self._step).first()
        admit(self.scope, step.stage.repo if step else None)
        query = parse_qs(self.scope["query_string"].decode("latin1"))
        self._position = _position(query.get("from", ["0"])[0])

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Go on at another position: `{"from": N}`. Anything else is ignored."""
        try:
            data = json.loads(text_data or "")
        except ValueError:
            return
        if isinstance(data, dict) and "from" in data and self._feeder is not None:
            await self.rest()
            self._position = _position(data["from"])
            self._feeder = asyncio.create_task(self._run())

    async def feed(self) -> None:
        async with self.tails.watch(self._step) as tail:
            while True:
                generation = tail.generation
                frame = await tail.frame(self._position)
                if frame is None:
                    await tail.moved(generation)
                    continue
                await self.send(text_data=frame.encoded)
                self._position = frame.next
                if frame.end is not None:
                    return

    @property
    def _step(self) -> int:
        return int(self.scope["url_route"]["kwargs"]["step"])


def _position(value: Any) -> int:
    """A position from a client; nonsense is the beginning."""
    try:
        return max(int(value), 0)
    except (TypeError, ValueError):
        return 0
