"""A bare Celery worker on a Redis of its own, and the time that a no-op task takes there.

Run as `celery -A bench.noop worker`; BENCH_NOOP_SOCKET is the socket of its Redis.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import redis
from celery import Celery

from ciserver.embedded.redis import find

SOCKET = "BENCH_NOOP_SOCKET"
app = Celery("noop")
app.conf.task_ignore_result = True
if SOCKET in os.environ:
    app.conf.broker_url = f"redis+socket://{os.environ[SOCKET]}"
DEADLINE_S = 30


@app.task(name="noop")
def noop(key: str) -> None:
    """Say that it ran."""
    redis.Redis(unix_socket_path=os.environ[SOCKET]).rpush(key, "done")


@contextlib.contextmanager
def worker() -> Iterator[redis.Redis]:
    """Run Redis and the worker; yields a connection to that Redis."""
    with (
        tempfile.TemporaryDirectory(prefix="cn-", dir="/tmp") as name,
        contextlib.ExitStack() as up,
    ):
        path = Path(name) / "redis.sock"
        argv = [find().path, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", name]
        up.enter_context(_process(argv, {}))
        while not path.exists():
            time.sleep(0.01)
        app.conf.broker_url = f"redis+socket://{path}"
        connection = redis.Redis(unix_socket_path=str(path))
        flags = ["--pool=threads", "--concurrency=2", "--loglevel=ERROR"]
        flags += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        argv = [sys.executable, "-m", "celery", "-A", "bench.noop", "worker", *flags]
        up.enter_context(_process(argv, {SOCKET: str(path)}))
        yield connection


@contextlib.contextmanager
def _process(argv: list[str], environ: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        argv,
        env={**os.environ, **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def call(connection: redis.Redis) -> float:
    """Seconds from sending a no-op task until it says that it ran."""
    key = f"noop-{time.perf_counter_ns()}"
    begin = time.perf_counter()
    app.send_task("noop", args=[key])
    connection.blpop([key], timeout=DEADLINE_S)
    return time.perf_counter() - begin
