"""The agent against the server double: claims, reports, logs, faults of the line."""

from __future__ import annotations

from collections.abc import Callable

from agents.agent import Agent
from pipeline import states
from tests.agents.conftest import stage, step
from tests.agents.double import Double

Make = Callable[..., Agent]


def test_it_runs_an_exec_stage_in_three_calls(make_agent: Make, double: Double) -> None:
    agent = make_agent()
    agent.start()
    double.add(stage(step("hello", "echo hello", "echo world")))
    agent.serve()
    lease = double.only_lease()
    assert lease.last.status == states.SUCCESS
    assert lease.text(1) == "+ echo hello\nhello\n+ echo world\nworld\n"
    assert lease.logs[1].end == 4
    calls = [call for call in double.calls if call != "presence"]
    assert calls == ["join", "claim", "report", "report", "claim"]
