"""The whole agent as a process: Celery, a real Redis, and the server double."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from kombu import Connection, Exchange, Queue

from pipeline import states
from pipeline.routing import TICKET_TASK, TICKET_TRANSPORT
from tests.agents.conftest import stage, step
from tests.agents.double import JOIN_TOKEN, Double
from tests.services import Redis, free_port, redis, running, short_folder, wait_for

pytestmark = pytest.mark.service
QUEUE = "ci.q.exec.linux.amd64"


@pytest.fixture
def broker() -> Iterator[Redis]:
    with redis() as server:
        yield server


@pytest.fixture
def server(broker: Redis) -> Iterator[Double]:
    with Double(broker_url=broker.url, queues=(QUEUE,)) as double:
        yield double


@contextlib.contextmanager
def worker(
    server: Double,
    folder: Path,
    *flags: str,
    joined: bool = True,
    environ: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A running `celery -A agents worker`, by default one that has joined."""
    argv = [sys.executable, "-m", "celery", "-A", "agents", "worker", *flags]
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "CISERVER_AGENT_SERVER": server.url,
        "CISERVER_AGENT_TOKEN": JOIN_TOKEN,
        "CISERVER_AGENT_NAME": "agent-of-tests",
        "CISERVER_AGENT_STATE_DIR": str(folder / "state"),
        "CISERVER_AGENT_ISOLATION": "shell",
        "CISERVER_AGENT_EXEC_UNTRUSTED": "true",
        "CISERVER_AGENT_BACKOFF": "1s",
        **(environ or {}),
    }
    joins = server.calls.count("join")
    with running(argv, folder / "agent.log", variables) as process:
        try:
            if joined:
                server.wait(
                    lambda: server.calls.count("join") > joins or process.poll() is not None
                )
            yield process
        finally:
            print((folder / "agent.log").read_text())


def ring(broker: Redis) -> None:
    """Put a ticket on the queue, as the server's dispatcher does."""
    queue = Queue(QUEUE, exchange=Exchange(""), routing_key=QUEUE)
    with Connection(broker.url, transport_options=dict(TICKET_TRANSPORT)) as connection:
        producer = connection.Producer()
        headers = {"id": os.urandom(8).hex(), "task": TICKET_TASK, "lang": "py"}
        producer.publish(
            [[], {}, {}], headers=headers, exchange="", routing_key=QUEUE, serializer="json",
            declare=[queue],
        )  # fmt: skip


def test_it_runs_a_stage_for_a_ticket_and_drains_on_sigterm(
    server: Double, broker: Redis, tmp_path: Path
) -> None:
    with worker(server, tmp_path) as process:
        server.wait(lambda: "claim" in server.calls)
        server.add(stage(step("hello", "echo hello")))
        ring(broker)
        (lease,) = server.wait_done()
        assert lease.last.status == states.SUCCESS
        assert lease.text(1) == "+ echo hello\nhello\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert server.left == ["INTERRUPTED"]


def test_a_second_sigterm_cancels_what_runs(server: Double, broker: Redis, tmp_path: Path) -> None:
    server.add(stage(step("long", "echo started", "sleep 600")))
    with worker(server, tmp_path) as process:
        lease = server.wait(lambda: server.leases and server.only_lease())
        server.wait(lambda: lease.logs[1].lines)
        process.send_signal(signal.SIGTERM)
        wait_for("drain", lambda: "finishing what runs" in (tmp_path / "agent.log").read_text())
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert lease.last.status == states.KILLED
    assert lease.last.done


def test_it_takes_tickets_again_after_redis_was_away(server: Double, tmp_path: Path) -> None:
    with short_folder() as folder, contextlib.ExitStack() as first:
        broker = Redis(free_port(), folder)
        server.broker_url = broker.url
        first.enter_context(broker.run())
        with worker(server, tmp_path):
            server.wait(lambda: "claim" in server.calls)
            first.close()
            log = tmp_path / "agent.log"
            again = re.compile(r"Attempting to reconnect in \d+m?s.*Redis")
            wait_for("another try", lambda: bool(again.search(log.read_text())))
            with broker.run():
                server.add(stage(step("hello", "echo hello")))
                ring(broker)
                (lease,) = server.wait_done()
        assert lease.last.status == states.SUCCESS
        assert "DeprecationWarning" not in log.read_text()


def test_it_ends_while_redis_is_away(server: Double, tmp_path: Path) -> None:
    server.broker_url = f"redis://127.0.0.1:{free_port()}/0"
    with worker(server, tmp_path) as process:
        log = tmp_path / "agent.log"
        wait_for("the failure", lambda: "Attempting to reconnect in " in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert server.left == ["INTERRUPTED"]


def test_a_refused_join_is_one_sentence_and_exit_code_1(server: Double, tmp_path: Path) -> None:
    server.refuse_join = (403, "this join token has expired")
    with worker(server, tmp_path) as process:
        assert process.wait(60) == 1
    text = (tmp_path / "agent.log").read_text()
    assert "refused this agent: this join token has expired" in text
    assert "Traceback" not in text


def test_it_ends_while_it_waits_for_its_server(server: Double, tmp_path: Path) -> None:
    server.away()
    with worker(server, tmp_path, joined=False) as process:
        log = tmp_path / "agent.log"
        wait_for("a try", lambda: log.exists() and "Attempting to reconnect" in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not server.joins


def test_a_wrong_option_is_one_line_and_exit_code_2(server: Double, tmp_path: Path) -> None:
    with worker(server, tmp_path, "--memory", "lots") as process:
        assert process.wait(60) == 2
    text = (tmp_path / "agent.log").read_text()
    assert text.splitlines()[-1].startswith("agent: memory (flag): expected a size")
    assert not server.joins
