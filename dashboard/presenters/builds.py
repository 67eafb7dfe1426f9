"""A build as its page shows it: facts, stages, steps, and which step's log stands beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.urls import reverse

from builds import claims, debug
from builds.models import Build, Hold, Repo, Stage, Step
from dashboard.presenters import words
from pipeline import states


@dataclass(frozen=True, slots=True)
class Fact:
    """A word about the build and what it says; `link` makes it a link, `code` sets it in mono."""

    name: str
    value: str
    link: str = ""
    code: bool = False


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step in the list beside the log."""

    step: Step
    url: str
    current: bool
    note: str
    #: What keeps it for debugging, if it is kept.
    hold: Hold | None = None


@dataclass(frozen=True, slots=True)
class StageRow:
    """A stage and its steps. `note` says in plain words where it runs or what it waits for."""

    stage: Stage
    note: str
    steps: tuple[StepRow, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """What stands above the stages. `status`: the build's, or blocked while that holds it up."""

    title: str
    body: str
    facts: tuple[Fact, ...]
    status: str
    open: bool
    blocked: bool


def head(build: Build, stages: Sequence[Stage]) -> Head:
    """The build's title, message and facts."""
    blocked = any(stage.status == states.BLOCKED for stage in stages)
    message = build.message.strip()
    first, _, rest = message.partition("\n")
    return Head(
        title=build.title or first or f"{words.event(build.event)} build",
        body=(message if build.title and build.title != first else rest).strip(),
        facts=tuple(fact for fact in _facts(build) if fact.value),
        status=states.BLOCKED if blocked and build.status == states.PENDING else build.status,
        open=build.status in states.OPEN,
        blocked=blocked,
    )


def _facts(build: Build) -> list[Fact]:
    params = ", ".join(f"{key}={value}" for key, value in sorted(build.params.items()))
    return [
        Fact("Event", _event(build)),
        Fact("Branch", branch(build), code=True),
        Fact("Commit", build.after[:10], link=_web(build.link), code=True),
        Fact("Author", _author(build)),
        Fact("Started by", _starter(build)),
        Fact("Deploys to", build.deploy_to),
        Fact("Parameters", params, code=True),
        Fact("Restart of", f"#{build.parent}" if build.parent else "", link=_parent(build)),
    ]


@dataclass(frozen=True, slots=True)
class BuildRow:
    """A build in the list of its repo's."""

    build: Build
    title: str
    branch: str
    author: str


def row(build: Build) -> BuildRow:
    """A build as one row."""
    return BuildRow(build, head(build, ()).title, branch(build), _author(build))


def branch(build: Build) -> str:
    """Where a build's commit is from: `main`, or `feature → main` of a pull request."""
    here = words.ref(build.ref) or build.target
    if build.event == "pull_request" and build.source:
        return f"{build.source} → {build.target}"
    return build.target if build.event == "push" and build.target else here


def _author(build: Build) -> str:
    return build.author_name or build.author_login or build.sender


def _event(build: Build) -> str:
    if build.event == "cron" and build.cron:
        return f"cron {build.cron}"
    return words.event(build.event) + (" (debug)" if build.debug else "")


def _starter(build: Build) -> str:
    return "" if build.trigger.startswith("@") else build.trigger


def _web(link: str) -> str:
    """A link from outside, if it is one that may stand in a page."""
    return link if link.startswith(("https://", "http://")) else ""


def _parent(build: Build) -> str:
    return url("build", build.repo, build.parent) if build.parent else ""


def url(name: str, repo: Repo, *args: int) -> str:
    """An address below a repo's."""
    return reverse(f"dashboard:{name}", args=[repo.namespace, repo.name, *args])


def load_stages(build: Build, numbers: Sequence[int] | None = None) -> list[Stage]:
    """The build's stages (or those numbered so) with their steps and agents, in three queries."""
    stages = Stage.objects.filter(build=build).select_related("agent")
    if numbers is not None:
        stages = stages.filter(number__in=numbers)
    return list(stages.prefetch_related("steps").order_by("number"))


def choose(stages: Sequence[Stage]) -> Step | None:
    """The step worth looking at first: one that runs, else the first that failed, else the last
    that ran, else the first there is."""
    steps = [step for stage in stages for step in stage.steps.all()]
    work = [step for step in steps if step.kind != "service"]
    running = [step for step in work if step.status == states.RUNNING and not step.detached]
    if running:
        return running[-1]
    failed = [step for step in steps if step.status in states.FAILED and not step.errignore]
    if failed:
        return next((step for step in failed if step.started), failed[0])
    ran = [step for step in work or steps if step.started]
    return ran[-1] if ran else next(iter(steps), None)


def stage_rows(build: Build, stages: Sequence[Stage], current: Step | None) -> list[StageRow]:
    """The list beside the log."""
    held = {hold.step_id: hold for hold in debug.held(build.pk)} if build.debug else {}
    return [
        StageRow(
            stage=stage,
            note=_note(stage),
            steps=tuple(
                _step_row(build, stage, step, current, held.get(step.pk))
                for step in stage.steps.all()
            ),
        )
        for stage in stages
    ]


def _step_row(
    build: Build, stage: Stage, step: Step, current: Step | None, hold: Hold | None
) -> StepRow:
    return StepRow(
        step=step,
        url=url("step", build.repo, build.number, stage.number, step.number),
        current=current is not None and current.pk == step.pk,
        note=_step_note(step),
        hold=hold,
    )


def _step_note(step: Step) -> str:
    if step.kind == "service":
        return "service"
    if step.detached:
        return "detached"
    return "failure ignored" if step.errignore and step.status in states.FAILED else ""


def _note(stage: Stage) -> str:
    if stage.status == states.WAITING:
        return "after " + ", ".join(stage.depends_on) if stage.depends_on else "waits"
    if stage.status == states.PENDING:
        return claims.why_waiting(stage)
    if stage.status == states.BLOCKED:
        return "waits for approval"
    where = stage.machine or (stage.agent.name if stage.agent else "")
    if stage.lost and stage.status == states.RUNNING:
        return f"agent lost: {where or 'its agent'} is silent"
    again = f", attempt {stage.attempt}" if stage.attempt > 1 else ""
    return f"on {where}{again}" if where else ""
