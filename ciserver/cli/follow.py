"""Follows a build in the terminal: its stages' moves and every step's log as it grows."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from ciserver.cli.client import Away, Client
from ciserver.cli.terminal import Terminal
from pipeline import states

#: How often we look at the build even if no doorbell rings.
LOOK_S: Final = 5.0
RETRY_S: Final = 0.5
COLOURS: Final = {
    states.SUCCESS: "32",
    states.FAILURE: "31",
    states.ERROR: "31",
    states.KILLED: "33",
    states.RUNNING: "36",
}
Wanted = Callable[[dict[str, Any], dict[str, Any]], bool]


@dataclass(slots=True)
class Follower:
    """Prints one build. `wanted` chooses steps (of a stage and a step); all by default."""

    client: Client
    terminal: Terminal
    slug: str
    number: int
    wanted: Wanted = lambda _stage, _step: True
    #: Whether each line begins with its step's name.
    names: bool = True
    #: Whether the stages' moves are shown too.
    moves: bool = True
    _logs: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _shown: dict[int, str] = field(default_factory=dict)
    #: Steps of which was said that they wait for debugging.
    _held: set[int] = field(default_factory=set)
    _bell: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> dict[str, Any]:
        """Follow to the end; the build as it then is."""
        build = await self._look()
        listener = asyncio.create_task(self._listen(build["id"]))
        try:
            while build["status"] in states.OPEN:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._bell.wait()
                self._bell.clear()
                build = await self._look_again(build)
            await asyncio.gather(*self._logs.values())
            self._tell(build)
        finally:
            listener.cancel()
            for log in self._logs.values():
                log.cancel()
            self.terminal.progress("")
        return build

    async def _look_again(self, build: dict[str, Any]) -> dict[str, Any]:
        """The build as it is now, or as it was while the server does not answer."""
        try:
            return await self._look()
        except Away as fault:
            self.terminal.progress(f"{fault}; trying again …")
            return build

    async def print_now(self) -> None:
        """Print what the logs have now, step by step."""
        build = await asyncio.to_thread(self.client.build, self.slug, self.number)
        for stage, step in _steps(build):
            if self._has_log(stage, step):
                self._print(stage, step)

    def _print(self, stage: dict[str, Any], step: dict[str, Any]) -> None:
        for line in self.client.log(self.slug, self.number, stage["number"], step["number"]):
            self.terminal.line(self._mark(stage, step) + line["out"].removesuffix("\n"))

    def _mark(self, stage: dict[str, Any], step: dict[str, Any]) -> str:
        mark = f"{stage['name']}/{step['name']} | " if self.names else ""
        return self.terminal.paint(mark, "2") if mark else ""

    async def _look(self) -> dict[str, Any]:
        build: dict[str, Any] = await asyncio.to_thread(self.client.build, self.slug, self.number)
        for stage, step in _steps(build):
            if step["id"] not in self._logs and self._has_log(stage, step):
                logs = [self._logs[id] for id in _ended_before(build, step) if id in self._logs]
                self._logs[step["id"]] = asyncio.create_task(self._log(stage, step, logs))
        self._tell(build)
        self.terminal.progress(_awaited(build))
        return build

    def _has_log(self, stage: dict[str, Any], step: dict[str, Any]) -> bool:
        begun = step["status"] not in (states.PENDING, states.SKIPPED)
        return begun and self.wanted(stage, step)

    def _tell(self, build: dict[str, Any]) -> None:
        """Say each stage's new status once; its end comes after the last line of its logs."""
        for stage in build.get("stages") or []:
            status = stage["status"]
            if status in states.DONE and not self._logs_ended(stage):
                continue
            if self.moves and status not in states.UNSTARTED | {self._shown.get(stage["id"])}:
                self._shown[stage["id"]] = status
                self.terminal.line(self._sentence(stage))
            for step in stage.get("steps") or []:
                if step.get("debug_until") and step["id"] not in self._held:
                    self._held.add(step["id"])
                    self.terminal.line(self._invitation(stage, step))

    def _invitation(self, stage: dict[str, Any], step: dict[str, Any]) -> str:
        return (
            f"{stage['name']}/{step['name']} has failed and waits for debugging: "
            f"ci shell {self.slug}#{self.number} {stage['name']}"
        )

    def _logs_ended(self, stage: dict[str, Any]) -> bool:
        logs = (self._logs.get(step["id"]) for step in stage.get("steps") or [])
        return all(log is None or log.done() for log in logs)

    def _sentence(self, stage: dict[str, Any]) -> str:
        status = stage["status"]
        where = f" on {stage['machine']}" if status == states.RUNNING else ""
        why = f": {stage['error']}" if stage.get("error") else ""
        text = self.terminal.paint(status.replace("_", " "), COLOURS.get(status, "0"))
        return f"{stage['name']}: {text}{where}{why}"

    async def _listen(self, build_id: int) -> None:
        """Ring the bell whenever the server says that something changed."""
        while True:
            with contextlib.suppress(OSError, WebSocketException):
                async with self._connect(f"/ws/build/{build_id}") as socket:
                    self._bell.set()  # what rang before is not heard again
                    async for _message in socket:
                        self._bell.set()
            await asyncio.sleep(RETRY_S)

    async def _log(
        self, stage: dict[str, Any], step: dict[str, Any], earlier: list[asyncio.Task[None]]
    ) -> None:
        """Print a step's log to its end, going on where a broken connection left off.

        What ended before the step began is printed to its end first.
        """
        await asyncio.gather(*earlier)
        mark = self._mark(stage, step)
        tail = _Tail(lambda text: self.terminal.line(mark + text))
        while not tail.ended:
            with contextlib.suppress(OSError, WebSocketException):
                async with self._connect(f"/ws/log/{step['id']}?from={tail.position}") as socket:
                    async for message in socket:
                        tail.take(json.loads(message))
            if not tail.ended:
                await asyncio.sleep(RETRY_S)
        self._bell.set()

    def _connect(self, path: str) -> connect:
        reach = self.client.access
        return connect(
            reach.socket(path), additional_headers=reach.headers, max_size=None, proxy=None
        )


class _Tail:
    """Turns frames of a log into whole lines: an unfinished line waits for its rest."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._begun = ""
        self.position = 0
        self.ended = False

    def take(self, frame: dict[str, Any]) -> None:
        """Print what a frame `{first, lines, open, end}` brings."""
        lines = frame.get("lines") or []
        for index, text in enumerate(lines):
            whole = self._begun + text
            self._begun = ""
            if frame.get("open") and index == len(lines) - 1:
                self._begun = whole
            else:
                self._write(whole)
        self.position = frame["first"] + len(lines)
        if frame.get("end") is not None and self.position >= frame["end"]:
            self.ended = True
            if self._begun:
                self._write(self._begun)


def _steps(build: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The steps of a build, each with its stage."""
    for stage in build.get("stages") or []:
        for step in stage.get("steps") or []:
            yield stage, step


def _ended_before(build: dict[str, Any], later: dict[str, Any]) -> list[int]:
    """The steps that had ended when `later` began; only some that are listed before it."""
    found: list[int] = []
    for _, step in _steps(build):
        if step["id"] == later["id"]:
            return found
        if 0 < (step.get("stopped") or 0) <= (later.get("started") or 0):
            found.append(step["id"])
    return found


def _awaited(build: dict[str, Any]) -> str:
    """What the build waits for, or which steps run."""
    stages = build.get("stages") or []
    running = [
        f"{stage['name']}/{step['name']}"
        for stage, step in _steps(build)
        if step["status"] == states.RUNNING
    ]
    held = [
        f"{stage['name']}/{step['name']}"
        for stage, step in _steps(build)
        if step.get("debug_until")
    ]
    if held:
        return f"{', '.join(held)} waits for debugging …"
    if running:
        return f"running {', '.join(running)} …"
    for stage in stages:
        if stage["status"] == states.PENDING:
            platform = f"{stage['os']}/{stage['arch']}"
            return f"{stage['name']} waits for an agent ({stage['type']} on {platform}) …"
        if stage["status"] == states.BLOCKED:
            return f"{stage['name']} waits for approval …"
    return "" if build["status"] in states.DONE else "waiting …"
