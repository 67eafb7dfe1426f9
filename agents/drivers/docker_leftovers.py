"""What earlier lives of agents left in an engine, found by label and removed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import structlog

from agents.drivers.base import DriverError
from agents.drivers.docker_container import OWNER_LABEL, expired
from agents.drivers.docker_engine import Engine

log = structlog.get_logger(__name__)

_ORDER: Final = ("container", "network", "volume", "image")


def sweep(engine: Engine, owner: str) -> int:
    """Remove everything of `owner`, and of any agent whose time is over; returns how many.

    Call it while the owner runs nothing. Never raises: what cannot be removed is logged.
    """
    removed = 0
    try:
        found = list(engine.labelled(OWNER_LABEL))
    except DriverError as fault:
        log.warning("docker.sweep-failed", reason=str(fault))
        return 0
    for kind in _ORDER:
        for one, name, labels in found:
            if one == kind and _is_leftover(labels, owner):
                removed += remove(engine, kind, name)
    if removed:
        log.info("docker.swept", removed=removed)
    return removed


def _is_leftover(labels: Mapping[str, str], owner: str) -> bool:
    return labels.get(OWNER_LABEL) == owner or expired(labels, time.time())


def remove(engine: Engine, kind: str, name: str) -> bool:
    """Remove one object; false, and a line in the log, if it stays."""
    verbs = {
        "container": engine.remove_container,
        "network": engine.remove_network,
        "volume": engine.remove_volume,
        "image": engine.remove_image,
    }
    try:
        verbs[kind](name)
    except DriverError as fault:
        log.warning("docker.remove-failed", kind=kind, name=name, reason=str(fault))
        return False
    return True
