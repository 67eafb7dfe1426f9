from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer

from builds import claims, logs, secrets, triggers
from builds.api import stream
from builds.models import Agent, Build, Repo, Step, User
from builds.routing import hold
from pipeline.wire import Claim
from tests.builds.asgi import Answer, request, run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("test_transaction_stays")]


def frame(*lines: str, **header: Any) -> bytes:
    body = "".join(line + "\n" for line in lines)
    return zstandard.compress(json.dumps(header).encode() + b"\n" + body.encode())


@pytest.fixture
def build(repo: Repo, user: User, make_agent: Callable[..., Agent]) -> Build:
    """A running build."""
    build = triggers.create(repo, user=user)
    assert build is not None
    claims.claim(make_agent(), Claim("nonce-0001"))
    return build


def opened(path: str, user: User | None = None) -> Any:
    token = f"?access_token={secrets.user_token(user)}" if user else ""
    return request(hold(None), "GET", f"/api/stream{path}{token}")


async def ring(build: Build) -> None:
    layer = get_channel_layer()
    assert layer is not None
    message = {"type": "stage.changed", "build": build.pk, "stage": 1, "status": "running"}
    for group in ("all", f"repo-{build.repo_id}"):
        await layer.group_send(group, message)


async def head(answer: Answer) -> None:
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-accel-buffering"] == "no"
    assert await answer.part() == b": ping\n\n"


@pytest.mark.parametrize("path", ["", "/octocat/hello"])
def test_builds_are_streamed_with_all_that_hangs_below(build: Build, user: User, path: str) -> None:
    stream_ = opened(path, user)

    async def scenario() -> None:
        async with stream_ as answer:
            await head(answer)
            await ring(build)
            repo = await answer.event()
            assert repo["slug"] == "octocat/hello"
            assert repo["build"]["stages"][0]["steps"][0]["name"] == "hello"

    run(scenario)


def test_strangers_see_no_private_builds(build: Build) -> None:
    stranger = opened("", User.objects.create_user("stranger"))
    seen = database_sync_to_async(Repo.objects.update)

    async def scenario() -> None:
        async with stranger as answer:
            await head(answer)
            await ring(build)
            await answer.line.receive_nothing(timeout=0.2)
            await seen(visibility="public")
            await ring(build)
            assert (await answer.event())["slug"] == "octocat/hello"

    run(scenario)


def test_a_quiet_stream_pings(build: Build, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PING_S", 0.05)
    stream_ = opened("", user)

    async def scenario() -> None:
        async with stream_ as answer:
            await head(answer)
            assert await answer.part() == b": ping\n\n"

    run(scenario)


def test_a_log_is_streamed_line_by_line_and_ends(build: Build, user: User) -> None:
    step = Step.objects.get().pk
    logs.append(step, 0, frame("one", "tw", open=True, t=[[0, 3000]]))
    stream_ = opened("/octocat/hello/1/1/1", user)
    append, finish = database_sync_to_async(logs.append), database_sync_to_async(logs.finish)

    async def scenario() -> None:
        async with stream_ as answer:
            await head(answer)
            assert await answer.event() == {"pos": 0, "out": "one\n", "time": 3}
            await append(step, 2, frame("o"))
            await finish(step, 3)
            layer = get_channel_layer()
            assert layer is not None
            await layer.group_send(f"log-{step}", {"type": "log.grew"})
            assert await answer.event() == {"pos": 2, "out": "two\n", "time": 0}
            assert await answer.event() is None

    run(scenario)


@pytest.mark.parametrize(
    ("path", "status"), [("/octocat/hello", 401), ("/octocat/none", 401), ("/o/n/1/1/1", 401)]
)
def test_guests_get_no_private_stream(build: Build, path: str, status: int) -> None:
    stream_ = opened(path)

    async def scenario() -> None:
        async with stream_ as answer:
            assert answer.status == status

    run(scenario)


@pytest.mark.parametrize("path", ["/octocat/none", "/octocat/hello/1/1/9"])
def test_what_is_not_there_is_404(build: Build, user: User, path: str) -> None:
    stream_ = opened(path, user)

    async def scenario() -> None:
        async with stream_ as answer:
            assert answer.status == 404

    run(scenario)
