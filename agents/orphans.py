"""Tell the server of stages that an earlier life of this agent did not live to see the end of."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import structlog

from agents.courier import Courier
from agents.drivers.base import EXIT_ERROR
from agents.link import Link
from agents.logs.masks import Masker
from agents.logs.spool import Spool
from agents.state import Lease
from agents.undelivered import Undelivered
from pipeline import states
from pipeline.wire import LogPart, Report, StepReport

log = structlog.get_logger("agents.orphans")

MESSAGE: Final = "the agent was restarted while this ran"


def deliver(lease: Lease, link: Link) -> None:
    """Ship all lines and test reports left of a lease, report its stage as `error`, forget it.

    Raises: agents.link.Stopped; what is left to do then is done by the next life.
    """
    spools = {
        number: Spool(lease.folder, number, Masker(()), cap_bytes=_NO_CAP)
        for number in lease.steps()
    }
    ends = {number: spool.finish() for number, spool in spools.items()}
    last = lease.last_report()
    report, age_s = last or (Report(states.ERROR), 0.0)
    final = closing_report(report, int(age_s * 1000), ends)

    def snapshot(parts: tuple[LogPart, ...]) -> Report:
        return replace(final, logs=parts)

    log.warning("stage.orphaned", lease=lease.key, steps=len(spools))
    courier = Courier(
        lease.key,
        link,
        snapshot,
        report_s=_NEVER_S,
        on_cancel=lambda reason: None,
        results=Undelivered.left_in(lease.folder),
    )
    for number, spool in spools.items():
        courier.add(number, spool)
    courier.ship_all()
    courier.finish()
    for spool in spools.values():
        spool.close()
    lease.remove()


def closing_report(last: Report, age_ms: int, ends: dict[int, int]) -> Report:
    """The last report of an orphaned stage: what ran is an error, what waited is skipped.

    `age_ms` is how long ago `last` was made.
    """
    steps = tuple(_close(step, age_ms, ends.get(step.number, 0)) for step in last.steps)
    return replace(
        last,
        status=states.ERROR,
        done=True,
        exit_code=EXIT_ERROR,
        error=MESSAGE,
        started_ms=_older(last.started_ms, age_ms),
        stopped_ms=0,
        steps=steps,
        logs=(),
        holds=(),
    )


def _close(step: StepReport, age_ms: int, end: int) -> StepReport:
    started, stopped = _older(step.started_ms, age_ms), _older(step.stopped_ms, age_ms)
    step = replace(step, started_ms=started, stopped_ms=stopped, log_end=end)
    if step.status == states.PENDING:
        return replace(step, status=states.SKIPPED)
    if step.status == states.RUNNING:
        return replace(step, status=states.ERROR, exit_code=EXIT_ERROR, error=MESSAGE, stopped_ms=0)
    return step


def _older(age: int, by_ms: int) -> int:
    return age if age < 0 else age + by_ms


_NO_CAP: Final = 1 << 60
_NEVER_S: Final = 1e9
