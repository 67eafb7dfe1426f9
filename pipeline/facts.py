"""What is known about a system, a repo, a build and a stage: the input of planning and compiling.

Times are unix seconds, 0 is unset. Names follow Drone's JSON (reference: server, section 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class System:
    proto: str = "http"
    host: str = "localhost:8000"
    hostname: str = "localhost"
    version: str = "0.1.0"


@dataclass(frozen=True, slots=True)
class RepoFacts:
    slug: str
    namespace: str = ""
    name: str = ""
    uid: str = ""
    scm: str = "git"
    git_http_url: str = ""
    git_ssh_url: str = ""
    link: str = ""
    default_branch: str = "main"
    config_path: str = ".drone.yml"
    private: bool = False
    visibility: str = "public"
    active: bool = True
    trusted: bool = False
    protected: bool = False
    ignore_forks: bool = False
    ignore_pull_requests: bool = False
    timeout_min: int = 60
    subset_labels: bool = False


@dataclass(frozen=True, slots=True)
class BuildFacts:
    """`paths`: the files this build changes, or None where nobody could tell."""

    number: int = 1
    parent: int = 0
    event: str = "push"
    action: str = ""
    trigger: str = "@hook"
    link: str = ""
    title: str = ""
    message: str = ""
    before: str = ""
    after: str = ""
    ref: str = "refs/heads/main"
    source_repo: str = ""
    source: str = ""
    target: str = ""
    author_login: str = ""
    author_name: str = ""
    author_email: str = ""
    author_avatar: str = ""
    sender: str = ""
    cron: str = ""
    deploy_to: str = ""
    deploy_id: int = 0
    debug: bool = False
    status: str = "pending"
    params: Mapping[str, str] = field(default_factory=dict)
    created: int = 0
    started: int = 0
    finished: int = 0
    paths: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class StageFacts:
    """The stage being compiled, and which stages of the build have failed so far."""

    number: int = 1
    name: str = "default"
    kind: str = "pipeline"
    type: str = "docker"
    machine: str = ""
    os: str = "linux"
    arch: str = "amd64"
    variant: str = ""
    version: int = 1
    kernel: str = ""
    started: int = 0
    depends_on: tuple[str, ...] = ()
    axis: Mapping[str, str] = field(default_factory=dict)
    failed_stages: tuple[str, ...] = ()
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it together."""

    repo: RepoFacts
    build: BuildFacts
    stage: StageFacts = StageFacts()
    system: System = System()
