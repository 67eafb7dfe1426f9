from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import zstandard
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from channels.routing import URLRouter
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.utils import timezone

from builds import logs, secrets, tails
from builds.models import Build, Repo, Stage, Step, User
from builds.routing import websocket_urlpatterns
from tests.builds.asgi import Headers, Socket, run, socket

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("test_transaction_stays")]


def frame(*lines: str, **header: Any) -> bytes:
    body = "".join(line + "\n" for line in lines)
    return zstandard.compress(json.dumps(header).encode() + b"\n" + body.encode())


@pytest.fixture
def step() -> Step:
    """A running step of a public repo's build."""
    now = timezone.now()
    repo = Repo.objects.create(namespace="o", name="n", slug="o/n", visibility="public")
    build = Build.objects.create(
        repo=repo, number=1, event="push", status="running", created=now, updated=now
    )
    stage = Stage.objects.create(
        build=build, repo=repo, number=1, status="running", created=now, updated=now
    )
    return Step.objects.create(stage=stage, number=1, name="test", status="running")


def opened(path: str, headers: Headers = ()) -> AbstractAsyncContextManager[Socket]:
    return socket(URLRouter(websocket_urlpatterns), path, headers)


async def append(step: Step, from_: int, *lines: str, **header: Any) -> None:
    await database_sync_to_async(logs.append)(step.pk, from_, frame(*lines, **header))
    layer = get_channel_layer()
    assert layer is not None
    await layer.group_send(f"log-{step.pk}", {"type": "log.grew", "step": step.pk})


def test_a_late_viewer_gets_history_then_live_lines_then_the_end(step: Step) -> None:
    logs.append(step.pk, 0, frame("one", "two", t=[[0, 5], [1, 1500]]))

    async def scenario() -> None:
        async with opened(f"/ws/log/{step.pk}") as viewer:
            assert await viewer.receive() == {
                "first": 0,
                "lines": ["one", "two"],
                "times": [5, 1500],
                "open": False,
                "end": None,
            }
            await append(step, 2, "three")
            assert (await viewer.receive())["lines"] == ["three"]
            await database_sync_to_async(logs.finish)(step.pk, 4)
            await append(step, 3, "four")
            last = await viewer.receive()
            assert (last["first"], last["lines"], last["end"]) == (3, ["four"], 4)
            assert await viewer.closed() == 1000

    run(scenario)


def test_a_viewer_begins_where_he_says(step: Step) -> None:
    logs.append(step.pk, 0, frame("one", "two", "three"))

    async def scenario() -> None:
        async with opened(f"/ws/log/{step.pk}?from=2") as viewer:
            assert (await viewer.receive())["lines"] == ["three"]
            await viewer.send('{"from": 1}')
            assert (await viewer.receive())["lines"] == ["two", "three"]
            await viewer.send("nonsense")
            await append(step, 3, "four")
            assert (await viewer.receive())["first"] == 3

    run(scenario)


def test_an_unfinished_line_is_the_last_of_its_frame(step: Step) -> None:
    logs.append(step.pk, 0, frame("a", "b", open=True))
    logs.append(step.pk, 2, frame("c"))
    logs.finish(step.pk, 3)
    logs.compact(step.pk)

    async def scenario() -> None:
        async with opened(f"/ws/log/{step.pk}") as viewer:
            first, second = await viewer.receive(), await viewer.receive()
            assert (first["lines"], first["open"]) == (["a", "b"], True)
            assert (second["lines"], second["open"], second["end"]) == (["c"], False, 3)

    run(scenario)


def test_large_logs_come_in_bounded_frames(step: Step) -> None:
    total = 3 * tails.FRAME_LINES
    logs.append(step.pk, 0, frame(*(f"{n} {'x' * 200}" for n in range(total))))
    logs.finish(step.pk, total)

    async def scenario() -> None:
        position, end = 0, None
        async with opened(f"/ws/log/{step.pk}") as viewer:
            while end is None:
                data = await viewer.receive()
                assert data["first"] == position
                assert len(data["lines"]) <= tails.FRAME_LINES
                assert sum(map(len, data["lines"])) <= tails.FRAME_BYTES
                position, end = position + len(data["lines"]), data["end"]
        assert position == total

    run(scenario)


def test_a_step_without_a_log_that_is_done_ends_at_once(step: Step) -> None:
    Step.objects.filter(pk=step.pk).update(status="skipped")

    async def scenario() -> None:
        async with opened(f"/ws/log/{step.pk}") as viewer:
            assert (await viewer.receive())["end"] == 0
            assert await viewer.closed() == 1000

    run(scenario)


def test_a_missed_doorbell_costs_only_a_look(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "LOOK_S", 0.05)

    async def scenario() -> None:
        async with opened(f"/ws/log/{step.pk}") as viewer:
            await database_sync_to_async(logs.append)(step.pk, 0, frame("silent"))
            assert (await viewer.receive())["lines"] == ["silent"]

    run(scenario)


def test_viewers_of_one_step_share_the_reads(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    original = tails.look

    def look(step_id: int, position: int) -> tails.Frame | None:
        found = original(step_id, position)
        if found is not None:
            looked.append(position)
        return found

    monkeypatch.setattr(tails, "look", look)
    monkeypatch.setattr(tails, "LOOK_S", 0.2)

    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            viewers = [
                await stack.enter_async_context(opened(f"/ws/log/{step.pk}")) for _ in range(8)
            ]
            for n in range(5):
                await append(step, n, f"line {n}")
                frames = await asyncio.gather(*(viewer.receive() for viewer in viewers))
                assert all(data == frames[0] for data in frames)

    run(scenario)
    assert looked == [0, 1, 2, 3, 4]


def test_watching_makes_the_agent_hurry(step: Step) -> None:
    async def scenario() -> None:
        pace = database_sync_to_async(logs.pace_ms)
        async with opened(f"/ws/log/{step.pk}"):
            while await pace(step.pk) != 0:
                await asyncio.sleep(0.01)
        while await pace(step.pk) != 1000:
            await asyncio.sleep(0.01)

    run(scenario)


@pytest.mark.parametrize("path", ["/ws/log/{}", "/ws/build/{}"])
def test_guests_may_not_see_private_repos(step: Step, path: str) -> None:
    Repo.objects.update(visibility="private")

    async def scenario() -> None:
        async with opened(path.format(step.pk)) as viewer:
            assert await viewer.closed() == 4401

    run(scenario)


@pytest.mark.parametrize("path", ["/ws/log/99999999", "/ws/build/99999999"])
def test_what_is_not_there_is_not_found(path: str) -> None:
    token = secrets.user_token(User.objects.create(username="u"))

    async def scenario() -> None:
        async with opened(f"{path}?access_token={token}") as viewer:
            assert await viewer.closed() == 4404

    run(scenario)


def test_a_token_or_a_session_opens_private_repos(step: Step) -> None:
    Repo.objects.update(visibility="private")
    user = User.objects.create(username="root", is_superuser=True)
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = django_settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    cookie = f"{django_settings.SESSION_COOKIE_NAME}={session.session_key}".encode()
    token = secrets.user_token(user).encode()
    logs.append(step.pk, 0, frame("secret"))

    async def scenario() -> None:
        for header in ((b"authorization", b"Bearer " + token), (b"cookie", cookie)):
            async with opened(f"/ws/log/{step.pk}", [header]) as viewer:
                assert (await viewer.receive())["lines"] == ["secret"]

    run(scenario)


def test_a_wrong_token_disables_the_cookie(step: Step) -> None:
    Repo.objects.update(visibility="private")

    async def scenario() -> None:
        async with opened(f"/ws/log/{step.pk}", [(b"authorization", b"Bearer no")]) as viewer:
            assert await viewer.closed() == 4401

    run(scenario)


def test_a_build_rings_which_stage_changed(step: Step) -> None:
    build = step.stage.build_id

    async def scenario() -> None:
        async with opened(f"/ws/build/{build}") as viewer:
            assert await viewer.receive() == {}
            layer = get_channel_layer()
            assert layer is not None
            message = {"type": "stage.changed", "build": build, "stage": 1, "status": "success"}
            await layer.group_send(f"build-{build}", message)
            assert await viewer.receive() == {"stage": 1, "status": "success"}

    run(scenario)
