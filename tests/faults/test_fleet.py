"""Many agents at once, agents of other releases, agents whose clock is wrong."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.cluster import Cluster
from tests.faults.pipelines import numbered, numbers, times_run
from tests.services import wait_for

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("faults-house"),
]

MANY = 100
HOUR_S = 3600
#: What an agent of the first release sends: pinned, not to be changed with the code.
OLD = json.loads((Path(__file__).parent.parent / "contracts" / "agent_v1.json").read_text())
#: What a release to come may add to any message.
TOMORROW = {"v": 2, "tomorrow": {"a": [1, None, "x"]}}


class Caller:
    """An agent that is nothing but its calls, on a connection of its own."""

    def __init__(self, house: Cluster) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", house.settings.port, timeout=120)
        self.token = house.settings.join_token
        self.id = 0

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}"}
        self._http.request(method, f"/agent/v1/{path}", data, headers)
        answer = self._http.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None

    def join(self, message: dict[str, Any]) -> dict[str, Any]:
        """Join, and be that agent from now on."""
        status, joined = self.call("POST", "agents", message)
        assert status == 200, joined
        self.id, self.token = joined["id"], joined["token"]
        return dict(joined)

    def close(self) -> None:
        self._http.close()


def test_a_hundred_agents_join_at_once(house: Cluster, tmp_path: Path, tag: str) -> None:
    """None is lost, none is there twice, nobody gets an error; real ones among them work."""
    callers = [Caller(house) for _ in range(MANY)]
    together = threading.Barrier(MANY)
    held: list[int] = []

    def come(number: int) -> set[int]:
        caller = callers[number]
        hello = {**OLD["join"], "name": f"{tag}-{number:03}", "labels": {"storm": tag}}
        together.wait(60)
        caller.join(hello)
        here = {**OLD["presence"], "labels": {"storm": tag}}
        statuses = {caller.call("PUT", f"agents/{caller.id}", here)[0]}
        question = {**OLD["claim"], "nonce": f"{tag}{number:026}"}
        statuses.add(caller.call("POST", "claims", question)[0])
        return statuses

    def stay(caller: Caller) -> None:
        held.append(caller.call("PUT", f"agents/{caller.id}", {**OLD["presence"], "hold_s": 10})[0])

    real = [house.agent(f"agent-{tag}-{number}") for number in range(2)]
    with ThreadPoolExecutor(MANY) as pool:
        assert set().union(*pool.map(come, range(MANY))) == {200, 204}
        assert len({caller.id for caller in callers}) == MANY
        staying = [pool.submit(stay, caller) for caller in callers]
        for number in range(2):
            wait_for(
                "a real agent",
                lambda n=number: "agent.joined" in house.agent_log(f"agent-{tag}-{n}"),
            )

        gate = tmp_path / "gate"
        gate.touch()
        slug = house.repo(numbered(tmp_path / "runs", gate), tag)
        builds = [house.build(slug) for _ in range(4)]
        assert [house.ended(slug, number)["status"] for number in builds] == ["success"] * 4
        assert times_run(tmp_path / "runs") == 4

        rows = house.client.call("GET", "/api/agents")
        names = [row["name"] for row in rows if row["name"].startswith(tag)]
        assert sorted(names) == [f"{tag}-{number:03}" for number in range(MANY)]
        assert all(future.result(120) is None for future in staying)
    assert held == [200] * MANY
    for caller in callers:
        caller.close()
    for part in real:
        part.stop()


@pytest.mark.parametrize("more", [{}, TOMORROW], ids=["older", "newer"])
def test_an_agent_of_another_release_works(
    house: Cluster, tmp_path: Path, more: dict[str, Any], tag: str
) -> None:
    """Beside one of today: unknown fields are ignored, absent ones have their default."""
    gate = tmp_path / "gate"
    gate.touch()
    slug = house.repo(numbered(tmp_path / "runs", gate), tag)
    number = house.build(slug)
    caller = Caller(house)
    caller.join({**OLD["join"], "name": f"agent-{tag}", **more})
    assert caller.call("PUT", f"agents/{caller.id}", {**OLD["presence"], **more})[0] == 200

    nonce = f"{tag:0>32}"
    status, claimed = caller.call("POST", "claims", {**OLD["claim"], "nonce": nonce, **more})
    assert status == 200
    assert claimed["spec"]["repo"] == slug
    lease = f"leases/{claimed['lease']}"
    assert caller.call("PUT", lease, {**OLD["begun"], **more})[0] == 200
    status, appended = caller.call("POST", f"{lease}/steps/1/log?from=0", batch(more))
    assert (status, appended["next"]) == (200, 2)
    sibling = house.agent(f"agent-sibling-{tag}")
    second = house.build(slug)
    assert caller.call("PUT", lease, {**OLD["done"], **more})[0] == 200

    assert house.status(slug, number) == "success"
    assert house.log(slug, number) == OLD["batch"]["lines"]
    ended = house.ended(slug, second)
    assert (ended["status"], ended["stages"][0]["machine"]) == ("success", f"agent-sibling-{tag}")
    assert times_run(tmp_path / "runs") == 1
    assert caller.call("DELETE", f"agents/{caller.id}?reason=IDLE")[0] == 204
    caller.close()
    sibling.stop()


def batch(more: dict[str, Any]) -> bytes:
    """The recorded log batch."""
    head = json.dumps({**OLD["batch"]["header"], **more})
    text = "".join(f"{line}\n" for line in (head, *OLD["batch"]["lines"]))
    return zstandard.ZstdCompressor().compress(text.encode())


def test_an_agent_that_is_too_old_is_told_so(house: Cluster, tag: str) -> None:
    caller = Caller(house)
    status, answer = caller.call("POST", "agents", {**OLD["join"], "v": 0})
    assert (status, answer["code"]) == (403, "agent:too-old")
    assert answer["message"].endswith("upgrade the agent")

    caller.join({**OLD["join"], "name": f"agent-{tag}"})
    status, answer = caller.call("PUT", f"agents/{caller.id}", {**OLD["presence"], "v": 0})
    assert (status, answer["code"]) == (403, "agent:too-old")
    caller.close()


# --- clocks ---------------------------------------------------------------------------------------

CLOCK = """
import os, time
shift, real, real_ns = float(os.environ["SHIFT_S"]), time.time, time.time_ns
time.time = lambda: real() + shift
time.time_ns = lambda: real_ns() + int(shift * 1e9)
"""


def checked(house: Cluster, name: str) -> str:
    """What `ci-agent check` says with an agent's settings."""
    argv = [sys.executable, "-m", "agents.command", "check"]
    environ = dict(house.agents[name].program.environ)
    done = subprocess.run(
        argv, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("shift_s", [HOUR_S, -HOUR_S], ids=["fast", "slow"])
def test_a_clock_that_is_an_hour_off(
    house: Cluster, tmp_path: Path, shift_s: int, tag: str
) -> None:
    """Leases, times and orphans do not mind; `ci-agent check` warns."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    shifted = {"SHIFT_S": str(shift_s), "PYTHONPATH": str(tmp_path)}
    name = f"agent-{tag}"
    agent = house.agent(name, environ=shifted)
    sign = re.escape(f"{shift_s:+d}"[0])
    assert re.search(rf"clock +warning +this host's is {sign}3[56]\d\d s", checked(house, name))
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    slug = house.repo(numbered(runs, gate), tag)
    number = house.build(slug)
    house.wait_line(slug, number, "line 49")
    stage = house.client.build(slug, number)["stages"][0]
    gate.touch()

    ended = house.ended(slug, number)
    assert ended["status"] == "success"
    assert numbers(house.log(slug, number)) == list(range(100))
    done = ended["stages"][0]
    assert ended["created"] <= stage["started"] == done["started"] <= done["stopped"]
    assert done["stopped"] - done["started"] < HOUR_S / 2
    for step in done["steps"]:
        assert done["started"] - 1 <= step["started"] <= step["stopped"] <= done["stopped"] + 1

    gate.unlink()
    number = house.build(slug)
    house.wait_line(slug, number, "line 49")
    agent.kill()
    agent.start()
    done = house.ended(slug, number)["stages"][0]
    assert done["status"] == "error"
    assert "agent was restarted" in done["error"]
    assert done["started"] <= done["stopped"] < done["started"] + HOUR_S / 2
    assert times_run(runs) == 2
    agent.stop()
