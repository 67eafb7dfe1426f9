"""Reports and artifacts through a real server and its agent."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import House, repository

pytestmark = [pytest.mark.service, pytest.mark.timeout(400)]
SIZE = 5_000_000
PIPELINE = f"""\
kind: pipeline
type: exec
name: make
steps:
- name: test
  commands:
  - mkdir -p out dist/bin
  - |
    cat > out/junit.xml <<END
    <testsuite name="s"><testcase name="one"/><testcase name="two"><failure message="no"/>
    </testcase></testsuite>
    END
  - head -c {SIZE} /dev/zero > dist/bin/app
  - artifact push dist --expire 7d
  reports: out/*.xml
---
kind: pipeline
type: exec
name: use
depends_on: [make]
steps:
- name: pull
  commands:
  - artifact pull dist/bin/app here
  - wc -c < here
"""


def get(house: House, path: str) -> bytes:
    """What the API answers to the first user."""
    token = (house.data_dir / "keys" / "user_token").read_text().strip()
    url = f"http://127.0.0.1:{house.port}/api/repos/local/repo/builds/1/{path}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        data: bytes = answer.read()
    return data


def test_a_stage_leaves_tests_and_files_for_the_next_and_for_people(tmp_path: Path) -> None:
    house = House(tmp_path)
    repo = repository(tmp_path / "repo", PIPELINE)
    with house.up():
        built = house.ci("build", str(repo))
        assert built.returncode == 0, built.stdout + built.stderr
        tests: dict[str, Any] = json.loads(get(house, "tests"))
        (row,) = json.loads(get(house, "artifacts"))
        app = get(house, f"artifacts/{row['path']}")

    assert "Pulled dist/bin/app to here: 1 file" in built.stdout
    assert str(SIZE) in built.stdout
    assert (tests["passed"], tests["failed"]) == (1, 1)
    assert [one["name"] for one in tests["failures"]] == ["two"]
    assert (row["path"], row["size"]) == ("dist/bin/app", SIZE)
    assert hashlib.sha256(app).hexdigest() == row["sha256"]
