"""What administrators tell agents: drain, disable, relabel, revoke, delete.

Each is a row in the audit and a ring at the agent, which is told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from django.conf import settings

from builds import events, membership
from builds.models import Agent, Audit, User
from pipeline.errors import UserError

log = structlog.get_logger(__name__)

#: The verbs that set a word, by name: what they change.
WORDS: Final[Mapping[str, Mapping[str, bool]]] = {
    "drain": {"drain": True},
    "undrain": {"drain": False},
    "disable": {"disabled": True},
    "enable": {"disabled": False},
}


def standing(
    *, left: datetime | None, seen: datetime, disabled: bool, drain: bool, busy: bool, now: datetime
) -> str:
    """How an agent is, in one word: offline, lost, disabled, draining, busy or idle."""
    words = {
        "offline": left is not None,
        "lost": now - seen > timedelta(seconds=settings.LEASE_LOST_S),
        "disabled": disabled,
        "draining": drain,
        "busy": busy,
    }
    return next((word for word, holds in words.items() if holds), "idle")


def tell(agent: Agent, word: str, by: User) -> None:
    """Say one of `WORDS` to an agent. A drained one finishes what it has and takes nothing new;
    a disabled one leaves then, and may not come back."""
    _change(agent, f"agent.{word}", by, **WORDS[word])


def relabel(agent: Agent, labels: Mapping[str, str] | None, by: User) -> None:
    """Give an agent labels instead of its own, whatever it says at its next start; None: its own
    again, from its next start on.

    Raises: UserError for labels that are none.
    """
    if labels is None:
        _change(agent, "agent.relabel", by, relabelled=None)
        return
    if not isinstance(labels, Mapping) or not all(
        key and isinstance(value, str) for key, value in labels.items()
    ):
        raise UserError("labels: expected an object of names and texts", "agent:bad-labels")
    _change(agent, "agent.relabel", by, relabelled=dict(labels), labels=dict(labels))


def revoke(agent: Agent, by: User) -> None:
    """Make an agent's token worthless and shut its name out: every further call is refused.

    What it had not begun is queued again, what it had begun is an error.
    """
    membership.leave(agent, "an administrator revoked its token")
    _change(agent, "agent.revoke", by, token_prefix="", token_sha256="", disabled=True)


def delete(agent: Agent, by: User) -> None:
    """Forget an agent; its stages end as with `revoke`. One that still runs joins anew."""
    membership.leave(agent, "an administrator deleted it")
    Audit.objects.create(user=by, action="agent.delete", subject=agent.name)
    events.orders(agent.pk)
    Agent.objects.filter(pk=agent.pk).delete()
    log.info("agent.delete", agent=agent.name, by=by.username)


def _change(agent: Agent, action: str, by: User, **changes: Any) -> None:
    Agent.objects.filter(pk=agent.pk).update(**changes)
    Audit.objects.create(user=by, action=action, subject=agent.name)
    events.orders(agent.pk)
    log.info(action, agent=agent.name, by=by.username)
