"""What an agent may run now, what it says of what it runs, and the lines it sends."""

from __future__ import annotations

import base64
import binascii
import contextlib
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from builds import config, debug, events, logs, reports, secrets, transitions
from builds.encryption import BadEncryption, decrypt
from builds.facts import facts
from builds.forges.git import credentials, host
from builds.logs.watch import PACE_ALONE_MS
from builds.membership import Refused, agent_by_token, join, leave, may_claim, presence
from builds.models import Agent, Build, Config, Lease, Repo, Stage, Step
from builds.queue import Again, next_stage, why_waiting
from builds.rows import Rows
from builds.transitions import LeaseClosed, StaleTransition
from pipeline import states
from pipeline.compile import Compiled, compile_stage, with_secrets
from pipeline.errors import PlatformError, UserError
from pipeline.spec import Netrc, StageSpec
from pipeline.wire import Appended, Claim, Claimed, LogPart, Pace, Report, Taken

__all__ = [
    "LeaseClosed",
    "NotYours",
    "Refused",
    "agent_by_token",
    "append_log",
    "claim",
    "join",
    "leave",
    "presence",
    "report",
    "stage_at_work",
    "take_reports",
    "why_waiting",
]

log = structlog.get_logger(__name__)

NONCE_LENGTH: Final = 64
#: With SQLite one claim at a time and process: two would choose, and compile, the same stage.
_TURN: Final = threading.Lock()

_LEASE, _STAGE, _BUILD, _REPO, _CONFIG, _STEP = (
    model._meta.db_table for model in (Lease, Stage, Build, Repo, Config, Step)
)
_BY_NONCE: Final = Rows({"l": Lease}, f"FROM {_LEASE} l WHERE l.agent_id = %s AND l.nonce = %s")
_STAGES: Final = Rows(
    {"s": Stage, "b": Build, "r": Repo, "c": Config},
    f"""FROM {_STAGE} s JOIN {_BUILD} b ON b.id = s.build_id JOIN {_REPO} r ON r.id = b.repo_id
    LEFT JOIN {_CONFIG} c ON c.build_id = b.id WHERE s.id = %s""",
)
_LEASES: Final = Rows(
    {"l": Lease, "s": Stage, "b": Build, "r": Repo},
    f"""FROM {_LEASE} l JOIN {_STAGE} s ON s.id = l.stage_id JOIN {_BUILD} b ON b.id = s.build_id
    JOIN {_REPO} r ON r.id = b.repo_id WHERE l.id = %s AND l.agent_id = %s""",
)
_STEPS: Final = Rows({"p": Step}, f"FROM {_STEP} p WHERE p.stage_id = %s ORDER BY p.number")
_LEASED_STEP: Final = Rows(
    {"l": Lease, "s": Stage, "p": Step},
    f"""FROM {_LEASE} l JOIN {_STAGE} s ON s.id = l.stage_id JOIN {_STEP} p ON p.stage_id = s.id
    WHERE l.id = %s AND l.agent_id = %s AND p.number = %s""",
)


class NotYours(UserError):
    """The lease or step belongs to another agent, or to none."""

    code = "agent:not-yours"


# --- claims ---------------------------------------------------------------------------------------


def claim(agent: Agent, question: Claim) -> Claimed | None:
    """The next stage this agent may run, as its own from now on, or None.

    The same nonce gets the same answer, compiled anew, as long as its lease is open; no other nonce
    ever gets that attempt. A stage that does not compile ends in error and the next one is tried.

    Raises: Refused for a malformed nonce.
    """
    if not 8 <= len(question.nonce) <= NONCE_LENGTH:
        raise Refused("claim:nonce", f"a nonce has 8 to {NONCE_LENGTH} characters")
    while True:
        answered = _answer_again(agent, question)
        if answered is not None:
            return answered if isinstance(answered, Claimed) else None
        if not may_claim(agent):
            return None
        with contextlib.suppress(Again), _turn():
            stage_id = next_stage(agent, question.only)
            if stage_id is None:
                return None
            claimed = _take(agent, question, stage_id)
            if claimed is not None:
                return claimed


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """One claim's choice at a time: by locked rows where there are such, else by a lock here."""
    if connection.features.has_select_for_update:
        with transaction.atomic():
            yield
    else:
        with _TURN:
            yield


def _answer_again(agent: Agent, question: Claim) -> Claimed | bool | None:
    """The answer this nonce has had; False where its lease has ended since; None for a new one."""
    found = _BY_NONCE.first(agent.pk, question.nonce)
    if found is None:
        return None
    lease: Lease = found[0]
    if lease.state != Lease.OPEN:
        return False
    stage = _load(lease.stage_id)
    if stage.started is None or stage.attempt != lease.attempt:
        return False
    spec = _spec(stage, agent, question.environ, lease.attempt, stage.started)
    Lease.objects.filter(pk=lease.pk, state=Lease.OPEN).update(seen=Now())
    return Claimed(lease.pk, spec, settings.LEASE_REPORT_S)


def _take(agent: Agent, question: Claim, stage_id: int) -> Claimed | None:
    """Compile a stage and make it the agent's.

    None if it cannot be compiled, was just taken, or the nonce was answered meanwhile.
    """
    try:
        stage, started = _load(stage_id), timezone.now()
    except Stage.DoesNotExist:
        return None
    lease_id, attempt = uuid.uuid4().hex, stage.attempt + 1
    try:
        spec = _spec(stage, agent, question.environ, attempt, started)
    except (UserError, PlatformError) as fault:
        _refuse(stage, str(fault))
        return None
    except DatabaseError:
        raise
    except Exception as fault:  # or this stage would keep every agent from all that wait behind it
        log.exception("stage.not_compiled", stage_id=stage.pk, build_id=stage.build_id)
        _refuse(stage, f"internal error: {type(fault).__name__}: {fault}")
        return None
    steps = [_step(stage, spec, index) for index in range(len(spec.steps))]
    try:
        transitions.start_stage(stage, agent, lease_id, question.nonce, steps, started)
    except (StaleTransition, IntegrityError):
        return None
    return Claimed(lease_id, spec, settings.LEASE_REPORT_S)


def _refuse(stage: Stage, text: str) -> None:
    with contextlib.suppress(StaleTransition):
        transitions.finish_stage_error(stage, text, attempt=stage.attempt)


def _load(stage_id: int) -> Stage:
    """A stage with its build, repo and config; without config where there is none."""
    found = _STAGES.first(stage_id)
    if found is None:
        raise Stage.DoesNotExist(f"stage {stage_id} was deleted")
    stage: Stage = found[0]
    _, stage.build, stage.build.repo, text = found
    if text is not None:
        stage.build.config = text
    return stage


def _spec(
    stage: Stage, agent: Agent, environ: Mapping[str, str], attempt: int, started: datetime
) -> StageSpec:
    """Compile a stage for an agent and put its secrets in.

    Raises: PipelineError and other UserErrors for the pipeline's faults.
    """
    build = stage.build
    stage.started = started
    known = facts(stage, agent.name, attempt, _failed(stage, started), build.config.paths)
    text, path = build.config.data, build.config.path
    compiled = compile_stage(
        text, file=path, facts=known, environ=environ, parsed=config.parsed(text, path)
    )
    spec = with_secrets(compiled, _secrets(stage, compiled), _netrc(stage))
    return debug.amended(spec, build)


def _failed(stage: Stage, before: datetime) -> Sequence[str]:
    """Names of the build's stages that had failed when this one started."""
    if stage.number == 1 and not stage.depends_on:
        return ()
    rows = Stage.objects.filter(build=stage.build_id, status__in=states.FAILED)
    return list(rows.filter(stopped__lte=before).values_list("name", flat=True))


def _secrets(stage: Stage, compiled: Compiled) -> dict[str, str]:
    """Values of the secrets a stage asks for; what nobody has is left out.

    Raises: UserError for data in the file that is needed and was encrypted with another key.
    """
    build = stage.build
    found = secrets.stage_secrets(build, compiled.wanted)
    encrypted = compiled.encrypted if secrets.may_open_encrypted(build) else {}
    needed = {*compiled.pull_secrets}
    needed |= {name for step in compiled.spec.steps for name in step.secrets.values()}
    for name in sorted((compiled.wanted & encrypted.keys()) - found.keys()):
        try:
            found[name] = decrypt(secrets.repo_secret(build.repo), encrypted[name])
        except BadEncryption as fault:
            if name in needed:
                raise UserError(f"secret `{name}`: {fault}", "secret:encryption") from fault
    return found


def _netrc(stage: Stage) -> Netrc | None:
    """Credentials for a private repo's clone address, if the server has any for its host."""
    repo = stage.build.repo
    known = credentials(settings.GIT_CREDENTIALS) if repo.private else {}
    found = known.get(host(repo.git_http_url))
    return (
        Netrc(urlsplit(found.host).hostname or "", found.login, found.password) if found else None
    )


def _step(stage: Stage, spec: StageSpec, index: int) -> Step:
    item = spec.steps[index]
    return Step(
        stage=stage,
        number=item.number,
        name=item.name,
        kind=item.kind,
        image=item.image,
        detached=item.detach,
        errignore=item.failure == "ignore",
        depends_on=list(item.depends_on),
    )


# --- reports and lines ----------------------------------------------------------------------------


def report(agent: Agent, lease_id: str, snapshot: Report) -> Pace:
    """Take in what an agent says of a stage: first its lines, then its statuses.

    Raises: NotYours; LeaseClosed for a lease that has ended: its lines are taken all the same.
    """
    lease = _lease(agent, lease_id)
    steps: list[Step] = []
    if lease.attempt == lease.stage.attempt:
        steps = [row[0] for row in _STEPS.all(lease.stage_id)]
    positions = _take_lines(snapshot, {step.number: step.pk for step in steps})
    cancel = transitions.merge_report(lease, steps, snapshot)
    release = debug.take(lease, steps, snapshot)
    running = [s.number for s in snapshot.steps if s.status == states.RUNNING]
    paces = [logs.pace_ms(step.pk) for step in steps if step.number in running]
    return Pace(cancel, min(paces, default=PACE_ALONE_MS), positions, release)


def _lease(agent: Agent, lease_id: str) -> Lease:
    """An agent's lease with its stage, build and repo."""
    found = _LEASES.first(lease_id, agent.pk)
    if found is None:
        raise NotYours("this lease is not this agent's")
    lease: Lease = found[0]
    _, lease.stage, lease.stage.build, lease.stage.build.repo = found
    return lease


def append_log(agent: Agent, lease_id: str, number: int, from_: int, data: bytes) -> Appended:
    """Take in a batch of a step's lines, whatever the state of its lease.

    Raises: NotYours; LeaseClosed where the stage is at another attempt by now; logs.BatchError.
    """
    lease, _, step = _leased_step(agent, lease_id, number)
    position = logs.append(step.pk, from_, data)
    if position > from_:
        events.log_grew(step.pk)
    return Appended(position, lease.state == Lease.CLOSING, logs.pace_ms(step.pk))


def take_reports(agent: Agent, lease_id: str, number: int, body: bytes) -> Taken:
    """Take in the test reports of a step, whatever the state of its lease.

    Raises: NotYours; LeaseClosed where the stage is at another attempt; reports.ReportError.
    """
    _, stage, _ = _leased_step(agent, lease_id, number)
    return Taken(reports.store(stage, number, body))


def _leased_step(agent: Agent, lease_id: str, number: int) -> tuple[Lease, Stage, Step]:
    found = _LEASED_STEP.first(lease_id, agent.pk, number)
    if found is None:
        raise NotYours("this lease, or this step of it, is not this agent's")
    lease, stage, step = found
    if lease.attempt != stage.attempt:
        raise LeaseClosed(f"lease {lease_id} has ended and its stage runs anew")
    return lease, stage, step


def stage_at_work(agent: Agent, lease_id: str) -> Stage:
    """The stage of a lease that has not ended, for what its steps ask while they run.

    Raises: NotYours, LeaseClosed.
    """
    lease = _lease(agent, lease_id)
    if lease.state == Lease.CLOSED or lease.attempt != lease.stage.attempt:
        raise LeaseClosed(f"lease {lease_id} has ended")
    return lease.stage


def _take_lines(snapshot: Report, steps: Mapping[int, int]) -> dict[str, int]:
    """Store a report's batches and the ends of logs; the position of each log that got lines."""
    parts: dict[int, list[tuple[int, bytes]]] = {}
    for part in snapshot.logs:
        if part.step in steps:
            parts.setdefault(part.step, []).append((part.from_, _batch(part)))
    ends = {s.number: s.log_end for s in snapshot.steps if s.log_end >= 0 and s.number in steps}
    bare = {steps[number] for number in ends.keys() - parts.keys()}
    known = logs.ended(bare) if bare else set()
    positions: dict[str, int] = {}
    for number in sorted(parts.keys() | ends.keys()):
        step = steps[number]
        if step in known:
            continue
        position = logs.take(step, parts.get(number, ()), ends.get(number))
        if number in parts:
            positions[str(number)] = position
        events.log_grew(step)
    return positions


def _batch(part: LogPart) -> bytes:
    try:
        return base64.b64decode(part.data, validate=True)
    except binascii.Error as fault:
        raise logs.BatchError("a batch in a report is base64", "logs:malformed") from fault
