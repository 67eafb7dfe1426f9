"""What a store of archives can do: few verbs, the same for every kind.

A *scope* is a folder of the store (`project` or `project.forks/ref`); a name is what comes after it
and may have a slash only when it was listed from a folder above scopes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


class CacheError(Exception):
    """A store, an archive or a tree that cannot be used; its message is shown in the step."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An archive in a store. Times are seconds since the epoch."""

    name: str
    size: int
    stored: float
    accessed: float


class Backend(Protocol):
    """A store. Verbs may be called by several threads and agents at once; all raise CacheError."""

    def spool(self) -> Path:
        """The directory where archives are made before they are put."""

    def entries(self, scope: str) -> list[Entry]:
        """Everything below a scope, in no order."""

    def open(self, scope: str, name: str) -> BinaryIO | None:
        """The archive as a stream to be closed by the caller; None if it is not there."""

    def put(self, scope: str, name: str, archive: Path) -> bool:
        """Make an archive visible, whole or not at all; False if there is one of that name.

        The file stays where it is.
        """

    def remove(self, scope: str, name: str) -> None:
        """Remove an archive; one that is not there is fine."""
