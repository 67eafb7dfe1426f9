"""The server worker's Celery app: `celery -A ciserver worker`."""

from __future__ import annotations

import os

from celery import Celery

from pipeline.routing import SERVER_QUEUE, TICKET_TRANSPORT

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ciserver.settings")

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
