"""The cache of exec steps against `tar | zstd`: a tree like node_modules, stored and restored.

Both do the same work on the same disk, in turns, begin with nothing left to write back, and are
given by their median; neither waits for the disk at its end. The memory is the process's that
serves the step (the agent's, without Celery).
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from agents.drivers.exec import ExecDriver
from agents.options import Options
from agents.rooms import make_room
from bench.measure import note, show
from pipeline.spec import StageSpec, StepSpec

ROUNDS = 3
TREE_MB = 500
#: Most files are small, some are programs and bundles.
SMALL_BYTES = 6_000
BIG_BYTES = 8_000_000
BIG_SHARE = 0.3


class Quiet:
    """A sink that keeps what a step printed."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.data += data


def make_tree(folder: Path, size_mb: int) -> int:
    """Files of source-like text in a deep tree, and some big ones; returns how many."""
    dice = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(dice.choices(letters, k=dice.randint(2, 12))) for _ in range(20_000)]
    text = " ".join(dice.choices(words, k=2_000_000)).encode()
    total = size_mb * 1024 * 1024
    sizes = [BIG_BYTES] * int(total * BIG_SHARE / BIG_BYTES)
    left = total - sum(sizes)
    while left > 0:
        sizes.append(min(int(dice.lognormvariate(0, 1) * SMALL_BYTES), 400_000, left))
        left -= sizes[-1] or 1
    for number, size in enumerate(sizes):
        path = folder / f"package-{number // 40}" / "lib" / f"file-{number}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        start = dice.randrange(len(text) - size)
        path.write_bytes(text[start : start + size])
    return len(sizes)


@dataclass(frozen=True)
class Cost:
    """What something took: seconds by the clock, and of processors."""

    wall_s: float
    cpu_s: float


def cost(work: Callable[[], object]) -> Cost:
    """Do something while nothing else waits for the disk."""
    os.sync()
    before, started = _cpu_s(), time.monotonic()
    work()
    return Cost(time.monotonic() - started, _cpu_s() - before)


def _cpu_s() -> float:
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def shell(command: str, folder: Path) -> None:
    """Run a command."""
    subprocess.run(["/bin/sh", "-c", command], cwd=folder, check=True)


class Steps:
    """Runs steps of one exec stage that has the tree in its checkout."""

    def __init__(self, options: Options) -> None:
        self.room = make_room(options.work_dir)
        spec = StageSpec(repo="bench/cache", build=1, stage=1, type="exec")
        self.session = ExecDriver(options).open(spec, self.room)

    def run(self, command: str) -> None:
        """Run a step, from its start to its end."""
        sink = Quiet()
        step = StepSpec(1, "bench", commands=(command,))
        outcome = self.session.start(step, {}, sink).wait()
        if outcome.exit_code:
            raise SystemExit(f"the step failed: {sink.data.decode()}")


def in_turns(number: int, *works: Callable[[], None]) -> list[Cost]:
    """The cost of each, in their order; who begins changes with each round."""
    order = range(len(works)) if number % 2 == 0 else reversed(range(len(works)))
    costs = {one: cost(works[one]) for one in order}
    return [costs[one] for one in range(len(works))]


def main() -> None:
    """Measure both, in turns."""
    size_mb = int(sys.argv[1]) if len(sys.argv) > 1 else TREE_MB
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        options = Options(state_dir=root / "state", work_dir=root / "work")
        steps = Steps(replace(options, cache_size=0))
        source, bare = steps.room.source, root / "bare"
        bare.mkdir()
        note(f"making a tree of {size_mb} MB")
        files = make_tree(source / "node_modules", size_mb)
        archive = root / "bare.tar.zst"
        ours, theirs = [], []
        for number in range(ROUNDS):
            note(f"storing: round {number + 1} of {ROUNDS}")
            archive.unlink(missing_ok=True)
            steps.run("cache clear")
            there, here = in_turns(
                number,
                lambda: shell(f"tar -cf - node_modules | zstd -q -o {archive}", source),
                lambda: steps.run("cache store key node_modules"),
            )
            theirs.append(there)
            ours.append(here)
        stored = _compare("store", theirs, ours)
        ours, theirs = [], []
        for number in range(ROUNDS):
            note(f"restoring: round {number + 1} of {ROUNDS}")
            for folder in (source, bare):
                shutil.rmtree(folder / "node_modules", ignore_errors=True)
            there, here = in_turns(
                number,
                lambda: shell(f"zstd -qdc {archive} | tar -xf -", bare),
                lambda: steps.run("cache restore key"),
            )
            theirs.append(there)
            ours.append(here)
        restored = _compare("restore", theirs, ours)
        steps.session.remove()
    show(
        "cache",
        tree_mb=size_mb,
        files=files,
        **stored,
        **restored,
        peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        load=os.getloadavg()[0],
    )


def _compare(name: str, theirs: Sequence[Cost], ours: Sequence[Cost]) -> dict[str, object]:
    """Medians of both and their ratios."""
    wall, floor = (median(one.wall_s for one in costs) for costs in (ours, theirs))
    cpu, floor_cpu = (median(one.cpu_s for one in costs) for costs in (ours, theirs))
    return {
        f"{name}_s": round(wall, 2),
        f"{name}_floor_s": round(floor, 2),
        f"{name}_ratio": round(wall / floor, 2),
        f"{name}_cpu_s": round(cpu, 2),
        f"{name}_floor_cpu_s": round(floor_cpu, 2),
        f"{name}_cpu_ratio": round(cpu / floor_cpu, 2),
    }


if __name__ == "__main__":
    main()
