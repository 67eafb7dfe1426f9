"""The server worker's Celery app: `celery -A ciserver worker`."""

from __future__ import annotations

import os
import threading
from typing import Any

from celery import Celery, bootsteps

from pipeline.routing import SERVER_QUEUE, TICKET_TRANSPORT

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ciserver.settings")
# Django's checks import every page and view: 20 MB and half a second for nothing that is run here
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

from django.conf import settings

app = Celery("ciserver")
app.conf.update(
    broker_url=settings.BROKER_URL,
    broker_transport_options={
        **TICKET_TRANSPORT,
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
    },
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_pool_acquire_timeout=5,
    broker_connection_timeout=5,
    task_default_queue=SERVER_QUEUE,
    task_default_exchange="",
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_publish_retry=False,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
)
app.autodiscover_tasks(["builds"])


class Loops(bootsteps.StartStopStep):
    """Runs the loops of `builds` in a thread for as long as the worker lives."""

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, parent: Any) -> None:
        """Called when the worker starts."""
        from builds.loops import run_forever

        self._thread = threading.Thread(
            target=run_forever, args=(self._ended,), name="loops", daemon=True
        )
        self._thread.start()

    def close(self, parent: Any) -> None:
        """Called when the worker is about to stop: break off its wait for a message.

        The wait would hold the end up by seconds. What it would have brought is done by the loops.
        """
        channel = getattr(parent.consumer.task_consumer, "channel", None)
        connection = getattr(getattr(channel, "client", None), "connection", None)
        if connection is not None:
            connection.disconnect()

    def stop(self, parent: Any) -> None:
        """Called when the worker stops."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=5)


app.steps["worker"].add(Loops)
