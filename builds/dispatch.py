"""Ringing: a ticket on a queue tells its agents that there may be work. Nothing depends on it.

A ticket that is lost, doubled or late does no harm: the reconciler rings again where stages wait.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog
from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from pipeline.routing import SERVER_QUEUE, TICKET_TASK

log = structlog.get_logger(__name__)

#: What a broker that is away, full or unwilling raises.
BROKER_FAULTS = (OperationalError, RedisError, OSError)


def ring(queue: str, times: int = 1) -> None:
    """Put tickets on a queue once the current transaction has committed."""
    transaction.on_commit(lambda: ring_now(queue, times))


def ring_all(queues: Iterable[str]) -> None:
    """Ring each queue as often as it is named."""
    for queue in queues:
        ring(queue)


def ring_now(queue: str, times: int = 1) -> bool:
    """Put tickets on a queue at once; whether the broker took them."""
    try:
        for _ in range(times):
            current_app.send_task(TICKET_TASK, queue=queue, ignore_result=True, retry=False)
    except BROKER_FAULTS as fault:
        log.warning("queue.not_rung", queue=queue, error=str(fault))
        return False
    return True


def send(task: str, *args: object) -> bool:
    """Ask the server worker to run one of `builds.tasks`; whether the broker took it."""
    try:
        current_app.send_task(task, args=args, queue=SERVER_QUEUE, ignore_result=True, retry=False)
    except BROKER_FAULTS as fault:
        log.warning("task.not_sent", task=task, error=str(fault))
        return False
    return True


def waiting(queues: Iterable[str]) -> dict[str, int]:
    """How many tickets lie on each queue.

    Raises: one of `BROKER_FAULTS` when the broker is away.
    """
    lengths = {}
    with current_app.connection_for_write() as connection:
        channel = connection.default_channel
        for queue in queues:
            lengths[queue] = _length(channel, queue)
    return lengths


def _length(channel: object, queue: str) -> int:
    """An empty queue does not exist in Redis: asking for it passively is refused."""
    from kombu.exceptions import ChannelError

    try:
        return int(channel.queue_declare(queue, passive=True).message_count)  # type: ignore[attr-defined]
    except ChannelError:
        return 0
