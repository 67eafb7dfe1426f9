"""Kill agents and cut them off: what they had read is stored, and nothing runs twice."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.faults.pipelines import numbered, numbers, times_run
from tests.services import wait_for

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

CLOSED_GATE = "never"


def stage(server: Cluster, slug: str, number: int) -> dict[str, object]:
    """The build's first stage."""
    return dict(server.client.build(slug, number)["stages"][0])


def test_killed_during_a_step_and_back(server: Cluster, runs: Path, tmp_path: Path) -> None:
    """The orphaned stage is reported at once, with every line the dead agent had read."""
    agent = server.agent()
    slug = server.repo(numbered(runs, tmp_path / CLOSED_GATE))
    number = server.build(slug)
    server.wait_line(slug, number, "line 49")

    agent.kill()
    agent.start()

    assert server.ended(slug, number)["status"] == "error"
    assert "agent was restarted" in str(stage(server, slug, number)["error"])
    assert numbers(server.log(slug, number)) == list(range(50))
    assert times_run(runs) == 1


def test_killed_during_a_step_for_good(server: Cluster, runs: Path, tmp_path: Path) -> None:
    """A lost agent is shown as such, then its stage ends in an error that names it."""
    agent = server.agent()
    slug = server.repo(numbered(runs, tmp_path / CLOSED_GATE))
    number = server.build(slug)
    server.wait_line(slug, number, "line 49")

    agent.stop()

    ended = server.ended(slug, number, limit_s=60)
    assert ended["status"] == "error"
    assert "agent-one" in str(stage(server, slug, number)["error"])
    assert numbers(server.log(slug, number)) == list(range(50))
    assert times_run(runs) == 1


def test_killed_before_a_step(server: Cluster, runs: Path, tmp_path: Path) -> None:
    """A stage whose steps had not begun is queued again at once; another agent runs it, once."""
    gate = tmp_path / "gate"
    gate.touch()
    server.proxy.swallow("PUT", "/leases/")
    first = server.agent("agent-first")
    slug = server.repo(numbered(runs, gate))
    number = server.build(slug)
    wait_for("the first report", lambda: server.proxy.swallowed)
    first.stop()
    # what the dead one sent last may still be on its way, and must not arrive
    server.proxy.swallow("PUT", server.proxy.swallowed[0])

    server.agent("agent-second")

    assert server.ended(slug, number)["status"] == "success"
    assert stage(server, slug, number)["machine"] == "agent-second"
    assert numbers(server.log(slug, number)) == list(range(100))
    assert times_run(runs) == 1


def test_cut_off_while_a_step_prints(
    server: Cluster, runs: Path, tmp_path: Path, absences: tuple[int, ...]
) -> None:
    """The server away from the agent for longer than a lease, in the middle of 10,000 lines.

    `make absences` does it for a minute, and for ten, with the lease times of every day.
    """
    gate = tmp_path / "gate"
    server.agent()
    slug = server.repo(numbered(runs, gate, before=100, after=9900))
    number = server.build(slug)
    server.wait_line(slug, number, "line 99")

    server.proxy.cut()
    gate.touch()
    # the absence itself: 8 s, which is longer than the 6 s after which an agent shows as lost
    time.sleep(absences[-1])
    server.proxy.mend()

    assert server.ended(slug, number)["status"] == "success"
    assert numbers(server.log(slug, number)) == list(range(10_000))
    assert times_run(runs) == 1


@pytest.mark.parametrize(
    ("method", "part"),
    [("POST", "/claims"), ("PUT", "/leases/"), ("POST", "/log")],
    ids=["claim", "report", "batch"],
)
def test_answers_get_lost(
    server: Cluster, runs: Path, tmp_path: Path, method: str, part: str
) -> None:
    """The request reached the server, the answer never came: asked again, nothing happens twice."""
    gate = tmp_path / "gate"
    server.agent()
    slug = server.repo(numbered(runs, gate))
    if part == "/claims":
        wait_for(
            "the agent has asked", lambda: ("POST", "/agent/v1/agents") in server.proxy.requests
        )
    server.proxy.lose_answer(method, part, times=2)
    number = server.build(slug)
    server.wait_line(slug, number, "line 49")
    gate.touch()

    assert server.ended(slug, number)["status"] == "success"
    assert numbers(server.log(slug, number)) == list(range(100))
    assert times_run(runs) == 1
    assert len(server.proxy.lost) == 2


def test_answers_to_join_and_presence_get_lost(server: Cluster, runs: Path, tmp_path: Path) -> None:
    """The agent is there once, under its name, and works; no order is lost with its answer."""
    (tmp_path / "gate").touch()
    server.proxy.lose_answer("POST", "/v1/agents", times=2)
    server.proxy.lose_answer("PUT", "/v1/agents/")  # held, until there is an order
    server.agent()
    slug = server.repo(numbered(runs, tmp_path / "gate"))

    assert server.ended(slug, server.build(slug))["status"] == "success"
    rows = server.client.call("GET", "/api/agents")
    assert [row["name"] for row in rows] == ["agent-one"]
    assert times_run(runs) == 1
    assert len(server.proxy.lost) == 3

    server.client.call("PATCH", f"/api/agents/{rows[0]['id']}", json={"drain": True})
    wait_for("it hears of the drain", lambda: "agent.paused" in server.agent_log())


def test_a_suspended_agent_comes_back(server: Cluster, runs: Path, tmp_path: Path) -> None:
    """As when a laptop's lid is closed: its stage is given up, it hears of that and works on."""
    gate = tmp_path / "gate"
    agent = server.agent()
    slug = server.repo(numbered(runs, gate))
    number = server.build(slug)
    server.wait_line(slug, number, "line 49")

    agent.signal(signal.SIGSTOP)
    assert server.ended(slug, number)["status"] == "error"
    agent.signal(signal.SIGCONT)
    wait_for("it hears that", lambda: "lease.refused" in server.agent_log())
    gate.touch()
    second = server.build(slug)

    assert server.ended(slug, second)["status"] == "success"
    assert numbers(server.log(slug, number)) == list(range(50))
    assert numbers(server.log(slug, second)) == list(range(100))
    assert times_run(runs) == 2


def test_a_drained_agent_finishes_first(server: Cluster, runs: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    agent = server.agent()
    slug = server.repo(numbered(runs, gate))
    number = server.build(slug)
    server.wait_line(slug, number, "line 49")

    agent.signal(signal.SIGTERM)
    gate.touch()

    assert server.ended(slug, number)["status"] == "success"
    assert agent.process is not None
    assert agent.process.wait(60) == 0


def test_a_second_sigterm_cancels(server: Cluster, runs: Path, tmp_path: Path) -> None:
    agent = server.agent()
    slug = server.repo(numbered(runs, tmp_path / CLOSED_GATE))
    number = server.build(slug)
    server.wait_line(slug, number, "line 49")

    agent.signal(signal.SIGTERM)
    wait_for("it drains", lambda: "agent.draining" in server.agent_log())
    agent.signal(signal.SIGTERM)

    assert server.ended(slug, number)["status"] == "killed"
    assert numbers(server.log(slug, number)) == list(range(50))
    assert agent.process is not None
    assert agent.process.wait(60) == 0
