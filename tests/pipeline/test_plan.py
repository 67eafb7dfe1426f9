from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.conditions import Subject
from pipeline.document import File, parse
from pipeline.facts import BuildFacts, RepoFacts
from pipeline.plan import Plan, plan, steps

REPO = RepoFacts("octocat/hello", default_branch="trunk")
PUSH = BuildFacts(event="push", target="main", ref="refs/heads/main")


def planned(text: str, build: BuildFacts = PUSH) -> Plan:
    return plan(parse(text), REPO, build)


def chain(*lines: str) -> str:
    """Pipelines from `name`, `name: dep dep`, with ` !` for one that a push does not choose."""
    text = ""
    for line in lines:
        name, _, deps = line.removesuffix(" !").partition(": ")
        text += f"---\nkind: pipeline\nname: {name}\ndepends_on: [{', '.join(deps.split())}]\n"
        text += "trigger: {event: tag}\n" if line.endswith(" !") else ""
    return text


def waiting(text: str) -> dict[str, tuple[str, ...]]:
    return {stage.name: stage.depends_on for stage in planned(text).stages}


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        (chain("a"), {"a": ()}),
        (chain("a", "b: a", "c: a b"), {"a": (), "b": ("a",), "c": ("a", "b")}),
        (chain("a", "b: a !", "c: b"), {"a": (), "c": ("a",)}),
        (chain("a !", "b: a", "c: b"), {"b": (), "c": ("b",)}),
        (chain("a", "b !", "c: a b !", "d: c a"), {"a": (), "d": ("a",)}),
        (chain("a", "b: a !", "c: b !", "d: c"), {"a": (), "d": ("a",)}),
        (chain("b", "a", "c: a b"), {"b": (), "a": (), "c": ("a", "b")}),
        (chain("a !", "b: a !"), {}),
    ],
)
def test_what_is_not_chosen_is_cut_out(text: str, stages: dict[str, tuple[str, ...]]) -> None:
    assert waiting(text) == stages


def test_stages_are_numbered_in_file_order_from_one() -> None:
    found = planned(chain("b", "x !", "a"))
    assert [(stage.number, stage.name) for stage in found.stages] == [(1, "b"), (2, "a")]
    assert [(one.name, one.reason) for one in found.skipped] == [
        ("x", "event `push` does not match")
    ]


def test_a_stage_has_what_its_pipeline_says(golden: Callable[[str, Any], None]) -> None:
    text = (
        "kind: pipeline\ntype: exec\nname: a\nplatform: {os: linux, arch: arm, variant: v7,"
        " version: 1809}\nnode: {disk: ssd}\nconcurrency: {limit: 2}\ntimeout: 10m\n"
        "trigger: {status: [success, failure]}\n---\nkind: pipeline\nname: b\n"
        "trigger: {status: failure}\ndepends_on: [a]\n---\nkind: pipeline\nname: c\n"
        "trigger: {cron: x}\n---\nkind: pipeline\nname: d\nmatrix: {OS: [linux, windows],"
        " V: [1]}\nplatform: {os: '${OS}'}\nnode: {v: '${V}'}\ndepends_on: [a, c]\n---\n"
        "kind: pipeline\nname: e\ndepends_on: [d]\n"
    )
    golden("plan/stages", asdict(planned(text)))


def test_the_points_of_a_matrix_are_stages_and_all_are_awaited() -> None:
    text = (
        "kind: pipeline\nname: t\nmatrix: {GO: [1.20, 1.21]}\n---\n"
        "kind: pipeline\nname: d\ndepends_on: [t]\n"
    )
    found = planned(text)
    assert [(one.name, one.pipeline, dict(one.axis)) for one in found.stages] == [
        ("t (GO=1.20)", "t", {"GO": "1.20"}),
        ("t (GO=1.21)", "t", {"GO": "1.21"}),
        ("d", "d", {}),
    ]
    assert found.stages[2].depends_on == ("t (GO=1.20)", "t (GO=1.21)")


@pytest.mark.parametrize(
    ("trigger", "chosen"),
    [
        ("{branch: main}", True),
        ("{branch: trunk}", False),
        ("{branch: '${CI_REPO_DEFAULT_BRANCH}'}", False),
        ("{instance: elsewhere}", True),
        ("{repo: octocat/*}", True),
        ("{ref: refs/heads/**}", True),
        ("{paths: ['docs/**']}", True),
        ("{paths: ['src/**']}", False),
        ("{paths: {exclude: ['docs/**']}}", False),
        ("[{branch: x}, {event: push}]", True),
        ("[{branch: x}, {event: tag}]", False),
        ("{cron: nightly}", False),
        ("{target: {exclude: [production]}}", True),
    ],
)
def test_triggers(trigger: str, chosen: bool) -> None:
    build = BuildFacts(
        event="push", target="main", ref="refs/heads/main", paths=("docs/a.md", "docs/b.md")
    )
    found = planned(f"kind: pipeline\ntrigger: {trigger}\n", build)
    assert bool(found.stages) is chosen
    assert bool(found.skipped) is not chosen


def test_a_template_that_nobody_expanded_counts_as_a_pipeline() -> None:
    assert [stage.name for stage in planned("kind: template\nload: a\n").stages] == ["default"]


GRAPHS = {
    "empty": "",
    "no-clone": "clone: {disable: true}",
    "serial": "steps: [{name: a}, {name: b}, {name: c}]",
    "serial-with-service": "services: [{name: d}]\nsteps: [{name: a}, {name: b}]",
    "serial-detached": "steps: [{name: a, detach: true}, {name: b}]",
    "serial-without-clone": "clone: {disable: true}\nsteps: [{name: a}, {name: b}]",
    "serial-with-a-hole": "steps: [{name: a}, {name: b, when: {event: tag}}, {name: c}]",
    "serial-first-is-a-hole": "steps: [{name: a, when: {event: tag}}, {name: b}]",
    "graph": "steps: [{name: a}, {name: b}, {name: c, depends_on: [a, b]}]",
    "graph-service": "services: [{name: d}]\nsteps: [{name: a}, {name: b, depends_on: [a]}]",
    "graph-by-service": "services: [{name: d, depends_on: [clone]}]\nsteps: [{name: a}]",
    "graph-without-clone": (
        "clone: {disable: true}\nsteps: [{name: a}, {name: b, depends_on: [clone]},"
        " {name: c, depends_on: [a]}]"
    ),
    "graph-own-clone": (
        "clone: {disable: true}\nsteps: [{name: clone}, {name: b, depends_on: [clone]}]"
    ),
    "graph-with-a-hole": (
        "steps: [{name: a}, {name: b, depends_on: [a], when: {branch: x}},"
        " {name: c, depends_on: [b, a]}]"
    ),
    "graph-two-holes": (
        "steps: [{name: a}, {name: b, depends_on: [a], when: {branch: x}},"
        " {name: c, depends_on: [b], when: {branch: x}}, {name: d, depends_on: [c]}]"
    ),
    "policies": (
        "steps: [{name: a}, {name: b, when: {status: failure}},"
        " {name: c, when: {status: [success, failure]}}]"
    ),
    "missing": "steps: [~, {name: a}]",
    "exec": "type: exec\nservices: [{name: d}]\nsteps: [{name: a}]",
}


@pytest.mark.parametrize("name", GRAPHS)
def test_step_graphs(name: str, golden: Callable[[str, Any], None]) -> None:
    [one] = parse(f"kind: pipeline\n{GRAPHS[name]}\n").pipelines
    found = steps(one, Subject(event="push", branch="main"))
    golden(
        f"plan/steps-{name}",
        [
            {"name": s.name, "kind": s.kind, "run": s.run, "after": list(s.depends_on)}
            | ({"reason": s.reason} if s.reason else {})
            for s in found
        ],
    )


def test_ten_thousand_steps_that_never_run_are_planned() -> None:
    text = "".join(
        f"- {{name: s{i}, when: {{event: tag}}, depends_on: [s{max(i - 1, 0)}]}}\n"
        for i in range(10_000)
    )
    [one] = parse("kind: pipeline\nsteps:\n" + text).pipelines
    assert len(steps(one, Subject(event="push"))) == 10_001


NAMES = st.sampled_from("abcdef")


@given(st.lists(st.tuples(NAMES, st.lists(NAMES, max_size=3), st.booleans()), max_size=6))
def test_plans_are_deterministic_and_wait_for_earlier_stages_only(
    rows: list[tuple[str, list[str], bool]],
) -> None:
    text = chain(*(f"{n}: {' '.join(deps)}{' !' if out else ''}" for n, deps, out in rows))
    file: File = parse(text)
    first, second = plan(file, REPO, PUSH), plan(parse(text), REPO, PUSH)
    assert first == second
    seen: set[str] = set()
    for stage in first.stages:
        assert set(stage.depends_on) <= seen
        seen.add(stage.name)
