from __future__ import annotations

import pytest

from pipeline.document import parse
from pipeline.errors import ERROR, PipelineError
from pipeline.lint import check_manifest, check_pipeline, check_sense, lint

ONE = "kind: pipeline\nname: a\n"
STEP = ONE + "steps:\n- name: s\n  image: i\n"


def found(text: str, *, trusted: bool = False) -> list[tuple[str, int]]:
    """Codes and lines of what there is to say."""
    return [(one.code, one.line) for one in lint(parse(text), trusted=trusted)]


MANIFEST = [
    ("kind: pipeline\n---\nkind: pipeline\n", "manifest:duplicate-name", 3),
    (ONE + "---\n" + ONE, "manifest:duplicate-name", 5),
    (ONE + "depends_on: [b]\n---\nkind: pipeline\nname: b\n", "manifest:dependency", 3),
    (ONE + "depends_on: [b]\n", "manifest:dependency", 3),
    (ONE + "depends_on: [a]\n", "manifest:dependency", 3),
    (ONE + "depends_on:\n- a\n- c\n", "manifest:dependency", 4),
    (ONE + "platform: {os: darwin}\n", "manifest:platform", 3),
    (ONE + "platform: {arch: arm32}\n", "manifest:platform", 3),
    (ONE + "type: docker\nplatform: {os: Linux}\n", "manifest:platform", 4),
    (ONE + "matrix: {A: [x, x]}\n", "manifest:duplicate-name", 3),
    (ONE + "matrix: {A: [x]}\n---\nkind: pipeline\nname: a (A=x)\n", "manifest:duplicate-name", 6),
]


@pytest.mark.parametrize(("text", "code", "line"), MANIFEST)
def test_manifest_rules_stop_the_build(text: str, code: str, line: int) -> None:
    file = parse(text)
    with pytest.raises(PipelineError) as caught:
        check_manifest(file)
    assert (caught.value.problems[0].code, caught.value.problems[0].line) == (code, line)


@pytest.mark.parametrize(
    "text",
    [
        ONE + "platform: {os: windows, arch: arm64}\n",
        ONE + "platform: {arch: s390x}\n",
        ONE + "type: exec\nplatform: {os: darwin, arch: riscv64}\n",
        ONE + "type: kubernetes\nplatform: {os: any}\n",
        "kind: pipelin\nplatform: {os: any}\nsteps: [{name: a, image: b}]\n",
        ONE + "---\nkind: pipeline\nname: b\ndepends_on: [a]\n",
        ONE + "matrix: {ARCH: [arm, arm64]}\nplatform: {arch: '${ARCH}'}\n",
        "kind: secret\nname: a\n---\n" + ONE,
        "",
    ],
)
def test_what_the_manifest_may_have(text: str) -> None:
    check_manifest(parse(text))


def test_a_manifest_error_names_the_nearest_pipeline() -> None:
    file = parse("kind: pipeline\nname: build\n---\nkind: pipeline\ndepends_on: [biuld]\n")
    [problem] = lint(file)
    assert problem.message == (
        "`depends_on` names `biuld`, but no pipeline above is called so; did you mean `build`?"
    )


STEPS = [
    (ONE + "steps:\n-\n", "step:missing", 4),
    (ONE + "services:\n-\n", "step:missing", 4),
    (ONE + "steps:\n- image: i\n", "step:name", 4),
    (ONE + f"steps:\n- name: {'ä' * 51}\n  image: i\n", "step:name", 4),
    (STEP + "- name: s\n  image: i\n", "step:duplicate-name", 6),
    (STEP + "services:\n- name: s\n  image: i\n", "step:duplicate-name", 4),
    (ONE + "steps:\n- name: clone\n  image: i\n", "step:duplicate-name", 4),
    (ONE + "steps:\n- name: s\n", "step:image", 4),
    (ONE + "services:\n- name: s\n", "step:image", 4),
    (STEP + "  depends_on: [t]\n- name: t\n  image: i\n", "step:dependency", 6),
    (STEP + "  depends_on: [s]\n", "step:dependency", 6),
    (STEP + "  depends_on: [clone, x]\nclone: {disable: true}\n", "step:dependency", 6),
    (STEP + "  volumes: [{name: workspace, path: /x}]\n", "step:volume", 6),
    (STEP + "  volumes: [{name: _docker_socket, path: /x}]\n", "step:volume", 6),
    (STEP + "  volumes: [{name: v, path: /run/drone}]\n", "step:volume", 6),
    (STEP + "  volumes: [{name: v, path: /run/x/../drone/y}]\n", "step:volume", 6),
    (STEP + "volumes:\n- name: _workspace\n  temp: {}\n", "step:volume", 7),
    (STEP + "volumes:\n- temp: {}\n", "step:volume", 7),
]


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(("text", "code", "line"), STEPS)
def test_step_rules_stop_the_stage(text: str, code: str, line: int, trusted: bool) -> None:
    file = parse(text)
    check_manifest(file)
    with pytest.raises(PipelineError):
        check_pipeline(file, file.pipelines[0], trusted=trusted)
    assert (code, line) in found(text, trusted=trusted)


TRUSTED = [
    STEP + "  privileged: true\n",
    STEP + "  devices: [{name: a, path: /dev/a}]\n",
    STEP + "  dns: [1.1.1.1]\n",
    STEP + "  dns_search: [a]\n",
    STEP + "  extra_hosts: [a:1.1.1.1]\n",
    STEP + "  network_mode: host\n",
    STEP + "  shm_size: 1k\n",
    ONE + "services:\n- name: s\n  image: i\n  privileged: true\n",
    STEP + "volumes:\n- name: v\n  host: {path: /x}\n",
    STEP + "volumes:\n- name: v\n  temp: {medium: memory}\n",
]


@pytest.mark.parametrize("text", TRUSTED)
def test_only_trusted_repos_may(text: str) -> None:
    file = parse(text)
    check_pipeline(file, file.pipelines[0], trusted=True)
    with pytest.raises(PipelineError, match="trusted repos only"):
        check_pipeline(file, file.pipelines[0], trusted=False)


@pytest.mark.parametrize(
    "text",
    [
        STEP + "  shm_size: 0\n  privileged: false\n  mem_limit: 1g\n",
        STEP + "  volumes: [{name: v, path: /x}]\nvolumes: [{name: v, temp: {}}]\n",
        STEP + "  depends_on: [clone]\n",
        STEP + "  depends_on: [clone]\nclone: {disable: true}\n",
        ONE + "clone: {disable: true}\nsteps:\n- name: clone\n  image: i\n",
        ONE + "services:\n- name: d\n  image: i\n" + "steps:\n- {name: s, image: i, depends_on: d}",
        ONE + "steps:\n- name: " + "a" * 100 + "\n  image: i\n",
        ONE + "type: exec\nsteps:\n- name: s\n  commands: [x]\n",
        ONE,
    ],
)
def test_what_untrusted_repos_may_have(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("steps:\n- name: s\n  image: i\n", [("step:image", 6)]),
        ("steps:\n- commands: [x]\n", [("step:name", 5)]),
        (
            "steps:\n- name: s\n- name: s\n  privileged: true\n",
            [("step:duplicate-name", 6)],
        ),
        ("services:\n- name: d\n  image: i\n", [("pipeline:no-effect", 4)]),
        ("volumes:\n- name: v\n  host: {path: /x}\n", []),
    ],
)
def test_rules_of_exec_pipelines(text: str, findings: list[tuple[str, int]]) -> None:
    assert found(ONE + "type: exec\n" + text) == findings


def test_pipelines_of_other_runners_are_only_mentioned() -> None:
    text = ONE + "type: kubernetes\nmetadata: {}\nsteps:\n- name: s\n  privileged: true\n"
    assert found(text) == [("pipeline:type", 3)]
    [problem] = lint(parse(text))
    assert problem.severity == "warning"


def test_everything_is_told_at_once_in_order() -> None:
    text = (
        "kind: pipeline\nname: a\nplatform: {os: x}\nstepz: 1\nsteps:\n- privileged: true\n"
        "environment: []\n"
    )
    assert found(text) == [
        ("manifest:platform", 3),
        ("config:unknown-key", 4),
        ("step:image", 6),
        ("step:name", 6),
        ("step:trusted", 6),
        ("config:wrong-type", 7),
    ]


def test_many_unknown_names_are_told_without_looking_for_near_ones() -> None:
    steps = "".join(f"- {{name: s{i}, image: i, depends_on: [z{i}]}}\n" for i in range(3000))
    assert len(found(ONE + "steps:\n" + steps)) == 3000


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("kind: nonsense\nname: x\n", 1),
        (ONE + "type: exec\nstesp:\n- name: a\n  commands: [x]\n", 4),
        (ONE + "step:\n- name: a\n  image: x\n", 3),
    ],
)
def test_a_slip_with_which_nothing_runs_is_an_error(text: str, line: int) -> None:
    file = parse(text)

    with pytest.raises(PipelineError, match="there is nothing to run: ") as fault:
        check_sense(file)

    assert [problem.line for problem in fault.value.problems] == [line]
    assert [one.code for one in lint(file) if one.severity == ERROR] == ["manifest:nothing-to-run"]


@pytest.mark.parametrize(
    "text",
    [
        ONE,
        ONE + "colour: red\n",
        ONE + "stesp: []\nsteps:\n- name: a\n  image: x\n",
        ONE + "stesp: []\nservices:\n- name: a\n  image: x\n",
        "kind: pipelin\nsteps:\n- name: a\n  image: x\n",
    ],
)
def test_a_slip_beside_what_runs_is_a_warning(text: str) -> None:
    check_sense(parse(text))


def test_a_step_that_runs_nothing_for_a_slip_is_an_error_of_the_stage() -> None:
    file = parse(ONE + "type: exec\nsteps:\n- name: a\n  comands: [x]\n- name: b\n")

    found = [one for one in lint(file) if one.severity == ERROR]

    assert [(one.code, one.line) for one in found] == [("step:commands", 5)]
    assert "did you mean `commands`?" in found[0].message
