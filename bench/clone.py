"""Clones of a repository of 50 MB by the agent: the second, through its mirror, beside the first.

Between the two the repository gets another commit. Floor: a bare `git clone` in the same round.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

from agents import rooms
from agents.clone import CloneProcess
from bench.measure import note, show
from pipeline.spec import CloneSpec

ROUNDS = 3
SIZE_MB = 50
COMMITS = 50
_IDENTITY = ("-c", "user.name=Bench", "-c", "user.email=bench@example.com")


class Words:
    """Takes what git says."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        """Keep it, for a clone that fails."""
        self.data += data


def git(folder: Path, *arguments: str) -> str:
    """Run git; what it prints."""
    command = ["git", "-C", str(folder), *_IDENTITY, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def make_repository(folder: Path) -> None:
    """Many commits of data that does not compress."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    dice = random.Random(1)
    for number in range(COMMITS):
        (folder / f"file-{number % 10}").write_bytes(dice.randbytes(SIZE_MB * 2**20 // COMMITS))
        commit(folder, str(number))


def commit(folder: Path, text: str) -> None:
    """Another commit, of everything there is."""
    (folder / "text").write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", text)


def by_agent(remote: Path, root: Path) -> float:
    """Seconds of an agent's clone of the head."""
    room = rooms.make_room(root / "work")
    words = Words()
    spec = CloneSpec(
        remote=f"file://{remote}",
        ref="refs/heads/main",
        branch="main",
        sha=git(remote, "rev-parse", "HEAD"),
    )
    started = time.perf_counter()
    outcome = CloneProcess(spec, room, words, mirrors=root / "mirrors", environ={}).wait()
    seconds = time.perf_counter() - started
    if outcome.exit_code:
        raise SystemExit(f"the clone failed: {outcome} {words.data.decode()}")
    rooms.release(room)
    shutil.rmtree(room.root)
    return seconds


def by_git(remote: Path, root: Path) -> float:
    """Seconds of `git clone`."""
    started = time.perf_counter()
    git(root, "clone", "-q", f"file://{remote}", "bare")
    seconds = time.perf_counter() - started
    shutil.rmtree(root / "bare")
    return seconds


def main() -> None:
    """Measure both and the floor, in rounds with mirrors of their own."""
    first, second, floor = [], [], []
    with tempfile.TemporaryDirectory(prefix="cc-", dir="/tmp") as place:
        remote = Path(place) / "remote"
        note(f"making a repository of {SIZE_MB} MB")
        make_repository(remote)
        for number in range(ROUNDS):
            note(f"round {number + 1} of {ROUNDS}")
            root = Path(place) / f"round-{number}"
            root.mkdir()
            os.sync()
            floor.append(by_git(remote, root))
            first.append(by_agent(remote, root))
            commit(remote, f"round {number}")
            second.append(by_agent(remote, root))
    show(
        "clone",
        size_mb=SIZE_MB,
        first_s=round(median(first), 3),
        second_s=round(median(second), 3),
        ratio=round(median(second) / median(first), 3),
        git_clone_s=round(median(floor), 3),
        load=os.getloadavg()[0],
    )


if __name__ == "__main__":
    main()
