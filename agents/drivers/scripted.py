"""A driver that runs nothing: it acts out a few commands, for tests of what is around drivers.

`echo TEXT`, `env NAME`, `exit CODE`, `sleep SECONDS`, `write NAME TEXT` (a file in the checkout),
`hold` (until `ScriptedDriver.release`), `oom`, `break TEXT` (an outcome with an error), and, as the
first command, `refuse TEXT` (the step cannot be started).
"""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Iterator, Mapping

from agents import results
from agents.drivers.base import EXIT_ERROR, EXIT_KILLED, DriverError, Outcome, Room, Sink
from pipeline.spec import StageSpec, StepSpec


class ScriptedDriver:
    """Acts stages out; `refuse_open` makes every session fail to open with that text."""

    def __init__(self, *, refuse_open: str = "") -> None:
        self.refuse_open = refuse_open
        self.released = threading.Event()
        #: Names of the steps started, in order, and their environments.
        self.started: list[tuple[str, Mapping[str, str]]] = []
        self.sweeps = 0
        self.refuse_shell = ""
        self.shells: list[ScriptedShell] = []

    def check(self) -> None:
        """Raises: DriverError if sessions are to be refused."""
        if self.refuse_open:
            raise DriverError(self.refuse_open)

    def sweep(self) -> None:
        """Count the call."""
        self.sweeps += 1

    def release(self) -> None:
        """Let every `hold` go on."""
        self.released.set()

    def furnish(self, room: Room) -> None:
        """Nothing to put there."""

    def open(self, spec: StageSpec, room: Room) -> ScriptedSession:
        """Open a session. Raises: DriverError."""
        self.check()
        return ScriptedSession(self, room)


class ScriptedSession:
    """One stage acted out."""

    def __init__(self, driver: ScriptedDriver, room: Room) -> None:
        self._driver, self._room = driver, room
        self._processes: list[ScriptedProcess] = []

    def prepare(self, step: StepSpec, environ: Mapping[str, str], *, at_once: bool = False) -> None:
        """Nothing to prepare."""

    def start(self, step: StepSpec, environ: Mapping[str, str], sink: Sink) -> ScriptedProcess:
        """Begin to act. Raises: DriverError."""
        first = step.commands[0] if step.commands else ""
        if first.startswith("refuse"):
            raise DriverError(first.partition(" ")[2])
        self._driver.started.append((step.name, dict(environ)))
        process = ScriptedProcess(self._driver, self._room, step, environ, sink)
        self._processes.append(process)
        return process

    def collect(self, step: StepSpec) -> Iterator[tuple[str, bytes]]:
        """Read the step's reports in the checkout."""
        return results.on_disk(self._room.source, results.clean(step.reports))

    def shell(
        self, step: StepSpec, environ: Mapping[str, str], cols: int, rows: int
    ) -> ScriptedShell:
        """Open a shell that repeats what is typed. Raises: DriverError."""
        if self._driver.refuse_shell:
            raise DriverError(self._driver.refuse_shell)
        shell = ScriptedShell(f"{step.name} {cols}x{rows}\r\n".encode())
        self._driver.shells.append(shell)
        return shell

    def close(self) -> None:
        """End every process."""
        for process in self._processes:
            process.kill()

    def remove(self) -> None:
        """Remove the room."""
        self.close()
        shutil.rmtree(self._room.root, ignore_errors=True)


class ScriptedProcess:
    """One step acted out by whoever waits for it."""

    def __init__(
        self,
        driver: ScriptedDriver,
        room: Room,
        step: StepSpec,
        environ: Mapping[str, str],
        sink: Sink,
    ) -> None:
        self._driver, self._room, self._step = driver, room, step
        self._environ, self._sink = environ, sink
        self._killed = threading.Event()

    def wait(self) -> Outcome:
        """Act the commands out."""
        for command in self._step.commands:
            word, _, rest = command.partition(" ")
            outcome = self._act(word, rest)
            if self._killed.is_set():
                return Outcome(EXIT_KILLED)
            if outcome is not None:
                return outcome
        return Outcome()

    def kill(self) -> None:
        """Stop acting."""
        self._killed.set()

    def _act(self, word: str, rest: str) -> Outcome | None:
        if word in ("exit", "oom", "break"):
            return _ending(word, rest)
        if word == "sleep":
            self._killed.wait(float(rest))
        elif word == "hold":
            while not (self._driver.released.wait(0.01) or self._killed.is_set()):
                pass
        elif word == "write":
            name, _, text = rest.partition(" ")
            (self._room.source / name).write_text(text)
        else:
            text = self._environ.get(rest, "") if word == "env" else rest
            self._sink.write(text.encode() + b"\n")
        return None


def _ending(word: str, rest: str) -> Outcome:
    if word == "exit":
        return Outcome(int(rest))
    return Outcome(EXIT_KILLED, oom=True) if word == "oom" else Outcome(EXIT_ERROR, error=rest)


class ScriptedShell:
    """Repeats what is typed; a line that is a number ends it with that exit code."""

    def __init__(self, greeting: bytes) -> None:
        self._output: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._output.put(greeting)
        self._code = EXIT_KILLED
        self.ended = False
        self.sizes: list[tuple[int, int]] = []

    def read(self) -> bytes:
        """The next output, whole."""
        return b"" if self.ended else self._output.get()

    def write(self, data: bytes) -> None:
        """Repeat it, or end."""
        if data.strip().isdigit():
            self._code = int(data)
            data = b""
        self._output.put(data)

    def print(self, data: bytes) -> None:
        """Have it write something by itself."""
        self._output.put(data)

    def resize(self, cols: int, rows: int) -> None:
        """Note the size."""
        self.sizes.append((cols, rows))

    def end(self) -> int:
        """End it."""
        self.ended = True
        self._output.put(b"")
        return self._code
