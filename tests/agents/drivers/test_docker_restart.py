"""An engine of the test's own that goes away in the middle of a step, and comes back."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.drivers import docker_engine
from agents.drivers.base import Outcome, Room
from agents.drivers.docker import DockerDriver, DockerSession
from agents.drivers.docker_engine import EngineAway
from agents.option_table import Options
from pipeline.spec import StageSpec, StepSpec
from tests.images import BUSYBOX, busybox_image
from tests.services import program, wait_for

pytestmark = [pytest.mark.service, pytest.mark.xdist_group("docker")]


class Engine:
    """A dockerd and a containerd in a folder of their own, as an init system runs them.

    dockerd is ended and started again; containerd and the containers go on meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = f"unix://{folder}/d.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._containerd = self._start_containerd()
        self._asks = docker_engine.Engine(
            Options(server="http://ci", token="x", docker_host=self.address)
        )

    def _start_containerd(self) -> subprocess.Popen[bytes]:
        config = self._folder / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        return self._run(
            "containerd",
            f"--config={config}",
            f"--address={self._folder}/c.sock",
            f"--root={self._folder}/containerd",
            f"--state={self._folder}/state",
        )

    def _run(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen([program(name), *words], stdout=log, stderr=log)

    def start(self, *, live_restore: bool = True) -> None:
        (self._folder / "pid").unlink(missing_ok=True)
        self._process = self._run(
            "dockerd",
            f"--host={self.address}",
            f"--containerd={self._folder}/c.sock",
            f"--data-root={self._folder}/data",
            f"--exec-root={self._folder}/exec",
            f"--pidfile={self._folder}/pid",
            # no word of bridges: `none` would remove the one of this machine's own engine
            "--iptables=false",
            f"--live-restore={str(live_restore).lower()}",
        )
        wait_for("the engine answers", self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
        try:
            self._asks.ping()
        except EngineAway:
            return False
        return True

    def end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def kill_containers(self) -> None:
        """Kill the containers, whose keepers name the engine's folder."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                keeper = words[0].endswith(b"containerd-shim-runc-v2")
                if keeper and f"{self._folder}/c.sock".encode() in words:
                    self._kill_below(path.parent.name)

    def _kill_below(self, keeper: str) -> None:
        for pid in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)

    def close(self) -> None:
        self.kill_containers()
        self.end(signal.SIGTERM)
        self._containerd.terminate()
        self._containerd.wait(60)
        for mount in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            place = mount.split()[1]
            if place.startswith(str(self._folder)):
                subprocess.run(["umount", "--lazy", place], check=False)
        shutil.rmtree(self._folder, ignore_errors=True)


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
