from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.convert import combine, modernise
from pipeline.convert.emit import to_yaml
from pipeline.convert.woodpecker import workflow_name
from pipeline.document import parse
from pipeline.errors import PipelineError
from pipeline.lint import check_manifest, lint
from pipeline.verdict import judge

OLD = Path(__file__).parent / "old"
FILES = sorted(path.name for path in OLD.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_old_files_are_converted(name: str, golden: Callable[[str, Any], None]) -> None:
    modern = modernise((OLD / name).read_text(), f".woodpecker/{name}")
    golden(f"convert/{name}", modern.splitlines())
    file = parse(modern)
    check_manifest(file)
    errors = [one for one in lint(file, trusted=True) if one.severity == "error"]
    assert errors == []
    assert modernise(modern, name) == modern


@pytest.mark.parametrize(
    "text",
    [
        "kind: pipeline\nsteps: []\n",
        "kind: pipeline\nname: pipeline\n",
        "'kind': pipeline\nsteps: []\n",
        '"kind": pipeline\nsteps: []\n',
        "kind : pipeline\nsteps: []\n",
        "---\nsteps: []\n? kind\n: pipeline\n",
        " kind: pipeline\nsteps: []\n",
        '{"kind": "pipeline", "steps": []}',
        "build:\n  image: a\n",
        "",
        "a: [",
    ],
)
def test_other_files_are_left_alone(text: str) -> None:
    assert modernise(text, ".drone.yml") == text


REFUSED = [
    ("pipeline:\n  a: {commands: [b: c]}\n", "config:wrong-type", 2, "commands"),
    ("pipeline:\n  a: [b]\n", "config:wrong-type", 2, "a map"),
    ("pipeline:\n  a: {image: [b]}\n", "config:wrong-type", 2, "a.image"),
    ("pipeline:\n  a: {detach: 'x'}\n", "config:wrong-type", 2, "detach"),
    ("pipeline:\n  a:\n\t- b\n", "yaml:syntax", 3, "tab"),
    (
        "steps:\n  a:\n    image: b\n    when:\n      evaluate: 'x == y'\n",
        "convert:unsupported",
        5,
        "evaluate",
    ),
    (
        "steps:\n  a:\n    image: b\n    settings: {x: {y: {from_secret: z}}}\n",
        "convert:unsupported",
        4,
        "settings.x",
    ),
    (
        "steps:\n  a:\n    image: b\n    settings: {x: y}\n    commands: [z]\n",
        "convert:unsupported",
        5,
        "commands",
    ),
    ("steps:\n  a:\n    image: b\n    tmpfs: [/x]\n", "convert:unsupported", 4, "medium: memory"),
    ("steps:\n  a: {image: b, failure: maybe}\n", "convert:unsupported", 2, "maybe"),
    ("steps:\n  a: {commands: [x]}\n", "step:image", 2, "needs an `image`"),
    ("steps: []\nservices:\n- image: a\n", "convert:unsupported", 3, "host name"),
    ("steps: []\nconcurrency: {group: g}\n", "convert:unsupported", 2, "limit"),
    ("steps: []\ncompile: {a: {image: b}}\n", "convert:unsupported", 2, "compile"),
    ("steps: []\ndepends_on: [{workflow: a}]\n", "convert:unsupported", 2, "name"),
    ("services: []\n", "config:missing-steps", 1, "steps"),
    ("steps: [\n", "yaml:syntax", 2, "lacks a value"),
    ("steps: []\n---\nsteps: []\n", "convert:unsupported", 3, "one workflow per file"),
    (
        "steps: []\nwhen: {path: {include: [a], on_empty: false}}\n",
        "convert:unsupported",
        2,
        "on_empty",
    ),
    ("steps: []\nwhen: {ref: a, tag: b}\n", "convert:unsupported", 2, "tag"),
]


@pytest.mark.parametrize(("text", "code", "line", "words"), REFUSED)
def test_what_has_no_equal_is_refused_by_name(text: str, code: str, line: int, words: str) -> None:
    with pytest.raises(PipelineError) as caught:
        modernise(text, ".woodpecker/a.yml")
    [problem] = caught.value.problems
    assert (problem.code, problem.line) == (code, line)
    assert words in problem.message


def test_all_of_it_is_told_at_once() -> None:
    text = "steps:\n  a: {tmpfs: [x]}\n  b: {image: c, when: {evaluate: 'x'}}\n"
    with pytest.raises(PipelineError) as caught:
        modernise(text, ".woodpecker.yml")
    assert [one.code for one in caught.value.problems] == [
        "step:image",
        "convert:unsupported",
        "convert:unsupported",
    ]


@pytest.mark.parametrize(
    ("when", "found"),
    [
        ("{branch: main, event: push}", ["push: main"]),
        ("{branch: main, event: [push, tag]}", ["push: main", "tag"]),
        ("{branch: main, event: tag}", ["tag"]),
        ("{branch: main}", ["!tag: main", "tag"]),
        ("{cron: nightly, event: cron}", ["cron: nightly"]),
        ("{cron: nightly, event: [manual, cron]}", ["custom", "cron: nightly"]),
        ("{cron: nightly, event: push}", ["push"]),
        ("{cron: nightly}", ["!cron", "cron: nightly"]),
        ("[{event: push}, {branch: x, event: [tag, push]}]", ["push", "push: x", "tag"]),
    ],
)
def test_woodpecker_asks_tags_for_no_branch_and_only_crons_for_their_name(
    when: str, found: list[str]
) -> None:
    text = f"when: {when}\nsteps: {{a: {{image: b, when: {when}}}}}\n"
    [one] = parse(modernise(text, ".woodpecker.yml")).pipelines
    for conditions in (one.trigger, one.steps[0].when):
        words = []
        for each in conditions:
            event = each.event.include or tuple(f"!{name}" for name in each.event.exclude)
            more = each.branch.include or each.cron.include
            words.append(f"{', '.join(event)}: {', '.join(more)}" if more else ", ".join(event))
        assert words == found


@pytest.mark.parametrize(
    "text",
    [
        "image: [b]", "shell: {a: b}", "devices: /dev/a", "tmpfs: /x", "extra_hosts: a:b",
        "volumes: /a:/b", "volumes: [{a: b}]", "secrets: a", "secrets: [a, {source: b}]",
        "pull: 'true'", "environment: {A: [b]}", "when: push",
    ],
)  # fmt: skip
def test_old_files_that_drone_does_not_convert_are_refused(text: str) -> None:
    found = judge(f"pipeline:\n  a:\n    {text}\n")
    assert found.verdict == "convert_error"
    assert {one.line for one in found.problems} == {3}


@pytest.mark.parametrize("head", ["steps:", "pipeline:"])
def test_too_many_documents_are_refused(head: str) -> None:
    with pytest.raises(PipelineError, match="more than 1000 documents"):
        modernise(f"{head}\n" + "---\n" * 1001, ".drone.yml")


def test_no_more_points_of_an_old_matrix_than_in_drone() -> None:
    axes = "matrix:\n" + "".join(f"  {key}: [1, 2, 3, 4, 5]\n" for key in "ABC")
    modern = modernise("pipeline:\n  a: {image: b}\n" + axes, ".drone.yml")
    assert [one.name for one in parse(modern).pipelines] == [f"matrix-{i}" for i in range(1, 28)]
    assert "# Left out: points of the matrix after the first 27" in modern
    include = "matrix:\n  include:\n" + "".join(f"  - A: {i}\n" for i in range(40))
    modern = modernise("pipeline:\n  a: {image: b}\n" + include, ".drone.yml")
    assert len(parse(modern).pipelines) == 40


def test_old_conditions_of_a_wrong_shape_are_left_out() -> None:
    text = "pipeline:\n  a: {image: b, when: {branch: [[c]], event: [push]}}\nbranches: [{d: e}]\n"
    modern = modernise(text, ".drone.yml")
    [found] = parse(modern).pipelines
    assert found.trigger == ()
    [when] = found.steps[0].when
    assert (when.branch.include, when.event.include) == ((), ("push",))
    assert modern.count("# Left out: ") == 2


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        (
            "pipeline:\n  a:\n    image: b\n  c:\n    commands: [d]\n    privileged: true\n",
            [("step:image", 5), ("step:trusted", 6)],
        ),
        ("# one\npipeline:\n  a: {image: b, privileged: true}\nmatrix: {A: [x, y]}\n",
         [("step:trusted", 3), ("step:trusted", 3)]),
        ("steps:\n- image: b\n  depends_on: [c]\n  commands: [d]\n", [("step:dependency", 4)]),
        ("pipeline:\n  a:\n    image: b\n    volumes: [/c:/d]\n  e: {image: f}\n",
         [("step:volume", 4)]),
        ("steps:\n  a:\n    image: b\n    privileged: true\n    environment:\n      A: [b]\n",
         [("config:wrong-type", 6)]),
    ],
)  # fmt: skip
def test_findings_about_a_converted_file_have_places_in_the_old_one(
    text: str, findings: list[tuple[str, int]]
) -> None:
    found = judge(text).lint()
    assert [(one.code, one.line) for one in found] == findings
    assert all("of the converted file" in one.message for one in found)


def test_what_a_conversion_left_out_is_a_warning() -> None:
    text = "pipeline:\n  a: {image: b, tmpfs: [/x]}\n"
    [found] = judge(text).lint()
    assert (found.code, found.severity) == ("convert:left-out", "warning")
    assert found.message == "Left out: `tmpfs` of step `a`"


def test_too_large_files_are_refused() -> None:
    text = "pipeline:\n" + "".join(f"  s{i}: {{image: a}}\n" for i in range(30_000))
    with pytest.raises(PipelineError, match="too large to be converted"):
        modernise(text, ".drone.yml")


def test_too_many_mounts_are_refused() -> None:
    mounts = ", ".join(f"/a{number % 9}:/b" for number in range(2001))
    with pytest.raises(PipelineError, match="more than 2000 volumes"):
        modernise(f"steps:\n  a:\n    image: b\n    volumes: [{mounts}]\n", ".drone.yml")


@pytest.mark.parametrize(
    "text",
    [
        "pipeline:\n" + "".join(f"  s{i}: {{image: a, group: g{i // 400}}}\n" for i in range(800)),
        "steps:\n" + "".join(f"  s{i}: {{image: a, group: g{i // 400}}}\n" for i in range(800)),
        "steps:\n" + "".join(f"  s{i}: {{image: a, depends_on: []}}\n" for i in range(400))
        + "services:\n" + "".join(f"  d{i}: {{image: a}}\n" for i in range(400)),
    ],
    ids=["legacy", "group", "graph"],
)  # fmt: skip
def test_an_order_too_long_to_write_out_is_refused(text: str) -> None:
    with pytest.raises(PipelineError, match="too large to be converted: steps wait"):
        modernise(text, ".drone.yml")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (".woodpecker.yml", "woodpecker"),
        (".woodpecker/build.yaml", "build"),
        (".woodpecker/.hidden.yml", "hidden"),
        (".drone.yml", "drone"),
    ],
)
def test_a_workflow_is_called_like_its_file(file: str, name: str) -> None:
    assert workflow_name(file) == name


WORKFLOWS = {
    ".woodpecker/deploy.yml": (
        "steps: {d: {image: a}}\ndepends_on: [test, {name: no, optional: true}]"
    ),
    ".woodpecker/build.yml": "steps: {b: {image: a}}",
    ".woodpecker/test.yml": "steps: {t: {image: a, ports: [1]}}\ndepends_on: [build]",
}


def test_a_folder_is_one_file_in_the_order_it_asks_for() -> None:
    text = combine(WORKFLOWS).text
    file = parse(text)
    check_manifest(file)
    assert [(one.name, one.depends_on) for one in file.pipelines] == [
        ("build", ()),
        ("test", ("build",)),
        ("deploy", ("test",)),
    ]
    assert "# .woodpecker/test.yml: Left out: `ports` of step `t`" in text


def test_errors_of_a_folder_are_told_with_their_files() -> None:
    with pytest.raises(PipelineError) as caught:
        combine(
            {
                "a.yml": "steps: {d: {image: a}}\ndepends_on: [b]",
                "c.yml": "steps: {d: {}}",
                "d.yml": "a: [",
            }
        )
    assert [(one.file, one.code) for one in caught.value.problems] == [
        ("a.yml", "manifest:dependency"),
        ("c.yml", "step:image"),
        ("d.yml", "yaml:syntax"),
    ]


def test_workflows_that_wait_for_each_other_are_left_to_the_lint() -> None:
    written = combine(
        {
            "a.yml": "steps: {d: {image: a}}\ndepends_on: [b]",
            "b.yml": "steps: {d: {image: a}}\ndepends_on: [a]",
        }
    )
    with pytest.raises(PipelineError, match="no pipeline above"):
        check_manifest(parse(written.text))


def test_lines_of_a_folder_are_known_by_file_and_place() -> None:
    written = combine(
        {
            "w/b.yml": "# first\nsteps:\n  two:\n    image: x2\ndepends_on: [a]\n",
            "w/a.yml": "steps:\n- name: one\n  image: x1\n",
        }
    )
    origins = written.origins()
    lines = written.text.splitlines()

    def place(words: str) -> tuple[str, tuple[int, int]]:
        return origins.of(next(n for n, line in enumerate(lines, 1) if words in line))

    assert place("image: x1") == ("w/a.yml", (3, 10))
    assert place("image: x2") == ("w/b.yml", (4, 12))
    assert place("name: a")[0] == "w/a.yml"
    assert place("name: b")[0] == "w/b.yml"
    assert origins.of(len(lines))[0] == "w/b.yml"


TEXTS = st.text(max_size=20)


@settings(deadline=None)
@given(
    st.dictionaries(
        TEXTS, TEXTS | st.integers() | st.booleans() | st.none() | st.lists(TEXTS), max_size=5
    )
)
def test_what_is_written_is_read_back(data: dict[str, Any]) -> None:
    from pipeline.yamltext import YamlError, compose, split, untyped

    try:
        text = to_yaml([{"kind": "x", "data": data}])
        [part] = split(text)
        root = compose(part)
    except YamlError as fault:
        assert fault.code == "yaml:syntax"  # characters that YAML cannot hold
        return
    assert root is not None
    assert untyped(root)["data"] == data


@settings(deadline=None)
@given(
    st.sampled_from(["pipeline:\n", "steps:\n"]), st.text(alphabet="ab:-{}[]&*<\n '\"", max_size=60)
)
def test_arbitrary_old_files_raise_only_pipeline_errors(head: str, body: str) -> None:
    text = head + "".join(f"  {line}\n" for line in body.splitlines())
    try:
        modern = modernise(text, ".drone.yml")
        parse(modern)
    except PipelineError as fault:
        assert fault.problems


def test_steps_of_an_old_list_may_have_their_names_inside() -> None:
    text = "pipeline:\n- name: foo\n  image: a\n- image: b\n- bar: {image: c}\n"
    [found] = parse(modernise(text, ".drone.yml")).pipelines
    assert [(one.name, one.image) for one in found.steps] == [
        ("foo", "a"),
        ("step-2", "b"),
        ("bar", "c"),
    ]
