"""The DRONE_ and CI_ variables of a stage.

Source: drone/runner-go's environ package (reference: pipeline format, section 6). Empty values are
in the result, because they still win over what a step sets; they are left out when a step starts.
"""

from __future__ import annotations

import re
from typing import Final

from pipeline.facts import BuildFacts, Facts, RepoFacts, StageFacts, System

FAILURE: Final = "failure"
SUCCESS: Final = "success"
#: What the agent sets when a step starts: they say how the stage went so far.
AT_STEP_START: Final = (
    "DRONE_STEP_NAME",
    "DRONE_STEP_NUMBER",
    "DRONE_BUILD_STATUS",
    "DRONE_STAGE_STATUS",
    "DRONE_FAILED_STEPS",
)

_IDENTIFIER = re.compile(r"[0-9A-Za-z.-]*")
_NUMBER = re.compile(r"\+?[0-9]{1,18}")


def environ(facts: Facts) -> dict[str, str]:
    """Every DRONE_ and CI_ variable that does not depend on a step or on the pipeline file.

    These are also the names that `${}` knows, besides parameters and the agent's own environment.
    """
    return {
        **system(facts.system),
        **repo(facts.repo),
        **build(facts),
        **stage(facts),
        "DRONE_BUILD_LINK": build_link(facts),
    }


def refreshed(facts: Facts) -> frozenset[str]:
    """Names that a step cannot override: what describes the build, the stage and the step."""
    return frozenset((*build(facts), *stage(facts), *AT_STEP_START))


def system(facts: System) -> dict[str, str]:
    return {
        "CI": "true",
        "DRONE": "true",
        "DRONE_SYSTEM_PROTO": facts.proto,
        "DRONE_SYSTEM_HOST": facts.host,
        "DRONE_SYSTEM_HOSTNAME": facts.hostname,
        "DRONE_SYSTEM_VERSION": facts.version,
    }


def repo(facts: RepoFacts) -> dict[str, str]:
    owner, _, name = facts.slug.rpartition("/")
    owner, name = facts.namespace or owner, facts.name or name
    private = _word(facts.private)
    return {
        "DRONE_REPO": facts.slug,
        "DRONE_REPO_SCM": facts.scm,
        "DRONE_REPO_OWNER": owner,
        "DRONE_REPO_NAMESPACE": owner,
        "DRONE_REPO_NAME": name,
        "DRONE_REPO_LINK": facts.link,
        "DRONE_REPO_BRANCH": facts.default_branch,
        "DRONE_REPO_VISIBILITY": facts.visibility,
        "DRONE_REPO_PRIVATE": private,
        "DRONE_REMOTE_URL": facts.git_http_url,
        "DRONE_GIT_HTTP_URL": facts.git_http_url,
        "DRONE_GIT_SSH_URL": facts.git_ssh_url,
        "CI_REPO": facts.slug,
        "CI_REPO_NAME": facts.slug,
        "CI_REPO_LINK": facts.link,
        "CI_REPO_REMOTE": facts.git_http_url,
        "CI_REPO_PRIVATE": private,
        "CI_REMOTE_URL": facts.git_http_url,
    }


def build(facts: Facts) -> dict[str, str]:
    """The build's variables. Unset times are the stage's start: the latest time known."""
    it = facts.build
    now = _now(facts)
    started, finished = str(it.started or now), str(it.finished or now)
    failed = facts.stage.failed_stages
    values = {
        "DRONE_BRANCH": it.target,
        "DRONE_SOURCE_BRANCH": it.source,
        "DRONE_TARGET_BRANCH": it.target,
        "DRONE_COMMIT": it.after,
        "DRONE_COMMIT_SHA": it.after,
        "DRONE_COMMIT_BEFORE": it.before,
        "DRONE_COMMIT_AFTER": it.after,
        "DRONE_COMMIT_REF": it.ref,
        "DRONE_COMMIT_BRANCH": it.target,
        "DRONE_COMMIT_LINK": it.link,
        "DRONE_COMMIT_MESSAGE": it.message,
        "DRONE_COMMIT_AUTHOR": it.author_login,
        "DRONE_COMMIT_AUTHOR_NAME": it.author_name,
        "DRONE_COMMIT_AUTHOR_EMAIL": it.author_email,
        "DRONE_COMMIT_AUTHOR_AVATAR": it.author_avatar,
        "DRONE_BUILD_NUMBER": str(it.number),
        "DRONE_BUILD_PARENT": str(it.parent),
        "DRONE_BUILD_EVENT": it.event,
        "DRONE_BUILD_ACTION": it.action,
        "DRONE_BUILD_TRIGGER": it.trigger,
        "DRONE_BUILD_DEBUG": _word(it.debug),
        "DRONE_BUILD_CREATED": str(it.created),
        "DRONE_BUILD_STARTED": started,
        "DRONE_BUILD_FINISHED": finished,
        "DRONE_BUILD_STATUS": FAILURE if failed else SUCCESS,
        "DRONE_DEPLOY_TO": it.deploy_to,
        "DRONE_DEPLOY_ID": str(it.deploy_id),
        "CI_BUILD_NUMBER": str(it.number),
        "CI_PARENT_BUILD_NUMBER": str(it.parent),
        "CI_BUILD_CREATED": str(it.created),
        "CI_BUILD_STARTED": started,
        "CI_BUILD_FINISHED": finished,
        "CI_BUILD_STATUS": it.status,
        "CI_BUILD_EVENT": it.event,
        "CI_BUILD_LINK": it.link,
        "CI_BUILD_TARGET": it.deploy_to,
        "CI_COMMIT_SHA": it.after,
        "CI_COMMIT_REF": it.ref,
        "CI_COMMIT_BRANCH": it.target,
        "CI_COMMIT_MESSAGE": it.message,
        "CI_COMMIT_AUTHOR": it.author_login,
        "CI_COMMIT_AUTHOR_NAME": it.author_name,
        "CI_COMMIT_AUTHOR_EMAIL": it.author_email,
        "CI_COMMIT_AUTHOR_AVATAR": it.author_avatar,
    }
    if failed:
        values["DRONE_FAILED_STAGES"] = ",".join(failed)
    return values | _ref(it)


def stage(facts: Facts) -> dict[str, str]:
    it: StageFacts = facts.stage
    now = str(_now(facts))
    return {
        "DRONE_STAGE_KIND": it.kind,
        "DRONE_STAGE_TYPE": it.type,
        "DRONE_STAGE_NAME": it.name,
        "DRONE_STAGE_NUMBER": str(it.number),
        "DRONE_STAGE_MACHINE": it.machine,
        "DRONE_STAGE_OS": it.os,
        "DRONE_STAGE_ARCH": it.arch,
        "DRONE_STAGE_VARIANT": it.variant,
        "DRONE_STAGE_VERSION": str(it.version),
        "DRONE_STAGE_STATUS": SUCCESS,
        "DRONE_STAGE_STARTED": str(it.started) if it.started else now,
        "DRONE_STAGE_FINISHED": now,
        "DRONE_STAGE_DEPENDS_ON": ",".join(it.depends_on),
    }


def build_link(facts: Facts) -> str:
    """The address of the build's page; none where there is no server, or no repo on it."""
    it = facts.system
    if not it.host or not facts.repo.slug:
        return ""
    return f"{it.proto}://{it.host}/{facts.repo.slug}/{facts.build.number}"


def git(facts: BuildFacts, *, skip_verify: bool = False, trace: bool = False) -> dict[str, str]:
    """Variables that git itself reads in every step."""
    name, email = facts.author_name or "drone", facts.author_email or "noreply@drone"
    values = {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
        "GIT_TERMINAL_PROMPT": "0",
    }
    if skip_verify:
        values["GIT_SSL_NO_VERIFY"] = "true"
    if trace:
        values["GIT_TRACE"] = "true"
    return values


def semver(tag: str) -> dict[str, str]:
    """DRONE_SEMVER variables of a tag such as `v1.2.3-rc.1+build`, or why there are none."""
    rest, _, metadata = tag.removeprefix("v").partition("+")
    rest, _, prerelease = rest.partition("-")
    parts = rest.split(".", 2)
    if len(parts) != 3:
        return {"DRONE_SEMVER_ERROR": f"{rest} is not in dotted-tri format"}
    if not all(map(_NUMBER.fullmatch, parts)):
        return {"DRONE_SEMVER_ERROR": f"{rest}: major, minor and patch have to be numbers"}
    if not _IDENTIFIER.fullmatch(prerelease) or not _IDENTIFIER.fullmatch(metadata):
        return {"DRONE_SEMVER_ERROR": f"{tag}: only letters, digits, '-' and '.' in identifiers"}
    major, minor, patch = (str(int(part)) for part in parts)
    short = f"{major}.{minor}.{patch}"
    full = short + (f"-{prerelease}" if prerelease else "") + (f"+{metadata}" if metadata else "")
    values = {
        "DRONE_SEMVER": full,
        "DRONE_SEMVER_MAJOR": major,
        "DRONE_SEMVER_MINOR": minor,
        "DRONE_SEMVER_PATCH": patch,
        "DRONE_SEMVER_SHORT": short,
    }
    if prerelease:
        values["DRONE_SEMVER_PRERELEASE"] = prerelease
    if metadata:
        values["DRONE_SEMVER_BUILD"] = metadata
    return values


def calver(tag: str) -> dict[str, str]:
    """DRONE_CALVER variables of a tag such as `2021.4.1-beta`; none where no year is first."""
    parts = [*tag.removeprefix("v").split(".", 2), "", ""]
    major, minor = parts[:2]
    micro, _, modifier = parts[2].partition("-")
    if not _NUMBER.fullmatch(major) or not _NUMBER.fullmatch(minor):
        return {}
    year = int(major)
    if not 18 < year < 100 and not 2018 < year < 9999:
        return {}
    short = f"{major}.{minor}" + (f".{micro}" if micro else "")
    values = {
        "DRONE_CALVER": short + (f"-{modifier}" if modifier else ""),
        "DRONE_CALVER_MAJOR_MINOR": f"{major}.{minor}",
        "DRONE_CALVER_MAJOR": major,
        "DRONE_CALVER_MINOR": minor,
        "DRONE_CALVER_MICRO": micro,
        "DRONE_CALVER_SHORT": short,
    }
    if modifier:
        values["DRONE_CALVER_MODIFIER"] = modifier
    return values


def _ref(facts: BuildFacts) -> dict[str, str]:
    values = {}
    if facts.ref.startswith("refs/tags/"):
        tag = facts.ref.removeprefix("refs/tags/")
        values = {"DRONE_TAG": tag} | semver(tag) | calver(tag)
    if facts.event == "pull_request":
        number = re.search(r"[0-9]+", facts.ref)
        values["DRONE_PULL_REQUEST"] = number[0] if number else ""
        values["DRONE_PULL_REQUEST_TITLE"] = facts.title
    return values


def _now(facts: Facts) -> int:
    return max(facts.stage.started, facts.build.started, facts.build.created)


def _word(value: bool) -> str:
    return "true" if value else "false"
