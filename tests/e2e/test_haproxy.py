"""Two servers on PostgreSQL and Redis behind a real HAProxy: one dies, nobody notices."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests import services
from tests.e2e.house import CI, LIMIT_S, ROOT, House, Up, exec_pipeline, repository

pytestmark = [pytest.mark.service, pytest.mark.timeout(400), pytest.mark.xdist_group("haproxy")]

LINES = 40


@dataclass
class Fleet:
    """Two servers and what is in front of them."""

    one: House
    two: House
    ups: tuple[Up, Up]
    url: str

    def ci(self, *arguments: str) -> Any:
        """`ci` of a person elsewhere, who knows the front only."""
        return self.one.ci(*arguments, **self.access)

    @property
    def access(self) -> dict[str, str]:
        token = (self.one.data_dir / "keys" / "user_token").read_text().strip()
        return {"CISERVER_SERVER": self.url, "CISERVER_TOKEN": token}


@pytest.fixture(params=["http", "tcp"])
def fleet(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    postgres_service: services.Postgres,
    redis_service: services.Redis,
) -> Iterator[Fleet]:
    front = services.free_port()
    url = f"http://127.0.0.1:{front}"
    shared = {
        "CISERVER_DATABASE_URL": postgres_service.create(f"haproxy_{secrets.token_hex(4)}"),
        "CISERVER_REDIS_URL": redis_service.url,
        "CISERVER_PUBLIC_URL": url,
        "CISERVER_SECRET_KEY": secrets.token_hex(32),
        "CISERVER_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
        "CISERVER_JOIN_TOKEN": "cij_" + secrets.token_hex(24),
        "CISERVER_LOG_STORE": "database",
        "CISERVER_AGENT": "false",
    }
    houses = [House(tmp_path / name, extra=shared) for name in ("one", "two")]
    addresses = {
        f"CISERVER_{house.folder.name.upper()}": f"127.0.0.1:{house.port}" for house in houses
    }
    with contextlib.ExitStack() as stack:
        ups = []
        for house in houses:
            house.folder.mkdir()
            ups.append(stack.enter_context(house.up()))
        configuration = ROOT / "compose" / f"haproxy-{request.param}.cfg"
        bind = {"CISERVER_FRONT": f"127.0.0.1:{front}", **addresses}
        stack.enter_context(services.haproxy(configuration, front, **bind))
        stack.enter_context(_agent(tmp_path, url, shared["CISERVER_JOIN_TOKEN"]))
        yield Fleet(houses[0], houses[1], (ups[0], ups[1]), url)


def _agent(folder: Path, url: str, token: str) -> Any:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "CISERVER_AGENT_SERVER": url,
        "CISERVER_AGENT_TOKEN": token,
        "CISERVER_AGENT_STATE_DIR": str(folder / "agent"),
        "CISERVER_AGENT_ISOLATION": "shell",
        "CISERVER_AGENT_EXEC_UNTRUSTED": "true",
    }
    argv = [sys.executable, "-m", "celery", "-A", "agents", "worker"]
    return services.running(argv, folder / "agent.log", environ)


@pytest.mark.parametrize("dies", [0, 1])
def test_a_build_and_its_live_log_outlive_a_server(fleet: Fleet, tmp_path: Path, dies: int) -> None:
    gate = tmp_path / "gate"
    wait = f"while [ ! -e {gate} ]; do sleep 0.05; done"
    count = f"for i in $(seq {LINES}); do echo line $i; sleep 0.02; done"
    repo = repository(tmp_path / "hello", exec_pipeline("echo before", wait, count))
    output = tmp_path / "output"
    environ = {**fleet.one.environ, **fleet.access}
    with services.running([*CI, "build", str(repo)], output, environ) as build:
        services.wait_for("the first line", lambda: "| before\n" in output.read_text(), LIMIT_S)
        fleet.ups[dies].process.kill()
        fleet.ups[dies].process.wait()
        gate.touch()
        code = build.wait(LIMIT_S)

    text = output.read_text()
    assert code == 0, text
    shown = [line for line in text.splitlines() if line.startswith("main/step | line ")]
    assert shown == [f"main/step | line {n}" for n in range(1, LINES + 1)]
    assert text.splitlines()[-1].startswith("build 1: success")
    again = fleet.ci("build", str(repo))
    assert again.returncode == 0, again.stdout + again.stderr
    builds = json.loads(fleet.ci("status", "local/hello", "--json").stdout)
    assert [build["status"] for build in builds] == ["success", "success"]
