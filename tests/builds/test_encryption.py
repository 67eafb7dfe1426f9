from __future__ import annotations

import pytest

from builds.encryption import BadEncryption, decrypt, encrypt

KEY = "0123456789abcdef0123456789abcdef"
VECTOR = "AAECAwQFBgcICQoLRZDVCLxq4KU+EfQw1bpLpJJfhf7ZMQE="


def test_the_vector() -> None:
    assert encrypt(KEY, "hunter2", nonce=bytes(range(12))) == VECTOR
    assert decrypt(KEY, VECTOR) == "hunter2"


def test_white_space_in_data_does_not_matter() -> None:
    assert decrypt(KEY, f"  {VECTOR[:20]}\n  {VECTOR[20:]}\n") == "hunter2"


def test_each_time_differs_and_reads_back() -> None:
    text = "pässword\nwith lines"
    first, second = encrypt(KEY, text), encrypt(KEY, text)
    assert first != second
    assert decrypt(KEY, first) == decrypt(KEY, second) == text


@pytest.mark.parametrize("data", ["", "x", "AAECAwQF", VECTOR[:-4] + "AAA=", "!" + VECTOR, "é"])
def test_other_data_is_refused(data: str) -> None:
    with pytest.raises(BadEncryption, match="this repository's key"):
        decrypt(KEY, data)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(BadEncryption, match="31 bytes"):
        encrypt(KEY[1:], "x")
    with pytest.raises(BadEncryption, match="33 bytes"):
        decrypt(KEY + "0", VECTOR)
