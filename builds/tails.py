"""Following logs: one tail per watched step and process reads once, and all get the same bytes.

Each viewer asks for the frame at his own position; those who are equally far share the read and the
encoded frame. A frame never changes once it is made, because stored lines do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import structlog
from channels.db import database_sync_to_async
from django.db import DatabaseError

from builds import logs
from builds.doorbells import LOOK_S, doorbell
from builds.logs import watch
from builds.logs.batches import Chunk
from builds.models import Lease, Step
from pipeline import states

FRAME_LINES: Final = 2000
FRAME_BYTES: Final = 256 * 1024
_SHARED_FRAMES: Final = 16
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Frame:
    """Some lines of a log as they go to viewers; `end` is set on the last one."""

    first: int
    next: int
    end: int | None
    lines: tuple[str, ...]
    times: tuple[int, ...]
    open: bool
    encoded: str


def look(step_id: int, position: int) -> Frame | None:
    """The next frame for a viewer who has all lines before `position`; None: nothing new yet."""
    standing = logs.position(step_id)
    if standing.next > position:
        for chunk in logs.read(step_id, position, FRAME_LINES):
            return _frame(_fit(chunk), standing.end)
    if standing.complete or (position >= standing.next and _abandoned(step_id)):
        return _frame(Chunk(position, 0, b""), position)
    return None


def _fit(chunk: Chunk) -> Chunk:
    """The part that one frame takes: an unfinished line only as its last."""
    if chunk.open:
        chunk = chunk.upto(chunk.open[0] + 1)
    if len(chunk.data) > FRAME_BYTES:
        chunk = chunk.upto(max(chunk.data.count(b"\n", 0, FRAME_BYTES), 1))
    return chunk


def _frame(chunk: Chunk, end: int | None) -> Frame:
    end = end if end is not None and chunk.next >= end else None
    lines = chunk.data.decode("utf-8", "replace").split("\n")[:-1]
    times = chunk.line_times()
    data = {
        "first": chunk.first,
        "lines": lines,
        "times": times,
        "open": bool(chunk.open),
        "end": end,
    }
    encoded = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return Frame(
        chunk.first, chunk.next, end, tuple(lines), tuple(times), bool(chunk.open), encoded
    )


def _abandoned(step_id: int) -> bool:
    """Whether nobody is left who would send more: the step is done and its lease closed."""
    found = Step.objects.filter(pk=step_id).values_list("status", "stage").first()
    if found is None:
        return True
    status, stage = found
    if status not in states.DONE:
        return False
    return not Lease.objects.filter(stage=stage).exclude(state=Lease.CLOSED).exists()


class Tail:
    """The live edge of one step's log in this process."""

    def __init__(self, step_id: int) -> None:
        self.step_id = step_id
        self.viewers = 0
        self.generation = 0
        self._moved = asyncio.Event()
        self._reads: dict[int, tuple[int, asyncio.Task[Frame | None]]] = {}
        self._listener = asyncio.create_task(self._listen(), context=contextvars.Context())

    async def frame(self, position: int) -> Frame | None:
        """The frame at `position`, read once for all who ask; None if there is nothing new."""
        generation, task = self._reads.get(position, (-1, None))
        if task is None or self._stale(generation, task):
            read = database_sync_to_async(look)
            task = asyncio.create_task(
                read(self.step_id, position),
                context=contextvars.Context(),
            )
            self._reads.pop(position, None)
            self._reads[position] = (self.generation, task)
            while len(self._reads) > _SHARED_FRAMES:
                del self._reads[next(iter(self._reads))]
        return await asyncio.shield(task)

    async def moved(self, generation: int) -> None:
        """Wait until the log may have grown since `generation` was this tail's."""
        if generation == self.generation:
            await self._moved.wait()

    def stop(self) -> None:
        """End listening; nobody watches any more."""
        self._listener.cancel()

    def _stale(self, generation: int, task: asyncio.Task[Frame | None]) -> bool:
        if not task.done():
            return generation != self.generation
        if task.cancelled() or task.exception() is not None:
            return True
        return task.result() is None and generation != self.generation

    async def _listen(self) -> None:
        async with doorbell(f"log-{self.step_id}") as bell:
            while True:
                self.generation += 1
                self._moved.set()
                self._moved = asyncio.Event()
                await bell.wait(LOOK_S)


class Tails:
    """All tails of this process, and the word to the others that their steps are watched."""

    def __init__(self) -> None:
        self._tails: dict[int, Tail] = {}
        self._process = uuid.uuid4().hex
        self._changed = asyncio.Event()
        self._announcer: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def watch(self, step_id: int) -> AsyncIterator[Tail]:
        """Follow a step's log as one more viewer."""
        tail = self._tails.get(step_id)
        if tail is None:
            tail = self._tails[step_id] = Tail(step_id)
        tail.viewers += 1
        self._announce()
        try:
            yield tail
        finally:
            tail.viewers -= 1
            if not tail.viewers:
                del self._tails[step_id]
                tail.stop()
            self._announce()

    def _announce(self) -> None:
        self._changed.set()
        if self._announcer is None or self._announcer.done():
            self._changed = asyncio.Event()
            self._announcer = asyncio.create_task(self._keep(), context=contextvars.Context())

    async def _keep(self) -> None:
        """Renew this process's row until nobody watches anything."""
        while True:
            self._changed.clear()
            table = {step: tail.viewers for step, tail in self._tails.items()}
            try:
                await database_sync_to_async(watch.announce)(self._process, table)
            except DatabaseError as fault:
                _log.warning("watch.not_announced", error=str(fault))
            if not table and not self._tails:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(watch.RENEW_S):
                    await self._changed.wait()
