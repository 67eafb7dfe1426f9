"""Keeps failed steps of a debug build, each in the thread of its step, and ends that in time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Final
from urllib.parse import quote

import structlog

from agents.debug.console import Console
from agents.debug.hold import Hold
from agents.debug.line import Line
from agents.drivers.base import Outcome, Session
from agents.link import Gate
from agents.options import Options
from pipeline.spec import StageSpec, StepSpec
from pipeline.wire import HoldReport

log = structlog.get_logger("agents.debug")

_MINUTE_S: Final = 60.0


class Keeper:
    """The kept steps of one stage attempt. Any thread."""

    def __init__(
        self, options: Options, gate: Gate, lease: str, clock: Callable[[], float]
    ) -> None:
        self._options, self._gate, self._clock = options, gate, clock
        self._path = f"leases/{quote(lease, safe='')}"
        self._lock = threading.Lock()
        self._holds: dict[int, Hold] = {}
        self._past_s = 0.0
        self._began = 0.0
        self._closed = ""

    # --- what is ---

    @property
    def is_holding(self) -> bool:
        """Whether a step is kept now."""
        return bool(self._holds)

    @property
    def held_s(self) -> float:
        """For how long steps were kept so far: no time of the stage's own."""
        with self._lock:
            return self._past_s + (self._clock() - self._began if self._holds else 0.0)

    def reports(self) -> tuple[HoldReport, ...]:
        """The kept steps as the server is told of them."""
        with self._lock:
            holds = list(self._holds.values())
        return tuple(HoldReport(one.step, one.exit_code, int(one.left_s() * 1000)) for one in holds)

    # --- keeping ---

    def keep(
        self,
        spec: StageSpec,
        step: StepSpec,
        outcome: Outcome,
        environ: Mapping[str, str],
        session: Session,
        write: Callable[[bytes], object],
        changed: Callable[[], None],
    ) -> None:
        """Keep a failed step as long as the build and this agent say; returns when that is over.

        `write` is its log's, `changed` is called at the beginning.
        """
        most_s = min(spec.debug_max_s, self._options.debug_limit)
        keep_s = min(spec.debug_s, most_s)
        if keep_s <= 0 or outcome.error:
            return
        hold = Hold(step.number, outcome.exit_code, keep_s, most_s, self._clock)
        if not self._admit(hold):
            return
        say = log.bind(repo=spec.repo, build=spec.build, stage=spec.stage, step=step.name)
        say.info("step.kept", exit_code=outcome.exit_code, seconds=keep_s)
        console = Console(
            lambda cols, rows: session.shell(step, environ, cols, rows), hold.touch, hold.end
        )
        line = Line(
            self._options, self._gate, f"{self._path}/steps/{step.number}/shell", hold, console
        )
        write(_begin_text(outcome.exit_code, keep_s, f"{spec.repo}#{spec.build}").encode())
        changed()
        line.start()
        reason = hold.wait()
        line.close(reason, console.exit_code)
        console.close()
        self._dismiss(hold)
        say.info("step.let-go", reason=reason)
        write(f"[ci] debugging ended: {reason}\n".encode())

    def _admit(self, hold: Hold) -> bool:
        with self._lock:
            if self._closed:
                return False
            if not self._holds:
                self._began = self._clock()
            self._holds[hold.step] = hold
            return True

    def _dismiss(self, hold: Hold) -> None:
        with self._lock:
            del self._holds[hold.step]
            if not self._holds:
                self._past_s += self._clock() - self._began

    # --- ending ---

    def release(self, steps: Collection[int]) -> None:
        """Let these steps go, if they are kept."""
        with self._lock:
            holds = [hold for hold in self._holds.values() if hold.step in steps]
        for hold in holds:
            hold.end("somebody ended it")

    def close(self, reason: str) -> None:
        """Let all steps go, and keep none from now on."""
        with self._lock:
            self._closed = self._closed or reason
            holds = list(self._holds.values())
        for hold in holds:
            hold.end(reason)


def _begin_text(exit_code: int, keep_s: float, build: str) -> str:
    minutes = f"{keep_s / _MINUTE_S:.3g} min"
    return (
        f"[ci] exit code {exit_code}: the step is kept for debugging, for {minutes} after the last "
        f"key; open its shell from this page or with `ci shell {build}`\n"
    )
