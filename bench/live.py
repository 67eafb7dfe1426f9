"""From a line being printed to the same line in a websocket client.

Floors: the same lines through a pipe (`sh | reader`), and a small file that is appended to and
flushed as often: a line is shown once it is on the disk, whose worst moments are in the p99.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from websockets.sync.client import connect

from bench.instance import instance
from bench.measure import note, show, spread_ms

LINES = 200
PAUSE_S = 0.03
PAGE_BYTES = 4096
PRINTER = f"""
import time
for i in range({LINES}):
    print(f"t {{time.time_ns()}}", flush=True)
    time.sleep({PAUSE_S})
"""
PIPELINE = """
kind: pipeline
type: exec
name: default
clone: {{disable: true}}
steps:
- name: print
  commands: [sleep 2, {python} {file}]
"""


def ages(lines: list[str]) -> list[float]:
    """How old each stamped line is now, in seconds."""
    now = time.time_ns()
    return [(now - int(line.split()[1])) / 1e9 for line in lines if line.startswith("t ")]


def through_pipe(file: str) -> list[float]:
    """The floor."""
    with subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        return [age for line in process.stdout for age in ages([line])]


def flushes(folder: Path) -> list[float]:
    """The other floor."""
    taken = []
    with (folder / "flushed").open("ab", buffering=0) as file:
        for _ in range(LINES):
            file.write(bytes(PAGE_BYTES))
            begin = time.perf_counter()
            os.fsync(file)
            taken.append(time.perf_counter() - begin)
            time.sleep(PAUSE_S)
    return taken


def main() -> None:
    """Measure the figure and its floors."""
    with instance() as server:
        server.folder.chmod(0o755)
        file = server.folder / "printer.py"
        file.write_text(PRINTER)
        slug = server.repo(PIPELINE.format(python=sys.executable, file=file))
        note(f"printing {LINES} lines")
        number = server.build(slug)
        while not (steps := server.client.build(slug, number)["stages"][0].get("steps")):
            time.sleep(0.02)
        address = server.client.access.socket(f"/ws/log/{steps[0]['id']}?from=0")
        taken: list[float] = []
        headers = server.client.access.headers
        with connect(address, additional_headers=headers, proxy=None) as socket:
            while len(taken) < LINES:
                taken += ages(json.loads(socket.recv(timeout=60))["lines"])
        server.ended(slug, number)
        floor, flushed = through_pipe(str(file)), flushes(server.data_dir)
    spreads = {"floor": spread_ms(floor), "flush": spread_ms(flushed)}
    show("live", lines=LINES, **spread_ms(taken), **spreads)


if __name__ == "__main__":
    main()
