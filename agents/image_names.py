"""Names of container images: registry, repository and tag, as Docker reads them."""

from __future__ import annotations

from typing import Final

from agents.patterns import matches

DOCKER_HUB: Final = "docker.io"
_HUB_NAMES: Final = frozenset({"index.docker.io", "registry-1.docker.io", "hub.docker.com"})


def registry(image: str) -> str:
    """The registry's host: `docker.io` for `golang`, `example.com:5000` for what it holds."""
    return _split(image)[0]


def canonical_host(host: str) -> str:
    """A registry's bare host from a name or URL; Docker Hub has one name."""
    host = host.partition("://")[2] or host
    host = host.partition("/")[0].lower()
    return DOCKER_HUB if host in _HUB_NAMES else host


def repository(image: str) -> str:
    """The name without tag or digest, as people write it: `golang`, `plugins/docker`."""
    host, path, _ = _split(image)
    if host == DOCKER_HUB:
        return path.removeprefix("library/")
    return f"{host}/{path}"


def expand(image: str) -> str:
    """The full name: `golang` is `docker.io/library/golang:latest`."""
    host, path, tag = _split(image)
    return f"{host}/{path}{tag}"


def is_latest(image: str) -> bool:
    """Whether the tag is `latest`, written or not."""
    return _split(image)[2] == ":latest"


def matches_image(image: str, pattern: str) -> bool:
    """Whether `pattern` (a glob) allows `image`; a pattern without a tag allows every tag."""
    tagged = ":" in pattern.rpartition("/")[2]
    name = repository(image)
    if tagged:
        tag = _split(image)[2]
        return matches(name + tag, pattern) or matches(expand(image), pattern)
    return matches(name, pattern) or matches(expand(image).rpartition(_split(image)[2])[0], pattern)


def _split(image: str) -> tuple[str, str, str]:
    """Host, path and `:tag` or `@digest`."""
    name, at, digest = image.partition("@")
    first, slash, rest = name.partition("/")
    if slash and (any(mark in first for mark in ".:") or first == "localhost"):
        host, path = canonical_host(first), rest
    else:
        host, path = DOCKER_HUB, name
    path, colon, tag = path.partition(":")
    if host == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    if at:
        return host, path, f"@{digest}"
    return host, path, f":{tag}" if colon else ":latest"
