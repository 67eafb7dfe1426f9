"""The cache of exec steps against `tar | zstd`: a tree like node_modules, stored and restored.

Both write to the same disk, alternate, and are given by their best of three. The memory is the
process's that serves the step (the agent's, without Celery).
"""

from __future__ import annotations

import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from agents.drivers.exec import ExecDriver
from agents.options import Options
from agents.rooms import make_room
from bench.measure import note, show
from pipeline.spec import StageSpec, StepSpec

ROUNDS = 3
TREE_MB = 500
FILE_BYTES = 14_000


class Quiet:
    """A sink that keeps what a step printed."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.data += data


def make_tree(folder: Path, size_mb: int) -> int:
    """Files of source-like text in a deep tree; returns how many."""
    random.seed(1)
    words = [
        "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(2, 12)))
        for _ in range(20_000)
    ]
    count = size_mb * 1024 * 1024 // FILE_BYTES
    text = " ".join(random.choices(words, k=400_000)).encode()
    for number in range(count):
        path = folder / f"package-{number // 40}" / "lib" / f"file-{number}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        start = random.randrange(len(text) - FILE_BYTES)
        path.write_bytes(text[start : start + FILE_BYTES])
    return count


def shell(command: str, folder: Path) -> float:
    """Seconds of a command."""
    started = time.monotonic()
    subprocess.run(["/bin/sh", "-c", command], cwd=folder, check=True)
    return time.monotonic() - started


class Steps:
    """Runs steps of one exec stage that has the tree in its checkout."""

    def __init__(self, options: Options) -> None:
        self.room = make_room(options.work_dir)
        spec = StageSpec(repo="bench/cache", build=1, stage=1, type="exec")
        self.session = ExecDriver(options).open(spec, self.room)

    def run(self, command: str) -> float:
        """Seconds of a step."""
        sink = Quiet()
        step = StepSpec(1, "bench", commands=(command,))
        started = time.monotonic()
        outcome = self.session.start(step, {}, sink).wait()
        if outcome.exit_code:
            raise SystemExit(f"the step failed: {sink.data.decode()}")
        return time.monotonic() - started


def main() -> None:
    """Measure both, in turns."""
    size_mb = int(sys.argv[1]) if len(sys.argv) > 1 else TREE_MB
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        options = Options(state_dir=root / "state", work_dir=root / "work")
        steps = Steps(replace(options, cache_size=0))
        source = steps.room.source
        note(f"making a tree of {size_mb} MB")
        files = make_tree(source / "node_modules", size_mb)
        times: dict[str, list[float]] = {"store": [], "restore": [], "tar_in": [], "tar_out": []}
        for number in range(ROUNDS):
            note(f"round {number + 1} of {ROUNDS}")
            archive = root / "bare.tar.zst"
            archive.unlink(missing_ok=True)
            times["tar_in"].append(shell(f"tar -cf - node_modules | zstd -q -o {archive}", source))
            times["store"].append(steps.run(f"cache store key-{number} node_modules"))
            shutil.rmtree(source / "node_modules")
            times["tar_out"].append(shell(f"zstd -qdc {archive} | tar -xf -", source))
            shutil.rmtree(source / "node_modules")
            times["restore"].append(steps.run(f"cache restore key-{number}"))
        steps.session.remove()
    best = {name: min(values) for name, values in times.items()}
    show(
        "cache",
        tree_mb=size_mb,
        files=files,
        store_s=round(best["store"], 2),
        restore_s=round(best["restore"], 2),
        tar_zstd_s=round(best["tar_in"], 2),
        zstd_tar_s=round(best["tar_out"], 2),
        store_share=round(best["store"] / best["tar_in"], 2),
        restore_share=round(best["restore"] / best["tar_out"], 2),
        peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )


if __name__ == "__main__":
    main()
