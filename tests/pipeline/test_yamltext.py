from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline import yamltext
from pipeline.yamltext import Part, YamlError, compose, pairs, resolve, split, untyped

TRUE = ("y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE")
FALSE = ("n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE")
SCALARS: list[tuple[str, Any]] = [
    *((word, True) for word in TRUE),
    *((word, False) for word in FALSE),
    *((word, None) for word in ("", "~", "null", "Null", "NULL")),
    ("tRue", "tRue"),
    ("nULL", "nULL"),
    ("010", 8),
    ("0o17", 15),
    ("0x1F", 31),
    ("0b101", 5),
    ("-0x10", -16),
    ("1_000", 1000),
    ("+5", 5),
    ("09", 9.0),
    ("1.10", 1.1),
    (".5", 0.5),
    ("1e6", "1e6"),
    ("1e+6", 1e6),
    ("1.", "1."),
    ("1.2.3", "1.2.3"),
    (".inf", math.inf),
    ("-.INF", -math.inf),
    ("12345678901234567890", 12345678901234567890),
    ("123456789012345678901", 1.2345678901234568e20),
    ("2001-01-01", "2001-01-01"),
    ("1:30", "1:30"),
    ("<<", "<<"),
    ("0x", "0x"),
    ("-", "-"),
    ("1__0", 10),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_it_resolves_scalars_as_go_does(text: str, value: Any) -> None:
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_one() -> None:
    found = resolve(".nan")
    assert isinstance(found, float)
    assert math.isnan(found)


def node(text: str) -> Any:
    return compose(Part(text, 0))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 'yes'", {"a": "yes"}),
        ('a: "010"', {"a": "010"}),
        ("a: !!str 010", {"a": "010"}),
        ("a: !mine 010", {"a": "010"}),
        ("a: !!binary aGk=", {"a": "hi"}),
        ("y: 1", {"true": 1}),
        ("n: y", {"false": True}),
        ("0x1F: a", {"31": "a"}),
        ("1.50: a", {"1.5": "a"}),
        ("~: a", {"": "a"}),
        ("a: [y, 3, [x]]", {"a": [True, 3, ["x"]]}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x 1\nb: &x 2\nc: *x", {"a": 1, "b": 2, "c": 2}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("a: &x {b: 1}\nd: {c: 3, <<: *x}", {"a": {"b": 1}, "d": {"c": 3, "b": 1}}),
        ("a: &x {b: 1}\nd: {b: 3, <<: *x}", {"a": {"b": 1}, "d": {"b": 1}}),
        ("a: {<<: [{b: 1}, {b: 2, c: 3}]}", {"a": {"b": 1, "c": 3}}),
        ("a: {'<<': 1}", {"a": {"<<": 1}}),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ("a: 1\na: 2", {"a": 2}),
    ],
)
def test_it_gives_untyped_values(text: str, value: Any) -> None:
    assert untyped(node(text)) == value


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("a\n", [("a\n", 0)]),
        ("---\na\n", [("a\n", 1)]),
        ("a\n---\nb\n", [("a\n", 0), ("b\n", 2)]),
        ("--- # words\na", [("a\n", 1)]),
        ("---extra\na", [("a\n", 1)]),
        ("a\n...\nb\n---\nc\n", [("a\n", 0)]),
        ("# words\n---\na\n", [("# words\n", 0), ("a\n", 2)]),
        ("a\n---\n", [("a\n", 0), ("", 2)]),
        ("a\r\n---\r\nb\r\n", [("a\n", 0), ("b\n", 2)]),
        ("a: |\n  x\n---\n  y\n", [("a: |\n  x\n", 0), ("  y\n", 3)]),
        (" ---\na\n", [(" ---\na\n", 0)]),
    ],
)
def test_it_splits_documents_by_lines(text: str, parts: list[tuple[str, int]]) -> None:
    assert split(text) == [Part(*part) for part in parts]


def test_places_are_those_of_the_file() -> None:
    second = split("a: 1\n---\n\nb:\n  - c\n")[1]
    root = compose(second)
    assert root is not None
    [(key, value)] = pairs(root)
    assert (key.line, key.column) == (4, 1)
    assert (value.value[0].line, value.value[0].column) == (5, 5)


FAULTS = [
    ("a: b: c", "yaml:syntax", 1, 5, "quote the text"),
    ("a:\n\t- b", "yaml:syntax", 2, 1, "tab"),
    ("a: [b", "yaml:syntax", 2, 1, "never closed"),
    ('a: "b', "yaml:syntax", 1, 6, "never closed"),
    ("a: 1\n b: 2", "yaml:syntax", 2, 3, "quote the text"),
    ("- a\nb: 1", "yaml:syntax", 2, 1, "list"),
    ("a: *b", "yaml:unknown-alias", 1, 4, "`b`"),
    ("a: * b", "yaml:syntax", 1, 5, "quote"),
    ("a: &x [*x]", "yaml:endless-alias", 1, 8, "itself"),
    ("a: \x01", "yaml:syntax", 1, 1, "control"),
    ("a: !!binary '*'", "yaml:syntax", 1, 4, "base64"),
]


@pytest.mark.parametrize(("text", "code", "line", "column", "words"), FAULTS)
def test_a_syntax_error_has_a_place_and_words(
    text: str, code: str, line: int, column: int, words: str
) -> None:
    with pytest.raises(YamlError) as caught:
        node(text)
    assert (caught.value.code, caught.value.line) == (code, line)
    assert caught.value.column == column
    assert words in caught.value.message


def test_a_merge_of_something_else_is_an_error() -> None:
    with pytest.raises(YamlError, match="merges a map"):
        untyped(node("a: {<<: 1}"))


def test_a_key_must_be_text() -> None:
    with pytest.raises(YamlError, match="quote values"):
        untyped(node("a: {{ b }}"))


LEVELS = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
MERGES = "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a0: &a0 x\n" + LEVELS, "yaml:too-many-aliases"),
        ("a0: &a0 {k: v}\n" + MERGES, "yaml:too-many-aliases"),
        ("- a\n" * (yamltext.MAX_NODES + 10), "yaml:too-large"),
        ("{" + "a," * (yamltext.MAX_NODES + 10) + "}", "yaml:too-large"),
        ("a: " + "{a: " * 200 + "}" * 200, "yaml:too-deep"),
        ("a: " + "[" * 1_000_000, "yaml:syntax"),
        ("- " * 500_000 + "a", "yaml:too-deep"),
    ],
    ids=["aliases", "merges", "items", "keys", "maps in maps", "lists in lists", "dashes"],
)
def test_it_refuses_what_would_grow_without_bounds(text: str, code: str) -> None:
    with pytest.raises(YamlError) as caught:
        node(text)
    assert caught.value.code == code


def test_the_pure_parser_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: &x [1, 'b', {c: ~}]\nd: |\n  e\nf: *x\n"
    fast = untyped(node(text))
    monkeypatch.setattr(yamltext, "LOADER", yaml.BaseLoader)
    assert untyped(node(text)) == fast


@given(st.text())
def test_it_raises_nothing_but_its_own_error(text: str) -> None:
    for part in split(text):
        try:
            root = compose(part)
            if root is not None:
                untyped(root)
        except YamlError as fault:
            assert fault.line > 0
            assert fault.message
