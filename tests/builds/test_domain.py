"""The walk from a trigger to a finished build, as the layers above the domain call it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zstandard
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext

from builds import claims, logs, triggers
from builds.models import Agent, Build, Lease, Repo, Step, User
from pipeline.wire import Claim, LogPart, Report, StepReport


def batch(text: str) -> bytes:
    return zstandard.compress(b"{}\n" + text.encode())


def test_a_build_runs_from_trigger_to_success(
    make_repo: Callable[..., Repo], make_agent: Callable[..., Agent], user: User
) -> None:
    agent = make_agent()
    build = triggers.create(make_repo(), user=user)
    assert build is not None
    assert (build.number, build.status, build.author_name) == (1, "pending", "Octo Cat")

    claimed = claims.claim(agent, Claim("nonce-0001"))
    assert claimed is not None
    assert [step.name for step in claimed.spec.steps] == ["hello"]
    assert Build.objects.get().status == "running"

    begun = StepReport(1, "running", started_ms=5)
    assert not claims.report(agent, claimed.lease, Report("running", True, steps=(begun,))).cancel
    assert claims.append_log(agent, claimed.lease, 1, 0, batch("hello\n")).next == 1

    last = LogPart(1, 1, base64.b64encode(batch("world\n")).decode())
    done = StepReport(1, "success", started_ms=25, stopped_ms=1, log_end=2)
    final = Report("success", True, True, steps=(done,), logs=(last,), started_ms=30, stopped_ms=0)
    pace = claims.report(agent, claimed.lease, final)
    assert pace.next == {"1": 2}

    build.refresh_from_db()
    step = Step.objects.get()
    assert (build.status, step.status, Lease.objects.get().state) == ("success",) * 2 + ("closed",)
    assert b"".join(logs.text(step.pk)) == b"hello\nworld\n"
    assert logs.position(step.pk).complete
    assert step.started is not None and step.stopped is not None and step.started < step.stopped
    assert build.finished is not None and build.started is not None


@contextmanager
def at_most(count: int) -> Iterator[None]:
    """No more statements than this, beside those of transactions, locks and the log tables."""
    with CaptureQueriesContext(connection) as seen:
        yield
    beside = ("SAVEPOINT", "RELEASE", 'KEY UPDATE OF "builds_build"', "_steplog", "_logbatch")
    real = [q["sql"] for q in seen if not any(word in q["sql"] for word in beside)]
    assert len(real) <= count, "\n".join(real)


def test_the_hot_path_needs_few_statements(
    make_repo: Callable[..., Repo], make_agent: Callable[..., Agent], user: User
) -> None:
    cache.clear()
    agent, repo = make_agent(), make_repo()
    with at_most(4):  # the number, the build, its config, its stages
        triggers.create(repo, user=user)
    with at_most(7):  # nonce, choice, stage; stage, lease, steps, build
        claimed = claims.claim(agent, Claim("nonce-0001"))
    assert claimed is not None
    with at_most(2):  # the step; who watches
        claims.append_log(agent, claimed.lease, 1, 0, batch("hello\n"))
    step = StepReport(1, "running", started_ms=1)
    with at_most(5):  # lease, steps; who watches; lease, step
        claims.report(agent, claimed.lease, Report("running", True, steps=(step,)))
    step = StepReport(1, "success", started_ms=1, stopped_ms=0, log_end=1)
    with at_most(7):  # lease, steps; lease, step, stage, the build's stages, build
        claims.report(agent, claimed.lease, Report("success", True, True, steps=(step,)))
    assert Build.objects.get().status == "success"
