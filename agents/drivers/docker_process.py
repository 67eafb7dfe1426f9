"""One started container: its output goes to the sink, its end becomes an outcome.

The engine may go away and come back while the step runs: what it kept of the output is then read
again and what the sink has not had yet is added, or the gap is said.
"""

from __future__ import annotations

import threading
import time
from typing import Final, Protocol

import structlog

from agents.drivers.base import EXIT_ERROR, EXIT_KILLED, DriverError, Outcome, Sink
from agents.drivers.docker_engine import Engine, EngineAway, NotThere
from agents.drivers.docker_stream import Seen

log = structlog.get_logger(__name__)

#: How long a step has between TERM and KILL.
KILL_GRACE_S: Final = 3.0
#: How long an engine may be away in the middle of a step.
AWAY_LIMIT_S: Final = 300.0
_EXIT_TERMINATED: Final = 143
_RESTARTED: Final = "the Docker engine stopped or restarted while the step ran"
_ENDED_AWAY: Final = (
    b"\n[ci] the step ended while the Docker engine was away: what it printed last may be missing\n"
)
_GAP: Final = (
    b"\n[ci] the Docker engine restarted; its log no longer reaches back to what was read before, "
    b"so lines are missing here\n"
)


class Output(Protocol):
    """Where the output of a container comes from."""

    def read(self) -> bytes: ...

    def close(self) -> None: ...


class DockerProcess:
    """A container that has been started. `output` must have been attached before the start.

    `limited`: the container has a limit of memory of its own.
    """

    def __init__(
        self,
        engine: Engine,
        container: str,
        output: Output,
        sink: Sink,
        *,
        limited: bool = False,
    ) -> None:
        self._engine = engine
        self._limited = limited
        self._container = container
        self._output = output
        self._sink = sink
        self._seen = Seen()
        self._killed = threading.Event()
        self._ended = threading.Event()
        self._outcome = Outcome()
        self._thread = threading.Thread(target=self._run, name="docker-step", daemon=True)
        self._thread.start()

    def wait(self) -> Outcome:
        """Block until the container has ended and the sink has had all of its output."""
        self._thread.join()
        return self._outcome

    def kill(self) -> None:
        """End the container: TERM, after a grace KILL."""
        self._end_with("SIGTERM", "SIGKILL")

    def kill_now(self) -> None:
        """End the container with KILL."""
        self._end_with("SIGKILL")

    def _end_with(self, *signals: str) -> None:
        self._killed.set()
        if not self._ended.is_set():
            threading.Thread(target=self._signal, args=(signals,), daemon=True).start()

    def _signal(self, signals: tuple[str, ...]) -> None:
        for name in signals:
            try:
                self._engine.signal(self._container, name)
            except DriverError as fault:
                log.debug("docker.signal-failed", container=self._container, reason=str(fault))
            if self._ended.wait(KILL_GRACE_S):
                return

    def _run(self) -> None:
        try:
            self._outcome = self._follow()
        except Exception as fault:
            # whatever went wrong, the stage must learn of it and the container must not run on
            self._outcome = Outcome(EXIT_ERROR, error=str(fault) or type(fault).__name__)
            self._end_quietly()
        finally:
            self._ended.set()
            self._output.close()

    def _end_quietly(self) -> None:
        try:
            self._engine.signal(self._container, "SIGKILL")
        except DriverError as fault:
            log.debug("docker.signal-failed", container=self._container, reason=str(fault))

    def _follow(self) -> Outcome:
        broken = False
        while True:
            try:
                self._pump()
                return self._judge(self._engine.wait(self._container), broken)
            except EngineAway as fault:
                broken = True
                log.warning("docker.engine-away", container=self._container, reason=str(fault))
                self._resume()

    def _pump(self) -> None:
        while data := self._read():
            self._take(data)

    def _read(self) -> bytes:
        try:
            return self._output.read()
        except OSError as fault:
            raise EngineAway(str(fault)) from fault

    def _take(self, data: bytes) -> None:
        self._seen.add(data)
        self._sink.write(data)

    def _resume(self) -> None:
        """Go on after a break: add what the engine kept, then follow what still comes."""
        self._output.close()
        self._engine.wait_until_back(AWAY_LIMIT_S, self._killed.is_set)
        try:
            running = self._engine.state(self._container).running
            kept = self._engine.output(self._container)
        except NotThere as fault:
            raise DriverError(f"{_RESTARTED} and lost the container") from fault
        new = self._seen.unseen(kept)
        if new is None:
            self._sink.write(_GAP)
            new = kept
        if new:
            self._take(new)
        if not running:
            self._sink.write(_ENDED_AWAY)
        self._output = self._engine.follow(self._container, len(kept))

    def _judge(self, code: int, broken: bool) -> Outcome:
        if self._killed.is_set():
            return Outcome(code)
        # the engine tells of any process of the container that was killed for memory
        if (code or self._limited) and self._out_of_memory():
            return Outcome(code, oom=True)
        if code == 0:
            return Outcome(code)
        if broken or (code in (EXIT_KILLED, _EXIT_TERMINATED) and self._engine_leaves()):
            return Outcome(EXIT_ERROR, error=_RESTARTED)
        return Outcome(code)

    def _out_of_memory(self) -> bool:
        try:
            return self._engine.state(self._container).oom
        except DriverError:
            return False

    def _engine_leaves(self) -> bool:
        """Whether a killed container was killed by an engine that shuts down."""
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            try:
                self._engine.ping()
            except EngineAway:
                return True
            if self._killed.wait(0.2):
                return False
        return False
