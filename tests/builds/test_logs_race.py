"""However many write at once, each position is stored once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import services

pytestmark = pytest.mark.service

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_each_position_is_written_once(
    database: str, data_dir: Path, request: pytest.FixtureRequest
) -> None:
    environ = {**os.environ, "CISERVER_DATA_DIR": str(data_dir)}
    if database == "postgres":
        service: services.Postgres = request.getfixturevalue("postgres_service")
        environ["CISERVER_DATABASE_URL"] = service.create("append_race")
    data_dir.mkdir()

    done = subprocess.run(
        [sys.executable, "-m", "tests.builds.append_race"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
