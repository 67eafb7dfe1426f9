"""A pipeline file as a build would see it, without a server."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from builds.evaluate.expand import expand
from builds.evaluate.program import Limits
from ciserver.cli.files import read
from ciserver.cli.lint import text as finding
from ciserver.cli.terminal import Refused
from pipeline.convert import modernise
from pipeline.errors import PipelineError
from pipeline.facts import BuildFacts, RepoFacts
from pipeline.plan import Plan, PlannedStage
from pipeline.verdict import decode

IMPORTS = Limits(imports=100)


def modern(path: str, repo: RepoFacts, build: BuildFacts) -> str:
    """The text that would be parsed: programs evaluated, templates loaded, old formats converted.

    Templates and imported files are looked for beside the file.

    Raises: PipelineError; Refused for a file that cannot be read.
    """
    ((name, data),) = read([path])
    folder = Path(path).parent
    text = expand(
        decode(data, name),
        name,
        repo,
        build,
        template=lambda wanted: _beside(folder, wanted),
        imported=lambda wanted: _beside(Path(), wanted),
        limits=IMPORTS,
        show=lambda line: typer.echo(line, err=True),
    )
    return modernise(text, name)


def _beside(folder: Path, name: str) -> str | None:
    try:
        return (folder / name).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def fail(fault: PipelineError) -> typer.Exit:
    """Print what is wrong with a file; the exit to raise."""
    for problem in fault.problems:
        typer.echo(finding(problem), err=True)
    return typer.Exit(1)


def pairs(values: Iterable[str], option: str) -> dict[str, str]:
    """KEY=VALUE arguments, cut at the first `=`.

    Raises: Refused for one without.
    """
    found = {}
    for value in values:
        key, sign, rest = value.partition("=")
        if not sign or not key:
            raise Refused(f"{option} {value}: expected KEY=VALUE")
        found[key] = rest
    return found


def stage(plan: Plan, name: str, file: str) -> PlannedStage:
    """The stage of that name, or else the only one, or the one called default.

    Raises: Refused, naming those that there are.
    """
    names = [one.name for one in plan.stages]
    wanted = name or (names[0] if len(names) == 1 else "default")
    found = next((one for one in plan.stages if wanted in (one.name, one.pipeline)), None)
    if found is None:
        raise Refused(f"{file}: {_why_not(plan, name, names)}")
    return found


def _why_not(plan: Plan, name: str, names: list[str]) -> str:
    reasons = {one.name: one.reason for one in plan.skipped}
    if name in reasons:
        return f"pipeline {name} is not chosen: {reasons[name]}"
    if not names:
        said = "; ".join(f"{one}: {reason}" for one, reason in reasons.items())
        return f"no pipeline is chosen: {said or 'there is none'}"
    known = ", ".join(names)
    if name:
        return f"pipeline {name} does not exist; those chosen: {known}"
    return f"name one of the pipelines with --pipeline: {known}"
