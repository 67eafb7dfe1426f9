from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import document
from pipeline.document import (
    Condition,
    Conditions,
    File,
    Secret,
    SecretRef,
    Signature,
    Step,
    Template,
    VolumeDef,
    find,
    parse,
)
from pipeline.errors import PipelineError
from pipeline.lint import lint
from pipeline.reader import MAX_STEPS
from pipeline.spec import Mount, Retry
from pipeline.yamltext import MAX_DOCUMENTS

HEAD = "kind: pipeline\nname: a\n"


def pipeline(text: str) -> Any:
    [found] = parse(HEAD + text).pipelines
    return found


def step(text: str) -> Step:
    lines = "".join(f"  {line}\n" for line in text.splitlines())
    [found] = pipeline(f"steps:\n- name: b\n{lines}").steps
    return found  # type: ignore[no-any-return]


def errors(text: str) -> list[tuple[str, int, int]]:
    with pytest.raises(PipelineError) as caught:
        parse(text)
    return [(one.code, one.line, one.column) for one in caught.value.problems]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("image", "1.10", "1.10"),
        ("image", "yes", "yes"),
        ("image", "010", "010"),
        ("image", "'x'", "x"),
        ("image", "~", ""),
        ("image", "NULL", ""),
        ("image", "'null'", "null"),
        ("image", "2001-01-01", "2001-01-01"),
        ("commands", "[a, 1.10, yes, ~]", ("a", "1.10", "yes", "")),
        ("commands", "", ()),
        ("commands", "make", ("make",)),
        ("depends_on", "c", ("c",)),
        ("entrypoint", "[/bin/sh]", ("/bin/sh",)),
        ("command", "[a, b]", ("a", "b")),
        ("detach", "yes", True),
        ("detach", "off", False),
        ("privileged", "true", True),
        ("pull", "Always", "Always"),
        ("pull", "true", "true"),
        ("failure", "ignore", "ignore"),
        ("dns", "[1.1.1.1]", ("1.1.1.1",)),
        ("shm_size", "64", 64),
        ("shm_size", "64b", 64),
        ("shm_size", "1k", 1024),
        ("shm_size", "1.5 MB", 1572864),
        ("shm_size", "2GiB", 2147483648),
        ("mem_limit", "1T", 1 << 40),
        ("memswap_limit", "1p", 1 << 50),
        ("user", "1000", "1000"),
        ("volumes", "[{name: a, path: /b}]", (Mount("a", "/b"),)),
        ("devices", "[{name: a, path: /dev/b}]", (Mount("a", "/dev/b"),)),
        ("retry", "2", Retry(2)),
        ("retry", "{count: 3, on: [error], backoff: 10s}", Retry(3, ("error",), 10.0)),
        ("timeout", "90s", 90.0),
        ("timeout", "1h30m", 5400.0),
        ("timeout", "1.5s", 1.5),
        ("reports", "junit.xml", ("junit.xml",)),
    ],
)
def test_step_keys_have_their_types(key: str, text: str, value: Any) -> None:
    assert getattr(step(f"{key}: {text}"), key) == value


@pytest.mark.parametrize(
    "text",
    [
        "image: [a]",
        "image: {a: b}",
        "commands: {a: b}",
        "commands: [a: b]",
        "commands: [[a]]",
        "entrypoint: /bin/sh",
        "command: a b",
        "depends_on: {a: b}",
        "detach: 'true'",
        "detach: 1",
        "privileged: maybe",
        "environment: [A=b]",
        "environment: {A: [b]}",
        "environment: x",
        "settings: [a]",
        "settings: {{ a }}",
        "settings: {a: {{ b }}}",
        "volumes: [a:/b]",
        "volumes: {a: b}",
        "devices: [/dev/a]",
        "when: push",
        "ports: ['80:80']",
        "ports: 80",
        "ports: [{port: a}]",
        "resources: {limits: {cpu: many}}",
        "resources: {limits: {cpu: 500m}}",
        "resources: {requests: {memory: x}}",
        "build: [a]",
        "build: {args: [a]}",
        "push: [a]",
    ],
)
def test_wrong_types_in_a_step_are_errors(text: str) -> None:
    with pytest.raises(PipelineError):
        step(text)


@pytest.mark.parametrize(
    "text",
    [
        "ports: [80, {port: 80, host: 8080, protocol: tcp}]",
        "resources: {limits: {cpu: 0.5, memory: 1GiB}, requests: {cpu: 1, memory: 100}}",
        "build: .",
        "build: {context: ., dockerfile: D, args: {A: b}, cache_from: [c], image: i}",
        "push: {image: a}",
        "shell: bash",
    ],
)
def test_keys_without_effect_are_accepted(text: str) -> None:
    assert step(text) == Step(name="b", shell="bash" if "bash" in text else "", line=4, column=3)


@pytest.mark.parametrize(
    "text",
    [
        "clone: false",
        "clone: {depth: '50'}",
        "concurrency: 1",
        "workspace: /x",
        "platform: linux/amd64",
        "node: [a]",
        "node: {a: [b]}",
        "depends_on: {a: b}",
        "steps: {a: {image: b}}",
        "steps: [a]",
        "services: x",
        "trigger: main",
        "volumes: [a]",
        "volumes: [{name: a, host: /x}]",
        "volumes: [{name: a, temp: x}]",
        "volumes: [{name: a, temp: {size_limit: x}}]",
        "image_pull_secrets: {a: b}",
        "version: [1]",
        "type: {a: b}",
        "matrix: [a]",
        "matrix: {A: b}",
        "matrix: {A: [1, 2, 3, 4, 5], B: [1, 2, 3, 4, 5], C: [1, 2, 3, 4, 5]}",
        "matrix: {include: [a]}",
    ],
)
def test_wrong_types_in_a_pipeline_are_errors(text: str) -> None:
    with pytest.raises(PipelineError):
        pipeline(text)


def test_an_empty_pipeline_has_the_defaults() -> None:
    [found] = parse("kind: pipeline\nplatform:\nsteps: ~\ntrigger: {}\n").pipelines
    assert (found.name, found.type, found.os, found.arch) == (
        "default",
        "docker",
        "linux",
        "amd64",
    )
    assert (found.steps, found.trigger, found.depends_on) == ((), (), ())


DEFERRED = [
    *(f"steps: [{{name: b, image: i, {key}}}]" for key in (
        "shm_size: 1x", "shm_size: [1]", "mem_limit: many", "memswap_limit: {a: b}",
        "retry: many", "retry: {on: [sometimes]}", "timeout: soon", "timeout: -1s",
        "timeout: {a: b}", "reports: {a: b}",
    )),
    "environment: {A: {from_secret: b}}",
    "clone: {retries: many}",
    "clone: {trace: 1}",
    "timeout: [1]",
]  # fmt: skip


@pytest.mark.parametrize("text", DEFERRED)
def test_what_the_server_of_the_original_does_not_read_is_an_error_of_the_stage(text: str) -> None:
    file = parse(HEAD + text + "\n")
    assert [one.code for one in file.deferred] == ["config:wrong-type"] * len(file.deferred) or (
        [one.code for one in file.deferred] == ["config:out-of-range"]
    )
    assert [one.line for one in lint(file)] == [3]
    assert file.deferred == tuple(lint(file))


@pytest.mark.parametrize("text", ["timeout: 90\n", "steps: [{name: b, image: i, timeout: 1.5}]\n"])
def test_a_timeout_without_a_unit_has_no_effect_as_in_drone(text: str) -> None:
    file = parse(HEAD + text)
    assert file.pipelines[0].timeout == 0.0
    assert all(one.timeout == 0.0 for one in file.pipelines[0].steps)
    assert [(one.code, one.severity) for one in lint(file)] == [("config:dropped", "warning")]


def test_environment_of_a_step() -> None:
    text = "environment:\n  A: 1.10\n  B: {from_secret: s}\n  C: {value: v}\n  D: ~\n  E: {x: y}"
    assert step(text).environment == {"A": "1.10", "B": SecretRef("s"), "C": "v", "E": ""}


def test_settings_keep_their_yaml_types() -> None:
    text = (
        "settings: {a: yes, b: 010, c: 1.10, d: 'yes', e: {from_secret: s}, f: [1, {y: ~}],"
        " g: {from_secret: s, x: y}, h: {i: {from_secret: j}}, k: ~, l: 2001-01-01,"
        " m: {from_secret: ~}, n: {from_secret: [a]}}"
    )
    assert step(text).settings == {
        "a": True,
        "b": 8,
        "c": 1.1,
        "d": "yes",
        "e": SecretRef("s"),
        "f": [1, {"true": None}],
        "g": SecretRef("s"),
        "h": {"i": {"from_secret": "j"}},
        "k": None,
        "l": "2001-01-01",
        "m": {"from_secret": None},
        "n": {"from_secret": ["a"]},
    }


@pytest.mark.parametrize(
    ("text", "include", "exclude"),
    [
        ("main", ("main",), ()),
        ("1.10", ("1.10",), ()),
        ("[a, ~, {b: c}, [d]]", ("a", ""), ()),
        ("{include: [a], exclude: [b]}", ("a",), ("b",)),
        ("{include: a, exclude: [b]}", (), ("b",)),
        ("{exclude: b}", (), ()),
        ("{other: [a]}", (), ()),
        ("~", (), ()),
    ],
)
def test_conditions_take_shapes_as_drone_does(
    text: str, include: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    found = step(f"when: {{branch: {text}}}").when
    wanted = Conditions(branch=Condition(include, exclude))
    assert found == (() if wanted == Conditions() else (wanted,))


def test_a_list_of_conditions_is_alternatives() -> None:
    found = pipeline("trigger:\n- branch: main\n- event: tag\n  ref: x\n").trigger
    assert found == (
        Conditions(branch=Condition(("main",))),
        Conditions(event=Condition(("tag",)), ref=Condition(("x",))),
    )


def test_volumes() -> None:
    text = (
        "volumes:\n- {name: a, temp: {}}\n- {name: b, temp: {medium: memory, size_limit: 1k}}\n"
        "- {name: c, host: {path: /x}}\n- {name: d, temp: ~}\n- {name: e, claim: {name: f}}\n- ~\n"
    )
    assert [
        (one.name, one.kind, one.host_path, one.medium, one.size_limit_bytes)
        for one in pipeline(text).volumes
    ] == [
        ("a", "temp", "", "", 0),
        ("b", "temp", "", "memory", 1024),
        ("c", "host", "/x", "", 0),
        ("d", "", "", "", 0),
        ("e", "", "", "", 0),
        ("", "", "", "", 0),
    ]
    assert pipeline(text).volumes[0] == VolumeDef("a", "temp", line=4, column=3)


def test_every_kind_of_document() -> None:
    text = (
        "kind: secret\nname: s\ndata: 1.10\n---\nkind: secret\nname: t\nget: {path: p, name: k}\n"
        "---\nkind: signature\nhmac: abc\n---\nkind: cron\nname: c\nspec: {schedule: '@daily'}\n"
        "---\nkind: registry\nname: r\ndata: {a: b}\n---\nkind: template\nload: l\ndata: {a: yes}\n"
    )
    found = parse(text)
    assert found.secrets == (
        Secret("s", "1.10", line=1),
        Secret("t", path="p", key="k", line=5),
    )
    assert found.documents[2] == Signature("abc", line=9)
    assert found.template == Template("l", {"a": True}, line=20)
    assert found.pipelines == ()


def test_an_unknown_kind_is_a_pipeline_with_a_warning() -> None:
    file = parse("kind: pipelin\nname: a\n")
    assert [one.kind for one in file.pipelines] == ["pipelin"]
    assert [(one.code, one.line) for one in file.warnings] == [("config:unknown-kind", 1)]


@pytest.mark.parametrize(
    ("text", "line"),
    [("name: a\n", 1), ("", 0), ("---\n", 2), ("# words\n---\nkind: pipeline\n", 1)],
)
def test_a_document_needs_a_kind(text: str, line: int) -> None:
    if not text:
        assert parse(text).documents == ()
        return
    assert errors(text) == [("config:missing-kind", line, 1)]


def test_a_list_is_no_document() -> None:
    assert errors("- a\n") == [("config:wrong-type", 1, 1)]


def test_all_errors_are_told_at_once_in_order() -> None:
    text = (
        "kind: pipeline\nclone: false\nsteps:\n- name: [a]\n  commands: {b: c}\n---\nname: x\n---\n"
        "kind: pipeline\nsteps: {a: b}\n---\nkind: pipeline\na: [\n"
    )
    assert errors(text) == [
        ("config:wrong-type", 2, 8),
        ("config:wrong-type", 4, 9),
        ("config:wrong-type", 5, 13),
        ("config:missing-kind", 7, 1),
        ("config:wrong-type", 10, 8),
        ("yaml:syntax", 14, 1),
    ]


def test_messages_say_what_was_expected_and_found() -> None:
    with pytest.raises(PipelineError) as caught:
        step("detach: 'true'\ncommands: [a: b]")
    assert [one.message for one in caught.value.problems] == [
        "`steps[0].detach` must be true or false, without quotes, not `true`",
        "`steps[0].commands[]` must be a single value (quote it, `: ` makes it a map), not a map",
    ]


def test_unknown_keys_are_warnings_with_the_nearest_known_one() -> None:
    file = parse(HEAD + "stepz: []\nsteps:\n- name: b\n  enviroment: {}\n  qqq: 1\n")
    assert [(one.code, one.line, one.column, one.message) for one in file.warnings] == [
        ("config:unknown-key", 3, 1, "`stepz`: did you mean `steps`?"),
        ("config:unknown-key", 6, 3, "`enviroment` in `steps[0]`: did you mean `environment`?"),
        ("config:unknown-key", 7, 3, "`qqq` in `steps[0]`: it has no effect"),
    ]


def test_of_keys_given_twice_the_last_one_counts() -> None:
    file = parse(HEAD + "type: exec\ntype: docker\nsteps: [{name: b, image: c, image: ~}]\n")
    assert file.pipelines[0].type == "docker"
    assert file.pipelines[0].steps[0].image == ""
    assert [(one.code, one.line) for one in file.warnings] == [
        ("config:duplicate-key", 4),
        ("config:duplicate-key", 5),
    ]


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("image: a\nimage: c", "image", "c"),
        ("image: a\nimage: ~", "image", ""),
        ("commands: [a]\ncommands: [b]", "commands", ("b",)),
        ("environment: {A: a, B: a}\nenvironment: {B: b, C: b}", "environment",
         {"A": "a", "B": "b", "C": "b"}),
        ("environment: {A: a}\nenvironment: ~\nenvironment: {C: b}", "environment", {"C": "b"}),
        ("settings: {a: {x: 1}}\nsettings: {a: {z: 2}, b: 3}", "settings",
         {"a": {"z": 2}, "b": 3}),
        ("when: {event: push}\nwhen: {branch: main}", "when",
         (Conditions(event=Condition(("push",)), branch=Condition(("main",))),)),
        ("when: {branch: {include: [a]}}\nwhen: {branch: {exclude: [b]}}", "when",
         (Conditions(branch=Condition(exclude=("b",))),)),
        ("when: {event: push}\nwhen: [{branch: main}]", "when",
         (Conditions(branch=Condition(("main",))),)),
        ("retry: {count: 2}\nretry: {backoff: 1s}", "retry", Retry(backoff_s=1.0)),
    ],
)  # fmt: skip
def test_a_key_given_twice_is_decoded_as_by_go(text: str, key: str, value: Any) -> None:
    assert getattr(step(text), key) == value


def test_errors_of_a_value_that_another_replaces_are_told_once() -> None:
    text = HEAD + "clone: {depth: a}\nclone: {disable: b}\n"
    assert errors(text) == [("config:wrong-type", 3, 16), ("config:wrong-type", 4, 18)]


def test_anchors_do_not_cross_documents() -> None:
    assert errors("kind: pipeline\na: &x 1\n---\nkind: pipeline\nb: *x\n") == [
        ("yaml:unknown-alias", 5, 4)
    ]


def test_anchors_and_merges_inside_one_do() -> None:
    text = (
        "x: &x {image: a, environment: {A: b}}\nsteps:\n- {<<: *x, name: one}\n"
        "- {name: two, image: c, <<: *x}\n"
    )
    assert [(one.name, one.image, one.environment) for one in pipeline(text).steps] == [
        ("one", "a", {"A": "b"}),
        ("two", "a", {"A": "b"}),
    ]
    [warned] = [one for one in parse(HEAD + text).warnings if one.code == "config:duplicate-key"]
    assert (warned.line, warned.column) == (6, 15)
    assert "put `<<` first" in warned.message


def test_a_merged_map_and_the_one_written_out_are_joined() -> None:
    text = (
        "x: &x {image: a, environment: {A: b, B: b}, when: {event: push}}\nsteps:\n"
        "- {<<: *x, name: one, environment: {B: c}, when: {branch: main}}\n"
    )
    [one] = pipeline(text).steps
    assert one.environment == {"A": "b", "B": "c"}
    assert one.when == (Conditions(event=Condition(("push",)), branch=Condition(("main",))),)
    codes = [found.code for found in parse(HEAD + text).warnings]
    assert "config:duplicate-key" not in codes


def test_a_null_step_is_kept_as_missing() -> None:
    [found] = pipeline("steps:\n-\n").steps
    assert found == Step(missing=True, line=4, column=2)


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("{GO: [1.20, 1.21]}", [{"GO": "1.20"}, {"GO": "1.21"}]),
        (
            "{A: [x, y], B: [1, 2]}",
            [{"A": a, "B": b} for a in "xy" for b in "12"],
        ),
        ("{include: [{A: x, B: 1}, {A: y}]}", [{"A": "x", "B": "1"}, {"A": "y"}]),
        ("{A: [x], include: [{A: z}]}", [{"A": "x"}, {"A": "z"}]),
        ("~", []),
    ],
)
def test_a_matrix_is_a_product_or_a_list(text: str, points: list[dict[str, str]]) -> None:
    assert list(pipeline(f"matrix: {text}").matrix) == points


def test_a_stage_is_found_by_name_and_values() -> None:
    file = parse(HEAD + "matrix: {GO: [1.20]}\n---\nkind: pipeline\nname: b\n")
    assert find(file, "a (GO=1.20)", {"GO": "1.20"}) == file.pipelines[0]
    assert find(file, "b") == file.pipelines[1]
    assert find(file, "c") is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (" kind: pipeline\n name: a\nsteps: []\n", 3),
        ("{kind: pipeline, name: a}\nsteps: []\n", 2),
        ("kind: pipeline\nname: a\n...\nrest\n", 0),
        ("kind: pipeline\nname: a\n# rest\n", 0),
    ],
)
def test_what_go_does_not_read_of_a_document_is_told(text: str, line: int) -> None:
    file = parse(text)
    assert [one.name for one in file.pipelines] == ["a"]
    assert [(one.code, one.line) for one in file.warnings] == (
        [("config:dropped", line)] if line else []
    )


def test_sizes_of_files_are_bounded() -> None:
    assert errors("a" * (document.MAX_BYTES + 1)) == [("yaml:too-large", 0, 0)]
    assert errors("---\n" * (MAX_DOCUMENTS + 1)) == [("yaml:too-large", MAX_DOCUMENTS + 1, 1)]
    globs = ", ".join(["a"] * 501)
    assert errors(HEAD + f"trigger: {{branch: [{globs}]}}\n") == [("config:too-many", 3, 19)]
    steps = "~," * (MAX_STEPS + 1)
    assert errors(HEAD + f"steps: [{steps}]\n") == [("config:too-many", 3, 8)]
    commands = ", ".join(["x"] * 4000)
    points = ", ".join(map(str, range(100)))
    text = f"matrix: {{A: [{points}]}}\nsteps: [{{name: b, image: c, commands: [{commands}]}}]\n"
    assert errors(HEAD + text) == [("config:matrix-too-large", 1, 1)]
    assert errors("kind: \ud800") == [("yaml:encoding", 1, 1)]


def test_ten_thousand_steps_are_parsed() -> None:
    text = "".join(f"- name: s{i}\n  image: a\n  commands: [x, y]\n" for i in range(10_000))
    file = parse(HEAD + "steps:\n" + text)
    assert len(file.pipelines[0].steps) == 10_000
    assert lint(file) == []


YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*document.Pipeline.__slots__, *Step.__slots__, "kind", "include"])
            | st.text(max_size=5),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


def _parsed(text: str) -> File | None:
    try:
        return parse(text)
    except PipelineError as fault:
        assert fault.problems
        return None


@settings(deadline=None)
@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_arbitrary_text_raises_only_pipeline_errors(text: str) -> None:
    file = _parsed(text)
    assert file is None or lint(file) is not None


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(document.Pipeline.__slots__), YAML, max_size=8))
def test_arbitrary_documents_raise_only_pipeline_errors(data: dict[str, Any]) -> None:
    import yaml

    file = _parsed(yaml.safe_dump({**data, "kind": "pipeline"}))
    assert file is None or lint(file) is not None
    assert file == _parsed(yaml.safe_dump({**data, "kind": "pipeline"}))
