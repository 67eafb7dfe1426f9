"""What a pipeline file says, as values: pipelines, steps, conditions, secrets.

Every field has the type the rule book gives it (reference: pipeline format, sections 1 to 3) and
its default for a key that is absent or null. `at` tells where keys stand: name of the key, or
`depends_on:NAME` for an item, to line and column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.spec import Mount, Retry, Strings

Position = tuple[int, int]
Positions = Mapping[str, Position]

PIPELINE: Final = "pipeline"
DEFAULT_NAME: Final = "default"


@dataclass(frozen=True, slots=True)
class Condition:
    """Globs for one property. Empty: matches anything."""

    include: Strings = ()
    exclude: Strings = ()

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude)


ANY: Final = Condition()
ONCE: Final = Retry()


@dataclass(frozen=True, slots=True)
class Conditions:
    """All of them must match."""

    action: Condition = ANY
    branch: Condition = ANY
    cron: Condition = ANY
    event: Condition = ANY
    instance: Condition = ANY
    paths: Condition = ANY
    ref: Condition = ANY
    repo: Condition = ANY
    status: Condition = ANY
    target: Condition = ANY


#: Alternatives, one of which must match; empty: always. Drone knows one alternative only.
When = tuple[Conditions, ...]


@dataclass(frozen=True, slots=True)
class SecretRef:
    """`{from_secret: name}`."""

    name: str


@dataclass(frozen=True, slots=True)
class VolumeDef:
    """A declared volume. `kind` is temp, host, or empty for a driver that Drone drops silently."""

    name: str = ""
    kind: str = ""
    host_path: str = ""
    medium: str = ""
    size_limit_bytes: int = 0
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """A step or a service. `missing`: a null entry in the list.

    `environment` maps to text or a secret. `settings` values are None, bool, int, float, str, list,
    dict (by YAML 1.1, section 1 "untyped values") or `SecretRef` at the top level; null settings
    are kept as None.
    """

    name: str = ""
    image: str = ""
    commands: Strings = ()
    entrypoint: Strings = ()
    command: Strings = ()
    environment: Mapping[str, str | SecretRef] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    when: When = ()
    depends_on: Strings = ()
    detach: bool = False
    failure: str = ""
    pull: str = ""
    privileged: bool = False
    volumes: tuple[Mount, ...] = ()
    devices: tuple[Mount, ...] = ()
    dns: Strings = ()
    dns_search: Strings = ()
    extra_hosts: Strings = ()
    network_mode: str = ""
    shm_size: int = 0
    mem_limit: int = 0
    memswap_limit: int = 0
    user: str = ""
    working_dir: str = ""
    shell: str = ""
    # extensions
    retry: Retry = ONCE
    timeout: float = 0.0
    reports: Strings = ()
    # where it stands
    missing: bool = False
    line: int = 0
    column: int = 0
    at: Positions = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Clone:
    disable: bool = False
    depth: int = 0
    retries: int = 0
    skip_verify: bool = False
    trace: bool = False


@dataclass(frozen=True, slots=True)
class Concurrency:
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Platform:
    """As written: the defaults linux and amd64 are `Pipeline.os` and `Pipeline.arch`."""

    os: str = ""
    arch: str = ""
    variant: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class WorkspaceDef:
    base: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One `kind: pipeline` document. `matrix` holds the points of its matrix, empty without one.

    `kind` differs from pipeline for a document of an unknown kind, which Drone takes for one.
    """

    name: str = DEFAULT_NAME
    type: str = "docker"
    kind: str = PIPELINE
    platform: Platform = Platform()
    node: Mapping[str, str] = field(default_factory=dict)
    trigger: When = ()
    depends_on: Strings = ()
    concurrency: Concurrency = Concurrency()
    clone: Clone = Clone()
    workspace: WorkspaceDef = WorkspaceDef()
    environment: Mapping[str, str] = field(default_factory=dict)
    image_pull_secrets: Strings = ()
    volumes: tuple[VolumeDef, ...] = ()
    services: tuple[Step, ...] = ()
    steps: tuple[Step, ...] = ()
    # extensions
    matrix: tuple[Mapping[str, str], ...] = ()
    timeout: float = 0.0
    # where it stands
    line: int = 0
    column: int = 0
    at: Positions = field(default_factory=dict, compare=False, repr=False)

    @property
    def os(self) -> str:
        return self.platform.os or "linux"

    @property
    def arch(self) -> str:
        return self.platform.arch or "amd64"


@dataclass(frozen=True, slots=True)
class Secret:
    """`kind: secret`: encrypted `data`, or a `get` path and key of an external store."""

    name: str = ""
    data: str = ""
    path: str = ""
    key: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Signature:
    hmac: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Cron:
    """Parsed, without effect: schedules live on the server."""

    name: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Registry:
    """Parsed, without effect."""

    name: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Template:
    """`kind: template`: the server replaces the whole file before it is parsed again."""

    load: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0


Document = Pipeline | Secret | Signature | Cron | Registry | Template
