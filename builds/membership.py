"""Agents come, say that they are there, and go; and what their join token lets them have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone

from builds import transitions
from builds.models import Agent, JoinToken, Lease, Stage
from builds.rows import Rows
from builds.secrets import hash_token, identify, matches, new_token
from builds.transitions import StaleTransition
from pipeline import states
from pipeline.conditions import glob
from pipeline.errors import UserError
from pipeline.routing import agent_queues, queue_name
from pipeline.wire import OLDEST, PROTOCOL, Join, Joined, Orders, Presence

log = structlog.get_logger(__name__)

AGENT_TOKEN, JOIN_TOKEN = "cia", "cij"
GIVEN: Final = "settings"
#: What agents may be called. Source: Semaphore's hub; dots are of Drone's runners' host names.
NAME: Final = re.compile(r"[A-Za-z0-9._/+-]{1,80}")
#: How often a name is tried that others take and free meanwhile.
_NAME_TRIES: Final = 3
IDLE, BUSY, DRAINING, AWAY = "idle", "busy", "draining", "away"
_AGENTS: Final = Rows(
    {"a": Agent, "t": JoinToken},
    f"""FROM {Agent._meta.db_table} a LEFT JOIN {JoinToken._meta.db_table} t
    ON t.id = a.join_token_id WHERE a.token_prefix = %s""",
)
_REPORTED: Final = frozenset({IDLE, BUSY, DRAINING})


class Refused(UserError):
    """An agent may not do what it asked for; `code` says which rule, the message why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, code)


# --- join tokens ----------------------------------------------------------------------------------


def new_join_token(name: str, **bounds: Any) -> str:
    """Make a join token with the bounds of `JoinToken`'s fields; its text is shown only here."""
    row = JoinToken(name=name, **bounds)
    text = give_token(row)
    row.save()
    return text


def give_token(row: JoinToken) -> str:
    """Give a row that is not saved yet a new token; its text, kept nowhere."""
    token = new_token(JOIN_TOKEN)
    row.token_prefix, row.token_sha256 = token.prefix, token.sha256
    return token.text


def given_join_token() -> JoinToken | None:
    """The row of the token that the settings give, made if need be; None where they give none."""
    text = settings.JOIN_TOKEN
    if not text:
        return None
    token = identify(text)
    row, _ = JoinToken.objects.get_or_create(
        name=GIVEN, defaults={"token_prefix": token.prefix, "token_sha256": token.sha256}
    )
    if row.token_sha256 != token.sha256:
        row.token_prefix, row.token_sha256 = token.prefix, token.sha256
        row.save(update_fields=["token_prefix", "token_sha256"])
    return row


def _join_token(text: str) -> JoinToken:
    rows = JoinToken.objects.filter(token_prefix=identify(text).prefix)
    found = next((row for row in rows if matches(row.token_sha256, text)), None)
    if found is None and settings.JOIN_TOKEN and matches(hash_token(settings.JOIN_TOKEN), text):
        found = given_join_token()
    if found is None:
        raise Refused("agent:unknown-token", "this server does not know the join token")
    return found


def check_protocol(version: int) -> None:
    """Whether an agent's messages are not too old for this server. Raises: Refused."""
    if version < OLDEST:
        known = f"{OLDEST} to {PROTOCOL}" if OLDEST < PROTOCOL else str(PROTOCOL)
        text = f"this agent speaks version {version} of the agent protocol, the server {known}: "
        raise Refused("agent:too-old", f"{text}upgrade the agent")


# --- coming and going -----------------------------------------------------------------------------


def join(text: str, hello: Join, address: str) -> Joined:
    """Take an agent in, or back: its own token, its id, its queues and where tickets come from.

    An agent that proves who it was keeps its row. Otherwise a name belongs to the agent that has
    it, as long as that is there or has unfinished stages; afterwards another takes its row over.
    What an administrator said of an agent (drain, labels) outlives its restarts.

    Raises: Refused.
    """
    token = _admit(text, hello)
    own = new_token(AGENT_TOKEN)
    values = _described(hello) | {
        "join_token": token,
        "token_prefix": own.prefix,
        "token_sha256": own.sha256,
        "left": None,
        "reason": "",
        "state": IDLE,
    }
    agent = Agent.objects.select_related("join_token").get(pk=_row(hello, token, values))
    log.info("agent.joined", agent=agent.name, address=address, token=token.name)
    return Joined(agent.pk, own.text, settings.AGENT_BROKER_URL, tuple(queues(agent)))


def would_join(text: str, hello: Join) -> Joined:
    """What an agent would be told if it joined, but no agent is made. Raises: Refused."""
    token = _admit(text, hello)
    row = _returning(hello) or Agent.objects.filter(name=hello.name).first()
    if row is not None:
        _check_row(row, hello, token)
    return Joined(0, "", settings.AGENT_BROKER_URL)


def _admit(text: str, hello: Join) -> JoinToken:
    """The join token that lets an agent in. Raises: Refused."""
    check_protocol(hello.v)
    token = _join_token(text)
    _check_bounds(token, hello)
    return token


def agent_by_token(text: str) -> Agent | None:
    """The agent whose own token this is."""
    if not text.startswith(AGENT_TOKEN):
        return None
    for agent, token in _AGENTS.all(identify(text).prefix):
        if matches(agent.token_sha256, text):
            agent.join_token = token
            found: Agent = agent
            return found
    return None


def presence(agent: Agent, sign: Presence) -> Orders:
    """Note that an agent is there, and how it is; what the server wants of it."""
    changes: dict[str, Any] = {
        "seen": Now(),
        "left": None,
        "state": sign.state if sign.state in _REPORTED else IDLE,
        "reason": sign.reason[:250],
        "busy": sign.busy,
        "load": sign.load,
        "disk_free_bytes": sign.disk_free_bytes,
    }
    if sign.version:
        changes["version"] = sign.version[:50]
    Agent.objects.filter(pk=agent.pk).update(**changes)
    return orders(agent, sign.leases)


def orders(agent: Agent, leases: Sequence[str]) -> Orders:
    """What the server wants of an agent that holds these leases. Reads only."""
    current = Agent.objects.select_related("join_token").get(pk=agent.pk)
    held = Lease.objects.filter(agent=agent, state=Lease.OPEN).values_list("pk", flat=True)
    wanted = set(held) if leases else set()
    action, reason = _wanted(current)
    return Orders(
        action=action,
        reason=reason,
        cancelled=tuple(lease for lease in leases if lease not in wanted),
        queues=tuple(queues(current)),
    )


def _wanted(agent: Agent) -> tuple[str, str]:
    """The action an administrator wants of an agent, and why."""
    if agent.disabled:
        return "shutdown", "an administrator disabled this agent"
    if agent.drain:
        return "drain", "an administrator drains this agent"
    return "continue", ""


def leave(agent: Agent, reason: str) -> None:
    """Let an agent go: what it had not begun is queued again, what it had begun is an error."""
    rows = Lease.objects.filter(agent=agent, state=Lease.OPEN)
    for lease in rows.select_related("stage__build__repo"):
        try:
            if lease.begun:
                text = f"agent {agent.name} left before it finished: {reason or 'no reason given'}"
                transitions.finish_stage_error(lease.stage, text, attempt=lease.attempt)
            else:
                transitions.requeue(lease.stage)
        except StaleTransition:
            continue
    Agent.objects.filter(pk=agent.pk).update(
        left=Now(), seen=Now(), reason=reason[:250], state=AWAY, busy=0
    )
    log.info("agent.left", agent=agent.name, reason=reason)


def _described(hello: Join) -> dict[str, Any]:
    return {
        "version": hello.version[:50],
        "os": hello.os[:50],
        "arch": hello.arch[:50],
        "variant": hello.variant[:50],
        "kernel": hello.kernel[:250],
        "labels": dict(hello.labels),
        "types": list(hello.types),
        "capacity": max(hello.capacity, 1),
    }


# --- names ----------------------------------------------------------------------------------------


def _row(hello: Join, token: JoinToken, values: Mapping[str, Any]) -> int:
    """The id of the row that is the agent's from now on. Raises: Refused."""
    row = _returning(hello)
    for _ in range(_NAME_TRIES):
        row = row or Agent.objects.filter(name=hello.name).first()
        if row is None:
            row = _new(hello.name, values)
            if row is not None:
                return row.pk
            continue
        _check_row(row, hello, token)
        if _take_over(row, hello.name, values):
            return row.pk
        row = None
    raise Refused("agent:name", f"the name {hello.name} is in use")


def _returning(hello: Join) -> Agent | None:
    """The row of the agent that this one proves to have been."""
    if not hello.previous or not hello.previous_token:
        return None
    row = Agent.objects.filter(pk=hello.previous).first()
    return row if row and matches(row.token_sha256, hello.previous_token) else None


def _new(name: str, values: Mapping[str, Any]) -> Agent | None:
    """A row under this name; None if somebody has just made one."""
    now = timezone.now()
    try:
        with transaction.atomic():
            return Agent.objects.create(name=name, joined=now, seen=now, **values)
    except IntegrityError:
        return None


def _take_over(row: Agent, name: str, values: Mapping[str, Any]) -> bool:
    """Make a row the joining agent's; False if somebody else was faster, or has the name."""
    labels = values["labels"] if row.relabelled is None else row.relabelled
    rows = Agent.objects.filter(pk=row.pk, token_sha256=row.token_sha256)
    changes = {**values, "name": name, "labels": labels, "joined": Now(), "seen": Now()}
    try:
        with transaction.atomic():
            return bool(rows.update(**changes))
    except IntegrityError:
        return False


def _check_row(row: Agent, hello: Join, token: JoinToken) -> None:
    """Whether a joining agent may have this row. Raises: Refused."""
    if row.disabled:
        raise Refused("agent:disabled", f"an administrator disabled the agent {row.name}")
    if matches(row.token_sha256, hello.previous_token):
        return
    if row.join_token_id not in (None, token.pk):
        raise Refused("agent:name", f"{row.name} is the name of an agent of another join token")
    # one that has said nothing since it joined never got the answer to that
    if row.seen == row.joined:
        return
    if not (row.left or _is_silent(row)):
        raise Refused("agent:name", f"there is an agent {row.name} at work: choose another name")
    if Lease.objects.filter(agent=row).exclude(state=Lease.CLOSED).exists():
        text = f"the last agent {row.name} left unfinished stages that wait for it: try again later"
        raise Refused("agent:name", text)


def _is_silent(row: Agent) -> bool:
    """Whether an agent is lost, by the database's clock."""
    silence = timedelta(seconds=settings.LEASE_LOST_S)
    return Agent.objects.filter(pk=row.pk, seen__lt=Now() - silence).exists()


# --- bounds ---------------------------------------------------------------------------------------


def _check_bounds(token: JoinToken, hello: Join) -> None:
    if not NAME.fullmatch(hello.name):
        what = "an agent's name has 1 to 80 of A-Z a-z 0-9 . - _ / +"
        raise Refused("agent:bad-name", f"{what}, and not {hello.name[:100]!r}")
    if not _is_valid(token):
        raise Refused("agent:token-ended", f"the join token {token.name} is disabled or expired")
    if not _has_labels(hello.labels, token):
        raise Refused("agent:labels", f"agents of {token.name} must have labels {token.labels}")
    if token.platforms and f"{hello.os}/{hello.arch}" not in token.platforms:
        allowed = ", ".join(token.platforms)
        raise Refused("agent:platform", f"agents of {token.name} must run on {allowed}")
    if token.types and not set(hello.types) & set(token.types):
        allowed = ", ".join(token.types)
        raise Refused("agent:types", f"agents of {token.name} may only run {allowed}")


def _is_valid(token: JoinToken) -> bool:
    return not token.disabled and (token.expires is None or token.expires > timezone.now())


def _has_labels(labels: Mapping[str, str], token: JoinToken) -> bool:
    return all(labels.get(key) == value for key, value in token.labels.items())


def may_claim(agent: Agent) -> bool:
    """Whether an agent gets work at all now; its token's bounds count as they are today."""
    token = agent.join_token
    if agent.disabled or agent.drain or token is None or not _is_valid(token):
        return False
    on_platform = not token.platforms or f"{agent.os}/{agent.arch}" in token.platforms
    return on_platform and _has_labels(agent.labels, token)


def types(agent: Agent) -> list[str]:
    """What an agent offers to run and its token lets it."""
    allowed = agent.join_token.types if agent.join_token else []
    return [word for word in agent.types if not allowed or word in allowed]


def own_queues(agent: Agent) -> list[str]:
    """Queues of stages that ask for exactly the agent's labels."""
    return agent_queues(types(agent), agent.os, agent.arch, [agent.labels])


def subset_queues(agent: Agent) -> list[str]:
    """Further queues of waiting stages whose repos let an agent have more labels than asked for."""
    if not agent.labels:
        return []
    rows = Stage.objects.filter(status=states.PENDING, os=agent.os)
    if not settings.SUBSET_LABELS:
        rows = rows.filter(repo__subset_labels=True)
    asked = rows.filter(arch=agent.arch).values_list("labels", flat=True).distinct()
    fitting = [labels for labels in asked if labels.items() <= agent.labels.items()]
    return agent_queues(types(agent), agent.os, agent.arch, fitting) if fitting else []


def queues(agent: Agent) -> list[str]:
    """Every queue an agent is to listen to."""
    return sorted({*own_queues(agent), *subset_queues(agent)})


def repos_in_bounds(agent: Agent) -> list[int] | None:
    """Ids of the repos with waiting stages that an agent may build; None where it may all."""
    globs = agent.join_token.repos if agent.join_token else []
    if not globs:
        return None
    waiting = Stage.objects.filter(status=states.PENDING).values_list("repo_id", "repo__slug")
    return [pk for pk, slug in waiting.distinct() if any(glob(one, slug) for one in globs)]


# --- why a stage waits ----------------------------------------------------------------------------


def described(stage: Stage) -> str:
    """In one sentence, which agents a pending stage waits for."""
    agents = list(Agent.objects.filter(left=None).select_related("join_token"))
    fitting = [agent for agent in agents if _fits(agent, stage)]
    if not fitting:
        return f"no agent has joined that runs {_asked(stage)}"
    ready = [agent for agent in fitting if may_claim(agent) and agent.state != AWAY]
    if not ready:
        names = ", ".join(agent.name for agent in fitting)
        return f"the agents for it are away, draining or disabled: {names}"
    return f"waits for a free agent: {', '.join(agent.name for agent in ready)}"


def _fits(agent: Agent, stage: Stage) -> bool:
    if stage.type not in types(agent) or (stage.os, stage.arch) != (agent.os, agent.arch):
        return False
    if stage.variant not in ("", agent.variant) or stage.kernel not in ("", agent.kernel):
        return False
    globs = agent.join_token.repos if agent.join_token else []
    if globs and not any(glob(one, stage.repo.slug) for one in globs):
        return False
    if stage.repo.subset_labels or settings.SUBSET_LABELS:
        return bool(stage.labels.items() <= agent.labels.items())
    return stage.queue == queue_name(stage.type, agent.os, agent.arch, agent.labels)


def _asked(stage: Stage) -> str:
    labels = ", ".join(f"{key}={value}" for key, value in sorted(stage.labels.items()))
    words = f"type {stage.type} on {stage.os or 'linux'}/{stage.arch or 'amd64'}"
    return f"{words} with labels {labels}" if labels else words
