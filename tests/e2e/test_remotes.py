"""`ci build` of repositories on other hosts: the server reads them, the agent clones them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.house import House, exec_pipeline, repository
from tests.remotes import PASSWORD, HttpHost, SshHost, http_host, ssh_host

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(400),
    pytest.mark.xdist_group("e2e-remotes"),
]


@pytest.fixture(scope="module")
def over_ssh() -> Iterator[SshHost]:
    with ssh_host() as host:
        yield host


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("octo") / "hello"
    return repository(folder, exec_pipeline("git remote get-url origin", "cat .drone.yml"))


@pytest.fixture(scope="module")
def over_http(repo: Path) -> Iterator[HttpHost]:
    with http_host(repo.parent) as host:
        yield host


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, over_ssh: SshHost, over_http: HttpHost
) -> Iterator[House]:
    built = House(
        tmp_path_factory.mktemp("house"),
        extra={
            "CISERVER_GIT_SSH_KEY": str(over_ssh.key),
            "CISERVER_GIT_SSH_KNOWN_HOSTS": str(over_ssh.known_hosts),
            "CISERVER_GIT_CREDENTIALS": over_http.login,
        },
    )
    with built.up():
        yield built


@pytest.mark.parametrize("kind", ["ssh", "http"])
def test_a_private_repository_is_built(
    house: House, over_ssh: SshHost, over_http: HttpHost, repo: Path, kind: str
) -> None:
    url = over_ssh.url(repo) if kind == "ssh" else over_http.url(repo)

    answer = house.ci("build", url)

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert f"main/step | {url}\n" in answer.stdout
    assert "main/step | kind: pipeline\n" in answer.stdout
    assert PASSWORD not in answer.stdout


@pytest.mark.parametrize("kind", ["ssh", "http"])
def test_an_empty_repository_is_one_sentence_and_2(
    house: House, over_ssh: SshHost, over_http: HttpHost, repo: Path, kind: str
) -> None:
    empty = repo.parent / "empty"
    subprocess.run(["git", "init", "--quiet", str(empty)], check=True)
    url = over_ssh.url(empty) if kind == "ssh" else over_http.url(empty)

    answer = house.ci("build", url)

    assert answer.returncode == 2
    assert answer.stderr.endswith(": the repository has no commits yet\n")
    assert answer.stderr.count("\n") == 1
