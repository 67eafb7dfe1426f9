"""The seam between the agent and what runs a step: a few verbs, the same for every driver.

A `Driver` lives as long as the agent, a `Session` as long as one stage attempt, a `Process` as
long as one step. The clone is not a driver's business: `agents.clone` puts the commit into
`Room.source` before any other step starts, whatever the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from pipeline.spec import StageSpec, StepSpec

if TYPE_CHECKING:
    from agents.cache.commands import Answer
    from agents.cache.place import Place

#: Exit codes of steps that did not end by themselves. Source: Drone (reference section 3.3).
EXIT_KILLED = 137
EXIT_ERROR = 255


class DriverError(Exception):
    """Something on this host kept a stage or step from running; its message is shown in the step.

    A step whose start raises it is `error` with exit code 255; a session that cannot be opened
    makes the stage `error`.
    """


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step ended. `error`: it could not be run at all, or not to its end (status `error`)."""

    exit_code: int = 0
    oom: bool = False
    error: str = ""


class Tool(Protocol):
    """A program that the agent serves to steps, besides `cache`."""

    def run(self, words: Sequence[str], place: Place, stopped: Callable[[], bool]) -> Answer:
        """Do what the words say with the step's files, until it is `stopped`."""


@dataclass(frozen=True, slots=True)
class Room:
    """The place of a stage attempt on this host; `root` is `<work_dir>/drone-<random>`, mode 0700.

    `home` (`home/drone`), `source` (`drone/src`, the checkout) and `scripts` (`opt`) exist when a
    session is opened. `key` is unique per attempt and safe in names (letters, digits, `-`).
    """

    key: str
    root: Path
    #: By name, what steps may call.
    tools: Mapping[str, Tool] = field(default_factory=dict)
    #: The open file whose lock says that the room is in use; -1: none.
    held: int = -1

    @property
    def home(self) -> Path:
        """HOME of exec steps; holds `.netrc`."""
        return self.root / "home" / "drone"

    @property
    def source(self) -> Path:
        """The checkout, where steps start."""
        return self.root / "drone" / "src"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder of the room, each behind the one it is in."""
        return (self.home.parent, self.home, self.source.parent, self.source, self.scripts)

    @property
    def scripts(self) -> Path:
        """Where exec steps' scripts are written."""
        return self.root / "opt"


class Sink(Protocol):
    """Takes a step's output, raw, in the order read; one thread at a time."""

    def write(self, data: bytes) -> None:
        """Take a chunk of any size; big ones (256 KiB and more) are cheapest. May block for pace.

        When it returns, the bytes are in the spool's file: they survive the agent's death.
        """


class Process(Protocol):
    """One running step."""

    def wait(self) -> Outcome:
        """Block until the step ended and all its output has been written to its sink."""

    def kill(self) -> None:
        """Ask for the end, TERM before KILL; returns at once, any thread, any number of times."""


#: So much of a shell's output is read at a time.
SHELL_READ_BYTES: Final = 32 * 1024
#: Bash, where there is one, since people expect its editing.
INTERACTIVE: Final = "[ -x /bin/bash ] && exec /bin/bash -i\nexec /bin/sh -i"


def shell_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """A step's environment for its shell: without a locale it would not take UTF-8."""
    return {"LANG": "C.UTF-8", **environ, "TERM": "xterm-256color"}


class Shell(Protocol):
    """A shell on a terminal, in the place of a step that failed."""

    def read(self) -> bytes:
        """The next output, at most SHELL_READ_BYTES, blocking; empty at the end. One thread."""

    def write(self, data: bytes) -> None:
        """Type; blocks while the shell does not read. One thread. Raises: OSError at the end."""

    def resize(self, cols: int, rows: int) -> None:
        """The terminal has another size. Never raises."""

    def end(self) -> int:
        """Kill what still runs and let go of it all; the shell's exit code. Any thread, any number
        of times."""


class Session(Protocol):
    """One stage attempt. Verbs may be called by several threads at once, for different steps."""

    def prepare(self, step: StepSpec, environ: Mapping[str, str], *, at_once: bool = False) -> None:
        """A hint that `start` will probably follow with these arguments, maybe in a moment.

        Returns soon, never raises. `start` must do right with another environment or no hint,
        and need not follow.
        """

    def start(self, step: StepSpec, environ: Mapping[str, str], sink: Sink) -> Process:
        """Start a step (not the clone). `environ` is complete: secrets, status variables, settings.

        Raises: DriverError.
        """

    def collect(self, step: StepSpec) -> Iterable[tuple[str, bytes]]:
        """Names and contents of the test reports that a step which has ended left behind.

        Raises, also while it is iterated: DriverError, OSError.
        """

    def shell(self, step: StepSpec, environ: Mapping[str, str], cols: int, rows: int) -> Shell:
        """Open a shell where a step has ended, with what it had: files, user, network, environment.

        Raises: DriverError.
        """

    def close(self) -> None:
        """Kill whatever of the stage still runs; return when nothing does.

        Called before the last report; idempotent, never raises. The room's files stay.
        """

    def remove(self) -> None:
        """Remove all the stage left on the host, with `Room.root`; after the last report.

        Implies `close`; idempotent. Never raises: what cannot be removed is logged
        and left to `sweep`.
        """


class Driver(Protocol):
    """How this host runs steps of one pipeline type."""

    def check(self) -> None:
        """Raises: DriverError with one clear sentence if the driver cannot work here now."""

    def sweep(self) -> None:
        """Remove what earlier lives of this agent left: called at start, before any session."""

    def furnish(self, room: Room) -> None:
        """Put into a fresh room what sessions would put there, if it is known already. A session
        does right without it. Raises: OSError, DriverError."""

    def open(self, spec: StageSpec, room: Room) -> Session:
        """Set up a stage attempt; the clone may still be running.

        Raises: DriverError.
        """
