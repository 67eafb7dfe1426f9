"""Names of queues: which Celery queue a stage is rung on and which an agent listens to; and where.

A ticket on a queue only says that there may be work; whether an agent may run a stage is decided
by the
claim. So a queue's name needs just what keeps most bells away from agents that cannot answer them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

AGENT_PREFIX: Final = "ci.q."
SERVER_PREFIX: Final = "ci.srv."
SERVER_QUEUE: Final = SERVER_PREFIX + "work"
TICKET_TASK: Final = "agents.ticket"
#: Broker options of everyone who publishes or takes tickets (see the design, section 6).
TICKET_TRANSPORT: Final[Mapping[str, object]] = {
    "ack_emulation": False,
    "priority_steps": [0],
    "queue_order_strategy": "round_robin",
    "polling_interval": 5,
}


def redis_py_url(url: str) -> str:
    """A kombu URL of Redis as redis-py writes it: they differ for unix sockets."""
    return "unix" + url.removeprefix("redis+socket") if url.startswith("redis+socket") else url


def secured(url: str, wanted: Mapping[str, str]) -> str:
    """A Redis's address, or several between `;`, with what is wanted where it speaks TLS.

    `wanted` are parameters (`ssl_cert_reqs`, …) as kombu and redis-py know them; those in the
    address count more. Without any kombu would trust anybody.
    """
    return ";".join(_with(one, wanted) for one in url.split(";"))


def _with(url: str, wanted: Mapping[str, str]) -> str:
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return url
    said = parse_qs(parts.query)
    added = urlencode({name: text for name, text in wanted.items() if name not in said})
    return parts._replace(query="&".join(filter(None, (parts.query, added)))).geturl()


def queue_name(type_: str, os: str, arch: str, labels: Mapping[str, str]) -> str:
    """The queue of stages of `type_` for a platform that need `labels`.

    Labels are hashed: a queue's name stays short and reveals nothing to who may list the keys.
    """
    name = f"{AGENT_PREFIX}{type_ or 'docker'}.{os or 'linux'}.{arch or 'amd64'}"
    if not labels:
        return name
    text = "\n".join(f"{key}={labels[key]}" for key in sorted(labels))
    return f"{name}.{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def agent_queues(
    types: Iterable[str], os: str, arch: str, label_sets: Iterable[Mapping[str, str]]
) -> list[str]:
    """Every queue an agent of these types serves, one per type and set of labels, sorted."""
    sets = list(label_sets) or [{}]
    return sorted({queue_name(type_, os, arch, labels) for type_ in types for labels in sets})
