"""Every address of the server and the package that answers it."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from ciserver import health

handler500 = health.server_error

urlpatterns = [
    path("healthz", health.healthz),
    path("version", health.version),
    path("admin/", admin.site.urls),
    path("", include("builds.api.urls")),
    path("", include("dashboard.urls")),
]
