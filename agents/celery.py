"""The Celery application of an agent: `celery -A agents worker`."""

from __future__ import annotations

from typing import Any

from celery import Celery, signals
from kombu.utils.objects import cached_property

from agents.flags import add_flags
from agents.worker import AgentWorker, JoinStep
from pipeline.routing import TICKET_TASK, TICKET_TRANSPORT


class AgentApp(Celery):
    """An application whose workers are agents."""

    amqp_cls = "agents.broker:Amqp"

    @cached_property
    def Worker(self) -> Any:
        """The worker class, bound to this application."""
        return self.subclass_with_self(AgentWorker)


# without fixups: where DJANGO_SETTINGS_MODULE is set, Celery would load Django and its logging
app = AgentApp("agents", fixups=[])
app.conf.update(
    # the real address comes with the answer to the join
    broker_url="redis://",
    broker_transport_options={
        **TICKET_TRANSPORT,
        "socket_connect_timeout": 5,
        "socket_timeout": 30,
        "socket_keepalive": True,
    },
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_pool_acquire_timeout=10,
    accept_content=["json"],
    # else Celery puts its own in the place of a queue's empty one, and binds the queue to it
    task_default_exchange="",
    task_acks_late=False,
    task_ignore_result=True,
    worker_pool="threads",
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)
app.steps["worker"].add(JoinStep)
add_flags(app.user_options["worker"].add)


@signals.setup_logging.connect
def keep_our_logging(**_: Any) -> None:
    """Celery leaves logging alone when somebody listens here."""


@app.task(name=TICKET_TASK, bind=True, ignore_result=True)
def ticket(self: Any, *_: Any, **__: Any) -> None:
    """There may be work: claim until there is none. Tickets name no stage."""
    self.app.agent.serve()
