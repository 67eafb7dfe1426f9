"""Rows that look like a team's: for tests of pages, and for looking at the pages.

`python -m tests.dashboard.seed` fills the database of the environment and prints a login link.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import zstandard

MESSAGES = (
    "Retry the upload when the store answers 503",
    "Parse dates without a locale",
    "Fix the flaky pagination test",
    "Bump the base image to Debian 12\n\nThe old one gets no security fixes any more. The new one\n"
    "needs libssl3 instead of libssl1.1.",
    "Show the retry button on failed exports only",
    "Cache parsed templates",
    "Remove the feature flag of the new search",
    "Speed up the nightly import",
)
AUTHORS = (("mira", "Mira Okafor"), ("jonas", "Jonas Weber"), ("li", "Li Wei"))
BRANCHES = ("main", "main", "retry-upload", "main", "search", "release/2.4")
STATUSES = ("success", "success", "failure", "success", "killed", "success", "success", "error")

GO_TEST = (
    "+ go vet ./...",
    "+ go test -race ./...",
    "\x1b[32mok\x1b[0m  \texample.com/web/api\t1.284s",
    "\x1b[32mok\x1b[0m  \texample.com/web/auth\t0.412s",
    "\x1b[33m?\x1b[0m   \texample.com/web/cmd\t[no test files]",
    "--- \x1b[31mFAIL\x1b[0m: TestUploadRetries (0.31s)",
    "    upload_test.go:88: attempts: got \x1b[1m1\x1b[0m, want \x1b[1m3\x1b[0m",
    "    upload_test.go:91: last status: \x1b[38;5;208m503 Service Unavailable\x1b[0m",
    "\x1b[31mFAIL\x1b[0m\texample.com/web/store\t2.950s",
    "\x1b[32mok\x1b[0m  \texample.com/web/templates\t0.208s",
    "\x1b[31mFAIL\x1b[0m",
)


@dataclass
class Seed:
    """What was made."""

    admin: Any
    writer: Any
    reader: Any
    repo: Any
    builds: list[Any] = field(default_factory=list)


def batch(lines: Sequence[str], ms: int = 0, **header: Any) -> bytes:
    """A log batch as an agent sends it."""
    times = [[index, ms + index * 137] for index in range(0, len(lines), 3)]
    body = "".join(line + "\n" for line in lines)
    head = json.dumps({"t": times, **header})
    return zstandard.compress(head.encode() + b"\n" + body.encode())


def write_log(step: Any, lines: Sequence[str], *, end: bool = True, **header: Any) -> None:
    """Append lines to a step's log, and end it."""
    from builds import logs

    at = logs.next_position(step.pk)
    if lines:
        at = logs.append(step.pk, at, batch(lines, **header))
    if end:
        logs.finish(step.pk, at)


def user(name: str, **more: Any) -> Any:
    """A user whose password is the name, said twice."""
    from builds.models import User

    return User.objects.create_user(name, password=name * 2, **more)


def repo(slug: str, **more: Any) -> Any:
    """A repo with that slug."""
    from builds.models import Repo

    namespace, _, name = slug.partition("/")
    return Repo.objects.create(namespace=namespace, name=name, slug=slug, **more)


def build(repo: Any, number: int, status: str = "success", **more: Any) -> Any:
    """A build that began `minutes` ago and took some time, without stages."""
    from django.utils import timezone

    from builds.models import Build

    created = timezone.now() - more.pop("age", timedelta(minutes=5))
    running = status in ("running", "pending", "blocked")
    values: dict[str, Any] = {
        "event": "push",
        "message": MESSAGES[number % len(MESSAGES)],
        "ref": f"refs/heads/{BRANCHES[number % len(BRANCHES)]}",
        "target": BRANCHES[number % len(BRANCHES)],
        "after": f"{number * 7919:08x}" * 5,
        "author_login": AUTHORS[number % len(AUTHORS)][0],
        "author_name": AUTHORS[number % len(AUTHORS)][1],
        "trigger": "@hook",
        "created": created,
        "updated": created,
        "started": None if status == "pending" else created + timedelta(seconds=2),
        "finished": None if running else created + timedelta(seconds=40 + number * 13 % 200),
    }
    return Build.objects.create(repo=repo, number=number, status=status, **{**values, **more})


def stage(build: Any, number: int, name: str, status: str = "success", **more: Any) -> Any:
    """A stage of a build, with its times."""
    from builds.models import Stage

    running = status == "running"
    idle = ("pending", "waiting_on_dependencies", "blocked", "skipped")
    started = None if status in idle else build.started
    values: dict[str, Any] = {
        "type": "docker",
        "machine": "builder-1" if started else "",
        "started": started,
        "stopped": None if running or not started else build.finished,
        "created": build.created,
        "updated": build.created,
        "queue": "ci.q.docker",
    }
    return Stage.objects.create(
        build=build, repo=build.repo, number=number, name=name, status=status, **{**values, **more}
    )


def step(
    stage: Any, number: int, name: str, status: str = "success", took_s: float = 7.0, **more: Any
) -> Any:
    """A step of a stage; each starts when the ones before it have had their time."""
    from builds.models import Step

    begun = stage.started and status not in ("pending", "skipped")
    before = sum(
        (
            each.stopped - each.started
            for each in stage.steps.all()
            if each.stopped and each.started
        ),
        timedelta(),
    )
    started: datetime | None = stage.started + before if begun else None
    stopped = started + timedelta(seconds=took_s) if started and status != "running" else None
    values = {"started": started, "stopped": stopped, "image": "golang:1.24"}
    return Step.objects.create(
        stage=stage, number=number, name=name, status=status, **{**values, **more}
    )


def rich() -> Seed:
    """A team's server: repos in every state, a page of builds, agents, a build that runs."""
    seed = Seed(
        admin=user("mira", is_superuser=True, is_staff=True),
        writer=user("jonas"),
        reader=user("li"),
        repo=repo("octocat/web", visibility="private", link="https://git.example.com/octocat/web"),
    )
    from builds.models import Perm

    Perm.objects.create(user=seed.writer, repo=seed.repo, read=True, write=True)
    Perm.objects.create(user=seed.reader, repo=seed.repo, read=True)
    _other_repos()
    for number in range(1, 47):
        age = timedelta(hours=(47 - number) * 3.2)
        seed.builds.append(build(seed.repo, number, STATUSES[number % len(STATUSES)], age=age))
    seed.builds.append(failed(seed.repo, 47))
    _agents()
    seed.builds.append(running(seed.repo, 48))
    return seed


def failed(repo: Any, number: int) -> Any:
    """A build with a failed step, a skipped one and a stage that was skipped."""
    made = build(
        repo, number, "failure", age=timedelta(minutes=21), event="pull_request",
        ref="refs/pull/112/head", source="retry-upload", target="main",
        title="Retry the upload when the store answers 503", link="https://git.example.com/p/112",
        message="Retry the upload when the store answers 503\n\nThree attempts, half a second "
        "apart. The store's own client does not retry.",
    )  # fmt: skip
    test = stage(made, 1, "test", "failure")
    write_log(
        step(test, 1, "clone", took_s=1.4, image=""),
        ["Initialized empty Git repository in /drone/src/.git/",
         "+ git fetch origin +refs/heads/main:", "From https://git.example.com/octocat/web",
         " * branch            main       -> FETCH_HEAD", "+ git checkout 0005b1b9 -b main",
         "Switched to a new branch 'main'"],
    )  # fmt: skip
    step(test, 2, "postgres", took_s=38, kind="service", detached=True, image="postgres:17")
    write_log(step(test, 3, "lint", took_s=11), ["+ golangci-lint run", "0 issues."])
    write_log(step(test, 4, "test", "failure", took_s=26, exit_code=1), GO_TEST)
    step(test, 5, "coverage", "skipped")
    stage(made, 2, "deploy", "skipped", depends_on=["test"])
    return made


def running(repo: Any, number: int) -> Any:
    """A build whose second step runs, whose second stage waits, and whose third is pending."""
    made = build(repo, number, "running", age=timedelta(seconds=95))
    linux = stage(made, 1, "linux-amd64", "running", agent=_agent("builder-1"))
    write_log(step(linux, 1, "clone", took_s=1.2, image=""), ["+ git fetch origin main"])
    write_log(step(linux, 2, "build", took_s=31), ["+ go build ./...", ""])
    live = step(linux, 3, "test", "running")
    write_log(live, [f"=== RUN   TestCase{index:04}" for index in range(60)], end=False)
    step(linux, 4, "package", "pending")
    arm = {"arch": "arm64", "labels": {"disk": "ssd"}}
    stage(made, 2, "linux-arm64", "pending", **arm)
    stage(made, 3, "deploy", "waiting_on_dependencies", depends_on=["linux-amd64", "linux-arm64"])
    return made


def _other_repos() -> None:
    infra = repo("octocat/infra", visibility="internal", trusted=True)
    build(infra, 311, "success", age=timedelta(hours=5), event="cron", cron="nightly")
    docs = repo("octocat/docs", visibility="public")
    build(docs, 95, "success", age=timedelta(days=2))
    mobile = repo("mobile/app-android")
    build(
        mobile,
        1204,
        "error",
        error=".drone.yml:7:3: unknown key “comands”; did you mean “commands”?",
    )
    blocked = repo("mobile/app-ios", protected=True)
    stage(build(blocked, 88, "pending", age=timedelta(minutes=2)), 1, "build", "blocked")
    waiting = repo("mobile/design-system")
    stage(build(waiting, 17, "pending", age=timedelta(seconds=50)), 1, "default", "pending")
    repo("research/notebooks")
    repo("research/old-crawler", active=False)


def _agent(name: str) -> Any:
    from builds.models import Agent

    return Agent.objects.filter(name=name).first()


def _agents() -> None:
    from django.utils import timezone

    from builds.models import Agent

    now = timezone.now()
    common = {"token_prefix": "x", "token_sha256": "x", "version": "0.1.0", "joined": now}
    Agent.objects.create(
        name="builder-1", types=["docker", "exec"], labels={"disk": "ssd", "zone": "eu-1"},
        capacity=4, busy=1, load=2.31, disk_free_bytes=183_000_000_000, seen=now, **common,
    )  # fmt: skip
    Agent.objects.create(
        name="builder-2", types=["docker"], capacity=4, load=0.12, seen=now, drain=True,
        disk_free_bytes=42_000_000_000, **common,
    )  # fmt: skip
    Agent.objects.create(
        name="mac-mini", os="darwin", arch="arm64", types=["exec"], capacity=1,
        seen=now - timedelta(minutes=12), **common,
    )  # fmt: skip
    Agent.objects.create(
        name="old-box", arch="arm", variant="v7", types=["exec"], seen=now - timedelta(hours=3),
        left=now - timedelta(hours=3), reason="stopped by SIGTERM", **common,
    )  # fmt: skip


def login_key(name: str) -> str:
    """A one-time login key of that user."""
    from builds import secrets
    from builds.models import User

    return secrets.login_link(User.objects.get(username=name))


def print_lines(step: int, first: int, count: int, end: bool = False, text: str = "line") -> int:
    """Numbered lines in batches, and the doorbell; the position after them."""
    from builds import events, logs

    at = logs.next_position(step)
    for begin in range(first, first + count, 20_000):
        until = min(first + count, begin + 20_000)
        at = logs.append(step, at, batch([f"{text} {number}" for number in range(begin, until)]))
    if end:
        logs.finish(step, at)
    events.log_grew(step)
    return at


def move(build: int, stage: int, stage_status: str, steps: dict[str, str], done: str = "") -> None:
    """New statuses of a stage, of its steps by number, and of the build; and the doorbell."""
    from django.utils import timezone

    from builds import events
    from builds.models import Build, Stage, Step

    now = timezone.now()
    rows = Step.objects.filter(stage__build=build, stage__number=stage)
    for number, status in steps.items():
        times = {"started": now} if status == "running" else {"stopped": now}
        rows.filter(number=int(number)).update(status=status, **times)
    Stage.objects.filter(build=build, number=stage).update(status=stage_status)
    if done:
        Build.objects.filter(pk=build).update(status=done, finished=now)
    row = Build.objects.get(pk=build)
    events.stage_changed(row.repo_id, row.pk, row.number, stage, stage_status)


def team() -> dict[str, int]:
    """`rich`, and the keys of what the browser test looks at."""
    made = rich().builds[-1]
    return {"build": made.pk, "step": made.stages.get(number=1).steps.get(number=3).pk}


def alone(number: int, lines: int, end: bool = False) -> int:
    """A build of one step that printed so many lines; the step's key."""
    from builds.models import Repo

    status = "success" if end else "running"
    made = build(Repo.objects.get(slug="octocat/web"), number, status)
    only = step(stage(made, 1, "default", status), 1, "print", status)
    print_lines(only.pk, 1, lines, end=end)
    return int(only.pk)


def listen() -> None:
    """Call functions of this module as told: JSON lines `[name, arguments]` in, results out."""
    calls = {"team": team, "login_key": login_key, "print_lines": print_lines, "move": move,
             "alone": alone}  # fmt: skip
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(calls[name](**arguments)), flush=True)  # type: ignore[operator]


def main() -> None:
    """Fill the database and print how to log in; or do as told."""
    import django

    django.setup()
    if sys.argv[1:] == ["listen"]:
        listen()
    else:
        rich()
        print("/login/link/" + login_key("mira"))


if __name__ == "__main__":
    main()
