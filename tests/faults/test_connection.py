"""Server, Redis, both or the line between them away, at every point of a stage at once.

`make absences` runs this with the lease times of every day, for a minute and for ten.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import DEFAULT_LEASES, Cluster, cluster
from tests.faults.pipelines import numbered, numbers, times_run
from tests.services import wait_for

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

MANY = 1_000_000


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A server that sees an agent as lost soon, and waits for it long."""
    long = request.config.getoption("away")
    with cluster(**(DEFAULT_LEASES if long else {"lost_grace_s": "60"})) as built:
        yield built


@contextlib.contextmanager
def server_away(server: Cluster) -> Iterator[None]:
    """Web process and server worker killed, and started again afterwards."""
    server.web.kill()
    server.worker.kill()
    yield
    server.web.start()
    server.worker.start()
    server.wait_web()


@contextlib.contextmanager
def redis_away(server: Cluster) -> Iterator[None]:
    """Redis killed, and started again afterwards with what it had on disk: nothing much."""
    server.redis.kill()
    yield
    server.redis.start()


@contextlib.contextmanager
def both_away(server: Cluster) -> Iterator[None]:
    """Neither the server nor Redis."""
    with server_away(server), redis_away(server):
        yield


@contextlib.contextmanager
def line_away(server: Cluster) -> Iterator[None]:
    """The server is well and hears nothing of the agent."""
    server.proxy.cut()
    yield
    server.proxy.mend()


@dataclass
class Held:
    """A build that is held at one point of its stage until its gate is open."""

    slug: str
    number: int
    gate: Path
    runs: Path


class Points:
    """Builds held at every point of a stage that an absence can hit."""

    def __init__(self, server: Cluster, folder: Path) -> None:
        self._server, self._folder = server, folder
        self._hold_git = folder / "hold-git"
        self._cloning, self._seen = folder / "cloning", folder / "seen"
        bin_ = folder / "bin"
        bin_.mkdir(parents=True)
        git = bin_ / "git"
        git.write_text(
            f"#!/bin/sh\ntouch {self._cloning}\n"
            f'while [ -e {self._hold_git} ]; do sleep 0.05; done\nexec {shutil.which("git")} "$@"\n'
        )
        git.chmod(0o755)
        self.path = str(bin_)
        self.held: dict[str, Held] = {}

    def reach(self) -> None:
        """Bring a new build to each point. The order matters: the last ones lose all answers."""
        self._cloning.unlink(missing_ok=True)
        step, end = self._begin("step"), self._begin("end")
        for held in (step, end):
            self._server.wait_line(held.slug, held.number, "line 49")
        self._hold_git.touch()
        self._begin("clone", clone=True)
        wait_for("the clone", self._cloning.exists)
        proxy = self._server.proxy
        report = self._begin("report")
        self._server.wait_line(report.slug, report.number, "line 49")
        proxy.lose_answer("PUT", "/leases/", MANY, body=b'"done":true')
        report.gate.touch()
        wait_for("a last report", lambda: len(proxy.lost) > 0)
        proxy.lose_answer("POST", "/claims", MANY)
        claim = self._begin("claim")
        claim.gate.touch()
        self._server.wait_status(claim.slug, claim.number, "running")

    def _begin(self, name: str, *, clone: bool = False) -> Held:
        gate, runs = self._folder / f"gate-{name}", self._folder / f"runs-{name}"
        for path in (gate, runs):
            path.unlink(missing_ok=True)
        text = numbered(runs, gate)
        if clone:
            text = text.replace("clone: {disable: true}\n", "")
            gate.touch()
        slug = self.held[name].slug if name in self.held else self._server.repo(text, name)
        held = self.held[name] = Held(slug, self._server.build(slug), gate, runs)
        return held

    @contextlib.contextmanager
    def viewer(self) -> Iterator[subprocess.Popen[bytes]]:
        """Somebody who follows a log in the terminal from before the absence on."""
        held = self.held["step"]
        words = ("log", f"{held.slug}#{held.number}", "default", "count", "--follow")
        self._seen.unlink(missing_ok=True)
        with self._server.ci(self._seen, *words) as viewer:
            wait_for("the viewer sees lines", lambda: "line 49" in self.seen())
            yield viewer

    def seen(self) -> list[str]:
        """What the viewer has seen so far."""
        return self._seen.read_text().splitlines()

    def end_a_step(self) -> None:
        """In the middle of the absence."""
        self.held["end"].gate.touch()

    def go_on(self) -> None:
        """After the absence."""
        self._server.proxy.lose_no_more()
        self._server.proxy.lost.clear()
        self._hold_git.unlink()
        self.held["step"].gate.touch()

    def check(self) -> None:
        """Every build ended well: every line is there once and in order, every step ran once."""
        for name, held in self.held.items():
            ended = self._server.ended(held.slug, held.number)
            assert ended["status"] == "success", (name, ended)
            step = 2 if name == "clone" else 1
            log = self._server.log(held.slug, held.number, step=step)
            assert numbers(log) == list(range(100)), name
            assert times_run(held.runs) == 1, name


Harm = Callable[[Cluster], contextlib.AbstractContextManager[None]]


@pytest.mark.parametrize("harm", [server_away, redis_away, both_away, line_away])
def test_an_absence_at_any_point_of_a_stage(
    server: Cluster, tmp_path: Path, absences: tuple[int, ...], harm: Harm
) -> None:
    points = Points(server, tmp_path / "points")
    path = {"PATH": f"{points.path}:/usr/local/bin:/usr/bin:/bin"}
    # retries as patient as those of every day for absences of every day
    patience = {"backoff": "15s", "backoff_max": "5m"} if absences[-1] >= 60 else {}
    server.agent(environ=path, concurrency="16", **patience)
    for seconds in absences:
        points.reach()
        with points.viewer() as viewer:
            with harm(server):
                time.sleep(seconds / 2)  # the absence itself, not a wait for something
                points.end_a_step()
                time.sleep(seconds / 2)
            points.go_on()

            points.check()
            assert viewer.wait(120) == 0
        assert numbers(points.seen()) == list(range(100))
