"""A step that prints 1,000,000 lines of 80 bytes, masked for 10 secrets: lines per second, stored.

Floor: `cat` of the same lines into another file.
"""

from __future__ import annotations

import subprocess
import time

from bench.instance import instance
from bench.measure import note, show

LINES = 1_000_000
SECRETS = 10
PIPELINE = """
kind: pipeline
type: exec
name: default
clone: {{disable: true}}
steps:
- name: print
  environment:
{secrets}
  commands: [cat {file}]
"""


def main() -> None:
    """Measure the figure and its floor."""
    with instance() as server:
        file = server.folder / "lines"
        line = "{:08d} " + "x" * 70
        file.write_text("".join(line.format(i) + "\n" for i in range(LINES)))
        file.chmod(0o644)
        server.folder.chmod(0o755)
        secrets = "\n".join(f"    S{i}: {{from_secret: s{i}}}" for i in range(SECRETS))
        slug = server.repo(PIPELINE.format(file=file, secrets=secrets))
        for i in range(SECRETS):
            body = {"name": f"s{i}", "data": f"swordfish-{i}-of-many-in-the-sea"}
            server.client.call("POST", f"/api/repos/{slug}/secrets", json=body)
        note(f"printing {LINES} lines")
        number = server.build(slug)
        build = server.ended(slug, number, every_s=0.2)
        with server.database("logs") as logs:
            end = time.monotonic() + 60
            while logs.execute("SELECT max(next) FROM builds_steplog").fetchone()[0] < LINES:
                assert time.monotonic() < end, "lines are missing"
                time.sleep(0.05)
        with server.database("ciserver") as database:
            query = "SELECT (julianday(finished) - julianday(started)) * 86400 FROM builds_build"
            seconds = database.execute(f"{query} WHERE number = ?", [number]).fetchone()[0]
        begin = time.perf_counter()
        subprocess.run(f"cat {file} > {file}.copy", shell=True, check=True)
        bare = time.perf_counter() - begin
    assert build["stages"][0]["status"] == "success"
    show(
        "lines",
        lines=LINES,
        lines_per_s=round(LINES / seconds),
        floor_lines_per_s=round(LINES / bare),
        ratio=round(seconds / bare, 2),
    )


if __name__ == "__main__":
    main()
