"""What `ci-agent check` looks at: everything an agent needs, before it is started."""

from __future__ import annotations

import email.utils
import http.client
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from agents.drivers.base import DriverError
from agents.hooks import missing_files
from agents.host import existing
from agents.link import Gate, Link, LinkError
from agents.options import Options
from agents.state import identity_in
from pipeline.routing import redis_py_url
from pipeline.wire import Join, Joined

Status = Literal["ok", "warning", "failed", "skipped"]
#: Leases and logs need no clock; certificates and what people read do.
_CLOCK_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table."""

    name: str
    status: Status
    text: str


_TOKEN_OK: Final = Finding("token", "ok", "the server knows it")
#: What the server calls a refusal that is not the token's fault.
_OF_THE_NAME: Final = ("agent:name", "agent:bad-name", "agent:disabled")


def check(options: Options, *, version: str, offline: bool) -> Iterator[Finding]:
    """Look at one thing after another. `offline`: at nothing but the configuration."""
    given = len(options.sources)
    yield Finding("configuration", "ok", f"{given} options given, the others have their defaults")
    if offline:
        return
    joined, findings = _server(options, version)
    yield from findings
    yield _redis(options.redis_url or (joined.broker_url if joined else ""), options)
    yield _docker(options)
    yield _disk(options)
    yield from _scripts(options)


def _server(options: Options, version: str) -> tuple[Joined | None, list[Finding]]:
    """Ask the server whether it would take this agent in."""
    link = Link(options, Gate())
    link.token = options.token
    known = identity_in(options.state_dir, options.server)
    hello = Join(
        name=options.name or (known.name if known else "check"),
        version=version,
        os=options.os,
        arch=options.arch,
        variant=options.variant,
        kernel=options.kernel,
        labels=options.labels,
        types=options.types,
        capacity=options.concurrency,
        previous=known.id if known else 0,
        previous_token=known.token if known else "",
    )
    try:
        joined = link.post("agents?check=1", hello, Joined, patient=False)
    except LinkError as fault:
        return None, [_answers(options), *_refusal(fault), _clock(link)]
    except (OSError, http.client.HTTPException) as fault:
        text = f"{options.server} cannot be reached: {fault or type(fault).__name__}"
        skipped = [Finding(name, "skipped", "no server") for name in ("token", "clock")]
        return None, [Finding("server", "failed", text), *skipped]
    finally:
        link.close()
    return joined, [_answers(options), _TOKEN_OK, _clock(link)]


def _answers(options: Options) -> Finding:
    return Finding("server", "ok", f"{options.server} answers")


def _refusal(fault: LinkError) -> list[Finding]:
    """Why the server would not take this agent in: because of its token or of its name."""
    if fault.code in _OF_THE_NAME:
        return [_TOKEN_OK, Finding("name", "failed", str(fault))]
    return [Finding("token", "failed", str(fault))]


def _clock(link: Link) -> Finding:
    try:
        theirs = email.utils.parsedate_to_datetime(link.server_date).timestamp()
    except (TypeError, ValueError):
        return Finding("clock", "skipped", "the server does not say the time")
    off = time.time() - theirs
    if abs(off) > _CLOCK_S:
        return Finding("clock", "warning", f"this host's is {off:+.0f} s from the server's")
    return Finding("clock", "ok", "as the server's")


def _redis(url: str, options: Options) -> Finding:
    if not url:
        return Finding("redis", "skipped", "the server did not say where it is")
    import redis

    from agents.broker import secured

    where = url.rpartition("@")[2]
    address = redis_py_url(secured(url, options))
    try:
        client = redis.Redis.from_url(address, socket_connect_timeout=5, socket_timeout=5)
        try:
            client.ping()
        finally:
            client.close()
    except (redis.RedisError, OSError, ValueError) as fault:
        return Finding("redis", "failed", f"{where}: {fault}")
    return Finding("redis", "ok", f"{where} answers")


def _docker(options: Options) -> Finding:
    if "docker" not in options.types:
        return Finding("docker", "skipped", f"isolation {options.isolation} needs no engine")
    from agents.drivers.docker import DockerDriver

    driver = DockerDriver(options)
    try:
        driver.check()
        info = driver.engine.info()
    except DriverError as fault:
        if options.isolation == "docker":
            return Finding("docker", "failed", str(fault))
        return Finding("docker", "warning", f"{fault}; only exec stages will run here")
    text = f"engine {info.get('ServerVersion')} with {info.get('NCPU')} CPUs"
    return Finding("docker", "ok", text)


def _disk(options: Options) -> Finding:
    for folder in (options.state_dir, options.work_dir):
        place = existing(folder)
        if not os.access(place, os.W_OK):
            return Finding("disk", "failed", f"{folder} cannot be written")
    free = shutil.disk_usage(existing(options.work_dir)).free
    text = f"{free / 2**30:.1f} GiB free in {options.work_dir}"
    if free < options.disk_free_min:
        return Finding("disk", "failed", f"{text}, less than disk-free-min")
    return Finding("disk", "ok", text)


def _scripts(options: Options) -> Iterator[Finding]:
    """Hooks and files that are to be there when a stage comes; nothing where none are named."""
    hooks = (options.pre_job_hook_path, options.post_job_hook_path, options.shutdown_hook_path)
    gone = [path for path in hooks if path and not Path(path).exists()]
    if gone:
        yield Finding("hooks", "failed", f"{', '.join(gone)}: not there")
    missing = missing_files(options)
    if missing:
        status: Status = "failed" if options.fail_on_missing_files else "warning"
        yield Finding("files", status, f"{', '.join(missing)}: not there")
