"""The twelve builds that files are planned for, and what is chosen for each."""

from __future__ import annotations

from pipeline.document import File
from pipeline.facts import BuildFacts, RepoFacts
from pipeline.plan import plan

REPO = RepoFacts("octocat/hello-world", namespace="octocat", name="hello-world")


def _branch(event: str, branch: str, **more: str) -> BuildFacts:
    return BuildFacts(event=event, target=branch, ref=f"refs/heads/{branch}", **more)


def _pull(action: str, branch: str) -> BuildFacts:
    return BuildFacts(
        event="pull_request", action=action, target=branch, ref="refs/pull/7/head", source="topic"
    )


def _tag(branch: str) -> BuildFacts:
    return BuildFacts(event="tag", action="create", target=branch, ref="refs/tags/v1.2.3")


EVENTS = {
    "push main": _branch("push", "main"),
    "push master": _branch("push", "master"),
    "push feature/x": _branch("push", "feature/x"),
    "push release/1.0": _branch("push", "release/1.0"),
    "pull_request opened into main": _pull("opened", "main"),
    "pull_request synchronized into master": _pull("synchronized", "master"),
    "tag v1.2.3": _tag(""),
    "tag v1.2.3 made on master": _tag("master"),
    "promote main to production": _branch("promote", "main", deploy_to="production"),
    "rollback main to production": _branch("rollback", "main", deploy_to="production"),
    "cron nightly on main": _branch("cron", "main", cron="nightly"),
    "custom on main": _branch("custom", "main"),
}


def stages_by_event(file: File) -> dict[str, list[str]]:
    """The chosen stages of each build, in order; `a <- b` waits for b."""
    return {
        name: [
            f"{one.name} <- {', '.join(one.depends_on)}" if one.depends_on else one.name
            for one in plan(file, REPO, build).stages
        ]
        for name, build in EVENTS.items()
    }
