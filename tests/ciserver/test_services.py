"""The services that tests stand on do come up."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from tests import services

pytestmark = pytest.mark.service


def test_redis_answers(redis_service: services.Redis) -> None:
    with redis.Redis.from_url(redis_service.url) as client:
        assert client.ping()


def test_postgres_makes_databases(postgres_service: services.Postgres) -> None:
    import psycopg2

    connection = psycopg2.connect(postgres_service.create("made_by_a_test"))
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_database()")
        assert cursor.fetchone() == ("made_by_a_test",)
    connection.close()


@pytest.mark.xdist_group("chromium")
def test_chromium_shows_a_page(browser: Any) -> None:
    browser.get("data:text/html,<title>here</title>")

    assert browser.title == "here"


@pytest.mark.xdist_group("docker")
def test_docker_answers(docker_address: str) -> None:
    assert "://" in docker_address
