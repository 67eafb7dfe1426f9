"""The disk with an agent's state runs full while a step prints."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.faults.pipelines import numbers
from tests.services import wait_for

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("faults-house"),
]

#: 20,000 lines of about 100 bytes do not fit.
SMALL, LARGE = "1m", "64m"
LINES = 20_000
PRINTS = f"""
kind: pipeline
type: exec
name: default
clone: {{disable: true}}
steps:
- name: print
  commands:
  - seq -f 'line %.0f' 0 {LINES - 1} | sed 's/$$/ {"x" * 90}/'
  - echo end
"""

Resize = Callable[[str], object]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Resize]]:
    """A small disk, and how to make it larger. Needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", f"size={options}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode and os.getuid() != 0:
            pytest.skip(f"a small disk needs root: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr

    mount(SMALL)
    try:
        yield folder, lambda size: mount(f"{size},remount")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def agent(house: Cluster, name: str, folder: Path, work: Path, **options: str) -> Iterator[None]:
    """An agent whose state, but not its work, is on the small disk."""
    part = house.agent(name, state_dir=str(folder), work_dir=str(work), **options)
    try:
        yield
    finally:
        part.stop()


def is_full(house: Cluster, name: str) -> bool:
    return "spool.disk-full" in house.agent_log(name)


def test_a_full_disk_is_waited_for(
    house: Cluster, tmp_path: Path, disk: tuple[Path, Resize], tag: str
) -> None:
    """The step stands still; with room again it goes on, and not a line is lost."""
    (folder, resize), name = disk, f"agent-{tag}"
    with agent(house, name, folder, tmp_path / "work", disk_free_min="0"):
        slug = house.repo(PRINTS, tag)
        number = house.build(slug)
        wait_for("the disk is full", lambda: is_full(house, name))
        assert house.status(slug, number) == "running"

        resize(LARGE)

        assert house.ended(slug, number)["status"] == "success"
        log = house.log(slug, number)
        assert numbers([line.partition(" x")[0] for line in log]) == list(range(LINES))
        assert log[-1] == "end"


def test_a_stage_on_a_full_disk_can_be_cancelled(
    house: Cluster, tmp_path: Path, disk: tuple[Path, Resize], tag: str
) -> None:
    """What was stored is there, what was lost is said, and the agent works on later."""
    (folder, resize), name = disk, f"agent-{tag}"
    with agent(house, name, folder, tmp_path / "work", disk_free_min="0"):
        slug = house.repo(PRINTS, tag)
        number = house.build(slug)
        wait_for("the disk is full", lambda: is_full(house, name))

        house.client.cancel(slug, number)

        assert house.ended(slug, number)["status"] == "killed"
        wait_for("the agent is done", lambda: _exit_code(house, slug, number) == 137)
        log = house.log(slug, number)
        shown = numbers([line.partition(" x")[0] for line in log])
        assert shown == sorted(set(shown))
        assert 1000 < len(shown) < LINES
        assert any(line.endswith("the agent could not store them on its disk]") for line in log)

        resize(LARGE)
        number = house.build(slug)
        assert house.ended(slug, number)["status"] == "success"
        assert len(numbers([line.partition(" x")[0] for line in house.log(slug, number)])) == LINES


def _exit_code(house: Cluster, slug: str, number: int) -> int:
    return int(house.client.build(slug, number)["stages"][0]["steps"][0]["exit_code"])


def test_an_agent_on_a_full_disk_takes_no_work(
    house: Cluster, tmp_path: Path, disk: tuple[Path, Resize], tag: str
) -> None:
    """It stays, says why, and takes what waits once there is room."""
    (folder, resize), name = disk, f"agent-{tag}"
    with agent(house, name, folder, tmp_path / "work"):
        wait_for("it is there", lambda: "agent.joined" in house.agent_log(name))
        slug = house.repo(PRINTS, tag)
        number = house.build(slug)
        wait_for("it says why", lambda: "disk.full" in house.agent_log(name))
        assert house.status(slug, number) == "pending"

        resize("1g")  # more than the agent wants free

        assert house.ended(slug, number)["status"] == "success"
