from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.db import models
from django.utils import timezone

from builds.models import Agent, Build, Config, Lease, Repo, ServerState, Stage
from builds.rows import Computed, First, Rows, insert, update

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


def test_a_row_is_read_as_django_does(build: Build) -> None:
    rows = Rows(
        {"b": Build, "c": Config},
        """FROM builds_build b
        LEFT JOIN builds_config c ON c.build_id = b.id WHERE b.id = %s""",
    )

    ((read, config),) = rows.all(build.pk)

    assert config is None
    assert read == build
    for field in Build._meta.concrete_fields:
        assert getattr(read, field.attname) == getattr(fresh(build), field.attname)
    assert read.repo == build.repo
    read.error = "changed"
    read.save()
    assert fresh(build).error == "changed"


def test_no_model_expects_more_of_its_constructor() -> None:
    """Rows are made without it."""
    for model in apps.get_app_config("builds").get_models():
        assert model.__init__ is models.Model.__init__, model
        assert model.from_db.__func__ is models.Model.from_db.__func__  # type: ignore[attr-defined]
        assert not models.signals.post_init.has_listeners(model)


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


def test_rows_are_inserted_as_django_would(make_repo: Callable[..., Repo]) -> None:
    when, repo = timezone.now() - timedelta(days=3), make_repo()
    rows = [
        Build(
            repo=repo,
            number=number,
            status="pending",
            params={"ü": "%s"},
            created=when,
            updated=when,
        )
        for number in range(1, 4)
    ]

    insert(rows)

    assert list(Build.objects.order_by("number")) == rows
    last = fresh(rows[-1])
    assert (last.number, last.params, last.created, last.started) == (3, {"ü": "%s"}, when, None)
    rows[0].error = "changed"
    rows[0].save()
    assert fresh(rows[0]).error == "changed"


def test_a_key_of_ones_own_is_kept(build: Build) -> None:
    insert([Config(build=build, path=".drone.yml", data="x")])
    assert build.config.data == "x"


def test_many_rows_go_in_several_statements(django_assert_num_queries: Callable[..., Any]) -> None:
    rows = [ServerState(key=str(number), value={"n": number}) for number in range(450)]
    with django_assert_num_queries(3):
        insert(rows)
    insert([])
    assert ServerState.objects.get(key="449").value == {"n": 449}


def test_the_database_gives_the_time(build: Build, make_agent: Callable[..., Agent]) -> None:
    stage = Stage.objects.create(
        build=build,
        repo=build.repo,
        number=1,
        name="a",
        status="running",
        created=build.created,
        updated=build.created,
    )
    lease = Lease(id="l", stage=stage, attempt=1, agent=make_agent(), nonce="n")

    insert([lease], created=Computed.NOW, seen=Computed.NOW)

    assert Lease.objects.filter(created__lte=models.functions.Now(), seen__isnull=False).exists()
    with pytest.raises(ValueError, match="time"):
        insert([Lease(id="m", stage=stage, attempt=2)], attempt=Computed.ONE_MORE)
