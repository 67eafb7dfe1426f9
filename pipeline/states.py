"""Statuses of builds, stages and steps: the legal moves and how they roll up.

Source: Drone's words (reference: pipeline format, sections 3.3 and 3.4). The moves are ours: they
are the
table that `builds.transitions` performs and that the agent's snapshots are merged by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

SKIPPED: Final = "skipped"
BLOCKED: Final = "blocked"
DECLINED: Final = "declined"
WAITING: Final = "waiting_on_dependencies"
PENDING: Final = "pending"
RUNNING: Final = "running"
SUCCESS: Final = "success"
FAILURE: Final = "failure"
KILLED: Final = "killed"
ERROR: Final = "error"

ALL: Final = (
    SKIPPED, BLOCKED, DECLINED, WAITING, PENDING, RUNNING, SUCCESS, FAILURE, KILLED, ERROR,
)  # fmt: skip
DONE: Final = frozenset({SKIPPED, DECLINED, SUCCESS, FAILURE, KILLED, ERROR})
OPEN: Final = frozenset(ALL) - DONE
FAILED: Final = frozenset({FAILURE, KILLED, ERROR})
UNSTARTED: Final = frozenset({BLOCKED, WAITING, PENDING})

_ENDS: Final = frozenset({SUCCESS, FAILURE, KILLED, ERROR, SKIPPED})

BUILD_MOVES: Final[Mapping[str, frozenset[str]]] = {
    PENDING: frozenset({RUNNING, DECLINED}) | _ENDS,
    RUNNING: frozenset({DECLINED}) | _ENDS,
}
STAGE_MOVES: Final[Mapping[str, frozenset[str]]] = {
    BLOCKED: frozenset({WAITING, PENDING, DECLINED, SKIPPED, ERROR}),
    WAITING: frozenset({PENDING, SKIPPED, ERROR}),
    PENDING: frozenset({RUNNING, SKIPPED, ERROR}),
    # back to pending: a silent stage that had not begun (reconciler), or a new attempt of a lost
    # one
    RUNNING: frozenset({PENDING}) | _ENDS,
}
STEP_MOVES: Final[Mapping[str, frozenset[str]]] = {
    PENDING: frozenset({RUNNING}) | _ENDS,
    RUNNING: _ENDS,
}

RANK: Final[Mapping[str, int]] = {
    status: 2 if status in DONE else 1 if status == RUNNING else 0 for status in ALL
}


def may_move(moves: Mapping[str, frozenset[str]], old: str, new: str) -> bool:
    """Whether `moves` allows `old` to become `new`; a status never becomes itself."""
    return new in moves.get(old, frozenset())


def sources(moves: Mapping[str, frozenset[str]], new: str) -> tuple[str, ...]:
    """The statuses from which `new` can be reached, in the order of `ALL`."""
    return tuple(old for old in ALL if new in moves.get(old, ()))


def stage_status(steps: Iterable[tuple[str, bool]]) -> str | None:
    """The status that finished steps force on a running stage, or None.

    `steps` are (status, failure ignored) in step order; the first hit decides. An error is never
    ignored. Source: reference section 3.4.
    """
    for status, ignored in steps:
        if status in (KILLED, ERROR):
            return status
        if status == FAILURE and not ignored:
            return FAILURE
    return None


def build_status(stages: Iterable[str]) -> str | None:
    """The final status of a build from its stages' statuses in number order; None while any is
    open.

    A declined stage counts as open until all others ended, then the build is declined.
    """
    seen = list(stages)
    if any(status in OPEN for status in seen):
        return None
    for status in seen:
        if status in FAILED:
            return status
    return DECLINED if DECLINED in seen else SUCCESS
