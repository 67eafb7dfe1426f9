"""An engine of the test's own that goes away in the middle of a step, and comes back."""

from __future__ import annotations

import secrets
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.drivers.base import Outcome, Room
from agents.drivers.docker import DockerDriver, DockerSession
from agents.option_table import Options
from pipeline.spec import StageSpec, StepSpec
from tests.dockerd import Engine
from tests.images import BUSYBOX, busybox_image
from tests.services import wait_for

pytestmark = [pytest.mark.service, pytest.mark.xdist_group("docker")]


@pytest.fixture
def engine() -> Iterator[Engine]:
    folder = Path(tempfile.mkdtemp(prefix="ci-dockerd-", dir="/tmp"))
    engine = Engine(folder)
    try:
        engine.start()
        busybox_image(engine.address)
        yield engine
    finally:
        engine.close()


class Collected:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def wait_for(self, text: bytes) -> None:
        wait_for(f"{text!r} in the output", lambda: text in self.data)


@pytest.fixture
def session(engine: Engine, tmp_path: Path) -> Iterator[DockerSession]:
    options = Options(server="http://ci", token="x", state_dir=tmp_path, docker_host=engine.address)
    room = Room(f"drone-{secrets.token_hex(10)}", tmp_path / "room")
    for folder in (room.home, room.source, room.scripts):
        folder.mkdir(parents=True)
    session = DockerDriver(options).open(StageSpec(repo="a/b", build=1, stage=1), room)
    yield session
    session.remove()


def step(*commands: str) -> StepSpec:
    return StepSpec(1, "one", image=BUSYBOX, commands=commands)


def test_a_step_survives_its_engine_and_no_line_is_lost(
    engine: Engine, session: DockerSession
) -> None:
    sink = Collected()
    loop = "i=0; while [ ! -e stop ]; do i=$((i+1)); echo $i; sleep 0.01; done; echo last $i"
    process = session.start(step(loop), {}, sink)
    sink.wait_for(b"\n50\n")

    engine.end(signal.SIGKILL)
    engine.start()
    before = len(sink.data)
    wait_for("the output goes on", lambda: len(sink.data) > before)
    (session._room.source / "stop").touch()

    assert process.wait() == Outcome(0)
    lines = sink.data.decode().splitlines()[1:]
    count = int(lines[-1].removeprefix("last "))
    assert lines[:-1] == [str(number) for number in range(1, count + 1)]


def test_a_step_that_ended_while_the_engine_was_away(
    engine: Engine, session: DockerSession
) -> None:
    sink = Collected()
    waits = "echo up; while [ ! -e stop ]; do sleep 0.1; done; echo end; touch ended"
    process = session.start(step(waits), {}, sink)
    sink.wait_for(b"up\n")

    engine.end(signal.SIGKILL)
    (session._room.source / "stop").touch()
    wait_for("the step ended", (session._room.source / "ended").exists)
    engine.start()

    assert process.wait() == Outcome(0)
    # the engine itself lost the line
    assert b"what it printed last may be missing\n" in sink.data


def test_a_step_that_died_with_its_engine_is_an_error(
    engine: Engine, session: DockerSession
) -> None:
    sink = Collected()
    process = session.start(step("echo up", "sleep 600"), {}, sink)
    sink.wait_for(b"up\n")

    engine.end(signal.SIGKILL)
    engine.kill_containers()
    engine.start()
    outcome = process.wait()

    assert outcome.exit_code == 255
    assert outcome.error.startswith("the Docker engine stopped or restarted while the step ran")


def test_a_step_that_its_engine_ended_is_an_error(engine: Engine, session: DockerSession) -> None:
    session._site.result()  # the network is there
    engine.end(signal.SIGTERM)
    engine.start(live_restore=False)
    sink = Collected()
    process = session.start(step("trap 'exit 143' TERM", "echo up", "sleep 600 & wait"), {}, sink)
    sink.wait_for(b"up\n")

    engine.end(signal.SIGTERM)
    engine.start()
    outcome = process.wait()

    assert outcome.exit_code == 255
    assert outcome.error.startswith("the Docker engine stopped or restarted while the step ran")
