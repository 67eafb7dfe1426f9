"""Which store a step's cache is in, and which part of it the step may read and write."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from agents.cache.backends.base import CacheError
from agents.hooks import HookError, environment
from agents.option_table import Options
from pipeline.spec import StageSpec

_PREFIX: Final = "SEMAPHORE_CACHE_"
#: What a step may set to use keys of its own, and what else its requests carry.
STEP_VARIABLES: Final = (
    "HOME",
    "SEMAPHORE_PROJECT_ID",
    "SEMAPHORE_GIT_BRANCH",
    "SEMAPHORE_GIT_PR_BRANCH",
    "DRONE_REPO_BRANCH",
    "CACHE_FAIL_ON_ERROR",
    "CACHE_SIZE",
    "SEMAPHORE_TOOLBOX_METRICS_ENABLED",
    "SEMAPHORE_CACHE_BACKEND",
    "SEMAPHORE_CACHE_S3_BUCKET",
    "SEMAPHORE_CACHE_S3_URL",
    "SEMAPHORE_CACHE_S3_KEY",
    "SEMAPHORE_CACHE_S3_SECRET",
    "SEMAPHORE_CACHE_ARCHIVE_METHOD",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """A store and how to use it. `size`: bytes that archives of one project may take, 0: no limit.

    `method` is zstd or gzip. Without `key` S3 is used with the credentials of the agent's host.
    """

    backend: str
    folder: Path = Path()
    bucket: str = ""
    url: str = ""
    key: str = ""
    secret: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    region: str = ""
    profile: str = ""
    use_instance_profile: bool = False
    size: int = 0
    method: str = "zstd"
    project: str = ""
    fail_on_error: bool = True
    metrics: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """Folders of the store: where a stage writes, where it reads, where room is made for it."""

    own: str
    reads: tuple[str, ...]
    pool: str


def of_agent(options: Options) -> Settings:
    """The agent's own store: its options, or the variables of the original among `env-vars`."""
    try:
        given = environment(options)
    except HookError as fault:
        raise CacheError(str(fault)) from fault

    def text(name: str, variable: str) -> str:
        value = getattr(options, name)
        return str(value if name in options.sources else given.get(variable, value))

    bucket = text("cache_s3_bucket", f"{_PREFIX}S3_BUCKET")
    backend = text("cache_backend", f"{_PREFIX}BACKEND") or ("s3" if bucket else "directory")
    folder = options.cache_dir
    instance = text("cache_use_ec2_instance_profile", f"{_PREFIX}USE_EC2_INSTANCE_PROFILE")
    return Settings(
        backend=backend,
        folder=options.state_dir / "cache" if folder == Path() else folder,
        bucket=bucket,
        url=text("cache_s3_url", f"{_PREFIX}S3_URL"),
        key=text("cache_s3_key", f"{_PREFIX}S3_KEY"),
        secret=text("cache_s3_secret", f"{_PREFIX}S3_SECRET"),
        profile=text("cache_aws_profile", f"{_PREFIX}AWS_PROFILE"),
        use_instance_profile=instance.lower() == "true",
        size=options.cache_size,
        method=_method(text("cache_archive_method", f"{_PREFIX}ARCHIVE_METHOD")),
        project=text("cache_project_id", "SEMAPHORE_PROJECT_ID"),
        fail_on_error=options.cache_fail_on_error,
        metrics=options.cache_metrics_enabled,
    )


def of_step(agent: Settings, given: Mapping[str, str]) -> Settings | None:
    """The store a step names with keys of its own; None if it uses the agent's.

    The agent's keys are never used for a store that a step chose. Raises: CacheError.
    """
    backend = given.get(f"{_PREFIX}BACKEND", "")
    if not backend or (backend == agent.backend and backend != "s3"):
        return None
    if backend != "s3":
        text = f"{_PREFIX}BACKEND is {backend}, which is not supported yet: use s3"
        raise CacheError(f"{text}, or leave it to the agent")
    bucket = given.get(f"{_PREFIX}S3_BUCKET", "")
    key = given.get(f"{_PREFIX}S3_KEY", "") or given.get("AWS_ACCESS_KEY_ID", "")
    secret = given.get(f"{_PREFIX}S3_SECRET", "") or given.get("AWS_SECRET_ACCESS_KEY", "")
    if agent.backend == "s3" and bucket in ("", agent.bucket) and key in ("", agent.key):
        return None
    if not (bucket and key and secret):
        raise CacheError(
            f"{_PREFIX}BACKEND is s3: the step must give {_PREFIX}S3_BUCKET, {_PREFIX}S3_KEY and "
            f"{_PREFIX}S3_SECRET as well, the agent's keys are not for other stores"
        )
    project = given.get("SEMAPHORE_PROJECT_ID", "")
    if not project:
        raise CacheError("SEMAPHORE_PROJECT_ID is not set")
    kib = given.get("CACHE_SIZE", "")
    return replace(
        agent,
        backend="s3",
        bucket=bucket,
        url=given.get(f"{_PREFIX}S3_URL", ""),
        key=key,
        secret=secret,
        session_token=given.get("AWS_SESSION_TOKEN", ""),
        region=given.get("AWS_REGION", "") or given.get("AWS_DEFAULT_REGION", ""),
        size=int(kib) * 1024 if kib.isdigit() else agent.size,
        method=_method(given.get(f"{_PREFIX}ARCHIVE_METHOD", "") or agent.method),
        project=project,
    )


def _method(text: str) -> str:
    """The original's methods all make tar.gz."""
    return "zstd" if text in ("", "zstd") else "gzip"


def project_id(spec: StageSpec, chosen: str = "") -> str:
    """The name of a repository's part of the store, unlike that of any other repository."""
    if chosen:
        return chosen
    mark = hashlib.sha256(spec.repo.encode()).hexdigest()[:8]
    return f"{_plain(spec.repo)}-{mark}"


def scope(spec: StageSpec, project: str) -> Scope:
    """A pull request from a fork reads all of its repository's and writes to a part of its own."""
    if not spec.fork:
        return Scope(project, (project,), project)
    pool = f"{project}.forks"
    # facts of the server, not variables: those could be set by the pipeline
    ref = spec.clone.ref or f"build-{spec.build}"
    mark = hashlib.sha256(ref.encode()).hexdigest()[:8]
    own = f"{pool}/{_plain(ref)}-{mark}"
    return Scope(own, (own, project), pool)


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:80].strip(".-") or "x"


def exports(spec: StageSpec, options: Options) -> dict[str, str]:
    """Variables that keys are made of, by the original's names."""
    facts = spec.environment
    found = {
        "SEMAPHORE_PROJECT_ID": project_id(spec, options.cache_project_id),
        "SEMAPHORE_GIT_BRANCH": facts.get("DRONE_TARGET_BRANCH", "") or spec.clone.branch,
    }
    if spec.event == "pull_request":
        found["SEMAPHORE_GIT_PR_BRANCH"] = facts.get("DRONE_SOURCE_BRANCH", "")
    return {name: value for name, value in found.items() if value}
