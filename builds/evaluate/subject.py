"""What a program may know of the build and the repo.

Source: Drone's converters (reference: pipeline format, section 10).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.facts import BuildFacts, RepoFacts


def build(facts: BuildFacts) -> dict[str, Any]:
    """`ctx.build` of Starlark, `.build` of templates."""
    return {**_build(facts), "cron": facts.cron, "debug": facts.debug, "params": dict(facts.params)}


def repo(facts: RepoFacts) -> dict[str, Any]:
    """`ctx.repo` of Starlark, `.repo` of templates."""
    return {
        "uid": facts.uid,
        "name": facts.name or facts.slug.rpartition("/")[2],
        "namespace": facts.namespace or facts.slug.rpartition("/")[0],
        "slug": facts.slug,
        "git_http_url": facts.git_http_url,
        "git_ssh_url": facts.git_ssh_url,
        "link": facts.link,
        "branch": facts.default_branch,
        "config": facts.config_path,
        "private": facts.private,
        "visibility": facts.visibility,
        "active": facts.active,
        "trusted": facts.trusted,
        "protected": facts.protected,
        "ignore_forks": facts.ignore_forks,
        "ignore_pull_requests": facts.ignore_pull_requests,
    }


def variables(
    repo_facts: RepoFacts, build_facts: BuildFacts, given: Mapping[str, Any]
) -> dict[str, str]:
    """What `std.extVar` of Jsonnet knows: text only; `given` is a template's data."""
    values: dict[str, Any] = {f"build.{key}": value for key, value in _build(build_facts).items()}
    values |= {f"build.param.{key}": value for key, value in build_facts.params.items()}
    values |= {f"repo.{key}": value for key, value in repo(repo_facts).items()}
    values |= {f"input.{key}": value for key, value in given.items()}
    return {key: _text(value) for key, value in values.items()}


def _build(facts: BuildFacts) -> dict[str, str]:
    return {
        "event": facts.event,
        "action": facts.action,
        "environment": facts.deploy_to,
        "link": facts.link,
        "branch": facts.target,
        "source": facts.source,
        "before": facts.before,
        "after": facts.after,
        "target": facts.target,
        "ref": facts.ref,
        "commit": facts.after,
        "title": facts.title,
        "message": facts.message,
        "source_repo": facts.source_repo,
        "author_login": facts.author_login,
        "author_name": facts.author_name,
        "author_email": facts.author_email,
        "author_avatar": facts.author_avatar,
        "sender": facts.sender,
    }


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
