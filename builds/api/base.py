"""What every view of the REST API shares: who asks, what they may, and Drone's wire rules.

Source: reference server, section 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import structlog
from django.contrib.auth.models import AnonymousUser
from django.db import DatabaseError
from django.http import Http404, QueryDict
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import APIException, ParseError, ValidationError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView, set_rollback

from builds import permissions, secrets
from builds.api.auth import PARAMETER, Caller, token_of
from builds.api.schema import Schema
from builds.logs import StoreFault
from builds.models import Repo, User
from builds.permissions import Level
from builds.rows import Rows
from builds.transitions import StaleTransition
from pipeline.errors import UserError

FORM: Final = "application/x-www-form-urlencoded"
_FORMS: Final = (FORM, "multipart/form-data")
NO_CONTENT: Final = 204
NUL: Final = "\0"
NO_ROWS: Final = "sql: no rows in result set"
RETRY_AFTER_S: Final = 2
_MAX_NUMBER: Final = 2**31 - 1
_MAX_PAGE: Final = 100
_PAGE: Final = 25
_HEADERS: Final = {
    "Cache-Control": "no-cache, no-store, max-age=0, must-revalidate",
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Link",
}
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Accept, Authorization, Content-Type, X-CSRF-Token",
    "Access-Control-Max-Age": "300",
}
_STATUS_BY_CODE: Final[Mapping[str, int]] = {"repo:name-taken": 409}
_BY_SLUG: Final = Rows({"r": Repo}, f"FROM {Repo._meta.db_table} r WHERE r.slug = %s")
_log = structlog.get_logger(__name__)


def number_of(text: str) -> int:
    """A number in an address; one that no database takes becomes one that no row has."""
    return min(int(text), _MAX_NUMBER)


class Unauthorized(APIException):
    """Somebody has to log in first, or may not see it at all."""

    status_code = 401
    default_detail = "Unauthorized"


class Forbidden(APIException):
    """The caller is known and may not."""

    status_code = 403
    default_detail = "Forbidden"


class Missing(APIException):
    """There is no such row, or none for this caller; clients match the text."""

    status_code = 404
    default_detail = NO_ROWS


class Conflict(APIException):
    """It is there already, or has changed meanwhile."""

    status_code = 409


class Bad(APIException):
    """A request that makes no sense; the text is Drone's where it has one."""

    status_code = 400


class TokenOrSession(BaseAuthentication):
    """A token, else the pages' session; with the session, writing needs the CSRF token."""

    def authenticate(self, request: Request) -> tuple[Caller, None]:
        plain = request._request
        token = token_of(plain)
        if token is not None:
            return secrets.user_by_token(token) or AnonymousUser(), None
        user = plain.user
        if not user.is_authenticated or not user.is_active:
            return AnonymousUser(), None
        SessionAuthentication().enforce_csrf(request)
        return user, None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class AnyBody(BaseParser):
    """JSON whatever the content type says, unless it is a form; nothing is an empty object."""

    media_type = "*/*"

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Any = None
    ) -> Mapping[str, Any]:
        raw = stream.read()
        if (media_type or "").startswith(FORM) and not raw.lstrip().startswith(b"{"):
            return QueryDict(raw)
        if not raw.strip():
            return {}
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError) as fault:
            raise ParseError(f"the body is not JSON: {fault}") from fault
        if not isinstance(data, dict):
            raise ParseError("the body is not a JSON object")
        return data


class AlwaysJson(BaseRenderer):
    """JSON whatever is accepted; `null` where there is nothing, but for answers without a body."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None
    ) -> bytes:
        if data is None and renderer_context["response"].status_code == NO_CONTENT:
            return b""
        return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()


class NoNegotiation(BaseContentNegotiation):
    """The first of everything."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class View(APIView):
    """A view of the API: methods find their subject with the verbs below, or end in an error."""

    authentication_classes: tuple[type[BaseAuthentication], ...] = (TokenOrSession,)
    permission_classes = ()
    throttle_classes = ()
    parser_classes = (AnyBody,)
    renderer_classes = (AlwaysJson,)
    content_negotiation_class = NoNegotiation
    schema = Schema()
    request: Request

    def initial(self, request: Request, *args: Any, **values: Any) -> None:
        """Refuse what no database stores, before anything is looked up."""
        super().initial(request, *args, **values)
        if any(NUL in str(value) for value in (*values.values(), *request.query_params.values())):
            raise Bad("a zero byte is no text")

    def caller(self) -> Caller:
        """Who asks; maybe a guest."""
        return self.request.user

    def user(self) -> User:
        """Who asks; guests are refused."""
        caller = self.caller()
        if not isinstance(caller, User):
            raise Unauthorized
        return caller

    def root(self) -> User:
        """Who asks, a system administrator; others are refused."""
        user = self.user()
        if not user.is_superuser:
            raise Forbidden
        return user

    def repo(self, owner: str, name: str, level: Level) -> Repo:
        """The repo, if the caller may.

        Source: reference server, section 0: missing or out of reach is 404, for guests 401.
        """
        caller = self.caller()
        found = _BY_SLUG.first(f"{owner}/{name}")
        repo: Repo | None = found[0] if found else None
        if repo is not None and permissions.can(caller, repo, level):
            return repo
        raise Missing if caller.is_authenticated else Unauthorized

    def member(self, namespace: str, *, admin: bool = False) -> User:
        """Who asks, a member of a namespace (or its administrator); others are refused.

        Source: reference server, section 0 (Org access): denial is 401.
        """
        user = self.user()
        if not permissions.belongs(user, namespace, admin=admin):
            raise Unauthorized
        return user

    def named(self, name: str, default: str = "") -> str:
        """A named parameter, from the query or a form."""
        plain = self.request._request
        found = plain.GET.get(name)
        if found is None and plain.content_type in _FORMS:
            found = plain.POST.get(name)
        return default if found is None else str(found)

    def flag(self, name: str) -> bool:
        """A named parameter that is a yes or no."""
        return self.named(name).lower() in ("true", "1", "t", "yes")

    def params(self, *named: str) -> dict[str, str]:
        """Custom build parameters: what else the query holds."""
        known = {*named, PARAMETER}
        query = self.request.query_params
        return {key: str(value) for key, value in query.items() if key not in known}

    def page(self) -> slice:
        """The rows of the page that is asked for. Sizes outside 1 to 100 mean 25."""
        size = _number(self.named("per_page"))
        size = size if 1 <= size <= _MAX_PAGE else _PAGE
        first = (max(_number(self.named("page")), 1) - 1) * size
        return slice(first, first + size)

    def read(self, kind: type[serializers.Serializer[Any]]) -> dict[str, Any]:
        """The body's fields that are there and not null. Raises: Bad."""
        given = {key: value for key, value in self.body().items() if value is not None}
        form = kind(data=given, partial=True)
        try:
            form.is_valid(raise_exception=True)
        except ValidationError as fault:
            raise Bad(_sentence(fault.detail)) from fault
        return dict(form.validated_data)

    def body(self) -> Mapping[str, Any]:
        """The body's object."""
        data = self.request.data
        return data if isinstance(data, Mapping) else {}

    def options(self, request: Any, *_args: Any, **_values: Any) -> Response:
        """What browsers ask before calls from other origins."""
        return Response(status=204, headers=_PREFLIGHT)

    def get_exception_handler(self) -> Any:
        return answer

    def finalize_response(self, request: Any, response: Any, *args: Any, **values: Any) -> Response:
        final = super().finalize_response(request, response, *args, **values)
        for name, value in _HEADERS.items():
            final.setdefault(name, value)
        return final


def answer(fault: Exception, _context: Any) -> Response | None:
    """The answer to an exception, `{"message": text}`; None for what nobody foresaw."""
    set_rollback()
    if isinstance(fault, Http404):
        return Response({"message": "Not Found"}, 404)
    if isinstance(fault, APIException):
        return Response({"message": _sentence(fault.detail)}, fault.status_code)
    if isinstance(fault, UserError):
        status = _STATUS_BY_CODE.get(fault.code, 400)
        return Response({"message": str(fault), "code": fault.code}, status)
    if isinstance(fault, StaleTransition):
        return Response({"message": str(fault)}, 409)
    if isinstance(fault, StoreFault):
        _log.error("api.log_store_away", error=str(fault))
        return Response({"message": "the log store does not answer"}, 503)
    if isinstance(fault, DatabaseError):
        _log.warning("api.database_away", error=str(fault))
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        return Response({"message": "the database does not answer"}, 503, headers=headers)
    return None


def _sentence(detail: Any) -> str:
    if isinstance(detail, Mapping):
        return "; ".join(f"{key}: {_sentence(value)}" for key, value in detail.items())
    if isinstance(detail, list):
        return " ".join(_sentence(one) for one in detail)
    return str(detail)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0
