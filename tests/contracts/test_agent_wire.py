"""The agent protocol's messages as they are on the wire: pinned, because agents may be older."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pipeline import wire
from pipeline.spec import StageSpec, from_json, to_json

MESSAGES: list[tuple[Any, dict[str, Any]]] = [
    (
        wire.Join("one", "0.1.0", labels={"gpu": "yes"}, types=("exec", "docker"), capacity=4),
        {
            "name": "one",
            "version": "0.1.0",
            "labels": {"gpu": "yes"},
            "types": ["exec", "docker"],
            "capacity": 4,
            "v": 1,
        },
    ),
    (
        wire.Joined(3, "cia_x", "redis://x", ("ci.q.exec.linux.amd64",)),
        {
            "id": 3,
            "token": "cia_x",
            "broker_url": "redis://x",
            "queues": ["ci.q.exec.linux.amd64"],
            "v": 1,
        },
    ),
    (
        wire.Presence(busy=1, leases=("a",), hold_s=45.0),
        {"busy": 1, "leases": ["a"], "hold_s": 45.0, "v": 1},
    ),
    (wire.Orders(), {"v": 1}),
    (
        wire.Orders("drain", "why", ("a",), ("q",)),
        {"action": "drain", "reason": "why", "cancelled": ["a"], "queues": ["q"], "v": 1},
    ),
    (
        wire.Claim("nonce-0001", ("q",), {"A": "b"}),
        {"nonce": "nonce-0001", "queues": ["q"], "environ": {"A": "b"}, "v": 1},
    ),
    (
        wire.Claimed("l", StageSpec("o/n", 1, 1)),
        {"lease": "l", "spec": {"repo": "o/n", "build": 1, "stage": 1, "v": 1}, "v": 1},
    ),
    (
        wire.Report(
            "running",
            True,
            steps=(wire.StepReport(1, "running", started_ms=5),),
            logs=(wire.LogPart(1, 0, "eA=="),),
        ),
        {
            "status": "running",
            "begun": True,
            "steps": [{"number": 1, "status": "running", "started_ms": 5}],
            "logs": [{"step": 1, "from_": 0, "data": "eA=="}],
            "v": 1,
        },
    ),
    (wire.Pace(True, 0, {"1": 7}), {"cancel": True, "pace_ms": 0, "next": {"1": 7}, "v": 1}),
    (wire.Appended(7), {"next": 7, "v": 1}),
]
each_message = pytest.mark.parametrize(
    ("message", "data"), MESSAGES, ids=[type(message).__name__ for message, _ in MESSAGES]
)


@each_message
def test_a_message_is_this_json(message: Any, data: dict[str, Any]) -> None:
    assert to_json(message) == data
    assert from_json(type(message), data) == message


@each_message
def test_a_newer_sender_is_understood(message: Any, data: dict[str, Any]) -> None:
    newer = {**data, "v": 2, "tomorrow": {"a": [1]}}

    assert from_json(type(message), newer) == dataclasses.replace(message, v=2)
