"""Kill the parts of the server while a step runs: the build ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import Cluster, cluster
from tests.faults.pipelines import numbered, numbers, times_run
from tests.services import stopped_postgres

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]


def _kill_web(server: Cluster) -> None:
    server.web.kill()
    server.web.start()
    server.wait_web()


def _kill_worker(server: Cluster) -> None:
    server.worker.kill()
    server.worker.start()


def _restart_redis(server: Cluster) -> None:
    server.redis.kill()
    server.redis.start()


def _empty_redis(server: Cluster) -> None:
    server.raw_redis().flushall()


@pytest.mark.parametrize("harm", [_kill_web, _kill_worker, _restart_redis, _empty_redis])
def test_a_build_survives(
    server: Cluster, runs: Path, tmp_path: Path, harm: Callable[[Cluster], None]
) -> None:
    gate = tmp_path / "gate"
    server.agent()
    slug = server.repo(numbered(runs, gate))
    number = server.build(slug)
    server.wait_line(slug, number, "line 49")

    harm(server)
    gate.touch()

    assert server.ended(slug, number)["status"] == "success"
    assert numbers(server.log(slug, number)) == list(range(100))
    assert times_run(runs) == 1


@pytest.mark.parametrize("harm", [_kill_web, _kill_worker, _restart_redis, _empty_redis])
def test_work_goes_on_afterwards(
    server: Cluster, runs: Path, tmp_path: Path, harm: Callable[[Cluster], None]
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    server.agent()
    slug = server.repo(numbered(runs, gate))
    assert server.ended(slug, server.build(slug))["status"] == "success"

    harm(server)

    numbers_ = [server.build(slug) for _ in range(3)]
    assert [server.ended(slug, number)["status"] for number in numbers_] == ["success"] * 3
    assert times_run(runs) == 4


def test_queued_builds_survive_an_empty_redis(server: Cluster, runs: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    slug = server.repo(numbered(runs, gate))
    queued = [server.build(slug) for _ in range(3)]

    _empty_redis(server)
    server.agent()

    assert [server.ended(slug, number)["status"] for number in queued] == ["success"] * 3
    assert times_run(runs) == 3


def test_postgresql_away_for_20_s(runs: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with stopped_postgres() as postgres, contextlib.ExitStack() as cleanup:
        with postgres.run():
            server = cleanup.enter_context(cluster(database_url=postgres.create("ci")))
            server.agent()
            slug = server.repo(numbered(runs, gate))
            number = server.build(slug)
            server.wait_line(slug, number, "line 49")

        gate.touch()
        time.sleep(20)  # the absence itself, not a wait for something

        with postgres.run():
            server.wait_web()
            assert server.ended(slug, number)["status"] == "success"
            assert numbers(server.log(slug, number)) == list(range(100))
            assert times_run(runs) == 1
            cleanup.close()
