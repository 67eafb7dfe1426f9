"""Repositories, rows and agents that tests of the domain start from."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.wire import Join

if TYPE_CHECKING:  # a conftest is read before Django is set up
    from builds.models import Agent, Repo, User

TRIVIAL = """\
kind: pipeline
type: exec
name: default
clone:
  disable: true
steps:
- name: hello
  commands: [echo hello]
"""


def git(folder: Path, *args: str) -> str:
    """Run git in a folder, as a fixed author."""
    who = ["-c", "user.name=Octo Cat", "-c", "user.email=octo@example.com"]
    command = ["git", "-C", str(folder), *who, "-c", "commit.gpgsign=false", *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def make_git(tmp_path: Path) -> Callable[..., Path]:
    """Make a git repository of these files, one commit on branch main."""

    def make(files: dict[str, str], name: str = "hello") -> Path:
        folder = tmp_path / "repos" / name
        folder.mkdir(parents=True, exist_ok=True)
        git(folder, "init", "-q", "-b", "main")
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "--allow-empty", "-m", "First words\n\nAnd more.")
        return folder

    return make


@pytest.fixture
def user(db: None) -> User:
    from builds.models import User

    return User.objects.create_user("octocat")


@pytest.fixture
def make_repo(db: None, make_git: Callable[..., Path]) -> Callable[..., Repo]:
    """Make a repo whose git repository holds this pipeline file."""
    from builds.models import Repo

    def make(
        text: str = TRIVIAL, name: str = "hello", with_git: bool = True, **fields: Any
    ) -> Repo:
        files = {".drone.yml": text, "README": "hello\n"}
        url = f"file://{make_git(files, name)}" if with_git else "/nowhere"
        values = {"namespace": "octocat", "name": name, "slug": f"octocat/{name}"}
        return Repo.objects.create(git_http_url=url, **values, **fields)

    return make


@pytest.fixture
def make_agent(db: None) -> Callable[..., Agent]:
    """Let an agent join that runs exec and docker stages on linux/amd64."""
    from builds import claims, membership

    def make(name: str = "one", bounds: dict[str, Any] | None = None, **fields: Any) -> Agent:
        token = membership.new_join_token(f"token of {name}", **(bounds or {}))
        hello = Join(**{"name": name, "version": "0.1.0", "types": ("exec", "docker"), **fields})
        joined = claims.join(token, hello, "127.0.0.1")
        agent = claims.agent_by_token(joined.token)
        assert agent is not None
        return agent

    return make


@pytest.fixture
def test_transaction_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels closes connections around its calls, and with them a test's transaction."""
    monkeypatch.setattr("channels.db.close_old_connections", lambda: None)
