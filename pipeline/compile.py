"""Compile one stage of a pipeline file to the `StageSpec` an agent runs.

Source: drone-runner-docker's compiler (reference: pipeline format, sections 0, 2, 3.2, 3.3, 4, 6
and 8) and drone-runner-exec (section 9). Secrets stay names until `with_secrets`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, cast

from pipeline import auths, lint, plan, settings
from pipeline.conditions import NEVER, subject
from pipeline.document import File, Pipeline, SecretRef, Step, find, parse
from pipeline.environ import environ as drone_environ
from pipeline.environ import git, refreshed
from pipeline.errors import PipelineError, Problem
from pipeline.facts import Facts
from pipeline.resources import VolumeDef
from pipeline.spec import (
    CLONE,
    SERVICE,
    Auth,
    CloneSpec,
    External,
    Mount,
    Netrc,
    Pairs,
    StageSpec,
    StepSpec,
    Strings,
    Volume,
    Workspace,
)
from pipeline.substitute import substitute

EXEC: Final = "exec"
WINDOWS: Final = "windows"
DEFAULT_BASE: Final = "/drone/src"
PULL_REQUEST: Final = "pull_request"

_FAST: Final = ("fast", "fast-fail", "fail-fast")
_PULLS: Final = ("always", "if-not-exists", "never")
_RESTRICTED: Final = ("/", "/etc", "/var")
_RESTRICTED_BELOW: Final = (
    "/etc/docker", "/var/run", "/proc", "/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/bin",
    "/mnt", "/mount", "/media", "/sys", "/dev",
)  # fmt: skip
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True, slots=True)
class Compiled:
    """A stage without secret values, and which secrets it wants.

    `wanted`: every name that any step, run or not, or image_pull_secrets refers to. `encrypted`:
    name to base64 of what the file itself holds; `external`: name to path and key in a store.
    """

    spec: StageSpec
    wanted: frozenset[str] = frozenset()
    encrypted: Mapping[str, str] = field(default_factory=dict)
    external: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    pull_secrets: Strings = ()


@dataclass(frozen=True, slots=True)
class _Stage:
    """What the steps of one stage have in common."""

    type: str
    os: str
    environment: Pairs
    #: Names that a step cannot set.
    fixed: frozenset[str]
    working_dir: str
    volumes: Mapping[str, Volume]


def compile_stage(
    text: str,
    *,
    file: str,
    facts: Facts,
    environ: Mapping[str, str],
    parsed: File | None = None,
) -> Compiled:
    """Substitute, parse, find the stage's pipeline, lint its steps and compile it.

    `environ` is the agent's plain environment. `parsed` saves the parsing where the caller has
    parsed `text` already; it is used only if nothing in `text` is to be substituted.

    Raises: PipelineError; the stage is an error then.
    """
    own = drone_environ(facts)
    if "${" in text or "$$" in text:
        values = {**environ, **own, **facts.build.params, **facts.stage.axis}
        document = parse(substitute(text, values, file), file)
    else:
        document = parsed or parse(text, file)
    pipeline = find(document, facts.stage.name, facts.stage.axis)
    if pipeline is None:
        message = f"there is no pipeline `{facts.stage.name}` in it (names are not substituted)"
        raise PipelineError([Problem("compile:no-pipeline", message, file=file)])
    lint.check_pipeline(document, pipeline, trusted=facts.repo.trusted)
    spec = _spec(pipeline, facts, environ, own)
    references = {ref.name for step in (*pipeline.services, *pipeline.steps) for ref in _refs(step)}
    return Compiled(
        spec=spec,
        wanted=frozenset((*references, *pipeline.image_pull_secrets)),
        # of two documents of one name the first counts
        encrypted={one.name: one.data for one in reversed(document.secrets) if one.data},
        external={
            one.name: (one.path, one.key)
            for one in reversed(document.secrets)
            if one.path or one.key
        },
        pull_secrets=pipeline.image_pull_secrets,
    )


def with_secrets(
    compiled: Compiled, values: Mapping[str, str], netrc: Netrc | None = None
) -> StageSpec:
    """The stage with its secrets: what the answer to a claim carries.

    A secret without a value is there and empty. Pull secrets become registry credentials, those
    listed later first; what they and `netrc` hold is masked. Where a value may yet be found the
    agent is told.
    """
    missing = {name for name in compiled.wanted if not values.get(name)}
    pull = [auths.parse(values.get(name, "")) for name in reversed(compiled.pull_secrets)]
    credentials: tuple[Auth, ...] = tuple(auth for found in pull for auth in found)
    in_steps = {name for step in compiled.spec.steps for name in step.secrets.values()}
    names = sorted(compiled.wanted - set(compiled.pull_secrets) | in_steps)
    hidden = [auth.password for auth in credentials] + ([netrc.password] if netrc else [])
    return replace(
        compiled.spec,
        secrets={name: values.get(name, "") for name in names},
        masks=tuple(dict.fromkeys(filter(None, hidden))),
        auths=credentials,
        netrc=netrc,
        external=tuple(
            External(name, *place)
            for name, place in sorted(compiled.external.items())
            if name in missing
        ),
        pull_secrets=tuple(name for name in reversed(compiled.pull_secrets) if name in missing),
    )


def _refs(step: Step) -> Iterator[SecretRef]:
    for value in (*step.environment.values(), *step.settings.values()):
        if isinstance(value, SecretRef):
            yield value


def _spec(
    pipeline: Pipeline, facts: Facts, environ: Mapping[str, str], own: Mapping[str, str]
) -> StageSpec:
    repo, build, stage = facts.repo, facts.build, facts.stage
    space = Workspace() if pipeline.type == EXEC else workspace(pipeline)
    environment = _environment(pipeline, facts, environ, own, space)
    volumes = {one.name: volume for one in pipeline.volumes if (volume := _volume(one))}
    shared = _Stage(
        type=pipeline.type,
        os=pipeline.os,
        environment=environment,
        fixed=refreshed(facts),
        working_dir="" if pipeline.type == EXEC else space.working_dir,
        volumes=volumes,
    )
    about = subject(repo, build, facts.system.host)
    running = [item for item in plan.steps(pipeline, about) if item.run != NEVER]
    return StageSpec(
        repo=repo.slug,
        build=build.number,
        stage=stage.number,
        name=stage.name,
        type=pipeline.type,
        attempt=stage.attempt,
        os=pipeline.os,
        arch=pipeline.arch,
        event=build.event,
        trusted=repo.trusted,
        fork=_from_fork(facts),
        source_repo=build.source_repo if build.event == PULL_REQUEST else "",
        private=repo.private,
        debug=build.debug,
        timeout_s=_timeout_s(pipeline, facts),
        environment=environment,
        workspace=space,
        clone=_clone(pipeline, facts),
        volumes=tuple(volumes.values()),
        steps=tuple(_step(item, number, shared) for number, item in enumerate(running, start=1)),
    )


def _timeout_s(pipeline: Pipeline, facts: Facts) -> float:
    """The repo's limit; a pipeline can only lower it."""
    limit = facts.repo.timeout_min * 60.0
    return min(pipeline.timeout, limit) if pipeline.timeout else limit


def _from_fork(facts: Facts) -> bool:
    source = facts.build.source_repo
    return facts.build.event == PULL_REQUEST and bool(source) and source != facts.repo.slug


def _clone(pipeline: Pipeline, facts: Facts) -> CloneSpec:
    repo, build, clone = facts.repo, facts.build, pipeline.clone
    return CloneSpec(
        disabled=clone.disable,
        remote=repo.git_http_url or repo.git_ssh_url,
        ref=build.ref,
        branch=build.target,
        sha=build.after,
        depth=clone.depth,
        retries=clone.retries,
        skip_verify=clone.skip_verify,
        trace=clone.trace,
    )


def _environment(
    pipeline: Pipeline,
    facts: Facts,
    environ: Mapping[str, str],
    own: Mapping[str, str],
    space: Workspace,
) -> dict[str, str]:
    """The variables of every step, lowest precedence first; empty ones are left out."""
    values = {
        **environ,
        **facts.build.params,
        **facts.stage.axis,
        **pipeline.environment,
        **{name: environ[name] for name in _PROXIES if name in environ},
        **own,
        **git(facts.build, skip_verify=pipeline.clone.skip_verify, trace=pipeline.clone.trace),
    }
    if pipeline.type != EXEC:
        values |= {
            "DRONE_WORKSPACE": space.working_dir,
            "DRONE_WORKSPACE_BASE": space.base,
            "DRONE_WORKSPACE_PATH": space.path,
            "DRONE_CARD_PATH": "/dev/stdout",
        }
    return {name: value for name, value in values.items() if value}


def workspace(pipeline: Pipeline) -> Workspace:
    """Where the workspace is mounted and steps work. Source: reference section 2 and 8."""
    base, path = pipeline.workspace.base, pipeline.workspace.path
    if pipeline.os != WINDOWS:
        return Workspace(*_places(base, path))
    drive, base, path = _without_drive(base, path)
    base, path, full = (place.replace("/", "\\") for place in _places(base, path))
    return Workspace(drive + base, path, drive + full)


def _places(base: str, path: str) -> tuple[str, str, str]:
    if not base:
        base, path = (path, "") if path.startswith("/") else (DEFAULT_BASE, path)
    full = _joined(base, path)
    if _restricted(full) or _restricted(base):
        return DEFAULT_BASE, "", DEFAULT_BASE
    return base, path, full


def _without_drive(base: str, path: str) -> tuple[str, str, str]:
    """The drive, and base and path of a workspace with slashes, as elsewhere."""
    base, path = base.replace("\\", "/"), path.replace("\\", "/")
    if not base and _DRIVE.match(path):
        base, path = path, ""
    drive = _DRIVE.match(base)
    return (drive[0], base[2:] or "/", path) if drive else ("c:", base, path)


def _joined(base: str, path: str) -> str:
    full = posixpath.normpath(f"{base}/{path}")
    return "/" + full.lstrip("/") if full.startswith("/") else full


def _restricted(path: str) -> bool:
    clean = _joined(path, "").lower()
    return clean in _RESTRICTED or any(
        clean == below or clean.startswith(below + "/") for below in _RESTRICTED_BELOW
    )


def _volume(source: VolumeDef) -> Volume | None:
    """A declared volume; None for a driver that is dropped silently."""
    if source.kind == "host":
        return Volume(source.name, "host", source.host_path)
    if source.kind != "temp":
        return None
    kind: Literal["memory", "temp"] = "memory" if source.medium == "memory" else "temp"
    return Volume(source.name, kind, size_limit_bytes=source.size_limit_bytes)


def _step(item: plan.PlannedStep, number: int, stage: _Stage) -> StepSpec:
    step = item.step
    if step is None:
        return StepSpec(number, item.name, CLONE, run=item.run)
    values, secrets = _variables(step, stage)
    detach = step.detach or item.kind == SERVICE
    by_image = detach and not step.commands
    return StepSpec(
        number=number,
        name=step.name,
        kind=item.kind,
        image=step.image,
        commands=step.commands,
        entrypoint=step.entrypoint,
        command=step.command,
        environment=values,
        secrets=secrets,
        depends_on=item.depends_on,
        run=item.run,
        failure=_failure(step.failure),
        detach=detach,
        pull=_pull(step.pull),
        privileged=step.privileged and stage.os != WINDOWS,
        volumes=tuple(one for one in step.volumes if one.name in stage.volumes),
        devices=tuple(one for one in step.devices if _is_device(one, stage.volumes)),
        dns=step.dns,
        dns_search=step.dns_search,
        extra_hosts=step.extra_hosts,
        network_mode=step.network_mode,
        shm_size_bytes=step.shm_size,
        mem_limit_bytes=step.mem_limit,
        memswap_limit_bytes=step.memswap_limit,
        user=step.user,
        working_dir=step.working_dir or ("" if by_image else stage.working_dir),
        timeout_s=step.timeout,
        retry=step.retry,
        reports=step.reports,
    )


def _variables(step: Step, stage: _Stage) -> tuple[dict[str, str], dict[str, str]]:
    """Variables with values and with names of secrets.

    An empty value stays only where it removes one of the stage's variables.
    """
    plugin, secrets = settings.variables(step.settings) if step.settings else ({}, {})
    values: dict[str, str] = {}
    for name, value in step.environment.items():
        if isinstance(value, SecretRef):
            secrets[name] = value.name
        else:
            values[name] = value
    values |= plugin
    shown = {
        name: value
        for name, value in values.items()
        if name not in stage.fixed and (value or name in stage.environment)
    }
    return shown, secrets


def _is_device(mount: Mount, volumes: Mapping[str, Volume]) -> bool:
    volume = volumes.get(mount.name)
    return volume is not None and volume.kind == "host" and volume.host_path.startswith("/dev/")


def _failure(word: str) -> Literal["fail", "ignore", "fast"]:
    if word in _FAST:
        return "fast"
    return "ignore" if word == "ignore" else "fail"


def _pull(word: str) -> Literal["", "always", "if-not-exists", "never"]:
    lower = word.lower()
    known = lower if lower in _PULLS else ""
    return cast('Literal["", "always", "if-not-exists", "never"]', known)
