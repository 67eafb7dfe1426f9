"""The agent protocol, `/agent/v1`: plain views without sessions, forms or DRF (see pipeline.wire).

The presence call is in `builds.api.presence`, because it waits.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import structlog
from django.core.exceptions import RequestDataTooBig
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from builds import artifacts, claims, membership
from builds.api.auth import bearer
from builds.logs import BatchError
from builds.models import Agent
from builds.reports import ReportError
from pipeline.errors import UserError
from pipeline.spec import from_json, to_json
from pipeline.wire import (
    MAX_BATCH_BYTES,
    MAX_PART_BYTES,
    MAX_REPORTS_BYTES,
    PREFIX,
    ArtifactFile,
    Artifacts,
    Claim,
    Join,
    Kept,
    Report,
)

RETRY_AFTER_S: Final = 2
#: What a batch may weigh on the wire: data that does not compress, and the frame around it.
MAX_WIRE_BYTES: Final = MAX_BATCH_BYTES + 64 * 1024
_STATUS: Final[Mapping[str, int]] = {
    "agent:unknown-token": 401,
    "agent:token-ended": 401,
    "agent:name": 409,
    "agent:bad-name": 400,
    "agent:disabled": 403,
    "agent:labels": 403,
    "agent:platform": 403,
    "agent:types": 403,
    "agent:too-old": 403,
    "agent:not-yours": 403,
    "logs:complete": 409,
    "logs:too-large": 413,
    "reports:too-large": 413,
    "artifacts:too-large": 413,
    "artifacts:too-many": 413,
}
_log = structlog.get_logger(__name__)

View = Callable[..., HttpResponse]
Message = TypeVar("Message")


def answering(view: View) -> View:
    """Turn what a call raises into the protocol's errors."""

    @csrf_exempt
    @functools.wraps(view)
    def answer(request: HttpRequest, **values: Any) -> HttpResponse:
        try:
            return view(request, **values)
        except claims.LeaseClosed as fault:
            return _error(410, "lease:closed", str(fault))
        except UserError as fault:
            return _error(_STATUS.get(fault.code, 400), fault.code, str(fault))
        except artifacts.ArtifactGone as fault:
            _log.error("artifact.gone", path=request.path, error=str(fault))
            return _error(404, "artifacts:gone", str(fault))
        except RequestDataTooBig:
            return _error(413, "request:too-large", "the request is too large")
        except DatabaseError as fault:
            _log.warning("agent.database_away", path=request.path, error=str(fault))
            response = _error(503, "database:away", "the database does not answer")
            response["Retry-After"] = str(RETRY_AFTER_S)
            return response

    return answer


def by_agent(view: View) -> View:
    """Pass the agent whose token the call carries as the first argument; 401 without one."""

    @answering
    @functools.wraps(view)
    def call(request: HttpRequest, **values: Any) -> HttpResponse:
        agent = claims.agent_by_token(bearer(request.headers.get("Authorization", "")))
        if agent is None:
            return _error(401, "agent:unknown", "unknown or revoked agent token")
        return view(request, agent, **values)

    return call


@require_http_methods(["POST"])
@answering
def join(request: HttpRequest) -> HttpResponse:
    """`POST agents`: a join token and a description become an agent with its own token.

    With `?check=1` none is made: the answer says whether it would be, and where tickets come from.
    """
    token = bearer(request.headers.get("Authorization", ""))
    address = request.META.get("REMOTE_ADDR", "")
    hello = _read(Join, request)
    if "check" in request.GET:
        return _json(membership.would_join(token, hello))
    return _json(claims.join(token, hello, address))


@require_http_methods(["DELETE"])
@by_agent
def leave(request: HttpRequest, agent: Agent, agent_id: int) -> HttpResponse:
    """`DELETE agents/{id}?reason=`: the agent goes."""
    if agent.pk != agent_id:
        return _error(403, "agent:not-yours", "this token is another agent's")
    claims.leave(agent, request.GET.get("reason", ""))
    return HttpResponse(status=204)


@require_http_methods(["POST"])
@by_agent
def claim(request: HttpRequest, agent: Agent) -> HttpResponse:
    """`POST claims`: a lease with what to run, or 204."""
    claimed = claims.claim(agent, _read(Claim, request))
    return HttpResponse(status=204) if claimed is None else _json(claimed)


@require_http_methods(["PUT"])
@by_agent
def report(request: HttpRequest, agent: Agent, lease: str) -> HttpResponse:
    """`PUT leases/{lease}`: a snapshot of the stage."""
    return _json(claims.report(agent, lease, _read(Report, request)))


@require_http_methods(["POST"])
@by_agent
def append_log(request: HttpRequest, agent: Agent, lease: str, step: int) -> HttpResponse:
    """`POST leases/{lease}/steps/{n}/log?from=POS`: a batch of lines."""
    text = request.GET.get("from", "")
    if not text.isdecimal() or len(text) > 18:
        raise BatchError("from: expected a position", "logs:malformed")
    data = request.read(MAX_WIRE_BYTES + 1)
    if len(data) > MAX_WIRE_BYTES:
        raise BatchError(f"a batch has at most {MAX_WIRE_BYTES} bytes", "logs:too-large")
    return _json(claims.append_log(agent, lease, step, int(text), data))


@require_http_methods(["POST"])
@by_agent
def take_reports(request: HttpRequest, agent: Agent, lease: str, step: int) -> HttpResponse:
    """`POST leases/{lease}/steps/{n}/reports`: the test reports of a step, all of them."""
    data = request.read(MAX_REPORTS_BYTES + 1)
    if len(data) > MAX_REPORTS_BYTES:
        raise ReportError(f"reports have at most {MAX_REPORTS_BYTES} bytes", "reports:too-large")
    return _json(claims.take_reports(agent, lease, step, data))


@require_http_methods(["GET"])
@by_agent
def list_artifacts(request: HttpRequest, agent: Agent, lease: str) -> HttpResponse:
    """`GET leases/{lease}/artifacts?name=`: the files of a name in the lease's build."""
    stage = claims.stage_at_work(agent, lease)
    found = artifacts.found(stage.build_id, request.GET.get("name", ""))
    files = [ArtifactFile(one.path, one.size_bytes, one.sha256, one.mode) for one in found]
    return _json(Artifacts(tuple(files)))


@require_http_methods(["GET", "PUT"])
@by_agent
def artifact(request: HttpRequest, agent: Agent, lease: str, path: str) -> HttpResponse:
    """`GET`, `PUT leases/{lease}/artifacts/{path}?offset=`: a part of a file, out or in."""
    stage = claims.stage_at_work(agent, lease)
    offset = _number(request, "offset")
    if request.method == "GET":
        found = artifacts.one(stage.build_id, path)
        if found is None:
            return _error(404, "artifacts:unknown", f"there is no artifact {path}")
        part = artifacts.part(found, offset)
        return HttpResponse(part, content_type="application/octet-stream")
    upload, data = request.GET.get("upload", ""), request.read(MAX_PART_BYTES + 1)
    return _json(Kept(artifacts.add(stage, path, upload, offset, data, _end(request))))


def _end(request: HttpRequest) -> artifacts.End | None:
    """What the last part says of the whole; None for another part."""
    if "size" not in request.GET:
        return None
    numbers = [_number(request, name) for name in ("size", "mode", "expire_s")]
    size, mode, expire_s = numbers
    return artifacts.End(size, request.GET.get("sha256", ""), mode or 0o644, expire_s)


def _number(request: HttpRequest, name: str) -> int:
    text = request.GET.get(name, "0")
    if not text.isdecimal() or len(text) > 18:
        raise UserError(f"{name}: expected a number", "request:malformed")
    return int(text)


def unknown(request: HttpRequest) -> HttpResponse:
    """Anything else below the prefix, in the protocol's words."""
    return _error(404, "request:unknown", f"the agent protocol has no {request.path}")


def _read(kind: type[Message], request: HttpRequest) -> Message:
    try:
        return from_json(kind, json.loads(request.body))
    except (ValueError, RecursionError) as fault:
        raise UserError(str(fault), "request:malformed") from fault


def _json(message: Any) -> HttpResponse:
    body = json.dumps(to_json(message), separators=(",", ":"))
    return HttpResponse(body, content_type="application/json")


def _error(status: int, code: str, message: str) -> HttpResponse:
    body = json.dumps({"message": message, "code": code})
    return HttpResponse(body, status=status, content_type="application/json")


_BASE = PREFIX.lstrip("/")
urlpatterns = [
    path(f"{_BASE}claims", claim),
    path(f"{_BASE}leases/<str:lease>", report),
    path(f"{_BASE}leases/<str:lease>/steps/<int:step>/log", append_log),
    path(f"{_BASE}leases/<str:lease>/steps/<int:step>/reports", take_reports),
    path(f"{_BASE}leases/<str:lease>/artifacts", list_artifacts),
    path(f"{_BASE}leases/<str:lease>/artifacts/<path:path>", artifact),
    path(f"{_BASE}agents", join),
    path(f"{_BASE}agents/<int:agent_id>", leave),
    re_path(rf"^{_BASE}", csrf_exempt(unknown)),
]
