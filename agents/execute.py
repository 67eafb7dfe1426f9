"""Walk a stage's graph of steps: what may start now, what is skipped, what the stage has become.

Pure: no clock, no process, no thread. The runner tells what happened and when, and asks what is
next.

Source: Drone's runner (reference: pipeline format, sections 3.2 to 3.4). Ours: retries and time
limits of steps; a step over its limit is a `failure` of exit code 137 that `failure: ignore`
covers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from agents.drivers.base import EXIT_ERROR, EXIT_KILLED, Outcome
from pipeline import states
from pipeline.spec import ALWAYS, CLONE, ON_FAILURE, SERVICE, StageSpec, StepSpec

#: This exit code of a step ends the stage as a success. Source: Drone.
EXIT_STOP: Final = 78
#: Longest text of an error. Source: Drone.
MAX_ERROR_CHARS: Final = 500


@dataclass(slots=True)
class StepState:
    """A step as it is now. Times are the runner's clock; None: not yet."""

    spec: StepSpec
    status: str = states.PENDING
    exit_code: int = 0
    error: str = ""
    started: float | None = None
    stopped: float | None = None
    attempts: int = 0

    @property
    def is_background(self) -> bool:
        """Whether nobody waits for it: a service or a detached step."""
        return self.spec.detach or self.spec.kind == SERVICE

    @property
    def is_done(self) -> bool:
        """Whether its status is final."""
        return self.status in states.DONE

    @property
    def is_passed(self) -> bool:
        """Whether steps that depend on it may start."""
        return self.is_done or (self.is_background and self.status == states.RUNNING)


class Walk:
    """One attempt at a stage. Not for several threads at once."""

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec
        self.steps = {step.number: StepState(step) for step in spec.steps}
        self._named = {step.name: self.steps[step.number] for step in spec.steps}
        #: Why no further step starts: cancelled or out of time; empty while the stage goes on.
        self.stopped_for = ""
        self.error = ""

    # --- what is ---

    @property
    def is_over(self) -> bool:
        """Whether every step that is waited for has ended."""
        return all(step.is_done or step.is_passed for step in self.steps.values())

    @property
    def is_failing(self) -> bool:
        """Whether steps that run on success are skipped from here on."""
        return self.status in states.FAILED

    @property
    def status(self) -> str:
        """The stage's status: running until it is closed, unless a step forces another."""
        if self.error:
            return states.ERROR
        forced = states.stage_status(
            (step.status, step.spec.failure == "ignore") for step in self.steps.values()
        )
        if forced is None and self.stopped_for:
            return states.KILLED
        return forced or states.RUNNING

    @property
    def failed_steps(self) -> tuple[str, ...]:
        """Names of the steps that failed and are not ignored, in order."""
        return tuple(
            step.spec.name
            for step in self.steps.values()
            if states.stage_status([(step.status, step.spec.failure == "ignore")])
        )

    @property
    def exit_code(self) -> int:
        """Of the first step that failed and is not ignored; 0 if none did."""
        if self.error:
            return EXIT_ERROR
        for step in self.steps.values():
            if states.stage_status([(step.status, step.spec.failure == "ignore")]):
                return step.exit_code
        return 0

    @property
    def reason(self) -> str:
        """What kept the stage from its end: where it was stopped, or the first error there was."""
        if self.error or self.status != states.ERROR:
            return self.error or (self.stopped_for if self.status == states.KILLED else "")
        return next(one.error for one in self.steps.values() if one.status == states.ERROR)

    def running(self) -> Iterator[StepState]:
        """Steps that run now, services included."""
        return (step for step in self.steps.values() if step.status == states.RUNNING)

    # --- what happens ---

    def next(self) -> list[StepState]:
        """Skip what must be skipped and return what is to be started now, in order.

        What is returned counts as pending until `start` is called for it.
        """
        ready: list[StepState] = []
        changed = True
        while changed:
            changed, ready = False, []
            for step in self.steps.values():
                if step.status != states.PENDING or not self._is_reached(step):
                    continue
                if self._is_wanted(step.spec):
                    ready.append(step)
                else:
                    step.status = states.SKIPPED
                    changed = True
        return ready

    def _is_reached(self, step: StepState) -> bool:
        waits_for = (self._named.get(name) for name in step.spec.depends_on)
        return bool(self.stopped_for) or all(one is None or one.is_passed for one in waits_for)

    def _is_wanted(self, spec: StepSpec) -> bool:
        if self.stopped_for:
            return False
        if spec.run == ALWAYS or spec.kind == CLONE:
            return True
        return self.is_failing == (spec.run == ON_FAILURE)

    def upcoming(self) -> list[StepState]:
        """Steps that wait only for steps that run now, and would start if those succeed.

        If that is but one, those that wait for it come next: short steps are over before the next
        one is prepared.
        """
        first = self._behind(())
        return first if len(first) != 1 else self._behind((first[0].spec.name,))

    def _behind(self, more: Collection[str]) -> list[StepState]:
        """Steps that wait only for steps that run now or are among `more`."""
        return [
            step
            for step in self.steps.values()
            if step.status == states.PENDING
            and step.spec.kind != CLONE
            and self._is_wanted(step.spec)
            and all(name in more or self._is_under_way(name) for name in step.spec.depends_on)
        ]

    def _is_under_way(self, name: str) -> bool:
        step = self._named.get(name)
        return step is None or step.is_done or step.status == states.RUNNING

    def start(self, number: int, now: float) -> None:
        """A step is being started."""
        step = self.steps[number]
        step.attempts += 1
        if step.started is None:
            step.started = now
        step.status = states.RUNNING

    def take_back(self, number: int) -> None:
        """A step counted as started was not started after all."""
        step = self.steps[number]
        step.status, step.started, step.attempts = states.PENDING, None, 0

    def end(
        self, number: int, outcome: Outcome, now: float, *, timed_out: bool = False
    ) -> float | None:
        """A step has ended; returns after how many seconds to start it again, None for never."""
        step = self.steps[number]
        if step.is_done:
            return None
        status, code, error = self._verdict(step, outcome, timed_out)
        again = self._retry_s(step, status)
        if again is not None:
            return again
        step.status, step.exit_code, step.stopped = status, code, now
        step.error = error[:MAX_ERROR_CHARS]
        if not step.is_background:
            self._follow(step)
        return None

    def fails(self, number: int, outcome: Outcome, *, timed_out: bool = False) -> bool:
        """Whether a step that ends like this fails the stage, for good and not by being killed."""
        step = self.steps[number]
        if step.is_background or step.spec.kind == CLONE or step.spec.failure == "ignore":
            return False
        status, _, _ = self._verdict(step, outcome, timed_out)
        return status == states.FAILURE and self._retry_s(step, status) is None

    def _verdict(self, step: StepState, outcome: Outcome, timed_out: bool) -> tuple[str, int, str]:
        if step.is_background and (self.stopped_for or not outcome.error):
            return states.SUCCESS, 0, ""
        if self.stopped_for:
            return states.KILLED, EXIT_KILLED, ""
        if timed_out:
            limit = f"the step ran longer than its limit of {step.spec.timeout_s:g} s"
            return states.FAILURE, EXIT_KILLED, limit
        if outcome.error:
            return states.ERROR, outcome.exit_code or EXIT_ERROR, outcome.error
        if outcome.oom:
            return states.FAILURE, EXIT_KILLED, "out of memory"
        if outcome.exit_code in (0, EXIT_STOP):
            return states.SUCCESS, outcome.exit_code, ""
        return states.FAILURE, outcome.exit_code, ""

    def _retry_s(self, step: StepState, status: str) -> float | None:
        retry = step.spec.retry
        if self.stopped_for or status not in retry.on or step.attempts > retry.count:
            return None
        return retry.backoff_s * float(2 ** (step.attempts - 1))

    def _follow(self, step: StepState) -> None:
        if step.status == states.SUCCESS and step.exit_code == EXIT_STOP:
            self._skip_pending()
        elif step.status == states.FAILURE and step.spec.failure == "fast":
            self.stop(f"step {step.spec.name} failed and says failure: fast")

    def _skip_pending(self) -> None:
        for step in self.steps.values():
            if step.status == states.PENDING:
                step.status = states.SKIPPED

    def stop(self, reason: str) -> None:
        """Cancelled or out of time: nothing starts any more, what runs will be killed."""
        self.stopped_for = self.stopped_for or reason
        self._skip_pending()

    def fail(self, error: str) -> None:
        """The stage cannot go on, by no fault of a step: it is `error`, what is pending skipped."""
        self.error = self.error or error[:MAX_ERROR_CHARS]
        self._skip_pending()

    def close(self, now: float) -> str:
        """All processes have ended: settle what still runs; returns the stage's final status."""
        for step in self.running():
            killed = bool(self.stopped_for) and not step.is_background
            step.status = states.KILLED if killed else states.SUCCESS
            step.exit_code = EXIT_KILLED if killed else 0
            step.stopped = now
        self._skip_pending()
        status = self.status
        return states.SUCCESS if status == states.RUNNING else status


def step_environ(walk: Walk, step: StepSpec) -> dict[str, str]:
    """Everything in a step's environment: the stage's, its own, the state so far, its secrets.

    Variables that are empty are left out, except secrets.
    """
    failing = walk.is_failing
    environ = {**walk.spec.environment, **step.environment}
    environ |= {
        "DRONE_STAGE_STATUS": states.FAILURE if failing else states.SUCCESS,
        "DRONE_STEP_NAME": step.name,
        "DRONE_STEP_NUMBER": str(step.number),
        "DRONE_FAILED_STEPS": ",".join(walk.failed_steps),
    }
    if failing or not environ.get("DRONE_BUILD_STATUS"):
        environ["DRONE_BUILD_STATUS"] = environ["DRONE_STAGE_STATUS"]
    environ = {name: value for name, value in environ.items() if value}
    secrets = walk.spec.secrets
    environ |= {variable: secrets.get(name, "") for variable, name in step.secrets.items()}
    return environ
