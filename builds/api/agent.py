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

from builds import claims, membership
from builds.api.auth import bearer
from builds.logs import BatchError
from builds.models import Agent
from pipeline.errors import UserError
from pipeline.spec import from_json, to_json
from pipeline.wire import MAX_BATCH_BYTES, PREFIX, Claim, Join, Report

RETRY_AFTER_S: Final = 2
#: What a batch may weigh on the wire: data that does not compress, and the frame around it.
MAX_WIRE_BYTES: Final = MAX_BATCH_BYTES + 64 * 1024
_STATUS: Final[Mapping[str, int]] = {
    "agent:unknown-token": 401,
    "agent:token-ended": 401,
    "agent:name": 409,
    "agent:labels": 403,
    "agent:platform": 403,
    "agent:types": 403,
    "agent:not-yours": 403,
    "logs:complete": 409,
    "logs:too-large": 413,
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
    path(f"{_BASE}agents", join),
    path(f"{_BASE}agents/<int:agent_id>", leave),
    re_path(rf"^{_BASE}", csrf_exempt(unknown)),
]
