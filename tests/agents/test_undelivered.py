from __future__ import annotations

from pathlib import Path

from agents.undelivered import Undelivered


def test_what_is_not_delivered_is_found_by_a_later_life(tmp_path: Path) -> None:
    first = Undelivered(tmp_path)
    assert not first
    assert first.first() is None
    for number in (2, 11):
        first.add(number, b"body %d" % number)
    first.done(2)

    later = Undelivered.left_in(tmp_path)

    assert later
    assert later.first() == (11, b"body 11")
    later.done(11)
    assert not later
    assert list(tmp_path.iterdir()) == []


def test_files_are_whole_and_for_the_agents_eyes_only(tmp_path: Path) -> None:
    (tmp_path / "reports.1.new").write_bytes(b"torn")
    Undelivered(tmp_path).add(2, b"body")

    assert Undelivered.left_in(tmp_path).first() == (2, b"body")
    assert (tmp_path / "reports.2.zst").stat().st_mode & 0o077 == 0


def test_without_a_disk_they_are_kept_in_memory(tmp_path: Path) -> None:
    for place in (None, tmp_path / "gone"):
        found = Undelivered(place)
        found.add(1, b"body")
        assert found.first() == (1, b"body")
        found.done(1)
        assert not found
