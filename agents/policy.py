"""What this agent allows: which stages it refuses, and what it changes in those it runs. Pure.

The server has its own rules; these are the ones of the host's owner, and they hold whatever the
server says. Source of the plugin rules: Drone 0.5's agent and drone-runner-docker (reference:
agents, sections 1 and 5; pipeline format, section 8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from agents.image_names import matches_image
from agents.option_table import Options
from agents.patterns import matches_any
from pipeline.spec import CLONE, STEP, Netrc, StageSpec, StepSpec

_EXEC: Final = "exec"
_PULL_REQUEST: Final = "pull_request"
_NETRC_PREFIX: Final = "DRONE_NETRC_"
#: A plugin that is told one of these could be made to run anything, so it is not made privileged.
_STEERING: Final = frozenset({"XDG_RUNTIME_DIR", "DOCKER_OPTS", "DOCKER_HOST", "PATH", "HOME"})

Rule = Callable[[StageSpec, Options], str]


def refusal(spec: StageSpec, options: Options, name: str = "") -> str | None:
    """Why this agent (`name`) does not run a stage, naming the rule; None if it does."""
    for key, rule in _RULES.items():
        reason = rule(spec, options)
        if reason:
            agent = name or options.name
            return f"agent {agent} refuses this stage by its rule {key}: {reason}".replace(
                "  ", " "
            )
    return None


def amend(spec: StageSpec, options: Options) -> StageSpec:
    """The stage as this agent runs it: its secrets, its names and privileges of plugins, netrc."""
    secrets = dict(spec.secrets)
    if spec.event != _PULL_REQUEST:
        wanted = {name for step in spec.steps for name in step.secrets.values()}
        wanted |= {*spec.secrets, *spec.pull_secrets}
        secrets |= {
            name: value
            for name, value in options.secrets.items()
            if name in wanted and not secrets.get(name)
        }
    environment = _without_netrc(spec.environment)
    steps = tuple(_amend_step(step, spec, options) for step in spec.steps)
    return replace(spec, secrets=secrets, environment=environment, steps=steps)


# --- refusals ---


def _isolation(spec: StageSpec, options: Options) -> str:
    if spec.type in options.types:
        return ""
    return f"isolation {options.isolation} runs no {spec.type} stages"


def _limit_repos(spec: StageSpec, options: Options) -> str:
    if not options.limit_repos or matches_any(spec.repo, options.limit_repos):
        return ""
    return f"it does not allow the repository {spec.repo}"


def _limit_events(spec: StageSpec, options: Options) -> str:
    if not options.limit_events or matches_any(spec.event, options.limit_events):
        return ""
    return f"it does not allow the event {spec.event or 'none'}"


def _limit_trusted(spec: StageSpec, options: Options) -> str:
    if spec.trusted or not options.limit_trusted:
        return ""
    return f"the repository {spec.repo} is not trusted"


def _exec_untrusted(spec: StageSpec, options: Options) -> str:
    if spec.type != _EXEC or spec.trusted or options.exec_user or options.exec_untrusted:
        return ""
    return (
        f"the repository {spec.repo} is not trusted, and its steps would run on the host as the "
        "agent's own user; set exec-user or exec-untrusted, or trust the repository"
    )


def _plugin_whitelist(spec: StageSpec, options: Options) -> str:
    if not options.plugin_whitelist:
        return ""
    for step in _plugins(spec):
        image = _full_name(step.image, options)
        if not any(matches_image(image, pattern) for pattern in options.plugin_whitelist):
            return f"it does not allow the image {image} of step {step.name}"
    return ""


def _allow_privileged(spec: StageSpec, options: Options) -> str:
    if options.allow_privileged and spec.trusted:
        return ""
    for step in spec.steps:
        if step.privileged and not _is_privileged_plugin(step, options):
            who = "it is off" if spec.trusted else "the repository is not trusted"
            return f"step {step.name} is privileged and {who}"
    return ""


def _allow_host_volumes(spec: StageSpec, options: Options) -> str:
    if options.allow_host_volumes and spec.trusted:
        return ""
    for volume in spec.volumes:
        if volume.kind == "host":
            who = "it is off" if spec.trusted else "the repository is not trusted"
            return f"volume {volume.name} is a path of the host and {who}"
    return ""


def _allow_host_network(spec: StageSpec, options: Options) -> str:
    if options.allow_host_network and spec.trusted:
        return ""
    for step in spec.steps:
        if step.network_mode:
            who = "it is off" if spec.trusted else "the repository is not trusted"
            return f"step {step.name} asks for the network {step.network_mode} and {who}"
    return ""


_RULES: Final[Mapping[str, Rule]] = {
    "isolation": _isolation,
    "limit-repos": _limit_repos,
    "limit-events": _limit_events,
    "limit-trusted": _limit_trusted,
    "exec-untrusted": _exec_untrusted,
    "plugin-whitelist": _plugin_whitelist,
    "allow-privileged": _allow_privileged,
    "allow-host-volumes": _allow_host_volumes,
    "allow-host-network": _allow_host_network,
}


# --- amendments ---


def _amend_step(step: StepSpec, spec: StageSpec, options: Options) -> StepSpec:
    if step.kind == CLONE or spec.type == _EXEC:
        return replace(step, environment=_without_netrc(step.environment))
    if _is_plugin(step):
        step = _amend_plugin(step, options)
    environment = _without_netrc(step.environment)
    if spec.netrc is not None and _sees_netrc(step, options):
        environment |= _netrc_variables(spec.netrc)
    return replace(step, environment=environment)


def _amend_plugin(step: StepSpec, options: Options) -> StepSpec:
    step = replace(step, image=_full_name(step.image, options))
    if options.plugin_pull and not step.pull:
        step = replace(step, pull="always")
    if _is_privileged_plugin(step, options):
        step = replace(step, privileged=True)
    return step


def _plugins(spec: StageSpec) -> Iterator[StepSpec]:
    return (step for step in spec.steps if _is_plugin(step))


def _is_plugin(step: StepSpec) -> bool:
    """A plugin is a step that only settings steer: neither commands nor a program of its own."""
    return step.kind == STEP and bool(step.image) and not (step.commands or step.entrypoint)


def _full_name(image: str, options: Options) -> str:
    """A plugin's image with the namespace the options give to names without one."""
    if not options.plugin_namespace or "/" in image:
        return image
    return f"{options.plugin_namespace}/{image}"


def _is_privileged_plugin(step: StepSpec, options: Options) -> bool:
    """Whether the options make this step privileged. Source: drone-runner-docker."""
    if not _is_plugin(step) or step.command or step.volumes:
        return False
    if _STEERING & {*step.environment, *step.secrets}:
        return False
    return any(matches_image(step.image, pattern) for pattern in options.plugin_privileged)


def _sees_netrc(step: StepSpec, options: Options) -> bool:
    if options.netrc_clone_only:
        return False
    if not options.plugin_netrc:
        return True
    return _is_plugin(step) and any(
        matches_image(_full_name(step.image, options), pattern)
        or matches_image(step.image, f"{options.plugin_namespace or 'plugins'}/{pattern}")
        for pattern in options.plugin_netrc
    )


def _netrc_variables(netrc: Netrc) -> dict[str, str]:
    return {
        "DRONE_NETRC_MACHINE": netrc.machine,
        "DRONE_NETRC_USERNAME": netrc.login,
        "DRONE_NETRC_PASSWORD": netrc.password,
        "DRONE_NETRC_FILE": (
            f"machine {netrc.machine} login {netrc.login} password {netrc.password}"
        ),
    }


def _without_netrc(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in environ.items() if not name.startswith(_NETRC_PREFIX)}
