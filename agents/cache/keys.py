"""Keys: how they are written, what they match, and which ones lock files stand for. Pure.

Source: Semaphore's cache CLI (reference: agents, section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import re2

from agents.cache.backends.base import CacheError, Entry

MAX_KEY_CHARS: Final = 400


@dataclass(frozen=True, slots=True)
class Kind:
    """A tree that a lock file describes; `~` is the step's home."""

    file: str
    prefix: str
    path: str


#: In the order they are looked for.
KINDS: Final = (
    Kind(".nvmrc", "nvm", "~/.nvm"),
    Kind("Gemfile.lock", "gems", "vendor/bundle"),
    Kind("package-lock.json", "node-modules", "node_modules"),
    Kind("yarn.lock", "yarn-cache", "~/.cache/yarn"),
    Kind("yarn.lock", "node-modules", "node_modules"),
    Kind("mix.lock", "mix-deps", "deps"),
    Kind("mix.lock", "mix-build", "_build"),
    Kind("requirements.txt", "requirements", ".pip_cache"),
    Kind("composer.lock", "composer", "vendor"),
    Kind("pom.xml", "maven", ".m2"),
    Kind("pom.xml", "maven-target", "target"),
    Kind("Podfile.lock", "pods", "Pods"),
    Kind("go.sum", "go", "~/go/pkg/mod"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """A detected tree: its path, the key to store it under, the keys to restore it by."""

    file: str
    path: str
    key: str
    wanted: tuple[str, ...]


def branch(given: Mapping[str, str]) -> str:
    """The branch that keys carry: a pull request's own, the branch, else master."""
    names = ("SEMAPHORE_GIT_PR_BRANCH", "SEMAPHORE_GIT_BRANCH")
    return next((given[name] for name in names if given.get(name)), "master")


def detect(checksum: Callable[[str], str | None], given: Mapping[str, str]) -> list[Found]:
    """What the lock files at hand stand for; `checksum` gives a file's MD5, None without it."""
    sums: dict[str, str | None] = {}
    found = []
    home, here = given.get("HOME", "/root").rstrip("/"), branch(given)
    others = [name for name in (given.get("DRONE_REPO_BRANCH", ""), "master", "main") if name]
    for kind in KINDS:
        if kind.file not in sums:
            sums[kind.file] = checksum(kind.file)
        mark = sums[kind.file]
        if mark is None:
            continue
        path = home + kind.path[1:] if kind.path.startswith("~") else kind.path
        key = clean(f"{kind.prefix}-{here}-{mark}")
        falls = (clean(f"{kind.prefix}-{name}") for name in (here, *others))
        found.append(
            Found(kind.file, path, key, tuple(dict.fromkeys((key, *map(_literal, falls)))))
        )
    return found


def _literal(text: str) -> str:
    return str(re2.escape(text))


def split(text: str) -> list[str]:
    """Keys of a comma separated list, each as it is stored. Raises: CacheError without any."""
    found = [clean(part.strip()) for part in text.split(",") if part.strip()]
    if not found:
        raise CacheError("the key is empty")
    return found


def clean(key: str) -> str:
    """A key as it is stored: without slashes. Raises: CacheError for one no store can hold."""
    key = key.replace("/", "-")
    if len(key) > MAX_KEY_CHARS:
        raise CacheError(f"the key is longer than {MAX_KEY_CHARS} characters: {key[:60]}…")
    if key in (".", "..") or not key.isprintable():
        raise CacheError(f"{key!r} cannot be a key")
    return key


Place = tuple[str, Entry]


def choose(key: str, entries: Sequence[Place]) -> Place | None:
    """The (scope, entry) a key stands for: that name, else the newest one the key is found in.

    The key is a regular expression then; one that is none is taken letter by letter. Of scopes the
    first ones go first for an exact name.
    """
    for place in entries:
        if place[1].name == key:
            return place
    try:
        pattern = re2.compile(key)
    except re2.error:
        pattern = re2.compile(_literal(key))
    hits = [place for place in entries if pattern.search(place[1].name)]
    return max(hits, key=lambda place: place[1].stored, default=None)


ORDERS: Final[Mapping[str, Callable[[Entry], float]]] = {
    "STORE_TIME": lambda entry: entry.stored,
    "SIZE": lambda entry: entry.size,
    "ACCESS_TIME": lambda entry: entry.accessed,
}


def ordered(entries: Iterable[Entry], order: str) -> list[Entry]:
    """Newest stored, biggest or latest used first. Raises: CacheError for another order."""
    value = ORDERS.get(order)
    if value is None:
        raise CacheError(f"cannot sort by {order!r}: there are {', '.join(ORDERS)}")
    return sorted(entries, key=value, reverse=True)


def to_evict(entries: Iterable[Entry], need: int, limit: int, order: str) -> list[Entry]:
    """What has to go so that `need` more bytes fit: the last ones of the order."""
    left = ordered(entries, order)
    total = sum(entry.size for entry in left)
    gone = []
    while left and total + need > limit:
        gone.append(left.pop())
        total -= gone[-1].size
    return gone
