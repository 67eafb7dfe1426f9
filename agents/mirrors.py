"""The agent's mirrors of git repositories: who uses one, and which have to go.

Beside each mirror lies a file whose lock is held while the mirror is read or written, by whatever
agent, and whose time says when it was used last. It is empty unless the mirror is in use, or who
used it was killed over it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from agents.expiry import to_remove

log = structlog.get_logger("agents.mirrors")

_MIRROR: Final = ".git"
_LOCK: Final = ".lock"
#: Git's own rule, but for the numbers: loose objects and packs that are too many.
_PACKING: Final = (
    "-c", "gc.autoDetach=false", "-c", "gc.auto=1000", "-c", "gc.autoPackLimit=20",
    "-c", "pack.threads=1", "-c", "core.hooksPath=/dev/null",
)  # fmt: skip
#: A mirror that is being removed, and one that is being made.
_GONE: Final = ".gone"
_NEW: Final = ".new"


@dataclass(frozen=True, slots=True)
class Mirror:
    """A mirror on disk. `used` is unix seconds."""

    path: Path
    size_bytes: int
    used: float


def folder(work_dir: Path) -> Path:
    """Where the mirrors are."""
    return work_dir / "mirrors"


def path_of(mirrors: Path, remote: str) -> Path:
    """The place of a repository's mirror."""
    return mirrors / (hashlib.sha256(remote.encode()).hexdigest()[:32] + _MIRROR)


@contextlib.contextmanager
def locked(mirror: Path, give_up: Callable[[], bool]) -> Iterator[bool]:
    """Have a mirror for oneself: true. False if `give_up`, which waits a little, said so before."""
    mirror.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = mirror.with_suffix(_LOCK)
    while (file := _lock(path)) is None:
        if give_up():
            yield False
            return
    try:
        with _in_use(file, mirror):
            os.utime(file)
            yield True
    finally:
        os.close(file)


@contextlib.contextmanager
def _in_use(file: int, mirror: Path) -> Iterator[None]:
    """Note in a lock file that its mirror is in use; mend a mirror that was in use for too long."""
    if os.fstat(file).st_size:
        _mend(mirror)
    os.pwrite(file, b"in use\n", 0)
    yield
    os.ftruncate(file, 0)


def unfinished(mirror: Path) -> Path:
    """Where a mirror is made, to be renamed when it is whole. For who has the lock."""
    path = mirror.with_suffix(_NEW)
    shutil.rmtree(path, ignore_errors=True)
    return path


def _mend(mirror: Path) -> None:
    """Remove the locks that a git which was killed left in a mirror: the next one would give up."""
    for lock in mirror.rglob(f"*{_LOCK}"):
        lock.unlink(missing_ok=True)
        log.info("mirror.mended", mirror=mirror.name, lock=lock.name)


def _lock(path: Path) -> int | None:
    """Take a lock, if nobody has it; who removed a mirror has removed its file as well."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_ino == path.stat().st_ino:
            return file
    os.close(file)
    return None


def clean(mirrors: Path, *, age_s: float, size_bytes: int, now: float) -> list[Path]:
    """Remove mirrors unused for `age_s`, then the longest unused beyond a total size.

    The one used last is not too big, and one in use stays. Zero turns a bound off. Returns which
    were removed.
    """
    for rubbish in mirrors.glob(f"*{_GONE}"):
        shutil.rmtree(rubbish, ignore_errors=True)
    found = [_look(path) for path in mirrors.glob(f"*{_LOCK}")]
    last = max(found, key=lambda one: one.used, default=None)
    old = to_remove(found, now, age_s=age_s, size_bytes=0, keep=lambda one: False)
    rest = [one for one in found if one not in old]
    many = to_remove(rest, now, age_s=0, size_bytes=size_bytes, keep=lambda one: one is last)
    return [one.path for one in (*old, *many) if _remove(one)]


def pack(mirrors: Path) -> None:
    """Have git put together what many fetches left in pieces, where it thinks it is time.

    Cloning copies the pieces one by one. A mirror in use is left for the next time.
    """
    for path in mirrors.glob(f"*{_LOCK}"):
        mirror = path.with_suffix(_MIRROR)
        file = _lock(path) if mirror.is_dir() else None
        if file is None:
            continue
        try:
            command = ["git", *_PACKING, "gc", "--auto", "--quiet"]
            environ = {"PATH": os.defpath, "LC_ALL": "C"}
            with _in_use(file, mirror):
                done = subprocess.run(
                    command, cwd=mirror, env=environ, capture_output=True, check=False
                )
        finally:
            os.close(file)
        if done.returncode:
            log.warning("mirror.not-packed", mirror=mirror.name, reason=done.stderr.decode()[-200:])


def _look(lock: Path) -> Mirror:
    mirror = lock.with_suffix(_MIRROR)
    size = 0
    for place, _, files in os.walk(mirror):
        for name in files:
            with contextlib.suppress(FileNotFoundError):  # git is at work
                size += Path(place, name).lstat().st_size
    return Mirror(mirror, size, lock.stat().st_mtime)


def _remove(mirror: Mirror) -> bool:
    """Remove a mirror and then its lock, unless it is in use or was used again."""
    path = mirror.path.with_suffix(_LOCK)
    file = _lock(path)
    if file is None:
        return False
    try:
        if os.fstat(file).st_mtime > mirror.used:
            return False
        gone = mirror.path.with_suffix(_GONE)
        with contextlib.suppress(FileNotFoundError):  # the clone that made the lock went no further
            mirror.path.rename(gone)
        unfinished(mirror.path)
        path.unlink()
    finally:
        os.close(file)
    shutil.rmtree(gone, ignore_errors=True)
    log.info("mirror.removed", mirror=mirror.path.name, size=mirror.size_bytes)
    return True
