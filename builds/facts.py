"""Rows in the words of `pipeline`: what it may know of a repo, a build and a stage."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from urllib.parse import urlsplit

from django.conf import settings

from builds.models import Build, Repo, Stage
from pipeline import states
from pipeline.facts import BuildFacts, Facts, RepoFacts, StageFacts, System

_REPO = (
    "slug", "namespace", "name", "uid", "scm", "git_http_url", "git_ssh_url", "link",
    "default_branch", "config_path", "private", "visibility", "active", "trusted", "protected",
    "ignore_forks", "ignore_pull_requests", "timeout_min", "subset_labels",
)  # fmt: skip
_BUILD = (
    "number", "parent", "event", "action", "trigger", "link", "title", "message", "before",
    "after", "ref", "source_repo", "source", "target", "author_login", "author_name",
    "author_email", "author_avatar", "sender", "cron", "deploy_to", "deploy_id", "debug",
    "status", "params",
)  # fmt: skip
_STAGE = ("number", "name", "kind", "type", "machine", "os", "arch", "variant", "kernel", "axis")


def system() -> System:
    """This server, as its builds know it."""
    return _system(settings.PUBLIC_URL, settings.VERSION)


@lru_cache(maxsize=4)
def _system(public_url: str, version: str) -> System:
    url = urlsplit(public_url)
    return System(url.scheme, url.netloc, url.hostname or socket.gethostname(), version)


def repo_facts(repo: Repo) -> RepoFacts:
    """What the pipeline may know of a repo."""
    return RepoFacts(**{name: getattr(repo, name) for name in _REPO})


def build_facts(build: Build, paths: tuple[str, ...] | None = None) -> BuildFacts:
    """What the pipeline may know of a build; `paths` are the files it changes."""
    return BuildFacts(
        **{name: getattr(build, name) for name in _BUILD},
        created=_unix(build.created),
        started=_unix(build.started),
        finished=_unix(build.finished),
        paths=paths,
    )


def stage_facts(stage: Stage, machine: str, attempt: int, failed: Sequence[str]) -> StageFacts:
    """What the pipeline may know of a stage that is about to run on `machine`."""
    values = {name: getattr(stage, name) for name in _STAGE}
    return StageFacts(
        **{**values, "machine": machine},
        version=attempt,
        started=_unix(stage.started),
        depends_on=tuple(stage.depends_on),
        failed_stages=tuple(failed),
        attempt=attempt,
    )


def facts(
    stage: Stage, machine: str, attempt: int, failed: Sequence[str], paths: Sequence[str] | None
) -> Facts:
    """All that compiling a stage needs; the stage comes with its build and repo.

    The build is told of as it is once the stage runs, so that an answer can be given again.
    """
    build = build_facts(stage.build, None if paths is None else tuple(paths))
    return Facts(
        repo=repo_facts(stage.build.repo),
        build=replace(build, status=states.RUNNING, started=build.started or _unix(stage.started)),
        stage=stage_facts(stage, machine, attempt, failed),
        system=system(),
    )


def _unix(time: datetime | None) -> int:
    return int(time.timestamp()) if time else 0
