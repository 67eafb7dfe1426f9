"""The commands of `cache`: what is asked, done over a store and a place, told in lines.

Source: Semaphore's cache CLI (reference: agents, section 4). Ours: store splits keys at commas,
size limits hold on every store, failures have exit codes of their own.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agents.cache import archive, keys
from agents.cache.backends.base import Backend, CacheError, Entry
from agents.cache.place import MAX_FILE_BYTES, Place
from agents.cache.settings import Scope, Settings

#: Exit codes: a question was answered with no; something failed; so did a question.
EXIT_NO: Final = 1
EXIT_FAILED: Final = 1
EXIT_UNANSWERED: Final = 2
QUESTIONS: Final = ("has_key", "is_not_empty")
USAGE: Final = """\
Usage: cache COMMAND

  store [KEY[,KEY…] PATH] [--cleanup-by STORE_TIME|SIZE|ACCESS_TIME]
  restore [KEY[,KEY…]]
  has_key KEY          is_not_empty
  list [--sort-by STORE_TIME|SIZE|ACCESS_TIME]
  delete KEY           clear
  usage                checksum FILE

store and restore without a key look for lock files.
"""


class WrongUsage(CacheError):
    """A command that nobody understands."""


@dataclass(slots=True)
class Answer:
    """What a command printed and its exit code."""

    code: int = 0
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Context:
    """What a command works on; `given` are the step's variables."""

    settings: Settings
    backend: Callable[[], Backend]
    scope: Scope
    place: Place
    given: Mapping[str, str]
    stopped: Callable[[], bool] = lambda: False


def run(words: Sequence[str], context: Context | CacheError) -> Answer:
    """Run one command; failures are in the answer. Never raises for what a step can cause."""
    answer = Answer()
    name = words[0] if words else ""
    try:
        command = _COMMANDS.get(name)
        if command is None:
            raise WrongUsage(f"there is no command {name!r}" if name else "which command?")
        if isinstance(context, CacheError):
            raise context
        command(_Call(context, answer), list(words[1:]))
    except WrongUsage as fault:
        answer.err += [f"cache: {fault}", *USAGE.splitlines()]
        answer.code = EXIT_UNANSWERED if name in QUESTIONS else EXIT_FAILED
    except CacheError as fault:
        answer.err.append(f"cache {name}: {fault}")
        answer.code = _failed(name, context)
    return answer


def _failed(name: str, context: Context | CacheError) -> int:
    if name in QUESTIONS:
        return EXIT_UNANSWERED
    if isinstance(context, CacheError):
        return EXIT_FAILED
    said = context.given.get("CACHE_FAIL_ON_ERROR", "").lower()
    lenient = said == "false" if said else not context.settings.fail_on_error
    return 0 if lenient and name in ("store", "restore") else EXIT_FAILED


class _Call:
    """One command being run."""

    def __init__(self, context: Context, answer: Answer) -> None:
        self._context, self._answer = context, answer
        self._scope = context.scope
        self._store = context.backend()

    def _say(self, text: str) -> None:
        self._answer.out.append(text)

    # --- store ---

    def store(self, words: list[str]) -> None:
        order, words = _order(words, ("-c", "--cleanup-by"))
        if not words:
            for found in self._detect():
                self._store_one([found.key], found.path, order)
            return
        if len(words) != 2:
            raise WrongUsage("store takes a key and a path, or nothing")
        self._store_one(keys.split(words[0]), words[1], order)

    def _store_one(self, names: list[str], path: str, order: str) -> None:
        known = {entry.name for _, entry in self._readable()}
        new = [name for name in dict.fromkeys(names) if name not in known]
        for name in names:
            if name not in new:
                self._say(f"Key '{name}' already exists.")
        if not new:
            return
        if not self._context.place.exists(path):
            self._say(f"'{path}' doesn't exist locally.")
            return
        started = time.monotonic()
        with tempfile.NamedTemporaryFile(dir=self._store.spool(), prefix="store-") as file:
            pieces = archive.watched(self._context.place.pack(path), self._context.stopped)
            whole = archive.write(pieces, file.file, self._context.settings.method)
            file.flush()
            for name in new:
                self._put(name, path, Path(file.name), whole, order)
            self._measure("store", Path(file.name).stat().st_size, started)

    def _put(self, name: str, path: str, file: Path, whole: int, order: str) -> None:
        size = file.stat().st_size
        limit = self._context.settings.size
        if limit and size > limit:
            self._say(
                f"'{path}' is too large for the cache: {_human(size)} packed, "
                f"the limit is {_human(limit)}."
            )
            return
        if limit:
            self._make_room(size, limit, order)
        if self._store.put(self._scope.own, name, file):
            self._say(f"Stored '{path}' as '{name}': {_human(whole)}, {_human(size)} packed.")
        else:
            self._say(f"Key '{name}' already exists.")

    def _make_room(self, size: int, limit: int, order: str) -> None:
        pool = self._scope.pool
        for entry in keys.to_evict(self._store.entries(pool), size, limit, order):
            self._store.remove(pool, entry.name)
            self._say(f"Removed '{entry.name}' ({_human(entry.size)}) to make room.")

    # --- restore ---

    def restore(self, words: list[str]) -> None:
        if len(words) > 1:
            raise WrongUsage("restore takes keys separated by commas, or nothing")
        if words:
            self._restore_first(keys.split(words[0]))
            return
        for found in self._detect():
            self._restore_first(list(found.wanted))

    def _restore_first(self, wanted: list[str]) -> None:
        entries = self._readable()
        for key in wanted:
            place = keys.choose(key, entries)
            if place is not None and self._unpack(*place):
                return
            self._say(f"MISS: '{key}'.")

    def _unpack(self, scope: str, entry: Entry) -> bool:
        started = time.monotonic()
        stream = self._store.open(scope, entry.name)
        if stream is None:  # removed since it was listed
            return False
        with stream:
            pieces = archive.watched(archive.read(stream), self._context.stopped)
            try:
                self._context.place.unpack(pieces)
            except archive.Broken:
                if scope == self._scope.own:  # else it would be in the way of a good one
                    self._store.remove(scope, entry.name)
                self._measure("restore", entry.size, started, corrupt=True)
                raise
        self._say(f"HIT: '{entry.name}', {_human(entry.size)} restored.")
        self._measure("restore", entry.size, started)
        return True

    # --- questions ---

    def has_key(self, words: list[str]) -> None:
        name = keys.clean(_only(words, "has_key"))
        found = any(entry.name == name for _, entry in self._readable())
        self._say(f"Key '{name}' {'exists' if found else 'does not exist'} in the cache.")
        self._answer.code = 0 if found else EXIT_NO

    def is_not_empty(self, words: list[str]) -> None:
        _none(words, "is_not_empty")
        self._answer.code = 0 if self._readable() else EXIT_NO

    def list_(self, words: list[str]) -> None:
        order, words = _order(words, ("-s", "--sort-by"))
        _none(words, "list")
        found = keys.ordered((entry for _, entry in self._readable()), order)
        rows = [("NAME", "SIZE", "STORED", "ACCESSED")]
        rows += [
            (entry.name, _human(entry.size), _when(entry.stored), _when(entry.accessed))
            for entry in found
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            cells = (text.ljust(width) for text, width in zip(row, (*widths, 0), strict=True))
            self._say("  ".join(cells))

    def usage(self, words: list[str]) -> None:
        _none(words, "usage")
        used = sum(entry.size for entry in self._store.entries(self._scope.pool))
        limit = self._context.settings.size
        self._say(f"FREE SPACE: {_human(max(limit - used, 0)) if limit else '(unlimited)'}")
        self._say(f"USED SPACE: {_human(used)}")

    def checksum(self, words: list[str]) -> None:
        path = _only(words, "checksum")
        found = self._checksum(path)
        if found is None:
            raise CacheError(f"there is no file {path}")
        self._say(found)

    # --- removal: of one's own only ---

    def delete(self, words: list[str]) -> None:
        name = keys.clean(_only(words, "delete"))
        known = {entry.name for entry in self._store.entries(self._scope.own)}
        self._store.remove(self._scope.own, name)
        self._say(f"Key '{name}' is deleted." if name in known else f"Key '{name}' doesn't exist.")

    def clear(self, words: list[str]) -> None:
        _none(words, "clear")
        for entry in self._store.entries(self._scope.own):
            self._store.remove(self._scope.own, entry.name)
        self._say("Deleted all caches.")

    # --- what several need ---

    def _readable(self) -> list[keys.Place]:
        return [
            (scope, entry) for scope in self._scope.reads for entry in self._store.entries(scope)
        ]

    def _detect(self) -> list[keys.Found]:
        found = keys.detect(self._checksum, self._context.given)
        if not found:
            self._say("Nothing to do: no lock file of a known kind is here.")
        for one in dict.fromkeys(one.file for one in found):
            self._say(f"Detected {one}.")
        return found

    def _checksum(self, path: str) -> str | None:
        pieces = self._context.place.read(path)
        if pieces is None:
            return None
        total, size = hashlib.md5(usedforsecurity=False), 0
        for piece in pieces:
            total.update(piece)
            size += len(piece)
            if size > MAX_FILE_BYTES:
                raise CacheError(f"{path} is too large for a checksum")
        return total.hexdigest()

    def _measure(self, command: str, size: int, started: float, *, corrupt: bool = False) -> None:
        """Source: the original's line for its metrics collector."""
        given, settings = self._context.given, self._context.settings
        if settings.metrics or given.get("SEMAPHORE_TOOLBOX_METRICS_ENABLED") == "true":
            tags = f"server={settings.bucket},user={settings.project},command={command}"
            took = int((time.monotonic() - started) * 1000)
            self._answer.metrics.append(
                f"usercache,{tags},corrupt={int(corrupt)} size={size},duration={took}"
            )


_COMMANDS: Final[Mapping[str, Callable[[_Call, list[str]], None]]] = {
    "store": _Call.store,
    "restore": _Call.restore,
    "has_key": _Call.has_key,
    "is_not_empty": _Call.is_not_empty,
    "list": _Call.list_,
    "delete": _Call.delete,
    "clear": _Call.clear,
    "usage": _Call.usage,
    "checksum": _Call.checksum,
}


def _order(words: list[str], flags: tuple[str, str]) -> tuple[str, list[str]]:
    """The value of a sort flag, and the other words."""
    order, rest = "STORE_TIME", []
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if word in flags:
            if not left:
                raise WrongUsage(f"{word} needs a value")
            order = left.pop(0)
        elif equals and name == flags[1]:
            order = value
        else:
            rest.append(word)
    if order not in keys.ORDERS:
        raise WrongUsage(f"cannot sort by {order!r}: there are {', '.join(keys.ORDERS)}")
    return order, rest


def _only(words: list[str], command: str) -> str:
    if len(words) != 1:
        raise WrongUsage(f"{command} takes one argument")
    return words[0]


def _none(words: list[str], command: str) -> None:
    if words:
        raise WrongUsage(f"{command} takes no argument")


def _human(size: float) -> str:
    for unit in ("B", "K", "M", "G"):
        if size < 1024:
            return f"{size:.0f}{unit}" if unit == "B" else f"{size:.1f}{unit}"
        size /= 1024
    return f"{size:.1f}T"


def _when(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
