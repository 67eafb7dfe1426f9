"""The place of a stage attempt on this host, and whose it is.

Who uses a room holds the lock of a file in it, which ends with its holder: a room that nobody holds
is a leftover, whichever agent made it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from agents.drivers.base import DriverError, Room

log = structlog.get_logger("agents.rooms")

_LOCK: Final = "lock"


class Rooms:
    """The rooms of one work directory. Safe for threads.

    One is made ahead, and furnished with what most stages need: where the disk is shared with a
    server that flushes a claim or a report, new files and folders wait for it.
    """

    def __init__(self, work_dir: Path, furnish: Callable[[Room], None] = lambda room: None) -> None:
        self._work_dir, self._furnish = work_dir, furnish
        self._spare: Room | None = None
        self._lock = threading.Lock()

    def take(self) -> Room:
        """A fresh room; `release` it after its end. Raises: OSError."""
        with self._lock:
            room, self._spare = self._spare, None
        if room is not None and not room.source.is_dir():  # somebody cleared the work directory
            release(room)
            room = None
        return room or make_room(self._work_dir)

    @property
    def has_spare(self) -> bool:
        """Whether the next room is there already."""
        return self._spare is not None

    def make_ahead(self) -> None:
        """Make the next room now, unless it is there. Never raises: `take` tries again."""
        if self.has_spare:
            return
        try:
            room = make_room(self._work_dir)
        except OSError as fault:
            log.warning("room.not-made", reason=str(fault))
            return
        try:
            self._furnish(room)
        except (OSError, DriverError) as fault:
            log.warning("room.not-furnished", reason=str(fault))
            _remove(room)
            return
        with self._lock:
            beaten, self._spare = self._spare, room
        if beaten is not None:
            _remove(beaten)

    def close(self) -> None:
        """Remove what was made ahead."""
        with self._lock:
            room, self._spare = self._spare, None
        if room is not None:
            _remove(room)


def _remove(room: Room) -> None:
    shutil.rmtree(room.root, ignore_errors=True)
    release(room)


def make_room(work_dir: Path) -> Room:
    """A fresh place for a stage attempt, for this user's eyes only; `release` it after its end."""
    key = f"drone-{secrets.token_hex(10)}"
    room = Room(key, work_dir / key)
    try:
        room.root.mkdir(mode=0o700)
    except FileNotFoundError:  # the first stage
        work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        room.root.mkdir(mode=0o700)
    for folder in room.folders:
        folder.mkdir()
    held = os.open(room.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)  # who looks whether it is held lets go at once
    return replace(room, held=held)


def release(room: Room) -> None:
    """Nobody uses the room any more. Call it once."""
    if room.held >= 0:
        os.close(room.held)


def leftovers(work_dir: Path, older_than: float) -> Iterator[Path]:
    """Rooms that nobody holds and that were made before a time (unix seconds)."""
    for path in work_dir.glob("drone-*"):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            if path.stat().st_mtime < older_than and not _is_held(path):
                yield path


def _is_held(path: Path) -> bool:
    try:
        file = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
