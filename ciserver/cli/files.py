"""Pipeline files that a command was given: paths, folders of workflows, `-` for standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ciserver.cli.terminal import Refused
from pipeline.verdict import Judged, judge

DEFAULT = ".drone.yml"


def read(paths: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file, `.drone.yml` for none; a folder is one set of workflows.

    Raises: Refused for a file that cannot be read.
    """
    for path in list(paths) or [DEFAULT]:
        if path == "-":
            yield DEFAULT, sys.stdin.buffer.read()
            continue
        try:
            yield path, Path(path).read_bytes()
        except OSError as fault:
            raise Refused(f"{path}: {fault.strerror or fault}") from fault


def judged(paths: Iterable[str]) -> Iterator[tuple[str, Judged]]:
    """Each file with what becomes of it."""
    for path, data in read(paths):
        yield path, judge(data, path)
