"""The agent: who it is, which slots work, and how it comes and goes.

Slots are threads that call `serve`: claim, run, claim again, until there is nothing or the agent
drains. Everything else here starts, watches and ends them.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from agents import hooks, host, policy
from agents.cache.settings import exports
from agents.drivers.base import EXIT_ERROR, Driver, DriverError, Room
from agents.extensions import extend
from agents.hooks import HookError, Reason
from agents.janitor import Janitor
from agents.link import Gate, Link, LinkError, Stopped
from agents.options import Options
from agents.orphans import deliver
from agents.rooms import Rooms
from agents.runner import Refused, StageRun
from agents.state import Identity, Lease, State
from agents.status import Board
from pipeline import states, wire
from pipeline.spec import StageSpec
from pipeline.wire import (
    Claim,
    Claimed,
    Join,
    Joined,
    Orders,
    Pace,
    Presence,
    Report,
    StepReport,
)

log = structlog.get_logger("agents.agent")

VERSION: Final = "0.1.0"
#: How long the server may hold a presence call: below the limits of the proxies in between.
HOLD_S: Final = 45.0
#: Presence is told at most this often where the server answers at once.
_BETWEEN_S: Final = 1.0
#: How long to wait after an answer that makes no sense.
_AWAY_S: Final = 5.0
#: After a cancel by signal, how long stages have to end and be told.
CANCEL_S: Final = 30.0
_MAKERS: Final = {
    "exec": "agents.drivers.exec:ExecDriver",
    "docker": "agents.drivers.docker:DockerDriver",
}


class JoinRefused(Exception):
    """The server does not take this agent; the message says why in one sentence."""


class Agent:
    """One agent on one host. Built once per process; `start` before anything else."""

    def __init__(
        self,
        options: Options,
        *,
        drivers: dict[str, Driver] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self.state = State(options.state_dir)
        self.gate = Gate(options.backoff, options.backoff_max)
        self.identity: Identity | None = None
        self.broker_url = ""
        self.queues: tuple[str, ...] = ()
        #: Told with new queues, whenever the server changes them or the agent drains.
        self.on_queues: Callable[[tuple[str, ...]], None] = lambda queues: None
        #: Told once, when the agent wants to end its process.
        self.on_leave: Callable[[], None] = lambda: None
        self.draining = threading.Event()
        self.leaving: Reason | None = None
        #: Stages that run and ran here, for the status page.
        self.board = Board()
        self._paused = ""
        self._full = False
        self._serving = 0
        self._janitor = Janitor()
        self._rooms = Rooms(options.work_dir, self._furnish)
        self._finished = False
        self._clock = clock
        self._drivers = drivers
        self._lock = threading.Lock()
        self._runs: dict[str, StageRun] = {}
        self._links: list[Link] = []
        self._nonces: list[str] = []
        self._worked = clock()
        self._steps: AbstractContextManager[object] = (
            threading.Semaphore(options.max_procs)
            if options.max_procs
            else contextlib.nullcontext()
        )
        self._presence: threading.Thread | None = None
        self._presence_link = Link(options, self.gate)
        #: Presence calls in a row that had no answer.
        self._silences = 0
        self._leave_at: float | None = None

    # --- coming ---

    def start(self) -> None:
        """Clean up after an earlier life, join, deliver what that life owes.

        Raises: JoinRefused, Stopped.
        """
        self._open_drivers()
        for driver in self.drivers.values():
            driver.sweep()
        self._rooms.make_ahead()
        self._join()
        self._nonces = self.state.nonces()
        owed = [lease for lease in self.state.leases() if self._is_owed(lease)]
        if owed:
            threading.Thread(target=self._deliver, args=(owed,), daemon=True).start()
        self._presence = threading.Thread(target=self._stay_present, name="presence", daemon=True)
        self._presence.start()

    def _is_owed(self, lease: Lease) -> bool:
        """Whether a lease's end must be told.

        One whose nonce is still open had not begun: it is claimed again instead, as is one that did
        not even come to note anything.
        """
        if not lease.nonce:
            lease.remove()
        return bool(lease.nonce) and lease.nonce not in self._nonces

    def _deliver(self, owed: list[Lease]) -> None:
        with self._link() as link:
            for lease in owed:
                with contextlib.suppress(Stopped):
                    deliver(lease, link)

    @property
    def drivers(self) -> dict[str, Driver]:
        """Drivers that work on this host, by pipeline type."""
        return self._drivers or {}

    def _open_drivers(self) -> None:
        if self._drivers is not None:
            return
        self._drivers = {}
        for type_ in self.options.types:
            module, _, name = _MAKERS[type_].partition(":")
            driver = getattr(importlib.import_module(module), name)(self.options)
            try:
                driver.check()
            except DriverError as fault:
                log.warning("driver.unusable", type=type_, reason=str(fault))
            else:
                self._drivers[type_] = driver
        if not self._drivers:
            raise JoinRefused("this host can run no stage of any type: see the warnings above")

    def _join(self) -> None:
        options = self.options
        known = self.state.identity(options.server)
        name = options.name or (known.name if known else host.new_name())
        if known is None:
            known = Identity(options.server, name)
            self._remember(known)
        link = Link(options, self.gate)
        link.token = options.token
        message = Join(
            name=name,
            version=VERSION,
            os=options.os,
            arch=options.arch,
            variant=options.variant,
            kernel=options.kernel,
            labels=options.labels,
            types=tuple(sorted(self.drivers)),
            capacity=options.concurrency,
            previous=known.id,
            previous_token=known.token,
        )
        try:
            joined = link.post("agents", message, Joined)
        except LinkError as fault:
            raise JoinRefused(
                f"the server at {options.server} refused this agent: {fault}"
            ) from fault
        finally:
            link.close()
        if joined is None:
            raise JoinRefused(f"the server at {options.server} gave no answer to the join")
        if joined.v < wire.OLDEST:
            text = f"version {joined.v} of the agent protocol, this agent {wire.OLDEST}: upgrade it"
            raise JoinRefused(f"the server at {options.server} speaks {text}")
        self._become(joined, name)

    def _become(self, joined: Joined, name: str) -> None:
        self.identity = Identity(self.options.server, name, joined.id, joined.token)
        self._remember(self.identity)
        self.gate.token = joined.token
        self.broker_url = self.options.redis_url or joined.broker_url
        self.queues = joined.queues
        log.info("agent.joined", agent=name, id=joined.id, queues=list(joined.queues))

    def _remember(self, identity: Identity) -> None:
        """Keep who it is for the next life; without, that one joins as a stranger."""
        try:
            self.state.save_identity(identity)
        except OSError as fault:
            log.error("identity.not-kept", reason=str(fault))

    # --- working ---

    def serve(self) -> None:
        """Claim and run stages until there is nothing to run; the body of a ticket."""
        with self._lock:
            self._serving += 1
        try:
            self._serve()
        finally:
            with self._lock:
                self._serving -= 1

    @property
    def is_idle(self) -> bool:
        """Whether no slot works."""
        return self._serving == 0

    def _serve(self) -> None:
        while not self.is_closed:
            with self._link() as link:
                link.give_up = self.draining
                try:
                    ran = self._serve_one(link)
                except Stopped:
                    return
                except OSError as fault:  # the state directory: nothing was asked
                    log.error("claim.impossible", reason=str(fault))
                    return
                finally:
                    link.give_up = None
            if not ran:
                return
            if self.options.disconnect_after_job:
                self.leave(Reason.JOB_FINISHED)

    @property
    def is_closed(self) -> bool:
        """Whether no stage is claimed now."""
        return self.draining.is_set() or bool(self._paused) or self._disk_is_full()

    def _serve_one(self, link: Link) -> bool:
        nonce = self._next_nonce()
        try:
            environ = hooks.environment(self.options)
        except HookError as fault:
            log.error("claim.no-environment", reason=str(fault))
            environ = {}
        mine = tuple(sorted(self.options.secrets))
        question = Claim(nonce, self.queues, environ, mine, only=self.options.job_id)
        try:
            claimed = link.post("claims", question, Claimed)
        except LinkError as fault:
            log.error("claim.refused", reason=str(fault), status=fault.status)
            claimed = None
        if claimed is None:
            self.state.settle(nonce)
            return False
        self._run(claimed, nonce, link)
        return True

    def _next_nonce(self) -> str:
        with self._lock:
            return self._nonces.pop() if self._nonces else self.state.new_nonce()

    def _run(self, claimed: Claimed, nonce: str, link: Link) -> None:
        spec = claimed.spec
        say = log.bind(lease=claimed.lease, repo=spec.repo, build=spec.build, stage=spec.stage)
        link.give_up = None
        try:
            lease = self.state.open_lease(claimed.lease, nonce)
        except OSError as fault:
            say.error("lease.not-kept", reason=str(fault))
            self._tell_broken(claimed, link, fault)
            self.state.settle(nonce)
            return
        run = StageRun(claimed, lease, self, link, on_begun=lambda: self.state.settle(nonce))
        with self._lock:
            self._runs[claimed.lease] = run
        self.board.begin(claimed.lease, spec)
        say.info("stage.started")
        try:
            status = run.run()
            self.state.settle(nonce)
            self.board.end(claimed.lease, status)
            say.info("stage.finished", status=status)
        except Stopped:
            raise
        except Exception as fault:
            say.exception("stage.broke")
            self._tell_broken(claimed, link, fault)
            self.state.settle(nonce)
        finally:
            with self._lock:
                del self._runs[claimed.lease]
            self.board.end(claimed.lease, states.ERROR)  # unless it has ended well
            self._worked = self._clock()

    def _tell_broken(self, claimed: Claimed, link: Link, fault: Exception) -> None:
        """The agent itself failed: the stage must not run for ever in the server's eyes."""
        error = f"the agent failed: {fault!r}"
        steps = tuple(
            StepReport(step.number, states.SKIPPED, log_end=0) for step in claimed.spec.steps
        )
        report = Report(states.ERROR, True, True, EXIT_ERROR, error, stopped_ms=0, steps=steps)
        with contextlib.suppress(LinkError):
            link.put(f"leases/{claimed.lease}", report, Pace)

    @contextlib.contextmanager
    def _link(self) -> Iterator[Link]:
        """A connection of this thread's own, kept for the next."""
        with self._lock:
            link = self._links.pop() if self._links else Link(self.options, self.gate)
        try:
            yield link
        finally:
            with self._lock:
                self._links.append(link)

    def _disk_is_full(self) -> bool:
        least, free = self.options.disk_free_min, host.disk_free(self.options)
        full = free < least
        if full != self._full:
            self._full = full
            say = log.error if full else log.warning
            say("disk.full" if full else "disk.has-room", free=free, least=least)
        return full

    # --- what runs ask of their house ---

    def driver(self, type_: str) -> Driver:
        """The driver of a pipeline type. Raises: DriverError if this agent has none."""
        found = self.drivers.get(type_)
        if found is None:
            raise DriverError(f"this agent runs no {type_} stages")
        return found

    def admit(self, spec: StageSpec) -> StageSpec:
        """The stage as the policy has it run. Raises: Refused."""
        name = self.identity.name if self.identity else ""
        reason = policy.refusal(spec, self.options, name)
        if reason is not None:
            raise Refused(reason)
        amended = extend(policy.amend(spec, self.options), self.options)
        named = {**exports(spec, self.options), **amended.environment}
        return replace(amended, environment=named)

    def take_room(self) -> Room:
        """A fresh room for a run. Raises: OSError."""
        return self._rooms.take()

    def _furnish(self, room: Room) -> None:
        for driver in self.drivers.values():
            driver.furnish(room)

    def step_slot(self) -> AbstractContextManager[object]:
        """Held while a step runs."""
        return self._steps

    def tidy(self, task: Callable[[], None]) -> None:
        """Have what a stage left removed, soon."""
        self._janitor.do(task)
        if not self._rooms.has_spare and not self.is_closed:
            self._janitor.do(self._rooms.make_ahead)

    def before_steps(
        self, environ: Mapping[str, str], folder: Path, write: Callable[[bytes], object]
    ) -> Mapping[str, str]:
        """Check `files` and run the pre-job hook. Raises: HookError."""
        hooks.check_files(self.options, write)
        return hooks.pre_job(self.options, environ, folder, write).exports

    def after_steps(self, environ: Mapping[str, str], folder: Path, status: str) -> None:
        """Run the post-job hook; what it prints goes to the agent's own log."""

        def write(text: bytes) -> None:
            log.info("hook.post-job", output=text.decode(errors="replace").rstrip())

        hooks.post_job(self.options, environ, folder, write, status)

    # --- presence ---

    def _stay_present(self) -> None:
        while not self.gate.stopping.is_set():
            self._be_present(self._presence_link)
        self._presence_link.close()

    def _be_present(self, link: Link) -> None:
        asked = self._clock()
        try:
            orders = link.put(self._path, self._sign(), Orders, hold_s=HOLD_S, patient=False)
        except LinkError as fault:
            self._not_known(fault)
            return
        except (OSError, http.client.HTTPException) as fault:
            if not link.aborted:
                self._silences += 1
                reason = str(fault) or type(fault).__name__
                link.hold_off(self._silences, reason, self.gate.first_wait_s)
            return
        self._silences = 0
        if orders is not None:
            self._obey(orders)
        self.gate.stopping.wait(max(0.0, _BETWEEN_S - (self._clock() - asked)))

    @property
    def _path(self) -> str:
        return f"agents/{self.identity.id if self.identity else 0}"

    def _sign(self) -> Presence:
        with self._lock:
            leases = tuple(self._runs)
        closed = self.draining.is_set() or self._paused
        return Presence(
            busy=len(leases),
            leases=leases,
            state="draining" if closed else "busy" if leases else "idle",
            reason=self.leaving or self._paused,
            hold_s=HOLD_S,
            version=VERSION,
            load=host.load(),
            disk_free_bytes=host.disk_free(self.options),
        )

    def _obey(self, orders: Orders) -> None:
        for lease in orders.cancelled:
            self._cancel(lease, "cancelled")
        if orders.action == "shutdown":
            self.leave(Reason.REQUESTED)
            return
        paused = (orders.reason or "the server asked for it") if orders.action == "drain" else ""
        if bool(paused) != bool(self._paused):
            log.info("agent.paused" if paused else "agent.resumed", reason=paused)
        changed = bool(paused) != bool(self._paused) or (
            orders.queues and orders.queues != self.queues
        )
        self._paused, self.queues = paused, orders.queues or self.queues
        if paused:
            self._release("the agent is being drained")
        if changed:
            self.on_queues(() if paused else self.queues)

    def _not_known(self, fault: LinkError) -> None:
        """The agent's token is not good any more: join anew, or leave if that is refused."""
        if fault.status not in (401, 403, 404):
            log.warning("presence.refused", status=fault.status, reason=str(fault))
            self.gate.stopping.wait(_AWAY_S)
            return
        log.warning("agent.unknown", status=fault.status, reason=str(fault))
        try:
            self._join()
        except JoinRefused as refused:
            log.error("agent.refused", reason=str(refused))
            self.gate.shut_out = True
            self.leave(Reason.REQUESTED)
            self.cancel_all("the server does not know this agent any more")
            self.gate.stopping.wait()
        except Stopped:
            return

    def about(self) -> dict[str, str]:
        """What the status page says of the agent."""
        sign = self._sign()
        return {
            "name": self.identity.name if self.identity else "",
            "version": VERSION,
            "server": self.options.server,
            "state": sign.state,
            "stages": f"{sign.busy} of {self.options.concurrency}",
            "load": f"{sign.load:.2f}",
            "disk free": f"{sign.disk_free_bytes / 2**30:.1f} GiB",
        }

    # --- going ---

    def tick(self) -> None:
        """Look at what only time tells; called about once a second."""
        options, now = self.options, self._clock()
        with self._lock:
            busy = bool(self._runs)
        idle_s = options.disconnect_after_idle_timeout
        if idle_s and not busy and now - self._worked >= idle_s:
            self.leave(Reason.IDLE)
        if options.sync_timeout and now - self.gate.heard >= options.sync_timeout + HOLD_S:
            self.leave(Reason.UNABLE_TO_SYNC)
        if self._leave_at is not None and now >= self._leave_at:
            self._leave_at = None
            self.cancel_all("the agent is stopping and its grace is over")

    def leave(self, reason: Reason) -> None:
        """Claim nothing more, finish what runs, then end. Any thread, any number of times."""
        with self._lock:
            if self.leaving is not None:
                return
            self.leaving = reason
        log.info("agent.draining", reason=reason.value)
        self.draining.set()
        if self.identity is None:  # it waits for the answer to its join
            self.gate.stop()
        self.gate.wake()
        self._release("the agent is stopping")
        self._presence_link.abort()  # so that it is told at once
        grace_s = self.options.interruption_grace_period
        if reason is Reason.INTERRUPTED and grace_s:
            self._leave_at = self._clock() + grace_s
        self.on_leave()

    def interrupt(self) -> None:
        """The host wants the agent to end: drain, even while it is still joining."""
        self.leave(Reason.INTERRUPTED)

    def cancel_all(self, reason: str) -> None:
        """Stop every stage; calls to a server that is away are given up after a while."""
        with self._lock:
            runs = list(self._runs)
        for lease in runs:
            self._cancel(lease, reason)
        timer = threading.Timer(CANCEL_S, self.gate.stop)
        timer.daemon = True
        timer.start()

    def _release(self, reason: str) -> None:
        """Let go of failed steps that are kept for debugging."""
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.release(reason)

    def _cancel(self, lease: str, reason: str) -> None:
        with self._lock:
            run = self._runs.get(lease)
        if run is not None:
            run.cancel(reason)

    def finish(self) -> int:
        """All slots have ended: tell the server, run the shutdown hook; returns the exit code.

        Done once, whoever calls it again.
        """
        reason = self.leaving or Reason.UNKNOWN
        if not self._finished:
            self._finished = True
            self._janitor.close()
            self._rooms.close()
            self._hang_up()
            self._say_goodbye(reason)
            self.state.close()
            hooks.shutdown(self.options, reason)
            log.info("agent.left", reason=reason.value)
        return 1 if reason in (Reason.UNABLE_TO_SYNC, Reason.UNKNOWN) else 0

    def _say_goodbye(self, reason: Reason) -> None:
        if self.identity is None:
            return
        link = Link(self.options, self.gate)
        with contextlib.suppress(LinkError, OSError, http.client.HTTPException):
            link.delete(f"{self._path}?reason={reason.value}")
        link.close()

    def _hang_up(self) -> None:
        """End every call and close every connection."""
        self.gate.stop()
        deadline = time.monotonic() + CANCEL_S
        while self._presence is not None and self._presence.is_alive():
            self._presence_link.abort()
            self._presence.join(0.1)  # it may have been about to ask
            if time.monotonic() > deadline:
                break
        with self._lock:
            for link in self._links:
                link.close()
