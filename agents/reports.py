"""Snapshots of a stage attempt as the server is told them: whole, with ages instead of times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agents.execute import StepState, Walk
from pipeline import states
from pipeline.wire import HoldReport, LogPart, Report, StepReport


def snapshot(
    walk: Walk,
    now: float,
    *,
    started: float,
    begun: bool,
    ends: Mapping[int, int],
    status: str = "",
    stopped: float | None = None,
    refused: str = "",
    logs: Sequence[LogPart] = (),
    holds: tuple[HoldReport, ...] = (),
) -> Report:
    """The stage as it is `now`. `ends`: per step whose log is complete, its end position.

    With `status` (the final one) the report says that the agent is done with the stage.
    """
    return Report(
        status=status or states.RUNNING,
        begun=begun,
        done=bool(status),
        exit_code=walk.exit_code,
        error=walk.reason if status else walk.error,
        refused=refused,
        started_ms=age_ms(started, now),
        stopped_ms=age_ms(stopped, now),
        steps=tuple(_step(step, now, ends) for step in walk.steps.values()),
        logs=tuple(logs),
        holds=holds,
    )


def _step(step: StepState, now: float, ends: Mapping[int, int]) -> StepReport:
    silent = 0 if step.is_done and step.started is None else -1
    return StepReport(
        number=step.spec.number,
        status=step.status,
        exit_code=step.exit_code,
        error=step.error,
        started_ms=age_ms(step.started, now),
        stopped_ms=age_ms(step.stopped, now),
        log_end=ends.get(step.spec.number, silent) if step.is_done else -1,
    )


def age_ms(then: float | None, now: float) -> int:
    """How long ago, in milliseconds; -1 for what has not happened."""
    return -1 if then is None else max(0, int((now - then) * 1000))
