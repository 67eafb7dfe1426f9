"""How the whole agent comes and goes as a process: reasons, signals, exit codes, companions."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline import states
from tests.agents.conftest import stage, step
from tests.agents.double import Double
from tests.agents.test_worker import broker, ring, server, worker
from tests.services import Redis, free_port, wait_for

__all__ = ["broker", "server"]
pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

HOOK = """\
echo "$CISERVER_AGENT_SHUTDOWN_REASON $SEMAPHORE_AGENT_SHUTDOWN_REASON" > {reason}
"""


@pytest.fixture
def reason(tmp_path: Path) -> Path:
    """Where the shutdown hook `hook.sh` writes the reason."""
    (tmp_path / "hook.sh").write_text(HOOK.format(reason=tmp_path / "reason"))
    return tmp_path / "reason"


class Metadata(BaseHTTPRequestHandler):
    """The part of EC2's instance metadata that tells of an interruption."""

    notice: threading.Event

    def do_PUT(self) -> None:
        self._answer(200, b"token")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != "token":
            self._answer(401, b"")
        elif self.notice.is_set():
            notice = {"action": "terminate", "time": "2026-01-01T00:00:00Z"}
            self._answer(200, json.dumps(notice).encode())
        else:
            self._answer(404, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[tuple[str, threading.Event]]:
    notice = threading.Event()
    handler = type("Handler", (Metadata,), {"notice": notice})
    served = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=served.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{served.server_address[1]}", notice
    served.shutdown()
    served.server_close()


def get(port: int, path: str) -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as line:
        line.request("GET", path)
        answer = line.getresponse()
        return answer.status, answer.read()


def test_all_of_its_life_by_a_file_of_options(
    server: Double,
    broker: Redis,
    tmp_path: Path,
    reason: Path,
    metadata: tuple[str, threading.Event],
) -> None:
    """Two stages at once, a page, a log file, word to systemd; a spot notice lets them end."""
    endpoint, notice = metadata
    port, log = free_port(), tmp_path / "own.log"
    (tmp_path / "agent.yml").write_text(
        f"concurrency: 2\nhttp-bind: 127.0.0.1:{port}\nlog-file: {log}\ndebug: true\n"
        f"spot-notices: true\nspot-endpoint: {endpoint}\nlabels: {{zone: a}}\n"
        f"shutdown-hook-path: {tmp_path}/hook.sh\nnotify-socket: {tmp_path}/notify\n"
    )
    gate = tmp_path / "gate"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        with worker(server, tmp_path, "--config-file", str(tmp_path / "agent.yml")) as process:
            assert systemd.recv(1000).startswith(b"READY=1\nSTATUS=joined as agent-of-tests")
            assert server.joins[0].labels == {"zone": "a"}
            assert server.joins[0].capacity == 2
            for name in ("one", "two"):
                server.add(
                    stage(step(name, "echo in", f"until test -e {gate}; do sleep 0.1; done"))
                )
                ring(broker)
            server.wait(lambda: sum(bool(one.logs[1].lines) for one in server.leases.values()) == 2)
            assert get(port, "/healthz") == (200, b"OK\n")
            notice.set()
            wait_for("the drain", lambda: "reason=INTERRUPTED" in log.read_text())
            assert process.poll() is None
            gate.touch()
            assert process.wait(60) == 0
            assert systemd.recv(1000) == b"STOPPING=1"
    assert [one.last.status for one in server.leases.values()] == [states.SUCCESS] * 2
    assert reason.read_text() == "INTERRUPTED INTERRUPTED\n"
    assert server.left == ["INTERRUPTED"]
    assert "level=warning event=spot.notice" in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_after_its_grace_it_cancels_what_runs(
    server: Double, tmp_path: Path, reason: Path, number: signal.Signals
) -> None:
    server.add(stage(step("long", "echo started", "sleep 600")))
    flags = ["--interruption-grace-period", "1s", "--shutdown-hook-path", f"{tmp_path}/hook.sh"]
    with worker(server, tmp_path, *flags) as process:
        lease = server.wait(lambda: server.leases and server.only_lease())
        server.wait(lambda: lease.logs[1].lines)
        process.send_signal(number)
        assert process.wait(60) == 0
    assert lease.last.status == states.KILLED
    assert reason.read_text() == "INTERRUPTED INTERRUPTED\n"


def test_a_one_shot_agent_ends_after_its_stage(
    server: Double, tmp_path: Path, reason: Path
) -> None:
    server.add(stage(step("hello", "echo hello")))
    flags = ["--disconnect-after-job", "--shutdown-hook-path", f"{tmp_path}/hook.sh"]
    with worker(server, tmp_path, *flags, joined=False) as process:
        assert process.wait(60) == 0
    assert server.only_lease().last.status == states.SUCCESS
    assert reason.read_text() == "JOB_FINISHED JOB_FINISHED\n"


def test_an_idle_agent_ends(server: Double, tmp_path: Path, reason: Path) -> None:
    flags = ["--disconnect-after-idle-timeout", "1", "--shutdown-hook-path", f"{tmp_path}/hook.sh"]
    with worker(server, tmp_path, *flags, joined=False) as process:
        assert process.wait(60) == 0
    assert reason.read_text() == "IDLE IDLE\n"


def test_it_starts_without_a_word_too_many(server: Double, tmp_path: Path) -> None:
    """`ci up` starts it with the server's environment, which would make Celery load Django."""
    more = {"DJANGO_SETTINGS_MODULE": "no.such.settings"}
    with worker(server, tmp_path, environ=more) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    lines = (tmp_path / "agent.log").read_text().splitlines()
    assert all(line.startswith("timestamp=") for line in lines), lines
