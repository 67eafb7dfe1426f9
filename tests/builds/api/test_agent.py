from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.db import OperationalError
from django.test import Client

from builds import claims, logs, membership, triggers
from builds.models import Agent, Lease, Repo, Step, User
from builds.routing import hold
from pipeline.wire import MAX_BATCH_BYTES
from tests.builds.asgi import Answer, request, run

pytestmark = pytest.mark.django_db


class Call:
    """Calls of the protocol with one token."""

    def __init__(self, token: str = "") -> None:
        self.client = Client(headers={"authorization": f"Bearer {token}"})

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body or {})
        return self.client.generic(method, f"/agent/v1/{path}", data, "application/json")


def frame(*lines: str) -> bytes:
    return zstandard.compress(b"{}\n" + "".join(line + "\n" for line in lines).encode())


@pytest.fixture
def joined() -> dict[str, Any]:
    """What a new agent got for its join token."""
    token = membership.new_join_token("tests")
    answer = Call(token)("POST", "agents", {"name": "one", "version": "0.1.0"})
    assert answer.status_code == 200
    return answer.json()  # type: ignore[no-any-return]


@pytest.fixture
def call(joined: dict[str, Any]) -> Call:
    return Call(joined["token"])


@pytest.fixture
def lease(call: Call, make_repo: Callable[..., Repo], user: User) -> str:
    """A lease on the one stage of a new build."""
    triggers.create(make_repo(), user=user)
    answer = call("POST", "claims", {"nonce": "nonce-0001"})
    assert answer.status_code == 200
    return str(answer.json()["lease"])


def test_joining_gives_an_identity_of_its_own(joined: dict[str, Any]) -> None:
    agent = claims.agent_by_token(joined["token"])

    assert agent is not None
    assert agent.pk == joined["id"]
    assert joined["queues"] == ["ci.q.exec.linux.amd64"]
    assert joined["v"] == 1


def test_a_join_can_be_tried_without_joining() -> None:
    token = membership.new_join_token("tests")
    hello = {"name": "one", "version": "1"}

    answer = Call(token)("POST", "agents?check=1", hello)

    assert answer.status_code == 200
    assert "token" not in answer.json() or not answer.json()["token"]
    assert not Agent.objects.exists()
    assert Call("cij_wrong")("POST", "agents?check=1", hello).status_code == 401


@pytest.mark.parametrize("token", ["", "wrong", "cij_wrong"])
def test_a_wrong_join_token_is_401(token: str) -> None:
    answer = Call(token)("POST", "agents", {"name": "one", "version": "1"})

    assert answer.status_code == 401
    assert answer.json()["code"] == "agent:unknown-token"


def test_a_join_outside_the_tokens_bounds_is_403() -> None:
    token = membership.new_join_token("bounded", platforms=["linux/arm64"])

    answer = Call(token)("POST", "agents", {"name": "one", "version": "1"})

    assert answer.status_code == 403
    assert "linux/arm64" in answer.json()["message"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"name": 3, "version": "1"}', b"\xff"])
def test_a_malformed_message_is_400_and_says_where(body: bytes) -> None:
    answer = Call(membership.new_join_token("tests"))("POST", "agents", body)

    assert answer.status_code == 400
    assert answer.json()["code"] == "request:malformed"


def test_unknown_fields_are_ignored(call: Call) -> None:
    assert call("POST", "claims", {"nonce": "nonce-0001", "new": {"a": 1}}).status_code == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "claims"),
        ("PUT", "leases/abc"),
        ("POST", "leases/abc/steps/1/log?from=0"),
        ("DELETE", "agents/1"),
    ],
)
def test_every_call_needs_an_agents_token(method: str, path: str) -> None:
    assert Call("cia_wrong")(method, path).status_code == 401


def test_nothing_to_run_is_204(call: Call) -> None:
    answer = call("POST", "claims", {"nonce": "nonce-0001"})

    assert answer.status_code == 204
    assert answer.content == b""


def test_the_same_nonce_gets_the_same_lease(call: Call, lease: str) -> None:
    again = call("POST", "claims", {"nonce": "nonce-0001"})
    other = call("POST", "claims", {"nonce": "nonce-0002"})

    assert again.json()["lease"] == lease
    assert [step["name"] for step in again.json()["spec"]["steps"]] == ["hello"]
    assert other.status_code == 204


def test_lines_are_acknowledged_by_position(call: Call, lease: str) -> None:
    path = f"leases/{lease}/steps/1/log"

    first = call("POST", f"{path}?from=0", frame("one", "two"))
    again = call("POST", f"{path}?from=0", frame("one", "two"))

    assert first.json() == {"next": 2, "v": 1}
    assert again.json() == {"next": 2, "v": 1}
    assert b"".join(logs.text(Step.objects.get().pk)) == b"one\ntwo\n"


@pytest.mark.parametrize("position", ["", "-1", "x", "1" * 30, "²"])
def test_a_position_is_a_number(call: Call, lease: str, position: str) -> None:
    answer = call("POST", f"leases/{lease}/steps/1/log?from={position}", frame("one"))

    assert answer.status_code == 400


def test_a_batch_too_large_is_413(call: Call, lease: str) -> None:
    path = f"leases/{lease}/steps/1/log?from=0"
    bomb = zstandard.compress(b"{}\n" + b"\n" * MAX_BATCH_BYTES)

    assert call("POST", path, bomb).status_code == 413
    assert call("POST", path, b"x" * (MAX_BATCH_BYTES + 100_000)).status_code == 413
    assert not logs.next_position(Step.objects.get().pk)


def test_a_report_ends_the_stage_and_then_the_lease_is_gone(call: Call, lease: str) -> None:
    step = {"number": 1, "status": "success", "started_ms": 5, "stopped_ms": 0, "log_end": 0}
    report = {"status": "success", "begun": True, "done": True, "steps": [step]}

    assert call("PUT", f"leases/{lease}", report).json() == {"v": 1}
    answer = call("PUT", f"leases/{lease}", report)

    assert Step.objects.get().status == "success"
    assert answer.status_code == 410
    assert answer.json()["code"] == "lease:closed"


def test_another_agents_lease_is_403(lease: str) -> None:
    other = Call(membership.new_join_token("others"))(
        "POST", "agents", {"name": "b", "version": "1"}
    )
    call = Call(other.json()["token"])

    for answer in (
        call("PUT", f"leases/{lease}", {"status": "running"}),
        call("POST", f"leases/{lease}/steps/1/log?from=0", frame("forged")),
    ):
        assert answer.status_code == 403
        assert answer.json()["code"] == "agent:not-yours"


def test_an_agent_leaves(call: Call, joined: dict[str, Any]) -> None:
    assert call("DELETE", f"agents/{joined['id'] + 1}").status_code == 403
    assert call("DELETE", f"agents/{joined['id']}?reason=update").status_code == 204
    assert Agent.objects.get().reason == "update"


def test_an_absent_database_is_503_with_retry_after(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_args: Any) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(claims, "claim", locked)
    answer = call("POST", "claims", {"nonce": "nonce-0001"})

    assert answer.status_code == 503
    assert int(answer["Retry-After"]) > 0


def test_an_unknown_call_is_404_in_json(call: Call) -> None:
    answer = call("GET", "weather")

    assert answer.status_code == 404
    assert answer.json()["code"] == "request:unknown"


# --- presence -------------------------------------------------------------------------------------


def present(joined: dict[str, Any], body: Any, token: str = "", agent: int = 0) -> Any:
    """The presence call against the application that the server runs."""
    bearer = f"Bearer {token or joined['token']}".encode()
    path = f"/agent/v1/agents/{agent or joined['id']}"
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request(hold(None), "PUT", path, data, [(b"authorization", bearer)])


async def body(answer: Answer) -> Any:
    return json.loads(await answer.part())


@pytest.mark.usefixtures("test_transaction_stays")
def test_presence_without_a_hold_is_answered_at_once(joined: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with present(joined, {"state": "busy", "busy": 1}) as answer:
            assert answer.status == 200
            assert await body(answer) == {"queues": joined["queues"], "v": 1}

    run(scenario)
    assert Agent.objects.get().state == "busy"


@pytest.mark.usefixtures("test_transaction_stays")
def test_presence_is_held_until_there_are_orders(joined: dict[str, Any]) -> None:
    async def drain() -> None:
        await database_sync_to_async(Agent.objects.update)(drain=True)
        layer = get_channel_layer()
        assert layer is not None
        await layer.group_send(f"agent-{joined['id']}", {"type": "agent.orders"})

    async def scenario() -> None:
        pending = present(joined, {"hold_s": 45.0})
        opening = asyncio.create_task(pending.__aenter__())
        while not await database_sync_to_async(
            Agent.objects.filter(seen__isnull=False, state="idle").exists
        )():
            await asyncio.sleep(0.01)
        assert not opening.done()
        while not opening.done():  # rings until the call is there to hear it
            await drain()
            await asyncio.sleep(0.01)
        answer = opening.result()
        assert (await body(answer))["action"] == "drain"
        await pending.__aexit__(None, None, None)

    run(scenario)


@pytest.mark.usefixtures("test_transaction_stays")
def test_presence_names_cancelled_leases(joined: dict[str, Any], lease: str) -> None:
    Lease.objects.update(state=Lease.CLOSING)

    async def scenario() -> None:
        async with present(joined, {"leases": [lease], "hold_s": 45.0}) as answer:
            assert (await body(answer))["cancelled"] == [lease]

    run(scenario)


@pytest.mark.usefixtures("test_transaction_stays")
@pytest.mark.parametrize(
    ("data", "token", "other", "status"),
    [
        (b"{", "", 0, 400),
        (b"{}", "cia_no", 0, 401),
        (b"{}", "", 10**9, 403),
        (b"x" * 2**21, "", 0, 413),
    ],
)
def test_presence_refuses(
    joined: dict[str, Any], data: bytes, token: str, other: int, status: int
) -> None:
    async def scenario() -> None:
        async with present(joined, data, token, other) as answer:
            assert answer.status == status
            assert (await body(answer))["message"]

    run(scenario)


@pytest.mark.usefixtures("test_transaction_stays")
def test_presence_without_a_database_is_503(
    joined: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_args: Any) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(claims, "presence", locked)

    async def scenario() -> None:
        async with present(joined, {}) as answer:
            assert answer.status == 503
            assert answer.headers["retry-after"]

    run(scenario)
