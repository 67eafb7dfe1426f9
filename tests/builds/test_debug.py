"""Kept steps in the database: who may, what agents say, who was there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from builds import claims, debug, transitions, triggers
from builds.loops import reconciler
from builds.models import Agent, Audit, Build, Hold, Lease, Perm, Repo, Step, User
from builds.triggers import Hook, Refused
from pipeline import states
from pipeline.wire import Claim, Claimed, HoldReport, Pace, Report, StepReport

pytestmark = pytest.mark.django_db

FORK = {"event": "pull_request", "ref": "refs/pull/1/head", "source_repo": "stranger/hello"}


@pytest.fixture
def claimed(
    make_repo: Callable[..., Repo], make_agent: Callable[..., Agent], user: User
) -> tuple[Agent, Claimed]:
    """An agent with a running stage of a build in debug."""
    triggers.create(make_repo(owner=user), user=user, debug=True)
    agent = make_agent()
    answer = claims.claim(agent, Claim("nonce-0001"))
    assert answer is not None
    return agent, answer


def tell(claimed: tuple[Agent, Claimed], *holds: HoldReport, done: bool = False) -> Pace:
    agent, answer = claimed
    step = StepReport(1, "failure" if done else "running", 4, log_end=0 if done else -1)
    status = "failure" if done else "running"
    report = Report(status, begun=True, done=done, exit_code=4, steps=(step,), holds=holds)
    return claims.report(agent, answer.lease, report)


HELD = HoldReport(1, 4, 600_000)


# --- what agents say ------------------------------------------------------------------------------


def test_an_agent_is_told_how_long_to_keep(claimed: tuple[Agent, Claimed], settings: Any) -> None:
    spec = claimed[1].spec
    assert (spec.debug, spec.debug_s, spec.debug_max_s) == (True, 1800, 14400)


def test_other_builds_keep_nothing(
    make_repo: Callable[..., Repo], make_agent: Callable[..., Agent], user: User
) -> None:
    triggers.create(make_repo(), user=user)
    agent = make_agent()
    answer = claims.claim(agent, Claim("nonce-0001"))
    assert answer is not None
    assert answer.spec.debug_s == 0

    tell((agent, answer), HELD)

    assert not Hold.objects.exists()


def test_a_kept_step_is_known_until_it_is_let_go(claimed: tuple[Agent, Claimed]) -> None:
    build = Build.objects.get()
    tell(claimed, HELD)
    tell(claimed, HELD)

    (hold,) = debug.held(build.pk)
    assert (hold.step.name, hold.exit_code) == ("hello", 4)
    assert timedelta(minutes=9) < hold.expires - timezone.now() <= timedelta(minutes=10)
    assert tell(claimed, HELD).release == ()

    debug.release(hold, "octocat")

    assert debug.held(build.pk) == []
    assert tell(claimed, HELD).release == (1,)
    tell(claimed)
    assert not Hold.objects.exists()


def test_the_last_report_ends_it(claimed: tuple[Agent, Claimed]) -> None:
    tell(claimed, HELD)
    tell(claimed, HELD, done=True)
    assert not Hold.objects.exists()
    assert Build.objects.get().status == states.FAILURE


def test_nothing_is_kept_by_an_agent_that_is_gone(claimed: tuple[Agent, Claimed]) -> None:
    tell(claimed, HELD)
    transitions.cancel(Build.objects.get().pk, by="octocat")
    assert debug.held(Build.objects.get().pk) == []
    assert debug.find(Step.objects.get().pk) is None

    reconciler.run_once(timezone.now())

    assert not Hold.objects.exists()


# --- who may --------------------------------------------------------------------------------------


@pytest.fixture
def fork(make_repo: Callable[..., Repo]) -> Build:
    """A build of a pull request from a fork."""
    build = triggers.trigger(make_repo(), Hook(**{**FORK, "ref": "refs/heads/main"}))
    assert build is not None
    return build


def someone(repo: Repo, **rights: bool) -> User:
    made = User.objects.create_user("some" + "".join(rights))
    Perm.objects.create(user=made, repo=repo, **rights)
    return made


def test_writers_may_debug_what_is_theirs(claimed: tuple[Agent, Claimed]) -> None:
    build = Build.objects.select_related("repo").get()
    assert debug.may(someone(build.repo, write=True), build)
    assert not debug.may(someone(build.repo, read=True), build)
    assert not debug.may(None, build)


def test_a_forks_build_is_debugged_by_administrators_alone(fork: Build) -> None:
    writer, owner = someone(fork.repo, write=True), someone(fork.repo, admin=True)
    assert not debug.may(writer, fork)
    assert debug.may(owner, fork)
    with pytest.raises(Refused, match="only administrators of octocat/hello"):
        triggers.restart(fork, user=writer, debug=True)

    again = triggers.restart(fork, user=owner, debug=True)

    assert again is not None
    assert again.debug
    plain = triggers.restart(again, user=writer)
    assert plain is not None
    assert not plain.debug


def test_a_promotion_is_not_in_debug(claimed: tuple[Agent, Claimed], user: User) -> None:
    promoted = triggers.promote(Build.objects.get(), user=user, target="production")
    assert promoted is not None
    assert not promoted.debug


# --- visits ---------------------------------------------------------------------------------------


@pytest.fixture
def hold(claimed: tuple[Agent, Claimed]) -> Hold:
    """A kept step."""
    tell(claimed, HELD)
    found = debug.find(Step.objects.get().pk)
    assert found is not None
    return found


def enter(hold: Hold, user: User, **more: Any) -> debug.Visit:
    return debug.enter(hold, user, address="192.0.2.7", client="browser", **more)


def test_who_was_there_is_on_record(hold: Hold, user: User) -> None:
    visit = enter(hold, user)
    Audit.objects.filter(pk=visit.audit_id).update(created=timezone.now())
    assert debug.stay(visit) == ""

    debug.leave(visit, "the viewer left")

    row = Audit.objects.get()
    assert (row.user, row.action, row.subject) == (user, "shell", "octocat/hello#1 default/hello")
    assert row.detail == {
        "user": "octocat",
        "address": "192.0.2.7",
        "client": "browser",
        "repo": "octocat/hello",
        "build": 1,
        "stage": 1,
        "step": 1,
        "seconds": 0,
        "ended": "the viewer left",
    }
    Build.objects.all().delete()
    assert Audit.objects.count() == 1


def test_one_sits_there_at_a_time(hold: Hold, user: User) -> None:
    other = someone(hold.step.stage.repo, write=True)
    visit = enter(hold, user)
    with pytest.raises(debug.InUse, match="octocat is using this shell"):
        enter(hold, other)

    taken = enter(hold, other, by_force=True)

    assert debug.stay(visit) == "the shell was opened elsewhere by somewrite"
    assert debug.stay(taken) == ""
    debug.leave(visit, "gone")
    assert debug.stay(taken) == ""


def test_one_may_come_back_and_take_what_somebody_left(hold: Hold, user: User) -> None:
    enter(hold, user)
    visit = enter(hold, user)
    Hold.objects.update(shell_seen=timezone.now() - timedelta(minutes=5))

    enter(hold, someone(hold.step.stage.repo, write=True))

    assert debug.stay(visit) != ""


def test_rights_that_are_taken_away_count_at_once(hold: Hold) -> None:
    writer = someone(hold.step.stage.repo, write=True)
    visit = enter(hold, writer)
    Perm.objects.all().delete()
    assert debug.stay(visit) == "you may not use this shell any more"


def test_a_visit_ends_with_the_debugging(hold: Hold, user: User) -> None:
    visit = enter(hold, user)
    Lease.objects.update(state=Lease.CLOSED)
    assert debug.stay(visit) == "debugging has ended"
