from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builds.forges import UnknownForge, forge, has_statuses
from builds.forges.base import NotFound, Source, Unreachable
from builds.forges.git import Git, _git, _locked, local_path, redact
from tests.builds.conftest import git

FILES = {".drone.yml": "kind: pipeline\n", "src/a.txt": "a\n", "src/b.txt": "b\n", "ö.txt": "ö\n"}


@pytest.fixture
def folder(make_git: Callable[..., Path]) -> Path:
    return make_git(FILES)


@pytest.fixture(params=["path", "file URL", "mirror"])
def source(request: pytest.FixtureRequest, folder: Path) -> Source:
    """The same repository, read in place and through a mirror."""
    if request.param == "mirror":
        bare = folder.with_suffix(".git")
        bare.symlink_to(folder / ".git")
        # not a plain path: git itself follows it, the forge does not
        return Source("octocat/hello", f"file://localhost{folder}")
    return Source("octocat/hello", str(folder) if request.param == "path" else f"file://{folder}")


@pytest.fixture
def reader(tmp_path: Path) -> Git:
    return Git(tmp_path / "mirrors")


def test_it_reads_a_commit_and_a_file(reader: Git, source: Source, folder: Path) -> None:
    found = reader.snapshot(source, "refs/heads/main", ".drone.yml")
    assert found.text == "kind: pipeline\n"
    assert found.commit.sha == git(folder, "rev-parse", "HEAD")
    assert found.commit.message == "First words\n\nAnd more.\n"
    assert (found.commit.author_name, found.commit.author_email) == ("Octo Cat", "octo@example.com")
    again = reader.snapshot(source, found.commit.sha, "/ö.txt")
    assert again.text == "ö\n"
    assert reader.branch_head(source, "main") == found.commit.sha
    assert reader.commit(source, found.commit.sha).author_name == "Octo Cat"


def test_a_new_commit_is_seen(reader: Git, source: Source, folder: Path) -> None:
    reader.commit(source, "refs/heads/main")
    (folder / "src/c.txt").write_text("c")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "second")
    assert reader.commit(source, "refs/heads/main").message == "second\n"
    assert reader.commit(source, git(folder, "rev-parse", "HEAD")).message == "second\n"


def test_a_missing_file_has_no_text(reader: Git, source: Source) -> None:
    assert reader.snapshot(source, "refs/heads/main", "nothing.yml").text is None
    assert reader.snapshot(source, "refs/heads/main", "src").text is None
    assert reader.snapshot(source, "refs/heads/main", "a\nb").text is None
    sha = reader.branch_head(source, "main")
    with pytest.raises(NotFound, match=r"nothing\.yml: no such file in octocat/hello at"):
        reader.file(source, sha, "nothing.yml")


def test_it_lists_a_folder(reader: Git, source: Source) -> None:
    sha = reader.branch_head(source, "main")
    assert reader.folder(source, sha, "src") == ("a.txt", "b.txt")
    assert reader.folder(source, sha, "nowhere") == ()


def test_it_lists_what_changed(reader: Git, source: Source, folder: Path) -> None:
    first = git(folder, "rev-parse", "HEAD")
    (folder / "src/a.txt").write_text("new")
    (folder / "src/new.txt").write_text("new")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "second")
    second = git(folder, "rev-parse", "HEAD")
    assert reader.changed(source, first, second) == ("src/a.txt", "src/new.txt")
    assert reader.changed(source, "", second) == ("src/a.txt", "src/new.txt")
    assert set(reader.changed(source, "0" * 40, first) or ()) == set(FILES)
    assert reader.changed(source, "1" * 40, second) is None
    assert reader.changed(source, "--output=x", second) is None


def test_a_merge_changed_what_it_brought_in(reader: Git, source: Source, folder: Path) -> None:
    git(folder, "checkout", "-qb", "topic")
    (folder / "topic.txt").write_text("t")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "topic")
    git(folder, "checkout", "-q", "main")
    git(folder, "merge", "-q", "--no-ff", "-m", "merge", "topic")
    assert reader.changed(source, "", git(folder, "rev-parse", "HEAD")) == ("topic.txt",)


@pytest.mark.parametrize(
    ("rev", "words"),
    [
        ("refs/heads/nope", "there is no branch nope"),
        ("refs/tags/v1", "there is no tag v1"),
        ("refs/pull/1/head", "there is no ref refs/pull/1/head"),
        ("1" * 40, "there is no commit 111111111111"),
    ],
)
def test_what_is_missing_is_named(reader: Git, source: Source, rev: str, words: str) -> None:
    with pytest.raises(NotFound, match=words):
        reader.commit(source, rev)


def test_a_repository_without_commits_says_so(reader: Git, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    subprocess.run(["git", "init", "-q", "-b", "main", str(empty)], check=True)
    for url in (str(empty), f"file://localhost{empty}"):
        with pytest.raises(NotFound, match="the repository has no commits yet"):
            reader.snapshot(Source("o/empty", url), "refs/heads/main", ".drone.yml")
        with pytest.raises(NotFound, match="the repository has no commits yet"):
            reader.default_branch(Source("o/empty", url))


@pytest.mark.parametrize(
    "url", ["/nowhere/at/all", "https://user:hunter2@127.0.0.1:1/x.git", "ssh://127.0.0.1:1/x"]
)
def test_an_unreachable_remote_is_one_sentence(reader: Git, url: str) -> None:
    with pytest.raises(Unreachable) as fault:
        reader.snapshot(Source("o/n", url), "refs/heads/main", ".drone.yml")
    text = str(fault.value)
    assert text.startswith("o/n: cannot read ") and "\n" not in text and "hunter2" not in text
    with pytest.raises(Unreachable):
        reader.default_branch(Source("o/n", url))


def test_a_folder_that_is_no_repository_and_no_address(reader: Git, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="not a git repository"):
        reader.commit(Source("o/n", str(tmp_path)), "refs/heads/main")
    with pytest.raises(Unreachable, match="no clone address"):
        reader.commit(Source("o/n", ""), "refs/heads/main")


def test_the_default_branch_is_heads(reader: Git, source: Source) -> None:
    assert reader.default_branch(source) == "main"


def test_a_fetch_that_takes_too_long_gives_up(
    reader: Git, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(command: list[str], **_options: object) -> None:
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr("subprocess.run", late)
    with pytest.raises(Unreachable, match="took longer than"):
        reader.default_branch(source)


def test_a_server_without_git_says_so(
    reader: Git, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(command: list[str], **_options: object) -> None:
        raise FileNotFoundError(command[0])

    monkeypatch.setattr("subprocess.run", missing)
    with pytest.raises(Unreachable, match="git is not installed"):
        reader.default_branch(source)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mirrors" / "one.lock"
    with _locked(path):
        yield path


def test_a_mirror_is_fetched_by_one_at_a_time(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builds.forges.git.FETCH_TIMEOUT_S", 0.01)
    with pytest.raises(Unreachable, match="another fetch"), _locked(held):
        pass


def test_a_mirror_that_cannot_be_made_is_told_and_not_kept(
    reader: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(command: list[str], **_options: object) -> subprocess.CompletedProcess[bytes]:
        if "init" in command:
            Path(command[-1]).mkdir()
            return subprocess.CompletedProcess(command, 137, b"", b"no space left")
        raise AssertionError(command)

    monkeypatch.setattr("subprocess.run", killed)
    with pytest.raises(Unreachable, match=r"cannot make a mirror.*no space left"):
        reader.commit(Source("a/b", "https://git.example.com/a/b.git"), "refs/heads/main")
    assert [path for path in reader.mirrors.iterdir() if not path.suffix] == []


def test_a_fetch_that_was_killed_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mirrors" / "one.lock"
    stale = tmp_path / "mirrors" / "one" / "refs" / "heads" / "main.lock"
    stale.parent.mkdir(parents=True)
    with contextlib.suppress(InterruptedError), _locked(path):
        stale.touch()
        raise InterruptedError
    with _locked(path):
        assert not stale.exists()
    assert path.read_bytes() == b""


def test_a_host_is_sent_its_own_credentials_only(settings: Any) -> None:
    settings.GIT_CREDENTIALS = ("https://octo:hunter2@git.example.com",)
    for host, count in (("https://git.example.com", 1), ("https://evil.example.com", 0)):
        done = _git(None, "config", "--get-urlmatch", "http.extraHeader", f"{host}/o/n.git")
        assert done.stdout.count(b"Authorization: Basic b2N0bzpodW50ZXIy") == count


def test_addresses(tmp_path: Path) -> None:
    assert local_path(f"file://{tmp_path}") == tmp_path
    assert local_path("https://example.com/x.git") is None
    assert redact("https://u:p@example.com/x.git") == "https://example.com/x.git"
    assert redact("git@example.com:o/n.git") == "git@example.com:o/n.git"
    assert redact("ssh://git@example.com/o/n.git") == "ssh://git@example.com/o/n.git"
    assert redact("https://token@example.com/x.git") == "https://example.com/x.git"


def test_the_registry_knows_its_forges() -> None:
    assert isinstance(forge("git"), Git) and isinstance(forge(""), Git)
    assert not has_statuses("git") and not has_statuses("unheard-of")
    with pytest.raises(UnknownForge):
        forge("unheard-of")
