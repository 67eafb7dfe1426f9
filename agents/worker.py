"""The Celery worker an agent is: joined before it consumes, woken when a slot falls free.

Measured reasons (design, section 6): threads instead of processes; no prefetch; a pipe that wakes
the hub when a task ends, since it would look for the next ticket only at its next tick of a second.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import warnings
from concurrent.futures import Future
from typing import Any, Final

import celery.worker.state
import structlog
from celery import bootsteps
from celery.app.amqp import Queues
from celery.apps.worker import Worker
from celery.concurrency.thread import TaskPool
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from kombu import Exchange, Queue

from agents import companions, flags
from agents.agent import Agent, JoinRefused
from agents.broker import LONGEST, secured
from agents.companions import Companion
from agents.journal import set_up_logging
from agents.link import Stopped
from agents.options import OptionError, resolve
from agents.state import StateError

log = structlog.get_logger("agents.worker")

_TICK_S: Final = 1.0


class Bell:
    """A pipe that another thread or a signal handler rings and a hub or poll reads."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        for end in (self.reader, self._writer):
            os.set_blocking(end, False)

    def ring(self, byte: int = 0) -> None:
        """Make the reader readable; a pipe that is full is rung already."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, bytes([byte]))

    def take(self) -> bytes:
        """What was rung since the last time."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.reader, 1024)
        return b""


class Pool(TaskPool):
    """Threads that ring when one of them falls free."""

    def on_apply(self, *args: Any, **kwargs: Any) -> Any:
        """Hand a task to a thread."""
        result = super().on_apply(*args, **kwargs)
        bell: Bell = self.app.bell
        future: Future[Any] = result.f
        future.add_done_callback(lambda done: bell.ring())
        return result


class JoinStep(bootsteps.StartStopStep):
    """Joins before the consumer connects, leaves after the last slot has ended."""

    requires = ("celery.worker.components:Hub", "celery.worker.components:Pool")

    def start(self, parent: Any) -> None:
        """Join; sets where tickets come from."""
        parent.join()

    def register_with_event_loop(self, parent: Any, hub: Any) -> None:
        """The loop begins, or begins anew after a lost connection."""
        parent.enter_loop(hub)

    def close(self, parent: Any) -> None:
        """The worker is about to stop."""
        parent.stop_listening()

    def stop(self, parent: Any) -> None:
        """Wait for the slots, then leave."""
        parent.part()

    terminate = stop


class AgentWorker(Worker):
    """`celery -A agents worker`. What an agent must not change of a worker is fixed here."""

    consumer: Any
    pool: Any

    def __init__(self, app: Any = None, hostname: str | None = None, **kwargs: Any) -> None:
        options = _options(kwargs)
        set_up_logging(options)
        try:
            self.agent = Agent(options)
        except StateError as fault:
            flags.refuse(str(fault), 1)
        app = app or self.app
        app.agent, app.bell = self.agent, Bell()
        self._serving_loop: Any = None
        self._companions: list[Companion] = []
        self._signals = Bell()
        self._signalled = 0
        self._closed = False
        kwargs |= {
            "pool_cls": Pool,
            "concurrency": options.concurrency,
            "quiet": True,
            "beat": False,
            "autoscale": None,
            "queues": None,
            "exclude_queues": None,
            "purge": False,
            "without_gossip": True,
            "without_mingle": True,
            "without_heartbeat": True,
        }
        super().__init__(app, hostname=hostname, **kwargs)

    def on_before_init(self, quiet: bool = False, **kwargs: Any) -> None:
        """Celery warns of root because of pickled messages; ours are JSON and carry nothing."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)
            super().on_before_init(quiet=quiet, **kwargs)

    def install_platform_tweaks(self, worker: Any) -> None:
        """Our own signal handling: Celery's ignores a second SIGTERM."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, lambda number, frame: self._signals.ring(number))
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    # --- joining and leaving ---

    def join(self) -> None:
        """Join the server and set up the consumer. Raises: SystemExit if that fails."""
        # at every lost connection, Celery would tell of a setting that we have set
        warnings.simplefilter("ignore", CPendingDeprecationWarning)
        self.agent.on_queues = self._queues_changed
        self.agent.on_leave = lambda: self._queues_changed(())
        try:
            self.agent.start()
        except JoinRefused as refused:
            flags.refuse(str(refused), 1)
        except Stopped:
            sys.exit(self.agent.finish())
        self._companions = companions.start(self.agent)
        self.app.conf.broker_url = secured(self.agent.broker_url, self.agent.options)
        self.app.conf.broker_transport_options[LONGEST] = self.agent.options.backoff
        self.app.amqp.queues = Queues([ticket_queue(name) for name in self.agent.queues])
        self.consumer.conninfo = self.app.connection_for_read()
        # what was asked for before a sudden death, or waits already, needs no ticket
        self.pool.executor.submit(self.agent.serve)

    def enter_loop(self, hub: Any) -> None:
        """Let the bell wake the hub, and put right which queues are consumed."""
        self._serving_loop = hub
        hub.add_reader(self.app.bell.reader, self.app.bell.take)
        hub.call_soon(self._consume_right_queues)

    def stop_listening(self) -> None:
        """Break off the wait for a ticket, which would hold the end up by seconds.

        A ticket that comes in this moment is lost, and rung again by the server.
        """
        consumer = self.consumer.task_consumer
        client = getattr(getattr(consumer, "channel", None), "client", None)
        connection = getattr(client, "connection", None)
        if connection is not None:
            connection.disconnect()

    def part(self) -> None:
        """Wait for the slots to end, leave, and decide the exit code."""
        self.pool.executor.shutdown(wait=True, cancel_futures=True)
        for companion in self._companions:
            companion.close()
        self.exitcode = self.agent.finish()

    # --- queues ---

    def _queues_changed(self, queues: tuple[str, ...]) -> None:
        hub = self._serving_loop
        if hub is not None:
            hub.call_soon(self._consume_right_queues)
            self.app.bell.ring()

    def _consume_right_queues(self) -> None:
        consumer = self.consumer
        if consumer.task_consumer is None:
            return
        self._closed = self.agent.is_closed
        wanted = set(() if self._closed else self.agent.queues)
        queues = self.app.amqp.queues
        for name in set(queues.consume_from) - wanted:
            queues.deselect(name)
            consumer.task_consumer.cancel_by_queue(name)
        for name in wanted - set(queues.consume_from):
            queue = queues.select_add(ticket_queue(name))
            consumer.task_consumer.add_queue(queue)
            consumer.task_consumer.consume()

    # --- the watch ---

    def _watch(self) -> None:
        """Its own thread, since the hub stands still while the broker is away."""
        poll = select.poll()
        poll.register(self._signals.reader, select.POLLIN)
        while True:
            poll.poll(_TICK_S * 1000)
            for number in self._signals.take():
                self._on_signal(signal.Signals(number))
            self.agent.tick()
            self._look_whether_closed()
            if self.agent.leaving is not None and self.agent.is_idle:
                celery.worker.state.should_stop = 0  # type: ignore[assignment]
                self.app.bell.ring()

    def _look_whether_closed(self) -> None:
        """A disk that runs full, or has room again, tells nobody."""
        if self.agent.is_closed != self._closed:
            self._queues_changed(())

    def _on_signal(self, number: signal.Signals) -> None:
        """First: drain. Second: cancel what runs. Third: end at once."""
        self._signalled += 1
        if self._signalled == 1:
            log.warning("agent.signal", signal=number.name, action="finishing what runs")
            self.agent.interrupt()
        elif self._signalled == 2:
            log.warning("agent.signal", signal=number.name, action="cancelling what runs")
            self.agent.cancel_all("the agent is stopping")
        else:
            log.warning("agent.signal", signal=number.name, action="ending at once")
            os._exit(1)


def ticket_queue(name: str) -> Queue:
    """A queue of tickets: no exchange, so nothing of it can be lost but the tickets."""
    return Queue(name, exchange=Exchange(""), routing_key=name)


def _options(kwargs: dict[str, Any]) -> Any:
    try:
        return resolve(flags.take(kwargs), os.environ)
    except OptionError as fault:
        flags.refuse(str(fault), flags.EXIT_USAGE)
