"""Clusters for fault tests, and what every one of them checks at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, cluster


@pytest.fixture
def server() -> Iterator[Cluster]:
    """A running server on SQLite, without agents."""
    with cluster() as built:
        yield built


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A file to which each step appends a line when it starts: it shows what ran, and how often."""
    return tmp_path / "runs"
