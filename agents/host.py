"""What this machine is called, who is on it, and how it is."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
from pathlib import Path

from agents.option_table import Options


def new_name() -> str:
    """A name for an agent without one: the host's, and four bytes that no other has."""
    host = "".join(c for c in socket.gethostname() if c.isascii() and (c.isalnum() or c in "-."))
    return f"{host[:60] or 'agent'}-{secrets.token_hex(4)}"


def account(name: str) -> pwd.struct_passwd:
    """The account steps run as. Raises: ValueError if it is unknown or we may not become it."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise ValueError(f"there is no user {name!r} on this host") from None
    if os.geteuid() not in (0, found.pw_uid):
        raise ValueError(f"steps cannot run as {name}: the agent is not root")
    return found


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def disk_free(options: Options) -> int:
    """Bytes that are free for stages and for what the agent keeps, where it has less."""
    folders = [folder for folder in (options.work_dir, options.state_dir) if folder.exists()]
    return min(shutil.disk_usage(folder).free for folder in folders)


def load() -> float:
    """How many processes wanted to run over the last minute; 0 where nothing tells."""
    with contextlib.suppress(OSError):
        return float(Path("/proc/loadavg").read_text().split()[0])
    return 0.0
