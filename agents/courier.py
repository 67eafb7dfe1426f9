"""Carries a stage's reports and log batches to the server, in one thread over one connection.

A call that fails is repeated until it gets an answer; meanwhile the stage goes on and its lines
gather in the spools. Small remains of logs ride in reports, so that a short stage costs three
requests.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import structlog

from agents.link import Link, LinkError, Stopped
from agents.logs.batches import Batch, Packer
from agents.logs.spool import Spool
from agents.undelivered import Undelivered
from pipeline.wire import Appended, LogPart, Pace, Report, Taken

log = structlog.get_logger("agents.courier")

#: A step's first lines wait this long for company: most short steps end before.
FIRST_BATCH_S: Final = 0.01
#: An unfinished line goes after this silence, while somebody watches.
SILENCE_S: Final = 0.25
#: A change of status is told after the first, and not before the second of these passed.
_CHANGE_S: Final = 0.05
_BETWEEN_REPORTS_S: Final = 0.25
#: After a fault of its own the courier goes on after this pause.
_AFTER_FAULT_S: Final = 1.0
#: Bytes of lines that may ride in one report, and batches.
_RIDING_BYTES: Final = 256 * 1024
_RIDING_PARTS: Final = 32

#: What a server says of lines it cannot take: they are left out, and the log goes on.
_BAD_BATCH: Final = (400, 413, 422)

#: Makes a report of the moment; the argument are log parts to put into it.
Snapshot = Callable[[tuple[LogPart, ...]], Report]


@dataclass(slots=True)
class Shipment:
    """One step's log on its way: `sent` is the position the server has acknowledged."""

    spool: Spool
    sent: int = 0
    pace_s: float = 1.0
    last_sent: float | None = None

    def due(self) -> float | None:
        """When the next batch should go; None if there is nothing to ship."""
        if not self.spool.waiting(self.sent):
            return None
        if self.last_sent is not None:
            return self.last_sent + self.pace_s
        return self.spool.first_heard + FIRST_BATCH_S

    @property
    def silence_s(self) -> float:
        """After which silence an unfinished line goes; less hurry when nobody watches."""
        return max(SILENCE_S, self.pace_s)

    def advance(self, position: int, now: float) -> None:
        """The server has everything before `position`."""
        self.sent, self.last_sent = position, now
        self.spool.forget(position)

    @property
    def is_complete(self) -> bool:
        """Whether the server has all there is now."""
        return self.sent >= self.spool.end


class Courier:
    """The carrier of one lease. `begin` and `finish` are the slot's, the rest any thread's."""

    def __init__(
        self,
        lease: str,
        link: Link,
        snapshot: Snapshot,
        *,
        report_s: float,
        on_cancel: Callable[[str], None],
        on_release: Callable[[Collection[int]], None] = lambda steps: None,
        results: Undelivered | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = f"leases/{quote(lease, safe='')}"
        self._link, self._snapshot, self._on_cancel = link, snapshot, on_cancel
        self._on_release = on_release
        self._report_s, self._clock = report_s, clock
        self._shipments: dict[int, Shipment] = {}
        self._results = Undelivered() if results is None else results
        self._packer: Packer | None = None
        #: Held during every call: the connection and the packer serve one thread at a time.
        self._calling = threading.Lock()
        self._news = threading.Condition()
        self._changed: float | None = None
        self._reported = clock()
        self._closing = False
        #: The lease is closed for reports; batches may still be taken.
        self.closed = False
        self._gone = False
        self._again = False
        #: Lines do not ride in reports any more.
        self._apart = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to tell by itself; a stage that ends sooner needs no thread for that."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
            self._thread.start()

    @property
    def is_started(self) -> bool:
        """Whether it tells by itself."""
        return self._thread is not None

    def add(self, number: int, spool: Spool) -> None:
        """Ship this step's log from now on."""
        with self._news:
            self._shipments[number] = Shipment(spool)

    def add_results(self, number: int, body: bytes) -> None:
        """Deliver a step's packed test reports, at the latest before the last report."""
        self._results.add(number, body)
        with self._news:
            self._news.notify()

    def changed(self) -> None:
        """A status changed: tell the server soon."""
        with self._news:
            self._changed = self._changed or self._clock()
            self._news.notify()

    def wake(self) -> None:
        """Lines may be waiting."""
        if self._thread is not None:
            with self._news:
                self._news.notify()

    def begin(self, meanwhile: Callable[[], None]) -> None:
        """Report now and return once it is acknowledged. Raises: Stopped.

        `meanwhile` is called once the report is on its way; it calls nothing of the courier.
        """
        self._report(meanwhile)

    def finish(self) -> None:
        """Deliver the rest of the logs and the last report, which `snapshot` now gives.

        Returns when the server has everything it still takes. Raises: Stopped.
        """
        self.stop()
        if self._thread is not None:
            self._thread.join()
        if self._waiting_bytes() > _RIDING_BYTES:
            self.ship_all()
        self._ship_results()
        self._report()
        while not all(one.is_complete for _, one in self._list()):
            if not self.ship_all():
                return

    def ship_all(self) -> bool:
        """Send all lines there are; False if nothing could be sent. Raises: Stopped."""
        sent = False
        for number, shipment in self._list():
            while not self._gone and not shipment.is_complete and self._ship(number, shipment):
                sent = True
        return sent

    def stop(self) -> None:
        """Tell nothing more by itself."""
        with self._news:
            self._closing = True
            self._news.notify()

    # --- the thread ---

    def _run(self) -> None:
        while not self._closing:
            try:
                self._turn()
            except Stopped:
                log.info("courier.stopped", lease=self._path)
                return
            except Exception:
                log.exception("courier.broke", lease=self._path)
                with self._news:
                    self._news.wait(_AFTER_FAULT_S)

    def _turn(self) -> None:
        now = self._clock()
        shipments = self._list()
        for _, shipment in shipments:
            shipment.spool.flush_open(shipment.silence_s)
        if now >= self._report_due():
            self._report()
        for number, shipment in shipments:
            due = shipment.due()
            if due is not None and due <= now and not self._gone:
                self._ship(number, shipment)
        self._ship_results()
        with self._news:
            wait = self._next_turn() - self._clock()
            if wait > 0 and not self._closing:
                self._news.wait(wait)

    def _list(self) -> list[tuple[int, Shipment]]:
        with self._news:
            return list(self._shipments.items())

    def _report_due(self) -> float:
        if self.closed:
            return float("inf")
        due = self._reported + self._report_s
        if self._changed is None:
            return due
        return min(due, max(self._changed + _CHANGE_S, self._reported + _BETWEEN_REPORTS_S))

    def _next_turn(self) -> float:
        now = self._clock()
        waits = self._results and not self._gone
        times = [now if waits else self._report_due(), now + self._report_s]
        for shipment in self._shipments.values():
            due = None if self._gone else shipment.due()
            silent = shipment.spool.silent_since
            times += [] if due is None else [due]
            times += [] if silent is None else [silent + shipment.silence_s]
        return min(times)

    # --- calls ---

    def _report(self, meanwhile: Callable[[], None] | None = None) -> None:
        self._again = True
        while self._again:
            self._again = False
            self._report_once(meanwhile)
            meanwhile = None

    def _report_once(self, meanwhile: Callable[[], None] | None) -> None:
        with self._calling:
            if self.closed:
                return
            parts = self._riding()
            with self._news:
                self._changed = None
            message = self._snapshot(tuple(part for part, _ in parts))
            self._reported = self._clock()
            try:
                pace = self._link.put(self._path, message, Pace, meanwhile=meanwhile)
            except LinkError as fault:
                self._refused(fault, parts)
                return
            if pace is not None:
                self._take_pace(pace, parts)

    def _take_pace(self, pace: Pace, parts: list[tuple[LogPart, Batch]]) -> None:
        now = self._clock()
        for part, batch in parts:
            position = pace.next.get(str(part.step), batch.end)
            self._shipments[part.step].advance(position, now)
        for _, shipment in self._list():
            shipment.pace_s = pace.pace_ms / 1000
        if pace.cancel:
            self._on_cancel("cancelled")
        if pace.release:
            self._on_release(pace.release)

    def _refused(self, fault: LinkError, parts: list[tuple[LogPart, Batch]]) -> None:
        """The lease is closed (410), or nothing of it is known or ours any more.

        If it was for the lines in it, the report is told without them, and each batch by itself:
        only what cannot be taken is lost.
        """
        log.warning("lease.refused", lease=self._path, status=fault.status, reason=str(fault))
        if fault.status in _BAD_BATCH and parts:
            self._apart = self._again = True
            return
        self.closed = True
        self._gone = self._gone or fault.status != 410
        self._on_cancel(f"the server closed the lease: {fault}")

    def _ship(self, number: int, shipment: Shipment) -> bool:
        """Send one batch; False if there was none to send."""
        with self._calling:
            batch = self._pack(shipment, shipment.sent)
            if batch is None:
                return False
            path = f"{self._path}/steps/{number}/log?from={batch.start}"
            try:
                answer = self._link.post_bytes(path, batch.data, Appended)
            except LinkError as fault:
                self._batch_refused(fault, shipment, batch)
                return True
            now = self._clock()
            if answer is not None:
                shipment.advance(answer.next, now)
                shipment.pace_s = answer.pace_ms / 1000
                if answer.cancel:
                    self._on_cancel("cancelled")
            return True

    def _ship_results(self) -> None:
        """Send the test reports that wait."""
        while not self._gone and (first := self._results.first()) is not None:
            number, body = first
            with self._calling:
                try:
                    self._link.post_bytes(f"{self._path}/steps/{number}/reports", body, Taken)
                except LinkError as fault:
                    log.error("results.refused", lease=self._path, reason=str(fault))
            self._results.done(number)

    def _batch_refused(self, fault: LinkError, shipment: Shipment, batch: Batch) -> None:
        log.error("batch.refused", lease=self._path, status=fault.status, reason=str(fault))
        if fault.status in _BAD_BATCH:
            shipment.advance(batch.end, self._clock())
        else:
            self._gone = True

    def _pack(self, shipment: Shipment, position: int) -> Batch | None:
        if not shipment.spool.waiting(position):
            return None
        if self._packer is None:
            self._packer = Packer()
        return self._packer.pack(shipment.spool, position)

    def _waiting_bytes(self) -> int:
        return sum(one.spool.bytes_from(one.sent) for _, one in self._list())

    def _riding(self) -> list[tuple[LogPart, Batch]]:
        """Everything that waits, if it is little enough to ride in a report, else nothing."""
        parts: list[tuple[LogPart, Batch]] = []
        if self._apart or self._waiting_bytes() > _RIDING_BYTES:
            return parts
        for number, shipment in self._list():
            position = shipment.sent
            while batch := self._pack(shipment, position):
                data = base64.b64encode(batch.data).decode()
                parts.append((LogPart(number, batch.start, data), batch))
                position = batch.end
        return parts if len(parts) <= _RIDING_PARTS else []
