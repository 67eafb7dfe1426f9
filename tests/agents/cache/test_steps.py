"""`cache` in steps on the host, from the shell to the store."""

from __future__ import annotations

import os
import pwd
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.agent import Agent
from agents.cache.settings import Settings
from agents.drivers.base import Outcome
from agents.drivers.exec import ExecDriver
from agents.options import Options
from agents.rooms import make_room
from pipeline.spec import CloneSpec, StageSpec
from tests.agents.conftest import stage, step
from tests.services import wait_for

PULL = CloneSpec(disabled=True, ref="refs/pull/7/head")


class Collected:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


class Stage:
    """A stage of its own room."""

    def __init__(self, driver: ExecDriver, options: Options, spec: StageSpec) -> None:
        self.room = make_room(options.work_dir)
        self.session = driver.open(spec, self.room)
        self.sink = Collected()

    def start(self, *commands: str, **environ: str) -> Any:
        self.sink = Collected()
        return self.session.start(step("s", *commands, number=1), environ, self.sink)

    def run(self, *commands: str, **environ: str) -> tuple[Outcome, str]:
        outcome = self.start(*commands, **environ).wait()
        return outcome, self.sink.data.decode()


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(state_dir=tmp_path / "state", work_dir=tmp_path / "work")


@pytest.fixture
def open_stage(options: Options) -> Iterator[Callable[..., Stage]]:
    opened: list[Stage] = []

    def open_one(changed: Options | None = None, **more: Any) -> Stage:
        own = changed or options
        opened.append(Stage(ExecDriver(own, grace_s=0.5), own, stage(**more)))
        return opened[-1]

    yield open_one
    for one in opened:
        one.session.remove()


Open = Callable[..., Stage]
SAVE = ("mkdir -p deps/deep", "echo hello > deps/deep/file", "cache store my/key deps")
LOAD = ("cache restore my/key", "cat deps/deep/file")


def test_a_tree_goes_from_one_stage_to_another(open_stage: Open) -> None:
    outcome, text = open_stage().run(*SAVE)
    assert outcome == Outcome(), text
    outcome, text = open_stage().run(*LOAD)
    assert outcome == Outcome(), text
    assert text.endswith("hello\n")


def test_exit_codes_and_output_reach_the_step(open_stage: Open) -> None:
    room = open_stage()
    outcome, text = room.run("cache has_key nope || echo code $?", "cache frobnicate")
    assert "\ncode 1\n" in text
    assert "Usage: cache COMMAND" in text
    assert outcome == Outcome(1)


def test_checksums_make_keys(open_stage: Open) -> None:
    commands = ("echo hello > lock", 'cache store "k-$(checksum lock)" lock', "cache list")
    _, text = open_stage().run(*commands)
    assert "\nk-b1946ac92492d2347c6235b4d2611184 " in text


def test_the_folder_of_a_command_is_where_it_was_called(open_stage: Open) -> None:
    commands = ("mkdir sub", "cd sub", "echo hello > x", "cache store k x", "rm x", "cd ..")
    outcome, text = open_stage().run(*commands, "cd sub", "cache restore k", "cat x")
    assert outcome == Outcome(), text


def test_a_fork_reads_but_does_not_write(open_stage: Open) -> None:
    open_stage().run(*SAVE)
    fork = open_stage(fork=True, clone=PULL)
    outcome, text = fork.run(*LOAD, "cache store evil deps", "cache clear")
    assert outcome == Outcome(), text
    _, text = open_stage().run("cache has_key my/key", "cache has_key evil || echo no evil")
    assert "\nno evil\n" in text


def test_several_at_once(open_stage: Open) -> None:
    lines = "\n".join(f"(echo {n} > f{n}; cache store k{n} f{n}) &" for n in range(6))
    outcome, text = open_stage().run(f"{lines}\nwait", "cache list")
    assert outcome == Outcome(), text
    assert all(f"\nk{n} " in text for n in range(6)), text


def test_a_killed_step_breaks_its_store_off(open_stage: Open, options: Options) -> None:
    room = open_stage()
    process = room.start("truncate -s 1T endless", "cache store k endless")
    done: list[Outcome] = []
    waiter = threading.Thread(target=lambda: done.append(process.wait()))
    waiter.start()
    spool = options.state_dir / "cache" / ".spool"
    wait_for("the store", lambda: spool.is_dir() and any(spool.iterdir()))
    process.kill()
    waiter.join(60)
    assert done
    assert not any(spool.iterdir())
    assert open_stage().run("cache has_key k")[0] == Outcome(1)


def test_nothing_watches_when_no_step_runs(open_stage: Open) -> None:
    open_stage().run("cache usage")
    wait_for(
        "the end of the desk's thread",
        lambda: not [one for one in threading.enumerate() if one.name == "cache"],
    )


def test_a_step_with_keys_of_its_own(open_stage: Open, s3: Settings, options: Options) -> None:
    own = {
        "SEMAPHORE_CACHE_BACKEND": "s3",
        "SEMAPHORE_CACHE_S3_BUCKET": s3.bucket,
        "SEMAPHORE_CACHE_S3_URL": s3.url,
        "SEMAPHORE_CACHE_S3_KEY": s3.key,
        "SEMAPHORE_CACHE_S3_SECRET": s3.secret,
        "SEMAPHORE_PROJECT_ID": "mine",
    }
    outcome, text = open_stage().run(*SAVE, **own)
    assert outcome == Outcome(), text
    outcome, text = open_stage().run(*LOAD, **own)
    assert outcome == Outcome(), text
    assert open_stage().run("cache has_key my/key")[0] == Outcome(1)  # not in the agent's
    own["SEMAPHORE_CACHE_S3_KEY"] = ""
    outcome, text = open_stage().run("cache has_key my/key", **own)
    assert outcome == Outcome(2)
    assert "the agent's keys are not for other stores" in text


def test_the_agents_bucket(open_stage: Open, s3: Settings, options: Options) -> None:
    agent = replace(
        options,
        cache_backend="s3",
        cache_s3_bucket=s3.bucket,
        cache_s3_url=s3.url,
        cache_s3_key=s3.key,
        cache_s3_secret=s3.secret,
    )
    outcome, text = open_stage(agent).run(*SAVE)
    assert outcome == Outcome(), text
    outcome, text = open_stage(agent, fork=True, clone=PULL).run(*LOAD, "cache clear", "env")
    assert outcome == Outcome(), text
    assert s3.secret not in text.replace("password", "")
    assert open_stage(agent).run("cache has_key my/key")[0] == Outcome()


def test_a_failing_store_is_told(open_stage: Open, options: Options, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    broken = replace(options, cache_dir=tmp_path / "file")
    outcome, text = open_stage(broken).run("echo x > x", "cache store k x")
    assert outcome == Outcome(1)
    assert "cannot use the directory of the cache" in text


def test_another_users_step_gets_no_further_than_itself(
    open_stage: Open, options: Options, tmp_path: Path
) -> None:
    root = os.geteuid() == 0
    user = pwd.getpwnam("nobody") if root else pwd.getpwuid(os.geteuid())
    for folder in (tmp_path, *tmp_path.parents):
        mode = folder.stat().st_mode
        if folder.stat().st_uid == os.geteuid() and not mode & 0o001:
            folder.chmod(mode | 0o011)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "word").write_text("s3cret")
    secret.chmod(0o700 if root else 0)
    other = replace(options, exec_user=user.pw_name)
    ExecDriver(other).check()
    outcome, text = open_stage(other).run(*SAVE)
    assert outcome == Outcome(), text
    outcome, text = open_stage(other).run(*LOAD, "ls -ln deps/deep/file")
    assert outcome == Outcome(), text
    assert f" {user.pw_uid} {user.pw_gid} " in text
    attempts = (
        f"cache store a {secret}",
        f"cache store b {secret}/word",
        f"checksum {secret}/word",
    )
    _, text = open_stage(other).run(*(f"{one} || true" for one in attempts), "cache list")
    assert "s3cret" not in text
    assert "\na " not in text
    assert "\nb " not in text
    assert "there is no file" in text
    secret.chmod(0o700)


def test_steps_know_what_keys_are_made_of(make_agent: Callable[..., Agent]) -> None:
    agent = make_agent()
    spec = agent.admit(stage(trusted=True, environment={"DRONE_TARGET_BRANCH": "main"}))
    assert spec.environment["SEMAPHORE_GIT_BRANCH"] == "main"
    assert spec.environment["SEMAPHORE_PROJECT_ID"].startswith("octo-hello-")
    mine = stage(trusted=True, environment={"SEMAPHORE_PROJECT_ID": "mine"})
    assert agent.admit(mine).environment["SEMAPHORE_PROJECT_ID"] == "mine"
