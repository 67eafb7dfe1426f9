"""From a line being printed to the same line in a websocket client.

Floor: the same lines through a pipe (`sh | reader`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from websockets.sync.client import connect

from bench.instance import instance
from bench.measure import note, show, spread_ms

LINES = 200
PAUSE_S = 0.03
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


def main() -> None:
    """Measure the figure and its floor."""
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
        floor = through_pipe(str(file))
    show("live", lines=LINES, **spread_ms(taken), floor=spread_ms(floor))


if __name__ == "__main__":
    main()
