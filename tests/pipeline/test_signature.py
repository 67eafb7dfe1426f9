from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.signature import KeyTooShort, sign, verify, with_signature

KEY = "0123456789abcdef0123456789abcdef"
FILE = "kind: pipeline\nname: a\n\n---\nkind: secret\nname: s\ndata: x\n"
HMAC = "33ec906454fb694159c6aca5447ab29d63fbd12d207301dd41609dc299f28693"


@pytest.mark.parametrize(
    "text",
    [
        FILE,
        "---\n" + FILE,
        "--- # a file\n" + FILE + "...\nwhatever\n",
        FILE.replace("\n", "\r\n"),
        FILE.rstrip("\n"),
        FILE + "---\nkind: signature\nhmac: x\n",
        "kind: signature\nhmac: x\n---\n" + FILE,
    ],
)
def test_the_vector(text: str) -> None:
    assert sign(text, KEY) == HMAC


def test_a_signed_file_verifies() -> None:
    signed = with_signature(FILE, KEY)
    assert signed == f"---\n{FILE}---\nkind: signature\nhmac: {HMAC}\n\n...\n"
    assert verify(signed, KEY)
    assert with_signature(signed, KEY) == signed


@pytest.mark.parametrize(
    ("old", "new"), [("name: a", "name: b"), (HMAC[:8], "00000000"), ("hmac:", "mac:")]
)
def test_a_changed_file_does_not(old: str, new: str) -> None:
    assert not verify(with_signature(FILE, KEY).replace(old, new), KEY)


def test_another_key_or_no_signature_does_not() -> None:
    assert not verify(with_signature(FILE, KEY), KEY[::-1])
    assert not verify(FILE, KEY)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(KeyTooShort, match="31 bytes"):
        sign(FILE, KEY[1:])


@given(st.text())
def test_any_text_can_be_signed(text: str) -> None:
    assert len(sign(text.encode(errors="ignore").decode(), KEY)) == 64


@given(st.text("kind: sgature\n-.hmc"))
def test_what_was_signed_verifies(text: str) -> None:
    assert verify(with_signature(text, KEY), KEY)
