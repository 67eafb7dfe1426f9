from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builds import config, secrets, tasks, transitions, triggers
from builds.forges.base import NotFound, Unreachable
from builds.models import Build, Repo, Stage, User
from builds.triggers import Hook, Refused
from pipeline.signature import with_signature
from tests.builds.conftest import TRIVIAL, git

MAIN = "refs/heads/main"


def push(repo: Repo, **changes: Any) -> Build | None:
    values = {"event": "push", "ref": MAIN, "source": "main", "target": "main", **changes}
    return triggers.trigger(repo, Hook(**values))


def pull(repo: Repo, **changes: Any) -> Build | None:
    return push(repo, **{"event": "pull_request", "title": "A change", **changes})


# --- what becomes of an event ---------------------------------------------------------------------


def test_a_push_is_built(make_repo: Callable[..., Repo], silent_broker: list[Any]) -> None:
    build = push(make_repo())
    assert build is not None
    assert (build.event, build.trigger, build.message) == (
        "push",
        "@hook",
        "First words\n\nAnd more.\n",
    )
    assert (build.author_login, build.author_email) == ("Octo Cat", "octo@example.com")
    stage = Stage.objects.get()
    assert (stage.queue, stage.type, stage.status) == ("ci.q.exec.linux.amd64", "exec", "pending")


@pytest.mark.django_db(transaction=True)
def test_a_commit_rings_the_queue(
    make_repo: Callable[..., Repo], silent_broker: list[tuple[str, dict[str, Any]]]
) -> None:
    push(make_repo())
    assert [(name, options["queue"]) for name, options in silent_broker] == [
        ("agents.ticket", "ci.q.exec.linux.amd64")
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"message": "Typo [CI SKIP]"},
        {"message": "x [skip ci]"},
        {"event": "pull_request", "title": "***NO_CI***"},
    ],
)
def test_skip_words_skip(make_repo: Callable[..., Repo], changes: dict[str, str]) -> None:
    repo = make_repo()
    assert push(repo, **changes) is None
    assert push(repo, **{**changes, "event": "tag", "ref": MAIN}) is not None


@pytest.mark.parametrize(
    ("fields", "fork", "builds"),
    [
        ({}, "someone/hello", True),
        ({"ignore_pull_requests": True}, "octocat/hello", False),
        ({"ignore_forks": True}, "someone/hello", False),
        ({"ignore_forks": True}, "octocat/hello", True),
        ({"active": False}, "octocat/hello", False),
    ],
)
def test_repos_may_ignore(
    make_repo: Callable[..., Repo], fields: dict[str, bool], fork: str, builds: bool
) -> None:
    assert bool(pull(make_repo(**fields), source_repo=fork)) == builds


def test_no_pipeline_matches_no_build(make_repo: Callable[..., Repo]) -> None:
    repo = make_repo(f"{TRIVIAL}trigger:\n  branch: [release]\n")
    assert push(repo) is None
    assert not Build.objects.exists()


def test_skipped_pipelines_are_cut_out(make_repo: Callable[..., Repo]) -> None:
    def named(name: str, more: str = "") -> str:
        return TRIVIAL.replace("name: default", f"name: {name}\n{more}")

    text = "---\n".join(
        [
            named("a"),
            named("b", "depends_on: [a]\ntrigger: {event: [tag]}"),
            named("c", "depends_on: [b]\nconcurrency: {limit: 1}\nnode: {gpu: 'yes'}"),
        ]
    )
    push(make_repo(text, throttle=3))
    first, last = Stage.objects.order_by("number")
    assert (first.name, last.name, last.depends_on) == ("a", "c", ["a"])
    assert (last.status, last.limit, last.throttle) == ("waiting_on_dependencies", 1, 3)
    assert last.labels == {"gpu": "yes"}


def test_paths_are_looked_up_where_they_are_asked_for(make_repo: Callable[..., Repo]) -> None:
    text = f"{TRIVIAL}trigger:\n  paths: [docs/**]\n"
    repo = make_repo(text)
    folder = Path(repo.git_http_url.removeprefix("file://"))
    before = git(folder, "rev-parse", "HEAD")
    for name, builds in (("src.txt", False), ("docs/a.md", True)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", name)
        after = git(folder, "rev-parse", "HEAD")
        assert bool(push(repo, before=before, after=after)) == builds
        before = after
    assert Build.objects.get().config.paths == ["docs/a.md"]


@pytest.mark.parametrize(
    ("flag", "event"),
    [("auto_cancel_pushes", "push"), ("auto_cancel_pull_requests", "pull_request")],
)
def test_a_newer_build_cancels_older_ones(
    make_repo: Callable[..., Repo], flag: str, event: str
) -> None:
    repo = make_repo(**{flag: True})
    for _ in range(3):
        push(repo, event=event)
    push(repo, event="custom")
    found = Build.objects.order_by("number").values_list("status", flat=True)
    assert list(found) == ["skipped", "skipped", "pending", "pending"]


# --- protected repos ------------------------------------------------------------------------------


def test_an_unsigned_push_to_a_protected_repo_waits_for_approval(
    make_repo: Callable[..., Repo], user: User
) -> None:
    repo = make_repo(protected=True)
    build = push(repo)
    assert build is not None
    assert (build.status, build.stages.get().status) == ("pending", "blocked")
    with pytest.raises(Refused, match="cannot start a blocked build"):
        triggers.restart(build, user=user)
    transitions.decline(build, by="octocat")
    build.refresh_from_db()
    with pytest.raises(Refused, match="cannot start a declined build"):
        triggers.restart(build, user=user)
    custom = triggers.create(repo, user=user)
    assert custom is not None and custom.stages.get().status == "pending"


def test_a_signed_push_runs(make_repo: Callable[..., Repo]) -> None:
    repo = make_repo(protected=True)
    folder = Path(repo.git_http_url.removeprefix("file://"))
    (folder / ".drone.yml").write_text(with_signature(TRIVIAL, secrets.repo_secret(repo)))
    git(folder, "commit", "-qam", "signed")
    build = push(repo)
    assert build is not None and build.stages.get().status == "pending"


# --- people ---------------------------------------------------------------------------------------


def test_a_custom_build_is_the_persons(make_repo: Callable[..., Repo], user: User) -> None:
    repo = make_repo()
    build = triggers.create(repo, user=user, params={"K": "V"}, debug=True, message="Because")
    assert build is not None
    assert (build.event, build.trigger, build.sender) == ("custom", "octocat", "octocat")
    assert (build.before, build.ref, build.target) == (build.after, MAIN, "main")
    assert (build.params, build.debug, build.message) == ({"K": "V"}, True, "Because")
    by_sha = triggers.create(repo, user=user, commit=build.after[:12])
    assert by_sha is not None and by_sha.after == build.after


def test_a_restart_copies_the_build(make_repo: Callable[..., Repo], user: User) -> None:
    build = push(make_repo(), params={"A": "old", "B": "old"}, message="First")
    assert build is not None
    again = triggers.restart(build, user=user, params={"A": "new"})
    assert again is not None
    assert (again.event, again.parent, again.number, again.trigger) == ("push", 1, 2, "octocat")
    assert (again.message, again.params) == ("First", {"A": "new", "B": "old"})


def test_promotion_needs_a_target(make_repo: Callable[..., Repo], user: User) -> None:
    build = push(make_repo())
    assert build is not None
    with pytest.raises(Refused, match="Missing target environment"):
        triggers.promote(build, user=user, target="")
    promoted = triggers.promote(build, user=user, target="production", params={"A": "1"})
    assert promoted is not None
    assert (promoted.event, promoted.deploy_to, promoted.parent) == ("promote", "production", 1)
    rolled = triggers.rollback(promoted, user=user, target="production")
    assert rolled is not None and (rolled.event, rolled.params) == ("rollback", {"A": "1"})


def test_an_inactive_repo_is_not_built(make_repo: Callable[..., Repo], user: User) -> None:
    with pytest.raises(Refused, match="octocat/hello is not active"):
        triggers.create(make_repo(active=False), user=user)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ".drone.yml:1:1: the file is empty"),
        ("\n\n", ".drone.yml:1:1: "),
        ("kind: pipeline\nsteps:\n\t- a\n", ".drone.yml:3:1: "),
        ("kind: pipeline\nsteps: yes\n", ".drone.yml:2:8: "),
        ("just words", ".drone.yml:1:1: `document` must be a map with a `kind`"),
        ("kind: secret\nname: a\ndata: b\n", "no document has `kind: pipeline`"),
        (f"{TRIVIAL}---\n{TRIVIAL}", "two pipelines are called `default`"),
        pytest.param("x" * 1_000_001, "larger than 1000000 bytes", id="large"),
    ],
)
def test_a_bad_file_is_a_build_in_error(
    make_repo: Callable[..., Repo], text: str, words: str
) -> None:
    build = push(make_repo(text))
    assert build is not None
    assert (build.status, build.stages.count()) == ("error", 0)
    assert words in build.error


def test_a_missing_file_is_a_build_in_error(make_git: Callable[..., Path], user: User) -> None:
    folder = make_git({"README": "x"})
    repo = Repo.objects.create(namespace="o", name="n", slug="o/n", git_http_url=str(folder))
    build = triggers.create(repo, user=user)
    assert build is not None and build.status == "error"
    assert ".drone.yml: there is no such file in o/n at" in build.error
    assert "expected a pipeline file" in build.error


def test_an_absent_commit_or_remote_makes_no_build(
    make_repo: Callable[..., Repo], user: User, tmp_path: Path
) -> None:
    repo = make_repo()
    with pytest.raises(NotFound, match="there is no branch nope"):
        triggers.create(repo, user=user, branch="nope")
    empty = tmp_path / "empty"
    subprocess.run(["git", "init", "-q", str(empty)], check=True)
    repo.git_http_url = str(empty)
    with pytest.raises(NotFound, match="no commits yet"):
        triggers.create(repo, user=user)
    repo.git_http_url = "ssh://127.0.0.1:1/nowhere"
    with pytest.raises(Unreachable):
        triggers.create(repo, user=user)
    assert not Build.objects.exists()


def test_text_that_no_database_takes_is_made_to_fit(make_repo: Callable[..., Repo]) -> None:
    build = push(make_repo(), title="t\0" * 3000, message="m", author_email="e" * 999)
    assert build is not None
    build.refresh_from_db()
    assert (len(build.title), len(build.author_email)) == (2000, 250)
    assert "\0" not in build.title


def test_the_worker_triggers_and_asks_a_silent_forge_again(
    make_repo: Callable[..., Repo], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make_repo()
    tasks.trigger_build(repo.pk, {"event": "push", "ref": MAIN})
    assert Build.objects.count() == 1
    tasks.trigger_build(repo.pk, {"event": "push", "ref": "refs/heads/nope"})
    assert Build.objects.count() == 1

    def silent(*_args: object) -> None:
        raise Unreachable("away")

    monkeypatch.setattr(config, "fetch", silent)
    with pytest.raises(Unreachable):  # called outside of a worker, a retry raises the fault
        tasks.trigger_build(repo.pk, {"event": "push", "ref": MAIN})
