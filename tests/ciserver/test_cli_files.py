"""`ci lint`, `ci plan`, `ci convert`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ciserver.cli import app

GOOD = "kind: pipeline\nname: a\nsteps:\n- name: s\n  image: i\n"
BAD = "kind: pipeline\nname: a\nstepz: []\nsteps:\n- name: s\n  privileged: true\n"
OLD = "pipeline:\n  build:\n    image: a\nmatrix:\n  V: [1, 2]\n"
TWO = (
    "kind: pipeline\nname: a\nsteps:\n- {name: s, image: i}\n"
    "- {name: t, image: '${DRONE_TAG}', when: {branch: '${DRONE_REPO_BRANCH}'}}\n"
    "- {name: u, image: i, when: {status: failure}}\n---\n"
    "kind: pipeline\nname: b\ntrigger: {event: tag}\ndepends_on: [a]\n---\n"
    "kind: pipeline\nname: c\ntrigger: {paths: ['docs/**']}\ndepends_on: [b]\n"
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in (("good", GOOD), ("bad", BAD), ("old", OLD), ("two", TWO)):
        (tmp_path / f"{name}.yml").write_text(text)
    return tmp_path


def ci(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=stdin)


def planned(*arguments: str) -> list[dict[str, Any]]:
    result = ci("plan", "--json", *arguments)
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_lint_says_nothing_about_a_good_file() -> None:
    result = ci("lint", "good.yml")
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads(ci("lint", "good.yml", "--json").stdout) == []


def test_lint_tells_everything_with_its_place() -> None:
    result = ci("lint", "good.yml", "bad.yml")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "bad.yml:3:1: warning: `stepz`: did you mean `steps`? [config:unknown-key]",
        "bad.yml:5:3: error: step `s` needs an `image` [step:image]",
        "bad.yml:6:3: error: `privileged` is for trusted repos only [step:trusted]",
    ]


def test_lint_prints_json() -> None:
    found = json.loads(ci("lint", "bad.yml", "--trusted", "--json").stdout)
    assert found == [
        {
            "file": "bad.yml",
            "line": 3,
            "column": 1,
            "severity": "warning",
            "code": "config:unknown-key",
            "message": "`stepz`: did you mean `steps`?",
        },
        {
            "file": "bad.yml",
            "line": 5,
            "column": 3,
            "severity": "error",
            "code": "step:image",
            "message": "step `s` needs an `image`",
        },
    ]


def test_warnings_alone_are_no_failure() -> None:
    assert ci("lint", "-", stdin=GOOD + "zzz: 1\n").exit_code == 0


@pytest.mark.parametrize("data", [b"\xff\xfe", b"kind: pipeline\nname: \xe9\n"])
def test_a_file_that_is_not_utf8_has_a_place(here: Path, data: bytes) -> None:
    (here / "x.yml").write_bytes(data)
    [found] = json.loads(ci("lint", "x.yml", "--json").stdout)
    assert found["code"] == "yaml:encoding"
    assert (found["line"], found["column"]) == ((1, 1) if len(data) == 2 else (2, 7))


def test_a_missing_file_is_refused(here: Path) -> None:
    for command in ("lint", "plan", "convert"):
        result = ci(command, "nothing.yml")
        assert result.exit_code != 0
        assert "nothing.yml: No such file" in str(result.exception)


def test_the_default_file_is_the_usual_one(here: Path) -> None:
    (here / ".drone.yml").write_text(GOOD)
    assert planned()[0]["file"] == ".drone.yml"


def test_findings_about_a_converted_file_say_so() -> None:
    [found] = json.loads(
        ci("lint", "-", "--json", stdin="pipeline:\n  a: {commands: [x]}\n").stdout
    )
    assert (found["line"], found["code"]) == (2, "step:image")
    assert "of the converted file" in found["message"]


def test_plan_prints_json() -> None:
    [found] = planned("two.yml", "--path", "src/a.c")
    assert {key: value for key, value in found.items() if key != "stages"} == {
        "file": "two.yml",
        "verdict": "ok",
        "messages": [],
        "documents": 3,
    }
    first, second, third = found["stages"]
    assert {key: value for key, value in first.items() if key != "steps"} == {
        "name": "a",
        "type": "docker",
        "platform": "linux/amd64",
        "labels": {},
        "depends_on": [],
        "runs": True,
        "reason": "",
    }
    assert first["steps"][2] == {
        "name": "t",
        "image": "",
        "runs": True,
        "reason": "",
        "depends_on": ["s"],
        "kind": "step",
    }
    assert [(one["name"], one["reason"]) for one in first["steps"]] == [
        ("clone", ""),
        ("s", ""),
        ("t", ""),
        ("u", "only if a step before has failed"),
    ]
    assert (second["runs"], second["reason"]) == (False, "event `push` does not match")
    assert (third["runs"], third["reason"]) == (False, "paths (1 changed files) does not match")


def test_plan_waits_for_what_is_chosen() -> None:
    [found] = planned("two.yml", "--path", "docs/a.md")
    assert [(one["name"], one["runs"], one["depends_on"]) for one in found["stages"]] == [
        ("a", True, []),
        ("b", False, ["a"]),
        ("c", True, ["a"]),
    ]


@pytest.mark.parametrize(
    ("arguments", "trigger", "chosen"),
    [
        ([], "{event: push, branch: main, ref: refs/heads/main, action: {exclude: ['?*']}}", True),
        (["--event", "tag"], "{event: tag, branch: {exclude: ['?*']}, action: create}", True),
        (["--event", "tag", "--ref", "refs/tags/v2"], "{ref: refs/tags/v2}", True),
        (["--event", "pull_request"], "{action: opened, ref: refs/pull/*/head}", True),
        (["--event", "pull_request", "--action", "synchronized"], "{action: opened}", False),
        (["--event", "promote", "--target", "prod"], "{target: prod}", True),
        (["--event", "cron", "--cron", "nightly"], "{cron: nightly}", True),
        (["--branch", "x/y"], "{branch: x/*}", True),
        (["--repo", "a/b"], "{repo: a/*}", True),
        (["--instance", "x"], "{instance: y}", True),
        (["--path", "a", "--path", "b"], "{paths: [b]}", True),
    ],
)
def test_plan_takes_the_facts_of_an_event(
    here: Path, arguments: list[str], trigger: str, chosen: bool
) -> None:
    (here / "x.yml").write_text(f"kind: pipeline\ntrigger: {trigger}\n")
    [found] = planned("x.yml", *arguments)
    assert found["stages"][0]["runs"] is chosen


@pytest.mark.parametrize(
    ("text", "verdict", "code"),
    [
        (GOOD, "ok", 0),
        ("kind: secret\nname: a\ndata: b\n", "no_pipeline", 0),
        ("", "no_pipeline", 0),
        ("name: a\n", "parse_error", 1),
        ("a: [", "parse_error", 1),
        (GOOD + "---\n" + GOOD, "lint_error", 1),
        ("pipeline:\n  a: [b]\n", "convert_error", 1),
        ("steps:\n  a: {image: b, when: {evaluate: x}}\n", "parse_error", 1),
        (BAD, "ok", 0),
    ],
)
def test_verdicts(text: str, verdict: str, code: int) -> None:
    result = ci("plan", "-", "--json", stdin=text)
    assert result.exit_code == code
    [found] = json.loads(result.stdout)
    assert found["verdict"] == verdict
    assert bool(found["stages"]) is (verdict == "ok")
    assert bool(found["messages"]) is (code == 1 or text == BAD)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("# nothing\n\n  # more\n", 0),
        ("# words\n---\n" + GOOD, 1),
        (GOOD + "---\na: [\n", 2),
        ("---\npipeline:\n  a: {image: b}\nmatrix: {A: [x, y]}\n", 1),
        (GOOD + "...\n---\nrest\n", 1),
    ],
)
def test_documents_are_those_of_the_given_file(here: Path, text: str, count: int) -> None:
    (here / "x.yml").write_text(text)
    [found] = json.loads(ci("plan", "x.yml", "--json").stdout)
    assert found["documents"] == count


def test_each_stage_is_planned_with_its_own_values(here: Path) -> None:
    (here / "x.yml").write_text(
        "kind: pipeline\nname: a\nmatrix: {V: [x, y]}\nsteps:\n"
        "- {name: s, image: 'i:${V}-${DRONE_STAGE_NAME}'}\n---\n"
        "kind: pipeline\nname: b\nsteps:\n- {name: s, image: 'j:${DRONE_STAGE_NAME}${V}'}\n"
    )
    [found] = planned("x.yml")
    assert [one["steps"][1]["image"] for one in found["stages"]] == [
        "i:x-a (V=x)",
        "i:y-a (V=y)",
        "j:b",
    ]


def test_a_name_that_substitution_changes_is_found_no_more(here: Path) -> None:
    (here / "x.yml").write_text(GOOD.replace("name: a", "name: 'a-${DRONE_BRANCH}'", 1))
    [found] = planned("x.yml")
    assert "names are not substituted" in found["stages"][0]["steps"][0]["reason"]


def test_steps_that_never_run_do_not_make_a_graph_without_bounds(here: Path) -> None:
    names = [f"s{number}" for number in range(1200)]
    steps = [f"- {{name: {name}, image: i}}" for name in names]
    steps.append(f"- {{name: h, image: i, when: {{event: x}}, depends_on: [{', '.join(names)}]}}")
    steps += [f"- {{name: t{number}, image: i, depends_on: [h]}}" for number in range(1200)]
    (here / "x.yml").write_text("kind: pipeline\nname: a\nsteps:\n" + "\n".join(steps) + "\n")
    [found] = planned("x.yml")
    [step] = found["stages"][0]["steps"]
    assert "wait for more than" in step["reason"]


def test_a_substitution_that_fails_is_the_stages_error(here: Path) -> None:
    (here / "x.yml").write_text(GOOD.replace("image: i", "image: 'i:${A-b}'"))
    [found] = planned("x.yml")
    [clone, step] = found["stages"][0]["steps"]
    assert not clone["runs"]
    assert step["reason"].startswith("after substitution: ")


def test_plan_prints_words_for_people() -> None:
    assert ci("plan", "two.yml").stdout.splitlines() == [
        "two.yml: ok",
        "  + a (docker, linux/amd64)",
        "      + clone (clone)",
        "      + s after clone",
        "      + t after s",
        "      + u after t: only if a step before has failed",
        "  - b (docker, linux/amd64) after a: event `push` does not match",
        "  + c (docker, linux/amd64) after a",
        "      + clone (clone)",
    ]


def test_convert_prints_the_modern_file() -> None:
    result = ci("convert", "old.yml")
    assert result.exit_code == 0
    assert result.stdout.count("kind: pipeline") == 2
    assert ci("convert", "good.yml").stdout == GOOD


def test_convert_says_what_it_cannot() -> None:
    result = ci("convert", "-", stdin="pipeline:\n  a: [b]\n")
    assert result.exit_code == 1
    assert "must be a map" in result.stderr


def test_a_folder_of_workflows_is_one_file(here: Path) -> None:
    folder = here / ".woodpecker"
    folder.mkdir()
    (folder / "b.yml").write_text("steps: {x: {image: i}}\n")
    (folder / "a.yaml").write_text("steps: {x: {image: i}}\ndepends_on: [b]\n")
    [found] = planned(".woodpecker")
    assert [(one["name"], one["depends_on"]) for one in found["stages"]] == [
        ("b", []),
        ("a", ["b"]),
    ]
    assert "name: b" in ci("convert", ".woodpecker").stdout
    (folder / "c.yml").write_text("steps: {x: {}}\n")
    [problem] = json.loads(ci("lint", ".woodpecker", "--json").stdout)
    assert problem["file"] == ".woodpecker/c.yml"
    (folder / "c.yml").write_text("steps:\n  x:\n    image: i\n    detach: perhaps\n")
    [problem] = json.loads(ci("lint", ".woodpecker", "--json").stdout)
    place = (problem["file"], problem["line"], problem["column"])
    assert place == (".woodpecker/c.yml", 4, 13)


def test_an_empty_folder_is_refused(here: Path) -> None:
    (here / "empty").mkdir()
    assert "no workflows" in str(ci("plan", "empty").exception)


def test_programs_are_evaluated(here: Path) -> None:
    (here / "a.jsonnet").write_text('local b = import "b.libsonnet"; [b, b {name: "y"}]')
    [lacking] = planned("a.jsonnet")
    assert lacking["verdict"] == "needs_import"
    (here / "b.libsonnet").write_text('{kind: "pipeline", name: std.extVar("build.event")}')
    [found] = planned("a.jsonnet", "--event", "custom")
    assert [one["name"] for one in found["stages"]] == ["custom", "y"]
    (here / "c.star").write_text("def main(ctx):\n  return x\n")
    [failed] = planned("c.star")
    assert failed["verdict"] == "convert_error"
