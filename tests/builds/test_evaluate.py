from __future__ import annotations

import dataclasses
from typing import Any

import _jsonnet
import pytest

from builds.evaluate.expand import expand, language
from builds.evaluate.program import Limits
from pipeline.document import parse
from pipeline.errors import PipelineError, Problem
from pipeline.facts import BuildFacts, RepoFacts

REPO = RepoFacts("octocat/hello", "octocat", "hello", trusted=True, config_path=".drone.star")
BUILD = BuildFacts(
    event="promote",
    deploy_to="production",
    after="b1",
    before="a0",
    target="main",
    source="feature/x",
    message='say "hi" to é\n<ok>',
    author_login="octocat",
    cron="nightly",
    debug=True,
    params={"LEVEL": "3", "a.b": "x"},
)


def made(text: str, path: str = ".drone.star", **options: Any) -> str:
    options = {"template": lambda _name: None} | options
    return expand(text, path, REPO, BUILD, **options)


def problem(text: str, path: str = ".drone.star", **options: Any) -> Problem:
    with pytest.raises(PipelineError) as caught:
        made(text, path, **options)
    (found,) = caught.value.problems
    return found


def names(text: str) -> list[str]:
    return [pipeline.name for pipeline in parse(text).pipelines]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".drone.jsonnet", "jsonnet"),
        ("ci/.drone.star", "starlark"),
        (".drone.starlark", "starlark"),
        (".drone.script", "starlark"),
        (".drone.yml", None),
        (".drone.json", None),
    ],
)
def test_a_files_name_tells_its_language(path: str, expected: str | None) -> None:
    assert language(path) == expected


def test_yaml_stays_as_it_is() -> None:
    text = "kind: pipeline\nname: a\n# kind: template\n"
    assert made(text, ".drone.yml") == text


STAR = """
def main(ctx):
    print("building", ctx.build.event)
    return [
        pipeline(name, ctx)
        for name in ["a", "b"]
    ]

def pipeline(name, ctx):
    return {"kind": "pipeline", "name": name, "steps": [
        {"name": "s", "image": "i", "commands": [
            ctx.build.environment, ctx.build.branch, ctx.build.commit, ctx.build.cron,
            ctx.build.params["LEVEL"], ctx.build.params["a.b"], ctx.build.message,
            ctx.repo.slug, ctx.repo.namespace, ctx.build.source, ctx.build.author_login,
        ], "privileged": ctx.repo.trusted and ctx.build.debug}
    ]}
"""


def test_starlark() -> None:
    text = made(STAR)
    assert text.count("---\n") == 2
    assert names(text) == ["a", "b"]
    (step,) = parse(text).pipelines[0].steps
    assert step.privileged
    assert step.commands == (
        "production", "main", "b1", "nightly", "3", "x", BUILD.message, "octocat/hello", "octocat",
        "feature/x", "octocat",
    )  # fmt: skip


def test_what_starlark_prints_is_shown() -> None:
    shown: list[str] = []
    made(STAR, show=shown.append)
    assert shown == ["building promote"]


def test_starlark_may_return_one_dict() -> None:
    assert made("def main(ctx): return {'kind': 'pipeline', 'name': 'x'}").startswith("---\n{")


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("def main(ctx)\n  pass", 1, "unexpected new line"),
        ("\nload('a.star', 'b')", 2, "not allowed"),
        ("def main(ctx):\n  return 1 // 0", 2, "division by zero"),
        ("def main(ctx):\n  return ctx.build.nothing", 2, "nothing"),
        ("def other(ctx): pass", 0, "main"),
        ("def main(ctx): return 'text'", 0, "dict"),
        ("def main(ctx): return [1]", 0, "dict"),
        ("def main(ctx): return {'a': main}", 0, ""),
    ],
)
def test_starlark_faults_have_a_place(source: str, line: int, words: str) -> None:
    found = problem(source)
    assert found.file == ".drone.star"
    assert (found.code, found.line) == ("evaluate:failed", line)
    assert words in found.message


LOOP = """
def main(ctx):
    x = 0
    for i in range(100000000):
        x += i
    return {}
"""
GROW = """
def main(ctx):
    x = ["0123456789"]
    for i in range(40):
        x = x + x
    return {"a": x}
"""
DEEP = "def f(n): return f(n + 1)\ndef main(ctx): return f(0)"
LONG = "def main(ctx): return {'a': 'x' * 2000000}"


@pytest.mark.parametrize(
    ("source", "words"),
    [(LOOP, "50000 steps"), (GROW, "memory"), (LONG, "longer than"), (DEEP, "")],
    ids=["steps", "memory", "output", "stack"],
)
def test_starlark_is_bounded(source: str, words: str) -> None:
    found = problem(source)
    assert found.code in ("evaluate:limit", "evaluate:failed")
    assert words in found.message


def test_limits_can_be_set() -> None:
    source = "def main(ctx):\n  for i in range(90000):\n    pass\n  return {'kind': 'pipeline'}"
    assert "steps" in problem(source).message
    assert made(source, limits=Limits(steps=1_000_000))


def test_a_program_that_takes_too_long_is_stopped() -> None:
    source = LOOP.replace(
        "        x += i", "        for j in range(100000000):\n            x += j"
    )
    limits = Limits(steps=10**15, cpu_s=1)
    assert problem(source, limits=limits).code == "evaluate:limit"


JSONNET = """
local step(name) = {name: name, image: "i", commands: [
  std.extVar("build.event"), std.extVar("build.message"), std.extVar("build.param.LEVEL"),
  std.extVar("repo.trusted"), std.extVar("repo.private"), std.extVar("build.environment"),
]};
[{kind: "pipeline", name: name, steps: [step("s")]} for name in ["a", "b"]]
"""


def test_jsonnet() -> None:
    text = made(JSONNET, ".drone.jsonnet")
    assert names(text) == ["a", "b"]
    assert parse(text).pipelines[0].steps[0].commands == (
        "promote", BUILD.message, "3", "true", "false", "production",
    )  # fmt: skip


def test_jsonnet_may_be_one_object() -> None:
    assert made("{kind: 'pipeline'}", "x.jsonnet") == '---\n{\n   "kind": "pipeline"\n}\n'


def test_jsonnet_is_written_as_jsonnet_does() -> None:
    value = "{a: [], b: {}, c: [[], {}, 'a\\u007f[]', 1.5, 1e20], '\"[]': null, e: {f: {}}}"
    expected = """\
---
{
   "\\"[]": null,
   "a": [ ],
   "b": { },
   "c": [
      [ ],
      { },
      "a\\u007f[]",
      1.5,
      100000000000000000000
   ],
   "e": {
      "f": { }
   }
}
"""
    text = made(value, "x.jsonnet")
    assert text == expected
    assert text[4:] == _jsonnet.evaluate_snippet("x", value)
    assert made(f"[{value}, {{}}]", "x.jsonnet") == expected + "---\n{ }\n"


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("{\n  a: ,\n}", 2, "nexpected"),
        ("{a: std.extVar('build.nothing')}", 1, "undefined external variable: build.nothing"),
        ("{\n a: error 'boom'}", 2, "boom"),
        ("{a: import 'lib.libsonnet'}", 1, "imports are disabled"),
        ("{a: importstr '/etc/passwd'}", 1, "imports are disabled"),
        ("local f(x) = f(x) + 1; {a: f(1)}", 0, "500 calls"),
    ],
)
def test_jsonnet_faults_have_a_place(source: str, line: int, words: str) -> None:
    found = problem(source, ".drone.jsonnet")
    assert (found.file, found.line) == (".drone.jsonnet", line)
    assert words in found.message


@pytest.mark.parametrize(
    "source",
    [
        "local f(n) = if n == 0 then 0 else f(n - 1) + f(n - 1); {a: f(60)}",
        "{a: std.makeArray(100000000, function(i) 'x')}",
        "{a: std.repeat('0123456789', 300000)}",
    ],
    ids=["time", "memory", "output"],
)
def test_jsonnet_is_bounded(source: str) -> None:
    assert problem(source, "x.jsonnet", limits=Limits(cpu_s=1)).code == "evaluate:limit"


FILES = {
    "lib/a.libsonnet": "{name: (import 'b.libsonnet').name, text: importstr '../text'}",
    "lib/b.libsonnet": "{name: 'imported'}",
    "text": "words",
}


def test_jsonnet_imports_files_of_the_commit() -> None:
    source = "local a = import 'lib/a.libsonnet'; {kind: 'pipeline', name: a.name + a.text}"
    text = made(source, "x.jsonnet", imported=FILES.get, limits=Limits(imports=3))
    assert names(text) == ["importedwords"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import 'lib/a.libsonnet'", "more than 2 imports"),
        ("import 'lib/none'", "no such file"),
        ("import '../x'", "same repository"),
        ("import '/etc/passwd'", "same repository"),
    ],
)
def test_imports_are_bounded(source: str, words: str) -> None:
    limits = Limits(imports=2)
    found = problem(source, "x.jsonnet", imported=FILES.get, limits=limits)
    assert words in found.message


LOADER = "kind: template\nload: {}\ndata:\n  name: made\n  images: [a, b]\n  debug: yes\n"
TEMPLATES = {
    "one.yml": """
{{- /* a comment */ -}}
kind: pipeline
name: {{ .input.name }}
steps:
{{- range $i, $image := .input.images }}
- name: step-{{ $i }}
  image: {{ $image | upper | lower }}
{{- end }}
""",
    "two.star": "def main(ctx): return {'kind': 'pipeline', 'name': ctx.input['name']}",
    "three.jsonnet": "{kind: 'pipeline', name: std.extVar('input.name')}",
    "four.txt": "",
    "five.yaml": "kind: pipeline\nname: {{ .input.nothing.more }}",
}


@pytest.mark.parametrize("name", ["one.yml", "two.star", "three.jsonnet"])
def test_templates(name: str) -> None:
    text = made(LOADER.format(name), ".drone.yml", template=TEMPLATES.get)
    assert names(text) == ["made"]


@pytest.mark.parametrize(
    ("name", "file", "line", "code"),
    [
        ("none.yml", ".drone.yml", 1, "template:missing"),
        ("four.txt", ".drone.yml", 1, "template:language"),
        ("five.yaml", "five.yaml", 2, "evaluate:failed"),
    ],
)
def test_template_faults_have_a_place(name: str, file: str, line: int, code: str) -> None:
    found = problem(LOADER.format(name), ".drone.yml", template=TEMPLATES.get)
    assert (found.file, found.line, found.code) == (file, line, code)


def test_a_repo_without_namespace_fields_has_them() -> None:
    repo = dataclasses.replace(REPO, namespace="", name="")
    source = (
        "def main(ctx): return {'kind': 'pipeline', 'name': ctx.repo.namespace + ctx.repo.name}"
    )
    text = expand(source, "x.star", repo, BUILD, template=lambda _name: None)
    assert names(text) == ["octocathello"]
