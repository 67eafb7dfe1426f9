"""The rules a parsed file must keep: those of the file (manifest) and those of its steps.

Manifest errors stop the build, step errors the stage. Source: reference section 1, lint tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pipeline.document import File, Pipeline
from pipeline.errors import PipelineError, Problem

OSES: Final = ("linux", "windows")
ARCHES: Final = ("arm", "arm64", "amd64", "ppc64le", "s390x")


def check_manifest(file: File) -> None:
    """Check what the server refuses when a hook comes in.

    Raises: PipelineError with every manifest error.
    """
    problems = list(manifest(file))
    if problems:
        raise PipelineError(problems)


def manifest(file: File) -> Iterator[Problem]:
    """Errors of the file as a whole: names, dependencies between pipelines, platforms."""
    seen: set[str] = set()
    for pipeline in file.pipelines:
        if pipeline.name in seen:
            yield _at(file, pipeline, "name", "manifest:duplicate-name",
                      f"two pipelines are called `{pipeline.name}`")  # fmt: skip
        seen.add(pipeline.name)
        yield from _dependencies(file, pipeline, seen)
        if pipeline.type == "docker":
            yield from _platform(file, pipeline)


def _dependencies(file: File, pipeline: Pipeline, seen: set[str]) -> Iterator[Problem]:
    for name in pipeline.depends_on:
        if name == pipeline.name:
            message = f"`{name}` depends on itself"
        elif name not in seen:
            message = f"`depends_on` names `{name}`, which no pipeline above is called"
        else:
            continue
        yield _at(file, pipeline, f"depends_on:{name}", "manifest:dependency", message)


def _platform(file: File, pipeline: Pipeline) -> Iterator[Problem]:
    if pipeline.os not in OSES:
        message = f"unsupported os `{pipeline.os}`: one of {', '.join(OSES)}"
        yield _at(file, pipeline, "platform", "manifest:platform", message)
    if pipeline.arch not in ARCHES:
        message = f"unsupported architecture `{pipeline.arch}`: one of {', '.join(ARCHES)}"
        yield _at(file, pipeline, "platform", "manifest:platform", message)


def _at(file: File, pipeline: Pipeline, key: str, code: str, message: str) -> Problem:
    line, column = pipeline.at.get(key, (pipeline.line, pipeline.column))
    return Problem(code, message, line, column, file=file.file)
