"""A server of /agent/v1 that does as it is told: real HTTP on loopback, state one can look at.

Faults are put in line per kind of call (`join claim report batch results artifact presence
leave`): `lose_answer` does what was asked and hangs up, `drop` hangs up without doing it, `refuse`
answers 503.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import zstandard

from pipeline import states
from pipeline.spec import StageSpec, from_json, to_json
from pipeline.wire import (
    MAX_BATCH_BYTES,
    MAX_PART_BYTES,
    PREFIX,
    PROTOCOL,
    Appended,
    ArtifactFile,
    Artifacts,
    Claim,
    Claimed,
    Join,
    Joined,
    Kept,
    Orders,
    Pace,
    Presence,
    Report,
    Taken,
)

JOIN_TOKEN = "join-token-of-tests"
DEADLINE_S = 60.0


@dataclass
class Log:
    """One step's lines as the server has them."""

    next: int = 0
    lines: list[bytes] = field(default_factory=list)
    skipped: int = 0
    open: set[int] = field(default_factory=set)
    batches: int = 0
    times: list[list[int]] = field(default_factory=list)
    end: int | None = None


@dataclass
class Lease:
    """A stage attempt the double gave out."""

    id: str
    nonce: str
    spec: StageSpec
    reports: list[Report] = field(default_factory=list)
    closed: bool = False
    cancel: bool = False
    logs: dict[int, Log] = field(default_factory=lambda: defaultdict(Log))
    results: dict[int, bytes] = field(default_factory=dict)

    @property
    def last(self) -> Report:
        return self.reports[-1]

    @property
    def done(self) -> bool:
        return any(report.done for report in self.reports)

    def text(self, step: int) -> str:
        return b"".join(line + b"\n" for line in self.logs[step].lines).decode()


class Double:
    """The server. Use as a context manager; `url` is where it is."""

    def __init__(self, *, broker_url: str = "redis://127.0.0.1:1", queues: tuple[str, ...] = ()):
        self.broker_url, self.queues = broker_url, queues
        self.pending: deque[StageSpec] = deque()
        self.leases: dict[str, Lease] = {}
        self.joins: list[Join] = []
        self.claims: list[Claim] = []
        self.presences: list[Presence] = []
        self.left: list[str] = []
        self.calls: list[str] = []
        self.orders = Orders()
        self.report_s = 15.0
        self.pace_ms = 1000
        self.release: tuple[int, ...] = ()
        self.token = "agent-token"
        self.protocol = PROTOCOL
        #: Fields that a newer server may add to its answers.
        self.more: dict[str, Any] = {}
        self.refuse_join: tuple[int, str] | None = None
        self.refusal_code = "join:refused"
        self.refuse_results = False
        #: Complete artifacts of the build all leases belong to, and their modes.
        self.artifacts: dict[str, tuple[bytes, int]] = {}
        self.uploads: dict[str, bytes] = defaultdict(bytes)
        self._faults: dict[str, deque[str]] = defaultdict(deque)
        self._away = threading.Event()
        self.changed = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.double = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Double:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._away.set()
        with self.changed:
            self.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    # --- what tests do ---

    def add(self, spec: StageSpec) -> None:
        with self.changed:
            self.pending.append(spec)

    def fault(self, kind: str, what: str, times: int = 1) -> None:
        self._faults[kind].extend([what] * times)

    def away(self, is_away: bool = True) -> None:
        """Hang up on everybody from now on."""
        if is_away:
            self._away.set()
        else:
            self._away.clear()

    def order(self, orders: Orders) -> None:
        with self.changed:
            self.orders = orders
            self.changed.notify_all()

    def wait(self, what: Callable[[], Any]) -> Any:
        """Wait until `what()` is true, and return it."""
        deadline = time.monotonic() + DEADLINE_S
        with self.changed:
            while not (found := what()):
                left = deadline - time.monotonic()
                assert left > 0, f"waited {DEADLINE_S} s in vain; calls: {self.calls[-20:]}"
                self.changed.wait(min(left, 0.2))
        return found

    def only_lease(self) -> Lease:
        assert len(self.leases) == 1, list(self.leases)
        return next(iter(self.leases.values()))

    def wait_done(self, count: int = 1) -> list[Lease]:
        return self.wait(  # type: ignore[no-any-return]
            lambda: (
                (done := [lease for lease in self.leases.values() if lease.done])
                and len(done) >= count
                and done
            )
        )

    # --- what calls do ---

    def next_fault(self, kind: str) -> str:
        return self._faults[kind].popleft() if self._faults[kind] else ""

    def is_away(self) -> bool:
        return self._away.is_set()

    def join(self, data: Any) -> Any:
        self.joins.append(from_json(Join, data))
        return Joined(7, self.token, self.broker_url, self.queues, self.protocol)

    def claim(self, data: Any) -> Any:
        claim = from_json(Claim, data)
        self.claims.append(claim)
        for lease in self.leases.values():
            if lease.nonce == claim.nonce:
                return None if lease.closed else Claimed(lease.id, lease.spec, self.report_s)
        if not self.pending:
            return None
        lease = Lease(uuid.uuid4().hex, claim.nonce, self.pending.popleft())
        self.leases[lease.id] = lease
        return Claimed(lease.id, lease.spec, self.report_s)

    def report(self, id_: str, data: Any) -> Any:
        lease = self._lease(id_)
        report = from_json(Report, data)
        if any(other.begun for other in lease.reports):
            assert report.begun, "a report took back that the stage had begun"
        for step in report.steps:
            if step.number > 1 or not lease.spec.steps or lease.spec.steps[0].kind != "clone":
                allowed = report.begun or step.status in (states.PENDING, *states.DONE)
                assert allowed, "a step runs before the stage has begun"
        positions = {
            str(part.step): self._append(
                lease, part.step, part.from_, base64.b64decode(part.data, validate=True)
            )
            for part in report.logs
        }
        for step in report.steps:
            if step.log_end >= 0:
                lease.logs[step.number].end = step.log_end
        if lease.closed:
            raise Answer(410, "lease:closed", "the lease is closed")
        lease.reports.append(report)
        lease.closed = report.done
        return Pace(lease.cancel, self.pace_ms, positions, self.release)

    def batch(self, id_: str, step: int, start: int, data: bytes) -> Any:
        lease = self._lease(id_)
        position = self._append(lease, step, start, data)
        return Appended(position, lease.cancel, self.pace_ms)

    def take_results(self, id_: str, step: int, data: bytes) -> Any:
        lease = self._lease(id_)
        if self.refuse_results:
            raise Answer(400, "reports:malformed", "that is no report")
        lease.results[step] = data
        return Taken(1)

    def keep(self, path: str, query: dict[str, list[str]], data: bytes) -> Any:
        assert len(data) <= MAX_PART_BYTES
        upload, offset = query["upload"][0], int(query["offset"][0])
        if len(self.uploads[upload]) == offset:
            self.uploads[upload] += data
        whole = self.uploads[upload]
        if "size" in query:
            assert len(whole) == int(query["size"][0])
            assert hashlib.sha256(whole).hexdigest() == query["sha256"][0]
            self.artifacts[path] = (whole, int(query["mode"][0]))
        return Kept(len(whole))

    def list_artifacts(self, name: str) -> Any:
        found = [
            ArtifactFile(path, len(data), hashlib.sha256(data).hexdigest(), mode)
            for path, (data, mode) in sorted(self.artifacts.items())
            if not name or path == name or path.startswith(f"{name}/")
        ]
        return Artifacts(tuple(found))

    def part(self, path: str, offset: int) -> bytes:
        return self.artifacts[path][0][offset : offset + MAX_PART_BYTES]

    def _append(self, lease: Lease, step: int, start: int, data: bytes) -> int:
        log = lease.logs[step]
        if log.next != start:
            return log.next
        frame = zstandard.ZstdDecompressor().decompress(data, max_output_size=MAX_BATCH_BYTES)
        assert len(frame) <= MAX_BATCH_BYTES
        head, _, body = frame.partition(b"\n")
        header = json.loads(head)
        assert body.endswith(b"\n"), "a batch ends with a whole line"
        lines = body[:-1].split(b"\n")
        assert header["t"][0][0] == 0
        assert header["t"] == sorted(header["t"])
        log.times += header["t"]
        log.skipped += header.get("skip", 0)
        log.lines += lines
        log.next += header.get("skip", 0) + len(lines)
        if header.get("open"):
            log.open.add(log.next - 1)
        log.batches += 1
        return log.next

    def _lease(self, id_: str) -> Lease:
        if id_ not in self.leases:
            raise Answer(404, "lease:unknown", "there is no such lease")
        return self.leases[id_]

    def presence(self, data: Any) -> Any:
        sign = from_json(Presence, data)
        self.presences.append(sign)
        before = self.orders
        deadline = time.monotonic() + min(sign.hold_s, 5.0)
        news = before.action != "continue" or sign.state == "draining"
        while self.orders is before and not news and not self.is_away():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self.changed.wait(left)
        return self.orders


class Answer(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    double: Double

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that tests break are no news."""
        import sys

        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _plain(answer: Any) -> Any:
    return answer if isinstance(answer, bytes) else to_json(answer)


_LOG = re.compile(r"leases/(\w+)/steps/(\d+)/log")
_ARTIFACTS = re.compile(r"leases/(\w+)/artifacts(?:/(.+))?")
_RESULTS = re.compile(r"leases/(\w+)/steps/(\d+)/reports")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self) -> None:
        self._serve()

    do_GET = do_PUT = do_DELETE = do_POST

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        double = self.server.double  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urlsplit(self.path)
        path = parts.path.removeprefix(PREFIX)
        kind, act = self._route(double, path, parse_qs(parts.query), body)
        fault = "drop" if double.is_away() else double.next_fault(kind)
        if fault == "drop":
            self._hang_up()
            return
        if fault == "refuse":
            self._answer(503, {"code": "busy", "message": "try again"})
            return
        self._do(double, kind, act, hang_up=fault == "lose_answer")

    def _do(self, double: Double, kind: str, act: Callable[[], Any], *, hang_up: bool) -> None:
        wanted = JOIN_TOKEN if kind == "join" else double.token
        with double.changed:
            double.calls.append(kind)
            try:
                if self.headers.get("Authorization") != f"Bearer {wanted}":
                    raise Answer(401, "token:unknown", "unknown token")
                if kind == "join" and double.refuse_join:
                    status, text = double.refuse_join
                    raise Answer(status, double.refusal_code, text)
                answer = act()
                status, data = (204, None) if answer is None else (200, _plain(answer))
                if isinstance(data, dict):
                    data |= double.more
            except Answer as refusal:
                status, data = refusal.status, {"code": refusal.code, "message": str(refusal)}
            double.changed.notify_all()
        if hang_up or (double.is_away() and kind != "leave"):
            self._hang_up()
        else:
            self._answer(status, data)

    def _route(self, double: Double, path: str, query: Any, body: bytes) -> Any:
        log = _LOG.fullmatch(path)
        if log:
            start = int(query["from"][0])
            return "batch", lambda: double.batch(log[1], int(log[2]), start, body)
        sent = _RESULTS.fullmatch(path)
        if sent:
            return "results", lambda: double.take_results(sent[1], int(sent[2]), body)
        kept = _ARTIFACTS.fullmatch(path)
        if kept:
            return "artifact", lambda: self._artifact(double, unquote(kept[2] or ""), query, body)
        data = json.loads(body) if body else {}
        if path == "agents":
            return "join", lambda: double.join(data)
        if path == "claims":
            return "claim", lambda: double.claim(data)
        if path.startswith("leases/"):
            return "report", lambda: double.report(path.partition("/")[2], data)
        if self.command == "DELETE":
            return "leave", lambda: double.left.append(query["reason"][0])
        return "presence", lambda: double.presence(data)

    def _artifact(self, double: Double, path: str, query: Any, body: bytes) -> Any:
        if self.command == "PUT":
            return double.keep(path, query, body)
        if path:
            return double.part(path, int(query["offset"][0]))
        return double.list_artifacts(query.get("name", [""])[0])

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def _answer(self, status: int, data: Any) -> None:
        text = data if isinstance(data, bytes) else b""
        if data is not None and not isinstance(data, bytes):
            text = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
