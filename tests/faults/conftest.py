"""Clusters for fault tests, and what every one of them checks at its end."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import DEFAULT_LEASES, Cluster, cluster


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A running server on SQLite, without agents; lease times are short but for long absences."""
    with cluster(**(DEFAULT_LEASES if request.config.getoption("away") else {})) as built:
        yield built


@pytest.fixture(scope="session")
def house() -> Iterator[Cluster]:
    """A running server for many tests, which stop their agents: of the group `faults-house`."""
    with cluster(lost_grace_s="60") as built:
        yield built


@pytest.fixture
def tag() -> str:
    """For names of agents and repositories that no other test has, nor this one's repetition."""
    return secrets.token_hex(3)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A file to which each step appends a line when it starts: it shows what ran, and how often."""
    return tmp_path / "runs"
