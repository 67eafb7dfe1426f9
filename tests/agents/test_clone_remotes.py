"""The agent's clone from other hosts: over ssh with a real sshd, over HTTP with git's server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agents.clone import CloneProcess, ssh_command
from agents.drivers.base import Outcome, Room
from agents.options import Options
from agents.rooms import make_room
from pipeline.spec import CloneSpec, Netrc
from tests.agents.test_clone import Collected, Repo, files
from tests.remotes import LOGIN, PASSWORD, HttpHost, SshHost, http_host, ssh_host

pytestmark = [pytest.mark.service, pytest.mark.xdist_group("git-remotes")]

Clone = Callable[..., tuple[Outcome, Room, str]]


@pytest.fixture(scope="module")
def over_ssh() -> Iterator[SshHost]:
    with ssh_host() as host:
        yield host


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "repo")


@pytest.fixture
def over_http(repo: Repo) -> Iterator[HttpHost]:
    with http_host(repo.folder.parent) as host:
        yield host


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))

    def run(remote: str, netrc: Netrc | None = None, **options: str) -> tuple[Outcome, Room, str]:
        room, sink = make_room(tmp_path / "work"), Collected()
        process = CloneProcess(
            CloneSpec(remote=remote, ref="refs/heads/main", branch="main"),
            room,
            sink,
            mirrors=tmp_path / "mirrors",
            environ={},
            netrc=netrc,
            ssh=ssh_command(replace(Options(server="http://ci", token="x"), **options)),  # type: ignore[arg-type]
        )
        return process.wait(), room, sink.text

    return run


def test_a_key_and_a_known_host_let_it_in(clone: Clone, over_ssh: SshHost, repo: Repo) -> None:
    outcome, room, log = clone(
        over_ssh.url(repo.folder),
        git_ssh_key=str(over_ssh.key),
        git_ssh_known_hosts=str(over_ssh.known_hosts),
    )

    assert outcome == Outcome(), log
    assert files(room) == {"one", "two"}
    assert "[ci]" not in log


@pytest.mark.parametrize("hosts", ["wrong_hosts", "nothing"])
def test_a_host_that_is_not_known_is_not_trusted(
    clone: Clone, over_ssh: SshHost, repo: Repo, hosts: str
) -> None:
    outcome, _, log = clone(
        over_ssh.url(repo.folder),
        git_ssh_key=str(over_ssh.key),
        git_ssh_known_hosts=str(over_ssh.folder / hosts),
    )

    assert outcome.exit_code == 128
    assert "Host key verification failed." in log
    assert log.splitlines()[-1].startswith("[ci] this agent does not trust the git host's key: ")


def test_a_key_that_is_refused_is_explained(clone: Clone, over_ssh: SshHost, repo: Repo) -> None:
    outcome, _, log = clone(
        over_ssh.url(repo.folder),
        git_ssh_key=str(over_ssh.other_key),
        git_ssh_known_hosts=str(over_ssh.known_hosts),
    )

    assert outcome.exit_code == 128
    assert log.splitlines()[-1].startswith("[ci] the git host refuses this agent's ssh key: ")


def test_a_netrc_lets_it_in(clone: Clone, over_http: HttpHost, repo: Repo) -> None:
    outcome, room, log = clone(over_http.url(repo.folder), Netrc("127.0.0.1", LOGIN, PASSWORD))

    assert outcome == Outcome(), log
    assert files(room) == {"one", "two"}
    assert PASSWORD not in log


@pytest.mark.parametrize("netrc", [None, Netrc("127.0.0.1", LOGIN, "wrong")], ids=["no", "wrong"])
def test_a_login_that_is_missing_or_wrong_is_explained(
    clone: Clone, over_http: HttpHost, repo: Repo, netrc: Netrc | None
) -> None:
    outcome, _, log = clone(over_http.url(repo.folder), netrc)

    assert outcome.exit_code == 128
    assert log.splitlines()[-1].startswith("[ci] the git host wants another login: ")


def test_what_git_says_of_the_rest_is_enough(clone: Clone) -> None:
    outcome, _, log = clone("ssh://127.0.0.1:1/nowhere")

    assert outcome.exit_code == 128
    assert "Connection refused" in log
    assert "[ci]" not in log
