"""500 trivial exec builds queued at once, run by one agent with four slots: builds per second.

Floor: a bare shell loop that runs `sh -c` as often.
"""

from __future__ import annotations

import subprocess
import time

from bench.instance import Instance, instance
from bench.measure import note, show
from bench.trigger import PIPELINE

BUILDS = 500
LIMIT_S = 300


def run(server: Instance, slug: str) -> float:
    """Seconds that the agent needs for all builds, from the first start to the last end."""
    server.ended(slug, server.build(slug))
    server.client.call("DELETE", "/api/queue")
    numbers = [server.build(slug) for _ in range(BUILDS)]
    server.client.call("POST", "/api/queue")
    with server.database("ciserver") as database:
        wait_for_all(database, numbers[0])
        query = (
            "SELECT (julianday(max(finished)) - julianday(min(started))) * 86400,"
            " sum(status = 'success') FROM builds_build WHERE number >= ?"
        )
        seconds, successes = database.execute(query, [numbers[0]]).fetchone()
    assert successes == BUILDS, successes
    return float(seconds)


def wait_for_all(database: object, first: int) -> None:
    """Wait until no build from number `first` on is open."""
    end = time.monotonic() + LIMIT_S
    query = "SELECT count(*) FROM builds_build WHERE number >= ? AND finished IS NULL"
    while database.execute(query, [first]).fetchone()[0]:  # type: ignore[attr-defined]
        assert time.monotonic() < end, "the builds did not end"
        time.sleep(0.1)


def floor() -> float:
    """Seconds of a shell loop that starts as many shells."""
    begin = time.perf_counter()
    loop = f"i=0; while [ $i -lt {BUILDS} ]; do sh -c 'echo hello' >/dev/null; i=$((i+1)); done"
    subprocess.run(["/bin/sh", "-c", loop], check=True)
    return time.perf_counter() - begin


def main() -> None:
    """Measure the figure and its floor."""
    note(f"queueing and running {BUILDS} builds")
    with instance(agent_concurrency="4") as server:
        seconds = run(server, server.repo(PIPELINE))
    bare = floor()
    show(
        "throughput",
        builds=BUILDS,
        builds_per_s=round(BUILDS / seconds, 1),
        floor_per_s=round(BUILDS / bare, 1),
        ratio=round(seconds / bare, 2),
    )


if __name__ == "__main__":
    main()
