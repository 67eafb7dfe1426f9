from __future__ import annotations

from typing import Any

import pytest

from agents import broker
from agents.broker import LONGEST, PatientConnection


class Stop(Exception):
    pass


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited; nobody really does."""
    found: list[float] = []
    monkeypatch.setattr(broker, "_wait", lambda seconds, callback: found.append(seconds))
    return found


def refusing(connection: PatientConnection, tries: int) -> list[Any]:
    """Lets the first tries fail; the ports that were tried."""
    ports: list[Any] = []

    def connect() -> object:
        ports.append(connection.port)
        if len(ports) <= tries:
            raise ConnectionRefusedError("nobody listens")
        connection._connection, connection._closed = object(), False
        return connection._connection

    connection._connection_factory = connect
    return ports


def test_waits_double_up_to_the_cap(waits: list[float]) -> None:
    connection = PatientConnection("redis://127.0.0.1:1", transport_options={LONGEST: 2.0})
    refusing(connection, 6)
    assert connection.ensure_connection() is connection
    longest = [0.25, 0.5, 1, 2, 2, 2]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))


def test_each_of_several_addresses_is_tried_before_a_wait(waits: list[float]) -> None:
    connection = PatientConnection("redis://127.0.0.1:1;redis://127.0.0.1:2")
    ports = refusing(connection, 3)
    connection.ensure_connection()
    assert ports == [1, 2, 1, 2]
    assert len(waits) == 1


def test_a_worker_that_is_to_stop_gives_up() -> None:
    connection = PatientConnection("redis://127.0.0.1:1")
    refusing(connection, 1000)

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        connection.ensure_connection(callback=stop)
