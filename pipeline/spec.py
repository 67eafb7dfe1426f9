"""What an agent is told to run: a frozen, complete description of one stage attempt.

The server compiles a `StageSpec` (`pipeline.compile`), it travels in the answer to a claim, and
the agent
needs nothing else: no pipeline file, no server setting. Secret values stand only in
`StageSpec.secrets`
and in `Auth`; environment entries name them. JSON keys are the field names; readers ignore unknown
keys
and leave out what has its default.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

SPEC_VERSION: Final = 1

CLONE: Final = "clone"
SERVICE: Final = "service"
STEP: Final = "step"

ALWAYS: Final = "always"
ON_SUCCESS: Final = "on-success"
ON_FAILURE: Final = "on-failure"

Strings = tuple[str, ...]
Pairs = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume of the stage (`name`) mounted into a step at `path`."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Volume:
    """`temp`: lives as long as the stage; `memory` is a tmpfs per container; `host`: a path of the
    host."""

    name: str
    kind: Literal["temp", "memory", "host"] = "temp"
    host_path: str = ""
    size_limit_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Retry:
    """Run a step again: at most `count` more times, on these outcomes, after `backoff_s` doubled
    each time."""

    count: int = 0
    on: Strings = ("failure", "error")
    backoff_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One item of the stage's graph, in the order clone, services, steps; numbers start at 1.

    `depends_on` holds names of other items of this spec only: steps that `when` left out are
    already
    bypassed. `environment` and `secrets` (variable -> secret name) are complete: settings, DRONE_
    and CI_
    variables that do not change while the stage runs are in them or in `StageSpec.environment`. An
    empty value in `environment` removes the stage's variable: nothing empty is set but secrets.
    `pipeline.scripts` says what the agent adds when the step starts. `working_dir`: empty is the
    image's own (docker) or the checkout (exec).
    """

    number: int
    name: str
    kind: str = STEP
    image: str = ""
    commands: Strings = ()
    entrypoint: Strings = ()
    command: Strings = ()
    environment: Pairs = field(default_factory=dict)
    secrets: Pairs = field(default_factory=dict)
    depends_on: Strings = ()
    run: str = ON_SUCCESS
    failure: Literal["fail", "ignore", "fast"] = "fail"
    detach: bool = False
    pull: Literal["", "always", "if-not-exists", "never"] = ""
    privileged: bool = False
    volumes: tuple[Mount, ...] = ()
    devices: tuple[Mount, ...] = ()
    dns: Strings = ()
    dns_search: Strings = ()
    extra_hosts: Strings = ()
    network_mode: str = ""
    shm_size_bytes: int = 0
    mem_limit_bytes: int = 0
    memswap_limit_bytes: int = 0
    user: str = ""
    working_dir: str = ""
    timeout_s: float = 0.0
    retry: Retry = Retry()
    reports: Strings = ()


@dataclass(frozen=True, slots=True)
class External:
    """A secret that the pipeline file says is in an external store: its name in the file, and path
    and key there."""

    name: str
    path: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Netrc:
    """Credentials for git over HTTP."""

    machine: str
    login: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CloneSpec:
    """How the agent gets the commit. `disabled`: there is no clone step at all.

    `ref` decides the way (tag, pull request, branch); an empty `sha` means the branch's head.
    """

    disabled: bool = False
    remote: str = ""
    ref: str = ""
    branch: str = ""
    sha: str = ""
    depth: int = 0
    retries: int = 0
    skip_verify: bool = False
    trace: bool = False


@dataclass(frozen=True, slots=True)
class Workspace:
    """`base` is where the volume is mounted, `path` is joined to it, `working_dir` is the
    result."""

    base: str = "/drone/src"
    path: str = ""
    working_dir: str = "/drone/src"


@dataclass(frozen=True, slots=True)
class Auth:
    """Credentials of one container registry; `host` is its bare host name."""

    host: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One attempt at one stage. Times are in seconds, sizes in bytes.

    `secrets` maps names to values, `masks` are further values to hide in logs. `environment` is
    for every
    step, below the step's own. `repo` is the slug, `trusted` the repo's flag, `fork` whether the
    build
    comes from another repository (cache scopes and exec permission depend on it), `source_repo`
    where the commits of a pull request are. `external` and
    `pull_secrets` are left to the agent: secrets without a value here that the file says where to
    find, and names of those among image_pull_secrets, those that count first in front.
    """

    repo: str
    build: int
    stage: int
    name: str = "default"
    type: str = "docker"
    attempt: int = 1
    os: str = "linux"
    arch: str = "amd64"
    event: str = ""
    trusted: bool = False
    fork: bool = False
    source_repo: str = ""
    private: bool = False
    debug: bool = False
    #: How long a failed step is kept for whoever wants to look into it, counted anew with every key
    #: that is pressed, and how long at most; 0: not at all.
    debug_s: float = 0.0
    debug_max_s: float = 0.0
    timeout_s: float = 3600.0
    environment: Pairs = field(default_factory=dict)
    workspace: Workspace = Workspace()
    clone: CloneSpec = CloneSpec()
    netrc: Netrc | None = None
    volumes: tuple[Volume, ...] = ()
    steps: tuple[StepSpec, ...] = ()
    secrets: Pairs = field(default_factory=dict, repr=False)
    masks: Strings = field(default=(), repr=False)
    auths: tuple[Auth, ...] = field(default=(), repr=False)
    external: tuple[External, ...] = ()
    pull_secrets: Strings = ()
    labels: Pairs = field(default_factory=dict)
    v: int = SPEC_VERSION


Value = TypeVar("Value")


def to_json(value: Any) -> Any:
    """JSON data (dicts, lists, scalars) of a spec or wire dataclass, without fields at their
    defaults."""
    if dataclasses.is_dataclass(value):
        return {
            f.name: to_json(item)
            for f in dataclasses.fields(value)
            if (item := getattr(value, f.name)) != _default(f) or f.name == "v"
        }
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(cls: type[Value], data: Any) -> Value:
    """Build a spec or wire dataclass from JSON data.

    Unknown keys are ignored, absent ones take their default.

    Raises: ValueError naming the class and key for a missing or ill-typed field.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{cls.__name__}: expected an object, got {type(data).__name__}")
    values = {}
    for name, (reader, required) in _readers(cls).items():
        if name in data:
            try:
                values[name] = reader(data[name])
            except (TypeError, ValueError) as fault:
                raise ValueError(f"{cls.__name__}.{name}: {fault}") from fault
        elif required:
            raise ValueError(f"{cls.__name__}.{name}: missing")
    return cls(**values)


def _default(f: dataclasses.Field[Any]) -> Any:
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    return f.default


_READERS: dict[type, dict[str, tuple[typing.Callable[[Any], Any], bool]]] = {}


def _readers(cls: type) -> dict[str, tuple[typing.Callable[[Any], Any], bool]]:
    found = _READERS.get(cls)
    if found is None:
        hints = typing.get_type_hints(cls)
        found = _READERS[cls] = {
            f.name: (
                _reader(hints[f.name]),
                f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING,
            )
            for f in dataclasses.fields(cls)
        }
    return found


def _reader(hint: Any) -> typing.Callable[[Any], Any]:
    """A function that checks and converts one JSON value to `hint`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return lambda value: from_json(hint, value)  # type: ignore[arg-type]
    if origin in (typing.Union, types.UnionType):
        inner = _reader(next(arg for arg in args if arg is not type(None)))
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        item = _reader(args[0])
        return lambda value: tuple(item(one) for one in _list(value))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        item = _reader(args[1])
        return lambda value: {str(key): item(one) for key, one in _map(value).items()}
    if origin is Literal:
        return lambda value: _one_of(value, args)
    return _scalar(hint)


def _scalar(hint: Any) -> typing.Callable[[Any], Any]:
    if hint is Any:
        return lambda value: value
    accepted: tuple[type, ...] = (int, float) if hint is float else (hint,)

    def read(value: Any) -> Any:
        if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
            raise ValueError(f"expected {hint.__name__}, got {type(value).__name__}")
        return value

    return read


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list, got {type(value).__name__}")
    return value


def _map(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected an object, got {type(value).__name__}")
    return value


def _one_of(value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"expected one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value
