"""From an event to a build: skip rules, the pipeline file, the plan, rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from builds import config, permissions, transitions
from builds.config import Fetched
from builds.debug import may as may_debug
from builds.facts import build_facts, repo_facts, system
from builds.models import Build, Config, Repo, Stage, User
from builds.secrets import repo_secret
from pipeline import states
from pipeline.document import File
from pipeline.errors import PipelineError, UserError
from pipeline.plan import PlannedStage, plan
from pipeline.routing import queue_name
from pipeline.signature import verify

log = structlog.get_logger(__name__)

PUSH, PULL_REQUEST, CUSTOM, PROMOTE, ROLLBACK = (
    "push", "pull_request", "custom", "promote", "rollback",
)  # fmt: skip
HOOK: Final = "@hook"
SKIP_WORDS: Final = ("[ci skip]", "[skip ci]", "***no_ci***")
TEXT_LENGTH: Final = 2000


class Refused(UserError):
    """What a person asked for cannot be built; the message says why."""

    code = "build:refused"


@dataclass(frozen=True, slots=True)
class Hook:
    """What happened, in a forge's or a person's words.

    `after` may be empty, then `ref` is looked up; so is the author of a commit that has none here.
    """

    event: str
    ref: str
    after: str = ""
    before: str = ""
    action: str = ""
    trigger: str = HOOK
    link: str = ""
    title: str = ""
    message: str = ""
    source_repo: str = ""
    source: str = ""
    target: str = ""
    author_login: str = ""
    author_name: str = ""
    author_email: str = ""
    author_avatar: str = ""
    sender: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    cron: str = ""
    deploy_to: str = ""
    deploy_id: int = 0
    debug: bool = False
    parent: int = 0
    priority: int = 0


_COPIED: Final = (
    "event", "action", "trigger", "link", "title", "message", "before", "after", "ref",
    "source_repo", "source", "target", "author_login", "author_name", "author_email",
    "author_avatar", "sender", "cron", "deploy_to", "deploy_id", "debug", "priority", "parent",
)  # fmt: skip


def trigger(repo: Repo, hook: Hook) -> Build | None:
    """Make the build of an event, or None where a rule says there is none.

    A pipeline file that is missing or wrong makes a build in `error` that says so.

    Raises: ForgeError if the commit cannot be had at all: then there is no build.
    """
    if _is_skipped(repo, hook):
        return None
    fetched = config.fetch(repo, hook.after or hook.ref)
    build = _row(repo, _complete(hook, fetched))
    try:
        modern = config.modern(fetched, repo, repo_facts(repo), build_facts(build))
        file = config.check(modern, fetched.path)
    except PipelineError as fault:
        return transitions.create_failed_build(build, str(fault), _config(fetched))
    return _create(build, _config(replace(fetched, text=modern.text)), file)


def create(
    repo: Repo,
    *,
    user: User,
    branch: str = "",
    commit: str = "",
    params: Mapping[str, str] | None = None,
    debug: bool = False,
    message: str = "",
    action: str = "",
) -> Build | None:
    """Build a branch's head, or a commit, because a person asks.

    Raises: Refused, ForgeError.
    """
    _check_active(repo)
    name = branch or repo.default_branch
    hook = Hook(
        event=CUSTOM,
        ref=f"refs/heads/{name}",
        after=commit,
        action=action,
        trigger=user.username,
        sender=user.username,
        source=name,
        target=name,
        message=message,
        author_login=user.username,
        params=dict(params or {}),
        debug=debug,
    )
    return trigger(repo, hook)


def restart(
    build: Build,
    *,
    user: User,
    params: Mapping[str, str] | None = None,
    debug: bool = False,
) -> Build | None:
    """Build the same commit for the same event again; new parameters win over the old ones.

    Raises: Refused for a build that waits for approval or was declined; ForgeError.
    """
    _check_active(build.repo)
    if build.status == states.DECLINED:
        raise Refused("cannot start a declined build")
    if build.stages.filter(status=states.BLOCKED).exists():
        raise Refused("cannot start a blocked build")
    if debug and not may_debug(user, build):
        raise Refused(
            f"only administrators of {build.repo.slug} may debug what comes from a fork of it"
        )
    hook = replace(
        _again(build, user),
        params={**build.params, **(params or {})},
        debug=debug or (build.debug and may_debug(user, build)),
    )
    return trigger(build.repo, hook)


def promote(
    build: Build,
    *,
    user: User,
    target: str,
    params: Mapping[str, str] | None = None,
    event: str = PROMOTE,
) -> Build | None:
    """Build a build's commit again for a deployment target.

    Raises: Refused without a target; ForgeError.
    """
    _check_active(build.repo)
    if not target:
        raise Refused("Missing target environment")
    hook = replace(
        _again(build, user),
        event=event,
        action="",
        debug=False,
        deploy_to=target,
        params={**build.params, **(params or {})},
    )
    return trigger(build.repo, hook)


def rollback(
    build: Build, *, user: User, target: str, params: Mapping[str, str] | None = None
) -> Build | None:
    """As `promote`, for the event rollback."""
    return promote(build, user=user, target=target, params=params, event=ROLLBACK)


def _again(build: Build, user: User) -> Hook:
    copied = {name: getattr(build, name) for name in _COPIED}
    return Hook(
        **{
            **copied,
            "trigger": user.username,
            "sender": user.username,
            "parent": build.number,
            "params": build.params,
        }
    )


def _check_active(repo: Repo) -> None:
    if not repo.active:
        raise Refused(f"{repo.slug} is not active")


def _is_skipped(repo: Repo, hook: Hook) -> bool:
    """Source: reference server, section 3.4, steps 1 to 3."""
    if hook.trigger != HOOK:
        return False
    if not repo.active:
        return True
    words = f"{hook.message}\n{hook.title}".lower()
    if hook.event in (PUSH, PULL_REQUEST) and any(word in words for word in SKIP_WORDS):
        return True
    if hook.event != PULL_REQUEST:
        return False
    fork = permissions.is_foreign(repo, hook.source_repo)
    return repo.ignore_pull_requests or (repo.ignore_forks and fork)


def _complete(hook: Hook, fetched: Fetched) -> Hook:
    """Fill in from the commit what the hook does not say."""
    commit = fetched.commit
    known: dict[str, Any] = {"after": commit.sha}
    if hook.event == CUSTOM and not hook.before:
        known["before"] = commit.sha
    if not hook.message:
        known["message"] = commit.message
    if not hook.author_name:
        known["author_name"] = commit.author_name
        known["author_email"] = hook.author_email or commit.author_email
    if not hook.author_login:
        known["author_login"] = commit.author_login or commit.author_name
    return replace(hook, **known)


def _row(repo: Repo, hook: Hook) -> Build:
    values = {name: getattr(hook, name) for name in _COPIED}
    for name, value in values.items():
        if isinstance(value, str):
            values[name] = _cut(name, value)
    return Build(repo=repo, params=dict(hook.params), **values)


def _cut(name: str, text: str) -> str:
    """As much of a forge's text as its column takes, without what no database stores."""
    limit = Build._meta.get_field(name).max_length or TEXT_LENGTH  # type: ignore[union-attr]
    return text.replace("\0", "")[:limit]


def _config(fetched: Fetched) -> Config:
    return Config(path=fetched.path, data=(fetched.text or "").replace("\0", ""))


def _create(build: Build, stored: Config, file: File) -> Build | None:
    repo = build.repo
    stored.paths = config.changed_paths(repo, stored.data, _range_start(build), build.after)
    paths = None if stored.paths is None else tuple(stored.paths)
    chosen = plan(file, repo_facts(repo), build_facts(build, paths), instance=system().host)
    if not chosen.stages:
        log.info("build.no_match", repo=repo.slug, build_event=build.event)
        return None
    stages = [_stage(repo, planned) for planned in chosen.stages]
    made = transitions.create_build(build, stages, stored, blocked=_is_blocked(build, stored))
    _cancel_older(made)
    return made


def _range_start(build: Build) -> str:
    """Where the changes of a build begin; a custom build's are those of its commit."""
    return "" if build.before == build.after else build.before


def _stage(repo: Repo, planned: PlannedStage) -> Stage:
    return Stage(
        number=planned.number,
        name=planned.name,
        type=planned.type,
        os=planned.os,
        arch=planned.arch,
        variant=planned.variant,
        kernel=planned.kernel,
        limit=planned.limit,
        throttle=repo.throttle,
        on_success=planned.on_success,
        on_failure=planned.on_failure,
        depends_on=list(planned.depends_on),
        labels=dict(planned.labels),
        axis=dict(planned.axis),
        queue=queue_name(planned.type, planned.os, planned.arch, planned.labels),
    )


def _is_blocked(build: Build, stored: Config) -> bool:
    """Source: reference server, section 3.4, step 7."""
    if not build.repo.protected or build.trigger != HOOK:
        return False
    return not verify(stored.data, repo_secret(build.repo))


def _cancel_older(build: Build) -> None:
    repo = build.repo
    wanted = (build.event == PUSH and repo.auto_cancel_pushes) or (
        build.event == PULL_REQUEST and repo.auto_cancel_pull_requests
    )
    if wanted:
        transitions.cancel_older(build, running=repo.auto_cancel_running)
