"""Archives as files below one directory of the agent's host."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote, unquote

from agents.cache.backends.base import CacheError, Entry

_SPOOL: Final = ".spool"
#: An archive that nobody finished within this time is rubbish.
_STALE_S: Final = 24 * 3600
_MAX_NAME_BYTES: Final = 250


class Directory:
    """`<root>/<scope>/<name>`; the file's times say when it was stored and last restored."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def spool(self) -> Path:
        """Below the root, so that putting is a link."""
        folder = self._root / _SPOOL
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):  # its store ended meanwhile
                    if time.time() - path.stat().st_mtime > _STALE_S:
                        path.unlink()
        except OSError as fault:
            raise CacheError(f"cannot use the directory of the cache: {fault}") from fault
        return folder

    def entries(self, scope: str) -> list[Entry]:
        """All files below the scope."""
        top = self._path(scope)
        found = []
        for folder, _, files in os.walk(top):
            for file in files:
                path = Path(folder, file)
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    facts = path.stat()
                    name = "/".join(unquote(part) for part in path.relative_to(top).parts)
                    found.append(Entry(name, facts.st_size, facts.st_mtime, facts.st_atime))
        return found

    def open(self, scope: str, name: str) -> BinaryIO | None:
        """Open a file and note the time of access."""
        path = self._path(scope, name)
        try:
            stream = path.open("rb")
            os.utime(path, (time.time(), os.fstat(stream.fileno()).st_mtime))
        except FileNotFoundError:
            return None
        except OSError as fault:
            raise CacheError(f"cannot read from the cache: {fault}") from fault
        return stream

    def put(self, scope: str, name: str, archive: Path) -> bool:
        """Link the file to its place: there at once and never over another."""
        path = self._path(scope, name)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.link(archive, path)
        except FileExistsError:
            return False
        except OSError as fault:
            raise CacheError(f"cannot write to the cache: {fault}") from fault
        return True

    def remove(self, scope: str, name: str) -> None:
        """Unlink a file; who reads it now reads on."""
        try:
            self._path(scope, name).unlink(missing_ok=True)
        except OSError as fault:
            raise CacheError(f"cannot remove from the cache: {fault}") from fault

    def _path(self, scope: str, name: str = "") -> Path:
        parts = [*scope.split("/"), *(name.split("/") if name else ())]
        return self._root.joinpath(*map(_file_name, parts))


def _file_name(part: str) -> str:
    """A name without slash that is not hidden and says which text it stands for."""
    text = quote(part, safe="@+=:, ")
    text = "%2E" + text[1:] if text.startswith(".") else text
    if len(text) > _MAX_NAME_BYTES:
        raise CacheError(f"the key is too long for a directory: {part[:60]}…")
    return text
