"""A step's files and box in a container, by the engine's archive interface: any image will do.

What is mounted as tmpfs is not seen by it.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Final, Protocol, cast

from agents.cache import archive
from agents.cache.backends.base import CacheError
from agents.cache.box import ASK, MAX_REQUEST_BYTES, MAX_REQUESTS
from agents.cache.shim import Request, parse
from agents.drivers.base import DriverError

_EVERY_S: Final = 1.0
#: Nobody counts up while a tree moves: then a step waits for so long.
PATIENCE_S: Final = 3600


class Archives(Protocol):
    """What is needed of an engine. All raise DriverError."""

    def stat(self, container: str, path: str) -> Mapping[str, Any] | None:
        """What is at a path; None if nothing is."""

    def get(self, container: str, path: str) -> Iterator[bytes]:
        """A tree as a tar stream whose names begin with the path's last part."""

    def put(self, container: str, path: str, data: Iterable[bytes]) -> None:
        """Unpack a tar stream below a path."""


class ContainerPlace:
    """The files of a running container."""

    def __init__(self, engine: Archives, container: str, cwd: str) -> None:
        self._engine, self._container, self._cwd = engine, container, cwd

    def exists(self, path: str) -> bool:
        """Ask the engine."""
        return self._stat(path) is not None

    def read(self, path: str) -> Iterator[bytes] | None:
        """The first file of what the engine packs."""
        found = self._stat(path)
        if found is None:
            return None
        return self._content(str(found.get("linkTarget") or self._whole(path)))

    def _content(self, path: str) -> Iterator[bytes]:
        source = archive.Pieces(self._get(path))
        with tarfile.open(fileobj=cast("BinaryIO", source), mode="r|") as tar:
            member = tar.next()
            file = tar.extractfile(member) if member is not None and member.isreg() else None
            if file is None:
                raise CacheError(f"{path} is not a file")
            while piece := file.read(archive.PIECE_BYTES):
                yield piece

    def pack(self, path: str) -> Iterator[bytes]:
        """What the engine packs, by the names the step uses."""
        whole = self._whole(path)
        name = posixpath.normpath(path)
        if name.startswith(".."):
            name = whole
        pieces = self._get(whole)
        return pieces if name == posixpath.basename(whole) else archive.renamed(pieces, name)

    def unpack(self, pieces: Iterable[bytes]) -> None:
        """Have the engine unpack."""
        name, whole = archive.first_name(iter(pieces))
        try:
            self._engine.put(self._container, "/" if name.startswith("/") else self._cwd, whole)
        except DriverError as fault:
            raise CacheError(f"the Docker engine cannot unpack: {fault}") from fault

    def _stat(self, path: str) -> Mapping[str, Any] | None:
        try:
            return self._engine.stat(self._container, self._whole(path))
        except DriverError as fault:
            raise CacheError(str(fault)) from fault

    def _get(self, path: str) -> Iterator[bytes]:
        try:
            yield from self._engine.get(self._container, path)
        except DriverError as fault:
            raise CacheError(f"the Docker engine cannot pack: {fault}") from fault

    def _whole(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self._cwd, path))


class ContainerBox:
    """A directory in a container of an engine that does not see this host's disk."""

    every_s = _EVERY_S
    alone = True  # the engine locks a container while it packs

    def __init__(self, engine: Archives, container: str, folder: str) -> None:
        self._engine, self._container, self._folder = engine, container, folder
        self._seen: set[str] = set()
        self._changed: object = None
        self._again = True

    def poll(self) -> list[tuple[str, Request]]:
        """Look into the directory if it changed lately; an engine that is away has no requests."""
        try:
            found = self._engine.stat(self._container, self._folder) or {}
            changed = found.get("mtime")
            if changed == self._changed and not self._again:
                return []
            self._again = changed != self._changed
            self._changed = changed
            return self._take()
        except (DriverError, tarfile.TarError):
            self._again = True
            return []

    def _take(self) -> list[tuple[str, Request]]:
        source = archive.Pieces(self._engine.get(self._container, self._folder))
        found = []
        with tarfile.open(fileobj=cast("BinaryIO", source), mode="r|") as tar:
            for member in tar:
                match = ASK.fullmatch(posixpath.basename(member.name))
                new = match is not None and match[1] not in self._seen and member.isreg()
                if not new or match is None or len(self._seen) >= MAX_REQUESTS:
                    continue
                file = tar.extractfile(member)
                text = file.read(MAX_REQUEST_BYTES) if file is not None else b""
                request = parse(text.decode(errors="replace"))
                if request is None:
                    self._again = True
                    continue
                self._seen.add(match[1])
                found.append((match[1], request))
        return found

    def answer(self, id_: str, text: str) -> None:
        """Put the answer, then the sign that it is whole; the request may have had keys."""
        self._put({f"{id_}.ask": "", f"{id_}.answer": text, f"{id_}.done": ""})

    def beat(self, count: int) -> None:
        """Put a number."""
        self._put({"beat": f"{count}\n"})

    def _put(self, files: Mapping[str, str]) -> None:
        try:
            self._engine.put(self._container, self._folder, [tar_of(files, 0o644)])
        except DriverError:
            self._again = True  # the container is gone, or the engine: the step gives up

    def close(self) -> None:
        """Nothing is held open."""


def tar_of(files: Mapping[str, str], mode: int, folder: str = "") -> bytes:
    """A tar archive of small files, in a directory that everybody may write if one is named."""
    space = io.BytesIO()
    with tarfile.open(fileobj=space, mode="w") as tar:
        if folder:
            top = tarfile.TarInfo(folder)
            top.type, top.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(top)
        for name, text in files.items():
            data = text.encode()
            info = tarfile.TarInfo(posixpath.join(folder, name))
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
    return space.getvalue()


def places(engine: Archives, container: str) -> Callable[[str, Callable[[], bool]], ContainerPlace]:
    """What a desk needs to serve a container's step."""

    def place(cwd: str, stopped: Callable[[], bool]) -> ContainerPlace:
        del stopped  # pieces are watched, and the engine's calls have time limits
        return ContainerPlace(engine, container, cwd)

    return place
