from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from agents import broker
from agents.broker import LONGEST, PatientConnection, secured
from agents.options import Options
from tests.agents.test_link import certificates
from tests.services import Redis, free_port, short_folder

__all__ = ["certificates"]


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


@pytest.mark.parametrize(
    ("url", "changes", "result"),
    [
        ("redis://h/0", {"ca_file": "/ca"}, "redis://h/0"),
        ("sentinel://h:1", {"ca_file": "/ca"}, "sentinel://h:1"),
        ("rediss://h/0", {}, "rediss://h/0?ssl_cert_reqs=required"),
        ("rediss://h/0", {"skip_verify": True}, "rediss://h/0?ssl_cert_reqs=none"),
        ("rediss://u:p@h/0", {"ca_file": "/my ca"},
         "rediss://u:p@h/0?ssl_cert_reqs=required&ssl_ca_certs=%2Fmy+ca"),
        ("rediss://h/0?ssl_ca_certs=/a", {"ca_file": "/ca"},
         "rediss://h/0?ssl_ca_certs=/a&ssl_cert_reqs=required"),
        ("redis://g/0;rediss://h/0", {"client_cert": "c", "client_key": "k"},
         "redis://g/0;rediss://h/0?ssl_cert_reqs=required&ssl_certfile=c&ssl_keyfile=k"),
    ],
)  # fmt: skip
def test_an_address_is_told_whom_to_trust(url: str, changes: dict[str, Any], result: str) -> None:
    assert secured(url, replace(Options(), **changes)) == result


@pytest.mark.service
def test_redis_is_trusted_by_the_agents_own_authority(certificates: Path, options: Options) -> None:
    pair = {"client_cert": "cert.pem", "client_key": "key.pem"}
    own = {name: str(certificates / file) for name, file in pair.items()}
    trusting = replace(options, ca_file=str(certificates / "cert.pem"), **own)
    with short_folder() as folder:
        service = Redis(free_port(), folder, tls=certificates)
        with service.run():
            assert pings(service, trusting)
            assert pings(service, replace(trusting, ca_file="", skip_verify=True))
            assert not pings(service, replace(trusting, ca_file=""))
            assert not pings(service, replace(trusting, client_cert=""))


def pings(service: Redis, options: Options) -> bool:
    """Whether a connection as the agent's gets an answer."""
    once = {"max_retries": 1, "interval_start": 0}
    connection = PatientConnection(secured(service.url, options), transport_options=once)
    try:
        return bool(connection.default_channel.client.ping())
    except (OperationalError, *connection.recoverable_connection_errors):
        return False
    finally:
        connection.release()
