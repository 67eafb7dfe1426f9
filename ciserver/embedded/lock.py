"""One server per data dir: a lock file held as long as the supervisor lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO


class Taken(Exception):
    """Another server holds the data dir."""


def hold(data_dir: Path, note: str) -> IO[str]:
    """Lock `data_dir` and leave `note` in the lock file; the lock ends with the returned file.

    Raises: Taken, naming the process that holds it; OSError where the folder cannot be written.
    """
    file = os.fdopen(os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = file.read().strip()
        file.close()
        raise Taken(f"{data_dir} is in use by another server ({holder})") from None
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()}, {note}\n")
    file.flush()
    return file
