"""Shells in the place of steps that have ended, on the host and in containers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from agents.drivers.base import EXIT_KILLED, DriverError
from agents.drivers.docker import DockerDriver, owner_name
from agents.drivers.docker_container import OWNER_LABEL
from agents.drivers.exec import ExecDriver
from agents.options import Options
from agents.rooms import make_room
from pipeline.spec import StepSpec
from tests.agents.conftest import stage, step
from tests.images import BUSYBOX, busybox_image
from tests.services import wait_for


class Typist:
    """Sits at a shell and reads all it says."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.output = b""
        self.over = False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        while data := self.shell.read():
            assert len(data) <= 32 * 1024
            self.output += data
        self.over = True

    def type(self, text: str) -> None:
        self.shell.write(text.encode())

    def until(self, text: str) -> None:
        wait_for(f"{text!r}", lambda: text.encode() in self.output)

    def ended(self) -> int:
        wait_for("the end", lambda: self.over)
        return int(self.shell.end())


class Place:
    """A session in which steps run and shells open."""

    def __init__(self, driver: Any, options: Options) -> None:
        self.driver = driver
        self.room = make_room(options.work_dir)
        self.session = driver.open(stage(), self.room)
        self.shells: list[Any] = []

    def fail(self, *commands: str, **more: Any) -> StepSpec:
        """Run a step of these commands to its end."""
        one = replace(step("a step", *commands, image=BUSYBOX, **more), number=1)
        self.session.start(one, {"COLOUR": "grün"}, _Nowhere()).wait()
        return one

    def shell(self, one: StepSpec) -> Typist:
        self.shells.append(self.session.shell(one, {"COLOUR": "grün"}, 81, 25))
        return Typist(self.shells[-1])


class _Nowhere:
    def write(self, data: bytes) -> None:
        """Forget it."""


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(state_dir=tmp_path / "state", work_dir=tmp_path / "work")


@pytest.fixture(
    params=[
        "exec",
        pytest.param("docker", marks=[pytest.mark.service, pytest.mark.xdist_group("docker")]),
    ]
)
def place(request: pytest.FixtureRequest, options: Options) -> Iterator[Place]:
    if request.param == "docker":
        busybox_image()
    made = Place(
        DockerDriver(options) if request.param == "docker" else ExecDriver(options), options
    )
    yield made
    made.session.remove()


def test_a_shell_has_what_the_step_had(place: Place) -> None:
    typist = place.shell(place.fail("echo data > file", "exit 3"))

    typist.type("cat file; echo $COLOUR; stty size; echo ä | wc -c\n")

    for text in ("data", "grün", "25 81", "\r\n3\r\n"):
        typist.until(text)
    typist.shell.resize(100, 40)
    typist.type('until [ "$(stty size)" = "40 100" ]; do sleep 0.1; done; echo sized$((1+1))\n')
    typist.until("sized2")


def test_its_exit_code_is_the_shells(place: Place) -> None:
    typist = place.shell(place.fail("exit 3"))
    typist.type("exit 7\n")
    assert typist.ended() == 7
    assert place.shells[0].end() == 7


def test_a_shell_that_is_ended_is_killed(place: Place) -> None:
    typist = place.shell(place.fail("exit 3"))
    typist.type("trap '' TERM HUP INT; echo set$((1+1)); sleep 1000\n")
    typist.until("set2")

    assert typist.shell.end() == EXIT_KILLED
    wait_for("the end", lambda: typist.over)


def test_the_stages_end_is_the_shells(place: Place) -> None:
    typist = place.shell(place.fail("exit 3"))
    typist.type("sleep 1000 & echo begun$((1+1))\n")
    typist.until("begun2")

    place.session.close()

    wait_for("the end", lambda: typist.over)


def test_a_flood_goes_through_whole(place: Place) -> None:
    typist = place.shell(place.fail("exit 3"))
    typist.type("seq 50000; echo last$((1+1))\n")
    typist.until("last2")
    assert b"\r\n49999\r\n50000\r\n" in typist.output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_a_shell_is_that_of_the_steps_user(options: Options, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    driver = ExecDriver(replace(options, exec_user="nobody"))
    driver.check()
    place = Place(driver, options)
    try:
        typist = place.shell(place.fail("exit 3"))
        typist.type("id -un; tty; touch mine && echo made$((1+1))\n")
        typist.until("nobody")
        typist.until("made2")
        assert b"not a tty" not in typist.output
    finally:
        place.session.remove()


# --- containers ---


@pytest.fixture
def containers(options: Options) -> Iterator[Place]:
    busybox_image()
    made = Place(DockerDriver(options), options)
    yield made
    made.session.remove()


def left(options: Options) -> list[str]:
    """Containers and images of this agent."""
    client = docker.APIClient(version="auto", timeout=120)
    only = {"label": [f"{OWNER_LABEL}={owner_name(options)}"]}
    try:
        found = [*client.containers(all=True, filters=only), *client.images(filters=only)]
        return [one["Id"] for one in found]
    finally:
        client.close()


docker_only: Callable[[Any], Any] = lambda test: pytest.mark.service(  # noqa: E731
    pytest.mark.xdist_group("docker")(test)
)


@docker_only
def test_files_outside_the_workspace_are_there(containers: Place) -> None:
    typist = containers.shell(containers.fail("echo installed > /tool", "exit 3"))
    typist.type("cat /tool\n")
    typist.until("installed")


@docker_only
def test_nothing_is_left_of_a_shell(containers: Place, options: Options) -> None:
    before = len(left(options))
    one = containers.fail("exit 3")
    typist = containers.shell(one)
    assert len(left(options)) == before + 3  # the step's container, the shell's and its image

    typist.shell.end()

    assert len(left(options)) == before + 1


@docker_only
def test_the_next_life_removes_what_a_killed_one_left(containers: Place, options: Options) -> None:
    containers.shell(containers.fail("exit 3"))

    DockerDriver(options).sweep()

    assert left(options) == []


@docker_only
def test_a_container_that_cannot_start_is_an_error(containers: Place, options: Options) -> None:
    one = replace(containers.fail("exit 3"), user="nobody-at-all")

    with pytest.raises(DriverError, match="nobody-at-all"):
        containers.session.shell(one, {}, 80, 24)

    assert len(left(options)) == 1
