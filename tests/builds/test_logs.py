from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from django.db import connections, router

from builds import logs
from builds.logs import batches, compaction, removal, store, watch
from builds.models import LogBatch, StepLog

pytestmark = pytest.mark.django_db

STEP = 4711


def frame(*lines: str, **header: Any) -> bytes:
    body = "".join(line + "\n" for line in lines)
    return zstandard.compress(json.dumps(header).encode() + b"\n" + body.encode())


def text(step: int = STEP, first: int = 0) -> str:
    return b"".join(logs.text(step, first)).decode()


def test_a_log_grows_by_batches_that_follow_each_other() -> None:
    assert logs.append(STEP, 0, frame("one", "two")) == 2
    assert logs.append(STEP, 2, frame("three")) == 3

    assert text() == "one\ntwo\nthree\n"
    assert logs.next_position(STEP) == 3


def test_a_repeated_batch_changes_nothing_and_says_where_the_log_stands() -> None:
    logs.append(STEP, 0, frame("one", "two"))

    assert logs.append(STEP, 0, frame("one", "two")) == 2
    assert text() == "one\ntwo\n"


@pytest.mark.parametrize("from_", [1, 5])
def test_a_batch_from_elsewhere_is_not_written(from_: int) -> None:
    logs.append(STEP, 0, frame("one", "two"))

    assert logs.append(STEP, from_, frame("other")) == 2
    assert text() == "one\ntwo\n"


def test_a_batch_ahead_of_an_empty_log_is_not_written() -> None:
    assert logs.append(STEP, 3, frame("late")) == 0
    assert not LogBatch.objects.exists()


def test_a_malformed_batch_writes_nothing() -> None:
    with pytest.raises(logs.BatchError):
        logs.append(STEP, 0, b"nonsense")

    assert not StepLog.objects.exists()


def test_skipped_lines_are_a_gap_in_positions() -> None:
    logs.append(STEP, 0, frame("first"))
    assert logs.append(STEP, 1, frame("last", skip=10)) == 12

    assert [(chunk.first, chunk.data) for chunk in logs.read(STEP)] == [
        (0, b"first\n"),
        (11, b"last\n"),
    ]
    assert text(first=5) == "last\n"


def test_a_range_is_read_across_batches() -> None:
    for first in range(0, 100, 5):
        logs.append(STEP, first, frame(*(str(n) for n in range(first, first + 5))))

    found = list(logs.read(STEP, 13, 70))

    assert found[0].first == 13
    assert b"".join(chunk.data for chunk in found).split() == [b"%d" % n for n in range(13, 83)]


def test_drones_lines_join_unfinished_ones() -> None:
    logs.append(STEP, 0, frame("a", "b", open=True, t=[[0, 100], [1, 2500]]))
    logs.append(STEP, 2, frame("c", "d", t=[[0, 4000]]))
    logs.append(STEP, 4, frame("no newline", open=True))

    assert list(logs.lines(STEP)) == [
        {"pos": 0, "out": "a\n", "time": 0},
        {"pos": 1, "out": "bc\n", "time": 2},
        {"pos": 3, "out": "d\n", "time": 4},
        {"pos": 4, "out": "no newline", "time": 0},
    ]


def test_search_finds_lines_in_any_case_once_each() -> None:
    logs.append(STEP, 0, frame("no", "an Error, error", "ok"))
    logs.append(STEP, 3, frame("ERROR: last"))

    assert [(hit.position, hit.line) for hit in logs.search(STEP, "error")] == [
        (1, "an Error, error"),
        (3, "ERROR: last"),
    ]
    assert len(list(logs.search(STEP, "error", limit=1))) == 1


def test_a_log_is_complete_when_it_reaches_its_end() -> None:
    logs.append(STEP, 0, frame("one"))

    assert not logs.finish(STEP, 2)
    logs.append(STEP, 1, frame("two"))
    assert logs.position(STEP).complete
    assert logs.finish(STEP, 2)


def test_a_log_without_lines_is_complete_at_once() -> None:
    assert logs.finish(STEP, 0)
    assert text() == ""


def test_an_abandoned_log_ends_where_it_stands() -> None:
    logs.append(STEP, 0, frame("one"))
    logs.give_up(STEP)

    assert logs.position(STEP).complete


def test_a_compacted_log_takes_no_more() -> None:
    logs.append(STEP, 0, frame("one"))
    logs.finish(STEP, 1)
    logs.compact(STEP)

    assert logs.append(STEP, 0, frame("one")) == 1
    with pytest.raises(logs.BatchError) as raised:
        logs.append(STEP, 1, frame("two"))
    assert raised.value.code == "logs:complete"


def test_a_deleted_log_is_gone_wherever_it_was(data_dir: Path) -> None:
    fill_large(STEP)
    logs.compact(STEP)
    logs.append(STEP + 1, 0, frame("row"))

    for step in (STEP, STEP + 1, STEP + 2):
        logs.delete(step)

    assert not StepLog.objects.exists()
    assert not LogBatch.objects.exists()
    assert [path for path in (data_dir / "logs").rglob("*") if path.is_file()] == []


def test_logs_whose_steps_are_gone_are_swept(data_dir: Path) -> None:
    fill_large(STEP)
    logs.compact(STEP)
    logs.append(STEP + 1, 0, frame("row"))

    assert logs.sweep() == 2

    assert not StepLog.objects.exists() and not LogBatch.objects.exists()
    assert [path for path in (data_dir / "logs").rglob("*") if path.is_file()] == []
    assert logs.sweep() == 0


def test_a_sweep_goes_on_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "_PAGE", 2)
    for step in range(STEP, STEP + 5):
        logs.finish(step, 0)

    assert [logs.sweep(most=2) for _ in range(3)] == [2, 2, 1]
    logs.finish(STEP, 0)
    assert logs.sweep(most=2) == 1


def test_a_log_whose_object_cannot_be_removed_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill_large(STEP)
    logs.compact(STEP)
    logs.finish(STEP + 1, 0)

    def away(_self: object, key: str) -> None:
        raise store.StoreFault(f"{key}: away")

    with monkeypatch.context() as patched:
        patched.setattr(store.Files, "delete", away)
        assert logs.sweep() == 1
        with pytest.raises(store.StoreFault):
            logs.delete(STEP)
    assert [log.step for log in StepLog.objects.all()] == [STEP]
    assert logs.sweep() == 1


def test_a_store_that_is_away_is_not_asked_for_every_log(monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(STEP, STEP + 9):
        StepLog.objects.create(step=step, key=f"file:0/{step}.zst")
    asked = []

    def away(_self: object, key: str) -> None:
        asked.append(key)
        raise store.StoreFault(f"{key}: away")

    monkeypatch.setattr(removal, "_PAGE", 5)
    with monkeypatch.context() as patched:
        patched.setattr(store.Files, "delete", away)
        assert logs.sweep() == 0
    assert len(asked) == 3
    assert logs.sweep() + logs.sweep() == 9


def test_a_log_removed_while_it_is_compacted_leaves_no_object(
    monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    fill_large(STEP)
    write = store.Files.write

    def removed_meanwhile(self: store.Files, key: str, parts: Any) -> None:
        write(self, key, parts)
        logs.delete(STEP)

    monkeypatch.setattr(store.Files, "write", removed_meanwhile)
    logs.compact(STEP)

    assert [path for path in (data_dir / "logs").rglob("*") if path.is_file()] == []


def fill_large(step: int, lines: int = 40_000) -> str:
    """About 3 MB in batches of uneven sizes, with times, unfinished lines and a gap."""
    rng = random.Random(3)
    words = [f"line {n} " + "x" * rng.randrange(120) for n in range(lines)]
    position = at = 0
    while at < lines:
        part = words[at : at + rng.choice([1, 7, 900, 20_000])]
        header: dict[str, Any] = {"t": [[0, at]]}
        if rng.random() < 0.3:
            header["open"] = True
        if at > lines // 2 and position == at:
            header["skip"] = 50
        position = logs.append(step, position, frame(*part, **header))
        at += len(part)
    logs.finish(step, position)
    return text(step)


@pytest.fixture(params=["files", "database", "s3"])
def place(request: pytest.FixtureRequest, settings: Any) -> Iterator[str]:
    if request.param == "database":
        settings.LOG_STORE = "database"
    if request.param == "s3":
        from moto import mock_aws

        settings.LOG_STORE = "s3://bucket/ci/logs"
        store._client.cache_clear()
        request.getfixturevalue("aws")
        with mock_aws():
            import boto3

            boto3.client("s3").create_bucket(Bucket="bucket")
            yield request.param
        store._client.cache_clear()
        return
    yield request.param


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.mark.usefixtures("place")
def test_a_compacted_log_reads_the_same() -> None:
    before = fill_large(STEP)
    rows = list(logs.lines(STEP))
    ranges = {first: list(logs.read(STEP, first, 3)) for first in range(0, 40_000, 1777)}

    assert logs.compact(STEP)

    assert text() == before
    assert list(logs.lines(STEP)) == rows
    for first, expected in ranges.items():
        found = list(logs.read(STEP, first, 3))
        assert b"".join(c.data for c in found) == b"".join(c.data for c in expected)
        assert found[0].first == expected[0].first
    assert not logs.compact(STEP)


def test_a_range_read_of_an_object_unpacks_only_its_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_large(STEP)
    logs.compact(STEP)
    assert len(StepLog.objects.get().index) > 8
    unpacked = []
    original = batches.unpack
    monkeypatch.setattr(batches, "unpack", lambda f, n: unpacked.append(n) or original(f, n))

    list(logs.read(STEP, 100, 10))

    assert len(unpacked) == 1


def test_a_crash_after_the_object_was_written_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fill_large(STEP)

    class Crash(Exception):
        pass

    def crash(*_args: Any, **_kwargs: Any) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(compaction.transaction, "atomic", crash)
        with pytest.raises(Crash):
            logs.compact(STEP)
    assert text() == before

    assert logs.compact(STEP)
    assert text() == before


def test_a_failed_write_leaves_no_file_and_the_log_as_it_was(
    monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    before = fill_large(STEP)

    def full(_descriptor: int) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(store.os, "fsync", full)
        assert logs.compact_due() == 0

    assert text() == before
    assert [path for path in (data_dir / "logs").rglob("*") if path.is_file()] == []
    assert logs.compact_due() == 1


def test_an_object_that_is_gone_is_a_fault_of_the_store(data_dir: Path) -> None:
    fill_large(STEP)
    logs.compact(STEP)
    for path in (data_dir / "logs").rglob("*.zst"):
        path.unlink()

    with pytest.raises(logs.StoreFault):
        text()
    logs.delete(STEP)


def test_small_logs_stay_rows_and_many_batches_become_one() -> None:
    for n in range(20):
        logs.append(STEP, n, frame(f"line {n}", open=n % 3 == 0))
    logs.finish(STEP, 20)
    logs.append(STEP + 1, 0, frame("single"))
    logs.finish(STEP + 1, 1)
    logs.append(STEP + 2, 0, frame("unfinished"))
    before = text()

    assert logs.compact_due() == 2

    assert text() == before
    assert LogBatch.objects.filter(step=STEP).count() == 1
    assert dict(StepLog.objects.values_list("step", "key")) == {
        STEP: "rows",
        STEP + 1: "rows",
        STEP + 2: "",
    }
    assert logs.compact_due() == 0


def test_reading_goes_on_when_the_log_is_compacted_meanwhile() -> None:
    before = fill_large(STEP)
    reader = logs.text(STEP)
    parts = [next(reader)]

    logs.compact(STEP)
    parts += reader

    assert b"".join(parts).decode() == before


def test_log_rows_lie_in_their_own_database() -> None:
    logs.append(STEP, 0, frame("one"))

    alias = router.db_for_write(LogBatch)
    assert (alias == "logs") == ("logs" in connections)


def test_the_pace_follows_from_the_viewers() -> None:
    assert logs.pace_ms(STEP) == 1000

    watch.announce("one", {STEP: 2})
    assert (logs.pace_ms(STEP), logs.viewers(STEP)) == (0, 2)
    watch.announce("two", {STEP: 99})
    assert logs.pace_ms(STEP) == 100

    watch.announce("one", {})
    watch.announce("two", {})
    assert logs.pace_ms(STEP) == 1000


def test_a_dead_process_stops_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    watch.announce("dead", {STEP: 1})
    now = watch.time.time()
    monkeypatch.setattr(watch.time, "time", lambda: now + 60)

    watch.announce("other", {STEP + 1: 1})

    assert logs.pace_ms(STEP) == 1000
    assert logs.pace_ms(STEP + 1) == 0
