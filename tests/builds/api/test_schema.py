"""The API against its own description: generated calls break nothing and answer as described."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from builds import secrets, triggers
from builds.models import Repo, User


@pytest.fixture
def one_connection() -> Iterator[None]:
    """Keep requests from closing the test's connection, as Django's own client does."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    yield
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.fixture
def described(repo: Repo, root_user: User, one_connection: None) -> Any:
    """The schema as the server gives it, with one repo and one build to find."""
    triggers.create(repo, user=root_user)
    return schemathesis.openapi.from_wsgi("/api/schema", get_wsgi_application())


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_api_is_as_described(case: Any, root_user: User) -> None:
    headers = {"Authorization": f"Bearer {secrets.user_token(root_user)}"}

    answer = case.call(headers=headers)

    case.validate_response(
        answer,
        checks=[not_a_server_error, status_code_conformance, response_schema_conformance],
    )
