"""What threads do to each other: on SQLite here, on PostgreSQL by test_postgres.py."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.db import connections

from builds import claims, transitions
from builds.models import Agent, Build, Config, Lease, Repo, Stage
from pipeline import states
from pipeline.routing import queue_name
from pipeline.wire import Claim, Claimed, Report
from tests.builds.conftest import TRIVIAL

pytestmark = pytest.mark.django_db(transaction=True)

NONCES = itertools.count()


@pytest.fixture
def make_repo(make_repo: Callable[..., Repo]) -> Callable[..., Repo]:
    """Rows only: nothing here reads the repository."""
    return functools.partial(make_repo, with_git=False)


def together(*jobs: Callable[[], Any]) -> list[Any]:
    """Run the jobs at the same time, each in a thread; their results. A fault is raised here."""
    barrier, results, faults = threading.Barrier(len(jobs)), [None] * len(jobs), []

    def run(index: int, job: Callable[[], Any]) -> None:
        try:
            barrier.wait(60)
            results[index] = job()
        except BaseException as fault:
            faults.append(fault)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not any(thread.is_alive() for thread in threads)
    if faults:
        raise faults[0]
    return results


def build(repo: Repo, names: Sequence[str] = ("default",), **fields: Any) -> Build:
    text = "---\n".join(TRIVIAL.replace("name: default", f"name: {name}") for name in names)
    queue = queue_name("exec", "linux", "amd64", {})
    stages = [
        Stage(number=n, name=name, type="exec", queue=queue, **fields)
        for n, name in enumerate(names, 1)
    ]
    made = Build(repo=repo, event="push", ref="refs/heads/main")
    return transitions.create_build(made, stages, Config(path=".drone.yml", data=text))


def ask(agent: Agent) -> Claimed | None:
    return claims.claim(agent, Claim(f"nonce-{next(NONCES):06}"))


def take_all(agent: Agent) -> list[Claimed]:
    """Claim until there is nothing, finishing nothing."""
    return list(iter(lambda: ask(agent), None))


def work_off(agent: Agent) -> int:
    """Claim and finish until there is nothing."""
    count = 0
    while (claimed := ask(agent)) is not None:
        claims.report(agent, claimed.lease, Report("success", True, True))
        count += 1
    return count


def end(agent: Agent, lease: str) -> None:
    claims.report(agent, lease, Report("success", True, True))


def test_builds_get_different_numbers(make_repo: Callable[..., Repo]) -> None:
    repo = make_repo()
    made = together(*[lambda: build(repo).number for _ in range(12)])
    assert sorted(made) == list(range(1, 13))


def test_an_attempt_is_given_to_one(
    make_repo: Callable[..., Repo], make_agent: Callable[..., Agent]
) -> None:
    repo, agents = make_repo(), [make_agent("one"), make_agent("two")]
    for _ in range(12):
        build(repo)
    taken = together(*[lambda agent=agent: take_all(agent) for agent in agents * 2])
    leases = [claimed.lease for some in taken for claimed in some]
    assert len(leases) == len(set(leases)) == 12
    assert Lease.objects.count() == 12
    assert set(Stage.objects.values_list("status", "attempt")) == {("running", 1)}


def test_a_nonce_asked_twice_at_once_is_answered_once(
    make_repo: Callable[..., Repo], make_agent: Callable[..., Agent]
) -> None:
    repo, agent = make_repo(), make_agent()
    for _ in range(4):
        build(repo)
    answers = together(*[lambda: claims.claim(agent, Claim("nonce-same")) for _ in range(4)])
    assert len({claimed.lease for claimed in answers if claimed}) == 1
    assert Lease.objects.count() == 1


@pytest.mark.parametrize("bound", [{"limit": 2}, {"throttle": 2}])
def test_a_limit_holds_however_many_ask(
    make_repo: Callable[..., Repo], make_agent: Callable[..., Agent], bound: dict[str, int]
) -> None:
    repo, agent = make_repo(), make_agent()
    for _ in range(6):
        build(repo, **bound)
    seen: list[int] = []

    def work() -> None:
        while Build.objects.filter(status__in=states.OPEN).exists():
            claimed = ask(agent)
            seen.append(Stage.objects.filter(status=states.RUNNING).count())
            if claimed is not None:
                claims.report(agent, claimed.lease, Report("success", True, True))

    together(*[work] * 4)
    assert 1 <= max(seen) <= 2
    assert set(Build.objects.values_list("status", flat=True)) == {"success"}


def test_a_build_ends_when_its_stages_end_at_once(
    make_repo: Callable[..., Repo], make_agent: Callable[..., Agent]
) -> None:
    repo, agent = make_repo(), make_agent()
    for _ in range(4):
        made = build(repo, ["a", "b", "c"])
        leases = [claimed.lease for claimed in take_all(agent)]
        together(*[lambda lease=lease: end(agent, lease) for lease in leases])
        made.refresh_from_db()
        assert made.status == "success"


def test_a_cancel_wins_or_loses_but_leaves_nothing_open(
    make_repo: Callable[..., Repo], make_agent: Callable[..., Agent]
) -> None:
    repo, agent = make_repo(), make_agent()
    for _ in range(4):
        made = build(repo, ["a", "b"])
        first = ask(agent)
        assert first is not None

        def finish(lease: str = first.lease) -> str:
            try:
                claims.report(agent, lease, Report("success", True, True))
            except claims.LeaseClosed:
                return "closed"
            return work_off_rest()

        def work_off_rest() -> str:
            while (claimed := ask(agent)) is not None:
                try:
                    claims.report(agent, claimed.lease, Report("success", True, True))
                except claims.LeaseClosed:
                    return "closed"
            return "done"

        _, cancelled = together(finish, lambda pk=made.pk: transitions.cancel(pk, by="me"))
        made.refresh_from_db()
        assert made.status == ("killed" if cancelled else "success")
        open_stages = Stage.objects.filter(build=made, status__in=states.OPEN)
        assert not open_stages.exists()


def test_the_same_report_at_once_counts_once(
    make_repo: Callable[..., Repo], make_agent: Callable[..., Agent]
) -> None:
    agent = make_agent()
    made = build(make_repo())
    claimed = ask(agent)
    assert claimed is not None

    def report() -> bool:
        try:
            claims.report(agent, claimed.lease, Report("success", True, True))
        except claims.LeaseClosed:
            return False
        return True

    assert sum(together(*[report] * 4)) == 1
    made.refresh_from_db()
    assert made.status == "success"


def test_many_agents_work_off_a_queue(
    make_repo: Callable[..., Repo], make_agent: Callable[..., Agent]
) -> None:
    repos = [make_repo(name="one"), make_repo(name="two")]
    agents = [make_agent("one"), make_agent("two")]
    for repo in repos * 6:
        build(repo, ["a", "b"])
    done = together(*[lambda agent=agent: work_off(agent) for agent in agents * 2])
    assert sum(done) == 24
    assert set(Build.objects.values_list("status", flat=True)) == {"success"}
