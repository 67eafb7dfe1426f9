"""`ci compile`: print what an agent would be told to run."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from ciserver.cli.local import fail, modern, pairs, stage
from ciserver.cli.plan import facts as build_facts
from pipeline.compile import Compiled, compile_stage
from pipeline.document import parse
from pipeline.errors import PipelineError
from pipeline.facts import BuildFacts, Facts, RepoFacts, StageFacts, System
from pipeline.plan import plan
from pipeline.spec import StepSpec, to_json

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("compile")
def compile_command(
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="-: stdin")] = ".drone.yml",
    pipeline: Annotated[str, typer.Option(help="its name; default: the only one")] = "",
    event: Annotated[
        str, typer.Option(help="push pull_request tag promote rollback cron custom")
    ] = "push",
    branch: Annotated[
        str | None, typer.Option(help="the target branch; default: main, for a tag none")
    ] = None,
    ref: Annotated[str, typer.Option(help="default: by event and branch")] = "",
    commit: Annotated[str, typer.Option(help="the commit's sha")] = "",
    target: Annotated[str, typer.Option(help="the deployment target")] = "",
    action: Annotated[str, typer.Option(help="default: opened, for a tag create")] = "",
    cron: Annotated[str, typer.Option(help="the name of the cron job")] = "",
    repo: Annotated[str, typer.Option(help="owner/name")] = "octocat/hello-world",
    instance: Annotated[str, typer.Option(help="the host of the server")] = "",
    path: Annotated[list[str] | None, typer.Option(help="a changed file; may be repeated")] = None,
    trusted: Annotated[bool, typer.Option("--trusted", help="as for a trusted repo")] = False,
    param: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="a parameter of the build")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="a variable of the agent")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the StageSpec an agent would get, as JSON")
    ] = False,
) -> None:
    """Print what an agent would be told to run, without the values of secrets.

    Exit code: 0, 1 if the file is in error, 2 if it could not be read or has no such pipeline.
    """
    build = dataclasses.replace(
        build_facts(event, branch, ref, action, target, cron, tuple(path) if path else None),
        after=commit,
        params=pairs(param or [], "--param"),
    )
    owner, _, name = repo.rpartition("/")
    known = RepoFacts(slug=repo, namespace=owner, name=name, trusted=trusted)
    system = System(host=instance, hostname=instance) if instance else System()
    try:
        done = compiled(file, pipeline, known, build, system, pairs(env or [], "--env"))
    except PipelineError as fault:
        raise fail(fault) from fault
    typer.echo(json.dumps(to_json(done.spec), indent=2) if as_json else text(done))


def compiled(
    file: str,
    name: str,
    repo: RepoFacts,
    build: BuildFacts,
    system: System,
    environ: dict[str, str],
) -> Compiled:
    """The stage of a file, by its name.

    Raises: PipelineError; Refused.
    """
    source = modern(file, repo, build)
    parsed = parse(source, file)
    chosen = stage(plan(parsed, repo, build), name, file)
    facts = StageFacts(
        number=chosen.number,
        name=chosen.name,
        type=chosen.type,
        os=chosen.os,
        arch=chosen.arch,
        variant=chosen.variant,
        kernel=chosen.kernel,
        depends_on=chosen.depends_on,
        axis=chosen.axis,
    )
    return compile_stage(
        source, file=file, facts=Facts(repo, build, facts, system), environ=environ, parsed=parsed
    )


def text(done: Compiled) -> str:
    """The stage for people."""
    spec = done.spec
    lines = [
        f"{spec.name} ({spec.type}, {spec.os}/{spec.arch}), at most {spec.timeout_s:g} s",
        *(f"  {step.number} {_step(step)}" for step in spec.steps),
    ]
    if done.wanted:
        lines.append(f"  secrets: {', '.join(sorted(done.wanted))}")
    return "\n".join(lines)


def _step(step: StepSpec) -> str:
    parts = [step.name, f"[{step.image}]" if step.image else "", f"({step.kind}, {step.run}"]
    after = f" after {', '.join(step.depends_on)}" if step.depends_on else ""
    return " ".join(filter(None, parts)) + (", detached)" if step.detach else ")") + after
