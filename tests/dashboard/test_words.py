from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dashboard.presenters import words

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0 ms"), (0.85, "850 ms"), (12.9, "12s"), (185, "3m 05s"), (7625, "2h 07m")],
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(timedelta(seconds=seconds)) == said


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (timedelta(seconds=-3), "just now"),
        (timedelta(seconds=50), "1 min ago"),
        (timedelta(minutes=59), "59 min ago"),
        (timedelta(hours=5), "5 h ago"),
        (timedelta(days=1), "1 day ago"),
        (timedelta(days=3), "3 days ago"),
        (timedelta(days=40), "17 Oct 2026"),
    ],
)
def test_ages(before: timedelta, said: str) -> None:
    assert words.ago(NOW - before, NOW) == said


@pytest.mark.parametrize(
    ("ms", "said"), [(0, "0:00"), (7999, "0:07"), (61_000, "1:01"), (3_723_000, "1:02:03")]
)
def test_offsets(ms: int, said: str) -> None:
    assert words.offset(ms) == said


@pytest.mark.parametrize(
    ("ref", "said"),
    [("refs/heads/a/b", "a/b"), ("refs/tags/v1", "v1"), ("refs/pull/7/head", "pull/7"), ("x", "x")],
)
def test_refs(ref: str, said: str) -> None:
    assert words.ref(ref) == said


def test_statuses_and_events() -> None:
    assert words.status("waiting_on_dependencies") == "waiting"
    assert words.status("killed") == "killed"
    assert words.event("pull_request") == "pull request"
    assert words.event("some_thing") == "some thing"
