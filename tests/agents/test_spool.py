"""The spool: positions, the cap, sudden death; and the batches made of it."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from agents.logs import spool as spools
from agents.logs.batches import Batch, Packer
from agents.logs.masks import Masker
from agents.logs.spool import Spool, cut_lines
from pipeline.wire import MAX_LINE_BYTES

MIB = 1024 * 1024


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Make = Callable[..., Spool]


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Make:
    def spool(*hidden: bytes, cap_bytes: int = MIB, number: int = 1) -> Spool:
        return Spool(tmp_path, number, Masker(hidden), cap_bytes=cap_bytes, clock=clock)

    return spool


def opened(batch: Batch) -> tuple[dict[str, object], list[bytes]]:
    head, _, body = zstandard.ZstdDecompressor().decompress(batch.data).partition(b"\n")
    return json.loads(head), body[:-1].split(b"\n")


def drain(spool: Spool, position: int = 0, limit: int = 64 * 1024) -> list[bytes]:
    """All lines that may be shipped; dropped ones count as None would: they are left out."""
    packer, lines = Packer(), []
    while batch := packer.pack(spool, position, limit):
        assert batch.start == position
        header, some = opened(batch)
        skip = header.get("skip", 0)
        assert isinstance(skip, int)
        assert batch.end == position + skip + len(some)
        lines += some
        position = batch.end
    return lines


def test_it_keeps_whole_lines_by_position(make: Make) -> None:
    spool = make()
    spool.write(b"one\ntwo\nthr")
    assert spool.end == 2
    spool.write(b"ee\nfour")
    assert spool.end == 3
    assert spool.finish() == 4
    assert drain(spool) == [b"one", b"two", b"three", b"four"]
    assert drain(spool, 2) == [b"three", b"four"]
    spool.close()


def test_files_made_ahead_are_used(make: Make, tmp_path: Path) -> None:
    spool = make()
    spool.make_ready()
    spool.make_ready()
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["1.0.idx", "1.0.log"]
    spool.write(b"one\n")
    spool.close()
    spool.make_ready()
    assert sorted(path.name for path in tmp_path.iterdir()) == made
    again = make()
    assert drain(again) == [b"one"]
    again.close()


def test_files_that_cannot_be_made_ahead_are_no_harm(make: Make, tmp_path: Path) -> None:
    (tmp_path / "1.0.idx").mkdir()
    spool = make()
    spool.make_ready()
    (tmp_path / "1.0.idx").rmdir()
    spool.write(b"one\n")
    assert drain(spool) == [b"one"]
    spool.close()


def test_times_are_per_chunk_and_since_the_start(make: Make, clock: Clock) -> None:
    spool = make()
    spool.write(b"a\nb\n")
    clock.now += 1.5
    spool.write(b"c\n")
    spool.write(b"d\n")
    batch = Packer().pack(spool, 0)
    assert batch is not None
    assert opened(batch)[0] == {"t": [[0, 0], [2, 1500]]}
    spool.close()


def test_an_unfinished_line_goes_after_silence_and_is_marked(make: Make, clock: Clock) -> None:
    spool = make()
    spool.write(b"Password: ")
    assert not spool.flush_open(0.25)
    clock.now += 0.5
    assert spool.flush_open(0.25)
    spool.write(b"ok\nnext\n")
    packer = Packer()
    first = packer.pack(spool, 0)
    assert first is not None
    assert opened(first) == ({"t": [[0, 500]], "open": True}, [b"Password: "])
    second = packer.pack(spool, first.end)
    assert second is not None
    assert opened(second)[1] == [b"ok", b"next"]
    spool.close()


def test_silence_never_releases_what_could_be_a_secret(make: Make, clock: Clock) -> None:
    spool = make(b"hunter2")
    spool.write(b"pass hunt")
    clock.now += 10
    assert spool.flush_open(0.25)
    spool.write(b"er2\n")
    assert drain(spool) == [b"pass ", b"******"]
    spool.close()


@pytest.mark.parametrize("size", [1, 1000, 64 * 1024, 300_000])
def test_long_lines_are_cut(make: Make, size: int) -> None:
    spool = make()
    text = b"x" * (3 * MAX_LINE_BYTES + 5) + b"\nshort\n" + b"y" * MAX_LINE_BYTES + b"\n"
    for place in range(0, len(text), size):
        spool.write(text[place : place + size])
    lines = drain(spool, limit=MIB)
    spool.close()
    assert [len(line) for line in lines] == [MAX_LINE_BYTES] * 3 + [5, 5, MAX_LINE_BYTES]
    assert lines[4] == b"short"


def test_cut_lines_counts_what_it_cuts() -> None:
    pieces, rest, lines = cut_lines(b"a\nb\n" + b"c" * (MAX_LINE_BYTES + 1))
    assert b"".join(pieces) == b"a\nb\n" + b"c" * MAX_LINE_BYTES + b"\n"
    assert (rest, lines) == (b"c", 3)


def test_binary_garbage_passes_unchanged(make: Make) -> None:
    garbage = bytes(range(256)) * 10
    spool = make()
    spool.write(garbage)
    spool.finish()
    assert b"\n".join(drain(spool)) == garbage.removesuffix(b"\n")
    spool.close()


def test_beyond_the_cap_the_middle_is_left_out_and_said(make: Make) -> None:
    spool = make(cap_bytes=20_000)
    total = 10_000
    for number in range(total):
        spool.write(b"line %d\n" % number)
    live = drain(spool)
    assert live == [b"line %d" % number for number in range(len(live))]
    assert 500 < len(live) < total / 2
    assert spool.finish() == total
    packer = Packer()
    batch = packer.pack(spool, len(live))
    assert batch is not None
    header, lines = opened(batch)
    left_out = int(lines[0].split()[0].lstrip(b"["))
    assert header["skip"] == left_out - 1
    rest = drain(spool, batch.end)
    tail = lines[1:] + rest
    assert tail == [b"line %d" % n for n in range(len(live) + left_out, total)]
    assert sum(map(len, live + tail)) <= 20_000
    spool.close()


def test_below_the_cap_nothing_is_left_out(make: Make) -> None:
    spool = make(cap_bytes=MIB)
    lines = [b"line %d" % number for number in range(60_000)]
    assert MIB / 2 < sum(map(len, lines)) + len(lines) < MIB
    for place in range(0, len(lines), 100):
        spool.write(b"\n".join(lines[place : place + 100]) + b"\n")
    spool.finish()
    assert drain(spool) == lines
    spool.close()


@pytest.mark.parametrize("next_", [0, 1, 5, 99])
def test_it_cuts_anew_where_the_server_says(make: Make, next_: int) -> None:
    spool = make()
    spool.write(b"".join(b"%d\n" % number for number in range(100)))
    assert drain(spool, next_) == [b"%d" % number for number in range(next_, 100)]
    spool.close()


def test_forgotten_records_do_not_change_what_comes(make: Make) -> None:
    spool = make()
    for number in range(10):
        spool.write(b"%d\n" % number)
        spool.forget(number)
    spool.write(b"10\n")
    assert drain(spool, 9) == [b"9", b"10"]
    spool.close()


# --- sudden death ---


def test_a_later_life_finds_everything_that_was_read(make: Make) -> None:
    spool = make()
    spool.write(b"one\ntwo\n")
    spool.write(b"three\nunfinished")
    later = make()  # the first one was never closed
    assert later.end == 3
    later.write(b"four\n")
    assert later.finish() == 4
    assert drain(later) == [b"one", b"two", b"three", b"four"]
    spool.close()
    later.close()


@pytest.mark.parametrize("torn", [b"", b"torn", b"whole\n", b"whole\ntorn"])
@pytest.mark.parametrize("index", [0, 1, 10])
def test_a_torn_tail_is_cut(make: Make, tmp_path: Path, torn: bytes, index: int) -> None:
    spool = make()
    spool.write(b"one\ntwo\n")
    spool.close()
    with (tmp_path / "1.0.log").open("ab") as file:
        file.write(torn)
    with (tmp_path / "1.0.idx").open("ab") as file:
        file.write(b"\x07" * index)
    later = make()
    expected = [b"one", b"two"] + ([b"whole"] if b"whole" in torn else [])
    assert later.finish() == len(expected)
    assert drain(later) == expected
    later.close()
    again = make()
    assert drain(again) == expected
    again.close()


def test_a_later_life_knows_what_the_ring_dropped(make: Make) -> None:
    spool = make(cap_bytes=20_000)
    for number in range(10_000):
        spool.write(b"line %d\n" % number)
    later = make(cap_bytes=20_000)
    assert later.finish() == 10_000
    lines = drain(later)
    assert lines[-1] == b"line 9999"
    assert any(b"lines left out here" in line for line in lines)
    spool.close()
    later.close()


def test_spools_of_steps_do_not_mix(make: Make) -> None:
    first, eleventh = make(number=1), make(number=11)
    first.write(b"one\n")
    eleventh.write(b"eleven\n")
    assert drain(first) == [b"one"]
    assert drain(eleventh) == [b"eleven"]
    first.close()
    eleventh.close()


class FullDisk:
    """Takes `room` bytes, of a write as many as fit, and then no more until it has room again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self.asked, self._write = room, threading.Event(), os.write
        monkeypatch.setattr(spools, "_FULL_DISK_S", 0.01)
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file: int, data: bytes) -> int:
        if not self.room:
            self.asked.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(file, data[: self.room])
        self.room -= written
        return written


def test_a_full_disk_is_waited_for(
    make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, and nothing gets between the halves of what was being written."""
    spool = make()
    spool.write(b"one\nunfin")
    disk = FullDisk(monkeypatch, room=5)
    writer = threading.Thread(target=spool.write, args=(b"ished\ntwo\nrest",))
    writer.start()
    assert disk.asked.wait(60)
    clock.now += 60
    assert not spool.flush_open(0.25)
    assert drain(spool) == [b"one"]

    disk.room = 1000
    writer.join(60)
    spool.finish()
    assert drain(spool) == [b"one", b"unfinished", b"two", b"rest"]
    spool.close()


def test_who_gives_up_on_a_full_disk_says_what_is_lost(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = make()
    spool.write(b"one\n")
    disk = FullDisk(monkeypatch, room=5)
    writer = threading.Thread(target=spool.write, args=(b"two\nthree\nfour\n",))
    writer.start()
    assert disk.asked.wait(60)

    spool.give_up()
    writer.join(60)
    spool.write(b"five\n")
    disk.room = 1000
    assert spool.finish() == 2
    note = b"[4 lines lost: the agent could not store them on its disk]"
    assert drain(spool) == [b"one", note]
    spool.close()
    assert drain(make()) == [b"one", note]
