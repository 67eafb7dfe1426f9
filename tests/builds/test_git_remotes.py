"""Repositories on other hosts: over ssh with a real sshd, over HTTP with git's own server."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builds.forges.base import NotFound, Source, Unreachable
from builds.forges.git import Git
from builds.forges.reasons import reason
from tests.builds.conftest import git
from tests.remotes import LOGIN, PASSWORD, HttpHost, SshHost, http_host, ssh_host

pytestmark = [pytest.mark.service, pytest.mark.xdist_group("git-remotes")]

FILES = {".drone.yml": "kind: pipeline\n"}


@pytest.fixture(scope="module")
def over_ssh() -> Iterator[SshHost]:
    with ssh_host() as host:
        yield host


@pytest.fixture
def folder(make_git: Callable[..., Path]) -> Path:
    return make_git(FILES)


@pytest.fixture
def over_http(folder: Path) -> Iterator[HttpHost]:
    with http_host(folder.parent) as host:
        yield host


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return Git(tmp_path / "mirrors")


@pytest.fixture(params=["ssh", "http"])
def url(
    request: pytest.FixtureRequest,
    settings: Any,
    over_ssh: SshHost,
    over_http: HttpHost,
) -> Callable[[Path], str]:
    """Makes the address of a repository; the server has what it needs to read it."""
    settings.GIT_SSH_KEY = str(over_ssh.key)
    settings.GIT_SSH_KNOWN_HOSTS = str(over_ssh.known_hosts)
    settings.GIT_CREDENTIALS = (over_http.login,)
    return over_ssh.url if request.param == "ssh" else over_http.url


def read(reader: Git, url: str) -> str | None:
    return reader.snapshot(Source("o/n", url), "refs/heads/main", ".drone.yml").text


def refusal(reader: Git, url: str) -> str:
    """The sentence about a remote that cannot be read, whatever is asked of it."""
    source = Source("o/n", url)
    with pytest.raises(Unreachable) as fault:
        reader.snapshot(source, "refs/heads/main", ".drone.yml")
    with pytest.raises(Unreachable) as again:
        reader.default_branch(source)
    assert str(again.value) == str(fault.value)
    assert "\n" not in str(fault.value) and "\r" not in str(fault.value)
    assert PASSWORD not in str(fault.value)
    return str(fault.value).removeprefix(f"o/n: cannot read {url}: ")


def test_it_reads_and_sees_what_is_new(
    reader: Git, url: Callable[[Path], str], folder: Path
) -> None:
    source = Source("o/n", url(folder))
    first = reader.snapshot(source, "refs/heads/main", ".drone.yml")
    (folder / "new").write_text("new")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "second")
    second = reader.snapshot(source, "refs/heads/main", ".drone.yml").commit

    assert first.text == FILES[".drone.yml"]
    assert second.sha == git(folder, "rev-parse", "HEAD")
    assert reader.changed(source, first.commit.sha, second.sha) == ("new",)
    assert reader.default_branch(source) == "main"
    with pytest.raises(NotFound, match="there is no branch nope in"):
        reader.branch_head(source, "nope")


def test_an_empty_repository_says_so(reader: Git, url: Callable[[Path], str], folder: Path) -> None:
    empty = folder.parent / "empty"
    subprocess.run(["git", "init", "-q", "-b", "main", str(empty)], check=True)
    source = Source("o/n", url(empty))

    with pytest.raises(NotFound, match="the repository has no commits yet"):
        reader.snapshot(source, "refs/heads/main", ".drone.yml")
    with pytest.raises(NotFound, match="the repository has no commits yet"):
        reader.default_branch(source)


def test_a_repository_that_is_not_there_says_so(
    reader: Git, url: Callable[[Path], str], folder: Path
) -> None:
    assert "not" in refusal(reader, url(folder.parent / "nowhere"))


def test_a_host_whose_key_is_unknown_is_not_trusted(
    reader: Git, over_ssh: SshHost, folder: Path, settings: Any, tmp_path: Path
) -> None:
    settings.GIT_SSH_KEY = str(over_ssh.key)
    settings.GIT_SSH_KNOWN_HOSTS = str(tmp_path / "nothing")

    assert refusal(reader, over_ssh.url(folder)).startswith("ssh does not know the host's key; put")


def test_a_host_with_another_key_is_not_trusted(
    reader: Git, over_ssh: SshHost, folder: Path, settings: Any
) -> None:
    settings.GIT_SSH_KEY = str(over_ssh.key)
    settings.GIT_SSH_KNOWN_HOSTS = str(over_ssh.wrong_hosts)

    assert "the host's key is not the one that" in refusal(reader, over_ssh.url(folder))


def test_a_key_that_is_refused_says_so(
    reader: Git, over_ssh: SshHost, folder: Path, settings: Any
) -> None:
    settings.GIT_SSH_KEY = str(over_ssh.other_key)
    settings.GIT_SSH_KNOWN_HOSTS = str(over_ssh.known_hosts)

    assert refusal(reader, over_ssh.url(folder)).startswith(
        "the host refuses the server's ssh key; give it the public half, or name another key"
    )


def test_a_key_that_others_can_read_says_so(
    reader: Git, over_ssh: SshHost, folder: Path, settings: Any, tmp_path: Path
) -> None:
    key = tmp_path / "open"
    key.write_bytes(over_ssh.key.read_bytes())
    key.chmod(0o644)
    settings.GIT_SSH_KEY = str(key)
    settings.GIT_SSH_KNOWN_HOSTS = str(over_ssh.known_hosts)

    assert "chmod 600" in refusal(reader, over_ssh.url(folder))


def test_a_host_without_a_login_asks_for_one(
    reader: Git, over_http: HttpHost, folder: Path
) -> None:
    assert refusal(reader, over_http.url(folder)) == (
        "it wants a login, which CISERVER_GIT_CREDENTIALS or ~/.netrc can give"
    )


def test_a_wrong_password_is_refused(
    reader: Git, over_http: HttpHost, folder: Path, settings: Any
) -> None:
    settings.GIT_CREDENTIALS = (f"http://{LOGIN}:wrong@127.0.0.1:{over_http.port}",)

    assert refusal(reader, over_http.url(folder)) == (
        "it refuses the login that CISERVER_GIT_CREDENTIALS has for it"
    )


def test_a_netrc_of_the_servers_user_counts(
    reader: Git, over_http: HttpHost, folder: Path, tmp_path: Path
) -> None:
    netrc = tmp_path / "home" / ".netrc"
    netrc.touch(mode=0o600)
    netrc.write_text(f"machine 127.0.0.1 login {LOGIN} password {PASSWORD}\n")

    assert read(reader, over_http.url(folder)) == FILES[".drone.yml"]


@pytest.mark.parametrize(
    ("said", "clause"),
    [
        ("", "git gave no reason"),
        ("error: cannot run ssh: No such file or directory\nfatal: unable to fork\n", "the program "
         "ssh is not installed on the server"),
        ("ssh: connect to host h port 1: Connection refused\r\nfatal: x\n",
         "ssh: connect to host h port 1: Connection refused"),
        ("warning: odd\nfatal: repository 'http://h/n/' not found\n",
         "repository 'http://h/n/' not found"),
    ],
)  # fmt: skip
def test_other_reasons_are_gits_own_words(said: str, clause: str) -> None:
    assert reason(said, has_login=False) == clause
