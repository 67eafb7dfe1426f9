from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.facts import BuildFacts, RepoFacts
from pipeline.plan import plan
from pipeline.verdict import CONVERT_ERROR, LINT_ERROR, NO_PIPELINE, OK, PARSE_ERROR, decode, judge

GOOD = b"kind: pipeline\nname: a\nsteps:\n- name: s\n  image: i\n"
WORDS = (
    b"kind: pipeline\n", b"name: a\n", b"steps:\n", b"- name: s\n", b"  image: i\n", b"pipeline:\n",
    b"---\n", b"...\n", b"  a: {image: b}\n", b"when:\n", b"- evaluate: 'CI_REPO == \"a\"'\n",
    b"matrix: {A: [x]}\n", b"<<: *x\n", b"x: &x {a: b}\n", b"\t", b"\xff", b"\xef\xbb\xbf", b"\r\n",
    b"trigger: [{branch: a}]\n", b"depends_on: [a]\n", b"services: []\n", b"${A:-b}", b"{{ x }}",
)  # fmt: skip
BYTES = st.binary(max_size=200) | st.lists(st.sampled_from(WORDS), max_size=12).map(b"".join)
FILES = st.sampled_from([".drone.yml", ".woodpecker.yml", ".woodpecker/a.yml", "x"])


@settings(deadline=None)
@given(BYTES, FILES)
@example(b"steps:\n- name: s\n\xff", ".woodpecker.yml")
def test_arbitrary_bytes_get_a_verdict_and_every_error_a_place(data: bytes, file: str) -> None:
    found = judge(data, file)
    assert found == judge(data, file)
    assert found.verdict in (OK, NO_PIPELINE, PARSE_ERROR, LINT_ERROR, CONVERT_ERROR)
    assert (found.verdict in (OK, NO_PIPELINE)) is not bool(found.problems)
    for problem in (*found.problems, *found.lint()):
        assert problem.message
        assert problem.code
        assert problem.file == file
        assert problem.severity == "warning" or (problem.line > 0 and problem.column > 0)
    if found.file is not None:
        build = BuildFacts(target="main")
        first = plan(found.file, RepoFacts("a/b"), build)
        assert first == plan(found.file, RepoFacts("a/b"), build)


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [(b"\xff", 1, 1), (b"a: b\nc: d\xe4\n", 2, 5), (b"\n\xc3\x28", 2, 1)],
)
def test_bytes_that_are_no_text_have_a_place(data: bytes, line: int, column: int) -> None:
    with pytest.raises(PipelineError) as caught:
        decode(data)
    [problem] = caught.value.problems
    assert (problem.code, problem.line, problem.column) == ("yaml:encoding", line, column)
    assert judge(data).verdict == PARSE_ERROR


def test_a_byte_order_mark_is_no_content() -> None:
    assert decode(b"\xef\xbb\xbf" + GOOD) == GOOD.decode()
    assert judge(b"\xef\xbb\xbf---\n" + GOOD).verdict == OK


def test_a_verdict_knows_what_it_was_made_of() -> None:
    found = judge(GOOD)
    assert (found.text, found.converted, found.documents) == (GOOD.decode(), False, 1)
    found = judge(b"pipeline:\n  a: {image: b}\n")
    assert found.text.startswith("---\n# Converted from the format before 1.0.")
    assert (found.converted, found.documents) == (True, 1)
