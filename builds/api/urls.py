"""Addresses of the API and of the agent protocol."""

from __future__ import annotations

from builds.api import agent

urlpatterns = [*agent.urlpatterns]
