"""What waiting costs: memory (PSS) and processor time of everything `ci up` runs, and of its agent.

First with nothing to do, then with an agent of fifty slots in each of which a step sleeps.
Floor: a bare Celery prefork-4 worker and its Redis (124 MB, measured once; see the docs).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.instance import Instance, instance
from bench.measure import note, show
from ciserver.embedded.process import descendants

SETTLE_S = 15
WATCH_S = 30
SLEEPERS = 50
SLEEPING_S = 120.0
SLEEP = """
kind: pipeline
type: exec
name: default
clone: {disable: true}
steps:
- {name: sleep, commands: [sleep 600]}
"""
TICKS = os.sysconf("SC_CLK_TCK")


def pss_mb(pid: int) -> float:
    """The proportional set size of a process in megabytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pid: int) -> float:
    """Processor seconds a process has used."""
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / TICKS


def name(pid: int) -> str:
    """What a process is, in a few words."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return " ".join(word.rpartition("/")[2] for word in words[:4] if word)[:40]


def is_agent(pid: int) -> bool:
    """Whether a process is the agent."""
    return b"\0agents\0" in Path(f"/proc/{pid}/cmdline").read_bytes()


def main() -> None:
    """Measure all processes after they have settled."""
    _idle()
    _sleeping()


def _idle() -> None:
    with instance() as server:
        note(f"settling {SETTLE_S} s, then watching {WATCH_S} s")
        time.sleep(SETTLE_S)
        pids = [server.process.pid, *descendants(server.process.pid)]
        before = {pid: cpu_s(pid) for pid in pids}
        time.sleep(WATCH_S)
        used = {pid: cpu_s(pid) - before[pid] for pid in pids}
        memory = {pid: pss_mb(pid) for pid in pids}
        names = {pid: f"{name(pid)} {pid}" for pid in pids}
        (agent,) = filter(is_agent, pids)
    show(
        "idle",
        pss_mb=round(sum(memory.values()), 1),
        core_percent=round(sum(used.values()) / WATCH_S * 100, 2),
        agent_pss_mb=round(memory[agent], 1),
        agent_core_percent=round(used[agent] / WATCH_S * 100, 2),
        processes={names[pid]: round(memory[pid], 1) for pid in pids},
    )


def _sleeping() -> None:
    with instance(agent_concurrency=str(SLEEPERS)) as server:
        slug = server.repo(SLEEP)
        numbers = [server.build(slug) for _ in range(SLEEPERS)]
        _wait_for_steps(server)
        time.sleep(SETTLE_S)
        (agent,) = filter(is_agent, descendants(server.process.pid))
        alone, steps = pss_mb(agent), sum(map(pss_mb, descendants(agent)))
        for number in numbers:
            server.client.call("DELETE", f"/api/repos/{slug}/builds/{number}")
    show("sleeping", steps=SLEEPERS, agent_pss_mb=round(alone, 1), steps_pss_mb=round(steps, 1))


def _wait_for_steps(server: Instance) -> None:
    note(f"waiting until {SLEEPERS} steps sleep")
    query = "SELECT count(*) FROM builds_step WHERE status = 'running'"
    end = time.monotonic() + SLEEPING_S
    with server.database("ciserver") as database:
        while database.execute(query).fetchone()[0] < SLEEPERS:
            assert time.monotonic() < end, "the steps did not start"
            time.sleep(0.2)


if __name__ == "__main__":
    main()
