"""What an idle server costs: memory (PSS) and processor time of everything `ci up` runs.

Floor: a bare Celery prefork-4 worker and its Redis (124 MB, measured once; see the docs).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.instance import instance
from bench.measure import note, show
from ciserver.embedded.process import descendants

SETTLE_S = 15
WATCH_S = 30
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


def main() -> None:
    """Measure all processes after they have settled."""
    with instance() as server:
        note(f"settling {SETTLE_S} s, then watching {WATCH_S} s")
        time.sleep(SETTLE_S)
        pids = [server.process.pid, *descendants(server.process.pid)]
        before = sum(cpu_s(pid) for pid in pids)
        time.sleep(WATCH_S)
        used = sum(cpu_s(pid) for pid in pids) - before
        memory = {f"{name(pid)} {pid}": round(pss_mb(pid), 1) for pid in pids}
    show(
        "idle",
        pss_mb=round(sum(memory.values()), 1),
        core_percent=round(used / WATCH_S * 100, 2),
        processes=memory,
    )


if __name__ == "__main__":
    main()
