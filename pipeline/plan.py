"""Which stages and steps a build has, in which order, and why the others are left out.

Pure: the trigger makes rows of it, `ci plan` prints it, the compiler takes its step graph.
Source: reference sections 3.2, 3.3 and 3.6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pipeline import conditions
from pipeline.conditions import NEVER, Subject
from pipeline.document import DEFAULT_NAME, File, Pipeline, Step, Template, point_name
from pipeline.errors import PipelineError, Problem
from pipeline.facts import BuildFacts, RepoFacts
from pipeline.spec import ALWAYS, CLONE, SERVICE, STEP, Strings

CLONE_NAME: Final = "clone"
#: So many edges a graph of steps may have when those that never run are bypassed.
MAX_EDGES: Final = 500_000


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage that will be made. `pipeline` is the document's name, `name` unique in the build.

    `depends_on` are names of stages of this plan, what was left out already bypassed.
    """

    number: int
    name: str
    pipeline: str
    type: str = "docker"
    os: str = "linux"
    arch: str = "amd64"
    variant: str = ""
    kernel: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    limit: int = 0
    on_success: bool = True
    on_failure: bool = False
    depends_on: Strings = ()
    axis: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Skipped:
    """A pipeline that the event does not choose, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    stages: tuple[PlannedStage, ...] = ()
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """An item of a stage's graph, in the order clone, services, steps.

    `run` is always, on-success, on-failure or never; `depends_on` names what it waits for, items
    that never run already bypassed. `step` is None for the clone.
    """

    name: str
    kind: str
    run: str
    reason: str = ""
    depends_on: Strings = ()
    step: Step | None = None


def plan(file: File, repo: RepoFacts, build: BuildFacts, *, instance: str = "") -> Plan:
    """Choose the pipelines of a build and number their stages from 1, in file order.

    `instance` is of no account in a trigger; it is here for callers that have it at hand.
    """
    about = conditions.subject(repo, build, instance)
    stages: list[PlannedStage] = []
    skipped: list[Skipped] = []
    waits: dict[str, Strings] = {}
    for pipeline in candidates(file):
        deps = _distinct(name for dep in pipeline.depends_on for name in waits.get(dep, ()))
        trigger = conditions.for_trigger(pipeline.trigger, repo.default_branch)
        why = conditions.reason(trigger, about)
        if why:
            skipped.append(Skipped(pipeline.name, why))
            waits[pipeline.name] = deps
            continue
        policy = conditions.stage_policy(trigger, about)
        first = len(stages)
        for point in pipeline.matrix or ({},):
            stages.append(_stage(pipeline, len(stages) + 1, deps, policy, point))
        waits[pipeline.name] = tuple(stage.name for stage in stages[first:])
    return Plan(tuple(stages), tuple(skipped))


def candidates(file: File) -> list[Pipeline]:
    """The documents that can become stages; a template that nobody has expanded counts as one."""
    return [
        one if isinstance(one, Pipeline) else Pipeline(kind="template", line=one.line)
        for one in file.documents
        if isinstance(one, (Pipeline, Template))
    ]


def _stage(
    pipeline: Pipeline,
    number: int,
    deps: Strings,
    policy: tuple[bool, bool],
    point: Mapping[str, str],
) -> PlannedStage:
    return PlannedStage(
        number=number,
        name=point_name(pipeline.name, point) if point else pipeline.name,
        pipeline=pipeline.name,
        type=pipeline.type,
        os=_fill(pipeline.os, point),
        arch=_fill(pipeline.arch, point),
        variant=_fill(pipeline.platform.variant, point),
        kernel=_fill(pipeline.platform.version, point),
        labels={key: _fill(value, point) for key, value in pipeline.node.items()},
        limit=pipeline.concurrency.limit,
        on_success=policy[0],
        on_failure=policy[1],
        depends_on=deps,
        axis=dict(point),
        timeout_s=pipeline.timeout,
    )


def _fill(text: str, point: Mapping[str, str]) -> str:
    """Put the values of a matrix in; other `${}` are read before substitution, as in Drone."""
    for key, value in point.items():
        text = text.replace(f"${{{key}}}", value)
    return text


def _distinct(names: Iterable[str]) -> Strings:
    return tuple(dict.fromkeys(names))


def steps(pipeline: Pipeline, about: Subject) -> tuple[PlannedStep, ...]:
    """The step graph of a stage: clone, services, steps, with what each waits for.

    Serial if nothing has `depends_on`, else a graph. An item that never runs stays in the result
    and is bypassed by those that wait for it. Names that do not exist are left to the lint.

    Raises: PipelineError if the graph is larger than good.
    """
    items = _items(pipeline)
    names = {name for name, _, _ in items}
    edges = _edges(pipeline, items)
    bypass: dict[str, Strings] = {}
    result = []
    count = 0
    for name, kind, step in items:
        run, why = (ALWAYS, "") if step is None else _run(step, about)
        wanted = [dep for dep in edges[name] if dep in names]
        deps = _distinct(one for dep in wanted for one in bypass.get(dep, (dep,)))
        count += len(deps)
        if count > MAX_EDGES:
            message = f"the steps of `{pipeline.name}` wait for more than {MAX_EDGES} others"
            raise PipelineError([Problem("step:dependency", message, pipeline.line)])
        if run == NEVER:
            bypass[name] = deps
        result.append(PlannedStep(name, kind, run, why, deps, step))
    return tuple(result)


def _items(pipeline: Pipeline) -> list[tuple[str, str, Step | None]]:
    services = () if pipeline.type == "exec" else pipeline.services
    items: list[tuple[str, str, Step | None]] = []
    if not pipeline.clone.disable:
        items.append((CLONE_NAME, CLONE, None))
    items += [(step.name, SERVICE, step) for step in services if not step.missing]
    items += [(step.name, STEP, step) for step in pipeline.steps if not step.missing]
    return items


def _edges(pipeline: Pipeline, items: Sequence[tuple[str, str, Step | None]]) -> dict[str, Strings]:
    """What each item waits for, before anything is bypassed."""
    if not any(step and step.depends_on for _, _, step in items):
        before = [(), *((name,) for name, _, _ in items)]
        return {name: deps for (name, _, _), deps in zip(items, before, strict=False)}
    cloning = not pipeline.clone.disable
    return {
        name: step.depends_on or ((CLONE_NAME,) if cloning else ()) if step else ()
        for name, _, step in items
    }


def _run(step: Step, about: Subject) -> tuple[str, str]:
    run = conditions.policy(step.when, about)
    return run, conditions.reason(step.when, about) if run == NEVER else ""


__all__ = [
    "CLONE_NAME", "DEFAULT_NAME", "Plan", "PlannedStage", "PlannedStep", "Skipped", "candidates",
    "plan", "steps",
]  # fmt: skip
