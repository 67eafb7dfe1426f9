"""The command `artifact` of steps: files to and from the server's store, in bounded parts.

Like `cache` it is asked for by the program in the step (`agents.cache.shim`) and done here, so that
a step needs neither a token nor a way to the server.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import posixpath
import re
import secrets
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, BinaryIO, Final, cast
from urllib.parse import quote, urlencode

from agents.cache.archive import PIECE_BYTES, Pieces, watched
from agents.cache.backends.base import CacheError
from agents.cache.commands import Answer
from agents.cache.place import Place
from agents.link import Gate, Link, LinkError
from agents.options import Options
from pipeline.spec import from_json
from pipeline.wire import MAX_PART_BYTES, ArtifactFile, Artifacts, Kept

#: How long the server may be away while something is pushed or pulled.
AWAY_S: Final = 600.0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
USAGE: Final = """\
Usage: artifact COMMAND

  push PATH [--name NAME] [--expire 7d]   keep a file, or all files below a directory
  pull NAME [DEST]                        bring them here
  list [NAME]                             say what there is
"""
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN: Final = re.compile(r"(\d{1,9})([smhdw])")
_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0


class ArtifactError(Exception):
    """What was asked cannot be done; the message is for the step's log."""


class WrongUsage(ArtifactError):
    """A command that nobody understands."""


@dataclass(frozen=True, slots=True)
class Push:
    """What to push under which name; `expire_s` 0: as long as the server keeps any."""

    path: str
    name: str
    expire_s: int = 0


class Shelf:
    """The artifacts of a lease's build. Safe for threads: every command has its own connection."""

    def __init__(self, options: Options, gate: Gate, lease: str) -> None:
        self._options, self._gate = options, gate
        self._path = f"leases/{quote(lease, safe='')}/artifacts"

    def run(self, words: Sequence[str], place: Place, stopped: Callable[[], bool]) -> Answer:
        """Do one command; what goes wrong is in the answer."""
        answer = Answer()
        link = Link(self._options, self._gate)
        try:
            _Call(link, self._path, place, stopped, answer.out.append).run(words)
        except WrongUsage as fault:
            answer.err += [f"artifact: {fault}", *USAGE.splitlines()]
            answer.code = EXIT_USAGE
        except (ArtifactError, CacheError, LinkError, tarfile.TarError) as fault:
            answer.err.append(f"artifact: {fault}")
            answer.code = EXIT_FAILED
        finally:
            link.close()
        return answer


class _Call:
    """One command being done."""

    def __init__(
        self,
        link: Link,
        path: str,
        place: Place,
        stopped: Callable[[], bool],
        say: Callable[[str], object],
    ) -> None:
        self._link, self._path, self._place = link, path, place
        self._stopped, self._say = stopped, say

    def run(self, words: Sequence[str]) -> None:
        command, rest = (words[0] if words else ""), list(words[1:])
        if command == "push":
            self._push(parse_push(rest))
        elif command == "pull" and len(rest) in (1, 2):
            self._pull(rest[0].strip("/"), rest[1] if len(rest) == 2 else "")
        elif command == "list" and len(rest) < 2:
            for file in self._list(rest[0] if rest else ""):
                self._say(f"{file.path}  {_human(file.size_bytes)}")
        else:
            raise WrongUsage(
                f"cannot understand {' '.join(words)!r}" if words else "which command?"
            )

    # --- push ---

    def _push(self, wanted: Push) -> None:
        if not self._place.exists(wanted.path):
            raise ArtifactError(f"there is no {wanted.path}")
        pieces = watched(self._place.pack(wanted.path), self._stopped)
        source = cast("BinaryIO", io.BufferedReader(Pieces(pieces), PIECE_BYTES))
        root, count, size = None, 0, 0
        with tarfile.open(fileobj=source, mode="r|") as tar:
            for member in tar:
                root = member.name.rstrip("/") if root is None else root
                name = posixpath.join(wanted.name, member.name[len(root) :].lstrip("/"))
                file = tar.extractfile(member) if member.isreg() else None
                if file is not None:
                    self._push_file(name.rstrip("/"), member, file, wanted.expire_s)
                    count, size = count + 1, size + member.size
                elif not member.isdir():
                    self._say(f"Left out {member.name}, which is a link or no file.")
        if not count:
            raise ArtifactError(f"there are no files in {wanted.path}")
        files = "1 file" if count == 1 else f"{count} files"
        self._say(f"Pushed {wanted.name}: {files}, {_human(size)}.")

    def _push_file(
        self, name: str, member: tarfile.TarInfo, file: IO[bytes], expire_s: int
    ) -> None:
        upload, total, offset = secrets.token_hex(8), hashlib.sha256(), 0
        path = f"{self._path}/{quote(name)}"
        while True:
            data = file.read(MAX_PART_BYTES)
            total.update(data)
            query: dict[str, str | int] = {"upload": upload, "offset": offset}
            offset += len(data)
            if offset >= member.size:
                query |= {"size": member.size, "sha256": total.hexdigest()}
                query |= {"mode": member.mode & 0o777, "expire_s": expire_s}
            answer = self._ask("PUT", f"{path}?{urlencode(query)}", data)
            if from_json(Kept, json.loads(answer)).next != offset:
                raise ArtifactError(f"{name}: the server lost a part of it")
            if offset >= member.size:
                return

    # --- pull ---

    def _list(self, name: str) -> tuple[ArtifactFile, ...]:
        answer = self._ask("GET", f"{self._path}?{urlencode({'name': name})}")
        return from_json(Artifacts, json.loads(answer)).files

    def _pull(self, name: str, target: str) -> None:
        files = self._list(name)
        if not files:
            raise ArtifactError(f"there is no artifact {name} in this build")
        target = target.rstrip("/") or posixpath.basename(name)
        self._place.unpack(watched(self._tar(files, name, target), self._stopped))
        size = sum(file.size_bytes for file in files)
        count = "1 file" if len(files) == 1 else f"{len(files)} files"
        self._say(f"Pulled {name} to {target}: {count}, {_human(size)}.")

    def _tar(self, files: Sequence[ArtifactFile], name: str, target: str) -> Iterator[bytes]:
        """The files as a tar stream with the names they are to have."""
        for file in files:
            rest = file.path[len(posixpath.normpath(name)) :].lstrip("/")
            info = tarfile.TarInfo(posixpath.join(target, rest).rstrip("/"))
            info.size, info.mode, info.mtime = file.size_bytes, file.mode or 0o644, int(time.time())
            yield info.tobuf(tarfile.PAX_FORMAT, tarfile.ENCODING, "surrogateescape")
            yield from self._content(file)
            yield bytes(-file.size_bytes % tarfile.BLOCKSIZE)
        yield bytes(tarfile.RECORDSIZE)

    def _content(self, file: ArtifactFile) -> Iterator[bytes]:
        total, offset = hashlib.sha256(), 0
        while offset < file.size_bytes:
            data = self._ask("GET", f"{self._path}/{quote(file.path)}?offset={offset}")
            if not data or offset + len(data) > file.size_bytes:
                raise ArtifactError(f"{file.path} changed while it was pulled")
            total.update(data)
            offset += len(data)
            yield data
        if total.hexdigest() != file.sha256:
            raise ArtifactError(f"{file.path} changed while it was pulled")

    # --- the server ---

    def _ask(self, method: str, path: str, data: bytes = b"") -> bytes:
        """A call, tried again while the server is away and the step waits."""
        deadline, pause_s = time.monotonic() + AWAY_S, _PAUSE_S
        while True:
            try:
                return self._link.ask(method, path, data)
            except LinkError as fault:
                if fault.status not in (401, 408, 425, 429) and fault.status < 500:
                    raise
                reason: Exception = fault
            except (OSError, http.client.HTTPException) as fault:
                reason = fault
            if time.monotonic() > deadline:
                raise ArtifactError(f"the server cannot be reached: {reason}") from reason
            self._pause(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._stopped():
                raise ArtifactError("the step has ended")
            time.sleep(min(left, _PAUSE_S))


def parse_push(words: Sequence[str]) -> Push:
    """What the words after `push` mean. Raises: WrongUsage."""
    flags, paths, left = {"--name": "", "--expire": ""}, [], list(words)
    while left:
        word = left.pop(0)
        flag, equals, value = word.partition("=")
        flag = {"-n": "--name", "-e": "--expire"}.get(flag, flag)
        if flag not in flags:
            if word.startswith("-"):
                raise WrongUsage(f"push has no flag {word}")
            paths.append(word)
            continue
        if not equals and not left:
            raise WrongUsage(f"{flag} needs a value")
        flags[flag] = value if equals else left.pop(0)
    if len(paths) != 1:
        raise WrongUsage("push takes one path")
    return Push(
        paths[0], flags["--name"].strip("/") or _own_name(paths[0]), _span(flags["--expire"])
    )


def _own_name(path: str) -> str:
    """The name of what is pushed without one: its path, if that is below the step's folder."""
    name = posixpath.normpath(path)
    if name.startswith(("/", "..")):
        name = posixpath.basename(name)
    if name in ("", ".", ".."):
        raise WrongUsage(f"say with --name what {path} shall be called")
    return name


def _span(text: str) -> int:
    if not text:
        return 0
    match = _SPAN.fullmatch(text)
    if match is None or not int(match[1]):
        raise WrongUsage(f"--expire: expected a time such as 7d or 12h, got {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def _human(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
