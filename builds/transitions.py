"""Every move of a status, and nothing else moves one (a test walks the syntax tree to prove it).

A move is an update filtered by the statuses that `pipeline.states` lets it come from, so the first
of two wins and the other finds no row. What a move entails is in the same transaction: a stage's
end releases or skips its dependents and may finish the build, and what the outside must be told is
an outbox row. A build's row is the lock of everything in it (on SQLite the transaction itself is).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection, models, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from builds import dispatch, events, logs, outbox
from builds.models import Agent, Build, Config, Lease, Repo, Stage, Step
from builds.rows import Computed, First, Rows, insert, update
from pipeline import states
from pipeline.errors import PlatformError, UserError
from pipeline.wire import Report, StepReport

log = structlog.get_logger(__name__)

ERROR_LENGTH = 500
INTERNAL_EXIT = 255
CANCEL_EXIT = 130
Moves = Mapping[str, frozenset[str]]


class StaleTransition(PlatformError):
    """Something else moved the row first: the move was not made."""


class IllegalMove(UserError):
    """A person asked for a move that the row's status does not allow."""

    code = "build:illegal-move"


class LeaseClosed(PlatformError):
    """The lease has ended; its reports change nothing any more."""


@dataclass(frozen=True, slots=True)
class StageRow:
    """What deciding about a build's stages needs to know of each."""

    id: int
    number: int
    name: str
    status: str
    depends_on: Sequence[str]
    on_success: bool
    on_failure: bool
    queue: str


_STAGE_ROW = ("id", "number", "name", "status", "depends_on", "on_success", "on_failure", "queue")
_STAGES = Rows(
    {"s": Stage}, f"FROM {Stage._meta.db_table} s WHERE s.build_id = %s ORDER BY s.number"
)


# --- builds begin ---------------------------------------------------------------------------------


def create_build(
    build: Build, stages: Sequence[Stage], config: Config, *, blocked: bool = False
) -> Build:
    """Insert a build with its next number, its config and its stages, and ring for the ready ones.

    The rows come unsaved, without number, status and times. Where `blocked`, all stages wait for
    approval.
    """
    with transaction.atomic():
        now = _insert_build(build, states.PENDING, config)
        for stage in stages:
            stage.build, stage.repo_id = build, build.repo_id
            stage.created = stage.updated = now
            stage.status = _first_status(stage, blocked)
        insert(stages)
        outbox.tell(build, states.BLOCKED if blocked else states.PENDING, "created")
        dispatch.ring_all(s.queue for s in stages if s.status == states.PENDING)
        events.stage_changed(build.repo_id, build.pk, build.number, 0, states.PENDING)
    log.info("build.created", build_id=build.pk, number=build.number, stages=len(stages))
    return build


def create_failed_build(build: Build, error: str, config: Config | None = None) -> Build:
    """Insert a build that cannot run: status error, no stages, `error` says why."""
    with transaction.atomic():
        now = timezone.now()
        build.error, build.started, build.finished = error, now, now
        _insert_build(build, states.ERROR, config)
        outbox.tell(build, states.ERROR, "created")
        events.stage_changed(build.repo_id, build.pk, build.number, 0, states.ERROR)
    log.info("build.refused", build_id=build.pk, number=build.number)
    return build


def _insert_build(build: Build, status: str, config: Config | None) -> datetime:
    now = timezone.now()
    build.number = _next_number(build.repo_id)
    build.created = build.updated = now
    build.status = status
    insert([build])
    if config is not None:
        config.build_id = build.pk
        insert([config])
    return now


def _next_number(repo_id: int) -> int:
    """Count the repo's counter up and read it, in one statement."""
    table = connection.ops.quote_name(Repo._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET counter = counter + 1 WHERE id = %s RETURNING counter",  # noqa: S608 - a constant
            [repo_id],
        )
        return int(cursor.fetchone()[0])


def _first_status(stage: Stage, blocked: bool) -> str:
    if blocked:
        return states.BLOCKED
    return states.WAITING if stage.depends_on else states.PENDING


# --- a stage runs ---------------------------------------------------------------------------------


def start_stage(
    stage: Stage,
    agent: Agent,
    lease_id: str,
    nonce: str,
    steps: Sequence[Step],
    now: datetime,
) -> None:
    """Give a pending stage to an agent: the next attempt, its lease and its steps.

    `stage` comes with its build and repo. Raises: StaleTransition if it is no longer pending.
    """
    build = stage.build
    with transaction.atomic():
        _one_row(
            stage.pk,
            states.STAGE_MOVES,
            states.RUNNING,
            only={"attempt": stage.attempt},
            attempt=stage.attempt + 1,
            agent_id=agent.pk,
            machine=agent.name,
            started=now,
            stopped=None,
            lost=None,
            updated=now,
        )
        lease = Lease(id=lease_id, stage=stage, attempt=stage.attempt + 1, agent=agent, nonce=nonce)
        insert([lease], created=Computed.NOW, seen=Computed.NOW)
        insert(steps)
        if build.status == states.PENDING and _move_row(
            Build, build.pk, states.BUILD_MOVES, states.RUNNING, started=now
        ):
            outbox.tell(build, states.RUNNING)
        _announce(stage, states.RUNNING)
    log.info(
        "stage.claimed", stage_id=stage.pk, build_id=build.pk, agent=agent.name, lease=lease_id
    )


def merge_report(lease: Lease, steps: Sequence[Step], report: Report) -> bool:
    """Take an agent's snapshot of a stage in; whether the stage is to be cancelled.

    `lease` comes with its stage, build and repo, `steps` are the stage's. What the rows already say
    wins over a report of lower rank, so order and repeats do not matter. Of a cancelled stage only
    exit codes and log ends are taken.

    Raises: LeaseClosed.
    """
    with transaction.atomic():
        _lock(lease.stage.build_id)
        state = _touch(lease, report)
        merged = [(step, r) for step in steps if (r := _of(report, step.number))]
        if state == Lease.CLOSING:
            _merge_exit_codes(merged)
        else:
            _merge_running(lease, steps, merged, report)
    return state == Lease.CLOSING


def _touch(lease: Lease, report: Report) -> str:
    """Note the sign of life, and the end where the report is the last; the state it was in."""
    changes: dict[str, Any] = {"seen": Computed.NOW}
    if report.begun:
        changes["begun"] = True
    if report.done:
        changes |= {"state": Lease.CLOSED, "ended": Computed.NOW}
    for state in (Lease.OPEN, Lease.CLOSING):
        if update(Lease, {"id": lease.pk, "state": state}, changes):
            return state
    raise LeaseClosed(f"lease {lease.pk} has ended")


def _of(report: Report, number: int) -> StepReport | None:
    return next((step for step in report.steps if step.number == number), None)


def _merge_exit_codes(merged: Sequence[tuple[Step, StepReport]]) -> None:
    for step, reported in merged:
        if reported.status in states.DONE and reported.exit_code != step.exit_code:
            Step.objects.filter(pk=step.pk, status=states.KILLED).update(
                exit_code=reported.exit_code
            )


def _merge_running(
    lease: Lease,
    steps: Sequence[Step],
    merged: Sequence[tuple[Step, StepReport]],
    report: Report,
) -> None:
    now, stage = timezone.now(), lease.stage
    after = {step.pk: step.status for step in steps}
    for step, reported in merged:
        if states.RANK.get(reported.status, 0) > states.RANK[step.status]:
            after[step.pk] = reported.status
            _move_step(step, reported, now)
    if stage.lost is not None:
        Stage.objects.filter(pk=stage.pk).update(lost=None)
    if report.done:
        _end_reported(stage, steps, after, report, now)
    elif after != {step.pk: step.status for step in steps} or stage.lost is not None:
        _announce(stage, stage.status)


def _move_step(step: Step, reported: StepReport, now: datetime) -> None:
    changes: dict[str, Any] = {}
    if reported.started_ms >= 0:
        changes["started"] = First(_ago(now, reported.started_ms))
    if reported.status in states.DONE:
        changes["exit_code"] = reported.exit_code
        changes["error"] = reported.error[:ERROR_LENGTH]
        if reported.status != states.SKIPPED:
            changes["stopped"] = _ago(now, max(reported.stopped_ms, 0))
    _move_row(Step, step.pk, states.STEP_MOVES, reported.status, **changes)


def _end_reported(
    stage: Stage,
    steps: Sequence[Step],
    after: Mapping[int, str],
    report: Report,
    now: datetime,
) -> None:
    """End a stage as its last report says, unless its steps say worse."""
    forced = states.stage_status((after[step.pk], step.errignore) for step in steps)
    ending = report.status if report.status in states.DONE else states.ERROR
    if ending == states.SUCCESS and forced:
        ending = forced
    running = states.SUCCESS if ending == states.SUCCESS else states.KILLED
    _settle_steps(stage, set(after.values()), running, now)
    error = report.error
    if report.refused:
        error = f"agent {stage.machine} refused this stage: {report.refused}"
    _end_stage(
        stage,
        ending,
        stopped=_ago(now, max(report.stopped_ms, 0)),
        exit_code=report.exit_code,
        error=error[:ERROR_LENGTH],
    )


def _ago(now: datetime, age_ms: int) -> datetime:
    return now - timedelta(milliseconds=age_ms)


# --- a stage ends or goes back --------------------------------------------------------------------


def finish_stage_error(
    stage: Stage, text: str, *, exit_code: int = INTERNAL_EXIT, attempt: int | None = None
) -> None:
    """End an open stage in error, saying why; its lease closes, open steps end.

    With `attempt`, only if the stage is still at that attempt. Raises: StaleTransition.
    """
    now = timezone.now()
    with transaction.atomic():
        _lock(stage.build_id)
        Lease.objects.filter(stage=stage).exclude(state=Lease.CLOSED).update(
            state=Lease.CLOSED, ended=Now()
        )
        _settle_steps(stage, states.OPEN, states.ERROR, now, error=text[:ERROR_LENGTH])
        _end_stage(
            stage,
            states.ERROR,
            only={} if attempt is None else {"attempt": attempt},
            stopped=now,
            exit_code=exit_code,
            error=text,
        )
    log.info("stage.error", stage_id=stage.pk, build_id=stage.build_id)


def requeue(stage: Stage, *, begun: bool = False) -> None:
    """Queue a running stage again: its lease closes, what its steps were is gone.

    With `begun` also one that had begun. Raises: StaleTransition if its lease has moved on.
    """
    with transaction.atomic():
        _lock(stage.build_id)
        leases = Lease.objects.filter(stage=stage, attempt=stage.attempt, state=Lease.OPEN)
        if not begun:
            leases = leases.filter(begun=False)
        if not leases.update(state=Lease.CLOSED, ended=Now()):
            raise StaleTransition(f"stage {stage.pk} is not waiting for its agent")
        steps = list(Step.objects.filter(stage=stage).values_list("pk", flat=True))
        Step.objects.filter(stage=stage).delete()
        _one_row(
            stage.pk,
            states.STAGE_MOVES,
            states.PENDING,
            {"attempt": stage.attempt},
            agent_id=None,
            machine="",
            started=None,
            lost=None,
            updated=timezone.now(),
        )
        dispatch.ring(stage.queue)
        _announce(stage, states.PENDING)
    for step in steps:
        logs.delete(step)
    log.info("stage.requeued", stage_id=stage.pk, build_id=stage.build_id, begun=begun)


def lose(stage: Stage, now: datetime) -> bool:
    """Mark a running stage's agent as silent: shown, but no status; whether it was not yet."""
    marked = Stage.objects.filter(pk=stage.pk, status=states.RUNNING, lost=None).update(
        lost=now, version=F("version") + 1
    )
    if marked:
        _announce(stage, stage.status)
        log.info("stage.lost", stage_id=stage.pk, build_id=stage.build_id, agent=stage.machine)
    return bool(marked)


def close_lease(lease_id: str) -> bool:
    """End a closing lease whose agent took too long; whether it was still closing."""
    return bool(
        Lease.objects.filter(pk=lease_id, state=Lease.CLOSING).update(
            state=Lease.CLOSED, ended=Now()
        )
    )


# --- people decide --------------------------------------------------------------------------------


def cancel(build_id: int, *, by: str, ending: str = states.KILLED) -> bool:
    """Stop a build at once: its leases are closing, their agents hear of it; whether it was open.

    What had started becomes killed, the rest skipped; `ending` is the build's own new status.
    """
    now = timezone.now()
    with transaction.atomic():
        build = _lock(build_id) or Build.objects.select_related("repo").get(pk=build_id)
        if not _end_build(build, ending, now):
            return False
        leases = Lease.objects.filter(stage__build_id=build_id, state=Lease.OPEN)
        agents = set(leases.values_list("agent_id", flat=True))
        leases.update(state=Lease.CLOSING, seen=Now())
        stages = Stage.objects.filter(build_id=build_id)
        steps = Step.objects.filter(stage__build_id=build_id)
        ended = {"stopped": now, "updated": now}
        _from(stages, states.RUNNING, states.KILLED, **ended)
        _move(stages, states.STAGE_MOVES, states.SKIPPED, **ended)
        _from(steps, states.RUNNING, states.KILLED, stopped=now, exit_code=CANCEL_EXIT)
        _move(steps, states.STEP_MOVES, states.SKIPPED, exit_code=CANCEL_EXIT)
        for agent_id in agents:
            events.orders(agent_id)
    log.info("build.cancelled", build_id=build_id, by=by, ending=ending)
    return True


def cancel_older(build: Build, *, running: bool) -> int:
    """Cancel older builds of the same repo, event and ref; how many.

    They become skipped; those that run already only where `running`.
    Source: reference server, section 3.4, "Auto-cancel".
    """
    open_ = [states.PENDING, states.RUNNING] if running else [states.PENDING]
    older = Build.objects.filter(
        repo=build.repo_id,
        status__in=open_,
        event=build.event,
        ref=build.ref,
        number__lt=build.number,
    )
    ids = list(older.values_list("pk", flat=True))
    return sum(cancel(pk, by=f"build {build.number}", ending=states.SKIPPED) for pk in ids)


def approve(stage: Stage, *, by: str) -> None:
    """Let a blocked stage run, at once or when its dependencies are done.

    Raises: IllegalMove, with Drone's words.
    """
    with transaction.atomic():
        build = _lock(stage.build_id) or stage.build
        rows = Stage.objects.filter(pk=stage.pk, status=states.BLOCKED)
        target = states.WAITING if stage.depends_on else states.PENDING
        if not _move(rows, states.STAGE_MOVES, target, updated=timezone.now()):
            raise IllegalMove(f'Cannot approve a Pipeline with Status "{stage.status}"')
        if target == states.PENDING:
            dispatch.ring(stage.queue)
        _announce(stage, target)
        _advance(build)
    log.info("stage.approved", stage_id=stage.pk, build_id=stage.build_id, by=by)


def decline(build: Build, *, by: str, number: int | None = None) -> None:
    """Refuse one blocked stage of a build, or all of them.

    The build is declined when none of its stages runs any more. Raises: IllegalMove.
    """
    with transaction.atomic():
        _lock(build.pk)
        now = timezone.now()
        rows = Stage.objects.filter(build=build)
        if number is not None:
            rows = rows.filter(number=number)
        if not _move(rows, states.STAGE_MOVES, states.DECLINED, stopped=now, updated=now):
            status = rows.values_list("status", flat=True).first() or build.status
            raise IllegalMove(f'Cannot decline build with status "{status}"')
        events.stage_changed(build.repo_id, build.pk, build.number, 0, build.status)
        _advance(build)
    log.info("build.declined", build_id=build.pk, by=by)


# --- how one move leads to others -----------------------------------------------------------------


def consequences(stages: Sequence[StageRow]) -> list[tuple[StageRow, str]]:
    """Which waiting stages move now, and to what: released, or skipped.

    Stages are one build's in number order. A skip may decide further ones, so it is followed
    through. What depends on a declined stage is skipped.
    Source: reference server, section 4, "Stage end".
    """
    found: list[tuple[StageRow, str]] = []
    current = list(stages)
    while True:
        step = _next_consequence(current)
        if step is None:
            return found
        index, status = step
        found.append((current[index], status))
        current[index] = replace(current[index], status=status)


def _next_consequence(stages: Sequence[StageRow]) -> tuple[int, str] | None:
    statuses: dict[str, set[str]] = {}
    for stage in stages:
        statuses.setdefault(stage.name, set()).add(stage.status)
    failed = any(stage.status in states.FAILED for stage in stages)
    for index, stage in enumerate(stages):
        if stage.status != states.WAITING:
            continue
        before = set[str]().union(*(statuses.get(name, ()) for name in stage.depends_on))
        if not before <= states.DONE:
            continue
        wanted = stage.on_failure if failed else stage.on_success
        runs = wanted and states.DECLINED not in before
        return index, states.PENDING if runs else states.SKIPPED
    return None


def _advance(build: Build) -> None:
    """Release and skip what waits, and finish the build when nothing is open."""
    stages = [
        StageRow(**{name: getattr(row, name) for name in _STAGE_ROW})
        for (row,) in _STAGES.all(build.pk)
    ]
    now = timezone.now()
    moved = dict[int, str]()
    for stage, status in consequences(stages):
        changes: dict[str, Any] = {"stopped": now} if status == states.SKIPPED else {}
        _one_row(stage.id, states.STAGE_MOVES, status, updated=now, **changes)
        moved[stage.id] = status
        if status == states.PENDING:
            dispatch.ring(stage.queue)
        events.stage_changed(build.repo_id, build.pk, build.number, stage.number, status)
    ending = states.build_status(moved.get(stage.id, stage.status) for stage in stages)
    if ending is not None:
        _end_build(build, ending, now)


def _end_build(build: Build, ending: str, now: datetime) -> bool:
    ended = _move_row(
        Build,
        build.pk,
        states.BUILD_MOVES,
        ending,
        started=First(now),
        finished=now,
        updated=now,
    )
    if ended:
        outbox.tell(build, ending)
        events.stage_changed(build.repo_id, build.pk, build.number, 0, ending)
        transaction.on_commit(lambda: log.info("build.finished", build_id=build.pk, ending=ending))
    return bool(ended)


def _end_stage(
    stage: Stage, ending: str, only: Mapping[str, Any] | None = None, **changes: Any
) -> None:
    now = timezone.now()
    _one_row(stage.pk, states.STAGE_MOVES, ending, only, lost=None, updated=now, **changes)
    _announce(stage, ending)
    _advance(stage.build)


def _settle_steps(
    stage: Stage, seen: Collection[str], running: str, now: datetime, error: str = ""
) -> None:
    """End the steps nobody will report on: pending ones are skipped, running ones `running`."""
    steps = Step.objects.filter(stage=stage)
    if states.RUNNING in seen:
        _from(steps, states.RUNNING, running, stopped=now, error=error)
    if states.PENDING in seen:
        _from(steps, states.PENDING, states.SKIPPED)


def _announce(stage: Stage, status: str) -> None:
    build = stage.build
    events.stage_changed(build.repo_id, build.pk, build.number, stage.number, status)


# --- the moves themselves -------------------------------------------------------------------------


def _lock(build_id: int) -> Build | None:
    """Hold everything of a build until the transaction ends; None where that needs no statement."""
    if not connection.features.has_select_for_update:
        return None
    return (
        Build.objects.select_for_update(of=("self",), no_key=True)
        .select_related("repo")
        .get(pk=build_id)
    )


def _move(rows: models.QuerySet[Any], moves: Moves, new: str, **changes: Any) -> int:
    """Move those of the rows that may become `new`; how many did."""
    return rows.filter(status__in=states.sources(moves, new)).update(
        status=new, version=F("version") + 1, **changes
    )


def _move_row(
    model: type[models.Model],
    pk: int,
    moves: Moves,
    new: str,
    only: Mapping[str, Any] | None = None,
    **changes: Any,
) -> int:
    """As `_move` for one row, if its columns are as `only` says."""
    where = {"id": pk, "status": states.sources(moves, new), **(only or {})}
    return update(model, where, {"status": new, "version": Computed.ONE_MORE, **changes})


def _one_row(
    pk: int, moves: Moves, new: str, only: Mapping[str, Any] | None = None, **changes: Any
) -> None:
    """As `_move_row` for a stage, or raise StaleTransition."""
    if _move_row(Stage, pk, moves, new, only, **changes) != 1:
        raise StaleTransition(f"Stage cannot become {new} any more")


def _from(rows: models.QuerySet[Any], old: str, new: str, **changes: Any) -> int:
    """Move those rows that are `old`, a move that the table of the rows' model must allow."""
    moves = states.STEP_MOVES if rows.model is Step else states.STAGE_MOVES
    return _move(rows.filter(status=old), moves, new, **changes)
