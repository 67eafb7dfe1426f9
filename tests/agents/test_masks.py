"""Masking: what is hidden, and that chunks do not matter."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.logs.masks import MASK, Masker, hide, hide_in, terms

SECRET = "s3cr3t/with+odd=characters & more"


def mask(text: bytes, *values: str) -> bytes:
    masker = Masker(terms(values))
    return masker.feed(text) + masker.finish()


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET),
        quote_plus(SECRET),
        base64.b64encode(SECRET.encode()).decode().rstrip("="),
        base64.urlsafe_b64encode(b"user:" + SECRET.encode() + b"!").decode(),
    ],
)
def test_it_hides_every_form_of_a_secret(form: str) -> None:
    out = mask(f"before {form} after\n".encode(), SECRET)
    assert MASK in out
    assert SECRET.encode() not in out
    assert out.startswith(b"before ")
    assert out.endswith(b" after\n")
    assert form.encode()[8:-8] not in out


@pytest.mark.parametrize("lead", ["", "a", "ab", "abc"])
def test_it_hides_a_secret_wherever_it_stands_in_base64(lead: str) -> None:
    encoded = base64.b64encode(f"{lead}{SECRET}tail".encode()).decode()
    core = encoded[len(lead) * 8 // 6 + 2 : -8]
    assert core.encode() not in mask(f"{encoded}\n".encode(), SECRET)


def test_it_hides_each_line_of_a_secret_trimmed() -> None:
    out = mask(
        b"-----BEGIN KEY-----\n  abcdef\n-----END KEY-----\n", "-----BEGIN KEY-----\nabcdef\n"
    )
    assert out == b"******\n  ******\n-----END KEY-----\n"


def test_a_line_ends_with_a_line_feed_only() -> None:
    assert mask(b"a\x0bb a\x85\n", "a\x0bb") == b"****** a\x85\n"


@pytest.mark.parametrize("encode", [base64.encodebytes, "pem"])
def test_it_hides_a_long_secret_in_lines_of_base64(encode: Any) -> None:
    secret = "".join(f"line {number} of a long key\n" for number in range(9))
    if encode == "pem":
        packed = base64.b64encode(secret.encode())
        text = b"\n".join(packed[at : at + 64] for at in range(0, len(packed), 64)) + b"\n"
    else:
        text = encode(secret.encode())
    lines = mask(text, secret).splitlines()
    assert lines[:-1] == [b"******"] * (len(lines) - 1)
    assert lines[-1].startswith(b"******") and len(lines[-1]) < 12


def test_a_text_is_hidden() -> None:
    assert hide("the pässword is hunter2", terms(["hunter2"])) == "the pässword is ******"


def test_files_are_hidden_but_not_their_grammar() -> None:
    files = {"a.xml": b'<testcase name="p&amp;ss&lt;word"/>', "b.xml": b"hunter2"}
    assert hide_in(files, terms(["test", "p&ss<word", "hunter2"])) == {
        "a.xml": b'<testcase name="******"/>',
        "b.xml": b"******",
    }


def test_it_leaves_parts_of_one_character_alone() -> None:
    assert mask(b"a b c\n", "a\nb") == b"a b c\n"


def test_it_prefers_the_longest_term() -> None:
    masker = Masker([b"abc", b"abcdef"])
    assert masker.feed(b"xabcdefx\n") == b"x******x\n"


def test_it_withholds_what_could_begin_a_term() -> None:
    masker = Masker([b"secret"])
    assert masker.feed(b"a sec") == b"a "
    assert masker.feed(b"ond") == b"second"
    assert masker.feed(b" secre") == b" "
    assert masker.finish() == b"secre"


def test_it_withholds_nothing_across_lines() -> None:
    assert Masker([b"secret"]).feed(b"secre\n") == b"secre\n"


@given(
    hidden=st.sets(
        st.binary(min_size=1, max_size=6).map(lambda b: bytes(c % 2 + 97 for c in b)), min_size=1
    ),
    text=st.lists(st.sampled_from([b"a", b"b", b"\n"])).map(b"".join),
    cuts=st.lists(st.integers(1, 5)),
)
def test_chunks_do_not_matter(hidden: set[bytes], text: bytes, cuts: list[int]) -> None:
    whole = Masker(hidden)
    expected = whole.feed(text) + whole.finish()
    masker, out, place = Masker(hidden), b"", 0
    for size in cuts:
        out += masker.feed(text[place : place + size])
        place += size
    assert out + masker.feed(text[place:]) + masker.finish() == expected


def test_a_secret_cut_at_every_byte_never_escapes() -> None:
    secret = b"correct horse battery staple"
    text = b"x" + secret + b"y"
    for cut in range(len(text)):
        masker = Masker([secret])
        assert masker.feed(text[:cut]) + masker.feed(text[cut:]) + masker.finish() == b"x******y"


@given(
    hidden=st.sets(st.text("abc", min_size=1, max_size=4).map(str.encode), min_size=1, max_size=6),
    lines=st.lists(st.text("abcx", max_size=12).map(str.encode), min_size=20, max_size=60),
)
def test_many_masked_places_are_masked_as_few_are(hidden: set[bytes], lines: list[bytes]) -> None:
    expected = b""
    for line in lines:
        alone = Masker(hidden)
        expected += alone.feed(line) + alone.finish() + b"\n"
    assert Masker(hidden).feed(b"".join(line + b"\n" for line in lines)) == expected
