from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.drivers.docker_stream import Demultiplexer, Seen


def frame(data: bytes, stream: int = 1) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@given(st.lists(st.binary(max_size=50)), st.data())
def test_frames_cut_anywhere_give_the_output(pieces: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(frame(piece, 1 + index % 2) for index, piece in enumerate(pieces))
    frames = Demultiplexer()
    out = b""
    while raw:
        cut = data.draw(st.integers(1, len(raw)))
        out += frames.feed(raw[:cut])
        raw = raw[cut:]

    assert out == b"".join(pieces)


def seen(*pieces: bytes) -> Seen:
    found = Seen()
    for piece in pieces:
        found.add(piece)
    return found


LONG = b"".join(b"line %d\n" % number for number in range(5000))


@pytest.mark.parametrize("cut", [0, 1, 100, 5000, len(LONG) - 1, len(LONG)])
def test_a_replay_goes_on_where_reading_broke(cut: int) -> None:
    assert seen(LONG[:cut]).unseen(LONG) == LONG[cut:]


def test_a_replay_whose_beginning_is_gone_goes_on_at_the_last_bytes_seen() -> None:
    assert seen(LONG[:20000]).unseen(LONG[10000:]) == LONG[20000:]


def test_a_replay_in_another_order_goes_on_by_count() -> None:
    start, rest = LONG[:10000], LONG[10000:]

    assert seen(start, b"out\n", b"err\n").unseen(start + b"err\nout\n" + rest) == rest


def test_a_replay_that_no_longer_reaches_back_is_told() -> None:
    assert seen(LONG[:10000]).unseen(LONG[20000:]) is None


def test_the_same_line_over_and_over_is_counted() -> None:
    assert seen(b"y\n" * 10_000).unseen(b"y\n" * 10_003) == b"y\n" * 3
