from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import models
from django.utils import timezone

from builds.models import Build, Repo
from builds.rows import Computed, First, update

pytestmark = pytest.mark.django_db


@pytest.fixture
def build(make_repo: Callable[..., Repo]) -> Build:
    now = timezone.now()
    return Build.objects.create(
        repo=make_repo(), number=1, event="push", status="pending", created=now, updated=now
    )


def fresh(build: Build) -> Build:
    return Build.objects.get(pk=build.pk)


def test_values_are_stored_as_djangos_are(build: Build) -> None:
    when = timezone.now() - timedelta(days=3)
    changes = {"started": when, "params": {"a": "ü"}, "debug": True, "error": "it's 100%"}

    assert update(Build, {"id": build.pk}, changes) == 1

    found = fresh(build)
    assert (found.started, found.params, found.debug, found.error) == tuple(changes.values())
    assert Build.objects.filter(started=when, debug=True).exists()


def test_a_row_that_is_otherwise_is_left_alone(build: Build) -> None:
    where = {"id": build.pk, "status": ("running", "blocked")}
    assert update(Build, where, {"error": "x"}) == 0
    where["status"] = ("running", "pending")
    assert update(Build, where, {"error": "x"}) == 1
    assert fresh(build).error == "x"


def test_the_database_works_values_out(build: Build) -> None:
    before = build.version
    update(Build, {"id": build.pk}, {"updated": Computed.NOW, "version": Computed.ONE_MORE})
    found = fresh(build)
    assert found.version == before + 1
    assert abs(found.updated - timezone.now()) < timedelta(minutes=5)
    assert Build.objects.filter(updated__lte=models.functions.Now()).exists()


def test_a_first_value_stays(build: Build) -> None:
    first, second = timezone.now(), timezone.now() + timedelta(hours=1)
    for value in (first, second):
        update(Build, {"id": build.pk}, {"started": First(value)})
    assert fresh(build).started == first


def test_none_is_a_value(build: Build) -> None:
    update(Build, {"id": build.pk}, {"started": timezone.now()})
    update(Build, {"id": build.pk}, {"started": None})
    assert fresh(build).started is None
