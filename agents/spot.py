"""Notices that the cloud is about to take this machine back.

Source: EC2's instance metadata, version 2: `spot/instance-action` is 404 until an interruption is
decided, about two minutes ahead.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

log = structlog.get_logger("agents.spot")

POLL_S: Final = 5.0
_TOKEN: Final = "/latest/api/token"  # noqa: S105 - a path
_ACTION: Final = "/latest/meta-data/spot/instance-action"
_TIMEOUT_S: Final = 2.0


class SpotWatch:
    """Asks until closed; calls `on_notice` once, with what was announced."""

    def __init__(
        self, endpoint: str, on_notice: Callable[[str], object], *, poll_s: float = POLL_S
    ) -> None:
        self._endpoint = urlsplit(endpoint)
        self._on_notice = on_notice
        self._poll_s = poll_s
        self._closed = threading.Event()
        self._silent = False
        self._thread = threading.Thread(target=self._watch, name="spot", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            notice = self._ask()
            if notice:
                log.warning("spot.notice", notice=notice)
                self._on_notice(notice)
                return
            if self._closed.wait(self._poll_s):
                return

    def _ask(self) -> str:
        """The notice, or nothing. A metadata service that is away is said once."""
        try:
            status, body = self._look()
        except (OSError, http.client.HTTPException) as fault:
            if not self._silent:
                log.warning("spot.no-metadata", reason=str(fault))
            self._silent = True
            return ""
        self._silent = False
        return _notice(body) if status == 200 else ""

    def _look(self) -> tuple[int, bytes]:
        where = self._endpoint
        connection = http.client.HTTPConnection(
            where.hostname or "", where.port or 80, timeout=_TIMEOUT_S
        )
        try:
            lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
            status, token = _exchange(connection, "PUT", _TOKEN, lifetime)
            headers = {"X-aws-ec2-metadata-token": token.decode("latin-1")} if status == 200 else {}
            return _exchange(connection, "GET", _ACTION, headers)
        finally:
            connection.close()


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, headers: dict[str, str]
) -> tuple[int, bytes]:
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def _notice(body: bytes) -> str:
    try:
        data: Any = json.loads(body)
        return f"{data['action']} at {data['time']}"
    except (ValueError, KeyError, TypeError):
        return "an interruption"
