"""Reports and artifacts of containers, near the agent's disk and far from it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.artifacts import Shelf
from agents.drivers.base import Outcome, Room
from agents.drivers.docker import DockerDriver, DockerSession
from agents.link import Gate
from agents.option_table import Options
from pipeline.spec import StageSpec, StepSpec
from tests.agents.double import Double
from tests.images import busybox_image

pytestmark = [pytest.mark.service, pytest.mark.xdist_group("docker")]


class Collected:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


@pytest.fixture
def double() -> Iterator[Double]:
    with Double() as server:
        yield server


@pytest.fixture(params=["near", "far"])
def session(
    request: pytest.FixtureRequest, double: Double, tmp_path: Path
) -> Iterator[DockerSession]:
    options = Options(server=double.url, state_dir=tmp_path / "state", work_dir=tmp_path / "work")
    driver = DockerDriver(options)
    if request.param == "far":
        driver._disk.unseen()
    key = f"drone-{secrets.token_hex(10)}"
    shelf = Shelf(options, Gate(token=double.token), "lease")
    room = Room(key, tmp_path / key, {"artifact": shelf})
    for part in room.folders:
        part.mkdir(parents=True, exist_ok=True)
    opened = driver.open(StageSpec(repo="octo/hello", build=1, stage=1), room)
    yield opened
    opened.remove()


def run(session: DockerSession, *commands: str, number: int = 1) -> tuple[Outcome, str]:
    sink = Collected()
    step = StepSpec(number, f"step-{number}", image=busybox_image(), commands=commands)
    outcome = session.start(step, {}, sink).wait()
    return outcome, sink.data.decode()


def test_reports_are_collected_from_the_workspace(session: DockerSession) -> None:
    outcome, text = run(session, "mkdir -p t/u", "echo a > t/a.xml; echo b > t/u/b.xml; echo c > c")
    assert outcome == Outcome(), text

    def found(*patterns: str) -> list[tuple[str, bytes]]:
        step = StepSpec(1, "step-1", reports=patterns)
        return sorted(session.collect(step))

    assert found("t/*.xml") == [("t/a.xml", b"a\n")]
    assert found("**/*.xml", "none/*") == [("t/a.xml", b"a\n"), ("t/u/b.xml", b"b\n")]
    assert found("c") == [("c", b"c\n")]


def test_artifacts_go_from_one_container_to_another(session: DockerSession, double: Double) -> None:
    outcome, text = run(
        session,
        "mkdir -p dist/bin; echo hello > dist/a; echo x > dist/bin/app; chmod 755 dist/bin/app",
        "artifact push dist",
        "cd dist; artifact push . --name other; artifact push /etc/none || echo code $?",
    )
    assert outcome == Outcome(), text
    assert sorted(double.artifacts) == ["dist/a", "dist/bin/app", "other/a", "other/bin/app"]
    assert "code 1" in text

    outcome, text = run(
        session,
        "rm -r dist; artifact pull dist; cat dist/a; test -x dist/bin/app",
        "artifact pull other/a /tmp/new/b; cat /tmp/new/b",
        number=2,
    )
    assert outcome == Outcome(), text
    assert text.endswith("hello\n")
