"""An agent's presence call, held until the server wants something of the agent."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from channels.db import database_sync_to_async

from builds import claims
from builds.api.auth import bearer
from builds.api.exchange import Exchange, Refusal
from builds.doorbells import LOOK_S, Doorbell, doorbell
from builds.membership import check_protocol
from builds.models import Agent
from pipeline.spec import from_json, to_json
from pipeline.wire import Orders, Presence

MAX_HOLD_S: Final = 45.0
#: An agent that is told again what it is still busy with shall not ask without a pause.
PAUSE_S: Final = 0.5


async def present(exchange: Exchange, agent_id: int) -> None:
    """`PUT /agent/v1/agents/{id}`: take a sign of life, answer with orders when there are any."""
    token = bearer(exchange.header("Authorization"))
    try:
        presence = from_json(Presence, json.loads(await exchange.body()))
    except ValueError as fault:
        raise Refusal(400, str(fault), "request:malformed") from fault
    async with doorbell(f"agent-{agent_id}") as bell:
        orders = await _wait(exchange, bell, token, agent_id, presence)
    if orders is not None:
        await exchange.json(to_json(orders), 200)


async def _wait(
    exchange: Exchange, bell: Doorbell, token: str, agent_id: int, presence: Presence
) -> Orders | None:
    """The orders, at the latest when the hold is over; None where the agent hung up."""
    ask = database_sync_to_async(_orders)
    clock = asyncio.get_running_loop().time
    hold_s = min(max(presence.hold_s, 0.0), MAX_HOLD_S)
    until = clock() + hold_s
    first: Orders = await ask(token, agent_id, presence)
    if not _quiet(presence, first, first):
        await asyncio.sleep(min(hold_s, PAUSE_S))
        return first
    orders = first
    while _quiet(presence, first, orders) and (left := until - clock()) > 0:
        ring = asyncio.create_task(bell.wait(min(left, LOOK_S)))
        done, _ = await asyncio.wait((ring, exchange.gone()), return_when=asyncio.FIRST_COMPLETED)
        if ring not in done:
            ring.cancel()
            return None
        orders = await ask(token, agent_id, presence)
    return orders


def _orders(token: str, agent_id: int, presence: Presence) -> Orders:
    agent: Agent | None = claims.agent_by_token(token)
    if agent is None:
        raise Refusal(401, "unknown or revoked agent token", "agent:unknown")
    if agent.pk != agent_id:
        raise Refusal(403, "this token is another agent's", "agent:not-yours")
    try:
        check_protocol(presence.v)
    except claims.Refused as refused:  # the server was upgraded: it joins anew, and is told why not
        raise Refusal(403, str(refused), refused.code) from refused
    return claims.presence(agent, presence)


def _quiet(presence: Presence, first: Orders, orders: Orders) -> bool:
    """Whether there is nothing that the agent does not know yet."""
    draining = orders.action == "drain" and presence.state == "draining"
    return (
        (orders.action == "continue" or draining)
        and not orders.cancelled
        and orders.queues == first.queues
    )
