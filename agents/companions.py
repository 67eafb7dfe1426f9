"""What lives beside the slots as long as the agent does, where the options ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from agents.agent import Agent
from agents.hooks import Reason
from agents.housekeeping import Housekeeper, tidy
from agents.readiness import Readiness
from agents.spot import SpotWatch
from agents.status import StatusServer

log = structlog.get_logger("agents.companions")


class Companion(Protocol):
    """Runs in its own threads from its making on."""

    def close(self) -> None:
        """End; returns when it has."""


def start(agent: Agent) -> list[Companion]:
    """Start the status page, the watch for spot notices, the housekeeper; tell systemd.

    A status port that is taken is logged: builds matter more than the page.
    """
    options = agent.options
    found: list[Companion] = []
    if options.http_bind:
        try:
            found.append(StatusServer(options, agent.board, agent.about))
        except OSError as fault:
            log.error("status.no-port", address=options.http_bind, reason=str(fault))
    if options.spot_notices:
        watch = SpotWatch(options.spot_endpoint, lambda notice: agent.leave(Reason.INTERRUPTED))
        found.append(watch)
    if options.notify_socket:
        name = agent.identity.name if agent.identity else ""
        found.append(Readiness(options.notify_socket, f"joined as {name}"))
    if options.clean_interval:
        found.append(Housekeeper(options.clean_interval, _chores(agent)))
    return found


def _chores(agent: Agent) -> list[Callable[[], object]]:
    """What is cleaned up at intervals."""
    chores: list[Callable[[], object]] = [lambda: tidy(agent.options)]
    driver = agent.drivers.get("docker")
    if driver is not None:
        from agents.drivers.docker import DockerDriver

        if isinstance(driver, DockerDriver):
            chores.append(driver.clean)
    return chores
