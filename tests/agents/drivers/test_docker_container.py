from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from agents.drivers.docker_container import (
    MAX_ARGUMENT_BYTES,
    SCRIPT_PATH,
    Site,
    body,
    expired,
    labels,
    reaches_engine,
    script,
)
from agents.drivers.docker_engine import logins
from agents.option_table import Options
from pipeline.spec import SERVICE, Auth, Mount, StageSpec, StepSpec, Volume, Workspace

SITE = Site("drone-k", "drone-k", "drone-k-workspace", "/work/drone-k/src", {"a": "b"})


def made(
    step: StepSpec, site: Site = SITE, stage: dict[str, Any] | None = None, **given: Any
) -> Any:
    spec = StageSpec(repo="octocat/hello", build=7, stage=2, steps=(step,), **(stage or {}))
    options = Options(server="http://ci", token="x", **given)
    return body(spec, step, {"A": "1", "EMPTY": ""}, options, site)


def step(**given: Any) -> StepSpec:
    return StepSpec(**{"number": 3, "name": "build", "image": "golang", **given})


def test_a_plugin_runs_what_its_image_says() -> None:
    found = made(step())

    assert found["Image"] == "golang"
    assert found["Env"] == ["A=1", "EMPTY="]
    assert found["WorkingDir"] == "/drone/src"
    assert found["NetworkingConfig"]["EndpointsConfig"] == {"drone-k": {"Aliases": ["build"]}}
    assert not {"Entrypoint", "Cmd", "OpenStdin", "User"} & set(found)
    assert found["Labels"] == {"a": "b", "io.drone.step.name": "build", "io.drone.step.number": "3"}
    assert found["HostConfig"]["LogConfig"]["Type"] == "local"
    assert found["HostConfig"]["NetworkMode"] == "drone-k"


def test_a_program_of_the_step_replaces_the_images() -> None:
    found = made(step(entrypoint=("/run",), command=("-x", "y"), user="1000", working_dir="/w"))

    assert (found["Entrypoint"], found["Cmd"]) == (["/run"], ["-x", "y"])
    assert (found["User"], found["WorkingDir"]) == ("1000", "/w")


def test_only_a_privileged_step_is_privileged() -> None:
    assert made(step(privileged=True))["HostConfig"]["Privileged"] is True
    assert "Privileged" not in made(step())["HostConfig"]


def test_commands_are_an_argument_of_the_shell() -> None:
    found = made(step(commands=("make",), entrypoint=("/run",)))

    assert found["Entrypoint"] == ["/bin/sh", "-c"]
    assert found["Cmd"] == [script(step(commands=("make",)), {})]


def test_windows_commands_are_a_variable_of_powershell() -> None:
    windows = {"os": "windows", "workspace": Workspace("c:\\drone\\src", "", "c:\\drone\\src")}
    found = made(step(commands=("dir", "x" * MAX_ARGUMENT_BYTES)), stage=windows)
    text = script(step(commands=("dir", "x" * MAX_ARGUMENT_BYTES)), {}, "windows")

    assert found["Entrypoint"] == ["powershell", "-noprofile", "-noninteractive", "-command"]
    assert found["Cmd"] == ["$Env:DRONE_SCRIPT | iex"]
    assert found["Env"] == ["A=1", "EMPTY=", f"DRONE_SCRIPT={text}", "SHELL=powershell.exe"]
    assert found["WorkingDir"] == "c:\\drone\\src"
    assert 'echo "+ dir"\ndir\n' in text


@pytest.mark.parametrize(
    ("base", "path", "folder"),
    [
        ("c:\\drone\\src", "", "c:\\drone\\src"),
        ("c:\\go", "src\\app", "c:\\go\\src\\app"),
        ("d:\\go", "\\src", "d:\\go\\src"),
    ],
)
def test_the_checkout_of_a_windows_stage(base: str, path: str, folder: str) -> None:
    stage = {"os": "windows", "workspace": Workspace(base, path, folder)}
    found = [target for _, _, target in mounts(made(step(), stage=stage))]

    assert found == [base, folder][bool(not path) :]


def test_a_windows_plugin_runs_what_its_image_says() -> None:
    found = made(step(), stage={"os": "windows"})

    assert not {"Entrypoint", "Cmd", "OpenStdin"} & set(found)
    assert found["Env"] == ["A=1", "EMPTY="]


def test_long_commands_are_a_file() -> None:
    found = made(step(commands=("x" * MAX_ARGUMENT_BYTES,)))

    assert (found["Entrypoint"], found["Cmd"]) == (["/bin/sh"], [SCRIPT_PATH])


def test_the_shell_waits_for_its_turn_and_the_commands_see_no_input(tmp_path: Path) -> None:
    text = script(step(commands=("cat", "echo end")), {})

    told = subprocess.run(["sh", "-c", text], input=b"\nmore", capture_output=True, check=False)
    left = subprocess.run(["sh", "-c", text], input=b"", capture_output=True, check=False)

    assert told.stdout == b"+ cat\n+ echo end\nend\n"
    assert (left.returncode, left.stdout) == (137, b"")


def test_a_service_starts_where_its_image_says() -> None:
    assert "WorkingDir" not in made(step(kind=SERVICE, detach=True))
    assert made(step(detach=True, commands=("x",)))["WorkingDir"] == "/drone/src"


def mounts(found: Any) -> list[tuple[str, str, str]]:
    return [(one["Type"], one["Source"], one["Target"]) for one in found["HostConfig"]["Mounts"]]


def test_the_workspace_is_the_checkout_or_a_volume() -> None:
    volume = Site("drone-k", "drone-k", "drone-k-workspace")
    below = {"workspace": Workspace("/go", "src/app", "/go/src/app")}

    assert mounts(made(step())) == [("bind", "/work/drone-k/src", "/drone/src")]
    assert mounts(made(step(), volume)) == [("volume", "drone-k-workspace", "/drone/src")]
    assert mounts(made(step(), stage=below)) == [
        ("volume", "drone-k-workspace", "/go"),
        ("bind", "/work/drone-k/src", "/go/src/app"),
    ]
    assert mounts(made(step(), volume, below)) == [("volume", "drone-k-workspace", "/go")]


def test_volumes_are_mounted_by_their_kind() -> None:
    volumes = (
        Volume("cache"),
        Volume("ram", "memory", size_limit_bytes=1024),
        Volume("sock", "host", "/var/run/docker.sock"),
        Volume("gpu", "host", "/dev/gpu"),
        Volume("unused"),
    )
    one = step(
        volumes=(Mount("cache", "/c"), Mount("ram", "/r"), Mount("sock", "/s"), Mount("no", "/n")),
        devices=(Mount("gpu", "/dev/gpu0"),),
    )

    host = made(one, stage={"volumes": volumes}, volumes=("/a:/b:ro",), files=("/f:/g",))[
        "HostConfig"
    ]

    assert host["Mounts"][1:] == [{"Type": "volume", "Source": "drone-k-cache", "Target": "/c"}]
    assert host["Binds"] == ["/var/run/docker.sock:/s", "/a:/b:ro", "/f:/g"]
    assert host["Tmpfs"] == {"/r": "mode=0700,size=1024"}
    assert host["Devices"] == [
        {"PathOnHost": "/dev/gpu", "PathInContainer": "/dev/gpu0", "CgroupPermissions": "rwm"}
    ]


def test_the_agent_limits_containers_and_steps_override() -> None:
    limits = {
        "memory": 100,
        "memory_swap": 200,
        "shm_size": 300,
        "cpu_quota": 4,
        "cpu_period": 5,
        "cpu_shares": 6,
        "cpu_set": "0",
        "devices": ("/dev/kvm",),
    }
    host = made(step(), **limits)["HostConfig"]
    own = made(step(mem_limit_bytes=7, shm_size_bytes=8), **limits)["HostConfig"]

    assert (host["Memory"], host["MemorySwap"], host["ShmSize"]) == (100, 200, 300)
    assert (host["CpuQuota"], host["CpuPeriod"], host["CpuShares"]) == (4, 5, 6)
    assert host["CpusetCpus"] == "0"
    assert host["Devices"][0]["PathInContainer"] == "/dev/kvm"
    assert (own["Memory"], own["ShmSize"]) == (7, 8)


def test_network_settings_of_a_step() -> None:
    found = made(
        step(network_mode="host", dns=("1.1.1.1",), dns_search=("x",), extra_hosts=("a:1.2.3.4",))
    )

    assert "NetworkingConfig" not in found
    host = found["HostConfig"]
    assert host["NetworkMode"] == "host"
    assert (host["Dns"], host["DnsSearch"], host["ExtraHosts"]) == (
        ["1.1.1.1"],
        ["x"],
        ["a:1.2.3.4"],
    )


def test_objects_carry_labels_of_drone_and_of_their_owner() -> None:
    spec = StageSpec(repo="octocat/hello", build=7, stage=2, name="test", timeout_s=60)

    found = labels(spec, "me", 1000.0)

    assert found["io.ciserver.agent"] == "me"
    assert found["io.drone"] == "true"
    assert found["io.drone.repo.slug"] == "octocat/hello"
    assert found["io.drone.repo.namespace"] == "octocat"
    assert found["io.drone.build.number"] == "7"
    assert (found["io.drone.stage.name"], found["io.drone.stage.number"]) == ("test", "2")
    assert (found["io.drone.created"], found["io.drone.expires"]) == ("1000", "4660")
    assert expired(found, 4661.0)
    assert not expired(found, 4660.0)
    assert not expired({}, 1.0)


def test_it_reads_logins_of_registries(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(
        '{"auths": {"https://index.docker.io/v1/": {"auth": "bWU6cGE6c3M="},'
        ' "example.com:5000": {"username": "u", "password": "p"},'
        ' "bad.example.com": {"auth": "%%%"}, "empty.example.com": {}}}'
    )

    assert logins(str(file)) == (
        Auth("docker.io", "me", "pa:ss"),
        Auth("example.com:5000", "u", "p"),
    )
    assert logins("") == ()


@pytest.mark.parametrize("text", ["[", '{"auths": 1}'])
def test_a_wrong_login_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    from agents.drivers.base import DriverError

    file = tmp_path / "config.json"
    file.write_text(text)

    with pytest.raises(DriverError, match="docker-config"):
        logins(str(file))


@pytest.mark.parametrize(
    ("host", "agent", "reaches"),
    [
        ("", (), False),
        ("/srv/cache", ("/srv/data:/data:ro",), False),
        ("/var/run/docker.sock", (), True),
        ("/run/", (), True),
        ("/", (), True),
        ("", ("/var/run/docker.sock:/var/run/docker.sock",), True),
    ],
)
def test_who_has_a_socket_reaches_the_engine(
    host: str, agent: tuple[str, ...], reaches: bool
) -> None:
    volumes = (Volume("disk"), *([Volume("host", "host", host)] if host else ()))
    spec = StageSpec(repo="a/b", build=1, stage=1, type="docker", volumes=volumes)

    assert reaches_engine(spec, Options(volumes=agent)) is reaches
