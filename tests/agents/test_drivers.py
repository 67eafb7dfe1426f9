"""What every driver does, over all of them; then what only processes of the host do."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.drivers import leftovers
from agents.drivers.base import DriverError, Outcome
from agents.drivers.docker import DockerDriver
from agents.drivers.exec import ExecDriver, open_way
from agents.drivers.scripted import ScriptedDriver
from agents.options import Options
from agents.rooms import make_room, release
from pipeline.spec import Netrc, StageSpec
from tests.agents.conftest import stage, step
from tests.images import BUSYBOX, busybox_image
from tests.services import wait_for


class Collected:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


class Room:
    """An open session that steps can be run in."""

    def __init__(self, driver: Any, options: Options, spec: StageSpec) -> None:
        self.room = make_room(options.work_dir)
        self.session = driver.open(spec, self.room)
        self.sinks: list[Collected] = []

    def start(self, *commands: str, **environ: str) -> Any:
        self.sinks.append(Collected())
        one = replace(step("a step", *commands), number=len(self.sinks), image=BUSYBOX)
        return self.session.start(one, environ, self.sinks[-1])

    def run(self, *commands: str, **environ: str) -> tuple[Outcome, str]:
        outcome = self.start(*commands, **environ).wait()
        return outcome, self.sinks[-1].data.decode()


Open = Callable[..., Room]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(state_dir=tmp_path / "state", work_dir=tmp_path / "work")


@pytest.fixture(
    params=[
        "scripted",
        "exec",
        pytest.param("docker", marks=[pytest.mark.service, pytest.mark.xdist_group("docker")]),
    ]
)
def driver(request: pytest.FixtureRequest, options: Options) -> Any:
    if request.param == "docker":
        busybox_image()
        return DockerDriver(options)
    return ScriptedDriver() if request.param == "scripted" else ExecDriver(options, grace_s=0.5)


@pytest.fixture
def open_room(options: Options) -> Iterator[Open]:
    opened: list[Room] = []

    def open_one(driver: Any, spec: StageSpec | None = None) -> Room:
        opened.append(Room(driver, options, spec or stage()))
        return opened[-1]

    yield open_one
    for room in opened:
        room.session.remove()


# --- every driver ---


def test_output_and_exit_code(driver: Any, open_room: Open) -> None:
    room = open_room(driver)
    outcome, text = room.run("echo hello", "exit 3")
    assert outcome == Outcome(3)
    assert "hello\n" in text


def test_commands_stop_at_the_first_exit(driver: Any, open_room: Open) -> None:
    outcome, text = open_room(driver).run("exit 4", "echo never")
    assert outcome.exit_code == 4
    assert "never\n" not in text.replace("+ echo never\n", "")


def test_steps_share_the_checkout(driver: Any, open_room: Open) -> None:
    room = open_room(driver)
    (room.room.source / "from-clone").write_text("x")
    assert room.run("echo ok")[0] == Outcome()
    assert (room.room.source / "from-clone").exists()


def test_kill_ends_a_step(driver: Any, open_room: Open) -> None:
    process = open_room(driver).start("echo started", "sleep 600")
    done: list[Outcome] = []
    waiter = threading.Thread(target=lambda: done.append(process.wait()))
    waiter.start()
    process.kill()
    process.kill()
    waiter.join(60)
    assert done[0].exit_code in (137, 143)


def test_close_ends_what_runs_and_keeps_files(driver: Any, open_room: Open) -> None:
    room = open_room(driver)
    process = room.start("sleep 600")
    done: list[Outcome] = []
    waiter = threading.Thread(target=lambda: done.append(process.wait()))
    waiter.start()
    room.session.close()
    room.session.close()
    waiter.join(60)
    assert done[0].exit_code in (137, 143)
    assert room.room.source.exists()


def test_remove_leaves_nothing(driver: Any, open_room: Open) -> None:
    room = open_room(driver)
    room.run("echo hello")
    room.session.remove()
    room.session.remove()
    assert not room.room.root.exists()


@pytest.mark.parametrize("at_once", [False, True])
def test_prepare_changes_nothing(driver: Any, open_room: Open, at_once: bool) -> None:
    room = open_room(driver)
    room.session.prepare(step("a step", "echo other"), {"A": "1"}, at_once=at_once)
    assert "hello\n" in room.run("echo hello")[1]


def test_a_prepared_step_runs_when_it_is_started(driver: Any, open_room: Open) -> None:
    room = open_room(driver)
    one = replace(step("a step", "echo hello"), number=1, image=BUSYBOX)
    room.session.prepare(one, {"A": "1"}, at_once=True)
    assert "hello\n" in room.run("echo hello", A="hello")[1]


def test_a_furnished_room_is_like_any_other(driver: Any, open_room: Open) -> None:
    room = open_room(driver)
    driver.furnish(room.room)
    assert "hello\n" in room.run("echo hello")[1]
    assert "hello\n" in room.run("echo hello")[1]
    room.session.remove()
    assert not room.room.root.exists()


def test_a_prepared_step_that_is_never_started_never_runs(driver: Any, open_room: Open) -> None:
    room = open_room(driver)
    room.session.prepare(step("a step", f"touch {room.room.source}/ran"), {}, at_once=True)
    room.session.close()
    assert not (room.room.source / "ran").exists()
    room.session.remove()
    assert not room.room.root.exists()


# --- the scripted one ---


def test_scripted_refusals() -> None:
    with pytest.raises(DriverError, match="no engine"):
        ScriptedDriver(refuse_open="no engine").check()


# --- processes of this host ---


@pytest.fixture
def host(options: Options) -> ExecDriver:
    return ExecDriver(options, grace_s=0.5)


def test_a_step_that_could_not_be_prepared_does_not_keep_a_session_open(
    host: ExecDriver, open_room: Open
) -> None:
    room = open_room(host)
    room.session.prepare(step("a step", "true"), {"A": "\0"}, at_once=True)
    room.session.close()


def test_commands_run_in_one_shell_that_traces(host: ExecDriver, open_room: Open) -> None:
    outcome, text = open_room(host).run("cd /", "X='a b'", 'echo "$X $(pwd)"')
    assert outcome == Outcome()
    assert text == "+ cd /\n+ X='a b'\n+ echo \"$X $(pwd)\"\na b /\n"


def test_a_failing_command_ends_the_script(host: ExecDriver, open_room: Open) -> None:
    outcome, text = open_room(host).run("false", "echo never")
    assert outcome.exit_code == 1
    assert text == "+ false\n"


def test_output_and_errors_are_one_stream(host: ExecDriver, open_room: Open) -> None:
    text = open_room(host).run("echo one; echo two >&2; echo three")[1]
    assert text.endswith("one\ntwo\nthree\n")


def test_the_environment_is_the_steps_and_little_else(
    host: ExecDriver, open_room: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CISERVER_AGENT_TOKEN", "s3cret")
    room = open_room(host)
    text = room.run("env", GREETING="hello", PATH="/extra:$PATH")[1]
    environ = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    source, home = str(room.room.source), str(room.room.home)
    assert environ["GREETING"] == "hello"
    tools = room.room.root / "tools" / "1" / "bin"
    assert environ["PATH"] == f"/extra:{os.environ['PATH']}:{tools}"
    assert (environ["HOME"], environ["DRONE_WORKSPACE"], environ["PWD"]) == (home, source, source)
    assert "CISERVER_AGENT_TOKEN" not in environ


def test_nothing_can_be_read_from_the_input(host: ExecDriver, open_room: Open) -> None:
    assert open_room(host).run("cat", "echo after")[1] == "+ cat\n+ echo after\nafter\n"


def test_the_netrc_is_for_its_owner_only(host: ExecDriver, open_room: Open) -> None:
    room = open_room(host, stage(netrc=Netrc("git.example.com", "octo", "pw")))
    path = room.room.home / ".netrc"
    assert path.read_text() == "machine git.example.com login octo password pw\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_netrc_clone_only_keeps_it_from_steps(options: Options, open_room: Open) -> None:
    host = ExecDriver(replace(options, netrc_clone_only=True))
    room = open_room(host, stage(netrc=Netrc("git.example.com", "octo", "pw")))
    assert not (room.room.home / ".netrc").exists()


def test_a_step_that_ignores_term_is_killed(host: ExecDriver, open_room: Open) -> None:
    room = open_room(host)
    process = room.start("trap '' TERM", "echo ready", "while :; do sleep 0.1; done")
    done: list[Outcome] = []
    waiter = threading.Thread(target=lambda: done.append(process.wait()))
    waiter.start()
    wait_for("the trap", lambda: b"\nready" in room.sinks[-1].data)
    process.kill()
    waiter.join(60)
    assert done == [Outcome(137)]


@pytest.mark.parametrize(
    "daemon",
    [
        "sleep 600 &",
        "(sleep 600 &) ",
        "setsid sleep 600 &",
        "(setsid sh -c 'sleep 600 & sleep 600' >/dev/null 2>&1 &)",
        "env -i sleep 600 &",
    ],
)
def test_daemons_of_a_step_end_with_the_stage(
    host: ExecDriver, open_room: Open, daemon: str
) -> None:
    room = open_room(host)
    outcome, _ = room.run(daemon, "echo done")
    assert outcome == Outcome()
    room.session.close()
    mine = [seen.pid for seen in leftovers._adopted()]
    assert [pid for pid in mine if b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()] == []


def test_a_daemon_may_go_on_printing_until_the_stage_ends(
    host: ExecDriver, open_room: Open
) -> None:
    room = open_room(host)
    room.run("(while echo tick; do sleep 0.01; done) & echo $! > pid")
    pid = int((room.room.source / "pid").read_text())
    outcome, _ = room.run("sleep 0.2; kill -0 $(cat pid)")
    assert outcome == Outcome()
    room.session.close()
    wait_for("its end", lambda: not Path(f"/proc/{pid}").exists())


def test_other_processes_are_left_alone(host: ExecDriver, open_room: Open) -> None:
    other = subprocess.Popen(["sleep", "600"])
    room = open_room(host)
    room.run("echo hello")
    room.session.close()
    assert other.poll() is None
    other.kill()
    other.wait()


def test_two_stages_do_not_end_each_others_daemons(host: ExecDriver, open_room: Open) -> None:
    one, two = open_room(host), open_room(host)
    one.run("setsid sleep 600 & echo $! > pid")
    two.run("echo hello")
    two.session.close()
    assert Path(f"/proc/{int((one.room.source / 'pid').read_text())}").exists()


def test_much_output_arrives_whole(host: ExecDriver, open_room: Open) -> None:
    room = open_room(host)
    outcome, text = room.run("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")
    assert outcome == Outcome()
    assert text.splitlines()[1:] == [f"line {number}" for number in range(20_000)]


def test_read_only_directories_are_removed(host: ExecDriver, open_room: Open) -> None:
    room = open_room(host)
    room.run("mkdir -p a/b && echo x > a/b/c && chmod 500 a/b a")
    room.session.remove()
    assert not room.room.root.exists()


def test_sweep_kills_what_an_earlier_life_left(options: Options, host: ExecDriver) -> None:
    room = make_room(options.work_dir)
    script = (
        "import sys, os; sys.path.insert(0, os.getcwd())\n"
        "from pathlib import Path\n"
        "from agents.drivers.exec import ExecDriver\n"
        "from agents.drivers.base import Room\n"
        "from agents.options import Options\n"
        "from tests.agents.conftest import stage, step\n"
        f"work = Path({str(options.work_dir)!r})\n"
        f"room = Room({room.key!r}, work / {room.key!r})\n"
        "session = ExecDriver(Options(work_dir=work)).open(stage(), room)\n"
        "class Sink:\n"
        "    def write(self, data): print(data.decode(), flush=True)\n"
        "one = step('a', 'setsid sleep 600 & echo $! > other', 'echo $$ > pid', 'sleep 600')\n"
        "session.start(one, {}, Sink()).wait()\n"
    )
    life = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    pid, other = room.source / "pid", room.source / "other"
    wait_for("the step", lambda: pid.exists() and pid.read_text().endswith("\n"))
    pids = [int(pid.read_text()), int(other.read_text())]
    life.send_signal(signal.SIGKILL)
    life.wait()
    assert all(leftovers.look(one) for one in pids)
    host.sweep()
    assert room.root.exists()  # somebody holds it
    release(room)
    host.sweep()
    assert not room.root.exists()
    wait_for("their end", lambda: all(is_gone(one) for one in pids))


def is_gone(pid: int) -> bool:
    seen = leftovers.look(pid)
    return seen is None or seen.state == "Z"


def test_a_reused_pid_is_not_killed(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    record = tmp_path / "groups"
    record.write_text(f"{other.pid} 12345\n{other.pid} torn")
    assert [leftovers.kill_group(group) for group in leftovers.on_record(record)] == [False]
    assert other.poll() is None
    other.kill()
    other.wait()


def test_an_unknown_user_is_said(options: Options) -> None:
    driver = ExecDriver(replace(options, exec_user="no-such-user"))
    with pytest.raises(DriverError, match="no user 'no-such-user'"):
        driver.check()


def test_steps_run_as_another_user(options: Options, open_room: Open) -> None:
    """Where tests are root as another user, else as ourselves: the same promises hold."""
    name = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    _open_way_to(options.state_dir.parent)
    driver = ExecDriver(replace(options, exec_user=name))
    driver.check()
    room = open_room(driver)
    (room.room.source / "file").write_text("from the clone\n")
    outcome, text = room.run("id -un", "cat file", "echo x > mine", "ls $HOME")
    assert outcome == Outcome(), text
    assert f"{name}\n" in text
    assert "from the clone\n" in text
    assert (room.room.source / "mine").owner() == name


def _open_way_to(folder: Path) -> None:
    """pytest's folders are for their owner only; another user must get through them."""
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)


def test_a_way_that_is_closed_is_said(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    other = pwd.struct_passwd(("other", "x", 54321, 54321, "", "/", "/bin/sh"))
    with pytest.raises(DriverError, match=f"other, who may not enter {tmp_path}"):
        open_way(options, other)
