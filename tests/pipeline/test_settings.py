from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.resources import SecretRef
from pipeline.settings import encode, variables
from pipeline.yamltext import Part, compose, untyped

TABLE = [
    "text", "'010'", "true", "y", "Off", "'y'", "10", "010", "0x1F", "0b11", "1_000", "-5",
    "1.10", "12345678901.0", "1e6", "1e+6", "123456.0", "1234567.0", "0.0001", "0.00001", "-0.5",
    "0.0", "-0.0", "100000.0", ".inf", "-.inf", ".nan", "2001-01-01", "1:30", "NULL",
    "[a, 3, true, 1.10]", "[]", "['', null, a]", "[a, 'b,c']", "[.inf, 1e+21, 010]", "[y, 'y', no]",
    "{}", "{b: 1, a: [x, y], c: null}", "[a, [b]]", "[{b: 1}]", "[[]]", "[a, {}]",
    "{y: y, n: n, 'y': 'y'}", "{n: 1}", "{a: '<b> & \"c\"'}", "{a: 1.10, b: 1e+6, c: 1e+21}",
    "{a: 0.0000001, b: 0.000001, c: 1e-9}", "{a: {from_secret: x}}", "[{from_secret: x}]",
    "{1: a, 0x1F: b}", "{a: \"é\\n\\u2028\"}", "{a: .inf}", "{a: 12345678901234567890}",
]  # fmt: skip


def load(text: str) -> Any:
    node = compose(Part(text, 0))
    assert node is not None
    return untyped(node)


def test_encoding_table(golden: Callable[[str, Any], None]) -> None:
    golden("settings", {text: encode(load(text)) for text in TABLE})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("010", "8"),
        ("1.10", "1.1"),
        ("12345678901.0", "1.2345678901e+10"),
        (".inf", "+Inf"),
        ("[a, 3, true, 1.10]", "a,3,true,1.1"),
        ("[]", ""),
        ("{y: y, n: n}", '{"false":false,"true":true}'),
        ("{a: '<'}", r'{"a":"\u003c"}'),
    ],
)
def test_the_rule_books_examples(text: str, expected: str) -> None:
    assert encode(load(text)) == expected


def test_variables_and_secrets() -> None:
    values, secrets = variables(
        {"a-b": "x", "token": SecretRef("hub_token"), "gone": None, "Tags": ["1", "2"], "empty": ""}
    )
    assert values == {"PLUGIN_A-B": "x", "PLUGIN_TAGS": "1,2", "PLUGIN_EMPTY": ""}
    assert secrets == {"PLUGIN_TOKEN": "hub_token"}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_reads_back_the_same(value: float) -> None:
    assert float(encode(value)) == value
    assert load(encode({"a": value}).replace("e+", "e+0")) is not None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_every_value_has_a_text(value: Any) -> None:
    assert encode(value) == encode(value)
