"""The place of a stage attempt on this host, and whose it is.

Who uses a room holds the lock of a file in it, which ends with its holder: a room that nobody holds
is a leftover, whichever agent made it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from agents.drivers.base import Room

_LOCK: Final = "lock"


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
