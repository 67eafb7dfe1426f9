"""What values of options mean together and on this host, before anything connects: what is wrong.

Each check gives the first fault it finds as (key, source, sentence).
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from agents import host
from agents.option_table import Options, entries

Fault = tuple[str, str, str]
Check = Callable[[Options], Iterator[Fault]]

_HTTP: Final = ("http", "https")
_REDIS: Final = ("redis", "rediss", "redis+socket", "sentinel")
_ENGINES: Final = ("unix", "tcp", "http", "https", "npipe")
#: Options that are addresses, and how they may begin.
_ADDRESSES: Final = {
    "server": _HTTP,
    "http-proxy": _HTTP,
    "https-proxy": _HTTP,
    "redis-url": _REDIS,
    "docker-host": _ENGINES,
    "spot-endpoint": _HTTP,
    "env-plugin-endpoint": _HTTP,
    "secret-plugin-endpoint": _HTTP,
    "registry-plugin-endpoint": _HTTP,
    "cache-s3-url": _HTTP,
}
_MOUNT: Final = re.compile(r"[^:]+:[^:]+(:r[ow])?")
_DEVICE: Final = re.compile(r"/[^:]*(:/[^:]*(:[rwm]{1,3})?)?")
_CPU_SET: Final = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_WORD: Final = re.compile(r"[A-Za-z0-9_.-]+")
_HIGHEST_PORT: Final = 65535


def faults(options: Options) -> Iterator[Fault]:
    """Everything that is wrong with options that are right one by one."""
    for check in _CHECKS:
        yield from check(options)


def _source(options: Options, key: str) -> str:
    return options.sources.get(key.replace("-", "_"), "default")


def _required(options: Options) -> Iterator[Fault]:
    for entry in entries().values():
        if entry.key in ("server", "token") and not getattr(options, entry.field):
            ways = f"give --{entry.key}, {entry.variable} or the file key {entry.key}"
            yield entry.key, "not set", ways


def _life(options: Options) -> Iterator[Fault]:
    sources = options.sources
    if options.job_id and not options.disconnect_after_job:
        yield "job-id", sources["job_id"], "needs disconnect-after-job"
    if options.disconnect_after_job and options.concurrency > 1 and "concurrency" in sources:
        source = sources["concurrency"]
        yield "concurrency", source, "contradicts disconnect-after-job: one at a time"
    if options.backoff > options.backoff_max:
        source = sources.get("backoff_max", sources.get("backoff", "default"))
        yield "backoff-max", source, "is less than backoff"


def _pairs(options: Options) -> Iterator[Fault]:
    sources = options.sources
    if bool(options.client_cert) != bool(options.client_key):
        key, other = ("client-cert", "client-key")
        if not options.client_cert:
            key, other = other, key
        yield key, _source(options, key), f"needs {other}"
    if options.cache_backend == "s3" and not options.cache_s3_bucket:
        yield "cache-backend", sources["cache_backend"], "needs cache-s3-bucket"
    if bool(options.cache_s3_key) != bool(options.cache_s3_secret):
        given = "cache_s3_key" if options.cache_s3_key else "cache_s3_secret"
        yield "cache-s3-key", sources[given], "needs cache-s3-secret, and it this"
    if 0 < options.memory_swap < options.memory:
        yield "memory-swap", sources["memory_swap"], "is less than memory"


def _addresses(options: Options) -> Iterator[Fault]:
    for key, schemes in _ADDRESSES.items():
        text = getattr(options, key.replace("-", "_"))
        whole = text if "://" in text or not key.endswith("-proxy") else f"http://{text}"
        if text and not _is_address(whole, schemes):
            yield (
                key,
                _source(options, key),
                f"expected an address ({schemes[0]}://…), got {text!r}",
            )


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        in_range = parts.port is None or parts.port > 0
    except ValueError:
        return False
    there = parts.hostname or (parts.scheme not in _HTTP and parts.path)
    return parts.scheme in schemes and in_range and bool(there) and not re.search(r"\s", text)


def _shapes(options: Options) -> Iterator[Fault]:
    for key in ("volumes", "files"):
        for item in getattr(options, key):
            if not _MOUNT.fullmatch(item):
                yield key, _source(options, key), f"expected HOST:CONTAINER, got {item!r}"
    for item in options.devices:
        if not _DEVICE.fullmatch(item):
            yield "devices", _source(options, "devices"), f"expected HOST[:CONTAINER], got {item!r}"
    for key in ("os", "arch"):
        if not _WORD.fullmatch(getattr(options, key)):
            text = f"expected a word such as linux or amd64, got {getattr(options, key)!r}"
            yield key, _source(options, key), text
    if options.cpu_set and not _CPU_SET.fullmatch(options.cpu_set):
        yield "cpu-set", _source(options, "cpu-set"), f"expected 0-1,3, got {options.cpu_set!r}"
    bind = re.fullmatch(r".*:(\d{1,5})", options.http_bind)
    if options.http_bind and (bind is None or int(bind[1]) > _HIGHEST_PORT):
        source = _source(options, "http-bind")
        yield "http-bind", source, f"expected HOST:PORT, got {options.http_bind!r}"


def _certificates(options: Options) -> Iterator[Fault]:
    if options.ca_file:
        try:
            ssl.create_default_context(cafile=options.ca_file)
        except OSError as fault:
            text = f"{options.ca_file} holds no certificate: {_reason(fault)}"
            yield "ca-file", _source(options, "ca-file"), text
    if options.client_cert and options.client_key:
        try:
            ssl.create_default_context().load_cert_chain(options.client_cert, options.client_key)
        except OSError as fault:
            text = f"cannot be used with client-key: {_reason(fault)}"
            yield "client-cert", _source(options, "client-cert"), text


def _host(options: Options) -> Iterator[Fault]:
    """What must be right on this machine."""
    if options.exec_user:
        try:
            host.account(options.exec_user)
        except ValueError as fault:
            yield "exec-user", _source(options, "exec-user"), str(fault)
    if options.env_file:
        try:
            Path(options.env_file).read_text()
        except (OSError, UnicodeDecodeError) as broken:
            text = f"cannot read {options.env_file}: {_reason(broken)}"
            yield "env-file", _source(options, "env-file"), text
    yield from _folders(options)
    yield from _engine_files(options)


def _folders(options: Options) -> Iterator[Fault]:
    for key in ("state-dir", "work-dir"):
        place = host.existing(getattr(options, key.replace("-", "_")).expanduser().absolute())
        if key.replace("-", "_") in options.sources and not (
            place.is_dir() and os.access(place, os.W_OK)
        ):
            yield key, _source(options, key), f"cannot write in {place}"
    if options.log_file and not os.access(Path(options.log_file).absolute().parent, os.W_OK):
        text = f"cannot write in {Path(options.log_file).absolute().parent}"
        yield "log-file", _source(options, "log-file"), text


def _engine_files(options: Options) -> Iterator[Fault]:
    if options.docker_tls_verify and options.docker_cert_path:
        files = ("ca.pem", "cert.pem", "key.pem")
        gone = [name for name in files if not (Path(options.docker_cert_path) / name).is_file()]
        if gone:
            text = f"there is no {', '.join(gone)} in {options.docker_cert_path}"
            yield "docker-cert-path", _source(options, "docker-cert-path"), text
    if options.docker_config:
        try:
            data = json.loads(Path(options.docker_config).read_bytes())
        except (OSError, ValueError) as broken:
            data, reason = None, _reason(broken)
        else:
            reason = "expected an object"
        if not isinstance(data, dict):
            text = f"{options.docker_config} is not a config.json: {reason}"
            yield "docker-config", _source(options, "docker-config"), text


def _reason(fault: Exception) -> str:
    return getattr(fault, "strerror", None) or str(fault)


_CHECKS: Final[tuple[Check, ...]] = (
    _required,
    _life,
    _pairs,
    _addresses,
    _shapes,
    _certificates,
    _host,
)
