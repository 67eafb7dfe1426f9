"""The rules a parsed file must keep: those of the file (manifest) and those of its steps.

Manifest errors stop the build, step errors the stage. Source: reference section 1, lint tables.
"""

from __future__ import annotations

import difflib
import posixpath
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Final

from pipeline.document import PIPELINE, File, Pipeline, Step, point_name
from pipeline.errors import ERROR, WARNING, PipelineError, Problem
from pipeline.plan import CLONE_NAME

OSES: Final = ("linux", "windows")
ARCHES: Final = ("arm", "arm64", "amd64", "ppc64le", "s390x")
#: The types that our agents run; others are parsed, planned and wait for a runner of that type.
TYPES: Final = ("docker", "exec")
MAX_NAME_BYTES: Final = 100
#: Above so many names no nearest one is looked for.
MAX_NEAR: Final = 100

_RESERVED: Final = frozenset({"workspace", "_workspace", "_docker_socket"})
_TRUSTED_KEYS: Final = (
    "privileged", "devices", "dns", "dns_search", "extra_hosts", "network_mode", "shm_size",
)  # fmt: skip


def lint(file: File, *, trusted: bool = False) -> list[Problem]:
    """Every error and warning of a file, by line. `trusted` is the repo's flag."""
    problems = [*file.warnings, *file.deferred, *manifest(file), *_idle(file)]
    for pipeline in file.pipelines:
        problems += lint_pipeline(file, pipeline, trusted=trusted)
    return sorted(problems, key=lambda one: (one.line, one.column, one.code))


def check_manifest(file: File) -> None:
    """Check what the server refuses when a hook comes in.

    Raises: PipelineError with every manifest error.
    """
    problems = list(manifest(file))
    if problems:
        raise PipelineError(problems)


def check_sense(file: File) -> None:
    """Check for slips with which a file runs nothing at all. In Drone such a build is a success.

    Raises: PipelineError.
    """
    problems = list(_idle(file))
    if problems:
        raise PipelineError(problems)


def check_pipeline(file: File, pipeline: Pipeline, *, trusted: bool) -> None:
    """Check what stops the stage of a pipeline.

    Raises: PipelineError with every error of its steps, services and volumes.
    """
    found = [*file.deferred, *lint_pipeline(file, pipeline, trusted=trusted)]
    problems = [one for one in found if one.severity != WARNING]
    if problems:
        raise PipelineError(problems)


def manifest(file: File) -> Iterator[Problem]:
    """Errors of the file as a whole: names, dependencies between pipelines, platforms."""
    seen: set[str] = set()
    stages: set[str] = set()
    for pipeline in file.pipelines:
        if pipeline.name in seen:
            message = f"two pipelines are called `{pipeline.name}`: give each its own name"
            yield _at(file, pipeline, "name", "manifest:duplicate-name", message)
        yield from _dependencies(file, pipeline, seen)
        seen.add(pipeline.name)
        yield from _points(file, pipeline, stages)
        if pipeline.type == "docker" and pipeline.kind == PIPELINE:
            yield from _platform(file, pipeline)


def _idle(file: File) -> Iterator[Problem]:
    """The slips, where no pipeline has anything to run."""
    if any(one.steps or one.services for one in file.pipelines):
        return
    for slip in file.warnings:
        if slip.code == "config:unknown-kind" or _meant(slip, "steps"):
            message = f"there is nothing to run: {slip.message}"
            yield replace(slip, code="manifest:nothing-to-run", message=message, severity=ERROR)


def _dependencies(file: File, pipeline: Pipeline, seen: set[str]) -> Iterator[Problem]:
    for name in pipeline.depends_on:
        if name == pipeline.name:
            message = f"pipeline `{name}` depends on itself"
        elif name not in seen:
            message = f"`depends_on` names `{name}`, but no pipeline above is called so"
            message += _near(name, seen)
        else:
            continue
        yield _at(file, pipeline, f"depends_on:{name}", "manifest:dependency", message)


def _points(file: File, pipeline: Pipeline, stages: set[str]) -> Iterator[Problem]:
    names = [point_name(pipeline.name, point) for point in pipeline.matrix]
    for name in names:
        if name in stages:
            message = f"two points of a matrix make the stage `{name}`"
            yield _at(file, pipeline, "matrix", "manifest:duplicate-name", message)
        stages.add(name)
    if pipeline.name in stages and not names:
        message = f"a point of a matrix is called `{pipeline.name}` too"
        yield _at(file, pipeline, "name", "manifest:duplicate-name", message)


def _platform(file: File, pipeline: Pipeline) -> Iterator[Problem]:
    for value, known, what in (
        (pipeline.os, OSES, "os"),
        (pipeline.arch, ARCHES, "architecture"),
    ):
        if value not in known and not (pipeline.matrix and "${" in value):
            message = f"unsupported {what} `{value}`: it must be one of {', '.join(known)}"
            yield _at(file, pipeline, "platform", "manifest:platform", message)


def lint_pipeline(file: File, pipeline: Pipeline, *, trusted: bool) -> Iterator[Problem]:
    """Errors and warnings of the steps, services and volumes of a pipeline."""
    if pipeline.type not in TYPES:
        message = f"type `{pipeline.type}`: agents run {' and '.join(TYPES)}; its steps are unread"
        yield _at(file, pipeline, "type", "pipeline:type", message, WARNING)
        return
    exec_ = pipeline.type == "exec"
    if exec_ and pipeline.services:
        message = "`services` have no effect in a pipeline of type exec"
        yield _at(file, pipeline, "services", "pipeline:no-effect", message, WARNING)
    services = () if exec_ else pipeline.services
    yield from _names(file, pipeline, services)
    for step in (*services, *pipeline.steps):
        if not step.missing:
            yield from _exec_step(file, step) if exec_ else _step(file, step, trusted)
    if not exec_:
        yield from _volumes(file, pipeline, trusted)


def _names(file: File, pipeline: Pipeline, services: tuple[Step, ...]) -> Iterator[Problem]:
    """Names and dependencies, in the order clone, services, steps."""
    seen: set[str] = set() if pipeline.clone.disable else {CLONE_NAME}
    cloned = not pipeline.clone.disable or CLONE_NAME in {step.name for step in pipeline.steps}
    for step in (*services, *pipeline.steps):
        if step.missing:
            yield _step_at(file, step, "", "step:missing", "an empty entry in the list of steps")
            continue
        yield from _name(file, step, seen)
        for name in step.depends_on:
            if name == CLONE_NAME and not cloned and len(step.depends_on) == 1:
                continue
            if name == step.name:
                message = f"step `{name}` depends on itself"
            elif name not in seen:
                message = f"`depends_on` names `{name}`, but nothing above is called so"
                message += _near(name, seen)
            else:
                continue
            yield _step_at(file, step, f"depends_on:{name}", "step:dependency", message)
        seen.add(step.name)


def _name(file: File, step: Step, seen: set[str]) -> Iterator[Problem]:
    if not step.name:
        yield _step_at(file, step, "name", "step:name", "a step needs a `name`")
    elif len(step.name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        message = f"the name is longer than {MAX_NAME_BYTES} bytes"
        yield _step_at(file, step, "name", "step:name", message)
    elif step.name in seen:
        message = f"the name `{step.name}` is taken"
        message += ": cloning is a step of that name" if step.name == CLONE_NAME else ""
        yield _step_at(file, step, "name", "step:duplicate-name", message)


def _step(file: File, step: Step, trusted: bool) -> Iterator[Problem]:
    if not step.image:
        message = f"step `{step.name}` needs an `image`" if step.name else "a step needs an `image`"
        yield _step_at(file, step, "image", "step:image", message)
    if not trusted:
        for key in _TRUSTED_KEYS:
            if getattr(step, key):
                message = f"`{key}` is for trusted repos only"
                yield _step_at(file, step, key, "step:trusted", message)
    for mount in step.volumes:
        if mount.name in _RESERVED:
            message = f"the volume name `{mount.name}` is reserved"
            yield _step_at(file, step, "volumes", "step:volume", message)
        if _clean(mount.path).startswith("/run/drone"):
            message = f"nothing can be mounted at `{mount.path}`"
            yield _step_at(file, step, "volumes", "step:volume", message)


def _exec_step(file: File, step: Step) -> Iterator[Problem]:
    if step.image:
        message = f"step `{step.name}` has an `image`, but the pipeline is of type exec"
        yield _step_at(file, step, "image", "step:image", message)
    slip = None if step.commands else _slip(file, step)
    if slip:
        message = f"step `{step.name}` runs nothing; line {slip.line}: {slip.message}"
        yield _step_at(file, step, "name", "step:commands", message)


def _slip(file: File, step: Step) -> Problem | None:
    """The key in a step that was to be `commands`."""
    later = [one.line for each in file.pipelines for one in each.steps if one.line > step.line]
    lines = range(step.line, min(later, default=sys.maxsize))
    said = (one for one in file.warnings if _meant(one, "commands"))
    return next((one for one in said if one.line in lines), None)


def _meant(problem: Problem, key: str) -> bool:
    """Whether a warning about an unknown key takes it for this one."""
    return f"did you mean `{key}`?" in problem.message


def _volumes(file: File, pipeline: Pipeline, trusted: bool) -> Iterator[Problem]:
    for volume in pipeline.volumes:
        if not volume.name:
            message = "a volume needs a `name`"
        elif volume.name in _RESERVED:
            message = f"the volume name `{volume.name}` is reserved"
        elif not trusted and volume.kind == "host":
            message = f"volume `{volume.name}`: `host` is for trusted repos only"
        elif not trusted and volume.kind == "temp" and volume.medium == "memory":
            message = f"volume `{volume.name}`: `medium: memory` is for trusted repos only"
        else:
            continue
        yield Problem("step:volume", message, volume.line, volume.column, file=file.file)


def _clean(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/")) if path.startswith("/") else path


def _near(name: str, known: Collection[str]) -> str:
    if len(name) > 100 or len(known) > MAX_NEAR:
        return ""
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean `{found[0]}`?" if found else ""


def _at(
    file: File, pipeline: Pipeline, key: str, code: str, message: str, severity: str = "error"
) -> Problem:
    line, column = pipeline.at.get(key, (pipeline.line, pipeline.column))
    return Problem(code, message, line, column, severity, file.file)


def _step_at(file: File, step: Step, key: str, code: str, message: str) -> Problem:
    line, column = step.at.get(key, (step.line, step.column))
    return Problem(code, message, line, column, file=file.file)
