"""Housekeeping: rooms that nobody holds go, at once and at intervals; what fails is logged."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
import structlog

from agents.drivers.base import DriverError, Room
from agents.drivers.exec import sweep
from agents.drivers.leftovers import MARK
from agents.housekeeping import ROOM_S, Housekeeper, tidy
from agents.mirrors import locked, path_of
from agents.options import Options
from agents.rooms import Rooms, leftovers, make_room, release

LATER = 1e12


def test_a_room_in_use_is_no_leftover(tmp_path: Path) -> None:
    room = make_room(tmp_path)
    assert list(leftovers(tmp_path, LATER)) == []
    release(room)
    assert list(leftovers(tmp_path, LATER)) == [room.root]


def test_the_next_room_is_made_ahead(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path / "work")
    rooms.make_ahead()
    rooms.make_ahead()
    (made,) = (tmp_path / "work").iterdir()
    assert list(leftovers(tmp_path / "work", LATER)) == []
    taken = rooms.take()
    assert taken.root == made
    assert not rooms.has_spare
    release(taken)
    rooms.make_ahead()
    rooms.close()
    rooms.close()
    assert list((tmp_path / "work").iterdir()) == [made]


def test_what_is_made_ahead_is_furnished_or_not_there(tmp_path: Path) -> None:
    seen: list[str] = []

    def furnish(room: Room) -> None:
        seen.append(room.key)
        if len(seen) == 1:
            raise DriverError("no such user")

    rooms = Rooms(tmp_path / "work", furnish)
    rooms.make_ahead()
    assert not rooms.has_spare
    assert list((tmp_path / "work").iterdir()) == []
    rooms.make_ahead()
    assert rooms.take().key == seen[1]


def test_a_room_that_was_cleared_away_is_made_anew(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path / "work")
    rooms.make_ahead()
    shutil.rmtree(tmp_path / "work")
    taken = rooms.take()
    assert all(folder.is_dir() for folder in taken.folders)
    release(taken)


def test_a_room_that_cannot_be_made_ahead_is_no_harm(tmp_path: Path) -> None:
    (tmp_path / "work").touch()
    rooms = Rooms(tmp_path / "work")
    rooms.make_ahead()
    with pytest.raises(OSError, match="work"):
        rooms.take()


def test_a_young_room_is_left_alone(tmp_path: Path) -> None:
    release(make_room(tmp_path))
    assert list(leftovers(tmp_path, time.time() - 3600)) == []


def test_sweeping_ends_what_still_runs_in_a_leftover(tmp_path: Path) -> None:
    room = make_room(tmp_path)
    (room.source / "locked").mkdir(mode=0o500)
    child = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: room.key})
    release(room)
    sweep(tmp_path)
    assert child.wait(60) != 0
    assert not room.root.exists()


def test_tidying_removes_leftovers_and_old_mirrors_only(tmp_path: Path) -> None:
    options = Options(work_dir=tmp_path, mirror_age=3600.0)
    used, left = make_room(tmp_path), make_room(tmp_path)
    release(left)
    mirror = path_of(tmp_path / "mirrors", "https://example.com/x.git")
    with locked(mirror, lambda: False):
        mirror.mkdir()
    tidy(options)
    assert used.root.exists()
    assert left.root.exists()
    assert mirror.exists()
    tidy(options, lambda: time.time() + 3600 + ROOM_S)
    assert used.root.exists()
    assert not left.root.exists()
    assert not mirror.exists()
    release(used)


def test_chores_are_done_at_once_and_again() -> None:
    twice = threading.Event()
    done: list[int] = []

    def chore() -> None:
        done.append(1)
        if len(done) > 1:
            twice.set()

    keeper = Housekeeper(0.01, [chore])
    assert twice.wait(60)
    keeper.close()


def test_a_chore_that_fails_does_not_keep_the_others_from_being_done() -> None:
    done = threading.Event()

    def fail() -> None:
        raise OSError("no")

    with structlog.testing.capture_logs() as logs:
        keeper = Housekeeper(3600, [fail, done.set])
        assert done.wait(60)
        keeper.close()
    assert "housekeeping.failed" in [entry["event"] for entry in logs]
