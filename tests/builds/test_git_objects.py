from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builds.forges.base import Unreachable
from builds.forges.objects import Shelf
from tests.builds.conftest import git

HEAD = ("HEAD^{commit}", "HEAD:.drone.yml")


@pytest.fixture
def folder(make_git: Callable[..., Path]) -> Path:
    return make_git({".drone.yml": "kind: pipeline\n"})


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf(lambda: {"PATH": os.environ["PATH"]}, idle_s=60)
    yield made
    made.close()


def text(shelf: Shelf, folder: Path) -> bytes | None:
    blob = shelf.read(folder, HEAD, 60)[1]
    return blob[2] if blob else None


def pids(folder: Path) -> set[int]:
    """Processes of git that work in a folder."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").readlink() == folder and b"cat-file" in (
                path / "cmdline"
            ).read_bytes():
                found.add(int(path.name))
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    done = threading.Event()
    for _ in range(6000):
        if condition():
            return
        done.wait(0.01)
    raise AssertionError("it did not happen")


def test_one_program_answers_again_and_sees_what_is_new(shelf: Shelf, folder: Path) -> None:
    assert text(shelf, folder) == b"kind: pipeline\n"
    (first,) = pids(folder)
    (folder / ".drone.yml").write_text("kind: secret\n")
    git(folder, "commit", "-qam", "other")
    assert text(shelf, folder) == b"kind: secret\n"
    git(folder, "gc", "-q")
    git(folder, "rm", "-q", ".drone.yml")
    git(folder, "commit", "-qm", "none")
    assert text(shelf, folder) is None
    assert pids(folder) == {first}


def test_a_program_that_was_killed_is_started_again(shelf: Shelf, folder: Path) -> None:
    text(shelf, folder)
    for pid in pids(folder):
        os.kill(pid, 9)
    assert text(shelf, folder) == b"kind: pipeline\n"


def test_another_repository_in_the_same_place_is_noticed(
    shelf: Shelf, folder: Path, make_git: Callable[..., Path]
) -> None:
    text(shelf, folder)
    other = make_git({".drone.yml": "other\n"}, "other")
    shutil.rmtree(folder)
    other.rename(folder)
    assert text(shelf, folder) == b"other\n"


def test_programs_end_when_nobody_asks(folder: Path) -> None:
    shelf = Shelf(lambda: {"PATH": os.environ["PATH"]}, idle_s=0.2)
    text(shelf, folder)
    wait_for(lambda: not pids(folder))
    assert text(shelf, folder) == b"kind: pipeline\n"


def test_many_threads_and_large_files(shelf: Shelf, make_git: Callable[..., Path]) -> None:
    large = "x" * 700_000 + "\n"
    folder = make_git({".drone.yml": large, "a": "a\n"})
    found: list[object] = []

    def ask() -> None:
        for _ in range(5):
            answers = shelf.read(folder, ("HEAD:a", "HEAD:none", "HEAD:.drone.yml"), 60)
            found.append([one and one[2] for one in answers])

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[b"a\n", None, large.encode()]] * 30


def test_no_more_programs_than_a_few(shelf: Shelf, make_git: Callable[..., Path]) -> None:
    folders = [make_git({".drone.yml": f"{n}\n"}, f"repo{n}") for n in range(10)]
    assert [text(shelf, folder) for folder in folders] == [b"%d\n" % n for n in range(10)]
    assert sum(len(pids(folder)) for folder in folders) <= 8


def test_what_is_no_repository_says_so(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="not a git repository"):
        shelf.read(tmp_path, HEAD, 60)


def test_git_that_does_not_answer_is_given_up(folder: Path, tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexec sleep 600\n")
    fake.chmod(0o755)
    slow = Shelf(lambda: {"PATH": f"{fake.parent}:{os.environ['PATH']}"})
    with pytest.raises(Unreachable, match="too long"):
        slow.read(folder, HEAD, 0.2)
    slow.close()


def test_a_server_without_git_says_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="git is not installed"):
        Shelf(lambda: {"PATH": str(tmp_path)}).read(folder, HEAD, 60)
