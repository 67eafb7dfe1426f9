from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compile import Compiled, compile_stage, with_secrets, workspace
from pipeline.document import Pipeline, Platform, WorkspaceDef, parse
from pipeline.errors import PipelineError
from pipeline.facts import BuildFacts, Facts, RepoFacts, StageFacts, System
from pipeline.spec import Auth, External, Netrc, StageSpec, from_json, to_json

STAGES = Path(__file__).parent / "stages"
FACTS = Facts(
    RepoFacts("octocat/hello", git_http_url="https://git.example.com/octocat/hello", trusted=True),
    BuildFacts(
        number=7,
        after="b1c2d3",
        source="main",
        target="main",
        author_name="The Octocat",
        message="one\ntwo",
        params={"LEVEL": "3"},
        created=1600000000,
    ),
    StageFacts(number=2, started=1600000010),
    System("https", "ci.example.com"),
)
MATRIX = dataclasses.replace(FACTS.stage, name="test (GO=1.22)", axis={"GO": "1.22"})


def compiled(text: str, facts: Facts = FACTS, **environ: str) -> Compiled:
    return compile_stage(text, file=".drone.yml", facts=facts, environ=environ)


def steps(text: str, facts: Facts = FACTS) -> dict[str, Any]:
    return {step.name: step for step in compiled(text, facts).spec.steps}


@pytest.mark.parametrize("name", sorted(path.stem for path in STAGES.glob("*.yml")))
def test_a_stage_compiles_to(name: str, golden: Callable[[str, Any], None]) -> None:
    facts = dataclasses.replace(FACTS, stage=MATRIX) if name == "extensions" else FACTS
    result = compiled((STAGES / f"{name}.yml").read_text(), facts, AGENT_ROOM="7", GOFLAGS="-x")
    data = to_json(result)
    if name != "docker":
        del data["spec"]["environment"]
    data["wanted"] = sorted(data.get("wanted", ()))
    golden(f"compile/{name}", data)


def test_a_spec_survives_json() -> None:
    for path in STAGES.glob("*.yml"):
        facts = dataclasses.replace(FACTS, stage=MATRIX) if path.stem == "extensions" else FACTS
        spec = compiled(path.read_text(), facts).spec
        assert from_json(StageSpec, json.loads(json.dumps(to_json(spec)))) == spec


def test_precedence_of_the_environment() -> None:
    text = """
kind: pipeline
name: default
environment: {A: pipeline, B: pipeline, HTTP_PROXY: pipeline, CI: pipeline}
steps: [{name: a, image: i, environment: {A: step, GIT_AUTHOR_NAME: step, DRONE_BRANCH: step}}]
"""
    build = dataclasses.replace(FACTS.build, params={"B": "param", "C": "param", "D": "param"})
    facts = dataclasses.replace(
        FACTS, build=build, stage=dataclasses.replace(FACTS.stage, failed_stages=("lint",))
    )
    spec = compiled(text, facts, C="agent", E="agent", HTTP_PROXY="agent", CI="agent").spec
    shown = {name: spec.environment[name] for name in ("A", "B", "C", "D", "E", "HTTP_PROXY", "CI")}
    assert shown == {
        "A": "pipeline",
        "B": "pipeline",
        "C": "param",
        "D": "param",
        "E": "agent",
        "HTTP_PROXY": "agent",
        "CI": "true",
    }
    assert spec.environment["DRONE_FAILED_STAGES"] == "lint"
    assert spec.steps[1].environment == {"A": "step", "GIT_AUTHOR_NAME": "step"}


def test_a_matrix_shows_in_the_environment() -> None:
    facts = dataclasses.replace(FACTS, stage=MATRIX)
    spec = compiled((STAGES / "extensions.yml").read_text(), facts).spec
    assert spec.environment["GO"] == "1.22"


WORKSPACES = {
    ("", ""): ("/drone/src", "", "/drone/src"),
    ("", "app"): ("/drone/src", "app", "/drone/src/app"),
    ("", "/go/src"): ("/go/src", "", "/go/src"),
    ("/go", "src/app"): ("/go", "src/app", "/go/src/app"),
    ("/go/", "/src/../x"): ("/go/", "/src/../x", "/go/x"),
    **{
        (path, ""): ("/drone/src", "", "/drone/src")
        for path in (
            "/", "/etc", "/var", "/Var", "/var/", "/etc/docker/x", "/var/run", "/proc/1", "/bin",
            "/usr/bin", "/usr/local/bin/x", "/usr/local/sbin", "/mnt/a", "/mount", "/media", "/sys",
            "/DEV/x", "/a/../dev", "//etc",
        )
    },
    **{(path, ""): (path, "", path) for path in ("/etc/x", "/var/x", "/usr", "/binary", "/home")},
    ("/x", "../etc"): ("/drone/src", "", "/drone/src"),
    ("/", "etc"): ("/drone/src", "", "/drone/src"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), WORKSPACES.items())
def test_workspace(given: tuple[str, str], expected: tuple[str, str, str]) -> None:
    found = workspace(Pipeline(workspace=WorkspaceDef(*given)))
    assert (found.base, found.path, found.working_dir) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("", ""), ("c:\\drone\\src", "", "c:\\drone\\src")),
        (("/go", "src/app"), ("c:\\go", "src\\app", "c:\\go\\src\\app")),
        (("", "/go/src"), ("c:\\go\\src", "", "c:\\go\\src")),
        (("c:\\x", ""), ("c:\\x", "", "c:\\x")),
        (("D:/x", "a\\b"), ("D:\\x", "a\\b", "D:\\x\\a\\b")),
        (("", "d:\\x"), ("d:\\x", "", "d:\\x")),
        (("c:", ""), ("c:\\drone\\src", "", "c:\\drone\\src")),
    ],
)
def test_workspace_on_windows(given: tuple[str, str], expected: tuple[str, str, str]) -> None:
    platform = Platform(os="windows")
    found = workspace(Pipeline(workspace=WorkspaceDef(*given), platform=platform))
    assert (found.base, found.path, found.working_dir) == expected


ONE = "kind: pipeline\nname: default\nsteps: [{name: a, image: i}]\n"


@pytest.mark.parametrize(
    ("event", "source_repo", "fork"),
    [
        ("pull_request", "someone/hello", True),
        ("pull_request", "octocat/hello", False),
        ("pull_request", "", False),
        ("push", "someone/hello", False),
    ],
)
def test_what_comes_from_a_fork(event: str, source_repo: str, fork: bool) -> None:
    build = dataclasses.replace(FACTS.build, event=event, source_repo=source_repo)
    spec = compiled(ONE, dataclasses.replace(FACTS, build=build)).spec
    assert spec.fork is fork
    assert spec.source_repo == (source_repo if event == "pull_request" else "")


def test_a_pipeline_lowers_the_timeout_only() -> None:
    assert compiled(ONE).spec.timeout_s == 3600
    assert compiled(ONE + "timeout: 5m\n").spec.timeout_s == 300
    assert compiled(ONE + "timeout: 5h\n").spec.timeout_s == 3600


def test_a_serial_chain_goes_through_what_does_not_run() -> None:
    text = """
kind: pipeline
name: default
steps:
- {name: a, image: i}
- {name: b, image: i, when: {event: tag}}
- {name: c, image: i, when: {event: tag}}
- {name: d, image: i}
"""
    assert [(step.number, step.name, step.depends_on) for step in compiled(text).spec.steps] == [
        (1, "clone", ()),
        (2, "a", ("clone",)),
        (3, "d", ("a",)),
    ]


def test_a_substituted_name_is_not_found() -> None:
    with pytest.raises(PipelineError, match="no pipeline `default-main`"):
        facts = dataclasses.replace(FACTS, stage=dataclasses.replace(FACTS.stage, name="x"))
        compiled(ONE, dataclasses.replace(facts, stage=StageFacts(name="default-main")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        ONE + "clone: false\n",
        ONE + "environment: {A: {from_secret: x}}\n",
        ONE + "${!x}",
    ],
)
def test_a_bad_file_is_refused(text: str) -> None:
    with pytest.raises(PipelineError) as caught:
        compiled(text)
    assert all(problem.file == ".drone.yml" for problem in caught.value.problems)


def test_a_parsed_file_is_used_where_nothing_is_substituted() -> None:
    parsed = parse(ONE.replace("image: i", "image: parsed"))
    options = {"file": ".drone.yml", "facts": FACTS, "environ": {}, "parsed": parsed}
    assert compile_stage(ONE, **options).spec.steps[1].image == "parsed"
    again = compile_stage(ONE + "# ${X}", **options)
    assert again.spec.steps[1].image == "i"


SECRETS = """
kind: pipeline
name: default
image_pull_secrets: [first, second, broken, gone]
steps:
- name: a
  image: i
  environment: {A: {from_secret: token}, B: {from_secret: unknown}}
- {name: b, image: i, settings: {c: {from_secret: unused}}, when: {event: tag}}
"""


def docker_config(**passwords: str) -> str:
    return json.dumps(
        {"auths": {host: {"username": "u", "password": p} for host, p in passwords.items()}}
    )


def test_secrets_come_last() -> None:
    result = compiled(SECRETS)
    assert result.wanted == {"first", "second", "broken", "gone", "token", "unknown", "unused"}
    assert not result.spec.secrets
    assert not result.spec.auths
    values = {
        "first": docker_config(a="p1", b="p2"),
        "second": docker_config(b="p3"),
        "broken": "{",
        "token": "t",
        "unused": "u",
        "other": "o",
    }
    spec = with_secrets(result, values, Netrc("git.example.com", "octocat", "hidden"))
    assert spec.secrets == {"token": "t", "unknown": "", "unused": "u"}
    assert spec.auths == (Auth("b", "u", "p3"), Auth("a", "u", "p1"), Auth("b", "u", "p2"))
    assert spec.masks == ("p3", "p1", "p2", "hidden")
    assert spec.pull_secrets == ("gone",)
    assert spec.netrc == Netrc("git.example.com", "octocat", "hidden")
    assert spec.steps == result.spec.steps


STORES = """
---
kind: secret
name: {}
get: {{path: secret/data/docker, name: {}}}
"""


def test_an_agent_is_told_where_secrets_without_a_value_are() -> None:
    text = SECRETS + "".join(STORES.format(*one) for one in (("token", "t"), ("gone", ""), "xy"))
    spec = with_secrets(compiled(text), {"other": "o"})
    path = "secret/data/docker"
    assert spec.external == (External("gone", path), External("token", path, "t"))
    assert with_secrets(compiled(text), {"token": "t", "gone": "{}"}).external == ()


def test_of_two_secrets_of_one_name_the_first_counts() -> None:
    named = "---\nkind: secret\nname: token\n"
    text = f"{SECRETS}{named}data: one\n{named}get: {{name: two}}\n{named}data: three\n"
    result = compiled(text + f"{named}get: {{path: four}}\n")
    assert (result.encrypted, result.external) == ({"token": "one"}, {"token": ("", "two")})


def test_secret_values_do_not_show() -> None:
    values = {"token": "hush-hush", "first": docker_config(a="hush-hush")}
    spec = with_secrets(compiled(SECRETS), values, Netrc("m", "l", "hush-hush"))
    assert spec.auths and spec.netrc
    assert "hush-hush" not in repr((spec, spec.auths, spec.netrc))


def test_ten_thousand_steps_compile() -> None:
    row = "- {{name: s{0}, image: i, commands: [echo {0}], when: {{branch: {1}}}}}\n"
    rows = [row.format(i, "main" if i % 2 else "dev") for i in range(10_000)]
    spec = compiled("kind: pipeline\nname: default\nsteps:\n" + "".join(rows)).spec
    assert len(spec.steps) == 5001
    assert spec.steps[-1].depends_on == ("s9997",)


TEXTS = st.lists(
    st.sampled_from(
        [
            *ONE.splitlines(), "---", "services:", "- name: b", "  image: x", "type: exec",
            "clone: {disable: true}", "  depends_on: [a]", "  when: {status: [failure]}",
            "  settings: {a: [1, {b: c}], d: {from_secret: e}}", "environment: {A: ${B}}",
            "kind: secret", "workspace: {path: /x}", "image_pull_secrets: [x]", "volumes:",
            "- {name: v, host: {path: /dev/x}}", "  ${V:-x}: y", "  matrix: {A: [1]}", "\t", "...",
        ]
    )
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(TEXTS.map("\n".join) | TEXTS.map(lambda lines: ONE + "\n".join(lines)))
def test_compiling_is_deterministic_and_raises_its_own_error_only(text: str) -> None:
    try:
        first = compiled(text)
    except PipelineError as fault:
        assert fault.problems
    else:
        assert compiled(text) == first
        names = [step.name for step in first.spec.steps]
        for step in first.spec.steps:
            assert set(step.depends_on) <= set(names)
