"""`cache` in containers, of an engine that sees this host's disk and of one that does not."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.drivers.base import Outcome, Room
from agents.drivers.docker import DockerDriver
from agents.drivers.exec import ExecDriver
from agents.option_table import Options
from pipeline.spec import CloneSpec, StageSpec, StepSpec
from tests.images import busybox_image
from tests.services import wait_for

pytestmark = [pytest.mark.service, pytest.mark.xdist_group("docker")]

SAVE = ("mkdir -p deps/deep", "echo hello > deps/deep/file", "cache store my/key deps")
LOAD = ("cache restore my/key", "cat deps/deep/file")


class Collected:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


class Stage:
    """A session with a room of its own."""

    def __init__(self, driver: Any, folder: Path, spec: StageSpec) -> None:
        key = f"drone-{secrets.token_hex(10)}"
        self.room = Room(key, folder / key)
        for part in (self.room.home, self.room.source, self.room.scripts):
            part.mkdir(parents=True)
        self.session = driver.open(spec, self.room)

    def start(self, *commands: str, **more: Any) -> tuple[Any, Collected]:
        sink = Collected()
        given = {"number": 1, "name": "one", "image": busybox_image(), **more}
        step = StepSpec(commands=commands, **given)
        return self.session.start(step, {}, sink), sink

    def run(self, *commands: str, **more: Any) -> tuple[Outcome, str]:
        process, sink = self.start(*commands, **more)
        return process.wait(), sink.data.decode()


Open = Callable[..., Stage]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(state_dir=tmp_path / "state", work_dir=tmp_path / "work")


@pytest.fixture(params=["near", "far"])
def driver(request: pytest.FixtureRequest, options: Options) -> DockerDriver:
    found = DockerDriver(options)
    if request.param == "far":
        found._disk.unseen()
    return found


@pytest.fixture
def open_stage(driver: DockerDriver, tmp_path: Path) -> Iterator[Open]:
    opened: list[Stage] = []

    def open_one(other: Any = None, **more: Any) -> Stage:
        spec = StageSpec(**{"repo": "octo/hello", "build": 1, "stage": 1, **more})
        opened.append(Stage(other or driver, tmp_path, spec))
        return opened[-1]

    yield open_one
    for one in opened:
        one.session.remove()


def test_a_tree_goes_from_one_container_to_another(open_stage: Open) -> None:
    outcome, text = open_stage().run(*SAVE)
    assert outcome == Outcome(), text
    outcome, text = open_stage().run(*LOAD)
    assert outcome == Outcome(), text
    assert text.endswith("hello\n")


def test_exit_codes_and_checksums(open_stage: Open) -> None:
    outcome, text = open_stage().run(
        "cache has_key nope || echo code $?",
        "echo hello > lock",
        'echo "sum $(checksum lock)"',
        "cache has_key",
    )
    assert "\ncode 1\n" in text
    assert "\nsum b1946ac92492d2347c6235b4d2611184\n" in text
    assert outcome == Outcome(2)


def test_paths_of_every_form_come_back(open_stage: Open) -> None:
    outcome, text = open_stage().run(
        "mkdir -p vendor/bundle/x /root/.cache sub",
        "echo 1 > vendor/bundle/x/y; ln vendor/bundle/x/y vendor/bundle/z",
        "echo 2 > /root/.cache/f",
        "cache store deep vendor/bundle/",
        "cache store absolute /root/.cache",
        "cd sub; cache store up ../vendor; cd ..",
        "cache store dot .",
        "rm -r vendor /root/.cache",
        "cache restore deep",
        "cat vendor/bundle/x/y vendor/bundle/z; rm -r vendor",
        "cache restore absolute; cat /root/.cache/f",
        "cache restore up; cat vendor/bundle/x/y; rm -r vendor",
        "cache restore dot; cat vendor/bundle/x/y",
        "cache has_key nothing || true",
    )
    assert outcome == Outcome(), text
    lines = text.splitlines()
    assert lines.count("1") == 4
    assert lines.count("2") == 1


def test_lock_files_say_what(open_stage: Open) -> None:
    commands = ("echo l > go.sum", "export HOME=/home/me", "mkdir -p $HOME/go/pkg/mod/x")
    outcome, text = open_stage().run(*commands, "cache store", "cache list")
    assert outcome == Outcome(), text
    outcome, text = open_stage().run(*commands[:2], "cache restore", "ls /home/me/go/pkg/mod")
    assert text.endswith("\nx\n")


def test_a_step_that_is_nobody(open_stage: Open) -> None:
    stage = open_stage()
    stage.run("chmod 777 .; touch kept")
    outcome, text = stage.run(*SAVE, "rm -r deps", *LOAD, "ls -ln deps", user="1234:1234", number=2)
    assert outcome == Outcome(), text
    assert " 1234 " in text


def test_a_fork_reads_but_does_not_write(open_stage: Open) -> None:
    open_stage().run(*SAVE)
    fork = open_stage(fork=True, clone=CloneSpec(disabled=True, ref="refs/pull/7/head"))
    outcome, text = fork.run(*LOAD, "cache store evil deps", "cache clear")
    assert outcome == Outcome(), text
    _, text = open_stage().run("cache has_key my/key", "cache has_key evil || echo no evil")
    assert "\nno evil\n" in text


def test_a_prepared_container_can_ask_too(open_stage: Open) -> None:
    stage = open_stage()
    step = StepSpec(1, "one", image=busybox_image(), commands=("cache usage",))
    stage.session.prepare(step, {})
    sink = Collected()
    assert stage.session.start(step, {}, sink).wait() == Outcome(), sink.data
    assert b"USED SPACE" in sink.data


def test_a_killed_step_breaks_its_store_off(open_stage: Open, options: Options) -> None:
    process, _ = open_stage().start("truncate -s 900G /endless", "cache store k /endless")
    done: list[Outcome] = []
    waiter = threading.Thread(target=lambda: done.append(process.wait()))
    waiter.start()
    spool = options.state_dir / "cache" / ".spool"
    wait_for("the store", lambda: spool.is_dir() and any(spool.iterdir()))
    process.kill()
    waiter.join(60)
    assert done
    assert not any(spool.iterdir())


def test_what_containers_stored_is_there_for_steps_on_the_host(
    open_stage: Open, options: Options
) -> None:
    open_stage().run(*SAVE)
    host = open_stage(ExecDriver(options), type="exec")
    outcome, text = host.run(*LOAD)
    assert outcome == Outcome(), text
    host.run("echo back > x", "cache store back x")
    _, text = open_stage().run("cache restore back", "cat x")
    assert text.endswith("back\n")


def test_the_images_own_cache_command_is_left_alone(open_stage: Open) -> None:
    outcome, text = open_stage().run(
        "printf '#!/bin/sh\\necho mine' > /bin/cache; chmod +x /bin/cache", "cache x"
    )
    assert outcome == Outcome(), text
    assert text.endswith("\nmine\n")
