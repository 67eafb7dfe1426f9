"""Mirrors of repositories: one user at a time, and those unused for long or too many go."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents.mirrors import clean, locked, pack, path_of, unfinished

NOW = 1_000_000.0
DAY = 86400.0


def never() -> bool:
    raise AssertionError("nobody else has the lock")


def make(folder: Path, name: str, *, days: float, size: int = 1000) -> Path:
    mirror = path_of(folder, name)
    with locked(mirror, never) as ours:
        assert ours
        (mirror / "objects").mkdir(parents=True)
        (mirror / "objects" / "pack").write_bytes(bytes(size))
    os.utime(mirror.with_suffix(".lock"), (NOW - days * DAY,) * 2)
    return mirror


@pytest.fixture
def mirrors(tmp_path: Path) -> dict[str, Path]:
    return {name: make(tmp_path, name, days=float(name[1:])) for name in ("a9", "b5", "c1")}


@pytest.mark.parametrize(
    ("age_days", "size", "gone"),
    [
        (0, 0, set()),
        (10, 5000, set()),
        (7, 0, {"a9"}),
        (0.5, 0, {"a9", "b5", "c1"}),
        (0, 2500, {"a9"}),
        (0, 1500, {"a9", "b5"}),
        (0, 1, {"a9", "b5"}),  # the one used last is not too big
        (7, 2500, {"a9"}),
        (7, 1500, {"a9", "b5"}),
    ],
)
def test_age_and_size_say_what_goes(
    tmp_path: Path, mirrors: dict[str, Path], age_days: float, size: int, gone: set[str]
) -> None:
    removed = clean(tmp_path, age_s=age_days * DAY, size_bytes=size, now=NOW)
    assert set(removed) == {mirrors[name] for name in gone}
    left = {mirrors[name] for name in mirrors if name not in gone}
    assert set(tmp_path.glob("*.git")) == left
    assert set(tmp_path.glob("*.lock")) == {path.with_suffix(".lock") for path in left}
    assert not list(tmp_path.glob("*.gone"))


def test_one_in_use_stays(tmp_path: Path, mirrors: dict[str, Path]) -> None:
    with locked(mirrors["a9"], never):
        os.utime(mirrors["a9"].with_suffix(".lock"), (NOW - 9 * DAY,) * 2)
        removed = clean(tmp_path, age_s=DAY, size_bytes=0, now=NOW + DAY)
        assert set(removed) == {mirrors["b5"], mirrors["c1"]}
        assert mirrors["a9"].exists()
    os.utime(mirrors["a9"].with_suffix(".lock"), (NOW - 9 * DAY,) * 2)
    assert clean(tmp_path, age_s=DAY, size_bytes=0, now=NOW + DAY) == [mirrors["a9"]]


def test_one_in_use_by_another_agent_stays(tmp_path: Path, mirrors: dict[str, Path]) -> None:
    hold = (
        "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    lock = mirrors["a9"].with_suffix(".lock")
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert mirrors["a9"] not in clean(tmp_path, age_s=DAY / 2, size_bytes=0, now=NOW)
        assert other.stdin is not None
        other.stdin.close()
    assert clean(tmp_path, age_s=DAY / 2, size_bytes=0, now=NOW) == [mirrors["a9"]]


def test_use_is_noted(tmp_path: Path, mirrors: dict[str, Path]) -> None:
    with locked(mirrors["a9"], never):
        pass
    assert mirrors["a9"] not in clean(tmp_path, age_s=2 * DAY, size_bytes=0, now=NOW)


def test_who_waited_for_a_mirror_that_went_gets_a_lock_that_holds(tmp_path: Path) -> None:
    mirror = make(tmp_path, "a", days=1)
    lock = mirror.with_suffix(".lock")
    with locked(mirror, never):
        lock.unlink()  # as a cleaner does that holds it
        with locked(mirror, never) as ours:
            assert ours
            assert lock.exists()


def test_waiting_can_be_given_up(tmp_path: Path) -> None:
    mirror = make(tmp_path, "a", days=1)
    with locked(mirror, never), locked(mirror, lambda: True) as ours:
        assert not ours


def test_what_a_sudden_death_left_is_removed(tmp_path: Path) -> None:
    rubbish = tmp_path / "0123.gone" / "objects"
    rubbish.mkdir(parents=True)
    path_of(tmp_path, "only a lock").with_suffix(".lock").touch()
    clean(tmp_path, age_s=DAY, size_bytes=0, now=NOW * 1e6)
    assert list(tmp_path.iterdir()) == []


def test_locks_of_a_git_that_was_killed_are_removed(tmp_path: Path) -> None:
    mirror = path_of(tmp_path, "a")
    with locked(mirror, never):
        git(tmp_path, "init", "-q", "--bare", str(mirror))
    stale = [mirror / "refs" / "heads" / "main.lock", mirror / "packed-refs.lock"]
    for lock in stale:
        lock.touch()
    with locked(mirror, never):
        assert all(lock.exists() for lock in stale)  # nobody died: they are somebody's

    with contextlib.suppress(InterruptedError), locked(mirror, never):
        raise InterruptedError
    with locked(mirror, never):
        assert not any(lock.exists() for lock in stale)
    assert mirror.with_suffix(".lock").read_bytes() == b""


def test_a_mirror_that_was_not_finished_is_made_anew(tmp_path: Path) -> None:
    mirror = path_of(tmp_path, "a")
    unfinished(mirror).mkdir()
    (mirror.with_suffix(".new") / "HEAD").touch()
    made = unfinished(mirror)
    assert not made.exists()
    assert made.suffix not in (".git", ".lock")


def test_a_folder_that_is_not_there_is_clean(tmp_path: Path) -> None:
    assert clean(tmp_path / "none", age_s=DAY, size_bytes=1, now=NOW) == []


def test_pieces_of_many_fetches_are_packed_where_nobody_is_at_work(tmp_path: Path) -> None:
    mirror, other = (path_of(tmp_path, name) for name in ("a", "b"))
    for one in (mirror, other):
        with locked(one, never):
            git(tmp_path, "init", "-q", "--bare", str(one))
            text = "commit refs/heads/main\ncommitter A <a@b> 0 +0000\ndata 1\nx\n"
            text += "".join(f"M 644 inline {i}\ndata {len(str(i))}\n{i}\n" for i in range(1500))
            git(one, "-c", "fastimport.unpackLimit=100000", "fast-import", "--quiet", text=text)
    assert loose(mirror) > 1000
    with locked(other, never):
        pack(tmp_path)
    assert loose(mirror) == 0
    assert loose(other) > 1000
    assert git(mirror, "cat-file", "-p", "main:1499") == "1499"


def loose(mirror: Path) -> int:
    return int(git(mirror, "count-objects").split()[0])


def git(folder: Path, *words: str, text: str = "") -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, input=text, capture_output=True, text=True, check=True
    )
    return done.stdout
