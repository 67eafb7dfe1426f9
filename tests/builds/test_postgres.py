"""The domain's tests once more, on PostgreSQL: its statements and locks are not SQLite's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import Postgres

ROOT = Path(__file__).parents[2]
AGAIN = (
    "claims", "clock", "domain", "logs", "loops", "membership", "queue", "races", "transitions",
    "triggers",
)  # fmt: skip


@pytest.mark.service
@pytest.mark.timeout(600)
def test_the_domain_holds_on_postgresql(postgres_service: Postgres) -> None:
    # what this run's own conftest has set would be read before the other's has its turn
    own = ("CISERVER_", "DJANGO_", "PYTEST_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    environ = {
        **inherited,
        "CISERVER_TEST_DATABASE_URL": postgres_service.create("domain"),
    }
    files = [f"tests/builds/test_{name}.py" for name in AGAIN]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
