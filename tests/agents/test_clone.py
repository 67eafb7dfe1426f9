"""The clone by the agent's own git: which commit ends up checked out how, and the mirror."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agents.clone import CloneProcess
from agents.drivers.base import Outcome, Room
from agents.rooms import make_room
from pipeline.spec import CloneSpec, Netrc

AUTHOR = {
    "GIT_AUTHOR_NAME": "Octo",
    "GIT_AUTHOR_EMAIL": "octo@example.com",
    "GIT_COMMITTER_NAME": "Octo",
    "GIT_COMMITTER_EMAIL": "octo@example.com",
}


class Collected:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    @property
    def text(self) -> str:
        return self.data.decode()


def git(folder: Path, *arguments: str) -> str:
    environ = {**os.environ, **AUTHOR, "HOME": str(folder)}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


class Repo:
    """A repository with branches, a tag and a pull request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        git(folder, "init", "-q", "-b", "main")
        self.first = self.commit("one")
        git(folder, "tag", "v1")
        self.second = self.commit("two")
        git(folder, "checkout", "-q", "-b", "feature", self.first)
        self.feature = self.commit("three")
        git(folder, "update-ref", "refs/pull/5/head", self.feature)
        git(folder, "checkout", "-q", "main")

    def commit(self, name: str) -> str:
        (self.folder / name).write_text(name)
        git(self.folder, "add", ".")
        git(self.folder, "commit", "-q", "-m", f"Add {name}")
        return git(self.folder, "rev-parse", "HEAD")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "repo")


Clone = Callable[..., tuple[Outcome, Room, Collected]]


@pytest.fixture
def clone(tmp_path: Path, repo: Repo) -> Clone:
    def run(netrc: Netrc | None = None, **spec: object) -> tuple[Outcome, Room, Collected]:
        room, sink = make_room(tmp_path / "work"), Collected()
        full = replace(CloneSpec(remote=str(repo.folder)), **spec)  # type: ignore[arg-type]
        process = CloneProcess(
            full, room, sink, mirrors=tmp_path / "mirrors", environ=AUTHOR, netrc=netrc
        )
        return process.wait(), room, sink

    return run


def files(room: Room) -> set[str]:
    return {path.name for path in room.source.iterdir()} - {".git"}


def test_a_branch_is_checked_out_at_the_commit(clone: Clone, repo: Repo) -> None:
    outcome, room, sink = clone(ref="refs/heads/main", branch="main", sha=repo.first)
    assert outcome == Outcome(), sink.text
    assert files(room) == {"one"}
    assert git(room.source, "rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert git(room.source, "remote", "get-url", "origin") == str(repo.folder)
    assert "HEAD is now at" in sink.text


def test_without_a_commit_it_is_the_branchs_head(clone: Clone) -> None:
    _, room, _ = clone(ref="refs/heads/feature", branch="feature")
    assert files(room) == {"one", "three"}


def test_without_a_branch_the_commit_is_checked_out_detached(clone: Clone, repo: Repo) -> None:
    outcome, room, sink = clone(sha=repo.feature)
    assert outcome == Outcome(), sink.text
    assert files(room) == {"one", "three"}
    assert git(room.source, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD"


def test_a_tag_is_checked_out_detached(clone: Clone, repo: Repo) -> None:
    outcome, room, sink = clone(ref="refs/tags/v1", branch="main", sha=repo.first)
    assert outcome == Outcome(), sink.text
    assert files(room) == {"one"}
    assert git(room.source, "rev-parse", "HEAD") == repo.first


def test_a_pull_request_is_merged_into_its_target(clone: Clone, repo: Repo) -> None:
    outcome, room, sink = clone(ref="refs/pull/5/head", branch="main", sha=repo.feature)
    assert outcome == Outcome(), sink.text
    assert files(room) == {"one", "two", "three"}
    assert git(room.source, "rev-parse", "HEAD^2") == repo.feature
    assert git(room.source, "log", "-1", "--format=%an") == "Octo"


def test_a_pull_request_that_conflicts_fails(clone: Clone, repo: Repo) -> None:
    (repo.folder / "three").write_text("another three")
    git(repo.folder, "add", ".")
    git(repo.folder, "commit", "-q", "-m", "Conflict")
    outcome, _, sink = clone(ref="refs/pull/5/head", branch="main", sha=repo.feature)
    assert outcome.exit_code == 1
    assert "CONFLICT" in sink.text


@pytest.mark.parametrize("again", [False, True])
def test_a_depth_gives_a_shallow_clone_that_needs_no_mirror(
    clone: Clone, repo: Repo, tmp_path: Path, again: bool
) -> None:
    spec = {"ref": "refs/heads/main", "branch": "main", "sha": repo.second, "depth": 1}
    remote = f"file://{repo.folder}"
    if again:
        clone(remote=remote, **spec)
    outcome, room, sink = clone(remote=remote, **spec)
    assert outcome == Outcome(), sink.text
    assert git(room.source, "rev-list", "--count", "HEAD") == "1"
    assert not (tmp_path / "mirrors").exists()


def test_the_second_clone_asks_nobody_for_a_commit_it_has(clone: Clone, repo: Repo) -> None:
    spec = {"ref": "refs/heads/main", "branch": "main", "sha": repo.second}
    clone(**spec)
    shutil.rmtree(repo.folder)
    outcome, room, sink = clone(**spec)
    assert outcome == Outcome(), sink.text
    assert files(room) == {"one", "two"}


def test_a_new_commit_is_fetched_into_the_mirror(clone: Clone, repo: Repo) -> None:
    clone(ref="refs/heads/main", branch="main", sha=repo.second)
    third = repo.commit("four")
    _, room, _ = clone(ref="refs/heads/main", branch="main", sha=third)
    assert "four" in files(room)


def test_a_branch_that_was_forced_is_followed(clone: Clone, repo: Repo) -> None:
    clone(ref="refs/heads/main", branch="main")
    git(repo.folder, "reset", "-q", "--hard", repo.first)
    forced = repo.commit("forced")
    outcome, room, sink = clone(ref="refs/heads/main", branch="main", sha=forced)
    assert outcome == Outcome(), sink.text
    assert files(room) == {"one", "forced"}


def test_steps_cannot_reach_the_mirrors_objects(clone: Clone, repo: Repo) -> None:
    _, room, _ = clone(ref="refs/heads/main", branch="main", sha=repo.second)
    objects = [path for path in (room.source / ".git" / "objects").rglob("*") if path.is_file()]
    assert objects
    assert all(path.stat().st_nlink == 1 for path in objects)
    assert not (room.source / ".git" / "objects" / "info" / "alternates").exists()


def test_two_clones_at_once_share_a_mirror(clone: Clone, repo: Repo) -> None:
    results: list[Outcome] = []

    def one() -> None:
        results.append(clone(ref="refs/heads/main", branch="main", sha=repo.second)[0])

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [Outcome()] * 4


def test_an_unreachable_remote_is_gits_exit_code_and_words(clone: Clone, tmp_path: Path) -> None:
    outcome, _, sink = clone(remote=str(tmp_path / "nowhere"), branch="main")
    assert outcome == Outcome(128)
    assert "nowhere" in sink.text


def test_retries_try_again(clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.clone._RETRY_S", 0.01)
    outcome, _, sink = clone(remote=str(tmp_path / "nowhere"), branch="main", retries=2)
    assert outcome == Outcome(128)
    assert sink.text.count("trying again") == 2


def test_a_missing_commit_fails(clone: Clone) -> None:
    outcome, _, _ = clone(ref="refs/heads/main", branch="main", sha="0123456789" * 4)
    assert outcome.exit_code


@pytest.mark.parametrize(
    "odd", [{"branch": "--upload-pack=x"}, {"sha": "--help"}, {"remote": "-x"}, {"ref": "-a\nb"}]
)
def test_a_name_cannot_become_an_option(clone: Clone, odd: dict[str, str]) -> None:
    outcome, _, sink = clone(**odd)
    assert outcome.exit_code == 255
    assert outcome.error.startswith("cannot clone: ")
    assert sink.text == ""


def test_it_can_be_killed(tmp_path: Path, repo: Repo) -> None:
    room, sink = make_room(tmp_path / "work"), Collected()
    process = CloneProcess(
        CloneSpec(remote=str(repo.folder), branch="main"),
        room,
        sink,
        mirrors=tmp_path / "mirrors",
        environ={},
    )
    process.kill()
    assert process.wait() == Outcome(137)


def test_credentials_are_git_alones(clone: Clone, repo: Repo) -> None:
    netrc = Netrc("git.example.com", "octo", "s3cret")
    outcome, room, sink = clone(netrc=netrc, ref="refs/heads/main", branch="main")
    assert outcome == Outcome(), sink.text
    assert "s3cret" not in sink.text
    assert not (room.home / ".netrc").exists()
    assert not any(b"s3cret" in p.read_bytes() for p in room.source.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    "variables",
    [
        {"GIT_SSH_COMMAND": "touch {mark};"},
        {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.sshCommand"},
        {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor"},
        {"GIT_TRACE": "{mark}"},
        {"GIT_EXEC_PATH": "{programs}"},
        {"PATH": "{programs}"},
        {"GIT_SSH": "{programs}/git"},
    ],
    ids=lambda variables: "-".join(variables.values())[-20:],
)
def test_a_pipelines_variables_run_nothing_on_the_host(
    tmp_path: Path, repo: Repo, variables: dict[str, str]
) -> None:
    """What they could run is neither the stage's user nor in its container."""
    mark, programs = tmp_path / "mark", tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "git-upload-pack", "git-fetch", "git-remote-https"):
        (programs / name).write_text(f"#!/bin/sh\necho > {mark}\n")
        (programs / name).chmod(0o755)
    environ = {k: v.format(mark=mark, programs=programs) for k, v in variables.items()}
    environ.setdefault("GIT_CONFIG_VALUE_0", f"touch {mark};")

    for remote in (str(repo.folder), "ssh://127.0.0.1:1/nothing"):
        room, sink = make_room(tmp_path / "work"), Collected()
        spec = CloneSpec(remote=remote, ref="refs/heads/main", branch="main")
        CloneProcess(spec, room, sink, mirrors=tmp_path / "mirrors", environ=environ).wait()
        assert not mark.exists(), sink.text
