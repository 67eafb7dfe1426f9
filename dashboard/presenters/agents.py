"""Agents as a list: what they are, what they do now, and since when they are silent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from builds import fleet
from builds.models import Agent, Lease

_TONES = {"offline": "idle", "lost": "bad", "busy": "run", "idle": "ok"}


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A stage that an agent runs now, if the viewer may see its repo."""

    slug: str
    namespace: str
    name: str
    number: int
    stage: str
    since: datetime
    visible: bool


@dataclass(frozen=True, slots=True)
class AgentRow:
    """An agent; `word` is its state in plain words, `tone` how it is coloured."""

    agent: Agent
    word: str
    tone: str
    platform: str
    labels: tuple[str, ...]
    load: str
    disk: str
    leases: tuple[LeaseRow, ...]


def rows(agents: Sequence[Agent], visible: frozenset[int], now: datetime) -> list[AgentRow]:
    """All agents with the leases they hold, in one more query. Leases of repos outside `visible`
    are counted but not named."""
    held: dict[int, list[LeaseRow]] = {}
    leases = (
        Lease.objects.filter(agent__in=agents, state__in=[Lease.OPEN, Lease.CLOSING])
        .select_related("stage__build__repo")
        .order_by("created")
    )
    for lease in leases:
        held.setdefault(lease.agent_id, []).append(_lease(lease, visible))
    return [_row(agent, tuple(held.get(agent.pk, ())), now) for agent in agents]


def _lease(lease: Lease, visible: frozenset[int]) -> LeaseRow:
    build = lease.stage.build
    return LeaseRow(
        slug=build.repo.slug,
        namespace=build.repo.namespace,
        name=build.repo.name,
        number=build.number,
        stage=lease.stage.name,
        since=lease.created,
        visible=build.repo_id in visible,
    )


def _row(agent: Agent, leases: tuple[LeaseRow, ...], now: datetime) -> AgentRow:
    word = fleet.standing(
        left=agent.left,
        seen=agent.seen,
        disabled=agent.disabled,
        drain=agent.drain,
        busy=bool(leases),
        now=now,
    )
    return AgentRow(
        agent=agent,
        word=word,
        tone=_TONES.get(word, "warn"),
        platform="/".join(part for part in (agent.os, agent.arch, agent.variant) if part),
        labels=tuple(f"{key}={value}" for key, value in sorted(agent.labels.items())),
        load=f"{agent.load:.2f}",
        disk=f"{agent.disk_free_bytes / 1e9:.0f} GB" if agent.disk_free_bytes else "",
        leases=leases,
    )
