"""The server's settings, read from the environment: the only place that reads it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Env:
    """What the environment says; the table of all settings is in docs/settings.md."""

    data_dir: Path
    bind: str
    database_url: str
    redis_url: str
    public_url: str
    secret_key: str
    debug: bool


def read(environ: dict[str, str] | None = None) -> Env:
    """Read the settings, with their defaults."""
    env = dict(os.environ) if environ is None else environ
    data_dir = Path(env.get("CISERVER_DATA_DIR", "data")).resolve()
    bind = env.get("CISERVER_BIND", "127.0.0.1:8000")
    return Env(
        data_dir=data_dir,
        bind=bind,
        database_url=env.get("CISERVER_DATABASE_URL", ""),
        redis_url=env.get("CISERVER_REDIS_URL", f"redis+socket://{data_dir}/redis.sock"),
        public_url=env.get("CISERVER_PUBLIC_URL", f"http://{bind}"),
        secret_key=env.get("CISERVER_SECRET_KEY", "insecure-until-ci-up-makes-one"),
        debug=env.get("CISERVER_DEBUG", "") == "true",
    )
