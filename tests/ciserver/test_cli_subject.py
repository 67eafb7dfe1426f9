from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from ciserver.cli.subject import build_number, subject
from ciserver.cli.terminal import Refused


class FakeClient:
    """A server that has these repos."""

    def __init__(self, *slugs: str) -> None:
        self._slugs = slugs

    def repos(self) -> list[Any]:
        return [{"slug": slug, "active": True} for slug in self._slugs]


@pytest.mark.parametrize(
    "text",
    ["https://git.example.com/a/b.git", "ssh://git@example.com/a/b", "git@example.com:a/b.git"],
)
def test_git_addresses_are_taken_as_they_are(text: str) -> None:
    assert subject(text).url == text


def test_a_slug_is_a_slug() -> None:
    assert subject("octocat/hello").slug == "octocat/hello"


def test_a_folder_inside_a_repository_means_the_repository(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=T", "-c", "user.email=t@example.com"]
    subprocess.run([*git, "init", "--quiet", "--initial-branch=trunk"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=x"], check=True)
    (tmp_path / "inside").mkdir()

    found = subject(str(tmp_path / "inside"))

    assert found.url == tmp_path.resolve().as_uri()
    assert found.branch == "trunk"
    assert len(found.commit) == 40
    assert not found.dirty


@pytest.mark.parametrize("text", ["octocat/hello#7", "octocat/hello/7", "octocat/hello 7"])
def test_builds_are_named_in_three_ways(text: str) -> None:
    assert build_number(FakeClient(), text) == ("octocat/hello", 7)  # type: ignore[arg-type]


def test_a_bare_number_means_the_only_repository() -> None:
    assert build_number(FakeClient("a/b"), "#7") == ("a/b", 7)  # type: ignore[arg-type]


def test_a_bare_number_is_not_enough_for_two() -> None:
    with pytest.raises(Refused, match=r"there are: a/b, c/d"):
        build_number(FakeClient("a/b", "c/d"), "7")  # type: ignore[arg-type]
