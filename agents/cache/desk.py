"""The agent's desk: looks into the boxes of running steps and has what they ask for done.

There is no thread while there is no box.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import structlog

from agents.cache import commands, shim
from agents.cache.backends.base import Backend, CacheError
from agents.cache.backends.registry import open_backend
from agents.cache.box import Box
from agents.cache.place import Place
from agents.cache.settings import Scope, of_agent, of_step, project_id, scope
from agents.drivers.base import Outcome, Process, Tool
from agents.option_table import Options
from pipeline.spec import StageSpec

log = structlog.get_logger(__name__)

_SERVERS: Final = 8
_BEAT_S: Final = 1.0

#: Gives the place of a step, for the folder a request comes from and whether the step has ended.
Places = Callable[[str, Callable[[], bool]], Place]


class Counter:
    """One step at the desk: its box, and what is being done for it."""

    def __init__(self, box: Box, serve: Callable[[shim.Request, Callable[[], bool]], str]) -> None:
        self.box = box
        self.next_look = self.next_beat = 0.0
        self._serve = serve
        self._beats = 0
        self._stopped = threading.Event()
        self._open: list[Future[None]] = []

    def look(self, now: float, pool: ThreadPoolExecutor) -> None:
        """Take what is asked; count up while anything is not answered."""
        if self._stopped.is_set() or now < self.next_look:
            return
        self.next_look = now + self.box.every_s
        self._open = [one for one in self._open if not one.done()]
        if self._open and self.box.alone:
            return
        for id_, request in self.box.poll():
            self._open.append(pool.submit(self._work, id_, request))
        if self._open and now >= self.next_beat:
            self._beats += 1
            self.next_beat = now + max(_BEAT_S, self.box.every_s)
            self.box.beat(self._beats)

    def _work(self, id_: str, request: shim.Request) -> None:
        self.box.answer(id_, self._serve(request, self._stopped.is_set))

    def close(self) -> None:
        """The step has ended: break off what is done for it and wait for that."""
        self._stopped.set()

    def finish(self) -> None:
        """After `close`, when nobody looks any more."""
        for one in self._open:
            if not one.cancel():
                one.exception()
        self.box.close()


class Desk:
    """Serves the steps of a driver. Safe for threads."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._counters: list[Counter] = []
        self._thread: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None

    def open(self, spec: StageSpec, box: Box, places: Places, tools: Mapping[str, Tool]) -> Counter:
        """Serve a step from now on until `close` is called with what is returned.

        `tools` are those besides the cache.
        """

        def serve(request: shim.Request, stopped: Callable[[], bool]) -> str:
            if request.tool == shim.CACHE:
                return self._serve(spec, places, request, stopped)
            tool = tools.get(request.tool)
            return _use(request.tool, tool, request.words, places(request.cwd, stopped), stopped)

        counter = Counter(box, serve)
        with self._lock:
            self._counters.append(counter)
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_SERVERS, thread_name_prefix="cache")
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="cache", daemon=True)
                self._thread.start()
        return counter

    def close(self, counter: Counter) -> None:
        """The step has ended. What it stores or restores at the moment is broken off."""
        counter.close()
        with self._lock:
            if counter not in self._counters:
                return
            self._counters.remove(counter)
        with self._looking:
            pass  # whoever was looking into its box has done so
        counter.finish()

    def _watch(self) -> None:
        while True:
            with self._lock:
                counters, pool = list(self._counters), self._pool
                if not counters or pool is None:
                    self._thread = None
                    return
            for counter in counters:
                self._look(counter, pool)
            time.sleep(min(counter.box.every_s for counter in counters))

    def _look(self, counter: Counter, pool: ThreadPoolExecutor) -> None:
        with self._looking:
            try:
                counter.look(time.monotonic(), pool)
            except Exception:
                # a step can do what it likes with its box; the others' boxes are looked into
                log.exception("cache.box-broken")
                counter.close()

    def _serve(
        self,
        spec: StageSpec,
        places: Places,
        request: shim.Request,
        stopped: Callable[[], bool],
    ) -> str:
        """The answer to a request, whatever happens."""
        try:
            found = commands.run(request.words, self._context(spec, places, request, stopped))
        except Exception as fault:
            log.exception("cache.broke", repo=spec.repo, build=spec.build)
            failed = 2 if request.words[:1] and request.words[0] in commands.QUESTIONS else 1
            return shim.answer(failed, [], [f"cache: the agent failed: {fault!r}"], [])
        name = request.words[0] if request.words else ""
        log.info("cache.served", repo=spec.repo, build=spec.build, command=name, code=found.code)
        return shim.answer(found.code, found.out, found.err, found.metrics)

    def _context(
        self,
        spec: StageSpec,
        places: Places,
        request: shim.Request,
        stopped: Callable[[], bool],
    ) -> commands.Context | CacheError:
        try:
            agent = of_agent(self._options)
            own = of_step(agent, request.given)
        except CacheError as fault:
            return fault
        settings = own or agent
        if own is not None:
            where = Scope(own.project, (own.project,), own.project)
        else:
            where = scope(spec, project_id(spec, agent.project))

        def backend() -> Backend:
            return open_backend(settings)

        place = places(request.cwd, stopped)
        return commands.Context(settings, backend, where, place, request.given, stopped)


def _use(
    name: str, tool: Tool | None, words: Sequence[str], place: Place, stopped: Callable[[], bool]
) -> str:
    """The answer of another tool, whatever happens."""
    if tool is None:
        return shim.answer(1, [], [f"{name}: there is no server to ask here"], [])
    try:
        found = tool.run(words, place, stopped)
    except Exception as fault:
        log.exception("tool.broke", tool=name)
        return shim.answer(1, [], [f"{name}: the agent failed: {fault!r}"], [])
    log.info("tool.served", tool=name, command=next(iter(words), ""), code=found.code)
    return shim.answer(found.code, found.out, found.err, found.metrics)


class Served:
    """A process whose step is served at a desk until it ends."""

    def __init__(self, process: Process, desk: Desk, counter: Counter) -> None:
        self._process, self._desk, self._counter = process, desk, counter

    def wait(self) -> Outcome:
        """Wait for the process, then close the step's box."""
        try:
            return self._process.wait()
        finally:
            self._desk.close(self._counter)

    def kill(self) -> None:
        """Break off what is done for the step: an engine kills no container that it packs."""
        self._counter.close()
        self._process.kill()
