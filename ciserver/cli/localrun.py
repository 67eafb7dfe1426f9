"""Run a stage here with the agent's own machinery; its server is this terminal."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import zstandard

from agents import policy
from agents.drivers.base import Driver, DriverError, Room, Session
from agents.link import Gate, Link
from agents.options import Options
from agents.rooms import make_room
from agents.runner import StageRun
from agents.state import Lease
from ciserver.cli.terminal import Refused, Terminal
from pipeline import states
from pipeline.spec import CLONE, SERVICE, StageSpec, StepSpec, Workspace
from pipeline.wire import Appended, Claimed, Pace, Report, StepReport, Taken

#: Pipelines of these types can run here.
TYPES: Final = ("docker", "exec")
_COLOURS: Final = (36, 35, 34, 33, 32)
_STATUS_COLOURS: Final = {states.SUCCESS: "32", states.SKIPPED: "2"}
_LOG_PATH = re.compile(r"leases/[^/]+/steps/(\d+)/log\?from=(\d+)")

Answer = TypeVar("Answer")


def run(spec: StageSpec, options: Options, folder: Path | None, terminal: Terminal) -> str:
    """Run a stage and show its log; returns its final status.

    `folder` is the checkout that steps work on, in place; None: they get one of their own.

    Raises: Refused if steps of this type cannot run here.
    """
    with tempfile.TemporaryDirectory(prefix="ci-exec-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        options = replace(options, state_dir=home / "state", work_dir=home / "work")
        lease = Lease(home / "lease", "")
        lease.folder.mkdir()
        screen = Screen(spec, options, terminal)
        stage = StageRun(
            Claimed("local", spec),
            lease,
            House(options, _driver(spec.type, options), folder),
            screen,
            on_begun=lambda: None,
        )
        with _interrupts(stage.cancel, terminal):
            status = stage.run()
        screen.sum_up()
        return status


def _driver(type_: str, options: Options) -> Driver:
    from agents.drivers.docker import DockerDriver
    from agents.drivers.exec import ExecDriver

    makers: dict[str, Callable[[Options], Driver]] = {"docker": DockerDriver, "exec": ExecDriver}
    if type_ not in TYPES:
        raise Refused(f"pipelines of type {type_} cannot run here, only docker and exec")
    driver = makers[type_](options)
    try:
        driver.check()
    except DriverError as fault:
        raise Refused(str(fault)) from fault
    return driver


@contextlib.contextmanager
def _interrupts(cancel: Callable[[str], None], terminal: Terminal) -> Iterator[None]:
    """The first Ctrl-C cancels the stage, the second is the program's own."""

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        terminal.line("cancelling; again to give up")
        cancel("interrupted")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(slots=True)
class House:
    """What a run needs of its agent."""

    options: Options
    only: Driver
    folder: Path | None

    def driver(self, type_: str) -> Driver:
        """The one driver there is."""
        return self.only if self.folder is None else InPlace(self.only, self.folder)

    def admit(self, spec: StageSpec) -> StageSpec:
        """Privileges of plugins and credentials, as an agent gives them; nothing is refused."""
        return policy.amend(spec, self.options)

    @property
    def is_closed(self) -> bool:
        """Nobody could come in from elsewhere: nothing is kept."""
        return True

    def tidy(self, task: Callable[[], None]) -> None:
        """Nobody waits for the slot: done at once."""
        task()

    def take_room(self) -> Room:
        """A room in a folder that goes afterwards. Raises: OSError."""
        return make_room(self.options.work_dir)

    def step_slot(self) -> AbstractContextManager[object]:
        """No limit."""
        return contextlib.nullcontext()

    def before_steps(
        self, environ: Mapping[str, str], folder: Path, write: Callable[[bytes], object]
    ) -> Mapping[str, str]:
        """No hook."""
        return {}

    def after_steps(self, environ: Mapping[str, str], folder: Path, status: str) -> None:
        """No hook."""


class Here(Room):
    """A room whose checkout is somebody's folder, which is not removed with it."""

    __slots__ = ("_folder",)

    def __init__(self, room: Room, folder: Path) -> None:
        super().__init__(room.key, room.root)
        object.__setattr__(self, "_folder", folder)

    @property
    def source(self) -> Path:
        """The folder."""
        return cast("Path", self._folder)  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class InPlace:
    """A driver whose stages work on a folder of this host."""

    driver: Driver
    folder: Path

    def check(self) -> None:
        """As the driver's."""
        self.driver.check()

    def sweep(self) -> None:
        """As the driver's."""
        self.driver.sweep()

    def furnish(self, room: Room) -> None:
        """As the driver's."""
        self.driver.furnish(room)

    def open(self, spec: StageSpec, room: Room) -> Session:
        """Open the driver's session on the folder. Raises: DriverError."""
        return self.driver.open(spec, Here(room, self.folder))


class Screen(Link):
    """Takes reports and log batches like a server and shows them."""

    def __init__(self, spec: StageSpec, options: Options, terminal: Terminal) -> None:
        super().__init__(options, Gate())
        self._steps = {step.number: step for step in spec.steps}
        self._terminal = terminal
        self._open: dict[int, str] = {}
        self._last = Report(states.RUNNING)

    def put(self, path: str, body: Any, cls: type[Answer], **more: Any) -> Answer | None:
        """A report: show the logs that ride in it and keep the rest for the end."""
        report = cast("Report", body)
        positions = {
            str(part.step): self._show(part.step, part.from_, base64.b64decode(part.data))
            for part in report.logs
        }
        self._last = report
        return cast("Answer", Pace(pace_ms=0, next=positions))

    def post_bytes(self, path: str, data: bytes, cls: type[Answer]) -> Answer | None:
        """A log batch: show it. Test reports are for servers: their files stay in the folder."""
        if path.endswith("/reports"):
            return cast("Answer", Taken())
        found = _LOG_PATH.fullmatch(path)
        if found is None:
            raise ValueError(f"not a log's address: {path}")
        end = self._show(int(found[1]), int(found[2]), data)
        return cast("Answer", Appended(next=end, pace_ms=0))

    def sum_up(self) -> None:
        """A line for each step: how it ended."""
        for number in sorted(self._open):
            self._line(number, self._open.pop(number))
        for report in self._last.steps:
            self._terminal.line(self._verdict(report))
        if self._last.error and self._last.error not in [one.error for one in self._last.steps]:
            self._terminal.line(f"error: {self._last.error}")

    def _show(self, number: int, position: int, data: bytes) -> int:
        """Show the lines of a batch; the position after them."""
        frame = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        header, _, body = frame.partition(b"\n")
        facts = json.loads(header)
        lines = body.decode("utf-8", "replace").split("\n")[:-1]
        if facts.get("skip"):
            self._line(number, f"... {facts['skip']} lines are left out ...")
        shown = [self._open.pop(number, "") + lines[0], *lines[1:]] if lines else []
        if facts.get("open") and shown:
            self._open[number] = shown.pop()
        for line in shown:
            self._line(number, line)
        return position + int(facts.get("skip", 0)) + len(lines)

    def _line(self, number: int, text: str) -> None:
        self._terminal.line(f"{self._label(number)} {text.rstrip(chr(13))}")

    def _label(self, number: int) -> str:
        colour = str(_COLOURS[number % len(_COLOURS)])
        return self._terminal.paint(f"[{self._steps[number].name}]", colour)

    def _verdict(self, report: StepReport) -> str:
        code = f" (exit code {report.exit_code})" if report.exit_code else ""
        colour = _STATUS_COLOURS.get(report.status, "31")
        word = self._terminal.paint(report.status, colour)
        error = f": {report.error}" if report.error else ""
        return f"{self._label(report.number)} {word}{code}{error}"


def in_place(spec: StageSpec) -> StageSpec:
    """The stage for a folder that is the whole workspace."""
    full = spec.workspace.working_dir
    return replace(spec, workspace=Workspace(base=full, path="", working_dir=full))


def without(spec: StageSpec, leave_out: Callable[[StepSpec], bool]) -> StageSpec:
    """The stage without some steps; what waited for them waits for what they waited for."""
    bypass: dict[str, tuple[str, ...]] = {}
    kept: list[StepSpec] = []
    for step in spec.steps:
        waits = dict.fromkeys(
            name for wanted in step.depends_on for name in bypass.get(wanted, (wanted,))
        )
        if leave_out(step):
            bypass[step.name] = tuple(waits)
        else:
            kept.append(replace(step, number=len(kept) + 1, depends_on=tuple(waits)))
    return replace(spec, steps=tuple(kept))


def chosen(
    spec: StageSpec, include: list[str], exclude: list[str], resume_at: str, *, clone: bool
) -> StageSpec:
    """The stage with the steps a person asked for; services run unless they are excluded.

    Raises: Refused for a name that is no step's.
    """
    names = [step.name for step in spec.steps]
    for name in (*include, *exclude, *([resume_at] if resume_at else [])):
        if name not in names:
            raise Refused(f"there is no step {name} that would run; there are: {', '.join(names)}")
    first = names.index(resume_at) if resume_at else 0

    def leave_out(step: StepSpec) -> bool:
        if step.kind == CLONE:
            return not clone
        if step.name in exclude:
            return True
        if step.kind == SERVICE:
            return False
        return (bool(include) and step.name not in include) or step.number - 1 < first

    return without(spec, leave_out)
