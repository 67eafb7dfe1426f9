from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.readiness import Readiness


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(str(tmp_path / "notify"))
        door.settimeout(60)
        yield door


def test_systemd_is_told_of_the_start_and_the_end(systemd: socket.socket) -> None:
    readiness = Readiness(systemd.getsockname(), "joined as builder-1")
    assert systemd.recv(1000) == b"READY=1\nSTATUS=joined as builder-1"

    readiness.close()
    assert systemd.recv(1000) == b"STOPPING=1"


def test_a_socket_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    Readiness(str(tmp_path / "nobody"), "x").close()
