"""Kept steps as the server is told of them, by an agent with a scripted driver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agents.agent import Agent
from agents.drivers.scripted import ScriptedDriver
from agents.hooks import Reason
from pipeline import states
from pipeline.spec import Retry, StageSpec
from pipeline.wire import Orders
from tests.agents.conftest import stage, step
from tests.agents.double import Double, Lease

Make = Callable[..., Agent]
Begin = Callable[..., Lease]


def debug(*steps: Any, **more: Any) -> StageSpec:
    return stage(*steps, **{"debug": True, "debug_s": 600.0, "debug_max_s": 1200.0, **more})


FAILING = (step("test", "exit 4"), step("after", "echo never", depends_on=("test",)))


@pytest.fixture
def begin(
    make_agent: Make, double: Double, scripted: ScriptedDriver
) -> Iterator[Callable[..., tuple[Agent, Lease]]]:
    """Starts an agent on a stage; the thread ends with the test."""
    threads: list[threading.Thread] = []

    def start(spec: StageSpec, **options: Any) -> tuple[Agent, Lease]:
        agent = make_agent(scripted, **options)
        double.report_s = 0.2
        double.add(spec)
        agent.start()
        threads.append(threading.Thread(target=agent.serve))
        threads[-1].start()
        return agent, double.wait(lambda: next(iter(double.leases.values()), None))

    yield start
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def kept(double: Double, lease: Lease) -> Any:
    """The hold of the first step, once the server was told of it."""
    return double.wait(lambda: lease.reports and lease.reports[-1].holds)[0]


def test_a_failed_step_is_kept_and_runs_until_it_is_let_go(double: Double, begin: Any) -> None:
    _, lease = begin(debug(*FAILING))

    hold = kept(double, lease)
    assert (hold.step, hold.exit_code) == (1, 4)
    assert 0 < hold.left_ms <= 600_000
    assert lease.reports[-1].steps[0].status == states.RUNNING
    double.release = (1,)

    double.wait_done()
    assert lease.last.holds == ()
    assert [one.status for one in lease.last.steps] == [states.FAILURE, states.SKIPPED]
    assert lease.last.exit_code == 4
    assert "the step is kept for debugging, for 10 min after the last key" in lease.text(1)
    assert "debugging ended: somebody ended it" in lease.text(1)


@pytest.mark.parametrize(
    ("spec", "own"),
    [
        (stage(*FAILING), {}),
        (debug(*FAILING, debug=False), {}),
        (debug(*FAILING, debug_s=0.0), {}),
        (debug(*FAILING), {"debug_limit": 0.0}),
        (debug(step("test", "exit 4", failure="ignore")), {}),
        (debug(step("test", "break it could not be run")), {}),
        (debug(step("test", "echo fine")), {}),
    ],
    ids=["plain", "off", "no-time", "not-here", "ignored", "not-run", "fine"],
)
def test_what_is_not_kept(double: Double, begin: Any, spec: StageSpec, own: Any) -> None:
    _, lease = begin(spec, **own)
    double.wait_done()
    assert all(report.holds == () for report in lease.reports)


def test_it_is_kept_after_its_last_attempt(double: Double, begin: Any) -> None:
    _, lease = begin(debug(step("test", "exit 4", retry=Retry(count=1))))
    kept(double, lease)
    assert "--- attempt 2 of 2 ---" in lease.text(1)
    double.release = (1,)
    double.wait_done()


def test_the_agents_limit_counts(double: Double, begin: Any) -> None:
    _, lease = begin(debug(*FAILING), debug_limit=0.5)
    double.wait_done()
    assert "debugging ended: its time was over" in lease.text(1)


def test_the_stages_time_stands_still(double: Double, begin: Any) -> None:
    _, lease = begin(debug(*FAILING, timeout_s=1.0))
    kept(double, lease)
    double.wait(lambda: len(lease.reports) >= 10)  # two seconds of reports
    double.release = (1,)
    double.wait_done()
    assert lease.last.status == states.FAILURE


def test_a_cancel_ends_it(double: Double, begin: Any) -> None:
    _, lease = begin(debug(*FAILING))
    kept(double, lease)
    lease.cancel = True
    double.wait_done()
    assert lease.last.status == states.KILLED


@pytest.mark.parametrize("how", ["leave", "drain"])
def test_an_agent_that_ends_lets_go_and_keeps_nothing_more(
    double: Double, begin: Any, how: str
) -> None:
    more = step("second", "exit 5", run="on-failure", depends_on=("after",))
    agent, lease = begin(debug(*FAILING, more))
    kept(double, lease)

    if how == "leave":
        agent.leave(Reason.INTERRUPTED)
    else:
        double.order(Orders("drain", "an administrator wants it"))

    double.wait_done()
    assert [one.exit_code for one in lease.last.steps] == [4, 0, 5]
    assert all(len(report.holds) <= 1 for report in lease.reports)
    assert "kept" not in lease.text(3)
