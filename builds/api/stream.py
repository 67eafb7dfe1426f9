"""Server-sent events: builds as they change, a log as it grows.

Source: reference server, section 1.6.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from channels.db import database_sync_to_async

from builds import permissions
from builds.api import documents
from builds.api.auth import Caller, scope_user
from builds.api.exchange import Exchange, Refusal
from builds.doorbells import Message, doorbell
from builds.models import Build, Repo, Step
from builds.tails import Frame, Tails

PING_S: Final = 30.0
_LIFE_S: Final = 24 * 3600.0
_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
    "Access-Control-Allow-Origin": "*",
}
_PING: Final = b": ping\n\n"
_EOF: Final = b"event: error\ndata: eof\n\n"


async def events(exchange: Exchange, slug: str = "") -> None:
    """`/api/stream[/{owner}/{name}]`: the repo with its build whenever one changes."""
    await exchange.body()
    caller, repo = await database_sync_to_async(_admit)(exchange.scope, slug)
    async with doorbell(f"repo-{repo.pk}" if repo else "all") as bell:
        await _send(exchange, _changes(bell.wait, caller))


async def log(exchange: Exchange, tails: Tails, slug: str, numbers: tuple[int, ...]) -> None:
    """`/api/stream/{owner}/{name}/{build}/{stage}/{step}`: one line per event, then eof."""
    await exchange.body()
    step = await database_sync_to_async(_step)(exchange.scope, slug, numbers)
    async with tails.watch(step) as tail:
        await _send(exchange, _lines(tail))


async def _send(exchange: Exchange, parts: AsyncIterator[bytes]) -> None:
    """Write parts, a ping where there are none for a while, until the end or the client's."""
    await exchange.start(200, _HEADERS)
    await exchange.write(_PING)
    until = asyncio.get_running_loop().time() + _LIFE_S
    pending = asyncio.ensure_future(anext(parts, None))
    try:
        while asyncio.get_running_loop().time() < until:
            done, _ = await asyncio.wait(
                (pending, exchange.gone()), timeout=PING_S, return_when=asyncio.FIRST_COMPLETED
            )
            if exchange.gone() in done:
                return
            if not done:
                await exchange.write(_PING)
                continue
            part = pending.result()
            if part is None:
                break
            await exchange.write(part)
            pending = asyncio.ensure_future(anext(parts, None))
        await exchange.write(_EOF, more=False)
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
        await parts.aclose()  # type: ignore[attr-defined]


async def _changes(wait: Any, caller: Caller) -> AsyncIterator[bytes]:
    look = database_sync_to_async(_builds)
    while True:
        if messages := await wait(PING_S):
            for document in await look(messages, caller):
                yield _event(document)


async def _lines(tail: Any) -> AsyncIterator[bytes]:
    position, begun = 0, ""
    while True:
        generation = tail.generation
        frame: Frame | None = await tail.frame(position)
        if frame is None:
            await tail.moved(generation)
            continue
        if frame.lines:
            events, begun = _frame_events(frame, begun)
            yield events
        position = frame.next
        if frame.end is not None:
            return


def _frame_events(frame: Frame, begun: str) -> tuple[bytes, str]:
    """One event per finished line, and the unfinished beginning of the next."""
    parts: list[bytes] = []
    for index, (line, ms) in enumerate(zip(frame.lines, frame.times, strict=True)):
        if frame.open and index == len(frame.lines) - 1:
            return b"".join(parts), begun + line
        out = f"{begun}{line}\n"
        parts.append(_event({"pos": frame.first + index, "out": out, "time": ms // 1000}))
        begun = ""
    return b"".join(parts), begun


def _event(data: Any) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def _admit(scope: Any, slug: str) -> tuple[Caller, Repo | None]:
    caller = scope_user(scope)
    if not slug:
        return caller, None
    repo = Repo.objects.filter(slug=slug).first()
    if repo is None or not permissions.can(caller, repo, "read"):
        if caller.is_authenticated:
            raise Refusal(404, "sql: no rows in result set", "repo:not-found")
        raise Refusal(401, "Unauthorized", "auth:required")
    return caller, repo


def _step(scope: Any, slug: str, numbers: tuple[int, ...]) -> int:
    _, repo = _admit(scope, slug)
    build, stage, step = numbers
    found = Step.objects.filter(
        number=step, stage__number=stage, stage__build__number=build, stage__repo=repo
    )
    pk = found.values_list("pk", flat=True).first()
    if pk is None:
        raise Refusal(404, "sql: no rows in result set", "step:not-found")
    return pk


def _builds(messages: list[Message], caller: Caller) -> list[Any]:
    """The documents of the builds that rang, of repos the caller may see."""
    return list(_documents({message["build"] for message in messages}, caller))


def _documents(builds: set[int], caller: Caller) -> Iterator[Any]:
    repos = permissions.visible(caller)
    seen = Build.objects.filter(pk__in=builds, repo__in=repos).values_list("pk", "repo")
    for build, repo in seen.order_by("pk"):
        yield {**documents.repo(repo), "build": documents.build(build)}
