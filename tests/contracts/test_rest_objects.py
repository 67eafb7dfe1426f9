"""The objects of the REST API, key by key, as Drone's clients read them.

Source: reference server, section 2. `?` after a key: absent when zero, empty or false.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone

from builds.api import shapes
from builds.api.shapes import Shape
from builds.models import Build, Perm, Repo, Secret, Stage, Step, Template, User

pytestmark = pytest.mark.django_db

TYPES = {"i": int, "s": str, "b": bool, "m": dict, "[s]": list}

USER = """id i, login s, email s, machine b, admin b, active b, avatar s, avatar_url s, syncing b,
synced i, created i, updated i, last_login i"""
REPO = """id i, uid s, user_id i, namespace s, name s, slug s, scm s, git_http_url s, git_ssh_url s,
link s, default_branch s, private b, visibility s, active b, config_path s, trusted b, protected b,
ignore_forks b, ignore_pull_requests b, auto_cancel_pull_requests b, auto_cancel_pushes b,
auto_cancel_running b, timeout i, throttle? i, counter i, synced i, created i, updated i, version i,
archived b"""
BUILD = """id i, repo_id i, trigger s, number i, parent? i, status s, error? s, event s, action s,
link s, timestamp i, title? s, message s, before s, after s, ref s, source_repo s, source s,
target s, author_login s, author_name s, author_email s, author_avatar s, sender s, params? m,
cron? s, deploy_to? s, deploy_id? i, debug? b, started i, finished i, created i, updated i,
version i"""
STAGE = """id i, repo_id i, build_id i, number i, name s, kind? s, type? s, status s, error? s,
errignore b, exit_code i, machine? s, os s, arch s, variant? s, kernel? s, limit? i, throttle? i,
started i, stopped i, created i, updated i, version i, on_success b, on_failure b,
depends_on? [s], labels? m"""
STEP = """id i, step_id i, number i, name s, status s, error? s, errignore? b, exit_code i,
started? i, stopped? i, version i, depends_on? [s], image? s, detached? b, schema? s"""
SECRET = """id? i, repo_id? i, namespace? s, name? s, pull_request? b, pull_request_push? b"""
TEMPLATE = """id? i, name? s, namespace? s, data? s, created? i, updated? i"""
COLLABORATOR = """user_id i, repo_id s, login s, avatar s, read b, write b, admin b, synced i,
created i, updated i"""
STAGE_OF_BUILD = """repo_namespace s, repo_name s, repo_slug s, build_number i, build_author s,
build_author_name s, build_author_email s, build_author_avatar s, build_sender s, build_started i,
build_finished i, build_created i, build_updated i, stage_name s, stage_kind s, stage_type s,
stage_status s, stage_machine s, stage_os s, stage_arch s, stage_variant s, stage_kernel s,
stage_limit i, stage_limit_repo i, stage_started i, stage_stopped i"""


def keys(text: str) -> dict[str, tuple[type, bool]]:
    """Type and whether it is optional, per key."""
    words = (item.split() for item in text.replace("\n", " ").split(","))
    return {name.rstrip("?"): (TYPES[kind], name.endswith("?")) for name, kind in words}


@pytest.fixture
def rows() -> dict[str, Any]:
    """One row per table with nothing optional set."""
    now = timezone.now()
    user = User.objects.create_user("octocat")
    repo = Repo.objects.create(namespace="o", name="n", slug="o/n", owner=user)
    build = Build.objects.create(repo=repo, number=1, event="push", created=now, updated=now)
    stage = Stage.objects.create(
        build=build, repo=repo, number=1, kind="", type="", created=now, updated=now
    )
    return {
        "user": user,
        "repo": repo,
        "build": build,
        "stage": stage,
        "step": Step.objects.create(stage=stage, number=1, name="test"),
        "secret": Secret.objects.create(repo=repo, name="s", data_sealed="x"),
        "template": Template.objects.create(namespace="o", name="t.yml", data="x"),
        "perm": Perm.objects.create(user=user, repo=repo),
    }


OBJECTS: list[tuple[Shape, str, Any]] = [
    (shapes.USER, USER, User),
    (shapes.REPO, REPO, Repo),
    (shapes.BUILD, BUILD, Build),
    (shapes.STAGE, STAGE, Stage),
    (shapes.STEP, STEP, Step),
    (shapes.SECRET, SECRET, Secret),
    (shapes.TEMPLATE, TEMPLATE, Template),
    (shapes.COLLABORATOR, COLLABORATOR, Perm),
    (shapes.BUILD_STAGE, STAGE_OF_BUILD, Stage),
]
each_object = pytest.mark.parametrize(
    ("shape", "text", "model"), OBJECTS, ids=[shape.name for shape, _, _ in OBJECTS]
)


@each_object
@pytest.mark.usefixtures("rows")
def test_an_empty_row_has_the_required_keys_with_their_types(
    shape: Shape, text: str, model: Any
) -> None:
    (made,) = shape.all(model.objects.all())

    wanted = keys(text)
    assert made.keys() <= wanted.keys()
    assert {name for name, (_, optional) in wanted.items() if not optional} <= made.keys()
    for name, value in made.items():
        assert type(value) is wanted[name][0], name


def full() -> Iterator[tuple[Any, dict[str, Any]]]:
    """Values for everything that is optional."""
    now = timezone.now()
    yield Repo, {"throttle": 3}
    yield (
        Build,
        {
            "parent": 1,
            "error": "e",
            "title": "t",
            "params": {"a": "b"},
            "cron": "c",
            "deploy_to": "d",
            "deploy_id": 4,
            "debug": True,
        },
    )
    yield (
        Stage,
        {
            "kind": "pipeline",
            "type": "exec",
            "error": "e",
            "machine": "m",
            "variant": "v",
            "kernel": "k",
            "limit": 1,
            "throttle": 1,
            "depends_on": ["a"],
            "labels": {"a": "b"},
        },
    )
    yield (
        Step,
        {
            "error": "e",
            "errignore": True,
            "started": now,
            "stopped": now,
            "depends_on": ["a"],
            "image": "i",
            "detached": True,
            "schema": "s",
        },
    )
    yield Secret, {"namespace": "o", "pull_request": True, "pull_request_push": True}


@each_object
@pytest.mark.usefixtures("rows")
def test_a_full_row_has_every_key_with_its_type(shape: Shape, text: str, model: Any) -> None:
    for table, values in full():
        table.objects.update(**values)

    (made,) = shape.all(model.objects.all())

    assert {name: type(value) for name, value in made.items()} == {
        name: kind for name, (kind, _) in keys(text).items()
    }


def test_times_are_unix_seconds_and_zero_is_unset(rows: dict[str, Any]) -> None:
    build = shapes.of_model(shapes.BUILD, rows["build"])

    assert (build["started"], build["finished"]) == (0, 0)
    assert build["created"] == int(rows["build"].created.timestamp())


def test_a_steps_step_id_is_its_stages(rows: dict[str, Any]) -> None:
    assert shapes.of_model(shapes.STEP, rows["step"])["step_id"] == rows["stage"].pk


def test_what_is_sealed_never_leaves(rows: dict[str, Any]) -> None:
    for shape, _, _ in OBJECTS:
        for column in shape.columns:
            assert not column.endswith(("_sealed", "_sha256", "password"))


def test_the_schema_knows_the_same_keys() -> None:
    for shape, text, _ in OBJECTS:
        fields = shape.serializer().fields
        wanted = keys(text)
        assert wanted.keys() <= fields.keys(), shape.name
        for name, (_, optional) in wanted.items():
            assert fields[name].required is not optional, (shape.name, name)
