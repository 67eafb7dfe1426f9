"""The Docker driver against the engine of this machine."""

from __future__ import annotations

import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from agents.drivers.base import DriverError, Outcome, Room
from agents.drivers.docker import DockerDriver, DockerSession, owner_name
from agents.drivers.docker_container import OWNER_LABEL
from agents.option_table import Options
from pipeline.spec import SERVICE, Mount, StageSpec, StepSpec, Volume, Workspace
from tests.images import busybox_image
from tests.services import wait_for

pytestmark = [pytest.mark.service, pytest.mark.xdist_group("docker")]

RETRY = "for i in $(seq 600); do {} && break; sleep 0.1; done"


class Collected:
    """A sink in memory that can be waited on."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def wait_for(self, text: bytes) -> None:
        wait_for(f"{text!r} in the output", lambda: text in self.data)


class Stage:
    """A session, its room and the steps started in it."""

    def __init__(self, session: DockerSession, room: Room) -> None:
        self.session = session
        self.room = room

    def start(self, step: StepSpec, **environ: str) -> tuple[Any, Collected]:
        sink = Collected()
        return self.session.start(step, environ, sink), sink

    def run(self, step: StepSpec, **environ: str) -> tuple[Outcome, str]:
        process, sink = self.start(step, **environ)
        return process.wait(), sink.data.decode()


Open = Callable[..., Stage]


@pytest.fixture(scope="session", autouse=True)
def image() -> str:
    return busybox_image()


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(server="http://ci", token="x", state_dir=tmp_path / "state")


@pytest.fixture
def api() -> Iterator[Any]:
    client = docker.APIClient(version="auto", timeout=120)
    yield client
    client.close()


@pytest.fixture
def open_stage(tmp_path: Path, options: Options) -> Iterator[Open]:
    stages: list[Stage] = []

    def open_(driver: DockerDriver | None = None, **given: Any) -> Stage:
        key = f"drone-{secrets.token_hex(10)}"
        room = Room(key, tmp_path / key)
        for folder in (room.home, room.source, room.scripts):
            folder.mkdir(parents=True)
        spec = StageSpec(**{"repo": "octocat/hello", "build": 1, "stage": 1, **given})
        stage = Stage((driver or DockerDriver(options)).open(spec, room), room)
        stages.append(stage)
        return stage

    yield open_
    for stage in stages:
        stage.session.remove()


def step(*commands: str, **given: Any) -> StepSpec:
    about = {"number": 1, "name": "one", "image": busybox_image()}
    return StepSpec(**{**about, "commands": commands, **given})


def left(api: Any, options: Options) -> list[str]:
    """What of this agent is in the engine."""
    only = {"label": f"{OWNER_LABEL}={owner_name(options)}"}
    found = [one["Id"] for one in api.containers(all=True, filters=only)]
    found += [one["Id"] for one in api.networks(filters=only)]
    return found + [one["Name"] for one in api.volumes(filters=only)["Volumes"] or ()]


def test_a_step_runs_in_the_checkout(open_stage: Open) -> None:
    stage = open_stage()
    (stage.room.source / "hello.txt").write_text("hello\n")

    outcome, text = stage.run(step("pwd", "cat hello.txt", "echo $WHO > out.txt"), WHO="me")

    assert outcome == Outcome(0)
    assert text == "+ pwd\n/drone/src\n+ cat hello.txt\nhello\n+ echo $WHO > out.txt\n"
    assert (stage.room.source / "out.txt").read_text() == "me\n"


def test_the_exit_code_is_the_commands(open_stage: Open) -> None:
    outcome, text = open_stage().run(step("echo out; echo err >&2", "exit 7", "echo never"))

    assert outcome == Outcome(7)
    assert "out\n" in text
    assert "err\n" in text
    assert "never\n" not in text


def test_a_step_knows_the_stages_network_and_volume(open_stage: Open, api: Any) -> None:
    stage = open_stage()

    outcome, text = stage.run(step("echo at $DRONE_DOCKER_NETWORK_ID $DRONE_DOCKER_VOLUME_ID"))

    network, volume = text.splitlines()[-1].split()[1:]
    assert outcome == Outcome(0)
    assert api.inspect_network(network)["Name"] == stage.room.key
    assert volume in (str(stage.room.source), f"{stage.room.key}-workspace")


@pytest.mark.parametrize("end", ["true", "exit 3"])
def test_a_step_of_which_anything_was_killed_for_memory_fails(open_stage: Open, end: str) -> None:
    grow = "tail -c 400m /dev/zero | cat > /dev/null"

    outcome, _ = open_stage().run(step(grow, end, mem_limit_bytes=20 * 2**20))

    assert outcome.oom


def test_commands_cannot_eat_the_script(open_stage: Open) -> None:
    outcome, text = open_stage().run(step("cat", "echo end"))

    assert (outcome.exit_code, text) == (0, "+ cat\n+ echo end\nend\n")


def test_a_script_may_be_long(open_stage: Open) -> None:
    outcome, text = open_stage().run(step(f": {'x' * 200_000}", "echo end"))

    assert outcome == Outcome(0)
    assert text.endswith("end\n")


def test_files_of_one_step_are_there_for_the_next(open_stage: Open) -> None:
    stage = open_stage(workspace=Workspace("/go", "src/app", "/go/src/app"))
    folder = "/go/src/app"

    stage.run(step("echo 1 > a", "echo 2 > ../b", working_dir=folder))
    _, text = stage.run(step("cat a ../b", number=2, name="two", working_dir=folder))

    assert text.endswith("1\n2\n")
    assert (stage.room.source / "a").read_text() == "1\n"


def test_an_image_without_commands_runs_its_program(open_stage: Open) -> None:
    one = step(entrypoint=("/bin/echo", "a"), command=("b",))

    assert open_stage().run(one) == (Outcome(0), "a b\n")


def test_a_service_is_reached_by_its_name(open_stage: Open) -> None:
    stage = open_stage()
    service = step("echo pong | nc -l -p 9000", number=1, name="data", kind=SERVICE, detach=True)

    stage.start(service)
    ask = RETRY.format("nc data 9000 < /dev/null | grep pong")
    outcome, text = stage.run(step(ask, number=2, name="two"))

    assert outcome == Outcome(0)
    assert text.endswith("pong\n")


def test_stages_do_not_see_each_other(open_stage: Open) -> None:
    one, other = open_stage(), open_stage()
    one.start(step("sleep 600", name="data", kind=SERVICE, detach=True))

    outcome, _ = other.run(step("nslookup data || exit 9", name="two"))

    assert outcome == Outcome(9)


def test_closing_ends_services(open_stage: Open, api: Any, options: Options) -> None:
    stage = open_stage()
    process, sink = stage.start(step("echo up; sleep 600", kind=SERVICE, detach=True))
    sink.wait_for(b"up\n")

    stage.session.close()

    assert process.wait().exit_code == 137
    only = {"label": f"{OWNER_LABEL}={owner_name(options)}"}
    assert api.containers(filters=only) == []


def test_volumes_are_shared_and_memory_is_not(open_stage: Open, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    volumes = (
        Volume("disk"),
        Volume("ram", "memory", size_limit_bytes=1024 * 1024),
        Volume("host", "host", str(tmp_path / "host")),
    )
    uses = (Mount("disk", "/disk"), Mount("ram", "/ram"), Mount("host", "/host"))
    stage = open_stage(volumes=volumes, trusted=True)

    stage.run(step("touch /disk/a /ram/a /host/a", volumes=uses))
    _, text = stage.run(step("ls /disk /ram /host; df -k /ram", number=2, volumes=uses))

    assert text.split("Filesystem")[0].endswith("/disk:\na\n\n/host:\na\n\n/ram:\n")
    assert " 1024 " in text.split("Filesystem")[1]
    assert (tmp_path / "host" / "a").exists()


def test_a_step_out_of_memory_is_told_from_a_failed_one(open_stage: Open) -> None:
    hungry = step("tail /dev/zero", mem_limit_bytes=16 * 1024 * 1024)

    outcome, _ = open_stage().run(hungry)

    assert outcome == Outcome(137, oom=True)


def test_user_and_hosts_of_a_step(open_stage: Open) -> None:
    stage = open_stage()

    _, text = stage.run(
        step("id -u", "grep there /etc/hosts", user="1000", extra_hosts=("there:9.9.9.9",))
    )
    assert "1000\n" in text
    assert "9.9.9.9\tthere" in text


def test_killing_a_step_ends_it(open_stage: Open) -> None:
    process, sink = open_stage().start(step("echo up", "sleep 600"))
    sink.wait_for(b"up\n")

    process.kill()
    process.kill()

    assert process.wait().exit_code == 137


def test_a_step_may_end_itself_when_told_to(open_stage: Open) -> None:
    process, sink = open_stage().start(
        step("trap 'echo bye; exit 3' TERM", "echo up", "while :; do sleep 0.1; done")
    )
    sink.wait_for(b"up\n")

    process.kill()

    assert process.wait().exit_code == 3
    assert sink.data.endswith(b"bye\n")


def test_all_output_is_kept_in_order(open_stage: Open) -> None:
    outcome, text = open_stage().run(step("seq 200000", "printf end"))

    assert outcome == Outcome(0)
    lines = text.splitlines()
    assert lines[0] == "+ seq 200000"
    assert lines[1:-2] == [str(number) for number in range(1, 200001)]
    assert lines[-1] == "end"


def test_binary_output_and_no_newline_at_all(open_stage: Open) -> None:
    one = step("head -c 5000000 /dev/zero", "printf '\\377\\000'")
    process, sink = open_stage().start(one)

    assert process.wait() == Outcome(0)
    assert sink.data.count(b"\0") == 5000001


def test_a_missing_image_is_an_error_with_its_reason(open_stage: Open) -> None:
    with pytest.raises(DriverError, match=r"(?i)no such image"):
        open_stage().run(step("true", image="ciserver-test/nothing:1", pull="never"))


def test_a_failing_pull_is_an_error_with_its_reason(open_stage: Open) -> None:
    # nothing listens on this port, so there is no registry
    image = "localhost:1/nothing:1"

    with pytest.raises(DriverError, match=r"localhost:1|connect"):
        open_stage().run(step("true", image=image))


def test_an_image_without_a_shell_is_an_error(open_stage: Open) -> None:
    with pytest.raises(DriverError, match=r"not found|no such file"):
        open_stage().run(step(entrypoint=("/no/such/program",)))


def test_a_prepared_step_runs_with_the_environment_of_its_start(open_stage: Open) -> None:
    stage = open_stage()
    one = step("echo $STATUS")

    stage.session.prepare(one, {"STATUS": "success"})
    outcome, text = stage.run(one, STATUS="failure")

    assert (outcome, text) == (Outcome(0), "+ echo $STATUS\nfailure\n")


def test_a_prepared_step_does_nothing_before_its_start(open_stage: Open, api: Any) -> None:
    stage = open_stage()
    one = step("touch began", "cat other")

    stage.session.prepare(one, {})
    only = {"name": stage.room.key}
    wait_for("the prepared container runs", lambda: bool(api.containers(filters=only)))
    (stage.room.source / "other").write_text("written meanwhile\n")
    began = (stage.room.source / "began").exists()
    outcome, text = stage.run(one)

    assert not began
    assert outcome == Outcome(0)
    assert text.endswith("written meanwhile\n")


def test_a_prepared_step_sees_a_checkout_that_was_replaced(open_stage: Open, api: Any) -> None:
    stage = open_stage()
    one = step("cat new")

    stage.session.prepare(one, {})
    only = {"name": stage.room.key}
    wait_for("the prepared container runs", lambda: bool(api.containers(filters=only)))
    stage.room.source.rename(stage.room.root / "old")
    stage.room.source.mkdir()
    (stage.room.source / "new").write_text("here\n")

    assert stage.run(one)[1].endswith("here\n")


def test_a_prepared_step_that_fails_says_so_at_its_start(open_stage: Open) -> None:
    stage = open_stage()
    one = step("true", image="localhost:1/nothing:1")
    stage.session.prepare(one, {})

    with pytest.raises(DriverError, match=r"localhost:1|connect"):
        stage.run(one)


def test_a_step_can_be_run_again(open_stage: Open) -> None:
    stage = open_stage()
    one = step("test -e again || { touch again; exit 1; }")

    assert [stage.run(one)[0].exit_code for _ in range(2)] == [1, 0]


def test_an_engine_that_does_not_see_the_disk_gets_the_checkout(
    options: Options, open_stage: Open
) -> None:
    driver = DockerDriver(options)
    driver._disk.unseen()
    stage = open_stage(driver, workspace=Workspace("/w", "app", "/w/app"))
    (stage.room.source / "sub").mkdir()
    (stage.room.source / "sub" / "file").write_text("hello\n")

    first = step("cat sub/file", "echo 2 > sub/file", working_dir="/w/app")
    second = step("cat sub/file", number=2, working_dir="/w/app")

    assert stage.run(first)[1].endswith("hello\n+ echo 2 > sub/file\n")
    assert stage.run(second)[1].endswith("2\n")
    assert (stage.room.source / "sub" / "file").read_text() == "hello\n"


def test_an_engine_that_turns_out_not_to_see_the_disk_gets_a_volume(open_stage: Open) -> None:
    stage = open_stage()
    shutil.rmtree(stage.room.root)

    stage.run(step("echo 1 > file"))

    assert stage.run(step("cat file", number=2))[1].endswith("1\n")


def test_the_engine_tells_when_it_does_not_see_a_path(options: Options, api: Any) -> None:
    from agents.drivers.docker_engine import Engine, PathUnseen

    mount = {"Type": "bind", "Source": f"/no/such/{secrets.token_hex(8)}", "Target": "/x"}

    with pytest.raises(PathUnseen):
        Engine(options).create(
            f"ciserver-{secrets.token_hex(8)}",
            {"Image": busybox_image(), "HostConfig": {"Mounts": [mount]}},
        )


def test_nothing_is_left_of_a_stage(open_stage: Open, api: Any, options: Options) -> None:
    stage = open_stage(volumes=(Volume("disk"),))
    stage.run(step("mkdir d", "touch d/file", volumes=(Mount("disk", "/disk"),)))
    stage.start(step("sleep 600", number=2, kind=SERVICE, detach=True))
    stage.session.prepare(step("true", number=3), {})

    stage.session.remove()
    stage.session.remove()

    assert left(api, options) == []
    assert not stage.room.root.exists()


def test_the_next_life_of_an_agent_removes_what_a_killed_one_left(
    open_stage: Open, api: Any, options: Options, tmp_path: Path
) -> None:
    stage = open_stage(volumes=(Volume("disk"),))
    process, _ = stage.start(step("sleep 600", kind=SERVICE, detach=True))
    stranger = Options(server="http://ci", token="x", state_dir=tmp_path / "stranger")

    DockerDriver(stranger).sweep()
    assert left(api, options)

    DockerDriver(options).sweep()
    assert left(api, options) == []
    assert process.wait().exit_code == 137


def test_what_has_expired_is_removed_whoever_left_it(api: Any, options: Options) -> None:
    name = f"ciserver-{secrets.token_hex(8)}"
    api.create_volume(name, labels={OWNER_LABEL: "somebody", "io.drone.expires": "1000"})

    DockerDriver(options).sweep()

    assert name not in [one["Name"] for one in api.volumes()["Volumes"] or ()]


def test_an_engine_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/no.sock"
    driver = DockerDriver(Options(server="http://ci", token="x", docker_host=address))

    with pytest.raises(DriverError) as caught:
        driver.check()

    reason = f"cannot reach the Docker engine at {address}: there is no such socket"
    assert str(caught.value) == reason


def test_a_stranger_on_the_engines_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        driver = DockerDriver(Options(server="http://ci", token="x", docker_host=address))

        def hang_up() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(DriverError, match="cannot reach the Docker engine at tcp://127"):
            driver.check()
        server.shutdown(socket.SHUT_RDWR)
