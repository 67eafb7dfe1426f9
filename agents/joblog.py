"""The whole log of a stage as one artifact, for who wants more than the server's limit keeps.

Source: Semaphore's agent (reference: agents, section 3.1): never, when a log was trimmed, always;
as `agent/job_logs.txt`, compressed from a size on. Ours has the stage's number in the name, since
artifacts belong to builds.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Final, Protocol

import structlog

from agents.cache.commands import Answer
from agents.cache.place import HostPlace, Place
from agents.options import Options

log = structlog.get_logger("agents.joblog")

#: A step's log on disk never grows beyond this.
MAX_STEP_BYTES: Final = 1024**3


class Shelf(Protocol):
    """Where artifacts go."""

    def run(self, words: Sequence[str], place: Place, stopped: Callable[[], bool]) -> Answer:
        """Do an `artifact` command."""


class JobLog:
    """Collects what steps print, masked, in files of `folder`."""

    def __init__(self, folder: Path, options: Options) -> None:
        self._folder, self._options = folder, options
        self._copies: dict[int, _Copy] = {}

    def copy(self, number: int, name: str) -> Callable[[bytes], None]:
        """What takes the output of a step. It never raises: a log cannot fail a build."""
        self._copies[number] = copy = _Copy(self._folder / f"{number}.joblog", name)
        return copy.write

    def upload(
        self, shelf: Shelf, stage: int, *, trimmed: bool, stopped: Callable[[], bool]
    ) -> None:
        """Push everything as one file, if the options ask for it. Never raises.

        `trimmed`: a step's log was longer than the server's limit.
        """
        for copy in self._copies.values():
            copy.close()
        if self._options.upload_job_logs == "when-trimmed" and not trimmed:
            return
        try:
            path = self._join()
            name = f"agent/{stage}/{path.name}"
            answer = shelf.run(
                ["push", path.name, "--name", name], HostPlace(str(self._folder)), stopped
            )
        except OSError as fault:
            log.error("joblog.lost", reason=str(fault))
            return
        if answer.code:
            log.error("joblog.not-uploaded", reason=" ".join(answer.err))
        else:
            log.info("joblog.uploaded", name=name)

    def _join(self) -> Path:
        """One file of all steps, in their order."""
        size = sum(copy.size for copy in self._copies.values())
        packed = size >= self._options.logs_compression_size
        path = self._folder / ("job_logs.txt.gz" if packed else "job_logs.txt")
        with gzip.open(path, "wb", 6) if packed else path.open("wb") as whole:
            for number in sorted(self._copies):
                self._copies[number].add_to(whole)
        return path


class _Copy:
    """The output of one step in a file."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._file: IO[bytes] | None = None
        self.size = 0

    def write(self, data: bytes) -> None:
        if not data or self.size >= MAX_STEP_BYTES:
            return
        try:
            if self._file is None:
                self._file = self._path.open("wb")
            self._file.write(data)
            self.size += len(data)
        except (OSError, ValueError) as fault:
            log.error("joblog.broken", step=self._name, reason=str(fault))
            self.size = MAX_STEP_BYTES

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def add_to(self, whole: IO[bytes] | gzip.GzipFile) -> None:
        whole.write(f"=== {self._name} ===\n".encode())
        if self._path.exists():
            with self._path.open("rb") as part:
                shutil.copyfileobj(part, whole)
            whole.write(b"\n")
