"""What an agent remembers across its own death, in files that only it may read.

```
<state_dir>/identity.json         who it is at its server
<state_dir>/claims/<nonce>        an empty file per question asked whose answer is not dealt with
<state_dir>/leases/<lease>/       per open lease: report.json, spool files, test reports
```

Files are replaced whole. Nothing is flushed to the platters per claim: what must survive is the
death of the process, and after a crash of the host no step of it runs any more.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline.spec import from_json, to_json
from pipeline.wire import Report

_REPORT: Final = "report.json"
_SAFE: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")


class StateError(Exception):
    """The state directory cannot be used; the message says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The agent as its server knows it; `server` is the address it joined at."""

    server: str
    name: str
    id: int = 0
    token: str = field(default="", repr=False)


class Lease:
    """The directory of one open lease, got with the question `nonce`; empty: nothing was noted."""

    def __init__(self, folder: Path, nonce: str) -> None:
        self.folder, self.nonce = folder, nonce

    @property
    def key(self) -> str:
        """The lease's id."""
        return self.folder.name

    def save_report(self, report: Report) -> None:
        """Remember the last snapshot, with everything but its logs, for a later life."""
        _replace(self.folder / _REPORT, {"nonce": self.nonce, "report": to_json(report)})

    def last_report(self) -> tuple[Report, float] | None:
        """The last snapshot saved and how many seconds ago that was, or None."""
        path = self.folder / _REPORT
        data = _read(path)
        try:
            report = from_json(Report, data["report"]) if data else None
        except (ValueError, KeyError):
            return None
        return (report, max(0.0, time.time() - path.stat().st_mtime)) if report else None

    def steps(self) -> list[int]:
        """Numbers of the steps that have a spool here."""
        return sorted({int(path.name.split(".")[0]) for path in self.folder.glob("*.*.log")})

    def remove(self) -> None:
        """The lease is over and everything of it was delivered."""
        try:
            for name in os.listdir(self.folder):  # noqa: PTH208 - often, and fast
                os.unlink(f"{self.folder}/{name}")  # noqa: PTH108
            self.folder.rmdir()
        except OSError:
            shutil.rmtree(self.folder, ignore_errors=True)


class State:
    """The state directory of one running agent; a second agent on it is refused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._claims, self._leases = folder / "claims", folder / "leases"
        try:
            for part in (folder, self._claims, self._leases):
                part.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise StateError(f"cannot use the state directory {folder}: {fault}") from fault
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            os.close(self._lock)
            raise StateError(f"another agent is running on the state directory {folder}") from fault

    def close(self) -> None:
        """Let another agent use the directory; idempotent."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    # --- identity ---

    def identity(self, server: str) -> Identity | None:
        """Who this agent is at `server`, or None if it has never joined there."""
        return identity_in(self.folder, server)

    def save_identity(self, identity: Identity) -> None:
        """Remember who this agent is, before it acts as that."""
        _replace(self.folder / "identity.json", to_json(identity), durable=True)

    # --- claims ---

    def new_nonce(self) -> str:
        """A nonce that is on disk before it is asked with."""
        nonce = uuid.uuid4().hex
        os.close(os.open(self._claims / nonce, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        return nonce

    def nonces(self) -> list[str]:
        """Questions asked and not dealt with."""
        return sorted(path.name for path in self._claims.iterdir())

    def settle(self, nonce: str) -> None:
        """The question with this nonce has been answered and dealt with."""
        (self._claims / nonce).unlink(missing_ok=True)

    # --- leases ---

    def open_lease(self, lease: str, nonce: str) -> Lease:
        """A directory for a lease; one that is there already keeps its spool files.

        Raises: ValueError for an id that is no safe file name.
        """
        if not _SAFE.fullmatch(lease):
            raise ValueError(f"unsafe lease id {lease!r}")
        found = Lease(self._leases / lease, nonce)
        found.folder.mkdir(mode=0o700, exist_ok=True)
        return found

    def leases(self) -> Iterator[Lease]:
        """Every open lease, oldest first."""
        for folder in sorted(self._leases.iterdir(), key=lambda path: path.stat().st_mtime):
            yield Lease(folder, str(_read(folder / _REPORT).get("nonce", "")))


def identity_in(folder: Path, server: str) -> Identity | None:
    """Who the agent of a state directory is at `server`, whether it runs now or not."""
    data = _read(folder / "identity.json")
    try:
        found = from_json(Identity, data) if data else None
    except ValueError:
        return None
    return found if found and found.server == server else None


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _replace(path: Path, data: Any, *, durable: bool = False) -> None:
    temporary = path.with_name(f"{path.name}.new")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(json.dumps(data).encode())
        while rest:
            rest = rest[os.write(file, rest) :]
        if durable:
            os.fsync(file)
    finally:
        os.close(file)
    temporary.replace(path)
