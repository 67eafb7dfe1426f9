from __future__ import annotations

import json
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from builds.logs import batches
from builds.logs.batches import BatchError, Chunk
from pipeline.wire import MAX_BATCH_BYTES


def frame(body: bytes, **header: Any) -> bytes:
    return zstandard.compress(json.dumps(header).encode() + b"\n" + body)


def test_it_counts_lines_without_unpacking_them_one_by_one() -> None:
    batch = batches.measure(frame(b"a\nb\n\n", t=[[0, 5], [2, 9]]))

    assert (batch.count, batch.size_bytes, batch.skip) == (3, 5, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"plain",
        zstandard.compress(b""),
        zstandard.compress(b"no header at all"),
        zstandard.compress(b"[1]\na\n"),
        zstandard.compress(b"{bad\na\n"),
        frame(b""),
        frame(b"unended"),
        frame(b"a\n") + b"more",
        frame(b"a\n")[:-2],
        frame(b"a\n", skip=-1),
        frame(b"a\n", skip="2"),
        frame(b"a\n", skip=True),
        frame(b"a\n", t=3),
        frame(b"a\n", t=[1]),
        frame(b"a\n", t=[[0, -1]]),
        frame(b"a\n", t=[[1, 5]]),
        frame(b"a\nb\n", t=[[1, 5], [1, 6]]),
        frame(b"a\n", t=[["0", 5]]),
        frame(b"a\n", o=[0]),
        frame(b"a\n", t=[[0, 1, 2]]),
    ],
)
def test_it_refuses_what_is_malformed(data: bytes) -> None:
    with pytest.raises(BatchError) as raised:
        batches.measure(data)

    assert raised.value.code == "logs:malformed"


def test_it_refuses_a_bomb_by_its_declared_size() -> None:
    with pytest.raises(BatchError) as raised:
        batches.measure(frame(b"\n" * (MAX_BATCH_BYTES + 1)))

    assert raised.value.code == "logs:too-large"


def test_it_refuses_a_bomb_that_declares_no_size() -> None:
    packer = zstandard.ZstdCompressor().compressobj()
    bomb = packer.compress(b"{}\n" + b"\n" * MAX_BATCH_BYTES) + packer.flush()

    with pytest.raises(BatchError):
        batches.measure(bomb)


def test_it_takes_a_batch_of_exactly_the_bound() -> None:
    body = b"x" * (MAX_BATCH_BYTES - len(b"{}\n") - 1) + b"\n"

    assert batches.measure(frame(body)).count == 1


def test_an_unfinished_line_is_joined_with_the_next_in_text() -> None:
    chunk = batches.unpack(frame(b"a\nb\n", open=True), 7)

    assert chunk.open == (1,)
    assert chunk.text() == b"a\nb"


def test_several_unfinished_lines_are_joined() -> None:
    chunk = Chunk(0, 5, b"a\nb\nc\nd\ne\n", open=(0, 1, 3))

    assert chunk.text() == b"abc\nde\n"


lines = st.lists(st.binary(max_size=6).map(lambda line: line.replace(b"\n", b"")), min_size=1)


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    body = draw(lines)
    indices = st.integers(0, len(body) - 1)
    marks = sorted(draw(st.sets(indices)))
    times = tuple((index, draw(st.integers(0, 10**6))) for index in marks)
    opens = tuple(sorted(draw(st.sets(indices))))
    data = b"".join(line + b"\n" for line in body)
    return Chunk(draw(st.integers(0, 10**9)), len(body), data, times, opens)


@given(chunks(), st.data())
def test_a_cut_chunk_and_its_rest_join_to_the_same(chunk: Chunk, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, chunk.count))
    parts = [part for part in (chunk.upto(at), chunk.since(chunk.first + at)) if part.count]

    joined = batches.join(parts)

    assert (joined.first, joined.count, joined.data) == (chunk.first, chunk.count, chunk.data)
    assert joined.text() == chunk.text()
    if chunk.times and chunk.times[0][0] == 0:
        assert joined.line_times() == chunk.line_times()


@given(chunks())
def test_what_is_packed_unpacks_to_the_same(chunk: Chunk) -> None:
    assert batches.unpack(batches.pack(chunk), chunk.first) == chunk


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_a_batch_error(data: bytes) -> None:
    for given_ in (data, zstandard.compress(data)):
        try:
            batches.measure(given_)
        except BatchError as fault:
            assert fault.code.startswith("logs:")


def test_line_times_are_per_line() -> None:
    chunk = Chunk(0, 5, b"a\nb\nc\nd\ne\n", times=((1, 10), (3, 20)))

    assert chunk.line_times() == [10, 10, 10, 20, 20]
    assert Chunk(0, 2, b"a\nb\n").line_times() == [0, 0]
