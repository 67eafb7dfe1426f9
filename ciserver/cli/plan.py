"""`ci plan`: say which stages and steps an event would run, in which order, and why not others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from ciserver.cli.files import judged
from pipeline import conditions
from pipeline.conditions import NEVER
from pipeline.document import Pipeline, find, parse
from pipeline.environ import environ
from pipeline.errors import PipelineError, Problem
from pipeline.facts import BuildFacts, Facts, RepoFacts, StageFacts
from pipeline.plan import Plan, PlannedStage, PlannedStep, candidates, plan, steps
from pipeline.spec import ALWAYS, ON_FAILURE, STEP
from pipeline.substitute import substitute
from pipeline.verdict import NO_PIPELINE, OK, Judged
from pipeline.yamltext import documents

_POLICIES: Final[Mapping[str, str]] = {
    ON_FAILURE: "only if a step before has failed",
    ALWAYS: "even if a step before has failed",
}

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("plan")
def plan_command(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]...", help="default: .drone.yml; -: stdin")
    ] = None,
    event: Annotated[
        str, typer.Option(help="push pull_request tag promote rollback cron custom")
    ] = "push",
    branch: Annotated[
        str | None, typer.Option(help="the target branch; default: main, for a tag none")
    ] = None,
    ref: Annotated[str, typer.Option(help="default: by event and branch")] = "",
    target: Annotated[str, typer.Option(help="the deployment target")] = "",
    action: Annotated[str, typer.Option(help="default: opened, for a tag create")] = "",
    cron: Annotated[str, typer.Option(help="the name of the cron job")] = "",
    repo: Annotated[str, typer.Option(help="owner/name")] = "octocat/hello-world",
    instance: Annotated[str, typer.Option(help="the host of the server")] = "",
    path: Annotated[list[str] | None, typer.Option(help="a changed file; may be repeated")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print a list with an object per file")
    ] = False,
) -> None:
    """Say which stages and steps an event would run, in which order, and why the others not.

    Exit code: 0, 1 if a file is in error, 2 if one could not be read.
    """
    build = facts(event, branch, ref, action, target, cron, tuple(path) if path else None)
    owner, _, name = repo.rpartition("/")
    repo_facts = RepoFacts(slug=repo, namespace=owner, name=name)
    reports = [
        report(file, one, repo_facts, build, instance)
        for file, one in judged(files or [], repo_facts, build)
    ]
    if as_json:
        typer.echo(json.dumps(reports, indent=2))
    else:
        for one in reports:
            typer.echo(text(one))
    good = all(one["verdict"] in (OK, NO_PIPELINE) for one in reports)
    raise typer.Exit(0 if good else 1)


def facts(
    event: str,
    branch: str | None,
    ref: str,
    action: str,
    target: str,
    cron: str,
    paths: tuple[str, ...] | None,
) -> BuildFacts:
    """The facts of a build that does not exist, with what an event implies."""
    if branch is None:
        branch = "" if event == "tag" else "main"
    refs = {"pull_request": "refs/pull/1/head", "tag": "refs/tags/v1.0.0"}
    actions = {"pull_request": "opened", "tag": "create"}
    return BuildFacts(
        event=event,
        action=action or actions.get(event, ""),
        ref=ref or refs.get(event, f"refs/heads/{branch}"),
        target=branch,
        source=branch,
        cron=cron,
        deploy_to=target,
        paths=paths,
    )


def report(
    path: str, judged: Judged, repo: RepoFacts, build: BuildFacts, instance: str
) -> dict[str, Any]:
    """What is printed about one file."""
    found: dict[str, Any] = {
        "file": path,
        "verdict": judged.verdict,
        "messages": [_message(one) for one in judged.lint() if not _of_steps(one.code)],
        "documents": judged.documents,
        "stages": [],
    }
    if judged.file is None or judged.verdict != OK:
        return found
    planned = plan(judged.file, repo, build, instance=instance)
    event = _Event(judged, repo, build, instance)
    reasons = {one.name: one.reason for one in planned.skipped}
    for pipeline in candidates(judged.file):
        if pipeline.name in reasons:
            found["stages"].append(_skipped(pipeline, reasons[pipeline.name], event))
        else:
            found["stages"] += _chosen(pipeline, planned, event)
    return found


class _Event:
    """What steps are planned with: for each stage the substituted text of its document."""

    def __init__(self, judged: Judged, repo: RepoFacts, build: BuildFacts, instance: str) -> None:
        self.judged, self.repo, self.build = judged, repo, build
        self.about = conditions.subject(repo, build, instance)
        self.plain = "${" not in judged.text and "$$" not in judged.text
        self.checked = False
        self.texts = self._texts()

    def steps(self, pipeline: Pipeline, stage: PlannedStage | None = None) -> list[dict[str, Any]]:
        """The steps of a stage; where its substitution fails it is an error, and none runs."""
        try:
            found = pipeline
            if stage is not None and id(pipeline) in self.texts:
                found = self._substituted(pipeline, stage)
            return [_step(step) for step in steps(found, self.about)]
        except PipelineError as fault:
            reason = f"after substitution: {fault.problems[0].message}"
            failed = {"runs": False, "reason": reason}
        try:
            return [_step(step) | failed for step in steps(pipeline, self.about)]
        except PipelineError as fault:
            return [_step(PlannedStep("", STEP, NEVER, fault.problems[0].message))]

    def _substituted(self, pipeline: Pipeline, stage: PlannedStage) -> Pipeline:
        """The pipeline of a stage as its agent gets it.

        The whole text is read once, for its errors; then only the document of each stage.
        """
        facts = StageFacts(name=stage.name, axis=stage.axis)
        values = environ(Facts(repo=self.repo, build=self.build, stage=facts)) | dict(stage.axis)
        if not self.checked:
            parse(substitute(self.judged.text, values))
            self.checked = True
        file = parse(substitute(self.texts[id(pipeline)], values))
        found = find(file, stage.name, stage.axis)
        if found is None:
            message = f"there is no pipeline `{stage.name}` any more: names are not substituted"
            raise PipelineError([Problem("compile:no-pipeline", message)])
        return found

    def _texts(self) -> dict[int, str]:
        """The text of each document of the file."""
        if self.plain or self.judged.file is None:
            return {}
        parts = documents(self.judged.text)
        found = zip(self.judged.file.documents, parts, strict=True)
        return {id(one): part.text for one, part in found}


def _of_steps(code: str) -> bool:
    """Whether a finding is about steps: the manifest does not mind, and trust is not known."""
    return code.startswith(("step:", "pipeline:"))


def _message(problem: Problem) -> str:
    place = f"{problem.line}:{problem.column}: " if problem.line else ""
    return f"{place}{problem.severity}: {problem.message}"


def _skipped(pipeline: Pipeline, reason: str, event: _Event) -> dict[str, Any]:
    return {
        "name": pipeline.name,
        "type": pipeline.type,
        "platform": f"{pipeline.os}/{pipeline.arch}",
        "labels": dict(pipeline.node),
        "depends_on": list(pipeline.depends_on),
        "runs": False,
        "reason": reason,
        "steps": [step | {"runs": False} for step in event.steps(pipeline)],
    }


def _chosen(pipeline: Pipeline, planned: Plan, event: _Event) -> list[dict[str, Any]]:
    return [
        {
            "name": stage.name,
            "type": stage.type,
            "platform": _platform(stage),
            "labels": dict(stage.labels),
            "depends_on": list(stage.depends_on),
            "runs": True,
            "reason": _policy(stage),
            "steps": event.steps(pipeline, stage),
        }
        for stage in planned.stages
        if stage.pipeline == pipeline.name
    ]


def _platform(stage: PlannedStage) -> str:
    return "/".join(part for part in (stage.os, stage.arch, stage.variant) if part)


def _policy(stage: PlannedStage) -> str:
    if stage.on_failure:
        return "" if stage.on_success else "only if a stage before has failed"
    return "" if stage.on_success else "never: its status condition matches nothing"


def _step(step: PlannedStep) -> dict[str, Any]:
    reason = _POLICIES.get(step.run, step.reason) if step.step else step.reason
    return {
        "name": step.name,
        "image": step.step.image if step.step else "",
        "runs": step.run != NEVER,
        "reason": reason,
        "depends_on": list(step.depends_on),
        "kind": step.kind,
    }


def text(one: dict[str, Any]) -> str:
    """The report about a file for people."""
    lines = [f"{one['file']}: {one['verdict']}"]
    lines += [f"  {message}" for message in one["messages"]]
    for stage in one["stages"]:
        after = f" after {', '.join(stage['depends_on'])}" if stage["depends_on"] else ""
        mark = "+" if stage["runs"] else "-"
        why = f": {stage['reason']}" if stage["reason"] else ""
        where = f"{stage['type']}, {stage['platform']}"
        lines.append(f"  {mark} {stage['name']} ({where}){after}{why}")
        lines += [_step_text(step) for step in stage["steps"] if stage["runs"]]
    return "\n".join(lines)


def _step_text(step: dict[str, Any]) -> str:
    after = f" after {', '.join(step['depends_on'])}" if step["depends_on"] else ""
    why = f": {step['reason']}" if step["reason"] else ""
    kind = "" if step["kind"] == "step" else f" ({step['kind']})"
    return f"      {'+' if step['runs'] else '-'} {step['name']}{kind}{after}{why}"
