"""Test reports that steps leave behind: found by pattern, read with care, packed for the server.

The files are the steps' making: no link is followed, nothing but plain files is read, and what all
of a step's reports have together is bounded.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, cast

import zstandard

from agents.cache.archive import Pieces
from agents.drivers.base import DriverError, Session
from agents.logs.masks import hide_in
from agents.patterns import matches_any
from pipeline.spec import StepSpec
from pipeline.wire import MAX_REPORTS_BYTES

#: More files than any tool writes for one step.
MAX_FILES: Final = 1000
#: Left for the header that lists the files.
_HEADER_BYTES: Final = 512 * 1024
_ROOM_BYTES: Final = MAX_REPORTS_BYTES - _HEADER_BYTES
_WILD: Final = re.compile(r"[*?\[{\\]")

Files = Iterable[tuple[str, bytes]]


class TooMuch(Exception):
    """Reports are larger, or more, than the server takes."""


def clean(patterns: Sequence[str]) -> tuple[str, ...]:
    """Patterns of paths below the checkout; others match nothing."""
    found = (posixpath.normpath(one) for one in patterns if one)
    return tuple(one for one in found if not one.startswith(("/", "../")) and one != "..")


def prefixes(patterns: Sequence[str]) -> tuple[str, ...]:
    """Paths below which everything is that may match: the parts of patterns before a wildcard."""
    found = set()
    for pattern in patterns:
        match = _WILD.search(pattern)
        found.add(pattern if match is None else pattern[: match.start()].rpartition("/")[0])
    return tuple(
        one for one in sorted(found) if not any(_below(one, other) for other in found - {one})
    )


def _below(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def on_disk(root: Path, patterns: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of what matches below a directory of this host."""
    for start in prefixes(patterns):
        top = root / start
        if top.is_file():
            top = top.parent
        if not top.is_dir() or not top.resolve().is_relative_to(root.resolve()):
            continue
        for folder, folders, names, handle in os.fwalk(top, follow_symlinks=False):
            folders[:] = sorted(name for name in folders if name != ".git")
            for name in sorted(names):
                path = os.path.relpath(os.path.join(folder, name), root)  # noqa: PTH118 - many
                if matches_any(path, patterns) and (data := _read(name, handle)) is not None:
                    yield path, data


def _read(name: str, folder: int) -> bytes | None:
    """A plain file's content, up to one byte more than is taken; None for anything else."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(name, flags, dir_fd=folder)
    except OSError:  # a link, or gone
        return None
    with os.fdopen(file, "rb") as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        return stream.read(_ROOM_BYTES + 1)


def in_tar(
    pieces: Iterable[bytes], start: str, patterns: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of what matches in a tar stream of the tree at `start`.

    The stream's names begin with the tree's own, as engines write them.
    """
    source = cast("BinaryIO", io.BufferedReader(Pieces(pieces)))
    with tarfile.open(fileobj=source, mode="r|") as tar:
        for member in tar:
            path = posixpath.normpath(posixpath.join(start, member.name.partition("/")[2]))
            file = tar.extractfile(member) if member.isreg() else None
            if file is not None and matches_any(path, patterns):
                yield path, file.read(_ROOM_BYTES + 1)


def take(session: Session, step: StepSpec, hidden: Iterable[bytes]) -> tuple[bytes, str]:
    """A body with the reports of a step that has ended, `hidden` terms masked, or no body and what
    the step's log says about that."""
    try:
        files = gather(session.collect(step))
    except (DriverError, OSError, tarfile.TarError, TooMuch) as fault:
        return b"", f"[ci] the reports cannot be taken: {fault}\n"
    if not files:
        return b"", f"[ci] reports: there is no file {', '.join(step.reports)}\n"
    return pack(hide_in(files, hidden)), ""


def gather(files: Files) -> dict[str, bytes]:
    """All files by name. Raises: TooMuch."""
    found: dict[str, bytes] = {}
    size = 0
    for name, data in files:
        found[name] = data
        size += len(data)
        if size > _ROOM_BYTES:
            raise TooMuch(f"they have more than {_ROOM_BYTES / 2**20:.1f} MiB together")
        if len(found) > MAX_FILES:
            raise TooMuch(f"they are more than {MAX_FILES} files")
    return found


def pack(files: dict[str, bytes]) -> bytes:
    """A body of the call that takes reports."""
    listed = [
        [name.encode(errors="replace").decode()[:400], len(data)] for name, data in files.items()
    ]
    head = json.dumps({"files": listed}, separators=(",", ":")).encode()
    return zstandard.ZstdCompressor(level=3).compress(b"\n".join((head, b"".join(files.values()))))
