"""Word to systemd that the agent works, for units of `Type=notify`."""

from __future__ import annotations

import socket

import structlog

log = structlog.get_logger("agents.readiness")


class Readiness:
    """Says that the agent is ready at its making, and that it stops at its closing."""

    def __init__(self, address: str, status: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._tell(f"READY=1\nSTATUS={status}")

    def close(self) -> None:
        """The agent is about to end."""
        self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
                door.sendto(text.encode(), self._address)
        except OSError as fault:
            log.warning("readiness.not-told", reason=str(fault))
