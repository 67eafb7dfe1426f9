"""What the host's owner gives to every container: files, volumes, devices, networks; and logins of
a registry that asks who one is."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agents.drivers.base import DriverError
from agents.drivers.docker import DockerDriver
from agents.option_table import Options
from pipeline.spec import Auth
from tests.agents.drivers.test_docker import Open, api, image, left, open_stage, options, step
from tests.images import busybox_image
from tests.services import free_port, listens, program, running, short_folder, wait_for

__all__ = ["api", "image", "open_stage", "options"]
pytestmark = [pytest.mark.service, pytest.mark.xdist_group("docker")]


def test_files_are_mounted_and_missing_ones_left_out(
    open_stage: Open, options: Options, tmp_path: Path
) -> None:
    (tmp_path / "there").write_text("hello\n")
    gone = tmp_path / "gone"
    files = (f"{tmp_path}/there:/etc/there", f"{gone}:/etc/gone")
    stage = open_stage(DockerDriver(replace(options, files=files)))
    outcome, text = stage.run(step("cat /etc/there", "test ! -e /etc/gone"))
    assert outcome.exit_code == 0, text
    assert "hello\n" in text
    assert not gone.exists()


def test_volumes_and_devices_of_the_host(
    open_stage: Open, options: Options, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    own = replace(
        options,
        volumes=(f"{tmp_path}/shared:/shared", f"{tmp_path}/shared:/look:ro"),
        devices=("/dev/null:/dev/nowhere",),
    )
    stage = open_stage(DockerDriver(own))
    outcome, text = stage.run(
        step("echo x > /shared/x", "cat /look/x", "test -c /dev/nowhere", "! touch /look/y")
    )
    assert outcome.exit_code == 0, text
    assert (tmp_path / "shared" / "x").read_text() == "x\n"


def test_networks_and_their_settings(open_stage: Open, options: Options, api: Any) -> None:
    more = api.create_network(f"ciserver-test-{free_port()}")["Id"]
    name = api.inspect_network(more)["Name"]
    try:
        own = replace(
            options,
            networks=(name,),
            network_opts={"com.docker.network.driver.mtu": "1400"},
        )
        stage = open_stage(DockerDriver(own))
        process, sink = stage.start(step("cat /sys/class/net/eth*/mtu", "echo ready", "sleep 600"))
        sink.wait_for(b"ready")
        assert len(api.inspect_network(more)["Containers"]) == 1
        made = [one for one in left(api, own) if one in {n["Id"] for n in api.networks()}]
        (settings,) = [api.inspect_network(one)["Options"] for one in made]
        assert settings == {"com.docker.network.driver.mtu": "1400"}
        assert b"1400\n" in sink.data
        process.kill()
        process.wait()
        stage.session.remove()
    finally:
        api.remove_network(more)


# --- a registry that asks who one is ---

USER, PASSWORD = "builder", "hunter2"
#: The line that `htpasswd -B` writes for these.
HTPASSWD = f"{USER}:$2b$04$CHBp.n6Gl3hoE4KNZz73PubdDJvR8sONJJ0XFMJB5fvR5ltnQ0BpK\n"
CONFIG = """\
version: 0.1
storage: {filesystem: {rootdirectory: FOLDER/images}}
http: {addr: "127.0.0.1:PORT"}
auth: {htpasswd: {realm: tests, path: FOLDER/htpasswd}}
"""


@dataclass(frozen=True)
class Registry:
    """A registry with one image, which nobody gets without a login."""

    address: str
    image: str
    login: Auth


@pytest.fixture
def registry(api: Any) -> Iterator[Registry]:
    with short_folder() as folder, contextlib.ExitStack() as stack:
        port = free_port()
        config = CONFIG.replace("FOLDER", str(folder)).replace("PORT", str(port))
        (folder / "config.yml").write_text(config)
        (folder / "htpasswd").write_text(HTPASSWD)
        argv = [program("docker-registry"), "serve", str(folder / "config.yml")]
        stack.enter_context(running(argv, folder / "log"))
        wait_for("the registry", lambda: listens(port))
        address = f"127.0.0.1:{port}"
        found = Registry(address, f"{address}/ciserver/busybox:1", Auth(address, USER, PASSWORD))
        api.tag(busybox_image(), f"{address}/ciserver/busybox", "1")
        login = {"username": USER, "password": PASSWORD}
        said = api.push(found.image, auth_config=login)
        assert '"error"' not in said, said
        api.remove_image(found.image)
        yield found
        with contextlib.suppress(Exception):
            api.remove_image(found.image)


def test_a_login_of_the_host_opens_a_registry(
    open_stage: Open, options: Options, registry: Registry, tmp_path: Path
) -> None:
    proof = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {registry.address: {"auth": proof}}}))
    own = replace(options, docker_config=str(file))
    stage = open_stage(DockerDriver(own))
    outcome, text = stage.run(step("echo hello", image=registry.image))
    assert outcome.exit_code == 0, text
    assert "hello\n" in text
    assert "Pulling from ciserver/busybox" in text
    assert PASSWORD not in text
    silent = open_stage(DockerDriver(replace(own, docker_stream_pull=False)))
    outcome, text = silent.run(step("echo hello", image=registry.image, pull="always"))
    assert (outcome.exit_code, text) == (0, "+ echo hello\nhello\n")


def test_a_login_of_the_pipeline_opens_a_registry(open_stage: Open, registry: Registry) -> None:
    stage = open_stage(auths=(registry.login,))
    outcome, text = stage.run(step("echo hello", image=registry.image))
    assert outcome.exit_code == 0, text


@pytest.mark.parametrize("auths", [(), ("wrong",)])
def test_without_the_right_login_it_stays_shut(
    open_stage: Open, registry: Registry, auths: tuple[str, ...]
) -> None:
    logins = tuple(replace(registry.login, password=password) for password in auths)
    stage = open_stage(auths=logins)
    with pytest.raises(DriverError, match=r"cannot pull|basic auth|unauthorized"):
        stage.start(step("echo hello", image=registry.image))[0].wait()
