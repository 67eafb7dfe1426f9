"""A Docker engine that goes away under a build: one of the test's own, never the machine's."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.dockerd import Engine
from tests.faults.pipelines import numbers
from tests.images import BUSYBOX, busybox_image
from tests.services import wait_for

pytestmark = [pytest.mark.service, pytest.mark.timeout(300), pytest.mark.xdist_group("docker")]

STEP = """
kind: pipeline
type: docker
name: default
clone: {{disable: true}}
steps:
- name: count
  image: {image}
  pull: never
  volumes: [{{name: doors, path: /doors}}]
  commands:
  - i=0; while [ ! -e /doors/gate ]; do echo line $i; i=$((i+1)); sleep 0.02; done
  - echo end
volumes:
- name: doors
  host: {{path: {doors}}}
"""


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(Path(tempfile.mkdtemp(prefix="ci-dockerd-", dir="/tmp")))
    try:
        engine.start()
        busybox_image(engine.address)
        yield engine
    finally:
        engine.close()


def test_the_engine_restarts_under_a_build(server: Cluster, engine: Engine, tmp_path: Path) -> None:
    """Containers that live on are followed on; a container that died with it is an error."""
    doors = tmp_path / "doors"
    doors.mkdir()
    server.agent("agent-docker", isolation="docker", docker_host=engine.address)
    slug = server.repo(STEP.format(image=BUSYBOX, doors=doors))
    number = server.build(slug)
    server.wait_line(slug, number, "line 50")

    engine.end(signal.SIGKILL)
    engine.start()
    seen = len(server.log(slug, number))
    wait_for("lines come again", lambda: len(server.log(slug, number)) > seen)
    (doors / "gate").touch()

    assert server.ended(slug, number)["status"] == "success"
    shown = numbers(server.log(slug, number))
    assert shown == list(range(len(shown)))

    (doors / "gate").unlink()
    number = server.build(slug)
    server.wait_line(slug, number, "line 50")
    engine.end(signal.SIGKILL)
    engine.kill_containers()
    engine.start()

    ended = server.ended(slug, number)
    assert ended["status"] == "error"
    step = ended["stages"][0]["steps"][0]
    assert step["error"].startswith("the Docker engine stopped or restarted while the step ran")

    (doors / "gate").touch()
    assert server.ended(slug, server.build(slug))["status"] == "success"
