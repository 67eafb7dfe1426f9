"""Docker stages: ten trivial steps, and a step of 1,000,000 lines, each beside `docker run` itself.

In turns, by their medians. Needs a Docker engine; the image is made from this machine's busybox.
"""

from __future__ import annotations

import os
import subprocess
import time
from statistics import median
from typing import Any

from bench.instance import Instance, instance
from bench.measure import note, show
from tests.images import busybox_image

STEPS = 10
LINES = 1_000_000
ROUNDS = 5
#: The server has better things to do than to answer all the time.
LOOK_S = 0.2
PRINT = f"yes {'x' * 79} | head -n {LINES}"
HEAD = """
kind: pipeline
type: docker
name: default
clone: {disable: true}
steps:
"""


def main() -> None:
    """Measure both figures, `docker run` before each round."""
    image = busybox_image()
    with instance(agent_isolation="docker") as server:
        ten = server.repo(
            HEAD + "".join(_step(f"s{i}", image, "true") for i in range(STEPS)), "ten"
        )
        long = server.repo(HEAD + _step("print", image, PRINT), "long")
        bare, stage, plain, step = [], [], [], []
        for number in range(ROUNDS):
            note(f"round {number + 1} of {ROUNDS}")
            bare.append(_timed(*[("docker", "run", "--rm", image, "true")] * STEPS))
            stage.append(_seconds(server, ten))
            plain.append(_timed(("docker", "run", "--rm", image, "sh", "-c", PRINT)))
            step.append(_seconds(server, long))
    show(
        "docker_steps",
        steps=STEPS,
        docker_run_s=round(median(bare), 2),
        stage_s=round(median(stage), 2),
        ratio=round(median(stage) / median(bare), 2),
        load=os.getloadavg()[0],
    )
    show(
        "docker_lines",
        lines=LINES,
        docker_run_lines_per_s=round(LINES / median(plain)),
        step_lines_per_s=round(LINES / median(step)),
        ratio=round(median(plain) / median(step), 2),
        load=os.getloadavg()[0],
    )


def _step(name: str, image: str, command: str) -> str:
    return f"- {{name: {name}, image: '{image}', commands: ['{command}']}}\n"


def _timed(*commands: tuple[str, ...]) -> float:
    begin = time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def _seconds(server: Instance, slug: str) -> float:
    """How long a build's only stage took, by the server's clock."""
    build: dict[str, Any] = server.ended(slug, server.build(slug), LOOK_S)
    with server.database("ciserver") as database:
        query = "SELECT (julianday(finished) - julianday(started)) * 86400 FROM builds_build"
        return float(database.execute(f"{query} WHERE id = ?", [build["id"]]).fetchone()[0])


if __name__ == "__main__":
    main()
