from __future__ import annotations

from typing import Any

import pytest

from agents.image_names import canonical_host, expand, is_latest, matches_image, registry
from agents.option_table import PRIVILEGED_IMAGES, Options
from agents.patterns import matches
from agents.policy import amend, refusal
from pipeline.spec import SERVICE, Mount, Netrc, StageSpec, StepSpec, Volume

NETRC = Netrc("git.example.com", "bot", "s3cret")


def options(**given: Any) -> Options:
    return Options(server="http://ci", token="x", name="builder-1", **given)


def step(**given: Any) -> StepSpec:
    return StepSpec(**{"number": 1, "name": "one", "image": "golang:1.22", **given})


def stage(*steps: StepSpec, **given: Any) -> StageSpec:
    about = {"repo": "octocat/hello", "build": 1, "stage": 1, "event": "push"}
    return StageSpec(**{**about, "steps": steps or (step(commands=("make",)),), **given})


PLUGIN = {"image": "plugins/slack", "environment": {"PLUGIN_ROOM": "dev"}}

REFUSED: list[tuple[str, dict[str, Any], StageSpec]] = [
    ("isolation", {"isolation": "docker"}, stage(type="exec", trusted=True)),
    ("isolation", {"isolation": "shell"}, stage()),
    ("limit-repos", {"limit_repos": ("github/*",)}, stage()),
    ("limit-events", {"limit_events": ("tag", "cron")}, stage()),
    ("limit-trusted", {"limit_trusted": True}, stage()),
    ("exec-untrusted", {}, stage(type="exec")),
    ("plugin-whitelist", {"plugin_whitelist": ("plugins/docker",)}, stage(step(**PLUGIN))),
    ("plugin-whitelist", {"plugin_whitelist": ("plugins/*",)}, stage(step(image="evil/plugin"))),
    ("plugin-whitelist", {"plugin_whitelist": ("plugins/*",)}, stage(step(image="x.io/plugins/a"))),
    ("allow-privileged", {}, stage(step(privileged=True, commands=("a",)))),
    (
        "allow-privileged",
        {"allow_privileged": False},
        stage(step(privileged=True, commands=("a",)), trusted=True),
    ),
    ("allow-host-volumes", {}, stage(volumes=(Volume("v", "host", "/etc"),))),
    (
        "allow-host-volumes",
        {"allow_host_volumes": False},
        stage(volumes=(Volume("v", "host", "/etc"),), trusted=True),
    ),
    ("allow-host-network", {}, stage(step(network_mode="host", commands=("a",)))),
    (
        "allow-host-network",
        {"allow_host_network": False},
        stage(step(network_mode="container:other", commands=("a",)), trusted=True),
    ),
]


@pytest.mark.parametrize(("rule", "given", "spec"), REFUSED)
def test_it_refuses_a_stage_and_names_rule_and_agent(
    rule: str, given: dict[str, Any], spec: StageSpec
) -> None:
    reason = refusal(spec, options(**given))

    assert reason is not None
    assert reason.startswith(f"agent builder-1 refuses this stage by its rule {rule}: ")


ALLOWED: list[tuple[dict[str, Any], StageSpec]] = [
    ({}, stage()),
    ({"limit_repos": ("github/*", "octocat/*")}, stage()),
    ({"limit_repos": ("**",)}, stage()),
    ({"limit_events": ("push",)}, stage()),
    ({"limit_trusted": True}, stage(trusted=True)),
    ({}, stage(type="exec", trusted=True)),
    ({"exec_user": "nobody"}, stage(type="exec")),
    ({"exec_untrusted": True}, stage(type="exec")),
    ({"plugin_whitelist": ("plugins/*",)}, stage(step(**PLUGIN))),
    ({"plugin_whitelist": ("plugins/*",)}, stage()),
    ({"plugin_whitelist": ("plugins/*",)}, stage(step(image="redis", kind=SERVICE))),
    (
        {"plugin_whitelist": ("plugins/*",), "plugin_namespace": "plugins"},
        stage(step(image="slack")),
    ),
    ({}, stage(step(privileged=True, commands=("a",)), trusted=True)),
    ({}, stage(volumes=(Volume("v", "host", "/etc"),), trusted=True)),
    ({}, stage(step(network_mode="host", commands=("a",)), trusted=True)),
]


@pytest.mark.parametrize(("given", "spec"), ALLOWED)
def test_it_lets_a_stage_pass(given: dict[str, Any], spec: StageSpec) -> None:
    assert refusal(spec, options(**given)) is None


@pytest.mark.parametrize(
    "image", [*PRIVILEGED_IMAGES, "plugins/docker:20", "docker.io/plugins/gcr"]
)
def test_it_runs_known_plugins_privileged(image: str) -> None:
    amended = amend(stage(step(image=image)), options())

    assert amended.steps[0].privileged


@pytest.mark.parametrize(
    "given",
    [
        {"commands": ("docker build .",)},
        {"entrypoint": ("/bin/sh",)},
        {"command": ("-c",)},
        {"volumes": (Mount("v", "/x"),)},
        {"environment": {"DOCKER_HOST": "tcp://x"}},
        {"secrets": {"PATH": "p"}},
        {"image": "evil/docker"},
        {"image": "example.com/plugins/docker"},
    ],
)
def test_it_does_not_run_others_privileged(given: dict[str, Any]) -> None:
    spec = stage(step(**{"image": "plugins/docker", **given}), volumes=(Volume("v"),))

    assert not amend(spec, options()).steps[0].privileged


def test_it_gives_plugins_their_namespace_and_pulls_them() -> None:
    given = {"plugin_namespace": "plugins", "plugin_pull": True}
    spec = stage(step(image="slack"), step(number=2, name="two", commands=("make",)))

    plugin, other = amend(spec, options(**given)).steps

    assert (plugin.image, plugin.pull) == ("plugins/slack", "always")
    assert (other.image, other.pull) == ("golang:1.22", "")


def seen(spec: StageSpec, **given: Any) -> list[bool]:
    amended = amend(spec, options(**given))
    return ["DRONE_NETRC_PASSWORD" in one.environment for one in amended.steps]


def test_it_gives_the_credentials_of_git_to_whom_the_rules_name() -> None:
    plugin, other = step(**PLUGIN), step(number=2, name="two", commands=("make",))
    spec = stage(plugin, other, netrc=NETRC)

    assert seen(spec) == [True, True]
    assert seen(spec, netrc_clone_only=True) == [False, False]
    assert seen(spec, plugin_netrc=("slack",)) == [True, False]
    assert seen(spec, plugin_netrc=("git", "hg")) == [False, False]
    assert seen(stage(plugin, other)) == [False, False]


def test_it_does_not_pass_on_credentials_the_server_put_into_variables() -> None:
    leaky = {"DRONE_NETRC_PASSWORD": "x", "A": "b"}
    spec = stage(step(environment=leaky), environment=leaky)

    amended = amend(spec, options(netrc_clone_only=True))

    assert amended.environment == {"A": "b"}
    assert amended.steps[0].environment == {"A": "b"}


def test_it_adds_its_own_secrets_where_the_server_has_none() -> None:
    spec = stage(
        step(secrets={"A": "mine", "B": "theirs", "C": "nobody"}),
        secrets={"mine": "", "theirs": "server"},
    )
    given = {"secrets": {"mine": "agent", "theirs": "agent", "unused": "agent"}}

    assert amend(spec, options(**given)).secrets == {"mine": "agent", "theirs": "server"}


def test_its_own_secrets_may_be_logins() -> None:
    spec = amend(stage(step(), pull_secrets=("login",)), options(secrets={"login": "{}"}))

    assert spec.secrets == {"login": "{}"}


def test_it_keeps_its_own_secrets_from_pull_requests() -> None:
    spec = stage(step(secrets={"A": "mine"}), event="pull_request")

    assert amend(spec, options(secrets={"mine": "agent"})).secrets == {}


@pytest.mark.parametrize(
    ("image", "full", "host", "latest"),
    [
        ("golang", "docker.io/library/golang:latest", "docker.io", True),
        ("golang:1.22", "docker.io/library/golang:1.22", "docker.io", False),
        ("plugins/docker", "docker.io/plugins/docker:latest", "docker.io", True),
        ("index.docker.io/a/b", "docker.io/a/b:latest", "docker.io", True),
        ("localhost/a:1", "localhost/a:1", "localhost", False),
        ("example.com:5000/a/b:1", "example.com:5000/a/b:1", "example.com:5000", False),
        ("a/b@sha256:00", "docker.io/a/b@sha256:00", "docker.io", False),
    ],
)
def test_it_reads_image_names(image: str, full: str, host: str, latest: bool) -> None:
    assert (expand(image), registry(image), is_latest(image)) == (full, host, latest)


def test_it_reads_hosts_of_registries() -> None:
    assert canonical_host("https://index.docker.io/v1/") == "docker.io"
    assert canonical_host("example.com:5000") == "example.com:5000"


@pytest.mark.parametrize(
    ("image", "pattern", "found"),
    [
        ("plugins/docker", "plugins/docker", True),
        ("plugins/docker:1", "plugins/docker:*", True),
        ("plugins/docker:1", "plugins/docker:2", False),
        ("plugins/docker", "docker.io/plugins/docker", True),
        ("plugins/a/b", "plugins/*", False),
        ("example.com/a:1", "example.com/*", True),
    ],
)
def test_a_pattern_picks_images(image: str, pattern: str, found: bool) -> None:
    assert matches_image(image, pattern) is found


@pytest.mark.parametrize(
    ("text", "pattern", "found"),
    [
        ("octocat/hello", "octocat/*", True),
        ("octocat/hello", "*", False),
        ("octocat/hello", "**", True),
        ("octocat/hello", "{github,octocat}/h?llo", True),
        ("octocat/hello", "octocat/[a-h]*", True),
        ("octocat/hello", "octocat/[^h]*", False),
        ("a*b", r"a\*b", True),
        ("[", "[", True),
    ],
)
def test_patterns_are_globs(text: str, pattern: str, found: bool) -> None:
    assert matches(text, pattern) is found
