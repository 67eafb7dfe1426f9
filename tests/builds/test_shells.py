"""A shell's two websockets: who is let in, what passes, what is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from channels.routing import URLRouter

from builds import claims, debug, membership, secrets, shells, triggers
from builds.models import Audit, Build, Hold, Perm, Repo, Step, User
from builds.relay import Relay
from builds.routing import websocket_urlpatterns
from ciserver.origins import SameOrigin
from pipeline.spec import to_json
from pipeline.wire import Claim, HoldReport, Join, Report, Shell, StepReport
from tests.builds.asgi import DEADLINE_S, Headers, Socket, run, socket

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("test_transaction_stays")]


class Kept:
    """A kept step, its agent's token and its lease."""

    def __init__(self, repo: Repo, user: User) -> None:
        triggers.create(repo, user=user, debug=True)
        hello = Join(name="one", version="0.1.0", types=("exec",))
        joined = claims.join(membership.new_join_token("token of one"), hello, "127.0.0.1")
        self.token = joined.token
        agent = claims.agent_by_token(joined.token)
        assert agent is not None
        claimed = claims.claim(agent, Claim("nonce-0001"))
        assert claimed is not None
        self.lease = claimed.lease
        step = StepReport(1, "running")
        held = HoldReport(1, 4, 600_000)
        claims.report(
            agent, self.lease, Report("running", begun=True, steps=(step,), holds=(held,))
        )
        self.step = Step.objects.get().pk

    def agent(self, token: str = "", lease: str = "") -> AbstractAsyncContextManager[Socket]:
        path = f"/agent/v1/leases/{lease or self.lease}/steps/1/shell"
        return opened(path, bearer(token or self.token))

    def viewer(self, token: str, query: str = "") -> AbstractAsyncContextManager[Socket]:
        return opened(f"/ws/shell/{self.step}?cols=90&rows=30{query}", bearer(token))


@pytest.fixture
def kept(make_repo: Callable[..., Repo], user: User) -> Kept:
    return Kept(make_repo(owner=user), user)


@pytest.fixture
def token(user: User) -> str:
    return secrets.user_token(user)


def bearer(token: str) -> Headers:
    return [(b"authorization", f"Bearer {token}".encode())]


@asynccontextmanager
async def opened(path: str, headers: Headers = ()) -> AsyncIterator[Socket]:
    async with socket(URLRouter(websocket_urlpatterns), path, headers) as made:
        yield made


async def hear(end: Socket, kind: str) -> dict[str, Any]:
    """The next word of this kind."""
    while True:
        message = await end.line.receive_output(timeout=DEADLINE_S)
        assert message["type"] == "websocket.send", message
        word = json.loads(message.get("text") or "{}")
        if word.get("kind") == kind:
            return dict(word)


async def read(end: Socket) -> bytes:
    """The next bytes."""
    message = await end.line.receive_output(timeout=DEADLINE_S)
    assert message.get("bytes") is not None, message
    return bytes(message["bytes"])


async def say(end: Socket, kind: str, **more: Any) -> None:
    await end.send(json.dumps({"kind": kind, **more}))


async def send(end: Socket, data: bytes) -> None:
    await end.line.send_input({"type": "websocket.receive", "bytes": data})


async def attached(agent: Socket, viewer: Socket) -> None:
    """Let the agent take the viewer's wish."""
    wish = await hear(agent, "attach")
    assert (wish["cols"], wish["rows"]) == (90, 30)
    await say(agent, "attached", text=wish["text"])
    await hear(viewer, "attached")


# --- who is let in --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rights", "code"),
    [
        (None, 4404),
        ({"read": True}, 4403),
        ({"write": True}, 0),
        ({"write": True, "admin": True}, 0),
    ],
    ids=["stranger", "reader", "writer", "administrator"],
)
def test_only_writers_sit_down(kept: Kept, rights: Any, code: int) -> None:
    someone = User.objects.create_user("someone")
    if rights:
        Perm.objects.create(user=someone, repo=Repo.objects.get(), **rights)
    key = secrets.user_token(someone)

    async def scenario() -> None:
        async with kept.agent() as agent, kept.viewer(key) as viewer:
            if code:
                assert await viewer.closed() == code
            else:
                await hear(agent, "attach")
        assert await database_sync_to_async(Audit.objects.count)() == (0 if code else 1)

    run(scenario)


def test_guests_and_wrong_tokens_do_not(kept: Kept) -> None:
    async def scenario() -> None:
        async with opened(f"/ws/shell/{kept.step}") as viewer:
            assert await viewer.closed() == 4401
        async with kept.viewer("wrong") as viewer:
            assert await viewer.closed() == 4401

    run(scenario)


def test_of_a_fork_only_administrators_do(kept: Kept) -> None:
    Build.objects.update(source_repo="stranger/hello", event="pull_request")
    someone = User.objects.create_user("someone")
    right = Perm.objects.create(user=someone, repo=Repo.objects.get(), write=True)
    key = secrets.user_token(someone)

    async def scenario() -> None:
        async with kept.viewer(key) as viewer:
            assert await viewer.closed() == 4403
        right.admin = True
        await database_sync_to_async(right.save)()
        async with kept.viewer(key), kept.agent() as agent:
            await hear(agent, "attach")

    run(scenario)


def test_a_cookie_without_an_origin_does_not(kept: Kept, user: User, client: Any) -> None:
    client.force_login(user)
    cookie = "; ".join(f"{name}={value.value}" for name, value in client.cookies.items()).encode()
    path = f"/ws/shell/{kept.step}"

    async def scenario() -> None:
        async with opened(path, [(b"cookie", cookie)]) as viewer:
            assert await viewer.closed() == 4403
        origin = (b"origin", b"http://ci.example.com")
        async with kept.agent() as agent, opened(path, [(b"cookie", cookie), origin]):
            await hear(agent, "attach")
        assert (await database_sync_to_async(Audit.objects.get)()).detail["client"] == "browser"

    run(scenario)


def test_pages_of_others_do_not(kept: Kept, token: str) -> None:
    application = SameOrigin(URLRouter(websocket_urlpatterns), "http://ci.example.com")
    headers = [
        *bearer(token),
        (b"origin", b"http://evil.example.com"),
        (b"host", b"ci.example.com"),
    ]

    async def scenario() -> None:
        tried = Socket(application, f"/ws/shell/{kept.step}", headers)
        await tried.line.send_input({"type": "websocket.connect"})
        assert (await tried.line.receive_output(timeout=DEADLINE_S))["type"] == "websocket.close"
        await tried.line.send_input({"type": "websocket.disconnect", "code": 1006})
        await tried.line.wait(timeout=DEADLINE_S)

    run(scenario)


def test_what_is_not_kept_has_no_shell(kept: Kept, token: str) -> None:
    Hold.objects.all().delete()

    async def scenario() -> None:
        async with kept.viewer(token) as viewer:
            assert await viewer.closed() == 4404

    run(scenario)


def test_an_agent_comes_for_its_own_steps_only(kept: Kept) -> None:
    other = claims.join(
        membership.new_join_token("token of two"),
        Join(name="two", version="0.1.0", types=("exec",)),
        "127.0.0.1",
    )

    async def scenario() -> None:
        for wrong, code in (("nobody", 4401), (other.token, 4403)):
            async with kept.agent(wrong) as agent:
                assert await agent.closed() == code
        async with kept.agent(lease="0" * 32) as agent:
            assert await agent.closed() == 4403

    run(scenario)


def test_of_plain_builds_no_agent_comes(kept: Kept) -> None:
    Build.objects.update(debug=False)

    async def scenario() -> None:
        async with kept.agent() as agent:
            assert await agent.closed() == 4403

    run(scenario)


# --- what passes ----------------------------------------------------------------------------------


def test_bytes_and_words_pass_both_ways(kept: Kept, token: str) -> None:
    async def scenario() -> None:
        async with kept.agent() as agent, kept.viewer(token) as viewer:
            await attached(agent, viewer)
            await send(agent, b"\xff\x00 out")
            assert await read(viewer) == b"\xff\x00 out"
            await send(viewer, b"\x03 in")
            assert await read(agent) == b"\x03 in"
            await say(viewer, "resize", cols=100, rows=40)
            size = await hear(agent, "resize")
            assert (size["cols"], size["rows"]) == (100, 40)
            await say(viewer, "took", bytes=6)
            assert (await hear(agent, "took"))["bytes"] == 6
            await say(agent, "took", bytes=4)
            assert (await hear(viewer, "took"))["bytes"] == 4
            await say(agent, "ended", text="the shell was left", code=3)
            assert (await hear(viewer, "ended"))["code"] == 3
            assert await viewer.closed() == 1000

    run(scenario)
    assert Audit.objects.get().detail["ended"] == "the shell was left"
    assert Hold.objects.get().shell == ""


def test_an_agent_that_comes_back_is_asked_again(kept: Kept, token: str) -> None:
    async def scenario() -> None:
        async with kept.viewer(token) as viewer:
            async with kept.agent() as agent:
                await attached(agent, viewer)
            async with kept.agent() as agent:
                await attached(agent, viewer)
                await send(agent, b"again")
                assert await read(viewer) == b"again"

    run(scenario)


def test_what_gets_lost_on_the_way_begins_the_talk_anew(kept: Kept, token: str) -> None:
    async def scenario() -> None:
        async with kept.agent() as agent, kept.viewer(token) as viewer:
            wish = await hear(agent, "attach")
            await say(agent, "attached", text=wish["text"])
            await hear(viewer, "attached")
            async with Relay("nowhere", debug.viewer_group(kept.step)) as stranger:
                stranger.begin(wish["text"])
                for _ in range(7):  # a number that is far ahead
                    await stranger.send(Shell("pong"))
            await attached(agent, viewer)

    run(scenario)


def test_the_next_viewer_takes_the_place(kept: Kept, token: str) -> None:
    async def scenario() -> None:
        async with kept.agent() as agent, kept.viewer(token) as first:
            await attached(agent, first)
            async with kept.viewer(token) as second:
                await attached(agent, second)
                assert await first.closed() == 4409
                await send(agent, b"for the second")
                assert await read(second) == b"for the second"

    run(scenario)


def test_a_press_of_the_button_reaches_the_agent(kept: Kept, token: str, user: User) -> None:
    async def scenario() -> None:
        async with kept.agent() as agent, kept.viewer(token) as viewer:
            await attached(agent, viewer)
            hold = await database_sync_to_async(debug.find)(kept.step)
            assert hold is not None
            layer = get_channel_layer()
            await database_sync_to_async(Hold.objects.update)(released=True)
            await layer.group_send(debug.agent_group(kept.step), {"type": "shell.look"})
            await hear(agent, "end")

    run(scenario)


@pytest.mark.parametrize("end", ["agent", "viewer"])
def test_who_sends_more_than_the_window_is_sent_away(kept: Kept, token: str, end: str) -> None:
    async def scenario() -> None:
        async with kept.agent() as agent, kept.viewer(token) as viewer:
            await attached(agent, viewer)
            greedy = agent if end == "agent" else viewer
            for _ in range(9):
                await send(greedy, b"x" * 32 * 1024)
            while True:
                message = await greedy.line.receive_output(timeout=DEADLINE_S)
                if message["type"] == "websocket.close":
                    assert message["code"] == shells.TOO_MUCH
                    return

    run(scenario)


def test_nothing_on_the_way_can_be_read(kept: Kept, token: str) -> None:
    heard: list[bytes] = []

    async def scenario() -> None:
        layer = get_channel_layer()
        channel = await layer.new_channel()
        await layer.group_add(debug.viewer_group(kept.step), channel)
        async with kept.agent() as agent, kept.viewer(token) as viewer:
            await attached(agent, viewer)
            await send(agent, b"a secret")
            assert await read(viewer) == b"a secret"
            for _ in ("hello", "attached", "data"):
                heard.append(repr(await layer.receive(channel)).encode())

    run(scenario)
    assert all(b"secret" not in message and b"attached" not in message for message in heard)


def test_words_are_what_the_protocol_says() -> None:
    assert to_json(Shell("resize", cols=1)) == {"kind": "resize", "cols": 1, "v": 1}
