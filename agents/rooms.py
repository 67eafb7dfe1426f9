"""The place of a stage attempt on this host."""

from __future__ import annotations

import secrets
from pathlib import Path

from agents.drivers.base import Room


def make_room(work_dir: Path) -> Room:
    """A fresh place for a stage attempt, for this user's eyes only."""
    key = f"drone-{secrets.token_hex(10)}"
    room = Room(key, work_dir / key)
    try:
        room.root.mkdir(mode=0o700)
    except FileNotFoundError:  # the first stage
        work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        room.root.mkdir(mode=0o700)
    for folder in room.folders:
        folder.mkdir()
    return room
