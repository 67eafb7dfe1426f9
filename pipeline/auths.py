"""Registry credentials out of Docker's configuration file; shared with agents.

Source: drone/runner-go's registry/auths (reference: pipeline format, section 7).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from pipeline.spec import Auth

DOCKER_HUB: Final = "docker.io"


def parse(text: str) -> tuple[Auth, ...]:
    """The credentials of a Docker configuration file's `auths`, in its order.

    `auth` wins over user name and password. What cannot be read is left out.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    entries = data.get("auths") if isinstance(data, Mapping) else None
    if not isinstance(entries, Mapping):
        return ()
    found = (_auth(key, value) for key, value in entries.items())
    return tuple(auth for auth in found if auth)


def find(auths: Iterable[Auth], host: str) -> Auth | None:
    """The first credentials for a registry host."""
    wanted = registry_host(host)
    return next((auth for auth in auths if auth.host == wanted), None)


def registry_host(address: str) -> str:
    """The host (and port) of a registry's address; both names of Docker's hub are one."""
    try:
        host = urlsplit(address).netloc if "://" in address else address.split("/")[0]
    except ValueError:
        host = address
    host = host.rpartition("@")[2].lower()
    return DOCKER_HUB if host in ("index.docker.io", "registry-1.docker.io") else host


def _auth(key: str, value: Any) -> Auth | None:
    if not isinstance(value, Mapping):
        return None
    user, password, packed = (value.get(name) for name in ("username", "password", "auth"))
    if isinstance(packed, str) and packed:
        user, _, password = _unpack(packed).partition(":")
    if not isinstance(user, str) or not isinstance(password, str) or not (user or password):
        return None
    return Auth(registry_host(key), user, password)


def _unpack(packed: str) -> str:
    try:
        return base64.b64decode(packed).decode().strip("\0")
    except (binascii.Error, ValueError):
        return ""
