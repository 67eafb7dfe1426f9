"""Run one stage attempt from its claim to its last report, in the thread of a slot.

The walk decides, drivers act, the courier tells. Each running step has a thread that waits for it
and puts what happened into the run's queue; nothing else changes the walk.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import structlog

from agents import mirrors, results
from agents.artifacts import Shelf
from agents.cache.shim import ARTIFACT
from agents.clone import CloneProcess, ssh_command
from agents.courier import FIRST_BATCH_S, Courier
from agents.debug.keeper import Keeper
from agents.drivers.base import (
    EXIT_ERROR,
    EXIT_KILLED,
    Driver,
    DriverError,
    Outcome,
    Process,
    Room,
    Session,
)
from agents.execute import StepState, Walk, step_environ
from agents.hooks import HookError
from agents.job import Job
from agents.joblog import JobLog
from agents.link import Link
from agents.logs.masks import Masker, hide, terms
from agents.logs.spool import Spool
from agents.options import Options
from agents.reports import snapshot
from agents.rooms import release
from agents.state import Lease
from agents.undelivered import Undelivered
from pipeline.spec import CLONE, StageSpec
from pipeline.wire import Claimed, LogPart, Report

log = structlog.get_logger("agents.runner")

#: A process that was killed and does not end is given up after this long.
GIVE_UP_S: Final = 60.0


class Refused(Exception):
    """This agent may not run the stage; the message names the rule that forbids it."""


class House(Protocol):
    """What a run needs of the agent it runs in."""

    options: Options

    def driver(self, type_: str) -> Driver:
        """Raises: DriverError if this agent cannot run stages of the type."""

    def admit(self, spec: StageSpec) -> StageSpec:
        """The spec as the agent's policy amends it. Raises: Refused."""

    def take_room(self) -> Room:
        """A fresh room for the run. Raises: OSError."""

    def step_slot(self) -> AbstractContextManager[object]:
        """Held while a step runs: bounds how many do."""

    @property
    def is_closed(self) -> bool:
        """Whether the agent wants to come to an end: nothing is kept for debugging."""

    def tidy(self, task: Callable[[], None]) -> None:
        """Have something done soon, in another thread."""

    def before_steps(
        self, environ: Mapping[str, str], folder: Path, write: Callable[[bytes], object]
    ) -> Mapping[str, str]:
        """The host owner's hook before steps; returns variables for them. Raises: HookError."""

    def after_steps(self, environ: Mapping[str, str], folder: Path, status: str) -> None:
        """The host owner's hook after steps."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A step's process has ended."""

    number: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody wants the stage to stop."""

    reason: str


class StageRun:
    """One attempt. `run` is the slot's; `cancel` may be called by any thread.

    `on_begun` is called when the server knows that the stage has begun, before a step starts: until
    then the nonce may be asked with again, and the stage run again, by a later life of the agent.
    """

    def __init__(
        self,
        claimed: Claimed,
        lease: Lease,
        house: House,
        link: Link,
        *,
        on_begun: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lease, self._house, self._link, self._clock = lease, house, link, clock
        self._options, self._on_begun = house.options, on_begun
        self.spec = claimed.spec
        self._report_s = claimed.report_s
        self._walk = Walk(claimed.spec)
        self._lock = threading.RLock()
        self._events: queue.SimpleQueue[Ended | Cancelled] = queue.SimpleQueue()
        self._jobs: dict[int, Job] = {}
        self._ends: dict[int, int] = {}
        self._started = clock()
        self._stopped: float | None = None
        self._final = self._refused = ""
        self._begun = False
        self._give_up_at: float | None = None
        self._session: Session | None = None
        self._cancelled = threading.Event()
        self._masks: list[bytes] = []
        self._room: Room | None = None
        self._shelf = Shelf(self._options, link.gate, lease.key)
        self._keeper = Keeper(self._options, link.gate, lease.key, clock)
        kept = self._options.upload_job_logs != "never"
        self._log = JobLog(lease.folder, self._options) if kept else None

    # --- the door ---

    def run(self) -> str:
        """Run the stage and deliver its end; returns its final status.

        Raises: agents.link.Stopped if the agent had to stop first; the lease's directory then has
        what is needed to deliver later.
        """
        self._courier = Courier(
            self.lease.key,
            self._link,
            self._snapshot,
            report_s=self._report_s,
            on_cancel=self.cancel,
            on_release=self._keeper.release,
            results=Undelivered(self.lease.folder),
            clock=self._clock,
        )
        try:
            self._work()
        except BaseException:
            self._courier.stop()
            raise
        self._courier.finish()
        self._clean_up()
        return self._final

    def cancel(self, reason: str) -> None:
        """Stop the stage: kill what runs, skip the rest. Any thread, any number of times."""
        if not self._cancelled.is_set():
            self._cancelled.set()
            self._events.put(Cancelled(reason))
            self._keeper.close(reason)

    def release(self, reason: str) -> None:
        """Keep no failed step any longer. Any thread, any number of times."""
        self._keeper.close(reason)

    # --- set up and take down ---

    def _work(self) -> None:
        try:
            self._open()
            self._loop()
        finally:
            self._close()

    def _open(self) -> None:
        try:
            self._room = replace(self._house.take_room(), tools={ARTIFACT: self._shelf})
            self.spec = self._house.admit(self.spec)
            with self._lock:
                self._walk = Walk(self.spec)
            self._masks = terms((*self.spec.secrets.values(), *self.spec.masks))
            self._driver = self._house.driver(self.spec.type)
            if self.spec.type != "exec":  # engines may take their time
                self._courier.start()
            self._session = self._driver.open(self.spec, self._room)
        except Refused as refused:
            self._refused = str(refused)
            self._fail(str(refused))
        except DriverError as fault:
            self._fail(str(fault))
        except OSError as fault:
            self._fail(f"the agent cannot make a workspace: {fault}")

    def _fail(self, error: str) -> None:
        with self._lock:
            self._walk.fail(hide(error, self._masks))

    def _close(self) -> None:
        self._keeper.close("the stage has ended")
        if self._session is not None:
            self._session.close()
        for number, job in self._jobs.items():
            if self._walk.stopped_for:
                job.spool.give_up()
            if job.thread is not None:
                job.thread.join(GIVE_UP_S)
            self._finish_log(number, job)
        with self._lock:
            self._stopped = self._clock()
            self._final = self._walk.close(self._stopped)
        self._upload_log()
        if self._room is not None and self._begun:
            self._house.after_steps(self.spec.environment, self._room.source, self._final)

    def _upload_log(self) -> None:
        if self._log is not None and self._begun:
            trimmed = any(job.spool.trimmed for job in self._jobs.values())
            stopped = self._link.gate.stopping.is_set
            self._log.upload(self._shelf, self.spec.stage, trimmed=trimmed, stopped=stopped)

    def _clean_up(self) -> None:
        for job in self._jobs.values():
            job.spool.close()
        self._house.tidy(self._remove)

    def _remove(self) -> None:
        if self._session is not None:
            self._session.remove()
        elif self._room is not None:
            shutil.rmtree(self._room.root, ignore_errors=True)
        if self._room is not None:
            release(self._room)
        self.lease.remove()

    # --- the loop ---

    def _loop(self) -> None:
        while True:
            self._start_ready()
            if self._walk.is_over:
                return
            event = self._next_event()
            if isinstance(event, Cancelled):
                self._stop(event.reason)
            elif event is not None:
                self._end(event)
            self._check_limits()

    def _next_event(self) -> Ended | Cancelled | None:
        try:
            if not self._courier.is_started:
                return self._first_event()
            return self._events.get(timeout=self._patience())
        except queue.Empty:
            return None

    def _first_event(self) -> Ended | Cancelled | None:
        """Most stages of one short step have ended before there is something to tell of them."""
        try:
            return self._events.get(timeout=FIRST_BATCH_S)
        except queue.Empty:
            self._courier.start()
            raise

    def _patience(self) -> float | None:
        end = self._time_limit()
        times = [] if end is None else [end]
        for job in self._jobs.values():
            times += [when for when in (job.deadline, job.again_at) if when is not None]
        if self._give_up_at is not None:
            times = [self._give_up_at]
        return max(0.0, min(times) - self._clock()) if times else None

    def _time_limit(self) -> float | None:
        """When the stage's time is over; it stands still while a step is kept for debugging."""
        if not self.spec.timeout_s or self._keeper.is_holding:
            return None
        return self._started + self.spec.timeout_s + self._keeper.held_s

    def _check_limits(self) -> None:
        now, end = self._clock(), self._time_limit()
        if end is not None and now >= end:
            self._stop(f"the stage ran longer than its limit of {self.spec.timeout_s:g} s")
        for number, job in list(self._jobs.items()):
            if job.deadline is not None and now >= job.deadline:
                job.deadline, job.timed_out = None, True
                job.kill()
            if job.again_at is not None and now >= job.again_at:
                job.again_at = None
                self._launch(self._walk.steps[number], job)
        if self._give_up_at is not None and now >= self._give_up_at:
            self._abandon()

    # --- steps ---

    def _start_ready(self) -> None:
        """Start what may start; a service or detached step that was started lets others start."""
        while ready := self._next():
            self._start_all(ready)

    def _next(self) -> list[StepState]:
        with self._lock:
            return self._walk.next()

    def _start_all(self, ready: list[StepState]) -> None:
        clones = [step for step in ready if step.spec.kind == CLONE]
        others = [step for step in ready if step.spec.kind != CLONE]
        for step in clones:
            self._start(step)
        if clones:
            self._prepare()
        if others:
            self._start_others(others)

    def _start_others(self, steps: list[StepState]) -> None:
        """Start steps that may have effects: not before the server knows that the stage began."""
        with self._lock:
            for step in steps:
                self._walk.start(step.spec.number, self._clock())
        beginning = not self._begun
        if beginning:
            self._begun = True
            self._save()
            self._courier.begin(lambda: self._prepare_first(steps))
            self._on_begun()
            self._run_hook(steps[0])
        if self._cancelled.is_set() or self._walk.error:
            with self._lock:
                for step in steps:
                    self._walk.take_back(step.spec.number)
                if self._walk.error:
                    self._walk.fail(self._walk.error)
            if self._cancelled.is_set():
                self._take_cancel()
            return
        for step in steps:
            self._start(step, marked=True)
        if not beginning:  # else the report that was just acknowledged said so
            self._tell()
        self._prepare()

    def _run_hook(self, first: StepState) -> None:
        """The host owner's hook, its output at the head of the first step's log."""
        if self._cancelled.is_set() or self._room is None:
            return
        job = self._job(first)
        try:
            environ = step_environ(self._walk, first.spec)
            more = self._house.before_steps(environ, self._room.source, job.spool.write)
        except HookError as fault:
            self._fail(str(fault))
            return
        if more:
            with self._lock:
                environment = {**self._walk.spec.environment, **more}
                self._walk.spec = replace(self._walk.spec, environment=environment)

    def _take_cancel(self) -> None:
        """Act on a cancel that is in the queue, before anything else of it."""
        event = self._events.get()
        while not isinstance(event, Cancelled):
            self._end(event)
            event = self._events.get()
        self._stop(event.reason)

    def _start(self, step: StepState, *, marked: bool = False) -> None:
        if not marked:
            with self._lock:
                self._walk.start(step.spec.number, self._clock())
            self._tell()
        self._launch(step, self._job(step))

    def _job(self, step: StepState) -> Job:
        number = step.spec.number
        if number in self._jobs:
            return self._jobs[number]
        spool = Spool(
            self.lease.folder,
            number,
            Masker(self._masks),
            cap_bytes=self._options.max_log_size,
            clock=self._clock,
            on_data=self._courier.wake,
            copy=self._log.copy(number, step.spec.name) if self._log is not None else None,
        )
        job = self._jobs[number] = Job(spool)
        self._courier.add(number, spool)
        return job

    def _launch(self, step: StepState, job: Job) -> None:
        if step.spec.timeout_s and not step.is_background:
            job.deadline = self._clock() + step.spec.timeout_s
        job.process, job.timed_out, job.killed = None, False, bool(self._walk.stopped_for)
        job.thread = threading.Thread(
            target=self._run_step, args=(step, job), name=f"step-{step.spec.number}", daemon=True
        )
        job.thread.start()

    def _run_step(self, step: StepState, job: Job) -> None:
        """The step's thread."""
        try:
            slot = nullcontext() if step.is_background else self._house.step_slot()
            with slot:
                process = self._process(step, job)
                job.attach(process)
                outcome = process.wait()
            if step.spec.reports and not self._cancelled.is_set():
                self._collect(step, job)
            if self.spec.debug:
                self._keep(step, job, outcome)
        except DriverError as fault:
            outcome = Outcome(EXIT_ERROR, error=str(fault))
        except OSError as fault:
            outcome = Outcome(EXIT_ERROR, error=f"the agent cannot run the step: {fault}")
        except Exception as fault:
            log.exception("step.broke", lease=self.lease.key, step=step.spec.number)
            outcome = Outcome(EXIT_ERROR, error=f"the agent failed: {fault!r}")
        outcome = replace(outcome, error=hide(outcome.error, self._masks))
        self._events.put(Ended(step.spec.number, outcome))

    def _collect(self, step: StepState, job: Job) -> None:
        """Have the step's test reports sent; what goes wrong is said in its log."""
        assert self._session is not None  # noqa: S101 - the step ran in it
        body, said = results.take(self._session, step.spec, self._masks)
        if body:
            self._courier.add_results(step.spec.number, body)
        if said:
            job.spool.write(said.encode())

    def _keep(self, step: StepState, job: Job, outcome: Outcome) -> None:
        """Keep a step that has failed for whoever wants to look into it."""
        job.deadline = None
        with self._lock:
            fails = self._walk.fails(step.spec.number, outcome, timed_out=job.timed_out)
            environ = step_environ(self._walk, step.spec)
        if fails and self._session is not None and not self._house.is_closed:
            keep = self._keeper.keep
            keep(self.spec, step.spec, outcome, environ, self._session, job.spool.write, self._tell)

    def _process(self, step: StepState, job: Job) -> Process:
        with self._lock:
            environ = step_environ(self._walk, step.spec)
        if step.spec.kind == CLONE and self._room is not None:
            return CloneProcess(
                self.spec.clone,
                self._room,
                job.spool,
                mirrors=mirrors.folder(self._options.work_dir),
                environ=environ,
                netrc=self.spec.netrc,
                ssh=ssh_command(self._options),
            )
        assert self._session is not None  # noqa: S101 - a stage without a session starts nothing
        return self._session.start(step.spec, environ, job.spool)

    def _prepare_first(self, steps: list[StepState]) -> None:
        """Use the time until the server knows that the stage begins, unless a hook changes all."""
        if self._session is None or self._options.pre_job_hook_path:
            return
        for step in steps:
            with self._lock:
                environ = step_environ(self._walk, step.spec)
            self._session.prepare(step.spec, environ, at_once=True)
            self._job(step).spool.make_ready()

    def _prepare(self) -> None:
        if self._session is None:
            return
        with self._lock:
            hints = [
                (one.spec, step_environ(self._walk, one.spec)) for one in self._walk.upcoming()
            ]
        for spec, environ in hints:
            self._session.prepare(spec, environ)

    def _end(self, event: Ended) -> None:
        job = self._jobs[event.number]
        job.deadline = None
        with self._lock:
            again = self._walk.end(
                event.number, event.outcome, self._clock(), timed_out=job.timed_out
            )
            step = self._walk.steps[event.number]
        if again is not None:
            text = f"--- attempt {step.attempts + 1} of {step.spec.retry.count + 1} ---\n"
            job.spool.write(text.encode())
            with self._lock:
                self._walk.start(event.number, self._clock())
            job.again_at = self._clock() + again
            return
        self._finish_log(event.number, job)
        if self._walk.stopped_for:
            self._kill_running()
        if not self._walk.is_over:
            self._tell()

    def _finish_log(self, number: int, job: Job) -> None:
        end = job.spool.finish()
        with self._lock:
            self._ends[number] = end

    # --- stopping ---

    def _stop(self, reason: str) -> None:
        with self._lock:
            if self._walk.stopped_for:
                return
            self._walk.stop(reason)
        log.info("stage.stopping", lease=self.lease.key, reason=reason)
        for number, job in self._jobs.items():
            if job.again_at is not None:  # it waits to be tried again
                job.again_at = None
                self._events.put(Ended(number, Outcome(EXIT_KILLED)))
        self._kill_running()

    def _kill_running(self) -> None:
        self._keeper.close("the stage is being stopped")
        self._give_up_at = self._give_up_at or self._clock() + GIVE_UP_S
        with self._lock:
            numbers = [step.spec.number for step in self._walk.running()]
        for number in numbers:
            if number in self._jobs:
                self._jobs[number].kill()

    def _abandon(self) -> None:
        """What was killed did not end: report it as killed all the same."""
        log.error("stage.abandoned", lease=self.lease.key)
        with self._lock:
            for step in list(self._walk.running()):
                self._walk.end(step.spec.number, Outcome(EXIT_KILLED), self._clock())

    # --- telling ---

    def _tell(self) -> None:
        self._save()
        self._courier.changed()

    def _save(self) -> None:
        """Remember the moment for a later life of the agent, which may have to do without."""
        try:
            self.lease.save_report(self._snapshot(()))
        except OSError as fault:
            log.warning("report.not-kept", lease=self.lease.key, reason=str(fault))

    def _snapshot(self, parts: tuple[LogPart, ...]) -> Report:
        with self._lock:
            return snapshot(
                self._walk,
                self._clock(),
                started=self._started,
                begun=self._begun,
                ends=self._ends,
                status=self._final,
                stopped=self._stopped,
                refused=self._refused,
                logs=parts,
                holds=self._keeper.reports(),
            )
