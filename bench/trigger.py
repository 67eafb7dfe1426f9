"""From a trigger by API to the first line of an exec step, committed at the server; idle machine.

Floor: an HTTP no-op, a Celery no-op and `sh -c`, one after the other, in the same run.
"""

from __future__ import annotations

import sqlite3
import statistics
import subprocess
import time

import httpx

from bench import noop
from bench.instance import Instance, instance
from bench.measure import note, show, spread_ms

TIMES = 60
PIPELINE = """
kind: pipeline
type: exec
name: default
clone: {disable: true}
steps:
- name: hello
  commands: [echo hello]
"""


def trigger(server: Instance, slug: str, logs: sqlite3.Connection) -> float:
    """Seconds from the request until a new log batch is committed."""
    before = logs.execute("SELECT coalesce(max(id), 0) FROM builds_logbatch").fetchone()[0]
    begin = time.perf_counter()
    number = server.build(slug)
    while True:
        now = logs.execute("SELECT coalesce(max(id), 0) FROM builds_logbatch").fetchone()[0]
        if now > before:
            break
        time.sleep(0.0005)
    taken = time.perf_counter() - begin
    server.ended(slug, number)
    return taken


def shell() -> float:
    """Seconds of `sh -c`."""
    begin = time.perf_counter()
    subprocess.run(["/bin/sh", "-c", "echo hello"], check=True, stdout=subprocess.PIPE)
    return time.perf_counter() - begin


def http(client: httpx.Client) -> float:
    """Seconds of an HTTP no-op on the same server."""
    begin = time.perf_counter()
    client.get("/healthz").raise_for_status()
    return time.perf_counter() - begin


def main() -> None:
    """Measure the figure and its floor in turn."""
    with instance() as server, noop.worker() as bare:
        slug = server.repo(PIPELINE)
        client = httpx.Client(base_url=server.client.access.url, trust_env=False)
        with server.database("logs") as logs:
            for _ in range(5):
                trigger(server, slug, logs)
                noop.call(bare)
            note(f"triggering {TIMES} times")
            taken, floor = [], []
            for _ in range(TIMES):
                taken.append(trigger(server, slug, logs))
                floor.append(http(client) + noop.call(bare) + shell())
                time.sleep(0.05)
    ratio = statistics.median(taken) / statistics.median(floor)
    show("trigger", times=TIMES, **spread_ms(taken), floor=spread_ms(floor), ratio=round(ratio, 2))


if __name__ == "__main__":
    main()
