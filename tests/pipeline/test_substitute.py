from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.substitute import MAX_BYTES, quote, substitute

VALUES = {
    "V": "abcABC123ABCabc",
    "E": "",
    "T": "v1.2.3",
    "P": "/path/to/file.tar.gz",
    "M": 'first "line"\nsecond\ttab\\',
    "U": "élan",
    "N": "3",
    "S": "a/b/c",
}

FORMS = r"""
${V} => abcABC123ABCabc
x${V}y${N} => xabcABC123ABCabcy3
${NOPE} =>
$V $(V) $1 $ => $V $(V) $1 $
$$ => $
$${V} => ${V}
echo $$ => echo $
$$$${V} => $${V}
$$${V} => $abcABC123ABCabc
${V}$${V => abcABC123ABCabc${V
$$V => $V
a\\b\/c => a\\b\/c
# ${N} comment => # 3 comment
${M} => "first \"line\"\nsecond\ttab\\"
a{}b} => a{}b}
${#V} => 15
${#U} => 5
${#NOPE} => 0
${V^} => AbcABC123ABCabc
${V^^} => ABCABC123ABCABC
${U^} => Élan
${T^^} => V1.2.3
${V,} => abcABC123ABCabc
${V,,} => abcabc123abcabc
${E^} =>
${V:3} => ABC123ABCabc
${V:3:3} => ABC
${V:0:7} => abcABC1
${V:99} =>
${V:99:2} =>
${V:12:99} => abc
${V:x} => abcABC123ABCabc
${V: -2} => abcABC123ABCabc
${V:1:x} => abcABC123ABCabc
${V:-2} => abcABC123ABCabc
${E:-2} => 2
${V:${N}:${N}} => ABC
${U:2} => lan
${V:3:0} =>
${P#*/} => path/to/file.tar.gz
${P##*/} => file.tar.gz
${P%.*} => /path/to/file.tar
${P%%.*} => /path/to/file
${T#v} => 1.2.3
${T##v} => 1.2.3
${T%.*} => v1.2
${T%%.*} => v1
${T#x} => v1.2.3
${T#?} => 1.2.3
${T#[a-z]} => 1.2.3
${T#[^0-9]} => 1.2.3
${T#[a-z} => v1.2.3
${T%[0-9]} => v1.2.3
${T##*} =>
${P#*t} => h/to/file.tar.gz
${P%/*} => /path/to
${V%abc} => abcABC123ABC
${V#${NOPE}a} => bcABC123ABCabc
${E#*} =>
${T#\v} => 1.2.3
${T#v\} => v1.2.3
${V/abc/X} => XABC123ABCabc
${V//abc/X} => XABC123ABCX
${V/#abc/X} => XABC123ABCabc
${V/%abc/X} => abcABC123ABCX
${V/#ABC/X} => abcABC123ABCabc
${V/%123/X} => abcABC123ABCabc
${V//abc/} => ABC123ABC
${S/\//-} => a-b/c
${S//\//-} => a-b-c
${T/./} => v12.3
${T//./_} => v1_2_3
${S//\//\/\/} => a//b//c
${V/a*/X} => abcABC123ABCabc
${V//${N}/${T}} => abcABC12v1.2.3ABCabc
${T/./\\} => v1\2.3
${E=d} => d
${NOPE=d} => d
${V=d} => abcABC123ABCabc
${NOPE:=d} => d
${E:-d} => d
${NOPE:-} =>
${NOPE=} =>
${E:+d} => d
${V:+d} => abcABC123ABCabc
${E:?d} => d
${NOPE:-${E:-${N}}} => 3
${NOPE=pre ${N}-post} => pre 3-post
${NOPE:-a:b/c#d} => a:b/c#d
${NOPE:-$x} => $x
${NOPE:-$$} => $
"""
REFUSED = """
${V-d}
${V+d}
${V?}
${V@Q}
${a.b}
${!V}
${}
${V
${V:-d
${ V}
${V }
${V^^,,}
${V^x}
${V#}
${V%%}
${V:}
${V:1:}
${V:1:-1}
${V/a}
${V/a
${V//x}
${V///b}
${#V#x}
${#}
${V|x}
${V[0]}
${
${NOPE:-${}}
${V#a}}${
"""


@pytest.mark.parametrize("row", FORMS.strip().splitlines())
def test_it_replaces(row: str) -> None:
    text, _, expected = row.partition(" =>")
    assert substitute(text, VALUES) == expected.removeprefix(" ")


@pytest.mark.parametrize("text", REFUSED.strip("\n").split("\n"))
def test_it_refuses(text: str) -> None:
    with pytest.raises(PipelineError) as caught:
        substitute(f"a: b\n  c: {text}", VALUES, "x.yml")
    (problem,) = caught.value.problems
    assert (problem.code, problem.file, problem.line) == ("substitute:bad", "x.yml", 2)
    assert problem.column >= 6
    assert "$${" in problem.message


def test_it_reports_every_bad_expression() -> None:
    with pytest.raises(PipelineError) as caught:
        substitute("a ${!x}\nb ${V}\nc ${V?} ${V-}\n", VALUES)
    places = [(problem.line, problem.column) for problem in caught.value.problems]
    assert places == [(1, 3), (3, 3), (3, 9)]


@pytest.mark.parametrize(
    "text",
    [
        "${X}" * 20_000,
        "${X//a/" + "b" * 20_000 + "}",
        "${A:-" * 100_000,
        "${A:-" * 10_000 + "}" * 10_000,
        "${A#" + "*a" * 5000 + "}",
        "${!}" * 200_000,
        "$" * 1_000_001,
    ],
    ids=["values", "replaced", "unclosed", "nested", "stars", "bad", "dollars"],
)
def test_it_is_bounded(text: str) -> None:
    values = {"X": "a" * 1000, "A": "a" * 2000}
    try:
        result = substitute(text, values)
    except PipelineError as fault:
        assert len(fault.problems) <= 100
    else:
        assert len(result) <= MAX_BYTES + len(text)


@given(st.text(alphabet="${}:#%/^,=-+?*[]\\aV1\n "), st.dictionaries(st.text("aV1"), st.text()))
def test_it_raises_nothing_but_its_own_error(text: str, values: dict[str, str]) -> None:
    try:
        substitute(text, values)
    except PipelineError as fault:
        assert fault.problems


@given(st.text())
def test_text_without_a_dollar_stays(text: str) -> None:
    text = text.replace("$", "")
    assert substitute(text, {}) == text


def test_it_quotes_like_go() -> None:
    assert quote('a"b\\\n\r\t\a\x01\x7f\u2028é😀') == r'"a\"b\\\n\r\t\a\x01\x7f\u2028é😀"'
