"""An agent without Celery around it, and the server it talks to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.agent import Agent
from agents.drivers.scripted import ScriptedDriver
from agents.options import Options
from pipeline.spec import CloneSpec, StageSpec, StepSpec
from tests.agents.double import JOIN_TOKEN, Double


@pytest.fixture
def double() -> Iterator[Double]:
    with Double() as server:
        yield server


@pytest.fixture
def options(tmp_path: Path, double: Double) -> Options:
    return Options(
        server=double.url,
        token=JOIN_TOKEN,
        name="agent-of-tests",
        state_dir=tmp_path / "state",
        work_dir=tmp_path / "work",
        isolation="shell",
        exec_untrusted=True,
        disk_free_min=0,
        backoff=0.2,
        backoff_max=0.4,
    )


@pytest.fixture
def scripted() -> ScriptedDriver:
    return ScriptedDriver()


@pytest.fixture
def make_agent(options: Options) -> Iterator[Callable[..., Agent]]:
    """Makes agents that are ended with the test; keywords are options."""
    made: list[Agent] = []

    def make(driver: Any = None, **changes: Any) -> Agent:
        agent = Agent(
            replace(options, **changes), drivers=None if driver is None else {"exec": driver}
        )
        made.append(agent)
        return agent

    yield make
    for agent in made:
        agent.finish()


def stage(*steps: StepSpec, **more: Any) -> StageSpec:
    """An exec stage of these steps without a clone; without numbers they are 1, 2, …"""
    numbered = tuple(
        replace(step, number=step.number or number) for number, step in enumerate(steps, 1)
    )
    more.setdefault("clone", CloneSpec(disabled=True))
    return StageSpec(repo="octo/hello", build=1, stage=1, type="exec", steps=numbered, **more)


def step(name: str, *commands: str, **more: Any) -> StepSpec:
    """A step with commands."""
    return StepSpec(number=more.pop("number", 0), name=name, commands=commands, **more)
