"""Whether this process can serve, and what it says when its database cannot."""

from __future__ import annotations

import sys

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.defaults import server_error as django_server_error

RETRY_AFTER_S = 2
DATABASE_FAULTS = (OperationalError, InterfaceError)


def healthz(_request: HttpRequest) -> HttpResponse:
    """200 when the database answers, 503 when not. Source: Drone's address."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DATABASE_FAULTS:
        return unavailable()
    return JsonResponse({"ok": True})


def version(_request: HttpRequest) -> HttpResponse:
    """What runs here. Source: Drone's address and keys."""
    return JsonResponse(
        {"source": "ciserver", "version": settings.VERSION, "commit": ""}, status=200
    )


def server_error(request: HttpRequest) -> HttpResponse:
    """The answer to an exception: 503 and when to try again if the database is locked or away."""
    if isinstance(sys.exc_info()[1], DATABASE_FAULTS):
        return unavailable()
    if request.path.startswith(("/api/", "/agent/")):
        return JsonResponse({"message": "internal error"}, status=500)
    return django_server_error(request)


def unavailable() -> HttpResponse:
    """503: the database does not answer."""
    return JsonResponse(
        {"message": "the database does not answer"},
        status=503,
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )
